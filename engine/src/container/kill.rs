//! `kill`: sends a signal to a container's first process.

use dhow_runtime::Signal;

use crate::engine::Engine;
use crate::error::{Error, Result};
#[cfg(target_os = "linux")]
use crate::marks::StoppedBy;
use crate::record::Container;
#[cfg(target_os = "linux")]
use crate::record::Status;

impl Engine {
    /// Sends a signal. One that ends a paused container lets it go on for that.
    ///
    /// # Errors
    /// [`Error::Invalid`], in Docker's words, when it does not run.
    pub fn kill(&self, container: &Container, signal: Signal) -> Result<()> {
        let record = &container.record;
        #[cfg(target_os = "linux")]
        {
            let own = record.config.stop_signal.as_ref().and_then(|text| text.parse().ok());
            // Who sends one of these wants it to be over.
            let ends =
                [Signal::KILL, Signal::TERM, Signal::INT, own.unwrap_or(Signal::TERM)].contains(&signal);
            let lives = container.state()?.status;
            if lives.is_running() && ends && !record.host_config.auto_remove {
                container.stays_stopped(StoppedBy::User)?;
            }
            if lives == Status::Restarting && ends {
                container.await_end()?;
                return Ok(());
            }
            if let Some(process) = container.process()? {
                // First this: its end may be told at once.
                self.tell_of(record, "kill", &[("signal", &signal.number().to_string())]);
                if process.send(signal)? {
                    if lives == Status::Paused && signal == Signal::KILL {
                        crate::resources::thaw(self, container)?;
                    }
                    if signal == Signal::KILL {
                        // Not before it is gone is it ended for everybody.
                        process.ends(Some(std::time::Duration::from_secs(10)))?;
                    }
                    return Ok(());
                }
            }
            Err(Error::NotKilled { name: record.name.clone(), id: record.id.clone() })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (record, signal);
            Err(Error::elsewhere("killing a container from another process"))
        }
    }
}
