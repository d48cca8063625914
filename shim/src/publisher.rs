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

    /// When it is to be tried again.
    pub(crate) fn retry(&self) -> Option<Instant> {
        self.retry
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
