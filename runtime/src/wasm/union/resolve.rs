//! A guest's path, taken apart one component after the other. Symbolic links are resolved in the merged tree, with
//! `/` being its root, so a link in one layer may lead through another; nothing leads out of the tree.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::Union;
use super::errno::{Errno, Result};
use super::fs::Exclusive;
use super::host::Kind;
use super::node::{Entry, Node};

/// Bytes in a path, as Linux counts them.
const PATH_MAX: usize = 4096;
/// Symbolic links in one resolution, as Linux counts them.
const LINKS_MAX: usize = 40;

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Resolved {
    /// The directory that has, or would have, the last name.
    pub(super) parent: Arc<Node>,
    /// The last name; empty when the path ends in `.` or `..` and `parent` itself is meant.
    pub(super) name: OsString,
    /// What is there now.
    pub(super) entry: Option<Entry>,
    /// Whether the path's form asks for a directory (it ends in `/`, `.` or `..`).
    pub(super) dir_only: bool,
}

struct Step {
    name: OsString,
    /// Written in a symbolic link of an image, where `..` at the root stays there, as it would for a process. A guest's
    /// own `..` there is refused, in a path as in a link that it made.
    from_link: bool,
}

impl Union {
    /// Follows `path` from `start`; the last component's symbolic link only if `follow`, or when a `/` comes after it.
    pub(super) fn resolve(&self, start: &Arc<Node>, path: &str, follow: bool) -> Result<Resolved> {
        self.walk(start, path, follow, None)
    }

    /// As [`Self::resolve`], for who is going to change what is there: where that takes several steps, the lock is
    /// taken before the last component is looked up.
    pub(super) fn resolve_to_change<'a>(
        &'a self,
        start: &Arc<Node>,
        path: &str,
        follow: bool,
        held: &mut Option<Exclusive<'a>>,
    ) -> Result<Resolved> {
        self.walk(start, path, follow, Some(held))
    }

    fn walk<'a>(
        &'a self,
        start: &Arc<Node>,
        path: &str,
        follow: bool,
        mut held: Option<&mut Option<Exclusive<'a>>>,
    ) -> Result<Resolved> {
        check_path(path)?;
        start.refresh()?;
        let mut current = Arc::clone(start);
        let mut pending = Vec::new();
        push_steps(&mut pending, OsStr::new(path), false);
        let mut dir_only = ends_as_directory(OsStr::new(path));
        let mut links = 0;
        while let Some(step) = pending.pop() {
            let last = pending.is_empty();
            if step.name == "." {
                continue;
            }
            if step.name == ".." {
                if current.is_root() && !step.from_link {
                    return Err(Errno::NotPermitted);
                }
                current = current.parent();
                continue;
            }
            if last
                && let Some(held) = held.as_deref_mut()
                && held.is_none()
                && current.has_lower()
                && !current.readonly()
            {
                *held = Some(self.root().fs.exclusive());
                current.refresh()?;
            }
            let entry = current.lookup(&step.name)?;
            match entry {
                Some(Entry::Leaf(leaf))
                    if leaf.stat.kind == Kind::Symlink && (!last || follow || dir_only) =>
                {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(Errno::Loop);
                    }
                    let target = leaf.readlink()?;
                    if target.is_empty() {
                        return Err(Errno::NotFound);
                    }
                    if target.as_encoded_bytes().first() == Some(&b'/') {
                        current = Arc::clone(self.root());
                    }
                    dir_only |= last && ends_as_directory(&target);
                    push_steps(&mut pending, &target, leaf.source.layer != 0);
                }
                Some(Entry::Dir(node)) if !last => {
                    self.remember(&node);
                    current = node;
                }
                Some(Entry::Leaf(_)) if !last => return Err(Errno::NotDir),
                None if !last => return Err(Errno::NotFound),
                entry => return Ok(Resolved { parent: current, name: step.name, entry, dir_only }),
            }
        }
        let entry = Some(Entry::Dir(Arc::clone(&current)));
        Ok(Resolved { parent: current, name: OsString::new(), entry, dir_only: true })
    }
}

impl Resolved {
    /// The name to create, or why that cannot be: it exists, or is none.
    pub(super) fn vacant(&self) -> Result<&OsStr> {
        if self.entry.is_some() || self.name.is_empty() {
            return Err(Errno::Exists);
        }
        if self.parent.fs.hides(&self.name) {
            return Err(Errno::NotPermitted);
        }
        Ok(&self.name)
    }
}

fn push_steps(pending: &mut Vec<Step>, path: &OsStr, from_link: bool) {
    let names = path.as_encoded_bytes().rsplit(|byte| *byte == b'/').filter(|name| !name.is_empty());
    pending.extend(names.filter_map(super::host::name_from).map(|name| Step { name, from_link }));
}

fn ends_as_directory(path: &OsStr) -> bool {
    matches!(path.as_encoded_bytes().rsplit(|byte| *byte == b'/').next(), Some(b"" | b"." | b".."))
}

fn check_path(path: &str) -> Result<()> {
    if path.is_empty() {
        return Err(Errno::NotFound);
    }
    if path.len() > PATH_MAX {
        return Err(Errno::NameTooLong);
    }
    if path.contains('\0') {
        return Err(Errno::Invalid);
    }
    // A descriptor grants what is below it; WASI has no absolute paths.
    if path.starts_with('/') {
        return Err(Errno::NotPermitted);
    }
    Ok(())
}
