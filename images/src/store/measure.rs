//! How much disk a file or a tree takes, whatever its shape.
//!
//! Nothing here follows a symbolic link or leaves the file system it begins on, and a tree of any depth costs two
//! open directories. What changes while it is measured is measured roughly.

use std::collections::HashSet;
use std::io;
use std::ops::AddAssign;
use std::path::Path;

/// Bytes of files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Lengths of all regular files, as `du --apparent-size` counts them; several names of one file count once.
    pub content: u64,
    /// What the file system has set aside for files, directories and links, and gives back when they go.
    pub allocated: u64,
}

impl AddAssign for Sizes {
    fn add_assign(&mut self, other: Self) {
        self.content = self.content.saturating_add(other.content);
        self.allocated = self.allocated.saturating_add(other.allocated);
    }
}

/// Measures trees; a file that occurs in several of them counts with the first.
#[derive(Debug, Default)]
pub(super) struct Measure {
    /// Device and inode of files with more than one name.
    #[cfg_attr(not(unix), expect(dead_code, reason = "files are not told apart there"))]
    seen: HashSet<(u64, u64)>,
}

impl Measure {
    /// A file or a tree. What is not there has no size.
    pub(super) fn of(&mut self, path: &Path) -> io::Result<Sizes> {
        match self.measure(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Sizes::default()),
            Err(e) => Err(io::Error::new(e.kind(), format!("cannot measure {}: {e}", path.display()))),
            Ok(sizes) => Ok(sizes),
        }
    }
}

/// A file or a tree. What is not there has no size.
///
/// # Errors
/// When a directory cannot be read.
pub fn disk_usage(path: impl AsRef<Path>) -> io::Result<Sizes> {
    Measure::default().of(path.as_ref())
}

#[cfg(unix)]
mod unix {
    use std::ffi::CString;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::AtFlags;
    use rustix::fs::CWD;
    use rustix::fs::Dir;
    use rustix::fs::FileType;
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    use rustix::fs::Stat;
    use rustix::fs::fstat;
    use rustix::fs::openat;
    use rustix::fs::statat;
    use rustix::io::Errno;

    use super::Measure;
    use super::Sizes;

    const DIRECTORY: OFlags =
        OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

    /// A directory on the way down: what it is, and what is still to be visited in it.
    struct Level {
        id: (u64, u64),
        todo: Vec<CString>,
    }

    impl Measure {
        pub(super) fn measure(&mut self, path: &Path) -> io::Result<Sizes> {
            let mut sizes = Sizes::default();
            let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
            self.add(&stat, &mut sizes);
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return Ok(sizes);
            }
            let mut dir = openat(CWD, path, DIRECTORY, Mode::empty())?;
            let mut levels = vec![self.list(&dir, &mut sizes)?];
            while let Some(level) = levels.last_mut() {
                if let Some(name) = level.todo.pop() {
                    match openat(&dir, &name, DIRECTORY, Mode::empty()) {
                        Ok(inner) => {
                            levels.push(self.list(&inner, &mut sizes)?);
                            dir = inner;
                        }
                        // Gone meanwhile, or something else now.
                        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                        Err(e) => return Err(e.into()),
                    }
                    continue;
                }
                levels.pop();
                if let Some(above) = levels.last() {
                    dir = openat(&dir, "..", DIRECTORY, Mode::empty())?;
                    if id(&fstat(&dir)?) != above.id {
                        // It was moved meanwhile: what is left of the tree cannot be found from here.
                        break;
                    }
                }
            }
            Ok(sizes)
        }

        fn list(&mut self, dir: &OwnedFd, sizes: &mut Sizes) -> io::Result<Level> {
            let own = id(&fstat(dir)?);
            let mut todo = Vec::new();
            for entry in Dir::read_from(dir)? {
                let entry = entry?;
                let name = entry.file_name();
                if name == c"." || name == c".." {
                    continue;
                }
                let stat = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    other => other?,
                };
                // What is mounted here belongs to somebody else.
                if id(&stat).0 != own.0 {
                    continue;
                }
                self.add(&stat, sizes);
                if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                    todo.push(name.to_owned());
                }
            }
            Ok(Level { id: own, todo })
        }

        fn add(&mut self, stat: &Stat, sizes: &mut Sizes) {
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind != FileType::Directory && stat.st_nlink > 1 && !self.seen.insert(id(stat)) {
                return;
            }
            let content = if kind == FileType::RegularFile { u64::try_from(stat.st_size) } else { Ok(0) };
            // Blocks of 512 bytes, whatever the file system's own are.
            let allocated = u64::try_from(stat.st_blocks).unwrap_or_default().saturating_mul(512);
            *sizes += Sizes { content: content.unwrap_or_default(), allocated };
        }
    }

    #[allow(
        clippy::allow_attributes,
        clippy::unnecessary_cast,
        clippy::cast_sign_loss,
        reason = "types differ between systems"
    )]
    fn id(stat: &Stat) -> (u64, u64) {
        (stat.st_dev as u64, stat.st_ino as u64)
    }
}

#[cfg(not(unix))]
impl Measure {
    fn measure(&mut self, path: &Path) -> io::Result<Sizes> {
        let mut sizes = Sizes::default();
        let mut todo = vec![path.to_owned()];
        while let Some(path) = todo.pop() {
            let meta = fs_err::symlink_metadata(&path)?;
            if meta.is_file() {
                sizes += Sizes { content: meta.len(), allocated: meta.len() };
            } else if meta.is_dir() {
                for entry in fs_err::read_dir(&path)? {
                    todo.push(entry?.path());
                }
            }
        }
        Ok(sizes)
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn files_count_once_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("tree");
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/one"), vec![7; 5000]).unwrap();
        fs::hard_link(root.join("a/one"), root.join("a/b/two")).unwrap();
        fs::write(root.join("three"), "xyz").unwrap();
        fs::write(dir.path().join("outside"), vec![7; 9999]).unwrap();
        std::os::unix::fs::symlink(dir.path().join("outside"), root.join("link")).unwrap();
        std::os::unix::fs::symlink("/", root.join("a/slash")).unwrap();
        let sizes = disk_usage(&root).unwrap();
        assert_eq!(sizes.content, 5003);
        assert!(sizes.allocated >= 5003 && sizes.allocated.is_multiple_of(512), "{sizes:?}");
        let mut measure = Measure::default();
        measure.of(&root.join("a")).unwrap();
        assert_eq!(measure.of(&root).unwrap().content, 3, "a/one was counted with a");
        assert_eq!(disk_usage(root.join("absent")).unwrap(), Sizes::default());
    }

    #[test]
    fn a_tree_of_any_depth() {
        let dir = tempfile::tempdir().unwrap();
        let mut at = fs::File::open(dir.path()).unwrap().into_parts().0;
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
            let flags = rustix::fs::OFlags::DIRECTORY;
            at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
        }
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        let file = rustix::fs::openat(&at, "f", flags, rustix::fs::Mode::RUSR).unwrap();
        rustix::fs::ftruncate(&file, 12345).unwrap();
        drop(file);
        assert_eq!(disk_usage(dir.path()).unwrap().content, 12345);
        super::super::remove_tree(dir.path().join("d")).unwrap();
    }
}
