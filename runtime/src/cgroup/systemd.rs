//! The way over systemd: a container's group is a transient scope, made and limited by calls on D-Bus.
//!
//! `linux.cgroupsPath` is `slice:prefix:name` then: the scope `prefix-name.scope` in that slice. systemd has words for some
//! limits only; the others are written into the group afterwards, which it leaves alone because the scope is delegated.

mod bus;

use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::runtime::LinuxResources;

use crate::error::{Error, Result};
use bus::{Body, Bus, Method};

const MANAGER: Method<'static> = Method {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
    member: "",
    signature: "",
};
/// Where the bus of the whole host is.
const SYSTEM_BUS: &str = "/run/dbus/system_bus_socket";

/// A transient scope.
#[derive(Debug)]
pub(super) struct Unit {
    name: String,
    slice: String,
    resources: Option<LinuxResources>,
    /// The bus to call systemd on.
    socket: PathBuf,
    users: bool,
}

fn invalid<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field: "linux.cgroupsPath", reason: reason.into() })
}

/// Whether a group's path is one for systemd, and systemd runs here (sd_booted(3)).
pub(crate) fn is_of_systemd(path: &Path) -> bool {
    is_units(path) && Path::new("/run/systemd/system").is_dir()
}

/// Whether a path has the form `x.slice:prefix:name`.
fn is_units(path: &Path) -> bool {
    let mut parts = path.to_str().unwrap_or_default().split(':');
    parts.next().is_some_and(|slice| slice.ends_with(".slice") && !slice.contains('/')) && parts.count() == 2
}

impl Unit {
    pub(super) fn new(
        path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        rootless: bool,
    ) -> Result<Self> {
        let text = path.and_then(Path::to_str).unwrap_or_default();
        let parts: Vec<&str> = text.split(':').collect();
        let (slice, prefix, name) = match parts.as_slice() {
            [""] => ("", "dhow", id),
            [slice, prefix, name] if !name.is_empty() => (*slice, *prefix, *name),
            _ => return invalid(format!("{text} is not slice:prefix:name, which systemd needs")),
        };
        let usable = |text: &str| {
            text.bytes().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_' | b'.' | b'\\' | b'@')
            })
        };
        let name = match (prefix, name.ends_with(".slice")) {
            (_, true) => return invalid(format!("{text}: a container cannot be a slice")),
            ("", _) => format!("{name}.scope"),
            _ => format!("{prefix}-{name}.scope"),
        };
        let slice = match (slice, rootless) {
            ("", false) => "system.slice",
            ("" | "system.slice", true) => "user.slice",
            (slice, _) => slice,
        };
        if !usable(&name) || !usable(slice) || name.len() > 255 {
            return invalid(format!("{text} is no name of a unit"));
        }
        if slice != "-.slice" && expand(slice).is_none() {
            return invalid(format!("{slice} is no slice"));
        }
        let uid = rustix::process::geteuid();
        let socket = if rootless {
            PathBuf::from(format!("/run/user/{}/bus", uid.as_raw()))
        } else {
            PathBuf::from(SYSTEM_BUS)
        };
        Ok(Self { name, slice: slice.to_owned(), resources: resources.cloned(), socket, users: rootless })
    }

    /// The unit whose group is at a path, if it was made by systemd.
    pub(super) fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let slice = path.parent()?.file_name()?.to_str()?.to_owned();
        if !name.ends_with(".scope") || !slice.ends_with(".slice") {
            return None;
        }
        let text = path.to_str()?;
        // `/user.slice/user-1000.slice/user@1000.service/...`
        let user = text.split("/user@").nth(1).and_then(|rest| rest.split(".service").next());
        let socket =
            user.map_or(PathBuf::from(SYSTEM_BUS), |uid| PathBuf::from(format!("/run/user/{uid}/bus")));
        Some(Self { name, slice, resources: None, socket, users: user.is_some() })
    }

    #[cfg(test)]
    pub(super) fn with_bus(mut self, socket: &Path) -> Self {
        self.socket = socket.to_path_buf();
        self
    }

    pub(super) fn is_users(&self) -> bool {
        self.users
    }

    /// Makes the scope with a process in it. Gives the limits, which are to be written once the group is there.
    pub(super) fn start(&mut self, pid: u32) -> Result<Option<LinuxResources>> {
        let mut bus = Bus::connect(&self.socket)?;
        follow_jobs(&mut bus)?;
        let mut body = Body::default();
        body.text(&self.name);
        body.text("replace");
        let slice = self.slice.clone();
        let resources = self.resources.clone();
        body.array(8, |all| {
            all.property("Description", "s", |value| value.text("dhow container"));
            all.property("Slice", "s", |value| value.text(&slice));
            all.property("Delegate", "b", |value| value.flag(true));
            all.property("PIDs", "au", |value| {
                value.array(4, |pids| pids.u32(pid));
            });
            all.property("DefaultDependencies", "b", |value| value.flag(false));
            for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
                all.property(name, "b", |value| value.flag(true));
            }
            if let Some(resources) = &resources {
                limits(all, resources, super::is_unified());
            }
        });
        // No auxiliary units.
        body.array(8, |_| {});
        let method = Method { member: "StartTransientUnit", signature: "ssa(sv)a(sa(sv))", ..MANAGER };
        bus.call_job(method, &body)?;
        Ok(self.resources.take())
    }

    /// Where a process of it is, below the mount point.
    pub(super) fn place(&self, pid: u32) -> Result<PathBuf> {
        let path = PathBuf::from(format!("/proc/{pid}/cgroup"));
        let text = fs::read_to_string(&path).map_err(|source| Error::Io { path, source })?;
        let line = |start: &str| {
            text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(start).map(str::to_owned))
        };
        // Version 2, then systemd's own hierarchy.
        let found = [":", "name=systemd:"].iter().filter_map(|start| line(start));
        let mut places = found.filter(|place| place.ends_with(&format!("/{}", self.name)));
        match places.next() {
            Some(place) => Ok(PathBuf::from(place.trim_start_matches('/'))),
            None => Ok(match expand(&self.slice) {
                Some(folders) => folders.join(&self.name),
                None => PathBuf::from(&self.name),
            }),
        }
    }

    /// Tells systemd of limits that have changed, so that it does not write the old ones again.
    pub(super) fn update(&self, resources: &LinuxResources) -> Result<()> {
        let mut body = Body::default();
        body.text(&self.name);
        body.flag(true);
        body.array(8, |all| limits(all, resources, super::is_unified()));
        let mut bus = Bus::connect(&self.socket)?;
        let method = Method { member: "SetUnitProperties", signature: "sba(sv)", ..MANAGER };
        bus.call(method, &body).map(drop)
    }

    /// Removes the scope, if it is still there.
    pub(super) fn stop(&self) {
        let Ok(mut bus) = Bus::connect(&self.socket) else { return };
        if follow_jobs(&mut bus).is_err() {
            return;
        }
        for (member, signature) in [("StopUnit", "ss"), ("ResetFailedUnit", "s")] {
            let mut body = Body::default();
            body.text(&self.name);
            let method = Method { member, signature, ..MANAGER };
            // A scope that is gone is what was wanted.
            if member == "StopUnit" {
                body.text("replace");
                bus.call_job(method, &body).ok();
            } else {
                bus.call(method, &body).ok();
            }
        }
    }
}

/// Has systemd say when jobs are over, and the bus pass it on.
fn follow_jobs(bus: &mut Bus) -> Result<()> {
    bus.listen(Method { member: "JobRemoved", ..MANAGER })?;
    bus.call(Method { member: "Subscribe", ..MANAGER }, &Body::default()).map(drop)
}

/// The folders of a slice: `a-b.slice` is in `a.slice`.
fn expand(slice: &str) -> Option<PathBuf> {
    let name = slice.strip_suffix(".slice")?;
    if name == "-" {
        return Some(PathBuf::new());
    }
    let parts: Vec<&str> = name.split('-').collect();
    if parts.iter().any(|part| part.is_empty()) || name.contains('/') {
        return None;
    }
    let step = |length: usize| format!("{}.slice", parts.get(..length).unwrap_or_default().join("-"));
    Some((1..=parts.len()).map(step).collect())
}

/// The limits systemd has words for.
fn limits(all: &mut Body, resources: &LinuxResources, unified: bool) {
    let mut number = |name: &str, value: Option<u64>| {
        if let Some(value) = value {
            all.property(name, "t", |body| body.u64(value));
        }
    };
    // Negative is no limit.
    let bytes = |value: Option<i64>| value.map(|value| u64::try_from(value).unwrap_or(u64::MAX));
    if let Some(memory) = resources.memory() {
        number(if unified { "MemoryMax" } else { "MemoryLimit" }, bytes(memory.limit()));
        if unified {
            number("MemoryLow", bytes(memory.reservation()));
            let swap = memory.swap().map(|swap| match memory.limit() {
                Some(limit) if swap >= 0 => swap.saturating_sub(limit).max(0),
                _ => swap,
            });
            number("MemorySwapMax", bytes(swap));
        }
    }
    if let Some(cpu) = resources.cpu() {
        let shares = cpu.shares().filter(|shares| *shares > 0);
        match unified {
            true => number("CPUWeight", shares.map(super::files::weight)),
            false => number("CPUShares", shares),
        }
        if let Some(quota) = cpu.quota().filter(|quota| *quota != 0) {
            let period = cpu.period().filter(|period| *period > 0).unwrap_or(100_000);
            // For each second, in whole hundredths of a processor; never less than asked for.
            let share = u64::try_from(quota).map_or(u64::MAX, |quota| {
                (quota.saturating_mul(1_000_000) / period).next_multiple_of(10_000)
            });
            number("CPUQuotaPerSecUSec", Some(share));
            if unified {
                number("CPUQuotaPeriodUSec", Some(period));
            }
        }
        for (name, list) in [("AllowedCPUs", cpu.cpus()), ("AllowedMemoryNodes", cpu.mems())] {
            let mask = list.as_deref().filter(|_| unified).and_then(mask);
            if let Some(mask) = mask.filter(|mask| !mask.is_empty()) {
                all.property(name, "ay", |body| body.bytes(&mask));
            }
        }
    }
    if let Some(pids) = resources.pids() {
        let limit = u64::try_from(pids.limit()).unwrap_or(u64::MAX);
        all.property("TasksMax", "t", |body| body.u64(limit));
    }
    if let Some(weight) =
        resources.block_io().as_ref().and_then(|io| io.weight()).filter(|weight| *weight > 0)
    {
        let (name, weight) = match unified {
            true => ("IOWeight", 1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990),
            false => ("BlockIOWeight", weight.into()),
        };
        all.property(name, "t", |body| body.u64(weight));
    }
}

/// A list of numbers as bits.
fn mask(list: &str) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for number in super::files::number_list(list, 8192)? {
        let at = number as usize / 8;
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        if let Some(byte) = bits.get_mut(at) {
            *byte |= 1 << (number % 8);
        }
    }
    Some(bits)
}

#[cfg(test)]
mod tests;
