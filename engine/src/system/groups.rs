//! Control groups that nobody is in any more: of containers whose processes were all killed, their monitors among them.

use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Problem;
use crate::engine::Engine;
use crate::error::Result;

/// Where hierarchies are.
const ALL: &str = "/sys/fs/cgroup";

/// Deeper than any group that a user names as a parent.
const DEEPEST: usize = 12;

impl Engine {
    /// Those in the usual place, and those below parents that were named (`--cgroup-parent`).
    pub(super) fn check_groups(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let prefix = self.group_name("")?;
        let is_dead = |name: &str| {
            let id = name.strip_prefix(&prefix).unwrap_or_default();
            id.len() == 64 && matches!(self.is_alive(id), Ok(false))
        };
        // Once for all hierarchies.
        let mut told = dhow_runtime::cgroup::remove_empty(&prefix, !repair, is_dead);
        for name in &told {
            let what = "control group without a process".to_owned();
            problems.push(Problem::new(format!("cgroup dhow/{name}"), what, repair));
        }
        let mut elsewhere = Vec::new();
        find(Path::new(ALL), DEEPEST, &is_dead, &mut elsewhere);
        for folder in elsewhere {
            let is_empty = fs::read(folder.join("cgroup.procs")).is_ok_and(|all| all.is_empty());
            if !is_empty || (repair && fs::remove_dir(&folder).is_err()) {
                continue;
            }
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !told.contains(&name) {
                let what = "control group without a process".to_owned();
                problems.push(Problem::new(format!("cgroup {}", folder.display()), what, repair));
                told.push(name);
            }
        }
        Ok(())
    }
}

/// Folders whose names are wanted. What cannot be read has none.
fn find(folder: &Path, depth: usize, wanted: &impl Fn(&str) -> bool, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_str().is_some_and(wanted) {
            found.push(entry.path());
        } else if depth > 0 {
            find(&entry.path(), depth - 1, wanted, found);
        }
    }
}
