//! Taking the published ports before the program runs: a port that somebody else has is found out by who starts the
//! container and not by the program, and nobody takes it meanwhile.
//!
//! A socket that is bound and does not listen keeps its port; on Unix another one of this process may be bound there
//! all the same and listen, so that the program's own calls work as they are.

use std::net::SocketAddr;

use tokio::net::TcpSocket;

use super::{Protocol, Publish};
use crate::error::{Error, Result};

/// A TCP port that is kept for the program.
pub(in crate::wasm) struct Reserved {
    pub(in crate::wasm) publish: Publish,
    socket: Option<TcpSocket>,
}

impl Reserved {
    /// Starts to listen. Needs an async runtime.
    pub(in crate::wasm) fn listen(self, backlog: u32) -> std::io::Result<tokio::net::TcpListener> {
        match self.socket {
            Some(socket) => socket.listen(backlog),
            None => bind(self.publish.host)?.listen(backlog),
        }
    }
}

/// Takes all of `ports`. Those of UDP are only tried: two sockets there would share what comes in.
///
/// # Errors
/// In Docker's words, for the first that cannot be had.
pub(super) fn reserve(ports: &[Publish]) -> Result<Vec<Reserved>> {
    let mut reserved = Vec::new();
    for publish in ports {
        let taken = |source: std::io::Error| refused(publish.host, source);
        match publish.protocol {
            Protocol::Tcp => {
                let socket = Some(bind(publish.host).map_err(taken)?).filter(|_| cfg!(unix));
                reserved.push(Reserved { publish: *publish, socket });
            }
            Protocol::Udp => drop(std::net::UdpSocket::bind(publish.host).map_err(taken)?),
        }
    }
    Ok(reserved)
}

/// Binds a socket as programs' own are: each family for itself, whatever the last connection there left behind.
pub(in crate::wasm) fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    #[cfg(unix)]
    {
        if address.is_ipv6() {
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
        }
        socket.set_reuseaddr(true)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

fn refused(address: SocketAddr, source: std::io::Error) -> Error {
    match source.kind() {
        std::io::ErrorKind::AddrInUse => Error::Host {
            what: format!("bind for {address} failed: port is already allocated"),
            hint: "publish another port (`-p`), or end what has it: `dhow ps` shows the ports of containers"
                .to_owned(),
        },
        std::io::ErrorKind::PermissionDenied => Error::Host {
            what: format!("bind for {address} failed: permission denied"),
            hint: "ports below 1024 are root's; publish a higher one (`-p 8080:80`)".to_owned(),
        },
        std::io::ErrorKind::AddrNotAvailable => Error::Host {
            what: format!("bind for {address} failed: cannot assign requested address"),
            hint: "the address before the port must be one of this host".to_owned(),
        },
        _ => Error::Setup { action: format!("bind {address}"), source },
    }
}
