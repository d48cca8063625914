//! The layers of a root file system as one archive without whiteouts.
//!
//! Everything comes from the layers' archives and nothing from unpacked files: so owners, devices and attributes are
//! those of the image even where they could not be extracted, and the form in which layers are kept does not matter.
//! Each archive is read twice: once for its names, once for what is seen of it in the end. Directories come first, in
//! the order of their names, then the other files layer by layer; further names of a file are links to the first.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::io::Read;
use std::io::Write;

use super::Fault;
use super::MAX_ENTRIES;
use super::extract::OPAQUE;
use super::extract::RESERVED;
use super::extract::WHITEOUT;
use super::extract::join;
use super::extract::split;
use super::tar::Entry;
use super::tar::Kind;
use super::tar::Meta;
use super::tar::TarReader;
use super::write::TarWriter;

/// Links on the way to a name are followed so often, as the kernel does.
const MAX_LINKS: usize = 40;

/// Where a file's content is: in which layer, and as which entry.
type Object = (usize, u64);

#[derive(Debug)]
enum Node {
    Dir(Meta),
    Other(Object),
}

/// The names that are seen in the end.
#[derive(Debug, Default)]
pub(crate) struct Merged {
    names: BTreeMap<Vec<u8>, Node>,
    layers: usize,
}

/// The names of one layer.
#[derive(Debug, Default)]
struct Layer {
    entries: Vec<(Vec<u8>, What)>,
    whiteouts: Vec<Vec<u8>>,
    opaque: Vec<Vec<u8>>,
    /// Symbolic links, by the position of their entry.
    links: HashMap<Vec<u8>, Vec<u8>>,
}

#[derive(Debug)]
enum What {
    Dir(Meta),
    Other(u64),
    /// One more name of that file.
    Link(Vec<u8>),
}

impl Merged {
    /// Puts a layer on top, given as its plain archive, which is read to its end.
    pub(crate) fn add(&mut self, tar: impl Read) -> Result<(), Fault> {
        let layer = Layer::read(tar)?;
        // Marks are about the layers below, wherever they stand.
        for path in &layer.whiteouts {
            self.remove(path);
        }
        for path in &layer.opaque {
            self.remove_below(path);
        }
        for (path, what) in layer.entries {
            self.make_parents(&path);
            match what {
                What::Dir(meta) => {
                    if !matches!(self.names.get(&path), Some(Node::Dir(_))) {
                        self.remove(&path);
                    }
                    self.names.insert(path, Node::Dir(meta));
                }
                What::Other(entry) => {
                    self.remove(&path);
                    self.names.insert(path, Node::Other((self.layers, entry)));
                }
                What::Link(target) => {
                    let Some(Node::Other(object)) = self.names.get(&target) else {
                        return Err(Fault::bad("hard link to something that is no file").at(&path));
                    };
                    let object = *object;
                    self.remove(&path);
                    self.names.insert(path, Node::Other(object));
                }
            }
        }
        if self.names.len() as u64 > MAX_ENTRIES {
            return Err(Fault::bad(format!("has more than {MAX_ENTRIES} names in all")));
        }
        self.layers += 1;
        Ok(())
    }

    /// What is below a directory, seen from there; `None` where there is no such directory.
    pub(crate) fn below(mut self, dir: &[u8]) -> Option<Self> {
        let Some(Node::Dir(meta)) = self.names.remove(dir) else { return None };
        let (from, to) = ([dir, b"/"].concat(), [dir, b"0"].concat());
        let mut below = self.names.split_off(&from);
        below.split_off(&to);
        let cut = |(name, node): (Vec<u8>, Node)| (name[from.len()..].to_vec(), node);
        let mut names: BTreeMap<_, _> = below.into_iter().map(cut).collect();
        names.insert(b".".to_vec(), Node::Dir(meta));
        Some(Self { names, layers: self.layers })
    }

    /// Writes the archive. `open` gives each layer once more, in the same order; every one is read to its end.
    pub(crate) fn write<R: Read>(
        &self,
        out: impl Write,
        mut open: impl FnMut(usize) -> Result<R, Fault>,
        mut done: impl FnMut(R) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut out = TarWriter::new(out);
        let mut objects: HashMap<Object, Vec<&[u8]>> = HashMap::new();
        for (path, node) in &self.names {
            match node {
                Node::Dir(meta) if !path.is_empty() => {
                    let dir = entry(path, Kind::Dir, Vec::new(), meta.clone());
                    out.append(&dir, &mut std::io::empty())?;
                }
                Node::Dir(_) => {}
                Node::Other(object) => objects.entry(*object).or_default().push(path),
            }
        }
        for layer in 0..self.layers {
            let mut tar = TarReader::new(open(layer)?);
            let mut number = 0;
            while let Some(mut found) = tar.next_entry()? {
                number += 1;
                let Some([first, more @ ..]) = objects.get(&(layer, number)).map(Vec::as_slice) else {
                    continue;
                };
                found.path = first.to_vec();
                found.sparse = None;
                out.append(&found, &mut tar)?;
                for name in more {
                    let link = entry(name, Kind::HardLink, first.to_vec(), found.meta.clone());
                    out.append(&link, &mut std::io::empty())?;
                }
            }
            done(tar.into_inner())?;
        }
        out.finish()?;
        Ok(())
    }

    /// Removes a name and everything below it.
    fn remove(&mut self, path: &[u8]) {
        if matches!(self.names.remove(path), Some(Node::Dir(_))) {
            self.remove_below(path);
        }
    }

    fn remove_below(&mut self, path: &[u8]) {
        if path.is_empty() {
            self.names.clear();
            return;
        }
        let (from, to) = ([path, b"/"].concat(), [path, b"0"].concat());
        let below: Vec<Vec<u8>> = self.names.range(from..to).map(|(name, _)| name.clone()).collect();
        for name in below {
            self.names.remove(&name);
        }
    }

    /// What is on the way to a name is a directory, whatever it was.
    fn make_parents(&mut self, path: &[u8]) {
        for (slash, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            let parent = &path[..slash];
            if !matches!(self.names.get(parent), Some(Node::Dir(_))) {
                let meta = Meta { mode: 0o755, ..Meta::default() };
                self.names.insert(parent.to_vec(), Node::Dir(meta));
            }
        }
    }
}

fn entry(path: &[u8], kind: Kind, link: Vec<u8>, meta: Meta) -> Entry {
    Entry { path: path.to_vec(), kind, link, size: 0, sparse: None, meta, device: (0, 0) }
}

impl Layer {
    fn read(tar: impl Read) -> Result<Self, Fault> {
        let mut layer = Self::default();
        let mut tar = TarReader::new(tar);
        let mut number = 0;
        while let Some(entry) = tar.next_entry()? {
            number += 1;
            if number > MAX_ENTRIES {
                return Err(Fault::bad(format!("has more than {MAX_ENTRIES} entries")));
            }
            let path = layer.resolve(&entry.path).map_err(|fault| fault.at(&entry.path))?;
            let (parent, name) = split(&path);
            if name == OPAQUE {
                layer.opaque.push(parent.to_vec());
            } else if name.starts_with(RESERVED) {
                // Kept by an old union file system for itself.
            } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
                layer.whiteouts.push(join(parent, hidden));
            } else {
                layer.links.remove(&path);
                let what = match entry.kind {
                    Kind::Dir => What::Dir(entry.meta),
                    Kind::HardLink if entry.link == entry.path => continue,
                    Kind::HardLink => What::Link(layer.resolve(&entry.link).map_err(|f| f.at(&entry.path))?),
                    kind => {
                        if kind == Kind::Symlink {
                            layer.links.insert(path.clone(), entry.link);
                        }
                        What::Other(number)
                    }
                };
                layer.entries.push((path, what));
            }
        }
        Ok(layer)
    }

    /// The place that extraction would write to: links of the layer itself on the way are followed, within the root.
    fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, Fault> {
        if self.links.is_empty() {
            return Ok(path.to_vec());
        }
        let mut todo: Vec<Vec<u8>> = path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut resolved: Vec<u8> = Vec::new();
        let mut followed = 0;
        while let Some(name) = todo.pop() {
            match name.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    resolved = split(&resolved).0.to_vec();
                    continue;
                }
                _ => {}
            }
            let next = join(&resolved, &name);
            match self.links.get(&next) {
                // The last one is what is meant itself.
                Some(target) if !todo.is_empty() => {
                    followed += 1;
                    if followed > MAX_LINKS {
                        return Err(Fault::bad("too many symbolic links on the way"));
                    }
                    if target.starts_with(b"/") {
                        resolved.clear();
                    }
                    todo.extend(target.split(|b| *b == b'/').rev().map(<[u8]>::to_vec));
                }
                _ => resolved = next,
            }
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::tar::tests::raw;

    fn tar(parts: &[Vec<u8>]) -> Vec<u8> {
        [parts.concat(), vec![0; 1024]].concat()
    }

    fn file(path: &str, content: &str) -> Vec<u8> {
        raw(b'0', path.as_bytes(), b"", content.as_bytes(), |_| ())
    }

    fn other(flag: u8, path: &str, link: &str) -> Vec<u8> {
        raw(flag, path.as_bytes(), link.as_bytes(), b"", |_| ())
    }

    /// `path`, `path=content`, `path->link`, `path/` of each entry.
    fn merged(layers: &[Vec<u8>]) -> Result<Vec<String>, Fault> {
        let mut merged = Merged::default();
        for layer in layers {
            merged.add(&layer[..])?;
        }
        let mut out = Vec::new();
        merged.write(&mut out, |i| Ok(&layers[i][..]), |_| Ok(()))?;
        let mut all = Vec::new();
        let mut reader = TarReader::new(&out[..]);
        while let Some(entry) = reader.next_entry()? {
            let mut content = String::new();
            reader.read_to_string(&mut content)?;
            let path = String::from_utf8(entry.path).unwrap();
            let link = String::from_utf8(entry.link).unwrap();
            all.push(match entry.kind {
                Kind::Dir => format!("{path}/"),
                Kind::HardLink => format!("{path}=>{link}"),
                Kind::Symlink => format!("{path}->{link}"),
                _ => format!("{path}={content}"),
            });
        }
        Ok(all)
    }

    #[test]
    fn upper_layers_hide_lower_ones() {
        let base = tar(&[
            other(b'5', "d", ""),
            file("d/a", "1"),
            file("d/b", "2"),
            other(b'5', "e", ""),
            file("e/x", "3"),
            file("f", "4"),
            other(b'1', "g", "f"),
            other(b'2', "l", "d"),
        ]);
        assert_eq!(
            merged(std::slice::from_ref(&base)).unwrap(),
            ["d/", "e/", "d/a=1", "d/b=2", "e/x=3", "f=4", "g=>f", "l->d"]
        );
        let cases: Vec<(Vec<Vec<u8>>, Vec<&str>)> = vec![
            (
                vec![file("d/.wh.a", ""), file("f", "new")],
                vec!["d/", "e/", "d/b=2", "e/x=3", "g=4", "l->d", "f=new"],
            ),
            (vec![file(".wh.d", "")], vec!["e/", "e/x=3", "f=4", "g=>f", "l->d"]),
            // Marks are about the layers below, wherever they stand.
            (
                vec![file("d/new", "n"), file("d/.wh..wh..opq", "")],
                vec!["d/", "e/", "e/x=3", "f=4", "g=>f", "l->d", "d/new=n"],
            ),
            (vec![file("d", "now a file")], vec!["e/", "e/x=3", "f=4", "g=>f", "l->d", "d=now a file"]),
            (
                vec![other(b'5', "f", ""), file("f/in", "5")],
                vec!["d/", "e/", "f/", "d/a=1", "d/b=2", "e/x=3", "g=4", "l->d", "f/in=5"],
            ),
            // A name below a link of another layer is a directory of its own, as it is for the overlay.
            (
                vec![file("l/own", "6")],
                vec!["d/", "e/", "l/", "d/a=1", "d/b=2", "e/x=3", "f=4", "g=>f", "l/own=6"],
            ),
            (
                vec![other(b'1', "h", "f")],
                vec!["d/", "e/", "d/a=1", "d/b=2", "e/x=3", "f=4", "g=>f", "h=>f", "l->d"],
            ),
        ];
        for (upper, expected) in cases {
            assert_eq!(merged(&[base.clone(), tar(&upper)]).unwrap(), expected);
        }
    }

    #[test]
    fn links_of_the_layer_itself_are_followed_as_extraction_does() {
        let layer = tar(&[
            other(b'5', "usr/lib", ""),
            other(b'2', "lib", "usr/lib"),
            file("lib/x", "1"),
            other(b'2', "up", "../../../usr"),
            file("up/lib/y", "2"),
            other(b'1', "lib/z", "lib/x"),
        ]);
        assert_eq!(
            merged(&[layer]).unwrap(),
            [
                "usr/",
                "usr/lib/",
                "lib->usr/lib",
                "usr/lib/x=1",
                "usr/lib/z=>usr/lib/x",
                "up->../../../usr",
                "usr/lib/y=2"
            ]
        );
        let looped = tar(&[other(b'2', "a", "b"), other(b'2', "b", "a"), file("a/x", "")]);
        assert!(merged(&[looped]).is_err());
        let dangling = tar(&[other(b'1', "a", "nowhere")]);
        assert!(merged(&[dangling]).is_err());
    }
}
