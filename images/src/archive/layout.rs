//! Writing an OCI image layout directory.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::path::Path;

use fs_err as fs;

use super::oci::CONTAINERD_NAME;
use super::oci::REF_NAME;
use super::source::blob_member;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Index;
use crate::Manifest;
use crate::Reference;
use crate::Store;
use crate::compose::json;
use crate::error::Result;
use crate::image;
use crate::media;

/// Writes an image, with every variant of it that is in the store, as an OCI image layout. The directory is made
/// if need be; an image that is there already stays, and is replaced if it has the same name.
///
/// # Errors
/// [`Error::MissingBlob`] when a variant is not complete, and the disk's.
pub fn save_layout(store: &Store, image: &Descriptor, name: Option<&Reference>, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    let mut blobs: Vec<Digest> = Vec::new();
    let mut read = |index: &Descriptor| {
        if index.digest != image.digest && !store.has_blob(&index.digest) {
            return Ok(None);
        }
        blobs.push(index.digest.clone());
        store.read_blob(index).map(Some)
    };
    let mut manifests = Vec::new();
    image::walk(image, &mut read, &mut |manifest| {
        manifests.push(manifest.clone());
        Ok(())
    })?;
    for manifest in manifests.into_iter().filter(|m| store.has_blob(&m.digest)) {
        let parsed = Manifest::parse(&manifest.digest, &store.read_blob(&manifest)?)?;
        blobs.extend(parsed.layers.into_iter().map(|l| l.digest));
        blobs.extend([parsed.config.digest, manifest.digest]);
    }
    let mut seen = HashSet::new();
    for digest in blobs.into_iter().filter(|d| seen.insert(d.clone())) {
        let target = dir.join(blob_member(&digest));
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut from = store.open_blob(&digest)?;
        let mut to = fs::File::create(&target)?;
        std::io::copy(&mut from, &mut to)?;
    }
    let mut entry = image.clone();
    if let Some(name) = name {
        entry.annotations.insert(CONTAINERD_NAME.into(), name.canonical());
        if let Some(tag) = name.tag() {
            entry.annotations.insert(REF_NAME.into(), tag.into());
        }
    }
    let path = dir.join("index.json");
    let mut index = match fs::read(&path) {
        Ok(bytes) => Index::parse(path.display(), &bytes)?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Index {
            schema_version: 2,
            media_type: Some(media::INDEX.into()),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        },
        Err(e) => return Err(Error::Io(e)),
    };
    index.manifests.retain(|old| {
        let same_name = old.annotations.get(CONTAINERD_NAME) == entry.annotations.get(CONTAINERD_NAME);
        !(same_name && (name.is_some() || old.digest == entry.digest))
    });
    index.manifests.push(entry);
    fs::write(path, json(&index)?)?;
    fs::write(dir.join("oci-layout"), "{\"imageLayoutVersion\":\"1.0.0\"}")?;
    Ok(())
}
