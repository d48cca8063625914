//! The monitor's loop around a task in another process: streams, clients, the log, signals, the end. One thread, one
//! `poll`.
//!
//! Nothing here blocks: what a slow client or a slow container cannot take waits in a bounded buffer, and its source is
//! not read meanwhile.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use dhow_runtime::{ExitStatus, Signal, Status, Stdio, Stream, Task};
use nix::sys::signal::Signal as Number;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::termios::{Winsize, tcsetwinsize};

use super::health::Watch;
use super::names::Names;
use super::peer::Peer;
use super::proxy::Proxy;
use super::{Route, Routes, forwarded};
use crate::attach::{CHUNK, Frame, Outbox};
use crate::error::Result;
use crate::logs::{Log, Source};
use crate::survivor::Held;

/// More connections than this are refused.
const MOST_PEERS: usize = 64;

/// Pipes that unprivileged processes may make hold no more.
const MOST_IN_A_PIPE: usize = 1 << 20;

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

/// What goes on beside the streams.
#[derive(Debug, Default)]
pub(super) struct Company {
    /// Everybody who is connected.
    pub(super) peers: Vec<Peer>,
    /// Where others connect.
    pub(super) listener: Option<UnixListener>,
    /// Where output is kept.
    pub(super) log: Option<Log>,
    /// The container's input ends with its client's.
    pub(super) stdin_once: bool,
    /// Somebody else's end that is the task's, too.
    pub(super) lives_with: Option<Held>,
    /// The server of the container's names.
    pub(super) names: Option<Names>,
    /// Published ports whose connections are copied.
    pub(super) proxy: Option<Proxy>,
    /// Much has been done and nothing is expected: what that took is let go of after a moment of silence.
    pub(super) settles: bool,
}

/// After so long with nothing to do it is likely to stay so.
const SILENCE: Duration = Duration::from_millis(50);

impl Company {
    /// Tells everybody how it ended.
    pub(super) fn dismiss(&mut self, code: u8) {
        // Who has connected just now is told, too.
        self.welcome();
        // The starter last: it may be waited for.
        self.peers.sort_by_key(Peer::is_starter);
        for peer in self.peers.drain(..) {
            peer.dismiss(Frame::Ended, &[code]);
        }
    }

    /// Closes what has connected: there is nothing to be seen just now.
    pub(super) fn turn_away(&mut self) {
        while let Some(Ok(_)) = self.listener.as_ref().map(UnixListener::accept) {}
    }

    /// Lets in who has connected.
    fn welcome(&mut self) {
        let Some(listener) = &self.listener else { return };
        // One that cannot be let in is closed by that.
        while let Ok((socket, _)) = listener.accept() {
            if self.peers.len() < MOST_PEERS
                && let Ok(peer) = Peer::visitor(socket)
            {
                self.peers.push(peer);
            }
        }
    }
}

/// Runs until the task's first process has ended and everything it wrote is on its way.
pub(super) fn until_end(
    task: &mut Task,
    mut ends: Ends,
    company: &mut Company,
    health: Option<&mut Watch<'_>>,
) -> Result<ExitStatus> {
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
    for peer in &company.peers {
        peer.socket.set_nonblocking(true)?;
    }
    let mut pump = Pump { ends, company, to_container: Outbox::default(), input_ends: false, health };
    loop {
        while let Some(signal) = next(&mut signals)? {
            if signal == Number::SIGCHLD as u32 {
                // Helpers that set the container up (newuidmap) end with the same signal.
                if task.status() == Status::Stopped {
                    let status = task.wait()?;
                    pump.drain();
                    return Ok(status);
                }
            } else if let Some(signal) = u8::try_from(signal).ok().and_then(Signal::from_number) {
                // It may have ended meanwhile; SIGCHLD will say so.
                task.kill(signal).ok();
            }
        }
        if pump.step(&signals)? {
            pump.company.lives_with = None;
            task.kill(Signal::KILL).ok();
        }
    }
}

/// The next signal's number, if one is waiting.
fn next(signals: &mut SignalFd) -> Result<Option<u32>> {
    Ok(signals.read_signal().map_err(std::io::Error::from)?.map(|info| info.ssi_signo))
}

struct Pump<'a, 'b> {
    ends: Ends,
    company: &'a mut Company,
    to_container: Outbox,
    /// Close the container's input once everything queued is written.
    input_ends: bool,
    /// What looks after the container's health.
    health: Option<&'a mut Watch<'b>>,
}

impl Pump<'_, '_> {
    /// Waits for something to happen and does it. `true` when what the task lives with has ended.
    fn step(&mut self, signals: &SignalFd) -> Result<bool> {
        let ready = self.wait(signals)?;
        if ready.silent {
            self.company.settles = false;
            dhow_runtime::process::forget();
        }
        // From the end: who is gone is taken out.
        for index in ready.peers.into_iter().rev() {
            if !self.listen_to(index) {
                self.lose(index);
            }
        }
        if ready.knock {
            self.company.welcome();
        }
        // Input that waits for room, and what has just come.
        self.feed();
        for index in ready.outputs.into_iter().rev() {
            self.copy(index);
        }
        self.flush();
        if let Some(names) = self.company.names.as_mut().filter(|_| ready.names) {
            names.step();
        }
        if let Some(proxy) = self.company.proxy.as_mut().filter(|_| ready.proxy) {
            proxy.step();
        }
        let Self { health, company, ends, .. } = self;
        if let Some(health) = health {
            health.step(&mut || {
                **company = Company::default();
                *ends = Ends::default();
            });
        }
        Ok(ready.bereft)
    }

    fn flush(&mut self) {
        for index in (0..self.company.peers.len()).rev() {
            if !self.company.peers[index].flush() {
                self.lose(index);
            }
        }
    }

    /// As with Docker the container goes on; its input ends, unless that is a terminal or meant to stay.
    fn lose(&mut self, index: usize) {
        let peer = self.company.peers.swap_remove(index);
        if peer.types() && self.company.stdin_once {
            self.input_ends = true;
            self.feed();
        }
    }

    fn wait(&self, signals: &SignalFd) -> Result<Ready> {
        let mut fds = vec![PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        let peers = &self.company.peers;
        for peer in peers {
            // Input beyond what the container has taken stays with the client.
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::IN, !peer.types() || self.to_container.has_room());
            wanted.set(PollFlags::OUT, !peer.is_served());
            push(&mut fds, peer.socket.as_fd(), wanted);
        }
        let listener_at = self.company.listener.as_ref().map(|fd| push(&mut fds, fd.as_fd(), PollFlags::IN));
        if let Some(probe) = self.health.as_ref().and_then(|health| health.fd()) {
            push(&mut fds, probe, PollFlags::IN);
        }
        let life_at = self.company.lives_with.as_ref().map(|fd| push(&mut fds, fd.as_fd(), PollFlags::IN));
        if let Some(input) = self.ends.input.as_ref().filter(|_| !self.to_container.is_empty()) {
            push(&mut fds, input.as_fd(), PollFlags::OUT);
        }
        let outputs_from = fds.len();
        if peers.iter().all(Peer::has_room) {
            for (_, output) in &self.ends.outputs {
                push(&mut fds, output.as_fd(), PollFlags::IN);
            }
        }
        let outputs_to = fds.len();
        let (names, proxy) = (self.company.names.as_ref(), self.company.proxy.as_ref());
        if let Some(names) = names {
            names.wait_for(&mut fds);
        }
        let names_to = fds.len();
        if let Some(proxy) = proxy {
            proxy.wait_for(&mut fds);
        }
        let health = self.health.as_ref().map(|health| health.patience());
        let networks = [names.and_then(Names::patience), proxy.and_then(Proxy::patience)];
        let patience = peers
            .iter()
            .filter_map(Peer::patience)
            .chain(networks.into_iter().flatten())
            .chain(health)
            .chain(self.company.settles.then_some(SILENCE))
            .min()
            .map(|left| Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
        let mut nothing = false;
        match poll(&mut fds, patience.as_ref()) {
            Ok(count) => nothing = count == 0,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(std::io::Error::from(error).into()),
        }
        // Not long enough for anybody else.
        let silent = nothing && self.company.settles;
        nothing &= !silent;
        let has = |at: usize, flags| fds[at].revents().intersects(flags);
        let come = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let any = |mut range: std::ops::Range<usize>| range.any(|at| !fds[at].revents().is_empty());
        // What is due is due, however much else happens.
        let due = networks.map(|left| left.is_some_and(|left| left.is_zero() || nothing));
        Ok(Ready {
            silent,
            peers: (0..peers.len()).filter(|index| has(1 + index, come)).collect(),
            knock: listener_at.is_some_and(|at| has(at, come)),
            bereft: life_at.is_some_and(|at| has(at, come)),
            outputs: (outputs_from..outputs_to)
                .filter(|at| has(*at, come))
                .map(|at| at - outputs_from)
                .collect(),
            names: due[0] || any(outputs_to..names_to),
            proxy: due[1] || any(names_to..fds.len()),
        })
    }

    /// What a client asks for. `false` when it is gone.
    fn listen_to(&mut self, index: usize) -> bool {
        if !self.company.peers[index].fill() {
            return false;
        }
        loop {
            let peer = &mut self.company.peers[index];
            let (frame, payload) = match peer.next() {
                Err(_) => return false,
                Ok(None) => return true,
                Ok(Some(asked)) => asked,
            };
            match frame {
                Frame::Resize => self.resize(&payload),
                Frame::Networks => {
                    // What cannot be served is not: the container goes on.
                    let looked = self.company.names.as_mut().map(Names::look_again);
                    if let Some(address) = self.company.names.as_ref().and_then(Names::published)
                        && let Some(proxy) = &mut self.company.proxy
                    {
                        proxy.turn_to(address);
                    }
                    self.company.peers[index].output(Frame::Networks, &[]);
                    drop(looked);
                }
                Frame::Stdin if !peer.types() => {}
                Frame::Stdin if !payload.is_empty() => self.to_container.push(&payload),
                // The end of its input. Where that is not the container's, it is the end of the visit.
                Frame::Stdin if self.company.stdin_once => self.input_ends = true,
                Frame::Stdin => return peer.is_starter() && self.ends.terminal,
                // Frames of the other direction mean nothing here.
                _ => {}
            }
        }
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

    /// Reads one output once; at its end it is forgotten. Gives how much there was.
    fn copy(&mut self, index: usize) -> usize {
        let mut chunk = [0; CHUNK / 2];
        let (frame, output) = &mut self.ends.outputs[index];
        match output.read(&mut chunk) {
            Ok(count) if count > 0 => {
                let bytes = &chunk[..count];
                if let Some(log) = &mut self.company.log {
                    log.write(if *frame == Frame::Stderr { Source::Stderr } else { Source::Stdout }, bytes);
                }
                for peer in &mut self.company.peers {
                    peer.output(*frame, bytes);
                }
                return count;
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return 0;
            }
            // A terminal's master says EIO when the last process has closed the other side.
            Ok(_) | Err(_) => {}
        }
        self.ends.outputs.remove(index);
        0
    }

    /// After the end: takes what is still in the pipes, which is not much, whether somebody reads it or not. What a
    /// process outside the container still holds open is not waited for.
    fn drain(&mut self) {
        for index in (0..self.ends.outputs.len()).rev() {
            let mut taken = 0;
            while taken < MOST_IN_A_PIPE {
                match self.copy(index) {
                    0 => break,
                    count => taken += count,
                }
            }
            self.flush();
        }
        if let Some(log) = &mut self.company.log {
            log.finish();
        }
    }
}

/// What can be done without waiting.
struct Ready {
    /// Nothing has happened for long.
    silent: bool,
    peers: Vec<usize>,
    knock: bool,
    bereft: bool,
    outputs: Vec<usize>,
    names: bool,
    proxy: bool,
}

pub(super) fn push<'fd>(fds: &mut Vec<PollFd<'fd>>, fd: BorrowedFd<'fd>, flags: PollFlags) -> usize {
    fds.push(PollFd::from_borrowed_fd(fd, flags));
    fds.len() - 1
}
