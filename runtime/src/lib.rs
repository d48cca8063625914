//! `dhow-runtime`: a bundle becomes a task.
//!
//! One run interface over two executors: [`wasm`] runs WASI modules and components in this process by
//! wasmtime (any OS), [`native`] runs Linux binaries isolated by namespaces (Linux only). The verbs are the
//! containerd task API's and the OCI runtime specification's.
//!
//! This crate takes directories and a specification. It knows no images, no registries, no container names;
//! it never prints, exits or reads the environment.
//!
//! Reading order: [`bundle`], [`stdio`], [`executor`], [`task`], [`error`], then one of the executors.

#[cfg(target_os = "linux")]
pub mod apart;
pub mod bundle;
#[cfg(target_os = "linux")]
pub mod cgroup;
pub mod error;
pub mod executor;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(unix)]
pub mod process;
pub mod signal;
#[cfg(target_os = "linux")]
pub(crate) mod small_file;
pub mod stdio;
pub mod task;

#[cfg(target_os = "linux")]
pub mod native;
#[cfg(target_os = "linux")]
pub mod netlink;
#[cfg(target_os = "linux")]
pub mod oci;
pub mod wasm;

pub use bundle::{Bundle, Layer, Module, Root};
pub use error::{Error, Result};
pub use executor::{Executor, Kind};
pub use oci_spec::runtime as spec;
pub use signal::Signal;
pub use stdio::{Stdio, Stream, TerminalSize};
pub use task::{ExitStatus, Status, Task};
#[cfg(feature = "plugins")]
pub use wasm::plugins;
pub use wasm::read::read_files;
