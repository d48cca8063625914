//! The client's side of an attached run: the user's streams and signals to the monitor, the container's output back.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use dhow_runtime::process::Child;
use dhow_runtime::{ExitStatus, Kind, Signal, TerminalSize};
use nix::sys::signal::Signal as Number;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;

use super::{Route, Routes, forwarded};
use crate::attach::{CHUNK, Failure, Frame, Inbox, Outbox};
use crate::error::{Error, Result};

/// A running container's client.
#[derive(Debug)]
pub(crate) struct Client {
    monitor: Child,
    socket: UnixStream,
    routes: Routes,
    /// Streams go through the monitor. A Wasm guest reads the user's terminal itself, and two readers would take each
    /// other's input.
    copies: bool,
}

/// How an attached run ended, from the client's view.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The container ran and ended with this code.
    Code(u8),
    /// The monitor ended like this (a Wasm container: the container did) and could write nothing down.
    Unwritten(ExitStatus),
}

/// What the monitor said about the end.
#[derive(Debug, Default)]
struct LastWords {
    failure: Option<Failure>,
    code: Option<u8>,
    /// Why output could not be passed on.
    unwritten: Option<std::io::Error>,
}

impl LastWords {
    /// Keeps the first failure to write; the container goes on.
    fn wrote(&mut self, outcome: std::io::Result<()>) {
        if let (Err(error), None) = (outcome, &self.unwritten) {
            self.unwritten = Some(error);
        }
    }
}

impl Client {
    pub(super) fn new(monitor: Child, socket: UnixStream, routes: Routes, kind: Kind) -> Self {
        Self { monitor, socket, routes, copies: kind == Kind::Native }
    }

    /// Copies until the container has ended. With `reap` it also waits until nothing of the monitor is left, not even
    /// the number: a control group is not empty before.
    pub(crate) fn attend(mut self, reap: bool) -> Result<Ended> {
        let mut last = LastWords::default();
        self.copy(&mut last)?;
        let status = if reap || (last.code.is_none() && last.failure.is_none()) {
            Some(self.monitor.wait()?)
        } else {
            None
        };
        if let Some(failure) = last.failure {
            return Err(Error::Start { message: failure.message, hint: failure.hint, code: failure.code });
        }
        if let Some(error) = last.unwritten {
            // The container has run to its end all the same, and that is written down.
            return Err(error.into());
        }
        if let Some(code) = last.code {
            // The monitor only has to end, and init will see to that.
            return Ok(Ended::Code(code));
        }
        Ok(Ended::Unwritten(status.unwrap_or(ExitStatus::Code(u8::MAX))))
    }

    /// The loop; over when the monitor has said how it ended, or has ended without a word.
    fn copy(&mut self, last: &mut LastWords) -> Result<()> {
        let (mut wants_input, terminal) = match self.routes {
            Routes::Terminal { input, .. } => (input && self.copies, true),
            Routes::Streams(routes) => (routes[0] == Route::Copy, false),
        };
        let mut signals = SignalFd::with_flags(&forwarded(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .map_err(std::io::Error::from)?;
        self.socket.set_nonblocking(true)?;
        let (mut inbox, mut outbox) = (Inbox::default(), Outbox::default());
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut wanted = PollFlags::IN;
            wanted.set(PollFlags::OUT, !outbox.is_empty());
            let mut fds = vec![
                PollFd::from_borrowed_fd(self.socket.as_fd(), wanted),
                PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
            ];
            let reads_input = wants_input && outbox.has_room();
            if reads_input {
                fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(std::io::Error::from(error).into()),
            }
            let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
            let (socket_ready, signal_ready, input_ready) = (ready(0), ready(1), reads_input && ready(2));
            if signal_ready {
                self.pass_on(&mut signals, terminal, &mut outbox)?;
            }
            if input_ready {
                wants_input = read_input(&mut stdin, &mut outbox)?;
            }
            if socket_ready {
                let open = inbox.fill(&mut self.socket)?;
                while let Some((frame, payload)) = inbox.next()? {
                    match frame {
                        Frame::Stdout => last.wrote(write(std::io::stdout().as_fd(), &payload)),
                        Frame::Stderr => last.wrote(write(std::io::stderr().as_fd(), &payload)),
                        Frame::Failed => last.failure = serde_json::from_slice(&payload).ok(),
                        Frame::Ended => last.code = payload.first().copied(),
                        Frame::Stdin | Frame::Resize => {}
                    }
                }
                if !open || last.code.is_some() {
                    return Ok(());
                }
            }
            outbox.flush(&mut self.socket);
        }
    }

    /// Signals go to the monitor, which passes them to the container; a changed window goes as a frame.
    fn pass_on(&self, signals: &mut SignalFd, terminal: bool, outbox: &mut Outbox) -> Result<()> {
        while let Some(info) = signals.read_signal().map_err(std::io::Error::from)? {
            if terminal && info.ssi_signo == Number::SIGWINCH as u32 {
                if let Some(size) = terminal_size() {
                    let [rows, columns] = [size.rows.to_le_bytes(), size.columns.to_le_bytes()];
                    outbox.push_frame(Frame::Resize, &[rows[0], rows[1], columns[0], columns[1]]);
                }
            } else if let Some(signal) = u8::try_from(info.ssi_signo).ok().and_then(Signal::from_number) {
                self.signal(signal);
            }
        }
        Ok(())
    }

    /// The monitor is our child and not reaped yet, so its number is its own. It may have ended; that is no failure.
    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.monitor.pid()).unwrap_or(i32::MAX);
        if let Ok(number) = Number::try_from(i32::from(signal.number())) {
            nix::sys::signal::kill(Pid::from_raw(pid), number).ok();
        }
    }
}

/// The size of the terminal on standard output or input, if there is one.
pub(crate) fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
}

/// `false` once there is nothing more to read.
fn read_input(stdin: &mut impl Read, outbox: &mut Outbox) -> Result<bool> {
    let mut chunk = [0; CHUNK / 4];
    match stdin.read(&mut chunk) {
        Ok(count) => {
            outbox.push_frame(Frame::Stdin, &chunk[..count]);
            Ok(count > 0)
        }
        Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Writes everything, waiting where the other side is slow or does not block. A reader that has gone away
/// (`dhow run … | head`) does not end the container, as in Docker.
fn write(to: BorrowedFd<'_>, mut bytes: &[u8]) -> std::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(to, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                poll(&mut [PollFd::from_borrowed_fd(to, PollFlags::OUT)], None)?;
            }
            Err(Errno::PIPE) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
