//! File system layers: compressed tar archives that become directories.
//!
//! `tar` reads the archive, `compression` undoes gzip and zstd, `extract` decides what an entry means, and one of
//! its two sinks writes files: with directory handles and Linux's own whiteouts, or portably. `unpack` runs this
//! for the layers of an image and gives the result its place in the store. The other way, `diff` makes an archive of
//! what a container changed, with `write`, and `merged` one of all layers together.

pub(crate) mod commit;
pub(crate) mod compression;
#[cfg(target_os = "linux")]
pub(crate) mod diff;
pub(crate) mod extract;
mod gzip;
pub(crate) mod inflate;
pub(crate) mod merged;
#[cfg(target_os = "linux")]
pub(crate) mod plain;
mod stream;
pub(crate) mod tar;
pub(crate) mod unpack;
pub(crate) mod write;

use std::io;

/// Most bytes that a layer may unpack to. Far above any image seen in practice, far below what fills a disk
/// unnoticed.
pub(crate) const MAX_UNPACKED: u64 = 64 << 30;
/// Up to here the compression ratio does not matter.
const FREE_OF_RATIO: u64 = 1 << 30;
/// Beyond [`FREE_OF_RATIO`], how many bytes a compressed byte may become. Text reaches about 10, disk images with
/// much free space about 100; gzip ends at 1032, zstd hardly ends at all.
const MAX_RATIO: u64 = 250;
/// Most entries of one layer. A whole distribution has about 300,000 files.
pub(crate) const MAX_ENTRIES: u64 = 4_000_000;

/// The largest tar that this many compressed bytes may become.
pub(crate) fn max_unpacked(compressed: u64) -> u64 {
    compressed.saturating_mul(MAX_RATIO).clamp(FREE_OF_RATIO, MAX_UNPACKED)
}

/// Why reading an archive failed.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The source or the disk.
    Io(io::Error),
    /// The archive.
    Bad {
        /// The entry's name, if it is one entry's fault.
        entry: Option<String>,
        /// What is wrong.
        reason: String,
    },
}

impl Fault {
    pub(crate) fn bad(reason: impl Into<String>) -> Self {
        Self::Bad { entry: None, reason: reason.into() }
    }

    /// Names the entry, if nothing more precise is known.
    pub(crate) fn at(self, path: &[u8]) -> Self {
        match self {
            Self::Bad { entry: None, reason } => Self::Bad { entry: Some(display(path)), reason },
            Self::Io(e) if !e.get_ref().is_some_and(|inner| inner.is::<crate::Error>()) => {
                Self::Io(io::Error::new(e.kind(), format!("{}: {e}", display(path).escape_default())))
            }
            other => other,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

#[cfg(target_os = "linux")]
impl From<rustix::io::Errno> for Fault {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
