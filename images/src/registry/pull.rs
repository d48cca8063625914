//! What a pull fetches, and in which order it becomes visible.
//!
//! Layers first, then configurations, manifests, the index, and the name last: whatever is in the store under a
//! manifest is complete, and a pull that is killed leaves content that the next one uses and no name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::io::Read;
use std::io::Write as _;

use super::Platforms;
use super::PullOptions;
use super::Pulled;
use super::Scope;
use super::blob::BlobReader;
use super::http::Call;
use super::http::Client;
use super::http::read_limited;
use super::http::refused;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::Image;
use crate::LayerForm;
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
use crate::store::session::BlobWriter;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

/// Fetches an image and gives it its name in the store. Content that is there already is not fetched again.
///
/// # Errors
/// The registry's: [`Error::Unreachable`], [`Error::ManifestUnknown`], [`Error::Denied`], [`Error::Registry`]; the
/// content's: a mismatch of digest or size, [`Error::InvalidManifest`], [`Error::InvalidLayer`],
/// [`Error::NoVariant`]; the disk's.
pub fn pull(
    store: &Store,
    name: &Reference,
    options: &PullOptions,
    progress: &dyn Progress,
) -> Result<Pulled> {
    progress.event(&Event::Resolving { reference: name });
    let client = Client::connect(name, &options.access, &Scope::Pull)?;
    let mut pull =
        Pull { store, client, session: Session::new(store)?, options, progress, documents: Vec::new() };
    let before = store.resolve_exact(name)?;
    let top = pull.top(name)?;
    progress.event(&Event::Resolved { digest: &top.digest });
    let images = pull.variants(&top)?;
    let fetched = pull.content(&images)?;
    let new_documents = pull.publish()?;
    store.touch(&top.digest);
    if before.as_ref().map(|d| &d.digest) != Some(&top.digest) {
        store.tag(name, &top)?;
        return Ok(Pulled { descriptor: top, already_present: false });
    }
    Ok(Pulled { descriptor: top, already_present: !fetched && !new_documents })
}

struct Pull<'a> {
    store: &'a Store,
    client: Client,
    session: Session,
    options: &'a PullOptions,
    progress: &'a dyn Progress,
    /// Indexes, manifests and configurations, in the order in which they were met.
    documents: Vec<(Descriptor, Vec<u8>)>,
}

/// One blob that a variant needs.
struct Job<'a> {
    blob: &'a Descriptor,
    kind: BlobKind,
    /// Set when the blob is a layer to be unpacked, and into what.
    unpack: Option<(&'a Digest, LayerForm)>,
}

impl Pull<'_> {
    /// The document that the name stands for at the registry.
    fn top(&mut self, name: &Reference) -> Result<Descriptor> {
        let wanted = match (name.digest(), name.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or(crate::DEFAULT_TAG).to_owned(),
        };
        let url = self.client.manifest_url(&wanted);
        let (media_type, bytes) = self.fetch_manifest(&url)?;
        let digest = match name.digest() {
            Some(expected) => {
                let mut hasher = crate::Hasher::new(expected.algorithm());
                hasher.update(&bytes);
                check(&url, expected, None, hasher.finish(), bytes.len() as u64)?;
                expected.clone()
            }
            None => Digest::of(&bytes),
        };
        let top = Descriptor::new(&media_type, digest, bytes.len() as u64);
        self.documents.push((top.clone(), bytes));
        Ok(top)
    }

    fn fetch_manifest(&self, url: &str) -> Result<(String, Vec<u8>)> {
        let accept = media::ACCEPTED_MANIFESTS.join(", ");
        let response = self.client.call(&Call { accept: &accept, ..Call::get(url) })?;
        let header = response.headers().get("content-type").and_then(|v| v.to_str().ok()).unwrap_or("");
        let media_type = header.split(';').next().unwrap_or("").trim().to_owned();
        let length = response.body().content_length();
        let Some(bytes) = read_limited(response, MAX_MANIFEST) else {
            return Err(match length {
                Some(length) if length <= MAX_MANIFEST => refused(url, "the manifest was cut off"),
                _ => refused(url, "the manifest is larger than 4 MiB"),
            });
        };
        if media_type.starts_with("application/vnd.docker.distribution.manifest.v1+") {
            return Err(Error::manifest(url, "Docker schema 1 images are no longer supported"));
        }
        if !media::ACCEPTED_MANIFESTS.contains(&media_type.as_str()) {
            return Err(Error::manifest(
                url,
                format!(
                    "unexpected media type \"{}\"; expected an image manifest or index",
                    media_type.escape_default()
                ),
            ));
        }
        Ok((media_type, bytes))
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
            let url = self.client.manifest_url(&blob.digest.to_string());
            let (_, bytes) = self.fetch_manifest(&url)?;
            let mut hasher = crate::Hasher::new(blob.digest.algorithm());
            hasher.update(&bytes);
            check(&url, &blob.digest, Some(blob.size), hasher.finish(), bytes.len() as u64)?;
            bytes
        } else {
            let mut reader = crate::HashingReader::new(
                BlobReader::new(&self.client, blob, BlobKind::Config, self.progress),
                blob.digest.algorithm(),
            );
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).map_err(|e| unwrap_io(e, |e| Error::io(&blob.digest, e)))?;
            reader.verify(&self.client.blob_url(&blob.digest), &blob.digest, Some(blob.size))?;
            bytes
        };
        self.documents.push((blob.clone(), bytes.clone()));
        Ok(bytes)
    }

    /// The variants to fetch, their manifests and configurations read.
    fn variants(&mut self, top: &Descriptor) -> Result<Vec<Image>> {
        let mut manifests = Vec::new();
        let mut read = |index: &Descriptor| self.document(index, true).map(Some);
        image::walk(top, &mut read, &mut |manifest| {
            manifests.push(manifest.clone());
            Ok(())
        })?;
        let is_index = media::is_index(&top.media_type);
        if !is_index {
            let image = self.variant(top)?;
            return self.chosen(std::slice::from_ref(&image.platform)).map(|_| vec![image]);
        }
        // Entries that do not say what they run on are artifacts of some kind.
        manifests.retain(|m| m.platform.is_some());
        let platforms: Vec<Platform> = manifests.iter().filter_map(|m| m.platform.clone()).collect();
        let chosen = self.chosen(&platforms)?;
        chosen.into_iter().map(|i| self.variant(&manifests[i])).collect()
    }

    fn variant(&mut self, descriptor: &Descriptor) -> Result<Image> {
        let bytes = self.document(descriptor, true)?;
        let manifest = Manifest::parse(&descriptor.digest, &bytes)?;
        self.session.claim(manifest.layers.iter().map(|l| &l.digest))?;
        let config = self.document(&manifest.config, false)?;
        let image = image::assemble(descriptor, manifest, &config)?;
        self.session.claim(&image.diff_ids)?;
        Ok(image)
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
    fn content(&self, images: &[Image]) -> Result<bool> {
        let mut jobs: Vec<Job<'_>> = Vec::new();
        let mut known: HashMap<&Digest, usize> = HashMap::new();
        for image in images {
            let here = self.unpacks(image);
            let form = self.store.form_of(image);
            let layers = image.layers.iter().zip(&image.diff_ids).map(|(blob, diff_id)| Job {
                blob,
                kind: BlobKind::Layer,
                unpack: here.then_some((diff_id, form)),
            });
            let wasm = image.wasm.iter().map(|blob| Job { blob, kind: BlobKind::Wasm, unpack: None });
            for job in layers.chain(wasm) {
                match known.entry(&job.blob.digest) {
                    Entry::Vacant(place) => {
                        place.insert(jobs.len());
                        jobs.push(job);
                    }
                    // A layer that another variant has too is unpacked if one of them wants that.
                    Entry::Occupied(place) => {
                        let first = &mut jobs[*place.get()];
                        first.unpack = first.unpack.or(job.unpack);
                    }
                }
            }
        }
        let mut todo = Vec::new();
        for job in jobs {
            let unpacked = job.unpack.is_none_or(|(diff_id, form)| self.store.has_layer(diff_id, form));
            if unpacked && self.store.has_blob_of(job.blob) {
                self.event(&job, State::Exists);
            } else {
                self.event(&job, State::Waiting { total: job.blob.size });
                todo.push(job);
            }
        }
        // The largest first: what begins last should not take longest.
        todo.sort_by_key(|job| std::cmp::Reverse(job.blob.size));
        unpack::in_parallel(&todo, |job| self.fetch(job))?;
        for image in images.iter().filter(|image| self.unpacks(image)) {
            unpack::finish(&self.session, image)?;
        }
        Ok(!todo.is_empty())
    }

    /// Whether a variant is made ready to run.
    fn unpacks(&self, image: &Image) -> bool {
        self.options.unpack && Matcher::host().matches(&image.platform)
    }

    fn event(&self, job: &Job<'_>, state: State<'_>) {
        self.progress.event(&Event::Blob { digest: &job.blob.digest, kind: job.kind, state });
    }

    fn fetch(&self, job: &Job<'_>) -> Result<()> {
        let blob = job.blob;
        let unpack = job.unpack.filter(|(diff_id, form)| !self.store.has_layer(diff_id, *form));
        if self.store.has_blob_of(blob) {
            return match unpack {
                Some((diff_id, form)) => {
                    self.store.unpack_one(&self.session, blob, diff_id, form, self.progress)
                }
                None => Ok(()),
            };
        }
        let what = self.client.blob_url(&blob.digest);
        let reader = BlobReader::new(&self.client, blob, job.kind, self.progress);
        let mut tee = Tee { reader, writer: self.session.writer(blob.digest.algorithm())? };
        let Some((diff_id, form)) = unpack else {
            tee.drain(&what)?;
            let staged = tee.writer.verify(&what, &blob.digest, Some(blob.size))?;
            self.event(job, State::Fetched);
            staged.publish()?;
            self.event(job, State::Complete);
            return Ok(());
        };
        let compression = unpack::compression_of(blob)?;
        let layer = match unpack::stage(&self.session, compression, &mut tee, blob, diff_id, form) {
            Err(e) if !unpack::is_content_error(&e) => return Err(e),
            other => other,
        };
        // Content that cannot be unpacked is most often content that was damaged on the way: then say so.
        tee.drain(&what)?;
        let staged = tee.writer.verify(&what, &blob.digest, Some(blob.size))?;
        let layer = layer?;
        self.event(job, State::Fetched);
        layer.publish(Some(staged))?;
        self.event(job, State::Complete);
        Ok(())
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

/// Keeps a copy of what is read.
struct Tee<'a> {
    reader: BlobReader<'a>,
    writer: BlobWriter<'a>,
}

impl Tee<'_> {
    fn drain(&mut self, what: &str) -> Result<()> {
        io::copy(self, &mut io::sink()).map_err(|e| unwrap_io(e, |e| Error::io(what, e)))?;
        Ok(())
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        self.writer.write_all(&buffer[..n])?;
        Ok(n)
    }
}
