//! The first process of a container with `--init`: this very program, under another name. It runs the container's program,
//! passes signals on to it, and reaps processes that have lost their parents. Nothing else of the command is in reach.

use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use dhow_engine::runtime::process::{self, Signals};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, setpgid, wait};
use rustix::termios::{isatty, tcsetpgrp};

/// The name it is called by in a container.
const NAME: &str = "/dev/init";

/// Docker's codes.
const NOT_FOUND: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Does it all, if this process is one; gives its exit code.
pub(crate) fn main() -> Option<u8> {
    let mut words = std::env::args_os();
    let is_init =
        words.next().is_some_and(|name| name == NAME) && words.next().is_some_and(|word| word == "--");
    is_init.then(|| run(words.collect()))
}

fn run(words: Vec<OsString>) -> u8 {
    let mut words = words.into_iter();
    let (Some(program), Ok(signals)) = (words.next(), Signals::watch()) else { return NOT_EXECUTABLE };
    let arguments: Vec<OsString> = words.collect();
    let child = process::fork(|| {
        // A group of its own, in the foreground of the terminal if there is one: Ctrl-C is for it alone.
        setpgid(None, None).ok();
        if isatty(std::io::stdin()) {
            tcsetpgrp(std::io::stdin(), rustix::process::getpid()).ok();
        }
        Signals::obey();
        let error = Command::new(&program).args(&arguments).exec();
        crate::ui::Ui::new().error(&format!("exec: \"{}\": {error}", program.to_string_lossy()));
        if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_EXECUTABLE }
    });
    let Ok(child) = child else { return NOT_EXECUTABLE };
    let Some(child) = i32::try_from(child.pid()).ok().and_then(Pid::from_raw) else { return NOT_EXECUTABLE };
    loop {
        if let Some(code) = reap(child) {
            return code;
        }
        poll(&mut [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)], None).ok();
        while let Some(number) = signals.next() {
            let signal = Signal::from_named_raw(i32::from(number));
            if let Some(signal) = signal.filter(|signal| *signal != Signal::CHILD) {
                // It may have ended.
                kill_process(child, signal).ok();
            }
        }
    }
}

/// Takes all who have ended; the program's code, if it is among them.
fn reap(child: Pid) -> Option<u8> {
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
        if pid == child {
            return Some(code(status));
        }
    }
    None
}

fn code(status: WaitStatus) -> u8 {
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}
