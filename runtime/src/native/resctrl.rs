//! `linux.intelRdt`: a container's share of caches and memory bandwidth, by the kernel's resctrl file system.
//!
//! ```text
//! <resctrl>/<closID>/schemata                 closID is the container's id where none is given, `/` the default class
//! <resctrl>/<closID>/tasks
//! <resctrl>/<closID>/mon_groups/<id>/tasks    with enableMonitoring
//! ```
//! A host without it, most are, refuses such containers.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;
use oci_spec::runtime::{Linux, LinuxIntelRdt};

use crate::error::{Error, Result};

/// What is to be written, checked.
#[derive(Debug)]
pub(super) struct Share {
    class: PathBuf,
    /// The container's own class may be made.
    may_make: bool,
    schemata: Vec<String>,
    monitor: Option<PathBuf>,
}

fn invalid<T>(reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field: "linux.intelRdt", reason: reason.into() })
}

/// What a container wants of the host's file system.
pub(super) fn plan(linux: &Linux, id: &str) -> Result<Option<Share>> {
    let Some(wanted) = linux.intel_rdt() else { return Ok(None) };
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let point = mounts.lines().find_map(|line| {
        let (at, system) = line.split_once(" - ")?;
        system.starts_with("resctrl ").then(|| at.split(' ').nth(4).map(PathBuf::from)).flatten()
    });
    match point {
        Some(point) => share(&point, wanted, id).map(Some),
        None => invalid("this host has no resctrl file system"),
    }
}

fn share(point: &Path, wanted: &LinuxIntelRdt, id: &str) -> Result<Share> {
    let name = wanted.clos_id().as_deref().unwrap_or_default();
    let class = match name {
        "" => point.join(id),
        "/" => point.to_path_buf(),
        "." | ".." | "info" | "mon_groups" | "mon_data" => {
            return invalid(format!("closID {name} is no name"));
        }
        name if name.contains(['/', '\n']) => return invalid(format!("closID {name} is no name")),
        name => point.join(name),
    };
    let mut schemata = Vec::new();
    for (line, start) in [(wanted.l3_cache_schema(), "L3"), (wanted.mem_bw_schema(), "MB:")] {
        if let Some(line) = line {
            if !line.starts_with(start) || line.contains('\n') {
                return invalid(format!("\"{line}\" is no line that begins with {start}"));
            }
            schemata.push(line.clone());
        }
    }
    for line in wanted.schemata().iter().flatten() {
        if line.contains('\n') {
            return invalid("a line of schemata has a line break in it");
        }
        schemata.push(line.clone());
    }
    let may_make = name.is_empty() || !schemata.is_empty();
    if !may_make && !class.is_dir() {
        return invalid(format!("there is no class {name}, and no schemata to make one"));
    }
    let monitor = (*wanted.enable_monitoring() == Some(true)).then(|| class.join("mon_groups").join(id));
    Ok(Share { class, may_make, schemata, monitor })
}

impl Share {
    /// Makes the classes and puts the process into them. What was made before a failure goes.
    pub(super) fn apply(&self, pid: u32) -> Result<()> {
        let mut made = Vec::new();
        let applied = self.write(pid, &mut made);
        if applied.is_err() {
            for folder in made.iter().rev() {
                fs::remove_dir(folder).ok();
            }
        }
        applied.map_err(|source| Error::Setup {
            action: format!("use the class {}", self.class.display()),
            source,
        })
    }

    fn write(&self, pid: u32, made: &mut Vec<PathBuf>) -> io::Result<()> {
        if self.may_make && !self.class.is_dir() {
            fs::create_dir(&self.class)?;
            made.push(self.class.clone());
        }
        let own = made.is_empty().then(|| fs::read_to_string(self.class.join("schemata"))).transpose()?;
        for line in &self.schemata {
            // A class of somebody else's must be what is wanted already.
            if let Some(own) = &own
                && !own.lines().any(|other| other.trim() == line.trim())
            {
                return Err(io::Error::other(format!("the class is there and has no line {line}")));
            }
            if own.is_none() {
                crate::cgroup::files::write(&self.class.join("schemata"), &format!("{line}\n"))?;
            }
        }
        crate::cgroup::files::write(&self.class.join("tasks"), &pid.to_string())?;
        if let Some(monitor) = &self.monitor {
            fs::create_dir(monitor)?;
            made.push(monitor.clone());
            crate::cgroup::files::write(&monitor.join("tasks"), &pid.to_string())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIntelRdtBuilder;

    #[test]
    fn classes_are_checked() {
        let folder = tempfile::tempdir().expect("a folder");
        let point = folder.path();
        fs::create_dir(point.join("there")).expect("class");
        fs::write(point.join("there/schemata"), "  L3:0=f\n  MB:0=100\n").expect("file");
        fs::write(point.join("there/tasks"), "").expect("file");
        let wanted = |id: &str, line: &str| {
            let builder = LinuxIntelRdtBuilder::default().clos_id(id);
            let builder = if line.is_empty() { builder } else { builder.l3_cache_schema(line) };
            share(point, &builder.build().expect("valid"), "box")
        };
        for (id, line) in [
            ("a/b", ""),
            ("..", ""),
            ("info", ""),
            ("missing", ""),
            ("there", "X:1"),
            ("there", "L3:0=f\nMB:0=1"),
        ] {
            assert!(wanted(id, line).is_err(), "{id} {line}");
        }
        assert!(wanted("there", "").expect("valid").apply(7).is_ok());
        assert!(wanted("there", "L3:0=f").expect("valid").apply(8).is_ok());
        assert_eq!(fs::read_to_string(point.join("there/tasks")).expect("file"), "8");
        assert!(wanted("there", "L3:0=1").expect("valid").apply(9).is_err(), "another one");
        assert_eq!(wanted("/", "").expect("valid").class, point);
        assert_eq!(wanted("", "").expect("valid").class, point.join("box"));
        let mut linux = Linux::default();
        assert!(plan(&linux, "box").is_ok_and(|none| none.is_none()));
        linux.set_intel_rdt(Some(LinuxIntelRdt::default()));
        if !fs::read_to_string("/proc/self/mountinfo").is_ok_and(|mounts| mounts.contains(" - resctrl ")) {
            assert!(plan(&linux, "box").is_err());
        }
    }
}
