//! Uploads that are under way: where a registry takes the rest of a blob, so that the next process goes on where one
//! that was killed stopped.
//!
//! ```text
//! uploads/<hash of registry, repository and blob>   the address of the upload; locked by the process that uses it
//! ```
//!
//! The address may carry the registry's tokens, so the file is for its owner only. It ends with the upload; what
//! dead processes left is forgotten after a week, when registries have forgotten it too.

use std::io::Read as _;
use std::io::Seek as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use fs_err as fs;

use super::Store;
use super::make_dir;
use super::names_in;
use super::private;
use crate::Digest;
use crate::error::Result;

/// Longest address that is kept, in bytes.
const MAX_ADDRESS: usize = 16 << 10;
const MAX_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// The record of one blob on its way to one repository.
#[derive(Debug)]
pub(crate) struct UploadRecord {
    path: PathBuf,
    file: fs::File,
}

impl Store {
    /// The record for this upload, or `None` when another process is busy with it.
    pub(crate) fn upload_record(
        &self,
        registry: &str,
        repository: &str,
        blob: &Digest,
    ) -> Result<Option<UploadRecord>> {
        let dir = self.uploads_dir();
        match make_dir(&dir) {
            Err(_) if dir.is_dir() => {}
            other => other?,
        }
        let path = dir.join(Digest::of(format!("{registry}/{repository}@{blob}").as_bytes()).hex());
        let file = private().create(true).truncate(false).read(true).write(true).open(&path)?;
        Ok(file.file().try_lock().is_ok().then_some(UploadRecord { path, file }))
    }

    /// Forgets uploads that nobody has gone on with for a week. Best effort.
    pub(crate) fn sweep_uploads(&self) {
        let dir = self.uploads_dir();
        for name in names_in(&dir).unwrap_or_default() {
            let path = dir.join(name);
            let age = std::fs::symlink_metadata(&path).and_then(|m| m.modified()).map(|t| t.elapsed());
            if age.is_ok_and(|age| age.is_ok_and(|age| age > MAX_AGE)) {
                drop(fs::remove_file(path));
            }
        }
    }

    fn uploads_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }
}

impl UploadRecord {
    /// Where the upload was when its process ended.
    pub(crate) fn address(&mut self) -> Option<String> {
        let mut text = String::new();
        self.file.rewind().ok()?;
        (&mut self.file).take(MAX_ADDRESS as u64).read_to_string(&mut text).ok()?;
        // The line's end is written last, so half an address is none.
        let address = text.strip_suffix('\n')?;
        (!address.is_empty() && address.bytes().all(|b| b.is_ascii_graphic())).then(|| address.to_owned())
    }

    /// Notes where the upload is now.
    pub(crate) fn save(&mut self, address: &str) -> Result<()> {
        if address.len() >= MAX_ADDRESS {
            return self.clear();
        }
        self.file.rewind()?;
        // Shorter first, so that the end of a longer address before it cannot complete this one.
        self.file.set_len(0)?;
        self.file.write_all(format!("{address}\n").as_bytes())?;
        Ok(())
    }

    /// Notes that there is no upload.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.file.set_len(0)?;
        Ok(())
    }

    /// The upload is done.
    pub(crate) fn finish(self) {
        // What stays is forgotten after a week.
        drop(fs::remove_file(&self.path));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    #[test]
    fn an_upload_is_found_again_by_one_process_at_a_time() {
        let (_dir, store) = store();
        let blob = Digest::of(b"x");
        let record = || store.upload_record("r", "a/b", &blob).unwrap();
        let mut first = record().unwrap();
        assert_eq!(first.address(), None);
        first.save("http://r/v2/a/b/blobs/uploads/long?state=1").unwrap();
        first.save("http://r/u/2").unwrap();
        assert!(record().is_none(), "somebody is busy with it");
        assert!(store.upload_record("r", "a/c", &blob).unwrap().is_some());
        drop(first);
        let mut next = record().unwrap();
        assert_eq!(next.address().as_deref(), Some("http://r/u/2"));
        next.finish();
        assert_eq!(record().unwrap().address(), None);
    }

    #[test]
    fn half_an_address_is_none() {
        let (_dir, store) = store();
        let mut record = store.upload_record("r", "a", &Digest::of(b"x")).unwrap().unwrap();
        for (text, good) in [("http://r/u", false), ("http://r/u\n", true), ("a b\n", false), ("\n", false)] {
            fs::write(&record.path, text).unwrap();
            assert_eq!(record.address().is_some(), good, "{text:?}");
        }
        record.save(&"x".repeat(MAX_ADDRESS)).unwrap();
        assert_eq!(record.address(), None);
        store.sweep_uploads();
        assert!(record.path.exists());
    }
}
