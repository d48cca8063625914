//! What a container's own network namespace gets so that it finds names: two sockets of the monitor's, and a table of
//! the packet filter that leads questions to 127.0.0.11 to them.
//!
//! The sockets are on ports that the kernel chose: a server of the container's own may have port 53 on all addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{BorrowedFd, OwnedFd};

use super::firewall::{Questions, Table};
use super::{Realm, link};

/// Where containers ask for names, as in Docker.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 11);

/// The table's name in a container.
const TABLE: &str = "dhow";

/// The sockets of a container's server of names.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Opens them in a namespace whose loopback is up. The process must have one thread.
    pub(crate) fn open(namespace: BorrowedFd<'_>, realm: Option<&Realm>) -> io::Result<Self> {
        let Some(realm) = realm else { return Self::open_as_root(namespace) };
        let hand = || {
            let sockets = Self::open_as_root(namespace)?;
            Ok(((), vec![OwnedFd::from(sockets.udp), OwnedFd::from(sockets.tcp)]))
        };
        let (_, handed) = realm.fetch::<()>(hand).map_err(io::Error::other)?;
        let mut handed = handed.into_iter();
        match (handed.next(), handed.next()) {
            (Some(udp), Some(tcp)) => Ok(Self { udp: udp.into(), tcp: tcp.into() }),
            _ => Err(io::Error::other("the sockets are lost")),
        }
    }

    fn open_as_root(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        link::within(namespace, || {
            let any = SocketAddr::from((SERVER, 0));
            let (udp, tcp) = (UdpSocket::bind(any)?, TcpListener::bind(any)?);
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            let ports = Questions { udp: udp.local_addr()?.port(), tcp: tcp.local_addr()?.port() };
            Table::open(TABLE)?.lead(&ports)?;
            Ok(Self { udp, tcp })
        })
    }
}
