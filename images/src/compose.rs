//! Making images from files, without running anything: the same input gives the same digests everywhere.
//!
//! Layers are gzip, times are zero, owners are root. This is for tests, examples and tools; it is not a builder.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::ImageConfig;
use crate::Index;
use crate::Manifest;
use crate::Platform;
use crate::RunConfig;
use crate::Store;
use crate::config::History;
use crate::error::Result;
use crate::media;
use crate::store::session::Session;

/// A layer in the making. Entries are sorted by path; a later one replaces an earlier one of the same path.
#[derive(Debug, Default, Clone)]
pub struct LayerBuilder {
    entries: BTreeMap<String, Node>,
}

#[derive(Debug, Clone)]
enum Node {
    Dir(u32),
    File(u32, Vec<u8>),
    Symlink(String),
}

impl LayerBuilder {
    /// An empty layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A directory with these permission bits.
    pub fn dir(&mut self, path: &str, mode: u32) -> &mut Self {
        self.insert(path, Node::Dir(mode))
    }

    /// A regular file. Parents that have no entry of their own get mode 0755.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) -> &mut Self {
        self.insert(path, Node::File(mode, content.into()))
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> &mut Self {
        self.insert(path, Node::Symlink(target.into()))
    }

    /// Removes a file or directory of the layers below.
    pub fn whiteout(&mut self, path: &str) -> &mut Self {
        let path = path.trim_matches('/');
        let (parent, name) = path.rsplit_once('/').map_or(("", path), |(p, n)| (p, n));
        self.insert(&format!("{parent}/.wh.{name}"), Node::File(0, Vec::new()))
    }

    fn insert(&mut self, path: &str, node: Node) -> &mut Self {
        let path = path.trim_matches('/');
        for (slash, _) in path.match_indices('/') {
            self.entries.entry(path[..slash].into()).or_insert(Node::Dir(0o755));
        }
        self.entries.insert(path.into(), node);
        self
    }

    /// The layer as a plain tar.
    ///
    /// # Errors
    /// When a path cannot be in an archive.
    pub fn to_tar(&self) -> Result<Vec<u8>> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, node) in &self.entries {
            let mut header = tar::Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            let added = match node {
                Node::Dir(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    tar.append_data(&mut header, format!("{path}/"), &[][..])
                }
                Node::File(mode, content) => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    tar.append_data(&mut header, path, &content[..])
                }
                Node::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    tar.append_link(&mut header, path, target)
                }
            };
            added.map_err(|e| Error::io(format_args!("cannot archive {path}"), e))?;
        }
        Ok(tar.into_inner()?)
    }
}

/// One variant of an image in the making.
#[derive(Debug, Clone)]
pub struct ImageBuilder {
    platform: Platform,
    config: RunConfig,
    layers: Vec<LayerBuilder>,
    created: Option<String>,
}

impl ImageBuilder {
    /// An image without layers for this platform.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        Self { platform: platform.clone(), config: RunConfig::default(), layers: Vec::new(), created: None }
    }

    /// The defaults for containers.
    pub fn config(&mut self) -> &mut RunConfig {
        &mut self.config
    }

    /// When it was made, RFC 3339. Without it, the image says nothing about that.
    pub fn created(&mut self, time: &str) -> &mut Self {
        self.created = Some(time.into());
        self
    }

    /// Adds a layer on top.
    pub fn layer(&mut self, layer: LayerBuilder) -> &mut Self {
        self.layers.push(layer);
        self
    }

    /// Writes layers, configuration and manifest into the store. The descriptor carries the platform, as an index
    /// needs it. Name it soon: what has no name can be swept at any time.
    ///
    /// # Errors
    /// The disk's.
    pub fn build(&self, store: &Store) -> Result<Descriptor> {
        let session = Session::new(store)?;
        let mut layers = Vec::new();
        let mut config = ImageConfig {
            created: self.created.clone(),
            architecture: self.platform.architecture.clone(),
            variant: self.platform.variant.clone(),
            os: self.platform.os.clone(),
            config: self.config.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.kind = "layers".into();
        for layer in &self.layers {
            let tar = layer.to_tar()?;
            config.rootfs.diff_ids.push(Digest::of(&tar));
            config.history.push(History { created: self.created.clone(), ..History::default() });
            layers.push(session.put(media::LAYER_GZIP, &gzip(&tar)?)?);
        }
        let config = session.put(media::CONFIG, &json(&config)?)?;
        let manifest = manifest(config, layers);
        let mut descriptor = session.put(media::MANIFEST, &json(&manifest)?)?;
        descriptor.platform = Some(self.platform.clone());
        Ok(descriptor)
    }
}

/// Writes a CNCF Wasm artifact into the store: one module or component, no file system. `os` is `wasip1` for a
/// module and `wasip2` for a component.
///
/// # Errors
/// The disk's.
pub fn wasm_artifact(store: &Store, os: &str, code: &[u8]) -> Result<Descriptor> {
    let session = Session::new(store)?;
    let layer = session.put(media::WASM, code)?;
    let config = serde_json::json!({
        "architecture": "wasm",
        "os": os,
        "layerDigests": [layer.digest],
    });
    let config = session.put(media::WASM_CONFIG, &json(&config)?)?;
    let mut descriptor = session.put(media::MANIFEST, &json(&manifest(config, vec![layer]))?)?;
    descriptor.platform = Some(Platform::new(os, "wasm", None));
    Ok(descriptor)
}

/// Writes an index over variants into the store.
///
/// # Errors
/// The disk's.
pub fn index(store: &Store, variants: &[Descriptor]) -> Result<Descriptor> {
    let index = Index {
        schema_version: 2,
        media_type: Some(media::INDEX.into()),
        manifests: variants.to_vec(),
        annotations: BTreeMap::new(),
    };
    Session::new(store)?.put(media::INDEX, &json(&index)?)
}

pub(crate) fn manifest(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
    Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        artifact_type: None,
        config,
        layers,
        subject: None,
        annotations: BTreeMap::new(),
    }
}

pub(crate) fn json(document: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(document).map_err(|e| Error::manifest("new document", e))
}

/// The header carries no time and no name, so the bytes depend on the content alone.
fn gzip(content: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::default());
    encoder.write_all(content)?;
    Ok(encoder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Matcher;
    use crate::NoProgress;
    use crate::store::tests::store;

    #[test]
    fn a_built_image_is_complete_and_the_same_each_time() {
        let build = |store: &Store| {
            let mut layer = LayerBuilder::new();
            layer.file("/bin/hello", 0o755, "#!/bin/sh\n").symlink("bin/hi", "hello").dir("tmp", 0o1777);
            let mut image = ImageBuilder::new(&"linux/amd64".parse().unwrap());
            image.layer(layer).layer(LayerBuilder::new()).config().cmd = vec!["/bin/hello".into()];
            let native = image.build(store).unwrap();
            let wasm = wasm_artifact(store, "wasip1", b"\0asm\x01\0\0\0").unwrap();
            index(store, &[native, wasm]).unwrap()
        };
        let ((_a, one), (_b, two)) = (store(), store());
        let image = build(&one);
        assert_eq!(image, build(&two));

        let native = one.image(&image, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap();
        assert_eq!(native.config.config.cmd, ["/bin/hello"]);
        let layers = one.unpack(&native, &NoProgress).unwrap();
        assert_eq!(fs_err::read_to_string(layers[0].path.join("bin/hi")).unwrap(), "#!/bin/sh\n");
        assert_eq!(one.unpack(&native, &NoProgress).unwrap(), layers);
        let wasm = one.image(&image, &Matcher::host()).unwrap();
        assert_eq!(wasm.platform.to_string(), "wasip1/wasm");
        assert_eq!(fs_err::read(one.blob_path(&wasm.wasm[0].digest)).unwrap(), b"\0asm\x01\0\0\0");
        let error = one.image(&image, &Matcher::only(&"linux/s390x".parse().unwrap())).unwrap_err();
        assert_eq!(error.to_string(), "no variant for linux/s390x (there are linux/amd64 and wasip1/wasm)");
        assert!(error.hint().unwrap().contains("--platform linux/amd64"));
        one.tag(&"x".parse().unwrap(), &image).unwrap();
        assert_eq!(one.check(false).unwrap(), []);
        assert!(one.usage(&image).unwrap().unpacked >= 10);
    }
}
