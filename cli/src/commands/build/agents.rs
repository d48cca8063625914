//! `--ssh`: agents that are there, and agents of our own for keys in files.
//!
//! An own one is `ssh-agent` with the keys that `ssh-add` gives it: what a key's file may look like is their affair. It
//! lives as long as this process, however that ends: it leads a shell whose `cat` reads from a pipe of ours, and ends some
//! seconds after it. The shell takes its socket away at once, and at a usual end the keys are taken away, too.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::error::hinted;

/// How long an agent may take to listen.
const PATIENCE: Duration = Duration::from_secs(5);
/// What an agent leads. Ctrl-C is for this process, whose end it waits for.
const COMPANION: &str =
    "trap '' INT QUIT HUP; cat >/dev/null; rm -f \"$SSH_AUTH_SOCK\"; rmdir \"${SSH_AUTH_SOCK%/agent}\"";

/// An agent with keys of files.
pub(super) struct Own {
    child: Child,
    folder: PathBuf,
}

impl Drop for Own {
    fn drop(&mut self) {
        call("ssh-add", &["-q", "-D"], &self.socket()).ok();
        drop(self.child.stdin.take());
        self.child.wait().ok();
        dhow_engine::images::remove_tree(&self.folder).ok();
    }
}

impl Own {
    fn socket(&self) -> PathBuf {
        self.folder.join("agent")
    }
}

/// `default`, `ID`, `ID=SOCKET`, `ID=KEY,...`: the id, the socket, and what keeps it there.
pub(super) fn agent(text: &str) -> Result<(String, PathBuf, Option<Own>)> {
    let (id, paths) = text.split_once('=').map_or((text, None), |(id, paths)| (id, Some(paths)));
    let paths: Vec<PathBuf> = match paths {
        Some(paths) => paths.split(',').map(PathBuf::from).collect(),
        None => vec![std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from).ok_or_else(|| {
            hinted(
                format!(
                    "invalid empty ssh agent socket: the environment has no SSH_AUTH_SOCK for --ssh {id}"
                ),
                "start one with `eval $(ssh-agent)` and `ssh-add`, or name a key with `ID=KEY`",
            )
        })?],
    };
    if let [path] = paths.as_slice()
        && is_socket(path)
    {
        return Ok((id.to_owned(), std::path::absolute(path)?, None));
    }
    for path in &paths {
        if !path.is_file() {
            return Err(hinted(
                format!("ssh {id}: {} is neither a socket of an agent nor a key", path.display()),
                "name the socket of an agent, or files with private keys: `ID=KEY,KEY`",
            ));
        }
    }
    let own = start(id, &paths)?;
    Ok((id.to_owned(), own.socket(), Some(own)))
}

fn is_socket(path: &Path) -> bool {
    #[cfg(unix)]
    return fs_err::metadata(path)
        .is_ok_and(|meta| std::os::unix::fs::FileTypeExt::is_socket(&meta.file_type()));
    #[cfg(not(unix))]
    return path.exists() && !path.is_file();
}

/// A new folder for temporary files that nobody else may look into. A socket's path must be short.
fn temporary() -> Result<PathBuf> {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("dhow-ssh-{}-{number}", std::process::id()));
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(&folder).map_err(|error| anyhow::anyhow!("cannot make {}: {error}", folder.display()))?;
    Ok(folder)
}

fn start(id: &str, keys: &[PathBuf]) -> Result<Own> {
    let folder = temporary()?;
    let socket = folder.join("agent");
    let spawned = Command::new("ssh-agent")
        .arg("-a")
        .arg(&socket)
        .args(["sh", "-c", COMPANION])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = match spawned {
        Ok(child) => child,
        Err(error) => {
            fs_err::remove_dir_all(&folder).ok();
            return Err(hinted(
                format!("ssh {id}: cannot start ssh-agent for the keys: {error}"),
                "install OpenSSH's client, or give the socket of an agent",
            ));
        }
    };
    let own = Own { child, folder };
    let began = Instant::now();
    while !socket.exists() {
        if began.elapsed() > PATIENCE {
            return Err(hinted(
                format!("ssh {id}: ssh-agent does not listen"),
                "give the socket of an agent",
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    for key in keys {
        let key = key.display().to_string();
        call("ssh-add", &["-q", "--", &key], &socket).map_err(|reason| {
            hinted(
                format!("ssh {id}: {key} cannot be used: {reason}"),
                "it must be a private key without a passphrase that only you may read; else use an agent",
            )
        })?;
    }
    Ok(own)
}

/// Calls one of OpenSSH's programs, which asks nobody. The error is what it says.
fn call(program: &str, words: &[&str], socket: &Path) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(words).env("SSH_AUTH_SOCK", socket).env("SSH_ASKPASS_REQUIRE", "force");
    command.env("SSH_ASKPASS", "false").env("LC_ALL", "C");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| format!("cannot start {program}: {error}"))?;
    let mut said = String::new();
    if let Some(stderr) = &mut child.stderr {
        stderr.take(4096).read_to_string(&mut said).ok();
    }
    match child.wait() {
        Ok(status) if status.success() => Ok(()),
        Ok(_) => Err(said
            .lines()
            .filter(|line| !line.contains("@@@@"))
            .map(str::trim)
            .collect::<Vec<_>>()
            .join(" ")),
        Err(error) => Err(error.to_string()),
    }
}
