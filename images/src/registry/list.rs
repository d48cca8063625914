//! Pushing a manifest list: its entries are at the registry already, most often in other repositories, so their blobs
//! are mounted and only manifests are sent.

use super::Access;
use super::Scope;
use super::http::Client;
use super::push::Plan;
use super::push::put_manifest;
use super::upload::Uploader;
use crate::Descriptor;
use crate::Error;
use crate::NoProgress;
use crate::Reference;
use crate::Store;
use crate::error::Result;
use crate::manifest_list::ManifestList;

/// Pushes a list and all manifests it is made of into the repository of its name. `pushed` is told of each manifest.
/// Blobs that the registry does not have are taken from the store.
///
/// # Errors
/// [`Error::InvalidManifest`] when an entry is at another registry and not in the store either;
/// [`Error::PartsAbsent`]; the registry's.
pub fn push_list(
    store: &Store,
    list: &ManifestList,
    access: &Access,
    mut pushed: impl FnMut(&Reference),
) -> Result<Descriptor> {
    let name = &list.name;
    let elsewhere =
        |other: &Reference| other.registry() == name.registry() && other.repository() != name.repository();
    let mut from: Vec<String> = Vec::new();
    for entry in list.entries() {
        if elsewhere(&entry.reference) && !from.iter().any(|known| known == entry.reference.repository()) {
            from.push(entry.reference.repository().to_owned());
        }
    }
    let client = Client::connect(name, access, &Scope::Push { from })?;
    let uploader = Uploader { client: &client, store, progress: &NoProgress, chunk: None };
    for entry in list.entries() {
        let mut plan = Plan::default();
        plan.manifest(&entry.descriptor, &entry.bytes)?;
        let from: Vec<String> = elsewhere(&entry.reference)
            .then(|| entry.reference.repository().to_owned())
            .into_iter()
            .collect();
        for (blob, kind) in &plan.blobs {
            if uploader.upload(blob, *kind, &from, store.has_blob_of(blob))?.is_some() {
                continue;
            }
            if entry.reference.registry() != name.registry() {
                let reason = format!(
                    "cannot use source images from a different registry than the target image: {} != {}",
                    entry.reference.registry(),
                    name.registry()
                );
                return Err(Error::manifest(entry.reference.familiar(), reason));
            }
            let parts = vec![blob.digest.to_string()];
            return Err(Error::PartsAbsent { image: entry.reference.familiar(), parts });
        }
        let digest = entry.descriptor.digest.to_string();
        put_manifest(&client, &digest, &entry.descriptor, &entry.bytes)?;
        pushed(&name.at_digest(entry.descriptor.digest.clone()));
    }
    let top = list.descriptor();
    let tag = name.tag().unwrap_or(crate::DEFAULT_TAG);
    put_manifest(&client, tag, &top, &list.to_bytes())?;
    Ok(top)
}
