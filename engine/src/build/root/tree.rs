//! What layers make together, by their archives and without a mount: how stages look that no kernel's overlay can show,
//! because they are for Wasm or this is no Linux. Owners and modes are the archives', whatever this system's files have.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use dhow_images::assemble::EntryKind;

use super::super::sum::{Node, Sum};
use super::Found;

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Tree {
    sum: Sum,
    /// Files with several names.
    linked: HashSet<usize>,
}

impl Tree {
    pub(in super::super) fn new(sum: Sum) -> Self {
        let mut names: HashMap<usize, usize> = HashMap::new();
        for node in sum.nodes.values().filter(|node| node.entry.kind == EntryKind::File) {
            *names.entry(node.file).or_default() += 1;
        }
        let linked = names.into_iter().filter(|(_, count)| *count > 1).map(|(file, _)| file).collect();
        Self { sum, linked }
    }

    fn below(&self, path: &[u8]) -> impl Iterator<Item = (&Vec<u8>, &Node)> {
        let (from, to) = match path {
            b"" => (Vec::new(), vec![0xff; 8]),
            path => ([path, b"/"].concat(), [path, b"0"].concat()),
        };
        self.sum.nodes.range(from..to)
    }

    pub(super) fn stat(&self, path: &[u8]) -> Option<Found> {
        let Some(node) = self.sum.nodes.get(path).filter(|_| !path.is_empty()) else {
            // A directory that has no entry of its own, or the root.
            let is_dir = path.is_empty() || self.below(path).next().is_some();
            return is_dir.then_some(Found {
                kind: EntryKind::Dir,
                size: 0,
                mode: 0o755,
                owner: (0, 0),
                mtime: (0, 0),
                device: (0, 0),
                linked: None,
            });
        };
        let entry = &node.entry;
        let linked = self.linked.contains(&node.file).then_some((0, node.file as u64));
        Some(Found {
            kind: entry.kind,
            size: entry.size,
            mode: entry.mode,
            owner: (entry.uid, entry.gid),
            mtime: entry.mtime,
            device: entry.device,
            linked,
        })
    }

    fn node(&self, path: &[u8]) -> io::Result<&Node> {
        self.sum.nodes.get(path).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub(super) fn readlink(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        Ok(self.node(path)?.entry.link.clone())
    }

    pub(super) fn list(&self, path: &[u8]) -> Vec<Vec<u8>> {
        let skip = if path.is_empty() { 0 } else { path.len() + 1 };
        let mut names: Vec<Vec<u8>> = Vec::new();
        for (whole, _) in self.below(path) {
            let name = whole[skip..].split(|byte| *byte == b'/').next().unwrap_or_default();
            if !name.is_empty() && names.last().is_none_or(|last| last != name) {
                names.push(name.to_vec());
            }
        }
        // `a-b` stands between `a` and `a/c`.
        names.sort();
        names.dedup();
        names
    }

    pub(super) fn read(&self, path: &[u8]) -> io::Result<Box<dyn Read + '_>> {
        let node = self.node(path)?;
        if node.entry.kind != EntryKind::File {
            return Err(io::Error::other("is no regular file"));
        }
        let content = node.content.open()?.unwrap_or_else(|| Box::new(io::empty()));
        Ok(Box::new(content.take(node.entry.size)))
    }
}

/// A part of a file, read without moving a place that others read at, too.
#[derive(Debug)]
pub(in super::super) struct Part {
    file: Rc<File>,
    at: u64,
}

impl Part {
    pub(in super::super) fn new(file: &Rc<File>, at: u64) -> Self {
        Self { file: Rc::clone(file), at }
    }
}

impl Read for Part {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        #[cfg(unix)]
        let count = std::os::unix::fs::FileExt::read_at(&*self.file, buffer, self.at)?;
        #[cfg(windows)]
        let count = std::os::windows::fs::FileExt::seek_read(&*self.file, buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use dhow_images::assemble::LayerEntry;

    use super::super::super::layer::Content;
    use super::super::Root;
    use super::*;

    fn entry(path: &str, kind: EntryKind, link: &str) -> (LayerEntry, Content) {
        let entry = LayerEntry {
            path: path.into(),
            kind,
            link: link.into(),
            size: if kind == EntryKind::File { path.len() as u64 } else { 0 },
            mode: 0o640,
            uid: 7,
            gid: 8,
            mtime: (1, 0),
            xattrs: Vec::new(),
            device: (0, 0),
        };
        let content = match kind {
            EntryKind::File => Content::Bytes(Rc::from(path.as_bytes())),
            _ => Content::None,
        };
        (entry, content)
    }

    #[test]
    fn it_looks_as_an_overlay_would() {
        use EntryKind::{Dir, File, HardLink, Symlink};
        let mut sum = Sum::default();
        sum.add(vec![
            entry("a/b/old", File, ""),
            entry("a-b", File, ""),
            entry("a/file", File, ""),
            entry("a/again", HardLink, "a/file"),
            entry("a/link", Symlink, "../a/b/new"),
            entry("out", Symlink, "/../../a/file"),
        ]);
        sum.add(vec![
            entry("a", Dir, ""),
            entry("a/b", Dir, ""),
            entry("a/b/.wh.old", File, ""),
            entry("a/b/new", File, ""),
        ]);
        let root = Root::Tree(Tree::new(sum));
        let names = |path: &str| -> Vec<String> {
            let names = root.list(path.as_bytes()).unwrap();
            names.into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
        };
        assert_eq!(names(""), ["a", "a-b", "out"]);
        assert_eq!(names("a"), ["again", "b", "file", "link"]);
        assert_eq!(names("a/b"), ["new"]);
        let text = |path: &str| {
            let resolved = root.resolve(path.as_bytes()).unwrap();
            let mut text = String::new();
            root.read(&resolved.path).unwrap().read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(
            (text("a/link"), text("out"), text("a/again")),
            ("a/b/new".into(), "a/file".into(), "a/file".into())
        );
        let found = root.stat(b"a/file").unwrap().unwrap();
        assert_eq!((found.kind, found.mode, found.owner), (File, 0o640, (7, 8)));
        assert_eq!(found.linked, root.stat(b"a/again").unwrap().unwrap().linked);
        assert!(found.linked.is_some() && root.stat(b"a/b/new").unwrap().unwrap().linked.is_none());
        assert!(root.stat(b"a/b/old").unwrap().is_none() && root.read(b"a/b").is_err());
    }
}
