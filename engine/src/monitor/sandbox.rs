//! A Wasm program in a child of the monitor: from the fork to the gate.

use std::path::PathBuf;

use dhow_runtime::apart::{Apart, News};
use dhow_runtime::{Bundle, Executor, Stdio, Task, process};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};

use crate::attach::Failure;
use crate::error::{Error, Result};

/// What is to run.
pub(crate) struct Guest<'a> {
    pub(crate) bundle: &'a Bundle,
    pub(crate) aot: PathBuf,
    /// Its streams are a terminal.
    pub(crate) terminal: bool,
    /// The signals that were blocked before the monitor blocked more.
    pub(crate) before: &'a SigSet,
}

/// Makes the child and waits until it is ready to start. `leave` is called in it, to give up what is the monitor's and to
/// go where the guest is to be.
pub(crate) fn spawn(
    id: &str,
    stdio: Stdio,
    leave: impl FnOnce() -> Result<()>,
    guest: Guest<'_>,
) -> Result<Task> {
    let mut apart = Apart::spawn(id, stdio, |mut gate| {
        let mut task = match leave().and_then(|()| prepare(guest)) {
            Ok(task) => task,
            Err(error) => {
                gate.fail(&Failure::of(&error).encode());
                return error.exit_code();
            }
        };
        if !gate.pass() {
            return 0;
        }
        // Whatever fails now has been told on the guest's standard error.
        let Ok(status) = task.start().and_then(|()| task.wait()) else { return 125 };
        if task.out_of_memory() {
            gate.out_of_memory();
        }
        status.code()
    })?;
    match apart.news()? {
        News::Ready => Ok(Task::Apart(apart)),
        News::Failed(words) => Err(match serde_json::from_slice::<Failure>(&words) {
            Ok(failure) => failure.into_error(),
            Err(_) => Error::MonitorLost { id: id.to_owned() },
        }),
    }
}

fn prepare(guest: Guest<'_>) -> Result<Task> {
    // Wasm programs have no signal handlers: signals end the sandbox process as they end any other.
    pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(guest.before), None).map_err(std::io::Error::from)?;
    let stdio = if guest.terminal { Stdio::Terminal(None) } else { Stdio::inherit() };
    let task = Executor::wasm(Some(guest.aot)).create(guest.bundle, stdio)?;
    process::obey_sent_faults();
    if let Task::Wasm(task) = &task {
        task.on_overrun(|status| process::exit_now(status.code()));
    }
    Ok(task)
}
