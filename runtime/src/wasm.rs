//! The Wasm executor: WASI modules and components, run by wasmtime in this process.

use std::path::PathBuf;

use crate::bundle::Bundle;
use crate::error::{Error, Result};
use crate::signal::Signal;
use crate::stdio::Stdio;
use crate::task::{ExitStatus, Status};

/// Runs WASI modules and components in this process.
#[derive(Debug)]
pub struct Executor {
    aot: Option<PathBuf>,
}

impl Executor {
    /// Compiled code is kept below `aot`, or nowhere.
    pub fn new(aot: Option<PathBuf>) -> Self {
        Self { aot }
    }

    /// See [`crate::Executor::create`].
    pub fn create(&self, _bundle: &Bundle, _stdio: Stdio) -> Result<Task> {
        let _ = &self.aot;
        Err(Error::Unsupported { verb: "create", executor: "wasm" })
    }
}

/// A Wasm program.
#[derive(Debug)]
pub struct Task {}

impl Task {
    pub(crate) fn pid(&self) -> u32 { std::process::id() }
    pub(crate) fn status(&self) -> Status { Status::Stopped }
    pub(crate) fn start(&mut self) -> Result<()> { Ok(()) }
    pub(crate) fn wait(&mut self) -> Result<ExitStatus> { Ok(ExitStatus::Code(0)) }
    pub(crate) fn kill(&self, _signal: Signal) -> Result<()> { Ok(()) }
    pub(crate) fn delete(self) -> Result<()> { Ok(()) }
}
