//! The wall on Linux: capabilities, no-new-privileges, and a filter of system calls that is put together from the numbers
//! in `calls.rs`. That takes some microseconds; libseccomp would take eight milliseconds.

use std::io;

use rustix::io::Errno;
use rustix::process::getpid;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities, set_no_new_privs};

use super::Wall;
use super::calls::{ALLOWED, ALLOWED_OLD, FATAL, FATAL_OLD, NETWORK, REQUESTS};
use crate::error::{Error, Result};
use crate::native::seccomp::{Filter, Host, Operator, Verdict};

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

pub(super) fn raise(wall: &Wall) -> Result<()> {
    let failed = |action: &str, errno: Errno| Error::Setup {
        action: format!("{action} the sandbox process"),
        source: io::Error::from(errno),
    };
    set_no_new_privs(true).map_err(|errno| failed("take new privileges from", errno))?;
    if rustix::process::geteuid().is_root() {
        drop_capabilities(wall.network).map_err(|errno| failed("drop the capabilities of", errno))?;
    }
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

fn drop_capabilities(network: bool) -> std::result::Result<(), Errno> {
    let now = rustix::thread::capabilities(None)?;
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
