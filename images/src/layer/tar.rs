//! Reading tar archives: v7, ustar, star, pax and GNU, with every size bounded.
//!
//! Written by hand because a reader that trusts an archive's sizes holds a hostile "long name" of gigabytes in
//! memory. Where formats leave room, this reads as Go's reader does, and so as Docker, containerd and umoci: what an
//! image contains must not depend on who unpacks it. So global pax headers are passed over.

use std::io;
use std::io::Read;

use super::Fault;

mod header;
mod pax;
mod sparse;
#[cfg(test)]
pub(crate) mod tests;

use header::Block;
use header::number;
use header::until_nul;
use header::verify_checksum;
use pax::Extensions;
pub(crate) use sparse::Map;

const BLOCK: usize = 512;
/// Largest pax header or long name. Go's reader has the same limit.
const MAX_EXTENSION: u64 = 1 << 20;
/// Longest path of an entry, Linux's `PATH_MAX`.
pub(crate) const MAX_PATH: usize = 4096;
/// Longest path component, Linux's `NAME_MAX`.
const MAX_NAME: usize = 255;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Dir,
    Fifo,
    Char,
    Block,
}

/// One entry of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// Cleaned: relative, no `.`, no `..`, no empty component. Empty for the root itself.
    pub(crate) path: Vec<u8>,
    pub(crate) kind: Kind,
    /// As it stands for symbolic links, cleaned like `path` for hard links.
    pub(crate) link: Vec<u8>,
    /// Content bytes that follow; 0 unless a file. Holes of a sparse file count, and are read as zeros.
    pub(crate) size: u64,
    /// The parts of a sparse file that lie one after the other in the archive.
    pub(crate) sparse: Option<Map>,
    pub(crate) meta: Meta,
    pub(crate) device: (u32, u32),
}

/// What can be set on an extracted file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Sorted by name, each name once.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The content of an entry, in order.
pub(crate) trait Content: Read {
    /// Passes over zeros that the archive does not contain, and says how many they are.
    fn skip_hole(&mut self) -> u64;
}

/// Reads entries in order.
pub(crate) struct TarReader<R> {
    inner: R,
    /// Bytes of the current entry that the archive contains and that were not read yet.
    left: u64,
    /// Zero bytes after the content.
    padding: u64,
    /// Where the bytes belong, in a sparse file.
    sparse: Option<sparse::Cursor>,
    /// Whether the blocks that end an archive were there.
    ended: bool,
}

impl<R> std::fmt::Debug for TarReader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TarReader").field("left", &self.left).finish_non_exhaustive()
    }
}

impl<R: Read> Read for TarReader<R> {
    /// Reads the content of the current entry. Its early end is an error, never a short file.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut limit = clamp(self.left, buffer.len());
        if let Some(cursor) = &mut self.sparse {
            let zeros = clamp(cursor.hole(), buffer.len());
            if zeros > 0 {
                buffer[..zeros].fill(0);
                cursor.advance(zeros as u64);
                return Ok(zeros);
            }
            limit = clamp(cursor.stored(), limit);
        }
        if limit == 0 {
            return Ok(0);
        }
        let n = self.inner.read(&mut buffer[..limit])?;
        if n == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "archive ends within an entry"));
        }
        self.left -= n as u64;
        if let Some(cursor) = &mut self.sparse {
            cursor.advance(n as u64);
        }
        Ok(n)
    }
}

impl<R: Read> Content for TarReader<R> {
    fn skip_hole(&mut self) -> u64 {
        let Some(cursor) = &mut self.sparse else { return 0 };
        let zeros = cursor.hole();
        cursor.advance(zeros);
        zeros
    }
}

fn clamp(bytes: u64, limit: usize) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX).min(limit)
}

impl<R: Read> TarReader<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { inner, left: 0, padding: 0, sparse: None, ended: false }
    }

    /// Whether the archive ended with the blocks that mark its end, and not only with its file.
    pub(crate) fn has_end(&self) -> bool {
        self.ended
    }

    /// The next entry, after whatever is left of the current one's content. `None` after the end-of-archive
    /// blocks; everything up to the end of the stream was read then and was zero.
    pub(crate) fn next_entry(&mut self) -> Result<Option<Entry>, Fault> {
        let mut extensions = Extensions::default();
        let mut described = 0;
        let mut is_described = false;
        loop {
            self.skip()?;
            let mut block = [0; BLOCK];
            // Some writers leave out the end-of-archive blocks, and umoci even the padding before them. Nothing can be
            // missing then but whole entries, and those the digest would tell.
            if !self.fill(&mut block)? {
                return if is_described {
                    Err(Fault::bad("ends before an entry that it describes"))
                } else {
                    Ok(None)
                };
            }
            if block == [0; BLOCK] {
                self.expect_zeros()?;
                self.ended = true;
                return Ok(None);
            }
            verify_checksum(&block)?;
            let size = header::size(&block[124..136], "size")?;
            is_described = matches!(block[156], b'x' | b'L' | b'K');
            match block[156] {
                // What several of them say adds up in memory.
                b'x' => {
                    described += size.min(MAX_EXTENSION);
                    if described > MAX_EXTENSION {
                        return Err(too_large());
                    }
                    extensions.parse(&self.extension(size)?)?;
                }
                b'g' => drop(self.extension(size)?),
                b'L' => extensions.path = Some(until_nul(&self.extension(size)?)),
                b'K' => extensions.link = Some(until_nul(&self.extension(size)?)),
                flag => return self.entry(&block, flag, size, extensions).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        block: &Block,
        flag: u8,
        size: u64,
        mut extensions: Extensions,
    ) -> Result<Entry, Fault> {
        let raw_path = extensions
            .sparse
            .name
            .take()
            .or_else(|| extensions.path.take())
            .unwrap_or_else(|| header::path(block));
        let fail = |fault: Fault| fault.at(&raw_path);
        // Since v7 a directory may be a file whose name ends with a slash.
        let is_dir_by_name = raw_path.last() == Some(&b'/');
        let kind = match flag {
            0 | b'0' | b'7' if is_dir_by_name => Kind::Dir,
            0 | b'0' | b'7' | b'S' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Dir,
            b'6' => Kind::Fifo,
            other => {
                let reason = format!("unknown type {:?}", char::from(other));
                return Err(fail(Fault::bad(reason)));
            }
        };
        // Only files have content, also those that are directories by their name. Other sizes are leftovers of `stat`
        // in some writers; Go ignores them as well.
        let has_content = matches!(flag, 0 | b'0' | b'7' | b'S');
        let stored = if has_content { extensions.size.unwrap_or(size) } else { 0 };
        self.expect_content(stored);
        let sparse = match kind {
            Kind::File => self.sparse_map(block, flag, stored, &extensions).map_err(fail)?,
            _ => {
                // Nobody wants the content of a directory.
                io::copy(self, &mut io::sink())?;
                None
            }
        };
        let size = match (&sparse, kind) {
            (Some(map), _) => map.size,
            (None, Kind::File) => stored,
            (None, _) => 0,
        };
        self.sparse = sparse.clone().map(sparse::Cursor::new);
        let path = clean(&raw_path).map_err(fail)?;
        let link = extensions.link.take().unwrap_or_else(|| until_nul(&block[157..257]));
        let link = match kind {
            Kind::HardLink => clean(&link).map_err(fail)?,
            Kind::Symlink if link.is_empty() => {
                return Err(fail(Fault::bad("symbolic link without a target")));
            }
            Kind::Symlink if link.len() >= MAX_PATH || link.contains(&0) => {
                return Err(fail(Fault::bad("target of symbolic link is not valid")));
            }
            Kind::Symlink => link,
            _ => Vec::new(),
        };
        let small = |field: &[u8], what: &str| {
            number(field, what)
                .and_then(|n| u32::try_from(n).map_err(|_| Fault::bad(format!("{what} does not fit"))))
                .map_err(fail)
        };
        let id =
            |given: Option<u32>, field: &[u8], what| match given.map_or_else(|| small(field, what), Ok)? {
                // To the system this is no owner: it means that the owner shall not be changed.
                u32::MAX => Err(fail(Fault::bad(format!("{what} is not a valid one")))),
                id => Ok(id),
            };
        let (uid, gid) =
            (id(extensions.uid, &block[108..116], "uid")?, id(extensions.gid, &block[116..124], "gid")?);
        let mtime = match extensions.mtime {
            Some(mtime) => mtime,
            None => (number(&block[136..148], "mtime").map_err(fail)?, 0),
        };
        let mode = number(&block[100..108], "mode").map_err(fail)? & 0o7777;
        let device = match kind {
            Kind::Char | Kind::Block => {
                (small(&block[329..337], "major number")?, small(&block[337..345], "minor number")?)
            }
            _ => (0, 0),
        };
        let mode = u32::try_from(mode).unwrap_or_default();
        let meta = Meta { mode, uid, gid, mtime, xattrs: extensions.take_xattrs() };
        Ok(Entry { path, kind, link, size, sparse, meta, device })
    }

    /// Where the parts of a sparse file are, if the next file is one. Reads what of the list is not in headers.
    fn sparse_map(
        &mut self,
        block: &Block,
        flag: u8,
        stored: u64,
        extensions: &Extensions,
    ) -> Result<Option<Map>, Fault> {
        if flag == b'S' {
            return Map::of_header(block, stored, || self.block()).map(Some);
        }
        match extensions.sparse.resolve(stored)? {
            None => Ok(None),
            Some(sparse::Where::Known(map)) => Ok(Some(map)),
            Some(sparse::Where::InContent(size)) => {
                let (map, used) = Map::of_content(size, stored, || self.block())?;
                self.left = stored - used;
                Ok(Some(map))
            }
        }
    }

    fn block(&mut self) -> Result<Block, Fault> {
        let mut block = [0; BLOCK];
        if self.fill(&mut block)? { Ok(block) } else { Err(Fault::bad("archive is truncated")) }
    }

    pub(crate) fn into_inner(self) -> R {
        self.inner
    }

    pub(crate) fn get_mut(&mut self) -> &mut R {
        &mut self.inner
    }

    /// Passes over what the archive contains of the current entry with the help of a reader that can do so without
    /// reading; `false` from it means that the archive ends before.
    pub(crate) fn skip_content(
        &mut self,
        skip: impl FnOnce(&mut R, u64) -> io::Result<bool>,
    ) -> Result<(), Fault> {
        if !skip(&mut self.inner, self.left)? {
            return Err(Fault::bad("archive ends within an entry"));
        }
        self.left = 0;
        self.sparse = None;
        Ok(())
    }

    fn expect_content(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    /// The content of an entry that describes the next one.
    fn extension(&mut self, size: u64) -> Result<Vec<u8>, Fault> {
        if size > MAX_EXTENSION {
            return Err(too_large());
        }
        self.expect_content(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content)?;
        Ok(content)
    }

    fn skip(&mut self) -> Result<(), Fault> {
        self.sparse = None;
        io::copy(self, &mut io::sink())?;
        let mut padding = [0; BLOCK];
        let length = usize::try_from(self.padding).unwrap_or_default();
        // Whether the stream has ended here is found out with the next header.
        self.fill(&mut padding[..length])?;
        self.padding = 0;
        Ok(())
    }

    /// Fills a whole buffer; `false` when the stream was at its end already.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, Fault> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.inner.read(&mut buffer[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(Fault::bad("archive is truncated")),
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(true)
    }

    fn expect_zeros(&mut self) -> Result<(), Fault> {
        let mut buffer = [0; 8 << 10];
        loop {
            match self.inner.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(n) if buffer[..n].iter().all(|b| *b == 0) => {}
                Ok(_) => return Err(Fault::bad("trailing garbage after the end of the archive")),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn too_large() -> Fault {
    Fault::bad("extended header is larger than 1 MiB")
}

/// Absolute names become relative, as Docker does; `..` is refused, as it has no honest use.
fn clean(path: &[u8]) -> Result<Vec<u8>, Fault> {
    let mut cleaned = Vec::with_capacity(path.len());
    for component in path.split(|b| *b == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return Err(Fault::bad("name has .. in it")),
            _ if component.len() > MAX_NAME => return Err(Fault::bad("name is too long")),
            _ if component.contains(&0) => return Err(Fault::bad("name contains a zero byte")),
            _ => {}
        }
        if !cleaned.is_empty() {
            cleaned.push(b'/');
        }
        cleaned.extend_from_slice(component);
    }
    if cleaned.len() >= MAX_PATH {
        return Err(Fault::bad("name is too long"));
    }
    Ok(cleaned)
}
