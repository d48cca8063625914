//! An EROFS index over tar archives: a file system image that holds names and attributes only.
//!
//! The content of a file stays where it is, in the tar; the index says in which archive and at which block. A tar's
//! unit is 512 bytes and so is the block size here, so every file begins at a block. All layers of an image are
//! merged before they are written down: one image, one mount, one tree without whiteouts.
//!
//! `scan` reads an archive's headers by the extractor's own rules, `tree` is what they describe, `merge` puts one
//! layer on top of others as the kernel's overlay would, `write` lays the result out, with the structures of `format`,
//! the directories of `dirents` and the attributes of `xattrs`. The same layers always give the same bytes.
//!
//! Format: the kernel's `fs/erofs/erofs_fs.h`. Nothing is compressed.

mod dirents;
mod format;
mod merge;
pub(crate) mod scan;
mod tree;
mod write;
mod xattrs;

use std::io::Write;

pub(crate) use scan::HeaderReader;
pub(crate) use scan::Scan;
pub(crate) use scan::TarSource;
pub(crate) use scan::scan;

use crate::Digest;
use crate::Error;
use crate::error::Result;
use crate::layer::Fault;

/// One archive below an index, lowest first.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) diff_id: Digest,
    /// Bytes of the archive.
    pub(crate) size: u64,
    pub(crate) scan: Scan,
}

/// Writes the index of an image whose layers can all be indexed. Returns its size in bytes.
///
/// # Errors
/// The writer's, and faults of trees that the format cannot hold.
pub(crate) fn index(
    chain_id: &Digest,
    devices: Vec<Device>,
    to: impl Write,
) -> std::result::Result<u64, Fault> {
    let mut tree = tree::Tree::default();
    let mut slots = Vec::with_capacity(devices.len());
    for (number, device) in devices.into_iter().enumerate() {
        let number = u16::try_from(number + 1).map_err(|_| Fault::bad("has too many layers"))?;
        slots.push(format::Slot { tag: device.diff_id, size: device.size });
        merge::overlay(&mut tree, device.scan.into_tree(), number)?;
    }
    write::write(&tree, chain_id, &slots, to)
}

/// The index of some plain tar archives in memory, lowest first. This is the whole way that the layers of a pulled
/// image go, for tests and tools that have bytes.
///
/// # Errors
/// [`Error::InvalidLayer`] for an archive that is broken, hostile or holds what an index cannot.
pub fn index_of_tars(tars: &[&[u8]]) -> Result<Vec<u8>> {
    let failed = |layer: &Digest, fault| match fault {
        Fault::Bad { entry, reason } => Error::InvalidLayer { layer: layer.clone(), entry, reason },
        Fault::Io(e) => Error::InvalidLayer { layer: layer.clone(), entry: None, reason: e.to_string() },
    };
    let mut devices = Vec::new();
    for tar in tars {
        let diff_id = Digest::of(tar);
        let scan = scan(&mut scan::Bytes::new(tar)).map_err(|fault| failed(&diff_id, fault))?;
        if let Some(reason) = scan.unfit() {
            return Err(failed(&diff_id, Fault::bad(reason)));
        }
        devices.push(Device { diff_id, size: tar.len() as u64, scan });
    }
    let diff_ids: Vec<Digest> = devices.iter().map(|d| d.diff_id.clone()).collect();
    let chain_id = chain_id(&diff_ids).unwrap_or_else(|| Digest::of(b""));
    let mut image = Vec::new();
    index(&chain_id, devices, &mut image).map_err(|fault| failed(&chain_id, fault))?;
    Ok(image)
}

/// The chain id of some layers, lowest first (OCI image specification, "Layer ChainID"); none of no layers.
pub(crate) fn chain_id(diff_ids: &[Digest]) -> Option<Digest> {
    let (first, rest) = diff_ids.split_first()?;
    Some(rest.iter().fold(first.clone(), |chain, next| Digest::of(format!("{chain} {next}").as_bytes())))
}

#[cfg(test)]
mod tests;
