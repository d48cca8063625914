//! Small files beside a container's record that others than its monitor write, or that only few containers have.
//!
//! ```text
//! <container>/stopped       somebody has stopped it: `user`, or `host` where the system only goes down; made on a full
//!                           disk it is a link that leads to the word
//! <container>/frozen        it has been paused since it was started, and has a control group for that
//! <container>/health.json   what its health check has found, while it runs and of the last run
//! ```

use std::io::ErrorKind;

use fs_err as fs;

use crate::config::Health;
use crate::error::Result;
use crate::record::{self, Container, State, Status};

/// The file that keeps a restart policy from starting a container again.
pub(crate) const STOPPED: &str = "stopped";

/// The file that tells of a control group to be removed.
pub(crate) const FROZEN: &str = "frozen";

/// The file with what a health check has found.
pub(crate) const HEALTH: &str = "health.json";

/// Who has stopped a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StoppedBy {
    /// Somebody who wants it to be so.
    User,
    /// The system goes down, or is about to.
    Host,
}

impl Container {
    /// Notes that it is not to be started again by its monitor, before it is told to end.
    #[cfg(target_os = "linux")]
    pub(crate) fn mark_stopped(&self, by: StoppedBy) -> Result<()> {
        let word = match by {
            StoppedBy::User => "user",
            StoppedBy::Host => "host",
        };
        let mark = self.folder().join(STOPPED);
        if fs::read_link(&mark).is_ok() {
            // Not to be written through.
            fs::remove_file(&mark)?;
        }
        match fs::write(&mark, word) {
            // It is gone.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            // Nobody is kept from ending what fills the disk: where a link leads needs no room of its own.
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                fs::remove_file(&mark).ok();
                Ok(std::os::unix::fs::symlink(word, &mark)?)
            }
            other => Ok(other?),
        }
    }

    /// It is about to be paused for the first time since it was started.
    #[cfg(target_os = "linux")]
    pub(crate) fn mark_frozen(&self) -> Result<()> {
        Ok(fs::write(self.folder().join(FROZEN), "")?)
    }

    /// Whether it was paused since it was started; the next look will not know.
    #[cfg(target_os = "linux")]
    pub(crate) fn unmark_frozen(&self) -> bool {
        rustix::fs::unlink(self.folder().join(FROZEN)).is_ok()
    }

    /// Somebody starts it.
    pub(crate) fn unmark_stopped(&self) -> Result<()> {
        match fs::remove_file(self.folder().join(STOPPED)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => Ok(other?),
        }
    }

    /// Who has stopped it, if somebody has.
    pub(crate) fn stopped_by(&self) -> Option<StoppedBy> {
        let mark = self.folder().join(STOPPED);
        let word = match fs::read_link(&mark) {
            Ok(link) => link.into_os_string().into_encoded_bytes(),
            Err(_) => fs::read(&mark).ok()?,
        };
        Some(if word == b"host" { StoppedBy::Host } else { StoppedBy::User })
    }

    /// What its health check has found, if it has one and was started.
    pub fn health(&self) -> Option<Health> {
        self.record.config.healthcheck.as_ref().filter(|config| config.is_active())?;
        record::read(&self.folder().join(HEALTH)).ok()
    }

    /// `none`, `starting`, `healthy` or `unhealthy`.
    pub fn health_status(&self, state: &State) -> String {
        if state.status == Status::Created {
            return "none".to_owned();
        }
        self.health().map_or_else(|| "none".to_owned(), |health| health.status)
    }

    /// Writes down what its health check has found. It is no promise, so the disk is not waited for.
    #[cfg(target_os = "linux")]
    pub(crate) fn set_health(&self, health: &Health) -> Result<()> {
        record::write(&self.folder().join(HEALTH), health, false)
    }
}
