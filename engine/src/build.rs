//! `dhow build`: from a Dockerfile and a context to an image, in this process: no daemon, no BuildKit.
//!
//! ```text
//! dockerfile  what a Dockerfile says            ignore    what of a context is not there
//! builder     stages and steps in their order   stage     what one has become so far
//! copy, layer, mode, root                       COPY and ADD: files by handle, straight into a layer's archive
//! run, mounts, agent                            RUN: a container that no list shows
//! cache, work                                   what stays for later builds, and what must not
//! parallel                                      stages that do not need each other, each in a process of its own
//! share                                         caches at registries and in folders
//! preinit, squash, sum, finish, attest, sbom, output   what becomes of the result
//! ```
//! Everything a build reads is hostile: the Dockerfile, the context, base images, and what its own programs leave in a
//! stage. Nothing of it is looked up by a path of the host.

pub mod check;
pub mod dockerfile;
pub mod git;
pub mod ignore;
pub mod program;

#[cfg(target_os = "linux")]
mod agent;
mod attest;
mod builder;
mod cache;
mod copy;
mod finish;
mod layer;
mod mode;
mod mounts;
mod output;
#[cfg(target_os = "linux")]
mod parallel;
mod preinit;
mod root;
mod run;
mod sbom;
mod settings;
mod share;
mod squash;
mod stage;
mod step;
mod sum;
mod work;

pub use builder::{Built, Helper};
pub use cache::{CacheEntry, PrunedCache};
pub use output::{Output, write_output};
pub use work::Scratch;

pub use dhow_runtime::wasm::PREINIT;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use dhow_images::Platform;

use crate::config::HostConfig;
use dockerfile::{Dockerfile, Lines};
use ignore::Ignore;

/// What a build is asked for.
#[derive(Debug, Clone)]
pub struct Build {
    /// What to do.
    pub dockerfile: Dockerfile,
    /// The directory that `COPY` takes files from, if there is one.
    pub context: Option<PathBuf>,
    /// What of it is not there.
    pub ignore: Ignore,
    /// Other places to copy from, by name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// Values for `ARG`s.
    pub build_args: BTreeMap<String, String>,
    /// The stage that is wanted; the last one if none.
    pub target: Option<String>,
    /// Labels of the result.
    pub labels: Vec<(String, String)>,
    /// Nothing is taken from the cache.
    pub no_cache: bool,
    /// Stages of which nothing is taken from the cache, by name.
    pub fresh: Vec<String>,
    /// Base images are asked for at their registries.
    pub pull: bool,
    /// What it is for; this host if empty. Several make an index.
    pub platforms: Vec<Platform>,
    /// The network of steps: `default`, `none`, `host` or one of ours.
    pub network: String,
    /// What `default` means for a step of a native stage; this host's usual one when `None`.
    pub default_network: Option<String>,
    /// This process is root of a user namespace that was made for the build, or of that of this user's networks where steps
    /// are in those: steps get one of their own within it.
    pub namespace: bool,
    /// `name:address`.
    pub hosts: Vec<String>,
    /// What steps may use, and how they are kept apart: limits, `security_opt`, `shm_size` and `cgroup_parent`.
    pub limits: HostConfig,
    /// `RUN --security=insecure` has the rights of a privileged container.
    pub insecure: bool,
    /// What steps may ask for by id.
    pub secrets: BTreeMap<String, Secret>,
    /// Sockets of agents for SSH that steps may ask for by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// All new layers become one.
    pub squash: bool,
    /// Variants for Wasm become CNCF artifacts of the program they run.
    pub wasm_artifact: bool,
    /// The function by which programs of Wasm variants are initialised, so that no run of them need be.
    pub preinit: Option<String>,
    /// Programs of Wasm variants are compiled, so that their first run need not.
    pub precompile: bool,
    /// Caches of others.
    pub cache_from: Vec<CachePlace>,
    /// Where this build's cache goes.
    pub cache_to: Vec<CacheTo>,
    /// What is said about how the result came about.
    pub provenance: Option<Provenance>,
    /// What is in the result is listed.
    pub sbom: bool,
    /// The Dockerfile's text and where it and the context came from, for the provenance.
    pub origin: Origin,
    /// `SOURCE_DATE_EPOCH`: the time of the result.
    pub epoch: Option<i64>,
    /// Times of files are no later than that.
    pub rewrite_times: bool,
}

impl Build {
    /// Whether its native steps are in networks of ours, and not in this host's or none.
    #[cfg(target_os = "linux")]
    pub fn joins_networks(&self) -> bool {
        let mode = match self.network.as_str() {
            "" | "default" => self.default_network.as_deref().unwrap_or_default(),
            other => other,
        };
        matches!(crate::spec::Network::parse(mode), Ok(crate::spec::Network::Ours(_)))
    }

    /// Whether files of several owners and mounts are a part of it: unless everything in it is for Wasm.
    pub fn mounts(&self) -> bool {
        let is_wasm = |text: &str| text.parse::<Platform>().is_ok_and(|platform| platform.is_wasm());
        let stages = self.dockerfile.stages.iter();
        self.platforms.is_empty()
            || !self.platforms.iter().all(Platform::is_wasm)
            || stages.filter_map(|stage| stage.platform.as_deref()).any(|text| !is_wasm(text))
    }
}

/// Where a cache is that others use, too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// At a registry, as an artifact.
    Registry(dhow_images::Reference),
    /// In a directory, as an OCI layout.
    Directory(PathBuf),
}

/// A cache to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheTo {
    /// Where to.
    pub place: CachePlace,
    /// Layers of stages that are not in the result are in it, too: `mode=max`.
    pub all: bool,
    /// That it could not be written is only a warning.
    pub ignore_error: bool,
}

/// How much is said about how a result came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provenance {
    /// What it was made of.
    Min,
    /// The values of build arguments and the Dockerfile, too.
    Max,
}

/// Where a build's inputs came from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The Dockerfile's name.
    pub name: String,
    /// Its text.
    pub text: String,
    /// The address of the context, if it has one.
    pub address: Option<String>,
    /// The commit, of a git repository.
    pub commit: Option<String>,
}

/// Another place to copy from, or to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory of this host.
    Directory(PathBuf),
    /// An image, by its name.
    Image(String),
}

/// A secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// The content of a file.
    File(PathBuf),
    /// A text.
    Value(String),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Its value is nobody's business.
        f.write_str(match self {
            Self::File(_) => "Secret::File",
            Self::Value(_) => "Secret::Value",
        })
    }
}

/// What is going on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A step begins.
    Step {
        /// Its number, from 1.
        number: usize,
        /// How many there are.
        total: usize,
        /// The stage, by name or number; with a platform where there are several.
        stage: &'a str,
        /// The instruction.
        text: &'a str,
    },
    /// It was done before.
    Cached,
    /// Its program has written something.
    Output(&'a [u8]),
    /// It is done.
    Done(Duration),
    /// Something the user should know.
    Warning(String),
}

/// Why a build failed, and where in the Dockerfile.
#[derive(Debug)]
pub struct Failure {
    /// What is wrong, in one sentence.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
    /// Which lines are meant.
    pub lines: Option<Lines>,
    /// A word of the first of them.
    pub word: Option<String>,
    /// The exit code: that of a program that failed, else 1.
    pub code: u8,
}

impl From<dockerfile::Fault> for Failure {
    fn from(fault: dockerfile::Fault) -> Self {
        Self {
            message: fault.to_string(),
            hint: fault.hint,
            lines: Some(fault.lines),
            word: fault.word,
            code: 1,
        }
    }
}

impl From<dockerfile::Fault> for crate::error::Error {
    fn from(fault: dockerfile::Fault) -> Self {
        Self::Build(Box::new(fault.into()))
    }
}

/// Variables that every build knows without an `ARG`.
fn is_proxy(name: &str) -> bool {
    let known = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    known.contains(&name.to_ascii_lowercase().as_str()) || name == "SOURCE_DATE_EPOCH"
}
