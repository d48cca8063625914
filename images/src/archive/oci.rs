//! Reading an OCI image layout. Everything that an image leads to and that the archive has is taken over; a variant
//! whose manifest is not there stays absent.

use std::collections::HashMap;
use std::collections::HashSet;

use super::LoadOptions;
use super::Loaded;
use super::docker;
use super::source::Archive;
use super::source::blob_member;
use super::take::Take;
use super::take::Wanted;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Image;
use crate::Index;
use crate::MAX_MANIFEST;
use crate::Manifest;
use crate::Matcher;
use crate::Platform;
use crate::Progress;
use crate::Reference;
use crate::digest::check;
use crate::error::Result;
use crate::image;
use crate::layer::unpack;
use crate::media;
use crate::store::session::Session;

/// The name or tag of an image in `index.json`.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, as containerd and Docker write it.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

pub(super) fn load(
    archive: &Archive,
    session: &Session,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    let index = Index::parse("index.json", &archive.read_member("index.json")?)?;
    let mut load = Load {
        archive,
        session,
        options,
        documents: HashMap::new(),
        wanted: Vec::new(),
        runnable: Vec::new(),
        top: Vec::new(),
    };
    let mut listed: Vec<&Descriptor> = Vec::new();
    for entry in &index.manifests {
        if !media::is_index(&entry.media_type) && !media::is_manifest(&entry.media_type)
            || entry.is_attestation()
        {
            continue;
        }
        load.image(entry)?;
        listed.push(entry);
    }
    load.take(progress)?;
    let mut loaded = Vec::new();
    for entry in listed {
        // What is said about the entry here is not part of the image.
        let mut descriptor = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
        descriptor.platform.clone_from(&entry.platform);
        let reference = name_of(entry);
        loaded.push(Loaded { reference, descriptor });
    }
    if loaded.iter().all(|image| image.reference.is_none()) && archive.has("manifest.json") {
        name_by_docker(archive, session, &mut loaded)?;
    }
    Ok(loaded)
}

/// Some writers give names only in the part of the archive that is for Docker.
fn name_by_docker(archive: &Archive, session: &Session, loaded: &mut Vec<Loaded>) -> Result<()> {
    let tags = docker::names(archive)?;
    let mut named = Vec::new();
    for image in loaded.drain(..) {
        let mut names = Vec::new();
        if image.reference.is_none() && media::is_manifest(&image.descriptor.media_type) {
            let bytes = session.store().read_blob(&image.descriptor)?;
            let config = Manifest::parse(&image.descriptor.digest, &bytes)?.config.digest;
            names.extend(
                tags.iter().filter(|(path, _)| path.contains(config.hex())).flat_map(|(_, names)| names),
            );
        }
        if names.is_empty() {
            named.push(image);
        } else {
            named.extend(
                names.into_iter().map(|name| Loaded {
                    reference: Some(name.clone()),
                    descriptor: image.descriptor.clone(),
                }),
            );
        }
    }
    *loaded = named;
    Ok(())
}

/// A bare word in `ref.name` is a tag without a repository (umoci, skopeo), so it names nothing.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotation = |key| entry.annotations.get(key).map(String::as_str);
    let parsed = |name: &str| Reference::parse(name).ok();
    annotation(CONTAINERD_NAME)
        .and_then(parsed)
        .or_else(|| annotation(REF_NAME).filter(|name| name.contains([':', '/'])).and_then(parsed))
}

struct Load<'a> {
    archive: &'a Archive,
    session: &'a Session,
    options: &'a LoadOptions,
    /// Documents that were verified: indexes, manifests and configurations.
    documents: HashMap<Digest, Vec<u8>>,
    /// Layers, modules and other blobs.
    wanted: Vec<Wanted>,
    /// Variants whose files are wanted.
    runnable: Vec<Image>,
    /// Documents in the order in which they get their names: those that others lead to first.
    top: Vec<Descriptor>,
}

impl Load<'_> {
    fn image(&mut self, top: &Descriptor) -> Result<()> {
        let mut manifests = Vec::new();
        let mut indexes = Vec::new();
        let mut read = |index: &Descriptor| {
            // An index within the index may be absent as a variant may.
            if !self.has(index) && index.digest != top.digest {
                return Ok(None);
            }
            indexes.push(index.clone());
            self.document(index).map(Some)
        };
        image::walk(top, &mut read, &mut |manifest| {
            manifests.push(manifest.clone());
            Ok(())
        })?;
        let mut platforms = Vec::new();
        let mut any = false;
        for manifest in manifests {
            if !self.has(&manifest) {
                continue;
            }
            any |= self.manifest(&manifest, &mut platforms)?;
        }
        if !any {
            return Err(match &self.options.platform {
                Some(platform) if !platforms.is_empty() => {
                    Error::NoVariant { wanted: platform.to_string(), available: platforms }
                }
                _ => self.archive.invalid(format!("no variant of {} is in it", top.digest)),
            });
        }
        // Inner ones first, so that what an index leads to is there before it.
        self.top.extend(indexes.into_iter().rev());
        Ok(())
    }

    fn has(&self, document: &Descriptor) -> bool {
        self.archive.has(&blob_member(&document.digest)) || self.session.store().has_blob_of(document)
    }

    /// A document of the archive or of the store, verified.
    fn document(&mut self, blob: &Descriptor) -> Result<Vec<u8>> {
        if let Some(bytes) = self.documents.get(&blob.digest) {
            return Ok(bytes.clone());
        }
        self.session.claim([&blob.digest])?;
        let member = blob_member(&blob.digest);
        let bytes = if self.archive.has(&member) {
            let bytes = self.archive.read_member(&member)?;
            let mut hasher = crate::Hasher::new(blob.digest.algorithm());
            hasher.update(&bytes);
            let what = blob.digest.to_string();
            check(&what, &blob.digest, Some(blob.size), hasher.finish(), bytes.len() as u64)?;
            bytes
        } else if self.session.store().has_blob_of(blob) {
            self.session.store().read_blob(blob)?
        } else {
            return Err(self.archive.invalid(format!("{member} is not in it")));
        };
        self.documents.insert(blob.digest.clone(), bytes.clone());
        Ok(bytes)
    }

    /// Lists what a variant needs; `false` when it is not wanted. `platforms` collects what there is.
    fn manifest(&mut self, descriptor: &Descriptor, platforms: &mut Vec<Platform>) -> Result<bool> {
        let bytes = self.document(descriptor)?;
        let manifest = Manifest::parse(&descriptor.digest, &bytes)?;
        if manifest.config.size > MAX_MANIFEST {
            return Err(Error::manifest(&manifest.config.digest, "is larger than 4 MiB"));
        }
        let config = self.document(&manifest.config)?;
        let blobs = manifest.layers.clone();
        let image = image::assemble(descriptor, manifest, &config)?;
        platforms.push(image.platform.clone());
        if self.options.platform.as_ref().is_some_and(|only| !Matcher::only(only).matches(&image.platform)) {
            return Ok(false);
        }
        let runs = self.options.unpack && Matcher::host().matches(&image.platform);
        let form = runs.then(|| self.session.store().form_of(&image));
        let mut diff_ids = image.layers.iter().zip(&image.diff_ids);
        for blob in blobs {
            let is_layer = media::layer_compression(&blob.media_type).is_some();
            let diff_id = if is_layer { diff_ids.next().map(|(_, diff_id)| diff_id.clone()) } else { None };
            let kind = match is_layer {
                true => BlobKind::Layer,
                false if media::is_wasm(&blob.media_type) => BlobKind::Wasm,
                false => BlobKind::Other,
            };
            let member = blob_member(&blob.digest);
            self.wanted.push(Wanted { member, kind, blob: Some(blob), diff_id, form });
        }
        self.top.extend([image.config_descriptor.clone(), descriptor.clone()]);
        if runs {
            self.runnable.push(image);
        }
        Ok(true)
    }

    /// Takes everything over, the documents last.
    fn take(&mut self, progress: &dyn Progress) -> Result<()> {
        let take = Take { archive: self.archive, session: self.session };
        take.all(&self.wanted, progress)?;
        for image in &self.runnable {
            unpack::finish(self.session, image)?;
        }
        let mut done = HashSet::new();
        for blob in self.top.iter().filter(|blob| done.insert(&blob.digest)) {
            if let Some(bytes) = self.documents.get(&blob.digest)
                && !self.session.store().has_blob_of(blob)
            {
                self.session.ingest(&format!("blob {}", blob.digest), blob, &mut &bytes[..])?;
            }
        }
        Ok(())
    }
}
