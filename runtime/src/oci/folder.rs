//! A container's folder: found by its id, locked by whoever changes something, read without.

use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, FlockOperation, Mode, OFlags, RenameFlags, flock, fstat, mkdirat, openat, renameat,
    renameat_with, unlinkat,
};
use rustix::io::Errno;

use super::error::{Error, Result};
use crate::small_file;

/// The largest file of a folder, and the largest specification.
const LARGEST: usize = 16 << 20;
/// More than most have.
const USUAL: usize = 32 << 10;

/// How often a root is made again that somebody has removed meanwhile.
const RACES: usize = 16;

/// An open folder.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
    id: String,
    fd: OwnedFd,
}

/// Whether an id can be a folder's name: as runc has it, `[A-Za-z0-9_+.-]`.
pub(super) fn check_id(id: &str) -> Result<()> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-' | b'.');
    if id.is_empty() || id.len() > 255 || matches!(id, "." | "..") || !id.bytes().all(fine) {
        return Err(Error::InvalidId(id.to_owned()));
    }
    Ok(())
}

fn open(root: &Path, id: &str) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(CWD, root.join(id), flags, Mode::empty())
}

impl Folder {
    /// Makes a new one, locked.
    pub(super) fn create(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        let path = root.join(id);
        let shown = || format!("make the folder {}", path.display());
        let mut made = mkdirat(CWD, &path, Mode::RWXU);
        // Who removes the last container may remove the root.
        for _ in 0..RACES {
            if made != Err(Errno::NOENT) {
                break;
            }
            make_root(root)?;
            made = mkdirat(CWD, &path, Mode::RWXU);
        }
        match made {
            Err(Errno::EXIST) => return Err(Error::Exists(id.to_owned())),
            made => made.map_err(Error::of(shown()))?,
        }
        let fd = open(root, id).map_err(Error::of(shown()))?;
        flock(&fd, FlockOperation::LockExclusive).map_err(Error::of(shown()))?;
        let folder = Self { root: root.to_owned(), id: id.to_owned(), fd };
        // Somebody who deletes by force may have come in between.
        if folder.is_gone()? { Err(Error::NotExist(id.to_owned())) } else { Ok(folder) }
    }

    /// Opens one.
    pub(super) fn open(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        match open(root, id) {
            Ok(fd) => Ok(Self { root: root.to_owned(), id: id.to_owned(), fd }),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Err(Error::NotExist(id.to_owned())),
            Err(errno) => Err(Error::of(format!("open the folder of container {id}"))(errno)),
        }
    }

    /// Waits for whoever else changes something.
    pub(super) fn lock(&self) -> Result<()> {
        let locked = rustix::io::retry_on_intr(|| flock(&self.fd, FlockOperation::LockExclusive));
        locked.map_err(Error::of(format!("lock container {}", self.id)))?;
        if self.is_gone()? { Err(Error::NotExist(self.id.clone())) } else { Ok(()) }
    }

    /// Whether somebody changes something just now.
    pub(super) fn is_locked(&self) -> bool {
        // A handle of its own: locks belong to handles.
        let Ok(other) = open(&self.root, &self.id) else { return false };
        flock(&other, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK)
    }

    /// Lets others change something, whoever else has a copy of the handle.
    pub(super) fn unlock(&self) {
        flock(&self.fd, FlockOperation::Unlock).ok();
    }

    fn is_gone(&self) -> Result<bool> {
        let stat = fstat(&self.fd).map_err(Error::of(format!("look at container {}", self.id)))?;
        Ok(stat.st_nlink == 0)
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// A whole file, `None` when it is not there.
    pub(super) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let shown = || format!("read {name} of container {}", self.id);
        let file = match openat(
            &self.fd,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW,
            Mode::empty(),
        ) {
            Err(Errno::NOENT) => return Ok(None),
            file => file.map_err(Error::of(shown()))?,
        };
        small_file::content(&file, USUAL, LARGEST).map(Some).map_err(Error::of(shown()))
    }

    /// Replaces a file as a whole.
    ///
    /// By an exchange and not by renaming over it: ext4 then writes the new content to the disk at once, and takes it off the
    /// disk again when the container is removed, 0.5 ms in all for what lives as long as a container. Where the folder is in
    /// memory, as it should be, there is no difference.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let draft = format!("{name}.new");
        self.write_new(&draft, content)?;
        match renameat_with(&self.fd, &draft, &self.fd, name, RenameFlags::EXCHANGE) {
            // Nobody looks at it any more, and the next draft is written over it.
            Ok(()) => unlinkat(&self.fd, &draft, AtFlags::empty()).or(Ok(())),
            // There is none yet, or a file system that cannot do it.
            Err(_) => renameat(&self.fd, &draft, &self.fd, name),
        }
        .map_err(Error::of(format!("replace {name} of container {}", self.id)))
    }

    /// Writes a file that nobody looks at yet.
    pub(super) fn write_new(&self, name: &str, content: &[u8]) -> Result<()> {
        let shown = || format!("write {name} of container {}", self.id);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&self.fd, name, flags, Mode::RUSR | Mode::WUSR).map_err(Error::of(shown()))?;
        std::fs::File::from(file).write_all(content).map_err(Error::of(shown()))
    }

    /// Removes it with everything in it. `usual` are files that there may be, which saves looking for others.
    pub(super) fn remove(self, usual: &[&str]) -> Result<()> {
        let shown = || format!("remove the folder of container {}", self.id);
        for name in usual {
            unlinkat(&self.fd, *name, AtFlags::empty()).ok();
        }
        let path = self.root.join(&self.id);
        match unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            // Whatever it is will be reported below.
            Err(_) => {}
        }
        for name in rustix::fs::Dir::read_from(&self.fd).map_err(Error::of(shown()))? {
            let name = name.map_err(Error::of(shown()))?;
            if !matches!(name.file_name().to_bytes(), b"." | b"..") {
                unlinkat(&self.fd, name.file_name(), AtFlags::empty()).map_err(Error::of(shown()))?;
            }
        }
        match unlinkat(CWD, &path, AtFlags::REMOVEDIR) {
            Err(Errno::NOENT) => Ok(()),
            removed => removed.map_err(Error::of(shown())),
        }
    }
}

/// The folder of all containers, with its parents.
fn make_root(root: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.map_err(Error::of(format!("make the folder {}", root.display())))
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names() {
        for id in ["a", "A-b_c.d+1", "..."] {
            assert!(check_id(id).is_ok(), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../x", "a b", "\u{e4}", "a\0", &"x".repeat(256)] {
            assert!(matches!(check_id(id), Err(Error::InvalidId(_))), "{id}");
        }
    }

    #[test]
    fn a_folder_is_its_own_lock() {
        let root = tempfile::tempdir().expect("folder");
        let folder = Folder::create(&root.path().join("deep/er"), "a").expect("made");
        assert!(matches!(Folder::create(&root.path().join("deep/er"), "a"), Err(Error::Exists(_))));
        let other = Folder::open(&root.path().join("deep/er"), "a").expect("opened");
        assert!(other.is_locked());
        folder.unlock();
        assert!(!other.is_locked());
        folder.write("state.json", b"1").expect("written");
        folder.write("state.json", b"2").expect("replaced");
        assert_eq!(other.read("state.json").expect("read").as_deref(), Some(b"2".as_slice()));
        assert_eq!(other.read("nothing").expect("read"), None);
        folder.write_new("other", b"3").expect("written");
        folder.remove(&["state.json", "nothing"]).expect("removed");
        assert!(matches!(other.lock(), Err(Error::NotExist(_))));
    }
}
