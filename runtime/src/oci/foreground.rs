//! `run` and `exec` without `--detach`: this process stays, passes on signals and the terminal, and ends as the program
//! ends.
//!
//! One `poll` over the process, the signals and both sides of a terminal; nothing here blocks on one of them while
//! another has something to say.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::{Errno, read, write};
use rustix::process::{Pid, WaitOptions, getpid, set_child_subreaper, waitpid};
use rustix::stdio::{stdin, stdout};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::container;
use super::create::Made;
use super::error::{Error, Result};
use super::exec::Session;
use crate::native::gate;
use crate::process::{Signals, default_child_signal};
use crate::signal::Signal;
use crate::small_file;
use crate::stdio::TerminalSize;
use crate::task::Task;

/// From now on signals are read, not obeyed. Before the process is made, so that none is lost.
///
/// # Errors
/// When the kernel has no descriptor left.
pub fn watch() -> Result<Signals> {
    default_child_signal()?;
    Signals::watch().map_err(Error::of("watch signals"))
}

/// The size of this process's terminal.
pub fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(stdin()).or_else(|_| tcgetwinsize(stdout())).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

impl Made {
    /// Makes this process the parent of those whose own parents in the container end before them, so that they do not stay
    /// in the host's process table when that has no better one. A container with a process namespace of its own needs
    /// nobody for this: they are its first process's.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn adopt_orphans(&self) -> Result<()> {
        if self.container.saved.own_processes {
            return Ok(());
        }
        set_child_subreaper(Some(getpid())).map_err(Error::of("become the parent of orphans"))
    }

    /// Lets the program run; gives what hooks had to complain about.
    ///
    /// # Errors
    /// When it cannot be executed; nothing is left of the container then.
    pub fn start(mut self) -> Result<(Started, Vec<String>)> {
        if let Err(error) = self.task.start() {
            let group = self.container.group();
            self.container.destroy(&group)?;
            return Err(Error::Start(error));
        }
        gate::started(self.container.folder.as_fd())?;
        self.container.folder.unlock();
        let complaints = self.container.started(self.hooks.as_ref())?;
        Ok((Started { container: self.container, task: self.task, console: self.console }, complaints))
    }
}

/// A container that runs.
#[derive(Debug)]
pub struct Started {
    container: container::Container,
    task: Task,
    console: Option<OwnedFd>,
}

impl Started {
    pub(super) fn new(container: container::Container, task: Task, console: Option<OwnedFd>) -> Self {
        Self { container, task, console }
    }

    /// Stays until the end; gives the exit code. The container is removed then, unless it is to be kept.
    ///
    /// # Errors
    /// When the end cannot be learned.
    pub fn attend(mut self, signals: &Signals, keep: bool) -> Result<(u8, Vec<String>)> {
        let code = attend(&mut self.task, self.console.take(), signals)?;
        if keep {
            return Ok((code, Vec::new()));
        }
        let Self { container, task, .. } = self;
        // With all that it holds it ends with this process, which is about to.
        std::mem::forget(task);
        match container.remove_ended() {
            // Somebody else was faster.
            Err(Error::NotExist(_)) => Ok((code, Vec::new())),
            deleted => Ok((code, deleted?)),
        }
    }
}

impl Session {
    /// Stays until the end; gives the exit code.
    ///
    /// # Errors
    /// When the end cannot be learned.
    pub fn attend(mut self, signals: &Signals) -> Result<u8> {
        attend(&mut self.task, self.console.take(), signals)
    }
}

fn attend(task: &mut Task, console: Option<OwnedFd>, signals: &Signals) -> Result<u8> {
    let mut terminal = console.map(Terminal::connect).transpose()?;
    loop {
        let ended = {
            let Some(process) = task.pidfd() else { return Ok(task.wait()?.code()) };
            let mut fds = vec![
                PollFd::from_borrowed_fd(process, PollFlags::IN),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            if let Some(terminal) = &terminal {
                terminal.interest(&mut fds);
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(Error::of("wait for the container")(errno)),
            }
            !fds[0].revents().is_empty()
        };
        // What comes for one that has ended is for nobody, and orphans are looked after by whoever comes after this process.
        while let Some(number) = if ended { None } else { signals.next() } {
            if i32::from(number) == libc::SIGCHLD {
                bury_orphans(task.pid());
            }
            pass(task, number, terminal.as_ref());
        }
        if let Some(terminal) = &mut terminal {
            terminal.copy();
        }
        if ended {
            if let Some(terminal) = &mut terminal {
                terminal.drain();
            }
            return Ok(task.wait()?.code());
        }
    }
}

/// Forgets children that have ended, but for the container's own process: that one's end has somebody who asks.
fn bury_orphans(own: u32) {
    // One thread, so these are all.
    let Ok(children) = small_file::text("/proc/thread-self/children") else { return };
    for pid in children.split(' ').filter_map(|word| word.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get().cast_unsigned() != own)
        {
            waitpid(Some(pid), WaitOptions::NOHANG).ok();
        }
    }
}

fn pass(task: &Task, number: u8, terminal: Option<&Terminal>) {
    match (i32::from(number), terminal) {
        // Of no concern to the container: children of ours, Go's own, and what the kernel sends about this process.
        (libc::SIGCHLD | libc::SIGURG | libc::SIGPIPE, _) => {}
        (libc::SIGWINCH, Some(terminal)) => terminal.resize(),
        _ => {
            if let Some(signal) = Signal::from_number(number) {
                // One that has ended will be noticed in a moment.
                task.kill(signal).ok();
            }
        }
    }
}

/// The container's terminal behind this process's own, which is raw meanwhile.
struct Terminal {
    master: OwnedFd,
    /// Of this process's terminal, to be put back.
    before: Option<Termios>,
    /// Typed, and not taken by the container yet.
    typed: Vec<u8>,
    input: bool,
    output: bool,
}

impl Terminal {
    fn connect(master: OwnedFd) -> Result<Self> {
        let shown = || "connect the terminal";
        let flags = fcntl_getfl(&master).map_err(Error::of(shown()))?;
        fcntl_setfl(&master, flags | OFlags::NONBLOCK).map_err(Error::of(shown()))?;
        let mut before = None;
        if std::io::stdin().is_terminal() {
            let mode = tcgetattr(stdin()).map_err(Error::of(shown()))?;
            let mut raw = mode.clone();
            raw.make_raw();
            tcsetattr(stdin(), OptionalActions::Now, &raw).map_err(Error::of(shown()))?;
            before = Some(mode);
        }
        let terminal = Self { master, before, typed: Vec::new(), input: true, output: true };
        terminal.resize();
        Ok(terminal)
    }

    fn resize(&self) {
        if let Ok(size) = tcgetwinsize(stdin()) {
            tcsetwinsize(&self.master, size).ok();
        }
    }

    fn interest<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let mut flags = PollFlags::empty();
        flags.set(PollFlags::IN, self.output);
        flags.set(PollFlags::OUT, !self.typed.is_empty());
        if !flags.is_empty() {
            fds.push(PollFd::from_borrowed_fd(self.master.as_fd(), flags));
        }
        if self.input && self.typed.is_empty() {
            fds.push(PollFd::from_borrowed_fd(stdin(), PollFlags::IN));
        }
    }

    /// Whatever can be copied without waiting.
    fn copy(&mut self) {
        let mut buffer = [0; 16 << 10];
        if self.output {
            self.output = self.show(&mut buffer);
        }
        if self.input && self.typed.is_empty() && is_readable(stdin()) {
            match read(stdin(), &mut buffer[..1024]) {
                Ok(0) | Err(_) => self.input = false,
                Ok(length) => self.typed.extend_from_slice(&buffer[..length]),
            }
        }
        if let Ok(length) = write(&self.master, &self.typed) {
            self.typed.drain(..length);
        }
    }

    /// Copies what the container says now; `false` when it will say no more.
    fn show(&self, buffer: &mut [u8]) -> bool {
        match read(&self.master, &mut *buffer) {
            Ok(0) => false,
            Ok(length) => {
                let mut rest = &buffer[..length];
                while !rest.is_empty() {
                    match write(stdout(), rest) {
                        Ok(length) => rest = &rest[length..],
                        Err(Errno::INTR) => {}
                        // Nobody is left to be shown anything; the container must not wait for that.
                        Err(_) => break,
                    }
                }
                true
            }
            Err(Errno::AGAIN | Errno::INTR) => true,
            // What a terminal says whose last user is gone.
            Err(_) => false,
        }
    }

    /// What it has said last.
    fn drain(&mut self) {
        let mut buffer = [0; 16 << 10];
        while self.output && is_readable(self.master.as_fd()) {
            self.output = self.show(&mut buffer);
        }
    }
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&now)).is_ok_and(|count| count > 0)
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that has gone away needs no mode.
            tcsetattr(stdin(), OptionalActions::Now, before).ok();
        }
    }
}
