//! Images as users see them: the list, removal, and `inspect`. The store itself is [`dhow_images`].

use std::collections::BTreeMap;

use dhow_images::{Descriptor, Digest, Matcher, Reference};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::{Error, Result, short};
use crate::record::Status;

/// One name of one image.
#[derive(Debug)]
pub struct Listed {
    /// The name; an image may be kept without one.
    pub reference: Option<Reference>,
    /// What it points to.
    pub target: Descriptor,
    /// When it was built, if it says so.
    pub created: Option<String>,
    /// Bytes of the unpacked layers, or of everything that was fetched while nothing is unpacked.
    pub size: u64,
    /// The platforms that are here.
    pub platforms: Vec<String>,
}

/// What `rmi` did, in order.
#[derive(Debug, PartialEq, Eq)]
pub enum Removed {
    /// A name is gone.
    Untagged(String),
    /// Content is gone.
    Deleted(String),
}

impl Engine {
    /// Every name in the store, newest image first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn images(&self) -> Result<Vec<Listed>> {
        let mut listed = Vec::new();
        let named =
            self.store().references()?.into_iter().map(|(reference, target)| (Some(reference), target));
        let unnamed = self.store().untagged()?.into_iter().map(|target| (None, target));
        for (reference, target) in named.chain(unnamed) {
            let usage = self.store().usage(&target)?;
            let here: Vec<_> =
                self.store().variants(&target)?.into_iter().filter(|variant| variant.present).collect();
            let platforms = here.iter().map(|variant| variant.platform.to_string()).collect();
            let created = match here.first() {
                Some(variant) => {
                    self.store().image(&target, &Matcher::only(&variant.platform))?.config.created
                }
                None => None,
            };
            // Layers are unpacked by the first run; until then there is only what was fetched or loaded.
            let size = if usage.unpacked == 0 { usage.blobs } else { usage.unpacked };
            listed.push(Listed { reference, target, created, size, platforms });
        }
        let name = |image: &Listed| image.reference.as_ref().map(Reference::canonical);
        listed.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| name(a).cmp(&name(b))));
        Ok(listed)
    }

    /// Finds an image as `run` and `inspect` name it: as [`dhow_images::Store::find`] does, and else, for a name without
    /// registry and folder, the only image of that name and tag, whichever registry it came from.
    pub(crate) fn find_image(&self, wanted: &str) -> Result<Descriptor> {
        let missing = match self.store().find(wanted) {
            Err(error @ dhow_images::Error::NoSuchImage { .. }) => error,
            other => return Ok(other?),
        };
        let Some(short) =
            Reference::parse(wanted).ok().filter(|name| !wanted.contains('/') && name.digest().is_none())
        else {
            return Err(missing.into());
        };
        fn last(name: &Reference) -> Option<&str> {
            name.repository().rsplit('/').next()
        }
        let fits =
            |(name, _): &(Reference, Descriptor)| name.tag() == short.tag() && last(name) == last(&short);
        let mut fitting = self.store().references()?.into_iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some((_, target)), None) => Ok(target),
            _ => Err(missing.into()),
        }
    }

    /// Removes a name, and the image with its last name. By id: all names, with `force` if there are several.
    ///
    /// # Errors
    /// Unknown image, or a container that needs it.
    pub fn remove_image(&self, wanted: &str, force: bool) -> Result<Vec<Removed>> {
        let store = self.store();
        let target = store.find(wanted)?;
        let names = self.names_of(&target.digest)?;
        let named = Reference::parse(wanted).ok().filter(|reference| names.contains(reference));
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
                removed.push(Removed::Untagged(reference.familiar()));
            }
        }
        if going.len() >= names.len() {
            store.drop_untagged(&target.digest)?;
        }
        let swept = store.remove_unreferenced()?;
        // Layers go by their diff id, everything else by its own digest, as Docker shows it.
        for digest in swept.blobs.iter().filter(|digest| **digest == target.digest).chain(&swept.layers) {
            removed.push(Removed::Deleted(digest.to_string()));
        }
        Ok(removed)
    }

    /// Every name of one image.
    fn names_of(&self, image: &Digest) -> Result<Vec<Reference>> {
        let named = self.store().references()?.into_iter();
        Ok(named.filter(|(_, target)| target.digest == *image).map(|(name, _)| name).collect())
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

    /// Everything about an image, in the shape of Docker's `GET /images/{name}/json`; the top level is the variant that
    /// `run` would take, `Variants` lists all of the index.
    ///
    /// # Errors
    /// Unknown image.
    pub fn inspect_image(&self, wanted: &str) -> Result<Value> {
        let store = self.store();
        let target = self.find_image(wanted)?;
        let names = self.names_of(&target.digest)?;
        let tags: Vec<String> =
            names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
        let mut digests: Vec<String> =
            names.iter().map(|name| format!("{}@{}", name.familiar_name(), target.digest)).collect();
        digests.dedup();
        let variants: Vec<Value> = store
            .variants(&target)?
            .iter()
            .map(|variant| {
                json!({
                    "Platform": variant.platform.to_string(),
                    "Digest": variant.manifest.digest.to_string(),
                    "Available": variant.present,
                })
            })
            .collect();
        let usage = store.usage(&target)?;
        let image = store.image(&target, &Matcher::host())?;
        let config = &image.config.config;
        let set = |names: &BTreeMap<String, dhow_images::Empty>| {
            names.keys().map(|name| (name.clone(), json!({}))).collect::<serde_json::Map<_, _>>()
        };
        Ok(json!({
            "Id": target.digest.to_string(),
            "RepoTags": tags,
            "RepoDigests": digests,
            "Created": image.config.created,
            "Author": image.config.author.clone().unwrap_or_default(),
            "Architecture": image.platform.architecture,
            "Variant": image.platform.variant,
            "Os": image.platform.os,
            "Size": usage.unpacked,
            "Config": {
                "User": config.user,
                "ExposedPorts": set(&config.exposed_ports),
                "Env": config.env,
                "Cmd": config.cmd,
                "Entrypoint": config.entrypoint,
                "Volumes": set(&config.volumes),
                "WorkingDir": config.working_dir,
                "Labels": config.labels,
                "StopSignal": config.stop_signal,
            },
            "RootFS": { "Type": "layers", "Layers": image.config.rootfs.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>() },
            "Descriptor": { "mediaType": target.media_type, "digest": target.digest.to_string(), "size": target.size },
            "Manifest": image.manifest.digest.to_string(),
            "Variants": variants,
        }))
    }
}
