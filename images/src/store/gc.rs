//! Sweeping what nothing leads to.
//!
//! Roots are names, leases and the claims of living sessions. From a root everything is followed that a manifest,
//! an index or a configuration mentions. The store's lock is held exclusively for as long as this takes, but the
//! files of unpacked layers are deleted after it: they are moved aside first, and swept with the session if this
//! process is killed. When a sweep returns, the disk has its space back.

use std::collections::HashSet;
use std::io::Read as _;
use std::time::Duration;
use std::time::SystemTime;

use fs_err as fs;

use super::Sizes;
use super::Store;
use super::TEMPORARY;
use super::derived;
use super::lease;
use super::measure::Measure;
use super::names_in;
use super::session::Session;
use crate::Algorithm;
use crate::Digest;
use crate::Error;
use crate::MAX_MANIFEST;
use crate::error::Result;
use crate::layer::unpack::in_parallel;

/// What a sweep removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Blobs that are gone. Whatever was derived from them (machine code) can go too.
    pub blobs: Vec<Digest>,
    /// Unpacked layers that are gone, by diff id.
    pub layers: Vec<Digest>,
    /// What the disk got back. Only [`Store::prune`] and [`Store::collect`] measure it.
    pub freed: Sizes,
}

/// How thorough a sweep is.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Sweep {
    /// Finds out what the disk gets back, which costs a look at every file that goes.
    pub(super) measure: bool,
    /// What nobody owns goes when it is older than this: derived files of content that is not in the store, and
    /// partial downloads. `None` keeps them.
    pub(super) abandoned: Option<Duration>,
}

/// Files of this many bytes are removed beside others: the kernel takes a moment for each, without the store's lock.
const LARGE: u64 = 1 << 20;

impl Store {
    /// Removes every blob and unpacked layer that no name, lease or running operation leads to.
    ///
    /// # Errors
    /// When a lease or name cannot be read: then nothing is removed, because nobody knows what it keeps.
    pub fn remove_unreferenced(&self) -> Result<Swept> {
        self.sweep(Sweep::default(), || Ok(()))
    }

    /// As [`Store::remove_unreferenced`]. `first` runs with the lock held exclusively, so that nobody can begin to
    /// use what it lets go.
    pub(super) fn sweep(&self, how: Sweep, first: impl FnOnce() -> Result<()>) -> Result<Swept> {
        let session = Session::new(self)?;
        let mut swept = Swept::default();
        let mut measure = Measure::default();
        let mut of = |path: &std::path::Path| -> Result<Sizes> {
            if how.measure { Ok(measure.of(path)?) } else { Ok(Sizes::default()) }
        };
        let mut aside = Vec::new();
        let exclusive = self.lock_exclusive()?;
        for dead in self.sessions()?.into_iter().filter(|s| !s.alive) {
            swept.freed += of(&dead.dir)?;
        }
        self.sweep_sessions(|_| ())?;
        self.sweep_temporaries()?;
        first()?;
        let live = self.live()?;
        for (digest, path) in self.blobs()? {
            if live.contains(&digest) {
                continue;
            }
            if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() >= LARGE) {
                let target = session.path();
                fs::rename(path, &target)?;
                aside.push(target);
            } else {
                swept.freed += of(&path)?;
                super::remove::tree(&path)?;
            }
            swept.blobs.push(digest);
        }
        #[cfg(target_os = "linux")]
        {
            // What is mounted goes before what it is made of.
            let live_names: HashSet<String> = live.iter().map(super::digest_name).collect();
            self.unmount(|name| !live_names.contains(name))?;
            for (chain_id, path) in self.trees()? {
                if !live.contains(&chain_id) {
                    let target = session.path();
                    fs::rename(path, &target)?;
                    aside.push(target);
                }
            }
        }
        for (diff_id, path) in self.layers()? {
            if live.contains(&diff_id) {
                continue;
            }
            let target = session.path();
            fs::rename(path, &target)?;
            aside.push(target);
            swept.layers.push(diff_id);
        }
        self.sweep_trust(|digest| live.contains(digest))?;
        let now = SystemTime::now();
        swept.freed += self.sweep_derived(|derived| match &derived.of {
            Some(digest) => live.contains(digest),
            None => {
                let age = now.duration_since(derived::written(&derived.path)).unwrap_or_default();
                how.abandoned.is_none_or(|limit| age < limit)
            }
        })?;
        self.sweep_places()?;
        if let Some(age) = how.abandoned {
            swept.freed += self.remove_partials(age)?;
        }
        drop(exclusive);
        for path in &aside {
            swept.freed += of(path)?;
        }
        in_parallel(&aside, |path| super::remove::tree(path))?;
        Ok(swept)
    }

    /// Everything that must stay: digests of blobs and diff ids alike.
    fn live(&self) -> Result<HashSet<Digest>> {
        let mut roots = self.uses()?;
        for (_, record) in self.records()? {
            roots.push(record?.descriptor.digest);
        }
        self.reachable(roots)
    }

    /// What leases and living sessions keep, without what that leads to.
    pub(super) fn uses(&self) -> Result<Vec<Digest>> {
        let mut roots = self.kept_by_snapshots()?;
        for (id, lease) in self.leases()? {
            roots.extend(lease.map_err(|e| Error::InvalidStore {
                path: format!("leases/{id}"),
                reason: format!("cannot tell what it keeps: {e}"),
            })?);
        }
        for session in self.sessions()?.into_iter().filter(|s| s.alive) {
            match fs::read_to_string(&session.claims) {
                Ok(text) => roots.extend(lease::parse(&text)?),
                // It ended in this moment.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(roots)
    }

    /// The closure of some digests over all JSON documents in the store.
    ///
    /// # Errors
    /// When a document that is there cannot be read: nobody knows what it leads to then.
    pub(super) fn reachable(&self, mut todo: Vec<Digest>) -> Result<HashSet<Digest>> {
        let mut seen = HashSet::new();
        while let Some(digest) = todo.pop() {
            if !seen.insert(digest.clone()) {
                continue;
            }
            if let Some(bytes) = self.read_document(&digest)? {
                mentioned(&bytes, &mut todo);
            }
        }
        Ok(seen)
    }

    /// A blob that may be a JSON document, by its size and first byte; `None` for all else, and for what is not
    /// there. What kind it is does not matter here: a layer that looks like a manifest only keeps more.
    pub(super) fn read_document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let mut file = match self.open_blob(digest) {
            Err(Error::MissingBlob { .. }) => return Ok(None),
            other => other?,
        };
        let meta = file.metadata()?;
        let mut first = [0];
        if !meta.is_file() || meta.len() > MAX_MANIFEST || file.read(&mut first)? == 0 {
            return Ok(None);
        }
        if first != *b"{" && !first[0].is_ascii_whitespace() {
            return Ok(None);
        }
        let mut bytes = first.to_vec();
        file.take(MAX_MANIFEST).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// Every well-named blob file.
    pub(super) fn blobs(&self) -> Result<Vec<(Digest, std::path::PathBuf)>> {
        let mut all = Vec::new();
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.root.join("blobs").join(algorithm.name());
            for name in names_in(&dir)? {
                if let Ok(digest) = format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse() {
                    all.push((digest, dir.join(name)));
                }
            }
        }
        Ok(all)
    }

    /// Every well-named unpacked layer.
    pub(super) fn layers(&self) -> Result<Vec<(Digest, std::path::PathBuf)>> {
        let dir = self.root.join("layers");
        let mut all = Vec::new();
        for name in names_in(&dir)? {
            if let Some(digest) = layer_digest(&name.to_string_lossy()) {
                all.push((digest, dir.join(name)));
            }
        }
        Ok(all)
    }

    /// Half-written names and leases. The exclusive lock is held, so nobody is writing one.
    pub(super) fn sweep_temporaries(&self) -> Result<()> {
        self.temporaries()?.iter().try_for_each(|path| super::remove::tree(path))
    }

    /// Files that are half-written, or were when their process ended.
    pub(super) fn temporaries(&self) -> Result<Vec<std::path::PathBuf>> {
        let mut all = Vec::new();
        let layout = format!(".{}-", super::LAYOUT_FILE);
        let folders =
            self.lease_folders().into_iter().chain(["refs", "lists", "trust"].map(|dir| self.root.join(dir)));
        let own = [layout.as_str(), TEMPORARY].map(|prefix| (self.root.clone(), prefix));
        for (dir, prefix) in folders.map(|dir| (dir, TEMPORARY)).chain(own) {
            for name in names_in(&dir)? {
                if name.to_string_lossy().starts_with(prefix) {
                    all.push(dir.join(name));
                }
            }
        }
        Ok(all)
    }
}

pub(super) fn layer_digest(name: &str) -> Option<Digest> {
    match name.strip_prefix("sha512-") {
        Some(hex) => format!("sha512:{hex}").parse().ok(),
        None => Digest::sha256(name).ok(),
    }
}

/// The digests that a manifest, index or configuration mentions. Documents of no such shape mention none.
fn mentioned(bytes: &[u8], into: &mut Vec<Digest>) {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(bytes) else { return };
    let mut push =
        |value: &serde_json::Value| into.extend(value.as_str().and_then(|d| d.parse::<Digest>().ok()));
    push(&document["config"]["digest"]);
    push(&document["subject"]["digest"]);
    for list in ["manifests", "layers", "blobs"] {
        for entry in document[list].as_array().into_iter().flatten() {
            push(&entry["digest"]);
        }
    }
    for diff_id in document["rootfs"]["diff_ids"].as_array().into_iter().flatten() {
        push(diff_id);
    }
    // The tree of all layers has a name of its own, and so has a layer that belongs to those below it.
    #[cfg(target_os = "linux")]
    if let Some(diff_ids) = document["rootfs"]["diff_ids"].as_array() {
        let diff_ids: Vec<Digest> =
            diff_ids.iter().filter_map(|d| d.as_str().and_then(|d| d.parse().ok())).collect();
        into.extend(crate::erofs::chain_id(&diff_ids));
        into.extend(crate::layer::unpack::over_ids(&diff_ids));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    fn put(store: &Store, text: &str) -> crate::Descriptor {
        Session::new(store).unwrap().put("application/x", text.as_bytes()).unwrap()
    }

    fn layer(store: &Store, diff_id: &Digest) {
        fs::create_dir_all(store.layer_dir(diff_id).join("fs")).unwrap();
    }

    #[test]
    fn keeps_what_names_leases_and_sessions_lead_to() {
        let (_dir, store) = store();
        let image = |label: &str| {
            let blob = put(&store, &format!("layer {label}"));
            let diff_id = Digest::of(label.as_bytes());
            layer(&store, &diff_id);
            let config = put(&store, &format!(r#"{{"rootfs":{{"diff_ids":["{diff_id}"]}}}}"#));
            let manifest = put(
                &store,
                &format!(
                    r#"{{"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}}]}}"#,
                    config.digest, blob.digest
                ),
            );
            (manifest, blob, diff_id)
        };
        let (named, leased, claimed, lost) = (image("a"), image("b"), image("c"), image("d"));
        let index = put(&store, &format!(r#"{{"manifests":[{{"digest":"{}"}}]}}"#, named.0.digest));
        store.tag(&"x".parse().unwrap(), &index).unwrap();
        store.lease("box", std::slice::from_ref(&leased.0.digest), true).unwrap();
        let session = Session::new(&store).unwrap();
        session.claim([&claimed.0.digest]).unwrap();

        let swept = store.remove_unreferenced().unwrap();
        assert_eq!(swept.layers, [lost.2]);
        assert_eq!(swept.blobs.len(), 3);
        for kept in [&named, &leased, &claimed] {
            assert!(store.has_blob(&kept.1.digest) && store.layer_dir(&kept.2).exists());
        }
        drop(session);
        assert!(store.release("box").unwrap());
        assert!(!store.release("box").unwrap());
        assert!(store.untag(&"x".parse().unwrap()).unwrap());
        store.remove_unreferenced().unwrap();
        assert_eq!(store.blobs().unwrap(), []);
        assert_eq!(store.layers().unwrap(), []);
        assert_eq!(names_in(&store.root().join("ingest")).unwrap().len(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn a_document_that_cannot_be_read_stops_the_sweep() {
        use std::os::unix::fs::PermissionsExt;
        let (_dir, store) = store();
        let (config, other) = (put(&store, "{}"), put(&store, "x"));
        let manifest = put(&store, &format!(r#"{{"config":{{"digest":"{}"}}}}"#, config.digest));
        store.tag(&"x".parse().unwrap(), &manifest).unwrap();
        // Root may read all files, so it is a kind of file that cannot be opened in this way.
        let path = store.blob_path(&manifest.digest);
        fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
        let is_root = fs::File::open(&path).is_ok();
        if is_root {
            fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink(&path, &path).unwrap();
        }
        assert!(store.remove_unreferenced().is_err());
        assert!(store.has_blob(&config.digest) && store.has_blob(&other.digest));
    }

    #[test]
    fn an_unreadable_lease_stops_the_sweep() {
        let (_dir, store) = store();
        let blob = put(&store, "x");
        fs::write(store.root().join("leases/c1"), "garbage\n").unwrap();
        let error = store.remove_unreferenced().unwrap_err().to_string();
        assert!(error.contains("leases/c1"), "{error}");
        assert!(store.has_blob(&blob.digest));
        for id in ["", "../x", "a/b", ".hidden", &"x".repeat(129)] {
            assert!(store.lease(id, &[], false).is_err(), "{id}");
        }
    }
}
