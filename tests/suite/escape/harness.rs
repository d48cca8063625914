//! A folder that must not change, and a thread that exchanges two paths as fast as it can.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::fs::{CWD, RenameFlags, renameat_with};

/// What is in it and must be seen nowhere else.
pub(super) const SECRET: &str = "the host's own secret";

/// A folder of the host's. At its end it must be what it was: names, contents, modes, owners, times, and nothing
/// mounted there.
#[derive(Debug)]
pub(super) struct Canary {
    dir: tempfile::TempDir,
    before: Vec<String>,
}

impl Canary {
    pub(super) fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("dhow-canary-").tempdir().unwrap();
        let root = dir.path();
        for name in ["empty", "target", "sub/deeper"] {
            fs_err::create_dir_all(root.join(name)).unwrap();
        }
        for name in ["secret", "null", "console", "sub/secret", "passwd", "version"] {
            fs_err::write(root.join(name), SECRET).unwrap();
            fs_err::set_permissions(root.join(name), std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        symlink("secret", root.join("link")).unwrap();
        let mut canary = Self { dir, before: Vec::new() };
        canary.before = canary.now();
        canary
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(super) fn text(&self) -> &str {
        self.path().to_str().unwrap()
    }

    fn now(&self) -> Vec<String> {
        let mut lines = Vec::new();
        look(self.path(), &mut lines);
        let mounts = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
        lines.extend(mounts.lines().filter(|line| line.contains(self.text())).map(str::to_owned));
        lines
    }

    /// Asserts that it is what it was.
    pub(super) fn is_untouched(&self, after: &str) {
        assert_eq!(self.before, self.now(), "{after}");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.is_untouched("at the end");
        }
    }
}

/// A line for each file, sorted by name. Content is all the same; its length and time of change tell.
fn look(dir: &Path, lines: &mut Vec<String>) {
    let mut names: Vec<PathBuf> = fs_err::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort_unstable();
    for path in std::iter::once(dir.to_owned()).chain(names) {
        let meta = fs_err::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() { fs_err::read_to_string(&path).unwrap() } else { String::new() };
        lines.push(format!(
            "{} {:o} {}:{} {} {}.{} {} {content}",
            path.display(),
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.ino(),
            meta.mtime(),
            meta.mtime_nsec(),
            meta.nlink(),
        ));
        if meta.is_dir() && path != dir {
            look(&path, lines);
        }
    }
}

/// Exchanges two paths all the time.
#[derive(Debug)]
pub(super) struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Swapper {
    pub(super) fn start(one: PathBuf, other: PathBuf) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while !seen.load(Ordering::Relaxed) {
                // Somebody else may just hold one of them.
                count += u64::from(renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).is_ok());
                if count % 16 == 0 {
                    // On a machine with few processors the other side has to come to its turn, too.
                    std::thread::yield_now();
                }
            }
            count
        });
        Self { stop, thread: Some(thread) }
    }

    /// A directory that is now and then a link to this.
    pub(super) fn directory(at: &Path, to: &Path) -> Self {
        let link = at.with_extension("link");
        fs_err::create_dir_all(at).unwrap();
        symlink(to, &link).unwrap();
        Self::start(at.to_owned(), link)
    }

    /// Ends it, and asserts that it has done something.
    pub(super) fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let count = self.thread.take().unwrap().join().unwrap();
        assert!(count > 0, "nothing was ever exchanged");
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// How often a race is tried.
pub(super) fn rounds() -> usize {
    std::env::var("DHOW_ESCAPE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60)
}
