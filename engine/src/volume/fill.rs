//! Copy-up: an empty volume gets what the image has where it is mounted, with owners and modes, as in Docker.
//!
//! The files come from the image's archives and never through a container, so no program of the image takes part. They
//! are made beside the volume's folder and put in its place: a crash leaves an empty volume, and the next use fills it.

use std::io::ErrorKind;

use dhow_images::{Image, RootPart};
use dhow_runtime::Kind;
use fs_err as fs;

use super::Volume;
use crate::engine::Engine;
use crate::error::Result;

/// Beside `_data`, while it is filled.
const FILLING: &str = ".filling";

impl Engine {
    /// Fills a volume if it is empty and the image has a directory at `destination`.
    pub(crate) fn fill_volume(
        &self,
        volume: &Volume,
        kind: Kind,
        image: &Image,
        destination: &str,
    ) -> Result<()> {
        let folder = self.volume_folder(&volume.name);
        let data = folder.join(super::DATA);
        // One at a time: the lock is the record, which nobody writes to.
        let lock = fs::File::open(folder.join(super::RECORD))?;
        lock.file().lock()?;
        if fs::read_dir(&data)?.next().is_some() {
            return Ok(());
        }
        let draft = folder.join(FILLING);
        match fs::symlink_metadata(&draft) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            _ => dhow_images::remove_tree(&draft)?,
        }
        // A Wasm program has no users: what it may do with files is what the user of this process may.
        let owners = kind == Kind::Native;
        let copy = || -> Result<bool> {
            let copied = dhow_images::copy_out(self.store(), &[RootPart::Image(image)], destination, &draft);
            if copied.is_err() {
                // A full disk gets its room back at once.
                dhow_images::remove_tree(&draft).ok();
            }
            Ok(copied?)
        };
        if owners {
            let mut found = false;
            crate::owner::part_as_owner(|| {
                found = copy()?;
                Ok(())
            })?;
            // It may have been done by another process.
            let _ = found;
        } else {
            copy()?;
        }
        if draft.is_dir() {
            #[cfg(windows)]
            fs::remove_dir(&data)?;
            fs::rename(&draft, &data)?;
        }
        Ok(())
    }
}
