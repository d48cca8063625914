//! The content store that every Dhow process of a user shares.
//!
//! ```text
//! <root>/
//!   oci-layout            makes blobs/ an OCI image layout
//!   blobs/sha256/<hex>    content, immutable, verified before it gets its name
//!   refs/<name>           one file per name, see `refs`
//!   trust/<digest>        where an image came from and why it may be used, see `trust::record`
//!   leases/<id>           what a container uses, see `lease`
//!   layers/<diff id>/     one unpacked layer: `fs/` with the files, `layer.json` with its sizes
//!                         or, of one that refers to layers below, a mark; then it is unpacked once for each chain
//!   trees/<chain id>/     the index of an image whose layers are archives, see `trees`
//!   ingest/<session>/     what a running process has not finished, see `session`
//!   downloads/            blobs that are being fetched, or were when a process ended, see `partial`
//!   places/<hex>          which repositories hold a blob, see `places`
//!   uploads/<hash>        uploads that may be resumed, see `uploads`
//!   snapshots/<key>/      trees in the making, see `snapshots`
//!   lists/<name>          indexes in the making, see `lists`
//!   summaries             what lists show, see `summary`; may be deleted
//!   lock                  shared while content is claimed, exclusive while content is swept
//! ```
//!
//! Everything appears by rename, complete. There is no index file: the directories are the truth, and `summaries` only
//! repeats what content with a digest says, so processes need no agreement beyond the lock. Reading takes none.

mod check;
mod collect;
mod derived;
mod df;
mod gc;
mod lease;
mod lists;
mod measure;
#[cfg(target_os = "linux")]
pub(crate) mod mounts;
pub(crate) mod partial;
mod places;
mod prune;
mod quota;
mod read;
mod refs;
pub(crate) mod remove;
pub(crate) mod session;
mod snapshot;
mod snapshots;
mod summary;
#[cfg(target_os = "linux")]
pub(crate) mod trees;
pub(crate) mod uploads;
mod usage;
mod variant;

use std::io;
use std::path::Path;
use std::path::PathBuf;

pub use check::CheckOptions;
pub use check::LeaseOwner;
pub use check::Problem;
pub use collect::Collected;
pub use collect::Keep;
pub use collect::Policy;
pub use df::DiskUsage;
pub use df::ImageUsage;
pub use df::Part;
use fs_err as fs;
pub use gc::Swept;
pub use lease::Hold;
pub use measure::Sizes;
pub use measure::disk_usage;
#[cfg(target_os = "linux")]
pub use mounts::unmount_all;
pub use prune::Candidate;
pub use prune::Prune;
pub use prune::Pruned;
pub use remove::remove_tree;
pub use snapshot::IndexedImage;
pub use snapshot::LayerForm;
pub use snapshot::Snapshot;
pub use snapshots::SnapshotInfo;
pub use snapshots::SnapshotKind;
pub use snapshots::SnapshotLayer;
pub use snapshots::SnapshotMounts;
pub use snapshots::SnapshotParent;
pub use snapshots::Snapshots;
pub use summary::Summary;
pub use summary::VariantSummary;
pub(crate) use usage::LAYER_RECORD;
pub(crate) use usage::LayerRecord;
pub use usage::Usage;

use crate::Digest;
use crate::Error;
use crate::error::Result;

/// A store of images. Cheap to open and to clone; any number of processes may use the same one.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
    /// Where leases are kept that need not survive a power cut.
    volatile: Option<PathBuf>,
    /// How layers of native images are wanted.
    form: LayerForm,
    /// Where files are that were made of content; see `derived`.
    derived: Option<PathBuf>,
    /// Where indexed images are mounted.
    #[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "mounts are Linux's"))]
    mounts: Option<PathBuf>,
    /// Whether an index can be mounted here, once somebody has asked.
    #[cfg(target_os = "linux")]
    can_mount: std::sync::Arc<std::sync::OnceLock<bool>>,
    /// Most bytes that content may take.
    quota: Option<u64>,
}

/// One extracted layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnpackedLayer {
    /// Digest of the uncompressed layer.
    pub diff_id: Digest,
    /// Names what is in the directory, and never changes meaning: the diff id, or for a layer that means something only
    /// over those below it a digest over all of them.
    pub id: Digest,
    /// The directory with its files.
    pub path: PathBuf,
}

const LAYOUT_FILE: &str = "oci-layout";
const LAYOUT: &str = "{\"imageLayoutVersion\":\"1.0.0\"}";

impl Store {
    /// Opens the store at `root`, or makes one. An existing store costs one `stat`.
    ///
    /// # Errors
    /// When the directories cannot be made.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let store = Self {
            root: root.into(),
            volatile: None,
            form: LayerForm::default(),
            derived: None,
            mounts: None,
            #[cfg(target_os = "linux")]
            can_mount: std::sync::Arc::default(),
            quota: None,
        };
        match std::fs::symlink_metadata(store.root.join(LAYOUT_FILE)) {
            Ok(meta) if meta.is_file() => Ok(store),
            Ok(_) => Err(Error::InvalidStore {
                path: store.root.join(LAYOUT_FILE).display().to_string(),
                reason: "is not a regular file".into(),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                store.create()?;
                Ok(store)
            }
            Err(e) => Err(Error::io(store.root.display(), e)),
        }
    }

    fn create(&self) -> Result<()> {
        // Parents get the usual mode, and a folder that is there keeps its own: it is the user's choice.
        if let Some(parent) = self.root.parent() {
            fs::create_dir_all(parent)?;
        }
        match make_dir(&self.root) {
            Err(_) if self.root.is_dir() => {}
            other => other?,
        }
        // Unpacked layers hold programs with set-user-id bits, and images hold secrets: nobody else may reach them.
        for dir in ["blobs", "blobs/sha256", "refs", "leases", "layers", "ingest"] {
            let dir = self.root.join(dir);
            match make_dir(&dir) {
                Err(_) if dir.is_dir() => {}
                other => other?,
            }
            // Whatever the umask, and for what a process left that did not come to its end.
            #[cfg(unix)]
            fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o700))?;
        }
        // What is half-made is not swept.
        let _shared = self.lock_shared()?;
        // Last, because its presence says that the rest is there.
        let temporary = self.root.join(format!(".{LAYOUT_FILE}-{}", session::random_name()?));
        write_file(&temporary, LAYOUT.as_bytes())?;
        fs::rename(temporary, self.root.join(LAYOUT_FILE))?;
        sync_dir(&self.root)
    }

    /// Keeps leases that need not survive a power cut in `folder`, which lies on a file system in memory, is the
    /// same for every process that uses this store, and exists.
    #[must_use]
    pub fn with_volatile_leases(self, folder: PathBuf) -> Self {
        Self { volatile: Some(folder), ..self }
    }

    /// Mounts indexed images below `folder`, which lies on a file system in memory, is this store's alone and the same
    /// for every process that uses it, and is made when it is needed. Without it images are never indexed.
    #[must_use]
    pub fn with_mounts(self, folder: PathBuf) -> Self {
        Self { mounts: Some(folder), ..self }
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a blob is, or would be.
    #[must_use]
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        let mut path = self.root.join("blobs");
        path.push(digest.algorithm().name());
        path.push(digest.hex());
        path
    }

    /// Where the files of an unpacked layer are, or would be, if it means the same over any others: [`Store::layer_dirs`]
    /// knows the rest.
    #[must_use]
    pub fn layer_path(&self, diff_id: &Digest) -> PathBuf {
        self.layer_dir(diff_id).join("fs")
    }

    /// The directory of an unpacked layer, complete if it exists.
    pub(crate) fn layer_dir(&self, diff_id: &Digest) -> PathBuf {
        self.root.join("layers").join(digest_name(diff_id))
    }

    fn lock_path(&self) -> PathBuf {
        self.root.join("lock")
    }

    /// Held while content is looked at that must not be swept in the same moment.
    pub(crate) fn lock_shared(&self) -> Result<fs::File> {
        let file = self.open_lock()?;
        file.file().lock_shared().map_err(|e| Error::io(self.lock_path().display(), e))?;
        Ok(file)
    }

    /// Held while content is swept.
    fn lock_exclusive(&self) -> Result<fs::File> {
        let file = self.open_lock()?;
        file.file().lock().map_err(|e| Error::io(self.lock_path().display(), e))?;
        Ok(file)
    }

    fn open_lock(&self) -> Result<fs::File> {
        // Windows locks only what is open for reading or writing.
        Ok(private().create(true).truncate(false).write(true).open(self.lock_path())?)
    }
}

/// The name of a folder that belongs to a digest.
fn digest_name(digest: &Digest) -> String {
    match digest.algorithm() {
        crate::Algorithm::Sha256 => digest.hex().to_owned(),
        crate::Algorithm::Sha512 => format!("sha512-{}", digest.hex()),
    }
}

/// Options for a file that is for its owner only, if it is made.
pub(crate) fn private() -> fs::OpenOptions {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there is no mode to set"))]
    let mut options = fs::OpenOptions::new();
    #[cfg(unix)]
    fs_err::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Makes a directory that is for its owner only.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "there is no mode to set"))]
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(|e| Error::io(format_args!("cannot make directory {}", path.display()), e))
}

/// Writes a new file that is for its owner only.
pub(crate) fn write_file(path: &Path, content: &[u8]) -> Result<()> {
    use std::io::Write as _;
    Ok(private().write(true).create_new(true).open(path)?.write_all(content)?)
}

/// Makes renames within a directory survive a power cut. Windows offers no such call.
pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    #[cfg(unix)]
    fs::File::open(path)?.sync_all()?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Replaces a small file as a whole. The directory must be synced by the caller if the change must be durable.
pub(crate) fn replace_file(path: &Path, content: &[u8], durable: bool) -> Result<()> {
    use std::io::Write as _;
    let directory = path.parent().unwrap_or(Path::new("."));
    let temporary = directory.join(format!("{TEMPORARY}{}", session::random_name()?));
    let written = (|| -> Result<()> {
        let mut file = private().write(true).create_new(true).open(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_data()?;
        }
        drop(file);
        fs::rename(&temporary, path)?;
        if durable { sync_dir(directory) } else { Ok(()) }
    })();
    if written.is_err() {
        // Best effort: the next sweep removes it too.
        drop(fs::remove_file(&temporary));
    }
    written
}

/// Names in `refs` and `leases` that are not finished begin so.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The names in a directory; empty if it does not exist.
fn names_in(path: &Path) -> Result<Vec<std::ffi::OsString>> {
    match fs::read_dir(path) {
        Ok(entries) => Ok(entries.map(|e| e.map(|e| e.file_name())).collect::<io::Result<_>>()?),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A store in a directory that goes away with it.
    pub(crate) fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("s")).unwrap();
        (dir, store)
    }

    #[cfg(unix)]
    #[test]
    fn a_store_is_for_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777;
        let dir = tempfile::tempdir().unwrap();
        let chosen = dir.path().join("chosen");
        fs::create_dir(&chosen).unwrap();
        fs::set_permissions(&chosen, PermissionsExt::from_mode(0o755)).unwrap();
        for (root, expected) in [(chosen, 0o755), (dir.path().join("new/root"), 0o700)] {
            let store = Store::open(&root).unwrap();
            assert_eq!(mode(&root), expected);
            let blob = crate::compose::wasm_artifact(&store, "wasip1", b"x").unwrap();
            store.tag(&"a".parse().unwrap(), &blob).unwrap();
            store.lease("c1", std::slice::from_ref(&blob.digest), true).unwrap();
            let session = session::Session::new(&store).unwrap();
            let _half = session.writer(crate::Algorithm::Sha256).unwrap();
            let mut todo = vec![root.clone()];
            let mut seen = 0;
            while let Some(folder) = todo.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    let expected = if path.is_dir() { 0o700 } else { 0o600 };
                    assert_eq!(mode(&path), expected, "{}", path.display());
                    seen += 1;
                    if path.is_dir() {
                        todo.push(path);
                    }
                }
            }
            assert!(seen > 12, "{seen}");
        }
        assert_ne!(mode(&dir.path().join("new")), 0o700, "a parent is not the store's");
    }

    #[test]
    fn opens_twice_and_refuses_what_is_no_store() {
        let (dir, store) = store();
        Store::open(store.root()).unwrap();
        let odd = dir.path().join("odd");
        fs::create_dir_all(odd.join(LAYOUT_FILE)).unwrap();
        assert!(matches!(Store::open(odd), Err(Error::InvalidStore { .. })));
    }
}
