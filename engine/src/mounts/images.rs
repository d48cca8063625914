//! Images as mounts: which content that is, decided when the container is made and kept by its lease.
//!
//! Where the image is one mounted tree (Linux, as root) a start binds that, and nothing is copied. Elsewhere the files are
//! copied into the container's own folder once.

use std::path::Path;

use dhow_images::{Descriptor, Digest, Image, Matcher, RootPart};
use dhow_runtime::Kind;
use fs_err as fs;

use super::{MountKind, MountPoint};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::ImageOrigin;

/// Folder of copies below a container's data.
const FOLDER: &str = "images";

impl Engine {
    /// Finds the images among the mounts of a container in the making, keeps them for it, and makes their files ready.
    pub(crate) fn settle_image_mounts(
        &self,
        id: &str,
        (data, kind): (&Path, Kind),
        own: Option<&ImageOrigin>,
        points: &mut [MountPoint],
        durable: bool,
    ) -> Result<()> {
        let mut kept: Vec<Digest> = Vec::new();
        if let Some(own) = own {
            kept.push(own.id.parse()?);
        }
        for (number, point) in points.iter_mut().filter(|point| point.kind == MountKind::Image).enumerate() {
            let target = self.find_mounted(&point.name)?;
            kept.push(target.digest.clone());
            // Before it is looked into: from here on it cannot be swept.
            self.store().lease(id, &kept, durable)?;
            self.check_trust(&target, &point.name)?;
            let image = self.store().image(&target, &Matcher::host())?;
            self.store().touch(&target.digest);
            point.image = Some(ImageOrigin {
                id: target.digest.to_string(),
                manifest: image.manifest.digest.to_string(),
                platform: image.platform.to_string(),
                layers: image.diff_ids.iter().map(ToString::to_string).collect(),
            });
            if !self.is_one_tree(&image, kind)? {
                self.copy_image(&image, point, &data.join(FOLDER), number)?;
            }
        }
        Ok(())
    }

    fn find_mounted(&self, name: &str) -> Result<Descriptor> {
        self.find_image(name).map_err(|error| match error {
            // A pull of the container's own image would not help.
            Error::Images(dhow_images::Error::NoSuchImage { .. }) => {
                Error::Invalid(format!("No such image: {name}"))
            }
            other => other,
        })
    }

    /// Whether a start of a container of this kind finds the whole image at one place.
    fn is_one_tree(&self, image: &Image, kind: Kind) -> Result<bool> {
        #[cfg(target_os = "linux")]
        if kind == Kind::Native && rustix::process::geteuid().is_root() {
            let made = self.store().snapshot(image, &dhow_images::NoProgress)?;
            return Ok(matches!(made, dhow_images::Snapshot::Index(_)));
        }
        let _ = (image, kind);
        Ok(false)
    }

    fn copy_image(&self, image: &Image, point: &mut MountPoint, folder: &Path, number: usize) -> Result<()> {
        fs::create_dir_all(folder)?;
        let to = folder.join(number.to_string());
        let from = format!("/{}", point.subpath);
        let copy = || Ok(dhow_images::copy_out(self.store(), &[RootPart::Image(image)], &from, &to)?);
        if cfg!(target_os = "linux") && !image.platform.is_wasm() {
            crate::owner::part_as_owner(|| copy().map(drop))?;
        } else {
            copy()?;
        }
        if !to.is_dir() && !point.subpath.is_empty() {
            return Err(Error::Invalid(format!(
                "invalid mount config for type \"image\": there is no folder {} in {}",
                point.subpath, point.name
            )));
        }
        if !to.is_dir() {
            // One without any layer.
            fs::create_dir(&to)?;
        }
        let path = to.to_str().map(str::to_owned);
        point.source = path.ok_or_else(|| {
            Error::Invalid(format!("{}: a path with mounts must be valid UTF-8", to.display()))
        })?;
        point.subpath.clear();
        Ok(())
    }
}
