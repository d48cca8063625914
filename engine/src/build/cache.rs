//! What steps made, by what they were made of: the layers below, the instruction, and the content that it takes in, but
//! no times. So a second clone of the same files, another Dockerfile and another process all find it.
//!
//! A record appears by rename and is small. Its layer stays because of a lease of the same name, `build-<key>`, which is
//! written first; what has lost its layer all the same is no hit.

use std::io::ErrorKind;
use std::time::SystemTime;

use dhow_images::{Descriptor, Digest};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::work::FOLDER;
use crate::engine::{Engine, make_folder};
use crate::error::Result;

/// How leases of cached steps begin.
const LEASE: &str = "build-";

/// A layer that a step made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Made {
    /// The blob.
    pub(super) blob: Descriptor,
    /// Digest of the uncompressed archive.
    pub(super) diff_id: Digest,
}

/// A record.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Cached {
    /// What the step made; `None` for a step that made no layer.
    pub(super) layer: Option<Made>,
    /// The instruction, for people.
    pub(super) text: String,
}

/// One record, as lists show it.
#[derive(Debug, Clone)]
pub struct CacheEntry {
    /// Its key.
    pub id: String,
    /// The instruction.
    pub text: String,
    /// Bytes of its blob.
    pub size: u64,
    /// When it was last used.
    pub used: SystemTime,
}

/// What was removed from the cache.
#[derive(Debug, Clone, Default)]
pub struct PrunedCache {
    /// The keys.
    pub ids: Vec<String>,
    /// Bytes.
    pub size: u64,
}

impl Engine {
    pub(super) fn cached(&self, key: &Digest) -> Option<Cached> {
        let path = self.cache_folder().join(key.hex());
        let record: Cached = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
        if let Some(layer) = &record.layer
            && !self.store().has_blob(&layer.blob.digest)
        {
            return None;
        }
        // When it was used last.
        fs::File::open(&path).and_then(|file| file.file().set_modified(SystemTime::now())).ok();
        Some(record)
    }

    pub(super) fn remember_step(&self, key: &Digest, record: &Cached) -> Result<()> {
        let folder = self.cache_folder();
        make_folder(&folder)?;
        if let Some(layer) = &record.layer {
            let kept = [layer.blob.digest.clone(), layer.diff_id.clone()];
            self.store().lease(&lease(key.hex()), &kept, true)?;
        }
        let draft = folder.join(format!(".{}-{}", key.hex(), std::process::id()));
        fs::write(&draft, serde_json::to_vec(record).map_err(std::io::Error::other)?)?;
        Ok(fs::rename(draft, folder.join(key.hex()))?)
    }

    fn cache_folder(&self) -> std::path::PathBuf {
        self.root().join(FOLDER).join("cache")
    }

    /// What the lease of a cached step should keep.
    pub(crate) fn build_keeps(&self, lease: &str) -> Option<Vec<Digest>> {
        let key = lease.strip_prefix(LEASE)?;
        let bytes = fs::read(self.cache_folder().join(key)).ok()?;
        let layer = serde_json::from_slice::<Cached>(&bytes).ok()?.layer?;
        Some(vec![layer.blob.digest, layer.diff_id])
    }

    /// Every cached step, the least recently used first.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn build_cache(&self) -> Result<Vec<CacheEntry>> {
        let entries = match fs::read_dir(self.cache_folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            let Ok(bytes) = fs::read(entry.path()) else { continue };
            let Ok(record) = serde_json::from_slice::<Cached>(&bytes) else { continue };
            let used = entry.metadata().and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            all.push(CacheEntry {
                id,
                text: record.text,
                size: record.layer.map_or(0, |layer| layer.blob.size),
                used,
            });
        }
        all.sort_by(|a, b| a.used.cmp(&b.used).then_with(|| a.id.cmp(&b.id)));
        Ok(all)
    }

    /// Forgets cached steps that were not used after `before`, and with `mounts` the cache mounts too. What a running
    /// build uses of it stays for that build. Their content goes with the next sweep of the store, which is made here.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub fn prune_build_cache(&self, before: Option<SystemTime>, mounts: bool) -> Result<PrunedCache> {
        self.sweep_builds()?;
        let mut pruned = PrunedCache::default();
        for entry in self.build_cache()? {
            if before.is_some_and(|before| entry.used > before) {
                continue;
            }
            match fs::remove_file(self.cache_folder().join(&entry.id)) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            }
            self.store().release(&lease(&entry.id))?;
            pruned.size += entry.size;
            pruned.ids.push(entry.id);
        }
        if mounts {
            let folder = self.root().join(FOLDER).join("mounts");
            match dhow_images::disk_usage(&folder) {
                Ok(used) => {
                    pruned.size += used.allocated;
                    dhow_images::remove_tree(folder)?;
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.store().remove_unreferenced()?;
        Ok(pruned)
    }

    /// Leases of steps that are not remembered, and the other way round: a crash between the two leaves either.
    pub(crate) fn check_builds(&self) -> Result<()> {
        self.sweep_builds()?;
        for name in self.store().lease_ids()? {
            let Some(key) = name.strip_prefix(LEASE) else { continue };
            if self.cache_folder().join(key).exists() {
                continue;
            }
            // One that is being written has a lease and no record yet.
            std::thread::sleep(crate::system::A_MOMENT);
            if self.cache_folder().join(key).exists() {
                continue;
            }
            // Nobody misses it: the next build writes both again.
            self.store().release(&name)?;
        }
        Ok(())
    }
}

fn lease(key: &str) -> String {
    format!("{LEASE}{key}")
}
