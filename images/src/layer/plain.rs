//! A layer kept as the plain tar that it is: decompressed, checked like an extraction, and written to one file.
//!
//! The tar and what is made of it can be made again from the blob, so nothing here is synced: a pull does not wait for
//! the disk to take half a gigabyte that it need not keep. Instead the record says in which run of the system the tar
//! was written. After another one has begun, it is hashed before it is used ([`crate::store`], `trees`).

use std::io;
use std::io::Read;
use std::io::Write as _;
use std::path::Path;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;

use super::Fault;
use super::stream;
use super::stream::Pieces;
use crate::Descriptor;
use crate::Digest;
use crate::Hasher;
use crate::digest::check;
use crate::erofs;
use crate::erofs::Scan;
use crate::erofs::TarSource;
use crate::error::Result;
use crate::media::Compression;
use crate::store::private;

/// The tar in a layer's folder, filled up with zeros to whole blocks: the kernel reads no half ones.
pub(crate) const TAR: &str = "tar";
/// Its record.
pub(crate) const TAR_RECORD: &str = "tar.json";
const BLOCK: u64 = 512;

/// What is known of a tar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TarRecord {
    /// Bytes of the archive itself.
    pub(crate) size: u64,
    /// The run of the system in which it was written; none when it is known to be on disk.
    #[serde(default)]
    pub(crate) boot: Option<String>,
}

impl TarRecord {
    /// Bytes of the file.
    pub(crate) fn file_size(&self) -> u64 {
        self.size.next_multiple_of(BLOCK)
    }
}

/// Writes the tar of a compressed stream into a folder, or only reads it if the stream is the tar and its blob can
/// serve for it. Returns what the archive holds and how long it is.
///
/// # Errors
/// Faults of the archive; the outer error is a wrong diff id.
pub(super) fn stage(
    dir: &Path,
    compression: Compression,
    input: &mut (dyn Read + Send),
    blob: &Descriptor,
    diff_id: &Digest,
) -> std::result::Result<Result<(Scan, u64)>, Fault> {
    let file = match compression {
        Compression::None => None,
        _ => Some(private().write(true).create_new(true).open(dir.join(TAR))?),
    };
    let (scan, hasher, size) = stream::with_plain(input, compression, blob.size, |pieces| {
        let mut spool =
            Spool { pieces, hasher: Hasher::new(diff_id.algorithm()), file: file.as_ref(), used: 0, size: 0 };
        let scan = erofs::scan(&mut spool)?;
        Ok((scan, spool.hasher, spool.size))
    })?;
    if let Some(file) = file {
        pad(&file, size)?;
    }
    let verified =
        check(&format!("uncompressed layer {}", blob.digest), diff_id, None, hasher.finish(), size);
    Ok(verified.map(|size| (scan, size)))
}

/// Makes a blob that is a plain tar serve as the layer's.
pub(super) fn share(blob: &Path, dir: &Path, size: u64) -> Result<()> {
    let tar = dir.join(TAR);
    if size.is_multiple_of(BLOCK) && fs::hard_link(blob, &tar).is_ok() {
        return Ok(());
    }
    let mut from = fs::File::open(blob)?;
    let mut to = private().write(true).create_new(true).open(tar)?;
    io::copy(&mut from, &mut to)?;
    Ok(pad(&to, size)?)
}

fn pad(file: &fs::File, size: u64) -> io::Result<()> {
    if size.is_multiple_of(BLOCK) { Ok(()) } else { file.set_len(size.next_multiple_of(BLOCK)) }
}

/// Names this run of the system, if it has a name.
pub(crate) fn boot_id() -> Option<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned()).filter(|id| !id.is_empty())
}

/// Hashes and writes the plain bytes in the pieces that they come in, while the headers among them are read.
struct Spool<'f> {
    pieces: Pieces,
    hasher: Hasher,
    file: Option<&'f fs::File>,
    /// Bytes that were read or skipped, and bytes that have come.
    used: u64,
    size: u64,
}

impl Spool<'_> {
    /// Takes the next piece; `false` at the end.
    fn take(&mut self) -> io::Result<bool> {
        let piece = self.pieces.next()?;
        self.hasher.update(piece);
        if let Some(mut file) = self.file {
            file.write_all(piece)?;
        }
        self.size += piece.len() as u64;
        Ok(!piece.is_empty())
    }
}

impl Read for Spool<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.pieces.rest().is_empty() && !self.take()? {
            return Ok(0);
        }
        let n = self.pieces.rest().read(buffer)?;
        self.pieces.consume(n);
        self.used += n as u64;
        Ok(n)
    }
}

impl TarSource for Spool<'_> {
    fn position(&self) -> u64 {
        self.used
    }

    fn skip(&mut self, count: u64) -> io::Result<bool> {
        let mut left = count;
        while left > 0 {
            if self.pieces.rest().is_empty() && !self.take()? {
                return Ok(false);
            }
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(self.pieces.rest().len());
            self.pieces.consume(n);
            self.used += n as u64;
            left -= n as u64;
        }
        Ok(true)
    }
}
