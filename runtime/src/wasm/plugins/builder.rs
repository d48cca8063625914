//! From code, and what it may do, to a plugin.

use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::types::ComponentFunc;
use wasmtime::component::{Component, Linker, LinkerInstance, Val};
use wasmtime::{Engine, StoreContextMut};

use super::call::{Plugin, guarded, panic_text};
use super::entry::{Entry, entries};
use super::error::Ended;
use super::kv::Kv;
use super::link::Provider;
use super::version::{Function, Linked, Pool, Version};
use super::{Access, Error, Grants, Host, Keep, Limits, Source, core, json, link, values};
use crate::bundle::{Layer, Module};
use crate::error::Error as Invalid;
use crate::wasm::aot;
use crate::wasm::create::read_module;
use crate::wasm::module::{Code, invalid};
use crate::wasm::network::{Network, Policy};
use crate::wasm::p2::files::Tree;
use crate::wasm::p2::{Given, State};
use crate::wasm::stdio::{Input, Output, Streams};
use crate::wasm::union::Union;

type Link = Arc<dyn Fn(&mut Linker<State>) -> wasmtime::Result<()> + Send + Sync>;
/// What a function of the host gives: its results, or why it failed.
type Results = Result<Vec<Val>, Box<dyn std::error::Error + Send + Sync>>;

/// A plugin that is about to be loaded. Without a word, it gets nothing and has no limits.
pub struct Builder {
    host: Host,
    source: Source,
    recipe: Recipe,
}

/// What stays the same when the code is replaced.
#[derive(Clone, Default)]
pub(super) struct Recipe {
    name: Option<String>,
    grants: Grants,
    requested: Option<Grants>,
    limits: Limits,
    pool: Pool,
    links: Vec<Link>,
    waits: bool,
    pub(super) rest: Option<(Duration, Duration)>,
    kv: Option<Arc<Kv>>,
}

impl Builder {
    pub(super) fn new(host: Host, source: Source) -> Self {
        Self { host, source, recipe: Recipe::default() }
    }

    /// What errors call it; the file's name otherwise.
    #[must_use]
    pub fn name(mut self, name: &str) -> Self {
        self.recipe.name = Some(name.to_owned());
        self
    }

    /// What the host gives it.
    #[must_use]
    pub fn grant(mut self, grants: Grants) -> Self {
        self.recipe.grants = grants;
        self
    }

    /// What it has asked for: it gets nothing else, whatever it is granted.
    #[must_use]
    pub fn requested(mut self, requested: Grants) -> Self {
        self.recipe.requested = Some(requested);
        self
    }

    /// How much it may use.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.recipe.limits = limits;
        self
    }

    /// Which instances its calls get.
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        self.recipe.pool = pool;
        self
    }

    /// Leaves it alone after a call that ended badly: for `first`, then for twice as long each time, up to `most`, until
    /// one ends well. Calls in between fail at once.
    #[must_use]
    pub fn rest_after_failure(mut self, first: Duration, most: Duration) -> Self {
        self.recipe.rest = Some((first, most));
        self
    }

    /// Gives it a function of the host: `name` of an interface, or of none if that is empty. A failure ends the call with
    /// [`Error::Host`]; so does a wrong number or type of results.
    #[must_use]
    pub fn function<F>(self, interface: &str, name: &str, function: F) -> Self
    where
        F: Fn(&mut State, &[Val]) -> Results + Send + Sync + 'static,
    {
        let (interface, name, function) = (interface.to_owned(), name.to_owned(), Arc::new(function));
        self.link(move |linker| {
            let function = Arc::clone(&function);
            place(linker, &interface)?.func_new(
                &name,
                move |mut store: StoreContextMut<'_, State>, _, args, results| {
                    let called = catch_unwind(AssertUnwindSafe(|| function(store.data_mut(), args)));
                    finish(called.map_err(|panic| panic_text(&*panic)), results)
                },
            )
        })
    }

    /// As [`Builder::function`], with the arguments as a JSON array and the answer as JSON (nothing where there is none), for
    /// hosts in other languages. An answer that is none of the function's type is a failure of the host.
    #[must_use]
    pub fn function_json<F>(self, interface: &str, name: &str, function: F) -> Self
    where
        F: Fn(&str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> + Send + Sync + 'static,
    {
        let (interface, name, function) = (interface.to_owned(), name.to_owned(), Arc::new(function));
        self.link(move |linker| {
            let function = Arc::clone(&function);
            place(linker, &interface)?.func_new(
                &name,
                move |_: StoreContextMut<'_, State>, ty, args, results| {
                    let args = serde_json::Value::Array(args.iter().map(json::write).collect()).to_string();
                    let called = catch_unwind(AssertUnwindSafe(|| function(&args)));
                    let called = called.map(|called| called.and_then(|answer| Ok(typed(&answer, &ty)?)));
                    finish(called.map_err(|panic| panic_text(&*panic)), results)
                },
            )
        })
    }

    /// As [`Builder::function`], for one that waits. Calls of the plugin then need tokio, or make a runtime of their own.
    #[must_use]
    pub fn function_async<F, Fut>(mut self, interface: &str, name: &str, function: F) -> Self
    where
        F: Fn(Vec<Val>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Results> + Send + 'static,
    {
        self.recipe.waits = true;
        let (interface, name, function) = (interface.to_owned(), name.to_owned(), Arc::new(function));
        self.link(move |linker| {
            let function = Arc::clone(&function);
            place(linker, &interface)?.func_new_async(&name, move |_, _, args, results| {
                let function = Arc::clone(&function);
                let args = args.to_vec();
                Box::new(async move {
                    // A panic when it is called, or later.
                    let work = async move { Ok(function(args).await) };
                    let called: wasmtime::Result<Results> = guarded(None, None, work).await;
                    finish(called.map_err(|error| error.root_cause().to_string()), results)
                })
            })
        })
    }

    /// As [`Builder::function_json`], for one that waits.
    #[must_use]
    pub fn function_json_async<F, Fut>(mut self, interface: &str, name: &str, function: F) -> Self
    where
        F: Fn(String) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<String, Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    {
        self.recipe.waits = true;
        let (interface, name, function) = (interface.to_owned(), name.to_owned(), Arc::new(function));
        self.link(move |linker| {
            let function = Arc::clone(&function);
            place(linker, &interface)?.func_new_async(&name, move |_, ty, args, results| {
                let function = Arc::clone(&function);
                let args = serde_json::Value::Array(args.iter().map(json::write).collect()).to_string();
                Box::new(async move {
                    let work = async move { Ok(function(args).await) };
                    let called: wasmtime::Result<Result<String, _>> = guarded(None, None, work).await;
                    let called = called.map(|called| called.and_then(|answer| Ok(typed(&answer, &ty)?)));
                    finish(called.map_err(|error| error.root_cause().to_string()), results)
                })
            })
        })
    }

    /// Gives it whatever a linker can give: the functions of a world of `bindgen!`, for example. For functions that wait,
    /// say so by [`Builder::waits`].
    #[must_use]
    pub fn link<F>(mut self, link: F) -> Self
    where
        F: Fn(&mut Linker<State>) -> wasmtime::Result<()> + Send + Sync + 'static,
    {
        self.recipe.links.push(Arc::new(link));
        self
    }

    /// Says that something given by [`Builder::link`] waits.
    #[must_use]
    pub fn waits(mut self) -> Self {
        self.recipe.waits = true;
        self
    }

    /// Reads, compiles and links it.
    ///
    /// # Errors
    /// [`Error::Load`] when the code is none or a granted directory cannot be opened, [`Error::Incompatible`] when it
    /// imports what nobody gives it.
    pub fn load(self) -> Result<Plugin, Error> {
        let Self { host, source, mut recipe } = self;
        recipe.grants = recipe.effective(&host);
        recipe.kv = (recipe.grants.kv > 0).then(|| Arc::new(Kv::new(recipe.grants.kv)));
        let version = recipe.version(&host, source)?;
        Ok(Plugin::new(host, recipe, version))
    }

    /// What the code has, and where what it imports would come from. It need not be possible to load it: functions of the
    /// host may be missing.
    ///
    /// # Errors
    /// [`Error::Load`] when the code is none.
    pub fn inspect(self) -> Result<Inspection, Error> {
        let Self { host, source, recipe } = self;
        let grants = recipe.effective(&host);
        let (engine, component, _) = recipe.code(&host, source)?;
        let told = |entry: Entry| Function { name: entry.name, ty: values::function(&entry.ty) };
        let functions = entries(engine, &component).into_iter().map(told).collect();
        let ty = component.component_type();
        let from =
            |(name, _): (&str, _)| Import { name: name.to_owned(), provider: link::provider(&grants, name) };
        Ok(Inspection { functions, imports: ty.imports(engine).map(from).collect() })
    }
}

/// What code has and wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// What it exports.
    pub functions: Vec<Function>,
    /// What it imports.
    pub imports: Vec<Import>,
}

/// An interface, or a function that is in none, that code imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// Its name: `wasi:random/random@0.2.0`.
    pub name: String,
    /// Where it comes from.
    pub provider: Provider,
}

impl Recipe {
    /// What it is called.
    pub(super) fn shown(&self) -> &str {
        self.name.as_deref().unwrap_or("plugin")
    }

    /// What was granted, of that what was asked for, and of that what the host's ceiling allows.
    fn effective(&self, host: &Host) -> Grants {
        let limits = [&self.requested, &host.0.config.ceiling].into_iter().flatten();
        limits.fold(self.grants.clone(), |grants, other| grants.and(other))
    }

    /// What errors call what is loaded from `source`.
    fn shown_of(&self, source: &Source) -> String {
        match (&self.name, source) {
            (Some(name), _) => name.clone(),
            (None, Source::File(path)) => path.display().to_string(),
            (None, _) => "plugin".to_owned(),
        }
    }

    /// Compiles.
    fn code<'h>(&self, host: &'h Host, source: Source) -> Result<(&'h Engine, Component, Files), Error> {
        let (engine, flavor) = host.engine(self.limits.fuel.is_some())?;
        let shown = self.shown_of(&source);
        let (source, layers, keep) = match source {
            Source::Image { code, layers, keep } => (Source::Bytes(code), layers, Some(keep)),
            other => (other, Vec::new(), None),
        };
        let read = || {
            let code = match source {
                Source::Bytes(bytes) => bytes,
                Source::File(path) => read_module(&Module { path, id: None })?,
                Source::Image { code, .. } => code,
            };
            core::component(code).map_err(|why| invalid(&shown, why))
        };
        let wanted = aot::Wanted { name: None, path: &shown, text: true, flavor, read };
        match host.0.cache.code(engine, wanted)? {
            Code::Component(component) => Ok((engine, component, Files { layers, keep })),
            _ => Err(invalid(&shown, "the text of a core module: make it a binary first").into()),
        }
    }

    /// Code by this recipe.
    pub(super) fn version(&self, host: &Host, source: Source) -> Result<Version, Error> {
        let _inside = tracing::debug_span!("plugin.load", plugin = self.shown()).entered();
        let shown = self.shown_of(&source);
        let (engine, component, Files { layers, keep }) = self.code(host, source)?;
        let mut linker = Linker::<State>::new(engine);
        let failed = |error: wasmtime::Error| invalid(&shown, format!("{error:#}"));
        let mut needs = link::link(engine, &component, &self.grants, &mut linker).map_err(failed)?;
        needs.waits |= self.waits || exports_wait(engine, &component);
        // Functions of the host may use anything of tokio's.
        needs.runtime |= self.waits;
        for link in &self.links {
            link(&mut linker).map_err(failed)?;
        }
        let pre = linker.instantiate_pre(&component).map_err(|error| Error::Incompatible {
            what: shown.clone(),
            expected: error.to_string(),
            found: error.root_cause().to_string(),
        })?;
        let given = Arc::new(self.given(host, &layers)?);
        let (kv, limits, pool) = (self.kv.clone(), self.limits.clone(), self.pool);
        Ok(Version::new(engine, &component, Linked { pre, needs, given, keep, kv, limits, pool }))
    }

    /// What its instances find.
    fn given(&self, host: &Host, layers: &[Layer]) -> Result<Given, Error> {
        let grants = &self.grants;
        let network = Network { allow: grants.network.clone(), ..Network::default() };
        let output = || grants.output.clone().map_or(Output::Null, Output::Sink);
        let streams = Streams { stdin: Input::Null, stdout: output(), stderr: output(), terminal: false };
        Ok(Given {
            args: vec![self.name.clone().unwrap_or_else(|| "plugin".to_owned())],
            env: grants.env.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            cwd: "/".to_owned(),
            streams,
            policy: Arc::new(Policy::new(network, Box::new(|| None))),
            tree: self.tree(host, layers)?,
            descriptors: DESCRIPTORS,
        })
    }

    /// The files it came with, and the directories it was granted.
    fn tree(&self, host: &Host, layers: &[Layer]) -> Result<Option<Tree>, Error> {
        let granted = &self.grants.directories;
        if granted.is_empty() && layers.is_empty() {
            return Ok(None);
        }
        let scratch = match &host.0.config.scratch {
            Some(scratch) => scratch.as_path(),
            // Nothing has to be made in it.
            None if granted.is_empty() => Path::new(""),
            None => {
                let reason =
                    "directories are granted, and the host has no scratch folder for their root".to_owned();
                return Err(Invalid::InvalidSpec { field: "scratch", reason }.into());
            }
        };
        let mut union =
            if layers.is_empty() { Union::plain(scratch)? } else { Union::layered(scratch, layers)? };
        for (path, name, access) in &self.grants.directories {
            union.bind(path, Path::new(name), *access == Access::Read)?;
        }
        union.set_readonly();
        let union = Arc::new(union);
        let mut preopens = Vec::new();
        if !layers.is_empty() {
            preopens.push(("/".to_owned(), Arc::clone(union.root())));
        }
        for (_, name, _) in &self.grants.directories {
            let node = union.directory(union.root(), name.trim_start_matches('/'));
            let node = node.map_err(|errno| Invalid::InvalidSpec {
                field: "directories",
                reason: format!("{name}: {}", crate::wasm::union::mount::describe(errno)),
            })?;
            preopens.push((name.clone(), node));
        }
        Ok(Some(Tree { union, preopens: preopens.into() }))
    }

    /// What it remembers.
    pub(super) fn kv(&self) -> Option<&Arc<Kv>> {
        self.kv.as_ref()
    }
}

/// What an image brings along.
struct Files {
    layers: Vec<Layer>,
    keep: Option<Keep>,
}

/// Files and streams that an instance may have open.
const DESCRIPTORS: usize = 1024;

/// Whether one of its functions is asynchronous by its type.
fn exports_wait(engine: &wasmtime::Engine, component: &wasmtime::component::Component) -> bool {
    use wasmtime::component::types::ComponentItem;
    component.component_type().exports(engine).any(|(_, item)| match item.ty {
        ComponentItem::ComponentFunc(function) => function.async_(),
        ComponentItem::ComponentInstance(interface) => interface
            .exports(engine)
            .any(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(function) if function.async_())),
        _ => false,
    })
}

fn place<'a>(linker: &'a mut Linker<State>, interface: &str) -> wasmtime::Result<LinkerInstance<'a, State>> {
    match interface {
        "" => Ok(linker.root()),
        name => linker.instance(name),
    }
}

/// What a function of the host gives as JSON.
fn typed(answer: &str, ty: &ComponentFunc) -> Result<Vec<Val>, String> {
    match ty.results().next() {
        None => Ok(Vec::new()),
        Some(ty) => json::answer(answer, &ty).map(|value| vec![value]),
    }
}

/// Hands over what a function of the host gave. `called` is an error for a panic.
fn finish(called: Result<Results, String>, results: &mut [Val]) -> wasmtime::Result<()> {
    match called {
        Err(panic) => Err(Ended::Panic(panic).into()),
        Ok(Err(error)) => Err(Ended::Host(error.to_string()).into()),
        Ok(Ok(values)) if values.len() != results.len() => {
            let why = format!("it gave {} values and not {}", values.len(), results.len());
            Err(Ended::Host(why).into())
        }
        Ok(Ok(values)) => {
            for (place, value) in results.iter_mut().zip(values) {
                *place = value;
            }
            Ok(())
        }
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("recipe", &self.recipe).finish_non_exhaustive()
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, grants, limits, pool, .. } = self;
        let mut told = f.debug_struct("Recipe");
        told.field("name", name).field("grants", grants).field("limits", limits).field("pool", pool);
        told.finish_non_exhaustive()
    }
}
