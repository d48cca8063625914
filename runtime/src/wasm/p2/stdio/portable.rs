//! Standard input where only a helper thread can wait for it: wasmtime's own.

use tokio::io::AsyncRead;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{InputFile, IsTerminal, StdinStream};
use wasmtime_wasi::p2::InputStream;

use crate::wasm::stdio::Input;

pub(super) fn connect(builder: &mut WasiCtxBuilder, input: &Input, terminal: bool) {
    match input {
        Input::Null => {}
        Input::Inherit => drop(builder.stdin(Shown { inner: wasmtime_wasi::cli::stdin(), terminal })),
        Input::File(file) => {
            // Without a second handle there is nothing to read from.
            if let Ok(file) = file.try_clone() {
                builder.stdin(Shown { inner: InputFile::new(file), terminal });
            }
        }
    }
}

/// A stream, and whether the guest is told that it is a terminal.
struct Shown<S> {
    inner: S,
    terminal: bool,
}

impl<S> IsTerminal for Shown<S> {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl<S: StdinStream> StdinStream for Shown<S> {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        self.inner.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        self.inner.p2_stream()
    }
}
