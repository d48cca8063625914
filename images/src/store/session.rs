//! A process that brings content into the store, and what it has not finished.
//!
//! ```text
//! ingest/<pid>-<random>/
//!   lock     locked while the process lives; who can lock it finds a dead session
//!   claims   digests that must not be swept, one per line
//!   <n>      blobs and layers in the making
//! ```
//!
//! A claim is written under the store's shared lock. A sweep holds the lock exclusively, so content that is found
//! after claiming it stays until the session ends. Dead sessions are removed by the next one.

use std::io;
use std::io::Read;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use fs_err as fs;

use super::Store;
use super::make_dir;
use super::names_in;
use super::private;
use super::quota::Budget;
use super::remove;
use super::sync_dir;
use crate::Algorithm;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::digest::Hasher;
use crate::digest::check;
use crate::error::Result;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    store: Store,
    dir: PathBuf,
    claims: Mutex<fs::File>,
    next: AtomicU64,
    /// What archives hold that were read just now, by diff id.
    #[cfg(target_os = "linux")]
    scans: Mutex<std::collections::HashMap<Digest, crate::erofs::Scan>>,
    budget: Budget,
    _lock: fs::File,
}

impl Session {
    pub(crate) fn new(store: &Store) -> Result<Self> {
        store.sweep_sessions_if_idle()?;
        let dir = store.root.join("ingest").join(format!("{}-{}", std::process::id(), random_name()?));
        // A sweep must not see the directory before its lock is held.
        let _shared = store.lock_shared()?;
        make_dir(&dir)?;
        let lock = private().write(true).create_new(true).open(dir.join("lock"))?;
        lock.file().lock().map_err(|e| Error::io(dir.display(), e))?;
        let claims = Mutex::new(private().write(true).create_new(true).open(dir.join("claims"))?);
        Ok(Self {
            store: store.clone(),
            dir,
            claims,
            next: AtomicU64::new(0),
            #[cfg(target_os = "linux")]
            scans: Mutex::default(),
            budget: Budget::default(),
            _lock: lock,
        })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Keeps this content from being swept until the session ends, whether it is there already or not.
    pub(crate) fn claim<'a>(&self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        let lines: String = digests.into_iter().map(|d| format!("{d}\n")).collect();
        let _shared = self.store.lock_shared()?;
        let mut claims = self.claims.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        claims.write_all(lines.as_bytes())?;
        Ok(())
    }

    /// Keeps what an archive holds for whoever needs it next.
    #[cfg(target_os = "linux")]
    pub(crate) fn keep_scan(&self, diff_id: &Digest, scan: crate::erofs::Scan) {
        let mut scans = self.scans.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        scans.insert(diff_id.clone(), scan);
    }

    /// What an archive holds, if it was read in this session. It is given once.
    #[cfg(target_os = "linux")]
    pub(crate) fn take_scan(&self, diff_id: &Digest) -> Option<crate::erofs::Scan> {
        self.scans.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(diff_id)
    }

    /// Asks for the room that content of this size takes. Without a quota it is always granted.
    pub(crate) fn reserve(&self, bytes: u64) -> Result<()> {
        self.budget.grant(&self.store, bytes)
    }

    /// A path in the session's directory that nobody else uses.
    pub(crate) fn path(&self) -> PathBuf {
        self.dir.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Begins a blob.
    pub(crate) fn writer(&self, algorithm: Algorithm) -> Result<BlobWriter<'_>> {
        let path = self.path();
        let file = private().read(true).write(true).create_new(true).open(&path)?;
        Ok(BlobWriter { session: self, path, file, hasher: Hasher::new(algorithm), count: 0 })
    }

    /// Takes a file at one of its own paths for a blob. The caller has verified digest and size.
    pub(crate) fn adopt(&self, path: PathBuf, digest: &Digest, size: u64) -> Result<Staged<'_>> {
        // Windows syncs only what is open for writing.
        let file = fs::OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Staged { session: self, path, file, digest: digest.clone(), count: size })
    }

    /// Reads a whole blob. It gets its name only if size and digest are right. `what` names it in errors.
    pub(crate) fn ingest(&self, what: &str, blob: &Descriptor, content: &mut dyn Read) -> Result<()> {
        self.reserve(blob.size)?;
        let mut writer = self.writer(blob.digest.algorithm())?;
        // One byte more tells a longer content from one that ends in time.
        let mut content = content.take(blob.size.saturating_add(1));
        let mut buffer = vec![0; 128 << 10];
        loop {
            let n = match content.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(unwrap_io(e, |e| Error::io(what, e))),
            };
            writer.write_all(&buffer[..n])?;
        }
        writer.verify(what, &blob.digest, Some(blob.size))?.publish()
    }

    /// Stores bytes that are in memory, with the digest they have.
    pub(crate) fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor> {
        let blob = Descriptor::new(media_type, Digest::of(bytes), bytes.len() as u64);
        self.claim([&blob.digest])?;
        if !self.store.has_blob_of(&blob) {
            self.ingest(&blob.digest.to_string(), &blob, &mut &*bytes)?;
        }
        Ok(blob)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Best effort: what stays is swept by the next session.
        drop(remove::tree(&self.dir));
    }
}

/// A blob in the making, without a name yet.
#[derive(Debug)]
pub(crate) struct BlobWriter<'s> {
    session: &'s Session,
    path: PathBuf,
    file: fs::File,
    hasher: Hasher,
    count: u64,
}

/// A blob whose digest is known and right, without a name yet.
#[derive(Debug)]
pub(crate) struct Staged<'s> {
    session: &'s Session,
    path: PathBuf,
    file: fs::File,
    digest: Digest,
    count: u64,
}

impl<'s> BlobWriter<'s> {
    pub(crate) fn verify(self, what: &str, expected: &Digest, size: Option<u64>) -> Result<Staged<'s>> {
        let digest = self.hasher.finish();
        check(what, expected, size, digest, self.count)?;
        let Self { session, path, file, count, .. } = self;
        Ok(Staged { session, path, file, digest: expected.clone(), count })
    }

    /// Takes whatever was written.
    pub(crate) fn finish(self) -> Staged<'s> {
        let Self { session, path, file, hasher, count } = self;
        Staged { session, path, file, digest: hasher.finish(), count }
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.file.write(bytes)?;
        self.hasher.update(&bytes[..n]);
        self.count += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl<'s> Staged<'s> {
    pub(super) fn new(
        session: &'s Session,
        path: PathBuf,
        file: fs::File,
        digest: Digest,
        count: u64,
    ) -> Self {
        Self { session, path, file, digest, count }
    }
}

impl Staged<'_> {
    pub(crate) fn digest(&self) -> &Digest {
        &self.digest
    }

    pub(crate) fn size(&self) -> u64 {
        self.count
    }

    /// Another reader of what was written.
    pub(crate) fn reopen(&self) -> Result<fs::File> {
        Ok(fs::File::open(&self.path)?)
    }

    /// Gives the blob its name, durably.
    pub(crate) fn publish(self) -> Result<()> {
        self.file.sync_data()?;
        self.publish_synced()
    }

    /// As [`Staged::publish`], when the file system as a whole was synced after the last write.
    pub(crate) fn publish_synced(self) -> Result<()> {
        drop(self.file);
        let target = self.session.store.blob_path(&self.digest);
        let directory = target.parent().unwrap_or(Path::new("."));
        if self.digest.algorithm() != Algorithm::Sha256 {
            match make_dir(directory) {
                Err(_) if directory.is_dir() => {}
                other => other?,
            }
        }
        // The same content may be there from another process. Replacing it is harmless on Unix and impossible on
        // Windows while somebody reads it; a damaged file of the wrong size is replaced everywhere.
        if cfg!(windows) && std::fs::symlink_metadata(&target).is_ok_and(|m| m.len() == self.count) {
            return Ok(fs::remove_file(&self.path)?);
        }
        fs::rename(&self.path, &target)?;
        sync_dir(directory)
    }
}

impl Store {
    /// Removes what dead processes left unfinished, unless somebody is busy with the lock. The next write does it, too; this
    /// is for whoever has just ended a process that wrote.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn sweep_sessions_if_idle(&self) -> Result<()> {
        let lock = self.open_lock()?;
        match lock.file().try_lock() {
            Ok(()) => {
                self.sweep_temporaries()?;
                match self.sweep_sessions(|_| ()) {
                    // Files of other owners, half unpacked: who may remove them will.
                    Err(Error::Io(e)) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                    other => other,
                }
            }
            Err(_) => Ok(()),
        }
    }

    /// Removes what dead processes left and reports each one. The exclusive lock is held.
    pub(super) fn sweep_sessions(&self, mut report: impl FnMut(&Path)) -> Result<()> {
        for path in self.sessions()?.into_iter().filter(|s| !s.alive).map(|s| s.dir) {
            report(&path);
            remove::tree(&path)?;
        }
        Ok(())
    }

    /// All sessions, and foreign files, which count as dead.
    pub(super) fn sessions(&self) -> Result<Vec<SessionState>> {
        let ingest = self.root.join("ingest");
        let mut states = Vec::new();
        for name in names_in(&ingest)? {
            let dir = ingest.join(name);
            let alive = match fs::OpenOptions::new().write(true).open(dir.join("lock")) {
                Ok(lock) => lock.file().try_lock().is_err(),
                // Who cannot be asked, for want of file descriptors for example, is alive.
                Err(e) => !matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
            };
            let claims = dir.join("claims");
            states.push(SessionState { dir, alive, claims });
        }
        Ok(states)
    }
}

/// A session as others see it.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) dir: PathBuf,
    pub(super) alive: bool,
    pub(super) claims: PathBuf,
}

/// 16 hex characters that nobody else has.
pub(crate) fn random_name() -> Result<String> {
    let value = random().map_err(|e| Error::io("cannot get random bytes", e))?;
    Ok(format!("{value:016x}"))
}

/// In a static executable the getrandom crate cannot see libc's function and opens a device instead.
#[cfg(target_os = "linux")]
fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // So few bytes come whole, or not at all.
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(not(target_os = "linux"))]
fn random() -> io::Result<u64> {
    getrandom::u64().map_err(|e| io::Error::other(e.to_string()))
}

/// Brings back an [`Error`] that travelled through a reader as an I/O error.
pub(crate) fn unwrap_io(error: io::Error, or: impl FnOnce(io::Error) -> Error) -> Error {
    error.downcast::<Error>().unwrap_or_else(or)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    #[test]
    fn only_right_content_gets_a_name() {
        let (_dir, store) = store();
        let session = Session::new(&store).unwrap();
        let blob = |text: &[u8], size| Descriptor::new("x", Digest::of(text), size);
        let cases: [(&[u8], &[u8], u64, bool); 5] = [
            (b"abc", b"abc", 3, true),
            (b"abd", b"abc", 3, false),
            (b"ab", b"abc", 3, false),
            (b"abcd", b"abc", 3, false),
            (b"", b"", 0, true),
        ];
        for (content, promised, size, good) in cases {
            let blob = blob(promised, size);
            drop(fs::remove_file(store.blob_path(&blob.digest)));
            assert_eq!(session.ingest("x", &blob, &mut &*content).is_ok(), good, "{content:?}");
            assert_eq!(store.has_blob_of(&blob), good, "{content:?}");
        }
    }

    #[test]
    fn a_dead_session_is_swept_and_a_live_one_is_not() {
        let (_dir, store) = store();
        let live = Session::new(&store).unwrap();
        let dead = store.root().join("ingest/1-dead");
        fs::create_dir(&dead).unwrap();
        fs::write(dead.join("lock"), "").unwrap();
        fs::write(dead.join("0"), "half").unwrap();
        let _other = Session::new(&store).unwrap();
        assert!(!dead.exists());
        assert!(live.dir.exists());
        let dir = live.dir.clone();
        drop(live);
        assert!(!dir.exists());
    }
}
