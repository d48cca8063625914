//! Mounts of the specification: options become flags before the container's process exists, then one straight
//! step each inside it.
//!
//! File systems are mounted with `mount` on a handle of their target, bind mounts as detached trees that are
//! changed first and moved into place then. Paths that matter for isolation (`/proc`, `/sys`, `/dev`) are never
//! reached through a symbolic link, and nothing but procfs goes over `/proc`.

mod options;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{FileType, OFlags, fstat, fstatfs};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, OpenTreeFlags, mount, move_mount, open_tree};

use crate::error::{Error, Result};
use crate::native::paths::{self, Kind, Links};
use crate::native::report::{Doing, Failure};
use crate::native::sys::{self, MountAttr};

use options::Options;

/// `statfs` magic of procfs.
const PROC: u64 = 0x9fa0;
/// `statfs` magic of cgroup v2.
const CGROUP2: u64 = 0x6367_7270;

/// Files of procfs that may be covered by a bind mount, as in lxcfs; nothing else below `/proc` may.
const COVERABLE: [&str; 11] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/net/dev",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// One mount, ready to be made.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    target: PathBuf,
    links: Links,
    what: What,
}

#[derive(Debug, PartialEq, Eq)]
enum What {
    /// A tree of the host's.
    Bind {
        source: PathBuf,
        recursive: bool,
        /// For the topmost mount only.
        attr: MountAttr,
        /// For it and all below.
        tree: MountAttr,
    },
    /// A new file system.
    New { kind: String, source: PathBuf, flags: MountFlags, data: CString },
    /// The container's own view of cgroup v2. Left out where the host has none.
    Cgroup { flags: MountFlags },
}

/// Facts about the container that decide how mounts are made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    /// It has a user namespace of its own: the kernel refuses some mounts.
    pub(super) user_namespace: bool,
    /// `CLONE_NEW*` of the namespaces that are new with it.
    pub(super) new_namespaces: u64,
    /// Group 5 (`tty`) exists in it.
    pub(super) tty_group: bool,
}

fn invalid(reason: String) -> Error {
    Error::InvalidSpec { field: "mounts", reason }
}

/// Turns one mount of the specification into a step, or says what is wrong with it.
pub(super) fn plan(spec: &Mount, context: Context) -> Result<Step> {
    let shown = spec.destination().display();
    let target = paths::normal(spec.destination())
        .ok_or_else(|| invalid(format!("destination {shown} is not absolute")))?;
    if target == Path::new("/") {
        return Err(invalid("a mount over the root is not supported".to_owned()));
    }
    if spec.uid_mappings().is_some() || spec.gid_mappings().is_some() {
        return Err(invalid(format!("id mappings of the mount at {shown} are not supported")));
    }
    let mut options = Options::parse(spec.options().iter().flatten().map(String::as_str));
    let kind = spec.typ().as_deref().unwrap_or("none");
    let guarded = ["/proc", "/sys", "/dev"].iter().any(|top| target.starts_with(top));
    let links = if guarded { Links::Refused } else { Links::Inside };
    let source = spec.source().clone().unwrap_or_else(|| PathBuf::from(kind));
    if target.starts_with("/proc") && kind != "proc" && target != Path::new("/proc") && !coverable(&target) {
        return Err(invalid(format!("nothing may be mounted at {shown}")));
    }
    let what = if let Some(recursive) = options.bind.or((kind == "bind").then_some(false)) {
        if options.propagation == Some(libc::MS_SHARED) {
            return Err(invalid(format!("shared propagation of the mount at {shown} is not supported")));
        }
        if let Some(unknown) = options.data.first() {
            return Err(invalid(format!("unknown option {unknown} of the mount at {shown}")));
        }
        let (attr, tree) = options.attributes();
        What::Bind { source, recursive, attr, tree }
    } else if kind == "cgroup" || kind == "cgroup2" {
        What::Cgroup { flags: options.flags() }
    } else if target == Path::new("/proc") && kind != "proc" {
        return Err(invalid(format!("only procfs may be mounted at {shown}")));
    } else {
        if kind == "devpts" && !context.tty_group {
            options.data.retain(|option| !option.starts_with("gid="));
        }
        let data = CString::new(options.data.join(","))
            .map_err(|_| invalid(format!("an option of the mount at {shown} has a NUL in it")))?;
        What::New { kind: kind.to_owned(), source, flags: options.flags_of_new(), data }
    };
    Ok(Step { target, links, what })
}

fn coverable(target: &Path) -> bool {
    COVERABLE.iter().any(|file| target == Path::new(file))
}

impl Step {
    /// Whether this is the container's own `/dev`, in which device nodes may be made.
    pub(super) fn is_dev(&self) -> bool {
        self.target == Path::new("/dev")
    }

    /// Whether `/dev` is a directory of the host's, which must not be changed.
    pub(super) fn is_bound_dev(&self) -> bool {
        self.is_dev() && matches!(self.what, What::Bind { .. })
    }

    /// Makes the mount below `root`. Runs in the container's process, before it leaves the host's root.
    pub(super) fn run(&self, root: BorrowedFd<'_>, context: Context) -> std::result::Result<(), Failure> {
        let target = self.target.display();
        match &self.what {
            What::Bind { source, recursive, attr, tree } => {
                let from = clone_tree(source, *recursive).doing(|| format!("open {}", source.display()))?;
                let onto = self.open(root, || kind_of(&from))?;
                self.check_cover(&onto, source, &from)?;
                change(&from, *recursive, tree)
                    .doing(|| format!("set the options of the mount at {target}"))?;
                if *attr != MountAttr::default() {
                    change(&from, false, attr)
                        .doing(|| format!("set the options of the mount at {target}"))?;
                }
                attach(&from, &onto).doing(|| format!("mount {} at {target}", source.display()))
            }
            What::New { kind, source, flags, data } => {
                let onto = self.open(root, || Ok(Kind::Directory))?;
                self.check_new(&onto, kind)?;
                let made = mount(source, paths::by_fd(&onto), kind.as_str(), *flags, data.as_c_str());
                match (made, host_path(kind, context)) {
                    (Err(Errno::PERM), Some(path)) => bind_host(path, kind == "sysfs", &onto),
                    (made, _) => made,
                }
                .doing(|| format!("mount {kind} at {target}"))
            }
            What::Cgroup { flags } => self.cgroup(root, *flags, context),
        }
    }

    fn open(
        &self,
        root: BorrowedFd<'_>,
        kind: impl FnOnce() -> rustix::io::Result<Kind>,
    ) -> std::result::Result<OwnedFd, Failure> {
        paths::open_or_create(root, &self.target, self.links, kind)
            .doing(|| format!("open the mount point {} in the container", self.target.display()))
    }

    /// Refuses to cover procfs: with a fake one, later writes to it would go astray.
    fn check_cover(&self, onto: &OwnedFd, source: &Path, from: &OwnedFd) -> std::result::Result<(), Failure> {
        let shown = || format!("look at {}", self.target.display());
        let covers_proc = magic(onto).doing(shown)? == PROC && !coverable(&self.target);
        let is_proc = self.target == Path::new("/proc");
        if (covers_proc || is_proc) && !(is_proc && magic(from).doing(shown)? == PROC) {
            return Err(self.over_proc(&source.display()));
        }
        Ok(())
    }

    /// The same for a new file system. Only procfs gets to `/proc` itself, which the plan has seen to; no link
    /// leads from `/sys` or `/dev` to it.
    fn check_new(&self, onto: &OwnedFd, kind: &str) -> std::result::Result<(), Failure> {
        let can_be_proc = self.links == Links::Inside || self.target.starts_with("/proc");
        if can_be_proc && self.target != Path::new("/proc") {
            let shown = || format!("look at {}", self.target.display());
            if magic(onto).doing(shown)? == PROC {
                return Err(self.over_proc(&kind));
            }
        }
        Ok(())
    }

    fn over_proc(&self, what: &dyn std::fmt::Display) -> Failure {
        Failure::Refused(format!("{what} must not be mounted at {}, over procfs", self.target.display()))
    }

    fn cgroup(
        &self,
        root: BorrowedFd<'_>,
        flags: MountFlags,
        context: Context,
    ) -> std::result::Result<(), Failure> {
        let unified =
            rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type.cast_unsigned() == CGROUP2);
        if !unified {
            return Ok(());
        }
        let onto = self.open(root, || Ok(Kind::Directory))?;
        self.check_new(&onto, "cgroup2")?;
        match mount("cgroup2", paths::by_fd(&onto), "cgroup2", flags, None) {
            Err(Errno::PERM | Errno::BUSY) if context.user_namespace => Ok(()),
            made => made.doing(|| format!("mount cgroup2 at {}", self.target.display())),
        }
    }
}

fn magic(fd: &OwnedFd) -> rustix::io::Result<u64> {
    Ok(fstatfs(fd)?.f_type.cast_unsigned())
}

/// A directory, or anything else.
pub(super) fn kind_of(fd: &OwnedFd) -> rustix::io::Result<Kind> {
    let directory = FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory;
    Ok(if directory { Kind::Directory } else { Kind::File })
}

/// A detached copy of the mount at a path of the host's.
pub(super) fn clone_tree(source: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(rustix::fs::CWD, source, flags)
}

/// A detached copy of the mount a handle is on, from that handle on.
pub(super) fn clone_fd(fd: impl AsFd, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(fd, "", flags)
}

/// Moves a detached mount onto a handle's place.
pub(super) fn attach(from: impl AsFd, onto: impl AsFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(from, "", onto, "", flags)
}

fn change(fd: &OwnedFd, recursive: bool, attr: &MountAttr) -> rustix::io::Result<()> {
    sys::mount_setattr(fd.as_fd(), recursive, attr)
}

/// Protects the inode behind a bound device node of the host's. Read-only does not concern what is written
/// through the node.
pub(super) fn seal_node(fd: &OwnedFd) -> rustix::io::Result<()> {
    let set = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
    change(fd, false, &MountAttr { set, ..MountAttr::default() })
}

/// Where the host has a file system that shows a namespace the container shares with it. In a user namespace
/// such a one cannot be mounted anew, only be seen where it is; where the host has not mounted it, there is none.
fn host_path(kind: &str, context: Context) -> Option<&'static Path> {
    let (shows, path) = match kind {
        "sysfs" => (libc::CLONE_NEWNET, "/sys"),
        "proc" => (libc::CLONE_NEWPID, "/proc"),
        "mqueue" => (libc::CLONE_NEWIPC, "/dev/mqueue"),
        _ => return None,
    };
    let own = context.new_namespaces & u64::from(shows.cast_unsigned()) != 0;
    (!own).then(|| Path::new(path))
}

fn bind_host(path: &Path, read_only: bool, onto: &OwnedFd) -> rustix::io::Result<()> {
    let from = match clone_tree(path, true) {
        Err(Errno::NOENT) => return Ok(()),
        tree => tree?,
    };
    let access = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attr = MountAttr {
        set: access | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    change(&from, true, &attr)?;
    attach(&from, onto)
}

/// Makes a path of the container read-only, with all mounts on it. A missing one is left alone.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &Path) -> rustix::io::Result<()> {
    let onto = match paths::open(root, path, OFlags::PATH, Links::Inside) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        found => found?,
    };
    let from = clone_fd(&onto, true)?;
    change(&from, true, &MountAttr { set: libc::MOUNT_ATTR_RDONLY, ..MountAttr::default() })?;
    attach(&from, &onto)
}

#[cfg(test)]
mod tests;
