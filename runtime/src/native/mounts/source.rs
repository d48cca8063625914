//! What is mounted: detached copies of trees of the host's, found by a path, by a handle, or by a path that may not leave a
//! folder; and new memory.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;
use rustix::mount::{OpenTreeFlags, mount, open_tree};

use super::options::Options;

/// A detached copy of the mount at a path of the host's.
pub(in crate::native) fn clone_tree(
    source: &Path,
    recursive: bool,
    no_follow: bool,
) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if no_follow {
        flags |= OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(rustix::fs::CWD, source, flags)
}

/// A detached copy of the mount a handle is on, from that handle on.
pub(in crate::native) fn clone_fd(fd: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd, "", flags)
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
