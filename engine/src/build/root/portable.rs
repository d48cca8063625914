//! A directory of the host by cap-std, which keeps every look-up beneath an open handle: what systems other than Linux use.
//! Compiled for tests everywhere, so that it cannot rot.

use std::fs::File;
use std::io;
use std::path::Path;

use cap_std::ambient_authority;
use dhow_images::assemble::EntryKind;

use super::Found;

/// See the module.
#[derive(Debug)]
pub(in super::super) struct Dir(cap_std::fs::Dir);

impl Dir {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        cap_std::fs::Dir::open_ambient_dir(path, ambient_authority()).map(Self)
    }

    pub(super) fn stat(&self, path: &[u8]) -> io::Result<Option<Found>> {
        let looked = match path {
            b"" => self.0.dir_metadata(),
            path => self.0.symlink_metadata(text(path)?),
        };
        match looked {
            Ok(meta) => Ok(Some(found(&meta))),
            Err(error) if is_not_there(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn readlink(&self, path: &[u8]) -> io::Result<Vec<u8>> {
        let target = self.0.read_link_contents(text(path)?)?;
        let target = target.into_os_string().into_encoded_bytes();
        // An image's links have slashes.
        Ok(if cfg!(windows) {
            target.into_iter().map(|byte| if byte == b'\\' { b'/' } else { byte }).collect()
        } else {
            target
        })
    }

    /// The names in a directory, in any order.
    pub(super) fn list(&self, path: &[u8]) -> io::Result<Vec<Vec<u8>>> {
        let entries = if path.is_empty() { self.0.entries()? } else { self.0.read_dir(text(path)?)? };
        entries.map(|entry| Ok(entry?.file_name().into_encoded_bytes())).collect()
    }

    pub(super) fn read(&self, path: &[u8]) -> io::Result<File> {
        let name = text(path)?;
        // A pipe would be waited for.
        if !self.0.symlink_metadata(name)?.is_file() {
            return Err(io::Error::other("is no regular file any more"));
        }
        Ok(self.0.open(name)?.into_std())
    }

    pub(super) fn below(&self, path: &[u8]) -> io::Result<Self> {
        match path {
            b"" => self.0.try_clone().map(Self),
            path => self.0.open_dir(text(path)?).map(Self),
        }
    }

    pub(super) fn remove(&self, path: &[u8], is_dir: bool) -> io::Result<()> {
        if is_dir { self.0.remove_dir(text(path)?) } else { self.0.remove_file(text(path)?) }
    }
}

/// A name as this system has names: no image's, if it is not Unicode.
fn text(path: &[u8]) -> io::Result<&str> {
    std::str::from_utf8(path).map_err(|_| io::ErrorKind::NotFound.into())
}

fn is_not_there(error: &io::Error) -> bool {
    use io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename | ErrorKind::InvalidInput
    )
}

fn found(meta: &cap_std::fs::Metadata) -> Found {
    let kind = if meta.is_dir() {
        EntryKind::Dir
    } else if meta.is_symlink() {
        EntryKind::Symlink
    } else if meta.is_file() {
        EntryKind::File
    } else {
        EntryKind::Fifo
    };
    let since = meta
        .modified()
        .ok()
        .and_then(|time| time.into_std().duration_since(std::time::UNIX_EPOCH).ok())
        .unwrap_or_default();
    let mtime = (i64::try_from(since.as_secs()).unwrap_or_default(), since.subsec_nanos());
    #[cfg(unix)]
    let (mode, owner, linked) = {
        use cap_std::fs::MetadataExt as _;
        let is_link = meta.nlink() > 1 && kind == EntryKind::File;
        (meta.mode() & 0o7777, (meta.uid(), meta.gid()), is_link.then(|| (meta.dev(), meta.ino())))
    };
    // As `docker build` has it on systems without modes.
    #[cfg(not(unix))]
    let (mode, owner, linked) = (0o755, (0, 0), None);
    let size = if kind == EntryKind::File { meta.len() } else { 0 };
    Found { kind, size, mode, owner, mtime, device: (0, 0), linked }
}
