//! The file of `--cidfile`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Removed again if no container comes of it.
pub(super) struct CidFile<'a> {
    path: &'a Path,
    file: Option<std::fs::File>,
}

impl<'a> CidFile<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self> {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        match made {
            Ok(file) => Ok(Self { path, file: Some(file) }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ),
            Err(error) => Err(error)
                .with_context(|| format!("failed to create the container ID file {}", path.display())),
        }
    }

    pub(super) fn write(mut self, id: &str) -> Result<()> {
        use std::io::Write as _;
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes()).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // It was ours and is empty; that it stays is the lesser evil.
            fs_err::remove_file(self.path).ok();
        }
    }
}
