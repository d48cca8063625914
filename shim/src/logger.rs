//! `binary://` logging: a program of the user's reads what a container says from two pipes.
//!
//! containerd's contract: descriptor 3 is standard output, 4 standard error, 5 a pipe that is closed when the program is
//! ready; `CONTAINER_ID` and `CONTAINER_NAMESPACE` are in its environment, the query of the URI are its arguments.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use dhow_runtime::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{Code, Failure};

/// How long it may take to become ready, as with others.
const LONGEST: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A program that is to be started.
#[derive(Debug)]
pub(crate) struct Logger {
    program: String,
    args: Vec<String>,
    pub(crate) stdout: Option<OwnedFd>,
    pub(crate) stderr: Option<OwnedFd>,
}

impl Logger {
    pub(crate) fn of(uri: &str) -> Self {
        let rest = uri.strip_prefix("binary://").unwrap_or(uri);
        let (program, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut args = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            args.push(decoded(key));
            if !value.is_empty() {
                args.push(decoded(value));
            }
        }
        Self { program: decoded(program), args, stdout: None, stderr: None }
    }

    /// What it reads, which has to be open where it is started.
    pub(crate) fn handles(&self) -> Vec<BorrowedFd<'_>> {
        [&self.stdout, &self.stderr].into_iter().flatten().map(AsFd::as_fd).collect()
    }

    /// Starts it and waits until it is ready. To be called where nothing but this is open.
    pub(crate) fn start(&self, id: &str, namespace: &str) -> Result<(), Failure> {
        let failed = || Failure::of(format!("start the logger {}", self.program));
        let null = || open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let (ready, told) = pipe_with(PipeFlags::CLOEXEC).map_err(failed())?;
        let null_device = null().map_err(failed())?;
        let stdout = self.stdout.as_ref().unwrap_or(&null_device);
        let stderr = self.stderr.as_ref().unwrap_or(&null_device);
        let mut told = Some(told);
        let child = process::fork(|| {
            let Some(told) = told.take() else { return 1 };
            // The lowest numbers that are free are 3, 4 and 5 then.
            let placed =
                dup2_stdin(stdout).and_then(|()| dup2_stdout(stderr)).and_then(|()| dup2_stderr(&told));
            process::keep_only(&[]);
            let placed = placed.and_then(|()| {
                let streams = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
                for stream in streams {
                    // They stay open for the program.
                    std::mem::forget(rustix::io::dup(stream)?);
                }
                let null = null()?;
                dup2_stdin(&null)?;
                dup2_stdout(&null)?;
                dup2_stderr(&null)
            });
            if placed.is_err() {
                return 1;
            }
            let mut command = Command::new(&self.program);
            command.args(&self.args).env("CONTAINER_ID", id).env("CONTAINER_NAMESPACE", namespace);
            // Only comes back when it failed.
            let _error = command.exec();
            127
        });
        child.map_err(Failure::of(format!("start the logger {}", self.program)))?;
        drop(told);
        let mut wait = [PollFd::new(&ready, PollFlags::IN)];
        match rustix::io::retry_on_intr(|| poll(&mut wait, Some(&LONGEST))) {
            Ok(0) => Err(Failure::new(Code::Unknown, format!("the logger {} is not ready", self.program))),
            // A word or the pipe's end; one that could not be started leaves pipes that nobody reads.
            Ok(_) => Ok(()),
            Err(errno) => Err(failed()(errno)),
        }
    }
}

/// A part of a URI as it is meant.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let number = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
        match (first, after.get(..2).and_then(number)) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            (b'+', _) => {
                bytes.push(b' ');
                rest = after;
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_is_a_program_and_its_arguments() {
        let logger = Logger::of("binary:///usr/bin/log?id=a%20b&-v&x=1+2");
        assert_eq!(logger.program, "/usr/bin/log");
        assert_eq!(logger.args, ["id", "a b", "-v", "x", "1 2"]);
        assert_eq!(Logger::of("binary:///log").args, [""; 0]);
        assert_eq!(decoded("%zz%4"), "%zz%4");
    }
}
