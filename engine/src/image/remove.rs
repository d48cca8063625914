//! Removal of names and of images.

use dhow_images::{Digest, Matcher, Platform, Reference};

use crate::engine::Engine;
use crate::error::{Error, Result, short};
use crate::record::Status;

/// What `rmi` did, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// Content is gone.
    Deleted(String),
}

impl Engine {
    /// Removes a name, and the image with its last name. By id: all names, with `force` if there are several.
    ///
    /// # Errors
    /// Unknown image, or a container that needs it.
    pub fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removed>> {
        let store = self.store();
        let target = store.find(wanted)?;
        let names = self.names_of(&target.digest)?;
        let reference = Reference::parse(wanted).ok();
        let named = reference.clone().filter(|reference| names.contains(reference));
        let id = wanted.strip_prefix("sha256:").unwrap_or(wanted);
        let by_content =
            target.digest.hex().starts_with(id) || reference.is_some_and(|r| r.digest().is_some());
        if named.is_none() && !by_content {
            // Somebody took the name away since it was found. Other names of that image are not what was asked for.
            return Err(dhow_images::Error::NoSuchImage { name: wanted.to_owned() }.into());
        }
        let going: Vec<Reference> = match named {
            Some(reference) => vec![reference],
            None if names.len() > 1 && !force => {
                let mut repositories: Vec<_> = names.iter().map(Reference::familiar_name).collect();
                repositories.dedup();
                return Err(Error::Invalid(format!(
                    "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories: {}",
                    short(&target.digest.to_string()),
                    repositories.join(", "),
                )));
            }
            None => names.clone(),
        };
        if going.len() >= names.len() {
            self.check_unused(wanted, &target.digest, force)?;
        }
        let mut removed = Vec::new();
        for reference in &going {
            if store.untag(reference)? {
                self.tell_of_image("untag", &target.digest.to_string(), &target.digest.to_string());
                removed.push(Removed::Untagged(reference.familiar()));
            }
        }
        if going.len() >= names.len() {
            store.drop_untagged(&target.digest)?;
        }
        let swept = store.remove_unreferenced()?;
        if swept.blobs.contains(&target.digest) {
            self.tell_of_image("delete", &target.digest.to_string(), &target.digest.to_string());
        }
        // Layers go by their diff id, everything else by its own digest, as Docker shows it.
        for digest in swept.blobs.iter().filter(|digest| **digest == target.digest).chain(&swept.layers) {
            removed.push(Removed::Deleted(digest.to_string()));
        }
        Ok(removed)
    }

    /// Removes the variants for these platforms. The image stays, with all its names, as if they had never been pulled;
    /// only when no variant would be left it goes as a whole.
    ///
    /// # Errors
    /// Unknown image, no such variant here, or something that needs it.
    pub fn remove_variants(&self, wanted: &str, platforms: &[Platform], force: bool) -> Result<Vec<Removed>> {
        let store = self.store();
        let target = store.find(wanted)?;
        let present: Vec<_> =
            store.variants(&target)?.into_iter().filter(|variant| variant.present).collect();
        let mut going = Vec::new();
        for platform in platforms {
            let matcher = Matcher::only(platform);
            let fits = present.iter().filter(|variant| matcher.matches(&variant.platform));
            let Some(best) = fits.min_by_key(|variant| matcher.rank(&variant.platform)) else {
                let available = present.iter().map(|variant| variant.platform.clone()).collect();
                return Err(dhow_images::Error::NoVariant { wanted: platform.to_string(), available }.into());
            };
            going.push(best.manifest.digest.clone());
        }
        if present.iter().all(|variant| going.contains(&variant.manifest.digest)) {
            return self.remove_image(wanted, force);
        }
        let mut removed = Vec::new();
        for manifest in going {
            let text = manifest.to_string();
            let swept = store.remove_variant(&target, &manifest, &|id| {
                let container = self.container(id).ok().and_then(|container| container.record.image);
                container.is_some_and(|image| image.manifest != text)
            })?;
            removed.push(Removed::Deleted(text));
            removed.extend(swept.layers.iter().map(|diff_id| Removed::Deleted(diff_id.to_string())));
        }
        Ok(removed)
    }

    /// Docker's rule: a stopped container holds its image against `rmi`, a running one even against force.
    fn check_unused(&self, wanted: &str, digest: &Digest, force: bool) -> Result<()> {
        let id = digest.to_string();
        for container in self.containers()? {
            if container.record.image.as_ref().is_none_or(|image| image.id != id) {
                continue;
            }
            let running = container.state()?.status == Status::Running;
            if running || !force {
                return Err(Error::ImageInUse {
                    image: wanted.to_owned(),
                    how: if running { "cannot be forced" } else { "must force" },
                    container: short(&container.record.id).to_owned(),
                    id: short(&id).to_owned(),
                });
            }
        }
        Ok(())
    }
}
