//! The layer of what a Wasm program has written, where no kernel's overlay is in it: marks of removal have the portable
//! names already, and owners are nobody's.

use std::rc::Rc;

use dhow_images::assemble::EntryKind;

use super::super::layer::{Content, Layer, walk};
use super::super::root::Root;
use crate::error::Result;

const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const RESERVED: &[u8] = b".wh..wh.";

/// Reads a writable directory of the union.
pub(super) fn layer(upper: &Root) -> Result<Layer> {
    let root = Rc::new(upper.below(b"")?);
    let mut layer = Layer::default();
    walk(upper, b"", &mut |path, found| {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if name.starts_with(RESERVED) && name != OPAQUE {
            return Ok(false);
        }
        let mut entry = found.entry(path);
        (entry.uid, entry.gid) = (0, 0);
        let content = match found.kind {
            EntryKind::File if name.starts_with(WHITEOUT) => {
                entry.size = 0;
                Content::None
            }
            EntryKind::File => Content::File(Rc::clone(&root), path.to_vec()),
            EntryKind::Symlink => {
                entry.link = upper.readlink(path)?;
                Content::None
            }
            EntryKind::Dir => Content::None,
            // No Wasm program can make one.
            _ => return Ok(false),
        };
        layer.raw(entry, content);
        Ok(true)
    })?;
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_and_what_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["d/e", ".wh..wh.dhow"] {
            fs_err::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (name, text) in
            [("d/e/file", "1"), ("d/.wh.gone", "x"), ("d/e/.wh..wh..opq", ""), (".wh..wh.dhow/1", "2")]
        {
            fs_err::write(dir.path().join(name), text).unwrap();
        }
        let layer = layer(&Root::open(dir.path()).unwrap()).unwrap();
        assert_eq!(layer.paths(), ["d", "d/.wh.gone", "d/e", "d/e/.wh..wh..opq", "d/e/file"]);
    }
}
