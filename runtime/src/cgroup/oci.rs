//! A container's control groups as the OCI runtime specification wants them: one folder in every hierarchy of version 1,
//! one in version 2, at `linux.cgroupsPath`, with every limit of `linux.resources`.
//!
//! ```text
//! <hierarchy>/<cgroupsPath>            absolute paths count from the hierarchy's mount point
//! <own group>/<cgroupsPath>            relative ones from this process's own group (version 2: from the one above it)
//! <hierarchy>/dhow-<id>                none given
//! ```
//! [`OciGroup::create`] makes the folders and writes the limits; nobody is in the group then. The verbs on a group that
//! lives are in `freeze.rs`, `oci/stats.rs`, `oom.rs`; the way over systemd is in `systemd.rs`.

pub mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use fs_err as fs;
use oci_spec::runtime::LinuxResources;
use rustix::fs::{CWD, Mode, OFlags, openat};

use super::hosts::Host;
use super::{devices, files, limits, systemd};
use crate::error::{Error, Result};

/// What the name of a group that was given no path begins with. There is no folder for all of them: it would have to be
/// made and removed in each of a dozen hierarchies.
const PREFIX: &str = "dhow-";
/// Controllers of version 1 that do nothing for a container that asks for nothing: they neither count what anybody asks for
/// nor share anything out. Each hierarchy costs 0.06 ms.
const IDLE: [&str; 9] =
    ["cpu", "cpuset", "blkio", "net_cls", "net_prio", "perf_event", "hugetlb", "rdma", "misc"];
/// The same beside version 2, which stops processes, too, and counts their time without any controller.
const IDLE_BESIDE: [&str; 2] = ["freezer", "cpuacct"];
/// The key of version 2 in [`OciGroup::saved`].
const UNIFIED: &str = "";

/// A container's group in every hierarchy.
#[derive(Debug)]
pub struct OciGroup {
    /// Version 1: controllers (or the hierarchy's own name, with `name=` before it), and the folder.
    pub(super) first: Vec<(Vec<String>, PathBuf)>,
    /// Version 2: the folder.
    pub(super) second: Option<PathBuf>,
    handle: Option<OwnedFd>,
    /// Hierarchies with [`IDLE`] controllers alone are left out.
    is_lean: bool,
    /// The transient unit systemd keeps for it.
    unit: Option<systemd::Unit>,
}

impl OciGroup {
    /// Makes a container's group with its limits; nobody is in it. `path` is `linux.cgroupsPath`; with `systemd` it is
    /// `slice:prefix:name`, and the group is made by [`OciGroup::add`], as a scope cannot be without a process. A `rootless`
    /// container that asks for no limits needs no group, and gets none where it may not.
    ///
    /// # Errors
    /// [`Error::InvalidSpec`] for a path or a value that cannot be; [`Error::Host`] for a controller that is not there;
    /// [`Error::Setup`] when the kernel refuses. Nothing is left behind.
    pub fn create(
        path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        systemd: bool,
        rootless: bool,
    ) -> Result<Self> {
        if systemd {
            return Self::of_systemd(path, id, resources, rootless);
        }
        let mut group = Self::none();
        let made = group.fill(&Host::of_this_process()?, path, id, resources, rootless);
        // The first failure is the one to report.
        made.inspect_err(|_| drop(group.remove())).map(|()| group)
    }

    /// No group.
    pub(crate) fn none() -> Self {
        Self { first: Vec::new(), second: None, handle: None, is_lean: false, unit: None }
    }

    /// Leaves hierarchies out, where the group is not made yet, that a container without limits has no use for. Only where
    /// nobody else has said where its groups are, and might look there: [`OciGroup::complete`] makes the others.
    #[must_use]
    pub(crate) fn lean(mut self) -> Self {
        self.is_lean = true;
        self
    }

    /// The same with systemd, which makes it for the first process.
    pub(crate) fn of_systemd(
        path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        rootless: bool,
    ) -> Result<Self> {
        let unit = systemd::Unit::new(path, id, resources, rootless)?;
        Ok(Self { unit: Some(unit), ..Self::none() })
    }

    /// Makes the part of version 2 in which a process can be born, on a host that also has version 1; the rest comes with
    /// [`OciGroup::fill`], which also says what is wrong.
    pub(crate) fn begin_in(host: &Host, path: Option<&Path>, id: &str, rootless: bool) -> Self {
        let mut group = Self::none();
        if let Ok(place) = Place::of(path, id, rootless) {
            group.make_second(host, &place, false).ok();
        }
        group
    }

    /// As [`OciGroup::create`] without systemd, on a host that is known, with what there is of it already. What was made when
    /// something fails is left to [`OciGroup::remove`]: a process may have been born there.
    pub(crate) fn fill(
        &mut self,
        host: &Host,
        path: Option<&Path>,
        id: &str,
        resources: Option<&LinuxResources>,
        rootless: bool,
    ) -> Result<()> {
        let wants = resources.is_some_and(limits::any);
        let has_begun = self.second.is_some();
        self.is_lean &= !wants && !rootless && path.is_none();
        let made = Place::of(path, id, rootless).and_then(|place| self.make(host, &place, wants));
        let made = made.and_then(|()| match resources {
            Some(resources) => self.limit(resources, true, rootless),
            None => Ok(()),
        });
        if made.is_err() && rootless && !wants && path.is_none() {
            for (_, folder) in self.first.drain(..) {
                remove_tree(&folder, 0).ok();
            }
            if let Some(folder) = self.second.take_if(|_| !has_begun) {
                remove_tree(&folder, 0).ok();
                self.handle = None;
            }
            return Ok(());
        }
        made
    }

    /// A group that was made before, from what [`OciGroup::saved`] gave.
    pub fn open(saved: &BTreeMap<String, PathBuf>) -> Self {
        let mut first: Vec<(Vec<String>, PathBuf)> = Vec::new();
        for (name, path) in saved.iter().filter(|(name, _)| *name != UNIFIED) {
            match first.iter_mut().find(|(_, other)| other == path) {
                Some((names, _)) => names.push(name.clone()),
                None => first.push((vec![name.clone()], path.clone())),
            }
        }
        let second = saved.get(UNIFIED).cloned();
        let unit = first.iter().map(|(_, path)| path).chain(&second).find_map(|path| systemd::Unit::at(path));
        Self { handle: None, first, second, is_lean: false, unit }
    }

    /// Every controller and its folder, version 2 under the empty name: `cgroup_paths` of runc's state.
    pub fn saved(&self) -> BTreeMap<String, PathBuf> {
        let first = self
            .first
            .iter()
            .flat_map(|(names, path)| names.iter().map(move |name| (name.clone(), path.clone())));
        first.chain(self.second.iter().map(|path| (UNIFIED.to_owned(), path.clone()))).collect()
    }

    /// The same, for processes that are to be born in it.
    #[must_use]
    pub(crate) fn held(mut self) -> Self {
        self.handle = self.second.as_deref().and_then(open_folder);
        self
    }

    /// The folder of version 2 of a group just made, in which a process can be born (`CLONE_INTO_CGROUP`): moving it there
    /// later has to wait for all processors. The hierarchies of version 1 are entered with [`OciGroup::add`].
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        self.handle.as_ref().map(|handle| handle.as_fd())
    }

    /// What it has of version 1: for each hierarchy its controllers with commas between them, or its own name after `name=`,
    /// and the folder.
    pub fn first_folders(&self) -> Vec<(String, PathBuf)> {
        self.first.iter().map(|(names, path)| (names.join(","), path.clone())).collect()
    }

    /// Whether systemd makes it.
    pub(crate) fn is_of_systemd(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether there is no group at all.
    pub fn is_none(&self) -> bool {
        self.first.is_empty() && self.second.is_none()
    }

    /// Puts a process into the group; what it starts from then on is in it, too. With systemd the first one makes it.
    /// `born_inside` is one that [`OciGroup::clone_into`] was told about. One that `enters` version 1 by itself, where it has
    /// one thread, is left to do so: by writing 0 to the file `tasks` of each of [`OciGroup::first_folders`].
    ///
    /// # Errors
    /// When the group is gone, or the kernel or systemd refuses.
    pub fn add(&mut self, pid: u32, born_inside: bool, enters: bool) -> Result<()> {
        if let Some(unit) = &mut self.unit
            && self.first.is_empty()
            && self.second.is_none()
        {
            let resources = unit.start(pid)?;
            let host = Host::of_this_process()?;
            let place = unit.place(pid)?;
            self.make(&host, &Place::Absolute(place), true)?;
            if let Some(resources) = resources {
                self.limit(&resources, true, unit_is_users(self.unit.as_ref()))?;
            }
        }
        let text = pid.to_string();
        let first = self.first.iter().map(|(_, path)| path).filter(|_| !enters);
        let second = self.second.iter().filter(|_| !born_inside);
        first.chain(second).try_for_each(|path| write(path, "cgroup.procs", &text))
    }

    /// Makes what was left out of a group that is in use, and puts its processes there. `false` when nothing was.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn complete(&mut self, path: Option<&Path>, id: &str) -> Result<bool> {
        if path.is_some() || self.unit.is_some() || self.first.is_empty() {
            return Ok(false);
        }
        let (host, place) = (Host::of_this_process()?, Place::of(None, id, false)?);
        let mut made = false;
        for hierarchy in &host.first {
            let folder = place.below(&hierarchy.point, &hierarchy.own);
            // A group of somebody without rights is elsewhere, and whole.
            let is_here = self.first.iter().any(|(_, other)| other.file_name() == folder.file_name());
            if !is_here || self.first.iter().any(|(names, _)| *names == hierarchy.names) {
                continue;
            }
            host.make_first(hierarchy, &folder)?;
            self.first.push((hierarchy.names.clone(), folder.clone()));
            made = true;
            // What is born meanwhile is born where its parent is at that moment.
            let mut moved = BTreeSet::new();
            loop {
                let new: Vec<u32> = self.pids()?.into_iter().filter(|pid| moved.insert(*pid)).collect();
                if new.is_empty() {
                    break;
                }
                for pid in new {
                    match files::write(&folder.join("cgroup.procs"), &pid.to_string()) {
                        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                        written => written.map_err(|source| Error::Setup {
                            action: format!("put process {pid} into {}", folder.display()),
                            source,
                        })?,
                    }
                }
            }
        }
        Ok(made)
    }

    /// Changes limits of a group that is in use. What is not given stays.
    ///
    /// # Errors
    /// As [`OciGroup::create`].
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        if let Some(unit) = &self.unit {
            unit.update(resources)?;
        }
        self.limit(resources, false, false)
    }

    /// Removes the group with all groups in it. Processes that are about to be gone are waited for a moment.
    ///
    /// # Errors
    /// When something in it lives.
    pub fn remove(&self) -> Result<()> {
        let mut result = Ok(());
        for path in self.folders() {
            result = result.and(remove_tree(path, 0));
        }
        if let Some(unit) = &self.unit {
            // A scope whose last process has ended is gone already.
            unit.stop();
        }
        result
    }

    /// Every process in it and in the groups below.
    ///
    /// # Errors
    /// When it cannot be read. A group that is gone has no processes.
    pub fn pids(&self) -> Result<Vec<u32>> {
        let Some(path) = self.main_folder() else { return Ok(Vec::new()) };
        let mut pids = Vec::new();
        collect(path, 0, &mut pids)?;
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// All folders.
    pub(super) fn folders(&self) -> impl Iterator<Item = &Path> {
        self.first.iter().map(|(_, path)| path).chain(&self.second).map(PathBuf::as_path)
    }

    /// The folder of a controller of version 1.
    pub(super) fn first_with(&self, controller: &str) -> Option<&Path> {
        let has = |names: &[String]| names.iter().any(|name| name == controller);
        self.first.iter().find(|(names, _)| has(names)).map(|(_, path)| path.as_path())
    }

    /// The one that is asked for processes: all have the same.
    fn main_folder(&self) -> Option<&Path> {
        self.second.as_deref().or_else(|| self.first_with("pids")).or_else(|| self.folders().next())
    }

    /// Makes its folders. Without `wants` there will be no limits, for which those above would have to pass controllers on.
    fn make(&mut self, host: &Host, place: &Place, wants: bool) -> Result<()> {
        let is_beside = host.second.is_some();
        let is_idle = |name: &String| {
            let name = name.as_str();
            // A hierarchy with a name of its own has no controllers.
            is_beside && (IDLE_BESIDE.contains(&name) || name.starts_with("name=")) || IDLE.contains(&name)
        };
        for hierarchy in host.first.iter().filter(|one| !self.is_lean || !one.names.iter().all(is_idle)) {
            let path = place.below(&hierarchy.point, &hierarchy.own);
            host.make_first(hierarchy, &path)?;
            self.first.push((hierarchy.names.clone(), path));
        }
        // Of version 2 alone it has every controller that there is, with or without a limit: they count.
        self.make_second(host, place, wants || host.first.is_empty())?;
        if self.is_none() {
            return Err(Error::Host {
                what: "this host has no control groups".to_owned(),
                hint: "mount them at /sys/fs/cgroup".to_owned(),
            });
        }
        Ok(())
    }

    fn make_second(&mut self, host: &Host, place: &Place, wants: bool) -> Result<()> {
        let Some((point, own)) = &host.second else { return Ok(()) };
        let above = own.parent().unwrap_or(Path::new("/"));
        let path = place.below(point, if host.first.is_empty() { above } else { own });
        if self.second.is_none() || wants {
            host.make_second(point, &path, wants)?;
        }
        if self.second.is_none() {
            self.handle = open_folder(&path);
            self.second = Some(path);
        }
        Ok(())
    }

    /// Writes limits. `new` is for a group with nobody in it, which also gets the devices every container has.
    fn limit(&self, resources: &LinuxResources, new: bool, rootless: bool) -> Result<()> {
        limits::check(resources, self)?;
        for (path, changes) in limits::changes(resources, self)? {
            for change in changes {
                change.write(path)?;
            }
        }
        let rules = resources.devices().as_deref().unwrap_or_default();
        if rootless || (rules.is_empty() && !new) {
            return Ok(());
        }
        match (self.first_with("devices"), &self.second) {
            (Some(path), _) => devices::write_first(path, rules),
            (None, Some(path)) if self.first.is_empty() => devices::attach(path, rules),
            _ => Ok(()),
        }
    }
}

fn unit_is_users(unit: Option<&systemd::Unit>) -> bool {
    unit.is_some_and(systemd::Unit::is_users)
}

/// Where a group goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// From the mount point; without the first slash.
    Absolute(PathBuf),
    /// From this process's own group.
    Relative(PathBuf),
}

impl Place {
    pub(super) fn of(path: Option<&Path>, id: &str, rootless: bool) -> Result<Self> {
        let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) else {
            let name = PathBuf::from(format!("{PREFIX}{id}"));
            return Ok(if rootless { Self::Relative(name) } else { Self::Absolute(name) });
        };
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => drop(clean.pop()),
                _ => {}
            }
        }
        let shown = path.display();
        let invalid = |reason: &str| Error::InvalidSpec {
            field: "linux.cgroupsPath",
            reason: format!("{shown} {reason}"),
        };
        if clean.as_os_str().is_empty() {
            return Err(invalid("is the root, where no container may be"));
        }
        if clean.components().any(|name| name.as_os_str().as_encoded_bytes().contains(&b'\n')) {
            return Err(invalid("has a line break in it"));
        }
        Ok(if path.is_absolute() { Self::Absolute(clean) } else { Self::Relative(clean) })
    }

    fn below(&self, point: &Path, own: &Path) -> PathBuf {
        match self {
            Self::Absolute(path) => point.join(path),
            Self::Relative(path) => point.join(own.strip_prefix("/").unwrap_or(own)).join(path),
        }
    }
}

fn open_folder(path: &Path) -> Option<OwnedFd> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// Writes one value into one file of a group.
pub(super) fn write(path: &Path, file: &str, value: &str) -> Result<()> {
    let path = path.join(file);
    files::write(&path, value)
        .map_err(|source| Error::Setup { action: format!("write {value} to {}", path.display()), source })
}

/// The same for several values, one after the other.
pub(super) fn write_all(path: &Path, file: &str, values: &[String]) -> Result<()> {
    let path = path.join(file);
    files::write_all(&path, values).map_err(|source| Error::Setup {
        action: format!("write {} to {}", values.join(", "), path.display()),
        source,
    })
}

/// Groups in each other that are gone through; a container can make more, but not with limits of ours.
const DEEPEST: u32 = 64;

fn collect(path: &Path, depth: u32, pids: &mut Vec<u32>) -> Result<()> {
    let file = path.join("cgroup.procs");
    let mut text = String::new();
    let read = rustix::fs::open(&file, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .and_then(|fd| std::fs::File::from(fd).read_to_string(&mut text));
    match read.map_err(|error| (error.raw_os_error(), error)) {
        Ok(_) => pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok())),
        Err((Some(libc::ENOENT | libc::ENODEV), _)) => return Ok(()),
        // A threaded group names its processes only where its domain is.
        Err((Some(libc::EOPNOTSUPP), _)) => {}
        Err((_, source)) => return Err(Error::Io { path: file, source }),
    }
    if depth < DEEPEST {
        for folder in below(path) {
            collect(&folder, depth + 1, pids)?;
        }
    }
    Ok(())
}

fn below(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Removes a group, which is `depth` groups deep in what is removed, with those in it. One whose last process is just
/// ending is busy for a moment.
pub(super) fn remove_tree(path: &Path, depth: u32) -> Result<()> {
    /// Together about a second.
    const ATTEMPTS: u32 = 11;
    let mut pause = Duration::from_micros(500);
    for attempt in 1..=ATTEMPTS {
        match fs::remove_dir(path) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if attempt == ATTEMPTS || error.kind() != io::ErrorKind::ResourceBusy => {
                return Err(Error::Setup { action: format!("remove {}", path.display()), source: error });
            }
            Err(_) => {}
        }
        let inner = below(path);
        if inner.is_empty() || depth >= DEEPEST {
            std::thread::sleep(pause);
            pause *= 2;
        }
        for folder in inner {
            remove_tree(&folder, depth + 1)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
