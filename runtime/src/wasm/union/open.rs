//! Opening files, and copy-up: the first time something that only a lower layer has is to be changed, it is copied
//! into the writable directory under a hidden name and then renamed, so that nobody ever sees half of it.

use std::fs::File;
use std::sync::Arc;
use std::time::SystemTime;

use super::errno::{Errno, Result};
use super::fs::{Fs, whiteout_of};
use super::host::{Dir, Kind, OpenHow, Stat, stat_file};
use super::node::{Entry, Leaf, Node, Source};
use super::resolve::Resolved;
use super::{Metadata, Union};

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
    /// Whether what it is may be changed through it: it lies in the writable directory or a writable mount.
    pub(in crate::wasm) changeable: bool,
    fs: Arc<Fs>,
    /// Its number where the host's file has none.
    ino: u64,
}

impl About {
    /// Its metadata now.
    pub(in crate::wasm) fn metadata(&self, file: &File) -> Result<Metadata> {
        let stat = stat_file(file)?;
        Ok(Metadata { stat, dev: self.fs.dev, ino: self.fs.ino(stat.dev, stat.ino, || self.ino) })
    }

    /// Sets its times; `None` leaves one as it is. A file opened from a lower layer cannot be changed any more.
    pub(in crate::wasm) fn set_times(
        &self,
        file: &File,
        (accessed, modified): (Option<SystemTime>, Option<SystemTime>),
    ) -> Result<()> {
        if !self.changeable {
            return Err(if self.fs.readonly() { Errno::ReadOnly } else { Errno::NotPermitted });
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

impl Union {
    /// Opens what `path` leads to.
    pub(in crate::wasm) fn open(&self, dir: &Arc<Node>, path: &str, how: &Open) -> Result<Opened> {
        let exclusive = how.create && how.exclusive;
        let found = self.resolve(dir, path, how.follow && !exclusive)?;
        match &found.entry {
            Some(_) if exclusive => Err(Errno::Exists),
            Some(Entry::Dir(_)) if how.create || how.truncate || (how.write && !how.directory) => {
                Err(Errno::IsDir)
            }
            Some(Entry::Dir(node)) => {
                self.remember(node);
                Ok(Opened::Dir(Arc::clone(node)))
            }
            Some(Entry::Leaf(_)) if how.directory || found.dir_only => Err(Errno::NotDir),
            Some(Entry::Leaf(leaf)) => open_leaf(&found.parent, leaf, how).map(Opened::File),
            None if !how.create => Err(Errno::NotFound),
            None if how.directory => Err(Errno::Invalid),
            None if found.dir_only => Err(Errno::IsDir),
            None => create(&found, how).map(Opened::File),
        }
    }
}

/// A file that a guest is to be started from.
#[derive(Debug)]
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
        let path = format!("{}/{}", parent.trim_end_matches('/'), found.name);
        let layer = Some(leaf.source.layer).filter(|layer| leaf.fs.layered && *layer != 0);
        Ok(Program { leaf, path, layer })
    }
}

fn open_leaf(parent: &Arc<Node>, leaf: &Leaf, how: &Open) -> Result<OpenFile> {
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
    let leaf = if changing && leaf.source.layer != 0 {
        copied = copy_up(parent, leaf, !how.truncate)?;
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
    let file = leaf.source.dir.open_file(&leaf.name, &open)?;
    // Others may change a mounted directory between our look and the opening.
    if !leaf.fs.layered && stat_file(&file)?.kind != Kind::File {
        return Err(Errno::NotSupported);
    }
    let changeable = leaf.source.layer == 0 && !leaf.fs.readonly();
    Ok(OpenFile { file, about: About { changeable, fs: Arc::clone(&leaf.fs), ino: leaf.ino } })
}

fn create(found: &Resolved, how: &Open) -> Result<OpenFile> {
    let name = found.vacant()?;
    let parent = &found.parent;
    let dir = parent.writable()?;
    parent.clear_kernel_whiteout(&dir, name)?;
    let open = OpenHow {
        read: how.read || !how.write,
        write: how.write,
        append: how.append,
        create_new: true,
        mode: 0o666,
        ..OpenHow::default()
    };
    let file = dir.open_file(name, &open)?;
    parent.uncover(&dir, name)?;
    let ino = super::fs::number_of(parent.ino(), name);
    Ok(OpenFile { file, about: About { changeable: true, fs: Arc::clone(&parent.fs), ino } })
}

/// Copies what a lower layer has into the writable directory: everything, or all but a file's data.
pub(super) fn copy_up(parent: &Arc<Node>, leaf: &Leaf, data: bool) -> Result<Leaf> {
    let dir = parent.writable()?;
    let temporary = leaf.fs.temporary_name();
    let made = copy_to(&dir, leaf, data, &temporary).and_then(|()| dir.rename(&temporary, &dir, &leaf.name));
    if let Err(error) = made {
        // Nothing may be there at all; the first error is the one that counts.
        let _ = dir.unlink(&temporary);
        return Err(error);
    }
    let stat = dir.stat(&leaf.name)?;
    leaf.fs.copied_up(&leaf.stat, &stat);
    Ok(Leaf { source: Source { layer: 0, dir }, stat, ..leaf.clone() })
}

fn copy_to(dir: &Dir, leaf: &Leaf, data: bool, name: &str) -> Result<()> {
    match leaf.stat.kind {
        Kind::File => {
            let create = OpenHow { write: true, create_new: true, mode: 0o600, ..OpenHow::default() };
            let mut to = dir.open_file(name, &create)?;
            if data {
                let read = OpenHow { read: true, ..OpenHow::default() };
                let mut from = leaf.source.dir.open_file(&leaf.name, &read)?;
                std::io::copy(&mut from, &mut to)?;
            }
            dir.imitate(name, Some(&to), &leaf.stat)
        }
        Kind::Symlink => {
            dir.symlink(&leaf.readlink()?, name)?;
            dir.imitate(name, None, &leaf.stat)
        }
        _ => Err(Errno::NotSupported),
    }
}

impl Node {
    /// Removes the mark that hid `name`, now that there is something again.
    pub(super) fn uncover(&self, dir: &Dir, name: &str) -> Result<()> {
        if !self.fs.layered || !self.has_lower() {
            return Ok(());
        }
        match dir.unlink(&whiteout_of(name)) {
            Err(Errno::NotFound | Errno::NameTooLong) => Ok(()),
            done => done,
        }
    }

    /// Makes room where the kernel's overlay left its mark, and leaves ours.
    pub(super) fn clear_kernel_whiteout(&self, dir: &Dir, name: &str) -> Result<()> {
        let is_mark = |stat: Stat| stat.whiteout;
        if self.fs.layered && self.has_lower() && dir.stat(name).is_ok_and(is_mark) {
            place_whiteout(dir, name)?;
            dir.unlink(name)?;
        }
        Ok(())
    }
}

/// Marks `name` as removed.
pub(super) fn place_whiteout(dir: &Dir, name: &str) -> Result<()> {
    make_mark(dir, &whiteout_of(name))
}

/// Makes an empty file, unless it is there.
pub(super) fn make_mark(dir: &Dir, name: &str) -> Result<()> {
    let create = OpenHow { write: true, create_new: true, mode: 0o600, ..OpenHow::default() };
    match dir.open_file(name, &create) {
        Ok(_) | Err(Errno::Exists) => Ok(()),
        Err(error) => Err(error),
    }
}
