//! Caches that others use, too: at a registry, or in a folder that any tool copies.
//!
//! Such a cache is an artifact: an OCI manifest whose configuration lists the steps by their keys, and whose layers are
//! those of the steps. Only the list is read at first; a layer is fetched when its step is wanted. Keys say what a step
//! was made of and cannot be proved: take caches only from whom you would take images.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Read as _;
use std::path::Path;

use dhow_images::{Descriptor, Digest, Index, Manifest, archive};
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::builder::{Builder, Helper};
use super::cache::{Cached, Made};
use super::{Build, CachePlace, CacheTo, Event};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// What kind of artifact it is.
const ARTIFACT: &str = "application/vnd.dhow.buildcache.v1+json";
/// The largest list that is read.
const MAX_LIST: u64 = 4 << 20;

/// The list of a cache.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    steps: Vec<Listed>,
}

/// A step of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Listed {
    key: Digest,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    layer: Option<Made>,
}

/// What the caches of others have.
#[derive(Debug, Default)]
pub(super) struct Imported {
    places: Vec<CachePlace>,
    /// Which step is in which of them.
    steps: HashMap<Digest, (usize, Listed)>,
}

impl Imported {
    /// Reads the lists. One that cannot be read is only a warning, as a cache may not be there yet.
    pub(super) fn read(build: &Build, helper: &mut dyn Helper, progress: &mut dyn FnMut(Event<'_>)) -> Self {
        let mut imported = Self::default();
        for (at, place) in build.cache_from.iter().enumerate() {
            let listed = match place {
                CachePlace::Registry(name) => helper.cache_list(name, ARTIFACT, MAX_LIST),
                CachePlace::Directory(path) => list_of_folder(path),
            };
            let listed = listed
                .and_then(|bytes| Ok(serde_json::from_slice::<List>(&bytes).map_err(std::io::Error::other)?));
            match listed {
                Ok(list) => {
                    for step in list.steps {
                        imported.steps.entry(step.key.clone()).or_insert((at, step));
                    }
                }
                Err(error) => {
                    progress(Event::Warning(format!("cannot use the cache at {}: {error}", shown(place))));
                }
            }
            imported.places.push(place.clone());
        }
        imported
    }
}

fn shown(place: &CachePlace) -> String {
    match place {
        CachePlace::Registry(name) => name.familiar(),
        CachePlace::Directory(path) => path.display().to_string(),
    }
}

fn list_of_folder(folder: &Path) -> Result<Vec<u8>> {
    let read = |path: &Path| -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?.take(MAX_LIST + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MAX_LIST {
            return Err(Error::Invalid(format!("{}: is larger than {MAX_LIST} bytes", path.display())));
        }
        Ok(bytes)
    };
    let index = Index::parse(folder.display(), &read(&folder.join("index.json"))?)?;
    for entry in index.manifests.iter().rev() {
        let manifest = Manifest::parse(&entry.digest, &read(&blob_of(folder, &entry.digest))?)?;
        if manifest.config.media_type == ARTIFACT {
            return read(&blob_of(folder, &manifest.config.digest));
        }
    }
    Err(Error::Invalid(format!("{}: no build cache of dhow", folder.display())))
}

fn blob_of(folder: &Path, digest: &Digest) -> std::path::PathBuf {
    folder.join("blobs").join("sha256").join(digest.hex())
}

impl Builder<'_, '_> {
    /// A step from the cache of somebody else: its layer is fetched, and it is remembered here from now on.
    pub(super) fn borrow(&mut self, key: &Digest) -> Result<Option<Cached>> {
        let Some((at, listed)) = self.imported.steps.get(key).cloned() else { return Ok(None) };
        let record = Cached { layer: listed.layer, text: listed.text };
        if let Some(layer) = &record.layer {
            self.work.keep([&layer.blob.digest, &layer.diff_id])?;
            if !self.engine.store().has_blob(&layer.blob.digest)
                && let Err(error) = self.bring(at, &layer.blob)
            {
                (self.progress)(Event::Warning(format!("a layer of the cache cannot be fetched: {error}")));
                return Ok(None);
            }
        }
        self.remember(key, &record)?;
        Ok(Some(record))
    }

    fn bring(&mut self, at: usize, blob: &Descriptor) -> Result<()> {
        match &self.imported.places[at] {
            CachePlace::Registry(name) => self.helper.fetch_blob(name, blob),
            CachePlace::Directory(folder) => {
                let path = blob_of(folder, &blob.digest);
                let mut file = fs::File::open(&path)?;
                Ok(self.engine.store().ingest_blob(&path.display().to_string(), blob, &mut file)?)
            }
        }
    }
}

/// Writes the cache of a build: the steps with these keys, of all stages or only those whose layers are in the result.
pub(super) fn export(
    engine: &Engine,
    to: &CacheTo,
    keys: &BTreeSet<Digest>,
    layers: &BTreeSet<Digest>,
    helper: &mut dyn Helper,
) -> Result<()> {
    let store = engine.store();
    let mut steps = Vec::new();
    let mut blobs: BTreeMap<Digest, Descriptor> = BTreeMap::new();
    for key in keys {
        let Some(cached) = engine.cached(key) else { continue };
        if let Some(layer) = &cached.layer {
            if !to.all && !layers.contains(&layer.blob.digest) {
                continue;
            }
            blobs.insert(layer.blob.digest.clone(), layer.blob.clone());
        }
        steps.push(Listed { key: key.clone(), text: cached.text, layer: cached.layer });
    }
    let list = serde_json::to_vec(&List { steps }).map_err(std::io::Error::other)?;
    let config = store.put_blob(ARTIFACT, &list)?;
    let artifact =
        store.new_manifest(config, blobs.into_values().collect(), Some(ARTIFACT), BTreeMap::new())?;
    match &to.place {
        CachePlace::Registry(name) => helper.push(&artifact, name),
        CachePlace::Directory(folder) => {
            // An older one of the same folder is replaced.
            match fs::remove_file(folder.join("index.json")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
            Ok(archive::save_layout(store, &artifact, None, folder)?)
        }
    }
}
