//! Looking into images without unpacking them: the merged tree, what each layer has to do with it, and how two trees
//! differ. Reads the layers' blobs, so it works for every user and on every system.

mod diff;
mod merge;
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;

pub use diff::Aspect;
pub use diff::Change;
pub use diff::ChangeKind;

use crate::Digest;
use crate::Error;
use crate::Image;
use crate::Store;
use crate::error::Result;
use crate::layer::tar::Kind;
use crate::layer::tar::Meta;
use crate::layer::unpack::in_parallel;

/// Most bytes of all names of one image. A distribution has about 30 MB.
const MAX_NAMES: usize = 1 << 30;

/// The files of an image as a container would see them.
#[derive(Debug)]
pub struct ImageTree {
    /// The layers, lowest first.
    pub layers: Vec<LayerReport>,
    names: BTreeMap<Vec<u8>, usize>,
    objects: Vec<Object>,
}

/// What one layer has to do with the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LayerReport {
    /// Digest of the uncompressed archive, as text.
    pub diff_id: String,
    /// Digest of the blob, as text.
    pub digest: String,
    /// Bytes of the blob.
    pub compressed: u64,
    /// Bytes of the uncompressed archive.
    pub uncompressed: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// Regular files, and the bytes in them.
    pub files: u64,
    /// Bytes of its regular files.
    pub size: u64,
    /// Names that were not there below.
    pub added: u64,
    /// Names that were there below; directories count only where one becomes something else or the reverse.
    pub replaced: u64,
    /// Names that were there below and are gone.
    pub deleted: u64,
    /// Bytes of its files that nobody sees, because later layers replace or remove them.
    pub wasted: u64,
    /// Its largest files: bytes, path, and whether they can still be seen.
    pub largest: Vec<LargeFile>,
}

/// One of a layer's largest files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LargeFile {
    /// Absolute path; bytes that are no text are replaced.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// Whether the image still shows it.
    pub visible: bool,
}

/// One object of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// `file`, `dir`, `symlink`, `char`, `block` or `fifo`.
    pub kind: &'static str,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file.
    pub size: u64,
    /// Seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Where a symbolic link leads.
    pub target: Option<String>,
    /// The same, byte for byte.
    pub raw_target: Option<Vec<u8>>,
    /// Major and minor number of a device.
    pub device: Option<(u32, u32)>,
    /// Extended attributes, by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug)]
struct Object {
    layer: usize,
    info: NodeInfo,
    /// Of a file's content, if it was wanted.
    digest: Option<Digest>,
}

/// One entry of an archive, as far as it matters here.
#[derive(Debug, Clone)]
struct Item {
    path: Vec<u8>,
    kind: Kind,
    link: Vec<u8>,
    size: u64,
    meta: Meta,
    device: (u32, u32),
    digest: Option<Digest>,
}

/// What an archive contains.
#[derive(Debug, Default)]
struct Listing {
    items: Vec<Item>,
    uncompressed: u64,
}

impl Store {
    /// Looks into an image: its merged tree and its layers, with each layer's `largest` files.
    ///
    /// # Errors
    /// [`Error::MissingBlob`], [`Error::InvalidLayer`], or the disk's.
    pub fn tree(&self, image: &Image, largest: usize) -> Result<ImageTree> {
        let listings = self.listings(&[image], false)?;
        ImageTree::merge(image, &listings, largest)
    }

    /// How the files of image `b` differ from those of `a`, by path. Modification times count only if `times`.
    ///
    /// # Errors
    /// As [`Store::tree`].
    pub fn compare(&self, a: &Image, b: &Image, times: bool) -> Result<Vec<Change>> {
        let listings = self.listings(&[a, b], true)?;
        let (a, b) = (ImageTree::merge(a, &listings, 0)?, ImageTree::merge(b, &listings, 0)?);
        Ok(diff::compare(&a, &b, times))
    }

    /// Reads every layer of some images, each once.
    fn listings(&self, images: &[&Image], hash: bool) -> Result<BTreeMap<String, Listing>> {
        let mut layers: BTreeMap<String, (&Image, usize)> = BTreeMap::new();
        for image in images {
            for (at, diff_id) in image.diff_ids.iter().enumerate() {
                layers.entry(diff_id.to_string()).or_insert((image, at));
            }
        }
        let todo: Vec<_> = layers.into_iter().collect();
        let done = Mutex::new(BTreeMap::new());
        in_parallel(&todo, |(diff_id, (image, at))| {
            let blob = image.layers.get(*at).ok_or_else(|| Error::manifest(diff_id, "has no blob"))?;
            let listing = read::listing(self, blob, hash)?;
            done.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id.clone(), listing);
            Ok(())
        })?;
        Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ImageTree {
    /// Every name that a container would see with what it names, sorted. Paths are absolute.
    pub fn nodes(&self) -> impl Iterator<Item = (String, &NodeInfo)> {
        self.names
            .iter()
            .filter_map(|(path, object)| Some((absolute(path), &self.objects.get(*object)?.info)))
    }
}

fn absolute(path: &[u8]) -> String {
    format!("/{}", String::from_utf8_lossy(path))
}
