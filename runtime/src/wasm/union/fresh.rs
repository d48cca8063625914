//! Other processes with the same writable directory: before a remembered directory is used, it is compared with what
//! the host has now. One system call for each level that lies in the writable directory, none for a tree that nobody
//! has written to, so a start does not notice.
//!
//! The layers never change. So what can have happened to a directory is: it was copied up, removed (and perhaps made
//! anew), or moved. Of a directory that somebody else moved, a descriptor stays with the directory, as everywhere; but
//! what is above it is still the old place.

use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::errno::{Errno, Result};
use super::fs::whiteout_of;
use super::host::{Dir, Kind};
use super::lock;
use super::node::{Node, Source, is_opaque};

impl Node {
    /// Makes this directory, and those it lies in, what they are now.
    pub(super) fn refresh(self: &Arc<Self>) -> Result<()> {
        if !self.fs.layered {
            return Ok(());
        }
        // Downwards from the highest that somebody else can have changed.
        let mut line = Vec::new();
        let mut node = Arc::clone(self);
        loop {
            if node.is_removed() || node.adrift.load(Ordering::Relaxed) {
                break;
            }
            let Some(place) = node.place() else {
                if node.upper().is_none() {
                    node.look_for_upper()?;
                }
                break;
            };
            line.push((node, place.name));
            node = place.parent;
        }
        let mut above = node;
        while let Some((node, name)) = line.pop() {
            if !node.is_still(&above, &name)? {
                break;
            }
            above = node;
        }
        Ok(())
    }

    /// Another process may have made the writable directory.
    fn look_for_upper(&self) -> Result<()> {
        let Some(upper) = &self.fs.upper else { return Ok(()) };
        match Dir::open_ambient(upper) {
            Ok(dir) => self.found_upper(dir, false).map(drop),
            Err(Errno::NotFound) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Whether `name` in `parent`, which is fresh, is still this directory.
    pub(super) fn is_still(self: &Arc<Self>, parent: &Self, name: &OsStr) -> Result<bool> {
        let Some(above) = parent.upper() else { return Ok(true) };
        let own = self.upper();
        let same = match (&own, above.dir.stat(name)) {
            (Some(own), Ok(stat)) => {
                stat.kind == Kind::Dir && (stat.ino == 0 || own.id == (stat.dev, stat.ino))
            }
            (None, Ok(stat)) if stat.kind == Kind::Dir => self.was_copied_up(&above.dir, name)?,
            (_, Ok(_)) | (Some(_), Err(Errno::NotFound)) => false,
            (None, Err(Errno::NotFound)) => above.dir.stat(whiteout_of(name)).is_err(),
            (_, Err(error)) => return Err(error),
        };
        if !same {
            parent.disown(name, self);
            self.lost(own.as_ref());
        }
        Ok(same)
    }

    /// There is a writable directory of this name now: is it this one, or one that was made in its place?
    fn was_copied_up(self: &Arc<Self>, above: &Dir, name: &OsStr) -> Result<bool> {
        let dir = above.open_dir(name)?;
        if is_opaque(&dir) || above.stat(whiteout_of(name)).is_ok() {
            return Ok(false);
        }
        let source = Source::open(0, Arc::new(dir))?;
        let mut stack = lock(&self.stack);
        if stack.first().is_none_or(|top| top.layer != 0) {
            stack.insert(0, source);
        }
        Ok(true)
    }

    /// Somebody else has removed or moved this directory.
    fn lost(self: &Arc<Self>, own: Option<&Source>) {
        match own.map(|own| own.dir.stat_self()) {
            // Whoever moves a directory copies everything in it up first.
            Some(Ok(stat)) if stat.links > 0 => {
                self.adrift.store(true, Ordering::Relaxed);
                self.leave_layers();
            }
            _ => self.set_removed(),
        }
    }
}
