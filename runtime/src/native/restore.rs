//! What CRIU wants to find when it brings a container back: a root that is a mount of its own, in a mount namespace that
//! ends with it, and a place for everything that the container's mounts are put onto.

use std::os::fd::AsFd as _;
use std::path::Path;

use oci_spec::runtime::{Mount, Spec};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};

use super::Task;
use super::mounts::kind_of;
use super::paths::{self, Kind, Links};
use super::sys::tune;
use crate::error::{Error, Result};

/// Whether a mount of the specification shows something of the host's.
pub(crate) fn is_bound(mount: &Mount) -> bool {
    let options = || mount.options().iter().flatten().map(String::as_str);
    mount.typ().as_deref() == Some("bind") || options().any(|one| matches!(one, "bind" | "rbind"))
}

/// Where a mount of the specification is put, in the container's own words.
pub(crate) fn place(mount: &Mount) -> std::path::PathBuf {
    let place = Path::new("/").join(mount.destination());
    paths::normal(&place).unwrap_or(place)
}

/// Gives a process to CRIU's child: from here on it has mounts of its own, and the container's root is one of them.
pub(crate) fn enter_own_mounts(root: &Path) -> rustix::io::Result<()> {
    tune::unshare(libc::CLONE_NEWNS)?;
    // What is mounted on the host later is still seen, and nothing goes the other way.
    mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    mount(root, root, "", MountFlags::BIND | MountFlags::REC, None)
}

/// Makes what mounts are put onto, as far as it is a file or directory of the root itself: the content of file systems in
/// memory comes back with the container.
///
/// # Errors
/// When it cannot be made; the path is named.
pub(crate) fn make_places(root: &Path, spec: &Spec) -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let failed = |path: &Path, errno: rustix::io::Errno| Error::Setup {
        action: format!("make the place of a mount, {}", path.display()),
        source: errno.into(),
    };
    let handle = rustix::fs::open(root, flags, Mode::empty()).map_err(|errno| failed(root, errno))?;
    let mounts = spec.mounts().as_deref().unwrap_or_default();
    for mount in mounts {
        let at = place(mount);
        let covered = |other: &Mount| at != place(other) && at.starts_with(place(other));
        if mounts.iter().any(covered) {
            continue;
        }
        let kind = || {
            let Some(source) = mount.source().as_ref().filter(|_| is_bound(mount)) else {
                return Ok(Kind::Directory);
            };
            kind_of(&rustix::fs::open(source, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?)
        };
        let made = paths::open_or_create(handle.as_fd(), &at, Links::Inside, kind);
        drop(made.map_err(|errno| failed(&at, errno))?);
    }
    Ok(())
}

impl Task {
    /// A container's first process that somebody else has made for this process.
    pub(crate) fn of_child(id: &str, pid: u32) -> Result<Self> {
        let no_child = |errno: rustix::io::Errno| Error::Setup {
            action: format!("hold process {pid}"),
            source: errno.into(),
        };
        let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
        let pid = number.ok_or(no_child(rustix::io::Errno::SRCH))?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty());
        Ok(Self {
            id: id.to_owned(),
            command: String::new(),
            pid,
            pidfd: pidfd.map_err(no_child)?,
            gate: None,
            at_once: false,
            is_apart: false,
            console: None,
            ended: None,
            mounts: None,
        })
    }
}
