//! `rm`: ends a container if asked to, and removes everything that is its own.

use std::io::ErrorKind;
use std::path::Path;

use fs_err as fs;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names;
use crate::record::{Container, Status};

impl Engine {
    /// Removes a container; a running one only with `force`, by killing it.
    ///
    /// # Errors
    /// [`Error::Running`] without `force`, or when something of it cannot be removed.
    pub fn remove(&self, container: &Container, force: bool) -> Result<()> {
        if container.is_supervised()? {
            if !force {
                return Err(Error::Running(container.record.name.clone()));
            }
            self.kill_now(container)?;
        }
        match container.claim()? {
            Some(_claim) => {
                container.end_survivor()?;
                self.erase(container)
            }
            // Its own monitor has removed it meanwhile (`--rm`).
            None => Ok(()),
        }
    }

    /// Kills the first process, for certain the right one: the claim is checked again once the process is held.
    fn kill_now(&self, container: &Container) -> Result<()> {
        let state = container.state()?;
        if state.status != Status::Running {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        {
            use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
            let Some(pid) = i32::try_from(state.pid).ok().and_then(Pid::from_raw) else { return Ok(()) };
            let process = match pidfd_open(pid, PidfdFlags::empty()) {
                Ok(process) => process,
                Err(rustix::io::Errno::SRCH) => return Ok(()),
                Err(error) => return Err(std::io::Error::from(error).into()),
            };
            if container.is_supervised()? {
                match pidfd_send_signal(&process, Signal::KILL) {
                    Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                    Err(error) => return Err(std::io::Error::from(error).into()),
                }
            }
            Ok(())
        }
        #[cfg(not(target_os = "linux"))]
        Err(Error::NotYet {
            what: "killing a container from another process on this system".to_owned(),
            hint: "end it where it was started, with Ctrl-C".to_owned(),
        })
    }

    /// Removes a claimed container: first what makes it visible, then the rest, so that a crash leaves something that
    /// belongs to nobody.
    pub(crate) fn erase(&self, container: &Container) -> Result<()> {
        let record = &container.record;
        match fs::remove_file(container.folder().join("config.json")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        for place in self.places() {
            names::release(&place.names, &record.name, &record.id)?;
        }
        self.discard(container.folder(), &record.id)?;
        if record.image.is_some() {
            self.store().release(&record.id)?;
        }
        Ok(())
    }

    /// Removes a container's folder and what it wrote elsewhere.
    pub(crate) fn discard(&self, folder: &Path, id: &str) -> Result<()> {
        if !folder.starts_with(self.root()) {
            remove_folder(&self.scratch_folder().join(id))?;
        }
        remove_folder(folder)
    }
}

/// Removes a folder of ours. One of a container that wrote nothing, the most frequent kind, is taken apart by the names
/// that are known to be in it, without listing anything.
fn remove_folder(folder: &Path) -> Result<()> {
    let is_gone = || match fs::remove_dir(folder) {
        Ok(()) => true,
        Err(error) => error.kind() == ErrorKind::NotFound,
    };
    if is_gone() {
        return Ok(());
    }
    // What is not there or not empty stays for the thorough way below.
    for file in ["state.json", "lock", "hosts", "hostname", "resolv.conf"] {
        fs::remove_file(folder.join(file)).ok();
    }
    if is_gone() {
        return Ok(());
    }
    // The kernel's overlay leaves a directory in `work` that only root may enter.
    #[cfg(target_os = "linux")]
    if !rustix::process::geteuid().is_root() {
        open_for_removal(&folder.join("work/work"));
    }
    for part in ["upper", "work/work", "work", "merged"] {
        fs::remove_dir(folder.join(part)).ok();
    }
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        #[cfg(target_os = "linux")]
        Err(error) if error.kind() == ErrorKind::PermissionDenied => remove_as_namespace_root(folder, error),
        other => Ok(other?),
    }
}

#[cfg(target_os = "linux")]
fn open_for_removal(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    // Missing when the container never ran natively; anything else shows when it is removed.
    fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700)).ok();
}

/// Without root, what a container's other users wrote belongs to ids that only its user namespace may remove.
#[cfg(target_os = "linux")]
fn remove_as_namespace_root(folder: &Path, refused: std::io::Error) -> Result<()> {
    use dhow_runtime::native::idmap::{default_maps, in_user_namespace};
    if rustix::process::geteuid().is_root() {
        return Err(refused.into());
    }
    let removed = in_user_namespace(default_maps().maps(), || u8::from(fs::remove_dir_all(folder).is_err()))?;
    if removed == dhow_runtime::ExitStatus::Code(0) { Ok(()) } else { Err(refused.into()) }
}
