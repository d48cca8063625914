//! What a running build has on the disk, and what killed builds have left.
//!
//! ```text
//! build/work/<id>/      one build: lock (held while it runs), upper and work folders of its steps
//!                       or a context that was fetched or unpacked for one, with a lock as well
//! build/cache/<key>     what a step made: see `cache`
//! build/mounts/<hash>/  cache mounts, which stay
//! ```
//! The id is that of a container: the step that runs is one, as far as networks and leases are concerned. A folder whose
//! lock nobody holds is a leftover; every build and every check takes such away.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dhow_images::Digest;
use fs_err as fs;

use crate::container::create::random_id;
use crate::engine::{Engine, make_folder};
use crate::error::Result;
use crate::record::{Claim, Container, is_supervised};

pub(crate) const FOLDER: &str = "build";

/// A build's own folder.
#[derive(Debug)]
pub(super) struct Work<'e> {
    engine: &'e Engine,
    pub(super) id: String,
    pub(super) folder: PathBuf,
    claim: Option<Claim>,
    next: std::cell::Cell<u32>,
    kept: Vec<Digest>,
}

impl<'e> Work<'e> {
    pub(super) fn begin(engine: &'e Engine) -> Result<Self> {
        engine.sweep_builds()?;
        Self::begin_beside(engine)
    }

    /// As [`Work::begin`], for a part of a build that runs.
    pub(super) fn begin_beside(engine: &'e Engine) -> Result<Self> {
        let all = engine.builds_folder();
        make_folder(&engine.root().join(FOLDER))?;
        make_folder(&all)?;
        let (id, _) = random_id()?;
        let (folder, claim) = Container::reserve(&all, &id)?;
        // The lowest layer of everything: an overlay wants two.
        fs::create_dir(folder.join("empty"))?;
        open_to_all(&folder.join("empty"))?;
        Ok(Self { engine, id, folder, claim: Some(claim), next: 0.into(), kept: Vec::new() })
    }

    /// One without a folder, in the place of one that is needed elsewhere.
    pub(super) fn nothing(engine: &'e Engine) -> Self {
        Self {
            engine,
            id: String::new(),
            folder: PathBuf::new(),
            claim: None,
            next: 0.into(),
            kept: Vec::new(),
        }
    }

    pub(super) fn empty(&self) -> PathBuf {
        self.folder.join("empty")
    }

    /// A path in the folder that nothing else has.
    pub(super) fn path(&self, what: &str) -> PathBuf {
        self.next.set(self.next.get() + 1);
        self.folder.join(format!("{}-{what}", self.next.get()))
    }

    /// A file without a name.
    pub(super) fn spool(&self) -> Result<std::fs::File> {
        let path = self.path("spool");
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        if cfg!(unix) {
            // Elsewhere it goes with the folder.
            fs::remove_file(&path)?;
        }
        Ok(file.into_parts().0)
    }

    /// Keeps content from being swept until the build ends.
    pub(super) fn keep<'a>(&mut self, digests: impl IntoIterator<Item = &'a Digest>) -> Result<()> {
        self.kept.extend(digests.into_iter().cloned());
        Ok(self.engine.store().lease(&self.id, &self.kept, false)?)
    }
}

impl Drop for Work<'_> {
    fn drop(&mut self) {
        if self.claim.is_none() {
            return;
        }
        // Best effort: what stays is swept by the next build.
        self.engine.store().release(&self.id).ok();
        #[cfg(windows)]
        // A file that is open cannot be removed with its folder.
        drop(self.claim.take());
        dhow_images::remove_tree(&self.folder).ok();
        drop(self.claim.take());
    }
}

/// Where a context is put that came from elsewhere: a folder for its user alone, which goes with this value, and with the
/// next build where this process was killed.
#[derive(Debug)]
pub struct Scratch {
    folder: PathBuf,
    claim: Option<Claim>,
}

impl Scratch {
    /// A path in it, where nothing is yet.
    pub fn path(&self) -> PathBuf {
        self.folder.join("context")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        #[cfg(windows)]
        drop(self.claim.take());
        // Best effort: what stays is swept by the next build.
        dhow_images::remove_tree(&self.folder).ok();
        drop(self.claim.take());
    }
}

/// Whatever the caller's umask is: a step's other users look at this.
pub(super) fn open_to_all(path: &Path) -> Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

impl Engine {
    /// A folder for what a build takes in.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn scratch(&self) -> Result<Scratch> {
        self.sweep_builds()?;
        make_folder(&self.root().join(FOLDER))?;
        make_folder(&self.builds_folder())?;
        let (folder, claim) = Container::reserve(&self.builds_folder(), &random_id()?.0)?;
        Ok(Scratch { folder, claim: Some(claim) })
    }

    /// Where builds that run have their folders.
    pub(crate) fn builds_folder(&self) -> PathBuf {
        self.root().join(FOLDER).join("work")
    }

    /// How many folders of builds there are but this one's.
    pub(super) fn other_builds(&self, own: &str) -> Result<usize> {
        let names = fs::read_dir(self.builds_folder())?.flatten().filter(|entry| entry.file_name() != own);
        Ok(names.count())
    }

    /// Frees the addresses that killed builds have had: where networks are looked at before everything else.
    #[cfg(target_os = "linux")]
    pub(crate) fn free_addresses_of_builds(&self) -> Result<()> {
        let Ok(entries) = fs::read_dir(self.builds_folder()) else { return Ok(()) };
        for entry in entries.flatten() {
            let Ok(id) = entry.file_name().into_string() else { continue };
            if !is_supervised(&entry.path())? {
                self.free_addresses_of(&id)?;
            }
        }
        Ok(())
    }

    /// Takes away what killed builds have left.
    ///
    /// # Errors
    /// When something cannot be removed.
    pub(crate) fn sweep_builds(&self) -> Result<()> {
        let entries = match fs::read_dir(self.builds_folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            if is_supervised(&entry.path())? {
                continue;
            }
            // One that is being made or removed has no lock for a moment.
            if !entry.path().join("lock").exists() {
                std::thread::sleep(crate::system::A_MOMENT);
                if is_supervised(&entry.path())? {
                    continue;
                }
            }
            #[cfg(target_os = "linux")]
            {
                self.free_addresses_of(&id)?;
                if let Ok(step) = Container::load(entry.path()) {
                    crate::resources::end_group(self, &step.record);
                }
            }
            self.store().release(&id)?;
            match dhow_images::remove_tree(entry.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                other => other?,
            }
        }
        Ok(())
    }
}
