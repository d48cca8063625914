//! Writing images as one tar: an OCI image layout, a `docker load` archive, or both in one.
//!
//! ```text
//! oci-layout, index.json         for OCI tools: one entry for each name, with its annotations
//! manifest.json                  for Docker: the configuration, names and layers of one variant of each image
//! blobs/sha256/<hex>             documents, then everything else: the blobs of the store as they are
//! ```
//!
//! Documents that say what follows come first, so a reader of a stream knows what it will need. Blobs are copied by
//! the kernel while another thread hashes them: a damaged one is an error and never saved silently.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::fs::File;

use serde::Serialize;

use super::oci::CONTAINERD_NAME;
use super::oci::REF_NAME;
use super::pack::TarWriter;
use super::source::blob_member;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::HashingReader;
use crate::Image;
use crate::Index;
use crate::MAX_MANIFEST;
use crate::Manifest;
use crate::Matcher;
use crate::Platform;
use crate::Reference;
use crate::Store;
use crate::compose::json;
use crate::error::Result;
use crate::layer::compression;
use crate::layer::max_unpacked;
use crate::media;
use crate::media::Compression;
use crate::store::private;
use crate::store::session::Session;

/// Content of `oci-layout`.
pub(super) const LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// How deep indexes are followed, as in [`crate::image::walk`].
const MAX_DEPTH: usize = 8;
/// Smaller blobs are hashed by the thread that copies them.
const SMALL: u64 = 256 << 10;

/// One image to be saved, with all the names that it shall have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// The image.
    pub image: Descriptor,
    /// Its names; without one it is known by its digest alone.
    pub names: Vec<Reference>,
}

/// What kind of archive is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SaveFormat {
    /// An OCI image layout that is a docker archive as well.
    #[default]
    Combined,
    /// An OCI image layout only.
    Oci,
    /// A docker archive only: one variant of each image.
    Docker,
}

/// How images are saved.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// What kind of archive is written.
    pub format: SaveFormat,
    /// Only this variant of each image: its manifest then takes the place of the index.
    pub platform: Option<Platform>,
}

/// One image in `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes images, with every variant of them that is in the store, as a tar. Variants that are not there stay
/// absent: their index is written as it is. Docker 20.10 cannot read zstd layers; for its part of the archive those
/// are written once more as plain tars.
///
/// # Errors
/// [`Error::MissingBlob`] when a variant is not complete, [`Error::DigestMismatch`] for a damaged blob,
/// [`Error::NoVariant`] and [`Error::VariantAbsent`] for a platform that an image has not, and the disk's.
pub fn save(store: &Store, images: &[Saved], options: &SaveOptions, to: &mut File) -> Result<()> {
    let session = Session::new(store)?;
    session.claim(images.iter().map(|saved| &saved.image.digest))?;
    let images = chosen(store, images, options)?;
    let mut contents = Contents::default();
    let mut docker = Vec::new();
    for saved in &images {
        if options.format != SaveFormat::Docker {
            contents.add(store, &saved.image, 0)?;
        }
        if options.format != SaveFormat::Oci {
            match docker_image(store, &saved.image)? {
                Some(image) => docker.push((saved, image)),
                None if options.format == SaveFormat::Docker => {
                    let what = saved
                        .names
                        .first()
                        .map_or_else(|| saved.image.digest.to_string(), Reference::familiar);
                    return Err(Error::manifest(what, "a Wasm artifact cannot be in a docker archive"));
                }
                None => {}
            }
        }
    }
    let mut tar = TarWriter::new(to);
    if options.format == SaveFormat::Docker {
        return docker_archive(&session, tar, &docker);
    }
    tar.bytes("oci-layout", LAYOUT)?;
    tar.bytes("index.json", &json(&index(&images))?)?;
    let mut plain: Vec<Plain> = Vec::new();
    let mut seen = HashSet::new();
    if !docker.is_empty() {
        let mut entries = Vec::new();
        for (saved, image) in &docker {
            let mut layers = Vec::new();
            for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
                if !is_zstd(layer) {
                    layers.push(blob_member(&layer.digest));
                    continue;
                }
                layers.push(blob_member(diff_id));
                if !contents.has(diff_id) && seen.insert(diff_id) {
                    plain.push(Plain::unpack(&session, layer, diff_id)?);
                }
            }
            entries.push(entry(saved, blob_member(&image.config_descriptor.digest), layers));
        }
        tar.bytes("manifest.json", &json(&entries)?)?;
    }
    let algorithms: HashSet<&str> = contents.all().map(|blob| blob.digest.algorithm().name()).collect();
    tar.dir("blobs/")?;
    for algorithm in ["sha256", "sha512"].into_iter().filter(|name| algorithms.contains(name)) {
        tar.dir(&format!("blobs/{algorithm}/"))?;
    }
    for blob in contents.all() {
        copy(store, &mut tar, &blob_member(&blob.digest), blob)?;
    }
    for mut layer in plain {
        tar.copy(&blob_member(&layer.diff_id), layer.size, &mut layer.file)?;
    }
    tar.finish()
}

/// The images with their one variant in place of the index, if that is wanted.
pub(super) fn chosen(store: &Store, images: &[Saved], options: &SaveOptions) -> Result<Vec<Saved>> {
    let Some(platform) = &options.platform else { return Ok(images.to_vec()) };
    images
        .iter()
        .map(|saved| {
            let image = store.image(&saved.image, &Matcher::only(platform))?;
            Ok(Saved { image: image.manifest, names: saved.names.clone() })
        })
        .collect()
}

/// `index.json`: one entry for each name.
pub(super) fn index(images: &[Saved]) -> Index {
    let mut manifests = Vec::new();
    for saved in images {
        let mut plain =
            Descriptor::new(&saved.image.media_type, saved.image.digest.clone(), saved.image.size);
        plain.platform.clone_from(&saved.image.platform);
        if saved.names.is_empty() {
            manifests.push(plain.clone());
        }
        for name in &saved.names {
            let mut entry = plain.clone();
            entry.annotations.insert(CONTAINERD_NAME.into(), name.canonical());
            if let Some(tag) = name.tag() {
                entry.annotations.insert(REF_NAME.into(), tag.into());
            }
            manifests.push(entry);
        }
    }
    Index {
        schema_version: 2,
        media_type: Some(media::INDEX.into()),
        manifests,
        annotations: BTreeMap::new(),
    }
}

/// Everything that some images lead to and that is there.
#[derive(Debug, Default)]
pub(super) struct Contents {
    seen: HashSet<Digest>,
    documents: Vec<Descriptor>,
    blobs: Vec<Descriptor>,
}

impl Contents {
    /// Adds a manifest or an index with what it leads to. An index is followed to what is in the store.
    pub(super) fn add(&mut self, store: &Store, top: &Descriptor, depth: usize) -> Result<()> {
        if self.seen.contains(&top.digest) {
            return Ok(());
        }
        if media::is_manifest(&top.media_type) {
            let manifest = Manifest::parse(&top.digest, &store.read_blob(top)?)?;
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                if !store.has_blob_of(blob) {
                    return Err(Error::MissingBlob { digest: blob.digest.clone() });
                }
            }
            self.push(top, true);
            self.push(&manifest.config, manifest.config.size <= MAX_MANIFEST);
            manifest.layers.iter().for_each(|layer| self.push(layer, false));
            return Ok(());
        }
        if !media::is_index(&top.media_type) {
            // Whatever an index carries along.
            self.push(top, false);
            return Ok(());
        }
        if depth == MAX_DEPTH {
            return Err(Error::manifest(
                &top.digest,
                format!("indexes are nested more than {MAX_DEPTH} deep"),
            ));
        }
        let entries = Index::parse(&top.digest, &store.read_blob(top)?)?.manifests;
        self.push(top, true);
        for entry in entries.iter().filter(|entry| store.has_blob_of(entry)) {
            match self.add(store, entry, depth + 1) {
                // What describes the image may be here in part, the image itself may not.
                Err(Error::MissingBlob { .. }) if entry.is_attestation() => {}
                other => other?,
            }
        }
        Ok(())
    }

    fn push(&mut self, blob: &Descriptor, is_document: bool) {
        if self.seen.insert(blob.digest.clone()) {
            if is_document { &mut self.documents } else { &mut self.blobs }.push(blob.clone());
        }
    }

    fn has(&self, digest: &Digest) -> bool {
        self.seen.contains(digest)
    }

    /// Documents first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Descriptor> {
        self.documents.iter().chain(&self.blobs)
    }
}

/// The variant that a docker archive has of an image: Docker knows one only. This host's, else another Linux one.
fn docker_image(store: &Store, image: &Descriptor) -> Result<Option<Image>> {
    let host = Platform::host();
    let rank = |platform: &Platform| {
        (
            *platform != host,
            platform.architecture != host.architecture,
            platform.os != "linux",
            platform.is_wasm(),
        )
    };
    let variants = store.variants(image)?;
    let mut present: Vec<_> = variants.iter().filter(|variant| variant.present).collect();
    present.sort_by_key(|variant| rank(&variant.platform));
    for variant in present {
        let found = store.image(&variant.manifest, &Matcher::only(&variant.platform))?;
        if found.wasm.is_empty() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn entry(saved: &Saved, config: String, layers: Vec<String>) -> DockerEntry {
    // In full, as skopeo and podman write them: to podman a short name is one of its own, to Docker it is the same.
    let tags: Vec<String> = saved
        .names
        .iter()
        .filter_map(|name| Some(format!("{}/{}:{}", name.registry(), name.repository(), name.tag()?)))
        .collect();
    DockerEntry { config, repo_tags: (!tags.is_empty()).then_some(tags), layers }
}

/// The older form, without anything of OCI: files beside `manifest.json`.
fn docker_archive(session: &Session, mut tar: TarWriter<'_>, images: &[(&Saved, Image)]) -> Result<()> {
    let mut entries = Vec::new();
    let mut seen = HashSet::new();
    for (saved, image) in images {
        let config = format!("{}.json", image.config_descriptor.digest.hex());
        if seen.insert(config.clone()) {
            copy(session.store(), &mut tar, &config, &image.config_descriptor)?;
        }
        let mut layers = Vec::new();
        for (layer, diff_id) in image.layers.iter().zip(&image.diff_ids) {
            let zstd = is_zstd(layer);
            let path = format!("{}.tar", if zstd { diff_id } else { &layer.digest }.hex());
            if seen.insert(path.clone()) {
                if zstd {
                    let mut plain = Plain::unpack(session, layer, diff_id)?;
                    tar.copy(&path, plain.size, &mut plain.file)?;
                } else {
                    copy(session.store(), &mut tar, &path, layer)?;
                }
            }
            layers.push(path);
        }
        entries.push(entry(saved, config, layers));
    }
    tar.bytes("manifest.json", &json(&entries)?)?;
    tar.finish()
}

fn is_zstd(layer: &Descriptor) -> bool {
    media::layer_compression(&layer.media_type) == Some(Compression::Zstd)
}

/// Copies a blob of the store into the archive and compares its digest on the way.
fn copy(store: &Store, tar: &mut TarWriter<'_>, path: &str, blob: &Descriptor) -> Result<()> {
    let (mut content, _) = store.open_blob(&blob.digest)?.into_parts();
    if blob.size <= SMALL {
        hash(store, blob)?;
        return tar.copy(path, blob.size, &mut content);
    }
    std::thread::scope(|scope| {
        let hashed = scope.spawn(|| hash(store, blob));
        let copied = tar.copy(path, blob.size, &mut content);
        let hashed = hashed
            .join()
            .unwrap_or_else(|_| Err(Error::Io(std::io::Error::other("a worker thread panicked"))));
        // A blob of the wrong size is a damaged one, and the disk being full is no reason to call it that.
        copied.and(hashed)
    })
}

fn hash(store: &Store, blob: &Descriptor) -> Result<()> {
    let mut content = HashingReader::new(store.open_blob(&blob.digest)?, blob.digest.algorithm());
    let mut buffer = vec![0; usize::try_from(blob.size.clamp(1, SMALL)).unwrap_or(1)];
    while std::io::Read::read(&mut content, &mut buffer)? > 0 {}
    content.verify(&format!("blob {}", blob.digest), &blob.digest, Some(blob.size)).map(drop)
}

/// A layer as a plain tar, in a file that goes away with the session.
#[derive(Debug)]
struct Plain {
    diff_id: Digest,
    size: u64,
    file: File,
}

impl Plain {
    fn unpack(session: &Session, layer: &Descriptor, diff_id: &Digest) -> Result<Self> {
        use std::io::Read as _;
        use std::io::Seek as _;
        let what = format!("layer {}", layer.digest);
        let path = session.path();
        let mut file = private().read(true).write(true).create_new(true).open(&path)?;
        let input = std::io::BufReader::with_capacity(256 << 10, session.store().open_blob(&layer.digest)?);
        let limit = max_unpacked(layer.size);
        let plain = compression::local_decoder(input, Compression::Zstd)?.take(limit + 1);
        let mut plain = HashingReader::new(plain, diff_id.algorithm());
        let size = std::io::copy(&mut plain, &mut file).map_err(|e| Error::io(&what, e))?;
        if size > limit {
            return Err(Error::manifest(&what, format!("unpacks to more than {limit} bytes")));
        }
        plain.verify(&what, diff_id, None)?;
        file.rewind()?;
        let (file, path) = file.into_parts();
        // Nobody needs its name any more. Where an open file cannot be removed it goes with the session.
        drop(fs_err::remove_file(path));
        Ok(Self { diff_id: diff_id.clone(), size, file })
    }
}
