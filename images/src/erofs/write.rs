//! Laying out a merged tree and writing it down, in one pass from the first byte to the last.
//!
//! ```text
//! 0       nothing
//! 1024    superblock, then a slot for each archive
//! ...     inodes, directory by directory, the root's first; small directories and link targets behind theirs
//! ...     shared extended attributes
//! ...     whole blocks of directories and long link targets
//! ```

use std::io::Write;

use super::dirents;
use super::dirents::FileType;
use super::format;
use super::format::BLOCK;
use super::format::CHUNK_SIZE;
use super::format::INODE_SIZE;
use super::format::INODE_UNIT;
use super::format::Inode;
use super::format::Layout;
use super::format::SLOT_SIZE;
use super::format::SUPER_OFFSET;
use super::format::SUPER_SIZE;
use super::format::Slot;
use super::tree::Attributes;
use super::tree::Content;
use super::tree::Node;
use super::tree::ROOT;
use super::tree::Tree;
use super::xattrs;
use super::xattrs::Shared;
use crate::Digest;
use crate::layer::Fault;

/// Pages of the host: an image ends with a whole one.
const END: u64 = 4096;

/// Where everything goes.
struct Plan<'t> {
    tree: &'t Tree,
    shared: Shared<'t>,
    /// Directories and leaves in the order of their inodes.
    order: Vec<Node>,
    /// By place in the tree. 0 is nowhere.
    dirs: Vec<Place>,
    leaves: Vec<Place>,
}

/// Where a file goes.
#[derive(Debug, Clone, Copy, Default)]
struct Place {
    /// The inode, from the image's beginning.
    at: u64,
    /// Bytes of a directory.
    size: u64,
    /// First of the blocks with content, from the beginning of them all; made absolute when written.
    block: u64,
    links: u32,
    /// Of a directory.
    parent: u32,
}

/// Writes the image of a tree without whiteouts. Returns its size in bytes.
pub(super) fn write(tree: &Tree, id: &Digest, slots: &[Slot], to: impl Write) -> Result<u64, Fault> {
    let mut plan = Plan::new(tree);
    let start = SUPER_OFFSET + SUPER_SIZE + SLOT_SIZE * slots.len() as u64;
    let (inodes_end, blocks) = plan.place_all(start);
    let shared_at = inodes_end.next_multiple_of(BLOCK);
    let blocks_at = (shared_at + plan.shared.area().len() as u64).next_multiple_of(BLOCK);
    let end = (blocks_at + blocks * BLOCK).next_multiple_of(END);
    let count = |bytes: u64| {
        u32::try_from(bytes / BLOCK).map_err(|_| Fault::bad("has more files than an index can hold"))
    };
    let root = u16::try_from(plan.dirs[ROOT as usize].at / INODE_UNIT)
        .map_err(|_| Fault::bad("has too many layers"))?;
    let mut out = Out { to, at: 0 };
    out.pad(SUPER_OFFSET)?;
    let files = plan.order.len() as u64;
    out.put(&format::superblock(files, count(end)?, count(shared_at)?, root, id, slots.len()))?;
    for slot in slots {
        out.put(&format::slot(slot))?;
    }
    for node in &plan.order {
        plan.write_inode(*node, u64::from(count(blocks_at)?), &mut out)?;
    }
    out.pad(shared_at)?;
    out.put(plan.shared.area())?;
    for node in &plan.order {
        plan.write_blocks(*node, blocks_at, &mut out)?;
    }
    out.pad(end)?;
    out.to.flush()?;
    Ok(end)
}

impl<'t> Plan<'t> {
    fn new(tree: &'t Tree) -> Self {
        let mut plan = Self {
            tree,
            shared: Shared::default(),
            order: Vec::new(),
            dirs: vec![Place::default(); tree.dirs.len()],
            leaves: vec![Place::default(); tree.leaves.len()],
        };
        plan.walk();
        plan.shared = Shared::find(plan.order.iter().map(|node| match node {
            Node::Leaf(id) => &*tree.leaf(*id).attributes.xattrs,
            Node::Dir(id) => &*tree.dir(*id).attributes.xattrs,
            Node::Whiteout => &[],
        }));
        plan
    }

    /// The order of inodes: those of one directory are next to each other. Counts links on the way.
    fn walk(&mut self) {
        self.order.push(Node::Dir(ROOT));
        let mut todo = std::collections::VecDeque::from([ROOT]);
        while let Some(dir) = todo.pop_front() {
            // Its name and its own `.`, and `..` of each directory in it.
            self.dirs[dir as usize].links += 2;
            for node in self.tree.dir(dir).entries.values() {
                match node {
                    Node::Dir(id) => {
                        self.dirs[dir as usize].links += 1;
                        self.dirs[*id as usize].parent = dir;
                        self.order.push(*node);
                        todo.push_back(*id);
                    }
                    Node::Leaf(id) => {
                        let place = &mut self.leaves[*id as usize];
                        place.links += 1;
                        if place.links == 1 {
                            self.order.push(*node);
                        }
                    }
                    Node::Whiteout => {}
                }
            }
        }
    }

    /// Gives every inode its place. Returns where they end, and how many blocks of content there are.
    fn place_all(&mut self, start: u64) -> (u64, u64) {
        let (mut at, mut blocks) = (start, 0);
        for i in 0..self.order.len() {
            let node = self.order[i];
            let size = match node {
                Node::Dir(id) => dirents::size(self.entries(id).map(|(name, _)| name)),
                _ => 0,
            };
            let head = INODE_SIZE + self.shared.size(&self.attributes(node).xattrs);
            let (whole, inline, tail) = match (node, node.leaf().map(|id| &self.tree.leaf(id).content)) {
                (Node::Dir(_), _) => split_content(size, head),
                (_, Some(Content::Symlink(target))) => split_link(target.len() as u64, head),
                (_, Some(Content::File { size: 1.., .. })) => {
                    (0, false, head.next_multiple_of(CHUNK_SIZE) - head + CHUNK_SIZE)
                }
                _ => (0, false, 0),
            };
            at = at.next_multiple_of(INODE_UNIT);
            // The kernel reads what is inline from the block that the inode ends in, and inodes in one piece.
            let together = if inline { head + tail } else { INODE_SIZE };
            if at / BLOCK != (at + together - 1) / BLOCK {
                at = at.next_multiple_of(BLOCK);
            }
            let place = self.place_mut(node);
            (place.at, place.size, place.block) = (at, size, blocks);
            at += head + tail;
            blocks += whole;
        }
        (at, blocks)
    }

    fn place_mut(&mut self, node: Node) -> &mut Place {
        match node {
            Node::Leaf(id) => &mut self.leaves[id as usize],
            Node::Dir(id) => &mut self.dirs[id as usize],
            Node::Whiteout => &mut self.dirs[ROOT as usize],
        }
    }

    fn place(&self, node: Node) -> Place {
        match node {
            Node::Leaf(id) => self.leaves[id as usize],
            Node::Dir(id) => self.dirs[id as usize],
            Node::Whiteout => Place::default(),
        }
    }

    fn attributes(&self, node: Node) -> &'t Attributes {
        match node {
            Node::Leaf(id) => &self.tree.leaf(id).attributes,
            Node::Dir(id) => &self.tree.dir(id).attributes,
            Node::Whiteout => &self.tree.dir(ROOT).attributes,
        }
    }

    /// A directory's entries with `.` and `..`, sorted. Names may come before these two: `!` does.
    fn entries(&self, dir: u32) -> impl Iterator<Item = (&'t [u8], Node)> {
        let own = self.tree.dir(dir).entries.iter().map(|(name, node)| (&**name, *node)).peekable();
        let parent = Node::Dir(self.dirs[dir as usize].parent);
        let dots = [(&b"."[..], Node::Dir(dir)), (&b".."[..], parent)].into_iter().peekable();
        Merged { own, dots }
    }

    fn write_inode(&self, node: Node, first_block: u64, out: &mut Out<impl Write>) -> Result<(), Fault> {
        let (place, attributes) = (self.place(node), self.attributes(node));
        let xattrs = self.shared.body(&attributes.xattrs);
        let head = INODE_SIZE + xattrs.len() as u64;
        let block = u32::try_from(first_block + place.block)
            .map_err(|_| Fault::bad("has more files than an index can hold"))?;
        let mut tail = Vec::new();
        let (kind, size, layout) = match (node, node.leaf().map(|id| &self.tree.leaf(id).content)) {
            (_, Some(Content::File { size: 0, .. })) => (0o100_000, 0, Layout::Plain(0)),
            (_, Some(Content::File { device, block, size })) => {
                tail.resize(usize::try_from(head.next_multiple_of(CHUNK_SIZE) - head).unwrap_or_default(), 0);
                tail.extend_from_slice(&format::chunk(*device, *block));
                (0o100_000, *size, Layout::Chunk { bits: format::chunk_bits(*size) })
            }
            (_, Some(Content::Symlink(target))) => {
                let size = target.len() as u64;
                let layout = match split_link(size, head) {
                    (_, true, _) => {
                        tail.extend_from_slice(target);
                        Layout::Inline(0)
                    }
                    _ => Layout::Plain(block),
                };
                (0o120_000, size, layout)
            }
            (_, Some(Content::Fifo)) => (0o010_000, 0, Layout::Special(0)),
            (_, Some(Content::Char(major, minor))) => (0o020_000, 0, special(*major, *minor)),
            (_, Some(Content::Block(major, minor))) => (0o060_000, 0, special(*major, *minor)),
            (Node::Dir(id), _) => {
                let layout = match split_content(place.size, head) {
                    (whole, true, _) => {
                        tail = self.content(id);
                        tail.drain(..usize::try_from(whole * BLOCK).unwrap_or(tail.len()));
                        Layout::Inline(block)
                    }
                    _ => Layout::Plain(block),
                };
                (0o040_000, place.size, layout)
            }
            (Node::Leaf(_) | Node::Whiteout, _) => return Ok(()),
        };
        out.pad(place.at)?;
        out.put(&format::inode(&Inode {
            layout,
            xattr_units: xattrs::units(xattrs.len() as u64),
            kind,
            attributes,
            size,
            links: place.links,
            // Only systems with small numbers see it.
            number: u32::try_from(place.at / INODE_UNIT).unwrap_or_default(),
        }))?;
        out.put(&xattrs)?;
        out.put(&tail)
    }

    /// The blocks of a directory's content.
    fn content(&self, dir: u32) -> Vec<u8> {
        dirents::blocks(
            self.entries(dir)
                .map(|(name, node)| (name, self.place(node).at / INODE_UNIT, file_type(self.tree, node))),
        )
    }

    fn write_blocks(&self, node: Node, start: u64, out: &mut Out<impl Write>) -> Result<(), Fault> {
        let (place, head) = (self.place(node), INODE_SIZE + self.shared.size(&self.attributes(node).xattrs));
        let whole = match (node, node.leaf().map(|id| &self.tree.leaf(id).content)) {
            (Node::Dir(_), _) => split_content(place.size, head).0,
            (_, Some(Content::Symlink(target))) => split_link(target.len() as u64, head).0,
            _ => 0,
        };
        if whole == 0 {
            return Ok(());
        }
        let content = match (node, node.leaf().map(|id| &self.tree.leaf(id).content)) {
            (Node::Dir(id), _) => self.content(id),
            (_, Some(Content::Symlink(target))) => target.to_vec(),
            _ => return Ok(()),
        };
        out.pad(start + place.block * BLOCK)?;
        let length = usize::try_from(whole * BLOCK).unwrap_or(usize::MAX).min(content.len());
        out.put(&content[..length])
    }
}

impl Node {
    fn leaf(self) -> Option<u32> {
        match self {
            Self::Leaf(id) => Some(id),
            _ => None,
        }
    }
}

/// Whole blocks of a directory, whether the rest follows the inode, and the bytes that do.
fn split_content(size: u64, head: u64) -> (u64, bool, u64) {
    let tail = size % BLOCK;
    if tail > 0 && head + tail <= BLOCK {
        (size / BLOCK, true, tail)
    } else {
        (size.div_ceil(BLOCK), false, 0)
    }
}

/// The same of a link's target, which is in one piece.
fn split_link(size: u64, head: u64) -> (u64, bool, u64) {
    if head + size <= BLOCK { (0, true, size) } else { (size.div_ceil(BLOCK), false, 0) }
}

/// A device's number as the kernel packs it (`new_encode_dev`).
fn special(major: u32, minor: u32) -> Layout {
    Layout::Special(minor & 0xff | major << 8 | (minor & !0xff) << 12)
}

fn file_type(tree: &Tree, node: Node) -> FileType {
    match node {
        Node::Dir(_) | Node::Whiteout => FileType::Directory,
        Node::Leaf(id) => match tree.leaf(id).content {
            // Merging has replaced what is below.
            Content::File { .. } | Content::Below(_) => FileType::Regular,
            Content::Symlink(_) => FileType::Symlink,
            Content::Fifo => FileType::Fifo,
            Content::Char(..) => FileType::Char,
            Content::Block(..) => FileType::Block,
        },
    }
}

/// Two sorted sequences as one.
struct Merged<A: Iterator, B: Iterator> {
    own: std::iter::Peekable<A>,
    dots: std::iter::Peekable<B>,
}

impl<'n, A, B> Iterator for Merged<A, B>
where
    A: Iterator<Item = (&'n [u8], Node)>,
    B: Iterator<Item = (&'n [u8], Node)>,
{
    type Item = (&'n [u8], Node);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.own.peek(), self.dots.peek()) {
            (Some(own), Some(dot)) if own.0 < dot.0 => self.own.next(),
            (_, Some(_)) => self.dots.next(),
            _ => self.own.next(),
        }
    }
}

/// Counts what is written.
struct Out<W> {
    to: W,
    at: u64,
}

impl<W: Write> Out<W> {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.to.write_all(bytes)?;
        self.at += bytes.len() as u64;
        Ok(())
    }

    /// Zeros up to a place.
    fn pad(&mut self, to: u64) -> Result<(), Fault> {
        const ZEROS: [u8; 4096] = [0; 4096];
        while self.at < to {
            let n = usize::try_from(to - self.at).unwrap_or(ZEROS.len()).min(ZEROS.len());
            self.put(&ZEROS[..n])?;
        }
        Ok(())
    }
}
