//! A root file system as one archive: the layers of an image and what is above them, merged.

use std::io;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;

use fs_err as fs;

use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::HashingReader;
use crate::Image;
use crate::Store;
use crate::error::Result;
use crate::layer::Fault;
use crate::layer::compression;
use crate::layer::max_unpacked;
use crate::layer::merged::Merged;
use crate::layer::unpack::compression_of;
use crate::store::session::unwrap_io;

/// One part of a root, to be given from the lowest to the uppermost.
#[derive(Debug)]
pub enum RootPart<'a> {
    /// The layers of an image of the store.
    Image(&'a Image),
    /// A plain tar with whiteouts, as [`crate::write_diff`] writes one.
    Tar(&'a fs::File),
}

/// A layer of a part.
enum Source<'a> {
    Blob(&'a Descriptor, &'a Digest),
    Tar(&'a fs::File),
}

/// Writes the files that some layers make together as one tar without whiteouts: owners, devices and attributes are
/// those of the archives, whatever of them could be extracted. The same parts give the same bytes.
///
/// # Errors
/// [`Error::MissingBlob`], [`Error::InvalidLayer`], [`Error::DigestMismatch`] for a damaged layer, and those of `out`.
pub fn export(store: &Store, parts: &[RootPart<'_>], out: &mut dyn Write) -> Result<()> {
    let (sources, merged) = merge(store, parts)?;
    write(store, &sources, &merged, out)
}

/// Copies what the directory `path` of some layers has, into `to`, which is made; with owners and attributes as far as
/// this process may give them. Whether there is such a directory.
///
/// # Errors
/// As [`export`], and those of the disk.
pub fn copy_out(store: &Store, parts: &[RootPart<'_>], path: &str, to: &Path) -> Result<bool> {
    let (sources, merged) = merge(store, parts)?;
    let merged = match path.trim_matches('/') {
        // All of it.
        "" => merged,
        path => match merged.below(path.as_bytes()) {
            Some(merged) => merged,
            None => return Ok(false),
        },
    };
    fs::create_dir(to)?;
    let (reader, mut writer) = io::pipe()?;
    std::thread::scope(|scope| {
        // By value: whoever is done first closes its end.
        let extracting = scope.spawn(move || crate::layer::extract::extract(BufReader::new(reader), to));
        let written = write(store, &sources, &merged, &mut writer);
        drop(writer);
        match extracting.join() {
            Ok(Ok(_)) => written.map(|()| true),
            Ok(Err(Fault::Io(e))) => Err(Error::io(to.display(), e)),
            Ok(Err(fault)) => Err(Source::none(fault)),
            Err(_) => Err(Error::io(to.display(), io::Error::other("a thread failed"))),
        }
    })
}

type Merge<'a> = (Vec<Source<'a>>, Merged);

fn merge<'a>(store: &Store, parts: &[RootPart<'a>]) -> Result<Merge<'a>> {
    let mut sources = Vec::new();
    for part in parts {
        match part {
            RootPart::Image(image) => {
                let layers = image.layers.iter().zip(&image.diff_ids);
                sources.extend(layers.map(|(blob, diff_id)| Source::Blob(blob, diff_id)));
            }
            RootPart::Tar(file) => sources.push(Source::Tar(file)),
        }
    }
    let mut merged = Merged::default();
    for source in &sources {
        let mut opened = source.open(store)?;
        merged.add(&mut opened).map_err(|fault| source.error(fault))?;
        opened.finish(source)?;
    }
    Ok((sources, merged))
}

fn write(store: &Store, sources: &[Source<'_>], merged: &Merged, out: &mut dyn Write) -> Result<()> {
    let mut buffered = io::BufWriter::with_capacity(256 << 10, out);
    let at = std::cell::Cell::new(0);
    let wrap = |e: Error| Fault::Io(io::Error::other(e));
    merged
        .write(
            &mut buffered,
            |i| {
                at.set(i);
                sources[i].open(store).map_err(wrap)
            },
            |opened| opened.finish(&sources[at.get()]).map_err(wrap),
        )
        .map_err(|fault| match sources.get(at.get()) {
            Some(source) => source.error(fault),
            None => Source::none(fault),
        })?;
    Ok(buffered.flush()?)
}

struct Opened<'a> {
    plain: HashingReader<io::Take<Box<dyn Read + 'a>>>,
}

impl Read for Opened<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.plain.read(buffer)
    }
}

impl Opened<'_> {
    /// Compares what was read with what it should be.
    fn finish(self, source: &Source<'_>) -> Result<()> {
        match source {
            Source::Blob(blob, diff_id) => {
                self.plain.verify(&format!("uncompressed layer {}", blob.digest), diff_id, None).map(drop)
            }
            Source::Tar(_) => Ok(()),
        }
    }
}

impl<'a> Source<'a> {
    fn open(&self, store: &Store) -> Result<Opened<'a>> {
        let (reader, algorithm, limit): (Box<dyn Read + 'a>, _, _) = match self {
            Self::Blob(blob, diff_id) => {
                let input = BufReader::with_capacity(256 << 10, store.open_blob(&blob.digest)?);
                let plain = compression::local_decoder(input, compression_of(blob)?)?;
                (plain, diff_id.algorithm(), max_unpacked(blob.size))
            }
            Self::Tar(file) => {
                let mut file: &'a fs::File = file;
                io::Seek::rewind(&mut file)?;
                (Box::new(BufReader::with_capacity(256 << 10, file)), crate::Algorithm::Sha256, u64::MAX)
            }
        };
        Ok(Opened { plain: HashingReader::new(reader.take(limit), algorithm) })
    }

    fn error(&self, fault: Fault) -> Error {
        match (fault, self) {
            (Fault::Bad { entry, reason }, Self::Blob(blob, _)) => {
                Error::InvalidLayer { layer: blob.digest.clone(), entry, reason }
            }
            (fault, _) => Self::none(fault),
        }
    }

    fn none(fault: Fault) -> Error {
        match fault {
            Fault::Bad { entry, reason } => Error::manifest(
                "the container's own files",
                entry.map(|entry| format!("{}: ", entry.escape_default())).unwrap_or_default() + &reason,
            ),
            Fault::Io(e) => unwrap_io(e, |e| Error::io("cannot export", e)),
        }
    }
}
