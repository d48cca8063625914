//! Mounts of the specification: options become flags before the container's process exists, then one straight
//! step each inside it.
//!
//! File systems are mounted with `mount` on a handle of their target, bind mounts as detached trees that are
//! changed first and moved into place then. Paths that matter for isolation (`/proc`, `/sys`, `/dev`) are never
//! reached through a symbolic link, and nothing but procfs goes over `/proc`.

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

/// Options of a mount, sorted out.
#[derive(Debug, PartialEq, Eq)]
struct Options {
    /// `MOUNT_ATTR_*` to set on this mount.
    attr: u64,
    /// `MOUNT_ATTR_*` to set and to clear on it and all below.
    tree_set: u64,
    tree_clear: u64,
    /// Flags of the file system, not of the mount.
    superblock: MountFlags,
    /// `bind` is false, `rbind` true.
    bind: Option<bool>,
    /// `MS_PRIVATE` and so on.
    propagation: Option<u64>,
    /// What the file system itself understands.
    data: Vec<String>,
}

const ATIME: u64 = libc::MOUNT_ATTR__ATIME;

/// Option names that set an attribute of the mount. With an `r` before the name they hold for the whole tree.
const SET: [(&str, u64); 9] = [
    ("ro", libc::MOUNT_ATTR_RDONLY),
    ("nosuid", libc::MOUNT_ATTR_NOSUID),
    ("nodev", libc::MOUNT_ATTR_NODEV),
    ("noexec", libc::MOUNT_ATTR_NOEXEC),
    ("noatime", libc::MOUNT_ATTR_NOATIME),
    ("nodiratime", libc::MOUNT_ATTR_NODIRATIME),
    ("relatime", libc::MOUNT_ATTR_RELATIME),
    ("strictatime", libc::MOUNT_ATTR_STRICTATIME),
    ("nosymfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

/// Option names that clear one.
const CLEAR: [(&str, u64); 8] = [
    ("rw", libc::MOUNT_ATTR_RDONLY),
    ("suid", libc::MOUNT_ATTR_NOSUID),
    ("dev", libc::MOUNT_ATTR_NODEV),
    ("exec", libc::MOUNT_ATTR_NOEXEC),
    ("atime", libc::MOUNT_ATTR_NOATIME),
    ("diratime", libc::MOUNT_ATTR_NODIRATIME),
    ("norelatime", libc::MOUNT_ATTR_RELATIME),
    ("symfollow", libc::MOUNT_ATTR_NOSYMFOLLOW),
];

const SUPERBLOCK: [(&str, MountFlags); 4] = [
    ("sync", MountFlags::SYNCHRONOUS),
    ("dirsync", MountFlags::DIRSYNC),
    ("lazytime", MountFlags::LAZYTIME),
    ("mand", MountFlags::PERMIT_MANDATORY_FILE_LOCKING),
];

impl Default for Options {
    fn default() -> Self {
        Self {
            attr: 0,
            tree_set: 0,
            tree_clear: 0,
            superblock: MountFlags::empty(),
            bind: None,
            propagation: None,
            data: Vec::new(),
        }
    }
}

impl Options {
    fn parse<'a>(options: impl Iterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        let find =
            |table: &[(&str, u64)], name: &str| table.iter().find(|row| row.0 == name).map(|row| row.1);
        for option in options {
            let recursive = option.strip_prefix('r');
            if let Some(attr) = find(&SET, option) {
                if attr & ATIME != 0 {
                    parsed.attr &= !ATIME;
                }
                parsed.attr |= attr;
            } else if let Some(attr) = find(&CLEAR, option) {
                parsed.attr &= !attr;
            } else if let Some((_, flag)) = SUPERBLOCK.iter().find(|row| row.0 == option) {
                parsed.superblock |= *flag;
            } else if let Some(attr) = recursive.and_then(|name| find(&SET, name)) {
                parsed.tree_set |= attr;
                parsed.tree_clear &= !attr;
            } else if let Some(attr) = recursive.and_then(|name| find(&CLEAR, name)) {
                parsed.tree_clear |= attr;
                parsed.tree_set &= !attr;
            } else {
                parsed.other(option);
            }
        }
        parsed
    }

    fn other(&mut self, option: &str) {
        let propagation = match option.strip_prefix('r').unwrap_or(option) {
            "private" => Some(libc::MS_PRIVATE),
            "slave" => Some(libc::MS_SLAVE),
            "shared" => Some(libc::MS_SHARED),
            "unbindable" => Some(libc::MS_UNBINDABLE),
            _ => None,
        };
        match option {
            "defaults" | "async" | "nolazytime" | "nomand" | "silent" | "loud" => {}
            "bind" => self.bind = Some(false),
            "rbind" => self.bind = Some(true),
            _ => match propagation {
                Some(flag) => self.propagation = Some(flag),
                None => self.data.push(option.to_owned()),
            },
        }
    }

    fn flags(&self) -> MountFlags {
        const PAIRS: [(u64, MountFlags); 8] = [
            (libc::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
            (libc::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
            (libc::MOUNT_ATTR_NODEV, MountFlags::NODEV),
            (libc::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
            (libc::MOUNT_ATTR_NOATIME, MountFlags::NOATIME),
            (libc::MOUNT_ATTR_STRICTATIME, MountFlags::STRICTATIME),
            (libc::MOUNT_ATTR_NODIRATIME, MountFlags::NODIRATIME),
            (libc::MOUNT_ATTR_NOSYMFOLLOW, MountFlags::NOSYMFOLLOW),
        ];
        let set = PAIRS.iter().filter(|pair| self.attr & pair.0 != 0);
        set.fold(self.superblock, |flags, pair| flags | pair.1)
    }
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
        let tree = MountAttr {
            set: options.tree_set,
            clear: atime_cleared(options.tree_set) | options.tree_clear,
            propagation: options.propagation.unwrap_or(libc::MS_PRIVATE),
            userns_fd: 0,
        };
        let attr =
            MountAttr { set: options.attr, clear: atime_cleared(options.attr), ..MountAttr::default() };
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
        What::New { kind: kind.to_owned(), source, flags: options.flags() | tree_flags(&options), data }
    };
    Ok(Step { target, links, what })
}

/// A new file system has nothing below it, so attributes for the whole tree are its own.
fn tree_flags(options: &Options) -> MountFlags {
    Options { attr: options.tree_set, ..Options::default() }.flags()
}

/// The kernel wants the old access time mode cleared when a new one is set.
fn atime_cleared(set: u64) -> u64 {
    if set & ATIME == 0 { 0 } else { ATIME }
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
            return Err(Failure::Refused(format!(
                "{} must not be mounted at {}, over procfs",
                source.display(),
                self.target.display()
            )));
        }
        Ok(())
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
        match mount("cgroup2", paths::by_fd(&onto), "cgroup2", flags, None) {
            Err(Errno::PERM | Errno::BUSY) if context.user_namespace => Ok(()),
            made => made.doing(|| format!("mount cgroup2 at {}", self.target.display())),
        }
    }
}

fn magic(fd: &OwnedFd) -> rustix::io::Result<u64> {
    Ok(fstatfs(fd)?.f_type.cast_unsigned())
}

fn kind_of(fd: &OwnedFd) -> rustix::io::Result<Kind> {
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
