//! An OCI image layout on disk, and the archives that `dhow load` reads. Blobs can be anything.
//!
//! ```text
//! oci-layout, index.json, blobs/sha256/HEX
//! ```

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{Image, Squeeze, tool};

/// A layout in a temporary folder.
#[derive(Debug)]
pub(crate) struct Layout {
    dir: TempDir,
    tags: RefCell<Vec<Value>>,
}

/// The `sha256:...` of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

impl Layout {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-layout-").tempdir().expect("temporary folder");
        fs_err::create_dir_all(dir.path().join("blobs/sha256")).expect("folder");
        fs_err::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("oci-layout");
        let layout = Self { dir, tags: RefCell::default() };
        layout.write_index();
        layout
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Where a blob is kept.
    pub(crate) fn blob_path(&self, digest: &str) -> PathBuf {
        self.path().join("blobs").join(digest.replace(':', "/"))
    }

    /// Stores a blob and gives its descriptor.
    pub(crate) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = digest_of(bytes);
        fs_err::write(self.blob_path(&digest), bytes).expect("blob");
        json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() })
    }

    /// Stores a JSON document as a blob.
    pub(crate) fn json(&self, media_type: &str, document: &Value) -> Value {
        self.blob(media_type, document.to_string().as_bytes())
    }

    /// Stores an image or an index with all its blobs and gives its descriptor.
    pub(crate) fn image(&self, image: &Image) -> Value {
        let single = match image {
            Image::Index(images) => {
                let manifests: Vec<Value> = images.iter().map(|image| self.image(image)).collect();
                let media_type = "application/vnd.oci.image.index.v1+json";
                let index = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
                return self.json(media_type, &index);
            }
            Image::Single(single) => single,
        };
        let diff_ids: Vec<String> = single.layers.iter().map(|tar| digest_of(tar)).collect();
        let config = json!({
            "created": "2024-01-02T03:04:05Z",
            "os": single.os,
            "architecture": single.architecture,
            "config": single.config,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
            "history": diff_ids.iter().map(|_| json!({ "created_by": "test" })).collect::<Vec<_>>(),
        });
        let layer_type = match (single.docker, single.squeeze) {
            (true, Squeeze::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (true, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
            (false, squeeze) => squeeze.media_type(),
        };
        let layers: Vec<Value> =
            single.layers.iter().map(|tar| self.blob(layer_type, &single.squeeze.apply(tar))).collect();
        let (config_type, manifest_type) = if single.docker {
            (
                "application/vnd.docker.container.image.v1+json",
                "application/vnd.docker.distribution.manifest.v2+json",
            )
        } else {
            ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.manifest.v1+json")
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": self.json(config_type, &config),
            "layers": layers,
        });
        let mut descriptor = self.json(manifest_type, &manifest);
        descriptor["platform"] = json!({ "os": single.os, "architecture": single.architecture });
        descriptor
    }

    /// Lists a descriptor in `index.json` under a name.
    pub(crate) fn tag(&self, descriptor: &Value, name: &str) {
        let mut tagged = descriptor.clone();
        tagged["annotations"] = json!({
            "org.opencontainers.image.ref.name": name,
            "io.containerd.image.name": name,
        });
        self.tags.borrow_mut().push(tagged);
        self.write_index();
    }

    /// The layout as one tar archive.
    pub(crate) fn archive(&self, to: &Path) {
        tool(Command::new("tar").arg("-cf").arg(to).arg("-C").arg(self.path()).args([
            "oci-layout",
            "index.json",
            "blobs",
        ]));
    }

    fn write_index(&self) {
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": *self.tags.borrow(),
        });
        fs_err::write(self.path().join("index.json"), index.to_string()).expect("index.json");
    }
}
