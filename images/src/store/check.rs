//! Proving that the store is as it should be, and putting right what can be.
//!
//! Found: blobs whose content changed, names that lead nowhere, images with missing parts, unpacked layers without
//! a valid record, leftovers of dead processes, files that do not belong. Repairing removes: a damaged blob, then
//! every manifest that cannot be used without it, then names that lead nowhere. A pull brings them back.

use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;

use super::Store;
use super::TEMPORARY;
use super::gc::layer_digest;
use super::names_in;
use super::remove;
use crate::Algorithm;
use crate::Descriptor;
use crate::Digest;
use crate::HashingReader;
use crate::Manifest;
use crate::error::Result;
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
}

/// How a problem is put right.
type Fix<'a> = &'a dyn Fn(&Path) -> Result<()>;

struct Check<'s> {
    store: &'s Store,
    repair: bool,
    problems: Vec<Problem>,
}

impl Store {
    /// Verifies every blob, name, lease, layer and leftover. With `repair` it also puts right what can be, and
    /// nobody else can bring in content meanwhile.
    ///
    /// # Errors
    /// When the store cannot be read, or a repair fails.
    pub fn check(&self, repair: bool) -> Result<Vec<Problem>> {
        let _exclusive = if repair { Some(self.lock_exclusive()?) } else { None };
        let mut check = Check { store: self, repair, problems: Vec::new() };
        check.leftovers()?;
        check.blobs()?;
        check.layers()?;
        check.images()?;
        check.leases()?;
        Ok(check.problems)
    }
}

impl Check<'_> {
    /// Notes a problem; `fix` is tried when repairing.
    fn found(&mut self, path: &Path, what: impl Into<String>, fix: Option<Fix<'_>>) -> Result<()> {
        let repaired = match fix {
            Some(fix) if self.repair => {
                fix(path)?;
                true
            }
            _ => false,
        };
        self.problems.push(Problem { path: path.to_owned(), what: what.into(), repaired });
        Ok(())
    }

    fn leftovers(&mut self) -> Result<()> {
        for session in self.store.sessions()?.into_iter().filter(|s| !s.alive) {
            self.found(&session.dir, "left by a process that ended early", Some(&remove::tree))?;
        }
        // A half-written name may belong to a running process; only with the lock it is known not to.
        if self.repair {
            for dir in self.store.lease_folders().into_iter().chain([self.store.root().join("refs")]) {
                for name in names_in(&dir)?.into_iter().filter(|n| n.to_string_lossy().starts_with(TEMPORARY))
                {
                    self.found(&dir.join(name), "left by a process that ended early", Some(&remove::tree))?;
                }
            }
        }
        Ok(())
    }

    fn blobs(&mut self) -> Result<()> {
        for algorithm in [Algorithm::Sha256, Algorithm::Sha512] {
            let dir = self.store.root().join("blobs").join(algorithm.name());
            for name in names_in(&dir)? {
                let path = dir.join(&name);
                let Ok(digest) = format!("{}:{}", algorithm.name(), name.to_string_lossy()).parse::<Digest>()
                else {
                    self.found(&path, "does not belong here: not the name of a blob", None)?;
                    continue;
                };
                if let Some(what) = damage(&path, &digest)? {
                    self.found(&path, what, Some(&remove::tree))?;
                }
            }
        }
        Ok(())
    }

    fn layers(&mut self) -> Result<()> {
        let dir = self.store.root().join("layers");
        for name in names_in(&dir)? {
            let path = dir.join(&name);
            let Some(diff_id) = layer_digest(&name.to_string_lossy()) else {
                self.found(&path, "does not belong here: not the name of a layer", None)?;
                continue;
            };
            let complete = path.join("fs").is_dir()
                && self.store.layer_record(&diff_id).is_some_and(|record| record.diff_id == diff_id);
            if !complete {
                self.found(&path, "unpacked layer is not complete", Some(&remove::tree))?;
            }
        }
        Ok(())
    }

    fn images(&mut self) -> Result<()> {
        let refs = self.store.root().join("refs");
        for (file, record) in self.store.records()? {
            let path = refs.join(file);
            match record {
                Err(e) => self.found(&path, e.to_string(), Some(&remove::tree))?,
                Ok(record) if !self.store.has_blob(&record.descriptor.digest) => {
                    let what =
                        format!("{} leads to {}, which is missing", record.name, record.descriptor.digest);
                    self.found(&path, what, Some(&remove::tree))?;
                }
                Ok(record) => self.image(&record.name, &record.descriptor, &path)?,
            }
        }
        Ok(())
    }

    /// A variant that was never fetched has no manifest in the store. One that has must be complete.
    fn image(&mut self, name: &str, image: &Descriptor, path: &Path) -> Result<()> {
        let variants = match self.store.manifests(image) {
            Ok(manifests) => manifests,
            Err(e) => return self.found(path, format!("{name}: {e}"), Some(&remove::tree)),
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
            if let Some(what) = missing {
                self.found(&self.store.blob_path(&descriptor.digest), what, Some(&remove::tree))?;
                if self.repair && !media::is_index(&image.media_type) {
                    remove::tree(path)?;
                }
            }
        }
        Ok(())
    }

    fn leases(&mut self) -> Result<()> {
        for (id, lease) in self.store.leases()? {
            if let Err(e) = lease {
                // Only the container's owner knows what it keeps, so it is not removed.
                self.found(&self.store.root().join("leases").join(id), e.to_string(), None)?;
            }
        }
        Ok(())
    }
}

impl Store {
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

/// What is wrong with a blob's file, if anything.
fn damage(path: &Path, digest: &Digest) -> Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        // Swept in this moment.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(Some("is not a regular file".into()));
    }
    let mut reader = HashingReader::new(file, digest.algorithm());
    std::io::copy(&mut reader, &mut std::io::sink())?;
    Ok(reader.verify("content", digest, None).err().map(|e| e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;
    use crate::compose::ImageBuilder;
    use crate::compose::LayerBuilder;
    use crate::store::tests::store;

    #[test]
    fn every_kind_of_damage_is_found_and_repaired() {
        let (_dir, store) = store();
        let image = {
            let mut layer = LayerBuilder::new();
            layer.file("bin/x", 0o755, b"x".to_vec());
            let mut builder = ImageBuilder::new(&"linux/amd64".parse::<Platform>().unwrap());
            builder.layer(layer);
            builder.build(&store).unwrap()
        };
        store.tag(&"x".parse().unwrap(), &image).unwrap();
        assert_eq!(store.check(false).unwrap(), []);

        let manifest = Manifest::parse("x", &store.read_blob(&image).unwrap()).unwrap();
        let root = store.root();
        fs::write(store.blob_path(&manifest.layers[0].digest), "flipped").unwrap();
        fs::create_dir_all(root.join("layers").join(Digest::of(b"half").hex()).join("fs")).unwrap();
        fs::create_dir_all(root.join("ingest/1-dead")).unwrap();
        fs::write(root.join("refs/zero"), "").unwrap();
        let seen = store.check(false).unwrap();
        assert_eq!(seen.len(), 5, "{seen:#?}");
        assert!(seen.iter().all(|p| !p.repaired));
        let repaired = store.check(true).unwrap();
        assert!(repaired.iter().all(|p| p.repaired), "{repaired:#?}");
        assert_eq!(store.check(false).unwrap(), []);
        assert_eq!(store.resolve(&"x".parse().unwrap()).unwrap(), None);
    }

    #[test]
    fn foreign_files_are_reported_and_kept() {
        let (_dir, store) = store();
        for path in ["blobs/sha256/readme", "layers/readme"] {
            fs::write(store.root().join(path), "x").unwrap();
        }
        fs::write(store.root().join("leases/c1"), "garbage\n").unwrap();
        assert_eq!(store.check(true).unwrap().len(), 3);
        assert_eq!(store.check(false).unwrap().len(), 3);
    }
}
