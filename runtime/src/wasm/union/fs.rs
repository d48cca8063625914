//! What all directories of one file system share: the root's layers, or one mount.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use super::errno::Result;
use super::host::{Dir, LockFile, Stat};
use super::lock;

/// Marks a removed name.
pub(super) const WHITEOUT: &str = ".wh.";
/// Hides everything that lower layers have in the same directory.
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// Names beginning so mark no removed name.
const RESERVED: &str = ".wh..wh.";
/// How long another process may keep us from a change. One that takes longer is stopped in the middle of its own.
const PATIENCE: Duration = Duration::from_secs(3);

/// The root's layers, or one mount.
#[derive(Debug)]
pub(super) struct Fs {
    /// Its number for guests.
    pub(super) dev: u64,
    /// Whether whiteouts have a meaning here.
    pub(super) layered: bool,
    /// Where the writable directory is to be made, if it is not there.
    pub(super) upper: Option<PathBuf>,
    /// How many layers are below the writable one.
    layers: usize,
    /// The host's device, of a mount.
    home: u64,
    readonly: AtomicBool,
    /// Numbers of copied-up objects that could not be marked, by their new (device, inode).
    numbers: Mutex<HashMap<(u64, u64), u64>>,
    pub(super) index: super::index::Index,
    changing: Mutex<()>,
    lock_file: OnceLock<LockFile>,
    temporary: AtomicU64,
    /// Bytes in listings.
    pub(super) listings: Arc<AtomicUsize>,
}

/// While this exists, nobody else changes what several steps change.
pub(super) struct Exclusive<'a> {
    fs: &'a Fs,
    _here: MutexGuard<'a, ()>,
}

impl Drop for Exclusive<'_> {
    fn drop(&mut self) {
        if let Some(file) = self.fs.lock_file.get() {
            file.unlock();
        }
    }
}

impl Fs {
    pub(super) fn new(dev: u64, layered: bool, readonly: bool) -> Self {
        Self {
            dev,
            layered,
            upper: None,
            layers: 0,
            home: 0,
            readonly: AtomicBool::new(readonly),
            numbers: Mutex::default(),
            index: super::index::Index::default(),
            changing: Mutex::default(),
            lock_file: OnceLock::new(),
            temporary: AtomicU64::new(0),
            listings: Arc::default(),
        }
    }

    pub(super) fn with_layers(self, upper: &Path, layers: usize) -> Self {
        Self { upper: Some(upper.to_owned()), layers, ..self }
    }

    pub(super) fn at_home(self, home: u64) -> Self {
        Self { home, ..self }
    }

    pub(super) fn readonly(&self) -> bool {
        self.readonly.load(Ordering::Relaxed)
    }

    pub(super) fn set_readonly(&self) {
        self.readonly.store(true, Ordering::Relaxed);
    }

    /// Whether guests must not see or use this name.
    pub(super) fn hides(&self, name: &OsStr) -> bool {
        self.layered && name.as_encoded_bytes().starts_with(WHITEOUT.as_bytes())
    }

    /// Keeps everybody else with the same writable directory from changing anything, in this process and in others.
    ///
    /// Only for what is done in several steps. It is held for microseconds: data is copied before. A holder that was
    /// stopped in between is not waited for; what it has begun keeps its order, so the worst is that one of two
    /// changes of the same name at the same time is lost.
    pub(super) fn exclusive(&self) -> Exclusive<'_> {
        let here = lock(&self.changing);
        if let Some(file) = self.lock_file.get() {
            wait_for(file);
        }
        Exclusive { fs: self, _here: here }
    }

    /// The writable directory is there: from now on the lock is one of all processes.
    pub(super) fn found_upper(&self, dir: &Arc<Dir>, held: bool) -> Result<()> {
        if self.lock_file.get().is_none() && !self.readonly() {
            let file = LockFile::of(dir)?;
            if held {
                wait_for(&file);
            }
            // Another thread's is as good.
            self.lock_file.set(file).ok();
        }
        Ok(())
    }

    /// `copy` could not be marked: remember here that it is known by `number`.
    pub(super) fn remember_number(&self, copy: &Stat, number: u64) {
        if copy.ino != 0 {
            lock(&self.numbers).insert((copy.dev, copy.ino), number);
        }
    }

    /// A removed object's number may come back for another one.
    pub(super) fn forget(&self, gone: &Stat) {
        if gone.links <= 1 {
            lock(&self.numbers).remove(&(gone.dev, gone.ino));
        }
    }

    /// The number guests see for a host object that was never copied up; `fallback` where the host has none.
    ///
    /// It depends on nothing that changes when the machine is started again: not on the host's device numbers.
    pub(super) fn number(&self, layer: usize, (dev, ino): (u64, u64), fallback: impl FnOnce() -> u64) -> u64 {
        if ino == 0 {
            return fallback();
        }
        if let Some(number) = lock(&self.numbers).get(&(dev, ino)) {
            return *number;
        }
        // Layers can lie on several devices, and other file systems be mounted in what is mounted here; their equal
        // inodes must stay different. Layers are counted from below, as those of an image always are.
        let place = if self.layered { self.height(layer) } else { dev ^ self.home };
        ino.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A layer's number counted from below, the lowest being 1; 0 for the writable one.
    pub(super) fn height(&self, layer: usize) -> u64 {
        if layer == 0 { 0 } else { (self.layers + 1).saturating_sub(layer) as u64 }
    }

    /// A fresh name for something half-made. Processes of one container can have equal ids, in namespaces of their
    /// own; whoever makes something under such a name must be ready to ask for another.
    pub(super) fn temporary_name(&self) -> String {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        format!("{RESERVED}dhow.{}.{number}", std::process::id())
    }
}

fn wait_for(file: &LockFile) {
    if file.try_lock() {
        return;
    }
    let (since, mut pause) = (Instant::now(), Duration::from_micros(20));
    while since.elapsed() < PATIENCE {
        std::thread::sleep(pause);
        if file.try_lock() {
            return;
        }
        pause = (pause * 2).min(Duration::from_millis(5));
    }
}

/// The name that marks `name` as removed.
pub(super) fn whiteout_of(name: &OsStr) -> OsString {
    let mut mark = OsString::with_capacity(WHITEOUT.len() + name.len());
    mark.push(WHITEOUT);
    mark.push(name);
    mark
}

/// The name that `entry` marks as removed, if it does.
pub(super) fn whiteout_target(entry: &[u8]) -> Option<&[u8]> {
    if entry.starts_with(RESERVED.as_bytes()) { None } else { entry.strip_prefix(WHITEOUT.as_bytes()) }
}

/// A number from a text and another number, where the host has none (FNV-1a).
pub(super) fn number_of(start: u64, text: &[u8]) -> u64 {
    let start = start ^ 0xcbf2_9ce4_8422_2325;
    text.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
