//! Volumes in memory (`type=tmpfs`): mounted at their folder by the first container that is started with one, gone with the
//! last. Also the memory that containers share as `/dev/shm`, which has a size by the same means.
//!
//! A start holds its container's lock before it looks whether there is a mount, and an end looks who else holds one before
//! it unmounts, both under the volume's own lock: so nobody's files go while it runs. A container that has taken the
//! mount into its own namespace keeps it in any case.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use dhow_runtime::native::view;
use fs_err as fs;

use super::{DATA, RECORD};
use crate::engine::Engine;
use crate::error::Result;
use crate::record::Record;
use crate::system::Problem;

/// Whether this process may mount, so that containers share the files of volumes in memory.
pub(crate) fn shares_memory() -> bool {
    !crate::spec::needs_user_namespace()
}

/// Whether something is mounted at a folder.
pub(crate) fn is_mounted(folder: &Path) -> Result<bool> {
    let above = folder.parent().unwrap_or(folder);
    Ok(fs::metadata(folder)?.dev() != fs::metadata(above)?.dev())
}

/// Unmounts what is in memory at a folder, if something is. Who has it in a namespace of its own keeps it.
pub(crate) fn unmount_memory(folder: &Path) {
    if is_mounted(folder).unwrap_or(false) {
        // One that stays is found by `system check`.
        view::unmount_view(folder, true).ok();
    }
}

impl Engine {
    /// Mounts a volume in memory, unless it is mounted already.
    pub(crate) fn make_volume_memory(&self, name: &str, options: &str) -> Result<()> {
        let folder = self.volume_folder(name);
        let lock = fs::File::open(folder.join(RECORD))?;
        lock.file().lock()?;
        let data = folder.join(DATA);
        if !is_mounted(&data)? {
            view::mount_memory(&data, &format!("nodev,nosuid,{options}"))?;
        }
        Ok(())
    }

    /// A container ends: what it alone has in memory goes.
    pub(crate) fn let_memory_go(&self, record: &Record) {
        if record.host_config.ipc_mode == "shareable"
            && let Ok(folder) = self.shm_folder(&record.id)
        {
            unmount_memory(&folder);
        }
        for point in record.mounts.iter().filter(|point| point.memory.is_some()) {
            // What cannot be found out stays, for the next one or for `system check`.
            self.unmount_volume(&point.name, &record.id).ok();
        }
    }

    /// Unmounts a volume in memory, unless a container other than `except` runs with it.
    fn unmount_volume(&self, name: &str, except: &str) -> Result<()> {
        let folder = self.volume_folder(name);
        let lock = fs::File::open(folder.join(RECORD))?;
        lock.file().lock()?;
        if is_mounted(&folder.join(DATA))? && !self.runs_with(name, except)? {
            unmount_memory(&folder.join(DATA));
        }
        Ok(())
    }

    fn runs_with(&self, name: &str, except: &str) -> Result<bool> {
        for container in self.containers()? {
            let has =
                container.record.mounts.iter().any(|point| point.memory.is_some() && point.name == name);
            if has && container.record.id != except && container.is_supervised()? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Volumes in memory that stay mounted though nobody runs with them, as after a kill of a monitor.
    pub(super) fn check_memory(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        for volume in self.volumes()? {
            let data = self.volume_folder(&volume.name).join(DATA);
            let is_left = matches!(volume.place(), Ok(super::Place::Memory(_)))
                && is_mounted(&data).unwrap_or(false)
                && !self.runs_with(&volume.name, "")?;
            if !is_left {
                continue;
            }
            if repair {
                self.unmount_volume(&volume.name, "")?;
            }
            let what = "memory of a volume that no running container has".to_owned();
            problems.push(Problem::new(format!("volumes/{}", volume.name), what, repair));
        }
        Ok(())
    }
}
