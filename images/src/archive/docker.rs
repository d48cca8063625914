//! Reading a `docker save` archive without an OCI index: `manifest.json` lists, for each image, a configuration, its
//! layers as plain tars, and names. There is no manifest in it, so one is written.

use serde::Deserialize;

use super::Loaded;
use super::source::Archive;
use super::source::is_plain_path;
use crate::BlobKind;
use crate::Descriptor;
use crate::Error;
use crate::Event;
use crate::ImageConfig;
use crate::Progress;
use crate::Reference;
use crate::State;
use crate::compose;
use crate::digest::check;
use crate::error::Result;
use crate::layer::compression;
use crate::media;
use crate::media::Compression;
use crate::store::session::Session;

/// Most images of one archive.
const MAX_IMAGES: usize = 1000;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Option<Vec<String>>,
}

pub(super) fn load(archive: &Archive, session: &Session, progress: &dyn Progress) -> Result<Vec<Loaded>> {
    let entries: Vec<Entry> = serde_json::from_slice(&archive.read_member("manifest.json")?)
        .map_err(|e| archive.invalid(format!("manifest.json is not valid: {e}")))?;
    if entries.len() > MAX_IMAGES {
        return Err(archive.invalid(format!("has more than {MAX_IMAGES} images")));
    }
    let mut loaded = Vec::new();
    for entry in entries {
        let descriptor = image(archive, session, progress, &entry)?;
        let mut names = Vec::new();
        for tag in entry.repo_tags.unwrap_or_default() {
            names.push(Some(Reference::parse(&tag)?));
        }
        if names.is_empty() {
            names.push(None);
        }
        loaded
            .extend(names.into_iter().map(|reference| Loaded { reference, descriptor: descriptor.clone() }));
    }
    Ok(loaded)
}

fn image(archive: &Archive, session: &Session, progress: &dyn Progress, entry: &Entry) -> Result<Descriptor> {
    let layers = entry.layers.as_deref().unwrap_or_default();
    if let Some(odd) = layers.iter().chain([&entry.config]).find(|path| !is_plain_path(path)) {
        return Err(archive.invalid(format!("\"{}\" is not the path of a member", odd.escape_default())));
    }
    let config_bytes = archive.read_member(&entry.config)?;
    let config = ImageConfig::parse(&entry.config, &config_bytes)?;
    if config.rootfs.diff_ids.len() != layers.len() {
        let reason = format!(
            "{} has {} diff ids for {} layers",
            entry.config,
            config.rootfs.diff_ids.len(),
            layers.len()
        );
        return Err(archive.invalid(reason));
    }
    session.claim(&config.rootfs.diff_ids)?;
    let mut descriptors = Vec::new();
    for (path, diff_id) in layers.iter().zip(&config.rootfs.diff_ids) {
        let (reader, size) = archive.open_member(path)?;
        let event = |state| progress.event(&Event::Blob { digest: diff_id, kind: BlobKind::Layer, state });
        let plain = Descriptor::new(media::LAYER, diff_id.clone(), size);
        // A plain layer is its own diff id, so it need not even be read.
        if session.store().has_blob_of(&plain) {
            event(State::Exists);
            descriptors.push(plain);
            continue;
        }
        event(State::Waiting { total: size });
        descriptors.push(layer(session, path, reader, diff_id)?);
        event(State::Complete);
    }
    let config = session.put(media::CONFIG, &config_bytes)?;
    let manifest = compose::json(&compose::manifest(config, descriptors))?;
    session.put(media::MANIFEST, &manifest)
}

/// Takes a layer over as it is. Its first bytes say whether it is compressed, and then its content is hashed too.
fn layer(
    session: &Session,
    path: &str,
    mut reader: Box<dyn std::io::Read + Send + '_>,
    diff_id: &crate::Digest,
) -> Result<Descriptor> {
    let mut writer = session.writer(crate::Algorithm::Sha256)?;
    std::io::copy(&mut reader, &mut writer).map_err(|e| Error::io(path, e))?;
    let staged = writer.finish();
    let mut start = [0; 4];
    let compression = compression::detect(staged.start(&mut start)?);
    let media_type = match compression {
        Compression::None => media::LAYER,
        Compression::Gzip => media::LAYER_GZIP,
        Compression::Zstd => media::LAYER_ZSTD,
    };
    let what = format!("layer {path}");
    if compression == Compression::None && diff_id.algorithm() == crate::Algorithm::Sha256 {
        check(&what, diff_id, None, staged.digest().clone(), staged.size())?;
    } else {
        let mut plain = compression::local_decoder(std::io::BufReader::new(staged.reopen()?), compression)?;
        let mut hashing = crate::HashingReader::new(&mut plain, diff_id.algorithm());
        let limit = crate::layer::max_unpacked(staged.size());
        let copied = std::io::copy(&mut std::io::Read::take(&mut hashing, limit + 1), &mut std::io::sink());
        let copied = copied.map_err(|e| Error::manifest(&what, e))?;
        if copied > limit {
            return Err(Error::manifest(&what, format!("unpacks to more than {limit} bytes")));
        }
        hashing.verify(&what, diff_id, None)?;
    }
    let descriptor = Descriptor::new(media_type, staged.digest().clone(), staged.size());
    session.claim([&descriptor.digest])?;
    staged.publish()?;
    Ok(descriptor)
}
