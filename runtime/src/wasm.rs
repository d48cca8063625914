//! The Wasm executor: WASI modules and components, run by wasmtime in this process.
//!
//! ```text
//! engine.rs   wasmtime's configuration          union.rs   the root file system
//! aot.rs      the cache of compiled code        p1.rs      WASI 0.1, for core modules
//! module.rs   recognising and reading code      p2.rs      WASI 0.2, for components
//! imports.rs  what it imports and exports       p3.rs      WASI 0.3, for components
//! create.rs   a bundle becomes a task           task.rs    the verbs on it
//! invoke.rs   one function instead of the main one
//! parts.rs    a program of several components   compose.rs    makes one of them
//! stdio.rs    the guest's three streams         read.rs    single files, for callers
//! options.rs  what no specification says        limits.rs, network.rs   its parts
//! http.rs     components that answer HTTP   plugins.rs  components that a host application calls
//! ```
//!
//! What isolates a guest: wasmtime's sandbox, and that it can only reach what the hosts in `p1` and `p2` give it: the
//! bundle's file system and mounts, its three streams, clocks, random numbers, and sockets for components if the
//! bundle has the host's network; `limits.rs` says how much of it all. Around a process that exists for one guest stands
//! a second wall (`wall.rs`). `linux` in the specification, apart from the list of namespaces and the limit of memory, is
//! not applied, and neither is `process.user`: what a guest does to files, this process does.

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

mod aot;
mod compose;
mod create;
mod engine;
mod files;
#[cfg(test)]
mod hostile;
mod http;
mod imports;
mod invoke;
mod limits;
mod module;
mod network;
mod options;
mod p1;
mod p2;
mod p3;
mod parts;
#[cfg(feature = "plugins")]
pub mod plugins;
mod preinit;
mod random;
pub(crate) mod read;
mod stdio;
mod task;
mod union;
mod wall;

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use compose::fuzz::fuzz_compose;
pub use files::{FileInfo, FileKind, Files};
pub use imports::{Grant, Import, Interface, code_in, code_of, interface_in, interface_of};
pub use limits::{Limits, OUT_OF_FUEL, OUT_OF_TIME};
pub use module::Form;
pub use network::{Allow, InvalidRule, Network, Protocol, Publish};
pub use options::{Backing, Options, Part};
pub use preinit::{PREINIT, preinit};
pub use task::Task;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) use union::fuzz::fuzz_union;
pub use wall::{Keep, Rights, Wall};

use engine::Flavor;

use crate::bundle::{Layer, Module};
use crate::error::Result;

/// Runs WASI modules and components in this process.
pub struct Executor {
    cache: aot::Cache,
    /// By [`Flavor::index`].
    engines: [OnceLock<wasmtime::Engine>; Flavor::COUNT],
}

impl Executor {
    /// Compiled code is kept below `aot`, or nowhere.
    pub fn new(aot: Option<PathBuf>) -> Self {
        Self { cache: aot::Cache::new(aot), engines: Default::default() }
    }

    /// One whose engine for one flavor of code is `engine`.
    fn over(cache: aot::Cache, flavor: Flavor, engine: wasmtime::Engine) -> Self {
        let engines: [OnceLock<wasmtime::Engine>; Flavor::COUNT] = Default::default();
        // It is empty.
        engines[flavor.index()].set(engine).ok();
        Self { cache, engines }
    }

    /// Compiles a module or component and keeps the result, so that the first run need not. Does nothing when that
    /// has been done; meant for pull and build time.
    ///
    /// # Errors
    /// [`crate::Error::InvalidModule`] when it is none, [`crate::Error::Io`] when it cannot be read. A cache that
    /// cannot be written is no error.
    pub fn precompile(&self, module: &Module) -> Result<()> {
        self.bare_code(module, Flavor::default()).map(drop)
    }

    /// As [`Executor::precompile`], for the file `path` (absolute, within the layer) of an unpacked layer. Does
    /// nothing for a layer without an id.
    ///
    /// # Errors
    /// As [`Executor::precompile`].
    pub fn precompile_in_layer(&self, layer: &Layer, path: &str) -> Result<()> {
        self.layer_code(layer, path)
    }

    fn engine(&self, flavor: Flavor) -> Result<&wasmtime::Engine> {
        let cell = &self.engines[flavor.index()];
        if let Some(engine) = cell.get() {
            return Ok(engine);
        }
        let engine = engine::run(flavor)?;
        Ok(cell.get_or_init(|| engine))
    }
}

/// Whether a file of the folder of compiled code is whole and can have been written by this user alone. One that is not
/// is never run: it is made anew.
pub fn is_compiled_code(path: &std::path::Path) -> bool {
    aot::is_whole(path)
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Executor").field("cache", &self.cache).finish_non_exhaustive()
    }
}
