//! `stop` and `restart`: a polite signal, some time, and then an end that cannot be refused.

use std::time::Duration;

use dhow_runtime::Signal;

use crate::engine::Engine;
#[cfg(not(target_os = "linux"))]
use crate::error::Error;
use crate::error::Result;
use crate::marks::StoppedBy;
use crate::record::Container;

/// Seconds between the polite signal and the end, where nobody says otherwise.
const PATIENCE: i64 = 10;

impl Engine {
    /// Ends a container: with `signal` or its own stop signal, and after `timeout` seconds (-1: never) by force. Does
    /// nothing when it does not run. Back when its end is written down.
    ///
    /// # Errors
    /// When it cannot be reached.
    pub fn stop(&self, container: &Container, signal: Option<Signal>, timeout: Option<i64>) -> Result<()> {
        self.stop_by(container, signal, timeout, StoppedBy::User)
    }

    /// The same for whoever it is.
    pub(crate) fn stop_by(
        &self,
        container: &Container,
        signal: Option<Signal>,
        timeout: Option<i64>,
        by: StoppedBy,
    ) -> Result<()> {
        let config = &container.record.config;
        let signal = match (signal, &config.stop_signal) {
            (Some(signal), _) => signal,
            // What an image says may be nonsense; then as if it said nothing.
            (None, Some(text)) => text.parse().unwrap_or(Signal::TERM),
            (None, None) => Signal::TERM,
        };
        let seconds = timeout.or(config.stop_timeout).unwrap_or(PATIENCE);
        let limit = u64::try_from(seconds).ok().map(Duration::from_secs);
        self.end(container, signal, limit, by)
    }

    #[cfg(target_os = "linux")]
    fn end(
        &self,
        container: &Container,
        signal: Signal,
        limit: Option<Duration>,
        by: StoppedBy,
    ) -> Result<()> {
        if !container.is_supervised()? {
            return Ok(());
        }
        container.mark_stopped(by)?;
        // It may be starting just now: then it is stopped as soon as it runs.
        while container.is_supervised()? {
            let Some(process) = container.process()? else {
                container.stays_stopped(by)?;
                std::thread::sleep(super::start::A_BLINK);
                continue;
            };
            let tell = |signal: Signal| {
                self.tell_of(&container.record, "kill", &[("signal", &signal.number().to_string())]);
            };
            tell(signal);
            process.send(signal)?;
            // One that is paused must go on to hear it.
            process.send(Signal::CONT)?;
            crate::resources::thaw(self, container)?;
            if !process.ends(limit)? {
                tell(Signal::KILL);
                process.send(Signal::KILL)?;
                process.ends(None)?;
            }
            self.settle_after(container, &process)?;
            break;
        }
        self.tell_of(&container.record, "stop", &[]);
        Ok(())
    }

    #[cfg(not(target_os = "linux"))]
    fn end(
        &self,
        container: &Container,
        _signal: Signal,
        _limit: Option<Duration>,
        _by: StoppedBy,
    ) -> Result<()> {
        if container.is_supervised()? {
            return Err(Error::elsewhere("stopping a container from another process"));
        }
        Ok(())
    }

    /// Ends a container if it runs, and starts it anew in the background.
    ///
    /// # Errors
    /// As [`Engine::stop`] and [`Engine::start`].
    pub fn restart(&self, container: &Container, signal: Option<Signal>, timeout: Option<i64>) -> Result<()> {
        self.stop(container, signal, timeout)?;
        // Somebody else may be faster.
        if let Some(claim) = self.claim_to_start(container)? {
            self.start(container, claim)?;
        }
        self.tell_of(&container.record, "restart", &[]);
        Ok(())
    }
}
