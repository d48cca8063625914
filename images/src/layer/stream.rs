//! A layer's plain bytes: one thread receives, hashes and stores what is packed, one undoes the compression, and the
//! caller uses the result. Undoing gzip takes longer than the rest together, so it has a core for itself.

use std::io;
use std::io::BufRead;
use std::io::Read;
use std::sync::mpsc;
use std::thread::Scope;

use super::Fault;
use super::compression;
use super::max_unpacked;
use crate::media::Compression;

/// Bytes on their way from one thread to the next: this many pieces. What is on the way between all threads must stay
/// in the cache, or copying it costs several times as much.
const PIECES: usize = 4;
/// Size of a plain piece.
const PLAIN: usize = 128 << 10;
/// Size of a packed piece.
const PACKED: usize = 64 << 10;

type Piece = io::Result<Vec<u8>>;

/// Sends what it reads until the end, an error, `limit`, or until nobody wants more.
fn feed(
    mut source: impl Read,
    size: usize,
    limit: u64,
    send: &mpsc::SyncSender<Piece>,
    reuse: &mpsc::Receiver<Vec<u8>>,
) -> io::Result<()> {
    let mut total = 0;
    loop {
        let mut piece = reuse.try_recv().unwrap_or_default();
        piece.resize(size, 0);
        let mut filled = 0;
        // Small reads are collected: each piece costs a switch of threads.
        while filled < size {
            match source.read(&mut piece[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if filled == 0 {
            return Ok(());
        }
        total += filled as u64;
        if total > limit {
            let reason = format!("unpacks to more than {limit} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        piece.truncate(filled);
        if send.send(Ok(piece)).is_err() {
            return Ok(());
        }
    }
}

/// Reads in a thread of its own, from what `open` gives.
fn pieces<'scope, R: Read>(
    scope: &'scope Scope<'scope, '_>,
    size: usize,
    limit: u64,
    open: impl FnOnce() -> io::Result<R> + Send + 'scope,
) -> Pieces {
    let (send, receive) = mpsc::sync_channel(PIECES);
    let (give_back, reuse) = mpsc::channel();
    scope.spawn(move || {
        if let Err(e) = open().and_then(|source| feed(source, size, limit, &send, &reuse)) {
            // Nobody listens any more when the other side has failed first.
            drop(send.send(Err(e)));
        }
    });
    Pieces { receive, give_back, current: Vec::new(), at: 0 }
}

/// Gives `work` the plain bytes of a compressed stream of `size` bytes.
pub(super) fn with_plain<T>(
    input: &mut (dyn Read + Send),
    compression: Compression,
    size: u64,
    work: impl FnOnce(Pieces) -> Result<T, Fault>,
) -> Result<T, Fault> {
    std::thread::scope(|scope| {
        let limit = max_unpacked(size);
        if compression == Compression::None {
            return work(pieces(scope, PLAIN, limit, move || Ok(input)));
        }
        let packed = pieces(scope, PACKED, u64::MAX, move || Ok(input));
        work(pieces(scope, PLAIN, limit, move || compression::decoder(packed, compression)))
    })
}

/// The other end of [`feed`].
#[derive(Debug)]
pub(super) struct Pieces {
    receive: mpsc::Receiver<Piece>,
    give_back: mpsc::Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Pieces {
    /// The next bytes, at least one unless the stream has ended.
    pub(super) fn next(&mut self) -> io::Result<&[u8]> {
        let Ok(piece) = self.receive.recv() else { return Ok(&[]) };
        // The sender may be gone: then the buffer is not needed.
        drop(self.give_back.send(std::mem::replace(&mut self.current, piece?)));
        self.at = 0;
        Ok(&self.current)
    }

    /// What of the current piece is not used.
    pub(super) fn rest(&self) -> &[u8] {
        &self.current[self.at..]
    }

    /// Marks bytes of the current piece as used.
    pub(super) fn consume(&mut self, count: usize) {
        self.at = self.current.len().min(self.at + count);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.rest().is_empty() && self.next()?.is_empty() {
            return Ok(0);
        }
        let n = self.rest().read(buffer)?;
        self.consume(n);
        Ok(n)
    }
}

impl BufRead for Pieces {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.rest().is_empty() {
            return self.next();
        }
        Ok(self.rest())
    }

    fn consume(&mut self, count: usize) {
        Self::consume(self, count);
    }
}
