//! `linux.netDevices`: network devices of the host that move into the container's network namespace.
//!
//! The creator moves and renames them before the container's process goes on; that one gives them their addresses back,
//! which the kernel takes away with the move, and brings them up. Nobody brings them back: where they end up when the
//! namespace ends is the kernel's decision.

use std::os::fd::{AsFd as _, AsRawFd as _};

use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::native::plan::Namespaces;
use crate::native::report::{Doing, Failure};
use crate::native::sys;
use crate::netlink::{ASK, CREATE, Message, Netlink, attributes};

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// `IFLA_*`
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_PID: u16 = 19;
const LINK_NAMESPACE_FD: u16 = 28;
/// `IFA_*`: address, local, broadcast, flags.
const KEPT: [u16; 4] = [1, 2, 4, 8];
const PERMANENT: u8 = 0x80;
/// Of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;
/// The kernel's limit, without the end.
const LONGEST_NAME: usize = 15;

/// An address as the kernel tells it.
type Address = ([u8; ADDRESS_HEADER], Vec<(u16, Vec<u8>)>);

/// A device to be moved.
#[derive(Debug)]
pub(super) struct NetDevice {
    host: String,
    inside: String,
    index: u32,
    /// What gives an address: header and attributes.
    addresses: Vec<Address>,
}

fn invalid<T>(reason: String) -> Result<T> {
    Err(Error::InvalidSpec { field: "linux.netDevices", reason })
}

/// What is to be moved, with the addresses it has now.
pub(super) fn plan(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<NetDevice>> {
    let Some(given) = linux.net_devices().as_ref().filter(|given| !given.is_empty()) else {
        return Ok(Vec::new());
    };
    if !namespaces.owns(libc::CLONE_NEWNET) {
        return invalid("needs a network namespace of the container's own".to_owned());
    }
    let failed = |errno: Errno| Error::Setup {
        action: "list the addresses of network devices".to_owned(),
        source: errno.into(),
    };
    let mut link = Netlink::route().map_err(failed)?;
    let there = open_in(namespaces).map_err(failed)?;
    let mut devices: Vec<NetDevice> = Vec::new();
    let mut given: Vec<_> = given.iter().collect();
    given.sort_by_key(|(name, _)| name.as_str());
    for (host, device) in given {
        let inside = device.name().clone().filter(|name| !name.is_empty()).unwrap_or_else(|| host.clone());
        for name in [host, &inside] {
            let usable = !name.is_empty()
                && name.len() <= LONGEST_NAME
                && name.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':'))
                && !matches!(name.as_str(), "." | "..");
            if !usable {
                return invalid(format!("\"{name}\" is no name of a network device"));
            }
        }
        if devices.iter().any(|other| other.inside == inside && !inside.contains('%')) {
            return invalid(format!("two devices are to be {inside}"));
        }
        // The kernel would move it first, and only then not rename it.
        let taken = match &there {
            Some(there) => there.index(&inside).is_ok(),
            None => inside == "lo",
        };
        if taken {
            return invalid(format!("the container has a network device {inside} already"));
        }
        let Ok(index) = link.index(host) else {
            return invalid(format!("there is no network device {host}"));
        };
        devices.push(NetDevice { host: host.clone(), inside, index, addresses: Vec::new() });
    }
    addresses(&mut link, &mut devices).map_err(failed)?;
    Ok(devices)
}

/// Moves them to where the container's process is, or to a namespace it will join.
pub(super) fn move_all(devices: &[NetDevice], pid: Pid, namespaces: &Namespaces) -> Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let joined = namespaces.join.iter().find(|(_, kind)| *kind == libc::CLONE_NEWNET);
    let to = match joined {
        Some((fd, _)) => (LINK_NAMESPACE_FD, fd.as_raw_fd().cast_unsigned()),
        None => (LINK_NAMESPACE_PID, pid.as_raw_nonzero().get().cast_unsigned()),
    };
    let failed = |device: &NetDevice, errno: Errno| Error::Setup {
        action: format!("move the network device {} into the container as {}", device.host, device.inside),
        source: errno.into(),
    };
    for device in devices {
        let mut link = Netlink::route().map_err(|errno| failed(device, errno))?;
        let mut moved = Message::new(NEW_LINK, ASK);
        moved.put(&link_header(device.index, 0, 0)).attribute(to.0, &to.1.to_ne_bytes());
        moved.text(LINK_NAME, &device.inside);
        link.send(vec![moved]).map_err(|errno| failed(device, errno))?;
    }
    Ok(())
}

/// In the container: addresses, then up.
pub(super) fn set_up(devices: &[NetDevice]) -> std::result::Result<(), Failure> {
    for device in devices {
        let shown = || format!("bring up the network device {}", device.inside);
        let mut link = Netlink::route().doing(shown)?;
        // A name with a number in it is the kernel's; the device keeps its index where that is free.
        let index = match device.inside.contains('%') {
            true => device.index,
            false => link.index(&device.inside).doing(shown)?,
        };
        for (header, attributes) in &device.addresses {
            let mut header = *header;
            header[4..].copy_from_slice(&index.to_ne_bytes());
            let mut given = Message::new(NEW_ADDRESS, ASK | CREATE);
            given.put(&header);
            for (kind, value) in attributes {
                given.attribute(*kind, value);
            }
            link.send(vec![given]).doing(shown)?;
        }
        const UP: u32 = libc::IFF_UP.cast_unsigned();
        let mut up = Message::new(NEW_LINK, ASK);
        up.put(&link_header(index, UP, UP));
        link.send(vec![up]).doing(shown)?;
    }
    Ok(())
}

/// `struct ifinfomsg`
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    let mut body = vec![0; 4];
    for number in [index, flags, change] {
        body.extend(number.to_ne_bytes());
    }
    body
}

/// In the namespace the container joins. A socket stays where it was made, so this process comes back at once.
fn open_in(namespaces: &Namespaces) -> rustix::io::Result<Option<Netlink>> {
    let joined = namespaces.join.iter().chain(&namespaces.early);
    let Some((fd, kind)) = joined.into_iter().find(|(_, kind)| *kind == libc::CLONE_NEWNET) else {
        return Ok(None);
    };
    let own = rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    sys::setns(fd.as_fd(), *kind)?;
    let link = Netlink::route();
    sys::setns(own.as_fd(), *kind)?;
    link.map(Some)
}

/// Adds the permanent, global addresses to the devices.
fn addresses(link: &mut Netlink, devices: &mut [NetDevice]) -> rustix::io::Result<()> {
    link.dump(GET_ADDRESS, &[0; ADDRESS_HEADER], |body| {
        let Some(header) = body.first_chunk::<ADDRESS_HEADER>() else { return };
        let [_, _, flags, scope, a, b, c, d] = *header;
        let index = u32::from_ne_bytes([a, b, c, d]);
        let device = devices.iter_mut().find(|device| device.index == index);
        let (Some(device), true, 0) = (device, flags & PERMANENT != 0, scope) else { return };
        let kept = attributes(&body[ADDRESS_HEADER..]).filter(|(kind, _)| KEPT.contains(kind));
        let kept = kept.map(|(kind, value)| (kind, value.to_vec())).collect();
        device.addresses.push((*header, kept));
    })
}
