//! What a Wasm program may use of the network: nothing, unless it is listed here.
//!
//! ```text
//! rule.rs      one entry of the list of what may be connected to
//! policy.rs    all of it, asked for every address
//! resolver.rs  names to addresses; dns.rs has the messages
//! publish.rs   ports that are taken before the program runs
//! hosts.rs     wasi:sockets of components
//! namespace.rs joining a network namespace (Linux)
//! ```

use std::net::{IpAddr, SocketAddr};

mod dns;
pub(super) mod hosts;
pub(super) mod namespace;
mod policy;
pub(super) mod publish;
mod resolver;
mod rule;

pub(super) use policy::{NoAddress, Policy};
pub(super) use resolver::Failure;
pub use rule::{Allow, InvalidRule};

/// The network of a Wasm task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// The host's sockets, without any restriction.
    pub host: bool,
    /// Which ports a program may listen on, and where they are on the host.
    pub publish: Vec<Publish>,
    /// TCP ports that the program is said to listen on; where a server of HTTP listens with [`Network::host`].
    pub exposed: Vec<u16>,
    /// What it may connect and send to. Names in it may be looked up.
    pub allow: Vec<Allow>,
    /// Names with addresses that the user has given, as in `/etc/hosts`.
    pub hosts: Vec<(String, IpAddr)>,
    /// Servers to ask for names; empty for the host's.
    pub dns: Vec<SocketAddr>,
    /// Domains to look for short names in; empty for the host's.
    pub dns_search: Vec<String>,
}

impl Network {
    /// Whether the process needs sockets of its own.
    pub(super) fn needs_sockets(&self) -> bool {
        self.host || !self.publish.is_empty() || !self.allow.is_empty()
    }
}

/// What ports belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// One port of the program that can be reached from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// Whose port it is.
    pub protocol: Protocol,
    /// Where it is on the host. The port is not 0.
    pub host: SocketAddr,
    /// What the program believes to listen on.
    pub guest_port: u16,
}
