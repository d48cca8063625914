//! Reading an OCI image layout. Everything that an image leads to and that the archive has is taken over; a variant
//! whose manifest is not there stays absent.

use std::collections::HashSet;

use super::Loaded;
use super::source::Archive;
use super::source::blob_member;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Event;
use crate::Index;
use crate::Manifest;
use crate::Progress;
use crate::Reference;
use crate::State;
use crate::error::Result;
use crate::image;
use crate::media;
use crate::store::session::Session;

/// The name or tag of an image in `index.json`.
pub(super) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The whole name, as containerd and Docker write it.
pub(super) const CONTAINERD_NAME: &str = "io.containerd.image.name";

pub(super) fn load(archive: &Archive, session: &Session, progress: &dyn Progress) -> Result<Vec<Loaded>> {
    let index = Index::parse("index.json", &archive.read_member("index.json")?)?;
    let mut load = Load { archive, session, progress, done: HashSet::new() };
    let mut loaded = Vec::new();
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
    for entry in listed {
        // What is said about the entry here is not part of the image.
        let mut descriptor = Descriptor::new(&entry.media_type, entry.digest.clone(), entry.size);
        descriptor.platform.clone_from(&entry.platform);
        loaded.push(Loaded { reference: name_of(entry), descriptor });
    }
    Ok(loaded)
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
    progress: &'a dyn Progress,
    done: HashSet<Digest>,
}

impl Load<'_> {
    fn image(&mut self, top: &Descriptor) -> Result<()> {
        let mut manifests = Vec::new();
        let mut indexes = Vec::new();
        let mut read = |index: &Descriptor| {
            // An index within the index may be absent as a variant may.
            if !self.archive.has(&blob_member(&index.digest)) && index.digest != top.digest {
                return Ok(None);
            }
            indexes.push(index.clone());
            let bytes = self.archive.read_member(&blob_member(&index.digest))?;
            let found = bytes.len() as u64;
            crate::digest::check(
                &index.digest.to_string(),
                &index.digest,
                Some(index.size),
                digest_of(index, &bytes),
                found,
            )?;
            Ok(Some(bytes))
        };
        image::walk(top, &mut read, &mut |manifest| {
            manifests.push(manifest.clone());
            Ok(())
        })?;
        let mut any = false;
        for manifest in manifests {
            if !self.archive.has(&blob_member(&manifest.digest))
                && !self.session.store().has_blob_of(&manifest)
            {
                continue;
            }
            any = true;
            self.manifest(&manifest)?;
        }
        if !any {
            return Err(self.archive.invalid(format!("no variant of {} is in it", top.digest)));
        }
        // Inner ones first, so that what an index leads to is there before it.
        for index in indexes.iter().rev() {
            self.blob(index, BlobKind::Manifest)?;
        }
        Ok(())
    }

    fn manifest(&mut self, descriptor: &Descriptor) -> Result<()> {
        let bytes = if self.archive.has(&blob_member(&descriptor.digest)) {
            self.archive.read_member(&blob_member(&descriptor.digest))?
        } else {
            self.session.store().read_blob(descriptor)?
        };
        let found = bytes.len() as u64;
        let what = descriptor.digest.to_string();
        crate::digest::check(
            &what,
            &descriptor.digest,
            Some(descriptor.size),
            digest_of(descriptor, &bytes),
            found,
        )?;
        let manifest = Manifest::parse(&descriptor.digest, &bytes)?;
        for layer in &manifest.layers {
            let kind = if media::is_wasm(&layer.media_type) { BlobKind::Wasm } else { BlobKind::Layer };
            self.blob(layer, kind)?;
        }
        self.blob(&manifest.config, BlobKind::Config)?;
        let config = self.session.store().read_blob(&manifest.config)?;
        image::assemble(descriptor, manifest, &config)?;
        self.blob(descriptor, BlobKind::Manifest)
    }

    fn blob(&mut self, blob: &Descriptor, kind: BlobKind) -> Result<()> {
        if !self.done.insert(blob.digest.clone()) {
            return Ok(());
        }
        let event = |state| self.progress.event(&Event::Blob { digest: &blob.digest, kind, state });
        self.session.claim([&blob.digest])?;
        if self.session.store().has_blob_of(blob) {
            event(State::Exists);
            return Ok(());
        }
        event(State::Waiting { total: blob.size });
        let (mut reader, _) = self.archive.open_member(&blob_member(&blob.digest))?;
        self.session.ingest(&format!("blob {}", blob.digest), blob, &mut reader)?;
        event(State::Complete);
        Ok(())
    }
}

fn digest_of(blob: &Descriptor, bytes: &[u8]) -> Digest {
    let mut hasher = crate::Hasher::new(blob.digest.algorithm());
    hasher.update(bytes);
    hasher.finish()
}
