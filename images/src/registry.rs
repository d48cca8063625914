//! Registries: OCI distribution specification 1.1 over HTTP(S), blocking.
//!
//! `access` is what the caller says about a registry. `http` sends requests and follows redirects: through an `agent`
//! with certificates (`tls`) and perhaps a `proxy`, to an `address` that may be asked. `challenge` reads what a
//! registry wants, `token` answers it. `reply` turns what comes back into words. `blob` turns a blob into one stream
//! that survives broken connections, `remote` is a repository with its mirrors, `download` brings blobs into the store,
//! `pull` decides what is fetched. `docker_config` is Docker's
//! file of credentials. Nothing is read from the environment.
//!
//! The other way, `upload` brings one blob to a registry, `push` everything of an image, and `referrers` what is about
//! it; `answer` is what they look at, `repack` compresses layers anew. `look` reads manifests without pulling, `listing` lists, and `list` pushes an
//! index of manifests that are at the registry already.
//! `fetch` gets files that are no part of a registry.

mod access;
mod address;
mod agent;
mod answer;
mod blob;
mod challenge;
mod docker_config;
mod download;
mod fetch;
mod http;
mod list;
mod listing;
mod look;
mod patient;
mod proxy;
mod pull;
mod push;
mod referrers;
mod remote;
mod repack;
mod reply;
mod signatures;
#[cfg(test)]
mod tests;
mod tls;
mod token;
mod upload;

use std::fmt;
use std::sync::Arc;

/// For `fuzzing`.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn fuzz_challenge(text: &str) {
    drop(challenge::choose(text.lines()));
}

pub use access::Access;
pub use access::Credentials;
pub use access::Mirror;
pub use access::Scope;
pub use docker_config::DockerConfig;
pub use docker_config::RunHelper;
pub use docker_config::registry_of;
pub use fetch::download;
pub use http::Client;
pub use list::push_list;
pub use listing::Found;
pub use listing::catalog;
pub use listing::search;
pub use look::RemoteManifest;
pub use look::manifest;
pub use look::manifest_with_platform;
pub use proxy::Proxies;
pub use pull::pull;
pub use push::PushOptions;
pub use push::Pushed;
pub use push::push;
pub use referrers::referrers;
pub use remote::Remote;
pub use tls::Tls;

use crate::Descriptor;
use crate::Platform;
use crate::Reference;

/// Which variants of an image to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Platforms {
    /// Every variant that this host can run: Wasm ones and the best native one.
    #[default]
    Host,
    /// The best variant for one platform.
    One(Platform),
    /// Every variant.
    All,
}

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// How the registry is reached.
    pub access: Access,
    /// Which variants.
    pub platforms: Platforms,
    /// Unpack layers that this host can run while they arrive.
    pub unpack: bool,
    /// Asked before anything but the top manifest is fetched.
    pub check: Option<Check>,
}

/// Whether a pull may go on: looks at the name, what it stands for at the registry, and the bytes of that manifest or
/// index; more of the repository, such as signatures, can be asked for.
#[derive(Clone)]
pub struct Check(pub Arc<Approve>);

/// What a [`Check`] is.
pub type Approve = dyn Fn(&Reference, &Descriptor, &[u8], &Remote<'_>) -> crate::Result<()> + Send + Sync;

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Check(..)")
    }
}

impl Default for PullOptions {
    fn default() -> Self {
        Self { access: Access::default(), platforms: Platforms::Host, unpack: true, check: None }
    }
}

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the name stands for now: an index or a manifest. Its digest is what Docker prints.
    pub descriptor: Descriptor,
    /// Nothing had to be fetched, and the name stood for it already.
    pub already_present: bool,
}
