//! The entries of a layer in the making, sorted, each with where its content is. What is copied twice to one place is
//! there once; directories on the way to an entry have entries of their own, so that the layer can stand alone.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use dhow_images::assemble::{EntryKind, LayerEntry, LayerWriter};
use dhow_images::{Algorithm, Digest, Hasher};

use super::root::{Found, Part, Root, join};
use crate::error::{Error, Result};

/// Most entries of one layer.
const MAX_ENTRIES: usize = 2_000_000;

/// Where an entry's content is.
#[derive(Debug, Clone)]
pub(super) enum Content {
    None,
    /// A file below a root.
    File(Rc<Root>, Vec<u8>),
    /// A part of a file without a name.
    Spool(Rc<File>, u64),
    Bytes(Rc<[u8]>),
}

#[derive(Debug, Clone)]
struct Item {
    entry: LayerEntry,
    content: Content,
    /// It was there before and is only on the way.
    passed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Layer {
    items: BTreeMap<Vec<u8>, Item>,
    /// What directories that are made on the way have.
    pub(super) made: Made,
}

/// What new directories have.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Made {
    pub(super) owner: (u32, u32),
    pub(super) mtime: (i64, u32),
}

impl Found {
    /// As an entry at a path.
    pub(super) fn entry(&self, path: &[u8]) -> LayerEntry {
        LayerEntry {
            path: path.to_vec(),
            kind: self.kind,
            link: Vec::new(),
            size: if self.kind == EntryKind::File { self.size } else { 0 },
            mode: self.mode,
            uid: self.owner.0,
            gid: self.owner.1,
            mtime: self.mtime,
            xattrs: Vec::new(),
            device: self.device,
        }
    }
}

impl Layer {
    pub(super) fn new(made: Made) -> Self {
        Self { items: BTreeMap::new(), made }
    }

    /// Whether nothing would change.
    pub(super) fn is_empty(&self) -> bool {
        self.items.values().all(|item| item.passed)
    }

    /// What is at a path of this layer, or below it.
    pub(super) fn kind_at(&self, path: &[u8]) -> Option<EntryKind> {
        self.items.get(path).map(|item| item.entry.kind)
    }

    /// The target of a link of this layer.
    pub(super) fn link_at(&self, path: &[u8]) -> Option<&[u8]> {
        self.items
            .get(path)
            .filter(|item| item.entry.kind == EntryKind::Symlink)
            .map(|item| &item.entry.link[..])
    }

    /// Adds an entry, over whatever was at its path.
    pub(super) fn put(&mut self, below: &Root, entry: LayerEntry, content: Content) -> Result<()> {
        let shown = || String::from_utf8_lossy(&entry.path).into_owned();
        for name in entry.path.split(|byte| *byte == b'/') {
            if name.starts_with(b".wh.") {
                return Err(Error::Invalid(format!(
                    "/{}: a name that begins with `.wh.` means a removal in a layer",
                    shown()
                )));
            }
        }
        if entry.path.is_empty() {
            // The root is there; only what it has could change, which a layer does not say.
            return Ok(());
        }
        self.parents(below, &entry.path)?;
        if entry.kind != EntryKind::Dir
            && self.items.get(&entry.path).is_some_and(|old| old.entry.kind == EntryKind::Dir && !old.passed)
        {
            return Err(Error::Invalid(format!("cannot copy to directory: /{}", shown())));
        }
        if self.items.len() >= MAX_ENTRIES {
            return Err(Error::Invalid(format!("more than {MAX_ENTRIES} files in one step")));
        }
        self.items.insert(entry.path.clone(), Item { entry, content, passed: false });
        Ok(())
    }

    /// Makes sure that directories lead to a path.
    fn parents(&mut self, below: &Root, path: &[u8]) -> Result<()> {
        for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = &path[..slash];
            match self.items.get(parent) {
                Some(item) if item.entry.kind == EntryKind::Dir => continue,
                Some(_) => {
                    let shown = String::from_utf8_lossy(parent);
                    return Err(Error::Invalid(format!("cannot copy to non-directory: /{shown}")));
                }
                None => {}
            }
            let item = match below.stat(parent)? {
                Some(found) if found.kind == EntryKind::Dir => {
                    Item { entry: found.entry(parent), content: Content::None, passed: true }
                }
                _ => Item { entry: self.directory(parent), content: Content::None, passed: false },
            };
            self.items.insert(parent.to_vec(), item);
        }
        Ok(())
    }

    /// Adds an entry as it is, a mark of removal too.
    pub(super) fn raw(&mut self, entry: LayerEntry, content: Content) {
        self.items.insert(entry.path.clone(), Item { entry, content, passed: false });
    }

    #[cfg(test)]
    pub(super) fn paths(&self) -> Vec<String> {
        self.items.keys().map(|path| String::from_utf8_lossy(path).into_owned()).collect()
    }

    /// A new directory's entry.
    pub(super) fn directory(&self, path: &[u8]) -> LayerEntry {
        LayerEntry {
            path: path.to_vec(),
            kind: EntryKind::Dir,
            link: Vec::new(),
            size: 0,
            mode: 0o755,
            uid: self.made.owner.0,
            gid: self.made.owner.1,
            mtime: self.made.mtime,
            xattrs: Vec::new(),
            device: (0, 0),
        }
    }

    /// Writes the archive. Times after `latest` become it.
    pub(super) fn write(&self, out: &mut LayerWriter<'_>, latest: Option<i64>) -> io::Result<()> {
        // Links after what they lead to.
        let is_link = |item: &&Item| item.entry.kind == EntryKind::HardLink;
        let links = self.items.values().filter(is_link);
        for item in self.items.values().filter(|item| !is_link(item)).chain(links) {
            let mut entry = item.entry.clone();
            if let Some(latest) = latest
                && entry.mtime >= (latest, 0)
            {
                entry.mtime = (latest, 0);
            }
            let named = |error: io::Error| {
                io::Error::new(error.kind(), format!("{}: {error}", String::from_utf8_lossy(&entry.path)))
            };
            match item.content.open().map_err(named)? {
                Some(mut content) => out.append(&entry, &mut content).map_err(named)?,
                None => out.append(&entry, &mut io::empty())?,
            }
        }
        Ok(())
    }
}

impl Content {
    pub(super) fn open(&self) -> io::Result<Option<Box<dyn Read + '_>>> {
        Ok(Some(match self {
            Self::None => return Ok(None),
            Self::File(root, path) => Box::new(io::BufReader::with_capacity(64 << 10, root.read(path)?)),
            // Processes that build stages share the place of an open file.
            Self::Spool(file, offset) => {
                Box::new(io::BufReader::with_capacity(64 << 10, Part::new(file, *offset)))
            }
            Self::Bytes(bytes) => Box::new(&bytes[..]),
        }))
    }
}

/// What a source is, for the cache: names, kinds, modes, owners and content, but no times.
#[derive(Debug)]
pub(super) struct Print(Hasher);

impl Print {
    pub(super) fn new(kind: &str) -> Self {
        let mut print = Self(Hasher::new(Algorithm::Sha256));
        print.text(kind.as_bytes());
        print
    }

    /// Adds a text, such that no two lists of texts are the same.
    pub(super) fn text(&mut self, text: &[u8]) -> &mut Self {
        self.0.update(&(text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    pub(super) fn entry(&mut self, entry: &LayerEntry, content: &Content) -> io::Result<()> {
        self.text(&entry.path).text(&entry.link);
        for number in [entry.kind as u32, entry.mode, entry.uid, entry.gid, entry.device.0, entry.device.1] {
            self.0.update(&number.to_le_bytes());
        }
        if let Some(mut content) = content.open()? {
            let mut buffer = [0; 64 << 10];
            let mut left = entry.size;
            self.0.update(&left.to_le_bytes());
            while left > 0 {
                let most = usize::try_from(left).unwrap_or(buffer.len()).min(buffer.len());
                let count = content.read(&mut buffer[..most])?;
                if count == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                self.0.update(&buffer[..count]);
                left -= count as u64;
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Digest {
        self.0.finish()
    }
}

/// Everything below a directory of a root, in order, to `each`, which says whether to go into a directory. Paths are from
/// that directory.
pub(super) fn walk(
    root: &Root,
    base: &[u8],
    each: &mut dyn FnMut(&[u8], &Found) -> Result<bool>,
) -> Result<()> {
    // Directories that are still to be read, the next one last.
    let mut todo: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(dir) = todo.pop() {
        let mut inner = Vec::new();
        let at = if dir.is_empty() { base.to_vec() } else { join(base, &dir) };
        for name in root.list(&at)? {
            let path = join(&dir, &name);
            let Some(found) = root.stat(&join(&at, &name))? else { continue };
            if each(&path, &found)? && found.kind == EntryKind::Dir {
                inner.push(path);
            }
        }
        inner.reverse();
        todo.extend(inner);
    }
    Ok(())
}
