//! `wait`: until a container has ended.

use std::time::{Duration, Instant};

use super::start::A_BLINK;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Container, Status};

/// How long the end of a container whose supervisor has died may take to be written down by somebody else.
const A_WHILE: Duration = Duration::from_millis(500);

impl Engine {
    /// Waits until a container does not run, and gives its exit code: 0 for one that never ran. Of one that is removed
    /// when it ends, too.
    ///
    /// # Errors
    /// When its state cannot be read, or it was removed before.
    pub fn wait(&self, container: &Container) -> Result<u8> {
        let mut state = match container.state() {
            Ok(state) => state,
            Err(_) if !container.folder().exists() => {
                return Err(Error::NoSuchContainer(container.record.name.clone()));
            }
            Err(error) => return Err(error),
        };
        let runs = state.status.is_alive() || container.is_supervised()?;
        #[cfg(target_os = "linux")]
        if runs && !container.record.host_config.restart_policy.is_none() {
            return self.wait_for_run(container);
        }
        if runs {
            if let Some(code) = container.await_end()? {
                return Ok(code);
            }
            state = self.settle(container)?;
        }
        Ok(state.exit_code)
    }

    /// Of one that may be started again at once: until the run that it is in has ended, or the next one.
    #[cfg(target_os = "linux")]
    fn wait_for_run(&self, container: &Container) -> Result<u8> {
        loop {
            if let Some(process) = container.process()? {
                process.ends(None)?;
                self.settle_after(container, &process)?;
                return Ok(container.state()?.exit_code);
            }
            if !container.is_supervised()? {
                return Ok(self.settle(container)?.exit_code);
            }
            std::thread::sleep(A_BLINK);
        }
    }

    /// Waits until the end of this process, which is over, is written down. The container may run again by then.
    #[cfg(target_os = "linux")]
    pub(super) fn settle_after(&self, container: &Container, ended: &crate::survivor::Held) -> Result<()> {
        let since = Instant::now();
        loop {
            let state = match container.state() {
                Err(_) if !container.folder().exists() => return Ok(()),
                other => other?,
            };
            let is_same = state.status.is_alive() && ended.is(state.pid, state.pid_started);
            // Its monitor writes the end down; or, of one that was its own monitor, whoever is attached to it.
            if !is_same && (state.status != Status::Dead || since.elapsed() > A_WHILE) {
                return Ok(());
            }
            std::thread::sleep(A_BLINK);
        }
    }

    /// The state of a container that has ended just now, once it is written down.
    pub(super) fn settle(&self, container: &Container) -> Result<crate::State> {
        let since = Instant::now();
        loop {
            container.await_end()?;
            let state = container.state()?;
            if state.status != Status::Dead || since.elapsed() > A_WHILE || !container.folder().exists() {
                return Ok(state);
            }
            std::thread::sleep(A_BLINK);
        }
    }
}
