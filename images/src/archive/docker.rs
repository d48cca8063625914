//! Reading a `docker save` archive without an OCI index: `manifest.json` lists, for each image, a configuration, its
//! layers as plain tars, and names. There is no manifest in it, so one is written.

use serde::Deserialize;

use super::LoadOptions;
use super::Loaded;
use super::source::Archive;
use super::source::is_plain_path;
use super::take::Take;
use super::take::Wanted;
use crate::BlobKind;
use crate::Descriptor;
use crate::Error;
use crate::ImageConfig;
use crate::Matcher;
use crate::Progress;
use crate::Reference;
use crate::compose;
use crate::error::Result;
use crate::image::assemble;
use crate::layer::unpack;
use crate::media;
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

pub(super) fn load(
    archive: &Archive,
    session: &Session,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>> {
    let mut loaded = Vec::new();
    for entry in entries(archive)? {
        let descriptor = image(archive, session, options, progress, &entry)?;
        let mut names: Vec<Option<Reference>> = entry.names()?.into_iter().map(Some).collect();
        if names.is_empty() {
            names.push(None);
        }
        loaded
            .extend(names.into_iter().map(|reference| Loaded { reference, descriptor: descriptor.clone() }));
    }
    Ok(loaded)
}

/// The path of each image's configuration, and the image's names.
pub(super) fn names(archive: &Archive) -> Result<Vec<(String, Vec<Reference>)>> {
    entries(archive)?.into_iter().map(|entry| Ok((entry.config.clone(), entry.names()?))).collect()
}

fn entries(archive: &Archive) -> Result<Vec<Entry>> {
    let entries: Vec<Entry> = serde_json::from_slice(&archive.read_member("manifest.json")?)
        .map_err(|e| archive.invalid(format!("manifest.json is not valid: {e}")))?;
    if entries.len() > MAX_IMAGES {
        return Err(archive.invalid(format!("has more than {MAX_IMAGES} images")));
    }
    Ok(entries)
}

impl Entry {
    fn names(&self) -> Result<Vec<Reference>> {
        self.repo_tags.iter().flatten().map(|tag| Reference::parse(tag)).collect()
    }
}

fn image(
    archive: &Archive,
    session: &Session,
    options: &LoadOptions,
    progress: &dyn Progress,
    entry: &Entry,
) -> Result<Descriptor> {
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
    let platform = config.platform();
    if let Some(only) = &options.platform
        && !Matcher::only(only).matches(&platform)
    {
        return Err(Error::NoVariant { wanted: only.to_string(), available: vec![platform] });
    }
    let runs = options.unpack && Matcher::host().matches(&platform);
    let form = runs.then(|| session.store().form_for(&platform));
    let wanted: Vec<Wanted> = layers
        .iter()
        .zip(&config.rootfs.diff_ids)
        .map(|(path, diff_id)| Wanted {
            member: path.clone(),
            kind: BlobKind::Layer,
            blob: None,
            diff_id: Some(diff_id.clone()),
            form,
        })
        .collect();
    let layers = Take { archive, session }.all(&wanted, progress)?;
    let config_blob = session.put(media::CONFIG, &config_bytes)?;
    let manifest = compose::manifest(config_blob, layers);
    let descriptor = session.put(media::MANIFEST, &compose::json(&manifest)?)?;
    if runs {
        unpack::finish(session, &assemble(&descriptor, manifest, &config_bytes)?)?;
    }
    Ok(descriptor)
}
