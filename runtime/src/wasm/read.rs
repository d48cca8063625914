//! Reading single files of a root file system without mounting it, for example `/etc/passwd`.
//!
//! Resolves paths as the container will: in the merged tree of all layers, never outside of it, on any system.

use std::io::Read as _;

use super::union::mount::describe;
use super::union::{Errno, Kind, Open, Opened, Union};
use crate::bundle::Root;
use crate::error::{Error, Result};

/// The contents of regular files, or `None` where there is none at a path. A file beyond `limit` bytes is refused: the
/// root file system is not trusted.
///
/// # Errors
/// [`Error::InvalidSpec`] for one that is too large, [`Error::Setup`] when it cannot be read.
pub fn read_files<const N: usize>(root: &Root, paths: [&str; N], limit: u64) -> Result<[Option<Vec<u8>>; N]> {
    let union = match root {
        Root::Dir(path) => Union::plain(path)?,
        Root::Layers { lower, upper, .. } => Union::layered(upper, lower)?,
    };
    let mut contents = [const { None }; N];
    for (content, path) in contents.iter_mut().zip(paths) {
        *content = read_file(&union, path, limit)?;
    }
    Ok(contents)
}

fn read_file(union: &Union, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
    let failed = |source| Error::Setup { action: format!("read {path} of the container"), source };
    // The union's paths are relative to a folder, as WASI's are.
    let inside = path.trim_start_matches('/');
    // A device or fifo must not be opened at all.
    match union.stat(union.root(), inside, true) {
        Ok(found) if found.stat.kind == Kind::File => {}
        Ok(_) | Err(Errno::NotFound | Errno::NotDir) => return Ok(None),
        Err(errno) => return Err(failed(std::io::Error::other(describe(errno)))),
    }
    let how = Open { read: true, follow: true, ..Open::default() };
    let file = match union.open(union.root(), inside, &how) {
        Ok(Opened::File(open)) => open.file,
        Ok(Opened::Dir(_)) | Err(Errno::NotFound) => return Ok(None),
        Err(errno) => return Err(failed(std::io::Error::other(describe(errno)))),
    };
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).map_err(failed)?;
    if content.len() as u64 > limit {
        let reason = format!("{path} has more than {limit} bytes");
        return Err(Error::InvalidSpec { field: "root", reason });
    }
    Ok(Some(content))
}
