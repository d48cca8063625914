//! A program of others that a build calls, such as `git`. On Linux it ends with the process that waits for it, however that
//! ends, and so do the programs that it calls in turn: a process in between sees to that.

#[cfg(target_os = "linux")]
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
const MOST: usize = 1 << 20;

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
/// When it cannot be started: [`std::io::ErrorKind::NotFound`] where it is not installed,
/// [`std::io::ErrorKind::PermissionDenied`] where it is, but is no program that this user may start.
#[cfg(target_os = "linux")]
pub fn call(mut command: Command) -> std::io::Result<Said> {
    let ((mut out, to_out), (mut err, to_err)) = (std::io::pipe()?, std::io::pipe()?);
    command.stdin(Stdio::null()).stdout(to_out).stderr(to_err);
    let caller = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
    let keeper = process::fork(move || keep(command, &caller)).map_err(std::io::Error::other)?;
    let [stdout, stderr] = both([&mut out, &mut err])?;
    let code = keeper.wait().map_err(std::io::Error::other)?.code();
    match code {
        NOT_FOUND if stderr.is_empty() => Err(std::io::ErrorKind::NotFound.into()),
        NOT_STARTED if stderr.is_empty() => Err(std::io::ErrorKind::PermissionDenied.into()),
        code => Ok(Said { success: code == 0, stdout: text(&stdout), stderr: text(&stderr) }),
    }
}

/// A shell's code for what is not there.
#[cfg(target_os = "linux")]
const NOT_FOUND: u8 = 127;
/// And for what is there, but cannot be started.
#[cfg(target_os = "linux")]
const NOT_STARTED: u8 = 126;

/// The beginnings of what comes through two pipes, each read as it comes: who writes to one must not wait for the reader
/// of the other.
#[cfg(target_os = "linux")]
fn both(pipes: [&mut std::io::PipeReader; 2]) -> std::io::Result<[Vec<u8>; 2]> {
    let mut kept = [Vec::new(), Vec::new()];
    let mut open: Vec<_> = pipes.into_iter().zip(&mut kept).collect();
    let mut buffer = [0; 8192];
    while !open.is_empty() {
        let mut fds: Vec<_> = open.iter().map(|(pipe, _)| PollFd::new(&**pipe, PollFlags::IN)).collect();
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            result => result?,
        };
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for at in (0..ready.len()).rev().filter(|at| ready[*at]) {
            let (pipe, kept) = &mut open[at];
            let count = pipe.read(&mut buffer)?;
            kept.extend_from_slice(&buffer[..count.min(MOST.saturating_sub(kept.len()))]);
            if count == 0 {
                open.remove(at);
            }
        }
    }
    Ok(kept)
}

/// The life of the process in between. Such a program has others, which end with its session.
#[cfg(target_os = "linux")]
fn keep(mut command: Command, caller: &OwnedFd) -> u8 {
    let spawned = rustix::process::setsid().map_err(std::io::Error::from).and_then(|_| command.spawn());
    // Its ends of the pipes would keep them open.
    drop(command);
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return NOT_FOUND,
        Err(_) => return NOT_STARTED,
    };
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
    Ok(Said { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(MOST)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_of_a_text() {
        assert_eq!(text(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(text(&vec![b'x'; 2 << 20]).len(), MOST);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn neither_pipe_waits_for_the_other() {
        for order in [[0, 1], [1, 0]] {
            let ((mut out, to_out), (mut err, to_err)) = (std::io::pipe().unwrap(), std::io::pipe().unwrap());
            // More than a pipe holds, to one and then to the other.
            let writer = std::thread::spawn(move || {
                let mut to = [to_out, to_err];
                for at in order {
                    std::io::Write::write_all(&mut to[at], &vec![[b'0', b'1'][at]; 2 << 20]).unwrap();
                }
            });
            let [stdout, stderr] = both([&mut out, &mut err]).unwrap();
            writer.join().unwrap();
            assert!(stdout == vec![b'0'; MOST] && stderr == vec![b'1'; MOST]);
        }
    }
}
