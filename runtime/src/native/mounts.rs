//! Mounts of the specification: options become flags before the container's process exists, then one straight
//! step each inside it.
//!
//! File systems are mounted with `mount` on a handle of their target, bind mounts as detached trees that are
//! changed first and moved into place then. Paths that matter for isolation (`/proc`, `/sys`, `/dev`) are never
//! reached through a symbolic link, and nothing but procfs goes over `/proc`.

mod copy_up;
mod covered;
mod first;
mod options;
mod source;

use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Mount;
use rustix::fs::{FileType, Mode, OFlags, fstat, fstatfs, readlinkat, symlinkat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, MoveMountFlags, mount, move_mount};

use crate::error::{Error, Result};
use crate::native::idmap::Maps;
use crate::native::paths::{self, Kind, Links};
use crate::native::report::{Doing, Failure, FirstGroups};
use crate::native::sys::{self, MountAttr};

pub(super) use covered::{Covered, make_read_only};
use options::Options;
use source::open_beneath;
pub(super) use source::{clone_fd, clone_fd_as, clone_tree, clone_tree_as, memory};

/// `statfs` magic of procfs.
const PROC: u64 = 0x9fa0;
/// `statfs` magic of sysfs.
const SYSFS: u64 = 0x6265_6572;
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
#[derive(Debug)]
pub(super) struct Step {
    target: PathBuf,
    links: Links,
    what: What,
}

#[derive(Debug)]
enum What {
    /// A tree of the host's.
    Bind(Bind),
    /// A new file system.
    New {
        kind: String,
        source: PathBuf,
        flags: MountFlags,
        data: CString,
        /// `MS_SHARED` and so on, when it is not to be private.
        propagation: Option<u64>,
        copy_up: bool,
    },
    /// What is mounted there already, changed.
    Remount { kind: String, source: PathBuf, flags: MountFlags, data: CString },
    /// A link like one of the host's, with this text.
    Link(PathBuf),
    /// The container's own view of control groups; `first`: also of those of version 1.
    Cgroup { flags: MountFlags, first: bool },
}

#[derive(Debug)]
struct Bind {
    source: PathBuf,
    recursive: bool,
    /// For the topmost mount only.
    attr: MountAttr,
    /// For it and all below.
    tree: MountAttr,
    /// The tree itself, where its owners are mapped: the container's process could not do that.
    mapped: Option<OwnedFd>,
    /// The source must not be a link.
    no_follow: bool,
    /// The source is a path within this folder, and no link in it leads out.
    beneath: Option<PathBuf>,
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
    /// It has a new control group namespace.
    pub(super) own_groups: bool,
}

/// What is prepared before the container's process exists.
#[derive(Debug, Default)]
pub(super) struct Preparation<'a> {
    /// The container's own maps, if it has a new user namespace.
    pub(super) maps: Option<&'a Maps>,
    /// A mount of type `cgroup` shows groups of version 1, too.
    pub(super) first_groups: bool,
    /// User namespaces with other maps, which are made once each.
    pub(super) namespaces: Vec<(Maps, OwnedFd)>,
}

fn invalid(reason: String) -> Error {
    Error::InvalidSpec { field: "mounts", reason }
}

/// Turns one mount of the specification into a step, or says what is wrong with it.
pub(super) fn plan(spec: &Mount, context: Context, prepared: &mut Preparation<'_>) -> Result<Step> {
    let shown = spec.destination().display();
    // Old tools leave the first slash out.
    let target = paths::normal(&Path::new("/").join(spec.destination()))
        .ok_or_else(|| invalid(format!("destination {shown} is not absolute")))?;
    let mut options = Options::parse(spec.options().iter().flatten().map(String::as_str));
    if target == Path::new("/") && !options.remount {
        return Err(invalid("a mount over the root is not supported".to_owned()));
    }
    let kind = spec.typ().as_deref().unwrap_or("none");
    let guarded = ["/proc", "/sys", "/dev"].iter().any(|top| target.starts_with(top));
    let links = if guarded { Links::Refused } else { Links::Inside };
    let source = spec.source().clone().unwrap_or_else(|| PathBuf::from(kind));
    let over_proc = target.starts_with("/proc") && target != Path::new("/proc");
    if over_proc && kind != "proc" && !options.remount && !coverable(&target) {
        return Err(invalid(format!("nothing may be mounted at {shown}")));
    }
    let bind = options.bind.or((kind == "bind").then_some(false));
    let mapped = options.id_map.is_some() || spec.uid_mappings().is_some() || spec.gid_mappings().is_some();
    if mapped && (bind.is_none() || options.remount) {
        return Err(invalid(format!("the mount at {shown} has id mappings and is no bind mount")));
    }
    let what = if options.remount {
        let bound = if bind.is_some() { MountFlags::BIND } else { MountFlags::empty() };
        let flags = options.flags_of_new() | bound;
        What::Remount { kind: kind.to_owned(), source, flags, data: data(&options, &shown)? }
    } else if let Some(recursive) = bind {
        // Options of a file system mean nothing to a mount that is there already; the kernel ignores them, too.
        if options.copy_link
            && let Ok(text) = rustix::fs::readlink(&source, Vec::new())
        {
            return Ok(Step {
                target,
                links,
                what: What::Link(OsString::from_vec(text.into_bytes()).into()),
            });
        }
        let (attr, tree) = options.attributes();
        let mut bind = Bind {
            source,
            recursive,
            attr,
            tree,
            mapped: None,
            no_follow: options.no_follow,
            beneath: options.beneath,
        };
        if mapped {
            bind.mapped = Some(map_owners(spec, &bind, options.id_map.unwrap_or(false), prepared)?);
        }
        What::Bind(bind)
    } else if kind == "cgroup" || kind == "cgroup2" {
        What::Cgroup { flags: options.flags(), first: prepared.first_groups && kind == "cgroup" }
    } else if target == Path::new("/proc") && kind != "proc" {
        return Err(invalid(format!("only procfs may be mounted at {shown}")));
    } else {
        if kind == "devpts" && !context.tty_group {
            options.data.retain(|option| !option.starts_with("gid="));
        }
        What::New {
            kind: kind.to_owned(),
            source,
            flags: options.flags_of_new(),
            data: data(&options, &shown)?,
            propagation: options.propagation.map(|(way, _)| way).filter(|way| *way != libc::MS_PRIVATE),
            copy_up: options.copy_up && kind == "tmpfs",
        }
    };
    Ok(Step { target, links, what })
}

/// What the file system itself is told.
fn data(options: &Options, shown: &dyn std::fmt::Display) -> Result<CString> {
    CString::new(options.data.join(","))
        .map_err(|_| invalid(format!("an option of the mount at {shown} has a NUL in it")))
}

/// The tree of a bind mount whose owners are mapped, with the mount's own maps or the container's.
fn map_owners(spec: &Mount, bind: &Bind, recursive: bool, prepared: &mut Preparation<'_>) -> Result<OwnedFd> {
    let shown = spec.destination().display();
    let given = |maps: &Option<Vec<_>>| maps.clone().unwrap_or_default();
    let own = Maps { uids: given(spec.uid_mappings()), gids: given(spec.gid_mappings()) };
    let maps = match (own.uids.is_empty(), own.gids.is_empty(), prepared.maps) {
        (false, false, _) => own,
        (true, true, Some(maps)) => maps.clone(),
        (true, true, None) => {
            return Err(invalid(format!(
                "the mount at {shown} has no id mappings, and the container has none"
            )));
        }
        _ => {
            return Err(invalid(format!("the mount at {shown} needs both uidMappings and gidMappings")));
        }
    };
    maps.check()?;
    let at = match prepared.namespaces.iter().position(|(other, _)| *other == maps) {
        Some(at) => at,
        None => {
            let namespace = maps.namespace()?;
            prepared.namespaces.push((maps, namespace));
            prepared.namespaces.len() - 1
        }
    };
    let Some((_, namespace)) = prepared.namespaces.get(at) else {
        return Err(invalid("no namespace".to_owned()));
    };
    let attr = MountAttr {
        set: libc::MOUNT_ATTR_IDMAP,
        userns_fd: u64::from(namespace.as_raw_fd().cast_unsigned()),
        ..MountAttr::default()
    };
    let tree = clone_tree(&bind.source, bind.recursive, bind.no_follow);
    tree.and_then(|tree| change(&tree, recursive, &attr).map(|()| tree)).map_err(|errno| Error::Setup {
        action: format!("map the owners of {} for the mount at {shown}", bind.source.display()),
        source: errno.into(),
    })
}

fn coverable(target: &Path) -> bool {
    COVERABLE.iter().any(|file| target == Path::new(file))
}

impl Step {
    /// Whether it mounts a new file system of this kind.
    fn is_new(&self, wanted: &str) -> bool {
        matches!(&self.what, What::New { kind, .. } if kind == wanted)
    }

    /// Whether this is the container's own `/dev`, in which device nodes may be made.
    pub(super) fn is_dev(&self) -> bool {
        self.target == Path::new("/dev")
    }

    /// Whether `/dev` is a directory of the host's, which must not be changed.
    pub(super) fn is_bound_dev(&self) -> bool {
        self.is_dev() && matches!(self.what, What::Bind(_))
    }

    /// Whether it shows the network namespace this process is in.
    pub(super) fn shows_network(&self) -> bool {
        self.is_new("sysfs")
    }

    /// Whether it shows the control group this process is in.
    pub(super) fn shows_groups(&self) -> bool {
        matches!(self.what, What::Cgroup { .. })
    }

    /// Whether it shows one of these where nothing else is.
    pub(super) fn may_be_late(&self) -> bool {
        (self.shows_network() || self.shows_groups()) && self.target.starts_with("/sys")
    }

    /// A bind mount that stays in its source's peer group must be taken before the host's mounts are left.
    pub(super) fn take_peer(&self) -> std::result::Result<Option<OwnedFd>, Failure> {
        match &self.what {
            What::Bind(bind) if bind.mapped.is_none() && bind.is_shared() => bind.open().map(Some),
            _ => Ok(None),
        }
    }

    /// Makes the mount below `root`. Runs in the container's process, before it leaves the host's root. `peer` is what
    /// [`Step::take_peer`] gave; `groups` is only asked where [`Step::shows_groups`].
    pub(super) fn run(
        &self,
        root: BorrowedFd<'_>,
        context: Context,
        peer: Option<&OwnedFd>,
        groups: &FirstGroups,
    ) -> std::result::Result<(), Failure> {
        let target = self.target.display();
        match &self.what {
            What::Bind(bind) => self.bind(root, bind, peer),
            What::New { kind, source, flags, data, propagation, copy_up } => {
                let mut is_new = false;
                let onto = self.open(root, || {
                    is_new = true;
                    Ok(Kind::Directory)
                })?;
                self.check_new(&onto, kind)?;
                let doing = || format!("mount {kind} at {target}");
                let keeps_mode = kind == "tmpfs"
                    && !is_new
                    && !data.to_bytes().starts_with(b"mode=")
                    && !data.to_bytes().windows(6).any(|option| option == b",mode=");
                let later = if *copy_up { *flags & MountFlags::RDONLY } else { MountFlags::empty() };
                let place = paths::by_fd(&onto);
                let made = mount(source, &place, kind.as_str(), *flags - later, data.as_c_str());
                match (made, host_path(kind, context)) {
                    (Err(Errno::PERM), Some(path)) => bind_host(path, kind == "sysfs", &onto),
                    (made, _) => made,
                }
                .doing(doing)?;
                if !keeps_mode && !*copy_up && propagation.is_none() {
                    paths::leave(onto);
                    return Ok(());
                }
                let mounted = paths::open(root, &self.target, OFlags::PATH, self.links).doing(doing)?;
                if *copy_up {
                    copy_up::copy_up(&onto, &mounted).doing(|| format!("copy what {target} had"))?;
                } else if keeps_mode {
                    let mode = fstat(&onto).doing(doing)?.st_mode;
                    rustix::fs::chmod(paths::by_fd(&mounted), Mode::from_raw_mode(mode)).doing(doing)?;
                }
                let set = if later.is_empty() { 0 } else { libc::MOUNT_ATTR_RDONLY };
                let attr = MountAttr { set, propagation: propagation.unwrap_or(0), ..MountAttr::default() };
                if attr == MountAttr::default() {
                    Ok(())
                } else {
                    change(&mounted, false, &attr).doing(doing)
                }
            }
            What::Remount { kind, source, flags, data } => {
                let onto = paths::open(root, &self.target, OFlags::PATH, self.links)
                    .doing(|| format!("open {target} in the container"))?;
                let flags = *flags | options::REMOUNT;
                mount(source, paths::by_fd(&onto), kind.as_str(), flags, data.as_c_str())
                    .doing(|| format!("remount {target}"))
            }
            What::Link(text) => self.link(root, text),
            What::Cgroup { flags, first } => {
                let folders: &[_] = if *first { &groups.folders } else { &[] };
                self.cgroup(root, *flags, folders, context)
            }
        }
    }

    fn bind(
        &self,
        root: BorrowedFd<'_>,
        bind: &Bind,
        peer: Option<&OwnedFd>,
    ) -> std::result::Result<(), Failure> {
        let shown = || format!("set the options of the mount at {}", self.target.display());
        let mut is_changed = false;
        let opened = match (&bind.mapped, peer) {
            (Some(_), _) => None,
            // The copy is a peer, too, and stands in the list of mounts where the specification has it. Not before
            // Linux 6.15.
            (None, Some(peer)) => clone_fd(peer, bind.recursive).ok(),
            (None, None) => match bind.open_changed() {
                None => Some(bind.open()?),
                changed => {
                    is_changed = true;
                    changed
                }
            },
        };
        let Some(from) = opened.as_ref().or(bind.mapped.as_ref()).or(peer) else {
            return Err(Errno::BADF).doing(shown);
        };
        let onto = self.open(root, || kind_of(from))?;
        self.check_cover(&onto, &bind.source, from)?;
        if !is_changed {
            change(from, bind.recursive, &bind.tree).doing(shown)?;
        }
        if bind.attr != MountAttr::default() {
            change(from, false, &bind.attr).doing(shown)?;
        }
        attach(from, &onto)
            .doing(|| format!("mount {} at {}", bind.source.display(), self.target.display()))?;
        paths::leave(onto);
        if let Some(opened) = opened {
            paths::leave(opened);
        }
        Ok(())
    }

    fn link(&self, root: BorrowedFd<'_>, text: &Path) -> std::result::Result<(), Failure> {
        let shown = || format!("make the link {} in the container", self.target.display());
        let (Some(parent), Some(name)) = (self.target.parent(), self.target.file_name()) else {
            return Err(Errno::INVAL).doing(shown);
        };
        let parent = paths::open_or_create(root, parent, self.links, || Ok(Kind::Directory)).doing(shown)?;
        match symlinkat(text, &parent, name) {
            Err(Errno::EXIST) => match readlinkat(&parent, name, Vec::new()) {
                Ok(there) if there.to_bytes() == text.as_os_str().as_bytes() => Ok(()),
                _ => Err(Errno::EXIST).doing(shown),
            },
            made => made.doing(shown),
        }
    }

    fn open(
        &self,
        root: BorrowedFd<'_>,
        kind: impl FnOnce() -> rustix::io::Result<Kind>,
    ) -> std::result::Result<OwnedFd, Failure> {
        match paths::open_or_create(root, &self.target, self.links, kind) {
            Err(Errno::LOOP) if self.links == Links::Refused => Err(Failure::Refused(format!(
                "{} must be mounted on ordinary directory, not through a symbolic link",
                self.target.display()
            ))),
            opened => {
                opened.doing(|| format!("open the mount point {} in the container", self.target.display()))
            }
        }
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
        first: &[(String, PathBuf)],
        context: Context,
    ) -> std::result::Result<(), Failure> {
        let is_unified =
            || rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type.cast_unsigned() == CGROUP2);
        if first.is_empty() && !is_unified() {
            return Ok(());
        }
        let onto = self.open(root, || Ok(Kind::Directory))?;
        self.check_new(&onto, "cgroup2")?;
        if !first.is_empty() {
            return first::mount_all(onto, first, flags, context)
                .doing(|| format!("mount the control groups at {}", self.target.display()));
        }
        match mount("cgroup2", paths::by_fd(&onto), "cgroup2", flags, None) {
            Err(Errno::PERM | Errno::BUSY) if context.user_namespace => Ok(()),
            made => made.doing(|| format!("mount cgroup2 at {}", self.target.display())),
        }
    }
}

impl Bind {
    fn open(&self) -> std::result::Result<OwnedFd, Failure> {
        let opened = match &self.beneath {
            Some(base) => open_beneath(base, &self.source).and_then(|at| clone_fd(at, self.recursive)),
            None => clone_tree(&self.source, self.recursive, self.no_follow),
        };
        opened.doing(|| format!("open {}", self.source.display()))
    }

    /// The same with its attributes already; where that does not work, the long way says why.
    fn open_changed(&self) -> Option<OwnedFd> {
        let plain = self.beneath.is_none();
        plain.then(|| source::at_once(&self.source, self.recursive, self.no_follow, &self.tree).ok())?
    }

    fn is_shared(&self) -> bool {
        [self.attr.propagation, self.tree.propagation].contains(&libc::MS_SHARED)
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
pub(super) const SEALED: MountAttr = MountAttr {
    set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC,
    clear: 0,
    propagation: 0,
    userns_fd: 0,
};

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
    let access = if read_only { libc::MOUNT_ATTR_RDONLY } else { 0 };
    let attr = MountAttr {
        set: access | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC,
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    match clone_tree_as(path, true, false, &attr) {
        Err(Errno::NOENT) => Ok(()),
        tree => attach(&tree?, onto),
    }
}

/// Every option name that is known here.
pub(super) fn option_names() -> impl Iterator<Item = String> {
    options::names()
}

/// A way of propagation by name (`rslave`), and whether it is for the whole tree.
pub(super) fn propagation(name: &str) -> Option<(u64, bool)> {
    options::propagation(name)
}

#[cfg(test)]
mod tests;
