//! From a directory to a layer: what a container changed becomes a tar archive that says the same.
//!
//! The opposite of extraction, for the same marks of removal: the kernel overlay's (a character device 0:0, the
//! attribute `overlay.opaque`, both in the `trusted.` and the `user.` name space) and the portable names `.wh.NAME`
//! and `.wh..wh..opq`. The overlay must have been mounted with `redirect_dir` and `metacopy` off.
//!
//! Directories are listed in the order of their names, and everything below one follows it. So the same tree gives
//! the same archive, whoever wrote it in which order. Symbolic links are never followed, and only a few directories
//! are open however deep the tree is.

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::io::Write;
use std::os::fd::AsFd as _;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::extract::OPAQUE;
use super::extract::RESERVED;
use super::extract::WHITEOUT;
use super::extract::is_allowed_xattr;
use super::extract::join;
use super::tar::Entry;
use super::tar::Kind;
use super::tar::MAX_PATH;
use super::tar::Meta;
use super::write::TarWriter;
use crate::Error;
use crate::error::Result;

/// Directories that are open at once, at most about.
const MAX_OPEN: usize = 32;
/// Most bytes of all attribute names of one file, and of one value: the kernel's limits.
const MAX_XATTR: usize = 64 << 10;

/// How a directory says what is removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Marks {
    /// As the kernel's overlay does. A file with a name that would be a mark in a layer (`.wh.…`) is an error.
    #[default]
    Kernel,
    /// By OCI's names, as the union of Wasm containers does; the kernel's marks are understood as well.
    Portable,
    /// Not at all: it is a whole tree, for example a mounted image.
    None,
}

/// What to make of a directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct DiffOptions {
    /// How removed names are marked.
    pub marks: Marks,
    /// Everything belongs to this user and group, instead of whom it belongs to. For trees whose owners mean nothing,
    /// as those of Wasm containers.
    pub owner: Option<(u32, u32)>,
    /// Times after this one, in seconds since 1970, become this one (`SOURCE_DATE_EPOCH`).
    pub latest: Option<i64>,
}

/// What [`write_diff`] wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiffSummary {
    /// Entries of the archive.
    pub entries: u64,
    /// Bytes of regular files.
    pub size: u64,
}

/// Writes the layer that makes, on top of the layers below `upper`, what `upper` makes. The root directory itself is
/// not in it, and neither are sockets, which mean nothing without the process behind them.
///
/// The bytes depend on the files alone, and on `options`. Nothing of the tree may change meanwhile.
///
/// # Errors
/// [`Error::NotALayer`] for what a layer cannot say, and those of the disk and of `out`.
pub fn write_diff(upper: &Path, options: &DiffOptions, out: &mut dyn Write) -> Result<DiffSummary> {
    let mut diff = Diff {
        tree: Tree::open(upper)?,
        options: *options,
        out: TarWriter::new(out),
        links: HashMap::new(),
        summary: DiffSummary::default(),
    };
    diff.run().map_err(|(path, e)| e.into_error(upper, &path))?;
    diff.out.finish()?;
    Ok(diff.summary)
}

/// Why an entry could not be written.
enum Failure {
    Io(io::Error),
    Bad(&'static str),
}

impl Failure {
    fn into_error(self, root: &Path, path: &[u8]) -> Error {
        let path = String::from_utf8_lossy(path).into_owned();
        match self {
            Self::Bad(reason) => Error::NotALayer { path, reason: reason.to_owned() },
            Self::Io(e) => Error::io(root.join(path).display(), e),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<Errno> for Failure {
    fn from(e: Errno) -> Self {
        Self::Io(e.into())
    }
}

struct Diff<'o> {
    tree: Tree,
    options: DiffOptions,
    out: TarWriter<&'o mut dyn Write>,
    /// First names of files that have several.
    links: HashMap<(u64, u64), Vec<u8>>,
    summary: DiffSummary,
}

impl Diff<'_> {
    fn run(&mut self) -> std::result::Result<(), (Vec<u8>, Failure)> {
        self.tree.enter(Vec::new()).map_err(|e| (Vec::new(), e))?;
        while let Some((dir, name)) = self.tree.next() {
            let path = join(&dir, name.as_bytes());
            self.entry(&dir, &name, &path).map_err(|e| (path, e))?;
        }
        Ok(())
    }

    fn entry(&mut self, dir: &[u8], name: &CString, path: &[u8]) -> std::result::Result<(), Failure> {
        let stat = rustix::fs::statat(self.tree.dir()?, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let bytes = name.as_bytes();
        if bytes.starts_with(WHITEOUT) && self.options.marks != Marks::None {
            match self.options.marks {
                Marks::Portable if bytes == OPAQUE => return self.mark(path.to_vec()),
                // What the union had not finished.
                Marks::Portable if bytes.starts_with(RESERVED) => return Ok(()),
                Marks::Portable if kind == FileType::RegularFile => return self.mark(path.to_vec()),
                _ => return Err(Failure::Bad("has a name that would remove another file")),
            }
        }
        if path.len() + WHITEOUT.len() >= MAX_PATH {
            return Err(Failure::Bad("its path is too long"));
        }
        let has_marks = self.options.marks != Marks::None;
        if has_marks && kind == FileType::CharacterDevice && stat.st_rdev == 0 {
            return self.mark(join(dir, &[WHITEOUT, bytes].concat()));
        }
        let mut entry = self.describe(&stat, path);
        match kind {
            FileType::Directory => {
                let fd = self.tree.open_entry(name, OFlags::RDONLY | OFlags::DIRECTORY)?;
                let attributes = xattrs(&fd_path(&fd))?;
                let opaque = has_marks && is_opaque(&attributes);
                entry.meta.xattrs = allowed(attributes);
                self.write(&entry, &mut io::empty())?;
                self.tree.enter(path.to_vec())?;
                if opaque {
                    self.mark(join(path, OPAQUE))?;
                }
                return Ok(());
            }
            // Nothing can be connected to it any more.
            FileType::Socket => return Ok(()),
            _ => {}
        }
        if stat.st_nlink > 1 {
            let first = self.links.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| path.to_vec());
            if first != path {
                entry.kind = Kind::HardLink;
                entry.link.clone_from(first);
                return self.write(&entry, &mut io::empty());
            }
        }
        match kind {
            FileType::RegularFile => self.file(name, entry),
            FileType::Symlink => {
                entry.kind = Kind::Symlink;
                entry.link = rustix::fs::readlinkat(self.tree.dir()?, name, Vec::new())?.into_bytes();
                self.special(name, entry)
            }
            FileType::CharacterDevice | FileType::BlockDevice => {
                entry.kind = if kind == FileType::CharacterDevice { Kind::Char } else { Kind::Block };
                entry.device = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
                self.special(name, entry)
            }
            FileType::Fifo => {
                entry.kind = Kind::Fifo;
                self.special(name, entry)
            }
            _ => Err(Failure::Bad("is of an unknown kind")),
        }
    }

    fn describe(&self, stat: &Stat, path: &[u8]) -> Entry {
        let nanos = u32::try_from(stat.st_mtime_nsec).unwrap_or_default();
        let mtime = match self.options.latest {
            Some(latest) if (stat.st_mtime, nanos) > (latest, 0) => (latest, 0),
            _ => (stat.st_mtime, nanos),
        };
        let (uid, gid) = self.options.owner.unwrap_or((stat.st_uid, stat.st_gid));
        let meta = Meta { mode: stat.st_mode & 0o7777, uid, gid, mtime, xattrs: Vec::new() };
        let kind =
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory { Kind::Dir } else { Kind::File };
        Entry { path: path.to_vec(), kind, link: Vec::new(), size: 0, sparse: None, meta, device: (0, 0) }
    }

    fn file(&mut self, name: &CString, mut entry: Entry) -> std::result::Result<(), Failure> {
        // Should somebody have put a pipe there meanwhile, opening it must not wait for its writer.
        let fd = self.tree.open_entry(name, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let attributes = xattrs(&fd_path(&fd))?;
        if self.options.marks != Marks::None && is_whiteout(&attributes) {
            let (dir, _) = super::extract::split(&entry.path);
            return self.mark(join(dir, &[WHITEOUT, name.as_bytes()].concat()));
        }
        entry.meta.xattrs = allowed(attributes);
        entry.size = u64::try_from(rustix::fs::fstat(&fd)?.st_size).unwrap_or_default();
        self.summary.size += entry.size;
        let mut file = std::fs::File::from(fd);
        match self.write(&entry, &mut file) {
            Err(Failure::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
                Err(Failure::Bad("became shorter while it was read"))
            }
            other => other,
        }
    }

    /// What cannot be opened without consequences.
    fn special(&mut self, name: &CString, mut entry: Entry) -> std::result::Result<(), Failure> {
        let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name.as_bytes());
        entry.meta.xattrs = allowed(xattrs(&fd_path(self.tree.dir()?).join(name))?);
        self.write(&entry, &mut io::empty())
    }

    /// A name that removes something from the layers below.
    fn mark(&mut self, path: Vec<u8>) -> std::result::Result<(), Failure> {
        if path.len() >= MAX_PATH {
            return Err(Failure::Bad("its path is too long"));
        }
        let meta = Meta { mode: 0o600, ..Meta::default() };
        let (kind, link) = (Kind::File, Vec::new());
        let entry = Entry { path, kind, link, size: 0, sparse: None, meta, device: (0, 0) };
        self.write(&entry, &mut io::empty())
    }

    fn write(&mut self, entry: &Entry, content: &mut dyn io::Read) -> std::result::Result<(), Failure> {
        self.summary.entries += 1;
        Ok(self.out.append(entry, content)?)
    }
}

/// A walk through a tree: parents first, names sorted.
struct Tree {
    root: OwnedFd,
    /// The directories above the current entry, the innermost last.
    levels: Vec<Level>,
}

struct Level {
    path: Vec<u8>,
    /// Closed when the walk is far below.
    fd: Option<OwnedFd>,
    /// Sorted backwards: the next one is the last.
    names: Vec<CString>,
}

impl Tree {
    fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())
            .map_err(|e| Error::io(root.display(), e.into()))?;
        Ok(Self { root, levels: Vec::new() })
    }

    /// The next entry: its directory and its name.
    fn next(&mut self) -> Option<(Vec<u8>, CString)> {
        loop {
            let level = self.levels.last_mut()?;
            if let Some(name) = level.names.pop() {
                return Some((level.path.clone(), name));
            }
            drop(self.levels.pop());
        }
    }

    /// Goes into a directory: its entries are next.
    fn enter(&mut self, path: Vec<u8>) -> std::result::Result<(), Failure> {
        let fd = self.reopen(&path)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(&fd)? {
            let entry = entry?;
            if entry.file_name() != c"." && entry.file_name() != c".." {
                names.push(entry.file_name().to_owned());
            }
        }
        // A mark takes the place of the name that it removes, so that both forms give the same archive.
        names.sort_by_cached_key(|name| std::cmp::Reverse(sort_key(name.as_bytes())));
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN) {
            self.levels[far].fd = None;
        }
        self.levels.push(Level { path, fd: Some(fd), names });
        Ok(())
    }

    /// The directory of the current entry.
    fn dir(&mut self) -> std::result::Result<&OwnedFd, Failure> {
        let closed =
            self.levels.last().filter(|level| level.fd.is_none()).map(|level| self.reopen(&level.path));
        if let (Some(reopened), Some(level)) = (closed, self.levels.last_mut()) {
            level.fd = Some(reopened?);
        }
        Ok(self.levels.last().and_then(|level| level.fd.as_ref()).unwrap_or(&self.root))
    }

    /// Opens an entry of the current directory.
    fn open_entry(&mut self, name: &CString, flags: OFlags) -> std::result::Result<OwnedFd, Failure> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(self.dir()?, name, flags, Mode::empty())?)
    }

    fn reopen(&self, path: &[u8]) -> std::result::Result<OwnedFd, Failure> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // Something was renamed meanwhile, somewhere on the system.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return Ok(other?),
            }
        }
    }
}

fn sort_key(name: &[u8]) -> (bool, Vec<u8>) {
    (name != OPAQUE, name.strip_prefix(WHITEOUT).unwrap_or(name).to_vec())
}

fn fd_path(fd: &OwnedFd) -> std::path::PathBuf {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// All attributes of what a path names; of a link itself, unless the path is that of an open file.
fn xattrs(path: &Path) -> std::result::Result<Xattrs, Failure> {
    let is_open_file = path.parent() == Some(Path::new("/proc/self/fd"));
    let mut names = vec![0; MAX_XATTR];
    let listed = if is_open_file {
        rustix::fs::listxattr(path, &mut names[..])
    } else {
        rustix::fs::llistxattr(path, &mut names[..])
    };
    match listed {
        Ok(length) => names.truncate(length),
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    }
    let mut all = Vec::new();
    for name in names.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; MAX_XATTR];
        let read = if is_open_file {
            rustix::fs::getxattr(path, name, &mut value[..])
        } else {
            rustix::fs::lgetxattr(path, name, &mut value[..])
        };
        match read {
            Ok(length) => value.truncate(length),
            // Removed meanwhile, or only for others to see.
            Err(Errno::NODATA | Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => continue,
            Err(e) => return Err(e.into()),
        }
        all.push((name.to_vec(), value));
    }
    all.sort_unstable();
    Ok(all)
}

fn allowed(xattrs: Xattrs) -> Xattrs {
    xattrs.into_iter().filter(|(name, _)| is_allowed_xattr(name)).collect()
}

/// `x` is said of directories whose removed names are files with an attribute; they hide nothing else.
fn is_opaque(xattrs: &Xattrs) -> bool {
    xattrs.iter().any(|(name, value)| {
        matches!(&name[..], b"trusted.overlay.opaque" | b"user.overlay.opaque") && value == b"y"
    })
}

fn is_whiteout(xattrs: &Xattrs) -> bool {
    xattrs.iter().any(|(name, _)| matches!(&name[..], b"trusted.overlay.whiteout" | b"user.overlay.whiteout"))
}

#[cfg(test)]
mod tests;
