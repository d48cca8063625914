//! System calls that change what kind of process this one is: scheduling, priorities, memory policy, namespaces.
//!
//! As in the parent module nothing is decided here.

#![expect(unsafe_code, reason = "raw system calls: scheduling, priorities, memory policy")]

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::{Errno, Result};

use super::check;

/// `struct sched_attr` of the kernel, in its second version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(C)]
pub(in crate::native) struct SchedAttr {
    pub(in crate::native) size: u32,
    pub(in crate::native) policy: u32,
    pub(in crate::native) flags: u64,
    pub(in crate::native) nice: i32,
    pub(in crate::native) priority: u32,
    /// Nanoseconds, as the next two.
    pub(in crate::native) runtime: u64,
    pub(in crate::native) deadline: u64,
    pub(in crate::native) period: u64,
    pub(in crate::native) clamp_min: u32,
    pub(in crate::native) clamp_max: u32,
}

/// Changes how this thread is scheduled.
pub(in crate::native) fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    let mut attr = *attr;
    attr.size = u32::try_from(size_of::<SchedAttr>()).unwrap_or(0);
    // SAFETY: the kernel reads `attr.size` bytes, which is the size of the structure; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) }).map(drop)
}

/// Sets the io priority of this thread: class in the upper three bits of 16, level in the lower ones.
pub(in crate::native) fn ioprio_set(priority: u16) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, libc::c_int::from(priority)) })
        .map(drop)
}

/// Sets the execution domain.
pub(in crate::native) fn personality(domain: u32) -> Result<()> {
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_personality, libc::c_ulong::from(domain)) }).map(drop)
}

/// Sets the NUMA memory policy of this thread. No nodes is a null mask.
pub(in crate::native) fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<()> {
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // The kernel reads one bit less than it is told.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: the mask has `bits - 1` bits.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) }).map(drop)
}

/// Leaves the namespaces of these kinds (`CLONE_NEW*`) for new ones.
pub(crate) fn unshare(kinds: i32) -> Result<()> {
    // SAFETY: no pointers; only used for namespaces, never for memory or descriptors.
    check(unsafe { libc::syscall(libc::SYS_unshare, libc::c_long::from(kinds)) }).map(drop)
}

/// The kind of namespace (`CLONE_NEW*`) a descriptor stands for; `ENOTTY` when it is none.
pub(in crate::native) fn namespace_kind(fd: BorrowedFd<'_>) -> Result<i32> {
    /// `_IO(0xb7, 3)`
    const NS_GET_NSTYPE: libc::c_int = 0xb703;
    // SAFETY: this request takes no argument.
    let kind = check(unsafe { libc::syscall(libc::SYS_ioctl, fd.as_raw_fd(), NS_GET_NSTYPE, 0) })?;
    i32::try_from(kind).map_err(|_| Errno::OVERFLOW)
}
