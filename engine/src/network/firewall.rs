//! The packet filter's table: which port of this host leads where, which networks reach each other.
//!
//! The rules never change. What does are elements of sets and maps:
//!
//! ```text
//! set bridges    interface              of networks
//! set internal   interface              of networks that lead nowhere
//! set masked     interface              of networks that have this host's address elsewhere
//! set pairs      interface . interface  each bridge with itself
//! map tcp, udp, sctp           port            of any address of this host: address . port of a container
//! map tcp_at, udp_at, sctp_at  address . port  of one address of this host: the same
//! map tcp6, ..., sctp6_at                      the same for IPv6
//! ```
//! A table belongs to one root folder and is named after it. Each change is a transaction: it is done in whole or not at
//! all, and so is the making of the table. Other tables are left alone: where another one drops forwarded packets (as
//! Docker's does), an administrator has to let ours pass.

mod rule;

use std::io;
use std::net::{IpAddr, SocketAddr};

use dhow_runtime::netlink::{APPEND, ASK, CREATE, EXCLUSIVE, Message, Netlink, TELL};
use rule::{Chain, Rule};
use rustix::io::Errno;

/// Subsystem of netlink messages to the packet filter.
const NFTABLES: u16 = 10 << 8;
const NEW_TABLE: u16 = NFTABLES;
const GET_TABLE: u16 = NFTABLES | 1;
const DELETE_TABLE: u16 = NFTABLES | 2;
const NEW_CHAIN: u16 = NFTABLES | 3;
const NEW_RULE: u16 = NFTABLES | 6;
const NEW_SET: u16 = NFTABLES | 9;
const NEW_ELEMENT: u16 = NFTABLES | 12;
const DELETE_ELEMENT: u16 = NFTABLES | 14;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;

/// Both families of addresses.
const INET: u8 = 1;
/// What is in a map has data.
const MAP: u32 = 8;
/// Longest name of an interface, with the NUL.
const IFNAME: usize = 16;

/// The protocols that can be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub(super) const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its map: for IPv6 or not, of one address or of any.
    const fn map(self, six: bool, at: bool) -> &'static str {
        match (self, six, at) {
            (Self::Tcp, false, false) => "tcp",
            (Self::Tcp, false, true) => "tcp_at",
            (Self::Tcp, true, false) => "tcp6",
            (Self::Tcp, true, true) => "tcp6_at",
            (Self::Udp, false, false) => "udp",
            (Self::Udp, false, true) => "udp_at",
            (Self::Udp, true, false) => "udp6",
            (Self::Udp, true, true) => "udp6_at",
            (Self::Sctp, false, false) => "sctp",
            (Self::Sctp, false, true) => "sctp_at",
            (Self::Sctp, true, false) => "sctp6",
            (Self::Sctp, true, true) => "sctp6_at",
        }
    }
}

/// A port of this host that leads to one of a container. Both addresses are of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forward {
    pub(super) protocol: Protocol,
    /// On all addresses of this host if its address is unspecified.
    pub(super) host: SocketAddr,
    pub(super) container: SocketAddr,
}

/// Where a container's questions for names are led.
#[derive(Debug, Clone, Copy)]
pub(super) struct Questions {
    /// Port for datagrams.
    pub(super) udp: u16,
    /// Port for connections.
    pub(super) tcp: u16,
}

/// One thing that can be in the table or not.
#[derive(Debug, Clone)]
pub(super) enum Element {
    /// A bridge; an internal one leads nowhere, the containers of a silent one do not reach each other, and those of a
    /// masked one have this host's address elsewhere.
    Bridge { name: String, internal: bool, silent: bool, masked: bool },
    /// A published port.
    Forward(Forward),
}

/// The table of one root folder.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    netlink: Netlink,
}

impl Table {
    /// Connects to the packet filter; makes nothing.
    pub(super) fn open(name: &str) -> io::Result<Self> {
        Ok(Self { name: name.to_owned(), netlink: Netlink::filter()? })
    }

    /// Makes the table with all its rules and nothing in its sets. `false` when it was there.
    pub(super) fn install(&mut self) -> io::Result<bool> {
        if self.exists()? {
            return Ok(false);
        }
        let mut messages = vec![self.message(NEW_TABLE, ASK | CREATE | EXCLUSIVE, |m| {
            m.text(1, &self.name);
        })];
        for (number, (name, key, data)) in (1u32..).zip(sets()) {
            messages.push(self.message(NEW_SET, ASK | CREATE | EXCLUSIVE, |m| {
                m.text(1, &self.name).text(2, name).attribute(10, &number.to_be_bytes());
                m.attribute(4, &key.kind.to_be_bytes()).attribute(5, &key.length.to_be_bytes());
                if key.kind == INTERFACE {
                    // For who lists it: the key is in the host's order of bytes (type 0, four bytes).
                    m.attribute(13, &[&[0, 4][..], &1u32.to_ne_bytes()].concat());
                }
                if let Some(data) = data {
                    m.attribute(3, &MAP.to_be_bytes());
                    m.attribute(6, &data.kind.to_be_bytes()).attribute(7, &data.length.to_be_bytes());
                }
            }));
        }
        self.write_chains(&rule::chains(), &mut messages);
        match self.transact(messages) {
            // Somebody was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Makes a table in a container's namespace that leads its questions for names. One that is there is replaced.
    pub(super) fn lead(&mut self, to: &Questions) -> io::Result<()> {
        // To fail to remove one costs milliseconds: the kernel waits for all its readers.
        if self.exists()? {
            self.uninstall()?;
        }
        let mut messages = vec![self.message(NEW_TABLE, ASK | CREATE | EXCLUSIVE, |m| {
            m.text(1, &self.name);
        })];
        self.write_chains(&rule::questions(to), &mut messages);
        self.transact(messages)
    }

    fn write_chains(&self, chains: &[Chain], messages: &mut Vec<Message>) {
        for chain in chains {
            messages.push(self.message(NEW_CHAIN, ASK | CREATE | EXCLUSIVE, |m| chain.write(&self.name, m)));
        }
        for Chain { name, rules, .. } in chains {
            for rule in rules {
                messages.push(self.message(NEW_RULE, ASK | CREATE | APPEND, |m| {
                    m.text(1, &self.name).text(2, name);
                    Rule::write(rule, m);
                }));
            }
        }
    }

    /// Whether it is there.
    pub(super) fn exists(&mut self) -> io::Result<bool> {
        let message = self.message(GET_TABLE, ASK, |m| {
            m.text(1, &self.name);
        });
        match self.netlink.send(vec![message]) {
            Err(Errno::NOENT) => Ok(false),
            other => Ok(other.map(|()| true)?),
        }
    }

    /// Removes the table and all that is in it.
    pub(super) fn uninstall(&mut self) -> io::Result<()> {
        let message = self.message(DELETE_TABLE, ASK, |m| {
            m.text(1, &self.name);
        });
        match self.transact(vec![message]) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Puts elements in. One that is there for the same key is replaced: whoever adds it owns the key now.
    pub(super) fn add(&mut self, elements: &[Element]) -> io::Result<()> {
        let new = |table: &Self| {
            let write = |element| table.write(NEW_ELEMENT, CREATE, element);
            elements.iter().flat_map(write).collect::<Vec<_>>()
        };
        match self.transact(new(self)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                for element in elements {
                    self.remove(std::slice::from_ref(element))?;
                }
                self.transact(new(self))
            }
            other => other,
        }
    }

    /// Takes elements out. One that is not there is no error.
    pub(super) fn remove(&mut self, elements: &[Element]) -> io::Result<()> {
        for element in elements {
            // Each by itself: one that is missing would undo the others.
            for message in self.write(DELETE_ELEMENT, 0, element) {
                match self.transact(vec![message]) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    other => other?,
                }
            }
        }
        Ok(())
    }

    fn message(&self, kind: u16, flags: u16, fill: impl FnOnce(&mut Message)) -> Message {
        let mut message = Message::new(kind, flags);
        message.put(&[INET, 0, 0, 0]);
        fill(&mut message);
        message
    }

    fn transact(&mut self, messages: Vec<Message>) -> io::Result<()> {
        let mark = |kind| {
            let mut message = Message::new(kind, TELL);
            // No family, version 0, subsystem 10 in network order.
            message.put(&[0, 0, 0, 10]);
            message
        };
        let mut batch = vec![mark(BATCH_BEGIN)];
        batch.extend(messages);
        batch.push(mark(BATCH_END));
        Ok(self.netlink.send(batch)?)
    }

    fn write(&self, kind: u16, flags: u16, element: &Element) -> Vec<Message> {
        let one = |set: &str, key: &[u8], data: Option<&[u8]>| {
            self.message(kind, ASK | flags, |m| {
                m.text(1, &self.name).text(2, set);
                m.nested(3, |list| {
                    list.nested(1, |element| {
                        element.nested(1, |value| {
                            value.attribute(1, key);
                        });
                        if let Some(data) = data.filter(|_| kind == NEW_ELEMENT) {
                            element.nested(2, |value| {
                                value.attribute(1, data);
                            });
                        }
                    });
                });
            })
        };
        match element {
            Element::Bridge { name, internal, silent, masked } => {
                let name = interface(name);
                let pair = [name, name].concat();
                let mut messages = vec![one(BRIDGES, &name, None)];
                if !silent {
                    messages.push(one(PAIRS, &pair, None));
                }
                if *masked {
                    messages.push(one(MASKED, &name, None));
                }
                if *internal {
                    messages.push(one(INTERNAL, &name, None));
                }
                messages
            }
            Element::Forward(Forward { protocol, host, container }) => {
                let (to, six) = (place(*container), host.is_ipv6());
                let at = !host.ip().is_unspecified();
                let key = if at { place(*host) } else { host.port().to_be_bytes().to_vec() };
                vec![one(protocol.map(six, at), &key, Some(&to))]
            }
        }
    }
}

/// The `nft` command's number for names of interfaces.
const INTERFACE: u32 = 41;
const BRIDGES: &str = "bridges";
const INTERNAL: &str = "internal";
const PAIRS: &str = "pairs";
const MASKED: &str = "masked";

/// Type and length of a key or of data.
#[derive(Debug, Clone, Copy)]
struct Kind {
    kind: u32,
    length: u32,
}

/// A name as it lies in a register.
fn interface(name: &str) -> [u8; IFNAME] {
    let mut bytes = [0; IFNAME];
    for (to, from) in bytes.iter_mut().zip(name.bytes().take(IFNAME - 1)) {
        *to = from;
    }
    bytes
}

/// An address and a port as they lie in registers.
fn place(place: SocketAddr) -> Vec<u8> {
    let mut bytes = match place.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    bytes.extend(place.port().to_be_bytes());
    bytes.extend([0; 2]);
    bytes
}

/// All sets and maps: name, what is looked up, and what is found.
fn sets() -> Vec<(&'static str, Kind, Option<Kind>)> {
    // Numbers of data types mean something to the `nft` command alone; those of several are joined by six bits.
    let interface = Kind { kind: INTERFACE, length: 16 };
    let pair = Kind { kind: 41 << 6 | 41, length: 32 };
    let port = Kind { kind: 13, length: 2 };
    let place = |six| match six {
        false => Kind { kind: 7 << 6 | 13, length: 8 },
        true => Kind { kind: 8 << 6 | 13, length: 20 },
    };
    let mut sets: Vec<_> = [BRIDGES, INTERNAL, MASKED].map(|name| (name, interface, None)).into();
    sets.push((PAIRS, pair, None));
    for protocol in Protocol::ALL {
        for six in [false, true] {
            sets.push((protocol.map(six, false), port, Some(place(six))));
            sets.push((protocol.map(six, true), place(six), Some(place(six))));
        }
    }
    sets
}
