//! Writing tar archives that are the same for the same files: ustar headers, and pax records only where those cannot
//! say it. User and group names, access times and everything else that differs between hosts is left out.

use std::io;
use std::io::Read;
use std::io::Write;

use super::tar::Entry;
use super::tar::Kind;

const BLOCK: usize = 512;
/// Largest numbers of the octal fields with 7 and 11 digits.
const MAX_7: u64 = 0o7_777_777;
const MAX_11: u64 = 0o77_777_777_777;

/// Writes entries in the order in which they are given.
pub(crate) struct TarWriter<W> {
    inner: W,
    buffer: Vec<u8>,
}

impl<W> std::fmt::Debug for TarWriter<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarWriter").finish_non_exhaustive()
    }
}

impl<W: Write> TarWriter<W> {
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, buffer: Vec::new() }
    }

    /// Writes one entry. `content` must have exactly the entry's size, with its holes; more is not read.
    ///
    /// # Errors
    /// The writer's and the reader's; `UnexpectedEof` when the content is too short.
    pub(crate) fn append(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let mut name = entry.path.clone();
        if name.is_empty() {
            name.push(b'.');
        }
        if entry.kind == Kind::Dir {
            name.push(b'/');
        }
        let mut records = Vec::new();
        let mut block = [0; BLOCK];
        if !put_name(&mut block, &name) {
            record(&mut records, b"path", &name);
        }
        if entry.link.len() <= 100 {
            block[157..157 + entry.link.len()].copy_from_slice(&entry.link);
        } else {
            record(&mut records, b"linkpath", &entry.link);
        }
        if [&name, &entry.link].iter().any(|text| text.len() > 100 && std::str::from_utf8(text).is_err()) {
            // Before the names that it is about.
            let mut first = Vec::new();
            record(&mut first, b"hdrcharset", b"BINARY");
            first.append(&mut records);
            records = first;
        }
        let meta = &entry.meta;
        octal(&mut block[100..108], meta.mode.into());
        for (field, key, id) in [(108..116, &b"uid"[..], meta.uid), (116..124, b"gid", meta.gid)] {
            number(&mut block[field], &mut records, key, id.into(), MAX_7);
        }
        let size = if entry.kind == Kind::File { entry.size } else { 0 };
        number(&mut block[124..136], &mut records, b"size", size, MAX_11);
        let seconds = u64::try_from(meta.mtime.0).ok().filter(|seconds| *seconds <= MAX_11);
        octal(&mut block[136..148], seconds.unwrap_or(0));
        if seconds.is_none() || meta.mtime.1 != 0 {
            record(&mut records, b"mtime", time(meta.mtime).as_bytes());
        }
        block[156] = match entry.kind {
            Kind::File => b'0',
            Kind::HardLink => b'1',
            Kind::Symlink => b'2',
            Kind::Char => b'3',
            Kind::Block => b'4',
            Kind::Dir => b'5',
            Kind::Fifo => b'6',
        };
        octal(&mut block[329..337], entry.device.0.into());
        octal(&mut block[337..345], entry.device.1.into());
        for (name, value) in &meta.xattrs {
            record(&mut records, &[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
        if !records.is_empty() {
            self.extended(&records)?;
        }
        self.inner.write_all(seal(&mut block))?;
        self.content(size, content)
    }

    /// Writes the end of the archive.
    ///
    /// # Errors
    /// The writer's.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.inner.write_all(&[0; 2 * BLOCK])?;
        // Not flushed: packers make another stream of that.
        Ok(self.inner)
    }

    fn extended(&mut self, records: &[u8]) -> io::Result<()> {
        let mut block = [0; BLOCK];
        block[..14].copy_from_slice(b"PaxHeaders.0/x");
        octal(&mut block[100..108], 0o644);
        octal(&mut block[108..116], 0);
        octal(&mut block[116..124], 0);
        octal(&mut block[124..136], records.len() as u64);
        octal(&mut block[136..148], 0);
        block[156] = b'x';
        octal(&mut block[329..337], 0);
        octal(&mut block[337..345], 0);
        self.inner.write_all(seal(&mut block))?;
        self.content(records.len() as u64, &mut &records[..])
    }

    fn content(&mut self, size: u64, content: &mut dyn Read) -> io::Result<()> {
        self.buffer.resize(128 << 10, 0);
        let mut left = size;
        while left > 0 {
            let limit = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            match content.read(&mut self.buffer[..limit]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    self.inner.write_all(&self.buffer[..n])?;
                    left -= n as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        let padding = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        self.inner.write_all(&[0; BLOCK][..padding])
    }
}

/// Puts a name into the header, divided if it is long; `false` when it does not fit.
fn put_name(block: &mut [u8; BLOCK], name: &[u8]) -> bool {
    if name.len() <= 100 {
        block[..name.len()].copy_from_slice(name);
        return true;
    }
    // The slash between the two parts is not written. The second part must not be empty.
    let split = (name.len() - 101..name.len() - 1).find(|at| name[*at] == b'/' && (1..=155).contains(at));
    match split {
        Some(at) => {
            block[345..345 + at].copy_from_slice(&name[..at]);
            block[..name.len() - at - 1].copy_from_slice(&name[at + 1..]);
            true
        }
        None => {
            // What readers without pax see.
            block[..100].copy_from_slice(&name[name.len() - 100..]);
            false
        }
    }
}

fn number(field: &mut [u8], records: &mut Vec<u8>, key: &[u8], value: u64, max: u64) {
    if value <= max {
        octal(field, value);
    } else {
        octal(field, 0);
        record(records, key, value.to_string().as_bytes());
    }
}

/// Digits to the last byte but one, which ends them.
fn octal(field: &mut [u8], value: u64) {
    let width = field.len() - 1;
    let text = format!("{value:0width$o}");
    let digits = text.as_bytes();
    // Callers have looked at the size.
    field[..width].copy_from_slice(&digits[digits.len() - width..]);
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    for part in [b" ", key, b"=", value, b"\n"] {
        records.extend_from_slice(part);
    }
}

/// Decimal seconds, without zeros at the end of the fraction.
fn time((seconds, nanos): (i64, u32)) -> String {
    if nanos == 0 {
        return seconds.to_string();
    }
    // The fraction counts forward in memory and away from zero in text.
    let (sign, seconds, nanos) = if seconds < 0 {
        ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos)
    } else {
        ("", seconds.unsigned_abs(), nanos)
    };
    let fraction = format!("{nanos:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

fn seal(block: &mut [u8; BLOCK]) -> &[u8] {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    block
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::tar::Meta;
    use crate::layer::tar::TarReader;

    fn entry(path: &[u8], kind: Kind) -> Entry {
        let meta = Meta { mode: 0o644, ..Meta::default() };
        Entry { path: path.to_vec(), kind, link: Vec::new(), size: 0, sparse: None, meta, device: (0, 0) }
    }

    fn there_and_back(entry: &Entry, content: &[u8]) -> (Entry, Vec<u8>, usize) {
        let mut writer = TarWriter::new(Vec::new());
        writer.append(entry, &mut &content[..]).unwrap();
        let archive = writer.finish().unwrap();
        let mut reader = TarReader::new(&archive[..]);
        let back = reader.next_entry().unwrap().unwrap();
        let mut read = Vec::new();
        reader.read_to_end(&mut read).unwrap();
        assert!(reader.next_entry().unwrap().is_none());
        (back, read, archive.len())
    }

    #[test]
    fn plain_entries_take_one_block() {
        let mut long = [&[b'd'; 150][..], b"/", &[b'f'; 90]].concat();
        for path in [&b"a"[..], &[b'x'; 100], &long, "ä/\u{1F600}".as_bytes(), b"\xff/\x80"] {
            assert_eq!(there_and_back(&entry(path, Kind::File), b"").2, 3 * BLOCK, "{}", path.len());
        }
        long.extend_from_slice(&[b'f'; 20]);
        assert_eq!(there_and_back(&entry(&long, Kind::File), b"").2, 5 * BLOCK);
        // A directory's slash counts.
        assert_eq!(there_and_back(&entry(&[b'x'; 100], Kind::Dir), b"").2, 5 * BLOCK);
    }

    #[test]
    fn short_content_is_an_error() {
        let mut file = entry(b"a", Kind::File);
        file.size = 4;
        let error = TarWriter::new(Vec::new()).append(&file, &mut &b"abc"[..]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            names in proptest::collection::vec(proptest::collection::vec(1..=255u8, 1..250), 1..5),
            ids in any::<(u32, u32)>(),
            mtime in (any::<i64>(), 0..1_000_000_000u32),
            mode in 0..0o10000u32,
            xattrs in proptest::collection::btree_map("[a-z.]{1,9}", proptest::collection::vec(any::<u8>(), 0..9), 0..3),
            content in proptest::collection::vec(any::<u8>(), 0..2000),
            link in proptest::collection::vec(1..=255u8, 1..300),
            kind in prop::sample::select(vec![Kind::File, Kind::Dir, Kind::Symlink, Kind::Char, Kind::Fifo]),
        ) {
            let path: Vec<Vec<u8>> = names
                .into_iter()
                .map(|mut name| {
                    name.iter_mut().filter(|b| **b == b'/').for_each(|b| *b = b'_');
                    if name.iter().all(|b| *b == b'.') { name.push(b'x'); }
                    name
                })
                .collect();
            let mut written = entry(&path.join(&b'/'), kind);
            let seconds = if mtime.0 == i64::MIN { 0 } else { mtime.0 };
            written.meta = Meta {
                mode,
                uid: ids.0.min(u32::MAX - 1),
                gid: ids.1.min(u32::MAX - 1),
                mtime: (seconds, mtime.1),
                xattrs: xattrs.into_iter().map(|(k, v)| (k.into_bytes(), v)).collect(),
            };
            match kind {
                Kind::File => written.size = content.len() as u64,
                Kind::Symlink => written.link = link,
                Kind::Char => written.device = (4095, 1_048_575),
                _ => {}
            }
            let (back, read, _) = there_and_back(&written, &content);
            prop_assert_eq!(&back.path, &written.path);
            prop_assert_eq!((back.kind, &back.link, back.device), (written.kind, &written.link, written.device));
            prop_assert_eq!(&back.meta, &written.meta);
            prop_assert_eq!(read.len() as u64, written.size);
            prop_assert_eq!(back.size, written.size);
        }
    }
}
