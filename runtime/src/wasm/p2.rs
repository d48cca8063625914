//! WASI 0.2 for components: being written.

use wasmtime::Engine;
use wasmtime::component::Component;

use super::create::Guest;
use super::task::End;
use crate::error::{Error, Result};

pub(super) struct Program(std::convert::Infallible);

pub(super) fn prepare(_: &Engine, _: &Component, _: &str, _: Guest) -> Result<Program> {
    Err(Error::Unsupported { verb: "run components", executor: "wasm" })
}

impl Program {
    pub(super) fn run(self) -> End {
        match self.0 {}
    }
}
