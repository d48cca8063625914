//! Single files of the store: their content, and who may reach them.

use std::io::Read as _;
use std::path::Path;

use fs_err as fs;

use crate::Digest;
use crate::Hasher;
use crate::error::Result;

/// What is wrong with a blob's content, if anything. `progress` is told of bytes as they are read.
pub(super) fn damage(path: &Path, digest: &Digest, progress: &dyn Fn(u64)) -> Result<Option<String>> {
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        // Swept in this moment.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Ok(Some(format!("cannot be read: {e}"))),
    };
    let mut hasher = Hasher::new(digest.algorithm());
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(&buffer[..n]);
                progress(n as u64);
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Ok(Some(format!("cannot be read: {e}"))),
        }
    }
    let actual = hasher.finish();
    Ok((actual != *digest).then(|| format!("content has digest {actual}, not {digest}")))
}

/// How a file can be reached that should be its owner's only.
#[derive(Debug)]
pub(super) struct WrongAccess {
    #[cfg(unix)]
    mode: Option<(u32, u32)>,
    #[cfg(unix)]
    owner: Option<(u32, u32)>,
}

/// Whether a file of the store has another owner or other permissions than it should.
#[cfg(unix)]
pub(super) fn wrong_access(root: &Path, path: &Path, is_dir: bool) -> Option<WrongAccess> {
    use std::os::unix::fs::MetadataExt as _;
    let (root, meta) = (fs::metadata(root).ok()?, std::fs::symlink_metadata(path).ok()?);
    let expected = if is_dir { 0o700 } else { 0o600 };
    let mode = meta.mode() & 0o7777;
    let mode = (mode != expected).then_some((mode, expected));
    let owner = (meta.uid() != root.uid()).then_some((meta.uid(), root.uid()));
    (mode.is_some() || owner.is_some()).then_some(WrongAccess { mode, owner })
}

#[cfg(not(unix))]
pub(super) fn wrong_access(_root: &Path, _path: &Path, _is_dir: bool) -> Option<WrongAccess> {
    None
}

impl WrongAccess {
    #[cfg(unix)]
    pub(super) fn what(&self) -> String {
        let mode = self.mode.map(|(is, expected)| format!("has mode {is:04o}, not {expected:04o}"));
        let owner = self.owner.map(|(is, expected)| format!("belongs to user {is}, not to {expected}"));
        mode.into_iter().chain(owner).collect::<Vec<_>>().join(" and ")
    }

    #[cfg(unix)]
    pub(super) fn repair(&self, path: &Path) -> Result<()> {
        if let Some((_, owner)) = self.owner {
            fs_err::os::unix::fs::lchown(path, Some(owner), None)?;
        }
        if let Some((_, mode)) = self.mode {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
        }
        Ok(())
    }

    #[cfg(not(unix))]
    pub(super) fn what(&self) -> String {
        String::new()
    }

    #[cfg(not(unix))]
    pub(super) fn repair(&self, _path: &Path) -> Result<()> {
        Ok(())
    }
}
