//! Leases: what must stay although no name leads to it, because a container uses it.
//!
//! A lease is a file of digests, one per line. It ends when it is removed, not when a process ends; short uses
//! claim content in a session instead.

use std::io;

use fs_err as fs;

use super::Store;
use super::TEMPORARY;
use super::names_in;
use super::replace_file;
use crate::Digest;
use crate::Error;
use crate::error::Result;

impl Store {
    /// Keeps content, and everything it refers to, from being swept while `id` uses it. Take the lease first and
    /// look the content up after: a lease brings nothing back. `durable` leases survive a power cut.
    ///
    /// # Errors
    /// [`Error::InvalidStore`] when `id` is not 1 to 128 characters of `[A-Za-z0-9_.-]` starting with a letter or
    /// digit.
    pub fn lease(&self, id: &str, digests: &[Digest], durable: bool) -> Result<()> {
        let path = self.lease_path(id)?;
        let lines: String = digests.iter().map(|d| format!("{d}\n")).collect();
        let _shared = self.lock_shared()?;
        replace_file(&path, lines.as_bytes(), durable)
    }

    /// Ends a lease; `false` when there was none. The content stays until [`Store::remove_unreferenced`].
    ///
    /// # Errors
    /// As [`Store::lease`].
    pub fn release(&self, id: &str) -> Result<bool> {
        match fs::remove_file(self.lease_path(id)?) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    /// The ids of all leases, so that their owner can find those it has forgotten.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn lease_ids(&self) -> Result<Vec<String>> {
        Ok(self.leases()?.into_iter().map(|(id, _)| id).collect())
    }

    /// All leases, each with its digests or what is wrong with it.
    pub(super) fn leases(&self) -> Result<Vec<(String, Result<Vec<Digest>>)>> {
        let leases = self.root.join("leases");
        let mut all = Vec::new();
        for file in names_in(&leases)? {
            let id = file.to_string_lossy().into_owned();
            if id.starts_with(TEMPORARY) {
                continue;
            }
            match fs::read_to_string(leases.join(&file)) {
                Ok(text) => all.push((id, parse(&text))),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => all.push((id, Err(e.into()))),
            }
        }
        Ok(all)
    }

    fn lease_path(&self, id: &str) -> Result<std::path::PathBuf> {
        let valid = (1..=128).contains(&id.len())
            && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && id.as_bytes()[0].is_ascii_alphanumeric();
        if !valid {
            let path = format!("leases/{}", id.escape_default());
            return Err(Error::InvalidStore { path, reason: "not a valid lease id".into() });
        }
        Ok(self.root.join("leases").join(id))
    }
}

/// One digest per line. An empty file is what a power cut leaves of a lease that was not durable.
pub(super) fn parse(text: &str) -> Result<Vec<Digest>> {
    text.lines().map(str::parse).collect()
}
