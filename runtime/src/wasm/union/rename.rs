//! Renaming. What layers have of a moved object is copied up first, a directory with everything in it: the libraries of
//! guests do not copy by themselves when they are told that they must. Only very large trees are refused.

use std::ffi::OsStr;
use std::sync::Arc;

use super::Union;
use super::change::{gone, remove_dir, upper_leaf};
use super::copy::copy_up_tree;
use super::errno::{Errno, Result};
use super::fs::OPAQUE;
use super::node::{Entry, Leaf, Node};
use super::resolve::Resolved;
use super::{index, mark};

impl Union {
    /// Moves a name.
    pub(in crate::wasm) fn rename(&self, old: (&Arc<Node>, &str), new: (&Arc<Node>, &str)) -> Result<()> {
        // Once without the lock, so that nobody has to wait while data is copied.
        let Some((from, entry, to)) = self.check_rename(old, new)? else { return Ok(()) };
        if !from.parent.has_lower() && !to.parent.has_lower() {
            return rename(&from, entry, to);
        }
        match &entry {
            Entry::Dir(node) if node.has_lower() && !node.readonly() => copy_up_tree(node, false)?,
            Entry::Leaf(leaf) if leaf.source.layer != 0 => self.prepare_to_move(old, false, new)?,
            _ => {}
        }
        let _held = self.exclusive();
        let Some((from, entry, to)) = self.check_rename(old, new)? else { return Ok(()) };
        rename(&from, entry, to)
    }

    /// Everything that is wrong with a move; `None` when there is nothing to be done.
    fn check_rename(
        &self,
        old: (&Arc<Node>, &str),
        new: (&Arc<Node>, &str),
    ) -> Result<Option<(Resolved, Entry, Resolved)>> {
        let mut from = self.resolve(old.0, old.1, false)?;
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
        let entry = from.entry.take().ok_or(Errno::NotFound)?;
        if to.parent.fs.hides(&to.name) {
            return Err(Errno::NotPermitted);
        }
        if Arc::ptr_eq(&from.parent, &to.parent) && from.name == to.name {
            return Ok(None);
        }
        // Neither may lie below the other, whatever they are.
        if matches!(&entry, Entry::Dir(node) if node.contains(&to.parent)) {
            return Err(Errno::Invalid);
        }
        if matches!(&to.entry, Some(Entry::Dir(over)) if over.contains(&from.parent)) {
            return Err(Errno::NotEmpty);
        }
        match (&entry, &to.entry) {
            (Entry::Leaf(_), _) if from.dir_only || to.dir_only => Err(Errno::NotDir),
            (Entry::Leaf(_), Some(Entry::Dir(_))) => Err(Errno::IsDir),
            (Entry::Dir(_), Some(Entry::Leaf(_))) => Err(Errno::NotDir),
            // Of a mount the host says so, in its own order.
            (Entry::Dir(_), Some(Entry::Dir(over))) if over.is_layered() && !over.is_empty()? => {
                Err(Errno::NotEmpty)
            }
            // What is mounted somewhere below would be left behind.
            (Entry::Dir(node), _) if self.mount_parents.iter().any(|parent| node.contains(parent)) => {
                Err(Errno::Busy)
            }
            _ => Ok(Some((from, entry, to))),
        }
    }
}

/// Does it. The lock is held where layers are concerned.
fn rename(from: &Resolved, entry: Entry, to: Resolved) -> Result<()> {
    let (old, new) = ((&from.parent, &*from.name), (&to.parent, &*to.name));
    match (entry, to.entry) {
        (Entry::Leaf(leaf), Some(Entry::Leaf(over))) => rename_leaf(old, leaf, new, Some(&over)),
        (Entry::Leaf(leaf), _) => rename_leaf(old, leaf, new, None),
        (Entry::Dir(node), Some(Entry::Dir(over))) => rename_dir(old, &node, new, Some(&over)),
        (Entry::Dir(node), _) => rename_dir(old, &node, new, None),
    }
}

fn rename_leaf(
    old: (&Arc<Node>, &OsStr),
    leaf: Leaf,
    new: (&Arc<Node>, &OsStr),
    over: Option<&Leaf>,
) -> Result<()> {
    // Of two names of one file both stay, as everywhere.
    if over.is_some_and(|over| leaf.stat.ino != 0 && over.ino == leaf.ino) {
        return Ok(());
    }
    let to = new.0.writable()?;
    let from = old.0.writable()?;
    let leaf = upper_leaf(old.0, old.1, leaf)?;
    if leaf.origin.is_some() {
        index::moved_into(&to);
    }
    match if old.0.lower_has(old.1)? { old.0.cover(&from, old.1)? } else { None } {
        Some(draft) => leaf.fs.index.workshop()?.rename(draft, &to, new.1)?,
        None => from.rename(old.1, &to, new.1)?,
    }
    if let Some(over) = over
        && over.source.layer == 0
        && !over.elsewhere
    {
        gone(over);
    }
    new.0.uncover(&to, new.1)
}

fn rename_dir(
    old: (&Arc<Node>, &OsStr),
    node: &Arc<Node>,
    new: (&Arc<Node>, &OsStr),
    over: Option<&Arc<Node>>,
) -> Result<()> {
    let to = new.0.writable()?;
    let from = old.0.writable()?;
    if !node.fs.layered && cfg!(unix) {
        // The host does all of it at once, or nothing.
        from.rename(old.1, &to, new.1)?;
        if let Some(over) = over {
            over.set_removed();
        }
        node.moved(new.0, new.1);
        return Ok(());
    }
    if node.has_lower() {
        // Done before; now nobody can change it any more.
        copy_up_tree(node, true)?;
    }
    if node.fs.layered && index::origin_of_dir(&*node.writable()?).is_some() {
        index::moved_into(&to);
    }
    if let Some(over) = over {
        remove_dir(new.0, new.1, over)?;
    }
    if new.0.lower_has(new.1)? {
        mark::make(&*node.writable()?, OPAQUE)?;
    }
    let moved = if old.0.lower_has(old.1)? { old.0.cover(&from, old.1)? } else { None };
    let (dir, name) = match &moved {
        Some(draft) => (node.fs.index.workshop()?, OsStr::new(draft)),
        None => (&from, old.1),
    };
    if mark::is_kernels(new.0, &to, new.1) {
        dir.exchange(name, &to, new.1)?;
        dir.unlink(name)?;
    } else {
        dir.rename(name, &to, new.1)?;
    }
    node.moved(new.0, new.1);
    new.0.uncover(&to, new.1)
}
