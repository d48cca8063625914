//! What a container's own network namespace gets so that it finds names: two sockets of the monitor's, and a table of
//! the packet filter that leads questions to 127.0.0.11 to them.
//!
//! The sockets are on ports that the kernel chose: a server of the container's own may have port 53 on all addresses.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::BorrowedFd;

use super::firewall::{Questions, Table};
use super::link;

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
    pub(crate) fn open(namespace: BorrowedFd<'_>) -> io::Result<Self> {
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
