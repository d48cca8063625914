//! Ports of this host that lead to a container: taking them, and what the packet filter is told.
//!
//! A published port is held by a bound socket of the monitor for as long as the container runs, so that no other program
//! of this host gets it, and one that has it is noticed. The packet filter leads what it can past that socket; what
//! reaches it all the same (by IPv6 where the container has none, and from this host's `::1`) is the monitor's to copy.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, SocketFlags, SocketType, bind, getsockname, ipproto, listen, socket_with, sockopt,
};

use super::Endpoint;
use super::firewall::{Element, Forward, Protocol};
use crate::error::{Error, Result};
use crate::ports::{self, PortBinding, PortMap};
use crate::record::Record;

/// How many connections wait to be copied.
const BACKLOG: i32 = 128;
/// How often another port is tried where any will do.
const TRIES: usize = 32;

/// A port that was taken.
#[derive(Debug)]
pub(super) struct Held {
    protocol: Protocol,
    /// In the container.
    number: u16,
    /// As `80/tcp`.
    port: String,
    host: SocketAddr,
    /// `None` for a protocol that this host has no sockets of.
    socket: Option<OwnedFd>,
}

/// A published port whose connections are copied, where they come to it.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) listener: TcpListener,
    /// Port of the container.
    pub(crate) port: u16,
}

/// A published port whose datagrams are copied, where they come to it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(crate) socket: UdpSocket,
    /// Port of the container.
    pub(crate) port: u16,
}

/// What keeps ports from others.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Where connections may come in.
    pub(crate) doors: Vec<Door>,
    /// Where datagrams may.
    pub(crate) mailboxes: Vec<Mailbox>,
    /// Bound, and nothing else.
    _others: Vec<OwnedFd>,
}

/// Takes the ports of this host that are to be published. `binding` is the address of those that name none.
pub(super) fn take(record: &Record, binding: Option<&str>, six: bool) -> Result<Vec<Held>> {
    let mut held = Vec::new();
    for (port, mut wanted) in ports::wanted(record)? {
        let (number, protocol) = ports::container_port(&port)?;
        let protocol = match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        if wanted.host_ip.is_empty() {
            wanted.host_ip = binding.unwrap_or_default().to_owned();
        }
        let endpoint = format!("{} ({})", record.name, record.id);
        for (host, socket) in hold(protocol, &wanted, six, &endpoint)? {
            held.push(Held { protocol, number, port: port.clone(), host, socket });
        }
    }
    Ok(held)
}

/// As the state and `inspect` keep it.
pub(super) fn shown(held: &[Held]) -> PortMap {
    let mut shown = PortMap::new();
    for Held { port, host, .. } in held {
        let (host_ip, host_port) = (host.ip().to_string(), host.port().to_string());
        shown.entry(port.clone()).or_default().push(PortBinding { host_ip, host_port });
    }
    shown
}

/// What stays with the monitor.
pub(super) fn kept(held: Vec<Held>) -> Kept {
    let mut kept = Kept::default();
    for Held { protocol, number, socket, .. } in held {
        match (protocol, socket) {
            (Protocol::Tcp, Some(socket)) => {
                kept.doors.push(Door { listener: TcpListener::from(socket), port: number });
            }
            (Protocol::Udp, Some(socket)) => {
                kept.mailboxes.push(Mailbox { socket: UdpSocket::from(socket), port: number });
            }
            (_, socket) => kept._others.extend(socket),
        }
    }
    kept
}

/// What the packet filter is told about an endpoint's ports.
pub(super) fn forwards(endpoint: &Endpoint) -> Vec<Element> {
    let mut forwards = Vec::new();
    for (port, bindings) in &endpoint.ports {
        let Ok((number, protocol)) = ports::container_port(port) else { continue };
        let protocol = match protocol {
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        for binding in bindings {
            let (Ok(ip), Ok(port)) = (binding.host_ip.parse::<IpAddr>(), binding.host_port.parse()) else {
                continue;
            };
            let container = match ip {
                IpAddr::V4(_) => Some(IpAddr::V4(endpoint.address)),
                IpAddr::V6(_) => endpoint.address6.map(IpAddr::V6),
            };
            forwards.extend(container.map(|container| {
                let (host, container) = (SocketAddr::new(ip, port), SocketAddr::new(container, number));
                Element::Forward(Forward { protocol, host, container })
            }));
        }
    }
    forwards
}

/// Takes a port for a binding: on one address, or on all of both families. `endpoint` is whose it is, for messages.
fn hold(
    protocol: Protocol,
    binding: &PortBinding,
    six: bool,
    endpoint: &str,
) -> Result<Vec<(SocketAddr, Option<OwnedFd>)>> {
    let addresses: Vec<IpAddr> = match binding.host_ip.as_str() {
        // Nothing else can be copied: without an address of the container's there is nowhere for it to go.
        "" if six || protocol != Protocol::Sctp => {
            vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]
        }
        "" => vec![Ipv4Addr::UNSPECIFIED.into()],
        text => vec![text.parse().map_err(|_| Error::Invalid(format!("invalid IP address: {text}")))?],
    };
    let (first, last) = binding.range()?;
    let any = (first, last) == (0, 0);
    let candidates: Vec<u16> = if any { vec![0; TRIES] } else { (first..=last).collect() };
    let mut refused = None;
    for port in candidates {
        match hold_all(protocol, &addresses, port) {
            Ok(held) => return Ok(held),
            Err((wanted, error)) => {
                let taken = error.kind() == ErrorKind::AddrInUse;
                refused = Some((wanted, error));
                if !taken {
                    break;
                }
            }
        }
    }
    let driver = format!("driver failed programming external connectivity on endpoint {endpoint}");
    match refused {
        Some((wanted, error)) if error.kind() == ErrorKind::AddrInUse && first == last && !any => {
            let words = format!("{driver}: Bind for {wanted} failed: port is already allocated");
            Err(Error::Invalid(words))
        }
        Some((_, error)) if error.kind() == ErrorKind::AddrInUse && !any => {
            Err(Error::Invalid(format!("all ports of {first}-{last} are allocated on this host")))
        }
        Some((_, error))
            if error.raw_os_error() == Some(rustix::io::Errno::PROTONOSUPPORT.raw_os_error()) =>
        {
            // What is named is led there all the same.
            let words = "this kernel has no SCTP to choose a port of: name one, as in `-p 80:80/sctp`";
            Err(Error::Invalid(format!("{driver}: {words}")))
        }
        Some((wanted, error)) => {
            Err(Error::Invalid(format!("{driver}: cannot publish on {wanted}: {error}")))
        }
        None => Err(Error::Invalid("no free port on this host".to_owned())),
    }
}

type Refused = (SocketAddr, std::io::Error);

/// The same port on each address. A host without IPv6 is none that cannot publish.
fn hold_all(
    protocol: Protocol,
    addresses: &[IpAddr],
    mut port: u16,
) -> std::result::Result<Vec<(SocketAddr, Option<OwnedFd>)>, Refused> {
    let mut held = Vec::new();
    for ip in addresses {
        let wanted = SocketAddr::new(*ip, port);
        match open(protocol, wanted) {
            Ok((address, socket)) => {
                port = address.port();
                held.push((address, socket));
            }
            Err(error) if !held.is_empty() && error.kind() != ErrorKind::AddrInUse => {}
            Err(error) => return Err((wanted, error)),
        }
    }
    Ok(held)
}

/// Binds a socket for its own family alone.
fn open(protocol: Protocol, address: SocketAddr) -> std::io::Result<(SocketAddr, Option<OwnedFd>)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let (kind, number) = match protocol {
        Protocol::Tcp => (SocketType::STREAM, ipproto::TCP),
        Protocol::Udp => (SocketType::DGRAM, ipproto::UDP),
        Protocol::Sctp => (SocketType::STREAM, ipproto::SCTP),
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = match socket_with(family, kind, flags, Some(number)) {
        // Others' packets of it can be led all the same.
        Err(rustix::io::Errno::PROTONOSUPPORT) if protocol == Protocol::Sctp && address.port() != 0 => {
            return Ok((address, None));
        }
        other => other?,
    };
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections that have just ended are nobody's.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(getsockname(&socket)?).map_err(std::io::Error::from)?;
    Ok((bound, Some(socket)))
}
