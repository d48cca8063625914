//! Extended attributes of copied files: those of users, and capabilities.
//!
//! What a store of ours or the kernel's overlay has written down there belongs to where the file was.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr};
use rustix::io::Errno;

/// The kernel's own limits.
const MOST_NAMES: usize = 64 << 10;
const LARGEST: usize = 64 << 10;

/// Copies what may be copied. A file system that has none, or a user who may not, is no failure, as for `cp`.
pub(super) fn copy(from: &File, to: &File) -> io::Result<()> {
    let mut names = Vec::with_capacity(1024);
    loop {
        match flistxattr(from, rustix::buffer::spare_capacity(&mut names)) {
            Ok(_) => break,
            Err(Errno::RANGE) if names.capacity() < MOST_NAMES => names = Vec::with_capacity(MOST_NAMES),
            Err(_) => return Ok(()),
        }
    }
    for name in names.split(|byte| *byte == 0).filter(|name| travels(name)) {
        let name = OsStr::from_bytes(name);
        let mut value = Vec::with_capacity(LARGEST);
        if fgetxattr(from, name, rustix::buffer::spare_capacity(&mut value)).is_err() {
            continue;
        }
        if let Err(Errno::NOSPC) = fsetxattr(to, name, &value, XattrFlags::empty()) {
            return Err(Errno::NOSPC.into());
        }
    }
    Ok(())
}

fn travels(name: &[u8]) -> bool {
    let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
    is_users || name == b"security.capability"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_travels() {
        for (name, goes) in [
            ("user.note", true),
            ("security.capability", true),
            ("user.overlay.opaque", false),
            ("trusted.overlay.redirect", false),
            ("security.selinux", false),
            ("", false),
        ] {
            assert_eq!(travels(name.as_bytes()), goes, "{name}");
        }
    }
}
