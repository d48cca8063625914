//! `kill`: sends a signal to a container's first process.

use dhow_runtime::Signal;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Container;

impl Engine {
    /// Sends a signal. One that ends a paused container lets it go on for that.
    ///
    /// # Errors
    /// [`Error::Invalid`], in Docker's words, when it does not run.
    pub fn kill(&self, container: &Container, signal: Signal) -> Result<()> {
        let record = &container.record;
        #[cfg(target_os = "linux")]
        {
            if let Some(process) = container.process()?
                && process.send(signal)?
            {
                if signal == Signal::KILL {
                    // Not before it is gone is it ended for everybody.
                    process.ends(Some(std::time::Duration::from_secs(10)))?;
                }
                return Ok(());
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
