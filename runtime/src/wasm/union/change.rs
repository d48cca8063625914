//! What changes names, but for renaming (`rename.rs`).

use std::ffi::OsStr;
use std::sync::Arc;
use std::time::SystemTime;

use super::Union;
use super::copy::copy_up_held;
use super::errno::{Errno, Result};
use super::fs::{OPAQUE, WHITEOUT};
use super::host::Dir;
use super::lock;
use super::node::{Entry, Leaf, Node};
use super::{index, mark};

impl Union {
    /// Makes a directory.
    pub(in crate::wasm) fn mkdir(&self, dir: &Arc<Node>, path: &str) -> Result<()> {
        let mut held = None;
        let found = self.resolve_to_change(dir, path, false, &mut held)?;
        let name = found.vacant()?;
        let parent = &found.parent;
        let host = parent.writable()?;
        let hides = parent.lower_has(name)?;
        if !hides {
            match host.mkdir(name, 0o777) {
                Err(Errno::Exists) if mark::is_kernels(parent, &host, name) => {}
                made => return made,
            }
        }
        // Removed below: the new directory must not show what was in the old one.
        let (draft, ()) = mark::draft(&parent.fs, |shop, draft| shop.mkdir(draft, 0o777))?;
        let shop = parent.fs.index.workshop()?;
        let made = shop
            .open_dir(&draft)
            .and_then(|new| if hides { mark::make(&new, OPAQUE) } else { Ok(()) })
            .and_then(|()| mark::put(parent, &draft, &host, name));
        if let Err(error) = made {
            // The first error is the one that counts.
            remove_upper(shop, OsStr::new(&draft)).ok();
            return Err(error);
        }
        parent.uncover(&host, name)
    }

    /// Makes a symbolic link. Absolute targets are refused, as WASI asks.
    pub(in crate::wasm) fn symlink(&self, target: &str, dir: &Arc<Node>, path: &str) -> Result<()> {
        if target.is_empty() {
            return Err(Errno::NotFound);
        }
        if target.starts_with('/') {
            return Err(Errno::NotPermitted);
        }
        if target.contains('\0') {
            return Err(Errno::Invalid);
        }
        let mut held = None;
        let found = self.resolve_to_change(dir, path, false, &mut held)?;
        let name = found.vacant()?;
        if found.dir_only {
            return Err(Errno::NotFound);
        }
        let parent = &found.parent;
        let host = parent.writable()?;
        match host.symlink(target, name) {
            Err(Errno::Exists) if mark::is_kernels(parent, &host, name) => {
                let (draft, ()) = mark::draft(&parent.fs, |shop, draft| shop.symlink(target, draft))?;
                mark::replace(&parent.fs, &draft, &host, name)?;
            }
            made => made?,
        }
        parent.uncover(&host, name)
    }

    /// Gives a file a second name.
    pub(in crate::wasm) fn link(
        &self,
        old: (&Arc<Node>, &str),
        follow: bool,
        new: (&Arc<Node>, &str),
    ) -> Result<()> {
        // Before the lock is taken: whoever waits for it need not wait for data as well.
        if let Some(Entry::Leaf(leaf)) = self.resolve(old.0, old.1, follow)?.entry
            && Arc::ptr_eq(&leaf.fs, &self.root().fs)
        {
            self.prepare_to_move(old, follow, new)?;
        }
        let held = self.exclusive();
        let from = self.resolve(old.0, old.1, follow)?;
        let entry = from.entry.ok_or(Errno::NotFound)?;
        let to = self.resolve(new.0, new.1, false)?;
        let name = to.vacant()?;
        let leaf = match entry {
            Entry::Leaf(_) if from.dir_only => return Err(Errno::NotDir),
            _ if to.dir_only => return Err(Errno::NotFound),
            Entry::Dir(_) => return Err(Errno::NotPermitted),
            Entry::Leaf(leaf) => leaf,
        };
        if !Arc::ptr_eq(&leaf.fs, &to.parent.fs) {
            return Err(Errno::CrossDevice);
        }
        let host = to.parent.writable()?;
        let leaf = upper_leaf(&from.parent, &from.name, leaf)?;
        if leaf.origin.is_some() {
            index::moved_into(&host);
        }
        match leaf.source.dir.link(&leaf.name, &host, name) {
            Err(Errno::Exists) if mark::is_kernels(&to.parent, &host, name) => {
                let source = &leaf.source.dir;
                let (draft, ()) = mark::draft(&leaf.fs, |shop, draft| source.link(&leaf.name, shop, draft))?;
                mark::replace(&leaf.fs, &draft, &host, name)?;
            }
            made => made?,
        }
        let done = to.parent.uncover(&host, name);
        drop(held);
        done
    }

    /// Copies data up for [`Self::link`] and [`Self::rename`], when those would come so far.
    pub(super) fn prepare_to_move(
        &self,
        old: (&Arc<Node>, &str),
        follow: bool,
        new: (&Arc<Node>, &str),
    ) -> Result<()> {
        let from = self.resolve(old.0, old.1, follow)?;
        let to = self.resolve(new.0, new.1, false)?;
        let (Some(Entry::Leaf(leaf)), false) = (&from.entry, to.parent.readonly()) else { return Ok(()) };
        if leaf.source.layer != 0 && !to.parent.fs.hides(&to.name) && Arc::ptr_eq(&leaf.fs, &to.parent.fs) {
            super::copy::copy_up(&from.parent, &from.name, leaf, true)?;
        }
        Ok(())
    }

    /// Keeps everybody else from changing the root.
    pub(super) fn exclusive(&self) -> Option<super::fs::Exclusive<'_>> {
        let fs = &self.root().fs;
        (fs.layered && !fs.readonly()).then(|| fs.exclusive())
    }

    /// Removes a name that is no directory.
    pub(in crate::wasm) fn unlink(&self, dir: &Arc<Node>, path: &str) -> Result<()> {
        let mut held = None;
        let found = self.resolve_to_change(dir, path, false, &mut held)?;
        let leaf = match found.entry.ok_or(Errno::NotFound)? {
            Entry::Dir(_) => return Err(Errno::IsDir),
            Entry::Leaf(_) if found.dir_only => return Err(Errno::NotDir),
            Entry::Leaf(leaf) => leaf,
        };
        let (parent, name) = (&found.parent, &found.name);
        if parent.is_mount_point(name) {
            return Err(Errno::Busy);
        }
        let host = parent.writable()?;
        let moved = if parent.lower_has(name)? { parent.cover(&host, name)? } else { None };
        if leaf.source.layer != 0 || leaf.elsewhere {
            return Ok(());
        }
        match moved {
            Some(draft) => parent.fs.index.workshop()?.unlink(draft)?,
            None => host.unlink(name)?,
        }
        gone(&leaf);
        Ok(())
    }

    /// Removes an empty directory.
    pub(in crate::wasm) fn rmdir(&self, dir: &Arc<Node>, path: &str) -> Result<()> {
        let mut held = None;
        let found = self.resolve_to_change(dir, path, false, &mut held)?;
        let Entry::Dir(node) = found.entry.ok_or(Errno::NotFound)? else { return Err(Errno::NotDir) };
        if found.name.is_empty() {
            return Err(Errno::Invalid);
        }
        remove_dir(&found.parent, &found.name, &node)
    }

    /// Sets times; `None` leaves one as it is.
    pub(in crate::wasm) fn set_times(
        &self,
        dir: &Arc<Node>,
        path: &str,
        follow: bool,
        times: (Option<SystemTime>, Option<SystemTime>),
    ) -> Result<()> {
        let found = self.resolve(dir, path, follow)?;
        match found.entry.ok_or(Errno::NotFound)? {
            Entry::Dir(node) => node.set_times(times),
            Entry::Leaf(_) if found.dir_only => Err(Errno::NotDir),
            Entry::Leaf(leaf) if leaf.fs.readonly() => Err(Errno::ReadOnly),
            Entry::Leaf(leaf) => {
                let leaf = if leaf.source.layer != 0 || leaf.elsewhere {
                    let copy = super::copy::copy_up(&found.parent, &found.name, &leaf, true)?;
                    copy.ok_or(Errno::NotFound)?
                } else {
                    leaf
                };
                leaf.source.dir.set_times(&leaf.name, times.0, times.1)
            }
        }
    }
}

impl Node {
    /// Sets the directory's own times.
    pub(in crate::wasm) fn set_times(
        self: &Arc<Self>,
        times: (Option<SystemTime>, Option<SystemTime>),
    ) -> Result<()> {
        let _held = (self.fs.layered && !self.readonly()).then(|| self.fs.exclusive());
        self.refresh()?;
        self.writable()?.set_times(".", times.0, times.1)
    }

    /// Flushes the directory.
    pub(in crate::wasm) fn sync(&self) -> Result<()> {
        let top = lock(&self.stack).first().cloned();
        top.map_or(Ok(()), |source| source.dir.sync())
    }
}

/// The same object in the writable directory. The lock is held.
pub(super) fn upper_leaf(parent: &Arc<Node>, name: &OsStr, leaf: Leaf) -> Result<Leaf> {
    if leaf.source.layer == 0 && !leaf.elsewhere {
        return Ok(leaf);
    }
    copy_up_held(parent, name, &leaf)?.ok_or(Errno::NotFound)
}

/// A name of `leaf` in the writable directory is no more.
pub(super) fn gone(leaf: &Leaf) {
    leaf.fs.forget(&leaf.stat);
    if let Some(origin) = &leaf.origin {
        leaf.fs.index.removed(origin, leaf.stat.links);
    }
}

/// Removes a directory with nothing in it. The lock is held where layers are concerned.
pub(super) fn remove_dir(parent: &Arc<Node>, name: &OsStr, node: &Arc<Node>) -> Result<()> {
    if parent.is_mount_point(name) {
        return Err(Errno::Busy);
    }
    let host = parent.writable()?;
    if !node.is_empty()? {
        return Err(Errno::NotEmpty);
    }
    let moved = if parent.lower_has(name)? { parent.cover(&host, name)? } else { None };
    if node.upper().is_some() {
        match moved {
            Some(draft) => remove_upper(parent.fs.index.workshop()?, OsStr::new(&draft))?,
            None if parent.fs.layered => remove_upper(&host, name)?,
            None => host.rmdir(name)?,
        }
    }
    node.set_removed();
    Ok(())
}

/// Removes a host directory that has nothing but our own marks in it.
pub(super) fn remove_upper(host: &Dir, name: &OsStr) -> Result<()> {
    match host.rmdir(name) {
        Err(Errno::NotEmpty | Errno::Exists) => {}
        done => return done,
    }
    let dir = host.open_dir(name)?;
    let mut marks = Vec::new();
    dir.list(|raw| {
        // Anything else makes the removal fail below.
        let ours = raw.name.as_encoded_bytes().starts_with(WHITEOUT.as_bytes());
        if ours || dir.stat(raw.name)?.whiteout {
            marks.push(raw.name.to_owned());
        }
        Ok(())
    })?;
    for mark in marks {
        dir.unlink(mark)?;
    }
    host.rmdir(name)
}
