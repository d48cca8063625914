//! The wall on Linux: namespaces, no-new-privileges, Landlock, capabilities, and a filter of system calls that is put
//! together from the numbers in `calls.rs`. That takes some microseconds; libseccomp would take eight milliseconds.

use std::io;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use rustix::fs::{FileType, fstat};
use rustix::io::Errno;
use rustix::process::getpid;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::calls::{ALLOWED, ALLOWED_OLD, FATAL, FATAL_OLD, NETWORK, REQUESTS};
use super::landlock::{Rules, place};
use super::{Rights, Wall};
use crate::error::{Error, Result};
use crate::native::seccomp::{Filter, Host, Operator, Verdict};
use crate::native::sys::tune::unshare;
use crate::wasm::union::Union;
use crate::wasm::union::mount::describe;

/// What of root's rights over files remains: programs of images and volumes may own what they like. `SYS_ADMIN` is what
/// the kernel asks for to read `trusted.overlay.opaque`; what else it is good for, the filter takes away.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SYS_ADMIN);
/// With a network, also the ports below 1024: a program binds those that are published when it likes.
const KEPT_FOR_NETWORK: CapabilitySet = KEPT.union(CapabilitySet::NET_BIND_SERVICE);

/// `PR_SET_VMA`, by which allocators name their memory.
const PR_SET_VMA: u64 = 0x5356_4d41;
/// The kernel needs to know nothing about this filter's author: speculation is no concern of it, since a guest never
/// shares a process with anything that is not its own.
const SPEC_ALLOW: u32 = 4;

/// What of the host is read for a guest with a network when it first needs it: where names are looked up, and whose
/// certificates are believed, with what links in those folders lead to.
fn for_network() -> impl Iterator<Item = PathBuf> {
    let openssl_probe::ProbeResult { cert_file, cert_dir } = openssl_probe::probe();
    let fixed = ["/etc/resolv.conf", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates"];
    fixed.into_iter().map(PathBuf::from).chain(cert_file).chain(cert_dir)
}

pub(super) fn raise(wall: &Wall, union: &Union, devices: bool) -> Result<()> {
    let fails = |action: &str, source: io::Error| Error::Setup {
        action: format!("{action} the sandbox process"),
        source,
    };
    let failed = |action: &str, errno: Errno| fails(action, errno.into());
    set_no_new_privs(true).map_err(|errno| failed("take new privileges from", errno))?;
    fence(wall, union, devices).map_err(|error| fails("put a fence around the files of", error))?;
    part_and_drop_capabilities(wall.network).map_err(|errno| failed("drop the capabilities of", errno))?;
    if wall.filter {
        match filter(wall.network).and_then(|filter| {
            filter.install().map(drop).map_err(|errno| failed("filter the system calls of", errno))
        }) {
            // A kernel without filters.
            Err(Error::Setup { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => {}
            other => other?,
        }
    }
    Ok(())
}

/// From now on files are opened, made, moved and removed only beneath what the guest reaches and what is kept.
fn fence(wall: &Wall, union: &Union, devices: bool) -> io::Result<()> {
    let Some(rules) = Rules::new(wall.network)? else { return Ok(()) };
    let is_kept = |folder: &std::path::Path| {
        wall.keep.iter().any(|keep| keep.path == folder && keep.rights == Rights::Write)
    };
    union
        .grounds(is_kept, &mut |ground| {
            let rights = if ground.writable { Rights::Write } else { Rights::Read };
            Ok(if ground.directory {
                rules.beneath(ground.place, rights)
            } else {
                rules.file(ground.place, rights)
            }?)
        })
        .map_err(|errno| io::Error::other(describe(errno)))?;
    for keep in &wall.keep {
        if let Some(place) = place(&keep.path)? {
            rules.beneath(place.as_fd(), keep.rights)?;
            // Closed with the process: a handle that only names something opens nothing that no rule allows.
            std::mem::forget(place);
        }
    }
    let devices = devices.then_some(["/dev/random", "/dev/urandom"].map(PathBuf::from));
    let network = wall.network.then(for_network);
    for path in devices.into_iter().flatten().chain(network.into_iter().flatten()) {
        let Some(place) = place(&path)? else { continue };
        match FileType::from_raw_mode(fstat(&place)?.st_mode) {
            FileType::Directory => rules.beneath(place.as_fd(), Rights::Read)?,
            _ => rules.file(place.as_fd(), Rights::Read)?,
        }
    }
    Ok(rules.enter()?)
}

/// Where it may: its own host name, message queues and control groups. No mounts: a copy of the host's would keep what
/// the host unmounts, and Landlock refuses every change of the ones it has. No network: the filter refuses sockets, and a
/// namespace of that kind costs more than the guest's whole run, most of it when the kernel takes it apart.
fn part_and_drop_capabilities(network: bool) -> std::result::Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
    if now.permitted.is_empty() {
        return Ok(());
    }
    if now.effective.contains(CapabilitySet::SYS_ADMIN) {
        match unshare(libc::CLONE_NEWUTS | libc::CLONE_NEWIPC | libc::CLONE_NEWCGROUP) {
            // Root of a user namespace, a kernel without one of them, or too many of them.
            Err(Errno::PERM | Errno::INVAL | Errno::NOSPC) => {}
            done => done?,
        }
    }
    let kept = now.permitted & if network { KEPT_FOR_NETWORK } else { KEPT };
    let sets = CapabilitySets {
        effective: now.effective & kept,
        permitted: kept,
        inheritable: CapabilitySet::empty(),
    };
    set_capabilities(None, sets)
}

/// The filter.
fn filter(network: bool) -> Result<Filter> {
    let mut host = Host::new();
    let (allow, fatal) = (Verdict::Allow, Verdict::Kill);
    for call in ALLOWED.iter().chain(ALLOWED_OLD) {
        host.add(*call, allow, &[]);
    }
    for call in FATAL.iter().chain(FATAL_OLD) {
        host.add(*call, fatal, &[]);
    }
    if network {
        for call in NETWORK {
            host.add(*call, allow, &[]);
        }
        for family in [libc::AF_INET, libc::AF_INET6] {
            host.add(libc::SYS_socket, allow, &[equal(0, number(family))]);
        }
    }
    for request in REQUESTS {
        // The kernel looks at the lower half only.
        host.add(libc::SYS_ioctl, allow, &[(1, Operator::ScmpCmpMaskedEq, 0xffff_ffff, *request)]);
    }
    // Memory, but never executable.
    let executable = number(libc::PROT_EXEC);
    for call in [libc::SYS_mmap, libc::SYS_mprotect] {
        host.add(call, allow, &[(2, Operator::ScmpCmpMaskedEq, executable, 0)]);
    }
    // Threads, but no processes. clone3's arguments cannot be looked at; libc falls back to clone.
    let thread = number(libc::CLONE_THREAD | libc::CLONE_VM);
    host.add(libc::SYS_clone, allow, &[(0, Operator::ScmpCmpMaskedEq, thread, thread)]);
    host.add(libc::SYS_clone3, Verdict::Errno(38), &[]);
    // Signals and limits of its own only.
    host.add(libc::SYS_tgkill, allow, &[equal(0, number(getpid().as_raw_nonzero().get()))]);
    host.add(libc::SYS_prlimit64, allow, &[equal(0, 0)]);
    for option in [number(libc::PR_SET_NAME), PR_SET_VMA] {
        host.add(libc::SYS_prctl, allow, &[equal(0, option)]);
    }
    // The mark of a removed name, and no other node.
    host.add(libc::SYS_mknodat, allow, &[equal(3, 0)]);
    host.finish(SPEC_ALLOW)
}

fn equal(index: u32, value: u64) -> (u32, Operator, u64, u64) {
    (index, Operator::ScmpCmpEq, value, 0)
}

fn number(value: i32) -> u64 {
    u64::from(value.cast_unsigned())
}

#[cfg(test)]
mod tests;
