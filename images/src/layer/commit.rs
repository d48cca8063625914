//! A new layer of the store, from a stream: packed, hashed twice and written at once.

use std::io;
use std::io::Write;

use crate::Algorithm;
use crate::Descriptor;
use crate::Digest;
use crate::HashingWriter;
use crate::Store;
#[cfg(target_os = "linux")]
use crate::compose::{json, manifest};
use crate::error::Result;
#[cfg(target_os = "linux")]
use crate::layer::diff::DiffOptions;
#[cfg(target_os = "linux")]
use crate::layer::diff::DiffSummary;
#[cfg(target_os = "linux")]
use crate::layer::diff::write_diff;
use crate::media;
use crate::media::Compression;
use crate::store::session::Session;
#[cfg(target_os = "linux")]
use crate::{History, Image, ImageConfig};

/// Levels that registries' images have: better ones cost much more time than they save space.
const GZIP_LEVEL: u32 = 6;
const ZSTD_LEVEL: i32 = 3;

/// A layer that was written into the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLayer {
    /// The blob, with the media type of its compression.
    pub blob: Descriptor,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub size: u64,
}

/// Stores what `write` writes, a plain tar, as a blob. The session keeps it from being swept. Same bytes, same
/// compression: same digest.
pub(crate) fn put_layer<T>(
    session: &Session,
    compression: Compression,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<(NewLayer, T)> {
    put_layer_at(session, compression, None, write)
}

/// As [`put_layer`], at this level: 1 to 9 for gzip, 1 to 22 for zstd.
pub(crate) fn put_layer_at<T>(
    session: &Session,
    compression: Compression,
    level: Option<u8>,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<(NewLayer, T)> {
    let (media_type, packer) = match compression {
        Compression::None => (media::LAYER, Packer::None),
        // The header has no time and no name.
        Compression::Gzip => (media::LAYER_GZIP, Packer::Gzip),
        Compression::Zstd => (media::LAYER_ZSTD, Packer::Zstd),
    };
    let blob = io::BufWriter::with_capacity(256 << 10, session.writer(Algorithm::Sha256)?);
    let (plain, blob, result) = match packer {
        Packer::None => through(blob, write)?,
        Packer::Gzip => {
            let gzip = flate2::GzBuilder::new()
                .write(blob, flate2::Compression::new(level.map_or(GZIP_LEVEL, u32::from)));
            let (plain, gzip, result) = through(gzip, write)?;
            (plain, gzip.finish()?, result)
        }
        Packer::Zstd => {
            let zstd = zstd::stream::write::Encoder::new(blob, level.map_or(ZSTD_LEVEL, i32::from))?;
            let (plain, zstd, result) = through(zstd, write)?;
            (plain, zstd.finish()?, result)
        }
    };
    let staged = blob.into_inner().map_err(io::IntoInnerError::into_error)?.finish();
    let blob = Descriptor::new(media_type, staged.digest().clone(), staged.size());
    session.claim([&blob.digest, &plain.0])?;
    staged.publish()?;
    Ok((NewLayer { blob, diff_id: plain.0, size: plain.1 }, result))
}

impl Store {
    /// Makes a layer of what a container changed: see [`write_diff`]. What nothing names or leases can be swept at any
    /// time, so do either soon.
    ///
    /// # Errors
    /// Those of [`write_diff`], and the disk's.
    #[cfg(target_os = "linux")]
    pub fn commit_diff(
        &self,
        upper: &std::path::Path,
        options: &DiffOptions,
        compression: Compression,
    ) -> Result<(NewLayer, DiffSummary)> {
        let session = Session::new(self)?;
        put_layer(&session, compression, |out| write_diff(upper, options, out))
    }
}

/// An image in the making: what is below, and what is said about the whole.
#[cfg(target_os = "linux")]
#[derive(Debug)]
pub struct NewImage<'a> {
    /// The image that gets one more layer.
    pub below: &'a Image,
    /// The configuration, with the layers and the history of `below`.
    pub config: ImageConfig,
    /// The new layer's step.
    pub history: History,
}

#[cfg(target_os = "linux")]
impl Store {
    /// Makes an image of another one and what a container changed of it, if it wrote anything: see [`write_diff`]. What
    /// nothing names or leases can be swept at any time, so do either soon.
    ///
    /// # Errors
    /// Those of [`write_diff`], and the disk's.
    pub fn commit_image(
        &self,
        image: NewImage<'_>,
        upper: Option<&std::path::Path>,
        options: &DiffOptions,
        compression: Compression,
    ) -> Result<Descriptor> {
        let session = Session::new(self)?;
        let NewImage { below, mut config, mut history } = image;
        let mut layers = below.layers.clone();
        session.claim(layers.iter().map(|layer| &layer.digest))?;
        for layer in &mut layers {
            // Docker's words for the same do not belong into OCI's manifests.
            layer.media_type = match media::layer_compression(&layer.media_type) {
                Some(Compression::None) => media::LAYER.to_owned(),
                Some(Compression::Gzip) => media::LAYER_GZIP.to_owned(),
                Some(Compression::Zstd) => media::LAYER_ZSTD.to_owned(),
                None => continue,
            };
        }
        match upper {
            Some(upper) => {
                let (layer, _) = put_layer(&session, compression, |out| write_diff(upper, options, out))?;
                config.rootfs.diff_ids.push(layer.diff_id);
                layers.push(layer.blob);
            }
            None => history.empty_layer = true,
        }
        config.history.push(history);
        let config = session.put(media::CONFIG, &json(&config)?)?;
        session.put(media::MANIFEST, &json(&manifest(config, layers))?)
    }
}

enum Packer {
    None,
    Gzip,
    Zstd,
}

/// Digest and length of the plain bytes, and the writer back.
fn through<W: Write, T>(
    inner: W,
    write: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<((Digest, u64), W, T)> {
    let mut hashing = HashingWriter::new(inner, Algorithm::Sha256);
    let result = write(&mut hashing)?;
    let (inner, digest, size) = hashing.finish();
    Ok(((digest, size), inner, result))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use fs_err as fs;

    use super::*;
    use crate::layer::compression;
    use crate::store::tests::store;

    #[test]
    fn the_same_directory_gives_the_same_layer() {
        let upper = tempfile::tempdir().unwrap();
        fs::write(upper.path().join("a"), vec![7; 100_000]).unwrap();
        for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
            let options = DiffOptions { latest: Some(0), owner: Some((0, 0)), ..DiffOptions::default() };
            let commit = || {
                let (_dir, store) = store();
                let (layer, summary) = store.commit_diff(upper.path(), &options, compression).unwrap();
                assert_eq!((summary.entries, summary.size), (1, 100_000));
                (layer.clone(), fs::read(store.blob_path(&layer.blob.digest)).unwrap())
            };
            let (layer, blob) = commit();
            assert_eq!(layer, commit().0);
            assert_eq!(layer.blob.size, blob.len() as u64);
            let mut plain = Vec::new();
            let mut decoder = compression::decoder(&blob[..], compression).unwrap();
            io::copy(&mut decoder, &mut plain).unwrap();
            assert_eq!((Digest::of(&plain), plain.len() as u64), (layer.diff_id, layer.size));
        }
    }
}
