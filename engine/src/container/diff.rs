//! `diff`: what a container has changed of its image, read off its writable directory.
//!
//! Every name in it was added, or covers one of the layers below: which of the two, the layers tell. Names are looked up by
//! handle and one component at a time; no symbolic link is followed.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;

use dhow_images::Marks;
use dhow_runtime::Kind;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::engine::Engine;
use crate::error::Result;
use crate::record::Container;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that the union keeps for itself.
const RESERVED: &[u8] = b".wh..wh.";

/// What became of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// The image has it not.
    Added,
    /// The image has another one.
    Changed,
    /// Only the image has it.
    Deleted,
}

impl ChangeKind {
    /// Docker's letter.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Changed => 'C',
            Self::Deleted => 'D',
        }
    }
}

/// One name that is not as the image has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// From the container's root; what is not UTF-8 is replaced.
    pub path: String,
    /// What became of it.
    pub kind: ChangeKind,
}

impl Engine {
    /// The names a container has added, changed and deleted, in order. Of a container that runs, more may change meanwhile.
    ///
    /// # Errors
    /// When a directory cannot be read.
    pub fn diff(&self, container: &Container) -> Result<Vec<Change>> {
        let record = &container.record;
        let upper = self.data_folder(container).join("upper");
        let mut changes = Changes {
            upper: match open_root(&upper) {
                Err(Errno::NOENT) => return Ok(Vec::new()),
                opened => opened.map_err(|errno| named(&upper, errno))?,
            },
            lower: Vec::new(),
            portable: super::export::writable(record)?.marks == Marks::Portable,
            found: Vec::new(),
        };
        if let Some(image) = &record.image {
            for layer in self.lower(image, record.kind)?.iter().rev() {
                changes.lower.push(open_root(&layer.path).map_err(|errno| named(&layer.path, errno))?);
            }
        }
        if record.kind == Kind::Native {
            let skeleton = self.root().join("skeleton");
            changes.lower.extend(open_root(&skeleton).ok());
        }
        changes.directory(Vec::new()).map_err(|errno| named(&upper, errno))?;
        changes.found.sort_by(|a, b| a.0.cmp(&b.0));
        let text = |path: Vec<u8>| format!("/{}", String::from_utf8_lossy(&path));
        Ok(changes.found.into_iter().map(|(path, kind)| Change { path: text(path), kind }).collect())
    }
}

fn named(path: &Path, errno: Errno) -> std::io::Error {
    let error = std::io::Error::from(errno);
    std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
}

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Changes {
    upper: OwnedFd,
    /// The uppermost first.
    lower: Vec<OwnedFd>,
    /// Removed names are files with names of their own.
    portable: bool,
    found: Vec<(Vec<u8>, ChangeKind)>,
}

impl Changes {
    /// What one directory of the upper says, and all below it. An explicit list, as directories may be nested deeply.
    fn directory(&mut self, root: Vec<u8>) -> rustix::io::Result<()> {
        let mut todo = vec![root];
        while let Some(path) = todo.pop() {
            let dir = open_below(&self.upper, &path)?;
            let mut names = BTreeSet::new();
            let mut opaque = is_opaque(&dir);
            for entry in Dir::read_from(&dir)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name == b"." || name == b".." {
                    continue;
                }
                if self.portable && name.starts_with(RESERVED) {
                    opaque |= name == OPAQUE;
                    continue;
                }
                names.insert(name);
            }
            let mut seen = BTreeSet::new();
            for name in names {
                let stat = match rustix::fs::statat(&dir, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    stat => stat?,
                };
                let removed = match name.strip_prefix(WHITEOUT) {
                    Some(removed) if self.portable => Some(removed.to_vec()),
                    _ => is_kernel_whiteout(&stat).then(|| name.clone()),
                };
                if let Some(name) = removed {
                    seen.insert(name.clone());
                    let path = join(&path, &name);
                    if self.below(&path)?.is_some() {
                        self.found.push((path, ChangeKind::Deleted));
                    }
                    continue;
                }
                seen.insert(name.clone());
                let path = join(&path, &name);
                let is_dir = kind(&stat) == FileType::Directory;
                match self.below(&path)? {
                    None => self.found.push((path.clone(), ChangeKind::Added)),
                    // A directory that was only passed through.
                    Some(below) if is_dir && same_directory(&stat, &below) => {}
                    Some(_) => self.found.push((path.clone(), ChangeKind::Changed)),
                }
                if is_dir {
                    todo.push(path);
                }
            }
            if opaque {
                for name in self.names_below(&path)?.difference(&seen) {
                    self.found.push((join(&path, name), ChangeKind::Deleted));
                }
            }
        }
        Ok(())
    }

    /// What the layers below show at a path.
    fn below(&self, path: &[u8]) -> rustix::io::Result<Option<Stat>> {
        for layer in &self.lower {
            match look(layer, path)? {
                Seen::Here(stat) => return Ok(Some(stat)),
                Seen::Hidden => return Ok(None),
                Seen::Nothing => {}
            }
        }
        Ok(None)
    }

    /// The names the layers below show in a directory.
    fn names_below(&self, path: &[u8]) -> rustix::io::Result<BTreeSet<Vec<u8>>> {
        let mut names = BTreeSet::new();
        for layer in &self.lower {
            let Ok(dir) = open_below(layer, path) else { continue };
            for entry in Dir::read_from(&dir)? {
                let name = entry?.file_name().to_bytes().to_vec();
                if name != b"." && name != b".." && self.below(&join(path, &name))?.is_some() {
                    names.insert(name);
                }
            }
        }
        Ok(names)
    }
}

/// What one layer says about a path.
enum Seen {
    Here(Stat),
    /// It is not there, and whatever lower layers have does not show.
    Hidden,
    /// Lower layers decide.
    Nothing,
}

fn look(layer: &OwnedFd, path: &[u8]) -> rustix::io::Result<Seen> {
    let mut opaque = false;
    let mut end = 0;
    loop {
        let next =
            path[end..].iter().skip(1).position(|byte| *byte == b'/').map_or(path.len(), |at| end + 1 + at);
        let last = next == path.len();
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match rustix::fs::openat2(layer, &path[..next], flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) if opaque => return Ok(Seen::Hidden),
            Err(Errno::NOENT) => return Ok(Seen::Nothing),
            Err(Errno::AGAIN | Errno::INTR) => continue,
            found => found?,
        };
        let stat = rustix::fs::fstat(&found)?;
        if is_kernel_whiteout(&stat) {
            return Ok(Seen::Hidden);
        }
        if last {
            return Ok(Seen::Here(stat));
        }
        if kind(&stat) != FileType::Directory {
            return Ok(Seen::Hidden);
        }
        opaque |= is_opaque(&open_below(layer, &path[..next])?);
        end = next;
    }
}

fn open_below(root: &OwnedFd, path: &[u8]) -> rustix::io::Result<OwnedFd> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    loop {
        match rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
            // Something was renamed meanwhile, somewhere on the system.
            Err(Errno::AGAIN | Errno::INTR) => {}
            opened => return opened,
        }
    }
}

fn is_opaque(dir: &OwnedFd) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0; 8];
        rustix::fs::fgetxattr(dir, *name, &mut value[..]).is_ok_and(|length| length == 1 && value[0] == b'y')
    })
}

fn is_kernel_whiteout(stat: &Stat) -> bool {
    kind(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// As Docker compares them: what is in a directory says the rest.
fn same_directory(one: &Stat, other: &Stat) -> bool {
    kind(other) == FileType::Directory
        && (one.st_mode, one.st_uid, one.st_gid) == (other.st_mode, other.st_uid, other.st_gid)
        && (one.st_mtime, one.st_mtime_nsec) == (other.st_mtime, other.st_mtime_nsec)
}

fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    if path.is_empty() { name.to_vec() } else { [path, b"/", name].concat() }
}
