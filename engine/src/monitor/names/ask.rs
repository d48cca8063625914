//! A question in a datagram that was passed on to the servers of this host, one after the other.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use super::PATIENCE;
use crate::network::dns::Question;

/// The largest answer that is read.
const ANSWER_MAX: usize = 4096;

/// One that is on its way.
#[derive(Debug)]
pub(super) struct Ask {
    /// Connected to the server that is asked now, so that nobody else's datagrams come in.
    pub(super) socket: UdpSocket,
    pub(super) question: Question,
    /// As it came.
    pub(super) message: Vec<u8>,
    /// Who wants to know.
    pub(super) client: SocketAddr,
    /// When the next server is asked.
    pub(super) until: Instant,
    /// The number under which it was sent on.
    id: u16,
    /// Who has not been asked, the next one last.
    left: Vec<SocketAddr>,
}

impl Ask {
    /// Asks the first server that can be asked. `None` when there is none.
    pub(super) fn new(
        question: Question,
        message: &[u8],
        client: SocketAddr,
        servers: &[SocketAddr],
    ) -> Option<Self> {
        let mut left: Vec<SocketAddr> = servers.iter().rev().copied().collect();
        loop {
            let server = left.pop()?;
            if let Ok((socket, id)) = send(server, message) {
                let until = Instant::now() + PATIENCE;
                return Some(Self { socket, question, message: message.to_vec(), client, until, id, left });
            }
        }
    }

    /// Asks the next server; `false` when all have been asked.
    pub(super) fn ask_next(&mut self) -> bool {
        while let Some(server) = self.left.pop() {
            if let Ok((socket, id)) = send(server, &self.message) {
                (self.socket, self.id, self.until) = (socket, id, Instant::now() + PATIENCE);
                return true;
            }
        }
        false
    }

    /// The answer, if it has come, with the number of who asked.
    pub(super) fn answer(&mut self) -> Option<Vec<u8>> {
        let mut answer = [0; ANSWER_MAX];
        loop {
            match self.socket.recv(&mut answer) {
                Ok(length) => {
                    let answer = &answer[..length];
                    // Late, forged or torn: the right one may still come.
                    if self.question.is_answered_by(&self.message, answer, self.id) {
                        let own = self.question.id.to_be_bytes();
                        return Some([&own[..], &answer[2..]].concat());
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                // Nobody listens there: the next one.
                Err(_) => {
                    self.until = Instant::now();
                    return None;
                }
            }
        }
    }
}

fn send(server: SocketAddr, message: &[u8]) -> std::io::Result<(UdpSocket, u16)> {
    let any = match server {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    let mut id = [0; 2];
    rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty())?;
    socket.send(&[&id, message.get(2..).unwrap_or_default()].concat())?;
    Ok((socket, u16::from_be_bytes(id)))
}
