//! Downloads that are not finished: shared by all processes, and surviving them.
//!
//! ```text
//! downloads/<algorithm>-<hex>   the first bytes of a blob; locked by the one that works on it
//! ```
//!
//! Whoever holds the lock fetches and unpacks the blob; all others wait for the lock, look at the store again, and go
//! on where the owner stopped if it died. What was written is hashed again then, so a torn file costs a second
//! download and nothing else. A file disappears when it becomes the blob, by a rename under the lock. One that nobody
//! goes on with is swept when it has not grown for a week, and by a prune at once.

use std::io;
use std::io::Seek as _;
use std::io::SeekFrom;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use fs_err as fs;

use super::Sizes;
use super::Store;
use super::make_dir;
use super::measure::disk_usage;
use super::names_in;
use super::private;
use super::session::Session;
use super::session::Staged;
use crate::Digest;
use crate::Error;
use crate::error::Result;

const FOLDER: &str = "downloads";
/// Untouched for so long, a download is given up.
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// The right to work on one blob, and what there is of it.
#[derive(Debug)]
pub(crate) struct Partial {
    path: PathBuf,
    file: fs::File,
    digest: Digest,
    length: u64,
    /// It has become the blob: the path is no longer ours.
    moved: bool,
}

impl Store {
    fn partial_path(&self, digest: &Digest) -> PathBuf {
        self.root.join(FOLDER).join(format!("{}-{}", digest.algorithm().name(), digest.hex()))
    }

    /// Takes the right to work on a blob, unless somebody has it.
    pub(crate) fn try_partial(&self, digest: &Digest) -> Result<Option<Partial>> {
        self.take_partial(digest, false)
    }

    /// Waits for the right to do something that takes a while and needs doing once, whatever the number of processes.
    /// `what` names it. The right ends with the value, or with its process.
    #[cfg(target_os = "linux")]
    pub(crate) fn wait_for_right(&self, what: &str) -> Result<Option<Partial>> {
        self.take_partial(&Digest::of(what.as_bytes()), true)
    }

    fn take_partial(&self, digest: &Digest, wait: bool) -> Result<Option<Partial>> {
        let path = self.partial_path(digest);
        loop {
            let opened = private().read(true).write(true).create(true).truncate(false).open(&path);
            let file = match opened {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {
                    let folder = self.root.join(FOLDER);
                    match make_dir(&folder) {
                        Err(_) if folder.is_dir() => {}
                        other => other?,
                    }
                    continue;
                }
                other => other?,
            };
            let locked = if wait {
                file.file().lock()
            } else {
                match file.file().try_lock() {
                    Ok(()) => Ok(()),
                    Err(std::fs::TryLockError::WouldBlock) => return Ok(None),
                    Err(std::fs::TryLockError::Error(e)) => Err(e),
                }
            };
            match locked {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                locked => locked.map_err(|e| Error::io(path.display(), e))?,
            }
            // Before the lock was free, its owner may have made a blob of this file, or thrown it away.
            let meta = file.metadata()?;
            if is_at(&meta, &path) {
                let length = meta.len();
                return Ok(Some(Partial { path, file, digest: digest.clone(), length, moved: false }));
            }
        }
    }

    /// How much of a blob somebody has fetched so far.
    pub(crate) fn partial_length(&self, digest: &Digest) -> u64 {
        std::fs::symlink_metadata(self.partial_path(digest)).map_or(0, |meta| meta.len())
    }

    /// Removes downloads that nobody works on and that have not grown for `age`. What that gives back.
    pub(super) fn remove_partials(&self, age: Duration) -> Result<Sizes> {
        let mut freed = Sizes::default();
        let folder = self.root.join(FOLDER);
        for name in names_in(&folder)? {
            let path = folder.join(name);
            let Ok(file) = private().read(true).write(true).open(&path) else { continue };
            let meta = file.metadata()?;
            let old = meta.modified().ok().and_then(|t| t.elapsed().ok()).is_some_and(|quiet| quiet >= age);
            if (old || age.is_zero()) && file.file().try_lock().is_ok() && is_at(&meta, &path) {
                freed += disk_usage(&path)?;
                fs::remove_file(&path)?;
            }
        }
        Ok(freed)
    }

    /// Every download that is not finished: its file, and whether somebody works on it.
    pub(crate) fn partials(&self) -> Result<Vec<(PathBuf, bool)>> {
        let folder = self.root.join(FOLDER);
        let state = |path: PathBuf| {
            let file = private().read(true).write(true).open(&path).ok()?;
            Some((path, matches!(file.file().try_lock(), Err(std::fs::TryLockError::WouldBlock))))
        };
        Ok(names_in(&folder)?.into_iter().filter_map(|name| state(folder.join(name))).collect())
    }

    /// What a new pull clears away first.
    pub(crate) fn sweep_partials(&self) -> Result<()> {
        self.remove_partials(MAX_AGE).map(drop)
    }
}

impl Partial {
    /// Bytes that are there.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Reads what is there.
    pub(crate) fn reader(&self) -> Result<fs::File> {
        Ok(fs::File::open(&self.path)?)
    }

    /// Throws away what is there.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        self.length = 0;
        Ok(())
    }

    /// Adds bytes at the end.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.length))?;
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Puts what is there on disk, so that nothing waits for that later.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// All bytes are there and have the right digest: they may become the blob. The right to work on it stays with
    /// this value.
    pub(crate) fn stage<'s>(&mut self, session: &'s Session) -> Result<Staged<'s>> {
        let file = self.file.try_clone()?;
        self.moved = true;
        Ok(Staged::new(session, self.path.clone(), file, self.digest.clone(), self.length))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // Nothing in it is worth keeping. The lock is still held.
        if self.length == 0 && !self.moved {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Whether this open file is the one at the path.
fn is_at(meta: &std::fs::Metadata, path: &Path) -> bool {
    let Ok(there) = std::fs::symlink_metadata(path) else { return false };
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        (meta.dev(), meta.ino()) == (there.dev(), there.ino())
    }
    // No stable call tells two files apart here; a path that is there is taken for the same.
    #[cfg(not(unix))]
    {
        let _ = meta;
        there.is_file()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::Descriptor;
    use crate::store::tests::store;

    #[test]
    fn one_works_and_the_next_goes_on() {
        let (_dir, store) = store();
        let digest = Digest::of(b"abcdef");
        let mut first = store.try_partial(&digest).unwrap().unwrap();
        first.append(b"abc").unwrap();
        assert!(store.try_partial(&digest).unwrap().is_none());
        assert_eq!(store.partial_length(&digest), 3);
        assert_eq!(store.remove_partials(Duration::ZERO).unwrap().content, 0, "it is being worked on");
        drop(first);

        let mut second = store.try_partial(&digest).unwrap().unwrap();
        assert_eq!(second.length(), 3);
        let mut text = String::new();
        second.reader().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        second.append(b"def").unwrap();
        let session = Session::new(&store).unwrap();
        second.stage(&session).unwrap().publish().unwrap();
        drop(second);
        assert!(store.has_blob_of(&Descriptor::new("x", digest.clone(), 6)));
        assert_eq!(store.partial_length(&digest), 0);
        assert!(store.try_partial(&digest).unwrap().is_some(), "and an empty one leaves nothing");
        assert_eq!(fs::read_dir(store.root().join(FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn what_nobody_goes_on_with_is_swept() {
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        store.try_partial(&digest).unwrap().unwrap().append(b"12").unwrap();
        store.sweep_partials().unwrap();
        assert_eq!(store.partial_length(&digest), 2);
        assert_eq!(store.remove_partials(Duration::ZERO).unwrap().content, 2);
        assert_eq!(store.partial_length(&digest), 0);
    }

    #[test]
    fn many_take_turns() {
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        let inside = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        if let Some(_right) = store.try_partial(&digest).unwrap() {
                            assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                            std::thread::yield_now();
                            inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        }
                    }
                });
            }
        });
    }
}
