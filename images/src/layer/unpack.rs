//! From a compressed layer to a directory in the store.
//!
//! One thread undoes the compression and hashes what goes in; the caller's thread hashes and extracts what comes
//! out. Layers do not depend on each other, so several are unpacked at once. A layer gets its name only when both
//! digests are right and everything is on disk.

use std::collections::HashSet;
use std::io;
use std::io::BufReader;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use fs_err as fs;

use super::Fault;
use super::compression;
use super::extract;
use super::extract::Extracted;
use super::max_unpacked;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::HashingReader;
use crate::Image;
use crate::LayerForm;
use crate::Progress;
use crate::State;
use crate::Store;
use crate::error::Result;
use crate::media;
use crate::media::Compression;
use crate::store::LAYER_RECORD;
use crate::store::LayerRecord;
use crate::store::UnpackedLayer;
use crate::store::make_dir;
use crate::store::remove;
use crate::store::session::Session;
use crate::store::session::Staged;
use crate::store::session::unwrap_io;
use crate::store::sync_dir;
use crate::store::write_file;

/// Plain bytes on their way from one thread to the other: this many pieces of this size.
const PIECES: usize = 8;
const PIECE: usize = 256 << 10;

impl Store {
    /// Unpacks an image's layers, lowest first in the result. Those that are there already cost one `stat` each.
    /// The result has one element for each layer of the image: a layer that occurs twice is there twice.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], [`Error::InvalidLayer`], a mismatch of digests, or the disk's.
    pub fn unpack(&self, image: &Image, progress: &dyn Progress) -> Result<Vec<UnpackedLayer>> {
        let layers: Vec<UnpackedLayer> = image
            .diff_ids
            .iter()
            .map(|diff_id| UnpackedLayer {
                diff_id: diff_id.clone(),
                path: self.layer_dir(diff_id).join("fs"),
            })
            .collect();
        if layers.iter().all(|layer| is_dir(&layer.path)) {
            return Ok(layers);
        }
        let session = Session::new(self)?;
        session.claim(image.diff_ids.iter().chain([&image.manifest.digest]))?;
        // The same layer may occur any number of times, also packed in different ways: it is unpacked once.
        let mut seen = HashSet::new();
        let todo: Vec<(&Descriptor, &Digest)> = image
            .layers
            .iter()
            .zip(&image.diff_ids)
            .filter(|(_, diff_id)| seen.insert(*diff_id) && !self.has_layer(diff_id, LayerForm::Files))
            .collect();
        in_parallel(&todo, |(blob, diff_id)| {
            self.unpack_one(&session, blob, diff_id, LayerForm::Files, progress)
        })?;
        Ok(layers)
    }

    /// Whether a layer is there in this form, or in the one that serves for it.
    pub(crate) fn has_layer(&self, diff_id: &Digest, _form: LayerForm) -> bool {
        is_dir(&self.layer_dir(diff_id))
    }

    pub(crate) fn unpack_one(
        &self,
        session: &Session,
        blob: &Descriptor,
        diff_id: &Digest,
        form: LayerForm,
        progress: &dyn Progress,
    ) -> Result<()> {
        let event = |state| {
            progress.event(&Event::Blob { digest: &blob.digest, kind: BlobKind::Layer, state });
        };
        let compression = compression_of(blob)?;
        let file = self.open_blob(&blob.digest)?;
        let done = AtomicU64::new(0);
        let mut counted = Counted {
            inner: file,
            done: &done,
            on_read: |done| event(State::Unpacking { done, total: blob.size }),
        };
        let mut input = HashingReader::new(&mut counted, blob.digest.algorithm());
        let staged = stage(session, compression, &mut input, blob, diff_id, form);
        // A damaged blob explains whatever went wrong with its content.
        if staged.as_ref().is_err_and(is_content_error) {
            io::copy(&mut input, &mut io::sink())?;
        }
        let staged = match staged {
            Err(e) if !is_content_error(&e) => return Err(e),
            other => {
                input.verify(&format!("layer {}", blob.digest), &blob.digest, Some(blob.size))?;
                other?
            }
        };
        staged.publish(None)?;
        event(State::Complete);
        Ok(())
    }
}

/// What is left to do for an image when all its layers are published: to index them, if that is its form.
pub(crate) fn finish(session: &Session, image: &Image) -> Result<()> {
    let _ = (session, image);
    Ok(())
}

/// How a layer is packed, by its media type.
pub(crate) fn compression_of(blob: &Descriptor) -> Result<Compression> {
    media::layer_compression(&blob.media_type).ok_or_else(|| {
        Error::manifest(&blob.digest, format!("layer of unknown media type {}", blob.media_type))
    })
}

/// Whether the bytes of a layer are at fault, and not the disk or the connection.
pub(crate) fn is_content_error(error: &Error) -> bool {
    matches!(error, Error::InvalidLayer { .. } | Error::DigestMismatch { .. })
}

/// A layer whose files are written and whose diff id is right, without a name yet.
#[derive(Debug)]
pub(crate) struct StagedLayer<'s> {
    session: &'s Session,
    dir: PathBuf,
    diff_id: Digest,
}

/// Unpacks a stream of compressed bytes into the wanted form. The caller verifies what goes in.
pub(crate) fn stage<'s>(
    session: &'s Session,
    compression: Compression,
    input: &mut (dyn Read + Send),
    blob: &Descriptor,
    diff_id: &Digest,
    _form: LayerForm,
) -> Result<StagedLayer<'s>> {
    let dir = session.path();
    let root = dir.join("fs");
    make_dir(&dir)?;
    fs::create_dir(&root)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // For layers whose archive has no entry for the root.
        fs::set_permissions(&root, PermissionsExt::from_mode(0o755))?;
    }
    let failed = |fault| match fault {
        Fault::Bad { entry, reason } => Error::InvalidLayer { layer: blob.digest.clone(), entry, reason },
        Fault::Io(e) => unwrap_io(e, |e| match e.kind() {
            // What decoders say about broken content.
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => {
                Error::InvalidLayer { layer: blob.digest.clone(), entry: None, reason: e.to_string() }
            }
            _ => Error::io(format_args!("layer {}", blob.digest), e),
        }),
    };
    let extracted = std::thread::scope(|scope| -> std::result::Result<_, Fault> {
        let (send, receive) = mpsc::sync_channel(PIECES);
        let (give_back, reuse) = mpsc::channel();
        let limit = max_unpacked(blob.size);
        scope.spawn(move || decompress(input, compression, limit, &send, &reuse));
        let pieces = Pieces { receive, give_back, current: Vec::new(), at: 0 };
        let mut plain = HashingReader::new(pieces, diff_id.algorithm());
        let extracted = extract::extract(&mut plain, &root)?;
        Ok((plain, extracted))
    });
    let (plain, extracted) = extracted.map_err(failed)?;
    plain.verify(&format!("uncompressed layer {}", blob.digest), diff_id, None)?;
    let Extracted { size, entries, lost_owners } = extracted;
    let record = LayerRecord { diff_id: diff_id.clone(), size, entries, lost_owners };
    let record = serde_json::to_vec(&record).map_err(|e| Error::manifest(diff_id, e))?;
    write_file(&dir.join(LAYER_RECORD), &record)?;
    Ok(StagedLayer { session, dir, diff_id: diff_id.clone() })
}

impl StagedLayer<'_> {
    /// Makes the layer durable as far as it has to be and gives it its name, after the blob that it came from if
    /// that is new too.
    pub(crate) fn publish(self, blob: Option<Staged<'_>>) -> Result<()> {
        sync_all(self.session)?;
        if let Some(blob) = blob {
            blob.publish_synced()?;
        }
        let target = self.session.store().layer_dir(&self.diff_id);
        if let Err(e) = fs::rename(&self.dir, &target) {
            // Somebody else was faster with the same layer.
            return if self.session.store().has_layer(&self.diff_id, LayerForm::Files) {
                remove::tree(&self.dir)
            } else {
                Err(e.into())
            };
        }
        sync_dir(&self.session.store().root().join("layers"))
    }
}

/// Everything that was written to the store's file system so far is on disk after this.
fn sync_all(session: &Session) -> Result<()> {
    #[cfg(target_os = "linux")]
    {
        let root = fs::File::open(session.store().root())?;
        rustix::fs::syncfs(&root).map_err(|e| Error::io(session.store().root().display(), e.into()))?;
    }
    // Elsewhere there is no such call. Files of a layer that a power cut damages are found by their use only.
    #[cfg(not(target_os = "linux"))]
    let _ = session;
    Ok(())
}

/// Runs a job for each item, a few at a time, and returns the first error. After an error no job is started.
pub(crate) fn in_parallel<T: Sync>(items: &[T], job: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    // More would not be faster: a registry's link or the disk is full then, and each job has two threads.
    let workers = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4)).min(items.len());
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            job(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    if workers <= 1 {
        return work();
    }
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|t| {
                t.join().unwrap_or_else(|_| Err(Error::Io(io::Error::other("a worker thread panicked"))))
            })
            .collect();
        results.into_iter().collect()
    })
}

type Piece = io::Result<Vec<u8>>;

/// Sends plain bytes until the end, an error, or until nobody wants more.
fn decompress(
    input: &mut (dyn Read + Send),
    compression: Compression,
    limit: u64,
    send: &mpsc::SyncSender<Piece>,
    reuse: &mpsc::Receiver<Vec<u8>>,
) {
    let work = || -> io::Result<()> {
        let mut decoder = compression::decoder(BufReader::with_capacity(PIECE, input), compression)?;
        let mut total = 0;
        loop {
            let mut piece = reuse.try_recv().unwrap_or_default();
            piece.resize(PIECE, 0);
            let mut filled = 0;
            // Small reads are collected: each piece costs a switch of threads.
            while filled < PIECE {
                match decoder.read(&mut piece[filled..]) {
                    Ok(0) => break,
                    Ok(n) => filled += n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => return Err(e),
                }
            }
            if filled == 0 {
                return Ok(());
            }
            total += filled as u64;
            if total > limit {
                let reason = format!("unpacks to more than {limit} bytes");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            piece.truncate(filled);
            if send.send(Ok(piece)).is_err() {
                return Ok(());
            }
        }
    };
    if let Err(e) = work() {
        // Nobody listens any more when the other side has failed first.
        drop(send.send(Err(e)));
    }
}

/// The other end of [`decompress`].
struct Pieces {
    receive: mpsc::Receiver<Piece>,
    give_back: mpsc::Sender<Vec<u8>>,
    current: Vec<u8>,
    at: usize,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.current.len() {
            let Ok(piece) = self.receive.recv() else { return Ok(0) };
            // The sender may be gone: then the buffer is not needed.
            drop(self.give_back.send(std::mem::replace(&mut self.current, piece?)));
            self.at = 0;
        }
        let n = buffer.len().min(self.current.len() - self.at);
        buffer[..n].copy_from_slice(&self.current[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }
}

/// Reports how far a reader is.
pub(crate) struct Counted<'a, R, F> {
    pub(crate) inner: R,
    pub(crate) done: &'a AtomicU64,
    pub(crate) on_read: F,
}

impl<R: Read, F: FnMut(u64)> Read for Counted<'_, R, F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        let done = self.done.fetch_add(n as u64, Ordering::Relaxed) + n as u64;
        (self.on_read)(done);
        Ok(n)
    }
}

fn is_dir(path: &std::path::Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir())
}
