//! A closure in a process of its own, with the verbs of a task (Linux).
//!
//! A Wasm program runs on the thread that waits for it. Where somebody has to outlive the program (to write down how it
//! ended, to keep its output, to serve several clients), it runs in here: a fork of the caller that is killed with the
//! caller, has its own session, streams and terminal, and waits at a gate between being set up and being started.
//!
//! What the closure sets up, and in which words it fails, is the caller's business.

use std::fmt;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, ioctl_tiocsctty, pidfd_open, set_parent_process_death_signal,
    setsid, waitid,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::{Error, Result};
use crate::process::{self, exit_status};
use crate::signal::Signal;
use crate::stdio::{Stdio, Stream, TerminalSize};
use crate::task::{ExitStatus, Status};

/// First byte from inside: all is set up.
const READY: u8 = b'R';
/// First byte from inside: it failed, the words follow.
const FAILED: u8 = b'F';
/// Last byte from inside: it wanted more memory than it may have.
const TOO_MUCH: u8 = b'M';
/// The byte to the inside that opens the gate.
const START: u8 = b'S';
/// The most words that are listened to.
const LONGEST: u64 = 64 << 10;

/// A process that runs a closure of ours.
///
/// Dropped before it was started, it is killed and reaped. Dropped later, it goes on as long as its creator does.
pub struct Apart {
    id: String,
    pid: Pid,
    pidfd: OwnedFd,
    talk: UnixStream,
    started: bool,
    console: Option<OwnedFd>,
    ended: Option<ExitStatus>,
    out_of_memory: bool,
}

/// The inside's end of the conversation.
#[derive(Debug)]
pub struct Gate(UnixStream);

impl Gate {
    /// Says that all is set up, and waits until the program may run. `false` when it never may: the creator is gone.
    pub fn pass(&mut self) -> bool {
        let mut order = [0];
        self.0.write_all(&[READY]).is_ok() && self.0.read_exact(&mut order).is_ok() && order[0] == START
    }

    /// Says, after the end, that it was for want of memory.
    pub fn out_of_memory(mut self) {
        self.0.write_all(&[TOO_MUCH]).ok();
    }

    /// Says why there is nothing to run. Nobody is left to be told when that fails.
    pub fn fail(mut self, words: &[u8]) {
        self.0.write_all(&[FAILED]).and_then(|()| self.0.write_all(words)).ok();
    }
}

/// What is heard from inside before the gate.
#[derive(Debug)]
pub enum News {
    /// All is set up.
    Ready,
    /// It failed, and says so in these words; empty when it died without any.
    Failed(Vec<u8>),
}

impl Apart {
    /// Starts the process; `body` runs in it as on a process's own first thread, with its streams in the places of
    /// standard input, output and error, and its result is the exit code. The calling process must have one thread.
    ///
    /// # Errors
    /// [`Error::Setup`] and [`Error::Host`] when there is no such process.
    pub fn spawn(id: &str, stdio: Stdio, body: impl FnOnce(Gate) -> u8) -> Result<Self> {
        Ok(Self::spawn_in(id, stdio, false, None, body)?.0)
    }

    /// The same; one that is `lasting` outlives its creator. It is born in this control group, where it can be: says whether.
    pub(crate) fn spawn_in(
        id: &str,
        stdio: Stdio,
        lasting: bool,
        group: Option<BorrowedFd<'_>>,
        body: impl FnOnce(Gate) -> u8,
    ) -> Result<(Self, bool)> {
        let (streams, console) = match stdio {
            Stdio::Streams { stdin, stdout, stderr } => ([stdin, stdout, stderr], None),
            Stdio::Terminal(size) => {
                let (master, slave) =
                    terminal(size).map_err(|errno| failed("open a terminal")(errno.into()))?;
                let slave = File::from(slave);
                let copy = || slave.try_clone().map(Stream::File);
                let copies = [copy(), copy(), copy()].map(|copy| copy.map_err(failed("open a terminal")));
                let [stdin, stdout, stderr] = copies;
                ([stdin?, stdout?, stderr?], Some(master))
            }
        };
        let (ours, theirs) = UnixStream::pair().map_err(failed("make a socket pair"))?;
        let (mut ours, mut console) = (Some(ours), console);
        let (child, in_group) = process::fork_into(group, || {
            // The creator's end must not live on here: its closing tells that the creator is gone.
            drop(ours.take());
            let has_terminal = console.take().is_some();
            match enter(&streams, has_terminal, lasting) {
                Ok(()) => body(Gate(theirs)),
                Err(_) => 1,
            }
        })?;
        let raw = i32::try_from(child.pid()).ok().and_then(Pid::from_raw);
        let pid = raw.ok_or_else(|| failed("fork")(Errno::OVERFLOW.into()))?;
        let pidfd =
            pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| failed("hold a process")(errno.into()))?;
        let talk = ours.take().ok_or_else(|| failed("fork")(Errno::BADF.into()))?;
        let apart = Self {
            id: id.to_owned(),
            pid,
            pidfd,
            talk,
            started: false,
            console: console.take(),
            ended: None,
            out_of_memory: false,
        };
        Ok((apart, in_group))
    }

    /// Waits until the inside is ready or has given up.
    ///
    /// # Errors
    /// When it cannot be heard.
    pub fn news(&mut self) -> Result<News> {
        let mut first = [0];
        let mut words = Vec::new();
        match self.talk.read(&mut first) {
            Ok(1) if first[0] == READY => return Ok(News::Ready),
            Ok(1) => (&self.talk).take(LONGEST).read_to_end(&mut words).map(drop),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        }
        .map_err(failed("hear from the sandbox"))?;
        self.wait()?;
        Ok(News::Failed(words))
    }

    /// A descriptor that becomes readable when the process ends.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().cast_unsigned()
    }

    pub(crate) fn status(&self) -> Status {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let alive = || matches!(waitid(WaitId::PidFd(self.pidfd.as_fd()), options), Ok(None));
        match (&self.ended, self.started) {
            (Some(_), _) => Status::Stopped,
            (None, _) if !alive() => Status::Stopped,
            (None, false) => Status::Created,
            (None, true) => Status::Running,
        }
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        if self.started {
            let reason = format!("task {} was started before", self.id);
            return Err(Error::InvalidSpec { field: "id", reason });
        }
        self.started = true;
        // If it has died meanwhile, waiting tells how.
        self.talk.write_all(&[START]).ok();
        Ok(())
    }

    pub(crate) fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.ended {
            return Ok(status);
        }
        let status = loop {
            match waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => break status,
                Ok(None) | Err(Errno::INTR) => {}
                Err(errno) => return Err(failed("wait for the sandbox")(errno.into())),
            }
        };
        let status = exit_status(status.exit_status(), status.terminating_signal());
        self.ended = Some(status);
        // What it said last is there already, and nobody else has its end.
        let mut last = [0];
        self.talk.set_nonblocking(true).ok();
        self.out_of_memory = matches!(self.talk.read(&mut last), Ok(1)) && last[0] == TOO_MUCH;
        Ok(status)
    }

    pub(crate) fn out_of_memory(&self) -> bool {
        self.out_of_memory
    }

    pub(crate) fn kill(&self, signal: Signal) -> Result<()> {
        if self.ended.is_some() {
            return Err(Error::NotRunning { id: self.id.clone() });
        }
        process::send_to_task(self.pidfd.as_fd(), (&self.id, self.pid()), signal)
    }

    pub(crate) fn take_console(&mut self) -> Option<OwnedFd> {
        self.console.take()
    }

    pub(crate) fn delete(mut self) -> Result<()> {
        if self.ended.is_none() {
            match self.kill(Signal::KILL) {
                Ok(()) | Err(Error::NotRunning { .. }) => {}
                Err(error) => return Err(error),
            }
            self.wait()?;
        }
        Ok(())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if !self.started && self.ended.is_none() {
            // Never started. A failure leaves a process that ends by itself: the gate never opens.
            if self.kill(Signal::KILL).is_ok() {
                self.wait().ok();
            }
        }
    }
}

impl fmt::Debug for Apart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Apart").field("id", &self.id).field("pid", &self.pid).finish_non_exhaustive()
    }
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Setup { action: action.to_owned(), source }
}

/// A new terminal: its master, its slave.
fn terminal(size: Option<TerminalSize>) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    if let Some(size) = size {
        let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size)?;
    }
    Ok((master, slave))
}

/// Makes the new process its own master and connects its streams.
fn enter(streams: &[Stream; 3], terminal: bool, lasting: bool) -> rustix::io::Result<()> {
    if !lasting {
        // Should the creator be gone already, the gate says so.
        set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    }
    setsid()?;
    let null = || {
        rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
    };
    for (number, stream) in streams.iter().enumerate() {
        let opened;
        let fd = match stream {
            Stream::Inherit => continue,
            Stream::Null => {
                opened = null()?;
                opened.as_fd()
            }
            Stream::File(file) => file.as_fd(),
        };
        match number {
            0 => dup2_stdin(fd)?,
            1 => dup2_stdout(fd)?,
            _ => dup2_stderr(fd)?,
        }
    }
    if terminal {
        ioctl_tiocsctty(rustix::stdio::stdin())?;
    }
    Ok(())
}
