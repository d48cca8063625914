//! Hooks of the specification: programs of the host that are told a container's state.
//!
//! Each gets an environment of its own and nothing else, the state on standard input, and the time it is given.
//! They are run where the caller is: in the creator for the runtime's namespaces, in the container's process for the
//! container's.

use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::Hook;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// What a hook has written, as far as it is repeated in a message.
const MOST_WORDS: u64 = 4096;

/// The state that hooks are told, as far as it does not change.
#[derive(Debug, Clone, Default)]
pub(crate) struct Subject {
    /// `ociVersion` of the specification.
    pub(crate) version: String,
    /// The container.
    pub(crate) id: String,
    /// Its bundle's folder.
    pub(crate) bundle: String,
    /// The specification's.
    pub(crate) annotations: Option<std::collections::HashMap<String, String>>,
}

impl Subject {
    /// The state as the specification shows it.
    pub(crate) fn state(&self, status: &str, pid: u32) -> String {
        let mut state = serde_json::json!({ "ociVersion": self.version, "id": self.id, "status": status });
        if pid != 0 {
            state["pid"] = pid.into();
        }
        state["bundle"] = self.bundle.as_str().into();
        if let Some(annotations) = &self.annotations {
            state["annotations"] = serde_json::json!(annotations);
        }
        state.to_string()
    }
}

/// Runs hooks one after the other; the first that fails ends it.
///
/// # Errors
/// Which one failed and how.
pub(crate) fn run(kind: &str, hooks: &[Hook], state: &str) -> Result<(), String> {
    for (number, hook) in hooks.iter().enumerate() {
        run_one(hook, state).map_err(|why| format!("error running {kind} hook #{number}: {why}"))?;
    }
    Ok(())
}

/// As [`run`], for hooks whose failure is only noted: all of them run.
pub(crate) fn run_all(kind: &str, hooks: &[Hook], state: &str) -> Vec<String> {
    let runs = hooks.iter().enumerate();
    let failed = |(number, hook): (usize, &Hook)| {
        Some(format!("error running {kind} hook #{number}: {}", run_one(hook, state).err()?))
    };
    runs.filter_map(failed).collect()
}

fn run_one(hook: &Hook, state: &str) -> Result<(), String> {
    let words = |error: std::io::Error| format!("{}: {error}", hook.path().display());
    let mut input = memory()?;
    input.write_all(state.as_bytes()).and_then(|()| input.rewind()).map_err(words)?;
    let mut said = memory()?;
    let output = |said: &std::fs::File| said.try_clone().map(Stdio::from).map_err(words);
    let mut command = Command::new(hook.path());
    command.env_clear().stdin(input).stdout(output(&said)?).stderr(output(&said)?);
    if let Some((name, arguments)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(name).args(arguments);
    }
    for entry in hook.env().iter().flatten() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        if !name.is_empty() {
            command.env(name, value);
        }
    }
    let mut child = command.spawn().map_err(words)?;
    let limit = hook.timeout().and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
    let Some(status) = wait(&mut child, limit).map_err(words)? else {
        return Err(format!("{}: took longer than {} s", hook.path().display(), hook.timeout().unwrap_or(0)));
    };
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    said.rewind().and_then(|()| (&said).take(MOST_WORDS).read_to_end(&mut text)).map_err(words)?;
    let how = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    };
    let output = String::from_utf8_lossy(&text);
    Err(format!("{how}, stdout and stderr: {}", output.trim_end()))
}

/// A file in memory: neither side waits for the other, however much there is to say.
fn memory() -> Result<std::fs::File, String> {
    let fd: rustix::io::Result<OwnedFd> = memfd_create("hook", MemfdFlags::CLOEXEC);
    fd.map(std::fs::File::from).map_err(|errno| format!("cannot make a file in memory: {errno}"))
}

/// Its end; `None` when it was killed because its time was over.
fn wait(child: &mut Child, limit: Option<Duration>) -> std::io::Result<Option<ExitStatus>> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let (Some(limit), Some(pid)) = (limit, pid) else { return child.wait().map(Some) };
    let process = pidfd_open(pid, PidfdFlags::empty())?;
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&left)) {
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
            Ok(_) => return child.wait().map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::HookBuilder;

    fn sh(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].map(str::to_owned).to_vec();
        let mut hook = HookBuilder::default()
            .path("/bin/sh")
            .args(args)
            .env(vec!["A=b".to_owned()])
            .build()
            .expect("hook");
        hook.set_timeout(timeout);
        hook
    }

    #[test]
    fn hooks_are_told_the_state_and_nothing_else() {
        let check = r#"read line; [ "$line" = told ] && [ "$A" = b ] && [ -z "$HOME" ]"#;
        assert_eq!(run("test", &[sh(check, Some(60))], "told\n"), Ok(()));
        let failed = run("prestart", &[sh("true", None), sh("echo why >&2; exit 3", None)], "").unwrap_err();
        assert_eq!(failed, "error running prestart hook #1: exit status 3, stdout and stderr: why");
        assert!(run("test", &[sh("kill -9 $$", None)], "").unwrap_err().contains("signal 9"));
        assert_eq!(run_all("test", &[sh("false", None), sh("true", None)], "").len(), 1);
    }

    #[test]
    fn a_hook_that_takes_too_long_is_killed() {
        let failed = run("test", &[sh("exec sleep 600", Some(1))], "").unwrap_err();
        assert!(failed.contains("took longer than 1 s"), "{failed}");
    }

    #[test]
    fn the_state_is_the_specification_s() {
        let subject =
            Subject { version: "1.2.0".into(), id: "a".into(), bundle: "/b".into(), annotations: None };
        let state = subject.state("created", 7);
        assert_eq!(state, r#"{"ociVersion":"1.2.0","id":"a","status":"created","pid":7,"bundle":"/b"}"#);
        assert!(!subject.state("stopped", 0).contains("pid"));
    }
}
