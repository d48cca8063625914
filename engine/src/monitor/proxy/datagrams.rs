//! Datagrams to published ports that the packet filter does not lead: who has sent one gets what the container answers, until
//! both have been silent for a while.
//!
//! Nothing is kept: what cannot be passed on at once is lost, as datagrams are.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::net::SocketType;

use super::Sockets;
use crate::monitor::pump::push;
use crate::network::Mailbox;

/// The most clients at a time; one more takes the place of who has been silent longest.
const MOST: usize = 256;
/// How long a client is remembered that says nothing and hears nothing.
const SILENCE: Duration = Duration::from_secs(90);
/// Datagrams of one socket before others get their turn.
const AT_ONCE: usize = 32;
/// The largest datagram.
const LARGEST: usize = 65_536;

/// The ports, and who has sent something to one.
#[derive(Debug)]
pub(super) struct Datagrams {
    mailboxes: Vec<Mailbox>,
    visitors: Vec<Visitor>,
}

#[derive(Debug)]
struct Visitor {
    /// Which of the ports.
    mailbox: usize,
    client: SocketAddr,
    /// Connected to the container's port.
    socket: UdpSocket,
    last: Instant,
}

impl Datagrams {
    pub(super) fn new(mailboxes: Vec<Mailbox>) -> Self {
        Self { mailboxes, visitors: Vec::new() }
    }

    /// Who comes again is a new visitor.
    pub(super) fn forget(&mut self) {
        self.visitors.clear();
    }

    /// Adds what is waited for.
    pub(super) fn wait_for<'fd>(&'fd self, fds: &mut Vec<PollFd<'fd>>) {
        for mailbox in &self.mailboxes {
            push(fds, mailbox.socket.as_fd(), PollFlags::IN);
        }
        for visitor in &self.visitors {
            push(fds, visitor.socket.as_fd(), PollFlags::IN);
        }
    }

    /// When somebody is to be forgotten.
    pub(super) fn due(&self) -> Option<Instant> {
        self.visitors.iter().map(|visitor| visitor.last + SILENCE).min()
    }

    /// Passes on what there is.
    pub(super) fn step(&mut self, container: Ipv4Addr, sockets: &mut Sockets) {
        if self.mailboxes.is_empty() {
            return;
        }
        let mut datagram = vec![0; LARGEST];
        let now = Instant::now();
        self.visitors.retain(|visitor| now < visitor.last + SILENCE);
        for visitor in &mut self.visitors {
            let Some(mailbox) = self.mailboxes.get(visitor.mailbox) else { continue };
            for _ in 0..AT_ONCE {
                // An error is somebody's word that nobody listens there: the client learns it by silence.
                let Ok(length) = visitor.socket.recv(&mut datagram) else { break };
                mailbox.socket.send_to(&datagram[..length], visitor.client).ok();
                visitor.last = now;
            }
        }
        for index in 0..self.mailboxes.len() {
            for _ in 0..AT_ONCE {
                let Some(mailbox) = self.mailboxes.get(index) else { break };
                let Ok((length, client)) = mailbox.socket.recv_from(&mut datagram) else { break };
                let to = SocketAddr::from((container, mailbox.port));
                if let Some(visitor) = self.visitor(index, client, to, sockets) {
                    visitor.socket.send(&datagram[..length]).ok();
                    visitor.last = now;
                }
            }
        }
    }

    fn visitor(
        &mut self,
        mailbox: usize,
        client: SocketAddr,
        to: SocketAddr,
        sockets: &mut Sockets,
    ) -> Option<&mut Visitor> {
        let is_it = |visitor: &Visitor| visitor.mailbox == mailbox && visitor.client == client;
        if let Some(known) = self.visitors.iter().position(is_it) {
            return self.visitors.get_mut(known);
        }
        let socket = UdpSocket::from(sockets.take(SocketType::DGRAM).ok()?);
        socket.connect(to).ok()?;
        if self.visitors.len() >= MOST {
            let oldest = self.visitors.iter().enumerate().min_by_key(|(_, visitor)| visitor.last)?.0;
            self.visitors.swap_remove(oldest);
        }
        self.visitors.push(Visitor { mailbox, client, socket, last: Instant::now() });
        self.visitors.last_mut()
    }
}
