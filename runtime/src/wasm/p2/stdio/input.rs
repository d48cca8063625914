//! Standard input where everything has a descriptor that can be asked whether it has something.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, Interest, ReadBuf};
use tokio::runtime::Handle;
use wasmtime_wasi::WasiCtxBuilder;
use wasmtime_wasi::cli::{IsTerminal, StdinStream};
use wasmtime_wasi::p2::{InputStream, Pollable, StreamError, StreamResult};

use super::stream_error;
use crate::wasm::p2::driver;
use crate::wasm::p2::files::READ_MAX;
use crate::wasm::p2::streams::Later;
use crate::wasm::stdio::Input;

pub(super) fn connect(builder: &mut WasiCtxBuilder, input: &Input, terminal: bool) {
    builder.stdin(Source { input: input.clone(), terminal });
}

/// What every stream on standard input is made of.
struct Source {
    input: Input,
    terminal: bool,
}

impl Source {
    fn open(&self) -> Reading {
        Reading { input: self.input.clone(), watched: None }
    }
}

impl IsTerminal for Source {
    fn is_terminal(&self) -> bool {
        self.terminal
    }
}

impl StdinStream for Source {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.open())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.open())
    }
}

/// A stream on standard input.
struct Reading {
    input: Input,
    /// Its descriptor once more, known to the runtime, from the first time that there was nothing to read.
    watched: Option<AsyncFd<OwnedFd>>,
}

impl Reading {
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match &self.input {
            Input::Null => None,
            Input::Inherit => Some(rustix::stdio::stdin()),
            Input::File(file) => Some(file.as_fd()),
        }
    }

    /// Whether reading would not block now: there is something, the end, or an error.
    fn is_ready(&self) -> io::Result<bool> {
        let Some(fd) = self.descriptor() else { return Ok(true) };
        is_ready(fd)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_ready()? {
            return Poll::Ready(Ok(()));
        }
        if !driver::has_runtime(cx) {
            return Poll::Pending;
        }
        if self.watched.is_none() {
            let Some(fd) = self.descriptor() else { return Poll::Ready(Ok(())) };
            let copy = fd.try_clone_to_owned()?;
            #[expect(
                deprecated,
                reason = "unsound only for what may close its descriptor early; this one is owned"
            )]
            let watched = AsyncFd::with_interest(copy, Interest::READABLE);
            match watched {
                Ok(watched) => self.watched = Some(watched),
                // What cannot be watched (a file, some devices) does not make anybody wait for long.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        let Some(watched) = &self.watched else { return Poll::Ready(Ok(())) };
        loop {
            let mut guard = ready!(watched.poll_read_ready(cx))?;
            let looked = guard.try_io(|watched| match is_ready(watched.get_ref().as_fd()) {
                Ok(true) => Ok(()),
                Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
                Err(error) => Err(error),
            });
            if let Ok(done) = looked {
                return Poll::Ready(done);
            }
        }
    }
}

fn is_ready(fd: BorrowedFd<'_>) -> io::Result<bool> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    loop {
        match rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Err(rustix::io::Errno::INTR) => {}
            done => return Ok(done? > 0),
        }
    }
}

impl Pollable for Reading {
    fn ready<'a, 'b>(&'a mut self) -> Later<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async {
            // An error shows itself when the guest reads.
            drop(std::future::poll_fn(|cx| self.poll_ready(cx)).await);
        })
    }
}

impl Reading {
    fn read_now(&self, size: usize) -> StreamResult<Bytes> {
        let mut buffer = BytesMut::zeroed(size.min(READ_MAX));
        match self.input.read(&mut buffer).map_err(stream_error)? {
            0 => Err(StreamError::Closed),
            read => {
                buffer.truncate(read);
                Ok(buffer.freeze())
            }
        }
    }
}

impl InputStream for Reading {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 || !self.is_ready().map_err(stream_error)? {
            return Ok(Bytes::new());
        }
        self.read_now(size)
    }

    fn blocking_read<'a, 'b>(&'a mut self, size: usize) -> Later<'b, StreamResult<Bytes>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            if size > 0 && Handle::try_current().is_err() {
                // Nothing else goes on in this thread.
                return self.read_now(size);
            }
            loop {
                self.ready().await;
                let bytes = self.read(size)?;
                if size == 0 || !bytes.is_empty() {
                    return Ok(bytes);
                }
            }
        })
    }
}

impl AsyncRead for Reading {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?;
        let read = self.input.read(buffer.initialize_unfilled())?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}
