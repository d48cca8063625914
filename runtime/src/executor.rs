//! The closed set of executors, and which of them a bundle is for.

use std::path::PathBuf;

use crate::bundle::{Bundle, Root};
use crate::error::Result;
use crate::stdio::Stdio;
use crate::task::Task;
use crate::wasm;

#[cfg(target_os = "linux")]
use crate::native;

/// The version of wasmtime that runs Wasm.
pub const WASMTIME: &str = "48.0.8";

/// Which executor runs a bundle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// wasmtime, in process.
    Wasm,
    /// Linux namespaces.
    Native,
}

/// An executor: turns bundles into tasks.
#[derive(Debug)]
pub enum Executor {
    /// Runs WASI modules and components in this process.
    Wasm(wasm::Executor),
    /// Runs Linux binaries in namespaces.
    #[cfg(target_os = "linux")]
    Native(native::Executor),
}

impl Executor {
    /// The Wasm executor; compiled code is kept in `aot`, or nowhere.
    pub fn wasm(aot: Option<PathBuf>) -> Self {
        Self::Wasm(wasm::Executor::new(aot))
    }

    /// The native executor.
    #[cfg(target_os = "linux")]
    pub fn native() -> Self {
        Self::Native(native::Executor::new())
    }

    /// Sets a bundle up, ready to start: isolation, file system, streams.
    ///
    /// # Errors
    /// Whatever is wrong with the bundle or this host; nothing is left behind then.
    pub fn create(&self, bundle: &Bundle, stdio: Stdio) -> Result<Task> {
        match self {
            Self::Wasm(executor) => executor.create(bundle, stdio).map(Box::new).map(Task::Wasm),
            #[cfg(target_os = "linux")]
            Self::Native(executor) => executor.create(bundle, stdio).map(Task::Native),
        }
    }
}

/// Which executor a bundle is for, by its content: an explicit [`Bundle::module`], else an entrypoint that is
/// named like Wasm (`.wasm`, `.wat`), else native. A platform that is known to be Wasm decides before this is asked.
pub fn kind_of(bundle: &Bundle) -> Kind {
    let named_wasm = || {
        let args = bundle.spec.process().as_ref().and_then(|process| process.args().as_ref());
        let name = args.and_then(|args| args.first()).map_or("", String::as_str);
        [".wasm", ".wat"].iter().any(|end| name.ends_with(end))
    };
    if bundle.module.is_some() || named_wasm() { Kind::Wasm } else { Kind::Native }
}

impl Root {
    /// Whether nothing is below the writable directory.
    pub fn is_bare(&self) -> bool {
        matches!(self, Self::Layers { lower, .. } if lower.is_empty())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn wasmtime_is_the_locked_one() {
        let lock = fs_err::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
        assert!(lock.contains(&format!("name = \"wasmtime\"\nversion = \"{}\"\n", super::WASMTIME)));
    }
}
