//! Undoing gzip (RFC 1952): members one after the other, each with its checksum and length.
//!
//! As elsewhere, what follows the last member must be another one: trailing bytes are an error, and so is an empty
//! file. Names, comments and times in the headers are passed over.

use std::io;
use std::io::BufRead;
use std::io::Read;

use super::inflate::Buffer;
use super::inflate::Inflate;
use super::inflate::ROOM;
use super::inflate::SIZE;
use super::inflate::WINDOW;
use super::inflate::buffer;

/// Longest name, comment or extra field of a header.
const MAX_FIELD: usize = 64 << 10;

/// The plain content of a gzip stream, written where the caller wants it.
#[derive(Debug)]
pub(super) struct Gunzip<R> {
    input: R,
    inflate: Inflate,
    /// Whether a member's content comes next, and not a header or the end.
    inside: bool,
    /// Whether there was a member.
    begun: bool,
    crc: flate2::Crc,
    /// Plain bytes of the current member.
    size: u64,
}

impl<R: BufRead> Gunzip<R> {
    pub(super) fn new(input: R) -> Self {
        let (inflate, crc) = (Inflate::new(), flate2::Crc::new());
        Self { input, inflate, inside: false, begun: false, crc, size: 0 }
    }

    /// Writes what comes next to `out[at..]` until the buffer is nearly full, and returns where it ends: at `at` only
    /// when the stream has ended. `out[..at]` ends with the last [`WINDOW`] bytes of what came before, or all of it.
    ///
    /// # Errors
    /// `InvalidData` and `UnexpectedEof` for what is no gzip stream; the input's.
    pub(super) fn fill(&mut self, out: &mut Buffer, mut at: usize) -> io::Result<usize> {
        while at + ROOM <= SIZE {
            if !self.inside {
                if !self.header()? {
                    break;
                }
                self.inflate.restart();
                (self.crc, self.size) = (flate2::Crc::new(), 0);
                (self.inside, self.begun) = (true, true);
            }
            // Nothing before the member is part of it.
            let start = at - at.min(usize::try_from(self.size).unwrap_or(at));
            let end = self.inflate.fill(&mut self.input, out, start, at, SIZE)?;
            self.crc.update(&out[at..end]);
            self.size += (end - at) as u64;
            at = end;
            if self.inflate.is_done() {
                self.trailer()?;
                self.inside = false;
            }
        }
        Ok(at)
    }

    fn byte(&mut self) -> io::Result<u8> {
        let end = || io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of the gzip data");
        self.inflate.byte(&mut self.input)?.ok_or_else(end)
    }

    fn number<const N: usize>(&mut self) -> io::Result<u32> {
        (0..N).try_fold(0, |number, at| Ok(number | u32::from(self.byte()?) << (8 * at)))
    }

    /// Reads a header; `false` at the end of the stream.
    fn header(&mut self) -> io::Result<bool> {
        match self.inflate.byte(&mut self.input)? {
            None if self.begun => return Ok(false),
            None => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "unexpected end of the gzip data"));
            }
            Some(0x1f) => {}
            Some(_) => return Err(self.no_header()),
        }
        let mut head = [0x1f; 10];
        for place in &mut head[1..] {
            *place = self.byte()?;
        }
        let flags = head[3];
        // The second byte of the name, the only method, and flags that mean something.
        if head[1] != 0x8b || head[2] != 8 || flags & 0xe0 != 0 {
            return Err(self.no_header());
        }
        let mut sum = flate2::Crc::new();
        sum.update(&head);
        if flags & 4 != 0 {
            let mut length = [self.byte()?, self.byte()?];
            sum.update(&length);
            for _ in 0..u16::from_le_bytes(length) {
                length[0] = self.byte()?;
                sum.update(&length[..1]);
            }
        }
        for flag in [8, 16] {
            if flags & flag != 0 {
                let mut length = 0;
                loop {
                    let byte = self.byte()?;
                    sum.update(&[byte]);
                    length += 1;
                    if byte == 0 {
                        break;
                    }
                    if length > MAX_FIELD {
                        return Err(damaged("a field of a gzip header is too long"));
                    }
                }
            }
        }
        if flags & 2 != 0 && self.number::<2>()? != sum.sum() & 0xffff {
            return Err(damaged("the checksum of a gzip header is wrong"));
        }
        Ok(true)
    }

    fn no_header(&self) -> io::Error {
        damaged(if self.begun { "trailing garbage after the gzip data" } else { "invalid gzip header" })
    }

    fn trailer(&mut self) -> io::Result<()> {
        self.inflate.align();
        let (crc, size) = (self.number::<4>()?, self.number::<4>()?);
        if crc != self.crc.sum() {
            return Err(damaged("the checksum of gzip data is wrong"));
        }
        if u64::from(size) != self.size & 0xffff_ffff {
            return Err(damaged("the length of gzip data is wrong"));
        }
        Ok(())
    }
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

/// [`Gunzip`] for those who want to read.
pub(super) struct Reader<R> {
    gunzip: Gunzip<R>,
    /// The window and what comes after it; of that, what was not read yet.
    buffer: Box<Buffer>,
    at: usize,
    end: usize,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("left", &(self.end - self.at)).finish_non_exhaustive()
    }
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { gunzip: Gunzip::new(input), buffer: buffer(), at: 0, end: 0 }
    }
}

impl<R: BufRead> Read for Reader<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end && !to.is_empty() {
            let keep = self.end.min(WINDOW);
            self.buffer.copy_within(self.end - keep..self.end, 0);
            (self.at, self.end) = (keep, keep);
            self.end = self.gunzip.fill(&mut self.buffer, keep)?;
        }
        let count = (&self.buffer[self.at..self.end]).read(to)?;
        self.at += count;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    fn packed(content: &[u8], level: u32) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(level));
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        Reader::new(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    /// What another implementation says.
    fn others(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        flate2::bufread::MultiGzDecoder::new(bytes).read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn headers_with_everything_are_read() {
        let bare = packed(b"content", 6);
        let mut full = vec![0x1f, 0x8b, 8, 4 | 8 | 16 | 2, 1, 2, 3, 4, 0, 255];
        full.extend([3, 0, b'a', 0, b'b']);
        full.extend(b"name\0comment\0");
        let mut sum = flate2::Crc::new();
        sum.update(&full);
        full.extend(&sum.sum().to_le_bytes()[..2]);
        let whole = [&full[..], &bare[10..]].concat();
        assert_eq!(read(&whole).unwrap(), b"content");
        for at in [4, 10, 13, 17, full.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            assert!(read(&bad).is_err(), "{at}");
        }
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]).unwrap_err().kind(), io::ErrorKind::UnexpectedEof, "{end}");
        }
    }

    #[test]
    fn every_byte_of_the_trailer_counts() {
        let whole = packed(&[5; 100_000], 6);
        for back in 1..=8 {
            let mut bad = whole.clone();
            let at = bad.len() - back;
            bad[at] ^= 0x10;
            assert_eq!(read(&bad).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
        let mut reserved = whole.clone();
        reserved[3] = 0x20;
        assert!(read(&reserved).is_err());
        assert!(read(&[&whole[..], b"\0"].concat()).unwrap_err().to_string().contains("trailing"));
    }

    /// A match must not reach into the member before.
    #[test]
    fn members_do_not_share_their_window() {
        // One block with fixed codes: a match of 3 bytes at distance 1, and the end.
        let bits = [0b0000_0011_u8, 0b0000_0010, 0b0000_0000, 0];
        let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        member.extend(bits);
        member.extend([0; 8]);
        let error = read(&[packed(b"aaaa", 6), member].concat()).unwrap_err();
        assert!(error.to_string().contains("before the beginning"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn damage_is_found_where_others_find_it(
            seed in any::<u64>(), length in 0..200_000_usize, level in 0..10_u32, flips in 0..3_usize, cut in 0..50_usize,
        ) {
            let content = crate::layer::inflate::tests::content(seed, length);
            let mut bytes = [packed(&content, level), packed(&content[..length / 3], 9 - level)].concat();
            for flip in 0..flips {
                let at = usize::try_from(seed.rotate_left(7 * u32::try_from(flip).unwrap())).unwrap() % bytes.len();
                bytes[at] ^= 1 << (seed % 8);
            }
            let keep = bytes.len() - cut.saturating_sub(40).min(bytes.len());
            bytes.truncate(keep);
            match (read(&bytes), others(&bytes)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(ours, theirs),
                (Err(_), Err(_)) => {}
                // A flag of the header without a meaning is refused here only.
                (Err(_), Ok(_)) => prop_assert!(flips > 0),
                (ours, theirs) => prop_assert!(false, "{:?} and {:?}", ours.map(|o| o.len()), theirs.map(|t| t.len())),
            }
        }
    }
}
