//! What a pull fetches, and in which order it becomes visible.
//!
//! Layers first, then configurations, manifests, the index, and the name last: whatever is in the store under a
//! manifest is complete, and a pull that is killed leaves content that the next one uses and no name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::Platforms;
use super::PullOptions;
use super::Pulled;
use super::download::Downloads;
use super::download::Job;
use super::remote::Remote;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::Image;
use crate::MAX_MANIFEST;
use crate::Manifest;
use crate::Matcher;
use crate::Platform;
use crate::Progress;
use crate::Reference;
use crate::State;
use crate::Store;
use crate::digest::check;
use crate::error::Result;
use crate::image;
use crate::layer::unpack;
use crate::media;
use crate::store::session::Session;

/// Fetches an image or artifact and gives it its name in the store. Content that is there already is not fetched
/// again, and what another process fetches just now is waited for.
///
/// # Errors
/// The registry's: [`Error::Unreachable`], [`Error::Certificate`], [`Error::ManifestUnknown`], [`Error::Denied`],
/// [`Error::RateLimited`], [`Error::Registry`]; the content's: a mismatch of digest or size,
/// [`Error::InvalidManifest`], [`Error::InvalidLayer`], [`Error::NoVariant`]; what [`PullOptions::check`] says; the
/// disk's.
pub fn pull(
    store: &Store,
    name: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled> {
    progress.event(&Event::Resolving { reference: name });
    let remote = Remote::with_progress(name, &options.access, progress);
    let session = Session::new(store)?;
    store.sweep_partials()?;
    let mut pull =
        Pull { store, remote: &remote, session: &session, options, progress, documents: Vec::new() };
    let before = store.resolve_exact(name)?;
    let top = pull.top(name)?;
    progress.event(&Event::Resolved { digest: &top.digest });
    let images = pull.variants(&top)?;
    let fetched = pull.content(&images)?;
    let new_documents = pull.publish()?;
    store.touch(&top.digest);
    let parts = images.iter().flat_map(Content::parts).chain([&top]).map(|part| &part.digest);
    store.note_places(name.registry(), name.repository(), parts);
    if before.as_ref().map(|d| &d.digest) != Some(&top.digest) {
        store.tag(name, &top)?;
        return Ok(Pulled { descriptor: top, already_present: false });
    }
    Ok(Pulled { descriptor: top, already_present: !fetched && !new_documents })
}

struct Pull<'a> {
    store: &'a Store,
    remote: &'a Remote<'a>,
    session: &'a Session,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
    /// Indexes, manifests and configurations, in the order in which they were met.
    documents: Vec<(Descriptor, Vec<u8>)>,
}

/// One manifest and everything below it.
enum Content {
    /// Something that can run.
    Image(Box<Image>),
    /// Anything else: blobs that are kept as they are.
    Artifact(Box<Manifest>),
}

impl Content {
    /// Every blob, as far as it is known by a descriptor.
    fn parts(&self) -> Vec<&Descriptor> {
        match self {
            Self::Image(i) => {
                i.layers.iter().chain(&i.wasm).chain([&i.config_descriptor, &i.manifest]).collect()
            }
            Self::Artifact(m) => m.layers.iter().chain([&m.config]).collect(),
        }
    }
}

impl Pull<'_> {
    /// The document that the name stands for at the registry, approved.
    fn top(&mut self, name: &Reference) -> Result<Descriptor> {
        let wanted = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(crate::DEFAULT_TAG).to_owned(),
        };
        let (top, bytes) = self.remote.manifest(&wanted)?;
        // Whoever approves may write down why; that must not be swept as something about nothing.
        self.session.claim([&top.digest])?;
        if let Some(approve) = &self.options.check {
            approve.0(name, &top, &bytes, self.remote)?;
        }
        self.documents.push((top.clone(), bytes));
        Ok(top)
    }

    /// A document by digest: met already, in the store, or fetched.
    fn document(&mut self, blob: &Descriptor, is_manifest: bool) -> Result<Vec<u8>> {
        if let Some((_, bytes)) = self.documents.iter().find(|(d, _)| d.digest == blob.digest) {
            return Ok(bytes.clone());
        }
        if blob.size > MAX_MANIFEST {
            return Err(Error::manifest(&blob.digest, "is larger than 4 MiB"));
        }
        self.session.claim([&blob.digest])?;
        let bytes = if self.store.has_blob_of(blob) {
            self.store.read_blob(blob)?
        } else if is_manifest {
            let (_, bytes) = self.remote.manifest(&blob.digest.to_string())?;
            let what = format!("manifest {}", blob.digest);
            check(&what, &blob.digest, Some(blob.size), blob.digest.clone(), bytes.len() as u64)?;
            bytes
        } else {
            self.remote.blob(blob)?
        };
        self.documents.push((blob.clone(), bytes.clone()));
        Ok(bytes)
    }

    /// The variants to fetch, their manifests and configurations read.
    fn variants(&mut self, top: &Descriptor) -> Result<Vec<Content>> {
        let mut manifests = Vec::new();
        let whole = self.options.platforms == Platforms::All;
        let mut read = |index: &Descriptor| self.document(index, true).map(Some);
        image::walk_all(top, whole, &mut read, &mut |manifest| {
            manifests.push(manifest.clone());
            Ok(())
        })?;
        if !media::is_index(&top.media_type) {
            let content = self.content_of(top)?;
            if let Content::Image(image) = &content {
                self.chosen(std::slice::from_ref(&image.platform))?;
            }
            return Ok(vec![content]);
        }
        if whole {
            return manifests.iter().map(|manifest| self.content_of(manifest)).collect();
        }
        // Entries that do not say what they run on are artifacts of some kind.
        let runnable: Vec<&Descriptor> = manifests.iter().filter(|m| m.platform.is_some()).collect();
        if runnable.is_empty() && !manifests.is_empty() {
            return manifests.iter().map(|manifest| self.content_of(manifest)).collect();
        }
        let platforms: Vec<Platform> = runnable.iter().filter_map(|m| m.platform.clone()).collect();
        let chosen = self.chosen(&platforms)?;
        chosen.into_iter().map(|i| self.content_of(runnable[i])).collect()
    }

    fn content_of(&mut self, descriptor: &Descriptor) -> Result<Content> {
        let bytes = self.document(descriptor, true)?;
        let manifest = Manifest::parse(&descriptor.digest, &bytes)?;
        self.session.claim(manifest.layers.iter().chain([&manifest.config]).map(|blob| &blob.digest))?;
        if let Some(foreign) = manifest.layers.iter().find(|l| media::is_foreign_layer(&l.media_type)) {
            let reason = format!("layer {} is kept elsewhere; not supported", foreign.digest);
            return Err(Error::manifest(&descriptor.digest, reason));
        }
        if !image::may_run(&manifest) {
            return Ok(Content::Artifact(Box::new(manifest)));
        }
        let config = self.document(&manifest.config, false)?;
        let image = match image::assemble(descriptor, manifest.clone(), &config) {
            Err(Error::InvalidManifest { .. }) if !image::is_image_config(&manifest.config.media_type) => {
                return Ok(Content::Artifact(Box::new(manifest)));
            }
            other => other?,
        };
        self.session.claim(&image.diff_ids)?;
        Ok(Content::Image(Box::new(image)))
    }

    /// Which of these platforms are wanted, as positions.
    fn chosen(&self, platforms: &[Platform]) -> Result<Vec<usize>> {
        let best = |matcher: &Matcher, wasm: bool| {
            let candidates = platforms.iter().enumerate().filter(|(_, p)| p.is_wasm() == wasm);
            candidates.filter_map(|(i, p)| Some((matcher.rank(p)?, i))).min().map(|(_, i)| i)
        };
        let (wanted, mut chosen): (String, Vec<usize>) = match &self.options.platforms {
            Platforms::All => ("any platform".into(), (0..platforms.len()).collect()),
            Platforms::One(platform) => {
                let matcher = Matcher::only(platform);
                (matcher.to_string(), best(&matcher, platform.is_wasm()).into_iter().collect())
            }
            Platforms::Host => {
                let matcher = Matcher::host();
                let wasm = (0..platforms.len()).filter(|i| platforms[*i].is_wasm());
                (matcher.to_string(), wasm.chain(best(&matcher, false)).collect())
            }
        };
        chosen.sort_unstable();
        if chosen.is_empty() {
            return Err(Error::NoVariant { wanted, available: platforms.to_vec() });
        }
        Ok(chosen)
    }

    /// Fetches layers and modules, several at once. Whether anything had to be fetched.
    fn content(&self, contents: &[Content]) -> Result<bool> {
        let mut todo: Vec<Job<'_>> = Vec::new();
        for job in self.jobs(contents) {
            let unpacked = job.unpack.is_none_or(|(diff_id, form)| self.store.has_layer(diff_id, form));
            if unpacked && self.store.has_blob_of(job.blob) {
                self.event(&job, State::Exists);
            } else {
                self.event(&job, State::Waiting { total: job.blob.size });
                todo.push(job);
            }
        }
        let absent = todo.iter().filter(|job| !self.store.has_blob_of(job.blob)).map(|job| job.blob.size);
        self.session.reserve(absent.fold(0, u64::saturating_add))?;
        // The largest first: what begins last should not take longest.
        todo.sort_by_key(|job| std::cmp::Reverse(job.blob.size));
        let Self { store, session, remote, progress, .. } = *self;
        Downloads { store, session, remote, progress }.all(&todo)?;
        for content in contents {
            if let Content::Image(image) = content
                && self.unpacks(image)
            {
                unpack::finish(self.session, image)?;
            }
        }
        Ok(!todo.is_empty())
    }

    /// Every blob once.
    fn jobs<'i>(&self, contents: &'i [Content]) -> Vec<Job<'i>> {
        let mut jobs: Vec<Job<'i>> = Vec::new();
        let mut known: HashMap<&Digest, usize> = HashMap::new();
        let mut add = |job: Job<'i>| match known.entry(&job.blob.digest) {
            Entry::Vacant(place) => {
                place.insert(jobs.len());
                jobs.push(job);
            }
            // A layer that another variant has too is unpacked if one of them wants that.
            Entry::Occupied(place) => {
                let first = &mut jobs[*place.get()];
                first.unpack = first.unpack.or(job.unpack);
            }
        };
        for content in contents {
            match content {
                Content::Image(image) => {
                    let here = self.unpacks(image);
                    let form = self.store.form_of(image);
                    for (blob, diff_id) in image.layers.iter().zip(&image.diff_ids) {
                        let unpack = here.then_some((diff_id, form));
                        add(Job { blob, kind: BlobKind::Layer, unpack });
                    }
                    for blob in &image.wasm {
                        add(Job { blob, kind: BlobKind::Wasm, unpack: None });
                    }
                }
                Content::Artifact(manifest) => {
                    for blob in manifest.layers.iter().chain([&manifest.config]) {
                        add(Job { blob, kind: BlobKind::Other, unpack: None });
                    }
                }
            }
        }
        jobs
    }

    /// Whether a variant is made ready to run.
    fn unpacks(&self, image: &Image) -> bool {
        self.options.unpack && Matcher::host().matches(&image.platform)
    }

    fn event(&self, job: &Job<'_>, state: State<'_>) {
        self.progress.event(&Event::Blob { digest: &job.blob.digest, kind: job.kind, state });
    }

    /// Stores the documents, those that others lead to first. Whether any of them is new.
    fn publish(&mut self) -> Result<bool> {
        let mut new = false;
        for (blob, bytes) in std::mem::take(&mut self.documents).iter().rev() {
            self.session.claim([&blob.digest])?;
            if !self.store.has_blob_of(blob) {
                self.session.ingest(&blob.digest.to_string(), blob, &mut &bytes[..])?;
                new = true;
            }
        }
        Ok(new)
    }
}
