//! One client of a monitor: what it wants, and what is on its way to it.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::attach::{Frame, Inbox, Outbox, Wish};
use crate::error::Result;

/// Who takes nothing for so long is not waited for any more: a container must not stand still because of somebody who
/// only looks. Whoever has started it in the foreground is its output's true owner, and is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A client, from the monitor's view.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) socket: UnixStream,
    inbox: Inbox,
    out: Outbox,
    /// `None` until it has said what it wants.
    wish: Option<Wish>,
    /// It has started the container, and stays until it ends.
    starter: bool,
    /// Since when it has taken nothing though it should.
    stuck: Option<Instant>,
}

impl Peer {
    /// Whoever has started the container.
    pub(super) fn starter(socket: UnixStream, wish: Option<Wish>) -> Self {
        Self { socket, inbox: Inbox::default(), out: Outbox::default(), wish, starter: true, stuck: None }
    }

    /// Somebody who has connected later.
    pub(super) fn visitor(socket: UnixStream) -> std::io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { starter: false, ..Self::starter(socket, None) })
    }

    pub(super) fn is_starter(&self) -> bool {
        self.starter
    }

    /// Whether its input is the container's.
    pub(super) fn types(&self) -> bool {
        self.wish.is_some_and(|wish| wish.stdin)
    }

    /// Reads what has come. `false` when it is gone.
    pub(super) fn fill(&mut self) -> bool {
        self.inbox.fill(&mut self.socket).unwrap_or(false)
    }

    /// The next thing it asks for. Nonsense is an error: it is no client of ours then.
    pub(super) fn next(&mut self) -> Result<Option<(Frame, Vec<u8>)>> {
        while let Some((frame, payload)) = self.inbox.next()? {
            if frame == Frame::Attach && self.wish.is_none() {
                self.wish = serde_json::from_slice(&payload).ok();
            } else {
                return Ok(Some((frame, payload)));
            }
        }
        Ok(None)
    }

    /// Queues output, if it wants this stream.
    pub(super) fn output(&mut self, frame: Frame, bytes: &[u8]) {
        let wanted = match frame {
            Frame::Stdout => self.wish.is_some_and(|wish| wish.stdout),
            Frame::Stderr => self.wish.is_some_and(|wish| wish.stderr),
            _ => true,
        };
        if wanted {
            self.out.push_frame(frame, bytes);
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.out.has_room()
    }

    pub(super) fn is_served(&self) -> bool {
        self.out.is_empty()
    }

    /// Sends what can be sent now. `false` when it is gone, or given up.
    pub(super) fn flush(&mut self) -> bool {
        let before = self.out.waiting();
        if !self.out.flush(&mut self.socket) {
            return false;
        }
        if self.out.has_room() || self.out.waiting() < before {
            self.stuck = None;
        } else if self.stuck.is_none() {
            self.stuck = Some(Instant::now());
        }
        self.starter || self.stuck.is_none_or(|since| since.elapsed() < PATIENCE)
    }

    /// How long it will be waited for, if it is the one that is waited for.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.stuck.filter(|_| !self.starter).map(|since| PATIENCE.saturating_sub(since.elapsed()))
    }

    /// Sends everything and a last word, and waits for that. One that is gone does not mind.
    pub(super) fn dismiss(mut self, frame: Frame, payload: &[u8]) {
        self.out.push_frame(frame, payload);
        let limit = Some(PATIENCE).filter(|_| !self.starter);
        // What fits goes without asking the socket to wait.
        if self.out.flush_now(&self.socket) {
            return;
        }
        let ready = self.socket.set_nonblocking(false).and_then(|()| self.socket.set_write_timeout(limit));
        if ready.is_ok() {
            self.out.flush(&mut self.socket);
            self.socket.flush().ok();
        }
    }
}
