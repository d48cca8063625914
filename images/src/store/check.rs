//! Proving that the store is as it should be, and putting right what can be.
//!
//! Found: blobs whose content changed, names that lead nowhere, images with missing parts, unpacked layers without
//! a valid record, leftovers of dead processes, files that do not belong, and files that others may read or that
//! belong to somebody else. Repairing removes: a damaged blob, then every manifest that cannot be used without it,
//! then names that lead nowhere. A pull brings them back. What is not the store's is moved to `lost/`.

mod files;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use fs_err as fs;

use super::Store;
use super::TEMPORARY;
use super::gc::layer_digest;
use super::lease;
use super::names_in;
use super::refs;
use super::remove;
use crate::Algorithm;
use crate::Descriptor;
use crate::Digest;
use crate::Manifest;
use crate::Reference;
use crate::error::Result;
#[cfg(target_os = "linux")]
use crate::layer::plain::TAR;
use crate::layer::unpack::NEEDS_BELOW;
use crate::layer::unpack::in_parallel;
use crate::media;

/// Something in the store that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file or directory at fault.
    pub path: PathBuf,
    /// What is wrong.
    pub what: String,
    /// Whether it has been put right.
    pub repaired: bool,
    /// The names of images that are not complete because of it: to be pulled or loaded again.
    pub images: Vec<Reference>,
}

/// Says what a lease should keep.
pub type LeaseOwner<'a> = dyn Fn(&str) -> Option<Vec<Digest>> + 'a;

/// How to check.
#[derive(Default)]
pub struct CheckOptions<'a> {
    /// Put right what can be. Nobody else can bring in content meanwhile.
    pub repair: bool,
    /// Told how many bytes of blobs have been read, and how many there are, from several threads.
    pub progress: Option<&'a (dyn Fn(u64, u64) + Sync)>,
    /// Told the id of a lease that cannot be read, says what it should keep; `None` if nobody has such a lease.
    pub lease: Option<&'a LeaseOwner<'a>>,
}

impl std::fmt::Debug for CheckOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CheckOptions").field("repair", &self.repair).finish_non_exhaustive()
    }
}

/// How a problem is put right.
type Fix<'a> = &'a dyn Fn(&Path) -> Result<()>;

struct Check<'s> {
    store: &'s Store,
    options: &'s CheckOptions<'s>,
    problems: Vec<Problem>,
    /// Which names lead to a digest, before anything was removed.
    names: OnceCell<HashMap<Digest, Vec<Reference>>>,
}

impl Store {
    /// Verifies every blob, name, lease, layer and leftover, and repairs if asked to: see [`Store::check_with`].
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn check(&self, repair: bool) -> Result<Vec<Problem>> {
        self.check_with(&CheckOptions { repair, ..CheckOptions::default() })
    }

    /// Verifies every blob, name, lease, layer and leftover. A problem that cannot be put right is no error: it says
    /// that it was not repaired, and why.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn check_with(&self, options: &CheckOptions<'_>) -> Result<Vec<Problem>> {
        let mut check = Check { store: self, options, problems: Vec::new(), names: OnceCell::new() };
        // Names and leases are written under the shared lock: with the exclusive one, what is half-written is left.
        let exclusive = self.lock_exclusive()?;
        check.leftovers()?;
        let _exclusive = options.repair.then_some(exclusive);
        check.folders()?;
        check.blobs()?;
        check.layers()?;
        check.images()?;
        check.snapshots()?;
        check.leases()?;
        check.trust()?;
        Ok(check.problems)
    }

    /// Moves a file or folder that is not ours to where nobody trips over it.
    fn set_aside(&self, path: &Path) -> Result<()> {
        let lost = self.root().join("lost");
        match super::make_dir(&lost) {
            Err(_) if lost.is_dir() => {}
            other => other?,
        }
        let name = path.strip_prefix(self.root()).unwrap_or(path).to_string_lossy().replace(['/', '\\'], "-");
        let random = super::session::random_name()?;
        Ok(fs::rename(path, lost.join(format!("{name}-{random}")))?)
    }
}

const NOT_OURS: &str = "does not belong here";
const LEFT: &str = "left by a process that ended early";

impl Check<'_> {
    /// Notes a problem; `fix` is tried when repairing.
    fn found(&mut self, path: &Path, what: impl Into<String>, fix: Option<Fix<'_>>) {
        self.lost(path, what, Vec::new(), fix);
    }

    /// As `found`, of something that images lack now.
    fn lost(&mut self, path: &Path, what: impl Into<String>, images: Vec<Reference>, fix: Option<Fix<'_>>) {
        let mut what = what.into();
        let repaired = match fix.filter(|_| self.options.repair).map(|fix| fix(path)) {
            Some(Err(error)) => {
                what.push_str(&format!("; this cannot be repaired: {error}"));
                false
            }
            Some(Ok(())) => true,
            None => false,
        };
        self.problems.push(Problem { path: path.to_owned(), what, repaired, images });
    }

    /// The names of images that need this content.
    fn names(&self, digest: &Digest) -> Vec<Reference> {
        let names = self.names.get_or_init(|| {
            let mut names: HashMap<Digest, Vec<Reference>> = HashMap::new();
            for (name, image) in self.store.references().unwrap_or_default() {
                for part in self.store.reachable(vec![image.digest]).unwrap_or_default() {
                    names.entry(part).or_default().push(name.clone());
                }
            }
            names
        });
        names.get(digest).cloned().unwrap_or_default()
    }

    fn leftovers(&mut self) -> Result<()> {
        let mut dead: Vec<_> = self.store.sessions()?.into_iter().filter(|s| !s.alive).collect();
        if !dead.is_empty() {
            // One that ends in this moment has no lock any more, and soon no folder.
            std::thread::sleep(Duration::from_millis(100));
            dead.retain(|session| session.dir.exists());
        }
        for session in dead {
            self.found(&session.dir, LEFT, Some(&remove::tree));
        }
        for path in self.store.temporaries()? {
            self.found(&path, LEFT, Some(&remove::tree));
        }
        Ok(())
    }

    /// The folders themselves, and what is in `blobs` beside folders of algorithms.
    fn folders(&mut self) -> Result<()> {
        let root = self.store.root().to_owned();
        for folder in ["blobs", "refs", "leases", "layers", "ingest"] {
            self.guarded(&root.join(folder), true);
        }
        for folder in ["downloads", "uploads", "lists", "places", "trust"].map(|name| root.join(name)) {
            if folder.exists() {
                self.guarded(&folder, true);
            }
        }
        let aside: Fix<'_> = &|path| self.store.set_aside(path);
        for (path, _) in self.store.partials()? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.contains('.') || Store::derived_from(&name).is_none() || !path.is_file() {
                self.found(&path, NOT_OURS, Some(aside));
            } else {
                self.guarded(&path, false);
            }
        }
        let algorithms = [Algorithm::Sha256, Algorithm::Sha512].map(Algorithm::name);
        for name in names_in(&root.join("blobs"))? {
            let path = root.join("blobs").join(&name);
            if algorithms.iter().any(|a| name == *a) && path.is_dir() {
                self.guarded(&path, true);
            } else {
                self.found(&path, NOT_OURS, Some(&|path| self.store.set_aside(path)));
            }
        }
        Ok(())
    }

    /// Records of trust: of no use if they cannot be read, as the image is then judged without them.
    fn trust(&mut self) -> Result<()> {
        let store = self.store;
        for (digest, path) in store.trust_files()? {
            let Some(digest) = digest else {
                self.found(&path, NOT_OURS, Some(&|path| store.set_aside(path)));
                continue;
            };
            if store.trust_records(&digest).is_err() || store.trust_material(&digest).is_err() {
                self.found(&path, "not a valid record of trust", Some(&remove::tree));
            } else {
                self.guarded(&path, false);
            }
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        let store = self.store;
        let aside: Fix<'_> = &|path| store.set_aside(path);
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = store.root().join("blobs").join(algorithm.name());
            for name in names_in(&dir)? {
                let path = dir.join(&name);
                if format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse::<Digest>().is_err() {
                    self.found(&path, format!("{NOT_OURS}: not the name of a blob"), Some(aside));
                } else if !std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file()) {
                    self.found(&path, "is not a regular file", Some(aside));
                } else {
                    self.guarded(&path, false);
                }
            }
        }
        let blobs: Vec<(Digest, PathBuf, u64)> = store
            .blobs()?
            .into_iter()
            .filter_map(|(digest, path)| {
                let meta = std::fs::symlink_metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
                Some((digest, path, meta.len()))
            })
            .collect();
        let total = blobs.iter().map(|(_, _, size)| size).sum();
        let (done, damaged) = (AtomicU64::new(0), Mutex::new(Vec::new()));
        let progress = self.options.progress;
        in_parallel(&blobs, |(digest, path, _)| {
            let damage = files::damage(path, digest, &|bytes| {
                let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
                if let Some(progress) = progress {
                    progress(done, total);
                }
            })?;
            if let Some(what) = damage {
                damaged.lock().unwrap_or_else(PoisonError::into_inner).push((
                    digest.clone(),
                    path.clone(),
                    what,
                ));
            }
            Ok(())
        })?;
        let mut damaged = damaged.into_inner().unwrap_or_else(PoisonError::into_inner);
        damaged.sort();
        for (digest, path, what) in damaged {
            let images = self.names(&digest);
            self.lost(&path, what, images, Some(&remove::tree));
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let store = self.store;
        let dir = store.root().join("layers");
        for name in names_in(&dir)? {
            let path = dir.join(&name);
            let Some(diff_id) = layer_digest(&name.to_string_lossy()) else {
                let what = format!("{NOT_OURS}: not the name of a layer");
                self.found(&path, what, Some(&|path| store.set_aside(path)));
                continue;
            };
            self.guarded(&path, true);
            if let Err(what) = self.store.check_layer(&diff_id, &path) {
                self.found(&path, what, Some(&remove::tree));
                continue;
            }
            #[cfg(target_os = "linux")]
            if is_file(&path.join(TAR))
                && let Some(what) = store.tar_damage(&diff_id)?
            {
                // A layer that has nothing else is nothing then.
                let fix = |_: &Path| {
                    if path.join("fs").is_dir() || path.join(NEEDS_BELOW).is_file() {
                        store.remove_tar(&diff_id)
                    } else {
                        remove::tree(&path)
                    }
                };
                self.found(&path.join(TAR), what, Some(&fix));
            }
        }
        #[cfg(target_os = "linux")]
        self.trees()?;
        Ok(())
    }

    /// After the layers: an index without one of them goes too.
    #[cfg(target_os = "linux")]
    fn trees(&mut self) -> Result<()> {
        let store = self.store;
        let dir = store.root().join("trees");
        for name in names_in(&dir)? {
            let path = dir.join(&name);
            let name = name.to_string_lossy();
            let Some(chain_id) = layer_digest(&name) else {
                let what = format!("{NOT_OURS}: not the name of a layer");
                self.found(&path, what, Some(&|path| store.set_aside(path)));
                continue;
            };
            self.guarded(&path, true);
            if let Some(what) = store.tree_damage(&chain_id)? {
                let fix = |path: &Path| {
                    store.unmount(|mounted| mounted == name)?;
                    remove::tree(path)
                };
                self.found(&path, what, Some(&fix));
            }
        }
        for name in store.mount_names()? {
            if !dir.join(&name).is_dir() {
                let fix = |_: &Path| store.unmount(|mounted| mounted == name);
                self.found(&dir.join(&name), "is mounted and does not exist", Some(&fix));
            }
        }
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        let refs = self.store.root().join("refs");
        for (file, record) in self.store.records()? {
            let path = refs.join(&file);
            match record {
                Err(e) => match refs::name_of_file(&file) {
                    Some(name) => {
                        let images = Reference::parse(&name).into_iter().collect();
                        self.lost(&path, format!("{name}: {e}"), images, Some(&remove::tree));
                    }
                    None => {
                        let store = self.store;
                        let what = format!("{NOT_OURS}: {e}");
                        self.found(&path, what, Some(&|path| store.set_aside(path)));
                    }
                },
                Ok(record) => {
                    self.guarded(&path, false);
                    let images: Vec<_> = Reference::parse(&record.name).into_iter().collect();
                    if self.store.has_blob(&record.descriptor.digest) {
                        self.image(&record.name, &record.descriptor, &path, &images);
                    } else if self.still(&record) {
                        let what = format!(
                            "{} leads to {}, which is missing",
                            record.name, record.descriptor.digest
                        );
                        self.lost(&path, what, images, Some(&remove::tree));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a name still stands for what it did: its image may have been removed in this moment.
    fn still(&self, record: &refs::Record) -> bool {
        self.store
            .read_ref(&record.name)
            .is_ok_and(|now| now.is_some_and(|n| n.descriptor == record.descriptor))
    }

    /// A variant that was never fetched has no manifest in the store. One that has must be complete.
    fn image(&mut self, name: &str, image: &Descriptor, path: &Path, images: &[Reference]) {
        let variants = match self.store.manifests(image) {
            Ok(manifests) => manifests,
            Err(e) => {
                return self.lost(path, format!("{name}: {e}"), images.to_vec(), Some(&remove::tree));
            }
        };
        for descriptor in variants.into_iter().filter(|d| self.store.has_blob(&d.digest)) {
            let missing =
                match self.store.read_blob(&descriptor).and_then(|b| Manifest::parse(&descriptor.digest, &b))
                {
                    Ok(manifest) => manifest
                        .layers
                        .iter()
                        .chain([&manifest.config])
                        .find(|blob| !self.store.has_blob_of(blob))
                        .map(|blob| format!("{name}: blob {} is missing", blob.digest)),
                    Err(e) => Some(format!("{name}: {e}")),
                };
            let Some(what) = missing.filter(|_| path.exists()) else { continue };
            let fix = |manifest: &Path| {
                remove::tree(manifest)?;
                if media::is_index(&image.media_type) { Ok(()) } else { remove::tree(path) }
            };
            let manifest = self.store.blob_path(&descriptor.digest);
            self.lost(&manifest, what, images.to_vec(), Some(&fix));
        }
    }

    fn snapshots(&mut self) -> Result<()> {
        let (store, folder) = (self.store, self.store.snapshots().folder());
        if folder.exists() {
            self.guarded(&folder, true);
        }
        for name in names_in(&folder)? {
            let (path, key) = (folder.join(&name), name.to_string_lossy().into_owned());
            match store.snapshots().info(&key) {
                Ok(_) => self.guarded(&path, true),
                Err(_) if !path.exists() => {}
                // It may hold what somebody wrote: it is kept, where it stops no sweep.
                Err(e) => self.found(&path, e.to_string(), Some(&|path| store.set_aside(path))),
            }
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<()> {
        let store = self.store;
        let aside: Fix<'_> = &|path| store.set_aside(path);
        for folder in store.lease_folders() {
            for file in names_in(&folder)? {
                let (path, id) = (folder.join(&file), file.to_string_lossy().into_owned());
                if id.starts_with(TEMPORARY) {
                    continue;
                }
                if lease::check_id(&id).is_err() || !path.is_file() {
                    self.found(&path, NOT_OURS, Some(aside));
                    continue;
                }
                let Err(e) =
                    fs::read_to_string(&path).map_err(Into::into).and_then(|text| lease::parse(&text))
                else {
                    self.guarded(&path, false);
                    continue;
                };
                let what = format!("cannot tell what it keeps: {e}");
                match self.options.lease.and_then(|owner| owner(&id)) {
                    Some(digests) => self.found(
                        &path,
                        what,
                        Some(&|path| super::replace_file(path, lease::lines(&digests).as_bytes(), true)),
                    ),
                    None => self.found(&path, what, Some(aside)),
                }
            }
        }
        Ok(())
    }

    /// Nobody but the store's owner may reach what is in it.
    fn guarded(&mut self, path: &Path, is_dir: bool) {
        let Some(wrong) = files::wrong_access(self.store.root(), path, is_dir) else { return };
        self.found(path, wrong.what(), Some(&|path| wrong.repair(path)));
    }
}

impl Store {
    /// What is wrong with an unpacked layer.
    fn check_layer(&self, diff_id: &Digest, path: &Path) -> std::result::Result<(), String> {
        #[cfg(target_os = "linux")]
        let has_tar = is_file(&path.join(TAR));
        #[cfg(not(target_os = "linux"))]
        let has_tar = false;
        let complete = (path.join("fs").is_dir() || path.join(NEEDS_BELOW).is_file() || has_tar)
            && self.layer_record(diff_id).is_some_and(|record| record.diff_id == *diff_id);
        if complete { Ok(()) } else { Err("unpacked layer is not complete".into()) }
    }

    /// The manifests below an image; indexes that are missing are left out.
    fn manifests(&self, image: &Descriptor) -> Result<Vec<Descriptor>> {
        let mut all = Vec::new();
        let mut read = |index: &Descriptor| match self.read_blob(index) {
            Err(crate::Error::MissingBlob { .. }) => Ok(None),
            other => other.map(Some),
        };
        crate::image::walk(image, &mut read, &mut |manifest| {
            all.push(manifest.clone());
            Ok(())
        })?;
        Ok(all)
    }
}

#[cfg(target_os = "linux")]
fn is_file(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file())
}

#[cfg(test)]
mod tests;
