//! Removing images: which there are, who uses them, since when nobody did, and giving their space back.
//!
//! An image was last used when its name was given or when a container was made of it: that is noted as the time of
//! change of the name's file and of the image's top blob, the only thing that ever changes about a blob.

use std::collections::BTreeMap;
use std::collections::HashSet;
use std::time::Duration;
use std::time::SystemTime;

use super::Store;
use super::Swept;
use super::derived::written;
use super::gc::Sweep;
use super::measure::disk_usage;
use crate::Descriptor;
use crate::Digest;
use crate::Reference;
use crate::error::Result;
use crate::media;

/// An image that could be removed.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// What its names stand for.
    pub descriptor: Descriptor,
    /// Its names, sorted; none for one that is kept without.
    pub names: Vec<Reference>,
    /// When it was named, pulled, or a container was made of it.
    pub last_used: SystemTime,
    /// Whether a lease or a running operation keeps it.
    pub in_use: bool,
}

/// What a prune takes besides images.
#[derive(Debug, Clone, Copy)]
pub struct Prune {
    /// Derived files of content that is not in the store, and partial downloads, go at this age.
    pub abandoned_after: Duration,
}

/// What a prune did.
#[derive(Debug, Clone, Default)]
pub struct Pruned {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// Images that are gone.
    pub images: Vec<Digest>,
    /// Everything that was deleted.
    pub swept: Swept,
}

impl Prune {
    /// What nobody came back to in a week.
    pub const ABANDONED: Self = Self { abandoned_after: Duration::from_secs(7 * 24 * 3600) };
    /// Everything that is not in use in this moment.
    pub const ALL: Self = Self { abandoned_after: Duration::ZERO };
}

impl Store {
    /// Notes that an image is being used; see [`Candidate::last_used`]. Costs one system call. It is no error when
    /// that cannot be noted.
    pub fn touch(&self, image: &Digest) {
        let path = self.blob_path(image);
        #[cfg(unix)]
        {
            use rustix::fs::Timespec;
            use rustix::fs::UTIME_NOW;
            use rustix::fs::UTIME_OMIT;
            let times = rustix::fs::Timestamps {
                last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
                last_modification: Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
            };
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).ok();
        }
        #[cfg(not(unix))]
        if let Ok(file) = fs_err::OpenOptions::new().write(true).open(path) {
            drop(file.file().set_modified(SystemTime::now()));
        }
    }

    /// Every image, named or not.
    ///
    /// # Errors
    /// When a name or lease cannot be read.
    pub fn candidates(&self) -> Result<Vec<Candidate>> {
        let mut images: BTreeMap<Digest, Candidate> = BTreeMap::new();
        let refs = self.root().join("refs");
        for (file, record) in self.records()? {
            let record = record?;
            let named = written(&refs.join(file));
            let image = images.entry(record.descriptor.digest.clone()).or_insert_with(|| Candidate {
                last_used: written(&self.blob_path(&record.descriptor.digest)),
                descriptor: record.descriptor.clone(),
                names: Vec::new(),
                in_use: false,
            });
            image.last_used = image.last_used.max(named);
            // Without a name, the digest stands in its place.
            if record.name.parse::<Digest>().is_err() {
                image.names.extend(Reference::parse(&record.name).ok());
            }
        }
        let uses = self.uses()?;
        // A part of an image may be used by itself: a container of one variant of an index.
        let parts: Vec<&Digest> = uses.iter().filter(|used| !images.contains_key(used)).collect();
        let parts: HashSet<Digest> = parts.into_iter().cloned().collect();
        let used = self.reachable(uses)?;
        for (digest, image) in &mut images {
            image.names.sort();
            image.in_use = used.contains(digest)
                || (!parts.is_empty()
                    && media::is_index(&image.descriptor.media_type)
                    && self.leads_to(digest, &parts)?);
        }
        Ok(images.into_values().collect())
    }

    /// Whether an index leads to one of these documents. Layers do not count: they are shared by images that have
    /// nothing else to do with each other.
    fn leads_to(&self, index: &Digest, parts: &HashSet<Digest>) -> Result<bool> {
        for part in self.reachable(vec![index.clone()])?.intersection(parts) {
            if self.read_document(part)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Everything that each of these images leads to.
    pub(super) fn closures(&self, images: &[Candidate]) -> Result<Vec<HashSet<Digest>>> {
        images.iter().map(|image| self.reachable(vec![image.descriptor.digest.clone()])).collect()
    }

    /// Removes the images that `select` chooses of those that nothing uses, all their names with them, and then
    /// everything that nothing leads to. `select` runs while nobody else can begin to use an image.
    ///
    /// # Errors
    /// When a lease or name cannot be read: then nothing is removed, because nobody knows what it keeps.
    pub fn prune(&self, what: Prune, mut select: impl FnMut(&Candidate) -> bool) -> Result<Pruned> {
        let mut pruned = Pruned::default();
        let how = Sweep { measure: true, abandoned: Some(what.abandoned_after) };
        let mut names = 0;
        let mut swept = self.sweep(how, || {
            let before = disk_usage(self.root().join("refs"))?.allocated;
            for image in self.candidates()?.into_iter().filter(|image| !image.in_use) {
                if select(&image) {
                    self.forget(&image)?;
                    pruned.images.push(image.descriptor.digest);
                    pruned.untagged.extend(image.names);
                }
            }
            names = before.saturating_sub(disk_usage(self.root().join("refs"))?.allocated);
            Ok(())
        })?;
        swept.freed.allocated += names;
        Ok(Pruned { swept, ..pruned })
    }

    /// Removes every name of an image.
    pub(super) fn forget(&self, image: &Candidate) -> Result<()> {
        for name in &image.names {
            self.untag(name)?;
        }
        self.drop_untagged(&image.descriptor.digest).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose;
    use crate::store::session::Session;
    use crate::store::tests::store;

    #[test]
    fn what_is_used_stays() {
        let (_dir, store) = store();
        let image = |content: &[u8]| compose::wasm_artifact(&store, "wasip1", content).unwrap();
        let (free, leased, claimed, part) =
            (image(b"free"), image(b"leased"), image(b"claimed"), image(b"part"));
        let index = compose::index(&store, std::slice::from_ref(&part)).unwrap();
        let unnamed = image(b"unnamed");
        for (name, image) in [
            ("free", &free),
            ("free:2", &free),
            ("leased", &leased),
            ("claimed", &claimed),
            ("index", &index),
        ] {
            store.tag(&name.parse().unwrap(), image).unwrap();
        }
        store.keep_untagged(&unnamed).unwrap();
        store.lease("c1", std::slice::from_ref(&leased.digest), true).unwrap();
        store.lease("c2", std::slice::from_ref(&part.digest), true).unwrap();
        let session = Session::new(&store).unwrap();
        session.claim([&claimed.digest]).unwrap();
        let in_use = |store: &Store| -> Vec<bool> {
            let all = store.candidates().unwrap();
            let of = |image: &Descriptor| all.iter().find(|c| c.descriptor == *image).unwrap().in_use;
            [&free, &leased, &claimed, &index, &unnamed].map(of).to_vec()
        };
        assert_eq!(in_use(&store), [false, true, true, true, false]);

        let pruned = store.prune(Prune::ABANDONED, |image| image.names.is_empty()).unwrap();
        assert_eq!(pruned.images, [unnamed.digest]);
        assert!(pruned.untagged.is_empty() && pruned.swept.freed.content > 0);
        let pruned = store.prune(Prune::ALL, |_| true).unwrap();
        assert_eq!(pruned.images, [free.digest]);
        assert_eq!(pruned.untagged.len(), 2);
        drop(session);
        store.release("c1").unwrap();
        store.release("c2").unwrap();
        assert_eq!(store.prune(Prune::ALL, |_| true).unwrap().images.len(), 3);
        assert_eq!(store.check(false).unwrap(), []);
        assert!(store.blobs().unwrap().is_empty());
    }

    #[test]
    fn a_use_is_noted() {
        let (_dir, store) = store();
        let image = compose::wasm_artifact(&store, "wasip1", b"x").unwrap();
        store.tag(&"x".parse().unwrap(), &image).unwrap();
        let old = SystemTime::now() - Duration::from_secs(1000);
        let set = |path: std::path::PathBuf| {
            fs_err::OpenOptions::new().write(true).open(path).unwrap().file().set_modified(old).unwrap();
        };
        set(store.blob_path(&image.digest));
        for name in super::super::names_in(&store.root().join("refs")).unwrap() {
            set(store.root().join("refs").join(name));
        }
        assert_eq!(store.candidates().unwrap()[0].last_used, old);
        store.touch(&image.digest);
        assert!(store.candidates().unwrap()[0].last_used > old);
        store.touch(&Digest::of(b"absent"));
    }

    #[test]
    fn derived_files_go_with_what_they_were_made_of() {
        let (dir, store) = store();
        let folder = dir.path().join("aot");
        let store = store.with_derived(folder.clone());
        let image = compose::wasm_artifact(&store, "wasip1", b"module").unwrap();
        store.tag(&"x".parse().unwrap(), &image).unwrap();
        let blob = store.image(&image, &crate::Matcher::host()).unwrap().wasm[0].digest.clone();
        let group = folder.join("key");
        fs_err::create_dir_all(&group).unwrap();
        let stem = format!("sha256-{}", blob.hex());
        for name in [
            stem.clone(),
            format!("{stem}.part"),
            "file-1".into(),
            format!("sha256-{}", Digest::of(b"gone").hex()),
        ] {
            fs_err::write(group.join(name), "code").unwrap();
        }
        store.remove_unreferenced().unwrap();
        let left = |path| super::super::names_in(path).unwrap().len();
        assert_eq!(left(&group), 3);
        store.prune(Prune::ABANDONED, |_| true).unwrap();
        assert_eq!(left(&group), 1);
        store.prune(Prune::ALL, |_| true).unwrap();
        assert!(!group.exists());
    }
}
