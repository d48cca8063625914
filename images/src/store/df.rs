//! What everything in the store takes, to the byte: every blob and every file of an unpacked layer is looked at.
//!
//! Sizes are lengths of files, as `du --apparent-size` and Docker count them. What belongs to several images is
//! counted once in sums, and as shared in each image. Names, leases and records are not counted.

use std::collections::HashMap;
use std::io;
use std::sync::Mutex;
use std::time::SystemTime;

use super::Store;
use super::measure::disk_usage;
use crate::Descriptor;
use crate::Digest;
use crate::Reference;
use crate::error::Result;
use crate::layer::unpack::in_parallel;

/// What the store takes, in bytes of files.
#[derive(Debug, Clone, Default)]
pub struct DiskUsage {
    /// Every image, least recently used first.
    pub images: Vec<ImageUsage>,
    /// All blobs: manifests, configurations, packed layers, Wasm modules.
    pub blobs: u64,
    /// All unpacked layers, their records included.
    pub layers: u64,
    /// Of `blobs` and `layers`: what no lease and no running operation keeps.
    pub reclaimable: u64,
    /// Of `reclaimable`: what no name leads to either.
    pub unreferenced: u64,
    /// Derived files: how many, how many of them made of content in use, and their sizes.
    pub derived: Part,
    /// Unfinished downloads and unpackings: of them in use are those whose process lives.
    pub partial: Part,
}

/// A kind of thing in the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Part {
    /// How many there are.
    pub count: u64,
    /// How many of them are in use.
    pub in_use: u64,
    /// Bytes of all.
    pub size: u64,
    /// Bytes of those that are not in use.
    pub reclaimable: u64,
}

/// What one image takes.
#[derive(Debug, Clone)]
pub struct ImageUsage {
    /// What its names stand for.
    pub descriptor: Descriptor,
    /// Its names.
    pub names: Vec<Reference>,
    /// See [`super::Candidate::last_used`].
    pub last_used: SystemTime,
    /// Whether a lease or a running operation keeps it.
    pub in_use: bool,
    /// Bytes of everything it leads to: blobs, and unpacked layers.
    pub size: u64,
    /// Of `size`: what other images lead to as well.
    pub shared: u64,
}

impl ImageUsage {
    /// What comes back when this image alone goes.
    #[must_use]
    pub fn unique(&self) -> u64 {
        self.size - self.shared
    }
}

impl Part {
    fn add(&mut self, size: u64, in_use: bool) {
        self.count += 1;
        self.size += size;
        if in_use {
            self.in_use += 1;
        } else {
            self.reclaimable += size;
        }
    }
}

impl Store {
    /// Measures everything.
    ///
    /// # Errors
    /// When a directory, name or lease cannot be read.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let mut usage = DiskUsage::default();
        let mut sizes: HashMap<Digest, u64> = HashMap::new();
        for (digest, path) in self.blobs()? {
            let size = std::fs::symlink_metadata(path).map_or(0, |m| m.len());
            usage.blobs += size;
            *sizes.entry(digest).or_default() += size;
        }
        for (diff_id, size) in self.measured_layers()? {
            usage.layers += size;
            *sizes.entry(diff_id).or_default() += size;
        }
        #[cfg(target_os = "linux")]
        for (chain_id, path) in self.trees()? {
            let size = disk_usage(&path)?.content;
            usage.layers += size;
            *sizes.entry(chain_id).or_default() += size;
        }
        let mut images = self.candidates()?;
        images.sort_by_key(|image| image.last_used);
        let closures = self.closures(&images)?;
        let mut owners: HashMap<&Digest, u32> = HashMap::new();
        for digest in closures.iter().flatten() {
            *owners.entry(digest).or_default() += 1;
        }
        for (image, closure) in images.into_iter().zip(&closures) {
            let sum = |least: u32| {
                let counted = closure.iter().filter(|digest| owners.get(digest).is_some_and(|n| *n >= least));
                counted.filter_map(|digest| sizes.get(digest)).sum::<u64>()
            };
            usage.images.push(ImageUsage {
                size: sum(1),
                shared: sum(2),
                descriptor: image.descriptor,
                names: image.names,
                last_used: image.last_used,
                in_use: image.in_use,
            });
        }
        let used = self.reachable(self.uses()?)?;
        for (digest, size) in &sizes {
            if !used.contains(digest) {
                usage.reclaimable += size;
                if !owners.contains_key(digest) {
                    usage.unreferenced += size;
                }
            }
        }
        for derived in self.derived()? {
            let size = disk_usage(&derived.path)?.content;
            usage.derived.add(size, derived.of.is_some_and(|digest| used.contains(&digest)));
        }
        for session in self.sessions()? {
            usage.partial.add(disk_usage(&session.dir)?.content, session.alive);
        }
        for (path, in_use) in self.partials()? {
            usage.partial.add(std::fs::symlink_metadata(path).map_or(0, |meta| meta.len()), in_use);
        }
        Ok(usage)
    }

    /// The bytes of every unpacked layer. What may not be looked into is believed to be what its record says.
    /// Bytes of an archive that is a blob too, and was counted as such.
    fn shared_with_blob(&self, layer: &std::path::Path) -> u64 {
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::fs::MetadataExt as _;
            let tar = std::fs::symlink_metadata(layer.join(crate::layer::plain::TAR));
            tar.map_or(0, |tar| if tar.nlink() > 1 { tar.len() } else { 0 })
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = layer;
            0
        }
    }

    fn measured_layers(&self) -> Result<Vec<(Digest, u64)>> {
        let layers = self.layers()?;
        let measured = Mutex::new(Vec::with_capacity(layers.len()));
        in_parallel(&layers, |(diff_id, path)| {
            let size = match disk_usage(path) {
                Ok(sizes) => sizes.content - self.shared_with_blob(path),
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    self.layer_size(diff_id).unwrap_or(0)
                }
                Err(e) => return Err(e.into()),
            };
            measured.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((diff_id.clone(), size));
            Ok(())
        })?;
        Ok(measured.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Platform;
    use crate::compose::ImageBuilder;
    use crate::compose::LayerBuilder;
    use crate::store::tests::store;

    #[test]
    fn sums_are_those_of_a_walk() {
        let (_dir, store) = store();
        let shared = || {
            let mut layer = LayerBuilder::new();
            layer.file("shared", 0o644, vec![1; 70_000]);
            layer
        };
        let build = |own: Option<&str>| {
            let mut builder = ImageBuilder::new(&Platform::host());
            builder.layer(shared());
            if let Some(own) = own {
                let mut layer = LayerBuilder::new();
                layer.file("own", 0o644, vec![2; 5000]);
                layer.symlink("link", own);
                builder.layer(layer);
            }
            let image = builder.build(&store).unwrap();
            let read = store.image(&image, &crate::Matcher::host()).unwrap();
            store.unpack(&read, &crate::NoProgress).unwrap();
            image
        };
        let (one, two) = (build(None), build(Some("x")));
        store.tag(&"one".parse().unwrap(), &one).unwrap();
        store.tag(&"two".parse().unwrap(), &two).unwrap();
        store.tag(&"two:again".parse().unwrap(), &two).unwrap();
        let of = |folder: &str| disk_usage(store.root().join(folder)).unwrap().content;
        let usage = store.disk_usage().unwrap();
        assert_eq!((usage.blobs, usage.layers), (of("blobs"), of("layers")));
        assert_eq!(usage.reclaimable, usage.blobs + usage.layers);
        assert_eq!((usage.unreferenced, usage.images.len()), (0, 2));
        let find = |image: &Descriptor| usage.images.iter().find(|i| i.descriptor == *image).unwrap();
        let (one, two) = (find(&one), find(&two));
        assert_eq!(one.shared, two.shared);
        assert_eq!(one.unique() + two.unique() + one.shared, usage.blobs + usage.layers);
        assert!(two.unique() > 5000 && one.unique() < 2000, "{one:?} {two:?}");

        store.lease("c1", std::slice::from_ref(&one.descriptor.digest), true).unwrap();
        store.untag(&"two".parse().unwrap()).unwrap();
        store.untag(&"two:again".parse().unwrap()).unwrap();
        let after = store.disk_usage().unwrap();
        assert_eq!((after.reclaimable, after.unreferenced), (two.unique(), two.unique()));
        let freed = store.prune(super::super::Prune::ABANDONED, |_| false).unwrap().swept.freed;
        assert_eq!(freed.content, two.unique());
        assert_eq!(of("blobs") + of("layers"), one.size);
    }
}
