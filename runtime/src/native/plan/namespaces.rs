//! `linux.namespaces`, the id maps that go with them, and the settings that belong to them.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use oci_spec::runtime::{Linux, LinuxNamespaceType};
use rustix::fs::{Mode, OFlags};
use rustix::thread::{CapabilitySet, capabilities};

use super::invalid;
use crate::error::{Error, Result};
use crate::native::idmap::Maps;

/// Which namespaces are made and which are joined.
#[derive(Debug, Default)]
pub(in crate::native) struct Namespaces {
    /// `CLONE_NEW*` for the new ones.
    pub(in crate::native) new: u64,
    /// Others to join, with their kind.
    pub(in crate::native) join: Vec<(OwnedFd, i32)>,
    /// The process namespace to be born in.
    pub(in crate::native) pid: Option<OwnedFd>,
    /// The maps of a new user namespace.
    pub(in crate::native) maps: Option<Maps>,
    /// Whether the process may set its supplementary groups.
    pub(in crate::native) may_set_groups: bool,
}

impl Namespaces {
    pub(in crate::native) fn has(&self, kind: i32) -> bool {
        self.new & u64::from(kind.cast_unsigned()) != 0
    }
}

pub(super) fn namespaces(linux: &Linux) -> Result<Namespaces> {
    const FIELD: &str = "linux.namespaces";
    let mut found = Namespaces::default();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = match namespace.typ() {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Time => {
                return invalid(FIELD, "a time namespace is not supported by this executor");
            }
        };
        let joined = found.join.iter().any(|(_, other)| *other == kind)
            || (kind == libc::CLONE_NEWPID && found.pid.is_some());
        if found.has(kind) || joined {
            return invalid(FIELD, format!("{:?} is there twice", namespace.typ()));
        }
        let Some(path) = namespace.path() else {
            found.new |= u64::from(kind.cast_unsigned());
            continue;
        };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::Io { path: path.clone(), source: errno.into() })?;
        match kind {
            libc::CLONE_NEWNS | libc::CLONE_NEWUSER => {
                return invalid(FIELD, format!("joining the namespace {} is not supported", path.display()));
            }
            libc::CLONE_NEWPID => found.pid = Some(fd),
            _ => found.join.push((fd, kind)),
        }
    }
    if !found.has(libc::CLONE_NEWNS) {
        return invalid(FIELD, "a mount namespace is needed");
    }
    let maps = Maps {
        uids: linux.uid_mappings().clone().unwrap_or_default(),
        gids: linux.gid_mappings().clone().unwrap_or_default(),
    };
    let mapped = !maps.uids.is_empty() && !maps.gids.is_empty();
    match (found.has(libc::CLONE_NEWUSER), mapped) {
        (true, true) => {
            found.may_set_groups = maps.allows_setgroups();
            found.maps = Some(maps);
        }
        (true, false) => return invalid("linux.uidMappings", "a user namespace needs id mappings"),
        (false, _) if !may_make_namespaces() => {
            return Err(Error::Host {
                what: "containers need CAP_SYS_ADMIN or a user namespace".to_owned(),
                hint: "add a user namespace with id mappings to the specification".to_owned(),
            });
        }
        (false, _) => found.may_set_groups = true,
    }
    Ok(found)
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
            (Some("kernel"), Some(name)) if IPC.contains(&name) => Some(libc::CLONE_NEWIPC),
            (Some("kernel"), Some("domainname" | "hostname")) => Some(libc::CLONE_NEWUTS),
            _ => None,
        };
        let Some(owner) = owner else { return invalid(FIELD, format!("{key} belongs to no namespace")) };
        if !namespaces.has(owner) && namespaces.join.iter().all(|(_, kind)| *kind != owner) {
            return invalid(
                FIELD,
                format!("{key} would change the host: the container shares that namespace"),
            );
        }
        settings.push((Path::new("sys").join(path), value.clone()));
    }
    Ok(settings)
}
