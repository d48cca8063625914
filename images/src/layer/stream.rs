//! A layer's plain bytes: one thread receives, hashes and stores what is packed, one undoes the compression, and the
//! caller uses the result. Undoing gzip takes about as long as the rest together.

use std::io;
use std::io::BufRead;
use std::io::Read;
use std::ops::Range;
use std::sync::mpsc;
use std::thread::Scope;

use super::Fault;
use super::compression;
use super::gzip::Gunzip;
use super::inflate;
use super::inflate::Buffer;
use super::inflate::WINDOW;
use super::max_unpacked;
use crate::media::Compression;

/// Bytes on their way from one thread to the next: this many pieces. What is on the way between all threads must stay
/// in the cache, or copying it costs several times as much.
const PIECES: usize = 4;
/// Size of a plain piece.
const PLAIN: usize = 128 << 10;
/// Size of a packed piece.
const PACKED: usize = 64 << 10;

/// Some bytes of a stream, in a buffer that goes back to where it came from.
#[derive(Debug, Default)]
struct Piece {
    buffer: Box<[u8]>,
    bytes: Range<usize>,
}

/// The sending end of [`Pieces`].
struct Sender {
    send: mpsc::SyncSender<io::Result<Piece>>,
    reuse: mpsc::Receiver<Box<[u8]>>,
    /// How many bytes may still come, and may come at all.
    left: u64,
    limit: u64,
}

impl Sender {
    /// A used buffer, if one has come back.
    fn buffer(&self) -> Option<Box<[u8]>> {
        self.reuse.try_recv().ok().filter(|buffer| !buffer.is_empty())
    }

    /// Hands over some bytes; whether anybody wants more.
    fn send(&mut self, piece: Piece) -> io::Result<bool> {
        let Some(left) = self.left.checked_sub(piece.bytes.len() as u64) else {
            let reason = format!("unpacks to more than {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        };
        self.left = left;
        Ok(self.send.send(Ok(piece)).is_ok())
    }
}

/// Sends what it reads until the end, an error, or until nobody wants more.
fn feed(mut source: impl Read, size: usize, to: &mut Sender) -> io::Result<()> {
    loop {
        let mut buffer = to.buffer().unwrap_or_else(|| vec![0; size].into());
        let mut filled = 0;
        // Small reads are collected: each piece costs a switch of threads.
        while filled < size {
            match source.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if filled == 0 || !to.send(Piece { buffer, bytes: 0..filled })? {
            return Ok(());
        }
    }
}

/// As [`feed`], of what a gzip stream holds. That is written where it stays; the end of each buffer is copied to the
/// beginning of the next one, to be looked back at.
fn feed_gunzipped(packed: impl BufRead, to: &mut Sender) -> io::Result<()> {
    let take = |to: &Sender| -> Box<Buffer> {
        to.buffer().and_then(|buffer| buffer.try_into().ok()).unwrap_or_else(inflate::buffer)
    };
    let mut gunzip = Gunzip::new(packed);
    let mut buffer = take(to);
    let mut begin = 0;
    loop {
        let end = gunzip.fill(&mut buffer, begin)?;
        if end == begin {
            return Ok(());
        }
        let mut next = take(to);
        let keep = end.min(WINDOW);
        next[..keep].copy_from_slice(&buffer[end - keep..end]);
        if !to.send(Piece { buffer, bytes: begin..end })? {
            return Ok(());
        }
        (buffer, begin) = (next, keep);
    }
}

/// Starts a thread that sends what it makes.
fn pieces<'scope>(
    scope: &'scope Scope<'scope, '_>,
    limit: u64,
    feed: impl FnOnce(&mut Sender) -> io::Result<()> + Send + 'scope,
) -> Pieces {
    let (send, receive) = mpsc::sync_channel(PIECES);
    let (give_back, reuse) = mpsc::channel();
    scope.spawn(move || {
        let mut sender = Sender { send, reuse, left: limit, limit };
        if let Err(e) = feed(&mut sender) {
            // Nobody listens any more when the other side has failed first.
            drop(sender.send.send(Err(e)));
        }
    });
    Pieces { receive, give_back, current: Piece::default() }
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
            return work(pieces(scope, limit, move |to| feed(input, PLAIN, to)));
        }
        let packed = pieces(scope, u64::MAX, move |to| feed(input, PACKED, to));
        work(pieces(scope, limit, move |to| match compression {
            Compression::Gzip => feed_gunzipped(packed, to),
            _ => feed(compression::decoder(packed, compression)?, PLAIN, to),
        }))
    })
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Pieces {
    receive: mpsc::Receiver<io::Result<Piece>>,
    give_back: mpsc::Sender<Box<[u8]>>,
    /// What of the current piece is not used.
    current: Piece,
}

impl Pieces {
    /// The next bytes, at least one unless the stream has ended.
    pub(super) fn next(&mut self) -> io::Result<&[u8]> {
        let Ok(piece) = self.receive.recv() else { return Ok(&[]) };
        let used = std::mem::replace(&mut self.current, piece?);
        // The sender may be gone: then the buffer is not needed.
        drop(self.give_back.send(used.buffer));
        Ok(self.rest())
    }

    /// What of the current piece is not used.
    pub(super) fn rest(&self) -> &[u8] {
        &self.current.buffer[self.current.bytes.clone()]
    }

    /// Marks bytes of the current piece as used.
    pub(super) fn consume(&mut self, count: usize) {
        let Range { start, end } = &mut self.current.bytes;
        *start = (*end).min(*start + count);
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
