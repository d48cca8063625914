//! What WASI 0.2 and 0.3 do with files, without either's types: descriptors over the union.
//!
//! Both versions' descriptors are entries of one table, so that a component that was composed of parts of both may
//! pass them on. An entry is always an [`Object`], whatever the bindings call its type.
//!
//! A directory's own flags restrict nothing: guests translated from WASI 0.1 never ask for the one that would allow
//! changes. What may be changed is decided by the file system it is on.

use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::filesystem::Descriptor;

use super::{Given, State};
use crate::wasm::union::{About, Errno, Kind, Listing, Metadata, Node, Open, Opened, Result, Union};

/// A descriptor as both versions' bindings pass it.
pub(in crate::wasm) type Fd = Resource<Descriptor>;

/// The most that one call reads at once.
pub(in crate::wasm) const READ_MAX: usize = 64 * 1024;

/// A file system, and the directories in it that a guest starts with, by name.
#[derive(Clone)]
pub(in crate::wasm) struct Tree {
    pub(in crate::wasm) union: Arc<Union>,
    pub(in crate::wasm) preopens: Arc<[(String, Arc<Node>)]>,
}

/// What this host keeps besides the table.
pub(in crate::wasm) struct Files {
    tree: Option<Tree>,
    /// How many descriptors are open, the three streams among them.
    open: usize,
    /// How many there may be (`--ulimit nofile`).
    most: usize,
}

/// Standard input, output and error.
const STREAMS: usize = 3;

impl Files {
    pub(in crate::wasm) fn new(given: &Given) -> Self {
        Self { tree: given.tree.clone(), open: STREAMS, most: given.descriptors }
    }

    /// The file system. Without one there is no descriptor either that something could be asked of.
    fn union(&self) -> Result<&Union> {
        self.tree.as_ref().map(|tree| &*tree.union).ok_or(Errno::BadFd)
    }
}

/// What a descriptor stands for.
#[derive(Clone)]
pub(in crate::wasm) enum Object {
    Dir(Arc<Node>, Flags, Reach),
    File(Arc<Opening>),
}

/// How far a path may lead from a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::wasm) enum Reach {
    /// Anywhere in the container, `..` included: what a guest starts with stands for its working directory.
    Container,
    /// Only below, as WASI has it for what a guest opened.
    Below,
}

/// An open file.
pub(in crate::wasm) struct Opening {
    pub(in crate::wasm) file: File,
    about: About,
    pub(in crate::wasm) flags: Flags,
}

/// What a descriptor was opened for.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::wasm) struct Flags {
    pub(in crate::wasm) read: bool,
    pub(in crate::wasm) write: bool,
    /// Changing what is in a directory.
    pub(in crate::wasm) mutate: bool,
    /// Every change of data or metadata waits for the disk.
    pub(in crate::wasm) file_sync: bool,
    /// Every change of data waits for the disk.
    pub(in crate::wasm) data_sync: bool,
    /// Reads wait as well.
    pub(in crate::wasm) read_sync: bool,
}

/// How a path is opened besides [`Flags`].
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::wasm) struct How {
    pub(in crate::wasm) create: bool,
    pub(in crate::wasm) directory: bool,
    pub(in crate::wasm) exclusive: bool,
    pub(in crate::wasm) truncate: bool,
    pub(in crate::wasm) follow: bool,
}

/// Names this host to the linker.
pub(in crate::wasm) struct UnionFs;

impl HasData for UnionFs {
    type Data<'a> = View<'a>;
}

/// What the calls work on.
pub(in crate::wasm) struct View<'a> {
    files: &'a mut Files,
    pub(in crate::wasm) table: &'a mut ResourceTable,
}

pub(in crate::wasm) fn view(state: &mut State) -> View<'_> {
    let wasi = state.wasi();
    View { files: &mut wasi.files, table: &mut wasi.table }
}

impl View<'_> {
    /// What is behind `fd`.
    pub(in crate::wasm) fn object(&self, fd: &Fd) -> Result<&Object> {
        self.table.get(&Resource::<Object>::new_borrow(fd.rep())).map_err(|_| Errno::BadFd)
    }

    /// The file behind `fd`; directories answer `otherwise`.
    pub(in crate::wasm) fn file(&self, fd: &Fd, otherwise: Errno) -> Result<Arc<Opening>> {
        match self.object(fd)? {
            Object::File(file) => Ok(Arc::clone(file)),
            Object::Dir(..) => Err(otherwise),
        }
    }

    /// The directory behind `fd`, for this path from it.
    fn node(&self, fd: &Fd, path: &str) -> Result<Arc<Node>> {
        match self.object(fd)? {
            Object::Dir(_, _, Reach::Below) if leads_above(path) => Err(Errno::NotPermitted),
            Object::Dir(node, ..) => Ok(Arc::clone(node)),
            Object::File(_) => Err(Errno::NotDir),
        }
    }

    fn push(&mut self, object: Object) -> Result<Fd> {
        if self.files.open >= self.files.most {
            return Err(Errno::TooManyFiles);
        }
        let resource = self.table.push(object).map_err(|_| Errno::TooManyFiles)?;
        self.files.open += 1;
        Ok(Resource::new_own(resource.rep()))
    }

    pub(in crate::wasm) fn remove(&mut self, fd: &Fd) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Object>::new_own(fd.rep()))?;
        self.files.open = self.files.open.saturating_sub(1);
        Ok(())
    }

    /// The directories a guest starts with.
    pub(in crate::wasm) fn preopens(&mut self) -> wasmtime::Result<Vec<(Fd, String)>> {
        let mut directories = Vec::new();
        let start = self.files.tree.as_ref().map(|tree| Arc::clone(&tree.preopens));
        for (name, node) in start.iter().flat_map(|start| start.iter()) {
            let flags = Flags { read: true, mutate: !node.readonly(), ..Flags::default() };
            let resource = self.table.push(Object::Dir(Arc::clone(node), flags, Reach::Container))?;
            // Never refused: without them a program has nothing at all.
            self.files.open += 1;
            directories.push((Resource::new_own(resource.rep()), name.clone()));
        }
        Ok(directories)
    }

    pub(in crate::wasm) fn flags(&self, fd: &Fd) -> Result<Flags> {
        Ok(match self.object(fd)? {
            Object::Dir(_, flags, _) => *flags,
            Object::File(file) => file.flags,
        })
    }

    pub(in crate::wasm) fn metadata(&self, fd: &Fd) -> Result<Metadata> {
        match self.object(fd)? {
            Object::Dir(node, ..) => node.metadata(),
            Object::File(file) => file.about.metadata(&file.file),
        }
    }

    pub(in crate::wasm) fn metadata_at(&self, fd: &Fd, follow: bool, path: &str) -> Result<Metadata> {
        self.files.union()?.stat(&self.node(fd, path)?, path, follow)
    }

    pub(in crate::wasm) fn kind(&self, fd: &Fd) -> Result<Kind> {
        Ok(match self.object(fd)? {
            Object::Dir(..) => Kind::Dir,
            // Nothing else can be opened.
            Object::File(_) => Kind::File,
        })
    }

    /// Flushes everything, or `data` alone.
    pub(in crate::wasm) fn flush(&self, fd: &Fd, data: bool) -> Result<()> {
        match self.object(fd)? {
            Object::Dir(node, ..) => node.sync(),
            // There is nothing to flush, and Windows refuses.
            Object::File(file) if !file.flags.write => Ok(()),
            Object::File(file) if data => Ok(file.file.sync_data()?),
            Object::File(file) => Ok(file.file.sync_all()?),
        }
    }

    pub(in crate::wasm) fn resize(&self, fd: &Fd, size: u64) -> Result<()> {
        let file = self.file(fd, Errno::BadFd)?;
        if !file.flags.write {
            return Err(Errno::Invalid);
        }
        file.file.set_len(size)?;
        file.changed()
    }

    pub(in crate::wasm) fn touch(&self, fd: &Fd, times: Times) -> Result<()> {
        match self.object(fd)? {
            Object::Dir(node, ..) => node.set_times(times),
            Object::File(file) => file.about.set_times(&file.file, times),
        }
    }

    pub(in crate::wasm) fn touch_at(&self, fd: &Fd, follow: bool, path: &str, times: Times) -> Result<()> {
        self.files.union()?.set_times(&self.node(fd, path)?, path, follow, times)
    }

    pub(in crate::wasm) fn list(&self, fd: &Fd) -> Result<Listing> {
        self.node(fd, ".")?.list()
    }

    pub(in crate::wasm) fn mkdir(&self, fd: &Fd, path: &str) -> Result<()> {
        self.files.union()?.mkdir(&self.node(fd, path)?, path)
    }

    pub(in crate::wasm) fn rmdir(&self, fd: &Fd, path: &str) -> Result<()> {
        self.files.union()?.rmdir(&self.node(fd, path)?, path)
    }

    pub(in crate::wasm) fn unlink(&self, fd: &Fd, path: &str) -> Result<()> {
        self.files.union()?.unlink(&self.node(fd, path)?, path)
    }

    pub(in crate::wasm) fn link(&self, from: (&Fd, &str), follow: bool, to: (&Fd, &str)) -> Result<()> {
        let (old, new) = (self.node(from.0, from.1)?, self.node(to.0, to.1)?);
        self.files.union()?.link((&old, from.1), follow, (&new, to.1))
    }

    pub(in crate::wasm) fn rename(&self, from: (&Fd, &str), to: (&Fd, &str)) -> Result<()> {
        let (old, new) = (self.node(from.0, from.1)?, self.node(to.0, to.1)?);
        self.files.union()?.rename((&old, from.1), (&new, to.1))
    }

    pub(in crate::wasm) fn symlink(&self, target: &str, fd: &Fd, path: &str) -> Result<()> {
        self.files.union()?.symlink(target, &self.node(fd, path)?, path)
    }

    pub(in crate::wasm) fn readlink(&self, fd: &Fd, path: &str) -> Result<String> {
        let target = self.files.union()?.readlink(&self.node(fd, path)?, path)?;
        // WASI knows no absolute targets; an image's links may have them.
        if target.starts_with('/') { Err(Errno::NotPermitted) } else { Ok(target) }
    }

    pub(in crate::wasm) fn open(&mut self, fd: &Fd, path: &str, how: How, flags: Flags) -> Result<Fd> {
        let node = self.node(fd, path)?;
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(Errno::Invalid);
        }
        // Making a file or cutting it is writing it.
        let flags = Flags {
            read: flags.read || !flags.write,
            write: flags.write || how.create || how.truncate,
            ..flags
        };
        let open = Open {
            read: flags.read,
            write: flags.write,
            append: false,
            create: how.create,
            exclusive: how.exclusive,
            truncate: how.truncate,
            directory: how.directory,
            follow: how.follow,
        };
        let object = match self.files.union()?.open(&node, path, &open)? {
            Opened::Dir(node) => Object::Dir(node, flags, Reach::Below),
            Opened::File(open) => {
                let flags = Flags { mutate: false, ..flags };
                Object::File(Arc::new(Opening { file: open.file, about: open.about, flags }))
            }
        };
        self.push(object)
    }

    pub(in crate::wasm) fn is_same(&self, a: &Fd, b: &Fd) -> bool {
        let (a, b) = (self.metadata(a), self.metadata(b));
        matches!((a, b), (Ok(a), Ok(b)) if (a.dev, a.ino) == (b.dev, b.ino))
    }
}

/// Whether a path has more `..` than names before them.
fn leads_above(path: &str) -> bool {
    let mut depth = 0u32;
    path.split('/').filter(|name| !matches!(*name, "" | ".")).any(|name| {
        if name == ".." {
            let above = depth == 0;
            depth = depth.saturating_sub(1);
            above
        } else {
            depth += 1;
            false
        }
    })
}

/// Access and modification time to be set; `None` leaves one as it is.
pub(in crate::wasm) type Times = (Option<SystemTime>, Option<SystemTime>);

impl Opening {
    /// Reads at `offset`; 0 bytes mean the end.
    pub(in crate::wasm) fn read_at(&self, target: &mut [u8], offset: u64) -> Result<usize> {
        check_offset(offset)?;
        retry(|| read_at(&self.file, target, offset))
    }

    /// Writes at `offset`, as much as the system takes at once.
    pub(in crate::wasm) fn write_at(&self, source: &[u8], offset: u64) -> Result<usize> {
        check_offset(offset)?;
        self.may_write()?;
        let written = retry(|| write_at(&self.file, source, offset))?;
        self.changed().map(|()| written)
    }

    /// Writes at the end, wherever that is by then.
    pub(in crate::wasm) fn append(&self, source: &[u8]) -> Result<usize> {
        self.may_write()?;
        let written = retry(|| append(&self.file, source))?;
        self.changed().map(|()| written)
    }

    /// Whether it was opened for writing.
    pub(in crate::wasm) fn may_write(&self) -> Result<()> {
        if self.flags.write { Ok(()) } else { Err(Errno::BadFd) }
    }

    fn changed(&self) -> Result<()> {
        if self.flags.file_sync {
            self.file.sync_all()?;
        } else if self.flags.data_sync || self.flags.read_sync {
            self.file.sync_data()?;
        }
        Ok(())
    }
}

/// Systems' offsets are signed.
fn check_offset(offset: u64) -> Result<()> {
    if i64::try_from(offset).is_ok() { Ok(()) } else { Err(Errno::Invalid) }
}

fn retry(mut call: impl FnMut() -> std::io::Result<usize>) -> Result<usize> {
    loop {
        match call() {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            done => return Ok(done?),
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, target: &mut [u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, target, offset)
}

#[cfg(unix)]
fn write_at(file: &File, source: &[u8], offset: u64) -> std::io::Result<usize> {
    std::os::unix::fs::FileExt::write_at(file, source, offset)
}

#[cfg(windows)]
fn read_at(file: &File, target: &mut [u8], offset: u64) -> std::io::Result<usize> {
    match std::os::windows::fs::FileExt::seek_read(file, target, offset) {
        // ERROR_HANDLE_EOF
        Err(error) if error.raw_os_error() == Some(38) => Ok(0),
        done => done,
    }
}

#[cfg(windows)]
fn write_at(file: &File, source: &[u8], offset: u64) -> std::io::Result<usize> {
    std::os::windows::fs::FileExt::seek_write(file, source, offset)
}

#[cfg(target_os = "linux")]
fn append(file: &File, source: &[u8]) -> std::io::Result<usize> {
    use rustix::io::{Errno as Os, ReadWriteFlags, pwritev2};
    match pwritev2(file, &[std::io::IoSlice::new(source)], 0, ReadWriteFlags::APPEND) {
        // Not every kernel and file system knows this.
        Err(Os::NOSYS | Os::NOTSUP) => write_at(file, source, file.metadata()?.len()),
        done => Ok(done?),
    }
}

#[cfg(not(target_os = "linux"))]
fn append(file: &File, source: &[u8]) -> std::io::Result<usize> {
    write_at(file, source, file.metadata()?.len())
}

/// A point in time as both versions' guests give it.
pub(in crate::wasm) fn instant(seconds: i64, nanoseconds: u32) -> Result<SystemTime> {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let base = if seconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    };
    base.and_then(|base| base.checked_add(Duration::from_nanos(nanoseconds.into()))).ok_or(Errno::Overflow)
}
