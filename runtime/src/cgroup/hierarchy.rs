//! Which hierarchies this host has, and where in them groups can be made.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::{Controller, PARENT, Part, files};
use crate::error::{Error, Result};

/// What is mounted, and where this process is.
#[derive(Debug, Default)]
pub(super) struct Hierarchies {
    /// Version 1: mount point, and the controllers there.
    first: Vec<(PathBuf, Vec<String>)>,
    /// Version 2: mount point, and this process's own group.
    second: Option<(PathBuf, PathBuf)>,
}

impl Hierarchies {
    pub(super) fn of_this_process() -> Result<Self> {
        let read =
            |path: &str| fs::read_to_string(path).map_err(|source| Error::Io { path: path.into(), source });
        Ok(Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// `proc_pid_mountinfo(5)` and `cgroups(7)`.
    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
        let mut host = Self::default();
        for line in mountinfo.lines() {
            let Some((mount, system)) = line.split_once(" - ") else { continue };
            let Some(point) = mount.split(' ').nth(4).map(PathBuf::from) else { continue };
            let mut system = system.split(' ');
            match system.next() {
                Some("cgroup2") => {
                    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/");
                    // Beyond the root of a namespace there is nothing of ours.
                    let path = if path.contains("..") { "/" } else { path };
                    let own = point.join(path.trim_start_matches('/'));
                    host.second.get_or_insert((point, own));
                }
                Some("cgroup") => {
                    let options = system.nth(1).unwrap_or_default();
                    let names = options.split(',').map(str::to_owned);
                    host.first.push((point, names.collect()));
                }
                _ => {}
            }
        }
        host
    }

    /// Makes the folder of a group for this controller: the path, and whether it is version 2.
    pub(super) fn place(&self, controller: Controller, name: &str) -> Result<(PathBuf, bool)> {
        let mut refused = None;
        if let Some(point) = self.first_with(controller) {
            match make_first(point, controller, name) {
                Ok(path) => return Ok((path, false)),
                Err(error) => refused = Some(error),
            }
        }
        for base in self.bases() {
            match make_second(base, controller, name) {
                Ok(Some(path)) => return Ok((path, true)),
                Ok(None) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        let controller = controller.name();
        Err(Error::Host {
            what: match refused {
                Some(error) => format!("cannot make a control group for {controller}: {error}"),
                None => format!("this host has no control group for {controller}"),
            },
            hint: "limits of the kernel need root, or a part of the control groups that is this user's own: `systemd-run --user --scope -p Delegate=yes dhow ...`"
                .to_owned(),
        })
    }

    /// Makes the folder of a group whose processes can be stopped, or finds it.
    pub(super) fn to_freeze(&self, name: &str) -> Result<Part> {
        let freezer = |names: &[String]| names.iter().any(|name| name == "freezer");
        let first =
            self.first.iter().find(|(_, names)| freezer(names)).map(|(point, _)| (point.as_path(), false));
        let second = || self.bases().into_iter().map(|base| (base, true));
        let places: Vec<(&Path, bool)> = first.into_iter().chain(second()).collect();
        // Where it is already, its processes are.
        let there = places.iter().find(|(base, _)| base.join(PARENT).join(name).is_dir());
        for (base, unified) in there.into_iter().chain(&places) {
            if let Ok(path) = make(&base.join(PARENT), name) {
                return Ok(Part { path, controllers: Vec::new(), unified: *unified });
            }
        }
        Err(Error::Host {
            what: "this host has no control group that can be stopped".to_owned(),
            hint: "pausing needs root, or a part of the control groups that is this user's own: `systemd-run --user --scope -p Delegate=yes dhow ...`"
                .to_owned(),
        })
    }

    fn first_with(&self, controller: Controller) -> Option<&PathBuf> {
        let has = |names: &[String]| names.iter().any(|name| name == controller.name());
        self.first.iter().find(|(_, names)| has(names)).map(|(point, _)| point)
    }

    /// Groups of version 2 that may be ours to divide: the topmost, then those above this process from below.
    fn bases(&self) -> Vec<&Path> {
        let Some((point, own)) = &self.second else { return Vec::new() };
        let above = own.ancestors().skip(1).take_while(|path| path.starts_with(point) && path != point);
        std::iter::once(point.as_path()).chain(above).collect()
    }

    /// Our folders, wherever they may be.
    pub(super) fn parents(&self) -> Vec<PathBuf> {
        let first = self.first.iter().map(|(point, _)| point.as_path());
        let all = first.chain(self.bases()).map(|base| base.join(PARENT));
        all.filter(|folder| folder.is_dir()).collect()
    }

    /// Where a group of this name may be.
    pub(super) fn parts(&self, name: &str) -> Vec<Part> {
        let first = self.first.iter().map(|(point, names)| Part {
            path: point.join(PARENT).join(name),
            controllers: Controller::ALL
                .into_iter()
                .filter(|controller| names.iter().any(|name| name == controller.name()))
                .collect(),
            unified: false,
        });
        let second = self.bases().into_iter().map(|base| Part {
            path: base.join(PARENT).join(name),
            controllers: Controller::ALL.to_vec(),
            unified: true,
        });
        first.chain(second).collect()
    }
}

/// Makes a folder and the one above, which another process may remove in this moment.
fn make(parent: &Path, name: &str) -> std::io::Result<PathBuf> {
    let path = parent.join(name);
    let mut attempts = 8;
    loop {
        match fs::create_dir(&path) {
            Ok(()) => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return Ok(path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && attempts > 0 => {
                attempts -= 1;
                fs::create_dir(parent).or_else(|error| if parent.is_dir() { Ok(()) } else { Err(error) })?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn make_first(point: &Path, controller: Controller, name: &str) -> std::io::Result<PathBuf> {
    let parent = point.join(PARENT);
    let path = make(&parent, name)?;
    if controller == Controller::Cpuset {
        // A new group has no processor and no memory node until it is told.
        for folder in [&parent, &path] {
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let above = fs::read_to_string(folder.join("..").join(file))?;
                if fs::read_to_string(folder.join(file))?.trim().is_empty() {
                    files::write(&folder.join(file), above.trim())?;
                }
            }
        }
    }
    Ok(path)
}

/// `None` where the controller cannot be had.
fn make_second(base: &Path, controller: Controller, name: &str) -> std::io::Result<Option<PathBuf>> {
    let offers = |folder: &Path, file: &str| {
        let names = fs::read_to_string(folder.join(file)).unwrap_or_default();
        names.split_whitespace().any(|name| name == controller.name())
    };
    if !offers(base, "cgroup.controllers") {
        return Ok(None);
    }
    let enable = |folder: &Path| -> std::io::Result<()> {
        if offers(folder, "cgroup.subtree_control") {
            return Ok(());
        }
        files::write(&folder.join("cgroup.subtree_control"), &format!("+{}", controller.name()))
    };
    // Refused where processes are in the group itself.
    enable(base)?;
    let parent = base.join(PARENT);
    let path = make(&parent, name)?;
    enable(&parent)?;
    Ok(Some(path))
}
