//! Leases: what must stay although no name leads to it, because a container uses it.
//!
//! A lease is a file of digests, one per line. It ends when it is removed, not when a process ends; short uses
//! claim content in a session instead.

use std::io;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use fs_err as fs;

use super::Sizes;
use super::Store;
use super::TEMPORARY;
use super::measure::disk_usage;
use super::names_in;
use super::replace_file;
use super::session::Session;
use crate::Digest;
use crate::Error;
use crate::error::Result;

/// Content that stays while this value lives; if the process dies, it is free again.
#[derive(Debug)]
pub struct Hold {
    _session: Session,
}

impl Store {
    /// Keeps content, and everything it refers to, from being swept as long as the answer lives. It brings nothing back:
    /// look the content up after.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub fn hold(&self, digests: &[Digest]) -> Result<Hold> {
        let session = Session::new(self)?;
        session.claim(digests)?;
        Ok(Hold { _session: session })
    }

    /// Keeps content, and everything it refers to, from being swept while `id` uses it. Take the lease first and
    /// look the content up after: a lease brings nothing back. `durable` leases survive a power cut.
    ///
    /// # Errors
    /// [`Error::InvalidStore`] when `id` is not 1 to 128 characters of `[A-Za-z0-9_.-]` starting with a letter or
    /// digit.
    pub fn lease(&self, id: &str, digests: &[Digest], durable: bool) -> Result<()> {
        check_id(id)?;
        let path = self.lease_folder(durable).join(id);
        let lines = lines(digests);
        let _shared = self.lock_shared()?;
        if durable || !write_first(&path, lines.as_bytes())? {
            replace_file(&path, lines.as_bytes(), durable)?;
        }
        Ok(())
    }

    /// Where leases are that survive a power cut, or need not.
    #[must_use]
    pub fn lease_folder(&self, durable: bool) -> PathBuf {
        match &self.volatile {
            Some(volatile) if !durable => volatile.clone(),
            _ => self.root.join("leases"),
        }
    }

    /// Ends a lease; `false` when there was none. The content stays until [`Store::remove_unreferenced`].
    ///
    /// # Errors
    /// As [`Store::lease`].
    pub fn release(&self, id: &str) -> Result<bool> {
        check_id(id)?;
        for folder in self.lease_folders() {
            match fs::remove_file(folder.join(id)) {
                // It is in one of them.
                Ok(()) => return Ok(true),
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(false)
    }

    /// What a lease itself takes on the disk.
    ///
    /// # Errors
    /// As [`Store::lease`].
    pub fn lease_usage(&self, id: &str) -> Result<Sizes> {
        check_id(id)?;
        // Only the folder on the disk: the other one is in memory.
        Ok(disk_usage(self.root.join("leases").join(id))?)
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
        let mut all = Vec::new();
        for folder in self.lease_folders() {
            for file in names_in(&folder)? {
                let id = file.to_string_lossy().into_owned();
                if id.starts_with(TEMPORARY) {
                    continue;
                }
                match fs::read_to_string(folder.join(&file)) {
                    Ok(text) => all.push((id, parse(&text))),
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => all.push((id, Err(e.into()))),
                }
            }
        }
        Ok(all)
    }

    /// The folder in memory first: most leases are there.
    pub(super) fn lease_folders(&self) -> Vec<PathBuf> {
        self.volatile.iter().cloned().chain([self.root.join("leases")]).collect()
    }
}

/// Writes a lease where there is none; `false` where there is one. Whoever reads leases to decide has the exclusive lock
/// and sees it in whole; who dies between the two calls leaves an empty one, which keeps nothing.
fn write_first(path: &Path, content: &[u8]) -> Result<bool> {
    let mut file = match super::private().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    if let Err(error) = file.write_all(content) {
        drop(fs::remove_file(path));
        return Err(error.into());
    }
    Ok(true)
}

pub(super) fn check_id(id: &str) -> Result<()> {
    let valid = (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
        && id.as_bytes()[0].is_ascii_alphanumeric();
    if valid {
        return Ok(());
    }
    let path = format!("leases/{}", id.escape_default());
    Err(Error::InvalidStore { path, reason: "not a valid lease id".into() })
}

/// The content of a lease.
pub(super) fn lines(digests: &[Digest]) -> String {
    digests.iter().map(|d| format!("{d}\n")).collect()
}

/// One digest per line. An empty file is what a power cut leaves of a lease that was not durable.
pub(super) fn parse(text: &str) -> Result<Vec<Digest>> {
    text.lines().map(str::parse).collect()
}
