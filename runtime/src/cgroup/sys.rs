//! The `bpf` call, for device filters of control groups.
//!
//! Nothing is decided here: arguments in, the kernel's answer out.

#![expect(unsafe_code, reason = "the raw system call bpf, which no library offers safely")]

use std::mem::size_of;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::{Errno, Result};

/// One instruction, `struct bpf_insn` of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Code {
    pub(super) operation: u8,
    /// Target in the lower half, source in the upper one.
    pub(super) registers: u8,
    pub(super) offset: i16,
    pub(super) constant: i32,
}

const PROG_LOAD: libc::c_long = 5;
const PROG_ATTACH: libc::c_long = 8;
const PROG_DETACH: libc::c_long = 9;
const PROG_GET_FD_BY_ID: libc::c_long = 13;
const PROG_QUERY: libc::c_long = 16;
/// `BPF_PROG_TYPE_CGROUP_DEVICE`, `BPF_CGROUP_DEVICE`
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
/// The kernel's own limit for one group.
const MOST_PROGRAMS: usize = 64;

/// `attribute` must be the part of `union bpf_attr` that `command` reads, every pointer in it valid.
unsafe fn bpf<T>(command: libc::c_long, attribute: &mut T) -> Result<i32> {
    // SAFETY: the caller's promise; the size given is the attribute's own.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attribute), size_of::<T>()) };
    match i32::try_from(result) {
        Ok(value) if value >= 0 => Ok(value),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)),
    }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

/// Gives a device filter to the kernel, which checks it.
pub(super) fn load_device_program(code: &[Code]) -> Result<OwnedFd> {
    #[repr(C)]
    struct Load {
        kind: u32,
        length: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
    }
    let mut load = Load {
        kind: CGROUP_DEVICE_PROGRAM,
        length: u32::try_from(code.len()).map_err(|_| Errno::TOOBIG)?,
        code: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the code has the kernel's layout and the length that is given; the licence is a C string. Both are only read.
    let fd = unsafe { bpf(PROG_LOAD, &mut load) }?;
    // SAFETY: the call returns a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `BPF_PROG_ATTACH` and `BPF_PROG_DETACH`
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    replaced: u32,
}

/// Attaches a filter to a group, besides others or in place of one.
pub(super) fn attach_device_program(
    group: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let mut attach = Attach {
        target: raw(group),
        program: raw(program),
        kind: CGROUP_DEVICE,
        flags: ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 },
        replaced: replaced.map_or(0, raw),
    };
    // SAFETY: no pointers.
    unsafe { bpf(PROG_ATTACH, &mut attach) }.map(drop)
}

/// Takes a filter away from a group.
pub(super) fn detach_device_program(group: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let mut attach =
        Attach { target: raw(group), program: raw(program), kind: CGROUP_DEVICE, flags: 0, replaced: 0 };
    // SAFETY: no pointers.
    unsafe { bpf(PROG_DETACH, &mut attach) }.map(drop)
}

/// The filters a group has.
pub(super) fn device_programs(group: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    #[repr(C)]
    struct Query {
        target: u32,
        kind: u32,
        query_flags: u32,
        attach_flags: u32,
        ids: u64,
        count: u32,
        _end: u32,
    }
    #[repr(C)]
    struct Get {
        id: u32,
        next: u32,
        flags: u32,
    }
    let mut ids = [0_u32; MOST_PROGRAMS];
    let mut query = Query {
        target: raw(group),
        kind: CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        ids: ids.as_mut_ptr() as u64,
        count: u32::try_from(ids.len()).unwrap_or(0),
        _end: 0,
    };
    // SAFETY: the kernel writes at most `count` ids, for which there is room.
    unsafe { bpf(PROG_QUERY, &mut query) }?;
    let found = ids.get(..query.count as usize).unwrap_or_default();
    found
        .iter()
        .map(|id| {
            let mut get = Get { id: *id, next: 0, flags: 0 };
            // SAFETY: no pointers.
            let fd = unsafe { bpf(PROG_GET_FD_BY_ID, &mut get) }?;
            // SAFETY: the call returns a new descriptor, which nobody else owns.
            Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        })
        .collect()
}
