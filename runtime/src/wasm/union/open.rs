//! Opening files.

use std::ffi::OsString;
use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use super::copy::copy_up;
use super::errno::{Errno, Result};
use super::fs::Fs;
use super::host::{Kind, OpenHow, stat_file};
use super::index;
use super::mark;
use super::node::{Entry, Leaf, Node};
use super::resolve::Resolved;
use super::{Metadata, Union, lock};

/// How a guest wants a path opened, in open(2)'s words.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::wasm) struct Open {
    pub(in crate::wasm) read: bool,
    pub(in crate::wasm) write: bool,
    pub(in crate::wasm) append: bool,
    pub(in crate::wasm) create: bool,
    pub(in crate::wasm) exclusive: bool,
    pub(in crate::wasm) truncate: bool,
    /// Nothing but a directory will do.
    pub(in crate::wasm) directory: bool,
    /// Follow a symbolic link in the last component.
    pub(in crate::wasm) follow: bool,
}

/// What was opened.
#[derive(Debug)]
pub(in crate::wasm) enum Opened {
    Dir(Arc<Node>),
    File(OpenFile),
}

/// An open regular file.
#[derive(Debug)]
pub(in crate::wasm) struct OpenFile {
    /// The host's file.
    pub(in crate::wasm) file: File,
    /// What the host's file does not know.
    pub(in crate::wasm) about: About,
}

/// What an open file is in the merged tree.
#[derive(Debug)]
pub(in crate::wasm) struct About {
    fs: Arc<Fs>,
    /// Its number where the host's file has none.
    ino: u64,
    /// Where it is, if it was opened in a layer.
    below: Option<Box<Below>>,
}

/// A file that was opened in a layer.
#[derive(Debug)]
struct Below {
    parent: Arc<Node>,
    name: OsString,
    leaf: Leaf,
}

impl About {
    /// Its metadata now: of a file that was opened in a layer, its copy's, if there is one. Only its data and
    /// their size stay those of the layer.
    pub(in crate::wasm) fn metadata(&self, file: &File) -> Result<Metadata> {
        if let Some(Below { parent, name, leaf }) = self.below.as_deref()
            && lock(&parent.stack).first().is_some_and(|source| source.layer == 0)
            && let Ok(Some(Entry::Leaf(copy))) = parent.lookup(name)
            && copy.source.layer == 0
            && copy.ino == leaf.ino
        {
            let mut metadata = copy.metadata();
            metadata.stat.size = stat_file(file)?.size;
            return Ok(metadata);
        }
        let mut stat = stat_file(file)?;
        let mut ino = None;
        if self.fs.layered && self.below.is_none() && stat.links > 1 {
            ino = index::origin_of_file(file).map(|origin| origin.number);
            stat.links -= u64::from(ino.is_some());
        }
        let layer = self.below.as_ref().map_or(0, |below| below.leaf.source.layer);
        let number = || self.fs.number(layer, (stat.dev, stat.ino), || self.ino);
        let ino = ino.unwrap_or_else(number);
        Ok(Metadata { stat, dev: self.fs.dev, ino })
    }

    /// Sets its times; `None` leaves one as it is. Of a file that was opened in a layer they are set on its copy.
    pub(in crate::wasm) fn set_times(
        &self,
        file: &File,
        (accessed, modified): (Option<SystemTime>, Option<SystemTime>),
    ) -> Result<()> {
        if self.fs.readonly() {
            return Err(Errno::ReadOnly);
        }
        if let Some(below) = &self.below {
            let Below { parent, name, leaf } = &**below;
            let copy = copy_up(parent, name, leaf, true)?.filter(|copy| copy.ino == leaf.ino);
            let copy = copy.ok_or(Errno::NotPermitted)?;
            return copy.source.dir.set_times(&copy.name, accessed, modified);
        }
        let mut times = std::fs::FileTimes::new();
        if let Some(accessed) = accessed {
            times = times.set_accessed(accessed);
        }
        if let Some(modified) = modified {
            times = times.set_modified(modified);
        }
        Ok(file.set_times(times)?)
    }
}

/// How often a name may come to mean something else while it is being opened.
const TRIES: usize = 100;

impl Union {
    /// Opens what `path` leads to.
    pub(in crate::wasm) fn open(&self, dir: &Arc<Node>, path: &str, how: &Open) -> Result<Opened> {
        for _ in 0..TRIES {
            if let Some(opened) = self.try_open(dir, path, how)? {
                return Ok(opened);
            }
        }
        Err(Errno::Busy)
    }

    /// `None` when the file was copied up first and is to be looked for again.
    fn try_open(&self, dir: &Arc<Node>, path: &str, how: &Open) -> Result<Option<Opened>> {
        let exclusive = how.create && how.exclusive;
        let follow = how.follow && !exclusive;
        let mut held = None;
        let found = if how.create {
            self.resolve_to_change(dir, path, follow, &mut held)?
        } else {
            self.resolve(dir, path, follow)?
        };
        match &found.entry {
            Some(_) if exclusive => Err(Errno::Exists),
            Some(Entry::Dir(_)) if how.create || how.truncate || (how.write && !how.directory) => {
                Err(Errno::IsDir)
            }
            Some(Entry::Dir(node)) => {
                self.remember(node);
                Ok(Some(Opened::Dir(Arc::clone(node))))
            }
            Some(Entry::Leaf(_)) if how.directory || found.dir_only => Err(Errno::NotDir),
            Some(Entry::Leaf(leaf)) => {
                drop(held);
                Ok(open_leaf(&found, leaf, how)?.map(Opened::File))
            }
            None if !how.create => Err(Errno::NotFound),
            None if how.directory => Err(Errno::Invalid),
            None if found.dir_only => Err(Errno::IsDir),
            None => Ok(create(&found, how)?.map(Opened::File)),
        }
    }
}

/// A file that a guest is to be started from.
#[derive(Debug, Clone)]
pub(in crate::wasm) struct Program {
    leaf: Leaf,
    /// Its path in the merged tree, links resolved.
    pub(in crate::wasm) path: String,
    /// The layer that has it; `None` for what can change: the writable directory and mounts.
    pub(in crate::wasm) layer: Option<usize>,
}

impl Program {
    /// Opens it.
    pub(in crate::wasm) fn open(&self) -> Result<File> {
        let read = OpenHow { read: true, ..OpenHow::default() };
        self.leaf.source.dir.open_file(&self.leaf.name, &read)
    }
}

impl Union {
    /// Finds the regular file that `path` leads to.
    pub(in crate::wasm) fn program(&self, dir: &Arc<Node>, path: &str) -> Result<Program> {
        let found = self.resolve(dir, path, true)?;
        let leaf = match found.entry.ok_or(Errno::NotFound)? {
            Entry::Dir(_) => return Err(Errno::IsDir),
            Entry::Leaf(_) if found.dir_only => return Err(Errno::NotDir),
            Entry::Leaf(leaf) if leaf.stat.kind != Kind::File => return Err(Errno::Access),
            Entry::Leaf(leaf) => leaf,
        };
        let parent = found.parent.path();
        let path = format!("{}/{}", parent.trim_end_matches('/'), found.name.to_string_lossy());
        let layer = Some(leaf.source.layer).filter(|layer| leaf.fs.layered && *layer != 0);
        Ok(Program { leaf, path, layer })
    }
}

fn open_leaf(found: &Resolved, leaf: &Leaf, how: &Open) -> Result<Option<OpenFile>> {
    match leaf.stat.kind {
        Kind::File => {}
        Kind::Symlink => return Err(Errno::Loop),
        // Devices of the host are not a guest's business, and a fifo would block this process.
        _ => return Err(Errno::NotSupported),
    }
    let changing = how.write || how.append || how.truncate;
    if changing && leaf.fs.readonly() {
        return Err(Errno::ReadOnly);
    }
    let copied;
    let leaf = if changing && (leaf.source.layer != 0 || leaf.elsewhere) {
        match copy_up(&found.parent, &found.name, leaf, !how.truncate)? {
            Some(copy) => copied = copy,
            None => return Ok(None),
        }
        &copied
    } else {
        leaf
    };
    let open = OpenHow {
        read: how.read || !changing,
        write: how.write || how.truncate,
        append: how.append,
        truncate: how.truncate,
        ..OpenHow::default()
    };
    let file = match leaf.source.dir.open_file(&leaf.name, &open) {
        // Others may change a name between our look and the opening.
        Err(Errno::NotFound | Errno::Loop) => return Ok(None),
        file => file?,
    };
    // Whoever shares a mounted directory may put anything there between our look and the opening.
    if !leaf.fs.layered && stat_file(&file)?.kind != Kind::File {
        return Err(Errno::NotSupported);
    }
    let below = (leaf.source.layer != 0).then(|| {
        let (parent, name) = (Arc::clone(&found.parent), found.name.clone());
        Box::new(Below { parent, name, leaf: leaf.clone() })
    });
    Ok(Some(OpenFile { file, about: About { fs: Arc::clone(&leaf.fs), ino: leaf.ino, below } }))
}

fn create(found: &Resolved, how: &Open) -> Result<Option<OpenFile>> {
    let name = found.vacant()?;
    let parent = &found.parent;
    let dir = parent.writable()?;
    let open = OpenHow {
        read: how.read || !how.write,
        write: how.write,
        append: how.append,
        create_new: true,
        mode: 0o666,
        ..OpenHow::default()
    };
    let file = match dir.open_file(name, &open) {
        Err(Errno::Exists) if mark::is_kernels(parent, &dir, name) => {
            let (draft, file) = mark::draft(&parent.fs, |shop, draft| shop.open_file(draft, &open))?;
            mark::replace(&parent.fs, &draft, &dir, name)?;
            file
        }
        // Another process was faster, and any file will do.
        Err(Errno::Exists) if !how.exclusive => return Ok(None),
        file => file?,
    };
    parent.uncover(&dir, name)?;
    let ino = super::fs::number_of(parent.ino(), name.as_encoded_bytes());
    Ok(Some(OpenFile { file, about: About { fs: Arc::clone(&parent.fs), ino, below: None } }))
}
