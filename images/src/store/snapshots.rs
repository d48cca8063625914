//! Snapshots: trees in the making, on top of images and of each other. Prepare one, change it, commit what changed
//! as a layer, prepare the next one on top.
//!
//! ```text
//! snapshots/<key>/snapshot.json   what it is made of, see `SnapshotInfo`
//! snapshots/<key>/upper/          active only: what was changed, as the kernel's overlay or a union notes it
//! snapshots/<key>/work/           active only: scratch of the kernel's overlay
//! ```
//!
//! A snapshot appears and disappears by rename. It names all that it is made of itself, so it is a lease at the same
//! time: nothing of it is swept while it is there, and the one it was made on top of may go before it. Nothing is
//! mounted here: [`Snapshots::mounts`] says what to mount.

use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;

use super::Snapshot;
use super::Store;
use super::UnpackedLayer;
use super::lease;
use super::make_dir;
use super::names_in;
use super::private;
use super::session::Session;
use super::snapshot::LayerForm;
use super::sync_dir;
use crate::Algorithm;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Image;
use crate::Matcher;
use crate::NoProgress;
use crate::Platform;
use crate::error::Result;
use crate::media;

const RECORD: &str = "snapshot.json";

/// The snapshots of a store.
#[derive(Debug, Clone, Copy)]
pub struct Snapshots<'s> {
    store: &'s Store,
}

/// What can be done with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SnapshotKind {
    /// It can be written to, and committed.
    Active,
    /// It can only be read.
    View,
    /// It does not change any more; others can be made on top of it.
    Committed,
}

/// What a snapshot is made on top of.
#[derive(Debug, Clone, Copy)]
pub enum SnapshotParent<'a> {
    /// Nothing.
    Empty,
    /// An image of the store.
    Image(&'a Image),
    /// The committed snapshot of this key.
    Committed(&'a str),
}

/// A layer on top of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotLayer {
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The archive, a blob of the store.
    pub blob: Descriptor,
}

/// What a snapshot is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// Its name: 1 to 128 characters of `[A-Za-z0-9_.-]` starting with a letter or digit.
    pub key: String,
    /// What can be done with it.
    pub kind: SnapshotKind,
    /// The manifest of the image at the bottom, and its platform.
    pub image: Option<(Descriptor, Platform)>,
    /// What was committed on top of that, lowest first.
    pub layers: Vec<SnapshotLayer>,
    /// Of a committed one: the key that it was prepared under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// What makes up the tree of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotMounts {
    /// The files of the image at the bottom, in the form that the store keeps them in.
    pub image: Option<Snapshot>,
    /// What was committed on top of that, lowest first.
    pub layers: Vec<UnpackedLayer>,
    /// Of an active one: where changes go, and the scratch folder beside it.
    pub upper: Option<(PathBuf, PathBuf)>,
}

impl Store {
    /// The snapshots of this store.
    #[must_use]
    pub fn snapshots(&self) -> Snapshots<'_> {
        Snapshots { store: self }
    }

    /// What snapshots keep, without what that leads to.
    pub(super) fn kept_by_snapshots(&self) -> Result<Vec<Digest>> {
        let mut kept = Vec::new();
        for info in self.snapshots().all()? {
            let info = info?;
            kept.extend(info.image.map(|(manifest, _)| manifest.digest));
            for layer in info.layers {
                kept.extend([layer.diff_id, layer.blob.digest]);
            }
        }
        Ok(kept)
    }
}

impl Snapshots<'_> {
    /// Begins a tree that can be changed. Its parent's files are there afterwards, and stay.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when the key is not valid or taken, or the parent is not a committed snapshot; what
    /// [`Store::snapshot`] says.
    pub fn prepare(&self, key: &str, parent: SnapshotParent<'_>) -> Result<SnapshotInfo> {
        self.begin(key, parent, SnapshotKind::Active)
    }

    /// Keeps a tree for reading.
    ///
    /// # Errors
    /// As [`Snapshots::prepare`].
    pub fn view(&self, key: &str, parent: SnapshotParent<'_>) -> Result<SnapshotInfo> {
        self.begin(key, parent, SnapshotKind::View)
    }

    fn begin(&self, key: &str, parent: SnapshotParent<'_>, kind: SnapshotKind) -> Result<SnapshotInfo> {
        let place = self.place(key)?;
        if place.exists() {
            return Err(refused(key, "exists already"));
        }
        let session = Session::new(self.store)?;
        let mut info = SnapshotInfo { key: key.into(), kind, image: None, layers: Vec::new(), from: None };
        match parent {
            SnapshotParent::Empty => {}
            SnapshotParent::Image(image) => {
                session.claim(image.diff_ids.iter().chain([&image.manifest.digest]))?;
                self.store.snapshot(image, &NoProgress)?;
                info.image = Some((image.manifest.clone(), image.platform.clone()));
            }
            SnapshotParent::Committed(name) => {
                let below = self.info(name)?;
                if below.kind != SnapshotKind::Committed {
                    return Err(refused(name, "is not committed"));
                }
                session.claim(below.layers.iter().flat_map(|l| [&l.diff_id, &l.blob.digest]))?;
                session.claim(below.image.iter().map(|(manifest, _)| &manifest.digest))?;
                info.image = below.image;
                info.layers = below.layers;
            }
        }
        self.publish(&session, &info, &place)?;
        Ok(info)
    }

    /// Makes a layer of what was changed in an active snapshot, and a committed snapshot `name` of the active one,
    /// which is gone then. `diff` writes the archive of the layer for a folder with changes: [`crate::write_diff`].
    ///
    /// A commit that was interrupted can be repeated.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when `key` is not active or `name` is taken; what `diff` says, the layer's, and the disk's.
    pub fn commit(
        &self,
        name: &str,
        key: &str,
        diff: impl FnOnce(&Path, &mut dyn Write) -> Result<()>,
    ) -> Result<SnapshotInfo> {
        let place = self.place(name)?;
        if place.exists() {
            let there = self.info(name)?;
            // Everything was done but the end.
            if there.from.as_deref() == Some(key) && self.remove(key)? {
                return Ok(there);
            }
            return Err(refused(name, "exists already"));
        }
        let mut info = self.info(key)?;
        if info.kind != SnapshotKind::Active {
            return Err(refused(key, "is not active"));
        }
        let session = Session::new(self.store)?;
        let mut writer = session.writer(Algorithm::Sha256)?;
        diff(&self.place(key)?.join("upper"), &mut writer)?;
        let staged = writer.finish();
        let (diff_id, size) = (staged.digest().clone(), staged.size());
        let blob = Descriptor::new(media::LAYER, diff_id.clone(), size);
        session.claim([&diff_id])?;
        if !self.store.has_blob_of(&blob) {
            session.reserve(size)?;
            staged.publish()?;
        }
        if !self.store.has_layer(&diff_id, LayerForm::Files) {
            self.store.unpack_one(&session, &blob, &diff_id, LayerForm::Files, &NoProgress)?;
        }
        info.layers.push(SnapshotLayer { diff_id, blob });
        let info =
            SnapshotInfo { key: name.into(), kind: SnapshotKind::Committed, from: Some(key.into()), ..info };
        self.publish(&session, &info, &place)?;
        self.remove(key)?;
        Ok(info)
    }

    /// Removes a snapshot; `false` when there was none. What it kept stays until [`Store::remove_unreferenced`].
    /// Those that were made on top of it are not concerned.
    ///
    /// # Errors
    /// When something in it cannot be removed.
    pub fn remove(&self, key: &str) -> Result<bool> {
        let session = Session::new(self.store)?;
        let (place, aside) = (self.place(key)?, session.path());
        match fs::rename(&place, &aside) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        }
        sync_dir(&self.folder())?;
        super::remove::tree(&aside)?;
        Ok(true)
    }

    /// What a snapshot is made of.
    ///
    /// # Errors
    /// [`Error::Snapshot`] when there is none, [`Error::InvalidStore`] when its record is damaged.
    pub fn info(&self, key: &str) -> Result<SnapshotInfo> {
        let place = self.place(key)?;
        if !place.exists() {
            return Err(refused(key, "does not exist"));
        }
        read(&place, key)
    }

    /// All snapshots, sorted by their keys. Damaged ones are left out; [`Store::check`] finds them.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn list(&self) -> Result<Vec<SnapshotInfo>> {
        let mut all: Vec<_> = self.all()?.into_iter().filter_map(Result::ok).collect();
        all.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(all)
    }

    /// What to mount to see a snapshot's tree. What is missing of it, after damage, is unpacked again.
    ///
    /// # Errors
    /// As [`Snapshots::info`] and [`Store::snapshot`].
    pub fn mounts(&self, key: &str) -> Result<SnapshotMounts> {
        let info = self.info(key)?;
        let image = match &info.image {
            Some((manifest, platform)) => {
                let image = self.store.image(manifest, &Matcher::only(platform))?;
                Some(self.store.snapshot(&image, &NoProgress)?)
            }
            None => None,
        };
        let mut layers = Vec::new();
        for SnapshotLayer { diff_id, blob } in info.layers {
            if !self.store.has_layer(&diff_id, LayerForm::Files) {
                let session = Session::new(self.store)?;
                self.store.unpack_one(&session, &blob, &diff_id, LayerForm::Files, &NoProgress)?;
            }
            let path = self.store.layer_path(&diff_id);
            if !path.is_dir() {
                let reason = "means something only over the layers of its image".into();
                return Err(Error::InvalidLayer { layer: diff_id, entry: None, reason });
            }
            layers.push(UnpackedLayer { path, id: diff_id.clone(), diff_id });
        }
        let place = self.place(key)?;
        let upper = (info.kind == SnapshotKind::Active).then(|| (place.join("upper"), place.join("work")));
        Ok(SnapshotMounts { image, layers, upper })
    }

    /// Every snapshot, or what is wrong with it.
    pub(super) fn all(&self) -> Result<Vec<Result<SnapshotInfo>>> {
        let folder = self.folder();
        let mut all = Vec::new();
        for name in names_in(&folder)? {
            let key = name.to_string_lossy().into_owned();
            match read(&folder.join(&name), &key) {
                // Removed in this moment.
                Err(_) if !folder.join(&name).exists() => {}
                read => all.push(read),
            }
        }
        Ok(all)
    }

    pub(super) fn folder(&self) -> PathBuf {
        self.store.root().join("snapshots")
    }

    fn place(&self, key: &str) -> Result<PathBuf> {
        lease::check_id(key).map_err(|_| refused(key, "is not a valid key"))?;
        Ok(self.folder().join(key))
    }

    /// Gives a snapshot its name, complete and durably, while the session's claims keep what it is made of.
    fn publish(&self, session: &Session, info: &SnapshotInfo, place: &Path) -> Result<()> {
        let folder = self.folder();
        match make_dir(&folder) {
            Err(_) if folder.is_dir() => {}
            other => other?,
        }
        let dir = session.path();
        make_dir(&dir)?;
        let record = serde_json::to_vec(info).map_err(|e| Error::manifest(&info.key, e))?;
        let mut file = private().write(true).create_new(true).open(dir.join(RECORD))?;
        file.write_all(&record)?;
        file.sync_data()?;
        drop(file);
        if info.kind == SnapshotKind::Active {
            for (name, mode) in [("upper", 0o755), ("work", 0o700)] {
                make_dir(&dir.join(name))?;
                #[cfg(unix)]
                fs::set_permissions(dir.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode))?;
                #[cfg(not(unix))]
                let _ = mode;
            }
        }
        sync_dir(&dir)?;
        fs::rename(&dir, place).map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty => {
                refused(&info.key, "exists already")
            }
            _ => e.into(),
        })?;
        sync_dir(&folder)
    }
}

fn read(place: &Path, key: &str) -> Result<SnapshotInfo> {
    let path = place.join(RECORD);
    let damaged = |reason: String| Error::InvalidStore { path: path.display().to_string(), reason };
    let bytes = fs::read(&path).map_err(|e| damaged(e.to_string()))?;
    let info: SnapshotInfo =
        serde_json::from_slice(&bytes).map_err(|e| damaged(format!("not a valid snapshot record: {e}")))?;
    if info.key == key { Ok(info) } else { Err(damaged("is the record of another snapshot".into())) }
}

fn refused(key: &str, reason: &'static str) -> Error {
    Error::Snapshot { key: key.escape_default().to_string(), reason }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;
