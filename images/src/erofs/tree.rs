//! The tree that archive entries describe, in memory: one layer with its whiteouts, or several merged.
//!
//! What an entry does here is what it does to the directory that the extractor writes (`layer::extract`): symbolic
//! links on the way are followed within the layer, missing directories are made, the last entry of a name counts.
//! Trees can be deeper than any path is long, so nothing here recurses.

use std::collections::BTreeMap;

use crate::layer::Fault;
use crate::layer::extract::split;
use crate::layer::tar::Meta;

/// The root's place among a tree's directories.
pub(super) const ROOT: u32 = 0;
/// As in the kernel.
const MAX_LINKS: usize = 40;
const MAX_NAME: usize = 255;

/// A directory tree; places in its two lists are what entries refer to.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(super) dirs: Vec<Dir>,
    pub(super) leaves: Vec<Leaf>,
    /// The directory that was used last, by path: archives list directories one after the other.
    last: Option<(Vec<u8>, u32)>,
}

/// A directory.
#[derive(Debug)]
pub(super) struct Dir {
    pub(super) attributes: Attributes,
    pub(super) entries: BTreeMap<Box<[u8]>, Node>,
    /// Hides what the layers below have in it.
    pub(super) opaque: bool,
    /// Whether the attributes were given by an entry, or nothing below can have others. Without either, those of the
    /// directory below are kept.
    pub(super) named: bool,
    parent: u32,
}

/// Anything that is no directory. Several names may lead to the same one.
#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) attributes: Attributes,
    pub(super) content: Content,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Node {
    Dir(u32),
    Leaf(u32),
    /// The name is removed from the layers below.
    Whiteout,
}

/// What a file that is no directory holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Bytes of an archive: the layer's number from 1, 0 until it has one; first block; size.
    File {
        device: u16,
        block: u32,
        size: u64,
    },
    Symlink(Box<[u8]>),
    /// The file that the layers below have under this path: a hard link to it.
    Below(Box<[u8]>),
    Fifo,
    /// Major and minor number.
    Char(u32, u32),
    Block(u32, u32),
}

/// What a file has beside its content.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    /// Permission bits only.
    pub(super) mode: u16,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    /// By name, each name once.
    pub(super) xattrs: Box<[Xattr]>,
}

/// Name and value of an extended attribute.
pub(super) type Xattr = (Vec<u8>, Vec<u8>);

/// Why a path leads to no directory.
#[derive(Debug)]
pub(super) enum Lost {
    Missing,
    NotDirectory,
    Loop,
    TooLong,
}

impl From<Lost> for Fault {
    fn from(lost: Lost) -> Self {
        Self::bad(match lost {
            Lost::Missing | Lost::NotDirectory => "lies below something that is not a directory",
            Lost::Loop => "lies below too many symbolic links",
            Lost::TooLong => "lies below a symbolic link with a name that is too long",
        })
    }
}

impl Attributes {
    /// Of an entry; extended attributes only for files and directories.
    pub(super) fn of(meta: &Meta, xattrs: Box<[Xattr]>) -> Self {
        let mode = u16::try_from(meta.mode & 0o7777).unwrap_or_default();
        Self { mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self { dirs: vec![Dir::new(ROOT)], leaves: Vec::new(), last: None }
    }
}

impl Dir {
    /// With Docker's mode for directories without an entry of their own, and a time that is always the same.
    fn new(parent: u32) -> Self {
        let attributes = Attributes { mode: 0o755, ..Attributes::default() };
        Self { attributes, entries: BTreeMap::new(), opaque: false, named: false, parent }
    }
}

impl Tree {
    pub(super) fn dir(&self, id: u32) -> &Dir {
        &self.dirs[id as usize]
    }

    pub(super) fn dir_mut(&mut self, id: u32) -> &mut Dir {
        &mut self.dirs[id as usize]
    }

    pub(super) fn leaf(&self, id: u32) -> &Leaf {
        &self.leaves[id as usize]
    }

    pub(super) fn get(&self, dir: u32, name: &[u8]) -> Option<Node> {
        self.dir(dir).entries.get(name).copied()
    }

    pub(super) fn add_leaf(&mut self, leaf: Leaf) -> Node {
        self.leaves.push(leaf);
        Node::Leaf(number(self.leaves.len() - 1))
    }

    fn add_dir(&mut self, parent: u32, name: &[u8]) -> u32 {
        self.dirs.push(Dir::new(parent));
        let id = number(self.dirs.len() - 1);
        self.dir_mut(parent).entries.insert(name.into(), Node::Dir(id));
        id
    }

    /// The directory of this path, with those on the way that are missing.
    pub(super) fn enter(&mut self, path: &[u8]) -> Result<u32, Fault> {
        if let Some((_, id)) = self.last.as_ref().filter(|(last, _)| last == path) {
            return Ok(*id);
        }
        let id = match self.find_dir(path) {
            Err(Lost::Missing | Lost::NotDirectory) => {
                self.make_dirs(path)?;
                self.find_dir(path)?
            }
            other => other?,
        };
        self.last = Some((path.to_vec(), id));
        Ok(id)
    }

    fn make_dirs(&mut self, path: &[u8]) -> Result<(), Fault> {
        let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(i, _)| i).chain([path.len()]);
        for end in ends {
            let prefix = &path[..end];
            match self.find_dir(prefix) {
                Ok(_) => continue,
                Err(Lost::Missing | Lost::NotDirectory) => {}
                Err(lost) => return Err(lost.into()),
            }
            let (parent, name) = split(prefix);
            let parent = self.find_dir(parent)?;
            match self.get(parent, name) {
                None => drop(self.add_dir(parent, name)),
                // A removed name that is made anew hides what was below it. Anything else is in the way.
                Some(Node::Whiteout) => {
                    let id = self.add_dir(parent, name);
                    (self.dir_mut(id).opaque, self.dir_mut(id).named) = (true, true);
                }
                Some(_) => return Err(Lost::NotDirectory.into()),
            }
        }
        Ok(())
    }

    /// Follows a path within the layer, symbolic links too; `..` at the root stays there.
    pub(super) fn find_dir(&self, path: &[u8]) -> Result<u32, Lost> {
        let mut at = ROOT;
        let mut links = 0;
        let mut todo: Vec<&[u8]> = path.rsplit(|b| *b == b'/').collect();
        while let Some(name) = todo.pop() {
            match name {
                b"" | b"." => continue,
                b".." => {
                    at = self.dir(at).parent;
                    continue;
                }
                _ if name.len() > MAX_NAME => return Err(Lost::TooLong),
                _ => {}
            }
            match self.get(at, name) {
                None => return Err(Lost::Missing),
                Some(Node::Dir(id)) => at = id,
                Some(Node::Whiteout) => return Err(Lost::NotDirectory),
                Some(Node::Leaf(id)) => {
                    let Content::Symlink(target) = &self.leaf(id).content else {
                        return Err(Lost::NotDirectory);
                    };
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Lost::Loop);
                    }
                    if target.first() == Some(&b'/') {
                        at = ROOT;
                    }
                    todo.extend(target.rsplit(|b| *b == b'/'));
                }
            }
        }
        Ok(at)
    }

    /// Gives a name to something; what had it before is gone, with everything below it.
    pub(super) fn put(&mut self, dir: u32, name: &[u8], node: Node) {
        self.clear_name(dir, name);
        self.dir_mut(dir).entries.insert(name.into(), node);
    }

    /// A directory: the one that is there, or a new one.
    pub(super) fn put_dir(&mut self, dir: u32, name: &[u8]) -> u32 {
        match self.get(dir, name) {
            Some(Node::Dir(id)) => id,
            before => {
                let id = self.add_dir(dir, name);
                self.dir_mut(id).opaque = before == Some(Node::Whiteout);
                id
            }
        }
    }

    /// Removes a name. Directories below it become empty, so that whoever still holds one finds nothing in it.
    pub(super) fn clear_name(&mut self, dir: u32, name: &[u8]) {
        let mut todo: Vec<u32> = Vec::new();
        todo.extend(self.dir_mut(dir).entries.remove(name).and_then(Node::dir));
        while let Some(id) = todo.pop() {
            todo.extend(std::mem::take(&mut self.dir_mut(id).entries).into_values().filter_map(Node::dir));
        }
    }

    /// As at the end of an archive: nothing is remembered that only helps to build.
    pub(super) fn settle(&mut self) {
        self.last = None;
        self.dirs.shrink_to_fit();
        self.leaves.shrink_to_fit();
    }
}

impl Node {
    fn dir(self) -> Option<u32> {
        match self {
            Self::Dir(id) => Some(id),
            _ => None,
        }
    }
}

/// A place in a list. Archives are refused long before there are this many entries.
pub(super) fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}
