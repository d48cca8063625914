//! Marks of removed names, and putting something new where one is.
//!
//! Ours is a file `.wh.NAME`; a name that this would make too long gets the kernel overlay's (a character device 0/0 in
//! its own place), where there are such. Marks are made before what they hide goes away, and removed after its
//! successor is there, so a crash in between never brings a removed lower object back.

use std::ffi::OsStr;
use std::sync::Arc;

use super::errno::{Errno, Result};
use super::fs::{Fs, whiteout_of};
use super::host::{Dir, OpenHow};
use super::node::Node;

/// Half-made names that are tried.
const NAMES: usize = 1000;

impl Node {
    /// Removes the mark that hid `name`, now that there is something again.
    pub(super) fn uncover(&self, dir: &Dir, name: &OsStr) -> Result<()> {
        if !self.fs.layered || !self.has_lower() {
            return Ok(());
        }
        match dir.unlink(whiteout_of(name)) {
            Err(Errno::NotFound | Errno::NameTooLong) => Ok(()),
            done => done,
        }
    }

    /// Hides `name` of the layers. With a name too long for our mark, what the writable directory `dir` has of it is
    /// moved away in the same step; the answer is its name in the hidden folder.
    pub(super) fn cover(&self, dir: &Dir, name: &OsStr) -> Result<Option<String>> {
        match make(dir, whiteout_of(name)) {
            Err(Errno::NameTooLong) => {}
            made => return made.map(|()| None),
        }
        let shop = self.fs.index.workshop()?;
        let (draft, ()) = draft(&self.fs, |shop, draft| shop.make_kernel_mark(draft))?;
        match shop.rename_new(&draft, dir, name) {
            Ok(()) => Ok(None),
            Err(Errno::Exists) => {
                let exchanged = shop.exchange(&draft, dir, name);
                if exchanged.is_err() {
                    shop.unlink(&draft).ok();
                }
                exchanged.map(|()| Some(draft))
            }
            Err(error) => Err(error),
        }
    }
}

/// Makes an empty file, unless it is there.
pub(super) fn make(dir: &Dir, name: impl AsRef<OsStr>) -> Result<()> {
    let create = OpenHow { write: true, create_new: true, mode: 0o600, ..OpenHow::default() };
    match dir.open_file(name, &create) {
        Ok(_) | Err(Errno::Exists) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the kernel overlay's mark is what `dir` has under `name`.
pub(super) fn is_kernels(node: &Node, dir: &Dir, name: &OsStr) -> bool {
    node.fs.layered && dir.stat(name).is_ok_and(|stat| stat.whiteout)
}

/// Makes something in the hidden folder, under a name that is free.
pub(super) fn draft<T>(fs: &Fs, mut make: impl FnMut(&Dir, &str) -> Result<T>) -> Result<(String, T)> {
    let shop = Arc::clone(fs.index.workshop()?);
    for _ in 0..NAMES {
        let name = fs.temporary_name();
        match make(&shop, &name) {
            Err(Errno::Exists) => {}
            made => return Ok((name, made?)),
        }
    }
    Err(Errno::Busy)
}

/// Moves something from the hidden folder to where the kernel overlay's mark is.
pub(super) fn replace(fs: &Fs, draft: &str, dir: &Dir, name: &OsStr) -> Result<()> {
    let shop = fs.index.workshop()?;
    shop.exchange(draft, dir, name)?;
    shop.unlink(draft)
}

/// Moves something new from the hidden folder to a name that is free, or has the kernel overlay's mark.
pub(super) fn put(node: &Node, draft: &str, dir: &Dir, name: &OsStr) -> Result<()> {
    let shop = node.fs.index.workshop()?;
    match shop.rename_new(draft, dir, name) {
        Err(Errno::Exists) if is_kernels(node, dir, name) => replace(&node.fs, draft, dir, name),
        done => done,
    }
}
