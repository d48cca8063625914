//! Copies that nobody waits for: between a terminal and its pipes, and from a pipe to a file.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::termios::{Winsize, tcsetwinsize};

/// One copy.
#[derive(Debug)]
pub(crate) struct Pump {
    /// What is shown is read here: a terminal's master, or a pipe.
    from: Option<OwnedFd>,
    /// Where it goes.
    to: Option<OwnedFd>,
    shown: Vec<u8>,
    /// What is typed, for a terminal.
    input: Option<OwnedFd>,
    typed: Vec<u8>,
    is_terminal: bool,
    /// The process has ended: what is there now is the rest.
    ending: bool,
}

impl Pump {
    /// From a pipe to a file.
    pub(crate) fn file(from: OwnedFd, to: OwnedFd) -> Self {
        Self::of(from, Some(to), None, false)
    }

    /// Between a terminal's master and pipes that are never waited for.
    pub(crate) fn terminal(
        master: OwnedFd,
        input: Option<OwnedFd>,
        output: Option<OwnedFd>,
    ) -> rustix::io::Result<Self> {
        let flags = fcntl_getfl(&master)?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK)?;
        Ok(Self::of(master, output, input, true))
    }

    fn of(from: OwnedFd, to: Option<OwnedFd>, input: Option<OwnedFd>, is_terminal: bool) -> Self {
        let from = Some(from);
        Self { from, to, shown: Vec::new(), input, typed: Vec::new(), is_terminal, ending: false }
    }

    /// The size of the terminal.
    pub(crate) fn resize(&self, columns: u16, rows: u16) -> rustix::io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        self.from.as_ref().map_or(Ok(()), |master| tcsetwinsize(master, size))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// From now on what is there is the rest.
    pub(crate) fn end(&mut self) {
        self.ending = true;
        self.input = None;
        self.typed.clear();
    }

    /// What is to be waited for.
    pub(crate) fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        if let Some(from) = &self.from {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, self.shown.is_empty());
            flags.set(PollFlags::OUT, !self.typed.is_empty());
            if !flags.is_empty() {
                fds.push(PollFd::from_borrowed_fd(from.as_fd(), flags));
            }
        }
        if let Some(to) = self.to.as_ref().filter(|_| !self.shown.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(to.as_fd(), PollFlags::OUT));
        }
        if let Some(input) = self.input.as_ref().filter(|_| self.typed.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(input.as_fd(), PollFlags::IN));
        }
    }

    /// Copies what can be copied now; `false` when there will be nothing more.
    pub(crate) fn run(&mut self) -> bool {
        let mut buffer = [0; 16 << 10];
        loop {
            if !self.show() {
                break;
            }
            let Some(from) = &self.from else { break };
            match read(from, &mut buffer) {
                Ok(0) => self.from = None,
                Ok(length) => self.shown.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    if self.ending && self.is_terminal {
                        self.from = None;
                    }
                    break;
                }
                // What a terminal says whose last user is gone.
                Err(_) => self.from = None,
            }
        }
        self.read_typed(&mut buffer);
        self.from.is_some() || !self.shown.is_empty()
    }

    /// Writes what is waiting; `false` when it cannot all be written.
    fn show(&mut self) -> bool {
        while !self.shown.is_empty() {
            let Some(to) = &self.to else {
                self.shown.clear();
                return true;
            };
            match write(to, &self.shown) {
                Ok(length) => drop(self.shown.drain(..length)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return false,
                // A full disk, a reader that is gone: the program goes on.
                Err(_) => self.shown.clear(),
            }
        }
        true
    }

    fn read_typed(&mut self, buffer: &mut [u8]) {
        if let Some(input) = self.input.as_ref().filter(|_| self.typed.is_empty()) {
            match read(input, &mut buffer[..1024]) {
                Ok(0) => self.input = None,
                Ok(length) => self.typed.extend_from_slice(&buffer[..length]),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(_) => self.input = None,
            }
        }
        let Some(master) = self.from.as_ref().filter(|_| !self.typed.is_empty()) else { return };
        if let Ok(length) = write(master, &self.typed) {
            self.typed.drain(..length);
        }
    }
}
