//! Bridges, virtual cables, addresses and routes: the wires of a network, by netlink.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};

use fs_err as fs;
use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::address::Subnet;
use super::address6::Subnet6;
use dhow_runtime::netlink::{ASK, CREATE, EXCLUSIVE, Message, Netlink, attributes};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const SET_LINK: u16 = 19;
const NEW_ROUTE: u16 = 24;
const GET_ROUTE: u16 = 26;

// Attributes of links.
const HARDWARE_ADDRESS: u16 = 1;
const NAME: u16 = 3;
const MTU: u16 = 4;
const MASTER: u16 = 10;
/// `IFLA_PROTINFO`, of bridges' ports.
const PORT_INFO: u16 = 12;
/// `IFLA_BRPORT_ISOLATED`
const ISOLATED: u16 = 33;
const INFO: u16 = 18;
const ALIAS: u16 = 20;
const NAMESPACE: u16 = 28;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const VETH_PEER: u16 = 1;

/// `IFF_UP`.
const UP: u32 = 1;
const LOOPBACK: u32 = 1;

fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut header = [0; 16];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    // The flags that are to be changed.
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

/// The number of a link of this namespace, if there is one.
pub(super) fn index(name: &str) -> Option<u32> {
    Netlink::route().and_then(|route| route.index(name)).ok()
}

/// What a network's bridge is to be.
#[derive(Debug)]
pub(super) struct Bridge<'a> {
    pub(super) name: &'a str,
    /// Tells whose it is.
    pub(super) alias: &'a str,
    pub(super) address: (Ipv4Addr, Subnet),
    pub(super) address6: Option<(Ipv6Addr, Subnet6)>,
    pub(super) mtu: Option<u32>,
}

/// Makes sure that a bridge is there, has its addresses and is up.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when the name is somebody else's.
pub(super) fn ensure_bridge(wanted: &Bridge<'_>) -> io::Result<u32> {
    let Bridge { name, alias, address: (gateway, subnet), address6, mtu } = *wanted;
    if let Some(index) = index(name) {
        if alias_of(name).as_deref() == Some(alias) {
            return Ok(index);
        }
        let words = format!("the interface {name} is there and not this network's");
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, words));
    }
    let mut route = Netlink::route()?;
    let mut bridge = Message::new(NEW_LINK, ASK | CREATE | EXCLUSIVE);
    bridge.put(&link(0, UP)).text(NAME, name);
    if let Some(mtu) = mtu {
        bridge.attribute(MTU, &mtu.to_ne_bytes());
    }
    bridge.nested(INFO, |info| {
        info.text(INFO_KIND, "bridge");
    });
    match route.send(vec![bridge]) {
        // Somebody was faster, and is about to say whose it is.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let index = index(name).ok_or_else(|| io::Error::other(format!("the bridge {name} is gone")))?;
    let mut named = Message::new(NEW_LINK, ASK);
    named.put(&link(index, 0)).text(ALIAS, alias);
    route.send(vec![named])?;
    if let Some((address, subnet)) = address6 {
        set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
        match route.send(vec![self::address6(index, address, subnet)]) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => other?,
        }
        set("net/ipv6/conf/all/forwarding", "1")?;
    }
    match route.send(vec![address(index, gateway, subnet)]) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    // So that the host's loopback reaches published ports; who else comes with such an address is dropped.
    set(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
    set("net/ipv4/ip_forward", "1")?;
    Ok(index)
}

/// Whose a link is.
pub(super) fn alias_of(name: &str) -> Option<String> {
    let mut found = None;
    let index = index(name)?;
    ask(index, |_, alias| found = alias).ok()?;
    found
}

/// Every link of this namespace with its alias.
pub(super) fn aliases() -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    ask(0, |name, alias| found.extend(name.zip(alias)))?;
    Ok(found)
}

/// Name and alias of a link, or of all. From the kernel itself: what `/sys` shows is the network of who mounted it.
fn ask(index: u32, mut each: impl FnMut(Option<String>, Option<String>)) -> io::Result<()> {
    const GET_LINK: u16 = 18;
    let mut route = Netlink::route()?;
    let each = |body: &[u8]| {
        let mut texts = [None, None];
        for (kind, value) in attributes(body.get(16..).unwrap_or_default()) {
            let text = || Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned());
            match kind {
                NAME => texts[0] = text(),
                ALIAS => texts[1] = text(),
                _ => {}
            }
        }
        let [name, alias] = texts;
        each(name, alias);
    };
    match index {
        0 => route.dump(GET_LINK, &link(0, 0), each)?,
        _ => route.get(GET_LINK, &link(index, 0), each)?,
    }
    Ok(())
}

/// Switches the loopback of this namespace on.
pub(super) fn loopback_up() -> io::Result<()> {
    let mut up = Message::new(NEW_LINK, ASK);
    up.put(&link(LOOPBACK, UP));
    Ok(Netlink::route()?.send(vec![up])?)
}

fn set(setting: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/{setting}");
    if fs::read_to_string(&path)?.trim() == value {
        return Ok(());
    }
    fs::write(path, value)
}

fn address(index: u32, address: Ipv4Addr, subnet: Subnet) -> Message {
    let mut message = Message::new(NEW_ADDRESS, ASK | CREATE | EXCLUSIVE);
    message.put(&[libc_af_inet(), subnet.prefix, 0, 0]).put(&index.to_ne_bytes());
    message.attribute(1, &address.octets()).attribute(2, &address.octets());
    message.attribute(4, &subnet.last().octets());
    message
}

fn address6(index: u32, address: Ipv6Addr, subnet: Subnet6) -> Message {
    // Nobody has to be asked whether it is free: IFA_F_NODAD.
    const ALONE: u8 = 0x02;
    let mut message = Message::new(NEW_ADDRESS, ASK | CREATE | EXCLUSIVE);
    message.put(&[AF_INET6, subnet.prefix, ALONE, 0]).put(&index.to_ne_bytes());
    message.attribute(1, &address.octets()).attribute(2, &address.octets());
    message
}

/// The way to everywhere else.
fn default_route(index: u32, gateway: IpAddr, flags: u16) -> Message {
    let mut default = Message::new(NEW_ROUTE, ASK | CREATE | flags);
    let (family, octets) = match gateway {
        IpAddr::V4(address) => (libc_af_inet(), address.octets().to_vec()),
        IpAddr::V6(address) => (AF_INET6, address.octets().to_vec()),
    };
    // Main table, by an administrator, everywhere, by way of a gateway.
    default.put(&[family, 0, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0]);
    default.attribute(5, &octets).attribute(4, &index.to_ne_bytes());
    default
}

/// Gives a container another way out, or its only one.
pub(super) fn lead(
    namespace: BorrowedFd<'_>,
    interface: &str,
    gateway: Option<Ipv4Addr>,
    gateway6: Option<Ipv6Addr>,
) -> io::Result<()> {
    /// `NLM_F_REPLACE`
    const REPLACE: u16 = 0x100;
    within(namespace, || {
        let Some(index) = index(interface) else { return Ok(()) };
        let gateways = gateway.map(IpAddr::V4).into_iter().chain(gateway6.map(IpAddr::V6));
        let routes = gateways.map(|gateway| default_route(index, gateway, REPLACE)).collect();
        Ok(Netlink::route()?.send(routes)?)
    })
}

/// `AF_INET6`
const AF_INET6: u8 = 10;
/// `AF_BRIDGE`
const AF_BRIDGE: u8 = 7;

/// `AF_INET`.
const fn libc_af_inet() -> u8 {
    2
}

/// What one end of a cable gets in the container.
#[derive(Debug, Clone)]
pub(super) struct Inside {
    /// Name of the interface, `eth0`.
    pub(super) name: String,
    pub(super) address: Ipv4Addr,
    pub(super) subnet: Subnet,
    pub(super) address6: Option<(Ipv6Addr, Subnet6)>,
    /// Further addresses: Docker gives them 16 bits of a network, or 64.
    pub(super) link_local: Vec<IpAddr>,
    /// Where everything else goes; `None` for networks that lead nowhere, and where another network has it.
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) gateway6: Option<Ipv6Addr>,
    pub(super) hardware: [u8; 6],
    pub(super) mtu: Option<u32>,
    /// It reaches its bridge, and no other container there.
    pub(super) silent: bool,
}

/// Lays a cable between a bridge and a container's namespace, and sets its end there up.
pub(super) fn connect(
    outside: &str,
    alias: &str,
    bridge: u32,
    namespace: BorrowedFd<'_>,
    inside: &Inside,
) -> io::Result<()> {
    let mut route = Netlink::route()?;
    let mut cable = Message::new(NEW_LINK, ASK | CREATE | EXCLUSIVE);
    cable.put(&link(0, UP)).text(NAME, outside).attribute(MASTER, &bridge.to_ne_bytes());
    cable.text(ALIAS, alias);
    let mtu = inside.mtu.map(u32::to_ne_bytes);
    if let Some(mtu) = mtu {
        cable.attribute(MTU, &mtu);
    }
    cable.nested(INFO, |info| {
        info.text(INFO_KIND, "veth").nested(INFO_DATA, |data| {
            data.nested(VETH_PEER, |peer| {
                peer.put(&link(0, 0)).text(NAME, &inside.name);
                peer.attribute(HARDWARE_ADDRESS, &inside.hardware);
                if let Some(mtu) = mtu {
                    peer.attribute(MTU, &mtu);
                }
                peer.attribute(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
            });
        });
    });
    route.send(vec![cable])?;
    if inside.silent {
        let index = index(outside).ok_or_else(|| io::Error::other(format!("the cable {outside} is gone")))?;
        let mut alone = Message::new(SET_LINK, ASK);
        let mut header = link(index, 0);
        header[0] = AF_BRIDGE;
        alone.put(&header).nested(PORT_INFO, |port| {
            port.attribute(ISOLATED, &[1]);
        });
        route.send(vec![alone])?;
    }
    within(namespace, || {
        let mut route = Netlink::route()?;
        let index = index(&inside.name)
            .ok_or_else(|| io::Error::other(format!("the interface {} is gone", inside.name)))?;
        let up = |index| {
            let mut message = Message::new(NEW_LINK, ASK);
            message.put(&link(index, UP));
            message
        };
        let mut messages = vec![up(LOOPBACK), address(index, inside.address, inside.subnet), up(index)];
        if inside.address6.is_some() || inside.link_local.iter().any(IpAddr::is_ipv6) {
            set(&format!("net/ipv6/conf/{}/disable_ipv6", inside.name), "0")?;
        }
        if let Some((address, subnet)) = inside.address6 {
            messages.push(address6(index, address, subnet));
        }
        for further in &inside.link_local {
            messages.push(match further {
                IpAddr::V4(further) => address(index, *further, Subnet::of(*further, 16)),
                IpAddr::V6(further) => address6(index, *further, Subnet6 { first: *further, prefix: 64 }),
            });
        }
        if let Some(gateway) = inside.gateway {
            messages.push(default_route(index, gateway.into(), EXCLUSIVE));
        }
        if let Some(gateway) = inside.gateway6 {
            messages.push(default_route(index, gateway.into(), EXCLUSIVE));
        }
        Ok(route.send(messages)?)
    })
}

/// Removes a link. Slow for cables, which go with their container's namespace instead.
pub(super) fn remove(name: &str) -> io::Result<()> {
    let Some(index) = index(name) else { return Ok(()) };
    let mut message = Message::new(DELETE_LINK, ASK);
    message.put(&link(index, 0));
    match Netlink::route()?.send(vec![message]) {
        Err(Errno::NODEV) => Ok(()),
        other => Ok(other?),
    }
}

/// Does something in another network namespace. The process must have one thread; sockets stay in the namespace in
/// which they were made.
pub(super) fn within<T>(namespace: BorrowedFd<'_>, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let own = fs::File::open("/proc/thread-self/ns/net")?;
    move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    let outcome = work();
    move_into_link_name_space(own.file().as_fd(), Some(LinkNameSpaceType::Network))?;
    outcome
}

/// The subnets that this host has routes to, without the default route.
pub(super) fn routes() -> io::Result<Vec<Subnet>> {
    let mut found = Vec::new();
    let mut header = [0; 12];
    header[0] = libc_af_inet();
    Netlink::route()?.dump(GET_ROUTE, &header, |body| {
        let Some(prefix) = body.get(1).copied().filter(|prefix| *prefix > 0) else { return };
        for (kind, value) in attributes(body.get(12..).unwrap_or_default()) {
            if kind == 1
                && let Ok(octets) = <[u8; 4]>::try_from(value)
            {
                found.push(Subnet::of(Ipv4Addr::from(octets), prefix));
            }
        }
    })?;
    Ok(found)
}
