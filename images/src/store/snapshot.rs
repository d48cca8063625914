//! What an image's files are kept as: one interface for both forms.
//!
//! Directories ([`Snapshot::Files`]) work everywhere. On a Linux host that can mount an EROFS image from a file, a
//! native image is not extracted at all ([`Snapshot::Index`]): its layers stay the plain tar archives that they are,
//! and one index describes the tree that they make together. What is asked for is a wish of the store
//! ([`Store::with_layer_form`]); what an image has got is in the answer.

use std::path::PathBuf;

use super::Store;
use super::UnpackedLayer;
use crate::Digest;
use crate::Image;
use crate::Platform;
use crate::Progress;
use crate::error::Result;

/// The form in which layers of native images are wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LayerForm {
    /// Directories, always.
    #[default]
    Files,
    /// Tar archives and an index, for native images on hosts that can mount them; else directories.
    Index,
}

/// The files of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Snapshot {
    /// One directory for each layer, lowest first. Names that a layer removes are marked in it.
    Files(Vec<UnpackedLayer>),
    /// The merged tree as one index over the layers' archives.
    Index(IndexedImage),
}

/// An image whose layers are archives with a common EROFS index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedImage {
    /// The chain id of the uppermost layer, as the OCI image specification defines it.
    pub chain_id: Digest,
    /// The EROFS image: metadata only.
    pub index: PathBuf,
    /// The layers' uncompressed archives, lowest first: the devices of the EROFS image, in this order.
    pub tars: Vec<PathBuf>,
}

impl Store {
    /// Sets the form in which [`Store::snapshot`] and pulls keep native images.
    #[must_use]
    pub fn with_layer_form(self, form: LayerForm) -> Self {
        Self { form, ..self }
    }

    /// Makes sure that an image's files are there, in the form that the store keeps them in.
    ///
    /// # Errors
    /// As [`Store::unpack`].
    pub fn snapshot(&self, image: &Image, progress: &dyn Progress) -> Result<Snapshot> {
        let _form = self.form_of(image);
        Ok(Snapshot::Files(self.unpack(image, progress)?))
    }

    /// The form in which this image's layers are wanted.
    pub(crate) fn form_of(&self, image: &Image) -> LayerForm {
        self.form_for(&image.platform)
    }

    /// As [`Store::form_of`], when no more is known of the image yet.
    pub(crate) fn form_for(&self, platform: &Platform) -> LayerForm {
        if platform.is_wasm() { LayerForm::Files } else { self.form }
    }
}
