//! Events on their way to containerd: one after the other, so that none overtakes another, and kept while it is away.

use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::clock;
use crate::messages::events::{Envelope, Forward};
use crate::messages::{Any, Request};
use crate::ttrpc::{self, Connection, Kind};

/// How many are kept. When there are more the oldest are forgotten: containerd asks for states when it comes back.
const MOST: usize = 2048;
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_millis(500);

/// What goes to containerd.
#[derive(Debug)]
pub(crate) struct Publisher {
    address: String,
    namespace: String,
    connection: Option<Connection>,
    waiting: VecDeque<Request>,
    /// The number of the one that is on its way.
    underway: Option<u32>,
    next: u32,
    retry: Option<Instant>,
}

impl Publisher {
    pub(crate) fn new(address: String, namespace: String) -> Self {
        let address = address.strip_prefix("unix://").map(str::to_owned).unwrap_or(address);
        let (connection, waiting) = (None, VecDeque::new());
        Self { address, namespace, connection, waiting, underway: None, next: 1, retry: None }
    }

    /// Queues an event.
    pub(crate) fn publish(&mut self, topic: &str, kind: &str, event: &impl crate::wire::Message) {
        if self.address.is_empty() {
            return;
        }
        let envelope = Envelope {
            timestamp: Some(clock::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(Any::of(&format!("containerd.events.{kind}"), event)),
        };
        let forward = Forward { envelope: Some(envelope) };
        if self.waiting.len() == MOST {
            self.waiting.pop_front();
            self.underway = None;
        }
        self.waiting.push_back(ttrpc::request(
            "containerd.services.events.ttrpc.v1.Events",
            "Forward",
            &forward,
        ));
        self.go_on();
    }

    /// Everything has arrived.
    pub(crate) fn is_done(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When it is to be tried again, if there is anything to be said: otherwise a containerd that is gone would have this
    /// process awake for as long as it stays away.
    pub(crate) fn retry(&self) -> Option<Instant> {
        self.retry.filter(|_| !self.waiting.is_empty())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::is_full)
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(AsFd::as_fd)
    }

    /// Sends the next one when its turn has come.
    pub(crate) fn go_on(&mut self) {
        if self.underway.is_some() || self.waiting.is_empty() {
            return;
        }
        if self.retry.is_some_and(|retry| retry > Instant::now()) {
            return;
        }
        self.retry = None;
        if self.connection.is_none() {
            let made = UnixStream::connect(&self.address).and_then(Connection::new);
            match made {
                Ok(made) => self.connection = Some(made),
                Err(_) => return self.fail(),
            }
        }
        let (Some(connection), Some(first)) = (&mut self.connection, self.waiting.front()) else { return };
        if connection.send(self.next, Kind::Request, first) {
            self.underway = Some(self.next);
            // Streams of who calls are odd.
            self.next = self.next.wrapping_add(2);
        } else {
            self.fail();
        }
    }

    fn fail(&mut self) {
        self.connection = None;
        self.underway = None;
        self.next = 1;
        self.retry = Some(Instant::now() + PAUSE);
    }

    /// Takes what the socket has.
    pub(crate) fn run(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        let mut alive = connection.flush() && connection.fill();
        loop {
            match connection.next() {
                Ok(Some(frame)) => {
                    // Whatever the answer: an event that is refused once is refused always.
                    if self.underway == Some(frame.stream) {
                        self.underway = None;
                        self.waiting.pop_front();
                    }
                }
                Ok(None) => break,
                Err(_) => {
                    alive = false;
                    break;
                }
            }
        }
        if alive {
            self.go_on();
        } else {
            self.fail();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::events::TaskWord;

    #[test]
    fn who_has_nothing_to_say_does_not_wait_for_anybody() {
        let place = tempfile::tempdir().unwrap();
        let socket = place.path().join("socket");
        let mut publisher = Publisher::new(socket.to_string_lossy().into_owned(), "test".to_owned());
        // containerd has closed the connection.
        publisher.fail();
        assert!(publisher.is_done() && publisher.retry().is_none());
        // It is tried at the end of the pause, and once more after the next one.
        publisher.publish("/tasks/paused", "TaskPaused", &TaskWord { container_id: "a".to_owned() });
        let first = publisher.retry().unwrap();
        std::thread::sleep(first.saturating_duration_since(Instant::now()));
        publisher.go_on();
        assert!(publisher.retry().unwrap() > first && !publisher.is_done());
    }
}
