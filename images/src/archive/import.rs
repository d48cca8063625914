//! Making an image of one archive of files: a single layer, and the configuration that the caller gives.
//!
//! Gzip and zstd archives become the layer's blob as they are, all others as the plain tar: nothing is compressed
//! here. The archive vouches for itself by nothing but its form, so this is stricter than reading a layer, whose
//! digest is known: an archive without its end is cut off, whatever Docker makes of it.

use std::io::BufReader;
use std::io::Read;
use std::io::Write as _;

use fs_err as fs;

use super::Source;
use super::invalid;
use super::packed;
use super::packed::Packing;
use super::source::read_start;
use crate::Algorithm;
use crate::Descriptor;
use crate::Error;
use crate::HashingReader;
use crate::History;
use crate::ImageConfig;
use crate::Matcher;
use crate::Platform;
use crate::RunConfig;
use crate::Store;
use crate::compose::json;
use crate::compose::manifest;
use crate::error::Result;
use crate::image::assemble;
use crate::layer::Fault;
use crate::layer::MAX_UNPACKED;
use crate::layer::tar::TarReader;
use crate::layer::unpack;
use crate::media;
use crate::media::Compression;
use crate::store::session::BlobWriter;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

/// What an imported image says about itself.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// What it runs on.
    pub platform: Platform,
    /// The defaults for containers.
    pub config: RunConfig,
    /// When it was made, RFC 3339.
    pub created: Option<String>,
    /// A remark for its history.
    pub comment: String,
}

/// Makes an image of an archive. Name it soon, or [`Store::keep_untagged`] it: what has no name can be swept at any
/// time.
///
/// # Errors
/// [`Error::InvalidArchive`] for what is no tar or not a whole one, [`Error::InvalidLayer`] for an entry that cannot
/// be in a layer, and the disk's.
pub fn import(store: &Store, source: Source<'_>, options: &ImportOptions) -> Result<Descriptor> {
    let session = Session::new(store)?;
    match source {
        Source::Path(path) if path.is_dir() => {
            Err(invalid(&path.display().to_string(), "is a folder, and an archive is expected"))
        }
        Source::Path(path) => {
            of_stream(&session, &path.display().to_string(), &mut fs::File::open(path)?, options)
        }
        Source::File(mut file) => of_stream(&session, "standard input", &mut file, options),
        Source::Reader(reader) => of_stream(&session, "the archive", reader, options),
    }
}

fn of_stream(
    session: &Session,
    name: &str,
    reader: &mut dyn Read,
    options: &ImportOptions,
) -> Result<Descriptor> {
    let mut start = [0; packed::START];
    let n = read_start(reader, &mut start)?;
    let packing = Packing::detect(&start[..n]);
    let compression = match packing {
        Packing::Layer(compression) => compression,
        Packing::Bzip2 | Packing::Xz => Compression::None,
    };
    let mut blob = session.writer(Algorithm::Sha256)?;
    let input = start[..n].chain(reader);
    let diff_id = if matches!(packing, Packing::Layer(_)) {
        let mut tee = Tee { reader: input, writer: &mut blob, session };
        let packed = BufReader::with_capacity(256 << 10, &mut tee);
        walk(name, packing.decoder(packed).map_err(|e| invalid(name, e.to_string()))?)?
    } else {
        let packed = BufReader::with_capacity(256 << 10, input);
        let plain = packing.decoder(packed).map_err(|e| invalid(name, e.to_string()))?;
        walk(name, Tee { reader: plain, writer: &mut blob, session })?
    };
    let blob = blob.finish();
    let media_type = match compression {
        Compression::None => media::LAYER,
        Compression::Gzip => media::LAYER_GZIP,
        Compression::Zstd => media::LAYER_ZSTD,
    };
    let layer = Descriptor::new(media_type, blob.digest().clone(), blob.size());
    session.claim([&layer.digest, &diff_id])?;
    let runs = Matcher::host().matches(&options.platform);
    let form = session.store().form_for(&options.platform);
    if runs && !session.store().has_layer(&diff_id, form) {
        let mut content = blob.reopen()?;
        unpack::stage(session, compression, &mut content, &layer, &diff_id, form)?.publish(Some(blob))?;
    } else {
        blob.publish()?;
    }
    let mut config = ImageConfig {
        created: options.created.clone(),
        architecture: options.platform.architecture.clone(),
        variant: options.platform.variant.clone(),
        os: options.platform.os.clone(),
        config: options.config.clone(),
        ..ImageConfig::default()
    };
    config.rootfs.kind = "layers".into();
    config.rootfs.diff_ids.push(diff_id);
    config.history.push(History {
        created: options.created.clone(),
        comment: Some(options.comment.clone()).filter(|comment| !comment.is_empty()),
        ..History::default()
    });
    let config = json(&config)?;
    let manifest = manifest(session.put(media::CONFIG, &config)?, vec![layer]);
    let image = session.put(media::MANIFEST, &json(&manifest)?)?;
    if runs {
        unpack::finish(session, &assemble(&image, manifest, &config)?)?;
    }
    Ok(image)
}

/// Reads a whole tar and gives its digest.
fn walk(name: &str, plain: impl Read) -> Result<crate::Digest> {
    let failed = |fault| match fault {
        Fault::Bad { entry, reason } => {
            invalid(name, entry.map(|e| format!("{}: ", e.escape_default())).unwrap_or_default() + &reason)
        }
        // A stream that cannot be undone says so as an I/O error.
        Fault::Io(e) => unwrap_io(e, |e| match e.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Error::io(name, e),
            _ => invalid(name, e.to_string()),
        }),
    };
    let mut plain = HashingReader::new(plain.take(MAX_UNPACKED + 1), Algorithm::Sha256);
    let mut tar = TarReader::new(&mut plain);
    while tar.next_entry().map_err(failed)?.is_some() {}
    if !tar.has_end() {
        return Err(invalid(name, "has no end: it was cut off, or is no tar archive"));
    }
    if plain.count() > MAX_UNPACKED {
        return Err(invalid(name, "unpacks to more than 64 GiB"));
    }
    let (_, digest, _) = plain.into_parts();
    Ok(digest)
}

/// Writes down what is read through it.
struct Tee<'a, 's, R> {
    reader: R,
    writer: &'a mut BlobWriter<'s>,
    session: &'s Session,
}

impl<R: Read> Read for Tee<'_, '_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buffer)?;
        // Nobody knows how much comes: what a limit allows is asked for piece by piece.
        self.session.reserve(n as u64).map_err(std::io::Error::other)?;
        self.writer.write_all(&buffer[..n])?;
        Ok(n)
    }
}
