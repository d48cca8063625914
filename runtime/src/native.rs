//! The native executor: Linux binaries isolated by namespaces.

use std::os::fd::OwnedFd;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::stdio::Stdio;
use crate::task::{ExitStatus, Status};

/// Runs Linux binaries in namespaces.
#[derive(Debug)]
pub struct Executor {}

impl Executor {
    /// An executor on this host.
    pub fn new() -> Self {
        Self {}
    }

    /// See [`crate::Executor::create`].
    pub fn create(&self, _bundle: &Bundle, _stdio: Stdio) -> Result<Task> {
        Err(Error::Unsupported { verb: "create", executor: "native" })
    }
}

/// A Linux process in its sandbox.
#[derive(Debug)]
pub struct Task {}

impl Task {
    pub(crate) fn pid(&self) -> u32 { 0 }
    pub(crate) fn status(&self) -> Status { Status::Stopped }
    pub(crate) fn start(&mut self) -> Result<()> { Ok(()) }
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> { Ok(ExitStatus::Code(0)) }
    pub(crate) fn kill(&self, _signal: Signal) -> Result<()> { Ok(()) }
    pub(crate) fn take_console(&mut self) -> Option<OwnedFd> { None }
    pub(crate) fn delete(self) -> Result<()> { Ok(()) }
}
