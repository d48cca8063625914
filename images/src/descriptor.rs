//! Descriptors, manifests and indexes, read from untrusted JSON.
//!
//! Only the fields that Dhow uses are here. Blobs are kept byte for byte, so nothing unknown is lost.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use crate::Digest;
use crate::Error;
use crate::Platform;
use crate::error::Result;
use crate::media;

/// Largest manifest, index or configuration that is read, in bytes. The distribution specification asks
/// registries to accept manifests of 4 MiB and lets them refuse more.
pub const MAX_MANIFEST: u64 = 4 << 20;
/// Most layers of one image. The kernel's overlay stops at 500.
pub(crate) const MAX_LAYERS: usize = 500;
/// Most entries of one index.
pub(crate) const MAX_INDEX: usize = 4096;
/// Blobs beyond this are refused before a byte is fetched: 64 GiB, far above any layer seen in practice.
pub(crate) const MAX_BLOB: u64 = 64 << 30;

/// A blob and what is in it: OCI's content descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What is in it. Any text: unknown types are carried along.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// For an entry of an index: what it runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
    /// For an artifact: what kind it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
}

impl Descriptor {
    /// A descriptor with nothing but the three fields that every one has.
    #[must_use]
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        Self {
            media_type: media_type.into(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }

    /// Whether this entry of an index describes another entry instead of being an image.
    #[must_use]
    pub fn is_attestation(&self) -> bool {
        self.annotations.contains_key("vnd.docker.reference.type")
            || self.platform.as_ref().is_some_and(Platform::is_unknown)
    }
}

/// An image manifest: OCI, or Docker schema 2.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// Repeats the descriptor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// For an artifact: what kind it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The configuration blob.
    pub config: Descriptor,
    /// Layers, lowest first, or an artifact's blobs.
    #[serde(default, deserialize_with = "or_default")]
    pub layers: Vec<Descriptor>,
    /// What this artifact is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

/// An index: OCI, or Docker's manifest list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: u32,
    /// Repeats the descriptor's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// The variants.
    #[serde(default, deserialize_with = "or_default")]
    pub manifests: Vec<Descriptor>,
    /// Free-form notes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "or_default")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads the bytes of a manifest; `what` names it in errors.
    ///
    /// # Errors
    /// [`Error::InvalidManifest`].
    pub fn parse(what: impl ToString, bytes: &[u8]) -> Result<Self> {
        let manifest: Self = parse(&what, bytes, "manifest")?;
        check_schema(&what, manifest.schema_version)?;
        check_media_type(&what, manifest.media_type.as_deref(), media::is_manifest)?;
        if manifest.layers.len() > MAX_LAYERS {
            return Err(Error::manifest(what, format!("has more than {MAX_LAYERS} layers")));
        }
        for blob in manifest.layers.iter().chain([&manifest.config]) {
            if blob.size > MAX_BLOB {
                return Err(Error::manifest(what, format!("blob {} is larger than 64 GiB", blob.digest)));
            }
        }
        Ok(manifest)
    }
}

impl Index {
    /// Reads the bytes of an index; `what` names it in errors.
    ///
    /// # Errors
    /// [`Error::InvalidManifest`].
    pub fn parse(what: impl ToString, bytes: &[u8]) -> Result<Self> {
        let index: Self = parse(&what, bytes, "index")?;
        check_schema(&what, index.schema_version)?;
        check_media_type(&what, index.media_type.as_deref(), media::is_index)?;
        if index.manifests.len() > MAX_INDEX {
            return Err(Error::manifest(what, format!("has more than {MAX_INDEX} entries")));
        }
        Ok(index)
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &impl ToString, bytes: &[u8], kind: &str) -> Result<T> {
    if bytes.len() as u64 > MAX_MANIFEST {
        return Err(Error::manifest(what.to_string(), format!("{kind} is larger than 4 MiB")));
    }
    serde_json::from_slice(bytes).map_err(|e| {
        // Most often the document is of another kind, and says so.
        let said = serde_json::from_slice::<Kind>(bytes).ok().and_then(|kind| kind.media_type);
        match said
            .filter(|said| if kind == "index" { !media::is_index(said) } else { !media::is_manifest(said) })
        {
            Some(said) => unexpected(what, &said),
            None => Error::manifest(what.to_string(), format!("not a valid {kind}: {e}")),
        }
    })
}

fn check_schema(what: &impl ToString, version: u32) -> Result<()> {
    match version {
        2 => Ok(()),
        1 => Err(Error::manifest(what.to_string(), "Docker schema 1 images are no longer supported")),
        other => Err(Error::manifest(what.to_string(), format!("unknown schema version {other}"))),
    }
}

/// A document that says it is another kind than it was fetched as could be read in two ways; both refuse it.
fn check_media_type(what: &impl ToString, found: Option<&str>, expected: fn(&str) -> bool) -> Result<()> {
    match found {
        Some(found) if !expected(found) => Err(unexpected(what, found)),
        _ => Ok(()),
    }
}

fn unexpected(what: &impl ToString, media_type: &str) -> Error {
    Error::manifest(what.to_string(), format!("unexpected media type {}", media_type.escape_default()))
}

/// The part that tells kinds apart.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
}

/// Go writes `null` for empty maps and lists.
pub(crate) fn or_default<'de, D, T>(deserializer: D) -> std::result::Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
