//! From a compressed layer to a directory or a plain archive in the store.
//!
//! Threads of `stream` hash what goes in and undo the compression; the caller's thread hashes and extracts what comes
//! out. Layers do not depend on each other, so several are unpacked at once. A layer gets its name only when both
//! digests are right and a directory is on disk.

use std::collections::HashSet;
use std::io;
use std::io::Read;
use std::path::Path;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use fs_err as fs;

use super::Fault;
use super::extract;
use super::extract::Extracted;
#[cfg(target_os = "linux")]
use super::plain;
#[cfg(target_os = "linux")]
use super::plain::TAR;
use super::stream;
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

/// The folder of a layer's directory form.
const FILES: &str = "fs";
/// Stands for [`FILES`] where the layer means something only over those below it: then there is a folder for each
/// chain of layers, named by [`over_id`].
pub(crate) const NEEDS_BELOW: &str = "needs-below";

impl Store {
    /// Unpacks an image's layers, lowest first in the result. Those that are there already cost one `stat` each.
    /// The result has one element for each layer of the image: a layer that occurs twice is there twice.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], [`Error::InvalidLayer`], a mismatch of digests, or the disk's.
    pub fn unpack(&self, image: &Image, progress: &dyn Progress) -> Result<Vec<UnpackedLayer>> {
        let layers = self.layer_dirs(&image.diff_ids);
        if layers.iter().all(|layer| is_dir(&layer.path)) {
            return Ok(layers);
        }
        let session = Session::new(self)?;
        session.claim(image.diff_ids.iter().chain([&image.manifest.digest]))?;
        self.unpack_missing(&session, image, LayerForm::Files, progress)?;
        self.unpack_over(&session, image)
    }

    /// Where the directories of an image's layers are, or would be, lowest first.
    ///
    /// A layer whose meaning depends on those below it has a directory for each of the orders that it occurs in: it has
    /// hard links to their files, or files in their directories and says nothing about these.
    #[must_use]
    pub fn layer_dirs(&self, diff_ids: &[Digest]) -> Vec<UnpackedLayer> {
        let layer = |(at, diff_id): (usize, &Digest)| {
            #[cfg(target_os = "linux")]
            if std::fs::symlink_metadata(self.layer_dir(diff_id).join(NEEDS_BELOW)).is_ok()
                && let Some(over) = over_id(&diff_ids[..=at])
            {
                let path = self.layer_path(&over);
                return UnpackedLayer { diff_id: diff_id.clone(), id: over, path };
            }
            let _ = at;
            let path = self.layer_path(diff_id);
            UnpackedLayer { diff_id: diff_id.clone(), id: diff_id.clone(), path }
        };
        diff_ids.iter().enumerate().map(layer).collect()
    }

    /// Unpacks those layers of an image that belong to the ones below them, when all others are unpacked. Returns all.
    pub(crate) fn unpack_over(&self, session: &Session, image: &Image) -> Result<Vec<UnpackedLayer>> {
        let mut layers: Vec<UnpackedLayer> = Vec::with_capacity(image.diff_ids.len());
        for (at, (diff_id, blob)) in image.diff_ids.iter().zip(&image.layers).enumerate() {
            let path = self.layer_path(diff_id);
            #[cfg(target_os = "linux")]
            let (id, path) = match if is_dir(&path) { None } else { over_id(&image.diff_ids[..=at]) } {
                None => (diff_id.clone(), path),
                Some(over) => {
                    let path = self.layer_path(&over);
                    if !is_dir(&path) {
                        session.claim([&over])?;
                        let below: Vec<PathBuf> = layers.iter().rev().map(|l| l.path.clone()).collect();
                        self.unpack_one_over(session, blob, diff_id, &over, &below)?;
                    }
                    (over, path)
                }
            };
            #[cfg(not(target_os = "linux"))]
            let id = {
                let _ = (session, at, blob);
                diff_id.clone()
            };
            layers.push(UnpackedLayer { diff_id: diff_id.clone(), id, path });
        }
        Ok(layers)
    }

    #[cfg(target_os = "linux")]
    fn unpack_one_over(
        &self,
        session: &Session,
        blob: &Descriptor,
        diff_id: &Digest,
        over: &Digest,
        below: &[PathBuf],
    ) -> Result<()> {
        let mut input = HashingReader::new(self.open_blob(&blob.digest)?, blob.digest.algorithm());
        let target = Target { diff_id, form: LayerForm::Files, over: Some((over, below)) };
        let staged = stage_as(session, compression_of(blob)?, &mut input, blob, &target)?;
        input.verify(&format!("layer {}", blob.digest), &blob.digest, Some(blob.size))?;
        staged.publish(None)
    }

    /// Unpacks those layers of an image that are not there in this form. They are claimed.
    pub(crate) fn unpack_missing(
        &self,
        session: &Session,
        image: &Image,
        form: LayerForm,
        progress: &dyn Progress,
    ) -> Result<()> {
        // The same layer may occur any number of times, also packed in different ways: it is unpacked once.
        let mut seen = HashSet::new();
        let todo: Vec<(&Descriptor, &Digest)> = image
            .layers
            .iter()
            .zip(&image.diff_ids)
            .filter(|(_, diff_id)| seen.insert(*diff_id) && !self.has_layer(diff_id, form))
            .collect();
        in_parallel(&todo, |(blob, diff_id)| self.unpack_one(session, blob, diff_id, form, progress))
    }

    /// Whether a layer is there in this form. A directory serves for an archive too: it decides what an image is.
    pub(crate) fn has_layer(&self, diff_id: &Digest, form: LayerForm) -> bool {
        let dir = self.layer_dir(diff_id);
        #[cfg(target_os = "linux")]
        if form == LayerForm::Index && std::fs::symlink_metadata(dir.join(TAR)).is_ok() {
            return true;
        }
        let _ = form;
        is_dir(&dir.join(FILES)) || std::fs::symlink_metadata(dir.join(NEEDS_BELOW)).is_ok()
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
        #[cfg(target_os = "linux")]
        if form == LayerForm::Files
            && let Some((tar, size)) = self.open_tar(diff_id)
        {
            // Half the work is done. A tar that is damaged is no reason to fail: there is the blob.
            let plain = Descriptor::new(media::LAYER, blob.digest.clone(), size);
            match stage(session, Compression::None, &mut tar.take(size), &plain, diff_id, form) {
                Err(e) if is_content_error(&e) => {}
                staged => {
                    staged?.publish(None)?;
                    event(State::Complete);
                    return Ok(());
                }
            }
        }
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
    #[cfg(target_os = "linux")]
    if session.store().form_of(image) == LayerForm::Index && index(session, image, &crate::NoProgress)? {
        return Ok(());
    }
    if image.diff_ids.iter().all(|diff_id| session.store().has_layer(diff_id, LayerForm::Files)) {
        session.store().unpack_over(session, image)?;
    }
    Ok(())
}

/// The name of an image's last layer when it is unpacked over those below it.
#[cfg(target_os = "linux")]
fn over_id(diff_ids: &[Digest]) -> Option<Digest> {
    Some(Digest::of(format!("over {}", crate::erofs::chain_id(diff_ids)?).as_bytes()))
}

/// [`over_id`] for every layer of an image.
#[cfg(target_os = "linux")]
pub(crate) fn over_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Option<Digest> = None;
    let mut all = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match &chain {
            None => diff_id.clone(),
            Some(chain) => Digest::of(format!("{chain} {diff_id}").as_bytes()),
        };
        all.push(Digest::of(format!("over {next}").as_bytes()));
        chain = Some(next);
    }
    all
}

/// Indexes the layers of an image, which are there as archives. Whether it could be: an image that holds what only
/// directories can is extracted instead.
#[cfg(target_os = "linux")]
pub(crate) fn index(session: &Session, image: &Image, progress: &dyn Progress) -> Result<bool> {
    use crate::store::trees;
    use crate::store::trees::Built;
    let store = session.store();
    for attempt in 0.. {
        match trees::build(session, &image.diff_ids)? {
            Built::Tree => return Ok(true),
            // After a power cut, or damaged since; or being removed again by somebody else.
            Built::Missing(layers) if attempt < 3 => {
                for diff_id in &layers {
                    store.remove_tar(diff_id)?;
                }
                if layers.iter().any(|diff_id| store.has_layer(diff_id, LayerForm::Files)) {
                    break;
                }
                store.unpack_missing(session, image, LayerForm::Index, progress)?;
            }
            Built::Missing(_) => break,
            Built::Unfit(layers) => {
                store.unpack_missing(session, image, LayerForm::Files, progress)?;
                for diff_id in &layers {
                    store.remove_tar(diff_id)?;
                }
                return Ok(false);
            }
        }
    }
    store.unpack_missing(session, image, LayerForm::Files, progress)?;
    Ok(false)
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
    form: LayerForm,
    /// The blob that is the archive itself, and its size: it is shared when it has its name.
    #[cfg(target_os = "linux")]
    shares: Option<(PathBuf, u64)>,
}

/// What a stream is to become.
struct Target<'a> {
    diff_id: &'a Digest,
    form: LayerForm,
    /// The name to have, and the layers below, the uppermost first.
    over: Option<(&'a Digest, &'a [PathBuf])>,
}

/// Unpacks a stream of compressed bytes into the wanted form. The caller verifies what goes in.
pub(crate) fn stage<'s>(
    session: &'s Session,
    compression: Compression,
    input: &mut (dyn Read + Send),
    blob: &Descriptor,
    diff_id: &Digest,
    form: LayerForm,
) -> Result<StagedLayer<'s>> {
    stage_as(session, compression, input, blob, &Target { diff_id, form, over: None })
}

fn stage_as<'s>(
    session: &'s Session,
    compression: Compression,
    input: &mut (dyn Read + Send),
    blob: &Descriptor,
    target: &Target<'_>,
) -> Result<StagedLayer<'s>> {
    let Target { diff_id, form, over } = *target;
    let dir = session.path();
    make_dir(&dir)?;
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
    #[cfg(target_os = "linux")]
    let mut shares = None;
    let Extracted { size, entries, lost_owners, needs_below } = match form {
        #[cfg(target_os = "linux")]
        LayerForm::Index => {
            let (scan, size) = plain::stage(&dir, compression, input, blob, diff_id).map_err(failed)??;
            let record = plain::TarRecord { size, boot: plain::boot_id() };
            write_file(&dir.join(plain::TAR_RECORD), &to_json(&record)?)?;
            if compression == Compression::None {
                shares = Some((session.store().blob_path(&blob.digest), size));
            }
            let extracted = scan.extracted;
            session.keep_scan(diff_id, scan);
            extracted
        }
        _ => {
            let root = dir.join(FILES);
            fs::create_dir(&root)?;
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt;
                // For layers whose archive has no entry for the root.
                fs::set_permissions(&root, PermissionsExt::from_mode(0o755))?;
            }
            let (plain, extracted) = stream::with_plain(input, compression, blob.size, |pieces| {
                let mut plain = HashingReader::new(pieces, diff_id.algorithm());
                let extracted = match over {
                    #[cfg(target_os = "linux")]
                    Some((_, below)) => extract::extract_over(&mut plain, &root, below)?,
                    _ => extract::extract(&mut plain, &root)?,
                };
                Ok((plain, extracted))
            })
            .map_err(failed)?;
            plain.verify(&format!("uncompressed layer {}", blob.digest), diff_id, None)?;
            extracted
        }
    };
    if needs_below {
        // Not whole, so it is not kept. It is read again when the layers below it are there.
        remove::tree(&dir.join(FILES))?;
        write_file(&dir.join(NEEDS_BELOW), b"")?;
    } else {
        session.reserve(size)?;
    }
    let diff_id = over.map_or(diff_id, |(over, _)| over);
    let record =
        LayerRecord { diff_id: diff_id.clone(), size, is_elsewhere: needs_below, entries, lost_owners };
    write_file(&dir.join(LAYER_RECORD), &to_json(&record)?)?;
    Ok(StagedLayer {
        session,
        dir,
        diff_id: diff_id.clone(),
        form,
        #[cfg(target_os = "linux")]
        shares,
    })
}

impl StagedLayer<'_> {
    /// Makes the layer durable as far as it has to be and gives it its name, after the blob that it came from if
    /// that is new too. An archive need not last: see `plain`.
    pub(crate) fn publish(self, blob: Option<Staged<'_>>) -> Result<()> {
        let store = self.session.store();
        if self.form == LayerForm::Files {
            sync_all(self.session)?;
            if let Some(blob) = blob {
                blob.publish_synced()?;
            }
        } else if let Some(blob) = blob {
            blob.publish()?;
        }
        #[cfg(target_os = "linux")]
        if let Some((blob, size)) = &self.shares {
            plain::share(blob, &self.dir, *size)?;
        }
        let target = store.layer_dir(&self.diff_id);
        if let Err(e) = fs::rename(&self.dir, &target) {
            // Somebody else was faster with the same layer, or it is there in the other form.
            self.join(&target)?;
            if !store.has_layer(&self.diff_id, self.form) {
                return Err(e.into());
            }
            remove::tree(&self.dir)?;
        }
        if self.form == LayerForm::Files { sync_dir(&store.root().join("layers")) } else { Ok(()) }
    }

    /// Gives a layer that has a name already what it lacks. What says that a form is complete comes last.
    fn join(&self, target: &Path) -> Result<()> {
        #[cfg(target_os = "linux")]
        let (tar, tar_record) = (TAR, plain::TAR_RECORD);
        #[cfg(not(target_os = "linux"))]
        let (tar, tar_record) = ("tar", "tar.json");
        let lacks = |name: &str| std::fs::symlink_metadata(target.join(name)).is_err();
        let mut parts = Vec::new();
        if self.session.store().layer_record(&self.diff_id).is_none() {
            parts.push(LAYER_RECORD);
        }
        if lacks(tar) {
            parts.extend([tar_record, tar]);
        }
        if lacks(FILES) {
            parts.extend([FILES, NEEDS_BELOW]);
        }
        for part in parts {
            match fs::rename(self.dir.join(part), target.join(part)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound && lacks(part) => return Err(e.into()),
                _ => {}
            }
        }
        if self.form == LayerForm::Files { sync_dir(target) } else { Ok(()) }
    }
}

fn to_json(record: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(record).map_err(|e| Error::Io(io::Error::other(e)))
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

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
