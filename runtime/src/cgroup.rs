//! Control groups (Linux): limits that the kernel keeps for a container's processes, of either executor.
//!
//! ```text
//! <hierarchy>/<where we may>/dhow/<name>/    one group for each container, in each hierarchy that has one of its controllers
//! ```
//!
//! Version 2 is one hierarchy, version 1 has one for each controller or two, and hosts exist that have some controllers in
//! either (`hierarchy.rs`). A group exists only while a limit asks for one: [`Group::create`], [`Group::add`],
//! [`Group::remove`]. Names of groups are the caller's; a crash leaves an empty group, which [`remove_empty`] finds.
//!
//! That is the engine's own, small way. Containers with an OCI bundle have [`oci::OciGroup`], which knows every field of
//! `linux.resources`, devices, freezing, statistics and systemd.

mod devices;
pub(crate) mod files;
mod freeze;
mod hierarchy;
pub(crate) mod hosts;
mod limits;
pub mod oci;
pub mod oom;
mod stats;
mod sys;
pub(crate) mod systemd;

use std::path::PathBuf;
use std::time::Duration;

use fs_err as fs;
use oci_spec::runtime::LinuxResources;

use crate::error::{Error, Result};
use hierarchy::Hierarchies;
pub use stats::Stats;

/// The folder of all groups of ours.
const PARENT: &str = "dhow";
/// A group that is younger than this may just be about to get its process.
const SETTLED: Duration = Duration::from_secs(10);

/// What is limited, by the kernel's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Cpu,
    Cpuset,
    Pids,
}

impl Controller {
    const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids];

    fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
        }
    }

    /// The controllers that these limits need.
    fn needed(resources: &LinuxResources) -> Vec<Self> {
        let cpu = resources.cpu().as_ref();
        let needs = |controller: &Self| match controller {
            Self::Memory => resources.memory().as_ref().is_some_and(|memory| memory.limit().is_some()),
            Self::Cpu => cpu
                .is_some_and(|cpu| cpu.quota().is_some() || cpu.period().is_some() || cpu.shares().is_some()),
            Self::Cpuset => cpu.is_some_and(|cpu| cpu.cpus().is_some()),
            Self::Pids => resources.pids().is_some(),
        };
        Self::ALL.into_iter().filter(needs).collect()
    }
}

/// One folder of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    path: PathBuf,
    /// The controllers that count here.
    controllers: Vec<Controller>,
    /// Version 2.
    unified: bool,
}

/// A container's group.
#[derive(Debug)]
pub struct Group {
    parts: Vec<Part>,
}

impl Group {
    /// Makes a group with these limits; nothing is in it yet. An old one of that name is used again.
    ///
    /// # Errors
    /// [`Error::Host`] when this host has no control group for one of the limits, or does not let us make one;
    /// [`Error::Setup`] when the kernel refuses a value. Nothing is left behind then.
    pub fn create(name: &str, resources: &LinuxResources) -> Result<Self> {
        Self::create_in(&Hierarchies::of_this_process()?, name, resources)
    }

    fn create_in(host: &Hierarchies, name: &str, resources: &LinuxResources) -> Result<Self> {
        let mut group = Self { parts: Vec::new() };
        let made = Controller::needed(resources).into_iter().try_for_each(|controller| {
            let (path, unified) = host.place(controller, name)?;
            match group.parts.iter_mut().find(|part| part.path == path) {
                Some(part) => part.controllers.push(controller),
                None => group.parts.push(Part { path, controllers: vec![controller], unified }),
            }
            Ok(())
        });
        let limited = made.and_then(|()| group.parts.iter().try_for_each(|part| part.limit(resources)));
        match limited {
            Ok(()) => Ok(group),
            Err(error) => {
                // The first failure is the one to report.
                group.remove().ok();
                Err(error)
            }
        }
    }

    /// Changes limits of a group that may be in use, or makes one. Limits that are not given stay.
    ///
    /// # Errors
    /// As [`Group::create`]; some of the limits may be changed then.
    pub fn update(name: &str, resources: &LinuxResources) -> Result<Self> {
        let host = Hierarchies::of_this_process()?;
        let mut group = Self { parts: Vec::new() };
        for controller in Controller::needed(resources) {
            let (path, unified) = host.place(controller, name)?;
            match group.parts.iter_mut().find(|part| part.path == path) {
                Some(part) => part.controllers.push(controller),
                None => group.parts.push(Part { path, controllers: vec![controller], unified }),
            }
        }
        // Whether memory, or memory and swap together, has to come first depends on what it was.
        let changed = group
            .parts
            .iter()
            .try_for_each(|part| part.limit(resources).or_else(|_| part.limit_backwards(resources)));
        if changed.is_err() {
            // One that is in use cannot be removed.
            group.parts.iter().for_each(|part| drop(fs::remove_dir(&part.path)));
        }
        changed.map(|()| group)
    }

    /// The group of this name, if there is one.
    pub fn find(name: &str) -> Option<Self> {
        let host = Hierarchies::of_this_process().ok()?;
        let parts: Vec<Part> = host.parts(name).into_iter().filter(|part| part.path.is_dir()).collect();
        (!parts.is_empty()).then_some(Self { parts })
    }

    /// Puts a process into the group; what it starts from then on is in it, too.
    ///
    /// # Errors
    /// When it is gone, or the kernel refuses.
    pub fn add(&self, pid: u32) -> Result<()> {
        self.parts.iter().try_for_each(|part| part.write("cgroup.procs", &pid.to_string()))
    }

    /// How many of its processes the kernel has killed because the group had no memory left.
    pub fn out_of_memory_kills(&self) -> u64 {
        let memory = self.parts.iter().find(|part| part.controllers.contains(&Controller::Memory));
        memory.map_or(0, |part| {
            let file = if part.unified { "memory.events" } else { "memory.oom_control" };
            files::field(&fs::read_to_string(part.path.join(file)).unwrap_or_default(), "oom_kill")
        })
    }

    /// Removes the group, waiting a moment for processes that are about to be gone.
    ///
    /// # Errors
    /// When something in it lives.
    pub fn remove(&self) -> Result<()> {
        self.parts.iter().try_for_each(|part| {
            oci::remove_tree(&part.path, 0)?;
            // Ours until the last one is gone.
            if let Some(parent) = part.path.parent().filter(|parent| parent.ends_with(PARENT)) {
                fs::remove_dir(parent).ok();
            }
            Ok(())
        })
    }
}

/// Removes every group of a name with this beginning that has had no process for a while, or that `is_dead` knows to be
/// nobody's, if it is empty; gives their names. With `look`
/// only the names.
pub fn remove_empty(prefix: &str, look: bool, is_dead: impl Fn(&str) -> bool) -> Vec<String> {
    let Ok(host) = Hierarchies::of_this_process() else { return Vec::new() };
    let mut names = Vec::new();
    for folder in host.parents() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let settled = entry.metadata().is_ok_and(|meta| {
                meta.is_dir()
                    && meta.modified().is_ok_and(|made| made.elapsed().unwrap_or_default() > SETTLED)
            });
            let Ok(name) = entry.file_name().into_string() else { continue };
            if !name.starts_with(prefix) {
                continue;
            }
            let is_empty =
                fs::read_to_string(entry.path().join("cgroup.procs")).is_ok_and(|all| all.is_empty());
            if (settled || is_dead(&name))
                && is_empty
                && (look || fs::remove_dir(entry.path()).is_ok())
                && !names.contains(&name)
            {
                names.push(name);
            }
        }
        if !look {
            fs::remove_dir(&folder).ok();
        }
    }
    names
}

impl Part {
    fn write(&self, file: &str, value: &str) -> Result<()> {
        let path = self.path.join(file);
        files::write(&path, value)
            .map_err(|source| Error::Setup { action: format!("write {value} to {}", path.display()), source })
    }

    fn limit(&self, resources: &LinuxResources) -> Result<()> {
        self.controllers
            .iter()
            .flat_map(|controller| files::values(*controller, self.unified, resources))
            .try_for_each(|value| self.write_value(&value))
    }

    fn limit_backwards(&self, resources: &LinuxResources) -> Result<()> {
        let values = self
            .controllers
            .iter()
            .flat_map(|controller| files::values(*controller, self.unified, resources));
        values.collect::<Vec<_>>().into_iter().rev().try_for_each(|value| self.write_value(&value))
    }

    fn write_value(&self, (file, value, optional): &(&'static str, String, bool)) -> Result<()> {
        match self.write(file, value) {
            // Swap is accounted for only where the kernel was told to.
            Err(_) if *optional && !self.path.join(file).exists() => Ok(()),
            other => other,
        }
    }
}

/// Whether version 2 is the only one here.
fn is_unified() -> bool {
    const CGROUP2: u64 = 0x6367_7270;
    rustix::fs::statfs("/sys/fs/cgroup").is_ok_and(|stat| stat.f_type.cast_unsigned() == CGROUP2)
}

#[cfg(test)]
mod tests;
