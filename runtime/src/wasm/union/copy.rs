//! Copy-up: the first time something that only a layer has is to be changed, it is copied into the writable directory.
//!
//! A copy is made in the hidden folder and renamed into its place when it is complete, so that nobody ever sees half of
//! it. Nobody is kept waiting while data is copied; only the renaming is done under the lock, after another look: the
//! first of two processes wins, and the other one uses its copy.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::errno::{Errno, Result};
use super::host::{Dir, Kind, OpenHow, copy_attributes, copy_data};
use super::index::{self, Origin};
use super::mark;
use super::node::{Entry, Leaf, Node};

/// What may be copied up when a directory is moved; beyond it a program is told to copy by itself.
const TREE_ENTRIES: u64 = 250_000;
const TREE_BYTES: u64 = 16 << 30;

/// A copy that is not in its place yet.
struct Draft {
    workshop: Arc<Dir>,
    name: String,
    origin: Option<Origin>,
    done: bool,
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            // What stays there is seen by nobody.
            self.workshop.unlink(&self.name).ok();
        }
    }
}

/// Gives what `leaf` is a place in the writable directory: everything, or all but a file's data. `None` when `name` has
/// come to mean something else: the caller looks again. The lock must not be held.
pub(super) fn copy_up(parent: &Arc<Node>, name: &OsStr, leaf: &Leaf, data: bool) -> Result<Option<Leaf>> {
    {
        let _held = parent.fs.exclusive();
        parent.refresh()?;
        parent.writable()?;
    }
    let mut draft = draft(parent, leaf, data)?;
    let _held = parent.fs.exclusive();
    parent.refresh()?;
    publish(parent, name, leaf, draft.as_mut())
}

/// As [`copy_up`], for who holds the lock.
pub(super) fn copy_up_held(parent: &Arc<Node>, name: &OsStr, leaf: &Leaf) -> Result<Option<Leaf>> {
    parent.writable()?;
    let mut draft = draft(parent, leaf, true)?;
    publish(parent, name, leaf, draft.as_mut())
}

/// `None` if there is a copy already, under another name.
fn draft(parent: &Arc<Node>, leaf: &Leaf, data: bool) -> Result<Option<Draft>> {
    if leaf.elsewhere {
        return Ok(None);
    }
    let fs = &parent.fs;
    let workshop = Arc::clone(fs.index.workshop()?);
    match leaf.stat.kind {
        Kind::File => {
            let create = OpenHow { write: true, create_new: true, mode: 0o600, ..OpenHow::default() };
            let (name, mut to) = mark::draft(fs, |shop, name| shop.open_file(name, &create))?;
            let origin = Origin::new(fs, leaf.source.layer, &leaf.stat, leaf.ino);
            let mut draft = Draft { workshop, name, origin, done: false };
            let read = OpenHow { read: true, ..OpenHow::default() };
            // What cannot be read cannot be copied, but can be replaced.
            let from = match leaf.source.dir.open_file(&leaf.name, &read) {
                Err(Errno::Access) if !data => None,
                from => Some(from?),
            };
            if let Some(mut from) = from {
                if data {
                    copy_data(&mut from, &mut to)?;
                }
                copy_attributes(&from, &to);
            }
            draft.origin = draft.origin.take().filter(|origin| index::mark(&to, origin));
            draft.workshop.imitate(&draft.name, Some(&to), &leaf.stat)?;
            Ok(Some(draft))
        }
        Kind::Symlink => {
            let target = leaf.readlink()?;
            let (name, ()) = mark::draft(fs, |shop, name| shop.symlink(&target, name))?;
            let draft = Draft { workshop, name, origin: None, done: false };
            draft.workshop.imitate(&draft.name, None, &leaf.stat)?;
            Ok(Some(draft))
        }
        _ => Err(Errno::NotSupported),
    }
}

/// Puts a draft into its place, if that is still as it was.
fn publish(parent: &Arc<Node>, name: &OsStr, leaf: &Leaf, draft: Option<&mut Draft>) -> Result<Option<Leaf>> {
    let Some(Entry::Leaf(now)) = parent.lookup_under_mounts(name)? else { return Ok(None) };
    if now.source.layer == 0 && !now.elsewhere {
        return Ok(Some(now));
    }
    if now.ino != leaf.ino || now.stat.kind != leaf.stat.kind {
        return Ok(None);
    }
    let dir = parent.writable()?;
    if now.elsewhere {
        now.source.dir.link(&now.name, &dir, name)?;
    } else {
        let Some(draft) = draft else { return Ok(None) };
        draft.workshop.rename_new(&draft.name, &dir, name)?;
        draft.done = true;
        let indexed = draft.origin.as_ref().is_some_and(|origin| parent.fs.index.add(&dir, name, origin));
        if !indexed {
            parent.fs.remember_number(&dir.stat(name)?, leaf.ino);
        }
    }
    match parent.lookup_under_mounts(name)? {
        Some(Entry::Leaf(copy)) if copy.source.layer == 0 => Ok(Some(copy)),
        _ => Ok(None),
    }
}

/// Copies up everything below `top` that only layers have, so that it can be moved without them. May be stopped at any
/// point: what it does changes nothing of what is seen.
pub(super) fn copy_up_tree(top: &Arc<Node>, held: bool) -> Result<()> {
    let (mut entries, mut bytes) = (0, 0);
    let mut todo: Vec<(Arc<Node>, Option<OsString>)> = vec![(Arc::clone(top), None)];
    while let Some((above, name)) = todo.pop() {
        let node = match name {
            None => above,
            Some(name) => match above.lookup_under_mounts(&name)? {
                Some(Entry::Dir(node)) => node,
                // Changed by somebody else; the next look, under the lock, is the one that counts.
                _ => continue,
            },
        };
        if !node.has_lower() {
            continue;
        }
        {
            let _held = (!held).then(|| node.fs.exclusive());
            node.refresh()?;
            let dir = node.writable()?;
            index::mark_dir(&dir, node.ino());
            index::moved_into(&dir);
        }
        for (name, kind) in node.names()? {
            entries += 1;
            if kind == Kind::Dir {
                todo.push((Arc::clone(&node), Some(name)));
            } else if let Some(Entry::Leaf(leaf)) = node.lookup_under_mounts(&name)?
                && (leaf.source.layer != 0 || leaf.elsewhere)
            {
                bytes += leaf.stat.size;
                if entries > TREE_ENTRIES || bytes > TREE_BYTES {
                    return Err(Errno::CrossDevice);
                }
                if held {
                    copy_up_held(&node, &name, &leaf)?;
                } else {
                    copy_up(&node, &name, &leaf, true)?;
                }
            }
        }
    }
    Ok(())
}
