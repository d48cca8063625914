//! A file's content as WASI 0.2's streams. A file is always ready and its reading and writing block, so there is no
//! helper thread and nothing is kept between two calls.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use wasmtime_wasi::p2::{InputStream, OutputStream, Pollable, StreamError, StreamResult};

use super::files::{Opening, READ_MAX};
use crate::wasm::union::Errno;

/// A future as the traits of wasmtime-wasi-io return it.
pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Reads a file from an offset on.
pub(super) struct Reader {
    pub(super) file: Arc<Opening>,
    pub(super) offset: u64,
}

/// Writes a file from an offset on, or at its end.
pub(super) struct Writer {
    pub(super) file: Arc<Opening>,
    /// `None` is the end.
    pub(super) offset: Option<u64>,
}

/// An error that a guest may ask back for by `filesystem-error-code`.
#[derive(Debug, thiserror::Error)]
#[error("{}", crate::wasm::union::mount::describe(*.0))]
pub(super) struct Failure(pub(super) Errno);

fn failed(errno: Errno) -> StreamError {
    StreamError::LastOperationFailed(Failure(errno).into())
}

impl Pollable for Reader {
    fn ready<'a, 'b>(&'a mut self) -> Later<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        let mut buffer = BytesMut::zeroed(size.min(READ_MAX));
        match self.file.read_at(&mut buffer, self.offset).map_err(failed)? {
            0 => Err(StreamError::Closed),
            read => {
                buffer.truncate(read);
                self.offset += read as u64;
                Ok(buffer.freeze())
            }
        }
    }
}

impl Pollable for Writer {
    fn ready<'a, 'b>(&'a mut self) -> Later<'b, ()>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(std::future::ready(()))
    }
}

impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let written = match &mut self.offset {
                None => self.file.append(rest),
                Some(offset) => self.file.write_at(rest, *offset).inspect(|done| *offset += *done as u64),
            };
            match written.map_err(failed)? {
                0 => return Err(failed(Errno::Io)),
                written => rest = &rest[written..],
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(1 << 20)
    }
}
