//! `attach`: this process's streams for those of a container that runs.

use super::start::{Attended, ClientStreams};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Container;

impl Engine {
    /// Connects this process's streams to a running container, until it ends or the user leaves.
    ///
    /// # Errors
    /// In Docker's words when it does not run or is paused; [`Error::Foreground`] when nobody else can be connected.
    #[cfg(target_os = "linux")]
    pub fn attach(&self, container: &Container, streams: ClientStreams) -> Result<Attended> {
        use crate::attach::Wish;
        use crate::monitor::client::{Client, Ended};
        use crate::record::Status;
        let record = &container.record;
        match container.state()?.status {
            Status::Running => {}
            Status::Restarting => return Err(Error::Restarting { id: record.id.clone() }),
            Status::Paused => {
                return Err(Error::Invalid(
                    "You cannot attach to a paused container, unpause it first".to_owned(),
                ));
            }
            _ => {
                return Err(Error::Invalid(
                    "You cannot attach to a stopped container, start it first".to_owned(),
                ));
            }
        }
        let gone = || Error::NotRunning { id: record.id.clone() };
        let process = container.process()?.ok_or_else(gone)?;
        let socket = match crate::attach::connect(container.folder()) {
            Ok(socket) => socket,
            Err(_) if !container.state()?.status.is_alive() => return Err(gone()),
            Err(_) => {
                let name = record.name.clone();
                return Err(Error::Foreground { name, what: "cannot be attached to" });
            }
        };
        self.tell_of(record, "attach", &[]);
        crate::monitor::watch_signals()?;
        let wish = Wish { stdin: streams.input && record.config.open_stdin, stdout: true, stderr: true };
        let client = Client::visit(socket, process, wish, record.config.tty)?
            .leaving_by(streams.detach_keys)
            .passing_signals(streams.sig_proxy);
        match client.attend(false)? {
            Ended::Code(code) => Ok(Attended::Ended(code)),
            Ended::Detached => Ok(Attended::Detached),
            // The monitor was killed, or has given us up because we took nothing, or our input has ended where that
            // ends the visit.
            Ended::Lost | Ended::Unwritten(_) if container.is_supervised()? => Ok(Attended::Over),
            Ended::Lost | Ended::Unwritten(_) => Ok(Attended::Ended(self.settle(container)?.exit_code)),
        }
    }

    /// Connects this process's streams to a running container.
    ///
    /// # Errors
    /// Always, on this system.
    #[cfg(not(target_os = "linux"))]
    pub fn attach(&self, _container: &Container, _streams: ClientStreams) -> Result<Attended> {
        Err(Error::elsewhere("attaching to a container"))
    }
}
