//! The kernel's overlay instead of the union, where somebody asks for it: Linux, and the right to mount.
//!
//! The overlay is mounted nowhere: a handle on its root is all that is needed, and it goes with the last process that
//! has one. A second process of the container (`exec`) must not mount the same writable directory again; it finds the
//! first one's handle by a note in the container's `merged` folder.
//!
//! `redirect_dir` is off, because what a container changed is to be read as a layer: a directory with content of layers
//! cannot be renamed (`CrossDevice`), which is the one thing the union does and this does not.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, FlockOperation, Mode, OFlags, flock, fstat, fstatfs, open, openat};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::bundle::Layer;
use crate::error::{Error, Result};

/// What the kernel says an overlay is.
const OVERLAY: i64 = 0x794c_7630;
/// Who has it mounted: process, descriptor, device and inode.
const NOTE: &str = "mounted";

/// A handle on the root of the overlay of `lower`, lowest first, and `upper`.
pub(super) fn open_overlay(lower: &[Layer], upper: &Path, work: &Path, merged: &Path) -> Result<OwnedFd> {
    for folder in [upper, work, merged] {
        let failed = |source| Error::Io { path: folder.to_owned(), source };
        fs_err::create_dir_all(folder).map_err(failed)?;
    }
    // Until it is written down who has it mounted: of two that begin at the same time, one mounts.
    let _lock = lock(merged).map_err(|errno| Error::Io { path: merged.to_owned(), source: errno.into() })?;
    if let Some(root) = find(merged) {
        return Ok(root);
    }
    let root = mount(lower, upper, work).map_err(|errno| match errno {
        Errno::PERM | Errno::ACCESS => Error::Host {
            what: "this process may not mount the kernel's overlay".to_owned(),
            hint: "run as root, or leave out `--storage-opt files=kernel`".to_owned(),
        },
        Errno::INVAL | Errno::NODEV | Errno::NOSYS => Error::Host {
            what: format!("the kernel cannot mount this overlay: {errno}"),
            hint: "it needs Linux 6.5 with overlay; leave out `--storage-opt files=kernel`".to_owned(),
        },
        errno => Error::Setup {
            action: format!("mount the overlay of {} layers over {}", lower.len(), upper.display()),
            source: errno.into(),
        },
    })?;
    leave_note(merged, &root).map_err(|source| Error::Io { path: merged.join(NOTE), source })?;
    Ok(root)
}

fn lock(merged: &Path) -> rustix::io::Result<OwnedFd> {
    let folder = open(merged, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::retry_on_intr(|| flock(&folder, FlockOperation::LockExclusive))?;
    Ok(folder)
}

fn mount(lower: &[Layer], upper: &Path, work: &Path) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "dhow")?;
    // Parameters are short, paths need not be: they are given by descriptor, which must stay open until the end.
    let mut handles = Vec::new();
    let mut set = |key: &str, path: &Path| {
        let fd = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let set = fsconfig_set_string(&context, key, format!("/proc/self/fd/{}", fd.as_raw_fd()));
        handles.push(fd);
        set
    };
    for layer in lower.iter().rev() {
        set("lowerdir+", &layer.path)?;
    }
    set("upperdir", upper)?;
    set("workdir", work)?;
    for option in ["index", "metacopy", "redirect_dir"] {
        fsconfig_set_string(&context, option, "off")?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    openat(&mount, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn leave_note(merged: &Path, root: &OwnedFd) -> std::io::Result<()> {
    let stat = fstat(root)?;
    let text = format!("{} {} {} {}", std::process::id(), root.as_raw_fd(), stat.st_dev, stat.st_ino);
    let draft = merged.join(format!("{NOTE}.{}", std::process::id()));
    fs_err::write(&draft, text)?;
    fs_err::rename(draft, merged.join(NOTE))
}

/// The root that another process of this container has mounted, if that is still so.
fn find(merged: &Path) -> Option<OwnedFd> {
    let note = fs_err::read_to_string(merged.join(NOTE)).ok()?;
    let mut numbers = note.split(' ').map(|number| number.parse::<u64>().ok());
    let mut next = || numbers.next().flatten();
    let (process, descriptor, dev, ino) = (next()?, next()?, next()?, next()?);
    let path = format!("/proc/{process}/fd/{descriptor}");
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = openat(CWD, path, flags, Mode::empty()).ok()?;
    let stat = fstat(root.as_fd()).ok()?;
    #[allow(clippy::useless_conversion, reason = "the type's width differs between systems")]
    let same = fstatfs(&root).is_ok_and(|found| i64::try_from(found.f_type) == Ok(OVERLAY))
        && (stat.st_dev, stat.st_ino) == (dev, ino);
    same.then_some(root)
}
