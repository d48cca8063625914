//! An image as a test describes it: platform, configuration, layers; or an index of several.

use serde_json::{Value, json};

use super::{Squeeze, Tree};

/// What [`super::Layout`] can store.
#[derive(Debug, Clone)]
pub(crate) enum Image {
    /// One manifest.
    Single(Single),
    /// An image index over several.
    Index(Vec<Self>),
}

/// One manifest's content.
#[derive(Debug, Clone)]
pub(crate) struct Single {
    pub(crate) os: String,
    pub(crate) architecture: String,
    pub(crate) config: Value,
    /// Uncompressed archives, lowest first.
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) squeeze: Squeeze,
    /// Docker's media types in the place of OCI's.
    pub(crate) docker: bool,
}

impl Image {
    /// An image for `platform`, for example `linux/amd64`.
    pub(crate) fn new(platform: &str) -> Self {
        let (os, architecture) = platform.split_once('/').expect("os/architecture");
        Self::Single(Single {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            config: json!({}),
            layers: Vec::new(),
            squeeze: Squeeze::Gzip,
            docker: false,
        })
    }

    /// An image for the machine that runs the tests.
    pub(crate) fn native() -> Self {
        Self::new(if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" })
    }

    /// A Wasm image.
    pub(crate) fn wasm() -> Self {
        Self::new("wasi/wasm")
    }

    /// One name, several platforms.
    pub(crate) fn index(images: impl IntoIterator<Item = Self>) -> Self {
        Self::Index(images.into_iter().collect())
    }

    pub(crate) fn layer(self, tree: Tree) -> Self {
        self.change(|image| image.layers.push(tree.finish()))
    }

    /// A layer that is given as an archive.
    pub(crate) fn archive(self, tar: Vec<u8>) -> Self {
        self.change(|image| image.layers.push(tar))
    }

    pub(crate) fn squeeze(self, squeeze: Squeeze) -> Self {
        self.change(|image| image.squeeze = squeeze)
    }

    /// Uses Docker's media types (schema 2).
    pub(crate) fn docker(self) -> Self {
        self.change(|image| image.docker = true)
    }

    /// Sets a field of the image configuration's `config`, for example `Entrypoint`.
    pub(crate) fn config(self, field: &str, value: Value) -> Self {
        self.change(|image| image.config[field] = value)
    }

    pub(crate) fn entrypoint(self, args: &[&str]) -> Self {
        self.config("Entrypoint", json!(args))
    }

    pub(crate) fn cmd(self, args: &[&str]) -> Self {
        self.config("Cmd", json!(args))
    }

    fn change(mut self, with: impl FnOnce(&mut Single)) -> Self {
        match &mut self {
            Self::Single(image) => with(image),
            Self::Index(_) => panic!("an index has nothing but its images"),
        }
        self
    }
}
