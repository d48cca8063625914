//! A file system in memory behind a directory handle. It is attached nowhere, so no path leads to it, and it is gone
//! when its last handle is closed.

use super::Dir;
use crate::wasm::union::errno::{Errno, Result};

/// Makes one with the options of `mount`; [`Errno::NotPermitted`] without the right to mount.
#[cfg(target_os = "linux")]
pub(crate) fn memory(options: &str) -> Result<Dir> {
    use rustix::mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
    };
    let context = match fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(rustix::io::Errno::NOSYS) => return Err(Errno::NotSupported),
        opened => opened?,
    };
    for option in options.split(',') {
        // The other words are flags of native mounts, which mean nothing to a guest that has no devices and no programs.
        if let Some((name, value)) = option.split_once('=') {
            fsconfig_set_string(&context, name, value)?;
        }
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // The handle of a mount can be read from as a directory only after it was opened as one.
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    Ok(Dir::from(rustix::fs::openat(&root, ".", flags, rustix::fs::Mode::empty())?))
}

/// Not on this system.
#[cfg(not(target_os = "linux"))]
pub(crate) fn memory(_options: &str) -> Result<Dir> {
    Err(Errno::NotSupported)
}
