//! What all directories of one file system share: the root's layers, or one mount.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::host::Stat;
use super::lock;

/// Marks a removed name.
pub(super) const WHITEOUT: &str = ".wh.";
/// Hides everything that lower layers have in the same directory.
pub(super) const OPAQUE: &str = ".wh..wh..opq";
/// Names beginning so mark no removed name.
const RESERVED: &str = ".wh..wh.";

/// The root's layers, or one mount.
#[derive(Debug)]
pub(super) struct Fs {
    /// Its number for guests.
    pub(super) dev: u64,
    /// Whether whiteouts have a meaning here.
    pub(super) layered: bool,
    /// Where the writable directory is to be made, if it is not there.
    pub(super) upper: Option<PathBuf>,
    readonly: AtomicBool,
    /// Copied-up objects by their new (device, inode), and which ones they were.
    origins: Mutex<HashMap<(u64, u64), (u64, u64)>>,
    temporary: AtomicU64,
}

impl Fs {
    pub(super) fn new(dev: u64, layered: bool, readonly: bool) -> Self {
        Self {
            dev,
            layered,
            upper: None,
            readonly: AtomicBool::new(readonly),
            origins: Mutex::default(),
            temporary: AtomicU64::new(0),
        }
    }

    pub(super) fn with_upper(self, upper: &Path) -> Self {
        Self { upper: Some(upper.to_owned()), ..self }
    }

    pub(super) fn readonly(&self) -> bool {
        self.readonly.load(Ordering::Relaxed)
    }

    pub(super) fn set_readonly(&self) {
        self.readonly.store(true, Ordering::Relaxed);
    }

    /// Whether guests must not see or use this name.
    pub(super) fn hides(&self, name: &str) -> bool {
        self.layered && name.starts_with(WHITEOUT)
    }

    /// From now on `copy` is known by `original`'s number.
    pub(super) fn copied_up(&self, original: &Stat, copy: &Stat) {
        if copy.ino != 0 {
            let mut origins = lock(&self.origins);
            let first = origins.get(&(original.dev, original.ino)).copied();
            origins.insert((copy.dev, copy.ino), first.unwrap_or((original.dev, original.ino)));
        }
    }

    /// A removed object's number may come back for another one.
    pub(super) fn forget(&self, gone: &Stat) {
        if gone.links <= 1 {
            lock(&self.origins).remove(&(gone.dev, gone.ino));
        }
    }

    /// The number guests see for a host object; `fallback` where the host has none.
    pub(super) fn ino(&self, dev: u64, ino: u64, fallback: impl FnOnce() -> u64) -> u64 {
        if ino == 0 {
            return fallback();
        }
        let (dev, ino) = lock(&self.origins).get(&(dev, ino)).copied().unwrap_or((dev, ino));
        // Layers can lie on several devices; their equal inodes must stay different.
        ino.wrapping_add(dev.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A fresh name for something half-made.
    pub(super) fn temporary_name(&self) -> String {
        let number = self.temporary.fetch_add(1, Ordering::Relaxed);
        format!("{RESERVED}dhow.{}.{number}", std::process::id())
    }
}

/// The name that marks `name` as removed.
pub(super) fn whiteout_of(name: &str) -> String {
    format!("{WHITEOUT}{name}")
}

/// The name that `entry` marks as removed, if it does.
pub(super) fn whiteout_target(entry: &str) -> Option<&str> {
    if entry.starts_with(RESERVED) { None } else { entry.strip_prefix(WHITEOUT) }
}

/// A number from a parent's number and a name, where the host has none (FNV-1a).
pub(super) fn number_of(parent: u64, name: &str) -> u64 {
    let start = parent ^ 0xcbf2_9ce4_8422_2325;
    name.bytes().fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}
