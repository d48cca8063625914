//! Stages, for each platform: what the target needs and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::rc::Rc;

use dhow_images::{Descriptor, Digest, Image, Matcher, Platform, Reference};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::attest::Material;
use super::copy::Sources;
use super::dockerfile::{Instruction, Lines, Step, expand, nearest};
use super::finish::Variant;
use super::git::Remote;
use super::ignore::Ignore;
use super::root::Root;
use super::share::Imported;
use super::stage::{Stage, unknown};
use super::work::Work;
use super::{Build, Event, Failure, NamedContext};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// What came of a build.
#[derive(Debug, Serialize, Deserialize)]
pub struct Built {
    /// The image: a manifest, or an index where several platforms were asked for.
    pub image: Descriptor,
    /// Each variant.
    pub variants: Vec<Descriptor>,
}

/// What the caller knows how to do: reaching registries and servers is a matter of a user's settings.
pub trait Helper {
    /// Fetches an image for a platform, or for this host.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn pull(&mut self, image: &Reference, platform: Option<&Platform>) -> Result<()>;

    /// Begins a download.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn download(&mut self, url: &str) -> Result<Box<dyn std::io::Read>>;

    /// Has the files of a git repository put into a folder that is not there yet, with `.git` if that is wanted. Gives
    /// the commit.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn clone(&mut self, remote: &Remote, keep_git_dir: bool, to: &Path) -> Result<String>;

    /// Reads the list of a cache at a registry: the configuration of a manifest, if it is of this type and no larger.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn cache_list(&mut self, name: &Reference, media_type: &str, most: u64) -> Result<Vec<u8>>;

    /// Brings a blob of a repository into the store.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn fetch_blob(&mut self, name: &Reference, blob: &Descriptor) -> Result<()>;

    /// Sends an artifact to a registry.
    ///
    /// # Errors
    /// Whatever is in the way.
    fn push(&mut self, artifact: &Descriptor, name: &Reference) -> Result<()>;
}

/// A build for one platform.
pub(super) struct Builder<'a, 'b> {
    pub(super) engine: &'a Engine,
    pub(super) build: &'a Build,
    pub(super) work: Work<'a>,
    pub(super) progress: &'b mut dyn FnMut(Event<'_>),
    pub(super) helper: &'b mut dyn Helper,
    /// The one that is built for; `None` where nobody has asked.
    pub(super) wanted: Option<Platform>,
    pub(super) several: bool,
    /// Stages that are done, by number.
    pub(super) done: BTreeMap<usize, Stage>,
    pub(super) globals: BTreeMap<String, String>,
    pub(super) used_args: BTreeSet<String>,
    /// The cached steps that were used or made.
    pub(super) keys: BTreeSet<Digest>,
    /// What went in from elsewhere.
    pub(super) materials: BTreeSet<Material>,
    pub(super) imported: Rc<Imported>,
    pub(super) number: usize,
    pub(super) total: usize,
    pub(super) context: Option<Rc<Root>>,
    pub(super) images: BTreeMap<String, Stage>,
    pub(super) now: Timestamp,
    /// Nothing is taken from the cache for this stage.
    pub(super) fresh: bool,
}

impl Engine {
    /// Builds an image. It has no name yet, and is kept as an untagged one.
    ///
    /// # Errors
    /// [`Error::Build`] with the lines that are meant.
    pub fn build(
        &self,
        build: &Build,
        helper: &mut dyn Helper,
        progress: &mut dyn FnMut(Event<'_>),
    ) -> Result<Built> {
        let mut platforms: Vec<Option<Platform>> = build.platforms.iter().cloned().map(Some).collect();
        if platforms.is_empty() {
            // Elsewhere images are for Wasm: nothing else can be run.
            platforms.push((!cfg!(target_os = "linux")).then(Platform::wasm));
        }
        let several = platforms.len() > 1;
        let began = Timestamp::now();
        let imported = Rc::new(Imported::read(build, helper, progress));
        let mut variants: Vec<Variant> = Vec::new();
        let (mut used, mut keys) = (BTreeSet::new(), BTreeSet::new());
        // Until the last one is there, each is kept by the work of its own build.
        let mut works = Vec::new();
        for wanted in platforms {
            let mut builder = Builder {
                engine: self,
                build,
                work: Work::begin(self)?,
                progress: &mut *progress,
                helper: &mut *helper,
                wanted,
                several,
                done: BTreeMap::new(),
                globals: BTreeMap::new(),
                used_args: BTreeSet::new(),
                keys: BTreeSet::new(),
                materials: BTreeSet::new(),
                imported: Rc::clone(&imported),
                number: 0,
                total: 0,
                context: None,
                images: BTreeMap::new(),
                now: Timestamp::now(),
                fresh: false,
            };
            if let Some(epoch) = build.epoch {
                builder.now = Timestamp::from_second(epoch)
                    .map_err(|_| Error::Invalid(format!("invalid SOURCE_DATE_EPOCH: {epoch}")))?;
            }
            let (image, bill) = builder.all()?;
            builder.work.keep([&image.digest])?;
            variants.push(Variant { image, bill, materials: std::mem::take(&mut builder.materials) });
            used.append(&mut builder.used_args);
            keys.append(&mut builder.keys);
            works.push(builder.work);
        }
        let unused: Vec<&str> =
            build.build_args.keys().filter(|name| !used.contains(*name)).map(String::as_str).collect();
        if !unused.is_empty() && !unused.iter().all(|name| super::is_proxy(name)) {
            let names = unused.join(" ");
            progress(Event::Warning(format!("One or more build-args [{names}] were not consumed")));
        }
        let is_wasm = |variant: &Variant| variant.image.platform.as_ref().is_some_and(Platform::is_wasm);
        if (build.wasm_artifact || build.preinit.is_some()) && !variants.iter().any(is_wasm) {
            return Err(Error::Invalid(
                "no variant is for Wasm: build with `--platform wasi/wasm`".to_owned(),
            ));
        }
        let image = super::finish::whole(self, build, &variants, began)?;
        self.store().keep_untagged(&image)?;
        self.export_caches(build, (&keys, &variants), helper, progress)?;
        drop(works);
        if build.precompile {
            for variant in &variants {
                super::finish::precompile(self, &variant.image)?;
            }
        }
        Ok(Built { image, variants: variants.into_iter().map(|variant| variant.image).collect() })
    }

    fn export_caches(
        &self,
        build: &Build,
        (keys, variants): (&BTreeSet<Digest>, &[Variant]),
        helper: &mut dyn Helper,
        progress: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        if build.cache_to.is_empty() {
            return Ok(());
        }
        let mut layers = BTreeSet::new();
        for variant in variants {
            let matcher = variant.image.platform.as_ref().map_or_else(Matcher::native_first, Matcher::only);
            let image = self.store().image(&variant.image, &matcher)?;
            layers.extend(image.layers.into_iter().map(|layer| layer.digest));
        }
        for to in &build.cache_to {
            match super::share::export(self, to, keys, &layers, helper) {
                Err(error) if to.ignore_error => {
                    progress(Event::Warning(format!("the cache cannot be written: {error}")));
                }
                other => other?,
            }
        }
        Ok(())
    }
}

impl Builder<'_, '_> {
    fn all(&mut self) -> Result<(Descriptor, Option<serde_json::Value>)> {
        self.globals = self.automatic();
        let file = &self.build.dockerfile;
        for (name, default, lines) in &file.globals {
            let value = match self.build.build_args.get(name) {
                Some(value) => Some(value.clone()),
                None => default.as_deref().map(|text| self.expand_global(text, *lines)).transpose()?,
            };
            self.used_args.insert(name.clone());
            if let Some(value) = value {
                self.globals.insert(name.clone(), value);
            }
        }
        let target = self.target()?;
        let needed = self.needed(target)?;
        self.total = needed.keys().map(|at| 1 + file.stages[*at].steps.len()).sum();
        self.stages(&needed)?;
        let Some(mut last) = self.done.remove(&target) else {
            return Err(Error::Invalid("there is no stage to build".to_owned()));
        };
        for (name, value) in &self.build.labels {
            last.config.config.labels.insert(name.clone(), value.clone());
        }
        if self.wanted.is_none() {
            last.become_wasm();
        }
        self.variant(&mut last)
    }

    /// When the image was made. One that is the same but for its times is the one that was made before: then all of it
    /// has those times, and the same id.
    pub(super) fn date(&self, stage: &mut Stage) -> Result<()> {
        let now = self.now.to_string();
        let mut bare = stage.config.clone();
        bare.created = None;
        for entry in bare.history.iter_mut().filter(|entry| entry.created.as_deref() == Some(now.as_str())) {
            entry.created = None;
        }
        let mut key = super::layer::Print::new("image");
        key.text(&serde_json::to_vec(&bare).map_err(std::io::Error::other)?);
        let key = key.finish();
        let before = self.engine.cached(&key).filter(|_| !self.build.no_cache && self.build.epoch.is_none());
        let Some(before) = before else {
            stage.config.created = Some(now.clone());
            let record = super::cache::Cached { layer: None, text: now };
            return self.engine.remember_step(&key, &record);
        };
        for entry in &mut stage.config.history {
            if entry.created.as_deref() == Some(now.as_str()) {
                entry.created = Some(before.text.clone());
            }
        }
        stage.config.created = Some(before.text);
        Ok(())
    }

    /// Variables that are there without anybody saying so.
    fn automatic(&self) -> BTreeMap<String, String> {
        let host = Platform::host();
        let target = self.wanted.clone().unwrap_or_else(|| host.clone());
        let mut all = BTreeMap::new();
        for (prefix, platform) in [("BUILD", &host), ("TARGET", &target)] {
            all.insert(format!("{prefix}PLATFORM"), platform.to_string());
            all.insert(format!("{prefix}OS"), platform.os.clone());
            all.insert(format!("{prefix}ARCH"), platform.architecture.clone());
            all.insert(format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
        }
        let stage = self.build.target.clone().unwrap_or_else(|| "default".to_owned());
        all.insert("TARGETSTAGE".to_owned(), stage);
        all
    }

    pub(super) fn expand_global(&self, text: &str, lines: Lines) -> Result<String> {
        let scope = |name: &str| self.globals.get(name).cloned();
        expand::word(text, self.build.dockerfile.directives.escape, &scope)
            .map_err(|reason| failed(Error::Invalid(reason), Some(lines)))
    }

    fn target(&self) -> Result<usize> {
        let stages = &self.build.dockerfile.stages;
        let Some(target) = &self.build.target else { return Ok(stages.len() - 1) };
        let lower = target.to_ascii_lowercase();
        let by_name = stages.iter().position(|stage| stage.name.as_ref() == Some(&lower));
        let by_number = || target.parse().ok().filter(|at| *at < stages.len());
        by_name.or_else(by_number).ok_or_else(|| {
            let names: Vec<&str> = stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
            let all = (!names.is_empty()).then(|| format!("its stages are {}", names.join(", ")));
            Error::Build(Box::new(Failure {
                message: format!("failed to reach build target {target} in Dockerfile"),
                hint: nearest(&lower, &names).map(|near| format!("did you mean {near}?")).or(all),
                lines: None,
                word: None,
                code: 1,
            }))
        })
    }

    /// The stage that is meant by a name or number, seen from a later one.
    pub(super) fn earlier(&self, name: &str, before: usize) -> Option<usize> {
        let stages = &self.build.dockerfile.stages[..before];
        let lower = name.to_ascii_lowercase();
        let by_name = stages.iter().rposition(|stage| stage.name.as_ref() == Some(&lower));
        by_name.or_else(|| name.parse().ok().filter(|at| *at < before))
    }

    /// Stages that a stage names, wherever in the file they are.
    fn named(&self, at: usize) -> Vec<usize> {
        let stages = &self.build.dockerfile.stages;
        let stage = &stages[at];
        let mut names = vec![stage.base.as_str()];
        for step in &stage.steps {
            match &step.instruction {
                Instruction::Copy(copy) => names.extend(copy.from.as_deref()),
                Instruction::Run(run) => {
                    names.extend(run.mounts.iter().filter_map(|mount| mount.get(&["from"])));
                }
                _ => {}
            }
        }
        let find = |name: &str| {
            let lower = name.to_ascii_lowercase();
            stages.iter().position(|stage| stage.name.as_ref() == Some(&lower))
        };
        names.into_iter().filter_map(find).collect()
    }

    /// A name that no earlier stage has is an image's, even if a later stage has it: unless that one needs this one.
    fn refuse_circle(&self, name: &str, at: usize, lines: Lines) -> Result<()> {
        let lower = name.to_ascii_lowercase();
        if self.build.contexts.contains_key(name) || self.earlier(name, at).is_some() {
            return Ok(());
        }
        let stages = &self.build.dockerfile.stages;
        let Some(later) = stages.iter().position(|stage| stage.name.as_ref() == Some(&lower)) else {
            return Ok(());
        };
        let (mut seen, mut next) = (BTreeSet::new(), vec![later]);
        while let Some(stage) = next.pop() {
            if stage == at {
                let message = format!("circular dependency detected on stage: {name}");
                return Err(failed(Error::Invalid(message), Some(lines)));
            }
            if seen.insert(stage) {
                next.extend(self.named(stage));
            }
        }
        Ok(())
    }

    /// The stages that lead to one, in their order. Only earlier ones can be meant, so there is no circle.
    fn needed(&self, target: usize) -> Result<BTreeMap<usize, BTreeSet<usize>>> {
        let stages = &self.build.dockerfile.stages;
        let mut all = BTreeMap::new();
        let mut next = vec![target];
        while let Some(at) = next.pop() {
            if all.contains_key(&at) {
                continue;
            }
            let mut todo: BTreeSet<usize> = BTreeSet::new();
            let stage = &stages[at];
            let base = self.expand_global(&stage.base, stage.lines)?;
            let is_stage =
                |name: &str| self.earlier(name, at).filter(|_| !self.build.contexts.contains_key(name));
            // A stage as a base is meant by its name.
            todo.extend(is_stage(&base).filter(|_| base.parse::<usize>().is_err()));
            for step in &stage.steps {
                match &step.instruction {
                    Instruction::Copy(copy) => {
                        if let Some(from) = &copy.from {
                            todo.extend(is_stage(from));
                            self.refuse_circle(from, at, step.lines)?;
                        }
                    }
                    Instruction::Run(run) => {
                        for from in run.mounts.iter().filter_map(|mount| mount.get(&["from"])) {
                            todo.extend(is_stage(from));
                            self.refuse_circle(from, at, step.lines)?;
                        }
                    }
                    _ => {}
                }
            }
            next.extend(&todo);
            all.insert(at, todo);
        }
        Ok(all)
    }

    /// Builds stages, one after the other.
    #[cfg(not(target_os = "linux"))]
    fn stages(&mut self, needs: &BTreeMap<usize, BTreeSet<usize>>) -> Result<()> {
        for at in needs.keys() {
            let stage = self.stage(*at)?;
            self.done.insert(*at, stage);
        }
        Ok(())
    }

    pub(super) fn stage(&mut self, at: usize) -> Result<Stage> {
        let definition = &self.build.dockerfile.stages[at];
        let lines = definition.lines;
        let mut label = definition.name.clone().unwrap_or_else(|| format!("stage-{at}"));
        if self.several
            && let Some(wanted) = &self.wanted
        {
            label = format!("{wanted} {label}");
        }
        let is_own = |name: &String| definition.name.as_ref() == Some(&name.to_ascii_lowercase());
        self.fresh = self.build.no_cache || self.build.fresh.iter().any(is_own);
        let begun = self.begin(&label, &definition.text);
        let base = self.expand_global(&definition.base, lines)?;
        if base.is_empty() {
            let message = format!("base name ({}) should not be blank", definition.base);
            return Err(failed(Error::Invalid(message), Some(lines)));
        }
        let platform = match &definition.platform {
            Some(text) => {
                let text = self.expand_global(text, lines)?;
                let parsed = text.parse::<Platform>();
                Some(parsed.map_err(|error| failed(error.into(), Some(lines)))?)
            }
            None => self.wanted.clone(),
        };
        let mut stage =
            self.base(&base, at, platform.as_ref()).map_err(|error| failed(error, Some(lines)))?;
        stage.escape = self.build.dockerfile.directives.escape;
        self.end(begun);
        let triggers = std::mem::take(&mut stage.config.config.on_build);
        for text in triggers {
            let step = Step::parse_one(&text, lines)?;
            self.step(&mut stage, &step, at, &label)?;
        }
        for step in &definition.steps {
            self.step(&mut stage, step, at, &label)?;
        }
        Ok(stage)
    }

    fn step(&mut self, stage: &mut Stage, step: &Step, at: usize, label: &str) -> Result<()> {
        let begun = self.begin(label, &step.text);
        self.perform(stage, step, at).map_err(|error| failed(error, Some(step.lines)))?;
        self.end(begun);
        Ok(())
    }

    pub(super) fn begin(&mut self, stage: &str, text: &str) -> std::time::Instant {
        self.number += 1;
        let (number, total) = (self.number, self.total.max(self.number));
        (self.progress)(Event::Step { number, total, stage, text });
        std::time::Instant::now()
    }

    fn end(&mut self, begun: std::time::Instant) {
        (self.progress)(Event::Done(begun.elapsed()));
    }

    fn base(&mut self, name: &str, at: usize, platform: Option<&Platform>) -> Result<Stage> {
        let host = Platform::host();
        match self.build.contexts.get(name) {
            Some(NamedContext::Image(image)) => {
                let image = self.image(&image.clone(), platform)?;
                return Ok(Stage::of(&image));
            }
            Some(NamedContext::Directory(_)) => {
                return Err(Error::Invalid(format!("named context {name} is a directory, not an image")));
            }
            None => {}
        }
        if name.eq_ignore_ascii_case("scratch") {
            return Ok(Stage::scratch(platform.unwrap_or(&host)));
        }
        if name.parse::<usize>().is_err()
            && let Some(earlier) = self.earlier(name, at)
            && let Some(stage) = self.done.get(&earlier)
        {
            return Ok(Stage::upon(stage));
        }
        let found = self.image(name, platform);
        Ok(Stage::of(&found.map_err(|error| unknown(&self.build.dockerfile, name, error))?))
    }

    /// An image, fetched if need be.
    fn image(&mut self, name: &str, platform: Option<&Platform>) -> Result<Image> {
        let matcher = platform.map_or_else(Matcher::native_first, Matcher::only);
        let look = |engine: &Engine| -> Result<Image> {
            let target = engine.find_image(name)?;
            Ok(engine.store().image(&target, &matcher)?)
        };
        let found = if self.build.pull { None } else { Some(look(self.engine)) };
        let image = match found {
            Some(Ok(image)) => image,
            Some(Err(
                error @ Error::Images(
                    dhow_images::Error::NoSuchImage { .. } | dhow_images::Error::VariantAbsent { .. },
                ),
            )) => {
                let Ok(reference) = Reference::parse(name) else { return Err(error) };
                self.helper.pull(&reference, platform)?;
                look(self.engine)?
            }
            Some(Err(error)) => return Err(error),
            None => {
                let reference = Reference::parse(name)?;
                self.helper.pull(&reference, platform)?;
                look(self.engine)?
            }
        };
        if !image.wasm.is_empty() {
            return Err(Error::NotYet {
                what: format!("a stage upon {name}, a Wasm artifact without files,"),
                hint: "copy the module into a stage of `FROM scratch`".to_owned(),
            });
        }
        let manifest = image.manifest.digest.clone();
        self.work.keep([&manifest])?;
        let uri = format!("pkg:docker/{name}?platform={}", image.platform.to_string().replace('/', "%2F"));
        self.materials.insert((uri, "sha256".to_owned(), manifest.hex().to_owned()));
        Ok(image)
    }

    /// Where `COPY` takes files from: the context, a stage, another context or an image.
    pub(super) fn sources(&mut self, from: Option<&str>, at: usize) -> Result<Sources> {
        let nothing = Rc::new(Ignore::default());
        let Some(from) = from else {
            let context = match &self.context {
                Some(context) => Rc::clone(context),
                None => {
                    let Some(path) = &self.build.context else {
                        return Err(Error::Invalid("there is no context to copy from".to_owned()));
                    };
                    let opened = Root::open(path).map_err(|error| {
                        std::io::Error::new(error.kind(), format!("{}: {error}", path.display()))
                    })?;
                    Rc::clone(self.context.insert(Rc::new(opened)))
                }
            };
            let ignore = Rc::new(self.build.ignore.clone());
            return Ok(Sources { root: context, ignore, is_context: true });
        };
        if let Some(NamedContext::Directory(path)) = self.build.contexts.get(from) {
            let root = Rc::new(Root::open(path)?);
            return Ok(Sources { root, ignore: nothing, is_context: true });
        }
        let name = match self.build.contexts.get(from) {
            Some(NamedContext::Image(image)) => image.clone(),
            _ => from.to_owned(),
        };
        if !self.build.contexts.contains_key(from)
            && let Some(earlier) = self.earlier(from, at)
        {
            let missing = || Error::Invalid(format!("invalid from flag value {from}"));
            let stage = self.done.get_mut(&earlier).ok_or_else(missing)?;
            let root = stage.view(self.engine, &self.work)?;
            return Ok(Sources { root, ignore: nothing, is_context: false });
        }
        if !self.images.contains_key(&name) {
            let wanted = self.wanted.clone();
            let found = self.image(&name, wanted.as_ref());
            let image = found.map_err(|error| unknown(&self.build.dockerfile, from, error))?;
            self.images.insert(name.clone(), Stage::of(&image));
        }
        let missing = || Error::Invalid(format!("invalid from flag value {from}"));
        let stage = self.images.get_mut(&name).ok_or_else(missing)?;
        let root = stage.view(self.engine, &self.work)?;
        Ok(Sources { root, ignore: nothing, is_context: false })
    }
}

/// With the lines of the Dockerfile, if it has none yet.
pub(super) fn failed(error: Error, lines: Option<Lines>) -> Error {
    match error {
        Error::Build(mut failure) => {
            failure.lines = failure.lines.or(lines);
            Error::Build(failure)
        }
        other => Error::Build(Box::new(Failure {
            hint: other.hint(),
            message: other.to_string(),
            lines,
            word: None,
            code: 1,
        })),
    }
}
