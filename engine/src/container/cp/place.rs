//! Directories that files are copied from and to: of this host, of a native container, or of a Wasm container's union.
//!
//! Everything goes one name at a time from an open directory, and no link is followed: whatever somebody puts in the way
//! while files are copied, nothing outside is read or written.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::time::{Duration, SystemTime};

use dhow_runtime::wasm::{FileKind, Files};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// What a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    /// A pipe, a socket, a device.
    Other,
}

/// What is known of a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Info {
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) modified: SystemTime,
}

/// A root that paths begin at.
#[derive(Debug)]
pub(super) enum Root {
    /// The host's own.
    Host,
    /// A native container's: links lead to what they do in it.
    Native(OwnedFd),
    /// A Wasm container's.
    Union(Files),
}

/// An open directory.
#[derive(Debug)]
pub(super) enum Place<'a> {
    Fd(OwnedFd),
    Union(&'a Files, String),
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Root {
    /// Opens a directory by a path from this root; links on the way are followed.
    pub(super) fn directory(&self, path: &OsStr) -> io::Result<Place<'_>> {
        match self {
            Self::Host => Ok(Place::Fd(rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?)),
            Self::Native(root) => Ok(Place::Fd(in_root(root, path, DIRECTORY)?)),
            Self::Union(files) => {
                let path = text(path)?;
                let info = files.stat(path, true)?;
                if info.kind != FileKind::Directory {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                Ok(Place::Union(files, path.to_owned()))
            }
        }
    }

    /// Looks at a path; with `follow` at what a link leads to.
    pub(super) fn stat(&self, path: &OsStr, follow: bool) -> io::Result<Info> {
        let last = if follow { OFlags::empty() } else { OFlags::NOFOLLOW };
        let flags = OFlags::PATH | OFlags::CLOEXEC | last;
        let found = match self {
            Self::Host => rustix::fs::openat(CWD, path, flags, Mode::empty())?,
            Self::Native(root) => in_root(root, path, flags)?,
            Self::Union(files) => return Ok(of_union(files.stat(text(path)?, follow)?)),
        };
        Ok(of_stat(&rustix::fs::fstat(&found)?))
    }

    /// Opens a file to be read; links are followed.
    pub(super) fn read(&self, path: &OsStr) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match self {
            Self::Host => Ok(rustix::fs::openat(CWD, path, flags, Mode::empty())?.into()),
            Self::Native(root) => regular(in_root(root, path, flags)?),
            Self::Union(files) => files.read(text(path)?),
        }
    }
}

impl Place<'_> {
    pub(super) fn stat(&self, name: &OsStr) -> io::Result<Info> {
        match self {
            Self::Fd(dir) => Ok(of_stat(&rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?)),
            Self::Union(files, path) => Ok(of_union(files.stat(&below(path, name)?, false)?)),
        }
    }

    /// The names in it, in order.
    pub(super) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        match self {
            Self::Fd(dir) => {
                for entry in Dir::read_from(dir)? {
                    let name = entry?.file_name().to_bytes().to_vec();
                    if name != b"." && name != b".." {
                        names.push(OsString::from_vec(name));
                    }
                }
            }
            Self::Union(files, path) => names.extend(files.list(path)?.into_iter().map(OsString::from)),
        }
        names.sort();
        Ok(names)
    }

    /// A directory in it.
    pub(super) fn enter(&self, name: &OsStr) -> io::Result<Self> {
        match self {
            Self::Fd(dir) => {
                let flags = DIRECTORY | OFlags::NOFOLLOW;
                Ok(Place::Fd(rustix::fs::openat(dir, name, flags, Mode::empty())?))
            }
            Self::Union(files, path) => {
                let path = below(path, name)?;
                match files.stat(&path, false)?.kind {
                    FileKind::Directory => Ok(Place::Union(files, path)),
                    _ => Err(io::ErrorKind::NotADirectory.into()),
                }
            }
        }
    }

    /// Opens a regular file to be read. Nothing is waited for, should it be a pipe by now.
    pub(super) fn read(&self, name: &OsStr) -> io::Result<File> {
        match self {
            Self::Fd(dir) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                regular(rustix::fs::openat(dir, name, flags, Mode::empty())?)
            }
            Self::Union(files, path) => files.read(&below(path, name)?),
        }
    }

    pub(super) fn readlink(&self, name: &OsStr) -> io::Result<OsString> {
        match self {
            Self::Fd(dir) => {
                Ok(OsString::from_vec(rustix::fs::readlinkat(dir, name, Vec::new())?.into_bytes()))
            }
            Self::Union(files, path) => Ok(files.readlink(&below(path, name)?)?.into()),
        }
    }

    /// A new file in the place of what is no directory.
    pub(super) fn create(&self, name: &OsStr) -> io::Result<File> {
        self.clear(name)?;
        match self {
            Self::Fd(dir) => {
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(dir, name, new, Mode::from(0o600)) {
                    // Something is mounted on it: it cannot be replaced, only written to.
                    Err(Errno::EXIST) => {
                        let flags = OFlags::WRONLY | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                        Ok(rustix::fs::openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty())?.into())
                    }
                    made => Ok(made?.into()),
                }
            }
            Self::Union(files, path) => files.create(&below(path, name)?),
        }
    }

    /// A symbolic link in the place of what is no directory.
    pub(super) fn symlink(&self, target: &OsStr, name: &OsStr) -> io::Result<()> {
        self.clear(name)?;
        match self {
            Self::Fd(dir) => Ok(rustix::fs::symlinkat(target, dir, name)?),
            Self::Union(files, path) => files.symlink(text(target)?, &below(path, name)?),
        }
    }

    /// A directory, there already or new.
    pub(super) fn mkdir(&self, name: &OsStr) -> io::Result<Self> {
        let made = match self {
            Self::Fd(dir) => rustix::fs::mkdirat(dir, name, Mode::from(0o755)).map_err(io::Error::from),
            Self::Union(files, path) => files.mkdir(&below(path, name)?),
        };
        match made {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.enter(name),
        }
    }

    /// Another name for a file that is there; a copy of it where files have one name only.
    pub(super) fn link(&self, from: &Self, old: &OsStr, name: &OsStr) -> io::Result<()> {
        let info = from.stat(old)?;
        if info.kind != Kind::File {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a hard link to what is no file"));
        }
        if let (Self::Fd(place), Self::Fd(other)) = (self, from) {
            let same = rustix::fs::statat(place, name, AtFlags::SYMLINK_NOFOLLOW);
            let own = rustix::fs::statat(other, old, AtFlags::SYMLINK_NOFOLLOW)?;
            if same.is_ok_and(|same| (same.st_dev, same.st_ino) == (own.st_dev, own.st_ino)) {
                return Ok(());
            }
            self.clear(name)?;
            return Ok(rustix::fs::linkat(other, old, place, name, AtFlags::empty())?);
        }
        let mut source = from.read(old)?;
        io::copy(&mut source, &mut self.create(name)?)?;
        self.describe(name, &info, Some(info.owner))
    }

    /// Makes room for a name: what is no directory goes.
    pub(super) fn clear(&self, name: &OsStr) -> io::Result<()> {
        let removed = match self {
            Self::Fd(dir) => rustix::fs::unlinkat(dir, name, AtFlags::empty()).map_err(io::Error::from),
            Self::Union(files, path) => files.unlink(&below(path, name)?),
        };
        match removed {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // Something is mounted on it.
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => Ok(()),
            done => done,
        }
    }

    /// Sets what a name is to have, owner first: a change of owners takes bits of the mode away.
    pub(super) fn describe(&self, name: &OsStr, info: &Info, owner: Option<(u32, u32)>) -> io::Result<()> {
        match self {
            Self::Fd(dir) => {
                if let Some((user, group)) = owner {
                    let owner = (Some(Uid::from_raw(user)), Some(Gid::from_raw(group)));
                    rustix::fs::chownat(dir, name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                }
                if info.kind != Kind::Symlink {
                    // By the handle: a mode is the one thing that cannot be set without following a link.
                    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
                    rustix::fs::fchmod(&file, Mode::from_raw_mode(info.mode & 0o7777))?;
                }
                let since = info.modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let modified = Timespec {
                    tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                    tv_nsec: i64::from(since.subsec_nanos()),
                };
                let accessed = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
                let times = Timestamps { last_access: accessed, last_modification: modified };
                Ok(rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
            }
            Self::Union(files, path) => files.set_modified(&below(path, name)?, info.modified),
        }
    }
}

/// What was opened, if it is a file still and not a device that somebody put in its place.
fn regular(file: OwnedFd) -> io::Result<File> {
    match of_stat(&rustix::fs::fstat(&file)?).kind {
        Kind::File => Ok(file.into()),
        _ => Err(io::Error::other("is no regular file any more")),
    }
}

fn in_root(root: &OwnedFd, path: &OsStr, flags: OFlags) -> io::Result<OwnedFd> {
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
            // Something was renamed meanwhile, somewhere on the system.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return Ok(opened?),
        }
    }
}

fn text(path: &OsStr) -> io::Result<&str> {
    path.to_str().ok_or_else(|| {
        let why = format!("{}: a Wasm container's names are UTF-8", path.display());
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })
}

fn below(path: &str, name: &OsStr) -> io::Result<String> {
    Ok(format!("{}/{}", path.trim_end_matches('/'), text(name)?))
}

fn of_union(info: dhow_runtime::wasm::FileInfo) -> Info {
    let (kind, mode) = match info.kind {
        FileKind::File => (Kind::File, 0o644),
        FileKind::Directory => (Kind::Directory, 0o755),
        FileKind::Symlink => (Kind::Symlink, 0o777),
        FileKind::Other => (Kind::Other, 0),
    };
    Info { kind, size: info.size, mode, owner: (0, 0), modified: info.modified }
}

fn of_stat(stat: &rustix::fs::Stat) -> Info {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        _ => Kind::Other,
    };
    let since = Duration::new(
        u64::try_from(stat.st_mtime).unwrap_or_default(),
        u32::try_from(stat.st_mtime_nsec).unwrap_or_default(),
    );
    let modified = SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH);
    let size = u64::try_from(stat.st_size).unwrap_or_default();
    Info { kind, size, mode: stat.st_mode & 0o7777, owner: (stat.st_uid, stat.st_gid), modified }
}

/// Whether a path ends such that it can only be a directory.
pub(super) fn names_directory(path: &OsStr) -> bool {
    let bytes = path.as_bytes();
    bytes.ends_with(b"/") || bytes.ends_with(b"/.") || bytes == b"."
}
