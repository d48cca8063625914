//! Indexes in the making, one small JSON file each: see [`crate::manifest_list`].
//!
//! ```text
//! lists/<name>   named as in `refs`
//! lists/.lock    held by whoever changes one
//! ```

use std::io;
use std::io::Read as _;
use std::path::PathBuf;

use fs_err as fs;

use super::Store;
use super::make_dir;
use super::private;
use super::refs::file_name;
use super::replace_file;
use super::sync_dir;
use crate::Error;
use crate::Reference;
use crate::error::Result;
use crate::manifest_list::ManifestList;

/// Largest record that is read, in bytes.
const MAX_RECORD: u64 = 64 << 20;

impl Store {
    /// The list of this name that is in the making.
    ///
    /// # Errors
    /// [`Error::InvalidStore`] when its record is damaged.
    pub fn manifest_list(&self, name: &Reference) -> Result<Option<ManifestList>> {
        let path = self.list_path(name);
        let mut bytes = Vec::new();
        match fs::File::open(&path) {
            Ok(file) => drop(file.take(MAX_RECORD).read_to_end(&mut bytes)?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e.into()),
        }
        let list = ManifestList::from_record(&bytes);
        let list =
            list.and_then(|list| if list.name == *name { Ok(list) } else { Err("is another list".into()) });
        list.map(Some).map_err(|reason| Error::InvalidStore { path: path.display().to_string(), reason })
    }

    /// Makes or changes a list. `change` gets what there is, and no other process changes it meanwhile.
    ///
    /// # Errors
    /// What `change` says, and the disk's.
    pub fn change_manifest_list<E: From<Error>>(
        &self,
        name: &Reference,
        change: impl FnOnce(Option<ManifestList>) -> std::result::Result<ManifestList, E>,
    ) -> std::result::Result<(), E> {
        let _lock = self.lock_lists()?;
        let list = change(self.manifest_list(name)?)?;
        // So that a sweep knows what is half-written.
        let _shared = self.lock_shared()?;
        replace_file(&self.list_path(name), &list.to_record()?, true)?;
        Ok(())
    }

    /// Removes a list; `false` when there was none.
    ///
    /// # Errors
    /// The disk's.
    pub fn remove_manifest_list(&self, name: &Reference) -> Result<bool> {
        let _lock = self.lock_lists()?;
        match fs::remove_file(self.list_path(name)) {
            Ok(()) => sync_dir(&self.lists_dir()).map(|()| true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e.into()),
        }
    }

    fn lock_lists(&self) -> Result<fs::File> {
        let dir = self.lists_dir();
        match make_dir(&dir) {
            Err(_) if dir.is_dir() => {}
            other => other?,
        }
        let path = dir.join(".lock");
        let lock = private().create(true).truncate(false).write(true).open(&path)?;
        lock.file().lock().map_err(|e| Error::io(path.display(), e))?;
        Ok(lock)
    }

    fn lists_dir(&self) -> PathBuf {
        self.root.join("lists")
    }

    fn list_path(&self, name: &Reference) -> PathBuf {
        self.lists_dir().join(file_name(&name.canonical()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Descriptor;
    use crate::Digest;
    use crate::manifest_list::ListEntry;
    use crate::manifest_list::ListPlatform;
    use crate::media;
    use crate::store::tests::store;

    fn entry(reference: &str, media_type: &str, text: &str) -> ListEntry {
        let bytes = text.as_bytes().to_vec();
        ListEntry {
            reference: reference.parse().unwrap(),
            descriptor: Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64),
            platform: ListPlatform {
                os: "linux".into(),
                architecture: "amd64".into(),
                ..ListPlatform::default()
            },
            bytes,
        }
    }

    #[test]
    fn lists_are_made_changed_and_removed() {
        let (_dir, store) = store();
        let name: Reference = "r:5000/Team/x:1".to_lowercase().parse().unwrap();
        assert_eq!(store.manifest_list(&name).unwrap(), None);
        let add = |one: &ListEntry| {
            store.change_manifest_list::<Error>(&name, |list| {
                let mut list = list.unwrap_or_else(|| ManifestList::new(name.clone()));
                list.add(one.clone())?;
                Ok(list)
            })
        };
        add(&entry("r:5000/b", media::MANIFEST, "{\"b\":1}")).unwrap();
        add(&entry("r:5000/a", media::DOCKER_MANIFEST, "{\"a\":1}")).unwrap();
        add(&entry("r:5000/b", media::MANIFEST, "{\"b\":2}")).unwrap();
        let error = add(&entry("r:5000/c", media::INDEX, "{}")).unwrap_err().to_string();
        assert_eq!(error, "r:5000/c:latest: is a manifest list");
        let list = store.manifest_list(&name).unwrap().unwrap();
        let found: Vec<_> = list.entries().iter().map(|e| e.reference.familiar()).collect();
        assert_eq!(found, ["r:5000/a:latest", "r:5000/b:latest"]);
        assert_eq!(list.entries()[1].bytes, b"{\"b\":2}");
        assert!(store.remove_manifest_list(&name).unwrap());
        assert!(!store.remove_manifest_list(&name).unwrap());
    }

    #[test]
    fn a_damaged_list_is_an_error() {
        let (_dir, store) = store();
        let name: Reference = "r:5000/x:1".parse().unwrap();
        let mut list = ManifestList::new(name.clone());
        list.add(entry("r:5000/a", media::MANIFEST, "{}")).unwrap();
        store.change_manifest_list::<Error>(&name, |_| Ok(list)).unwrap();
        let path = store.list_path(&name);
        let good = fs::read_to_string(&path).unwrap();
        let other = good.replace("r:5000/x:1", "r:5000/y:1");
        for bad in [&good[..good.len() - 1], "", "[]", &good.replace("\"{}\"", "\"{ }\""), &other] {
            fs::write(&path, bad).unwrap();
            assert!(matches!(store.manifest_list(&name), Err(Error::InvalidStore { .. })), "{bad}");
        }
    }

    #[test]
    fn many_processes_change_one_list() {
        let (_dir, store) = store();
        let name: Reference = "r:5000/x:1".parse().unwrap();
        std::thread::scope(|scope| {
            for n in 0..8 {
                let (store, name) = (&store, &name);
                scope.spawn(move || {
                    store
                        .change_manifest_list::<Error>(name, |list| {
                            let mut list = list.unwrap_or_else(|| ManifestList::new(name.clone()));
                            list.add(entry(&format!("r:5000/a{n}"), media::MANIFEST, "{}"))?;
                            Ok(list)
                        })
                        .unwrap();
                });
            }
        });
        assert_eq!(store.manifest_list(&name).unwrap().unwrap().entries().len(), 8);
    }
}
