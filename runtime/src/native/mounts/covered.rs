//! Paths of the container that something is put over, or that become read-only: how they are found.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::{PROC, SYSFS, Step, attach, clone_fd_as, magic};
use crate::native::paths::{self, Links};
use crate::native::sys::MountAttr;

/// Where paths that are to be covered are looked for. Below `/proc` and `/sys` that starts from what is mounted there, so
/// that nobody who exchanges these for something else has another file covered. Both are opened once, and looked at then.
#[derive(Debug)]
pub(in crate::native) struct Covered<'a> {
    root: BorrowedFd<'a>,
    steps: &'a [Step],
    tops: [Option<OwnedFd>; 2],
}

impl<'a> Covered<'a> {
    pub(in crate::native) fn new(root: BorrowedFd<'a>, steps: &'a [Step]) -> Self {
        Self { root, steps, tops: [None, None] }
    }

    /// Done with all of them.
    pub(in crate::native) fn leave(self) {
        self.tops.into_iter().flatten().for_each(paths::leave);
    }

    /// Opens a path: a link at `/proc` or `/sys` is `ELOOP`, another file system there `EXDEV`.
    pub(in crate::native) fn open(&mut self, path: &Path) -> rustix::io::Result<OwnedFd> {
        let known = [("/proc", "proc", PROC), ("/sys", "sysfs", SYSFS)];
        for ((top, kind, number), held) in known.into_iter().zip(&mut self.tops) {
            let Ok(rest) = path.strip_prefix(top) else { continue };
            let there = match held {
                Some(there) => there,
                None => {
                    let there = paths::open(self.root, Path::new(top), OFlags::PATH, Links::Refused)?;
                    let mounted = |step: &Step| step.target == Path::new(top) && step.is_new(kind);
                    if self.steps.iter().any(mounted) && magic(&there)? != number {
                        return Err(Errno::XDEV);
                    }
                    held.insert(there)
                }
            };
            if rest.as_os_str().is_empty() {
                // What it is covered by counts for the next path.
                return held.take().ok_or(Errno::BADF);
            }
            return paths::open(there.as_fd(), rest, OFlags::PATH, Links::Inside);
        }
        paths::open(self.root, path, OFlags::PATH, Links::Inside)
    }
}

/// Makes a path of the container read-only, with all mounts on it. A missing one is left alone.
pub(in crate::native) fn make_read_only(covered: &mut Covered<'_>, path: &Path) -> rustix::io::Result<()> {
    let onto = match covered.open(path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found?,
    };
    let read_only = MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() };
    let from = clone_fd_as(&onto, true, &read_only)?;
    attach(&from, &onto)?;
    paths::leave(from);
    paths::leave(onto);
    Ok(())
}
