//! `COPY` and `ADD`: which files, to where, as what.
//!
//! Sources come from a root ([`Root`]): the context, a stage, an image. Nothing is written to a file system: the result is
//! a layer's archive.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, Write as _};
use std::rc::Rc;

use dhow_images::assemble::{EntryKind, LayerEntry, read_archive};

use super::dockerfile::glob::Pattern;
use super::ignore::Ignore;
use super::layer::{Content, Layer, Print, walk};
use super::mode::Mode;
use super::root::{Found, Root, join};
use crate::error::{Error, Result};

/// Where sources are looked for.
#[derive(Debug, Clone)]
pub(super) struct Sources {
    pub(super) root: Rc<Root>,
    /// What of it is not there.
    pub(super) ignore: Rc<Ignore>,
    /// It is the context, or another directory of the user's: owners do not come along.
    pub(super) is_context: bool,
}

/// One file or directory to be copied.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// At a path without links.
    Path { path: Vec<u8>, found: Found, named: Vec<u8> },
    /// A text with a name.
    Text { name: String, content: Rc<[u8]> },
    /// What was downloaded.
    Download { name: String, file: Rc<std::fs::File>, size: u64 },
}

/// What copies have.
#[derive(Debug, Clone, Default)]
pub(super) struct How {
    pub(super) owner: Option<(u32, u32)>,
    pub(super) mode: Option<Mode>,
    pub(super) exclude: Ignore,
    pub(super) parents: bool,
    /// Archives are unpacked.
    pub(super) unpack: bool,
    /// Times of what is made.
    pub(super) now: i64,
}

impl Sources {
    /// Finds what a path or pattern means.
    pub(super) fn find(&self, text: &str, deep: bool) -> Result<Vec<Source>> {
        let is_pattern = text.contains(['*', '?', '[', '\\']);
        // A pivot is a place in the path, not a part of it.
        let clean = cleaned(text);
        if !is_pattern {
            return match self.look(clean.as_bytes())? {
                Some(source) => Ok(vec![source]),
                None => Err(absent(text)),
            };
        }
        let pattern = Pattern::parse(&clean, deep).map_err(Error::Invalid)?;
        let fixed = clean.split('/').take_while(|name| !name.contains(['*', '?', '[', '\\'])).count();
        let base: Vec<&str> = clean.split('/').take(fixed).collect();
        let base = base.join("/");
        let depth = if clean.contains("**") { usize::MAX } else { clean.split('/').count() - fixed };
        let from = match self.root.resolve(base.as_bytes()) {
            Ok(resolved) if resolved.found.as_ref().is_some_and(|found| found.kind == EntryKind::Dir) => {
                resolved
            }
            _ => return Err(absent(text)),
        };
        let mut paths = Vec::new();
        walk(&self.root, &from.path, &mut |path, _| {
            let whole = join(base.as_bytes(), path);
            let Ok(name) = std::str::from_utf8(&whole) else { return Ok(false) };
            if pattern.matches(name) {
                paths.push(whole.clone());
                // What is in it comes with it.
                return Ok(false);
            }
            Ok(path.iter().filter(|byte| **byte == b'/').count() + 1 < depth)
        })?;
        paths.sort();
        let mut sources = Vec::new();
        for path in paths {
            sources.extend(self.look(&path)?);
        }
        if sources.is_empty() {
            return Err(absent(text));
        }
        Ok(sources)
    }

    /// What is at a path, links followed, unless it is left out.
    fn look(&self, path: &[u8]) -> Result<Option<Source>> {
        let failed = |error: std::io::Error| {
            Error::Invalid(format!("COPY failed: {}: {error}", String::from_utf8_lossy(path)))
        };
        let resolved = self.root.resolve(path).map_err(failed)?;
        let Some(found) = resolved.found else { return Ok(None) };
        let is_out = |path: &[u8]| {
            let text = String::from_utf8_lossy(path);
            !path.is_empty()
                && self.ignore.ignores(&text)
                && !(found.kind == EntryKind::Dir && self.ignore.may_take_back_below(&text))
        };
        if is_out(path) || is_out(&resolved.path) {
            return Ok(None);
        }
        Ok(Some(Source::Path { path: resolved.path, found, named: path.to_vec() }))
    }
}

fn absent(text: &str) -> Error {
    Error::Invalid(format!(
        "COPY failed: file not found in build context or excluded by .dockerignore: stat {text}: file does not exist"
    ))
}

/// Without `.`, `..` and slashes at the ends: nothing is above the root.
fn cleaned(text: &str) -> String {
    crate::mounts::clean(text).trim_start_matches('/').to_owned()
}

impl Source {
    pub(super) fn is_dir(&self) -> bool {
        matches!(self, Self::Path { found, .. } if found.kind == EntryKind::Dir)
    }

    /// The last name.
    fn name(&self) -> Vec<u8> {
        match self {
            Self::Path { named, .. } => {
                named.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec()
            }
            Self::Text { name, .. } | Self::Download { name, .. } => name.as_bytes().to_vec(),
        }
    }
}

/// What all sources are, wherever they go.
pub(super) fn print(sources: &[(Sources, Source)], how: &How, print: &mut Print) -> Result<()> {
    for (from, source) in sources {
        each(from, source, how, &mut |path, entry, content| {
            print.text(path);
            Ok(print.entry(&entry, &content)?)
        })?;
        print.text(&source.name());
        if how.parents
            && let Source::Path { named, .. } = source
        {
            print.text(named);
        }
    }
    Ok(())
}

/// What is done with each file.
type Act<'a> = &'a mut dyn FnMut(&[u8], LayerEntry, Content) -> Result<()>;

/// Everything of one source: paths from it, empty for itself.
fn each(from: &Sources, source: &Source, how: &How, act: Act<'_>) -> Result<()> {
    let dress = |mut entry: LayerEntry| {
        (entry.uid, entry.gid) = match how.owner {
            Some(owner) => owner,
            None if from.is_context => (0, 0),
            None => (entry.uid, entry.gid),
        };
        if let Some(mode) = &how.mode
            && entry.kind != EntryKind::Symlink
        {
            entry.mode = mode.apply(entry.mode, entry.kind == EntryKind::Dir);
        }
        entry
    };
    let fresh = |name: &str, size: u64, mode: u32| LayerEntry {
        path: name.as_bytes().to_vec(),
        kind: EntryKind::File,
        link: Vec::new(),
        size,
        mode,
        uid: 0,
        gid: 0,
        mtime: (how.now, 0),
        xattrs: Vec::new(),
        device: (0, 0),
    };
    match source {
        Source::Text { name, content } => {
            let entry = fresh(name, content.len() as u64, 0o644);
            act(b"", dress(entry), Content::Bytes(Rc::clone(content)))
        }
        Source::Download { name, file, size } => {
            act(b"", dress(fresh(name, *size, 0o600)), Content::Spool(Rc::clone(file), 0))
        }
        Source::Path { path, found, .. } => {
            let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            if found.kind != EntryKind::Dir {
                if how.exclude.ignores(&String::from_utf8_lossy(name)) {
                    return Ok(());
                }
                return act(b"", dress(found.entry(b"")), content_of(from, path, found));
            }
            act(b"", dress(found.entry(b"")), Content::None)?;
            // Files with several names stay so, as far as all of them are copied.
            let mut names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
            walk(&from.root, path, &mut |below, found| {
                let whole = join(path, below);
                let text = String::from_utf8_lossy(&whole);
                let inner = String::from_utf8_lossy(below);
                let ignored = from.ignore.ignores(&text) || how.exclude.ignores(&inner);
                if ignored {
                    let back =
                        from.ignore.may_take_back_below(&text) || how.exclude.may_take_back_below(&inner);
                    return Ok(found.kind == EntryKind::Dir && back);
                }
                let mut entry = found.entry(b"");
                if found.kind == EntryKind::Symlink {
                    entry.link = from.root.readlink(&whole)?;
                }
                if let Some(number) = found.linked {
                    if let Some(first) = names.get(&number) {
                        (entry.kind, entry.size) = (EntryKind::HardLink, 0);
                        entry.link.clone_from(first);
                        act(below, dress(entry), Content::None)?;
                        return Ok(true);
                    }
                    names.insert(number, below.to_vec());
                }
                act(below, dress(entry), content_of(from, &whole, found))?;
                Ok(true)
            })
        }
    }
}

fn content_of(from: &Sources, path: &[u8], found: &Found) -> Content {
    match found.kind {
        EntryKind::File => Content::File(Rc::clone(&from.root), path.to_vec()),
        _ => Content::None,
    }
}

/// Where copies go.
#[derive(Debug)]
pub(super) struct Target {
    /// Without links, from the root.
    pub(super) path: Vec<u8>,
    /// It is or becomes a directory.
    pub(super) is_dir: bool,
}

impl Target {
    /// Where a path of an image is: `text` is absolute.
    pub(super) fn find(root: &Root, text: &str) -> Result<Self> {
        let says_dir = text.ends_with('/') || text.ends_with("/.");
        let resolved = root
            .resolve(text.as_bytes())
            .map_err(|error| Error::Invalid(format!("cannot copy to {text}: {error}")))?;
        let is_dir = resolved.found.as_ref().is_some_and(|found| found.kind == EntryKind::Dir);
        if says_dir && resolved.found.is_some() && !is_dir {
            return Err(Error::Invalid(format!("cannot copy to non-directory: {text}")));
        }
        Ok(Self { path: resolved.path, is_dir: says_dir || is_dir })
    }
}

/// Puts sources into a layer.
pub(super) fn put(
    sources: &[(Sources, Source)],
    how: &How,
    (below, target): (&Root, &Target),
    layer: &mut Layer,
    spool: &mut dyn FnMut() -> Result<std::fs::File>,
) -> Result<()> {
    for (from, source) in sources {
        if how.unpack
            && let Source::Path { path, found, .. } = source
            && found.kind == EntryKind::File
            && unpack(from, path, how, (below, target), layer, spool)?
        {
            continue;
        }
        let mut to = target.path.clone();
        if how.parents
            && let Source::Path { named, .. } = source
        {
            to = join(&to, named);
        } else if source.is_dir() {
            let there = below.stat(&to)?;
            if there.is_some_and(|there| there.kind != EntryKind::Dir) {
                let shown = String::from_utf8_lossy(&to);
                return Err(Error::Invalid(format!("cannot copy to non-directory: /{shown}")));
            }
        } else if target.is_dir {
            to = join(&to, &source.name());
        }
        let contents = source.is_dir() && !how.parents;
        each(from, source, how, &mut |path, mut entry, content| {
            let whole = if path.is_empty() { to.clone() } else { join(&to, path) };
            if path.is_empty() && contents {
                // What is in a directory is copied; a target that is made is new.
                if below.stat(&whole)?.is_none() && layer.kind_at(&whole).is_none() {
                    let made = layer.directory(&whole);
                    layer.put(below, made, Content::None)?;
                }
                return Ok(());
            }
            entry.path = whole;
            if entry.kind == EntryKind::HardLink {
                entry.link = join(&to, &entry.link);
            }
            layer.put(below, entry, content)
        })?;
    }
    Ok(())
}

/// Unpacks a source if it is an archive.
fn unpack(
    from: &Sources,
    path: &[u8],
    how: &How,
    (below, target): (&Root, &Target),
    layer: &mut Layer,
    spool: &mut dyn FnMut() -> Result<std::fs::File>,
) -> Result<bool> {
    let mut contents: Option<(Rc<std::fs::File>, u64)> = None;
    let mut failed = None;
    let input = from.root.read(path)?;
    let is_archive = read_archive(input, &mut |mut entry, content| {
        let one = || -> Result<()> {
            let inner = place(below, layer, &target.path, &entry.path)?;
            entry.path = inner;
            if entry.kind == EntryKind::HardLink {
                entry.link = place(below, layer, &target.path, &entry.link)?;
            }
            if let Some(owner) = how.owner {
                (entry.uid, entry.gid) = owner;
            }
            if entry.kind != EntryKind::File {
                return layer.put(below, entry, Content::None);
            }
            let (file, offset) = match &mut contents {
                Some(spool) => spool,
                none => none.insert((Rc::new(spool()?), 0)),
            };
            let mut out: &std::fs::File = file;
            out.seek(std::io::SeekFrom::Start(*offset))?;
            let copied = std::io::copy(&mut content.take(entry.size), &mut out)?;
            out.flush()?;
            let content = Content::Spool(Rc::clone(file), *offset);
            *offset += copied;
            layer.put(below, entry, content)
        };
        one().map_err(|error| {
            let shown = std::io::Error::other(error.to_string());
            failed = Some(error);
            shown
        })
    });
    match failed {
        Some(error) => Err(error),
        None => {
            let is_archive = is_archive?;
            if is_archive && below.stat(&target.path)?.is_none() && layer.kind_at(&target.path).is_none() {
                let made = layer.directory(&target.path);
                layer.put(below, made, Content::None)?;
            }
            Ok(is_archive)
        }
    }
}

/// Where a path of an archive is written to: links on the way, of the archive or of the image, are followed inside.
fn place(below: &Root, layer: &Layer, base: &[u8], path: &[u8]) -> Result<Vec<u8>> {
    let mut at = base.to_vec();
    let mut todo: Vec<Vec<u8>> = path.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        match name.as_slice() {
            b"" | b"." => continue,
            b".." => {
                at.truncate(at.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                continue;
            }
            _ => {}
        }
        let next = join(&at, &name);
        if todo.is_empty() {
            return Ok(next);
        }
        let link = match layer.kind_at(&next) {
            Some(_) => layer.link_at(&next).map(<[u8]>::to_vec),
            None => match below.stat(&next)? {
                Some(found) if found.kind == EntryKind::Symlink => Some(below.readlink(&next)?),
                _ => None,
            },
        };
        match link {
            Some(link) => {
                links += 1;
                if links > 40 {
                    let shown = String::from_utf8_lossy(path);
                    return Err(Error::Invalid(format!("{shown}: too many links on the way")));
                }
                if link.starts_with(b"/") {
                    at.clear();
                }
                todo.extend(link.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
            }
            None => at = next,
        }
    }
    Ok(at)
}
