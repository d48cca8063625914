//! Pulling from registries: OCI distribution specification 1.1 over HTTP(S), blocking.
//!
//! `http` sends requests and follows redirects, `address` says where they may lead, `auth` answers challenges,
//! `blob` turns a blob into one stream that survives broken connections, `pull` decides what is fetched and where
//! it goes. The address of a registry and the credentials come from the caller; nothing is read from the
//! environment.

mod address;
mod auth;
mod blob;
mod http;
mod pull;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

pub use auth::docker_credentials;
pub use pull::pull;

use crate::Descriptor;
use crate::Platform;

/// Who the user is to a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// User and password, or an access token as password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A refresh token of the registry's token service.
    IdentityToken(String),
}

impl fmt::Debug for Credentials {
    /// Says nothing: debug output ends in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(..)")
    }
}

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
    /// Which variants.
    pub platforms: Platforms,
    /// For private repositories.
    pub credentials: Option<Credentials>,
    /// Accept any certificate, and plain HTTP where there is no HTTPS. A registry on a loopback address may speak
    /// plain HTTP without this.
    pub insecure: bool,
    /// Unpack layers that this host can run while they arrive.
    pub unpack: bool,
    /// How often a request or a broken download is tried in all.
    pub attempts: u32,
    /// The pause before the second attempt; it doubles from one attempt to the next, up to 10 s.
    pub backoff: Duration,
    /// How long a registry may stay silent.
    pub timeout: Duration,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platforms: Platforms::Host,
            credentials: None,
            insecure: false,
            unpack: true,
            attempts: 5,
            backoff: Duration::from_millis(250),
            timeout: Duration::from_secs(60),
        }
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
