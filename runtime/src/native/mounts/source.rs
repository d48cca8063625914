//! What is mounted: detached copies of trees of the host's, found by a path, by a handle, or by a path that may not leave a
//! folder; and new memory.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, mount, open_tree};

use super::change;
use super::options::Options;
use crate::native::sys::{self, MountAttr};

/// A detached copy of the mount at a path of the host's.
pub(in crate::native) fn clone_tree(
    source: &Path,
    recursive: bool,
    no_follow: bool,
) -> rustix::io::Result<OwnedFd> {
    open_tree(CWD, source, flags_of(recursive, no_follow))
}

/// The same with attributes, for all of it if it is `recursive`.
pub(in crate::native) fn clone_tree_as(
    source: &Path,
    recursive: bool,
    no_follow: bool,
    attr: &MountAttr,
) -> rustix::io::Result<OwnedFd> {
    at_once(source, recursive, no_follow, attr).or_else(|_| {
        // Older kernels, filters that are older, and what is refused.
        let tree = clone_tree(source, recursive, no_follow)?;
        change(&tree, recursive, attr).map(|()| tree)
    })
}

/// The same with one call, or not at all.
pub(super) fn at_once(
    source: &Path,
    recursive: bool,
    no_follow: bool,
    attr: &MountAttr,
) -> rustix::io::Result<OwnedFd> {
    let path = CString::new(source.as_os_str().as_bytes()).map_err(|_| Errno::INVAL)?;
    sys::open_tree_attr(CWD, &path, flags_of(recursive, no_follow).bits(), attr)
}

/// The same of the mount a handle is on, from that handle on.
pub(in crate::native) fn clone_fd_as(
    fd: impl AsFd,
    recursive: bool,
    attr: &MountAttr,
) -> rustix::io::Result<OwnedFd> {
    let flags = flags_of(recursive, false) | OpenTreeFlags::AT_EMPTY_PATH;
    sys::open_tree_attr(fd.as_fd(), c"", flags.bits(), attr).or_else(|_| {
        let tree = clone_fd(fd, recursive)?;
        change(&tree, recursive, attr).map(|()| tree)
    })
}

fn flags_of(recursive: bool, no_follow: bool) -> OpenTreeFlags {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_SYMLINK_NOFOLLOW, no_follow);
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags
}

/// A detached copy of the mount a handle is on, from that handle on.
pub(in crate::native) fn clone_fd(fd: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    open_tree(fd, "", flags_of(recursive, false) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// Opens what `source` is, a path that begins with `base`, without leaving `base` on the way.
pub(super) fn open_beneath(base: &Path, source: &Path) -> rustix::io::Result<OwnedFd> {
    let within = source.strip_prefix(base).map_err(|_| Errno::XDEV)?;
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let base = openat(CWD, base, flags | OFlags::DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(&base, within, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile, somewhere on the system.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

/// Mounts a new file system in memory here and now, which is nothing of a container's.
pub(in crate::native) fn memory(at: &Path, options: &str) -> rustix::io::Result<()> {
    let options = Options::parse(options.split(',').filter(|option| !option.is_empty()));
    let data = CString::new(options.data.join(",")).map_err(|_| Errno::INVAL)?;
    mount("tmpfs", at, "tmpfs", options.flags_of_new(), data.as_c_str())
}
