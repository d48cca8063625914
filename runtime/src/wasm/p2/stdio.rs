//! The three streams, in the forms wasmtime's host takes.

use std::fs::File;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::runtime::Handle;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{AsyncStdinStream, InputFile, IsTerminal, OutputFile, StdinStream, StdoutStream};
use wasmtime_wasi::p2::{InputStream, OutputStream};

use crate::wasm::stdio::{Input, Output, Streams};

/// Gives a guest its streams. Those it is not given are empty.
pub(super) fn connect(builder: &mut WasiCtxBuilder, streams: &Streams, runtime: &Handle) {
    let terminal = streams.terminal || streams.stdin.is_terminal();
    match &streams.stdin {
        Input::Null => {}
        Input::Inherit => drop(builder.stdin(Shown { inner: wasmtime_wasi::cli::stdin(), terminal })),
        Input::File(file) => connect_input(builder, file, terminal, runtime),
    }
    for (output, error) in [(&streams.stdout, false), (&streams.stderr, true)] {
        let terminal = streams.terminal || output.is_terminal();
        let mut set = |inner: Box<dyn StdoutStream + Send + Sync>| {
            let shown = Shown { inner, terminal };
            if error {
                builder.stderr(shown)
            } else {
                builder.stdout(shown)
            };
        };
        match output {
            Output::Null => {}
            Output::Stdout => set(Box::new(wasmtime_wasi::cli::stdout())),
            Output::Stderr => set(Box::new(wasmtime_wasi::cli::stderr())),
            Output::File(file) => {
                // Without a second handle there is nowhere to write to.
                if let Ok(file) = file.try_clone() {
                    set(Box::new(OutputFile::new(file)));
                }
            }
        }
    }
}

fn connect_input(builder: &mut WasiCtxBuilder, file: &Arc<File>, terminal: bool, runtime: &Handle) {
    let Ok(file) = file.try_clone() else { return };
    if file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        builder.stdin(Shown { inner: InputFile::new(file), terminal });
    } else {
        // What may have to be waited for is read by a helper thread, so that timers go on.
        let _inside = runtime.enter();
        let inner = AsyncStdinStream::new(tokio::fs::File::from_std(file));
        builder.stdin(Shown { inner, terminal });
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

impl<S: StdoutStream> StdoutStream for Shown<S> {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        self.inner.async_stream()
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        self.inner.p2_stream()
    }
}
