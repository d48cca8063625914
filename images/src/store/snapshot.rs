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
#[cfg(target_os = "linux")]
use crate::layer::unpack;
#[cfg(target_os = "linux")]
use crate::store::session::Session;

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

    /// Makes sure that an image's files are there, in the form that the store keeps them in. What is mounted already
    /// costs two system calls.
    ///
    /// # Errors
    /// As [`Store::unpack`].
    pub fn snapshot(&self, image: &Image, progress: &dyn Progress) -> Result<Snapshot> {
        #[cfg(target_os = "linux")]
        if let Some(indexed) = self.indexed(image, progress)? {
            return Ok(Snapshot::Index(indexed));
        }
        Ok(Snapshot::Files(self.unpack(image, progress)?))
    }

    /// The form in which this image's layers are wanted, and can be: a layer that is there as directory only makes an
    /// image of directories.
    pub(crate) fn form_of(&self, image: &Image) -> LayerForm {
        #[cfg(target_os = "linux")]
        {
            let is_only_dir = |diff_id: &Digest| {
                let dir = self.layer_dir(diff_id);
                (is(&dir.join("fs")) || is(&dir.join(unpack::NEEDS_BELOW)))
                    && !is(&dir.join(crate::layer::plain::TAR))
            };
            if image.diff_ids.iter().any(is_only_dir) {
                return LayerForm::Files;
            }
        }
        self.form_for(&image.platform)
    }

    /// As [`Store::form_of`], when no more is known of the image yet.
    pub(crate) fn form_for(&self, platform: &Platform) -> LayerForm {
        #[cfg(target_os = "linux")]
        if self.may_index(platform) && *self.can_mount.get_or_init(|| super::mounts::probe(&self.root)) {
            return LayerForm::Index;
        }
        let _ = (platform, self.form);
        LayerForm::Files
    }

    /// The index of an image, if that is its form. Whatever is missing is made.
    #[cfg(target_os = "linux")]
    fn indexed(&self, image: &Image, progress: &dyn Progress) -> Result<Option<IndexedImage>> {
        if !self.may_index(&image.platform) {
            return Ok(None);
        }
        let Some(indexed) = self.indexed_image(&image.diff_ids) else { return Ok(None) };
        if self.mounted(&indexed.chain_id).is_some() || self.has_tree(&indexed)? {
            return Ok(Some(indexed));
        }
        if self.form_of(image) != LayerForm::Index {
            return Ok(None);
        }
        let session = Session::new(self)?;
        session.claim(image.diff_ids.iter().chain([&image.manifest.digest, &indexed.chain_id]))?;
        self.unpack_missing(&session, image, LayerForm::Index, progress)?;
        Ok(unpack::index(&session, image, progress)?.then_some(indexed))
    }

    /// Whether the index form is wanted for an image, whatever the kernel says.
    #[cfg(target_os = "linux")]
    fn may_index(&self, platform: &Platform) -> bool {
        self.form == LayerForm::Index && self.mounts.is_some() && !platform.is_wasm()
    }

    /// Where the tree of these layers is mounted, if the store has an index of them; it is mounted if it is not yet.
    /// `None` when their form is another: then [`Store::layer_path`] has the directories.
    ///
    /// # Errors
    /// When the index cannot be read or mounted.
    pub fn mounted_tree(&self, diff_ids: &[Digest]) -> Result<Option<PathBuf>> {
        #[cfg(target_os = "linux")]
        if self.form == LayerForm::Index
            && self.mounts.is_some()
            && let Some(image) = self.indexed_image(diff_ids)
        {
            if let Some(path) = self.mounted(&image.chain_id) {
                return Ok(Some(path));
            }
            if self.has_tree(&image)? {
                return self.mount(&image).map(Some);
            }
        }
        let _ = diff_ids;
        Ok(None)
    }
}

#[cfg(target_os = "linux")]
fn is(path: &std::path::Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}
