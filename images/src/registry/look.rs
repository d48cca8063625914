//! Manifests at a registry, looked at without being pulled.

use super::Access;
use super::Remote;
use crate::Descriptor;
use crate::Manifest;
use crate::Platform;
use crate::Reference;
use crate::error::Result;
use crate::media;

/// An image manifest or an index as the registry has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteManifest {
    /// Media type, digest and size. For a single image, also what it runs on, if its configuration was asked for.
    pub descriptor: Descriptor,
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
}

/// What a name stands for at its registry or a mirror.
///
/// # Errors
/// The registry's: [`Error::Unreachable`](crate::Error::Unreachable), [`Error::Denied`](crate::Error::Denied),
/// [`Error::ManifestUnknown`](crate::Error::ManifestUnknown); the document's.
pub fn manifest(name: &Reference, access: &Access) -> Result<RemoteManifest> {
    fetch(&Remote::new(name, access), name)
}

/// As [`manifest`], for a single image also with its platform, which its configuration says, and for an index with
/// the manifests of its entries, each in turn.
///
/// # Errors
/// As [`manifest`].
pub fn manifest_with_platform(
    name: &Reference,
    access: &Access,
) -> Result<(RemoteManifest, Vec<RemoteManifest>)> {
    let remote = Remote::new(name, access);
    let mut top = fetch(&remote, name)?;
    if media::is_manifest(&top.descriptor.media_type) {
        top.descriptor.platform = platform(&remote, &top)?;
        return Ok((top, Vec::new()));
    }
    let mut entries = Vec::new();
    for entry in crate::Index::parse(name, &top.bytes)?.manifests {
        if !media::is_manifest(&entry.media_type) && !media::is_index(&entry.media_type) {
            continue;
        }
        let mut found = fetch(&remote, &name.at_digest(entry.digest))?;
        found.descriptor.platform = entry.platform;
        entries.push(found);
    }
    Ok((top, entries))
}

fn fetch(remote: &Remote<'_>, name: &Reference) -> Result<RemoteManifest> {
    let wanted = match (name.digest(), name.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or(crate::DEFAULT_TAG).to_owned(),
    };
    let (descriptor, bytes) = remote.manifest(&wanted)?;
    Ok(RemoteManifest { descriptor, bytes })
}

/// What the configuration of an image says that it runs on. An artifact's says nothing.
fn platform(remote: &Remote<'_>, image: &RemoteManifest) -> Result<Option<Platform>> {
    let manifest = Manifest::parse(&image.descriptor.digest, &image.bytes)?;
    let config = remote.blob(&manifest.config)?;
    let platform: Platform = serde_json::from_slice(&config).unwrap_or_else(|_| Platform::new("", "", None));
    Ok(Some(platform).filter(|platform| !platform.os.is_empty() || !platform.architecture.is_empty()))
}
