//! Writing a layer on Linux: by directory handles, with the overlay's own whiteouts.
//!
//! Every path is resolved by the kernel within the layer's directory (`openat2`, `RESOLVE_IN_ROOT`), so symbolic
//! links of the archive lead where they would in a container and never outside. The parent of the last entry
//! stays open: archives list directories one after the other.
//!
//! What is written depends on [`Rights`]: devices and `trusted.overlay.opaque` by root only, otherwise devices are left
//! out and `user.overlay.opaque` is written; owners and capabilities also by root of a user namespace, as far as the
//! owners exist there.

mod below;
mod borrow;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::collections::HashSet;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::SeekFrom;
use rustix::fs::Stat;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::Uid;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::Content;
use super::Fault;
use super::Finished;
use super::Kind;
use super::Meta;
use super::Sink;
use super::is_allowed_xattr;
use super::join;
use super::split;
use crate::store::remove;
use below::Below;

const TOO_MANY_XATTRS: &str = "too many or too large extended attributes";

/// One write of this size takes most files whole.
const BUFFER: usize = 256 << 10;

/// What this process may give to files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    /// Everything: root of the system.
    All,
    /// Owners that the user namespace maps, no devices: root of a namespace.
    Mapped,
    /// Nothing: files are the user's.
    User,
}

#[derive(Debug)]
pub(super) struct LinuxSink {
    root: OwnedFd,
    rights: Rights,
    /// Entries whose owner could not be set.
    lost_owners: Cell<u64>,
    /// The directory that was used last, by path.
    parent: Option<(Vec<u8>, OwnedFd)>,
    /// Directories by path; what is set on them is set at the end, because adding files changes their times. `None` for
    /// one that no entry names: it is as the layers below have it.
    dirs: BTreeMap<Vec<u8>, Option<Meta>>,
    buffer: Vec<u8>,
    /// The layers below, if they are known.
    below: Option<Below>,
    needs_below: bool,
}

impl LinuxSink {
    pub(super) fn new(root: &Path) -> Result<Self, Fault> {
        Self::with_rights(root, rights())
    }

    pub(super) fn with_rights(root: &Path, rights: Rights) -> Result<Self, Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, root, flags, Mode::empty())?;
        let (parent, dirs, lost_owners) = (None, BTreeMap::new(), Cell::new(0));
        Ok(Self {
            root,
            rights,
            lost_owners,
            parent,
            dirs,
            buffer: vec![0; BUFFER],
            below: None,
            needs_below: false,
        })
    }

    /// Lets the layer refer to files of these, the uppermost first.
    pub(super) fn over(self, below: &[PathBuf]) -> Result<Self, Fault> {
        Ok(Self { below: Some(Below::open(below)?), ..self })
    }

    fn open_in_root(&self, path: &[u8], flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                // The kernel asks to try again when something was renamed meanwhile, somewhere on the system.
                Err(Errno::AGAIN | Errno::INTR) => {}
                other => return other,
            }
        }
    }

    /// Opens a directory of the layer, if it is one still.
    fn open_dir(&self, path: &[u8]) -> Result<Option<OwnedFd>, Fault> {
        match self.open_in_root(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            other => Ok(Some(other?)),
        }
    }

    /// What the layers below say of a directory that this one only has something in.
    fn meta_below(&self, dir: &OwnedFd) -> Result<Option<Meta>, Fault> {
        let Some(below) = &self.below else { return Ok(None) };
        // Links on the way are this layer's, so it is looked up where it really is.
        let place = |fd: BorrowedFd<'_>| rustix::fs::readlink(proc_path(fd, b""), Vec::new());
        let (root, dir) = match (place(self.root.as_fd()), place(dir.as_fd())) {
            // Deeper than any path is long: no layer below could be asked either.
            (_, Err(Errno::NAMETOOLONG)) => return Ok(None),
            (root, dir) => (root?.into_bytes(), dir?.into_bytes()),
        };
        let Some(path) = dir.strip_prefix(&root[..]) else { return Ok(None) };
        let mut meta = below.dir(path)?.map(|found| found.meta()).transpose()?;
        if let Some(meta) = meta.as_mut().filter(|_| self.rights == Rights::User) {
            // It is the user's, as everything is.
            (meta.uid, meta.gid) = (0, 0);
        }
        Ok(meta)
    }

    /// Opens the directory that holds `path`, making what is missing of it.
    fn enter(&mut self, dir: &[u8]) -> Result<(), Fault> {
        if self.parent.as_ref().is_some_and(|(path, _)| path == dir) {
            return Ok(());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = match self.open_in_root(dir, flags) {
            Err(Errno::NOENT | Errno::NOTDIR) => {
                self.make_dirs(dir)?;
                self.open_in_root(dir, flags)?
            }
            other => other?,
        };
        self.parent = Some((dir.to_vec(), fd));
        Ok(())
    }

    fn at(&self) -> BorrowedFd<'_> {
        self.parent.as_ref().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd())
    }

    /// Makes the directories of a path that are missing, as entries that come before their directory need.
    fn make_dirs(&mut self, dir: &[u8]) -> Result<(), Fault> {
        let ends = dir.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([dir.len()]);
        for end in ends {
            let prefix = &dir[..end];
            match self.open_in_root(prefix, OFlags::PATH | OFlags::DIRECTORY) {
                Ok(_) => continue,
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(e) => return Err(e.into()),
            }
            let (parent, name) = split(prefix);
            let fd = self.open_in_root(parent, OFlags::PATH | OFlags::DIRECTORY)?;
            match rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755)) {
                // A removed name that is made anew hides what was below it. Anything else is in the way.
                Err(Errno::EXIST) if is_whiteout(&stat(&fd, name)?) => {
                    rustix::fs::unlinkat(&fd, name, AtFlags::empty())?;
                    rustix::fs::mkdirat(&fd, name, Mode::from_raw_mode(0o755))?;
                    self.set_opaque(&fd, name)?;
                    self.dirs.insert(prefix.to_vec(), Some(unnamed()));
                }
                Err(Errno::EXIST) => return Err(Fault::bad("lies below something that is not a directory")),
                other => {
                    other?;
                    self.dirs.entry(prefix.to_vec()).or_insert(None);
                }
            }
        }
        Ok(())
    }

    /// Removes what has the name of a new entry.
    fn displace(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (_, name) = split(path);
        match rustix::fs::unlinkat(self.at(), name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        // Rare: a directory becomes something else within one layer.
        remove::tree(&proc_path(self.at(), name)).map_err(|e| Fault::Io(std::io::Error::other(e)))?;
        let below = join(path, b"");
        self.dirs.remove(path);
        let gone: Vec<_> = self
            .dirs
            .range(below.clone()..)
            .take_while(|(p, _)| p.starts_with(&below))
            .map(|(p, _)| p.clone())
            .collect();
        for path in gone {
            self.dirs.remove(&path);
        }
        Ok(())
    }

    /// Runs `make`, once more after removing what is in the way.
    fn replacing<T>(
        &mut self,
        path: &[u8],
        make: impl Fn(&Self, &[u8]) -> rustix::io::Result<T>,
    ) -> Result<T, Fault> {
        let (parent, name) = split(path);
        self.enter(parent)?;
        match make(self, name) {
            Err(Errno::EXIST) => {
                self.displace(path)?;
                Ok(make(self, name)?)
            }
            other => Ok(other?),
        }
    }

    fn set_opaque(&self, dir: &OwnedFd, name: &[u8]) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(dir, name, flags, Mode::empty())?;
        self.set_opaque_fd(&fd)
    }

    fn set_opaque_fd(&self, fd: &OwnedFd) -> Result<(), Fault> {
        if self.rights == Rights::All {
            match rustix::fs::fsetxattr(fd, c"trusted.overlay.opaque", b"y", XattrFlags::empty()) {
                // Root in a container may lack the capability; what it mounts is a `userxattr` overlay.
                Err(Errno::PERM) => {}
                other => return Ok(other?),
            }
        }
        Ok(rustix::fs::fsetxattr(fd, c"user.overlay.opaque", b"y", XattrFlags::empty())?)
    }

    /// One more name for a file of this layer; `false` if the layer has no such file.
    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<bool, Fault> {
        let (target_parent, target_name) = split(target);
        let from = match self.open_in_root(target_parent, OFlags::PATH | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(false),
            other => other?,
        };
        // Looked at before anything is displaced: the target may lie below what would be.
        match stat(&from, target_name) {
            Err(Errno::NOENT) => return Ok(false),
            Err(e) => return Err(e.into()),
            // The link was made before the name was removed.
            Ok(found) if is_whiteout(&found) => return Ok(false),
            Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::Directory => {
                return Err(Fault::bad("hard link to a directory"));
            }
            Ok(_) => {}
        }
        let linked = self.replacing(path, |sink, name| {
            match rustix::fs::linkat(&from, target_name, sink.at(), name, AtFlags::empty()) {
                // Two names that are links to each other already: nothing to do, and displacing could lose both.
                Err(Errno::EXIST) if same_file(&from, target_name, sink.at(), name) => Ok(()),
                other => other,
            }
        });
        match linked {
            Err(Fault::Io(e)) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Fault::bad("hard link to something that it replaces"))
            }
            other => other.map(|()| true),
        }
    }

    /// Owner first: changing it clears set-user-id bits and capabilities.
    fn set_meta(&self, fd: &OwnedFd, meta: &Meta) -> Result<(), Fault> {
        self.own(meta, |uid, gid| rustix::fs::fchown(fd, uid, gid))?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode))?;
        self.set_xattrs(meta, |name, value| rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()))?;
        rustix::fs::futimens(fd, &times(meta))?;
        Ok(())
    }

    /// As `set_meta` for what cannot be opened: links, devices, pipes.
    fn set_meta_at(&self, name: &[u8], meta: &Meta, is_link: bool) -> Result<(), Fault> {
        let at = self.at();
        self.own(meta, |uid, gid| rustix::fs::chownat(at, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW))?;
        if !is_link {
            rustix::fs::chmodat(at, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())?;
        }
        if !meta.xattrs.is_empty() {
            // There is no call that takes a directory and a name.
            let path = proc_path(at, name);
            self.set_xattrs(meta, |name, value| {
                match rustix::fs::lsetxattr(&path, name, value, XattrFlags::empty()) {
                    // The kernel keeps attributes of users on files and directories only.
                    Err(Errno::PERM) => Ok(()),
                    other => other,
                }
            })?;
        }
        Ok(rustix::fs::utimensat(at, name, &times(meta), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn own(
        &self,
        meta: &Meta,
        chown: impl Fn(Option<Uid>, Option<Gid>) -> rustix::io::Result<()>,
    ) -> Result<(), Fault> {
        let lost = || self.lost_owners.set(self.lost_owners.get() + 1);
        if self.rights == Rights::User {
            // Who made it is root of the containers that will use it.
            if (meta.uid, meta.gid) != (0, 0) {
                lost();
            }
            return Ok(());
        }
        match chown(Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid))) {
            // Not in the namespace's map.
            Err(Errno::INVAL) if self.rights == Rights::Mapped => {
                lost();
                Ok(())
            }
            other => Ok(other?),
        }
    }

    fn set_xattrs(
        &self,
        meta: &Meta,
        set: impl Fn(&std::ffi::CStr, &[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), Fault> {
        for (name, value) in meta.xattrs.iter().filter(|(name, _)| is_allowed_xattr(name)) {
            let is_acl = name.starts_with(b"system.");
            let name =
                CString::new(&name[..]).map_err(|_| Fault::bad("attribute name contains a zero byte"))?;
            match set(&name, value) {
                // Without privilege no capabilities; on some file systems no attributes of users.
                Err(Errno::PERM) if self.rights != Rights::All => {}
                Err(Errno::OPNOTSUPP) => {}
                // An access list may name users who do not exist here.
                Err(Errno::INVAL) if is_acl && self.rights != Rights::All => {}
                Err(Errno::INVAL) => return Err(Fault::bad("value of an extended attribute is not valid")),
                // File systems say "no space" when one file's attributes are more than they can keep.
                Err(Errno::TOOBIG | Errno::RANGE) => return Err(Fault::bad(TOO_MANY_XATTRS)),
                Err(Errno::NOSPC | Errno::DQUOT) if has_room(&self.root) => {
                    return Err(Fault::bad(TOO_MANY_XATTRS));
                }
                other => other?,
            }
        }
        Ok(())
    }
}

impl Sink for LinuxSink {
    fn dir(&mut self, path: &[u8], meta: Meta) -> Result<(), Fault> {
        if !path.is_empty() {
            let (parent, name) = split(path);
            self.enter(parent)?;
            let made = rustix::fs::mkdirat(self.at(), name, Mode::RWXU);
            if made == Err(Errno::EXIST) {
                let found = stat(self.at(), name)?;
                if FileType::from_raw_mode(found.st_mode) != FileType::Directory {
                    self.displace(path)?;
                    rustix::fs::mkdirat(self.at(), name, Mode::RWXU)?;
                    if is_whiteout(&found) {
                        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                        let fd = rustix::fs::openat(self.at(), name, flags, Mode::empty())?;
                        self.set_opaque_fd(&fd)?;
                    }
                }
            } else {
                made?;
            }
        }
        self.dirs.insert(path.to_vec(), Some(meta));
        Ok(())
    }

    fn file(&mut self, path: &[u8], meta: &Meta, size: u64, content: &mut dyn Content) -> Result<(), Fault> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let fd = self.replacing(path, |sink, name| rustix::fs::openat(sink.at(), name, flags, mode))?;
        let mut at = 0;
        while at < size {
            let hole = content.skip_hole();
            if hole > 0 {
                at += hole;
                // The size first, for a file that ends with a hole.
                rustix::fs::ftruncate(&fd, at).map_err(too_large)?;
                rustix::fs::seek(&fd, SeekFrom::Start(at))?;
                continue;
            }
            let n = content.read(&mut self.buffer)?;
            let mut rest = &self.buffer[..n];
            while !rest.is_empty() {
                match rustix::io::write(&fd, rest) {
                    Err(Errno::INTR) => {}
                    other => rest = &rest[other?..],
                }
            }
            at += n as u64;
        }
        self.set_meta(&fd, meta)
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<(), Fault> {
        self.replacing(path, |sink, name| rustix::fs::symlinkat(target, sink.at(), name))?;
        self.set_meta_at(split(path).1, meta, true)
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Fault> {
        if self.link(path, target)? {
            return Ok(());
        }
        let Some(mut below) = self.below.take() else {
            self.needs_below = true;
            return Ok(());
        };
        let borrowed = self.borrow(&mut below, path, target);
        self.below = Some(below);
        borrowed
    }

    fn node(&mut self, path: &[u8], kind: Kind, device: (u32, u32), meta: &Meta) -> Result<(), Fault> {
        let file_type = match kind {
            Kind::Char => FileType::CharacterDevice,
            Kind::Block => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if file_type != FileType::Fifo && self.rights != Rights::All {
            return Ok(());
        }
        let device = rustix::fs::makedev(device.0, device.1);
        let mode = Mode::from_raw_mode(meta.mode);
        let made = self.replacing(path, |sink, name| {
            match rustix::fs::mknodat(sink.at(), name, file_type, mode, device) {
                Err(Errno::PERM) if file_type != FileType::Fifo => Ok(false),
                other => other.map(|()| true),
            }
        })?;
        if made { self.set_meta_at(split(path).1, meta, false) } else { Ok(()) }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, name) = split(path);
        self.enter(parent)?;
        match rustix::fs::mknodat(self.at(), name, FileType::CharacterDevice, Mode::empty(), 0) {
            // A whiteout is about the layers below. A directory of this layer stays and hides what was below it.
            Err(Errno::EXIST) => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match rustix::fs::openat(self.at(), name, flags, Mode::empty()) {
                    Ok(dir) => {
                        // What was below is gone, so nothing of it is kept.
                        self.dirs.entry(path.to_vec()).or_default().get_or_insert_with(unnamed);
                        self.set_opaque_fd(&dir)
                    }
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(e) => Err(e.into()),
                }
            }
            other => Ok(other?),
        }
    }

    fn opaque(&mut self, dir: &[u8]) -> Result<(), Fault> {
        if dir.is_empty() {
            // An overlay does not ask a layer's root whether it is opaque: what is below has to be removed by name.
            match &self.below {
                None => self.needs_below = true,
                Some(below) => {
                    for name in below.root_names()? {
                        self.whiteout(&name)?;
                    }
                }
            }
        }
        self.enter(dir)?;
        let fd = self.open_in_root(dir, OFlags::RDONLY | OFlags::DIRECTORY)?;
        self.set_opaque_fd(&fd)
    }

    fn finish(mut self) -> Result<Finished, Fault> {
        self.parent = None;
        let dirs = std::mem::take(&mut self.dirs);
        let mut named = HashSet::new();
        if dirs.values().any(Option::is_none) {
            self.needs_below |= self.below.is_none();
            for (path, _) in dirs.iter().filter(|(_, meta)| meta.is_some()) {
                if let Some(fd) = self.open_dir(path)? {
                    named.insert(rustix::fs::fstat(fd)?.st_ino);
                }
            }
        }
        // Deepest first: a directory that may not be entered any more must be done after those within it.
        for (path, meta) in dirs.into_iter().rev() {
            let Some(fd) = self.open_dir(&path)? else { continue };
            let meta = match meta {
                Some(meta) => meta,
                // Under another path it has an entry.
                None if named.contains(&rustix::fs::fstat(&fd)?.st_ino) => continue,
                None => self.meta_below(&fd)?.unwrap_or_else(unnamed),
            };
            self.set_meta(&fd, &meta).map_err(|fault| fault.at(&path))?;
        }
        let borrowed = self.below.as_ref().map_or(0, |below| below.bytes);
        Ok(Finished { lost_owners: self.lost_owners.get(), borrowed, needs_below: self.needs_below })
    }
}

/// Root of the initial user namespace, of another one, or nobody in particular. A namespace that maps a single user is
/// no better than none.
fn rights() -> Rights {
    if !rustix::process::geteuid().is_root() {
        return Rights::User;
    }
    let map = fs_err::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let numbers: Vec<&str> = map.split_ascii_whitespace().collect();
    match numbers[..] {
        ["0", "0", "4294967295"] => Rights::All,
        [_, _, "1"] => Rights::User,
        _ => Rights::Mapped,
    }
}

/// A path to a name in an open directory; without a name, to the link that stands for the directory.
fn proc_path(dir: BorrowedFd<'_>, name: &[u8]) -> std::path::PathBuf {
    let name: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(name);
    let dir = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&dir));
    if name.is_empty() { dir.into() } else { Path::new(&dir).join(name) }
}

/// Of a directory without an entry: Docker's mode, whatever the umask, and a time that is always the same.
fn unnamed() -> Meta {
    Meta { mode: 0o755, ..Meta::default() }
}

fn too_large(errno: Errno) -> Fault {
    match errno {
        Errno::FBIG => Fault::bad("is larger than files can be here"),
        other => other.into(),
    }
}

/// Whether the file system could still take a file. A file system without a fixed size says 0 of 0.
fn has_room(fd: impl AsFd) -> bool {
    /// Less than this, in bytes, counts as full.
    const FULL: u64 = 1 << 20;
    rustix::fs::fstatvfs(fd).is_ok_and(|s| {
        (s.f_blocks == 0 || s.f_bavail.saturating_mul(s.f_frsize) >= FULL)
            && (s.f_files == 0 || s.f_favail > 0)
    })
}

fn stat(dir: impl AsFd, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
}

fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

fn same_file(a: impl AsFd, a_name: &[u8], b: impl AsFd, b_name: &[u8]) -> bool {
    match (stat(a, a_name), stat(b, b_name)) {
        (Ok(a), Ok(b)) => (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino),
        _ => false,
    }
}

fn times(meta: &Meta) -> Timestamps {
    let time = Timespec { tv_sec: meta.mtime.0, tv_nsec: i64::from(meta.mtime.1) };
    Timestamps { last_access: time, last_modification: time }
}
