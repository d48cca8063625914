//! What the layers of an image hold and cost, and how two images differ.

use dhow_images::{Change, Image, ImageTree, Matcher};
use serde_json::Value;

use crate::engine::Engine;
use crate::error::Result;

/// One variant of an image, looked into.
#[derive(Debug)]
pub struct Inside {
    /// The variant.
    pub image: Image,
    /// Its files and layers.
    pub tree: ImageTree,
    /// The command that made each layer, lowest first; empty where the image does not say.
    pub created_by: Vec<String>,
}

/// What two images disagree about.
#[derive(Debug)]
pub struct Comparison {
    /// Settings, by name.
    pub settings: Vec<SettingChange>,
    /// Files, by path.
    pub files: Vec<Change>,
}

/// A setting that differs: `null` where an image has none of that name.
#[derive(Debug, Clone, PartialEq)]
pub struct SettingChange {
    /// As the image configuration has it, for example `config.Env`.
    pub name: String,
    /// In the first image.
    pub before: Value,
    /// In the second image.
    pub after: Value,
}

impl Engine {
    /// Looks into one variant of an image, with the `largest` files of each layer. Reads every layer.
    ///
    /// # Errors
    /// Unknown image, no such variant in the store, or a damaged layer.
    pub fn look_into(&self, wanted: &str, platforms: &Matcher, largest: usize) -> Result<Inside> {
        let image = self.store().image(&self.find_image(wanted)?, platforms)?;
        let tree = self.store().tree(&image, largest)?;
        let steps = image.config.history.iter().filter(|step| !step.empty_layer);
        let mut created_by: Vec<String> =
            steps.map(|step| step.created_by.clone().unwrap_or_default()).collect();
        created_by.resize(tree.layers.len(), String::new());
        Ok(Inside { image, tree, created_by })
    }

    /// Compares the same variant of two images. Modification times count only if `times`.
    ///
    /// # Errors
    /// As [`Engine::look_into`].
    pub fn compare_images(&self, a: &str, b: &str, platforms: &Matcher, times: bool) -> Result<Comparison> {
        let store = self.store();
        let a = store.image(&self.find_image(a)?, platforms)?;
        let b = store.image(&self.find_image(b)?, platforms)?;
        let (mut before, mut after) = (Vec::new(), Vec::new());
        flatten("", settings(&a), &mut before);
        flatten("", settings(&b), &mut after);
        let value = |all: &[(String, Value)], name: &str| {
            all.iter().find(|(other, _)| other == name).map_or(Value::Null, |(_, value)| value.clone())
        };
        let mut names: Vec<&String> = before.iter().chain(&after).map(|(name, _)| name).collect();
        names.sort();
        names.dedup();
        let settings = names
            .into_iter()
            .map(|name| SettingChange {
                name: name.clone(),
                before: value(&before, name),
                after: value(&after, name),
            })
            .filter(|change| change.before != change.after)
            .collect();
        Ok(Comparison { settings, files: store.compare(&a, &b, times)? })
    }
}

/// What an image says beside its layers.
fn settings(image: &Image) -> Value {
    let mut config = serde_json::to_value(&image.config).unwrap_or_default();
    if let Some(config) = config.as_object_mut() {
        // The layers are compared by their content.
        config.remove("rootfs");
        config.remove("history");
        config.insert("platform".to_owned(), Value::String(image.platform.to_string()));
        let module = image.wasm.first().map(|blob| Value::String(blob.digest.to_string()));
        config.insert("module".to_owned(), module.unwrap_or_default());
    }
    config
}

/// Objects become names with dots, except for the members of sets and labels, which may have any name themselves.
fn flatten(name: &str, value: Value, into: &mut Vec<(String, Value)>) {
    match value {
        Value::Object(members) if name.is_empty() || name == "config" => {
            for (key, value) in members {
                let name = if name.is_empty() { key } else { format!("{name}.{key}") };
                flatten(&name, value, into);
            }
        }
        value => into.push((name.to_owned(), value)),
    }
}
