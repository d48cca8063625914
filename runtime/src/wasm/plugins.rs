//! Plugins: components that a host application calls, isolated from it and from each other.
//!
//! ```text
//! builder.rs   from code and what it may do to a plugin     error.rs    how a call can fail
//! version.rs   one piece of code, linked; its instances     grants.rs   what a plugin may reach
//! call.rs      calling: typed or not, blocking or async     values.rs   types and values in words
//! state.rs     what stands behind one instance              clock.rs    deadlines
//! link.rs      WASI as far as granted, the host's functions kv.rs       what a plugin remembers
//! stats.rs     what has happened                       json.rs     values as JSON
//! entry.rs     an exported function                    rest.rs     after a failure
//! wire.rs      calls over a stream, between processes     remote.rs   a plugin in another process
//! signature.rs types in words, read again              options.rs  what is special about one call
//! core.rs      core modules: bytes in, bytes out            bytes.rs    lists of bytes in one piece
//! ```
//!
//! ```no_run
//! use dhow_runtime::plugins::{Config, Grants, Host, Limits, Source, Val};
//! use std::time::Duration;
//!
//! let host = Host::new(Config::default())?;
//! let filter = host
//!     .plugin(Source::File("filter.wasm".into()))
//!     .grant(Grants::none().random())
//!     .limits(Limits { deadline: Some(Duration::from_millis(50)), ..Limits::default() })
//!     .load()?;
//! let answer = filter.call("handle", &[Val::String("hello".to_owned())])?;
//! # Ok::<(), dhow_runtime::plugins::Error>(())
//! ```
//!
//! A plugin has nothing that it was not granted. Each call has an instance of its own, made in about two microseconds,
//! unless a pool of warm ones is asked for. An instance that failed is never used again.
//!
//! Values are wasmtime's ([`Val`]), and so are the traits of typed calls. [`Plugin::call`] may be used from any thread
//! that is not one of an async runtime; there [`Plugin::call_async`] is, which needs tokio's timers.

mod builder;
mod bytes;
mod call;
mod clock;
mod core;
mod entry;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod grants;
mod json;
mod kv;
mod link;
mod options;
mod remote;
mod rest;
mod signature;
mod state;
mod stats;
#[cfg(test)]
mod tests;
mod values;
mod version;
pub mod wire;

use std::any::Any;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use wasmtime::{Enabled, Engine, PoolingAllocationConfig};

pub use builder::{Builder, Import, Inspection};
pub use bytes::Value;
pub use call::{Plugin, Typed};
pub use error::Error;
pub use grants::{Access, Grants, Sink};
pub use kv::Kv;
pub use link::Provider;
pub use options::{CallOptions, Cancel};
pub use remote::{Callee, RemotePlugin, functions};
pub use stats::Stats;
pub use version::{Function, Pool};
pub use wasmtime::component::Val;

/// wasmtime's component API, in the version that this crate is built with: for `bindgen!` and for typed values.
pub use wasmtime::component;

/// What stands behind an instance's calls to its host: the data type of its store.
pub use super::p2::State;

use super::aot::Cache;
use super::engine::{self, Flavor};
use crate::bundle::Layer;
use clock::Ticker;
pub(super) use state::Inside;

/// How a host of plugins is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where compiled code is kept, shared with other processes of the same user; nowhere if `None`.
    pub cache: Option<PathBuf>,
    /// How many instances there can be at a time, of all plugins together. Addresses are set aside for them, 4 GiB each,
    /// and no memory.
    pub instances: u32,
    /// An empty folder of the host's that becomes the root of plugins with granted directories; it stays empty.
    pub scratch: Option<PathBuf>,
    /// What no plugin gets more than, whatever it is granted; no such ceiling if `None`.
    pub ceiling: Option<Grants>,
}

impl Default for Config {
    fn default() -> Self {
        Self { cache: None, instances: 1000, scratch: None, ceiling: None }
    }
}

/// How much a plugin may use.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    /// Bytes of one instance's memories and tables.
    pub memory: Option<u64>,
    /// How long one call may take, what it waits for included.
    pub deadline: Option<std::time::Duration>,
    /// Instructions of one call, roughly.
    pub fuel: Option<u64>,
    /// Bytes that one call may hand over to the host at a time: an argument of a host function, or its result.
    pub output: Option<usize>,
}

/// Where plugins live: the engines, the memory set aside for instances, the clock of their deadlines.
#[derive(Debug, Clone)]
pub struct Host(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: Config,
    cache: Cache,
    /// Without and with counting fuel.
    engines: [OnceLock<Engine>; 2],
    ticker: Ticker,
}

/// Where a plugin's code comes from: a component, binary or as text, or a core module (`plugins/core.rs` has its form).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Source {
    /// The code itself.
    Bytes(Vec<u8>),
    /// A file that is read now.
    File(PathBuf),
    /// The program of an image, with the files that it brings along: it sees them below `/`, and cannot change them.
    Image {
        /// The code itself.
        code: Vec<u8>,
        /// The image's layers, lowest first.
        layers: Vec<Layer>,
        /// Is kept as long as the files are used.
        keep: Keep,
    },
}

/// Something that has to live as long as something else.
#[derive(Clone)]
pub struct Keep(#[expect(dead_code, reason = "that it is there is all")] Arc<dyn Any + Send + Sync>);

impl Keep {
    /// Keeps `thing`.
    pub fn new<T: Any + Send + Sync>(thing: T) -> Self {
        Self(Arc::new(thing))
    }
}

impl std::fmt::Debug for Keep {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keep").finish()
    }
}

impl Host {
    /// Sets up a host.
    ///
    /// # Errors
    /// [`Error::Load`] when the processor or the system lacks something.
    pub fn new(config: Config) -> Result<Self, Error> {
        let cache = Cache::new(config.cache.clone());
        let shared = Shared { config, cache, engines: Default::default(), ticker: Ticker::default() };
        let host = Self(Arc::new(shared));
        host.engine(false)?;
        Ok(host)
    }

    /// Begins to load a plugin that may do nothing.
    pub fn plugin(&self, source: Source) -> Builder {
        Builder::new(self.clone(), source)
    }

    /// The engine for code with or without fuel. Every plugin can be interrupted.
    fn engine(&self, fuel: bool) -> Result<(&Engine, Flavor), Error> {
        let flavor = Flavor { fuel, epoch: true };
        let cell = &self.0.engines[usize::from(fuel)];
        if let Some(engine) = cell.get() {
            return Ok((engine, flavor));
        }
        let engine = engine::pooled(flavor, reserved(self.0.config.instances))?;
        let engine = cell.get_or_init(|| engine);
        self.0.ticker.moves(engine);
        Ok((engine, flavor))
    }
}

/// How much is set aside: addresses, no memory.
fn reserved(instances: u32) -> PoolingAllocationConfig {
    let mut settings = PoolingAllocationConfig::new();
    settings
        .total_component_instances(instances)
        // A component's module, its adapter and the glue between them; a single one may have many.
        .total_core_instances(instances.saturating_mul(4).max(200))
        .total_memories(instances.max(50))
        .total_tables(instances.saturating_mul(2).max(100))
        .total_stacks(instances)
        .table_elements(100_000)
        .max_core_instances_per_component(200)
        .max_memories_per_component(50)
        .max_tables_per_component(100)
        .max_component_instance_size(4 << 20)
        .max_core_instance_size(4 << 20)
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10)
        .async_stack_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);
    settings
}
