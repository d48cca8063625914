//! Images put together one layer at a time, from entries that somebody else chooses: what a builder needs.
//!
//! [`crate::compose`] makes whole small images at once; this keeps nothing in memory. Same entries, same bytes.

use std::collections::BTreeMap;
use std::io;
use std::io::BufRead as _;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::ImageConfig;
use crate::NewLayer;
use crate::NoProgress;
use crate::RootPart;
use crate::Store;
use crate::archive::packed::Packing;
use crate::compose::json;
use crate::compose::manifest;
use crate::error::Result;
use crate::layer::Fault;
use crate::layer::MAX_ENTRIES;
use crate::layer::MAX_UNPACKED;
use crate::layer::commit::put_layer;
use crate::layer::tar::Entry;
use crate::layer::tar::Kind;
use crate::layer::tar::Meta;
use crate::layer::tar::TarReader;
use crate::layer::write::TarWriter;
use crate::media;
use crate::media::Compression;
use crate::store::LayerForm;
use crate::store::session::Session;
use crate::store::session::unwrap_io;

/// What an entry of a layer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "they are what they are called")]
pub enum EntryKind {
    File,
    HardLink,
    Symlink,
    Dir,
    Fifo,
    Char,
    Block,
}

/// An entry of a layer or of another archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerEntry {
    /// Relative, without `.`, `..` and empty names. Empty for the root itself.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: EntryKind,
    /// Where a link leads; of a hard link, a path as `path` is.
    pub link: Vec<u8>,
    /// Bytes of a file.
    pub size: u64,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Extended attributes, sorted by their names.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Major and minor number of a device.
    pub device: (u32, u32),
}

/// Writes the entries of a layer.
#[derive(Debug)]
pub struct LayerWriter<'a>(TarWriter<&'a mut dyn Write>);

impl LayerWriter<'_> {
    /// Writes an entry. `content` must have as many bytes as the entry says; more is not read.
    ///
    /// # Errors
    /// Those of `content` and of the disk; `UnexpectedEof` when the content is too short.
    pub fn append(&mut self, entry: &LayerEntry, content: &mut dyn Read) -> io::Result<()> {
        let kind = match entry.kind {
            EntryKind::File => Kind::File,
            EntryKind::HardLink => Kind::HardLink,
            EntryKind::Symlink => Kind::Symlink,
            EntryKind::Dir => Kind::Dir,
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::Char => Kind::Char,
            EntryKind::Block => Kind::Block,
        };
        let meta = Meta {
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            xattrs: entry.xattrs.clone(),
        };
        let (path, link) = (entry.path.clone(), entry.link.clone());
        let size = if entry.kind == EntryKind::File { entry.size } else { 0 };
        self.0.append(&Entry { path, kind, link, size, sparse: None, meta, device: entry.device }, content)
    }
}

impl Store {
    /// Makes a layer of the entries that `write` writes. What nothing names or leases can be swept at any time, so do
    /// either soon.
    ///
    /// # Errors
    /// What `write` says, and the disk's.
    pub fn new_layer(
        &self,
        compression: Compression,
        write: impl FnOnce(&mut LayerWriter<'_>) -> io::Result<()>,
    ) -> Result<NewLayer> {
        let session = Session::new(self)?;
        let (layer, ()) = put_layer(&session, compression, |out| {
            let mut writer = LayerWriter(TarWriter::new(out));
            write(&mut writer)?;
            writer.0.finish()?;
            Ok(())
        })?;
        Ok(layer)
    }

    /// Writes the documents of an image whose layers are in the store; the configuration has their diff ids. Docker's
    /// words for media types become OCI's. Name or lease it soon.
    ///
    /// # Errors
    /// The disk's.
    pub fn new_image(
        &self,
        config: &ImageConfig,
        layers: &[Descriptor],
        annotations: BTreeMap<String, String>,
    ) -> Result<Descriptor> {
        let session = Session::new(self)?;
        session.claim(layers.iter().map(|layer| &layer.digest))?;
        let mut layers = layers.to_vec();
        for layer in &mut layers {
            if let Some(media_type) = oci_media_type(&layer.media_type) {
                layer.media_type = media_type.to_owned();
            }
        }
        let platform = config.platform();
        let config = session.put(media::CONFIG, &json(config)?)?;
        let document = crate::Manifest { annotations, ..manifest(config, layers) };
        let mut descriptor = session.put(media::MANIFEST, &json(&document)?)?;
        descriptor.platform = Some(platform);
        Ok(descriptor)
    }

    /// Stores bytes that are in memory. Name or lease what leads to them soon.
    ///
    /// # Errors
    /// The disk's.
    pub fn put_blob(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        Session::new(self)?.put(media_type, bytes)
    }

    /// Stores a blob that comes from elsewhere, if its digest and size are right. `what` names it in errors.
    ///
    /// # Errors
    /// [`Error::DigestMismatch`], [`Error::SizeMismatch`], and those of `content` and of the disk.
    pub fn ingest_blob(&self, what: &str, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        let session = Session::new(self)?;
        session.claim([&blob.digest])?;
        if self.has_blob_of(blob) { Ok(()) } else { session.ingest(what, blob, content) }
    }

    /// Writes a manifest of any kind whose blobs are in the store: an artifact, an attestation. Name or lease it soon.
    ///
    /// # Errors
    /// The disk's.
    pub fn new_manifest(
        &self,
        config: Descriptor,
        layers: Vec<Descriptor>,
        artifact_type: Option<&str>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Descriptor> {
        let session = Session::new(self)?;
        session.claim(layers.iter().chain([&config]).map(|blob| &blob.digest))?;
        let artifact_type = artifact_type.map(str::to_owned);
        let document = crate::Manifest { artifact_type, annotations, ..manifest(config, layers) };
        session.put(media::MANIFEST, &json(&document)?)
    }

    /// The directory with the files of one layer, unpacked where it is not yet. It must say all about itself: every
    /// directory on the way to an entry has one of its own.
    ///
    /// # Errors
    /// [`Error::InvalidLayer`] for a layer that means something only over others; those of unpacking.
    pub fn layer_files(&self, blob: &Descriptor, diff_id: &Digest) -> Result<PathBuf> {
        let session = Session::new(self)?;
        session.claim([diff_id, &blob.digest])?;
        if !self.has_layer(diff_id, LayerForm::Files) {
            self.unpack_one(&session, blob, diff_id, LayerForm::Files, &NoProgress)?;
        }
        let path = self.layer_path(diff_id);
        if !path.is_dir() {
            let reason = "means something only over the layers of its image".into();
            return Err(Error::InvalidLayer { layer: diff_id.clone(), entry: None, reason });
        }
        Ok(path)
    }
}

/// OCI's word for a layer's media type, if it is one of a layer.
fn oci_media_type(media_type: &str) -> Option<&'static str> {
    Some(match media::layer_compression(media_type)? {
        Compression::None => media::LAYER,
        Compression::Gzip => media::LAYER_GZIP,
        Compression::Zstd => media::LAYER_ZSTD,
    })
}

/// Reads a tar archive, plain or packed with gzip, bzip2, xz or zstd, and gives each entry with its content to `each`.
/// `false` when it is no archive: then nothing was given.
///
/// # Errors
/// A damaged archive, one that is out of all proportion, and what `each` says.
pub fn read_archive(
    input: impl Read,
    each: &mut dyn FnMut(LayerEntry, &mut dyn Read) -> io::Result<()>,
) -> Result<bool> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    let packing = Packing::detect(input.fill_buf()?);
    let plain = packing.decoder(input)?;
    let mut tar = TarReader::new(plain.take(MAX_UNPACKED));
    let mut count = 0;
    let said = |fault: Fault| match fault {
        Fault::Io(e) => unwrap_io(e, |e| Error::io("cannot read the archive", e)),
        Fault::Bad { entry, reason } => Error::manifest(
            "archive",
            entry.map(|entry| format!("{}: ", entry.escape_default())).unwrap_or_default() + &reason,
        ),
    };
    loop {
        let entry = match tar.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => return Ok(count > 0),
            Err(_) if count == 0 => return Ok(false),
            Err(fault) => return Err(said(fault)),
        };
        count += 1;
        if count > MAX_ENTRIES {
            return Err(said(Fault::bad(format!("has more than {MAX_ENTRIES} entries"))));
        }
        let kind = match entry.kind {
            Kind::File => EntryKind::File,
            Kind::HardLink => EntryKind::HardLink,
            Kind::Symlink => EntryKind::Symlink,
            Kind::Dir => EntryKind::Dir,
            Kind::Fifo => EntryKind::Fifo,
            Kind::Char => EntryKind::Char,
            Kind::Block => EntryKind::Block,
        };
        let Meta { mode, uid, gid, mtime, xattrs } = entry.meta;
        let found = LayerEntry {
            path: entry.path,
            kind,
            link: entry.link,
            size: entry.size,
            mode,
            uid,
            gid,
            mtime,
            xattrs,
            device: entry.device,
        };
        each(found, &mut tar)?;
    }
}

/// Unpacks an archive, packed or not, into a directory that is there; nothing outside is touched. `false` when it is no
/// archive. Names that mean a removal in a layer are left out.
///
/// # Errors
/// A damaged archive, one that is out of all proportion, and those of the disk.
pub fn extract_archive(input: impl Read, to: &Path) -> Result<bool> {
    let mut input = BufReader::with_capacity(128 << 10, input);
    let packing = Packing::detect(input.fill_buf()?);
    let plain = packing.decoder(input)?;
    match crate::layer::extract::extract(BufReader::new(plain.take(MAX_UNPACKED)), to) {
        Ok(_) => Ok(true),
        Err(Fault::Io(e)) => Err(Error::io(to.display(), e)),
        Err(Fault::Bad { entry: None, .. }) => Ok(false),
        Err(Fault::Bad { entry: Some(entry), reason }) => {
            Err(Error::manifest("archive", format!("{}: {reason}", entry.escape_default())))
        }
    }
}

/// Writes the files that some layers make together into a directory, which is made where it is not there.
///
/// # Errors
/// As [`crate::export`], and those of the disk.
pub fn export_to(store: &Store, parts: &[RootPart<'_>], to: &Path) -> Result<()> {
    fs_err::create_dir_all(to)?;
    let (reader, mut writer) = io::pipe()?;
    std::thread::scope(|scope| {
        let extracting = scope.spawn(move || crate::layer::extract::extract(BufReader::new(reader), to));
        let written = crate::export(store, parts, &mut writer);
        drop(writer);
        match extracting.join() {
            Ok(Ok(_)) => written,
            Ok(Err(Fault::Io(e))) => Err(Error::io(to.display(), e)),
            Ok(Err(Fault::Bad { reason, .. })) => Err(Error::manifest(to.display(), reason)),
            Err(_) => Err(Error::io(to.display(), io::Error::other("a thread failed"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    fn entry(path: &str, kind: EntryKind, size: u64) -> LayerEntry {
        LayerEntry {
            path: path.into(),
            kind,
            link: Vec::new(),
            size,
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: (7, 0),
            xattrs: Vec::new(),
            device: (0, 0),
        }
    }

    #[test]
    fn layers_become_an_image() {
        let (_dir, store) = store();
        let layer = store
            .new_layer(Compression::Gzip, |out| {
                out.append(&entry("d", EntryKind::Dir, 0), &mut io::empty())?;
                out.append(&entry("d/f", EntryKind::File, 5), &mut &b"hello"[..])
            })
            .unwrap();
        let mut config =
            ImageConfig { os: "linux".into(), architecture: "amd64".into(), ..ImageConfig::default() };
        config.rootfs.kind = "layers".into();
        config.rootfs.diff_ids.push(layer.diff_id.clone());
        let image = store.new_image(&config, std::slice::from_ref(&layer.blob), BTreeMap::new()).unwrap();
        assert_eq!(image.platform.as_ref().unwrap().to_string(), "linux/amd64");
        let files = store.layer_files(&layer.blob, &layer.diff_id).unwrap();
        assert_eq!(fs_err::read_to_string(files.join("d/f")).unwrap(), "hello");
        let mut seen = Vec::new();
        let blob = fs_err::read(store.blob_path(&layer.blob.digest)).unwrap();
        let is_archive = read_archive(&blob[..], &mut |entry, content| {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            seen.push((String::from_utf8(entry.path).unwrap(), text));
            Ok(())
        });
        assert!(is_archive.unwrap());
        assert_eq!(seen, [("d".to_owned(), String::new()), ("d/f".to_owned(), "hello".to_owned())]);
        for other in [&b"#!/bin/sh\n"[..], b"", &[7; 2000]] {
            assert!(!read_archive(other, &mut |_, _| Ok(())).unwrap(), "{other:?}");
        }
    }
}
