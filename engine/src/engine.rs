//! The engine: where everything lies, and finding containers by name or id.

use std::path::{Path, PathBuf};

use dhow_images::Store;
use fs_err as fs;

use crate::error::{Error, Result};
use crate::record::Container;

/// The folders an engine works in.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Images, containers, compiled code: survives a reboot.
    pub root: PathBuf,
}

/// One root folder, shared with any number of other processes.
#[derive(Debug)]
pub struct Engine {
    root: PathBuf,
    store: Store,
}

impl Engine {
    /// Opens a root folder, making it where it is missing. Cheap enough for every command.
    ///
    /// # Errors
    /// When the folder cannot be made or is not ours to use.
    pub fn open(folders: Folders) -> Result<Self> {
        let root = folders.root;
        let store = Store::open(&root)?;
        let engine = Self { root, store };
        for folder in [engine.containers_folder(), engine.names_folder()] {
            if let Err(error) = fs::create_dir(&folder)
                && error.kind() != std::io::ErrorKind::AlreadyExists
            {
                return Err(error.into());
            }
        }
        Ok(engine)
    }

    /// The image store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn containers_folder(&self) -> PathBuf {
        self.root.join("containers")
    }

    pub(crate) fn names_folder(&self) -> PathBuf {
        self.root.join("names")
    }

    /// Where machine code of Wasm modules is kept.
    pub fn aot_folder(&self) -> PathBuf {
        self.root.join("aot")
    }

    /// Every container, newest first. One that is being made or removed just now may be missing.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for id in self.container_ids()? {
            match Container::load(self.containers_folder().join(&id)) {
                Ok(container) => containers.push(container),
                Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        containers.sort_by_key(|container| std::cmp::Reverse(container.record.created));
        Ok(containers)
    }

    pub(crate) fn container_ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(self.containers_folder())? {
            if let Ok(name) = entry?.file_name().into_string() {
                ids.push(name);
            }
        }
        Ok(ids)
    }

    /// Finds a container as Docker does: by full id, by name, by an id's beginning that fits no other.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousId`], or a damaged record.
    pub fn container(&self, wanted: &str) -> Result<Container> {
        let missing = || Error::NoSuchContainer(wanted.to_owned());
        let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
        let is_id = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let by_id = |id: &str| match Container::load(self.containers_folder().join(id)) {
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Err(missing()),
            other => other,
        };
        if is_id && wanted.len() == 64 {
            return by_id(wanted);
        }
        if let Some(owner) = crate::names::owner(&self.names_folder(), wanted)? {
            return by_id(&owner);
        }
        if !is_id {
            return Err(missing());
        }
        let mut fitting = self.container_ids()?.into_iter().filter(|id| id.starts_with(wanted));
        match (fitting.next(), fitting.next()) {
            (Some(id), None) => by_id(&id),
            (Some(_), Some(_)) => Err(Error::AmbiguousId(wanted.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}
