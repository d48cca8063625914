//! Bringing members of an archive into the store as blobs, and layers as files in the same pass.
//!
//! What is read is hashed and copied on its way to whoever unpacks it, and gets its name when both are right.

use std::collections::HashSet;
use std::io;
use std::io::Read;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;

use fs_err as fs;

use super::packed;
use super::packed::Packing;
use super::source::Archive;
use super::source::read_start;
use crate::BlobKind;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Event;
use crate::Hasher;
use crate::HashingReader;
use crate::LayerForm;
use crate::Progress;
use crate::State;
use crate::digest::check;
use crate::error::Result;
use crate::layer::max_unpacked;
use crate::layer::unpack;
use crate::layer::unpack::StagedLayer;
use crate::media;
use crate::media::Compression;
use crate::store::private;
use crate::store::session::Session;
use crate::store::session::Staged;
use crate::store::session::unwrap_io;

/// A member that shall become a blob.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    pub(super) member: String,
    pub(super) kind: BlobKind,
    /// What the blob must be, as a manifest says. A docker archive has none: there the diff id is what is known.
    pub(super) blob: Option<Descriptor>,
    /// For a layer: what its content must be.
    pub(super) diff_id: Option<Digest>,
    /// The form in which the layer's files are wanted too, if they are.
    pub(super) form: Option<LayerForm>,
}

#[derive(Debug)]
pub(super) struct Take<'a> {
    pub(super) archive: &'a Archive,
    pub(super) session: &'a Session,
}

impl Take<'_> {
    /// Takes members, several at a time. Gives what each one became, in the same order.
    pub(super) fn all(&self, wanted: &[Wanted], progress: &dyn Progress) -> Result<Vec<Descriptor>> {
        let claims = wanted.iter().flat_map(|w| w.blob.iter().map(|blob| &blob.digest).chain(&w.diff_id));
        self.session.claim(claims)?;
        let taken: Vec<Mutex<Option<Descriptor>>> = wanted.iter().map(|_| Mutex::default()).collect();
        let take = |i: &usize| -> Result<()> {
            let blob = self.one(&wanted[*i], progress)?;
            *taken[*i].lock().unwrap_or_else(PoisonError::into_inner) = Some(blob);
            Ok(())
        };
        // A layer that occurs again, as it is or packed in another way, is looked at when it has its name.
        let mut known: HashSet<&Digest> = HashSet::new();
        let (first, again): (Vec<usize>, Vec<usize>) = (0..wanted.len()).partition(|i| {
            let Wanted { blob, diff_id, .. } = &wanted[*i];
            diff_id.as_ref().or(blob.as_ref().map(|blob| &blob.digest)).is_none_or(|name| known.insert(name))
        });
        unpack::in_parallel(&first, take)?;
        again.iter().try_for_each(take)?;
        let taken = taken.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner));
        Ok(taken.flatten().collect())
    }

    fn one(&self, wanted: &Wanted, progress: &dyn Progress) -> Result<Descriptor> {
        let shown = wanted.blob.as_ref().map(|blob| &blob.digest).or(wanted.diff_id.as_ref());
        let event = |state| {
            if let Some(digest) = shown {
                progress.event(&Event::Blob { digest, kind: wanted.kind, state });
            }
        };
        let store = self.session.store();
        let files = match (&wanted.diff_id, wanted.form) {
            (Some(diff_id), Some(form)) if !store.has_layer(diff_id, form) => Some((diff_id, form)),
            _ => None,
        };
        if let Some(blob) = self.known(wanted)? {
            match files {
                Some((diff_id, form)) => store.unpack_one(self.session, &blob, diff_id, form, progress)?,
                None => event(State::Exists),
            }
            return Ok(blob);
        }
        let (mut reader, size) = self.archive.open_member(&wanted.member)?;
        event(State::Waiting { total: size });
        let blob = match &wanted.blob {
            Some(blob) => self.verified(wanted, blob, files, &mut reader)?,
            None => self.found(wanted, files, &mut reader, size)?,
        };
        event(State::Complete);
        Ok(blob)
    }

    fn publish(&self, content: Staged<'_>, files: Option<StagedLayer<'_>>) -> Result<()> {
        match files {
            Some(files) => files.publish(Some(content)),
            None => content.publish(),
        }
    }

    /// The blob that this member is, if the store has it.
    fn known(&self, wanted: &Wanted) -> Result<Option<Descriptor>> {
        let store = self.session.store();
        if let Some(blob) = &wanted.blob {
            return Ok(store.has_blob_of(blob).then(|| blob.clone()));
        }
        // A plain layer is its own diff id, so it need not even be read.
        let Some(diff_id) = &wanted.diff_id else { return Ok(None) };
        let (_, size) = self.archive.open_member(&wanted.member)?;
        let plain = Descriptor::new(media::LAYER, diff_id.clone(), size);
        Ok(store.has_blob_of(&plain).then_some(plain))
    }

    /// A member whose digest and size are known.
    fn verified(
        &self,
        wanted: &Wanted,
        blob: &Descriptor,
        files: Option<(&Digest, LayerForm)>,
        reader: &mut (dyn Read + Send),
    ) -> Result<Descriptor> {
        let what = format!("blob {}", blob.digest);
        let mut source = self.source(wanted, reader, blob.digest.algorithm())?;
        let files = match files {
            Some((diff_id, form)) => {
                let compression = unpack::compression_of(blob)?;
                Some(unpack::stage(self.session, compression, &mut source, blob, diff_id, form))
            }
            None => None,
        };
        source.drain().map_err(|e| unwrap_io(e, |e| Error::io(&what, e)))?;
        let (digest, size, path) = source.finish();
        // A damaged blob explains whatever went wrong with its content.
        if !files.as_ref().is_some_and(|files| files.as_ref().is_err_and(|e| !unpack::is_content_error(e))) {
            check(&what, &blob.digest, Some(blob.size), digest, size)?;
        }
        let files = files.transpose()?;
        let content = self.session.adopt(path, &blob.digest, size)?;
        self.publish(content, files)?;
        Ok(blob.clone())
    }

    /// A layer of a docker archive: its first bytes say how it is packed, and its content is what must be right. It
    /// is taken over as it is, unless it is packed in a way that no registry knows.
    fn found(
        &self,
        wanted: &Wanted,
        files: Option<(&Digest, LayerForm)>,
        reader: &mut (dyn Read + Send),
        size: u64,
    ) -> Result<Descriptor> {
        let Some(diff_id) = &wanted.diff_id else {
            return Err(self.archive.invalid(format!("{} is of no use", wanted.member)));
        };
        let what = format!("layer {}", wanted.member);
        let mut start = [0; packed::START];
        let n = read_start(reader, &mut start)?;
        let packing = Packing::detect(&start[..n]);
        let mut whole = start[..n].chain(reader);
        let compression = match packing {
            Packing::Layer(compression) => compression,
            Packing::Bzip2 | Packing::Xz => Compression::None,
        };
        let media_type = match compression {
            Compression::None => media::LAYER,
            Compression::Gzip => media::LAYER_GZIP,
            Compression::Zstd => media::LAYER_ZSTD,
        };
        let limit = max_unpacked(size);
        let mut repacked;
        let (mut source, is_itself) = match packing {
            Packing::Layer(_) => (self.source(wanted, &mut whole, crate::Algorithm::Sha256)?, true),
            _ => {
                let input = io::BufReader::with_capacity(256 << 10, &mut whole);
                let plain = packing.decoder(input).map_err(|e| Error::manifest(&what, e))?;
                repacked = self.write(&what, &mut plain.take(limit + 1))?;
                (self.reread(&mut repacked)?, false)
            }
        };
        if is_itself && compression == Compression::None && size > limit {
            return Err(Error::manifest(&what, format!("unpacks to more than {limit} bytes")));
        }
        // The errors of a layer name its blob; here the diff id is the only name it has.
        let blob = Descriptor::new(media_type, diff_id.clone(), size);
        let files = match files {
            Some((diff_id, form)) => {
                let staged = unpack::stage(self.session, compression, &mut source, &blob, diff_id, form);
                if compression == Compression::None && staged.as_ref().is_err_and(unpack::is_content_error) {
                    source.drain().map_err(|e| unwrap_io(e, |e| Error::io(&what, e)))?;
                    let (digest, ..) = source.finish();
                    check(&what, diff_id, None, digest, size)?;
                    return staged.map(|_| blob);
                }
                Some(staged?)
            }
            None => {
                let input = io::BufReader::with_capacity(256 << 10, &mut source);
                let plain = crate::layer::compression::decoder(input, compression)
                    .map_err(|e| Error::manifest(&what, e))?;
                let mut plain = HashingReader::new(plain.take(limit + 1), diff_id.algorithm());
                io::copy(&mut plain, &mut io::sink())
                    .map_err(|e| unwrap_io(e, |e| Error::manifest(&what, e)))?;
                if plain.count() > limit {
                    return Err(Error::manifest(&what, format!("unpacks to more than {limit} bytes")));
                }
                plain.verify(&what, diff_id, None)?;
                None
            }
        };
        source.drain().map_err(|e| unwrap_io(e, |e| Error::io(&what, e)))?;
        let (digest, size, path) = source.finish();
        let blob = Descriptor::new(media_type, digest, size);
        self.session.claim([&blob.digest])?;
        let content = self.session.adopt(path, &blob.digest, size)?;
        self.publish(content, files)?;
        Ok(blob)
    }

    /// A reader of the member that leaves a file of the session with the same content behind.
    fn source<'r>(
        &self,
        wanted: &Wanted,
        reader: &'r mut (dyn Read + Send),
        algorithm: crate::Algorithm,
    ) -> Result<Copying<'r>> {
        let path = self.session.path();
        // It is such a file already, and hashed. A link keeps it for whoever asks for the member again.
        if let Some(spooled) = self.archive.spooled(&wanted.member)
            && algorithm == crate::Algorithm::Sha256
            && fs::hard_link(&spooled.path, &path).is_ok()
        {
            return Ok(Copying {
                reader,
                hash: Hash::Known(spooled.sha256.clone()),
                copy: None,
                path,
                count: 0,
            });
        }
        let copy = private().write(true).create_new(true).open(&path)?;
        Ok(Copying { reader, hash: Hash::Running(Hasher::new(algorithm)), copy: Some(copy), path, count: 0 })
    }

    /// Writes a stream to a file of the session.
    fn write(&self, what: &str, plain: &mut dyn Read) -> Result<Rewritten> {
        let path = self.session.path();
        let mut file = private().read(true).write(true).create_new(true).open(&path)?;
        let mut plain = HashingReader::new(plain, crate::Algorithm::Sha256);
        io::copy(&mut plain, &mut file).map_err(|e| unwrap_io(e, |e| Error::manifest(what, e)))?;
        let (_, sha256, _) = plain.into_parts();
        Ok(Rewritten { path, file, sha256 })
    }

    fn reread<'r>(&self, rewritten: &'r mut Rewritten) -> Result<Copying<'r>> {
        io::Seek::rewind(&mut rewritten.file)?;
        let Rewritten { path, file, sha256 } = rewritten;
        let hash = Hash::Known(sha256.clone());
        Ok(Copying { reader: file, hash, copy: None, path: path.clone(), count: 0 })
    }
}

/// A layer that is kept in another form than it came.
struct Rewritten {
    path: PathBuf,
    file: fs::File,
    sha256: Digest,
}

/// Copies what is read through it to a file, unless that has it already.
struct Copying<'r> {
    reader: &'r mut (dyn Read + Send),
    hash: Hash,
    copy: Option<fs::File>,
    path: PathBuf,
    count: u64,
}

enum Hash {
    Known(Digest),
    Running(Hasher),
}

impl Copying<'_> {
    fn drain(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink()).map(drop)
    }

    fn finish(self) -> (Digest, u64, PathBuf) {
        let digest = match self.hash {
            Hash::Known(digest) => digest,
            Hash::Running(hasher) => hasher.finish(),
        };
        (digest, self.count, self.path)
    }
}

impl Read for Copying<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.reader.read(buffer)?;
        if let Hash::Running(hasher) = &mut self.hash {
            hasher.update(&buffer[..n]);
        }
        if let Some(copy) = &mut self.copy {
            copy.write_all(&buffer[..n])?;
        }
        self.count += n as u64;
        Ok(n)
    }
}
