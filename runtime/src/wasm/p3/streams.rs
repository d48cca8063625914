//! Contents of files and listings as streams of the component model. Files are always ready, so nothing here ever waits;
//! a future beside each stream tells how it ended.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::sync::oneshot;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer};
use wasmtime_wasi::p3::bindings::filesystem::types::{DirectoryEntry, ErrorCode};

use super::errno::code;
use crate::wasm::p2::files::{Opening, READ_MAX};
use crate::wasm::union::{Errno, Result};

/// Tells a stream's future how it ended: well, if nothing else was said when it goes.
pub(super) struct Verdict(Option<oneshot::Sender<std::result::Result<(), ErrorCode>>>);

/// The other side of a [`Verdict`].
pub(super) type Outcome = oneshot::Receiver<std::result::Result<(), ErrorCode>>;

impl Verdict {
    pub(super) fn new() -> (Self, Outcome) {
        let (sender, receiver) = oneshot::channel();
        (Self(Some(sender)), receiver)
    }

    pub(super) fn failed(&mut self, errno: Errno) {
        self.tell(Err(code(errno)));
    }

    fn tell(&mut self, result: std::result::Result<(), ErrorCode>) {
        if let Some(sender) = self.0.take() {
            // A guest that dropped the future does not want to know.
            drop(sender.send(result));
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.tell(Ok(()));
    }
}

type Polled = Poll<wasmtime::Result<StreamResult>>;

/// A file's content from an offset on.
pub(super) struct Reader {
    pub(super) file: Arc<Opening>,
    pub(super) offset: u64,
    pub(super) verdict: Verdict,
}

impl<D> StreamProducer<D> for Reader {
    type Item = u8;
    type Buffer = VecBuffer<u8>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        target: Destination<'a, u8, VecBuffer<u8>>,
        _: bool,
    ) -> Polled {
        let mut target = target.as_direct(store, READ_MAX);
        let buffer = target.remaining();
        if buffer.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let limit = buffer.len().min(READ_MAX);
        Poll::Ready(Ok(match self.file.read_at(&mut buffer[..limit], self.offset) {
            Ok(0) => StreamResult::Dropped,
            Ok(read) => {
                target.mark_written(read);
                self.offset += read as u64;
                StreamResult::Completed
            }
            Err(errno) => {
                self.verdict.failed(errno);
                StreamResult::Dropped
            }
        }))
    }
}

/// Writes what comes to a file, from an offset on or at its end.
pub(super) struct Writer {
    pub(super) file: Arc<Opening>,
    /// `None` is the end.
    pub(super) offset: Option<u64>,
    pub(super) verdict: Verdict,
}

impl Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        match &mut self.offset {
            None => self.file.append(bytes),
            Some(offset) => self.file.write_at(bytes, *offset).inspect(|done| *offset += *done as u64),
        }
    }
}

impl<D> StreamConsumer<D> for Writer {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        _: bool,
    ) -> Polled {
        let mut source = source.as_direct(store);
        if source.remaining().is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        // Others of the guest's tasks go on between the parts of a large write.
        let part = source.remaining();
        let part = &part[..part.len().min(READ_MAX)];
        Poll::Ready(Ok(match self.write(part) {
            Ok(written) => {
                source.mark_read(written);
                StreamResult::Completed
            }
            Err(errno) => {
                self.verdict.failed(errno);
                StreamResult::Dropped
            }
        }))
    }
}

/// What is left of a listing.
pub(super) struct Listing {
    pub(super) entries: crate::wasm::union::Entries,
    /// Only its end matters: a listing was taken in whole before.
    #[expect(dead_code, reason = "tells the future when it is dropped")]
    pub(super) verdict: Verdict,
}

impl<D> StreamProducer<D> for Listing {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut target: Destination<'a, DirectoryEntry, VecBuffer<DirectoryEntry>>,
        _: bool,
    ) -> Polled {
        let wanted = target.remaining(&mut store).unwrap_or(32).min(1024);
        if wanted == 0 {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let some = self.entries.by_ref().take(wanted);
        let some: Vec<_> = some
            .map(|entry| DirectoryEntry { type_: super::fs::descriptor_type(entry.kind), name: entry.name })
            .collect();
        let end = some.len() < wanted;
        target.set_buffer(some.into());
        Poll::Ready(Ok(if end { StreamResult::Dropped } else { StreamResult::Completed }))
    }
}
