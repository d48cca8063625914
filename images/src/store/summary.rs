//! What a list of images shows, without reading three documents for each of them.
//!
//! ```text
//! summaries   what documents and layers say about themselves, after a line with the digest of the rest
//! ```
//!
//! Everything in that file is about content with a digest, so it can never be out of date; whether the content is
//! there is looked at each time. Who finds something missing in it reads the documents and writes it anew, as a whole
//! and without the content that is gone. It may be deleted at any time, two processes may write it at once, and a
//! damaged one counts as none.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::HashSet;

use serde::Deserialize;
use serde::Serialize;

use super::Store;
use super::names_in;
use super::replace_file;
use crate::Descriptor;
use crate::Digest;
use crate::Platform;
use crate::Reference;
use crate::error::Result;
use crate::image;
use crate::media;

/// Name of the file.
const FILE: &str = "summaries";
/// Largest file that is read, in bytes: room for 50,000 images.
const MAX_FILE: u64 = 64 << 20;

/// One image of a store, under one of its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// The name; an image may be kept without one.
    pub reference: Option<Reference>,
    /// What it stands for.
    pub target: Descriptor,
    /// Its variants in the order of its index, those that are not here included.
    pub variants: Vec<VariantSummary>,
    /// Bytes of the files of its layers and of its modules. A layer that is not unpacked counts as it was fetched.
    pub size: u64,
    /// Bytes of everything that was fetched.
    pub content: u64,
}

/// One variant of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VariantSummary {
    /// What it runs on.
    pub platform: Platform,
    /// Its manifest.
    pub manifest: Descriptor,
    /// Whether it is in the store. What follows is empty if not.
    pub present: bool,
    /// Digest of its configuration: what Docker calls the image's id.
    pub config: Option<Digest>,
    /// When it was built, RFC 3339.
    pub created: Option<String>,
    /// Free-form notes.
    pub labels: BTreeMap<String, String>,
    /// As [`Summary::size`].
    pub size: u64,
    /// As [`Summary::content`].
    pub content: u64,
}

/// What the file holds.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Facts {
    /// Of indexes: the manifests below them.
    indexes: HashMap<Digest, Vec<Descriptor>>,
    manifests: HashMap<Digest, Manifest>,
    /// Of unpacked layers: bytes of their files.
    layers: HashMap<Digest, u64>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Manifest {
    platform: Platform,
    config: (Digest, u64),
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    /// Layers and modules: digest, size, and the diff id of a layer.
    blobs: Vec<(Digest, u64, Option<Digest>)>,
}

/// Looks things up, in the file or where they come from, and keeps what it used.
struct Look<'s> {
    store: &'s Store,
    known: Facts,
    used: Facts,
    /// Something was not in the file.
    learned: bool,
    /// Names of the blobs and of the layers that are there.
    blobs: HashSet<String>,
    layers: HashSet<String>,
}

/// What was counted already, of blobs and layers alike.
#[derive(Debug, Default)]
struct Sum {
    seen: HashSet<Digest>,
    size: u64,
    content: u64,
}

impl Store {
    /// Every image under each of its names, sorted by name, those without any name last. An image whose documents are
    /// damaged is in it without variants; [`Store::check`] says what is wrong with it.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn summaries(&self) -> Result<Vec<Summary>> {
        let mut named = Vec::new();
        for (_, record) in self.records()? {
            let Ok(record) = record else { continue };
            if record.name.parse::<Digest>().is_ok() {
                named.push((None, record.descriptor));
            } else if let Ok(name) = Reference::parse(&record.name) {
                named.push((Some(name), record.descriptor));
            }
        }
        named.sort_by(|a, b| (a.0.is_none(), &a.0, &a.1.digest).cmp(&(b.0.is_none(), &b.0, &b.1.digest)));
        let mut look = Look::new(self)?;
        // Where an image under another name is.
        let mut done: HashMap<Digest, usize> = HashMap::with_capacity(named.len());
        let mut summaries: Vec<Summary> = Vec::with_capacity(named.len());
        for (reference, target) in named {
            let same = done.get(&target.digest).and_then(|at| summaries.get(*at));
            if let Some(same) = same.cloned() {
                // What was kept without a name has got one since.
                if reference.is_none() {
                    continue;
                }
                summaries.push(Summary { reference, target, ..same });
                continue;
            }
            done.insert(target.digest.clone(), summaries.len());
            summaries.push(look.image(reference, target));
        }
        look.finish();
        Ok(summaries)
    }
}

impl<'s> Look<'s> {
    fn new(store: &'s Store) -> Result<Self> {
        let names = |folder: &str| -> Result<HashSet<String>> {
            let names = names_in(&store.root.join(folder))?;
            Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
        };
        Ok(Self {
            store,
            known: read(store).unwrap_or_default(),
            used: Facts::default(),
            learned: false,
            blobs: names("blobs/sha256")?,
            layers: names("layers")?,
        })
    }

    fn image(&mut self, reference: Option<Reference>, target: Descriptor) -> Summary {
        let mut all = Sum::default();
        let mut variants = Vec::new();
        let manifests = self.manifests(&target).unwrap_or_default();
        // Of an image that is one manifest there is one sum.
        let is_one = manifests.len() == 1;
        for manifest in manifests {
            let facts = if self.has(&manifest.digest) { self.manifest(&manifest).ok() } else { None };
            let platform = match (&manifest.platform, &facts) {
                (Some(platform), _) => platform.normalised(),
                (None, Some(facts)) => facts.platform.clone(),
                // An entry that does not say what it runs on, and is not here to be asked.
                (None, None) => continue,
            };
            let mut variant = VariantSummary {
                platform,
                present: facts.is_some(),
                config: None,
                created: None,
                labels: BTreeMap::new(),
                size: 0,
                content: 0,
                manifest,
            };
            if let Some(facts) = facts {
                let mut own = Sum::default();
                self.add(&mut own, &variant.manifest, &facts);
                (variant.size, variant.content) = (own.size, own.content);
                if is_one {
                    all = own;
                } else {
                    self.add(&mut all, &variant.manifest, &facts);
                }
                variant.config = Some(facts.config.0.clone());
                variant.created.clone_from(&facts.created);
                variant.labels.clone_from(&facts.labels);
                self.used.manifests.insert(variant.manifest.digest.clone(), facts);
            }
            variants.push(variant);
        }
        if media::is_index(&target.media_type) {
            all.document(&target.digest, target.size);
        }
        Summary { reference, target, variants, size: all.size, content: all.content }
    }

    /// Adds everything of a variant to a sum.
    fn add(&mut self, sum: &mut Sum, manifest: &Descriptor, facts: &Manifest) {
        sum.document(&manifest.digest, manifest.size);
        sum.document(&facts.config.0, facts.config.1);
        for (digest, size, diff_id) in &facts.blobs {
            let files = diff_id.as_ref().and_then(|diff_id| self.layer(diff_id));
            sum.blob(digest, *size, files);
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        match digest.algorithm() {
            crate::Algorithm::Sha256 => self.blobs.contains(digest.hex()),
            crate::Algorithm::Sha512 => self.store.has_blob(digest),
        }
    }

    /// The manifests below an index; of a manifest, itself.
    fn manifests(&mut self, target: &Descriptor) -> Result<Vec<Descriptor>> {
        if !media::is_index(&target.media_type) {
            return Ok(vec![target.clone()]);
        }
        if let Some(known) = self.known.indexes.get(&target.digest) {
            self.used.indexes.entry(target.digest.clone()).or_insert_with(|| known.clone());
            return Ok(known.clone());
        }
        let mut found = Vec::new();
        let store = self.store;
        image::walk(target, &mut |index| store.read_blob(index).map(Some), &mut |manifest| {
            let mut plain = Descriptor::new(&manifest.media_type, manifest.digest.clone(), manifest.size);
            plain.platform.clone_from(&manifest.platform);
            found.push(plain);
            Ok(())
        })?;
        self.learned = true;
        self.used.indexes.insert(target.digest.clone(), found.clone());
        Ok(found)
    }

    /// What is known of a manifest. It is taken out: who has used it puts it into what was used.
    fn manifest(&mut self, manifest: &Descriptor) -> Result<Manifest> {
        let known = self.used.manifests.remove(&manifest.digest);
        if let Some(known) = known.or_else(|| self.known.manifests.remove(&manifest.digest)) {
            return Ok(known);
        }
        // What the index says of the platform is not part of the manifest.
        let plain = Descriptor { platform: None, ..manifest.clone() };
        let image = self.store.read_image(&plain)?;
        self.learned = true;
        let layers = image.layers.into_iter().zip(image.diff_ids);
        let layers = layers.map(|(blob, diff_id)| (blob.digest, blob.size, Some(diff_id)));
        Ok(Manifest {
            platform: image.platform,
            config: (image.config_descriptor.digest, image.config_descriptor.size),
            created: image.config.created,
            labels: image.config.config.labels,
            blobs: layers.chain(image.wasm.into_iter().map(|blob| (blob.digest, blob.size, None))).collect(),
        })
    }

    /// Bytes of the files of a layer, if it is unpacked.
    fn layer(&mut self, diff_id: &Digest) -> Option<u64> {
        let is_here = match diff_id.algorithm() {
            crate::Algorithm::Sha256 => self.layers.contains(diff_id.hex()),
            crate::Algorithm::Sha512 => self.layers.contains(&format!("sha512-{}", diff_id.hex())),
        };
        if !is_here {
            return None;
        }
        if let Some(used) = self.used.layers.get(diff_id) {
            return Some(*used);
        }
        let size = match self.known.layers.get(diff_id) {
            Some(known) => *known,
            None => {
                let size = self.store.unpacked_size(diff_id)?;
                self.learned = true;
                size
            }
        };
        self.used.layers.insert(diff_id.clone(), size);
        Some(size)
    }

    /// Writes down what was learned. It saves time later and is no reason to fail.
    fn finish(self) {
        if !self.learned {
            return;
        }
        if let Ok(json) = serde_json::to_vec(&self.used) {
            let mut text = Digest::of(&json).to_string().into_bytes();
            text.push(b'\n');
            text.extend_from_slice(&json);
            // With the lock, so that no sweep takes the half-written file for somebody's leavings.
            if let Ok(_shared) = self.store.lock_shared() {
                drop(replace_file(&self.store.root.join(FILE), &text, false));
            }
        }
    }
}

impl Sum {
    fn document(&mut self, digest: &Digest, size: u64) {
        if self.seen.insert(digest.clone()) {
            self.content += size;
        }
    }

    fn blob(&mut self, digest: &Digest, size: u64, files: Option<u64>) {
        if self.seen.insert(digest.clone()) {
            self.content += size;
            self.size += files.unwrap_or(size);
        }
    }
}

fn read(store: &Store) -> Option<Facts> {
    let path = store.root.join(FILE);
    if std::fs::symlink_metadata(&path).ok()?.len() > MAX_FILE {
        return None;
    }
    let bytes = fs_err::read(path).ok()?;
    let end = bytes.iter().position(|b| *b == b'\n')?;
    let (digest, json) = (&bytes[..end], &bytes[end + 1..]);
    if Digest::of(json).to_string().as_bytes() != digest {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use fs_err as fs;

    use super::*;
    use crate::Matcher;
    use crate::NoProgress;
    use crate::compose;
    use crate::compose::ImageBuilder;
    use crate::compose::LayerBuilder;
    use crate::store::tests::store;

    fn native(store: &Store, content: &str) -> Descriptor {
        let mut layer = LayerBuilder::new();
        layer.file("f", 0o644, content);
        let mut image = ImageBuilder::new(&"linux/amd64".parse().unwrap());
        image.layer(layer).created("2024-01-02T03:04:05Z").config().labels.insert("a".into(), "b".into());
        image.build(store).unwrap()
    }

    #[test]
    fn a_summary_is_the_same_with_and_without_its_file() {
        let (_dir, store) = store();
        let native = native(&store, "hello");
        let wasm = compose::wasm_artifact(&store, "wasip1", b"\0asm1234").unwrap();
        let absent = Descriptor {
            platform: Some("linux/s390x".parse().unwrap()),
            ..Descriptor::new(media::MANIFEST, Digest::of(b"absent"), 6)
        };
        let index = compose::index(&store, &[native.clone(), absent, wasm]).unwrap();
        store.tag(&"b:1".parse().unwrap(), &index).unwrap();
        store.tag(&"a:1".parse().unwrap(), &native).unwrap();
        store.keep_untagged(&index).unwrap();
        let file = store.root().join(FILE);
        let first = store.summaries().unwrap();
        let names: Vec<_> = first.iter().map(|s| s.reference.as_ref().map(Reference::familiar)).collect();
        assert_eq!(names, [Some("a:1".into()), Some("b:1".into())]);
        let both = &first[1];
        let here: Vec<_> = both.variants.iter().map(|v| (v.platform.to_string(), v.present)).collect();
        assert_eq!(
            here,
            [("linux/amd64".into(), true), ("linux/s390x".into(), false), ("wasip1/wasm".into(), true)]
        );
        assert_eq!(both.variants[0].labels["a"], "b");
        assert_eq!(both.content, store.usage(&index).unwrap().blobs);
        // Nothing is unpacked: the layer as it was fetched, and the module.
        let layer = store.image(&native, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap();
        assert_eq!(both.size, layer.layers[0].size + 8);

        let written = fs::read(&file).unwrap();
        assert_eq!(store.summaries().unwrap(), first);
        assert_eq!(fs::read(&file).unwrap(), written, "nothing was to be learned");
        // Whatever somebody does to the file, only the time it takes changes.
        for change in [&b""[..], b"garbage", &written[..written.len() / 2], &[&written[..], b" "].concat()] {
            fs::write(&file, change).unwrap();
            assert_eq!(store.summaries().unwrap(), first);
            assert_eq!(fs::read(&file).unwrap().len(), written.len());
        }

        // What is unpacked, and what is gone, is seen at once.
        store.unpack(&layer, &NoProgress).unwrap();
        assert_eq!(store.summaries().unwrap()[0].size, 5);
        assert_eq!(store.summaries().unwrap()[1].size, 5 + 8);
        fs::remove_file(store.blob_path(&native.digest)).unwrap();
        let gone = store.summaries().unwrap();
        assert!(
            !gone[1].variants[0].present && gone[1].size == 8 && gone[0].variants.iter().all(|v| !v.present)
        );
        store.untag(&"b:1".parse().unwrap()).unwrap();
        let unnamed = store.summaries().unwrap();
        assert_eq!((unnamed.len(), &unnamed[1].reference), (2, &None));
        store.drop_untagged(&index.digest).unwrap();
        store.untag(&"a:1".parse().unwrap()).unwrap();
        assert_eq!(store.summaries().unwrap(), []);
    }
}
