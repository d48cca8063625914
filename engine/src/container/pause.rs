//! `pause` and `unpause`: a container stops where it is, and goes on.
//!
//! A Wasm program is one process, which a signal stops whole. The processes of a native container could see that signal,
//! and go on by another; for them it takes a control group, which is made when one is first paused.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Container;

impl Engine {
    /// Stops a container where it is.
    ///
    /// # Errors
    /// When it does not run or is paused, in Docker's words; for native containers.
    pub fn pause(&self, container: &Container) -> Result<()> {
        self.set_paused(container, true)
    }

    /// Lets a paused container go on.
    ///
    /// # Errors
    /// When it is not paused.
    pub fn unpause(&self, container: &Container) -> Result<()> {
        self.set_paused(container, false)
    }

    #[cfg(target_os = "linux")]
    fn set_paused(&self, container: &Container, paused: bool) -> Result<()> {
        use crate::record::{State, Status};
        use dhow_runtime::{Kind, Signal};
        let record = &container.record;
        let gone = || Error::NotRunning { id: record.id.clone() };
        // The monitor cannot write down an end meanwhile, nor can somebody else pause or unpause.
        let _edit = container.edit()?.ok_or_else(gone)?;
        let state = container.state()?;
        match (state.status, paused) {
            (Status::Running, true) | (Status::Paused, false) => {}
            (Status::Paused, true) => {
                return Err(Error::Invalid(format!("Container {} is already paused", record.id)));
            }
            (Status::Restarting, true) => return Err(Error::Restarting { id: record.id.clone() }),
            (_, true) => return Err(gone()),
            (_, false) => return Err(Error::Invalid(format!("Container {} is not paused", record.id))),
        }
        let Some(process) = container.process()? else { return Err(gone()) };
        if record.kind == Kind::Native {
            if paused {
                crate::resources::freeze(self, container)?;
            } else {
                crate::resources::thaw(self, container)?;
            }
        } else {
            let signal = if paused { Signal::STOP } else { Signal::CONT };
            if !process.send(signal)? || (paused && !crate::survivor::stops(state.pid)?) {
                return Err(gone());
            }
        }
        let status = if paused { Status::Paused } else { Status::Running };
        container.set_state(&State { status, ..state })?;
        self.tell_of(record, if paused { "pause" } else { "unpause" }, &[]);
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn set_paused(&self, _container: &Container, _paused: bool) -> Result<()> {
        Err(Error::elsewhere("pausing a container"))
    }
}
