//! The client's side: the user's streams and signals to a monitor, the container's output back.

use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use dhow_runtime::process::Child;
use dhow_runtime::{ExitStatus, Signal, TerminalSize};
use nix::sys::signal::{SigSet, Signal as Number};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::termios::tcgetwinsize;

use super::{Route, Routes, forwarded};
use crate::attach::{CHUNK, Failure, Filled, Frame, Inbox, Outbox, Wish};
use crate::detach::DetachKeys;
use crate::error::{Error, Result};
use crate::survivor::Held;

/// A container's client.
#[derive(Debug)]
pub(crate) struct Client {
    link: Link,
    socket: UnixStream,
    /// The user's input is copied. Not where a Wasm guest reads it itself: two readers would take each other's.
    wants_input: bool,
    terminal: bool,
    /// What the user types to leave without ending anything.
    detach: Option<DetachKeys>,
    /// Signals are for the container.
    passes_signals: bool,
    /// Standard output and error are shown.
    outputs: [bool; 2],
}

/// What signals go to.
#[derive(Debug)]
enum Link {
    /// The monitor, a child of this process.
    Monitor(Child),
    /// The container's first process, whose monitor is somebody else's.
    Process(Held),
}

/// How an attached run ended, from the client's view.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The container ran and ended with this code.
    Code(u8),
    /// The monitor ended like this (a Wasm container: the container did) and could write nothing down.
    Unwritten(ExitStatus),
    /// The connection ended without a word.
    Lost,
    /// The user has left; the container goes on.
    Detached,
}

/// What a monitor says while it is listened to.
#[derive(Debug)]
pub(crate) enum News {
    /// The program has written this.
    Output(Vec<u8>),
    /// It could not be started, for this reason.
    Failed(String),
    /// It has ended with this code.
    Ended(u8),
    /// Nothing for now.
    None,
    /// Nothing any more.
    Over,
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
    pub(super) fn of_monitor(monitor: Child, socket: UnixStream, routes: Routes, copies: bool) -> Self {
        let (wants_input, terminal) = match routes {
            Routes::Terminal { input, .. } => (input && copies, true),
            Routes::Streams(routes) => (routes[0] == Route::Copy, false),
        };
        let link = Link::Monitor(monitor);
        Self {
            link,
            socket,
            wants_input,
            terminal,
            detach: None,
            passes_signals: true,
            outputs: [true, true],
        }
    }

    /// Somebody who comes to a container that runs.
    pub(crate) fn visit(mut socket: UnixStream, process: Held, wish: Wish, terminal: bool) -> Result<Self> {
        let mut out = Outbox::default();
        out.push_frame(Frame::Attach, &serde_json::to_vec(&wish).unwrap_or_default());
        if terminal && let Some(size) = terminal_size() {
            out.push_frame(Frame::Resize, &resize(size));
        }
        out.flush(&mut socket);
        let link = Link::Process(process);
        Ok(Self {
            link,
            socket,
            wants_input: wish.stdin,
            terminal,
            detach: None,
            passes_signals: true,
            outputs: [true, true],
        })
    }

    /// Whether the user's input is copied, where it could be.
    pub(crate) fn with_input(self, input: bool) -> Self {
        Self { wants_input: self.wants_input && input, ..self }
    }

    /// Whether standard output and error are shown.
    pub(crate) fn showing(self, outputs: [bool; 2]) -> Self {
        Self { outputs, ..self }
    }

    /// Lets the user leave by these keys, on a terminal.
    pub(crate) fn leaving_by(self, keys: Option<DetachKeys>) -> Self {
        Self { detach: keys.filter(|_| self.terminal), ..self }
    }

    /// Whether signals are passed on (`--sig-proxy`).
    pub(crate) fn passing_signals(self, passes_signals: bool) -> Self {
        Self { passes_signals, ..self }
    }

    /// Waits only until it runs.
    pub(crate) fn until_started(mut self) -> Result<()> {
        let mut inbox = Inbox::default();
        loop {
            let open = inbox.fill(&mut self.socket)?;
            while let Some((frame, payload)) = inbox.next()? {
                match frame {
                    Frame::Started => return Ok(()),
                    Frame::Failed => {
                        let failure: Option<Failure> = serde_json::from_slice(&payload).ok();
                        if let Some(failure) = failure {
                            // Until everything is written down.
                            while inbox.fill(&mut self.socket)? {}
                            return Err(failure.into_error());
                        }
                    }
                    _ => {}
                }
            }
            if !open {
                return Err(Error::MonitorLost { id: String::new() });
            }
        }
    }

    /// Copies until the container has ended. With `reap` it also waits until nothing of the monitor is left, not even
    /// the number: a control group is not empty before.
    pub(crate) fn attend(mut self, reap: bool) -> Result<Ended> {
        let mut last = LastWords::default();
        if self.copy(&mut last)? == Left::Detached {
            return Ok(Ended::Detached);
        }
        let silent = last.code.is_none() && last.failure.is_none();
        let status = match self.link {
            Link::Monitor(monitor) if reap || silent => Some(monitor.wait()?),
            _ => None,
        };
        if let Some(failure) = last.failure {
            return Err(failure.into_error());
        }
        if let Some(error) = last.unwritten {
            // The container has run to its end all the same, and that is written down.
            return Err(error.into());
        }
        if let Some(code) = last.code {
            // The monitor only has to end, and init will see to that.
            return Ok(Ended::Code(code));
        }
        // Somebody else's monitor cannot be waited for.
        Ok(status.map_or(Ended::Lost, Ended::Unwritten))
    }

    /// Readable when there is something to [`Client::listen`] to.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next thing the monitor has to say, without waiting for it.
    pub(crate) fn listen(&mut self, inbox: &mut Inbox) -> Result<News> {
        self.socket.set_nonblocking(true)?;
        loop {
            while let Some((frame, payload)) = inbox.next()? {
                return Ok(match frame {
                    Frame::Stdout | Frame::Stderr => News::Output(payload),
                    Frame::Ended => News::Ended(payload.first().copied().unwrap_or(u8::MAX)),
                    Frame::Failed => {
                        let failure: Option<Failure> = serde_json::from_slice(&payload).ok();
                        News::Failed(failure.map(|failure| failure.message).unwrap_or_default())
                    }
                    _ => continue,
                });
            }
            match inbox.fill_now(&mut self.socket)? {
                Filled::Some => {}
                Filled::None => return Ok(News::None),
                Filled::End => return Ok(News::Over),
            }
        }
    }

    /// The monitor has said its last word; nothing stays of it.
    pub(crate) fn reap(self) {
        if let Link::Monitor(monitor) = self.link {
            // One that was reaped elsewhere is gone, too.
            monitor.wait().ok();
        }
    }

    /// Ends the monitor, and with it what it looks after.
    pub(crate) fn end(self) {
        if let Link::Monitor(monitor) = &self.link
            && let Ok(pid) = i32::try_from(monitor.pid())
        {
            // Our child, and not reaped yet: the number is its own.
            nix::sys::signal::kill(Pid::from_raw(pid), Number::SIGKILL).ok();
        }
        self.reap();
    }

    /// The loop; over when the monitor has said how it ended, or has ended without a word.
    fn copy(&mut self, last: &mut LastWords) -> Result<Left> {
        let passed_on = if self.passes_signals || self.terminal { forwarded() } else { SigSet::empty() };
        let mut signals = SignalFd::with_flags(&passed_on, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
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
            let reads_input = self.wants_input && outbox.has_room();
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
                self.pass_on(&mut signals, &mut outbox)?;
            }
            if input_ready && self.read_input(&mut stdin, &mut outbox)? == Left::Detached {
                return Ok(Left::Detached);
            }
            if socket_ready {
                let open = inbox.fill(&mut self.socket)?;
                while let Some((frame, payload)) = inbox.next()? {
                    match frame {
                        Frame::Stdout if self.outputs[0] => {
                            last.wrote(write(std::io::stdout().as_fd(), &payload));
                        }
                        Frame::Stderr if self.outputs[1] => {
                            last.wrote(write(std::io::stderr().as_fd(), &payload));
                        }
                        Frame::Failed => last.failure = serde_json::from_slice(&payload).ok(),
                        Frame::Ended => last.code = payload.first().copied(),
                        _ => {}
                    }
                }
                if !open || last.code.is_some() {
                    return Ok(Left::Ended);
                }
            }
            outbox.flush(&mut self.socket);
        }
    }

    /// Reads what the user has typed.
    fn read_input(&mut self, stdin: &mut impl Read, outbox: &mut Outbox) -> Result<Left> {
        let mut chunk = [0; CHUNK / 4];
        let count = match stdin.read(&mut chunk) {
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                return Ok(Left::Ended);
            }
            other => other?,
        };
        self.wants_input = count > 0;
        let typed = &chunk[..count];
        let (text, leaves) = match &mut self.detach {
            Some(keys) => keys.filter(typed),
            None => (typed.to_vec(), false),
        };
        if leaves {
            if !text.is_empty() {
                outbox.push_frame(Frame::Stdin, &text);
                outbox.flush(&mut self.socket);
            }
            return Ok(Left::Detached);
        }
        // Nothing at all means the end of the input.
        if !text.is_empty() || count == 0 {
            outbox.push_frame(Frame::Stdin, &text);
        }
        Ok(Left::Ended)
    }

    /// Signals go to the container; a changed window goes as a frame.
    fn pass_on(&self, signals: &mut SignalFd, outbox: &mut Outbox) -> Result<()> {
        while let Some(info) = signals.read_signal().map_err(std::io::Error::from)? {
            if self.terminal && info.ssi_signo == Number::SIGWINCH as u32 {
                if let Some(size) = terminal_size() {
                    outbox.push_frame(Frame::Resize, &resize(size));
                }
            } else if let Some(signal) = u8::try_from(info.ssi_signo).ok().and_then(Signal::from_number) {
                self.signal(signal)?;
            }
        }
        Ok(())
    }

    /// That the container or its monitor has ended meanwhile is no failure.
    fn signal(&self, signal: Signal) -> Result<()> {
        match &self.link {
            Link::Process(process) => process.send(signal).map(drop),
            // The monitor is our child and not reaped yet, so its number is its own.
            Link::Monitor(monitor) => {
                let pid = i32::try_from(monitor.pid()).unwrap_or(i32::MAX);
                if let Ok(number) = Number::try_from(i32::from(signal.number())) {
                    nix::sys::signal::kill(Pid::from_raw(pid), number).ok();
                }
                Ok(())
            }
        }
    }
}

/// Why the loop is over.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Ended,
    Detached,
}

/// A size as [`Frame::Resize`] carries it.
fn resize(size: TerminalSize) -> [u8; 4] {
    let [rows, columns] = [size.rows.to_le_bytes(), size.columns.to_le_bytes()];
    [rows[0], rows[1], columns[0], columns[1]]
}

/// The size of the terminal on standard output or input, if there is one.
pub(crate) fn terminal_size() -> Option<TerminalSize> {
    let size = tcgetwinsize(std::io::stdout()).or_else(|_| tcgetwinsize(std::io::stdin())).ok()?;
    Some(TerminalSize { rows: size.ws_row, columns: size.ws_col })
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
