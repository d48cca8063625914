//! Merged listings: each name once, highest layer first, removed names left out. One pass over each layer.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::errno::Result;
use super::fs::{number_of, whiteout_target};
use super::host::{Kind, name_str};
use super::lock;
use super::node::{Entry, Node};

/// One entry of a listing; never `.` or `..`.
#[derive(Debug, Clone)]
pub(in crate::wasm) struct DirEntry {
    pub(in crate::wasm) name: String,
    pub(in crate::wasm) kind: Kind,
    /// The same number [`super::Metadata::ino`] says.
    pub(in crate::wasm) ino: u64,
}

impl Node {
    /// Everything in this directory, as it is now. Names that are not UTF-8 cannot be named by a guest and are left out.
    pub(in crate::wasm) fn list(self: &Arc<Self>) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        if self.is_removed() {
            return Ok(entries);
        }
        let stack = lock(&self.stack).clone();
        let layered = self.fs.layered && stack.len() > 1;
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut removed: HashSet<String> = HashSet::new();
        let mut merged = Vec::new();
        for source in &stack {
            let dev = source.dir.stat_self()?.dev;
            let mut removed_here = Vec::new();
            for raw in source.dir.list()? {
                let Some(name) = name_str(&raw.name) else { continue };
                if self.fs.hides(name) {
                    removed_here.extend(whiteout_target(name).map(str::to_owned));
                    continue;
                }
                let mut kind = raw.kind;
                if kind == Kind::Unknown || (kind == Kind::CharDevice && self.fs.layered) {
                    let Ok(stat) = source.dir.stat(name) else { continue };
                    kind = stat.kind;
                    if stat.whiteout && self.fs.layered {
                        removed_here.push(name.to_owned());
                        continue;
                    }
                }
                if removed.contains(name) {
                    continue;
                }
                if let Some(&index) = seen.get(name) {
                    if kind == Kind::Dir {
                        merged.push(index);
                    }
                    continue;
                }
                if layered {
                    seen.insert(name.to_owned(), entries.len());
                }
                let ino = self.fs.ino(dev, raw.ino, || number_of(self.ino(), name));
                entries.push(DirEntry { name: name.to_owned(), kind, ino });
            }
            removed.extend(removed_here);
        }
        // A directory in several layers has its lowest one's number.
        for index in merged {
            let entry: &mut DirEntry = &mut entries[index];
            if entry.kind == Kind::Dir
                && let Some(Entry::Dir(node)) = self.lookup(&entry.name)?
            {
                entry.ino = node.ino();
            }
        }
        self.list_mounts(&mut entries);
        Ok(entries)
    }

    fn list_mounts(&self, entries: &mut Vec<DirEntry>) {
        for (name, mounted) in lock(&self.mounts).iter() {
            let (kind, ino) = match mounted {
                Entry::Dir(node) => (Kind::Dir, node.ino()),
                Entry::Leaf(leaf) => (leaf.stat.kind, leaf.ino),
            };
            match entries.iter_mut().find(|entry| entry.name == *name) {
                Some(entry) => (entry.kind, entry.ino) = (kind, ino),
                None => entries.push(DirEntry { name: name.clone(), kind, ino }),
            }
        }
    }
}
