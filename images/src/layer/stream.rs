//! A layer's plain bytes, made in a thread of their own: one undoes the compression while another uses the result.

use std::io;
use std::io::BufReader;
use std::io::Read;
use std::sync::mpsc;

use super::Fault;
use super::compression;
use super::max_unpacked;
use crate::media::Compression;

/// Plain bytes on their way from one thread to the other: this many pieces of this size. Together they fit in a
/// core's share of the cache.
const PIECES: usize = 8;
const PIECE: usize = 256 << 10;

type Piece = io::Result<Vec<u8>>;

/// Sends plain bytes until the end, an error, or until nobody wants more.
fn decompress(
    input: &mut (dyn Read + Send),
    compression: Compression,
    limit: u64,
    send: &mpsc::SyncSender<Piece>,
    reuse: &mpsc::Receiver<Vec<u8>>,
) {
    let work = || -> io::Result<()> {
        let mut decoder = compression::decoder(BufReader::with_capacity(PIECE, input), compression)?;
        let mut total = 0;
        loop {
            let mut piece = reuse.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let mut filled = 0;
            // Small reads are collected: each piece costs a switch of threads.
            while filled < PIECE {
                match decoder.read(&mut piece[filled..]) {
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
    };
    if let Err(e) = work() {
        // Nobody listens any more when the other side has failed first.
        drop(send.send(Err(e)));
    }
}

/// Gives `work` the plain bytes of a compressed stream of `size` bytes.
pub(super) fn with_plain<T>(
    input: &mut (dyn Read + Send),
    compression: Compression,
    size: u64,
    work: impl FnOnce(Pieces) -> Result<T, Fault>,
) -> Result<T, Fault> {
    std::thread::scope(|scope| {
        let (send, receive) = mpsc::sync_channel(PIECES);
        let (give_back, reuse) = mpsc::channel();
        let limit = max_unpacked(size);
        scope.spawn(move || decompress(input, compression, limit, &send, &reuse));
        work(Pieces { receive, give_back, current: Vec::new(), at: 0 })
    })
}

/// The other end of [`decompress`].
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
