//! What a push sends, and in which order it becomes visible.
//!
//! Blobs first, several at once, then manifests, those that an index leads to before the index, and the tag last:
//! whoever sees the tag sees everything. Bytes go as they are in the store, so digests stay what they were. What the
//! repository has already is not sent, what another repository of the same registry has is mounted, and a variant that
//! was never fetched is copied from there by the registry alone.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use serde::Deserialize;
use ureq::http::Method;
use ureq::http::StatusCode;

use super::Access;
use super::Scope;
use super::answer::Answer;
use super::answer::LOOKED_AT;
use super::http::Call;
use super::http::Client;
use super::http::Payload;
use super::http::read_limited;
use super::http::refused;
use super::referrers;
use super::repack::repack;
use super::upload::Arrival;
use super::upload::Uploader;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::Index;
use crate::MAX_MANIFEST;
use crate::Manifest;
use crate::Matcher;
use crate::Platform;
use crate::Progress;
use crate::Reference;
use crate::State;
use crate::Store;
use crate::descriptor::MAX_INDEX;
use crate::error::Result;
use crate::media;
use crate::media::Compression;
use crate::store::session::Session;

/// Uploads at the same time, as many as Docker's.
const WORKERS: usize = 5;
/// How deep indexes may be nested.
const MAX_DEPTH: usize = 8;
/// Most repositories that blobs are mounted from: each one is a part of the token that is asked for.
const MAX_SOURCES: usize = 4;

/// How to push.
#[derive(Debug, Clone, Default)]
pub struct PushOptions {
    /// How to reach the registry.
    pub access: Access,
    /// Of an index, only the best variant for this platform, as an image of its own.
    pub platform: Option<Platform>,
    /// Send layers packed in this way, whatever they are in the store: digests change then, files do not.
    pub compression: Option<Compression>,
    /// Send blobs in chunks of so many bytes. Without it the registry decides, and most want the whole blob at once.
    pub chunk: Option<u64>,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// What the name stands for at the registry now. Its digest and size are what Docker prints.
    pub descriptor: Descriptor,
    /// Bytes of blobs that were sent.
    pub sent: u64,
    /// The registry knows no referrers, so that an artifact was entered into the index of its subject's fall-back tag.
    pub fallback_tag: bool,
}

/// Sends an image, an index with everything it leads to, or an artifact to a registry under a name. A name with a
/// digest and no tag sends it without a tag.
///
/// # Errors
/// [`Error::PartsAbsent`] when parts of the image are neither in the store nor known to be at the registry,
/// [`Error::NoVariant`]; the registry's: [`Error::Unreachable`], [`Error::Denied`], [`Error::Registry`]; the store's.
pub fn push(
    store: &Store,
    image: &Descriptor,
    name: &Reference,
    options: &PushOptions,
    progress: &dyn Progress,
) -> Result<Pushed> {
    let session = Session::new(store)?;
    session.claim([&image.digest])?;
    store.sweep_uploads();
    let top = match &options.platform {
        Some(platform) => store.image(image, &Matcher::only(platform))?.manifest,
        None => image.clone(),
    };
    let top = match options.compression {
        Some(compression) => repack(store, &session, &top, compression)?,
        None => top,
    };
    if let Some(digest) = name.digest().filter(|digest| **digest != top.digest) {
        let (what, expected) = (name.familiar(), digest.clone());
        return Err(Error::DigestMismatch { what, expected, actual: top.digest });
    }
    let mut plan = Plan::default();
    plan.add(store, &top, None)?;
    let sources = plan.sources(store, name)?;
    let client = Client::connect(name, &options.access, &Scope::Push { from: sources.names.clone() })?;
    let mut push = Push { store, name, client, sources, progress };
    push.fetch_absent(&mut plan)?;
    let sent = push.blobs(&plan, options.chunk)?;
    let fallback_tag = push.manifests(&plan, &top)?;
    let places = plan.blobs.iter().map(|(blob, _)| &blob.digest);
    let places = places.chain(plan.documents.iter().map(|(document, _)| &document.digest));
    store.note_places(name.registry(), name.repository(), places);
    Ok(Pushed { descriptor: top, sent, fallback_tag })
}

/// Everything that has to be in the repository, each thing once.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Manifests and indexes, those that an index leads to before it.
    pub(super) documents: Vec<(Descriptor, Vec<u8>)>,
    pub(super) blobs: Vec<(Descriptor, BlobKind)>,
    /// Manifests and indexes that are not in the store, with the index that leads to them.
    absent: Vec<(Descriptor, Digest)>,
    seen: HashSet<Digest>,
}

impl Plan {
    /// Adds a document and all it leads to, as far as it is in the store.
    fn add(&mut self, store: &Store, document: &Descriptor, parent: Option<&Digest>) -> Result<()> {
        let mut left = MAX_INDEX;
        self.add_level(store, document, parent, 0, &mut left)
    }

    fn add_level(
        &mut self,
        store: &Store,
        document: &Descriptor,
        parent: Option<&Digest>,
        depth: usize,
        left: &mut usize,
    ) -> Result<()> {
        if self.seen.contains(&document.digest) {
            return Ok(());
        }
        let is_index = media::is_index(&document.media_type);
        if !is_index && !media::is_manifest(&document.media_type) {
            if depth == 0 {
                let reason = format!("unexpected media type {}", document.media_type);
                return Err(Error::manifest(&document.digest, reason));
            }
            // An index may lead to anything.
            self.blob(document, BlobKind::Other);
            return Ok(());
        }
        if depth == MAX_DEPTH {
            let reason = format!("indexes are nested more than {MAX_DEPTH} deep");
            return Err(Error::manifest(&document.digest, reason));
        }
        self.seen.insert(document.digest.clone());
        if !store.has_blob_of(document) && depth > 0 {
            let parent = parent.unwrap_or(&document.digest).clone();
            self.absent.push((document.clone(), parent));
            return Ok(());
        }
        let bytes = store.read_blob(document)?;
        if is_index {
            for entry in Index::parse(&document.digest, &bytes)?.manifests {
                *left = left.checked_sub(1).ok_or_else(|| {
                    Error::manifest(&document.digest, format!("has more than {MAX_INDEX} entries in all"))
                })?;
                self.add_level(store, &entry, Some(&document.digest), depth + 1, left)?;
            }
        } else {
            self.manifest(document, &bytes)?;
        }
        self.documents.push((plain(document), bytes));
        Ok(())
    }

    pub(super) fn manifest(&mut self, document: &Descriptor, bytes: &[u8]) -> Result<()> {
        let manifest = Manifest::parse(&document.digest, bytes)?;
        for layer in &manifest.layers {
            // What is kept elsewhere must not be put into registries.
            if !media::is_foreign_layer(&layer.media_type) {
                self.blob(layer, kind_of(layer));
            }
        }
        self.blob(&manifest.config, BlobKind::Config);
        Ok(())
    }

    fn blob(&mut self, blob: &Descriptor, kind: BlobKind) {
        if self.seen.insert(blob.digest.clone()) {
            self.blobs.push((plain(blob), kind));
        }
    }

    /// The repositories of the same registry that hold parts of this, as far as the store knows: where its parts came
    /// from or went to, and what the names of the store say.
    fn sources(&self, store: &Store, name: &Reference) -> Result<Sources> {
        let mut sources = Sources::default();
        let parts =
            self.blobs.iter().map(|(b, _)| &b.digest).chain(self.documents.iter().map(|(d, _)| &d.digest));
        for digest in parts {
            for repository in store.places(name.registry(), digest) {
                sources.note(name, &repository, digest);
            }
        }
        // A name says that all parts are there; that it is only a name and nothing was pushed costs nothing.
        let tops: HashSet<&Digest> = self.documents.iter().map(|(document, _)| &document.digest).collect();
        for (other, image) in store.references()? {
            if other.registry() == name.registry() && tops.contains(&image.digest) {
                for digest in self.blobs.iter().map(|(b, _)| &b.digest).chain([&image.digest]) {
                    sources.note(name, other.repository(), digest);
                }
            }
        }
        sources.limit();
        Ok(sources)
    }
}

/// Where parts may be mounted from.
#[derive(Debug, Default)]
struct Sources {
    names: Vec<String>,
    of: HashMap<Digest, Vec<String>>,
}

impl Sources {
    fn note(&mut self, name: &Reference, repository: &str, digest: &Digest) {
        if repository == name.repository() {
            return;
        }
        let known = self.of.entry(digest.clone()).or_default();
        if !known.iter().any(|other| other == repository) {
            known.push(repository.to_owned());
        }
    }

    /// Keeps the repositories that hold most.
    fn limit(&mut self) {
        let mut count: HashMap<&str, usize> = HashMap::new();
        for repository in self.of.values().flatten() {
            *count.entry(repository).or_default() += 1;
        }
        let mut ranked: Vec<(usize, &str)> = count.into_iter().map(|(name, n)| (n, name)).collect();
        ranked.sort_unstable_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(b.1)));
        self.names = ranked.into_iter().take(MAX_SOURCES).map(|(_, name)| name.to_owned()).collect();
        let names = &self.names;
        self.of.values_mut().for_each(|all| all.retain(|name| names.contains(name)));
    }

    fn of(&self, digest: &Digest) -> &[String] {
        self.of.get(digest).map_or(&[], Vec::as_slice)
    }
}

struct Push<'a> {
    store: &'a Store,
    name: &'a Reference,
    client: Client,
    sources: Sources,
    progress: &'a dyn Progress,
}

impl Push<'_> {
    /// Variants that are not in the store: those that the repository has are left as they are, the others are read
    /// from a repository of the same registry, for their blobs to be mounted.
    fn fetch_absent(&mut self, plan: &mut Plan) -> Result<()> {
        let (mut missing, mut documents) = (Vec::new(), Vec::new());
        for (document, parent) in std::mem::take(&mut plan.absent) {
            if self.has_manifest(&document)? {
                continue;
            }
            let mut sources = self.sources.of(&document.digest).to_vec();
            sources.extend_from_slice(self.sources.of(&parent));
            let found = sources
                .iter()
                .find_map(|repository| Some((repository.clone(), self.manifest_of(repository, &document)?)));
            // An index in an index that was never fetched: nobody has that.
            let Some((repository, bytes)) = found.filter(|_| media::is_manifest(&document.media_type)) else {
                missing.push(document);
                continue;
            };
            let before = plan.blobs.len();
            plan.manifest(&document, &bytes)?;
            for (blob, _) in &plan.blobs[before..] {
                self.sources.note(self.name, &repository, &blob.digest);
            }
            documents.push((plain(&document), bytes));
        }
        // Before whatever leads to them.
        plan.documents.splice(0..0, documents);
        if missing.is_empty() { Ok(()) } else { Err(self.absent(&missing)) }
    }

    fn absent(&self, missing: &[Descriptor]) -> Error {
        let words = |document: &Descriptor| match &document.platform {
            Some(platform) if !document.is_attestation() => platform.to_string(),
            _ => document.digest.to_string(),
        };
        Error::PartsAbsent { image: self.name.familiar(), parts: missing.iter().map(words).collect() }
    }

    fn has_manifest(&self, document: &Descriptor) -> Result<bool> {
        let url = self.client.manifest_url(&document.digest.to_string());
        let call = Call {
            accept: &document.media_type,
            also: &[StatusCode::NOT_FOUND],
            ..Call::new(Method::HEAD, &url)
        };
        Ok(self.client.call(&call)?.status().is_success())
    }

    /// A manifest in another repository of the same registry, if it is there and is what it should be.
    fn manifest_of(&self, repository: &str, document: &Descriptor) -> Option<Vec<u8>> {
        let url = format!("/v2/{repository}/manifests/{}", document.digest);
        let response = self.client.call(&Call { accept: &document.media_type, ..Call::get(&url) }).ok()?;
        let bytes = read_limited(response, MAX_MANIFEST)?;
        let mut hasher = crate::Hasher::new(document.digest.algorithm());
        hasher.update(&bytes);
        (hasher.finish() == document.digest && bytes.len() as u64 == document.size).then_some(bytes)
    }

    /// Sends all blobs, several at once; how many bytes.
    fn blobs(&self, plan: &Plan, chunk: Option<u64>) -> Result<u64> {
        let uploader = Uploader { client: &self.client, store: self.store, progress: self.progress, chunk };
        let sent = AtomicU64::new(0);
        let missing = Mutex::new(Vec::new());
        // The largest first: the last one to end decides.
        let mut order: Vec<&(Descriptor, BlobKind)> = plan.blobs.iter().collect();
        for (blob, kind) in &order {
            let state = State::Preparing;
            self.progress.event(&Event::Blob { digest: &blob.digest, kind: *kind, state });
        }
        order.sort_by_key(|(blob, _)| std::cmp::Reverse(blob.size));
        in_parallel(&order, |(blob, kind)| {
            let local = self.store.has_blob_of(blob);
            match uploader.upload(blob, *kind, self.sources.of(&blob.digest), local)? {
                Some(Arrival::Sent(bytes)) => drop(sent.fetch_add(bytes, Ordering::Relaxed)),
                Some(_) => {}
                None => missing.lock().unwrap_or_else(PoisonError::into_inner).push(blob.clone()),
            }
            Ok(())
        })?;
        let missing = missing.into_inner().unwrap_or_else(PoisonError::into_inner);
        if missing.is_empty() { Ok(sent.into_inner()) } else { Err(self.absent(&missing)) }
    }

    /// Sends manifests and indexes, the one with the tag last. Whether a fall-back tag had to be used.
    fn manifests(&self, plan: &Plan, top: &Descriptor) -> Result<bool> {
        let mut fallback = false;
        for (document, bytes) in &plan.documents {
            let name = match self.name.tag().filter(|_| document.digest == top.digest) {
                Some(tag) => tag.to_owned(),
                None => document.digest.to_string(),
            };
            fallback |= put_manifest(&self.client, &name, document, bytes)?;
        }
        Ok(fallback)
    }
}

/// Sends one manifest or index under a tag or digest. When it is about a subject and the registry knows nothing of
/// that, the subject's fall-back tag is kept up; then the answer is `true`.
pub(super) fn put_manifest(
    client: &Client,
    tag_or_digest: &str,
    document: &Descriptor,
    bytes: &[u8],
) -> Result<bool> {
    let url = client.manifest_url(tag_or_digest);
    let mut attempt = 1;
    let answer = loop {
        let body = Payload::Bytes(bytes, &document.media_type);
        let call = Call { body, also: LOOKED_AT, ..Call::new(Method::PUT, &url) };
        let answer = Answer::new(&url, client.call(&call)?);
        if !answer.is_transient() || attempt >= client.attempts() {
            break answer;
        }
        attempt += 1;
        std::thread::sleep(client.pause_before(attempt).max(answer.retry_after().unwrap_or_default()));
    };
    if !answer.status.is_success() {
        return Err(answer.to_error());
    }
    if let Some(said) =
        answer.header("docker-content-digest").filter(|said| *said != document.digest.to_string())
    {
        let reason = format!("the registry stored {} as {}", document.digest, said.escape_default());
        return Err(refused(&url, &reason));
    }
    let Some(subject) = Subject::of(bytes).subject else { return Ok(false) };
    if answer.header("oci-subject").is_some_and(|said| said == subject.digest.to_string()) {
        return Ok(false);
    }
    referrers::enter(client, &subject, document, bytes)?;
    Ok(true)
}

/// The part of a manifest or an index that makes it a referrer.
#[derive(Debug, Default, Deserialize)]
struct Subject {
    #[serde(default)]
    subject: Option<Descriptor>,
}

impl Subject {
    fn of(bytes: &[u8]) -> Self {
        serde_json::from_slice(bytes).unwrap_or_default()
    }
}

/// Without what only an index says of it.
fn plain(document: &Descriptor) -> Descriptor {
    Descriptor::new(&document.media_type, document.digest.clone(), document.size)
}

fn kind_of(layer: &Descriptor) -> BlobKind {
    if media::is_wasm(&layer.media_type) {
        BlobKind::Wasm
    } else if media::layer_compression(&layer.media_type).is_some() {
        BlobKind::Layer
    } else {
        BlobKind::Other
    }
}

fn in_parallel<T: Sync>(items: &[T], job: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = std::sync::atomic::AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            job(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS.min(items.len())).map(|_| scope.spawn(work)).collect();
        let panicked = |_| Err(Error::Io(std::io::Error::other("a worker thread panicked")));
        let results: Vec<_> = threads.into_iter().map(|t| t.join().unwrap_or_else(panicked)).collect();
        results.into_iter().collect()
    })
}

#[cfg(test)]
mod tests;
