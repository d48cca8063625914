//! A stage while it is built: the image it began with, the layers it has made, and what the result will say of itself.

use std::path::PathBuf;
use std::rc::Rc;

use dhow_images::{Descriptor, Digest, History, Image, ImageConfig, NoProgress, Platform, Snapshot};
use dhow_runtime::{Kind, Layer};

use super::cache::Made;
use super::dockerfile::{Dockerfile, nearest};
use super::layer::Print;
use super::root::{Root, Tree};
use super::sum::Sum;
use super::work::Work;
use crate::engine::Engine;
use crate::error::{Error, Result};

/// A layer of ours.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) made: Made,
    /// Its files, where they are at hand.
    pub(super) files: Option<PathBuf>,
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    pub(super) platform: Platform,
    pub(super) base: Option<Rc<Image>>,
    pub(super) layers: Vec<Own>,
    pub(super) config: ImageConfig,
    /// Variables of the build that are visible, in the order of their `ARG`s.
    pub(super) args: Vec<(String, Option<String>)>,
    /// A `CMD` was in this stage: an `ENTRYPOINT` does not take it away.
    pub(super) has_cmd: bool,
    /// `SHELL`, else the platform's.
    pub(super) escape: char,
    view: Option<Rc<Root>>,
}

impl Stage {
    /// Nothing at all.
    pub(super) fn scratch(platform: &Platform) -> Self {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.kind = "layers".to_owned();
        Self {
            platform: platform.clone(),
            base: None,
            layers: Vec::new(),
            config,
            args: Vec::new(),
            has_cmd: false,
            escape: '\\',
            view: None,
        }
    }

    /// What an image is.
    pub(super) fn of(image: &Image) -> Self {
        let mut config = image.config.clone();
        config.docker_version = None;
        config.rootfs.kind = "layers".to_owned();
        Self { config, base: Some(Rc::new(image.clone())), ..Self::scratch(&image.platform) }
    }

    /// What another stage has become.
    pub(super) fn upon(other: &Self) -> Self {
        Self { args: Vec::new(), has_cmd: false, ..other.clone() }
    }

    /// Which executor its programs have.
    pub(super) fn kind(&self) -> Kind {
        if self.platform.is_wasm() { Kind::Wasm } else { Kind::Native }
    }

    /// Makes it one for Wasm if it has nothing of any other platform and runs a program that is Wasm by its name: then
    /// nobody has to say so.
    pub(super) fn become_wasm(&mut self) {
        let config = &self.config.config;
        let program = config.entrypoint.iter().chain(&config.cmd).next();
        if self.base.is_some() || !program.is_some_and(|program| crate::spec::is_named_wasm(program)) {
            return;
        }
        self.platform = Platform::wasm();
        self.config.os.clone_from(&self.platform.os);
        self.config.architecture.clone_from(&self.platform.architecture);
        self.config.variant.clone_from(&self.platform.variant);
    }

    /// What there is so far, as far as files are concerned.
    pub(super) fn chain(&self) -> Digest {
        let mut print = Print::new("chain");
        print.text(self.platform.to_string().as_bytes());
        for diff_id in &self.config.rootfs.diff_ids {
            print.text(diff_id.to_string().as_bytes());
        }
        print.finish()
    }

    /// Adds a layer, with its step.
    pub(super) fn add(&mut self, own: Own, history: History) {
        self.config.rootfs.diff_ids.push(own.made.diff_id.clone());
        self.layers.push(own);
        self.config.history.push(History { empty_layer: false, ..history });
        self.view = None;
    }

    /// Adds a step without a layer.
    pub(super) fn note(&mut self, history: History) {
        self.config.history.push(History { empty_layer: true, ..history });
    }

    /// The value of a variable for an instruction: the image's environment hides the build's.
    pub(super) fn variable(&self, name: &str) -> Option<String> {
        let env = self.config.config.env.iter().find_map(|entry| {
            let (key, value) = entry.split_once('=').unwrap_or((entry, ""));
            (key == name).then(|| value.to_owned())
        });
        env.or_else(|| self.args.iter().rev().find(|(key, _)| key == name)?.1.clone())
    }

    /// The variables of the build that a program sees.
    pub(super) fn visible_args(&self) -> Vec<(String, String)> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in &self.args {
            let Some(value) = value else { continue };
            let hidden = self.config.config.env.iter().any(|entry| entry.split('=').next() == Some(name));
            if hidden {
                continue;
            }
            all.retain(|(other, _)| other != name);
            all.push((name.clone(), value.clone()));
        }
        all
    }

    /// Directories with its files, lowest first.
    pub(super) fn lower(&mut self, engine: &Engine) -> Result<Vec<Layer>> {
        let mut lower = Vec::new();
        if let Some(base) = &self.base {
            let store = engine.store();
            let snapshot = match self.kind() {
                #[cfg(target_os = "linux")]
                Kind::Native => store.snapshot(base, &NoProgress)?,
                _ => Snapshot::Files(store.unpack(base, &NoProgress)?),
            };
            match snapshot {
                Snapshot::Files(layers) => {
                    for layer in layers {
                        let id = Some(layer.id.to_string());
                        lower.push(Layer { path: layer.path, id });
                    }
                }
                #[cfg(not(target_os = "linux"))]
                Snapshot::Index(_) => {}
                #[cfg(target_os = "linux")]
                Snapshot::Index(indexed) => lower.push(Layer { path: store.mount(&indexed)?, id: None }),
            }
        }
        for own in &mut self.layers {
            let path = match &own.files {
                Some(path) => path.clone(),
                None => engine.store().layer_files(&own.made.blob, &own.made.diff_id)?,
            };
            own.files = Some(path.clone());
            lower.push(Layer { path, id: Some(own.made.diff_id.to_string()) });
        }
        // Of a layer that occurs twice only the upper one shows, and the kernel refuses the other.
        let mut unique: Vec<Layer> = Vec::new();
        for layer in lower {
            unique.retain(|other| other.path != layer.path);
            unique.push(layer);
        }
        Ok(unique)
    }

    /// Its files.
    pub(super) fn view(&mut self, engine: &Engine, work: &Work<'_>) -> Result<Rc<Root>> {
        if let Some(view) = &self.view {
            return Ok(Rc::clone(view));
        }
        let root = Rc::new(match self.kind() {
            #[cfg(target_os = "linux")]
            Kind::Native => self.overlay(engine, work)?,
            _ => self.tree(engine, work)?,
        });
        self.view = Some(Rc::clone(&root));
        Ok(root)
    }

    #[cfg(target_os = "linux")]
    fn overlay(&mut self, engine: &Engine, work: &Work<'_>) -> Result<Root> {
        let lower = self.lower(engine)?;
        let empty = work.empty();
        if lower.is_empty() {
            return Ok(Root::open(&empty)?);
        }
        let layers: Vec<&std::path::Path> = lower.iter().rev().map(|layer| layer.path.as_path()).collect();
        Ok(Root::of(dhow_runtime::native::view::open_view(&layers, &empty)?))
    }

    /// What its archives say: on every system, and for whoever may not mount.
    fn tree(&self, engine: &Engine, work: &Work<'_>) -> Result<Root> {
        let mut sum = Sum::default();
        let (spool, mut offset) = (Rc::new(work.spool()?), 0);
        for blob in self.blobs() {
            sum.add(super::sum::read(engine, &blob.digest, &spool, &mut offset)?);
        }
        Ok(Root::Tree(Tree::new(sum)))
    }

    /// Descriptors of all layers, lowest first.
    pub(super) fn blobs(&self) -> Vec<Descriptor> {
        let base = self.base.iter().flat_map(|base| base.layers.iter().cloned());
        base.chain(self.layers.iter().map(|own| own.made.blob.clone())).collect()
    }

    /// Whether its image would have this instruction's work done by a shell.
    pub(super) fn shell(&self) -> Vec<String> {
        match self.config.config.shell.as_slice() {
            [] => vec!["/bin/sh".to_owned(), "-c".to_owned()],
            shell => shell.to_vec(),
        }
    }
}

/// What is said of a base or source that is neither a stage nor an image that can be had.
pub(super) fn unknown(file: &Dockerfile, name: &str, error: Error) -> Error {
    let stages: Vec<&str> = file.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
    let Error::Build(mut failure) = super::builder::failed(error, None) else {
        return Error::Invalid(format!("there is no {name}"));
    };
    if let Some(near) = nearest(&name.to_ascii_lowercase(), &stages) {
        failure.hint = Some(format!("did you mean the stage {near}?"));
    } else if !stages.is_empty() && !name.contains(['/', ':', '.']) {
        failure.hint = Some(format!("no earlier stage is named {name}, so it is an image's name"));
    }
    failure.word = failure.word.or_else(|| Some(name.to_owned()));
    Error::Build(failure)
}
