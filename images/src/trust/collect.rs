//! Gathering the signatures of an image from where they are kept, without judging them.
//!
//! cosign keeps them in the same repository: under a tag made of the image's digest, or as referrers of the image.
//! Simple signatures lie beside the registry ("lookaside"), or behind an extension of it. A registry can hide
//! signatures; it cannot make one.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::Serialize;

use super::bundle;
use super::lookaside::Lookaside;
use super::openpgp::MAX_MESSAGE;
use super::payload::MAX_PAYLOAD;
use crate::Descriptor;
use crate::Digest;
use crate::Manifest;
use crate::Reference;
use crate::error::Result;

/// Most signatures of one image; the rest is passed over.
const MAX_SIGNATURES: usize = 64;
/// Most bytes of all signatures of one image.
const MAX_TOTAL: usize = 16 << 20;
/// Largest annotations of one signature, in bytes: certificates and a log entry are a few KiB.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// The payload of a cosign signature.
const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// A referrer that holds cosign signatures.
const COSIGN_ARTIFACT: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";

/// Which kinds of signatures are needed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those of sigstore.
    pub sigstore: bool,
    /// Simple signatures (OpenPGP).
    pub simple: bool,
}

impl Wanted {
    /// Whether nothing is needed.
    #[must_use]
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

/// One signature as it was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Material {
    /// A payload with cosign's annotations.
    Cosign {
        /// Where it was.
        found: String,
        /// The signed document.
        #[serde(with = "encoded")]
        payload: Vec<u8>,
        /// Signature, certificate, chain and log entry.
        annotations: BTreeMap<String, String>,
    },
    /// A sigstore bundle.
    Bundle {
        /// Where it was.
        found: String,
        /// The bundle.
        #[serde(with = "encoded")]
        json: Vec<u8>,
    },
    /// A signed OpenPGP message.
    Simple {
        /// Where it was.
        found: String,
        /// The message.
        #[serde(with = "encoded")]
        message: Vec<u8>,
    },
}

impl Material {
    /// Where it was found.
    #[must_use]
    pub fn found(&self) -> &str {
        match self {
            Self::Cosign { found, .. } | Self::Bundle { found, .. } | Self::Simple { found, .. } => found,
        }
    }

    /// What kind it is, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Cosign { .. } => "cosign",
            Self::Bundle { .. } => "sigstore bundle",
            Self::Simple { .. } => "simple signing",
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Cosign { payload, annotations, .. } => payload.len() + annotations_size(annotations),
            Self::Bundle { json, .. } => json.len(),
            Self::Simple { message, .. } => message.len(),
        }
    }
}

/// Where signatures are kept: a repository of a registry, or something that stands for one.
pub trait SignatureSource {
    /// A manifest by tag or digest, up to 4 MiB; none if there is none. One asked for by digest has it.
    ///
    /// # Errors
    /// When nobody can tell.
    fn manifest(&self, reference: &str) -> Result<Option<Vec<u8>>>;

    /// The manifests that have this one as their subject; none where nobody keeps such a list.
    ///
    /// # Errors
    /// When nobody can tell.
    fn referrers(&self, digest: &Digest) -> Result<Vec<Descriptor>>;

    /// The content of a blob, verified.
    ///
    /// # Errors
    /// When it cannot be read.
    fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>>;

    /// The content of a file or an HTTP address, up to `limit` bytes; none if there is none.
    ///
    /// # Errors
    /// When nobody can tell.
    fn file(&self, url: &str, limit: usize) -> Result<Option<Vec<u8>>>;
}

/// Gathers the signatures of the manifest `digest` that `name` stands for. Those that are too large or malformed are
/// passed over: a bad signature beside a good one must not keep the image away.
///
/// # Errors
/// When a source cannot tell what there is.
pub fn collect(
    source: &dyn SignatureSource,
    name: &Reference,
    digest: &Digest,
    wanted: Wanted,
    lookaside: &Lookaside,
) -> Result<Vec<Material>> {
    let mut collector = Collector { source, all: Vec::new(), total: 0 };
    if wanted.sigstore {
        collector.attachments(digest)?;
        collector.referrers(digest)?;
    }
    if wanted.simple
        && let Some(base) = lookaside.base(name)
    {
        for index in 1..=MAX_SIGNATURES {
            let url = format!(
                "{}/{}@{}={}/signature-{index}",
                base.trim_end_matches('/'),
                name.repository(),
                digest.algorithm().name(),
                digest.hex()
            );
            let Some(message) = source.file(&url, MAX_MESSAGE)? else { break };
            collector.add(Material::Simple { found: url, message });
        }
    }
    Ok(collector.all)
}

struct Collector<'a> {
    source: &'a dyn SignatureSource,
    all: Vec<Material>,
    total: usize,
}

impl Collector<'_> {
    fn add(&mut self, material: Material) {
        self.total += material.size();
        if self.all.len() < MAX_SIGNATURES && self.total <= MAX_TOTAL {
            self.all.push(material);
        }
    }

    /// cosign's attachments: `<algorithm>-<hex>.sig`.
    fn attachments(&mut self, digest: &Digest) -> Result<()> {
        let tag = format!("{}-{}.sig", digest.algorithm().name(), digest.hex());
        let Some(bytes) = self.source.manifest(&tag)? else { return Ok(()) };
        match Manifest::parse(&tag, &bytes) {
            Ok(manifest) => self.layers(&tag, &manifest),
            Err(_) => Ok(()),
        }
    }

    fn referrers(&mut self, digest: &Digest) -> Result<()> {
        let mut looked = 0;
        for referrer in self.source.referrers(digest)? {
            let kind = referrer.artifact_type.as_deref().unwrap_or_default();
            if !bundle::is_bundle(kind) && kind != COSIGN_ARTIFACT {
                continue;
            }
            looked += 1;
            if looked > MAX_SIGNATURES || referrer.size > crate::MAX_MANIFEST {
                continue;
            }
            let name = referrer.digest.to_string();
            let Some(bytes) = self.source.manifest(&name)? else { continue };
            let Ok(manifest) = Manifest::parse(&name, &bytes) else { continue };
            // A list of referrers is the registry's word only.
            if manifest.subject.as_ref().is_some_and(|subject| subject.digest == *digest) {
                self.layers(&name, &manifest)?;
            }
        }
        Ok(())
    }

    fn layers(&mut self, found: &str, manifest: &Manifest) -> Result<()> {
        for layer in manifest.layers.iter().take(MAX_SIGNATURES) {
            let is_bundle = bundle::is_bundle(&layer.media_type);
            let limit = if is_bundle { bundle::MAX_BUNDLE } else { MAX_PAYLOAD };
            if layer.size > limit as u64 || self.all.len() == MAX_SIGNATURES {
                continue;
            }
            if is_bundle {
                let json = self.source.blob(layer)?;
                self.add(Material::Bundle { found: found.to_owned(), json });
            } else if layer.media_type == SIMPLE_SIGNING {
                let mut annotations = layer.annotations.clone();
                annotations.retain(|key, _| super::sigstore::ANNOTATIONS.contains(&key.as_str()));
                if annotations_size(&annotations) > MAX_ANNOTATIONS {
                    continue;
                }
                let payload = self.source.blob(layer)?;
                self.add(Material::Cosign { found: found.to_owned(), payload, annotations });
            }
        }
        Ok(())
    }
}

fn annotations_size(annotations: &BTreeMap<String, String>) -> usize {
    annotations.iter().map(|(key, value)| key.len() + value.len()).sum()
}

/// Bytes as base64 in JSON.
mod encoded {
    use serde::Deserialize as _;
    use serde::Deserializer;
    use serde::Serializer;
    use serde::de::Error as _;

    use super::super::json;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&json::to_base64(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        json::base64(&String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}
