//! What the layers below have under a name, for a layer that cannot be understood without them.
//!
//! Directories of unpacked layers are looked through as the kernel's overlay would show them: the uppermost layer that
//! has a name decides, whiteouts and opaque directories hide, symbolic links on the way are followed within the root.
//! Nothing is mounted, so this works for every user.

use std::collections::HashMap;
use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::AsFd as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::CWD;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Stat;
use rustix::io::Errno;

use super::Fault;
use super::Meta;
use super::is_allowed_xattr;
use super::is_whiteout;
use super::proc_path;
use super::stat;

/// Links on the way to one name, as the kernel has it.
const MAX_LINKS: usize = 40;
/// Names that are looked up for one target: a long way of links back and forth must end.
const MAX_STEPS: usize = 20_000;
/// The kernel's limit of one value, and of a list of names.
const MAX_XATTR: usize = 64 << 10;

/// Directories that show one, the uppermost first.
type Stack = Vec<Rc<OwnedFd>>;

/// The unpacked layers below one.
#[derive(Debug)]
pub(super) struct Below {
    roots: Stack,
    /// What was copied from below: its place there, its path in the layer, and the copy's own inode.
    pub(super) copies: HashMap<(u64, u64), (Vec<u8>, u64)>,
    /// Bytes of all copies.
    pub(super) bytes: u64,
}

/// A file or directory of a layer below.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) dir: Rc<OwnedFd>,
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
}

/// What a name in a directory is.
enum Step {
    Nothing,
    Dirs(Stack),
    Leaf(Rc<OwnedFd>, Stat),
}

impl Below {
    /// Opens the layers' directories, the uppermost first.
    pub(super) fn open(layers: &[PathBuf]) -> Result<Self, Fault> {
        let open = |path: &PathBuf| Ok(Rc::new(rustix::fs::openat(CWD, path, dir_flags(), Mode::empty())?));
        let roots = layers.iter().map(open).collect::<Result<_, Fault>>()?;
        Ok(Self { roots, copies: HashMap::new(), bytes: 0 })
    }

    /// Finds what a clean path names; `None` if that is nothing.
    pub(super) fn find(&self, path: &[u8]) -> Result<Option<Found>, Fault> {
        let mut todo: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let (mut at, mut dirs): (Vec<Vec<u8>>, Stack) = (Vec::new(), self.roots.clone());
        let (mut links, mut steps) = (0, 0);
        while let Some(name) = todo.pop() {
            steps += 1;
            if name == b".." {
                at.pop();
                steps += at.len();
                dirs = self.walk(&at)?;
            }
            if steps > MAX_STEPS || links > MAX_LINKS {
                return Err(Fault::bad("hard link to something below too many symbolic links"));
            }
            if name == b".." {
                continue;
            }
            match step(&dirs, &name)? {
                Step::Leaf(dir, stat) if todo.is_empty() => return Ok(Some(Found { dir, name, stat })),
                Step::Leaf(dir, stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
                    links += 1;
                    let target = rustix::fs::readlinkat(&*dir, &name[..], Vec::new())?.into_bytes();
                    if target.starts_with(b"/") {
                        at.clear();
                        dirs.clone_from(&self.roots);
                    }
                    todo.extend(components(&target).map(<[u8]>::to_vec));
                }
                Step::Dirs(_) if todo.is_empty() => return Err(Fault::bad("hard link to a directory")),
                Step::Dirs(found) => {
                    at.push(name);
                    dirs = found;
                }
                Step::Leaf(..) | Step::Nothing => return Ok(None),
            }
        }
        Ok(None)
    }

    /// The directory of this path, if it is one. Links on the way are none.
    pub(super) fn dir(&self, path: &[u8]) -> Result<Option<Found>, Fault> {
        let mut path: Vec<&[u8]> = components(path).collect();
        let mut dirs = self.roots.clone();
        while let Some(name) = path.pop() {
            let Step::Dirs(found) = step(&dirs, name)? else { return Ok(None) };
            dirs = found;
        }
        let Some(dir) = dirs.into_iter().next() else { return Ok(None) };
        let stat = rustix::fs::fstat(&*dir)?;
        Ok(Some(Found { dir, name: b".".to_vec(), stat }))
    }

    /// Every name that is seen in the root.
    pub(super) fn root_names(&self) -> Result<HashSet<Vec<u8>>, Fault> {
        let mut names = HashSet::new();
        for root in &self.roots {
            for entry in Dir::read_from(&**root)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if !matches!(name, b"." | b"..") {
                    names.insert(name.to_vec());
                }
            }
        }
        Ok(names)
    }

    /// The directories behind a path without links.
    fn walk(&self, path: &[Vec<u8>]) -> Result<Stack, Fault> {
        let mut dirs = self.roots.clone();
        for name in path {
            dirs = match step(&dirs, name)? {
                Step::Dirs(found) => found,
                // It was a directory just now.
                _ => return Err(Errno::NOTDIR.into()),
            };
        }
        Ok(dirs)
    }
}

impl Found {
    /// What an entry of an archive would say of it.
    pub(super) fn meta(&self) -> Result<Meta, Fault> {
        let path = proc_path(self.dir.as_fd(), &self.name);
        let mut xattrs = Vec::new();
        let mut names = vec![0; MAX_XATTR];
        let length = match rustix::fs::llistxattr(&path, &mut names[..]) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => 0,
            other => other?,
        };
        for name in names[..length].split(|b| *b == 0).filter(|name| is_allowed_xattr(name)) {
            let mut value = vec![0; MAX_XATTR];
            let length = rustix::fs::lgetxattr(&path, name, &mut value[..])?;
            value.truncate(length);
            xattrs.push((name.to_vec(), value));
        }
        Ok(Meta {
            mode: self.stat.st_mode & 0o7777,
            uid: self.stat.st_uid,
            gid: self.stat.st_gid,
            mtime: (self.stat.st_mtime, u32::try_from(self.stat.st_mtime_nsec).unwrap_or_default()),
            xattrs,
        })
    }
}

fn step(dirs: &[Rc<OwnedFd>], name: &[u8]) -> rustix::io::Result<Step> {
    let mut found: Stack = Vec::new();
    for dir in dirs {
        let stat = match stat(&**dir, name) {
            Err(Errno::NOENT) => continue,
            other => other?,
        };
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let fd = rustix::fs::openat(&**dir, name, dir_flags(), Mode::empty())?;
            let hides = is_opaque(&fd);
            found.push(Rc::new(fd));
            if hides {
                break;
            }
        } else if found.is_empty() && !is_whiteout(&stat) {
            return Ok(Step::Leaf(Rc::clone(dir), stat));
        } else {
            break;
        }
    }
    Ok(if found.is_empty() { Step::Nothing } else { Step::Dirs(found) })
}

fn is_opaque(dir: &OwnedFd) -> bool {
    const NAMES: [&CStr; 2] = [c"trusted.overlay.opaque", c"user.overlay.opaque"];
    let mut value = [0; 1];
    NAMES.iter().any(|name| rustix::fs::fgetxattr(dir, *name, &mut value[..]) == Ok(1) && value == *b"y")
}

fn dir_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

/// The last one first.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.rsplit(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."))
}
