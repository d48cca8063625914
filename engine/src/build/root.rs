//! A directory that paths begin at: a context, or what layers make together. Whatever is in it, nothing outside is
//! reached: names are looked up from an open handle, and links are followed here, by their text, never by the kernel.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use dhow_images::assemble::EntryKind;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Links that are followed on the way to one name, as the kernel does.
const MAX_LINKS: usize = 40;
/// The longest path.
const MAX_PATH: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

/// What is known of a name.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) kind: EntryKind,
    pub(super) size: u64,
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
    pub(super) device: (u32, u32),
    /// The file that it is a name of, if that has several.
    pub(super) linked: Option<(u64, u64)>,
}

/// A path without links and dots, from its root and without a slash at its beginning.
#[derive(Debug, Clone)]
pub(super) struct Resolved {
    pub(super) path: Vec<u8>,
    /// What is there; `None` when nothing is.
    pub(super) found: Option<Found>,
}

impl Root {
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

    /// Looks at a path that has no links on the way; at a link itself where it is one.
    pub(super) fn stat(&self, path: &[u8]) -> io::Result<Option<Found>> {
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = split.map_or((&b""[..], path), |slash| (&path[..slash], &path[slash + 1..]));
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
        let split = path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = split.map_or((&b""[..], path), |slash| (&path[..slash], &path[slash + 1..]));
        let parent = self.at(parent, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok(rustix::fs::readlinkat(parent, OsStr::from_bytes(name), Vec::new())?.into_bytes())
    }

    /// The names in a directory, in order.
    pub(super) fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let dir = self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    /// Opens a regular file that has no links on the way. Nothing is waited for, should it be a pipe by now.
    pub(super) fn read(&self, path: &[u8]) -> io::Result<File> {
        let file = self.at(path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        match found(&rustix::fs::fstat(&file)?).kind {
            EntryKind::File => Ok(file.into()),
            _ => Err(io::Error::other("is no regular file any more")),
        }
    }

    /// A directory that can be listed.
    pub(super) fn open_dir(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.at(path, OFlags::RDONLY | OFlags::DIRECTORY)
    }

    /// A handle on whatever is at a path without links.
    pub(super) fn path(&self, path: &[u8]) -> io::Result<OwnedFd> {
        self.at(path, OFlags::PATH)
    }

    /// Follows all links of a path within this root, the last one too. What is missing of it is as it is written.
    pub(super) fn resolve(&self, path: &[u8]) -> io::Result<Resolved> {
        self.resolve_to(path, true)
    }

    /// As [`Root::resolve`]; with `last` false a link at the end is what is meant itself.
    pub(super) fn resolve_to(&self, path: &[u8], last: bool) -> io::Result<Resolved> {
        if path.len() > MAX_PATH {
            return Err(Errno::NAMETOOLONG.into());
        }
        let mut todo: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut at: Vec<u8> = Vec::new();
        let mut here = self.stat(b"")?;
        let mut links = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                    here = self.stat(&at)?;
                    continue;
                }
                _ => {}
            }
            if here.as_ref().is_some_and(|here| here.kind != EntryKind::Dir) {
                return Err(Errno::NOTDIR.into());
            }
            let next = join(&at, &name);
            let there = if here.is_some() { self.stat(&next)? } else { None };
            let is_last = todo.iter().all(|name| name.is_empty() || name == b".");
            if there.as_ref().is_some_and(|there| there.kind == EntryKind::Symlink) && (last || !is_last) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Errno::LOOP.into());
                }
                let target = self.readlink(&next)?;
                if target.starts_with(b"/") {
                    at.clear();
                    here = self.stat(b"")?;
                }
                todo.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                continue;
            }
            (at, here) = (next, there);
        }
        Ok(Resolved { path: at, found: here })
    }

    /// At most this much of a small file, links followed; empty when it is not there.
    pub(super) fn small(&self, path: &str, most: u64) -> io::Result<String> {
        use std::io::Read as _;
        let resolved = self.resolve(path.as_bytes())?;
        let mut text = Vec::new();
        if resolved.found.is_some_and(|found| found.kind == EntryKind::File) {
            self.read(&resolved.path)?.take(most).read_to_end(&mut text)?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// What says that there is nothing, or nothing that could be meant.
fn is_not_there(raw: i32) -> bool {
    [Errno::NOTDIR, Errno::LOOP].iter().any(|errno| errno.raw_os_error() == raw)
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_stay_inside() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("root");
        fs_err::create_dir_all(base.join("a/b")).unwrap();
        fs_err::write(dir.path().join("secret"), "no").unwrap();
        fs_err::write(base.join("a/b/file"), "yes").unwrap();
        symlink("/a/b", base.join("absolute")).unwrap();
        symlink("../../../../secret", base.join("a/up")).unwrap();
        symlink("loop", base.join("loop")).unwrap();
        symlink("b/file", base.join("a/link")).unwrap();
        let root = Root::open(&base).unwrap();
        for (path, expected, there) in [
            ("a/b/file", "a/b/file", true),
            ("absolute/file", "a/b/file", true),
            ("/absolute/../b/./file", "a/b/file", true),
            ("a/link", "a/b/file", true),
            ("a/up", "secret", false),
            ("../../secret", "secret", false),
            ("a/none/../x", "a/x", false),
            ("", "", true),
            ("/..", "", true),
        ] {
            let resolved = root.resolve(path.as_bytes()).unwrap();
            assert_eq!(String::from_utf8_lossy(&resolved.path), expected, "{path}");
            assert_eq!(resolved.found.is_some(), there, "{path}");
        }
        assert!(root.resolve(b"loop").is_err());
        assert!(root.resolve(b"a/b/file/x").is_err());
        // By hand past the resolution: the kernel refuses as well.
        assert!(root.read(b"a/up").is_err() && root.read(b"absolute/file").is_err());
        assert_eq!(root.resolve_to(b"a/link", false).unwrap().path, b"a/link");
    }
}
