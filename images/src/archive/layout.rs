//! Writing images into folders: OCI image layouts, and the plain folders of `skopeo` and `podman` (`dir:`).

use std::path::Path;

use fs_err as fs;

use super::oci::CONTAINERD_NAME;
use super::save::Contents;
use super::save::LAYOUT;
use super::save::SaveOptions;
use super::save::Saved;
use super::save::chosen;
use super::save::index;
use super::source::blob_member;
use crate::Descriptor;
use crate::Error;
use crate::HashingReader;
use crate::Index;
use crate::Manifest;
use crate::Reference;
use crate::Store;
use crate::compose::json;
use crate::error::Result;
use crate::media;
use crate::store::session::random_name;

/// Writes an image, with every variant of it that is in the store, as an OCI image layout. The directory is made
/// if need be; an image that is there already stays, and is replaced if it has the same name.
///
/// # Errors
/// [`Error::MissingBlob`] when a variant is not complete, and the disk's.
pub fn save_layout(store: &Store, image: &Descriptor, name: Option<&Reference>, dir: &Path) -> Result<()> {
    let saved = Saved { image: image.clone(), names: name.into_iter().cloned().collect() };
    save_layouts(store, &[saved], &SaveOptions::default(), dir)
}

/// As [`save_layout`], for several images.
///
/// # Errors
/// As [`save_layout`]; with a platform also [`Error::NoVariant`] and [`Error::VariantAbsent`].
pub fn save_layouts(store: &Store, images: &[Saved], options: &SaveOptions, dir: &Path) -> Result<()> {
    let images = chosen(store, images, options)?;
    let mut contents = Contents::default();
    for saved in &images {
        contents.add(store, &saved.image, 0)?;
    }
    fs::create_dir_all(dir.join("blobs/sha256"))?;
    for blob in contents.all() {
        let target = dir.join(blob_member(&blob.digest));
        if std::fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size) {
            continue;
        }
        copy(store, blob, &target)?;
    }
    let path = dir.join("index.json");
    let mut new = index(&images);
    match fs::read(&path) {
        Ok(bytes) => {
            let name = |entry: &Descriptor| entry.annotations.get(CONTAINERD_NAME).cloned();
            let mut old = Index::parse(path.display(), &bytes)?;
            old.manifests.retain(|old| {
                !new.manifests
                    .iter()
                    .any(|new| name(new) == name(old) && (name(new).is_some() || new.digest == old.digest))
            });
            old.manifests.append(&mut new.manifests);
            new = old;
        }
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => return Err(e.into()),
    }
    write(&path, &json(&new)?)?;
    write(&dir.join("oci-layout"), LAYOUT)
}

/// Writes one image as a folder in the form of `skopeo copy … dir:FOLDER`: its manifest beside its blobs.
///
/// # Errors
/// As [`save_layouts`]; an image of several variants needs a platform, as the form has one only.
pub fn save_docker_dir(store: &Store, saved: &Saved, options: &SaveOptions, dir: &Path) -> Result<()> {
    let chosen = chosen(store, std::slice::from_ref(saved), options)?;
    let [Saved { image, .. }] = chosen.as_slice() else { return Ok(()) };
    let mut image = image.clone();
    if media::is_index(&image.media_type) {
        let variants = store.variants(&image)?;
        let mut present = variants.into_iter().filter(|variant| variant.present);
        image = match (present.next(), present.next()) {
            (Some(only), None) => only.manifest,
            _ => {
                let reason = "has several variants, and this form has room for one; name its platform";
                return Err(Error::manifest(&image.digest, reason));
            }
        };
    }
    let bytes = store.read_blob(&image)?;
    let manifest = Manifest::parse(&image.digest, &bytes)?;
    fs::create_dir_all(dir)?;
    for blob in manifest.layers.iter().chain([&manifest.config]) {
        copy(store, blob, &dir.join(blob.digest.hex()))?;
    }
    write(&dir.join("version"), b"Directory Transport Version: 1.1\n")?;
    write(&dir.join("manifest.json"), &bytes)
}

/// Copies a blob, verified on the way; it gets its name when it is whole.
fn copy(store: &Store, blob: &Descriptor, target: &Path) -> Result<()> {
    let folder = target.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let temporary = folder.join(format!(".tmp-{}", random_name()?));
    let written = (|| -> Result<()> {
        let mut from = HashingReader::new(store.open_blob(&blob.digest)?, blob.digest.algorithm());
        let mut to = fs::OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        std::io::copy(&mut from, &mut to)?;
        from.verify(&format!("blob {}", blob.digest), &blob.digest, Some(blob.size))?;
        Ok(fs::rename(&temporary, target)?)
    })();
    if written.is_err() {
        drop(fs::remove_file(&temporary));
    }
    written
}

fn write(path: &Path, content: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let temporary = folder.join(format!(".tmp-{}", random_name()?));
    fs::write(&temporary, content)?;
    Ok(fs::rename(temporary, path)?)
}
