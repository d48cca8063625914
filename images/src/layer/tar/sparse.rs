//! Sparse files: which parts of a file an archive contains. What is between them is zero and costs nothing.
//!
//! Four forms, all of GNU tar: the old header with blocks of more parts after it, and in pax headers version 0.0
//! (a record for each number), 0.1 (one record with all) and 1.0 (in front of the content).

use super::header;
use super::header::Block;
use super::pax::damaged;
use super::pax::integer;
use super::pax::text;
use crate::layer::Fault;

/// Most parts of one file: the list is held in memory.
const MAX_PARTS: usize = 1 << 16;

/// A part of a file that the archive contains: offset in the file and length.
pub(crate) type Part = (u64, u64);

/// A sparse file: its whole size, and its parts in order. They do not overlap and are within the size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) size: u64,
    pub(crate) parts: Vec<Part>,
}

/// What the records of a pax header said.
#[derive(Debug, Default)]
pub(super) struct Records {
    seen: bool,
    version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    /// The numbers of versions 0.0 and 0.1.
    numbers: Vec<u64>,
}

/// Where the list of parts is.
pub(super) enum Where {
    /// Here.
    Known(Map),
    /// In front of the content, for a file of this size.
    InContent(u64),
}

impl Records {
    /// A record `GNU.sparse.KEY`.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        self.seen = true;
        match key {
            b"major" => self.version.0 = Some(integer(value)?),
            b"minor" => self.version.1 = Some(integer(value)?),
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(integer(value)?),
            b"offset" | b"numbytes" => {
                // Offsets and lengths take turns.
                if (key == b"offset") != self.numbers.len().is_multiple_of(2) {
                    return Err(damaged());
                }
                self.push(integer(value)?)?;
            }
            b"map" => {
                self.numbers.clear();
                for number in value.split(|b| *b == b',').filter(|_| !value.is_empty()) {
                    self.push(integer(number)?)?;
                }
            }
            // `numblocks` says only how many there are.
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<(), Fault> {
        if self.numbers.len() == 2 * MAX_PARTS {
            return Err(too_many());
        }
        self.numbers.push(number);
        Ok(())
    }

    /// Whether, and how, the next file is sparse. `stored` is what the archive contains of it.
    pub(super) fn resolve(&self, stored: u64) -> Result<Option<Where>, Fault> {
        if !self.seen {
            return Ok(None);
        }
        let size = self.size.ok_or_else(|| Fault::bad("sparse file without its size"))?;
        match self.version {
            (Some(1), Some(0)) => Ok(Some(Where::InContent(size))),
            (None, None) | (Some(0), Some(0 | 1)) => {
                Map::new(size, &self.numbers, stored).map(|map| Some(Where::Known(map)))
            }
            _ => Err(Fault::bad("sparse file of an unknown version")),
        }
    }
}

impl Map {
    /// Bytes that the archive contains.
    pub(crate) fn stored(&self) -> u64 {
        self.parts.iter().map(|(_, length)| length).sum()
    }

    fn new(size: u64, numbers: &[u64], stored: u64) -> Result<Self, Fault> {
        let bad = || Fault::bad("parts of a sparse file do not fit");
        if !numbers.len().is_multiple_of(2) {
            return Err(bad());
        }
        let mut parts: Vec<Part> = Vec::new();
        let (mut at, mut sum) = (0, 0);
        for pair in numbers.chunks_exact(2) {
            let (offset, length) = (pair[0], pair[1]);
            let end = offset.checked_add(length).filter(|end| *end <= size).ok_or_else(bad)?;
            if offset < at {
                return Err(bad());
            }
            // The last part of many writers has no length and says only where the file ends.
            if length > 0 {
                parts.push((offset, length));
            }
            at = end;
            sum += length;
        }
        if sum == stored { Ok(Self { size, parts }) } else { Err(bad()) }
    }

    /// The old form: four parts in the header, and 21 in each block after it. `next` reads such a block.
    pub(super) fn of_header(
        block: &Block,
        stored: u64,
        mut next: impl FnMut() -> Result<Block, Fault>,
    ) -> Result<Self, Fault> {
        let size = header::size(&block[483..495], "size of sparse file")?;
        let mut numbers = Vec::new();
        // `false` at the end of the list.
        let mut collect = |entries: &[u8]| -> Result<bool, Fault> {
            for entry in entries.chunks_exact(24) {
                if entry[0] == 0 && entry[12] == 0 {
                    return Ok(false);
                }
                if numbers.len() == 2 * MAX_PARTS {
                    return Err(too_many());
                }
                numbers.push(header::size(&entry[..12], "offset of sparse file")?);
                numbers.push(header::size(&entry[12..], "length of sparse file")?);
            }
            Ok(true)
        };
        let mut goes_on = collect(&block[386..482])?;
        let mut more = block[482] != 0;
        while more {
            let block = next()?;
            goes_on = goes_on && collect(&block[..504])?;
            more = block[504] != 0;
        }
        Self::new(size, &numbers, stored)
    }

    /// Version 1.0: decimal numbers, one on each line, the first says how many parts follow. `next` reads a block
    /// of the content. Returns the blocks' bytes as well, which are no part of the file.
    pub(super) fn of_content(
        size: u64,
        stored: u64,
        mut next: impl FnMut() -> Result<Block, Fault>,
    ) -> Result<(Self, u64), Fault> {
        let bad = || Fault::bad("damaged list of parts of a sparse file");
        let (mut line, mut numbers, mut left) = (Vec::new(), Vec::new(), None::<usize>);
        let mut used = 0;
        while left != Some(0) {
            let block = next()?;
            used += block.len() as u64;
            for byte in block {
                if left == Some(0) {
                    break;
                }
                if byte != b'\n' {
                    // More digits than a number has.
                    if line.len() == 20 {
                        return Err(bad());
                    }
                    line.push(byte);
                    continue;
                }
                let number: u64 = text(&line).and_then(|t| t.parse().ok()).ok_or_else(bad)?;
                line.clear();
                match &mut left {
                    None => {
                        let parts = usize::try_from(number).ok().filter(|n| *n <= MAX_PARTS);
                        left = Some(parts.ok_or_else(too_many)? * 2);
                    }
                    Some(left) => {
                        numbers.push(number);
                        *left -= 1;
                    }
                }
            }
        }
        let stored = stored.checked_sub(used).ok_or_else(bad)?;
        Ok((Self::new(size, &numbers, stored)?, used))
    }
}

fn too_many() -> Fault {
    Fault::bad(format!("sparse file has more than {MAX_PARTS} parts"))
}

/// How far the reading of a sparse file is.
#[derive(Debug)]
pub(super) struct Cursor {
    map: Map,
    /// The part at or after `at`.
    part: usize,
    at: u64,
}

impl Cursor {
    pub(super) fn new(map: Map) -> Self {
        Self { map, part: 0, at: 0 }
    }

    /// Zero bytes up to the next part.
    pub(super) fn hole(&self) -> u64 {
        self.map.parts.get(self.part).map_or(self.map.size, |(offset, _)| *offset).saturating_sub(self.at)
    }

    /// Bytes left in the part at hand.
    pub(super) fn stored(&self) -> u64 {
        self.map.parts.get(self.part).map_or(0, |(offset, length)| offset + length - self.at)
    }

    pub(super) fn advance(&mut self, bytes: u64) {
        self.at += bytes;
        if self.map.parts.get(self.part).is_some_and(|(offset, length)| offset + length == self.at) {
            self.part += 1;
        }
    }
}
