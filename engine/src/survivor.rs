//! Telling a process from another one that was given its number later, holding it, and ending one that outlived its
//! monitor (Linux).
//!
//! A container's first process asks to be killed with its monitor, but may take that back; so who finds a container
//! without a monitor looks whether its process still lives.

use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use dhow_runtime::{Signal, process};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::error::Result;

/// When a living process was started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    // At most 51 numbers of 20 digits and a name of 64 bytes. A file of /proc has no size to be asked for, and is
    // read in whole by one call.
    let mut text = [0; 2048];
    let length =
        fs::File::open(format!("/proc/{pid}/stat")).and_then(|mut stat| stat.read(&mut text)).ok()?;
    // The name may be cut within a character.
    let stat = String::from_utf8_lossy(&text[..length]);
    // The second field is the program's name in parentheses, and may hold anything.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    // One that has ended and only waits to be asked for runs nothing any more.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A process that is held: its number cannot pass to another one.
#[derive(Debug)]
pub(crate) struct Held {
    pidfd: OwnedFd,
    pid: u32,
    started: u64,
}

/// Holds a process if it is still the one that was started then, and lives.
pub(crate) fn hold(pid: u32, started: u64) -> Result<Option<Held>> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(Errno::SRCH) => return Ok(None),
        Err(error) => return Err(std::io::Error::from(error).into()),
    };
    // Asked while it is held.
    Ok((start_time(pid) == Some(started)).then_some(Held { pidfd: process, pid, started }))
}

impl Held {
    /// Sends a signal; `false` when the process has ended.
    pub(crate) fn send(&self, signal: Signal) -> Result<bool> {
        match process::send(self.pidfd.as_fd(), signal) {
            Ok(()) => Ok(true),
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for its end, for ever without a limit; `false` when the limit was reached first.
    pub(crate) fn ends(&self, limit: Option<Duration>) -> Result<bool> {
        let deadline = limit.map(|limit| Instant::now() + limit);
        let mut gone = [PollFd::new(&self.pidfd, PollFlags::IN)];
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match poll(&mut gone, left.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
                Ok(count) => return Ok(count > 0),
            }
        }
    }

    /// Whether it is the process of this number that was started then.
    pub(crate) fn is(&self, pid: u32, started: Option<u64>) -> bool {
        self.pid == pid && Some(self.started) == started
    }

    /// Its number.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    /// Readable when the process has ended.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

/// Kills a process if it is still the one that was started then, and waits until it is gone.
pub(crate) fn end(pid: u32, started: u64) -> Result<()> {
    if let Some(process) = hold(pid, started)?
        && process.send(Signal::KILL)?
    {
        process.ends(None)?;
    }
    Ok(())
}

/// Waits until a process that was sent the signal stands still; `false` when it has ended instead. All its threads do
/// then, as the kernel stops them together.
pub(crate) fn stops(pid: u32) -> Result<bool> {
    loop {
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(false) };
        let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().next());
        match state {
            Some("T" | "t") => return Ok(true),
            Some("Z" | "X") | None => return Ok(false),
            Some(_) => std::thread::sleep(Duration::from_micros(200)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_process() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let started = start_time(child.id()).unwrap();
        end(child.id(), started + 1).unwrap();
        assert!(child.try_wait().unwrap().is_none());
        end(child.id(), started).unwrap();
        assert!(!child.wait().unwrap().success());
        end(child.id(), started).unwrap();
    }
}
