//! Indexes in the making that a user puts together by name, as `docker manifest create` does: each entry is a manifest
//! at a registry, kept here with what it runs on until the whole is pushed. They are no images: nothing of them is
//! pulled, and no image has their names.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::MAX_MANIFEST;
use crate::Reference;
use crate::error::Result;
use crate::media;

/// Most entries of one list.
const MAX_ENTRIES: usize = 512;

/// An index in the making.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestList {
    /// What it will be pushed as.
    pub name: Reference,
    /// Sorted by name, so that the same entries give the same digest.
    entries: Vec<ListEntry>,
}

/// A manifest at a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Where it was found.
    pub reference: Reference,
    /// Media type, digest and size.
    pub descriptor: Descriptor,
    /// What it runs on.
    pub platform: ListPlatform,
    /// The document, byte for byte.
    pub bytes: Vec<u8>,
}

/// What an entry runs on, with everything that an index can say of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListPlatform {
    /// For example `amd64`.
    #[serde(default)]
    pub architecture: String,
    /// For example `linux`.
    #[serde(default)]
    pub os: String,
    /// For example `10.0.14393.1066`, of Windows.
    #[serde(default, rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    /// For example `win32k`.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// For example `v7`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl ManifestList {
    /// A list without entries.
    #[must_use]
    pub fn new(name: Reference) -> Self {
        Self { name, entries: Vec::new() }
    }

    /// The entries, sorted by name.
    #[must_use]
    pub fn entries(&self) -> &[ListEntry] {
        &self.entries
    }

    /// Adds a manifest, in place of the one of the same name, if there is one.
    ///
    /// # Errors
    /// [`Error::InvalidManifest`] when it is an index itself, or the list is full.
    pub fn add(&mut self, entry: ListEntry) -> Result<()> {
        if !media::is_manifest(&entry.descriptor.media_type) {
            return Err(Error::manifest(entry.reference.familiar(), "is a manifest list"));
        }
        self.entries.retain(|known| known.reference != entry.reference);
        if self.entries.len() >= MAX_ENTRIES {
            return Err(Error::manifest(self.name.familiar(), format!("has {MAX_ENTRIES} entries already")));
        }
        self.entries.push(entry);
        self.entries.sort_by_key(|entry| sort_key(&entry.reference));
        Ok(())
    }

    /// The entry of a manifest, to look at or to change what it runs on.
    pub fn entry_mut(&mut self, reference: &Reference) -> Option<&mut ListEntry> {
        self.entries.iter_mut().find(|entry| entry.reference == *reference)
    }

    /// The document to be pushed: Docker's manifest list, byte for byte as its command writes it.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifests: Vec<Value> = self
            .entries
            .iter()
            .map(|entry| {
                let blob = &entry.descriptor;
                json!({
                    "mediaType": blob.media_type,
                    "size": blob.size,
                    "digest": blob.digest,
                    "platform": entry.platform,
                })
            })
            .collect();
        let list = json!({ "schemaVersion": 2, "mediaType": media::DOCKER_LIST, "manifests": manifests });
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"   ");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        // Writing a JSON value to memory cannot fail.
        list.serialize(&mut serializer).ok();
        text
    }

    /// Media type, digest and size of [`ManifestList::to_bytes`].
    #[must_use]
    pub fn descriptor(&self) -> Descriptor {
        let bytes = self.to_bytes();
        Descriptor::new(media::DOCKER_LIST, Digest::of(&bytes), bytes.len() as u64)
    }

    /// What is kept in the store.
    pub(crate) fn to_record(&self) -> Result<Vec<u8>> {
        let entries = self.entries.iter().map(|entry| {
            let manifest = std::str::from_utf8(&entry.bytes)
                .map_err(|_| Error::manifest(&entry.descriptor.digest, "is no text"))?;
            Ok(Record {
                reference: entry.reference.canonical(),
                descriptor: entry.descriptor.clone(),
                platform: entry.platform.clone(),
                manifest: manifest.to_owned(),
            })
        });
        let file = File { name: self.name.canonical(), entries: entries.collect::<Result<_>>()? };
        crate::compose::json(&file)
    }

    /// Reads what is kept in the store. Nothing in it is taken on trust.
    pub(crate) fn from_record(bytes: &[u8]) -> std::result::Result<Self, String> {
        let file: File = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
        let mut list = Self::new(Reference::parse(&file.name).map_err(|e| e.to_string())?);
        for record in file.entries {
            let bytes = record.manifest.into_bytes();
            if bytes.len() as u64 > MAX_MANIFEST || Digest::of(&bytes) != record.descriptor.digest {
                return Err(format!("the manifest of {} is damaged", record.reference));
            }
            let reference = Reference::parse(&record.reference).map_err(|e| e.to_string())?;
            let (descriptor, platform) = (record.descriptor, record.platform);
            list.add(ListEntry { reference, descriptor, platform, bytes }).map_err(|e| e.to_string())?;
        }
        Ok(list)
    }
}

impl ListPlatform {
    /// Whether Go's names of operating systems and architectures have this pair, or it is a Wasm one.
    #[must_use]
    pub fn is_known(&self) -> bool {
        let architectures: &[&str] = match self.os.as_str() {
            "darwin" => &["386", "amd64", "arm", "arm64"],
            "dragonfly" | "solaris" | "illumos" => &["amd64"],
            "freebsd" | "netbsd" | "openbsd" => &["386", "amd64", "arm", "arm64"],
            "linux" => &[
                "386", "amd64", "arm", "arm64", "loong64", "mips", "mipsle", "mips64", "mips64le", "ppc64",
                "ppc64le", "riscv64", "s390x",
            ],
            "plan9" => &["386", "amd64"],
            "windows" => &["386", "amd64", "arm", "arm64"],
            "wasi" | "wasip1" | "wasip2" | "wasip3" => &["wasm", "wasm32", "wasm64"],
            _ => &[],
        };
        architectures.contains(&self.architecture.as_str())
    }
}

/// Docker keeps one file for each entry and takes them in the order of these files' names.
fn sort_key(reference: &Reference) -> String {
    reference.canonical().replace(':', "-").replace('/', "_")
}

#[derive(Serialize, Deserialize)]
struct File {
    name: String,
    entries: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    reference: String,
    descriptor: Descriptor,
    platform: ListPlatform,
    manifest: String,
}
