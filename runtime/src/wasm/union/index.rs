//! Who copied-up objects are: their numbers, and which names of a layer are hard links to one of them.
//!
//! A file that is copied up gets a mark with the number that guests knew it by, and a second name in a hidden folder
//! of the writable directory, made of its layer and inode there. So a copied-up file is told from any other by
//! having a second name, which costs nothing to see, and when another name of the same file of the layer is used, the
//! copy is found. Both survive restarts and are seen by every process of the container.
//!
//! A directory that was moved with its content is marked alone. Where marks or hard links cannot be made (symbolic
//! links, some file systems), a number is kept in memory only.

use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use super::errno::{Errno, Result};
use super::fs::{Fs, number_of};
use super::host::{self, Dir, Stat};

/// The hidden folder, in the writable directory.
const FOLDER: &str = ".wh..wh.dhow";
/// Who a copied-up object is. A name that `dhow-images` leaves out of layers.
const MARK: &str = "user.overlay.dhow";
/// On directories into which copied-up objects were moved.
const MOVED_IN: &str = "user.overlay.dhow.moved";

/// The folder, once it was found or made.
#[derive(Debug, Default)]
pub(super) struct Index {
    upper: OnceLock<Arc<Dir>>,
    folder: OnceLock<Arc<Dir>>,
}

/// What a mark says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    /// The number guests know the object by.
    pub(super) number: u64,
    /// Whether the layer had more than one name for it.
    pub(super) shared: bool,
    /// Its name in the folder; empty for directories.
    key: String,
}

impl Origin {
    /// Of an object in a layer. `None` where the host has no inode numbers.
    pub(super) fn new(fs: &Fs, layer: usize, stat: &Stat, number: u64) -> Option<Self> {
        if stat.ino == 0 {
            return None;
        }
        let nanos = |time: Option<SystemTime>| {
            let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
            since.map_or(0, |since| since.as_nanos())
        };
        // A layer that is unpacked again has other inodes. Times and sizes make sure that no copy of a different file
        // is taken then.
        let state = format!("{} {} {}", stat.size, nanos(stat.modified), nanos(stat.changed));
        let key = format!("{}-{}-{:016x}", fs.height(layer), stat.ino, number_of(0, state.as_bytes()));
        Some(Self { number, shared: stat.links > 1, key })
    }

    fn to_bytes(&self) -> Vec<u8> {
        format!("{:016x}{}{}", self.number, if self.shared { 'm' } else { 's' }, self.key).into_bytes()
    }

    /// `None` for what nobody of us wrote.
    fn parse(mark: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(mark).ok()?;
        let (number, rest) = text.split_at_checked(16)?;
        let number = u64::from_str_radix(number, 16).ok()?;
        let (shared, key) = match rest.split_at_checked(1)? {
            ("m", key) => (true, key),
            ("s", key) => (false, key),
            _ => return None,
        };
        let is_key = |c: char| c.is_ascii_hexdigit() || c == '-';
        if !key.chars().all(is_key) {
            return None;
        }
        Some(Self { number, shared, key: key.to_owned() })
    }
}

impl Index {
    /// The writable directory is there.
    pub(super) fn found_upper(&self, dir: &Arc<Dir>) {
        self.upper.set(Arc::clone(dir)).ok();
    }

    /// The folder, if there is one.
    fn folder(&self) -> Option<&Arc<Dir>> {
        if let Some(folder) = self.folder.get() {
            return Some(folder);
        }
        let found = self.upper.get()?.open_dir(FOLDER).ok()?;
        Some(self.folder.get_or_init(|| Arc::new(found)))
    }

    /// The folder, made if it is missing. Half-made objects are in it, too.
    pub(super) fn workshop(&self) -> Result<&Arc<Dir>> {
        if let Some(folder) = self.folder() {
            return Ok(folder);
        }
        let upper = self.upper.get().ok_or(Errno::ReadOnly)?;
        match upper.mkdir(FOLDER, 0o700) {
            Ok(()) | Err(Errno::Exists) => {}
            Err(error) => return Err(error),
        }
        let found = upper.open_dir(FOLDER)?;
        Ok(self.folder.get_or_init(|| Arc::new(found)))
    }

    /// The copy that another name of the same file of a layer has led to.
    pub(super) fn copy_of(&self, origin: &Origin) -> Option<(Arc<Dir>, String, Stat)> {
        let folder = self.folder()?;
        let stat = folder.stat(&origin.key).ok()?;
        Some((Arc::clone(folder), origin.key.clone(), stat))
    }

    /// Gives a copy, which lies at its place now, its second name.
    pub(super) fn add(&self, dir: &Dir, name: &std::ffi::OsStr, origin: &Origin) -> bool {
        self.workshop().is_ok_and(|folder| dir.link(name, folder, &origin.key).is_ok())
    }

    /// A name of a copied-up file was removed, and `left` are in use. Removes the second name with the last one,
    /// unless names in the layer lead to the copy as well.
    pub(super) fn removed(&self, origin: &Origin, left: u64) {
        if left <= 1
            && !origin.shared
            && let Some(folder) = self.folder()
        {
            // A file that stays there takes up room, nothing else.
            folder.unlink(&origin.key).ok();
        }
    }
}

/// Who a file in the writable directory is, if it was copied up. Only files with several names have been.
pub(super) fn origin_of(dir: &Dir, name: &std::ffi::OsStr, stat: &Stat) -> Option<Origin> {
    if stat.links < 2 || stat.kind != host::Kind::File {
        return None;
    }
    let read = host::OpenHow { read: true, ..host::OpenHow::default() };
    origin_of_file(&dir.open_file(name, &read).ok()?)
}

/// As [`origin_of`], of an open file.
pub(super) fn origin_of_file(file: &std::fs::File) -> Option<Origin> {
    Origin::parse(&host::mark_of(file, MARK)?)
}

/// Who a directory is, if it was moved with content of layers.
pub(super) fn origin_of_dir(dir: &Dir) -> Option<u64> {
    Origin::parse(&dir.mark(MARK)?).map(|origin| origin.number)
}

/// Marks a copy; whether that worked.
pub(super) fn mark(file: &std::fs::File, origin: &Origin) -> bool {
    host::set_mark(file, MARK, &origin.to_bytes())
}

/// Marks a directory that is about to be moved.
pub(super) fn mark_dir(dir: &Dir, number: u64) {
    let origin = Origin { number, shared: false, key: String::new() };
    dir.set_mark(MARK, &origin.to_bytes());
}

/// Something that may have been copied up gets a name in this directory.
pub(super) fn moved_into(dir: &Dir) {
    if !has_moved_in(dir) {
        dir.set_mark(MOVED_IN, b"y");
    }
}

/// Whether objects in this directory may have other numbers than the host's.
pub(super) fn has_moved_in(dir: &Dir) -> bool {
    dir.mark(MOVED_IN).is_some()
}

#[cfg(test)]
mod tests {
    use super::Origin;

    #[test]
    fn marks_are_read_as_they_are_written() {
        let origin = Origin { number: 0xfedc_ba98, shared: true, key: "3-17-00ff".to_owned() };
        assert_eq!(Origin::parse(&origin.to_bytes()), Some(origin));
        for hostile in [
            &b""[..],
            b"00000000fedcba98",
            b"00000000fedcba98x3-17",
            b"00000000fedcba98s../../etc",
            b"00000000fedcba98s/",
            b"-0000000fedcba98s3",
            b"\xff\xff",
        ] {
            assert_eq!(Origin::parse(hostile), None, "{hostile:?}");
        }
    }
}
