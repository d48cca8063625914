//! Removing one variant of an image that has several.
//!
//! The index stays as it is, with its digest and all its names; the variant is absent then, as one that was never
//! pulled.

use fs_err as fs;

use super::Store;
use super::Swept;
use super::gc::Sweep;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::error::Result;

impl Store {
    /// Removes the variant of `image` whose manifest this is. `is_free` is asked for each lease on the image, by its
    /// id, whether it can do without this variant.
    ///
    /// # Errors
    /// [`Error::VariantInUse`] when a lease needs it, a running operation, a name of its own, or another image; and the
    /// disk's.
    pub fn remove_variant(
        &self,
        image: &Descriptor,
        manifest: &Digest,
        is_free: &dyn Fn(&str) -> bool,
    ) -> Result<Swept> {
        let used = |by: String| Error::VariantInUse { manifest: manifest.clone(), by };
        self.sweep(Sweep::default(), || {
            // Nobody can begin to use it now.
            for (id, lease) in self.leases()? {
                let lease = lease?;
                if lease.contains(manifest) || lease.contains(&image.digest) && !is_free(&id) {
                    return Err(used(format!("container {id}")));
                }
            }
            for session in self.sessions()?.into_iter().filter(|session| session.alive) {
                let claims = fs::read_to_string(&session.claims).unwrap_or_default();
                if claims.lines().any(|line| line == manifest.to_string()) {
                    return Err(used("a running command".to_owned()));
                }
            }
            for (_, record) in self.records()? {
                let record = record?;
                let other = record.descriptor.digest;
                if other != image.digest && self.reachable(vec![other])?.contains(manifest) {
                    return Err(used(record.name));
                }
            }
            match fs::remove_file(self.blob_path(manifest)) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose;
    use crate::store::tests::store;

    #[test]
    fn a_variant_goes_and_its_index_stays() {
        let (_dir, store) = store();
        let (one, two) =
            (compose::wasm_artifact(&store, "wasip1", b"1"), compose::wasm_artifact(&store, "wasip2", b"2"));
        let (one, two) = (one.unwrap(), two.unwrap());
        let index = compose::index(&store, &[one.clone(), two.clone()]).unwrap();
        store.tag(&"a:1".parse().unwrap(), &index).unwrap();
        store.lease("c1", std::slice::from_ref(&index.digest), true).unwrap();
        let refused = store.remove_variant(&index, &one.digest, &|_| false).unwrap_err();
        assert!(matches!(&refused, Error::VariantInUse { by, .. } if by == "container c1"), "{refused}");
        store.tag(&"b:1".parse().unwrap(), &two).unwrap();
        let refused = store.remove_variant(&index, &two.digest, &|_| true).unwrap_err();
        assert!(matches!(&refused, Error::VariantInUse { by, .. } if by.contains("b:1")), "{refused}");

        let swept = store.remove_variant(&index, &one.digest, &|id| id == "c1").unwrap();
        assert_eq!(swept.blobs.len(), 2, "configuration and module: {swept:?}");
        let present: Vec<bool> = store.variants(&index).unwrap().iter().map(|v| v.present).collect();
        assert_eq!(present, [false, true]);
        assert_eq!(store.check(false).unwrap(), []);
    }
}
