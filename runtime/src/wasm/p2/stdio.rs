//! The three streams for both component versions: no thread, and no async runtime unless input has to be waited for.
//!
//! Output blocks, as it does for any program. Input that is not there yet is waited for by the runtime, so that timers
//! and sockets go on; a guest that only reads, without a runtime around it, just blocks.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::streams::Later;
use crate::wasm::stdio::{Input, Output, Streams};

#[cfg(unix)]
mod input;
#[cfg(not(unix))]
mod portable;

#[cfg(unix)]
use input::connect;
#[cfg(not(unix))]
use portable::connect;

/// Gives a guest its streams. Those it is not given are empty.
pub(in crate::wasm) fn connect_all(builder: &mut WasiCtxBuilder, streams: &Streams) {
    let terminal = streams.terminal || streams.stdin.is_terminal();
    if !matches!(streams.stdin, Input::Null) {
        connect(builder, &streams.stdin, terminal);
    }
    let shown = |output: &Output| {
        let terminal = streams.terminal || output.is_terminal();
        Shown { output: output.clone(), terminal }
    };
    builder.stdout(shown(&streams.stdout)).stderr(shown(&streams.stderr));
}

/// An output, and whether the guest is told that it is a terminal.
#[derive(Clone)]
struct Shown {
    output: Output,
    terminal: bool,
}

impl IsTerminal for Shown {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdoutStream for Shown {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl Pollable for Shown {
    fn ready<'a, 'b>(&'a mut self) -> Later<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl OutputStream for Shown {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write_all(&bytes).map_err(stream_error)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 * 1024)
    }
}

impl AsyncWrite for Shown {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.output.write_all(bytes).map(|()| bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fn stream_error(error: io::Error) -> StreamError {
    if error.kind() == io::ErrorKind::BrokenPipe {
        StreamError::Closed
    } else {
        StreamError::LastOperationFailed(error.into())
    }
}
