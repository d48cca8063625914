//! `commit`: an image of what a container has become: the image it was made from, one more layer, and its settings.

use dhow_images::compose::{ImageBuilder, LayerBuilder};
use dhow_images::media::Compression;
use dhow_images::{Descriptor, Empty, History, Image, Matcher, NewImage, Platform, Reference, RunConfig};
use jiff::Timestamp;

use crate::container::start::COMPONENTS;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::image::change;
use crate::record::{Container, ModuleOrigin, Record, Status};

/// What a commit is asked for.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    /// The image's name; without one it is known by its id.
    pub name: Option<Reference>,
    /// Who made it.
    pub author: String,
    /// A remark for the history.
    pub message: String,
    /// Dockerfile instructions, see [`change::apply`].
    pub changes: Vec<String>,
    /// A container that runs stands still meanwhile, where its kind can.
    pub pause: bool,
}

/// The largest program that is read.
const LARGEST: u64 = 1 << 30;

/// What is committed upon.
struct Base {
    image: Image,
    /// The lease of one that was made for this.
    lease: Option<String>,
}

/// A container that stands still until this is dropped.
struct Still<'a>(&'a Engine, &'a Container);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        // Whoever has ended it, or let it go on, has been faster.
        self.0.unpause(self.1).ok();
    }
}

impl Engine {
    /// Makes an image of a container. Of one that runs and is not paused, files may change meanwhile: a file that becomes
    /// shorter while it is read is an error. Of a container that was made of a Wasm file or of an artifact without files,
    /// the program becomes a file of the image.
    ///
    /// # Errors
    /// A change that is none, a program that cannot be read any more, and those of the disk.
    pub fn commit(&self, container: &Container, commit: &Commit) -> Result<Descriptor> {
        let record = &container.record;
        let mut config = settings(record);
        for instruction in &commit.changes {
            change::apply(&mut config, instruction)?;
        }
        if commit.name.as_ref().is_some_and(|name| name.digest().is_some()) {
            return Err(Error::Invalid("refusing to create a tag with a digest reference".to_owned()));
        }
        let base = self.base(record, &mut config)?;
        let still = if commit.pause { self.still(container)? } else { None };
        let made = self.commit_on(&base.image, container, commit, config);
        drop(still);
        if let Some(lease) = &base.lease {
            self.store().release(lease)?;
        }
        if let Ok(image) = &made {
            let id = image.digest.to_string();
            let name = commit.name.as_ref().map(Reference::familiar).unwrap_or_default();
            if !name.is_empty() {
                self.tell_of_image("tag", &id, &name);
            }
            let about = [("comment", commit.message.as_str()), ("imageID", &id), ("imageRef", &name)];
            self.tell_of(record, "commit", &about);
        }
        made
    }

    /// Pauses a container if it runs and can be paused.
    fn still<'a>(&'a self, container: &'a Container) -> Result<Option<Still<'a>>> {
        if container.state()?.status != Status::Running {
            return Ok(None);
        }
        match self.pause(container) {
            Ok(()) => Ok(Some(Still(self, container))),
            // It has ended, or somebody else has paused it, or its kind stands still for nobody yet.
            Err(Error::NotRunning { .. } | Error::Invalid(_) | Error::NotYet { .. }) => Ok(None),
            // Without root there may be no control group for it.
            Err(Error::Runtime(dhow_runtime::Error::Host { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The image a container was made from; or one with its program in it, which `config` runs then.
    fn base(&self, record: &Record, config: &mut RunConfig) -> Result<Base> {
        if let Some(origin) = &record.image {
            let image = self.image_of(origin)?;
            if image.wasm.is_empty() {
                return Ok(Base { image, lease: None });
            }
        }
        let missing = || Error::Invalid(format!("container {} has no program", record.name));
        let module = record.module.as_ref().ok_or_else(missing)?;
        let program = record.args.first().map_or("", String::as_str);
        let program = program.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or("program.wasm");
        let mut layer = LayerBuilder::new();
        layer.file(program, 0o755, read(module)?);
        let mut parts = Vec::new();
        for (index, component) in module.components.iter().enumerate() {
            let name = format!("component{}.wasm", index + 1);
            layer.file(&name, 0o644, read(component)?);
            parts.push(format!("/{name}"));
        }
        if !parts.is_empty() {
            let named = config.labels.get(COMPONENTS).into_iter().cloned();
            let all = named.chain(parts).collect::<Vec<_>>().join(",");
            config.labels.insert(COMPONENTS.to_owned(), all);
        }
        // It was found without a path; in the image it has one.
        match config.entrypoint.first_mut() {
            Some(first) if record.args.first() == Some(first) => *first = format!("/{program}"),
            Some(_) => {}
            None => config.entrypoint.push(format!("/{program}")),
        }
        let mut image = ImageBuilder::new(&Platform::wasm());
        image.layer(layer);
        let store = self.store();
        let made = image.build(store)?;
        let (lease, _) = super::create::random_id()?;
        store.lease(&lease, std::slice::from_ref(&made.digest), false)?;
        let image = store.image(&made, &Matcher::only(&Platform::wasm()))?;
        Ok(Base { image, lease: Some(lease) })
    }

    fn commit_on(
        &self,
        image: &Image,
        container: &Container,
        commit: &Commit,
        mut config: RunConfig,
    ) -> Result<Descriptor> {
        let record = &container.record;
        let mut whole = image.config.clone();
        // What the record has no words for stays as the image has it.
        config.healthcheck.clone_from(&whole.config.healthcheck);
        config.shell.clone_from(&whole.config.shell);
        config.on_build.extend(whole.config.on_build.iter().cloned());
        let now = Timestamp::now().to_string();
        whole.created = Some(now.clone());
        whole.author = Some(commit.author.clone()).filter(|author| !author.is_empty());
        whole.config = config;
        let history = History {
            created: Some(now),
            created_by: Some(record.args.join(" ")),
            author: whole.author.clone(),
            comment: Some(commit.message.clone()).filter(|message| !message.is_empty()),
            empty_layer: false,
        };
        let upper = self.data_folder(container).join("upper");
        let options = super::export::writable(record)?;
        let new = NewImage { below: image, config: whole, history };
        let upper = Some(upper.as_path()).filter(|upper| upper.is_dir());
        let made = self.store().commit_image(new, upper, &options, Compression::Gzip)?;
        match &commit.name {
            Some(name) => self.store().tag(name, &made)?,
            None => self.store().keep_untagged(&made)?,
        }
        Ok(made)
    }
}

/// The code of a program, in binary form.
fn read(module: &ModuleOrigin) -> Result<Vec<u8>> {
    use std::io::Read as _;
    let mut code = Vec::new();
    fs_err::File::open(&module.path)?.take(LARGEST + 1).read_to_end(&mut code)?;
    let shown = || module.path.display();
    if code.len() as u64 > LARGEST {
        return Err(Error::Invalid(format!("{}: is larger than 1 GiB", shown())));
    }
    if !code.starts_with(b"\0asm") {
        return Err(Error::NotYet {
            what: format!("an image of WebAssembly text ({})", shown()),
            hint: "make a binary of it first, with `wat2wasm` or `wasm-tools parse`".to_owned(),
        });
    }
    Ok(code)
}

/// The container's settings as an image has them.
fn settings(record: &Record) -> RunConfig {
    let config = &record.config;
    RunConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.iter().filter(|entry| entry.contains('=')).cloned().collect(),
        entrypoint: config.entrypoint.clone().unwrap_or_default(),
        cmd: config.cmd.clone().unwrap_or_default(),
        volumes: config.volumes.keys().map(|place| (place.clone(), Empty {})).collect(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        ..RunConfig::default()
    }
}
