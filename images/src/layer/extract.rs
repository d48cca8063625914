//! From archive entries to files: names of whiteouts, limits, order. Writing is the sink's part.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(not(target_os = "linux"), test))]
mod portable;

use std::io::Read;
use std::path::Path;

use super::Fault;
use super::MAX_ENTRIES;
use super::MAX_UNPACKED;
use super::tar::Content;
use super::tar::Entry;
use super::tar::Kind;
use super::tar::Meta;
use super::tar::TarReader;

pub(crate) const WHITEOUT: &[u8] = b".wh.";
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";
/// Names that an old union file system kept for itself.
pub(crate) const RESERVED: &[u8] = b".wh..wh.";

/// Writes the files of one layer below a directory that nobody else uses. Paths are clean: relative, without `.`
/// and `..`. What is there already under the same name is replaced, as the last entry of a name counts.
pub(crate) trait Sink {
    fn dir(&mut self, path: &[u8], meta: Meta) -> Result<(), Fault>;
    fn file(&mut self, path: &[u8], meta: &Meta, size: u64, content: &mut dyn Content) -> Result<(), Fault>;
    fn symlink(&mut self, path: &[u8], target: &[u8], meta: &Meta) -> Result<(), Fault>;
    /// `target` is a path within the layer.
    fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Fault>;
    fn node(&mut self, path: &[u8], kind: Kind, device: (u32, u32), meta: &Meta) -> Result<(), Fault>;
    /// The name is removed from the layers below.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), Fault>;
    /// Nothing of this directory is seen from the layers below.
    fn opaque(&mut self, dir: &[u8]) -> Result<(), Fault>;
    /// Does what must come last: times and modes of directories. One that no entry names keeps those of the layers
    /// below.
    fn finish(self) -> Result<Finished, Fault>;
}

/// What a sink says in the end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Finished {
    /// How many owners could not be kept.
    pub(crate) lost_owners: u64,
    /// Bytes that were copied from layers below.
    pub(crate) borrowed: u64,
    /// As [`Extracted::needs_below`].
    pub(crate) needs_below: bool,
}

/// What an archive contained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Extracted {
    pub(crate) entries: u64,
    /// Bytes of regular files, holes of sparse files left out.
    pub(crate) size: u64,
    /// Entries that should belong to somebody who does not exist for this process: they belong to its user.
    pub(crate) lost_owners: u64,
    /// The archive means something only over certain layers, and nobody said what they are: it has hard links to files
    /// that are not its own, hides the whole root, or has files in directories that it says nothing about. What was
    /// written is not complete.
    pub(crate) needs_below: bool,
}

/// As [`extract`], over these unpacked layers, the uppermost first. Of hard links to files of theirs the layer gets
/// copies, as an overlay has no links between layers.
#[cfg(target_os = "linux")]
pub(crate) fn extract_over(
    tar: impl Read,
    root: &Path,
    below: &[std::path::PathBuf],
) -> Result<Extracted, Fault> {
    extract_into(tar, linux::LinuxSink::new(root)?.over(below)?)
}

/// Reads a plain tar to its end and writes its files below `root`, an empty directory.
pub(crate) fn extract(tar: impl Read, root: &Path) -> Result<Extracted, Fault> {
    #[cfg(target_os = "linux")]
    let sink = linux::LinuxSink::new(root)?;
    #[cfg(not(target_os = "linux"))]
    let sink = portable::PortableSink::new(root)?;
    extract_into(tar, sink)
}

fn extract_into(tar: impl Read, mut sink: impl Sink) -> Result<Extracted, Fault> {
    let mut tar = TarReader::new(tar);
    let mut tally = Tally::default();
    while let Some(entry) = tar.next_entry()? {
        tally.count(&entry)?;
        let path = entry.path.clone();
        apply(entry, &mut tar, &mut sink).map_err(|fault| fault.at(&path))?;
    }
    let Finished { lost_owners, borrowed, needs_below } = sink.finish()?;
    let size = tally.extracted.size + borrowed;
    Ok(Extracted { lost_owners, needs_below, size, ..tally.extracted })
}

/// Counts entries against the limits of a layer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) extracted: Extracted,
    /// Bytes with holes: they cost nothing here, but everything to who copies the file.
    whole: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, entry: &Entry) -> Result<(), Fault> {
        self.extracted.entries += 1;
        if self.extracted.entries > MAX_ENTRIES {
            return Err(Fault::bad(format!("has more than {MAX_ENTRIES} entries")));
        }
        let holes = entry.sparse.as_ref().map_or(0, |map| map.size - map.stored());
        self.whole = self.whole.saturating_add(entry.size);
        if self.whole > MAX_UNPACKED {
            let reason = format!("unpacks to more than {MAX_UNPACKED} bytes");
            return Err(Fault::bad(reason).at(&entry.path));
        }
        self.extracted.size += entry.size - holes;
        Ok(())
    }
}

pub(crate) fn apply(entry: Entry, content: &mut dyn Content, sink: &mut impl Sink) -> Result<(), Fault> {
    let Entry { path, kind, link, size, meta, device, .. } = entry;
    let (parent, name) = split(&path);
    if name == OPAQUE {
        return sink.opaque(parent);
    }
    if name.starts_with(RESERVED) {
        return Ok(());
    }
    if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        if matches!(hidden, b"" | b"." | b"..") {
            return Err(Fault::bad("whiteout of nothing"));
        }
        return sink.whiteout(&join(parent, hidden));
    }
    // A directory on the way with such a name would be a whiteout to whoever reads the portable form.
    if parent.split(|b| *b == b'/').any(|c| c.starts_with(WHITEOUT)) {
        return Err(Fault::bad("lies below the name of a whiteout"));
    }
    if path.is_empty() {
        return match kind {
            Kind::Dir => sink.dir(&path, meta),
            _ => Err(Fault::bad("the root is not a directory")),
        };
    }
    match kind {
        Kind::Dir => sink.dir(&path, meta),
        Kind::File => sink.file(&path, &meta, size, content),
        Kind::Symlink => sink.symlink(&path, &link, &meta),
        Kind::HardLink if link.is_empty() => Err(Fault::bad("hard link to the root")),
        Kind::HardLink if link == path => Ok(()),
        Kind::HardLink => sink.hard_link(&path, &link),
        Kind::Fifo | Kind::Char | Kind::Block => sink.node(&path, kind, device, &meta),
    }
}

/// Parent and last component.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// Extended attributes that an image may set; others are left out. Those of the overlay would forge what other layers
/// contain, `trusted.` ones are for the host's own services, and labels of security modules are the host's policy.
#[cfg(target_os = "linux")]
pub(crate) fn is_allowed_xattr(name: &[u8]) -> bool {
    matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
        || name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")
}

#[cfg(test)]
mod tests;
