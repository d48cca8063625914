//! What changes names. The order of steps is chosen so that a crash in between never brings a removed lower object
//! back: marks are made before what they replace goes away, and removed after its successor is there.

use std::sync::Arc;
use std::time::SystemTime;

use super::Union;
use super::errno::{Errno, Result};
use super::fs::OPAQUE;
use super::host::Dir;
use super::lock;
use super::node::{Entry, Leaf, Node};
use super::open::{copy_up, make_mark, place_whiteout};

impl Union {
    /// Makes a directory.
    pub(in crate::wasm) fn mkdir(&self, dir: &Arc<Node>, path: &str) -> Result<()> {
        let found = self.resolve(dir, path, false)?;
        let name = found.vacant()?;
        let parent = &found.parent;
        let host = parent.writable()?;
        if !parent.lower_has(name)? {
            return host.mkdir(name, 0o777);
        }
        // Removed below: the new directory must not show what was in the old one.
        let temporary = parent.fs.temporary_name();
        host.mkdir(&temporary, 0o777)?;
        let made = host
            .open_dir(&temporary)
            .and_then(|new| make_mark(&new, OPAQUE))
            .and_then(|()| parent.clear_kernel_whiteout(&host, name))
            .and_then(|()| host.rename(&temporary, &host, name));
        if let Err(error) = made {
            // The first error is the one that counts.
            let _ = remove_upper(&host, &temporary);
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
        let found = self.resolve(dir, path, false)?;
        let name = found.vacant()?;
        if found.dir_only {
            return Err(Errno::NotFound);
        }
        let host = found.parent.writable()?;
        found.parent.clear_kernel_whiteout(&host, name)?;
        host.symlink(target, name)?;
        found.parent.uncover(&host, name)
    }

    /// Gives a file a second name.
    pub(in crate::wasm) fn link(
        &self,
        old: (&Arc<Node>, &str),
        follow: bool,
        new: (&Arc<Node>, &str),
    ) -> Result<()> {
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
        let leaf = upper_leaf(&from.parent, leaf)?;
        to.parent.clear_kernel_whiteout(&host, name)?;
        leaf.source.dir.link(&leaf.name, &host, name)?;
        to.parent.uncover(&host, name)
    }

    /// Removes a name that is no directory.
    pub(in crate::wasm) fn unlink(&self, dir: &Arc<Node>, path: &str) -> Result<()> {
        let found = self.resolve(dir, path, false)?;
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
        if parent.lower_has(name)? {
            place_whiteout(&host, name)?;
        }
        if leaf.source.layer == 0 {
            host.unlink(name)?;
            leaf.fs.forget(&leaf.stat);
        }
        Ok(())
    }

    /// Removes an empty directory.
    pub(in crate::wasm) fn rmdir(&self, dir: &Arc<Node>, path: &str) -> Result<()> {
        let found = self.resolve(dir, path, false)?;
        let Entry::Dir(node) = found.entry.ok_or(Errno::NotFound)? else { return Err(Errno::NotDir) };
        if found.name.is_empty() {
            return Err(Errno::Invalid);
        }
        remove_dir(&found.parent, &found.name, &node)
    }

    /// Moves a name; see the module's head for what cannot be moved.
    pub(in crate::wasm) fn rename(&self, old: (&Arc<Node>, &str), new: (&Arc<Node>, &str)) -> Result<()> {
        let from = self.resolve(old.0, old.1, false)?;
        let to = self.resolve(new.0, new.1, false)?;
        if from.name.is_empty() || to.name.is_empty() {
            return Err(Errno::Busy);
        }
        if from.parent.is_mount_point(&from.name) || to.parent.is_mount_point(&to.name) {
            return Err(Errno::Busy);
        }
        if !Arc::ptr_eq(&from.parent.fs, &to.parent.fs) {
            return Err(Errno::CrossDevice);
        }
        let entry = from.entry.ok_or(Errno::NotFound)?;
        if to.parent.fs.hides(&to.name) {
            return Err(Errno::NotPermitted);
        }
        if Arc::ptr_eq(&from.parent, &to.parent) && from.name == to.name {
            return Ok(());
        }
        // Neither may lie below the other, whatever they are.
        if matches!(&entry, Entry::Dir(node) if node.contains(&to.parent)) {
            return Err(Errno::Invalid);
        }
        if matches!(&to.entry, Some(Entry::Dir(over)) if over.contains(&from.parent)) {
            return Err(Errno::NotEmpty);
        }
        let (old, new) = ((&from.parent, from.name.as_str()), (&to.parent, to.name.as_str()));
        match (entry, to.entry) {
            (Entry::Leaf(_), _) if from.dir_only || to.dir_only => Err(Errno::NotDir),
            (Entry::Leaf(_), Some(Entry::Dir(_))) => Err(Errno::IsDir),
            (Entry::Leaf(leaf), _) => rename_leaf(old, leaf, new),
            (Entry::Dir(_), Some(Entry::Leaf(_))) => Err(Errno::NotDir),
            (Entry::Dir(node), Some(Entry::Dir(over))) => rename_dir(old, &node, new, Some(&over)),
            (Entry::Dir(node), None) => rename_dir(old, &node, new, None),
        }
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
                let leaf = upper_leaf(&found.parent, leaf)?;
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
        self.writable()?.set_times(".", times.0, times.1)
    }

    /// Flushes the directory.
    pub(in crate::wasm) fn sync(&self) -> Result<()> {
        let top = lock(&self.stack).first().cloned();
        top.map_or(Ok(()), |source| source.dir.sync())
    }
}

/// The same object in the writable directory.
fn upper_leaf(parent: &Arc<Node>, leaf: Leaf) -> Result<Leaf> {
    if leaf.source.layer == 0 { Ok(leaf) } else { copy_up(parent, &leaf, true) }
}

fn rename_leaf(old: (&Arc<Node>, &str), leaf: Leaf, new: (&Arc<Node>, &str)) -> Result<()> {
    let to = new.0.writable()?;
    let from = old.0.writable()?;
    drop(upper_leaf(old.0, leaf)?);
    if old.0.lower_has(old.1)? {
        place_whiteout(&from, old.1)?;
    }
    from.rename(old.1, &to, new.1)?;
    new.0.uncover(&to, new.1)
}

fn rename_dir(
    old: (&Arc<Node>, &str),
    node: &Arc<Node>,
    new: (&Arc<Node>, &str),
    over: Option<&Arc<Node>>,
) -> Result<()> {
    if node.has_lower() || !lock(&node.mounts).is_empty() {
        return Err(Errno::CrossDevice);
    }
    let to = new.0.writable()?;
    let from = old.0.writable()?;
    if let Some(over) = over {
        remove_dir(new.0, new.1, over)?;
    }
    if new.0.lower_has(new.1)? {
        make_mark(&*node.writable()?, OPAQUE)?;
    }
    new.0.clear_kernel_whiteout(&to, new.1)?;
    if old.0.lower_has(old.1)? {
        place_whiteout(&from, old.1)?;
    }
    from.rename(old.1, &to, new.1)?;
    node.moved(new.0, new.1);
    new.0.uncover(&to, new.1)
}

fn remove_dir(parent: &Arc<Node>, name: &str, node: &Arc<Node>) -> Result<()> {
    if parent.is_mount_point(name) {
        return Err(Errno::Busy);
    }
    let host = parent.writable()?;
    if !node.list()?.is_empty() {
        return Err(Errno::NotEmpty);
    }
    let upper = lock(&node.stack).first().filter(|source| source.layer == 0).cloned();
    if parent.lower_has(name)? {
        place_whiteout(&host, name)?;
    }
    if upper.is_some() {
        if parent.fs.layered {
            remove_upper(&host, name)?;
        } else {
            host.rmdir(name)?;
        }
    }
    node.set_removed();
    Ok(())
}

/// Removes a host directory that has nothing but our own marks in it.
fn remove_upper(host: &Dir, name: &str) -> Result<()> {
    let dir = host.open_dir(name)?;
    for raw in dir.list()? {
        // A name that guests cannot see is none of theirs; it makes the removal fail below.
        let Some(mark) = super::host::name_str(&raw.name) else { continue };
        if mark.starts_with(super::fs::WHITEOUT) || dir.stat(mark)?.whiteout {
            dir.unlink(mark)?;
        }
    }
    host.rmdir(name)
}
