//! Blobs on their way into the store: one download and one unpacking, however many processes want the same blob.
//!
//! What was fetched before is read from the disk through the same pipeline, then the registry is asked for the rest.
//! A mirror that breaks off or sends wrong bytes is followed by the next source.

use std::io;
use std::io::Read;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use fs_err as fs;

use super::blob::BlobReader;
use super::remote::Remote;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::Hasher;
use crate::LayerForm;
use crate::Progress;
use crate::State;
use crate::Store;
use crate::digest::check;
use crate::error::Result;
use crate::layer::unpack;
use crate::store::partial::Partial;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

/// How often a waiting process looks at a download of another one.
const LOOK: Duration = Duration::from_millis(20);

/// One blob that is wanted.
pub(super) struct Job<'a> {
    pub(super) blob: &'a Descriptor,
    pub(super) kind: BlobKind,
    /// Set when the blob is a layer to be unpacked.
    pub(super) unpack: Option<(&'a Digest, LayerForm)>,
}

/// Where blobs come from and where they go.
pub(super) struct Downloads<'a> {
    pub(super) store: &'a Store,
    pub(super) session: &'a Session,
    pub(super) remote: &'a Remote<'a>,
    pub(super) progress: &'a dyn Progress,
}

/// Brings one blob in.
pub(super) fn bring(store: &Store, remote: &Remote<'_>, blob: &Descriptor) -> Result<()> {
    let session = Session::new(store)?;
    session.claim([&blob.digest])?;
    let downloads = Downloads { store, session: &session, remote, progress: &crate::NoProgress };
    downloads.one(&Job { blob, kind: BlobKind::Layer, unpack: None }, true).map(drop)
}

impl Downloads<'_> {
    /// Brings all of them in, several at once.
    pub(super) fn all(&self, jobs: &[Job<'_>]) -> Result<()> {
        // What another process works on is left to it, as long as there is something else to do.
        let jobs: Vec<&Job<'_>> = jobs.iter().collect();
        let busy = Mutex::new(Vec::new());
        unpack::in_parallel(&jobs, |job| {
            if !self.one(job, false)? {
                busy.lock().unwrap_or_else(PoisonError::into_inner).push(*job);
            }
            Ok(())
        })?;
        let busy = busy.into_inner().unwrap_or_else(PoisonError::into_inner);
        unpack::in_parallel(&busy, |job| self.one(job, true).map(drop))
    }

    fn event(&self, job: &Job<'_>, state: State<'_>) {
        self.progress.event(&Event::Blob { digest: &job.blob.digest, kind: job.kind, state });
    }

    fn is_done(&self, job: &Job<'_>) -> bool {
        job.unpack.is_none_or(|(diff_id, form)| self.store.has_layer(diff_id, form))
            && self.store.has_blob_of(job.blob)
    }

    /// Brings one in. Without `wait`, `false` when somebody else is at it.
    fn one(&self, job: &Job<'_>, wait: bool) -> Result<bool> {
        let mut partial = loop {
            if self.is_done(job) {
                self.event(job, State::Complete);
                return Ok(true);
            }
            match self.store.try_partial(&job.blob.digest)? {
                Some(partial) => break partial,
                None if wait => {
                    let done = self.store.partial_length(&job.blob.digest);
                    self.event(job, State::Fetching { done, total: job.blob.size });
                    std::thread::sleep(LOOK);
                }
                None => return Ok(false),
            }
        };
        // It may have become complete before we got the right to work on it.
        if self.is_done(job) {
            self.event(job, State::Complete);
        } else if self.store.has_blob_of(job.blob) {
            if let Some((diff_id, form)) = job.unpack {
                self.store.unpack_one(self.session, job.blob, diff_id, form, self.progress)?;
            }
        } else {
            self.fetch(job, &mut partial)?;
        }
        Ok(true)
    }

    /// Fetches a blob that is not in the store, from one source after the other.
    fn fetch(&self, job: &Job<'_>, partial: &mut Partial) -> Result<()> {
        let last = self.remote.count() - 1;
        let mut at = 0;
        loop {
            let resumed = partial.length() > 0;
            let error = match self.fetch_from(job, partial, at) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            let wrong = match &error {
                Error::DigestMismatch { .. } => true,
                // Too short is what a broken connection leaves.
                Error::SizeMismatch { expected, actual, .. } => actual > expected,
                Error::Unreachable { .. }
                | Error::Certificate { .. }
                | Error::RateLimited { .. }
                | Error::ManifestUnknown { .. }
                | Error::Denied { .. }
                | Error::Registry { .. } => false,
                // The disk is full, or the content is right and no layer.
                _ => return Err(error),
            };
            if wrong {
                partial.clear()?;
                if resumed {
                    // What was there before may be at fault, for example after a power cut.
                    self.event(job, State::Retrying { attempt: 1, reason: "the kept part was damaged" });
                    continue;
                }
            }
            if at == last {
                return Err(error);
            }
            self.remote.passed_over(at, &error);
            at += 1;
        }
    }

    fn fetch_from(&self, job: &Job<'_>, partial: &mut Partial, source: usize) -> Result<()> {
        let blob = job.blob;
        if partial.length() > blob.size {
            partial.clear()?;
        }
        let prefix = partial.reader()?.take(partial.length());
        let whole = partial.length() == blob.size;
        let what = format!("{}", blob.digest);
        let client = if whole { None } else { Some(self.remote.client(source)?) };
        let what = client.map_or(what, |client| client.blob_url(&blob.digest));
        let reader =
            client.map(|client| BlobReader::new(client, blob, partial.length(), job.kind, self.progress));
        let mut tee = Tee { prefix, reader, partial, hasher: Hasher::new(blob.digest.algorithm()), count: 0 };
        let Some((diff_id, form)) =
            job.unpack.filter(|(diff_id, form)| !self.store.has_layer(diff_id, *form))
        else {
            tee.drain(&what)?;
            tee.verify(&what, blob)?;
            self.event(job, State::Fetched);
            partial.stage(self.session)?.publish()?;
            self.event(job, State::Complete);
            return Ok(());
        };
        let compression = unpack::compression_of(blob)?;
        let layer = match unpack::stage(self.session, compression, &mut tee, blob, diff_id, form) {
            Err(e) if !unpack::is_content_error(&e) => return Err(e),
            other => other,
        };
        // Content that cannot be unpacked is most often content that was damaged on the way: then say so.
        tee.drain(&what)?;
        tee.verify(&what, blob)?;
        let layer = layer?;
        self.event(job, State::Fetched);
        layer.publish(Some(partial.stage(self.session)?))?;
        self.event(job, State::Complete);
        Ok(())
    }
}

/// What there is, then what comes; the latter is kept.
struct Tee<'a> {
    prefix: io::Take<fs::File>,
    /// `None` when everything is there already.
    reader: Option<BlobReader<'a>>,
    partial: &'a mut Partial,
    hasher: Hasher,
    count: u64,
}

impl Tee<'_> {
    fn drain(&mut self, what: &str) -> Result<()> {
        io::copy(self, &mut io::sink()).map_err(|e| unwrap_io(e, |e| Error::io(what, e)))?;
        Ok(())
    }

    fn verify(self, what: &str, blob: &Descriptor) -> Result<()> {
        check(what, &blob.digest, Some(blob.size), self.hasher.finish(), self.count).map(drop)
    }
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut n = self.prefix.read(buffer)?;
        if n == 0
            && let Some(reader) = &mut self.reader
        {
            n = reader.read(buffer)?;
            if n == 0 {
                // While the rest of the layer is unpacked in other threads.
                self.partial.sync()?;
            }
            self.partial.append(&buffer[..n])?;
        }
        self.hasher.update(&buffer[..n]);
        self.count += n as u64;
        Ok(n)
    }
}
