//! What layers say together, from their archives: names with their entries and contents, and what is removed of what lies
//! below the lowest of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{Read as _, Seek as _, Write as _};
use std::rc::Rc;

use dhow_images::Digest;
use dhow_images::assemble::{EntryKind, LayerEntry, read_archive};

use super::layer::{Content, Layer};
use super::root::join;
use crate::engine::Engine;
use crate::error::Result;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A name, and which file it is of.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) entry: LayerEntry,
    pub(super) content: Content,
    pub(super) file: usize,
}

/// What layers say together.
#[derive(Debug, Default)]
pub(super) struct Sum {
    pub(super) nodes: BTreeMap<Vec<u8>, Node>,
    /// What of the layers below the lowest one is gone.
    removed: BTreeSet<Vec<u8>>,
    /// Directories of which nothing below is seen.
    opaque: BTreeSet<Vec<u8>>,
    files: usize,
}

impl Sum {
    fn remove(&mut self, path: &[u8]) {
        self.nodes.remove(path);
        self.remove_below(path);
    }

    fn remove_below(&mut self, path: &[u8]) {
        let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below: Vec<Vec<u8>> = self.nodes.range(from..to).map(|(name, _)| name.clone()).collect();
        for name in below {
            self.nodes.remove(&name);
        }
    }

    /// Adds the entries of the next layer.
    pub(super) fn add(&mut self, entries: Vec<(LayerEntry, Content)>) {
        let name_of = |path: &[u8]| {
            let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
            (path[..at.saturating_sub(1)].to_vec(), path[at..].to_vec())
        };
        // Marks are about what is below, wherever they stand.
        for (entry, _) in &entries {
            let (parent, name) = name_of(&entry.path);
            if name == OPAQUE {
                self.remove_below(&parent);
                self.opaque.insert(parent);
            } else if let Some(gone) = name.strip_prefix(WHITEOUT) {
                let path = join(&parent, gone);
                self.remove(&path);
                self.removed.insert(path);
            }
        }
        for (entry, content) in entries {
            let path = entry.path.clone();
            if name_of(&path).1.starts_with(WHITEOUT) {
                continue;
            }
            if entry.kind == EntryKind::HardLink {
                if let Some(first) = self.nodes.get(&entry.link) {
                    let (content, file) = (first.content.clone(), first.file);
                    let entry = LayerEntry { path: path.clone(), ..first.entry.clone() };
                    self.remove(&path);
                    self.nodes.insert(path, Node { entry, content, file });
                }
                continue;
            }
            if entry.kind != EntryKind::Dir {
                self.remove(&path);
            }
            self.files += 1;
            self.nodes.insert(path, Node { entry, content, file: self.files });
        }
    }

    /// As one layer.
    pub(super) fn layer(self) -> Layer {
        let mut layer = Layer::default();
        let mark = |path: Vec<u8>| LayerEntry {
            path,
            kind: EntryKind::File,
            link: Vec::new(),
            size: 0,
            mode: 0o600,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
            device: (0, 0),
        };
        let is_dir = |path: &[u8]| self.nodes.get(path).is_some_and(|node| node.entry.kind == EntryKind::Dir);
        for path in &self.removed {
            match self.nodes.get(path) {
                // A directory in the place of what was removed: nothing of the old one is seen in it.
                Some(node) if node.entry.kind == EntryKind::Dir => {
                    layer.raw(mark(join(path, OPAQUE)), Content::None);
                }
                Some(_) => {}
                None => {
                    let at = path.iter().rposition(|byte| *byte == b'/');
                    let (parent, name) =
                        at.map_or((&b""[..], &path[..]), |at| (&path[..at], &path[at + 1..]));
                    layer.raw(mark(join(parent, &[WHITEOUT, name].concat())), Content::None);
                }
            }
        }
        for path in self.opaque.iter().filter(|path| path.is_empty() || is_dir(path)) {
            layer.raw(mark(join(path, OPAQUE)), Content::None);
        }
        let mut first: HashMap<usize, Vec<u8>> = HashMap::new();
        for (path, mut node) in self.nodes {
            if node.entry.kind == EntryKind::File {
                if let Some(link) = first.get(&node.file) {
                    node.entry.kind = EntryKind::HardLink;
                    (node.entry.link, node.entry.size) = (link.clone(), 0);
                    node.content = Content::None;
                } else {
                    first.insert(node.file, path);
                }
            }
            layer.raw(node.entry, node.content);
        }
        layer
    }
}

/// The entries of a layer's archive, contents in the spool, which ends at `offset`.
pub(super) fn read(
    engine: &Engine,
    blob: &Digest,
    spool: &Rc<std::fs::File>,
    offset: &mut u64,
) -> Result<Vec<(LayerEntry, Content)>> {
    let archive = fs_err::File::open(engine.store().blob_path(blob))?;
    let mut entries = Vec::new();
    read_archive(archive, &mut |entry, content| {
        let mut stored = Content::None;
        if entry.kind == EntryKind::File && entry.size > 0 {
            let mut out: &std::fs::File = spool;
            out.seek(std::io::SeekFrom::Start(*offset))?;
            let copied = std::io::copy(&mut content.take(entry.size), &mut out)?;
            out.flush()?;
            stored = Content::Spool(Rc::clone(spool), *offset);
            *offset += copied;
        }
        entries.push((entry, stored));
        Ok(())
    })?;
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: EntryKind) -> (LayerEntry, Content) {
        let link = if kind == EntryKind::HardLink { b"f".to_vec() } else { Vec::new() };
        let entry = LayerEntry {
            path: path.into(),
            kind,
            link,
            size: 0,
            mode: 0o644,
            uid: 0,
            gid: 0,
            mtime: (0, 0),
            xattrs: Vec::new(),
            device: (0, 0),
        };
        (entry, Content::None)
    }

    #[test]
    fn layers_say_together_what_each_has_said() {
        use EntryKind::{Dir, File, HardLink};
        for (layers, expected) in [
            (vec![vec![("a", File)], vec![(".wh.a", File)]], vec![".wh.a"]),
            (vec![vec![(".wh.a", File)], vec![("a", File)]], vec!["a"]),
            (
                vec![vec![(".wh.d", File)], vec![("d", Dir), ("d/x", File)]],
                vec!["d", "d/.wh..wh..opq", "d/x"],
            ),
            (
                vec![vec![("d", Dir), ("d/x", File)], vec![("d/.wh..wh..opq", File)]],
                vec!["d", "d/.wh..wh..opq"],
            ),
            (vec![vec![("d", Dir), ("d/x", File)], vec![("d", File)]], vec!["d"]),
            (vec![vec![("f", File), ("g", HardLink)], vec![(".wh.f", File)]], vec![".wh.f", "g"]),
        ] {
            let mut sum = Sum::default();
            for layer in layers {
                sum.add(layer.into_iter().map(|(path, kind)| entry(path, kind)).collect());
            }
            assert_eq!(sum.layer().paths(), expected);
        }
    }
}
