//! A program of others that a build calls, such as `git`. On Linux it ends with the process that waits for it, however that
//! ends, and so do the programs that it calls in turn: a process in between sees to that.

use std::io::Read;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

#[cfg(target_os = "linux")]
use dhow_runtime::process;
#[cfg(target_os = "linux")]
use rustix::event::{PollFd, PollFlags, poll};
#[cfg(target_os = "linux")]
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

/// The most that is kept of either of the two things a program says.
const MOST: u64 = 1 << 20;

/// How a program ended.
#[derive(Debug)]
pub struct Said {
    /// Whether it says that all was well.
    pub success: bool,
    /// Its output, the beginning at least.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

/// Runs a program, without input. The process must have one thread.
///
/// # Errors
/// When it cannot be started: [`std::io::ErrorKind::NotFound`] where it is not installed.
#[cfg(target_os = "linux")]
pub fn call(mut command: Command) -> std::io::Result<Said> {
    let ((mut out, to_out), (mut err, to_err)) = (std::io::pipe()?, std::io::pipe()?);
    command.stdin(Stdio::null()).stdout(to_out).stderr(to_err);
    let caller = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let keeper = process::fork(move || keep(command, &caller)).map_err(std::io::Error::other)?;
    // Complaints come all the time; the output is short, and waits.
    let (stderr, stdout) = (text(&mut err)?, text(&mut out)?);
    let code = keeper.wait().map_err(std::io::Error::other)?.code();
    if code == NOT_FOUND && stderr.is_empty() {
        return Err(std::io::ErrorKind::NotFound.into());
    }
    Ok(Said { success: code == 0, stdout, stderr })
}

/// A shell's code for what is not there.
#[cfg(target_os = "linux")]
const NOT_FOUND: u8 = 127;

/// The life of the process in between. Such a program has others, which end with its session.
#[cfg(target_os = "linux")]
fn keep(mut command: Command, caller: &OwnedFd) -> u8 {
    let spawned = rustix::process::setsid().map_err(std::io::Error::from).and_then(|_| command.spawn());
    // Its ends of the pipes would keep them open.
    drop(command);
    let Ok(mut child) = spawned else { return NOT_FOUND };
    let ended = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let ended = ended.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(ended) = &ended {
        let mut fds = [PollFd::new(caller, PollFlags::IN), PollFd::new(ended, PollFlags::IN)];
        while matches!(poll(&mut fds, None), Err(rustix::io::Errno::INTR)) {}
        if !fds[0].revents().is_empty() {
            // This process is one of them.
            rustix::process::kill_current_process_group(Signal::KILL).ok();
        }
    }
    let code = child.wait().ok().and_then(|status| status.code());
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// As on Linux, but for the end of this process.
#[cfg(not(target_os = "linux"))]
pub fn call(mut command: Command) -> std::io::Result<Said> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = |mut bytes: &[u8]| text(&mut bytes);
    Ok(Said {
        success: output.status.success(),
        stdout: text(&output.stdout)?,
        stderr: text(&output.stderr)?,
    })
}

fn text(from: &mut dyn Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    (&mut *from).take(MOST).read_to_end(&mut bytes)?;
    // Who writes more must not wait for a reader.
    std::io::copy(from, &mut std::io::sink())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_text() {
        let said = text(&mut &b"a\xffb"[..]).unwrap();
        assert_eq!(said, "a\u{fffd}b");
        let long = vec![b'x'; 2 << 20];
        assert_eq!(text(&mut &long[..]).unwrap().len() as u64, MOST);
    }
}
