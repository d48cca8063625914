//! The content store that every Dhow process of a user shares.
use std::path::{Path, PathBuf};
use crate::*;

fn soon<T>() -> Result<T> {
    Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported)))
}

/// A store of images. Cheap to open and to clone; any number of processes may use the same one.
#[derive(Debug, Clone)]
pub struct Store { root: PathBuf }
/// One extracted layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// The directory with its files.
    pub path: PathBuf,
}
/// What a sweep removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that are gone. Whatever was derived from them (machine code) can go too.
    pub blobs: Vec<Digest>,
    /// Unpacked layers that are gone, by diff id.
    pub layers: Vec<Digest>,
    /// Bytes given back, as file sizes.
    pub bytes: u64,
}
/// Something in the store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or directory at fault, below the store's root.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// Whether it has been put right.
    pub repaired: bool,
}
/// Sizes in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// All blobs that are there: manifests, configurations, compressed layers, Wasm modules.
    pub blobs: u64,
    /// All unpacked layers that are there.
    pub unpacked: u64,
}
impl Store {
    /// Opens the store at `root`, or makes one.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> { Ok(Self { root: root.into() }) }
    /// The directory.
    pub fn root(&self) -> &Path { &self.root }
    /// Where a blob is, or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf { self.root.join("blobs").join(digest.algorithm().name()).join(digest.hex()) }
    /// Whether a blob is there.
    pub fn has_blob(&self, digest: &Digest) -> bool { self.blob_path(digest).exists() }
    /// The verified content of a small blob.
    pub fn read_blob(&self, _d: &Descriptor) -> Result<Vec<u8>> { soon() }
    /// What a name stands for.
    pub fn resolve(&self, _name: &Reference) -> Result<Option<Descriptor>> { soon() }
    /// Makes a name stand for an image.
    pub fn tag(&self, _name: &Reference, _image: &Descriptor) -> Result<()> { soon() }
    /// Removes a name; `false` when it was not there. The content stays until `remove_unreferenced`.
    pub fn untag(&self, _name: &Reference) -> Result<bool> { soon() }
    /// All names, sorted.
    pub fn references(&self) -> Result<Vec<(Reference, Descriptor)>> { soon() }
    /// Images that are kept without a name (loaded from an archive that gives none).
    pub fn untagged(&self) -> Result<Vec<Descriptor>> { soon() }
    /// Keeps an image without a name.
    pub fn keep_untagged(&self, _image: &Descriptor) -> Result<()> { soon() }
    /// Undoes `keep_untagged`; `false` when it was not there.
    pub fn drop_untagged(&self, _digest: &Digest) -> Result<bool> { soon() }
    /// Finds an image by name, digest, or prefix of its id (at least 4 hex characters).
    pub fn find(&self, _text: &str) -> Result<Descriptor> { soon() }
    /// Unpacks an image's layers, lowest first; those that are there already cost one `stat` each.
    pub fn unpack(&self, _image: &Image, _progress: &dyn Progress) -> Result<Vec<UnpackedLayer>> { soon() }
    /// Keeps content from being swept while `id` (a container) uses it. `durable`: survive a power cut too.
    /// Take it first, then look the content up: a lease does not bring anything back.
    pub fn lease(&self, _id: &str, _digests: &[Digest], _durable: bool) -> Result<()> { soon() }
    /// Ends a lease; `false` when there was none.
    pub fn release(&self, _id: &str) -> Result<bool> { soon() }
    /// Removes every blob and unpacked layer that no name and no lease leads to.
    pub fn remove_unreferenced(&self) -> Result<Swept> { soon() }
    /// Verifies every blob, name, layer and leftover; with `repair` also puts right what can be.
    pub fn check(&self, _repair: bool) -> Result<Vec<Problem>> { soon() }
    /// What one image takes: everything reachable from it that is there, whether shared or not.
    pub fn usage(&self, _image: &Descriptor) -> Result<Usage> { soon() }
    /// What the whole store takes.
    pub fn total_usage(&self) -> Result<Usage> { soon() }
}
