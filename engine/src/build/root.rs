//! A directory that paths begin at: a context, or what layers make together. Whatever is in it, nothing outside is
//! reached: names are looked up from an open handle, and links are followed here, by their text, never by the kernel.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
mod portable;
mod tree;

use std::io::{self, Read};
use std::path::Path;

use dhow_images::assemble::EntryKind;

#[cfg(target_os = "linux")]
pub(super) use linux::Dir;
#[cfg(not(target_os = "linux"))]
pub(super) use portable::Dir;
pub(super) use tree::{Part, Tree};

/// Links that are followed on the way to one name, as the kernel does.
const MAX_LINKS: usize = 40;
/// The longest path.
const MAX_PATH: usize = 4096;

/// See the module.
#[derive(Debug)]
pub(super) enum Root {
    /// A directory of the host.
    Dir(Dir),
    /// What archives of layers say.
    Tree(Tree),
}

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
        Dir::open(path).map(Self::Dir)
    }

    #[cfg(target_os = "linux")]
    pub(super) fn of(handle: std::os::fd::OwnedFd) -> Self {
        Self::Dir(Dir::of(handle))
    }

    /// Looks at a path that has no links on the way; at a link itself where it is one.
    pub(super) fn stat(&self, path: &[u8]) -> io::Result<Option<Found>> {
        match self {
            Self::Dir(dir) => dir.stat(path),
            Self::Tree(tree) => Ok(tree.stat(path)),
        }
    }

    pub(super) fn readlink(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Dir(dir) => dir.readlink(path),
            Self::Tree(tree) => tree.readlink(path),
        }
    }

    /// The names in a directory, in order.
    pub(super) fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        match self {
            Self::Dir(dir) => {
                let mut names = dir.list(path)?;
                names.sort();
                Ok(names)
            }
            Self::Tree(tree) => Ok(tree.list(path)),
        }
    }

    /// Opens a regular file that has no links on the way.
    pub(super) fn read(&self, path: &[u8]) -> io::Result<Box<dyn Read + '_>> {
        match self {
            Self::Dir(dir) => Ok(Box::new(dir.read(path)?)),
            Self::Tree(tree) => tree.read(path),
        }
    }

    /// One of its directories, as a root of its own.
    pub(super) fn below(&self, path: &[u8]) -> io::Result<Self> {
        match self {
            Self::Dir(dir) => dir.below(path).map(Self::Dir),
            Self::Tree(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Removes a file, or a directory that is empty.
    pub(super) fn remove(&self, path: &[u8], is_dir: bool) -> io::Result<()> {
        match self {
            Self::Dir(dir) => dir.remove(path, is_dir),
            Self::Tree(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }

    /// Follows all links of a path within this root, the last one too. What is missing of it is as it is written.
    pub(super) fn resolve(&self, path: &[u8]) -> io::Result<Resolved> {
        self.resolve_to(path, true)
    }

    /// As [`Root::resolve`]; with `last` false a link at the end is what is meant itself.
    pub(super) fn resolve_to(&self, path: &[u8], last: bool) -> io::Result<Resolved> {
        if path.len() > MAX_PATH {
            return Err(io::ErrorKind::InvalidFilename.into());
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
                return Err(io::ErrorKind::NotADirectory.into());
            }
            let next = join(&at, &name);
            let there = if here.is_some() { self.stat(&next)? } else { None };
            let is_last = todo.iter().all(|name| name.is_empty() || name == b".");
            if there.as_ref().is_some_and(|there| there.kind == EntryKind::Symlink) && (last || !is_last) {
                links += 1;
                if links > MAX_LINKS {
                    return Err(io::Error::other("too many levels of symbolic links"));
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
        let resolved = self.resolve(path.as_bytes())?;
        let mut text = Vec::new();
        if resolved.found.is_some_and(|found| found.kind == EntryKind::File) {
            self.read(&resolved.path)?.take(most).read_to_end(&mut text)?;
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// The directory and the name of a path.
fn parted(path: &[u8]) -> (&[u8], &[u8]) {
    let split = path.iter().rposition(|byte| *byte == b'/');
    split.map_or((&b""[..], path), |slash| (&path[..slash], &path[slash + 1..]))
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
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
        // The other systems' way sees the same of each name.
        let other = portable::Dir::open(&base).unwrap();
        for path in ["", "a", "a/b/file", "a/none", "a/b/file/x", "a/up", "loop", "absolute", "a/link"] {
            let (one, two) = (root.stat(path.as_bytes()).unwrap(), other.stat(path.as_bytes()).unwrap());
            let seen = |found: Option<Found>| {
                let found = found?;
                let size = if found.kind == EntryKind::File { found.size } else { 0 };
                Some((found.kind, size, found.mode, found.owner, found.mtime, found.linked))
            };
            assert_eq!(seen(one), seen(two), "{path}");
        }
        assert_eq!(root.readlink(b"a/up").unwrap(), other.readlink(b"a/up").unwrap());
        assert!(other.read(b"a/up").is_err() && other.read(b"a/b/file").is_ok());
        assert!(other.below(b"a").unwrap().read(b"b/file").is_ok());
        assert_eq!(other.list(b"a/b").unwrap(), [b"file"]);
        assert!(root.resolve(b"loop").is_err());
        assert!(root.resolve(b"a/b/file/x").is_err());
        // By hand past the resolution: the kernel refuses as well.
        assert!(root.read(b"a/up").is_err() && root.read(b"absolute/file").is_err());
        assert_eq!(root.resolve_to(b"a/link", false).unwrap().path, b"a/link");
        other.remove(b"a/b/file", false).unwrap();
        other.remove(b"a/b", true).unwrap();
        assert!(root.stat(b"a/b").unwrap().is_none());
    }
}
