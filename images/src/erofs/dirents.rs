//! The content of directories: blocks of entries with their names, sorted by name over all blocks.

use super::format::BLOCK;
use super::format::BLOCK_LENGTH;

const ENTRY: usize = 12;

/// The type of a directory's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileType {
    Regular = 1,
    Directory = 2,
    Char = 3,
    Block = 4,
    Fifo = 5,
    Symlink = 7,
}

/// Bytes of a directory with these names, `.` and `..` among them.
pub(super) fn size<'n>(names: impl Iterator<Item = &'n [u8]>) -> u64 {
    let (mut full, mut used) = (0, 0);
    for name in names {
        let more = ENTRY + name.len();
        if used + more > BLOCK_LENGTH {
            full += 1;
            used = 0;
        }
        used += more;
    }
    full * BLOCK + used as u64
}

/// The blocks of a directory, the last one as long as it is. Entries come sorted: name, number of the file, type.
pub(super) fn blocks<'n>(entries: impl Iterator<Item = (&'n [u8], u64, FileType)>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut block: Vec<(&[u8], u64, FileType)> = Vec::new();
    let mut used = 0;
    for entry in entries {
        let more = ENTRY + entry.0.len();
        if used + more > BLOCK_LENGTH {
            flush(&mut out, &block);
            out.resize(out.len().next_multiple_of(BLOCK_LENGTH), 0);
            block.clear();
            used = 0;
        }
        used += more;
        block.push(entry);
    }
    flush(&mut out, &block);
    out
}

fn flush(out: &mut Vec<u8>, block: &[(&[u8], u64, FileType)]) {
    let mut name_at = block.len() * ENTRY;
    for (name, number, kind) in block {
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(&u16::try_from(name_at).unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&[*kind as u8, 0]);
        name_at += name.len();
    }
    for (name, ..) in block {
        out.extend_from_slice(name);
    }
}
