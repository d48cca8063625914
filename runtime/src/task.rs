//! A created or running bundle, and the verbs on it. Each verb is one match over the two executors.

#[cfg(target_os = "linux")]
use std::os::fd::BorrowedFd;
#[cfg(unix)]
use std::os::fd::OwnedFd;

use crate::error::Result;
use crate::signal::Signal;
use crate::wasm;

#[cfg(target_os = "linux")]
use crate::{apart, native};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It ended by itself with this code.
    Code(u8),
    /// This signal ended it.
    Signaled(Signal),
}

impl ExitStatus {
    /// The code a shell and Docker show: the code itself, or 128 + signal number.
    pub fn code(self) -> u8 {
        match self {
            Self::Code(code) => code,
            Self::Signaled(signal) => 128u8.saturating_add(signal.number()),
        }
    }
}

/// The states of the OCI runtime specification that a task reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Everything is set up, the user's program has not run yet.
    Created,
    /// The user's program runs.
    Running,
    /// It has ended.
    Stopped,
}

/// A bundle that has been created by an [`crate::Executor`].
#[derive(Debug)]
pub enum Task {
    /// Runs in this process.
    Wasm(Box<wasm::Task>),
    /// Runs in a process of its own, which its creator has filled.
    #[cfg(target_os = "linux")]
    Apart(apart::Apart),
    /// Runs in namespaces of its own.
    #[cfg(target_os = "linux")]
    Native(native::Task),
}

impl Task {
    /// The process that runs the workload, as the host counts. For Wasm that is this process, unless it is apart.
    pub fn pid(&self) -> u32 {
        match self {
            Self::Wasm(task) => task.pid(),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.pid(),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.pid(),
        }
    }

    /// A descriptor that becomes readable when the process ends; `None` where that is this process.
    #[cfg(target_os = "linux")]
    pub fn pidfd(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Wasm(_) => None,
            Self::Apart(task) => Some(task.pidfd()),
            Self::Native(task) => Some(task.pidfd()),
        }
    }

    /// The task's state.
    pub fn status(&self) -> Status {
        match self {
            Self::Wasm(task) => task.status(),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.status(),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.status(),
        }
    }

    /// Lets the user's program run.
    ///
    /// # Errors
    /// For a native task: the program does not exist ([`crate::Error::CommandNotFound`]) or cannot be executed
    /// ([`crate::Error::CommandNotExecutable`]), or the task died while waiting.
    pub fn start(&mut self) -> Result<()> {
        match self {
            Self::Wasm(task) => task.start(),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.start(),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.start(),
        }
    }

    /// Waits for the end and says how it was. A Wasm task runs on the calling thread, inside this call.
    ///
    /// # Errors
    /// When the state of the process cannot be learned, or the task was never started.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        match self {
            Self::Wasm(task) => task.wait(),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.wait(),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.wait(),
        }
    }

    /// Whether its end was that it wanted more memory than it may have, as far as the executor can tell. The kernel's
    /// own verdict is with the control group.
    pub fn out_of_memory(&self) -> bool {
        match self {
            Self::Wasm(task) => task.out_of_memory(),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.out_of_memory(),
            #[cfg(target_os = "linux")]
            Self::Native(_) => false,
        }
    }

    /// Sends a signal to the workload's first process.
    ///
    /// # Errors
    /// [`crate::Error::NotRunning`] when it has ended, [`crate::Error::Unsupported`] for what an executor cannot do.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        match self {
            Self::Wasm(task) => task.kill(signal),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.kill(signal),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.kill(signal),
        }
    }

    /// Stops the workload where it is, until [`Task::resume`].
    ///
    /// # Errors
    /// As [`Task::kill`]. A program in this very process cannot be told from who would resume it, and the processes of a
    /// native task cannot be stopped all at once without a control group.
    pub fn pause(&self) -> Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.kill(Signal::STOP),
            _ => Err(self.unsupported("pause")),
        }
    }

    /// Lets a paused workload go on.
    ///
    /// # Errors
    /// As [`Task::pause`].
    pub fn resume(&self) -> Result<()> {
        match self {
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.kill(Signal::CONT),
            _ => Err(self.unsupported("resume")),
        }
    }

    fn unsupported(&self, verb: &'static str) -> crate::Error {
        let executor = match self {
            Self::Wasm(_) => "wasm",
            #[cfg(target_os = "linux")]
            Self::Apart(_) => "wasm",
            #[cfg(target_os = "linux")]
            Self::Native(_) => "native",
        };
        crate::Error::Unsupported { verb, executor }
    }

    /// The master side of the task's terminal, once; `None` without one.
    #[cfg(unix)]
    pub fn take_console(&mut self) -> Option<OwnedFd> {
        match self {
            Self::Wasm(_) => None,
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.take_console(),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.take_console(),
        }
    }

    /// Removes what [`crate::Executor::create`] made: mounts, processes. The bundle's directories stay.
    ///
    /// # Errors
    /// When something could not be removed; what is left is named.
    pub fn delete(self) -> Result<()> {
        match self {
            Self::Wasm(task) => task.delete(),
            #[cfg(target_os = "linux")]
            Self::Apart(task) => task.delete(),
            #[cfg(target_os = "linux")]
            Self::Native(task) => task.delete(),
        }
    }
}
