//! A directory of the host by the kernel's `openat2`: every name is looked up beneath an open handle, and links are refused.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_images::assemble::EntryKind;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Found, parted};

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Dir(OwnedFd);

impl Dir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    pub(super) fn of(handle: OwnedFd) -> Self {
        Self(handle)
    }

    fn at(&self, path: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        loop {
            match rustix::fs::openat2(&self.0, OsStr::from_bytes(path), flags, Mode::empty(), resolve) {
                // Something was renamed meanwhile, somewhere on the system.
                Err(Errno::AGAIN | Errno::INTR) => {}
                opened => return Ok(opened?),
            }
        }
    }

    pub(super) fn stat(&self, path: &[u8]) -> io::Result<Option<Found>> {
        let (parent, name) = parted(path);
        let looked = self.at(parent, OFlags::PATH | OFlags::DIRECTORY).and_then(|parent| {
            let name = if name.is_empty() { &b"."[..] } else { name };
            Ok(rustix::fs::statat(parent, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?)
        });
        match looked {
            Ok(stat) => Ok(Some(found(&stat))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if matches!(error.raw_os_error(), Some(raw) if is_not_there(raw)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn readlink(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let (parent, name) = parted(path);
        let parent = self.at(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rustix::fs::readlinkat(parent, OsStr::from_bytes(name), Vec::new())?.into_bytes())
    }

    /// The names in a directory, in any order.
    pub(super) fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let dir = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Nothing is waited for, should it be a pipe by now.
    pub(super) fn read(&self, path: &[u8]) -> io::Result<File> {
        let file = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        match found(&rustix::fs::fstat(&file)?).kind {
            EntryKind::File => Ok(file.into()),
            _ => Err(io::Error::other("is no regular file any more")),
        }
    }

    pub(super) fn below(&self, path: &[u8]) -> io::Result<Self> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY).map(Self)
    }

    pub(super) fn remove(&self, path: &[u8], is_dir: bool) -> io::Result<()> {
        let (parent, name) = parted(path);
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        Ok(rustix::fs::unlinkat(self.at(parent, OFlags::PATH)?, OsStr::from_bytes(name), flags)?)
    }
}

/// What says that there is nothing, or nothing that could be meant.
fn is_not_there(raw: i32) -> bool {
    [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| errno.raw_os_error() == raw)
}

fn found(stat: &Stat) -> Found {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => EntryKind::Dir,
        FileType::Symlink => EntryKind::Symlink,
        FileType::RegularFile => EntryKind::File,
        FileType::CharacterDevice => EntryKind::Char,
        FileType::BlockDevice => EntryKind::Block,
        // A socket means nothing without the process behind it: callers leave it out.
        _ => EntryKind::Fifo,
    };
    let is_link = stat.st_nlink > 1 && kind == EntryKind::File;
    #[allow(
        clippy::useless_conversion,
        clippy::unnecessary_cast,
        reason = "the types differ between systems"
    )]
    Found {
        kind,
        size: u64::try_from(stat.st_size).unwrap_or_default(),
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime as i64, u32::try_from(stat.st_mtime_nsec).unwrap_or_default()),
        device: (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
        linked: is_link.then_some((stat.st_dev, stat.st_ino)),
    }
}
