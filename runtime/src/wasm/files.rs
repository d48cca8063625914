//! The files of a Wasm container for its engine (`cp`): the union that its programs see, by path and without a program.
//!
//! Paths are from the container's root. Symbolic links lead where they do for a guest, and never out of the container.

use std::fs::File;
use std::io;
use std::time::SystemTime;

use super::union::mount::describe;
use super::union::{Errno, Kind, Open, Opened, Union};
use crate::bundle::Bundle;
use crate::error::Result;

/// A container's files. Any number of processes may work on them at the same time, the container's own among them.
#[derive(Debug)]
pub struct Files(Union);

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Something else, which no guest can use.
    Other,
}

/// What is known of a path.
#[derive(Debug, Clone, Copy)]
pub struct FileInfo {
    /// What it is.
    pub kind: FileKind,
    /// Bytes of a file.
    pub size: u64,
    /// When it was last changed.
    pub modified: SystemTime,
}

impl Files {
    /// Opens the files of a bundle, mounts included.
    ///
    /// # Errors
    /// A layer or the source of a mount that cannot be opened.
    pub fn open(bundle: &Bundle) -> Result<Self> {
        Union::of_bundle(bundle).map(Self)
    }

    /// Looks at a path; with `follow` at what a link leads to.
    ///
    /// # Errors
    /// When there is nothing.
    pub fn stat(&self, path: &str, follow: bool) -> io::Result<FileInfo> {
        let found = self.0.stat(self.0.root(), inside(path), follow).map_err(said)?.stat;
        let kind = match found.kind {
            Kind::File => FileKind::File,
            Kind::Dir => FileKind::Directory,
            Kind::Symlink => FileKind::Symlink,
            _ => FileKind::Other,
        };
        Ok(FileInfo { kind, size: found.size, modified: found.modified.unwrap_or(SystemTime::UNIX_EPOCH) })
    }

    /// The names in a directory.
    ///
    /// # Errors
    /// When it is none.
    pub fn list(&self, path: &str) -> io::Result<Vec<String>> {
        let listing =
            self.0.directory(self.0.root(), inside(path)).and_then(|node| node.list()).map_err(said)?;
        Ok(listing.iter().map(|entry| entry.name.to_owned()).collect())
    }

    /// Opens a file to be read; links are followed.
    ///
    /// # Errors
    /// When it is none.
    pub fn read(&self, path: &str) -> io::Result<File> {
        self.file(path, &Open { read: true, follow: true, ..Open::default() })
    }

    /// Makes a new file.
    ///
    /// # Errors
    /// When there is something of this name, or it may not be written.
    pub fn create(&self, path: &str) -> io::Result<File> {
        self.file(path, &Open { write: true, create: true, exclusive: true, ..Open::default() })
    }

    fn file(&self, path: &str, how: &Open) -> io::Result<File> {
        match self.0.open(self.0.root(), inside(path), how).map_err(said)? {
            Opened::File(open) => Ok(open.file),
            Opened::Dir(_) => Err(said(Errno::IsDir)),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// When there is something of this name, or it may not be written.
    pub fn mkdir(&self, path: &str) -> io::Result<()> {
        self.0.mkdir(self.0.root(), inside(path)).map_err(said)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// When there is something of this name, or it may not be written.
    pub fn symlink(&self, target: &str, path: &str) -> io::Result<()> {
        self.0.symlink(target, self.0.root(), inside(path)).map_err(said)
    }

    /// What a symbolic link says.
    ///
    /// # Errors
    /// When it is none, or not UTF-8.
    pub fn readlink(&self, path: &str) -> io::Result<String> {
        self.0.readlink(self.0.root(), inside(path)).map_err(said)
    }

    /// Removes a name that is no directory.
    ///
    /// # Errors
    /// When there is none.
    pub fn unlink(&self, path: &str) -> io::Result<()> {
        self.0.unlink(self.0.root(), inside(path)).map_err(said)
    }

    /// Sets when a path was last changed; links are not followed.
    ///
    /// # Errors
    /// When it may not be written.
    pub fn set_modified(&self, path: &str, time: SystemTime) -> io::Result<()> {
        self.0.set_times(self.0.root(), inside(path), false, (None, Some(time))).map_err(said)
    }
}

/// As the union wants it: from its root, and never empty.
fn inside(path: &str) -> &str {
    match path.trim_start_matches('/') {
        "" => ".",
        path => path,
    }
}

fn said(errno: Errno) -> io::Error {
    let kind = match errno {
        Errno::NotFound => io::ErrorKind::NotFound,
        Errno::Exists => io::ErrorKind::AlreadyExists,
        Errno::IsDir => io::ErrorKind::IsADirectory,
        Errno::NotDir => io::ErrorKind::NotADirectory,
        Errno::ReadOnly => io::ErrorKind::ReadOnlyFilesystem,
        Errno::NoSpace => io::ErrorKind::StorageFull,
        Errno::Access | Errno::NotPermitted => io::ErrorKind::PermissionDenied,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, describe(errno))
}
