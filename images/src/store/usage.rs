//! What the store takes on disk, as sizes of files: allocated blocks depend on the file system.

use serde::Deserialize;
use serde::Serialize;

use super::Store;
use crate::Descriptor;
use crate::Digest;
use crate::error::Result;

/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Blobs that are there: manifests, configurations, compressed layers, Wasm modules.
    pub blobs: u64,
    /// Files of unpacked layers that are there.
    pub unpacked: u64,
}

/// `layer.json`: written with a layer, before it gets its name.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct LayerRecord {
    pub(crate) diff_id: Digest,
    /// Bytes of all regular files.
    pub(crate) size: u64,
    /// The files are not here, but with the directory that the layer has over those below it.
    #[serde(default)]
    pub(crate) is_elsewhere: bool,
    /// Entries of the archive.
    pub(crate) entries: u64,
    /// Entries whose owner could not be kept, because this user has no such ids.
    #[serde(default)]
    pub(crate) lost_owners: u64,
}

pub(crate) const LAYER_RECORD: &str = "layer.json";

impl Store {
    /// What one image takes: everything that it leads to and that is there, shared or not.
    ///
    /// # Errors
    /// When a document cannot be read.
    pub fn usage(&self, image: &Descriptor) -> Result<Usage> {
        let mut usage = Usage::default();
        for digest in self.reachable(vec![image.digest.clone()])? {
            if let Ok(meta) = std::fs::symlink_metadata(self.blob_path(&digest)) {
                usage.blobs += meta.len();
            }
            usage.unpacked += self.layer_size(&digest).unwrap_or(0);
        }
        Ok(usage)
    }

    /// What the whole store takes, without what running operations have not finished.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn total_usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        for (_, path) in self.blobs()? {
            usage.blobs += std::fs::symlink_metadata(path).map_or(0, |m| m.len());
        }
        for (diff_id, _) in self.layers()? {
            usage.unpacked += self.layer_size(&diff_id).unwrap_or(0);
        }
        Ok(usage)
    }

    /// Bytes of the files of a layer, if it is unpacked.
    #[must_use]
    pub fn unpacked_size(&self, diff_id: &Digest) -> Option<u64> {
        self.layer_record(diff_id).map(|r| r.size)
    }

    /// How many files of these layers do not belong to whom the image says, because this user has no such ids. They
    /// belong to the user. Layers that are not unpacked count as nothing.
    #[must_use]
    pub fn lost_owners(&self, diff_ids: &[Digest]) -> u64 {
        diff_ids
            .iter()
            .filter_map(|diff_id| self.layer_record(diff_id))
            .map(|record| record.lost_owners)
            .sum()
    }

    pub(super) fn layer_size(&self, diff_id: &Digest) -> Option<u64> {
        self.layer_record(diff_id).map(|r| if r.is_elsewhere { 0 } else { r.size })
    }

    pub(crate) fn layer_record(&self, diff_id: &Digest) -> Option<LayerRecord> {
        let bytes = fs_err::read(self.layer_dir(diff_id).join(LAYER_RECORD)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}
