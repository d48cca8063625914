//! Making an index of manifests that exist.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Platform;
use crate::Store;
use crate::compose::json;
use crate::descriptor::MAX_INDEX;
use crate::error::Result;
use crate::media;
use crate::store::session::Session;

/// An OCI index in the making. Entries keep the order in which they were added.
///
/// ```no_run
/// # fn main() -> dhow_images::Result<()> {
/// # use dhow_images::{IndexBuilder, Store, compose::wasm_artifact};
/// let store = Store::open("/var/lib/dhow")?;
/// let mut index = IndexBuilder::new();
/// index.add(wasm_artifact(&store, "wasip1", b"\0asm\x01\0\0\0")?).annotation("org.example.team", "blue");
/// store.tag(&"127.0.0.1:5000/hello:1".parse()?, &index.build(&store)?)?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct IndexBuilder {
    manifests: Vec<Descriptor>,
    artifact_type: Option<String>,
    subject: Option<Descriptor>,
    annotations: BTreeMap<String, String>,
}

/// The document. The same input gives the same bytes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    schema_version: u32,
    media_type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    artifact_type: Option<&'a str>,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a Descriptor>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

impl IndexBuilder {
    /// An index of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a manifest or another index. A descriptor with the same digest takes the place of the one before.
    pub fn add(&mut self, manifest: Descriptor) -> &mut Self {
        match self.manifests.iter_mut().find(|known| known.digest == manifest.digest) {
            Some(known) => *known = manifest,
            None => self.manifests.push(manifest),
        }
        self
    }

    /// Adds a manifest, saying what it runs on.
    pub fn add_for(&mut self, manifest: &Descriptor, platform: Platform) -> &mut Self {
        self.add(Descriptor { platform: Some(platform), ..manifest.clone() })
    }

    /// Takes an entry out; whether it was there.
    pub fn remove(&mut self, digest: &Digest) -> bool {
        let before = self.manifests.len();
        self.manifests.retain(|known| known.digest != *digest);
        self.manifests.len() < before
    }

    /// A note on the index itself.
    pub fn annotation(&mut self, name: &str, value: &str) -> &mut Self {
        self.annotations.insert(name.into(), value.into());
        self
    }

    /// What kind of artifact this index is.
    pub fn artifact_type(&mut self, kind: &str) -> &mut Self {
        self.artifact_type = Some(kind.into());
        self
    }

    /// What this index is about.
    pub fn subject(&mut self, subject: Descriptor) -> &mut Self {
        self.subject = Some(subject);
        self
    }

    /// The entries so far.
    #[must_use]
    pub fn manifests(&self) -> &[Descriptor] {
        &self.manifests
    }

    /// The document.
    ///
    /// # Errors
    /// [`Error::InvalidManifest`] when it has more entries than an index may have.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        if self.manifests.len() > MAX_INDEX {
            return Err(Error::manifest("new index", format!("has more than {MAX_INDEX} entries")));
        }
        json(&Document {
            schema_version: 2,
            media_type: media::INDEX,
            artifact_type: self.artifact_type.as_deref(),
            manifests: &self.manifests,
            subject: self.subject.as_ref(),
            annotations: &self.annotations,
        })
    }

    /// Writes the index into the store. Name it soon: what has no name can be swept at any time.
    ///
    /// # Errors
    /// As [`IndexBuilder::to_bytes`], and the disk's.
    pub fn build(&self, store: &Store) -> Result<Descriptor> {
        Session::new(store)?.put(media::INDEX, &self.to_bytes()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Index;
    use crate::compose;
    use crate::store::tests::store;

    #[test]
    fn entries_are_unique_and_in_order() {
        let (_dir, store) = store();
        let one = compose::wasm_artifact(&store, "wasip1", b"1").unwrap();
        let two = compose::wasm_artifact(&store, "wasip2", b"2").unwrap();
        let mut index = IndexBuilder::new();
        index.add(one.clone()).add(two.clone()).add_for(&one, Platform::new("wasip1", "wasm32", None));
        assert_eq!(compose::index(&store, index.manifests()).unwrap(), index.build(&store).unwrap());
        index.annotation("k", "v").artifact_type("a/b").subject(two.clone());
        let built = index.build(&store).unwrap();
        let read = Index::parse("x", &store.read_blob(&built).unwrap()).unwrap();
        assert_eq!(read.manifests.len(), 2);
        assert_eq!(read.manifests[0].platform.as_ref().unwrap().architecture, "wasm32");
        assert_eq!(read.annotations["k"], "v");
        assert!(index.remove(&one.digest) && !index.remove(&one.digest));
        assert_eq!(index.manifests(), [two]);
    }
}
