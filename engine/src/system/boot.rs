//! `system start` and `system stop`: the containers of a system that comes up or goes down. There is no daemon that would
//! do it: the system's own service manager calls these.

use dhow_runtime::Kind;

use crate::config::Ended;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::marks::StoppedBy;
use crate::record::{Container, Status};

/// How many containers are stopped at the same time.
const AT_ONCE: usize = 50;

/// What became of one container.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// Why it could not be started or stopped.
    pub failure: Option<Error>,
}

impl Engine {
    /// Starts every container whose restart policy says so: after a boot, or after monitors were killed. Oldest first.
    ///
    /// # Errors
    /// When the containers cannot be read. What goes wrong with one of them is told with it.
    pub fn start_all(&self) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::new();
        for container in self.containers()?.into_iter().rev() {
            if !wants_to_run(&container)? {
                continue;
            }
            let started = self.claim_to_start(&container).and_then(|claim| match claim {
                Some(claim) => self.start(&container, claim),
                // Somebody else was faster.
                None => Ok(()),
            });
            outcomes.push(Outcome { name: container.record.name.clone(), failure: started.err() });
        }
        Ok(outcomes)
    }

    /// Ends every container that runs, as `stop` does it; [`Engine::start_all`] starts them again.
    ///
    /// # Errors
    /// As [`Engine::start_all`].
    pub fn stop_all(&self, timeout: Option<i64>) -> Result<Vec<Outcome>> {
        let mut running = Vec::new();
        for container in self.containers()? {
            if container.state()?.status.is_running() {
                running.push(container);
            }
        }
        let mut outcomes = Vec::new();
        // Each may take its ten seconds, and the system goes down meanwhile.
        for some in running.chunks(AT_ONCE) {
            let stop = |container: &Container| self.stop_by(container, None, timeout, StoppedBy::Host);
            std::thread::scope(|scope| {
                let stops: Vec<_> =
                    some.iter().map(|container| scope.spawn(move || stop(container))).collect();
                for (container, stop) in some.iter().zip(stops) {
                    let failure = match stop.join() {
                        Ok(stopped) => stopped.err(),
                        Err(panic) => std::panic::resume_unwind(panic),
                    };
                    outcomes.push(Outcome { name: container.record.name.clone(), failure });
                }
            });
        }
        Ok(outcomes)
    }
}

fn wants_to_run(container: &Container) -> Result<bool> {
    let record = &container.record;
    let policy = &record.host_config.restart_policy;
    if policy.is_none() || (record.kind == Kind::Native && !cfg!(target_os = "linux")) {
        return Ok(false);
    }
    let state = container.state()?;
    // One that nobody has started is nobody's to start.
    if state.status.is_running() || state.status == Status::Created || state.started_at.is_none() {
        return Ok(false);
    }
    let stopped = container.stopped_by() == Some(StoppedBy::User);
    Ok(policy.after_boot(Ended { code: state.exit_code, restarts: 0, stopped }))
}
