//! The hierarchies of this host, as a container's group needs them: each one's mount point and this process's place in it.

use std::io;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::files;
use crate::error::{Error, Result};
use crate::small_file;

/// What is mounted, and where this process is.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(super) first: Vec<Hierarchy>,
    /// Version 2: mount point, and this process's own group.
    pub(super) second: Option<(PathBuf, PathBuf)>,
}

/// One of version 1.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    pub(super) point: PathBuf,
    /// Controllers, or `name=...`.
    pub(super) names: Vec<String>,
    /// This process's own group.
    pub(super) own: PathBuf,
}

impl Host {
    pub(crate) fn of_this_process() -> Result<Self> {
        let read =
            |path: &str| small_file::text(path).map_err(|source| Error::Io { path: path.into(), source });
        Ok(Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// Whether all controllers are in one hierarchy, that of version 2.
    pub(crate) fn is_unified(&self) -> bool {
        self.first.is_empty()
    }

    /// This process's own groups of version 1.
    pub(crate) fn own_first(&self) -> Vec<(String, PathBuf)> {
        let place = |one: &Hierarchy| one.point.join(one.own.strip_prefix("/").unwrap_or(&one.own));
        self.first.iter().map(|one| (one.names.join(","), place(one))).collect()
    }

    /// `proc_pid_mountinfo(5)` and `cgroups(7)`. Only hierarchies this process is in count, each once.
    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
        let mut host = Self::default();
        let groups: Vec<(Vec<&str>, &str)> = own
            .lines()
            .filter_map(|line| {
                let (names, path) = line.split_once(':')?.1.split_once(':')?;
                Some((names.split(',').filter(|name| !name.is_empty()).collect(), path))
            })
            .collect();
        for line in mountinfo.lines() {
            let Some((at, system)) = line.split_once(" - ") else { continue };
            let mut at = at.split(' ');
            let (Some(root), Some(point)) = (at.nth(3), at.next()) else { continue };
            let mut system = system.split(' ');
            let (Some(kind), Some(options)) = (system.next(), system.nth(1)) else { continue };
            let options: Vec<&str> = options.split(',').collect();
            let found = groups.iter().find(|(names, _)| match kind {
                "cgroup2" => names.is_empty(),
                "cgroup" => !names.is_empty() && names.iter().all(|name| options.contains(name)),
                _ => false,
            });
            let Some((names, path)) = found else { continue };
            let own = inside(root, path);
            if names.is_empty() {
                host.second.get_or_insert((point.into(), own));
            } else {
                let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
                if host.first.iter().all(|other| other.names != names) {
                    host.first.push(Hierarchy { point: point.into(), names, own });
                }
            }
        }
        host
    }

    /// Makes a folder of version 1 with all above it.
    pub(super) fn make_first(&self, hierarchy: &Hierarchy, path: &Path) -> Result<()> {
        let is_cpuset = hierarchy.names.iter().any(|name| name == "cpuset");
        for folder in steps(&hierarchy.point, path) {
            let is_new = make(&folder)?;
            if is_cpuset {
                inherit_cpuset(&folder, is_new).map_err(|source| Error::Setup {
                    action: format!("give processors to {}", folder.display()),
                    source,
                })?;
            }
        }
        Ok(())
    }

    /// The same of version 2. What the groups above pass on to it, if it `wants` controllers, is all that there are.
    pub(super) fn make_second(&self, point: &Path, path: &Path, wants: bool) -> Result<()> {
        if wants {
            pass_on(point);
        }
        let steps = steps(point, path);
        let last = steps.len().saturating_sub(1);
        for (at, folder) in steps.iter().enumerate() {
            make(folder)?;
            let kind = small_file::value(folder.join("cgroup.type")).unwrap_or_default();
            if kind.trim() == "domain invalid" {
                // Below a threaded group only threaded ones can be used.
                let file = folder.join("cgroup.type");
                files::write(&file, "threaded").map_err(|source| Error::Setup {
                    action: format!("write threaded to {}", file.display()),
                    source,
                })?;
            }
            if wants && at < last {
                pass_on(folder);
            }
        }
        Ok(())
    }
}

/// A process's group as a path below the mount point: what is mounted may be a part of the hierarchy only.
fn inside(root: &str, path: &str) -> PathBuf {
    if path.split('/').any(|part| part == "..") {
        // Beyond the root of a namespace there is nothing of ours.
        return "/".into();
    }
    match Path::new(path).strip_prefix(root) {
        Ok(rest) => Path::new("/").join(rest),
        Err(_) => "/".into(),
    }
}

/// The folders from below the mount point down to `path`.
fn steps(point: &Path, path: &Path) -> Vec<PathBuf> {
    let mut steps: Vec<PathBuf> =
        path.ancestors().take_while(|above| *above != point).map(Path::to_path_buf).collect();
    steps.reverse();
    steps
}

/// Makes a group; `false` when it was there.
fn make(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => {
            Err(Error::Setup { action: format!("make the control group {}", path.display()), source: error })
        }
    }
}

/// A new group has no processor and no memory node until it is told.
fn inherit_cpuset(folder: &Path, is_new: bool) -> io::Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = folder.join(file);
        if is_new || small_file::value(&own)?.trim().is_empty() {
            let above = small_file::value(folder.join("..").join(file))?;
            files::write(&own, above.trim())?;
        }
    }
    Ok(())
}

/// Lets the groups in this one have its controllers. What is refused is noticed where a limit needs it: a group with
/// processes of its own cannot pass some on.
fn pass_on(folder: &Path) {
    let read = |file: &str| small_file::value(folder.join(file)).unwrap_or_default();
    let (offered, passed) = (read("cgroup.controllers"), read("cgroup.subtree_control"));
    let missing: Vec<String> = offered
        .split_whitespace()
        .filter(|name| passed.split_whitespace().all(|other| other != *name))
        .map(|name| format!("+{name}"))
        .collect();
    let control = folder.join("cgroup.subtree_control");
    if missing.is_empty() || files::write(&control, &missing.join(" ")).is_ok() {
        return;
    }
    for one in missing {
        files::write(&control, &one).ok();
    }
}
