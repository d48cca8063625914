//! Undoing DEFLATE (RFC 1951), made for streams of hundreds of megabytes: half of the work of a pull.
//!
//! What makes it quick: a 64-bit buffer of bits that is filled eight bytes at a time, tables that give two literals or
//! a whole length at one look ([`tables`]), and output that is written once, where it stays: the caller's buffer holds
//! the 32 KiB before it too, so no window is kept beside it. It has no unsafe code; what is said of a block's
//! codes is checked when the tables are made, everything else by the slices.
//!
//! A stream is refused or accepted as zlib does: the tests and a fuzz target compare the two.

use std::io;
use std::io::BufRead;
use std::ops::Range;

mod tables;
#[cfg(test)]
pub(crate) mod tests;

use tables::DIST_BITS;
use tables::Dist;
use tables::LITLEN_BITS;
use tables::Litlen;
use tables::Unfit;

/// How far back a match may reach.
pub(crate) const WINDOW: usize = 32 << 10;
/// The smallest room that [`Inflate::fill`] can go on with: a few literals and the longest match.
pub(crate) const ROOM: usize = 3 + 258;
/// What copying in steps may write too far.
const STEP: usize = 16;
/// What the quick loop may read in one round: two words.
const AHEAD: usize = 24;
/// Of a buffer, without the room for steps that go too far. A power of two: so a place in it is bounded by a mask.
pub(crate) const SIZE: usize = 1 << 17;

/// What is written to: the last [`WINDOW`] bytes of what came before, and new ones.
pub(crate) type Buffer = [u8; SIZE + STEP];

/// A buffer on the heap.
pub(crate) fn buffer() -> Box<Buffer> {
    Box::new([0; SIZE + STEP])
}

/// One stream being undone. Bits that were taken from the input and not used are kept for what follows the stream.
pub(crate) struct Inflate {
    bits: Bits,
    state: State,
    /// Whether the current block is the last one.
    last: bool,
    litlen: Box<Litlen>,
    dist: Box<Dist>,
    /// Whether the tables are those of blocks without own ones.
    is_fixed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a block, or after the last one.
    Between,
    /// In a block that is not compressed, with so many bytes left.
    Stored(usize),
    /// In a compressed block.
    Codes,
}

/// Bits in the order in which they come, the next one lowest. Those above `count` are zero.
#[derive(Debug, Default)]
struct Bits {
    buffer: u64,
    count: u32,
}

/// Why the quick loop stopped.
enum Stop {
    /// The input or the output is nearly at its end.
    Edge,
    /// The block is at its end.
    Block,
}

impl std::fmt::Debug for Inflate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inflate")
            .field("state", &self.state)
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}

impl Inflate {
    pub(crate) fn new() -> Self {
        Self {
            bits: Bits::default(),
            state: State::Between,
            last: false,
            litlen: Box::default(),
            dist: Box::default(),
            is_fixed: false,
        }
    }

    /// Begins another stream, after the bits that are there already.
    pub(crate) fn restart(&mut self) {
        (self.state, self.last) = (State::Between, false);
    }

    /// Writes what comes next to `out[at..limit]`, and returns where that ends. `out[start..at]` came before it in this
    /// stream: up to [`WINDOW`] bytes. It stops at the end of the stream, or when less than [`ROOM`] is left; whether
    /// it was the former, [`Inflate::is_done`] says. What is behind the returned place may have been written to as well.
    ///
    /// # Errors
    /// `InvalidData`, `UnexpectedEof`, and the input's.
    pub(crate) fn fill(
        &mut self,
        input: &mut impl BufRead,
        out: &mut Buffer,
        start: usize,
        mut at: usize,
        limit: usize,
    ) -> io::Result<usize> {
        let limit = limit.min(SIZE);
        while at + ROOM <= limit {
            match self.state {
                State::Between if self.last => break,
                State::Between => self.block(input)?,
                State::Stored(0) => self.state = State::Between,
                State::Stored(left) => {
                    let count = left.min(limit - at);
                    let count = self.bits.copy(input, &mut out[at..at + count])?;
                    at += count;
                    self.state = State::Stored(left - count);
                }
                State::Codes => {
                    let chunk = input.fill_buf()?;
                    let (stop, mut used, end) = self.quick(chunk, out, start..at, limit)?;
                    at = end;
                    // At the edge of the input, symbols are looked at one by one.
                    let mut ended = matches!(stop, Stop::Block);
                    if !ended && chunk.len() - used < AHEAD {
                        (ended, used, at) = self.careful(chunk, used, out, start..at, limit)?;
                        if !ended && chunk.is_empty() && at + ROOM <= limit {
                            return Err(truncated());
                        }
                    }
                    input.consume(used);
                    if ended {
                        self.state = State::Between;
                    }
                }
            }
        }
        Ok(at)
    }

    /// Whether the stream has ended.
    pub(crate) fn is_done(&self) -> bool {
        self.last && self.state == State::Between
    }

    /// Passes over what is left of the last byte.
    pub(crate) fn align(&mut self) {
        let part = self.bits.count % 8;
        self.bits.drop(part);
    }

    /// The next whole byte after a stream; `None` at the end of the input.
    pub(crate) fn byte(&mut self, input: &mut impl BufRead) -> io::Result<Option<u8>> {
        if !self.bits.try_need(input, 8)? {
            return Ok(None);
        }
        Ok(Some(self.bits.take(8).to_le_bytes()[0]))
    }

    /// Reads the head of a block.
    fn block(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        self.bits.need(input, 3)?;
        let head = self.bits.take(3);
        let last = head & 1 == 1;
        self.state = match head >> 1 {
            0 => {
                self.align();
                self.bits.need(input, 32)?;
                let (length, check) = (self.bits.take(16), self.bits.take(16));
                if length != !check & 0xffff {
                    return Err(corrupt("the length of a stored block is wrong"));
                }
                State::Stored(small(length))
            }
            1 => {
                if !self.is_fixed {
                    let lengths: [u8; 288] = std::array::from_fn(|symbol| match symbol {
                        0..144 => 8,
                        144..256 => 9,
                        256..280 => 7,
                        _ => 8,
                    });
                    self.litlen.fill(&lengths).map_err(unfit)?;
                    self.dist.fill(&[5; 32]).map_err(unfit)?;
                    self.is_fixed = true;
                }
                State::Codes
            }
            2 => {
                self.is_fixed = false;
                self.codes(input)?;
                State::Codes
            }
            _ => return Err(corrupt("a block is of an unknown type")),
        };
        self.last = last;
        Ok(())
    }

    /// Reads the codes of a block.
    fn codes(&mut self, input: &mut impl BufRead) -> io::Result<()> {
        /// In which order the lengths of the codes for lengths come.
        const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
        self.bits.need(input, 14)?;
        let litlens = small(self.bits.take(5)) + 257;
        let dists = small(self.bits.take(5)) + 1;
        let count = small(self.bits.take(4)) + 4;
        if litlens > 286 || dists > 30 {
            return Err(corrupt("a block has too many codes"));
        }
        let mut first = [0; 19];
        for place in &ORDER[..count] {
            self.bits.need(input, 3)?;
            first[*place] = self.bits.take(3).to_le_bytes()[0];
        }
        let table = tables::first(&first).map_err(unfit)?;
        let mut lengths = [0_u8; 286 + 30];
        let total = litlens + dists;
        let mut at = 0;
        while at < total {
            // Seven bits for a code and seven more; near the end of a stream there may be less.
            self.bits.try_need(input, 14)?;
            let entry = table[small(self.bits.buffer & 127)];
            let (used, symbol) = (u32::from(entry & 7), entry >> 3);
            let more = match symbol {
                16 => 2,
                17 => 3,
                18 => 7,
                _ => 0,
            };
            if self.bits.count < used + more {
                return Err(truncated());
            }
            self.bits.drop(used);
            let (value, times) = match symbol {
                0..16 => (symbol, 1),
                16 if at == 0 => return Err(corrupt("a block repeats a length before the first")),
                16 => (lengths[at - 1], 3),
                17 => (0, 3),
                _ => (0, 11),
            };
            let times = times + small(self.bits.take(more));
            let Some(place) = lengths[..total].get_mut(at..at + times) else {
                return Err(corrupt("a block repeats a length too often"));
            };
            place.fill(value);
            at += times;
        }
        if lengths[256] == 0 {
            return Err(corrupt("a block cannot end"));
        }
        let (litlens, dists) = lengths[..total].split_at(litlens);
        self.litlen.fill(litlens).map_err(unfit)?;
        self.dist.fill(dists).map_err(unfit)
    }

    /// Undoes as much as can be without looking at the ends of the input and of the output. Returns how much of the
    /// input was used, and where the output ends.
    fn quick(
        &mut self,
        input: &[u8],
        out: &mut Buffer,
        have: Range<usize>,
        limit: usize,
    ) -> io::Result<(Stop, usize, usize)> {
        let Range { start, end: mut at } = have;
        let Bits { mut buffer, mut count } = self.bits;
        let (litlen, dist) = (self.litlen.entries(), self.dist.entries());
        let mut used = 0;
        let end = limit - ROOM;
        let Some(safe) = input.len().checked_sub(AHEAD) else { return Ok((Stop::Edge, 0, at)) };
        // Afterwards there are at least 56 bits. Those above the count are right too: they are what the next filling
        // brings again. Of the count only the low six bits are.
        macro_rules! refill {
            () => {
                buffer |= word(input, used).wrapping_shl(count);
                used += small(u64::from(7 - ((count >> 3) & 7)));
                count |= 56;
            };
        }
        macro_rules! take {
            ($entry:expr) => {
                buffer = buffer.wrapping_shr($entry);
                count = count.wrapping_sub($entry);
            };
        }
        refill!();
        let mut entry = litlen[small(buffer & mask(LITLEN_BITS))];
        let stop = loop {
            if at > end || used > safe {
                break Stop::Edge;
            }
            refill!();
            let mut before = buffer;
            take!(entry);
            if entry & tables::LITERAL != 0 {
                literal(out, at, entry);
                at += 1;
                entry = litlen[small(buffer & mask(LITLEN_BITS))];
                before = buffer;
                take!(entry);
                if entry & tables::LITERAL != 0 {
                    literal(out, at, entry);
                    at += 1;
                    entry = litlen[small(buffer & mask(LITLEN_BITS))];
                    before = buffer;
                    take!(entry);
                    if entry & tables::LITERAL != 0 {
                        literal(out, at, entry);
                        at += 1;
                        entry = litlen[small(buffer & mask(LITLEN_BITS))];
                        continue;
                    }
                }
            }
            if entry & tables::SPECIAL != 0 {
                if entry & tables::SUBTABLE != 0 {
                    entry = litlen[tables::below(entry, buffer) % litlen.len()];
                    before = buffer;
                    take!(entry);
                    if entry & tables::LITERAL != 0 {
                        literal(out, at, entry);
                        at += 1;
                        entry = litlen[small(buffer & mask(LITLEN_BITS))];
                        continue;
                    }
                }
                if entry & tables::SPECIAL != 0 {
                    if entry & tables::END == 0 {
                        return Err(corrupt("a code stands for nothing"));
                    }
                    break Stop::Block;
                }
            }
            refill!();
            let length = tables::value(entry, before);
            let mut far = dist[small(buffer & mask(DIST_BITS))];
            if far & tables::SPECIAL != 0 {
                if far & tables::SUBTABLE != 0 {
                    take!(DIST_BITS);
                    far = dist[tables::below(far, buffer) % dist.len()];
                }
                if far & tables::SPECIAL != 0 {
                    return Err(corrupt("a code of a distance stands for nothing"));
                }
            }
            let distance = tables::value(far, buffer);
            take!(far);
            entry = litlen[small(buffer & mask(LITLEN_BITS))];
            if distance > at - start {
                return Err(too_far());
            }
            copy(out, at, distance, length);
            at += length;
        };
        let count = count & 63;
        self.bits = Bits { buffer: buffer & mask(count), count };
        Ok((stop, used, at))
    }

    /// As [`Inflate::quick`], up to the end of the input, symbol by symbol; it stops also when the input can be looked
    /// at more quickly again. Whether the block is at its end is the first that it returns.
    fn careful(
        &mut self,
        input: &[u8],
        mut used: usize,
        out: &mut Buffer,
        have: Range<usize>,
        limit: usize,
    ) -> io::Result<(bool, usize, usize)> {
        let Range { start, end: mut at } = have;
        let (litlen, dist) = (self.litlen.entries(), self.dist.entries());
        while at + ROOM <= limit {
            while let Some(byte) = input.get(used)
                && self.bits.count <= 55
            {
                self.bits.buffer |= u64::from(*byte) << self.bits.count;
                self.bits.count += 8;
                used += 1;
            }
            // Nothing is taken before a whole symbol is there.
            let Bits { mut buffer, mut count } = self.bits;
            let mut take = |bits: u32, buffer: &mut u64| {
                *buffer >>= bits;
                count.checked_sub(bits).map(|left| count = left).is_some()
            };
            let mut entry = litlen[small(buffer & mask(LITLEN_BITS))];
            if entry & tables::SUBTABLE != 0 {
                if !take(LITLEN_BITS, &mut buffer) {
                    break;
                }
                entry = litlen[tables::below(entry, buffer) % litlen.len()];
            }
            let before = buffer;
            if !take(entry & 63, &mut buffer) {
                break;
            }
            if entry & tables::LITERAL != 0 {
                literal(out, at, entry);
                at += 1;
                self.bits = Bits { buffer, count };
                continue;
            }
            if entry & tables::SPECIAL != 0 {
                if entry & tables::END == 0 {
                    return Err(corrupt("a code stands for nothing"));
                }
                self.bits = Bits { buffer, count };
                return Ok((true, used, at));
            }
            let length = tables::value(entry, before);
            let mut entry = dist[small(buffer & mask(DIST_BITS))];
            if entry & tables::SUBTABLE != 0 {
                if !take(DIST_BITS, &mut buffer) {
                    break;
                }
                entry = dist[tables::below(entry, buffer) % dist.len()];
            }
            let before = buffer;
            if !take(entry & 63, &mut buffer) {
                break;
            }
            if entry & tables::SPECIAL != 0 {
                return Err(corrupt("a code of a distance stands for nothing"));
            }
            let distance = tables::value(entry, before);
            self.bits = Bits { buffer, count };
            if distance > at - start {
                return Err(too_far());
            }
            copy(out, at, distance, length);
            at += length;
        }
        Ok((false, used, at))
    }
}

impl Bits {
    /// Makes so many bits available, at most 48; `false` when the input ends before. Takes no byte that is not needed.
    fn try_need(&mut self, input: &mut impl BufRead, count: u32) -> io::Result<bool> {
        while self.count < count {
            let Some(byte) = input.fill_buf()?.first().copied() else { return Ok(false) };
            input.consume(1);
            self.buffer |= u64::from(byte) << self.count;
            self.count += 8;
        }
        Ok(true)
    }

    fn need(&mut self, input: &mut impl BufRead, count: u32) -> io::Result<()> {
        if self.try_need(input, count)? { Ok(()) } else { Err(truncated()) }
    }

    /// Takes bits that are there.
    fn take(&mut self, count: u32) -> u64 {
        let bits = self.buffer & mask(count);
        self.drop(count);
        bits
    }

    fn drop(&mut self, count: u32) {
        self.buffer >>= count;
        self.count -= count;
    }

    /// Copies bytes, from a whole one on: what is in the buffer, or what there is of the input.
    fn copy(&mut self, input: &mut impl BufRead, to: &mut [u8]) -> io::Result<usize> {
        if self.count >= 8 {
            to[0] = self.take(8).to_le_bytes()[0];
            return Ok(1);
        }
        let from = input.fill_buf()?;
        if from.is_empty() {
            return Err(truncated());
        }
        let count = from.len().min(to.len());
        to[..count].copy_from_slice(&from[..count]);
        input.consume(count);
        Ok(count)
    }
}

/// Writes the literal of an entry.
#[inline(always)]
fn literal(out: &mut Buffer, at: usize, entry: u32) {
    let [_, _, byte, _] = entry.to_le_bytes();
    out[at % SIZE] = byte;
}

/// Copies `length` bytes from `distance` before `at` to `at`. They may overlap: then they are a pattern. May write
/// beyond them, less than [`STEP`].
#[inline(always)]
fn copy(out: &mut Buffer, at: usize, distance: usize, length: usize) {
    let (mut from, mut to, end) = (at - distance, at, at + length);
    if distance >= 16 {
        loop {
            step::<16>(out, from, to);
            (from, to) = (from + 16, to + 16);
            if to >= end {
                return;
            }
        }
    } else if distance == 1 {
        let bytes = [out[from % SIZE]; 16];
        while to < end {
            put(out, to, bytes);
            to += 16;
        }
    } else if distance >= 8 {
        while to < end {
            step::<8>(out, from, to);
            (from, to) = (from + 8, to + 8);
        }
    } else {
        // The pattern is made longer until it can be copied in steps.
        while to < end && to - from < 8 {
            step::<8>(out, from, to);
            to += to - from;
        }
        while to < end {
            step::<8>(out, from, to);
            (from, to) = (from + 8, to + 8);
        }
    }
}

#[inline(always)]
fn step<const N: usize>(out: &mut Buffer, from: usize, to: usize) {
    let bytes = out[from % SIZE..].first_chunk::<N>().map_or([0; N], |bytes| *bytes);
    put(out, to, bytes);
}

/// Writes bytes at a place.
#[inline(always)]
fn put<const N: usize>(out: &mut Buffer, at: usize, bytes: [u8; N]) {
    if let Some(place) = out[at % SIZE..].first_chunk_mut() {
        *place = bytes;
    }
}

/// The next eight bytes. There are more.
#[inline(always)]
fn word(input: &[u8], from: usize) -> u64 {
    input.get(from..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

#[inline(always)]
fn mask(bits: u32) -> u64 {
    (1 << bits) - 1
}

/// Of a value that fits.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "values are below 2^16")]
fn small(value: u64) -> usize {
    value as usize
}

fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of the compressed data")
}

fn corrupt(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("compressed data is damaged: {reason}"))
}

fn too_far() -> io::Error {
    corrupt("a distance leads to before the beginning")
}

fn unfit(_: Unfit) -> io::Error {
    corrupt("a block's codes do not fit together")
}
