//! One repository, wherever it can be read: its mirrors in order, and the registry itself last.
//!
//! A mirror that does not answer is not asked again. Each document is verified before it is passed on, so a mirror
//! that sends something else is passed over like one that sends nothing. What fails at the registry itself is the
//! answer.

use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use ureq::http::StatusCode;

use super::Access;
use super::Mirror;
use super::Scope;
use super::http::Call;
use super::http::Client;
use super::http::read_limited;
use super::http::refused;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::MAX_MANIFEST;
use crate::NoProgress;
use crate::Progress;
use crate::Reference;
use crate::digest::check;
use crate::error::Result;
use crate::media;

/// Most tags of one repository that are listed.
const MAX_TAGS: usize = 100_000;
/// Most pages of one list.
const MAX_PAGES: usize = 10_000;
/// Largest page of a list, in bytes.
const MAX_PAGE: u64 = 8 << 20;

/// See the module. It may be used by several threads at once.
pub struct Remote<'a> {
    name: &'a Reference,
    access: &'a Access,
    progress: &'a dyn Progress,
    sources: Vec<Source<'a>>,
}

struct Source<'a> {
    /// `None` for the registry itself.
    mirror: Option<&'a Mirror>,
    client: OnceLock<Client>,
    connecting: std::sync::Mutex<()>,
    dead: AtomicBool,
}

impl std::fmt::Debug for Remote<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> Remote<'a> {
    /// The repository of a reference. Nothing is asked yet.
    #[must_use]
    pub fn new(name: &'a Reference, access: &'a Access) -> Self {
        Self::with_progress(name, access, &NoProgress)
    }

    pub(super) fn with_progress(name: &'a Reference, access: &'a Access, progress: &'a dyn Progress) -> Self {
        let source = |mirror| Source {
            mirror,
            client: OnceLock::new(),
            connecting: std::sync::Mutex::default(),
            dead: AtomicBool::new(false),
        };
        let mirrors = access.mirrors.iter().map(Some).chain([None]);
        Self { name, access, progress, sources: mirrors.map(source).collect() }
    }

    /// How the registry is reached.
    pub(super) fn access(&self) -> &Access {
        self.access
    }

    /// How many sources there are; the last one is the registry itself.
    pub(super) fn count(&self) -> usize {
        self.sources.len()
    }

    /// The client of a source, connected.
    pub(super) fn client(&self, at: usize) -> Result<&Client> {
        let source = &self.sources[at];
        if let Some(client) = source.client.get() {
            return Ok(client);
        }
        let _one = source.connecting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = source.client.get() {
            return Ok(client);
        }
        let registry = || source.mirror.map_or(self.name.registry(), |mirror| &mirror.url).to_owned();
        if source.dead.load(Ordering::Relaxed) {
            return Err(Error::Unreachable {
                registry: registry(),
                reason: "it did not answer before".into(),
            });
        }
        let client = match source.mirror {
            Some(mirror) => Client::connect_mirror(self.name, self.access, mirror),
            None => Client::connect(self.name, self.access, &Scope::Pull),
        };
        let client = client.inspect_err(|_| source.dead.store(true, Ordering::Relaxed))?;
        Ok(source.client.get_or_init(|| client))
    }

    /// A mirror failed: says so, and is not asked again if it does not answer at all.
    pub(super) fn passed_over(&self, at: usize, error: &Error) {
        let Some(mirror) = self.sources[at].mirror else { return };
        if matches!(error, Error::Unreachable { .. }) {
            self.sources[at].dead.store(true, Ordering::Relaxed);
        }
        self.progress.event(&Event::MirrorFailed { mirror: &mirror.url, reason: &error.to_string() });
    }

    /// Asks each source until one has the answer.
    pub(super) fn each<T>(&self, ask: impl Fn(&Client) -> Result<T>) -> Result<T> {
        let last = self.count() - 1;
        for at in 0..last {
            if self.sources[at].dead.load(Ordering::Relaxed) {
                continue;
            }
            match self.client(at).and_then(&ask) {
                Ok(answer) => return Ok(answer),
                Err(error) => self.passed_over(at, &error),
            }
        }
        ask(self.client(last)?)
    }

    /// A manifest or index, by tag or digest; by digest it is verified.
    ///
    /// # Errors
    /// The registry's, or the document's.
    pub fn manifest(&self, tag_or_digest: &str) -> Result<(Descriptor, Vec<u8>)> {
        let expected: Option<Digest> = tag_or_digest.parse().ok();
        self.each(|client| {
            let url = client.manifest_url(tag_or_digest);
            let (media_type, bytes) = manifest_at(client, &url)?;
            let digest = match &expected {
                Some(expected) => {
                    let mut hasher = crate::Hasher::new(expected.algorithm());
                    hasher.update(&bytes);
                    check(&url, expected, None, hasher.finish(), bytes.len() as u64)?;
                    expected.clone()
                }
                None => Digest::of(&bytes),
            };
            Ok((Descriptor::new(&media_type, digest, bytes.len() as u64), bytes))
        })
    }

    /// A blob of at most 4 MiB, verified.
    ///
    /// # Errors
    /// The registry's, or a mismatch.
    pub fn blob(&self, blob: &Descriptor) -> Result<Vec<u8>> {
        if blob.size > MAX_MANIFEST {
            return Err(Error::manifest(&blob.digest, "is larger than 4 MiB"));
        }
        self.each(|client| {
            let url = client.blob_url(&blob.digest);
            let response = client.call(&Call::get(&url))?;
            let bytes = read_limited(response, blob.size)
                .ok_or_else(|| refused(&url, "the content was cut off or is longer than it should be"))?;
            let mut hasher = crate::Hasher::new(blob.digest.algorithm());
            hasher.update(&bytes);
            check(&url, &blob.digest, Some(blob.size), hasher.finish(), bytes.len() as u64)?;
            Ok(bytes)
        })
    }

    /// Brings a blob of any size into the store, verified; nothing is unpacked.
    ///
    /// # Errors
    /// The registry's, a mismatch, and the disk's.
    pub fn fetch_blob(&self, store: &crate::Store, blob: &Descriptor) -> Result<()> {
        super::download::bring(store, self, blob)
    }

    /// Something small of the repository, such as `referrers/sha256:…`; `None` when there is no such thing. Nothing
    /// verifies it.
    ///
    /// # Errors
    /// The registry's.
    pub fn document(&self, path: &str) -> Result<Option<Vec<u8>>> {
        self.each(|client| {
            let url = client.url(path);
            let response = client.call(&Call { also: &[StatusCode::NOT_FOUND], ..Call::get(&url) })?;
            if response.status() == StatusCode::NOT_FOUND {
                return Ok(None);
            }
            let bytes = read_limited(response, MAX_MANIFEST);
            bytes.map(Some).ok_or_else(|| refused(&url, "the answer was cut off or is larger than 4 MiB"))
        })
    }

    /// Every tag of the repository, sorted, as the registry itself has them.
    ///
    /// # Errors
    /// The registry's, or a list that is too long or without end.
    pub fn tags(&self) -> Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Page {
            #[serde(default, deserialize_with = "crate::descriptor::or_default")]
            tags: Vec<String>,
        }
        let client = self.client(self.count() - 1)?;
        let mut tags = std::collections::BTreeSet::new();
        let mut url = client.url("tags/list?n=1000");
        for _ in 0..MAX_PAGES {
            let response = client.call(&Call { also: &[StatusCode::NOT_FOUND], ..Call::get(&url) })?;
            if response.status() == StatusCode::NOT_FOUND {
                let reference = format!("{}/{}", self.name.registry(), self.name.repository());
                return Err(Error::ManifestUnknown { reference });
            }
            let next = client.next_page(&url, &response)?;
            let page = read_limited(response, MAX_PAGE)
                .and_then(|bytes| serde_json::from_slice::<Page>(&bytes).ok())
                .ok_or_else(|| refused(&url, "the list of tags is not valid"))?;
            let before = tags.len();
            tags.extend(page.tags);
            if tags.len() > MAX_TAGS {
                return Err(refused(&url, &format!("the repository has more than {MAX_TAGS} tags")));
            }
            match next {
                // A page with nothing new may lead to itself.
                Some(next) if tags.len() > before => url = next,
                _ => return Ok(tags.into_iter().collect()),
            }
        }
        Err(refused(&url, "the list of tags does not end"))
    }
}

/// A manifest as a registry sends it: of a media type that is one, and of bounded size.
fn manifest_at(client: &Client, url: &str) -> Result<(String, Vec<u8>)> {
    let accept = media::ACCEPTED_MANIFESTS.join(", ");
    let response = client.call(&Call { accept: &accept, ..Call::get(url) })?;
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
