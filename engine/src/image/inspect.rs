//! Everything about one image, in Docker's shape.

use dhow_images::{Image, Matcher, Platform, Reference, RunConfig, UnpackedLayer};
use dhow_runtime::{Layer, Module, wasm};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::engine::Engine;
use crate::error::Result;

/// Go's zero time, which Docker prints for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// Everything about an image, in the shape of Docker's `GET /images/{name}/json`; the top level is the variant for
    /// `platform`, or the one that `run` would take, and `Variants` lists all of the index.
    ///
    /// # Errors
    /// Unknown image, or no such variant in the store.
    pub fn inspect_image(&self, wanted: &str, platform: Option<&Platform>) -> Result<Value> {
        let store = self.store();
        let target = self.find_image(wanted)?;
        let names = self.names_of(&target.digest)?;
        let tags: Vec<String> =
            names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect();
        let mut digests: Vec<String> =
            names.iter().map(|name| format!("{}@{}", name.familiar_name(), target.digest)).collect();
        digests.dedup();
        let tagged = names.iter().filter_map(|name| store.tagged_at(name)).max();
        let tagged = tagged.and_then(|time| Timestamp::try_from(time).ok());
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
        let image = store.image(&target, &platform.map_or_else(Matcher::host, Matcher::only))?;
        let size = self.size_of(&image);
        let history = image.config.history.last();
        let mut value = json!({
            "Id": target.digest.to_string(),
            "RepoTags": tags,
            "RepoDigests": digests,
            "Parent": "",
            "Comment": history.and_then(|step| step.comment.clone()).unwrap_or_default(),
            "Created": image.config.created,
            "DockerVersion": image.config.docker_version.clone().unwrap_or_default(),
            "Author": image.config.author.clone().unwrap_or_default(),
            "Config": config(&image.config.config),
            "Architecture": image.platform.architecture,
            "Os": image.platform.os,
            "Size": size,
            "VirtualSize": size,
            "GraphDriver": self.graph_driver(&image),
            "RootFS": { "Type": "layers", "Layers": image.diff_ids.iter().map(ToString::to_string).collect::<Vec<_>>() },
            "Metadata": { "LastTagTime": tagged.map_or_else(|| NEVER.to_owned(), |time| time.to_string()) },
            "Descriptor": { "mediaType": target.media_type, "digest": target.digest.to_string(), "size": target.size },
            "Manifest": image.manifest.digest.to_string(),
            "ConfigDigest": image.config_descriptor.digest.to_string(),
            "Annotations": image.annotations,
            "Variants": variants,
            "Signatures": self.signatures_of(&target.digest)?,
        });
        if let Value::Object(fields) = &mut value {
            if let Some(variant) = &image.platform.variant {
                fields.insert("Variant".to_owned(), variant.clone().into());
            }
            let command = command_of(&image).is_some_and(crate::spec::is_named_wasm);
            if image.platform.is_wasm() || !image.wasm.is_empty() || command {
                fields.insert("Wasm".to_owned(), self.wasm_of(&image));
            }
        }
        Ok(value)
    }

    /// What the program of a Wasm image asks for and what it would be given, or why that cannot be said. Its layers are
    /// unpacked if they are not: those of an image that was built here and has not run yet.
    fn wasm_of(&self, image: &Image) -> Value {
        let store = self.store();
        let read = || {
            if let Some(blob) = image.wasm.first() {
                let module = Module { path: store.blob_path(&blob.digest), id: None };
                return wasm::interface_of(&module).map_err(|error| error.to_string());
            }
            let command = command_of(image).ok_or_else(|| "it names no command".to_owned())?;
            self.unpack(image).map_err(|error| error.to_string())?;
            let layers = store.layer_dirs(&image.diff_ids).into_iter();
            let layers: Vec<Layer> =
                layers.map(|UnpackedLayer { path, .. }| Layer { path, id: None }).collect();
            let config = &image.config.config;
            wasm::interface_in(&layers, &config.working_dir, &config.env, command)
                .map_err(|error| error.to_string())
        };
        match read() {
            Err(error) => json!({ "Error": error }),
            Ok(found) => json!({
                "Form": match found.form {
                    wasm::Form::Module => "module",
                    wasm::Form::Component => "component",
                },
                "Imports": found.imports.iter().map(|import| json!({
                    "Name": import.name, "Grant": import.grant.as_str(), "By": import.by,
                })).collect::<Vec<_>>(),
                "Exports": found.exports,
                "Truncated": found.truncated,
            }),
        }
    }

    /// Bytes of the files of one variant; a layer that is not unpacked counts as it was fetched.
    pub(crate) fn size_of(&self, image: &Image) -> u64 {
        let mut seen = Vec::new();
        let layers = image.layers.iter().zip(&image.diff_ids).map(|(blob, diff_id)| {
            if seen.contains(&diff_id) {
                return 0;
            }
            seen.push(diff_id);
            self.store().unpacked_size(diff_id).unwrap_or(blob.size)
        });
        layers.sum::<u64>() + image.wasm.iter().map(|blob| blob.size).sum::<u64>()
    }

    /// Where the files of its layers are, as far as they are directories.
    fn graph_driver(&self, image: &Image) -> Value {
        let mut folders: Vec<String> = self
            .store()
            .layer_dirs(&image.diff_ids)
            .into_iter()
            .rev()
            .filter(|layer| layer.path.is_dir())
            .map(|layer| layer.path.display().to_string())
            .collect();
        let mut data = Map::new();
        if !folders.is_empty() {
            data.insert("UpperDir".to_owned(), folders.remove(0).into());
        }
        if !folders.is_empty() {
            data.insert("LowerDir".to_owned(), folders.join(":").into());
        }
        json!({ "Data": data, "Name": "overlay" })
    }
}

/// The program that an image runs.
fn command_of(image: &Image) -> Option<&str> {
    let config = &image.config.config;
    config.entrypoint.iter().chain(&config.cmd).next().map(String::as_str)
}

/// The settings for containers, in Docker's order. What is not set is `null` or missing as it is there.
fn config(config: &RunConfig) -> Value {
    let list = |list: &[String]| if list.is_empty() { Value::Null } else { json!(list) };
    let mut fields = Map::new();
    let mut add = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    for name in ["Hostname", "Domainname"] {
        add(name, "".into());
    }
    add("User", config.user.clone().into());
    for name in ["AttachStdin", "AttachStdout", "AttachStderr"] {
        add(name, false.into());
    }
    if !config.exposed_ports.is_empty() {
        add("ExposedPorts", json!(config.exposed_ports));
    }
    for name in ["Tty", "OpenStdin", "StdinOnce"] {
        add(name, false.into());
    }
    add("Env", list(&config.env));
    add("Cmd", list(&config.cmd));
    if let Some(check) = &config.healthcheck {
        add("Healthcheck", check.clone());
    }
    if config.args_escaped {
        add("ArgsEscaped", true.into());
    }
    add("Image", "".into());
    add("Volumes", if config.volumes.is_empty() { Value::Null } else { json!(config.volumes) });
    add("WorkingDir", config.working_dir.clone().into());
    add("Entrypoint", list(&config.entrypoint));
    add("OnBuild", list(&config.on_build));
    add("Labels", if config.labels.is_empty() { Value::Null } else { json!(config.labels) });
    if let Some(signal) = &config.stop_signal {
        add("StopSignal", signal.clone().into());
    }
    if !config.shell.is_empty() {
        add("Shell", json!(config.shell));
    }
    Value::Object(fields)
}
