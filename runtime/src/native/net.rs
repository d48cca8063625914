//! `linux.netDevices`: network devices of the host that move into the container's network namespace.
//!
//! The creator moves and renames them before the container's process goes on; that one gives them their addresses back,
//! which the kernel takes away with the move, and brings them up. Nobody brings them back: where they end up when the
//! namespace ends is the kernel's decision. A few rtnetlink messages, no library.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use oci_spec::runtime::Linux;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};
use rustix::process::Pid;

use crate::error::{Error, Result};
use crate::native::plan::Namespaces;
use crate::native::report::{Doing, Failure};
use crate::native::sys;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const GET_ADDRESS: u16 = 22;
/// `NLM_F_*`
const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
/// Message types of the protocol itself.
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// `IFLA_*`
const LINK_NAME: u16 = 3;
const LINK_NAMESPACE_PID: u16 = 19;
const LINK_NAMESPACE_FD: u16 = 28;
/// `IFA_*`: address, local, broadcast, flags.
const KEPT: [u16; 4] = [1, 2, 4, 8];
const PERMANENT: u8 = 0x80;
/// Header of a message, of an address, of a link.
const HEADER: usize = 16;
const ADDRESS_HEADER: usize = 8;
/// The kernel's limit, without the end.
const LONGEST_NAME: usize = 15;

/// A device to be moved.
#[derive(Debug)]
pub(super) struct NetDevice {
    host: String,
    inside: String,
    index: u32,
    /// Bodies of messages that give an address: header and attributes.
    addresses: Vec<Vec<u8>>,
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
    let mut link = Link::open().map_err(failed)?;
    let there = Link::open_in(namespaces).map_err(failed)?;
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
            Some(there) => name_to_index(&there.0, &inside).is_ok(),
            None => inside == "lo",
        };
        if taken {
            return invalid(format!("the container has a network device {inside} already"));
        }
        let Ok(index) = name_to_index(&link.0, host) else {
            return invalid(format!("there is no network device {host}"));
        };
        devices.push(NetDevice { host: host.clone(), inside, index, addresses: Vec::new() });
    }
    link.addresses(&mut devices).map_err(failed)?;
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
        let mut link = Link::open().map_err(|errno| failed(device, errno))?;
        let mut body = link_header(device.index, 0, 0);
        attribute(&mut body, to.0, &to.1.to_ne_bytes());
        attribute(&mut body, LINK_NAME, &[device.inside.as_bytes(), b"\0"].concat());
        link.change(NEW_LINK, 0, &body).map_err(|errno| failed(device, errno))?;
    }
    Ok(())
}

/// In the container: addresses, then up.
pub(super) fn set_up(devices: &[NetDevice]) -> std::result::Result<(), Failure> {
    for device in devices {
        let shown = || format!("bring up the network device {}", device.inside);
        let mut link = Link::open().doing(shown)?;
        // A name with a number in it is the kernel's; the device keeps its index where that is free.
        let index = match device.inside.contains('%') {
            true => device.index,
            false => name_to_index(&link.0, &device.inside).doing(shown)?,
        };
        for address in &device.addresses {
            let mut body = address.clone();
            if let Some(place) = body.get_mut(4..8) {
                place.copy_from_slice(&index.to_ne_bytes());
            }
            link.change(NEW_ADDRESS, CREATE, &body).doing(shown)?;
        }
        const UP: u32 = libc::IFF_UP.cast_unsigned();
        link.change(NEW_LINK, 0, &link_header(index, UP, UP)).doing(shown)?;
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

fn attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    body.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

/// A conversation with the kernel about this process's network namespace.
struct Link(OwnedFd, u32);

impl Link {
    /// Protocol 0 is `NETLINK_ROUTE`.
    fn open() -> rustix::io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
        Ok(Self(socket, 0))
    }

    /// In the namespace the container joins. A socket stays where it was made, so this process comes back at once.
    fn open_in(namespaces: &Namespaces) -> rustix::io::Result<Option<Self>> {
        let joined = namespaces.join.iter().chain(&namespaces.early);
        let Some((fd, kind)) = joined.into_iter().find(|(_, kind)| *kind == libc::CLONE_NEWNET) else {
            return Ok(None);
        };
        let own = rustix::fs::open("/proc/self/ns/net", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        sys::setns(fd.as_fd(), *kind)?;
        let link = Self::open();
        sys::setns(own.as_fd(), *kind)?;
        link.map(Some)
    }

    fn ask(&mut self, kind: u16, flags: u16, body: &[u8]) -> rustix::io::Result<()> {
        self.1 += 1;
        let length = u32::try_from(HEADER + body.len()).map_err(|_| Errno::MSGSIZE)?;
        let mut message = Vec::with_capacity(HEADER + body.len());
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend((REQUEST | flags).to_ne_bytes());
        message.extend(self.1.to_ne_bytes());
        message.extend([0; 4]);
        message.extend(body);
        send(self.0.as_fd(), &message, SendFlags::empty()).map(drop)
    }

    /// Answers until the last one; `each` gets kind and body.
    fn answers(&mut self, mut each: impl FnMut(u16, &[u8])) -> rustix::io::Result<()> {
        let mut buffer = vec![0; 32 << 10];
        loop {
            let (length, _) = rustix::io::retry_on_intr(|| recv(&self.0, &mut *buffer, RecvFlags::empty()))?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, body, after)) = message(rest) {
                rest = after;
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        return match word(body, 0) {
                            Some(0) => Ok(()),
                            Some(number) => {
                                Err(Errno::from_raw_os_error(number.cast_signed().saturating_neg()))
                            }
                            None => Err(Errno::PROTO),
                        };
                    }
                    kind => each(kind, body),
                }
            }
        }
    }

    fn change(&mut self, kind: u16, flags: u16, body: &[u8]) -> rustix::io::Result<()> {
        self.ask(kind, ACKNOWLEDGE | flags, body)?;
        self.answers(|_, _| ())
    }

    /// Adds the permanent, global addresses to the devices.
    fn addresses(&mut self, devices: &mut [NetDevice]) -> rustix::io::Result<()> {
        self.ask(GET_ADDRESS, DUMP, &[0; ADDRESS_HEADER])?;
        self.answers(|kind, body| {
            let (Some([_, _, flags, scope]), Some(index)) = (body.first_chunk::<4>(), word(body, 4)) else {
                return;
            };
            let device = devices.iter_mut().find(|device| device.index == index);
            let (Some(device), NEW_ADDRESS, true, 0) = (device, kind, flags & PERMANENT != 0, *scope) else {
                return;
            };
            let mut kept = body.get(..ADDRESS_HEADER).unwrap_or_default().to_vec();
            let mut rest = body.get(ADDRESS_HEADER..).unwrap_or_default();
            while let (Some(length), Some(kind)) = (half(rest, 0), half(rest, 2)) {
                let length = usize::from(length);
                let Some(value) = rest.get(4..length) else { break };
                if KEPT.contains(&kind) {
                    attribute(&mut kept, kind, value);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
            device.addresses.push(kept);
        })
    }
}

/// The first message: kind, body, and what comes after it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = word(bytes, 0)? as usize;
    let body = bytes.get(HEADER..length)?;
    Some((half(bytes, 4)?, body, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}
