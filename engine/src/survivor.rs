//! Telling a process from another one that was given its number later, and ending one that outlived its monitor (Linux).
//!
//! A container's first process asks to be killed with its monitor, but may take that back; so who finds a container
//! without a monitor looks whether its process still lives.

use fs_err as fs;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::error::Result;

/// When a living process was started, in clock ticks since boot: field 22 of `/proc/<pid>/stat`.
pub(crate) fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, and may hold anything.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace();
    // One that has ended and only waits to be asked for runs nothing any more.
    if matches!(fields.next()?, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Kills a process if it is still the one that was started then, and waits until it is gone.
pub(crate) fn end(pid: u32, started: u64) -> Result<()> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
    let process = match pidfd_open(number, PidfdFlags::empty()) {
        Ok(process) => process,
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        Err(error) => return Err(std::io::Error::from(error).into()),
    };
    // Asked while the process is held: its number cannot pass to another one meanwhile.
    if start_time(pid) != Some(started) {
        return Ok(());
    }
    match pidfd_send_signal(&process, Signal::KILL) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => return Err(std::io::Error::from(error).into()),
    }
    let mut gone = [rustix::event::PollFd::new(&process, rustix::event::PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut gone, None) {
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
            Ok(_) => return Ok(()),
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
