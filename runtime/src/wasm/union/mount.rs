//! Building the tree from a bundle: the root's layers, then the specification's mounts in their order.
//!
//! Bind mounts appear in the tree; a missing mount point is made in the writable directory, as every runtime does.
//! Kernel file systems (`proc`, `sysfs`, ...) mean nothing to a Wasm guest and are left out.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex};

use super::errno::Errno;
use super::fs::Fs;
use super::host::{Dir, Kind};
use super::node::{Entry, Leaf, Node, Source};
use super::{Open, Union, lock};
use crate::bundle::{Bundle, Layer, Root};
use crate::error::{Error, Result};
use crate::spec::Mount;
use crate::wasm::options::Backing;

/// Kernel file systems that native containers get by default.
const KERNEL_TYPES: [&str; 8] =
    ["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "debugfs"];

impl Union {
    /// The tree a bundle describes, still writable.
    pub(in crate::wasm) fn of_bundle(bundle: &Bundle) -> Result<Self> {
        let mut union = match &bundle.root {
            Root::Dir(path) => Self::plain(path)?,
            Root::Layers { lower, upper, work, merged }
                if bundle.wasm.files == Backing::Kernel && !lower.is_empty() =>
            {
                Self::kernel(lower, upper, work, merged)?
            }
            Root::Layers { lower, upper, .. } => Self::layered(upper, lower)?,
        };
        for mount in bundle.spec.mounts().iter().flatten() {
            union.add_mount(mount)?;
        }
        Ok(union)
    }

    /// From now on nothing in the root may be changed. Mounts keep their own rules.
    pub(in crate::wasm) fn set_readonly(&self) {
        self.root.fs.set_readonly();
    }

    /// One directory, used as it is.
    pub(in crate::wasm) fn plain(path: &Path) -> Result<Self> {
        let source = source(path, 0, open(path)?)?;
        Ok(Self::over(Fs::new(1, false, false).at_home(source.id.0), vec![source]))
    }

    /// `upper` over `lower`, which is ordered lowest first.
    pub(in crate::wasm) fn layered(upper: &Path, lower: &[Layer]) -> Result<Self> {
        let mut stack = Vec::with_capacity(lower.len() + 1);
        // A container that has written nothing may have no writable directory yet: the first look at the root finds it.
        let writable = if lower.is_empty() { Some(open(upper)?) } else { None };
        for (index, layer) in lower.iter().rev().enumerate() {
            stack.push(source(&layer.path, index + 1, open(&layer.path)?)?);
        }
        let union = Self::over(Fs::new(1, true, false).with_layers(upper, lower.len()), stack);
        if let Some(dir) = writable {
            union.root.found_upper(dir, false).map_err(|errno| errno_at(upper, errno))?;
        }
        Ok(union)
    }

    /// The same by the kernel's overlay.
    #[cfg(target_os = "linux")]
    pub(in crate::wasm) fn kernel(lower: &[Layer], upper: &Path, work: &Path, merged: &Path) -> Result<Self> {
        let dir = Dir::from_fd(super::kernel::open_overlay(lower, upper, work, merged)?);
        let source = source(merged, 0, dir)?;
        Ok(Self::over(Fs::new(1, false, false).at_home(source.id.0), vec![source]))
    }

    /// There is none on this system.
    #[cfg(not(target_os = "linux"))]
    pub(in crate::wasm) fn kernel(_: &[Layer], _: &Path, _: &Path, _: &Path) -> Result<Self> {
        Err(Error::Host {
            what: "this system has no overlay file system".to_owned(),
            hint: "leave out `--storage-opt files=kernel`".to_owned(),
        })
    }

    fn over(fs: Fs, stack: Vec<Source>) -> Self {
        Self {
            root: Node::new(Arc::new(fs), None, stack),
            recent: Mutex::new(VecDeque::new()),
            mount_parents: Vec::new(),
        }
    }

    fn add_mount(&mut self, mount: &Mount) -> Result<()> {
        let destination = mount.destination();
        let options = mount.options().as_deref().unwrap_or_default();
        let has = |name: &str| options.iter().any(|option| option == name);
        let bind = has("bind") || has("rbind");
        match mount.typ().as_deref() {
            _ if bind => {}
            Some("bind" | "none") => {}
            Some(kernel) if KERNEL_TYPES.contains(&kernel) => return Ok(()),
            // The default specification's /dev and /dev/shm.
            Some("tmpfs") if destination.starts_with("/dev") => return Ok(()),
            Some("tmpfs") => return self.memory(mount, &options.join(","), has("ro")),
            other => {
                let kind = other.unwrap_or("(none)");
                let reason =
                    format!("the wasm executor has no mounts of type {kind} ({})", destination.display());
                return Err(Error::InvalidSpec { field: "mounts", reason });
            }
        }
        let source = mount.source().clone().ok_or_else(|| Error::InvalidSpec {
            field: "mounts",
            reason: format!("the bind mount at {} has no source", destination.display()),
        })?;
        self.bind(&source, destination, has("ro"))
    }

    /// A file system in memory where this process may make one: it has no place on the host and goes with its last
    /// handle. Elsewhere, where the mount's source is an absolute path, a directory there, which is emptied first; its
    /// size is not limited then.
    fn memory(&mut self, mount: &Mount, options: &str, readonly: bool) -> Result<()> {
        let destination = mount.destination();
        let dir = match (super::host::memory(options), mount.source()) {
            (Ok(dir), _) => dir,
            (Err(Errno::NotPermitted | Errno::NotSupported), Some(place)) if place.is_absolute() => {
                match fs_err::remove_dir_all(place) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(io_error(place, error));
                    }
                    _ => {}
                }
                fs_err::create_dir_all(place).map_err(|error| io_error(place, error))?;
                open(place)?
            }
            (Err(errno), _) => return Err(mount_error("tmpfs", destination, errno)),
        };
        let (parent, name) =
            self.mount_point(destination, true).map_err(|errno| mount_error("tmpfs", destination, errno))?;
        let number = 2 + u64::try_from(self.mount_parents.len()).unwrap_or(0);
        let place = super::node::Place { parent: Arc::clone(&parent), name: name.clone() };
        let root = source(destination, 0, dir)?;
        let fs = Fs::new(number, false, readonly).at_home(root.id.0);
        let node = Node::new(Arc::new(fs), Some(place), vec![root]);
        lock(&parent.mounts).insert(name, Entry::Dir(node));
        self.mount_parents.push(parent);
        Ok(())
    }

    /// Shows the host's file or directory `source` at `destination`.
    pub(in crate::wasm) fn bind(&mut self, source: &Path, destination: &Path, readonly: bool) -> Result<()> {
        let number = 2 + u64::try_from(self.mount_parents.len()).unwrap_or(0);
        let failed = |errno: Errno| {
            let what = format!("mount {} at {}", source.display(), destination.display());
            Error::Setup { action: what, source: std::io::Error::other(describe(errno)) }
        };
        let metadata = fs_err::metadata(source).map_err(|error| io_error(source, error))?;
        let (parent, name) = self.mount_point(destination, metadata.is_dir()).map_err(failed)?;
        let fs = Fs::new(number, false, readonly);
        let entry = if metadata.is_dir() {
            let place = super::node::Place { parent: Arc::clone(&parent), name: name.clone() };
            let root = self::source(source, 0, open(source)?)?;
            Entry::Dir(Node::new(Arc::new(fs.at_home(root.id.0)), Some(place), vec![root]))
        } else {
            Entry::Leaf(file_leaf(fs, source)?)
        };
        lock(&parent.mounts).insert(name, entry);
        self.mount_parents.push(parent);
        Ok(())
    }

    /// The directory and the name to mount on; made where missing.
    fn mount_point(&self, destination: &Path, dir: bool) -> super::Result<(Arc<Node>, OsString)> {
        let path = destination.to_str().ok_or(Errno::IllegalSequence)?;
        let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
        let mut so_far = String::new();
        while let Some(name) = names.next() {
            if !so_far.is_empty() {
                so_far.push('/');
            }
            so_far.push_str(name);
            let found = self.resolve(&self.root, &so_far, true)?;
            let last = names.peek().is_none();
            if found.entry.is_none() {
                if last && !dir {
                    let how = Open { write: true, create: true, follow: true, ..Open::default() };
                    self.open(&self.root, &so_far, &how)?;
                } else {
                    self.mkdir(&self.root, &so_far)?;
                }
            }
            if last {
                let found = self.resolve(&self.root, &so_far, true)?;
                return match found.entry {
                    _ if found.name.is_empty() => Err(Errno::Busy),
                    Some(Entry::Dir(_)) if !dir => Err(Errno::IsDir),
                    Some(Entry::Leaf(_)) if dir => Err(Errno::NotDir),
                    _ => Ok((found.parent, found.name)),
                };
            }
        }
        Err(Errno::Busy)
    }
}

/// A single file of the host.
fn file_leaf(fs: Fs, source: &Path) -> Result<Leaf> {
    // The bundle's own path may be a link; what is mounted is what it leads to.
    let real = fs_err::canonicalize(source).map_err(|error| io_error(source, error))?;
    let parts = real.parent().zip(real.file_name());
    let (parent, name) = parts.ok_or_else(|| Error::InvalidSpec {
        field: "mounts",
        reason: format!("{} cannot be mounted", source.display()),
    })?;
    let dir = open(parent)?;
    let stat = dir.stat(name).map_err(|errno| errno_at(source, errno))?;
    if stat.kind != Kind::File {
        let reason = format!("{} is neither a file nor a directory", source.display());
        return Err(Error::InvalidSpec { field: "mounts", reason });
    }
    let fs = Arc::new(fs.at_home(stat.dev));
    let ino = fs.number(0, (stat.dev, stat.ino), || super::fs::number_of(fs.dev, name.as_encoded_bytes()));
    let source = Source { layer: 0, dir: Arc::new(dir), id: (0, 0) };
    let name = name.to_owned();
    Ok(Leaf { fs, source, name, stat, ino, origin: None, elsewhere: false })
}

fn source(path: &Path, layer: usize, dir: Dir) -> Result<Source> {
    Source::open(layer, Arc::new(dir)).map_err(|errno| errno_at(path, errno))
}

fn open(path: &Path) -> Result<Dir> {
    Dir::open_ambient(path).map_err(|errno| errno_at(path, errno))
}

fn mount_error(what: &str, destination: &Path, errno: Errno) -> Error {
    let action = format!("mount {what} at {}", destination.display());
    Error::Setup { action, source: std::io::Error::other(describe(errno)) }
}

fn io_error(path: &Path, source: std::io::Error) -> Error {
    Error::Io { path: path.to_owned(), source }
}

fn errno_at(path: &Path, errno: Errno) -> Error {
    io_error(path, std::io::Error::other(describe(errno)))
}

/// An error's usual words.
pub(in crate::wasm) fn describe(errno: Errno) -> &'static str {
    match errno {
        Errno::Access => "permission denied",
        Errno::Busy => "device or resource busy",
        Errno::IsDir => "is a directory",
        Errno::NotDir => "not a directory",
        Errno::NotFound => "no such file or directory",
        Errno::NotPermitted => "operation not permitted",
        Errno::ReadOnly => "read-only file system",
        Errno::NoSpace => "no space left on device",
        Errno::Loop => "too many levels of symbolic links",
        Errno::NameTooLong => "file name too long",
        Errno::TooManyFiles => "too many open files",
        Errno::IllegalSequence => "not UTF-8",
        Errno::NotSupported => "not supported",
        _ => "input/output error",
    }
}

/// The layer of a bundle that [`Source::layer`] means; `None` for the writable one.
pub(in crate::wasm) fn layer_of(root: &Root, number: usize) -> Option<&Layer> {
    let Root::Layers { lower, .. } = root else { return None };
    lower.len().checked_sub(number).and_then(|index| lower.get(index))
}
