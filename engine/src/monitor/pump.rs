//! The monitor's loop around a native task: streams, signals, the end. One thread, one `poll`.
//!
//! Nothing here blocks: what a slow client or a slow container cannot take waits in a bounded buffer, and its source is
//! not read meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use dhow_runtime::{ExitStatus, Signal, Status, Stdio, Stream, Task};
use nix::sys::signal::Signal as Number;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use super::{Route, Routes, forwarded};
use crate::attach::{CHUNK, Frame, Inbox, Outbox};
use crate::error::Result;

/// The monitor's ends of what it copies.
#[derive(Debug, Default)]
pub(super) struct Ends {
    input: Option<File>,
    outputs: Vec<(Frame, File)>,
    terminal: bool,
    keeps_input: bool,
}

/// Makes the container's streams.
pub(super) fn connect(routes: Routes) -> Result<(Stdio, Ends)> {
    let mut ends = Ends::default();
    let routes = match routes {
        Routes::Terminal { input, size } => {
            ends.terminal = true;
            ends.keeps_input = input;
            return Ok((Stdio::Terminal(size), ends));
        }
        Routes::Streams(routes) => routes,
    };
    let stdin = match routes[0] {
        Route::Null => Stream::Null,
        Route::Inherit => Stream::Inherit,
        Route::Copy => {
            let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
            ends.input = Some(unblocked(ours)?);
            Stream::File(theirs.into())
        }
    };
    let mut output = |route, frame| -> Result<Stream> {
        Ok(match route {
            Route::Null => Stream::Null,
            Route::Inherit => Stream::Inherit,
            Route::Copy => {
                let (ours, theirs) = pipe_with(PipeFlags::CLOEXEC).map_err(std::io::Error::from)?;
                ends.outputs.push((frame, unblocked(ours)?));
                Stream::File(theirs.into())
            }
        })
    };
    let stdout = output(routes[1], Frame::Stdout)?;
    let stderr = output(routes[2], Frame::Stderr)?;
    Ok((Stdio::Streams { stdin, stdout, stderr }, ends))
}

/// Our end only: the flag belongs to the open file, and the container's end is another one.
fn unblocked(end: OwnedFd) -> Result<File> {
    fcntl_setfl(&end, OFlags::NONBLOCK).map_err(std::io::Error::from)?;
    Ok(end.into())
}

/// Runs until the task's first process has ended and everything it wrote is on its way.
pub(super) fn until_end(task: &mut Task, mut ends: Ends, socket: &mut UnixStream) -> Result<ExitStatus> {
    if ends.terminal
        && let Some(master) = task.take_console()
    {
        let master = unblocked(master)?;
        if ends.keeps_input {
            ends.input = Some(master.try_clone()?);
        }
        ends.outputs.push((Frame::Stdout, master));
    }
    let mut watched = forwarded();
    watched.add(Number::SIGCHLD);
    let mut signals = SignalFd::with_flags(&watched, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(std::io::Error::from)?;
    socket.set_nonblocking(true)?;
    let mut pump = Pump {
        ends,
        inbox: Inbox::default(),
        to_client: Outbox::default(),
        to_container: Outbox::default(),
        client: true,
        input_ends: false,
    };
    let mut status = None;
    loop {
        while let Some(signal) = next(&mut signals)? {
            if signal == Number::SIGCHLD as u32 {
                // Helpers that set the container up (newuidmap) end with the same signal.
                if task.status() == Status::Stopped {
                    status = Some(task.wait()?);
                }
            } else if let Some(signal) = u8::try_from(signal).ok().and_then(Signal::from_number) {
                // It may have ended meanwhile; SIGCHLD will say so.
                task.kill(signal).ok();
            }
        }
        if status.is_some() {
            pump.drain(socket)?;
        }
        if let Some(status) = status
            && (pump.to_client.is_empty() || !pump.client)
        {
            return Ok(status);
        }
        pump.step(&signals, socket, status.is_some())?;
    }
}

/// The next signal's number, if one is waiting.
fn next(signals: &mut SignalFd) -> Result<Option<u32>> {
    Ok(signals.read_signal().map_err(std::io::Error::from)?.map(|info| info.ssi_signo))
}

struct Pump {
    ends: Ends,
    inbox: Inbox,
    to_client: Outbox,
    to_container: Outbox,
    /// Somebody reads the other end of the socket.
    client: bool,
    /// Close the container's input once everything queued is written.
    input_ends: bool,
}

impl Pump {
    /// Waits for something to happen and does it.
    fn step(&mut self, signals: &SignalFd, socket: &mut UnixStream, ended: bool) -> Result<()> {
        let ready = self.wait(signals, socket, ended)?;
        if ready.socket_out {
            self.flush(socket);
        }
        if ready.socket_in {
            if !self.inbox.fill(socket)? {
                self.client_gone();
            }
            self.obey()?;
        }
        if ready.input {
            self.feed();
        }
        for index in ready.outputs.into_iter().rev() {
            self.copy(index);
        }
        self.flush(socket);
        Ok(())
    }

    fn flush(&mut self, socket: &mut UnixStream) {
        if self.client && !self.to_client.flush(socket) {
            self.client_gone();
        }
    }

    /// As with Docker the container goes on; its input ends, unless that is a terminal.
    fn client_gone(&mut self) {
        self.client = false;
        self.to_client = Outbox::default();
        self.input_ends = true;
        self.feed();
    }

    fn wait(&self, signals: &SignalFd, socket: &UnixStream, ended: bool) -> Result<Ready> {
        let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        // Input beyond what the container has taken stays with the client.
        let mut wanted = PollFlags::empty();
        wanted.set(PollFlags::IN, self.to_container.has_room() && !ended);
        wanted.set(PollFlags::OUT, !self.to_client.is_empty());
        let socket_at = self.client.then(|| push(&mut fds, socket.as_fd(), wanted));
        let input_at = self
            .ends
            .input
            .as_ref()
            .filter(|_| !self.to_container.is_empty())
            .map(|input| push(&mut fds, input.as_fd(), PollFlags::OUT));
        let outputs_from = fds.len();
        if self.to_client.has_room() {
            for (_, output) in &self.ends.outputs {
                push(&mut fds, output.as_fd(), PollFlags::IN);
            }
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        let has = |at: Option<usize>, flags| at.is_some_and(|at| fds[at].revents().intersects(flags));
        let gone = PollFlags::HUP | PollFlags::ERR;
        Ok(Ready {
            socket_in: has(socket_at, PollFlags::IN | gone),
            socket_out: has(socket_at, PollFlags::OUT),
            input: has(input_at, PollFlags::OUT | gone),
            outputs: (outputs_from..fds.len())
                .filter(|at| has(Some(*at), PollFlags::IN | gone))
                .map(|at| at - outputs_from)
                .collect(),
        })
    }

    /// What the client asks for.
    fn obey(&mut self) -> Result<()> {
        while let Some((frame, payload)) = self.inbox.next()? {
            match frame {
                Frame::Stdin if payload.is_empty() => self.input_ends = true,
                Frame::Stdin => self.to_container.push(&payload),
                Frame::Resize => self.resize(&payload),
                // Frames of the other direction mean nothing here.
                Frame::Stdout | Frame::Stderr | Frame::Failed | Frame::Ended => {}
            }
        }
        self.feed();
        Ok(())
    }

    fn resize(&self, payload: &[u8]) {
        let (Some((_, master)), [r0, r1, c0, c1]) = (self.ends.outputs.first(), payload) else { return };
        let size = Winsize {
            ws_row: u16::from_le_bytes([*r0, *r1]),
            ws_col: u16::from_le_bytes([*c0, *c1]),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        if self.ends.terminal {
            // Fails only once the terminal is gone, and then nobody looks at it.
            tcsetwinsize(master, size).ok();
        }
    }

    fn feed(&mut self) {
        let Some(input) = &mut self.ends.input else {
            self.to_container = Outbox::default();
            return;
        };
        let open = self.to_container.flush(input);
        // A terminal's input has no end of its own: the master stays until the container is gone.
        if !open || (self.input_ends && self.to_container.is_empty() && !self.ends.terminal) {
            self.ends.input = None;
        }
    }

    /// Reads one output once; at its end it is forgotten. `false` when nothing was there.
    fn copy(&mut self, index: usize) -> bool {
        let mut chunk = [0; CHUNK / 2];
        let (frame, output) = &mut self.ends.outputs[index];
        match output.read(&mut chunk) {
            Ok(count) if count > 0 => {
                if self.client {
                    self.to_client.push_frame(*frame, &chunk[..count]);
                }
                return true;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return false;
            }
            // A terminal's master says EIO when the last process has closed the other side.
            Ok(_) | Err(_) => {}
        }
        self.ends.outputs.remove(index);
        false
    }

    /// After the end: takes what is still in the pipes. What a process outside the container still holds open is not
    /// waited for.
    fn drain(&mut self, socket: &mut UnixStream) -> Result<()> {
        let mut index = 0;
        while index < self.ends.outputs.len() && self.to_client.has_room() {
            let before = self.ends.outputs.len();
            if !self.copy(index) && self.ends.outputs.len() == before {
                index += 1;
            }
            self.flush(socket);
        }
        Ok(())
    }
}

/// What can be done without waiting.
struct Ready {
    socket_in: bool,
    socket_out: bool,
    input: bool,
    outputs: Vec<usize>,
}

fn push<'fd>(fds: &mut Vec<PollFd<'fd>>, fd: BorrowedFd<'fd>, flags: PollFlags) -> usize {
    fds.push(PollFd::from_borrowed_fd(fd, flags));
    fds.len() - 1
}
