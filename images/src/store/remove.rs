//! Removing a directory tree of hostile shape: of any depth, with directories that nobody may enter.

use std::path::Path;

use crate::error::Result;

/// Removes a file or a tree. That it is gone already is no error. Symbolic links are never followed.
#[cfg(unix)]
pub(crate) fn tree(path: &Path) -> Result<()> {
    unix::tree(path).map_err(|e| crate::Error::io(path.display(), e.into()))
}

/// Removes a file or a tree. That it is gone already is no error.
#[cfg(not(unix))]
pub(crate) fn tree(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs_err::remove_dir_all(path) } else { fs_err::remove_file(path) };
    match removed {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

#[cfg(unix)]
mod unix {
    use std::ffi::CStr;
    use std::ffi::CString;
    use std::os::fd::AsFd;
    use std::os::fd::BorrowedFd;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    use rustix::fs::AtFlags;
    use rustix::fs::CWD;
    use rustix::fs::Dir;
    use rustix::fs::FileType;
    use rustix::fs::Mode;
    use rustix::fs::OFlags;
    use rustix::io::Errno;
    use rustix::io::Result;

    /// Below this the next directory is moved to the top, so that the number of open files stays small.
    const MAX_DEPTH: usize = 32;

    pub(super) fn tree(path: &Path) -> Result<()> {
        match rustix::fs::unlinkat(CWD, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Linux says EISDIR, POSIX allows EPERM.
            Err(Errno::ISDIR | Errno::PERM | Errno::ACCESS) => {}
            Err(e) => return Err(e),
        }
        let top = open(CWD, path)?;
        let mut moved = 0;
        loop {
            let before = moved;
            empty(&top, &top, 0, &mut moved)?;
            if moved == before {
                break;
            }
        }
        match rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    fn empty(dir: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> Result<()> {
        // Names are collected first: what readdir says while entries vanish differs between file systems.
        let mut names: Vec<(CString, bool)> = Vec::new();
        for entry in Dir::read_from(dir)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push((entry.file_name().to_owned(), entry.file_type() == FileType::Directory));
            }
        }
        for (name, is_dir) in names {
            if !is_dir {
                match unlink(dir, &name, AtFlags::empty()) {
                    Err(Errno::ISDIR | Errno::PERM) => {}
                    other => {
                        other?;
                        continue;
                    }
                }
            }
            if depth == MAX_DEPTH {
                *moved += 1;
                let target = format!(".moved-{moved}");
                rustix::fs::renameat(dir, &*name, top, &target)?;
                continue;
            }
            let inner = match open(dir.as_fd(), &*name) {
                Err(Errno::NOENT) => continue,
                other => other?,
            };
            empty(&inner, top, depth + 1, moved)?;
            drop(inner);
            unlink(dir, &name, AtFlags::REMOVEDIR)?;
        }
        Ok(())
    }

    fn unlink(dir: &OwnedFd, name: &CStr, flags: AtFlags) -> Result<()> {
        let result = match rustix::fs::unlinkat(dir, name, flags) {
            Err(Errno::ACCESS) => {
                rustix::fs::fchmod(dir, Mode::RWXU)?;
                rustix::fs::unlinkat(dir, name, flags)
            }
            other => other,
        };
        if result == Err(Errno::NOENT) { Ok(()) } else { result }
    }

    fn open<P: rustix::path::Arg + Copy>(parent: BorrowedFd<'_>, name: P) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(parent, name, flags, Mode::empty()) {
            // Without privilege a directory of mode 0 cannot be read by its own owner. It is a directory, not a
            // link: only its removal is at stake.
            Err(Errno::ACCESS) => {
                rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty())?;
                rustix::fs::openat(parent, name, flags, Mode::empty())
            }
            other => other,
        }
    }
}

#[cfg(all(test, unix))]
mod tests {
    use fs_err as fs;

    use super::*;

    #[test]
    fn removes_deep_trees_and_leaves_link_targets() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, keep) = (dir.path().join("victim"), dir.path().join("keep"));
        fs::create_dir(&keep).unwrap();
        fs::write(keep.join("file"), "x").unwrap();
        fs::create_dir(&victim).unwrap();
        fs::write(victim.join("file"), "x").unwrap();
        fs_err::os::unix::fs::symlink(&keep, victim.join("link")).unwrap();
        let deep: std::path::PathBuf = std::iter::repeat_n("d", 1500).collect();
        fs::create_dir_all(victim.join(&deep)).unwrap();
        fs::write(victim.join(&deep).join("f"), "x").unwrap();
        tree(&victim).unwrap();
        assert!(!victim.exists());
        assert!(keep.join("file").exists());
        tree(&victim).unwrap();
        tree(&keep.join("file")).unwrap();
        assert!(!keep.join("file").exists());
    }
}
