//! The places of the host that a tree stands on, for the wall around its process (Linux).

use std::os::fd::{AsFd as _, BorrowedFd};

use super::node::{Entry, Node, Source};
use super::{Result, Union, lock};

/// One place.
#[derive(Debug, Clone, Copy)]
pub(in crate::wasm) struct Ground<'a> {
    /// A handle on it.
    pub(in crate::wasm) place: BorrowedFd<'a>,
    /// It is a directory, with everything beneath.
    pub(in crate::wasm) directory: bool,
    /// Guests may change it.
    pub(in crate::wasm) writable: bool,
}

impl Union {
    /// Names every place of the host that guests reach. `is_open` tells of a directory whether the writable directory may
    /// be made there later; otherwise it is made now, since nothing can be named any more once the wall is there.
    pub(in crate::wasm) fn grounds(
        &self,
        is_open: impl FnOnce(&std::path::Path) -> bool,
        each: &mut dyn FnMut(Ground<'_>) -> Result<()>,
    ) -> Result<()> {
        let root = &self.root;
        if let Some(upper) = &root.fs.upper
            && !root.readonly()
            && root.upper().is_none()
            && !upper.parent().is_some_and(is_open)
        {
            root.make_upper()?;
        }
        directory(root, each)?;
        for parent in &self.mount_parents {
            for entry in lock(&parent.mounts).values() {
                match entry {
                    Entry::Dir(node) => directory(node, each)?,
                    Entry::Leaf(leaf) => {
                        let file = leaf.source.dir.handle(&leaf.name)?;
                        let writable = !leaf.fs.readonly();
                        each(Ground { place: file.as_fd(), directory: false, writable })?;
                    }
                }
            }
        }
        Ok(())
    }
}

fn directory(node: &Node, each: &mut dyn FnMut(Ground<'_>) -> Result<()>) -> Result<()> {
    for Source { layer, dir, .. } in lock(&node.stack).iter() {
        // Of the layers only the highest is written to.
        let writable = *layer == 0 && !node.readonly();
        each(Ground { place: dir.as_fd(), directory: true, writable })?;
    }
    Ok(())
}
