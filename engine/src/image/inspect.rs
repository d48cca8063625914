//! Everything about one image, in Docker's shape.

use std::collections::BTreeMap;

use dhow_images::{Matcher, Reference};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
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
