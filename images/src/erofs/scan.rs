//! From an archive to its tree, without its content: the extractor's rules, applied to headers.

use std::io;
use std::io::Read;

use super::tree::Attributes;
use super::tree::Content;
use super::tree::Leaf;
use super::tree::Lost;
use super::tree::Node;
use super::tree::ROOT;
use super::tree::Tree;
use super::tree::Xattr;
use super::xattrs;
use crate::layer::Fault;
use crate::layer::extract::Extracted;
use crate::layer::extract::Finished;
use crate::layer::extract::Sink;
use crate::layer::extract::Tally;
use crate::layer::extract::apply;
use crate::layer::extract::is_allowed_xattr;
use crate::layer::extract::split;
use crate::layer::tar;
use crate::layer::tar::Kind;
use crate::layer::tar::Meta;
use crate::layer::tar::TarReader;

/// A tar's unit, and the block size of the index.
const BLOCK: u64 = 512;

/// A tar that can be passed over without being looked at.
pub(crate) trait TarSource: Read {
    /// Bytes read or skipped so far.
    fn position(&self) -> u64;

    /// Passes over `count` bytes; `false` if there are fewer.
    fn skip(&mut self, count: u64) -> io::Result<bool>;
}

/// What an archive holds.
#[derive(Debug)]
pub(crate) struct Scan {
    /// What it would be when extracted.
    pub(crate) extracted: Extracted,
    tree: Tree,
    unfit: Option<&'static str>,
}

impl Scan {
    /// Why the layer can only be extracted, if so.
    pub(crate) fn unfit(&self) -> Option<&'static str> {
        self.unfit
    }

    pub(super) fn into_tree(self) -> Tree {
        self.tree
    }
}

/// Reads a tar to its end. Whatever would make its extraction fail is a fault here too, as far as it does not depend
/// on where the files would be written.
pub(crate) fn scan(source: &mut impl TarSource) -> Result<Scan, Fault> {
    let mut tar = TarReader::new(source);
    let mut sink = TreeSink { tree: Tree::default(), offset: 0, unfit: None };
    let mut tally = Tally::default();
    while let Some(entry) = tar.next_entry()? {
        tally.count(&entry)?;
        let path = entry.path.clone();
        if entry.sparse.is_some() {
            sink.unfit = Some("a file is sparse");
        }
        sink.offset = tar.get_mut().position();
        apply(entry, &mut NoContent, &mut sink).map_err(|fault| fault.at(&path))?;
        tar.skip_content(|source, count| source.skip(count)).map_err(|fault| fault.at(&path))?;
    }
    let TreeSink { mut tree, unfit, .. } = sink;
    tree.settle();
    Ok(Scan { extracted: tally.extracted, tree, unfit })
}

/// Builds the tree.
struct TreeSink {
    tree: Tree,
    /// Where the current entry's content begins in the archive.
    offset: u64,
    unfit: Option<&'static str>,
}

impl TreeSink {
    /// What the extractor would set. Only files and directories can have attributes of users.
    fn xattrs(&mut self, meta: &Meta, of_users: bool) -> Result<Box<[Xattr]>, Fault> {
        let allowed = meta.xattrs.iter().filter(|(name, _)| is_allowed_xattr(name));
        let xattrs: Vec<Xattr> =
            allowed.filter(|(name, _)| of_users || !name.starts_with(b"user.")).cloned().collect();
        xattrs::check(&xattrs)?;
        if xattrs.iter().any(|(name, _)| name.starts_with(b"system.")) {
            self.unfit = Some("a file has an access control list");
        }
        Ok(xattrs.into())
    }

    fn leaf(&mut self, path: &[u8], meta: &Meta, content: Content) -> Result<(), Fault> {
        let xattrs = self.xattrs(meta, matches!(content, Content::File { .. }))?;
        let (parent, name) = split(path);
        let parent = self.tree.enter(parent)?;
        let node = self.tree.add_leaf(Leaf { attributes: Attributes::of(meta, xattrs), content });
        self.tree.put(parent, name, node);
        Ok(())
    }
}

impl Sink for TreeSink {
    fn dir(&mut self, path: &[u8], meta: Meta) -> Result<(), Fault> {
        let id = if path.is_empty() {
            ROOT
        } else {
            let (parent, name) = split(path);
            let parent = self.tree.enter(parent)?;
            self.tree.put_dir(parent, name)
        };
        let xattrs = self.xattrs(&meta, true)?;
        let dir = self.tree.dir_mut(id);
        (dir.attributes, dir.named) = (Attributes::of(&meta, xattrs), true);
        Ok(())
    }

    fn file(&mut self, path: &[u8], meta: &Meta, size: u64, _: &mut dyn tar::Content) -> Result<(), Fault> {
        let block = match u32::try_from(self.offset / BLOCK) {
            Ok(block) if self.offset.is_multiple_of(BLOCK) => block,
            _ => {
                self.unfit = Some("a file does not begin at a block of the archive");
                0
            }
        };
        self.leaf(path, meta, Content::File { device: 0, block, size })
    }

    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<(), Fault> {
        let meta = Meta { mode: 0o777, ..meta.clone() };
        self.leaf(path, &meta, Content::Symlink(target.into()))
    }

    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Fault> {
        let (from, target_name) = split(target);
        let find = |tree: &Tree| match tree.find_dir(from) {
            Err(Lost::Missing | Lost::NotDirectory) => Ok(None),
            Err(lost) => Err(Fault::from(lost)),
            Ok(dir) => match tree.get(dir, target_name) {
                Some(Node::Dir(_)) => Err(Fault::bad("hard link to a directory")),
                // The link was made before the name was removed.
                None | Some(Node::Whiteout) => Ok(None),
                found => Ok(found),
            },
        };
        let Some(_) = find(&self.tree)? else {
            let content = Content::Below(target.into());
            let node = self.tree.add_leaf(Leaf { attributes: Attributes::default(), content });
            let (parent, name) = split(path);
            let parent = self.tree.enter(parent)?;
            self.tree.put(parent, name, node);
            return Ok(());
        };
        let replaced = || Fault::bad("hard link to something that it replaces");
        let (parent, name) = split(path);
        let parent = self.tree.enter(parent)?;
        // A whiteout may have become a directory, on the way to this name.
        if self.tree.get(parent, name) == Some(find(&self.tree)?.ok_or_else(replaced)?) {
            return Ok(());
        }
        // The target may lie below what has the name.
        self.tree.clear_name(parent, name);
        let node = find(&self.tree)?.ok_or_else(replaced)?;
        self.tree.put(parent, name, node);
        Ok(())
    }

    fn node(&mut self, path: &[u8], kind: Kind, device: (u32, u32), meta: &Meta) -> Result<(), Fault> {
        let (major, minor) = device;
        let content = match kind {
            // What the overlay takes for a whiteout is one, however it came into the archive.
            Kind::Char if device == (0, 0) => {
                let (parent, name) = split(path);
                let parent = self.tree.enter(parent)?;
                self.tree.put(parent, name, Node::Whiteout);
                return Ok(());
            }
            Kind::Char => Content::Char(major, minor),
            Kind::Block => Content::Block(major, minor),
            _ => Content::Fifo,
        };
        if major > 0xfff || minor > 0xf_ffff {
            self.unfit = Some("a device number is too large");
        }
        self.leaf(path, meta, content)
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), Fault> {
        let (parent, name) = split(path);
        let parent = self.tree.enter(parent)?;
        match self.tree.get(parent, name) {
            None => self.tree.put(parent, name, Node::Whiteout),
            // A whiteout is about the layers below. A directory of this layer stays and hides what was below it.
            // That is gone, so it keeps nothing of it.
            Some(Node::Dir(id)) => {
                let dir = self.tree.dir_mut(id);
                (dir.opaque, dir.named) = (true, true);
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn opaque(&mut self, dir: &[u8]) -> Result<(), Fault> {
        let id = self.tree.enter(dir)?;
        self.tree.dir_mut(id).opaque = true;
        Ok(())
    }

    fn finish(self) -> Result<Finished, Fault> {
        Ok(Finished::default())
    }
}

/// Content that nobody looks at.
struct NoContent;

impl Read for NoContent {
    fn read(&mut self, _buffer: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
}

impl tar::Content for NoContent {
    fn skip_hole(&mut self) -> u64 {
        0
    }
}

/// A tar in memory.
#[derive(Debug)]
pub(super) struct Bytes<'a> {
    bytes: &'a [u8],
    at: u64,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl Read for Bytes<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.bytes.read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl TarSource for Bytes<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn skip(&mut self, count: u64) -> io::Result<bool> {
        let Some(rest) = usize::try_from(count).ok().and_then(|n| self.bytes.get(n..)) else {
            return Ok(false);
        };
        self.bytes = rest;
        self.at += count;
        Ok(true)
    }
}

/// A tar in a file of which only the headers are read.
#[derive(Debug)]
pub(crate) struct HeaderReader<'f> {
    file: &'f std::fs::File,
    size: u64,
    at: u64,
    buffer: Vec<u8>,
    /// Where in the file the buffer's first byte is.
    start: u64,
}

/// Small files follow each other: several headers are often close together.
const AHEAD: usize = 4 << 10;

impl<'f> HeaderReader<'f> {
    /// Of a file whose first `size` bytes are the archive.
    pub(crate) fn new(file: &'f std::fs::File, size: u64) -> Self {
        Self { file, size, at: 0, buffer: Vec::with_capacity(AHEAD), start: 0 }
    }
}

impl Read for HeaderReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use std::os::unix::fs::FileExt as _;
        let buffered = |this: &Self| {
            let skip = usize::try_from(this.at.checked_sub(this.start)?).ok()?;
            (skip < this.buffer.len()).then_some(skip)
        };
        let skip = match buffered(self) {
            Some(skip) => skip,
            None => {
                let ahead = usize::try_from(self.size - self.at).unwrap_or(AHEAD).min(AHEAD);
                self.buffer.resize(ahead, 0);
                let n = self.file.read_at(&mut self.buffer, self.at)?;
                self.buffer.truncate(n);
                self.start = self.at;
                0
            }
        };
        let n = (&self.buffer[skip..]).read(buffer)?;
        self.at += n as u64;
        Ok(n)
    }
}

impl TarSource for HeaderReader<'_> {
    fn position(&self) -> u64 {
        self.at
    }

    fn skip(&mut self, count: u64) -> io::Result<bool> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.size);
        self.at = end.unwrap_or(self.at);
        Ok(end.is_some())
    }
}
