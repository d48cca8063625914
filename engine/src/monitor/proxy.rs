//! Published ports whose connections the packet filter cannot lead: by IPv6 to a container that has none, from this
//! host's `::1`, all of them while somebody has flushed the packet filter, and all of them without root. Their bytes are
//! copied in the monitor's loop; datagrams are in [`datagrams`].
//!
//! Everything is bounded: the number of connections, and what waits in each. Nothing here waits.

mod datagrams;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with};

use super::pump::push;
use crate::network::{Door, Mailbox, Realm};
use datagrams::Datagrams;

/// The most connections; more wait in the kernel.
const MOST: usize = 256;
/// The most that waits in one direction.
const CHUNK: usize = 64 << 10;
/// How often one connection is read from before others get their turn.
const AT_ONCE: usize = 8;
/// How long a connection to the container may take to come about.
const PATIENCE: Duration = Duration::from_secs(30);

/// The doors of a container, and who has come in.
#[derive(Debug)]
pub(super) struct Proxy {
    doors: Vec<Door>,
    container: Ipv4Addr,
    pairs: Vec<Pair>,
    datagrams: Datagrams,
    sockets: Sockets,
}

/// Sockets in the network in which the container is reached.
#[derive(Debug)]
struct Sockets {
    /// `None` where that is this process's own.
    realm: Option<Arc<Realm>>,
    /// Made in advance: each visit costs a process.
    ready: Vec<(SocketType, OwnedFd)>,
}

/// How many sockets are made at once in a realm.
const AT_A_VISIT: usize = 8;

impl Sockets {
    fn new(realm: Option<Arc<Realm>>) -> Self {
        Self { realm, ready: Vec::new() }
    }

    /// One of this type, for IPv4.
    fn take(&mut self, kind: SocketType) -> std::io::Result<OwnedFd> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = || socket_with(AddressFamily::INET, kind, flags, None).map_err(std::io::Error::from);
        let Some(realm) = &self.realm else { return make() };
        if !self.ready.iter().any(|(ready, _)| *ready == kind) {
            let hand = || {
                let made = (0..AT_A_VISIT).map(|_| make()).collect::<std::io::Result<_>>()?;
                Ok(((), made))
            };
            let (_, made) = realm.fetch::<()>(hand).map_err(std::io::Error::other)?;
            self.ready.extend(made.into_iter().map(|socket| (kind, socket)));
        }
        let found = self.ready.iter().position(|(ready, _)| *ready == kind);
        let missing = || std::io::Error::other("no socket came");
        Ok(self.ready.swap_remove(found.ok_or_else(missing)?).1)
    }
}

/// Two connections that are one.
#[derive(Debug)]
struct Pair {
    client: TcpStream,
    server: TcpStream,
    to_server: Way,
    to_client: Way,
    /// Until when the container's side must be there; `None` once it is.
    until: Option<Instant>,
}

/// One direction.
#[derive(Debug, Default)]
struct Way {
    bytes: Vec<u8>,
    /// Nothing more comes in.
    ended: bool,
    /// Nothing more goes out.
    closed: bool,
}

impl Proxy {
    pub(super) fn new(
        doors: Vec<Door>,
        mailboxes: Vec<Mailbox>,
        (container, realm): (Ipv4Addr, Option<Arc<Realm>>),
    ) -> Self {
        let datagrams = Datagrams::new(mailboxes);
        Self { doors, container, pairs: Vec::new(), datagrams, sockets: Sockets::new(realm) }
    }

    /// The container's ports are led to by another of its networks now.
    pub(super) fn turn_to(&mut self, container: Ipv4Addr) {
        if self.container != container {
            self.container = container;
            self.datagrams.forget();
        }
    }

    /// Adds what is waited for.
    pub(super) fn wait_for<'fd>(&'fd self, fds: &mut Vec<PollFd<'fd>>) {
        if self.pairs.len() < MOST {
            for door in &self.doors {
                push(fds, door.listener.as_fd(), PollFlags::IN);
            }
        }
        self.datagrams.wait_for(fds);
        for pair in &self.pairs {
            if pair.until.is_some() {
                push(fds, pair.server.as_fd(), PollFlags::OUT);
                continue;
            }
            for (stream, from, to) in [
                (&pair.client, &pair.to_server, &pair.to_client),
                (&pair.server, &pair.to_client, &pair.to_server),
            ] {
                let mut wanted = PollFlags::empty();
                wanted.set(PollFlags::IN, from.bytes.is_empty() && !from.ended);
                wanted.set(PollFlags::OUT, !to.bytes.is_empty());
                // One that is not listened to would wake us all the time once it is gone.
                if !wanted.is_empty() {
                    push(fds, stream.as_fd(), wanted);
                }
            }
        }
    }

    /// How long nothing has to be done if nothing happens.
    pub(super) fn patience(&self) -> Option<Duration> {
        let ends = self.pairs.iter().filter_map(|pair| pair.until);
        ends.chain(self.datagrams.due()).min().map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Does everything that can be done without waiting.
    pub(super) fn step(&mut self) {
        self.pairs.retain_mut(Pair::step);
        self.datagrams.step(self.container, &mut self.sockets);
        for door in &self.doors {
            while self.pairs.len() < MOST
                && let Ok((client, _)) = door.listener.accept()
            {
                let container = SocketAddr::from((self.container, door.port));
                // A client that cannot be served is closed by that.
                if let Ok(mut pair) = Pair::new(client, container, &mut self.sockets)
                    && pair.step()
                {
                    self.pairs.push(pair);
                }
            }
        }
    }
}

impl Pair {
    fn new(client: TcpStream, container: SocketAddr, sockets: &mut Sockets) -> std::io::Result<Self> {
        client.set_nonblocking(true)?;
        client.set_nodelay(true)?;
        let socket = sockets.take(SocketType::STREAM)?;
        let until = match connect(&socket, &container) {
            Ok(()) => None,
            Err(rustix::io::Errno::INPROGRESS) => Some(Instant::now() + PATIENCE),
            Err(error) => return Err(error.into()),
        };
        let server = TcpStream::from(socket);
        server.set_nodelay(true)?;
        Ok(Self { client, server, to_server: Way::default(), to_client: Way::default(), until })
    }

    /// `false` when it is over.
    fn step(&mut self) -> bool {
        if let Some(until) = self.until {
            if self.server.peer_addr().is_ok() {
                self.until = None;
            } else {
                let refused = !matches!(self.server.take_error(), Ok(None));
                return !refused && Instant::now() < until;
            }
        }
        let moved = self.to_server.copy(&mut self.client, &mut self.server)
            && self.to_client.copy(&mut self.server, &mut self.client);
        moved && !(self.to_server.closed && self.to_client.closed)
    }
}

impl Way {
    /// Moves what can be moved. `false` when one side is gone.
    fn copy(&mut self, from: &mut TcpStream, to: &mut TcpStream) -> bool {
        for _ in 0..AT_ONCE {
            while !self.bytes.is_empty() {
                match to.write(&self.bytes) {
                    Ok(0) => return false,
                    Ok(count) => drop(self.bytes.drain(..count)),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
                    Err(_) => return false,
                }
            }
            if self.ended {
                if !self.closed {
                    self.closed = true;
                    to.shutdown(Shutdown::Write).ok();
                }
                return true;
            }
            self.bytes.resize(CHUNK, 0);
            match from.read(&mut self.bytes) {
                Ok(0) => {
                    self.bytes = Vec::new();
                    self.ended = true;
                }
                Ok(count) => self.bytes.truncate(count),
                Err(error) => {
                    // An idle connection holds no memory.
                    self.bytes = Vec::new();
                    match error.kind() {
                        ErrorKind::WouldBlock => return true,
                        ErrorKind::Interrupted => {}
                        _ => return false,
                    }
                }
            }
        }
        true
    }
}
