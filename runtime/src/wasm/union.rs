//! A union file system in user space: read-only layers below, one writable directory above, other directories of the
//! host mounted into it. The same on every operating system, without privilege, and it knows nothing about WASI.
//!
//! ```text
//! host.rs      one open directory of the host, one name at a time, links never followed
//! node.rs      a directory of the merged tree: the stack of host directories it is made of; looking up one name
//! fresh.rs     what other processes have changed
//! resolve.rs   a guest's path, one component after the other, symbolic links resolved in the merged tree
//! list.rs      merged listings
//! open.rs      opening files
//! copy.rs      copy-up          index.rs   who copied-up objects are
//! change.rs    what changes names: mkdir, unlink, rmdir, link, symlink, times; rename.rs; mark.rs: removed names
//! ground.rs    what of the host it stands on
//! mount.rs     building the tree from a bundle; kernel.rs: with the kernel's overlay, as one directory
//! ```
//!
//! The writable directory is a layer in OCI's portable form: removed names are `.wh.NAME`, and `.wh..wh..opq` hides
//! everything below a directory. Layers may use the kernel overlay's form as well, and a name too long for ours has it
//! in the writable directory, too. Guests can neither see nor make names that begin with `.wh.` there. What is ours
//! alone is in `.wh..wh.dhow` at its top (copies that are being made, second names of copied-up files) and in attributes
//! `user.overlay.dhow*`. `dhow_images::write_diff` with `Marks::Portable` reads exactly this form, and leaves out what
//! is ours.
//!
//! Any number of processes may use the same layers and the same writable directory at the same time (`exec`, `cp`):
//! each sees at once what the others do. What others do in mounted directories is seen as well.
//!
//! It behaves as the kernel's overlay does with `redirect_dir` and `index` on, and a test with random operations makes
//! sure of that (`oracle.rs`). As there, a file opened for reading stays the lower one when it is copied up later.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

mod change;
mod copy;
pub(super) mod errno;
mod fresh;
mod fs;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzz;
#[cfg(target_os = "linux")]
mod ground;
mod host;
mod index;
#[cfg(target_os = "linux")]
mod kernel;
mod list;
mod mark;
#[cfg(any(test, feature = "fuzzing"))]
mod model;
pub(super) mod mount;
mod node;
pub(super) mod open;
#[cfg(all(test, target_os = "linux"))]
mod oracle;
mod rename;
mod resolve;
#[cfg(any(test, feature = "fuzzing"))]
mod side;
#[cfg(test)]
mod tests;

pub(super) use errno::{Errno, Result};
pub(super) use host::Kind;
pub(super) use list::{Entries, Listing};
pub(super) use node::Node;
pub(super) use open::{About, Open, OpenFile, Opened, Program};

use node::Entry;

/// How many directories stay open after their last use. Each costs one descriptor per layer that has it.
const RECENT: usize = 16;

/// The merged tree.
#[derive(Debug)]
pub(super) struct Union {
    root: Arc<Node>,
    /// Directories used last, so that a path's next lookup finds them open.
    recent: Mutex<VecDeque<Arc<Node>>>,
    /// The directories that have something mounted in them.
    mount_parents: Vec<Arc<Node>>,
}

/// What guests learn about an object.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metadata {
    /// The object's kind, size and times.
    pub(super) stat: host::Stat,
    /// The file system it is on: the root or one of the mounts.
    pub(super) dev: u64,
    /// Its number there, unchanged by copy-up.
    pub(super) ino: u64,
}

impl Union {
    /// The root directory.
    pub(super) fn root(&self) -> &Arc<Node> {
        &self.root
    }

    /// Metadata of what `path` leads to.
    pub(super) fn stat(&self, dir: &Arc<Node>, path: &str, follow: bool) -> Result<Metadata> {
        let found = self.resolve(dir, path, follow)?;
        match found.entry.ok_or(Errno::NotFound)? {
            Entry::Dir(node) => node.metadata(),
            Entry::Leaf(_) if found.dir_only => Err(Errno::NotDir),
            Entry::Leaf(leaf) => Ok(leaf.metadata()),
        }
    }

    /// A symbolic link's target, as written.
    pub(super) fn readlink(&self, dir: &Arc<Node>, path: &str) -> Result<String> {
        let found = self.resolve(dir, path, false)?;
        match found.entry.ok_or(Errno::NotFound)? {
            Entry::Leaf(leaf) if leaf.stat.kind == Kind::Symlink => {
                leaf.readlink()?.into_string().map_err(|_| Errno::IllegalSequence)
            }
            _ => Err(Errno::Invalid),
        }
    }

    /// The directory that `path` leads to.
    pub(super) fn directory(&self, dir: &Arc<Node>, path: &str) -> Result<Arc<Node>> {
        match self.resolve(dir, path, true)?.entry.ok_or(Errno::NotFound)? {
            Entry::Dir(node) => Ok(node),
            Entry::Leaf(_) => Err(Errno::NotDir),
        }
    }

    /// Keeps a directory open for its next use.
    fn remember(&self, node: &Arc<Node>) {
        if !node.is_layered() {
            return;
        }
        let mut recent = lock(&self.recent);
        if recent.iter().any(|known| Arc::ptr_eq(known, node)) {
            return;
        }
        if recent.len() == RECENT {
            drop(recent.pop_front());
        }
        recent.push_back(Arc::clone(node));
    }
}

impl Drop for Union {
    fn drop(&mut self) {
        // A mounted root knows its parent and the parent knows the mount: open the circle.
        for parent in self.mount_parents.drain(..) {
            parent.unmount_all();
        }
    }
}

/// Locks; a panic elsewhere left nothing half-changed that matters here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
