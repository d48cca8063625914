//! `linux.namespaces`, the id maps and clock offsets that go with them, and the settings that belong to them.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespace, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags, fstat, stat};
use rustix::thread::{CapabilitySet, capabilities};

use super::invalid;
use crate::error::{Error, Result};
use crate::native::idmap::Maps;
use crate::native::sys::tune;

/// Who makes a new network namespace: it takes as long as all mounts together, so somebody does who has the time.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::native) enum Network {
    /// The process is born with it; or there is no new one.
    #[default]
    AtBirth,
    /// The process, while its creator makes its control group.
    Process,
    /// Its creator, while the process mounts what shows no network.
    Creator,
}

/// Which namespaces are made and which are joined.
#[derive(Debug, Default)]
pub(in crate::native) struct Namespaces {
    /// `CLONE_NEW*` for the ones that the process is born with.
    pub(in crate::native) new: u64,
    /// Others to join, with their kind.
    pub(in crate::native) join: Vec<(OwnedFd, i32)>,
    /// To be joined before the process is born, by one in between: a user or a mount namespace, and all others when
    /// there is one of these or a new user namespace, whose root may join nothing.
    pub(in crate::native) early: Vec<(OwnedFd, i32)>,
    /// The process namespace to be born in.
    pub(in crate::native) pid: Option<OwnedFd>,
    /// A namespace of control groups is made as soon as the process is in its group.
    pub(in crate::native) cgroup_later: bool,
    /// Who makes a new network namespace.
    pub(in crate::native) network: Network,
    /// The maps of a new user namespace.
    pub(in crate::native) maps: Option<Maps>,
    /// Whether the process may set its supplementary groups.
    pub(in crate::native) may_set_groups: bool,
    /// The creator's mount namespace, to which the program goes back when it is to have none of its own.
    pub(in crate::native) shared_mounts: Option<OwnedFd>,
    /// What `/proc/PID/timens_offsets` of a new time namespace is told.
    pub(in crate::native) clocks: Option<String>,
}

const FIELD: &str = "linux.namespaces";

impl Namespaces {
    /// A new one of this kind comes with the process.
    pub(in crate::native) fn has(&self, kind: i32) -> bool {
        self.new & u64::from(kind.cast_unsigned()) != 0
    }

    /// One of this kind is joined.
    fn joins(&self, kind: i32) -> bool {
        self.join.iter().chain(&self.early).any(|(_, other)| *other == kind)
            || (kind == libc::CLONE_NEWPID && self.pid.is_some())
    }

    /// The container does not share this one with its creator.
    pub(in crate::native) fn owns(&self, kind: i32) -> bool {
        self.has(kind) || self.joins(kind)
    }

    /// `CLONE_NEW*` of all that the container does not share with its creator.
    pub(in crate::native) fn all(&self) -> u64 {
        let joined = self.join.iter().chain(&self.early).map(|(_, kind)| *kind);
        let pid = self.pid.iter().map(|_| libc::CLONE_NEWPID);
        joined.chain(pid).fold(self.new, |all, kind| all | u64::from(kind.cast_unsigned()))
    }

    /// Leaves the network namespace to somebody, where nobody needs it before.
    pub(in crate::native) fn postpone_network(&mut self, maker: Network) {
        let net = u64::from(libc::CLONE_NEWNET.cast_unsigned());
        if self.has(libc::CLONE_NEWNET) && !self.is_mapped() && !self.needs_helper() {
            self.new &= !net;
            self.network = maker;
        }
    }

    /// Whether the kernel sees it as the root of another user namespace than ours.
    pub(in crate::native) fn is_mapped(&self) -> bool {
        self.owns(libc::CLONE_NEWUSER)
    }

    /// A process in between is needed: it joins, it sets clocks, and it has the container's process.
    pub(in crate::native) fn needs_helper(&self) -> bool {
        !self.early.is_empty() || (self.clocks.is_some() && self.sets_clocks_early())
    }

    /// Clocks of a time namespace are set by root, or by the root of a new user namespace, which only the container's
    /// process is.
    pub(in crate::native) fn sets_clocks_early(&self) -> bool {
        !self.has(libc::CLONE_NEWUSER)
    }
}

/// `CLONE_NEW*` of a kind.
pub(in crate::native) fn kind_of(namespace: LinuxNamespaceType) -> i32 {
    match namespace {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => libc::CLONE_NEWTIME,
    }
}

pub(super) fn namespaces(linux: &Linux) -> Result<Namespaces> {
    let mut found = Namespaces::default();
    let mut seen = 0;
    let mut joined = Vec::new();
    let mut new_time = false;
    for namespace in linux.namespaces().iter().flatten() {
        let kind = kind_of(namespace.typ());
        if seen & kind != 0 {
            return invalid(FIELD, format!("{:?} is there twice", namespace.typ()));
        }
        seen |= kind;
        match namespace.path().as_deref().filter(|path| !path.as_os_str().is_empty()) {
            Some(path) => joined.extend(open(path, namespace.typ())?),
            None if kind == libc::CLONE_NEWTIME => new_time = true,
            None => found.new |= u64::from(kind.cast_unsigned()),
        }
    }
    if seen & libc::CLONE_NEWNS == 0 {
        // Its root is put together in a new one all the same, so that nothing is mounted in the host's.
        found.new |= u64::from(libc::CLONE_NEWNS.cast_unsigned());
        found.shared_mounts = Some(own_mounts()?);
    }
    let joins = |kind| joined.iter().any(|(_, other)| *other == kind);
    let early = joins(libc::CLONE_NEWUSER)
        || joins(libc::CLONE_NEWNS)
        || (found.has(libc::CLONE_NEWUSER) && !joined.is_empty());
    for (fd, kind) in joined {
        match kind {
            _ if early => found.early.push((fd, kind)),
            libc::CLONE_NEWPID => found.pid = Some(fd),
            _ => found.join.push((fd, kind)),
        }
    }
    // What is joined first opens the way to the others, and the mounts decide what paths mean.
    found.early.sort_by_key(|(_, kind)| *kind == libc::CLONE_NEWNS);
    clocks(linux, new_time, &mut found)?;
    maps(linux, &mut found)?;
    if found.shared_mounts.is_some() && found.is_mapped() {
        // Its root has no right to go back.
        return invalid(FIELD, "a user namespace needs a mount namespace");
    }
    Ok(found)
}

/// The mount namespace of this process.
fn own_mounts() -> Result<OwnedFd> {
    let path = "/proc/self/ns/mnt";
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::Io { path: path.into(), source: errno.into() })
}

/// A namespace to join; nothing when this process is in it already.
fn open(path: &Path, wanted: LinuxNamespaceType) -> Result<Option<(OwnedFd, i32)>> {
    let io = |errno: rustix::io::Errno| Error::Io { path: path.to_path_buf(), source: errno.into() };
    let shown = path.display();
    if !path.is_absolute() {
        return invalid(FIELD, format!("{shown} is not an absolute path"));
    }
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io)?;
    let kind = kind_of(wanted);
    match tune::namespace_kind(fd.as_fd()) {
        Ok(found) if found == kind => {}
        _ => return invalid(FIELD, format!("{shown} is no {wanted} namespace")),
    }
    let name = match wanted {
        LinuxNamespaceType::Mount => "mnt",
        LinuxNamespaceType::User => "user",
        _ => return Ok(Some((fd, kind))),
    };
    let own = stat(format!("/proc/self/ns/{name}")).map_err(io)?;
    let there = fstat(&fd).map_err(io)?;
    if (own.st_dev, own.st_ino) != (there.st_dev, there.st_ino) {
        return Ok(Some((fd, kind)));
    }
    match kind {
        libc::CLONE_NEWUSER => Ok(None),
        _ => invalid(FIELD, format!("{shown} is the host's own: the container would replace its root")),
    }
}

/// Offsets of the clocks, and in which way they are set.
fn clocks(linux: &Linux, new_time: bool, found: &mut Namespaces) -> Result<()> {
    const FIELD: &str = "linux.timeOffsets";
    let mut text = String::new();
    for (clock, offset) in linux.time_offsets().iter().flatten() {
        if !new_time {
            return invalid(FIELD, "needs a time namespace of the container's own");
        }
        if !matches!(clock.as_str(), "monotonic" | "boottime") {
            return invalid(FIELD, format!("there is no clock {clock}"));
        }
        let (seconds, nanoseconds) = (offset.secs().unwrap_or(0), offset.nanosecs().unwrap_or(0));
        if nanoseconds > 999_999_999 {
            return invalid(FIELD, format!("{nanoseconds} nanoseconds of {clock} are more than a second"));
        }
        // Writing to a string does not fail.
        let _written = writeln!(text, "{clock} {seconds} {nanoseconds}");
    }
    found.clocks = new_time.then_some(text);
    Ok(())
}

fn maps(linux: &Linux, found: &mut Namespaces) -> Result<()> {
    let maps = Maps {
        uids: linux.uid_mappings().clone().unwrap_or_default(),
        gids: linux.gid_mappings().clone().unwrap_or_default(),
    };
    let mapped = !maps.uids.is_empty() && !maps.gids.is_empty();
    found.may_set_groups = true;
    match (found.has(libc::CLONE_NEWUSER), mapped) {
        (true, true) => {
            maps.check()?;
            found.may_set_groups = maps.allows_setgroups();
            found.maps = Some(maps);
        }
        (true, false) => return invalid("linux.uidMappings", "a user namespace needs id mappings"),
        (false, _) if !found.is_mapped() && !may_make_namespaces() => {
            return Err(Error::Host {
                what: "containers need CAP_SYS_ADMIN or a user namespace".to_owned(),
                hint: "add a user namespace with id mappings to the specification".to_owned(),
            });
        }
        (false, _) => {}
    }
    Ok(())
}

/// The kinds a container has of its own, each as a new one, whether it was made for it or joined. What shares the mount
/// namespace gets one all the same: it is not made, and the plan wants it.
pub(super) fn all_new(linux: &Linux) -> Vec<LinuxNamespace> {
    let mut kinds: Vec<LinuxNamespaceType> =
        linux.namespaces().iter().flatten().map(LinuxNamespace::typ).collect();
    if !kinds.contains(&LinuxNamespaceType::Mount) {
        kinds.push(LinuxNamespaceType::Mount);
    }
    kinds.into_iter().map(crate::native::defaults::namespace).collect()
}

/// Whether this process may make namespaces and mounts as it is.
fn may_make_namespaces() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// Settings that belong to a namespace of the container's own; any other would change the host.
pub(super) fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(PathBuf, String)>> {
    const FIELD: &str = "linux.sysctl";
    const IPC: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let mut settings = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        // The names of interfaces may have dots in them; such keys are written with slashes.
        let path = if key.contains('/') { key.clone() } else { key.replace('.', "/") };
        let mut parts = path.split('/');
        let owner = match (parts.next(), parts.next()) {
            _ if path.split('/').any(|part| matches!(part, "" | "." | "..")) => None,
            (Some("net"), _) => Some(libc::CLONE_NEWNET),
            (Some("fs"), Some("mqueue")) => Some(libc::CLONE_NEWIPC),
            (Some("user"), Some(_)) => Some(libc::CLONE_NEWUSER),
            (Some("kernel"), Some(name)) if IPC.contains(&name) => Some(libc::CLONE_NEWIPC),
            (Some("kernel"), Some("domainname" | "hostname")) => Some(libc::CLONE_NEWUTS),
            _ => None,
        };
        let Some(owner) = owner else { return invalid(FIELD, format!("{key} belongs to no namespace")) };
        if !namespaces.owns(owner) {
            return invalid(
                FIELD,
                format!("{key} would change the host: the container shares that namespace"),
            );
        }
        settings.push((Path::new("sys").join(path), value.clone()));
    }
    Ok(settings)
}
