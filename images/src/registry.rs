//! Pulling from registries.
use crate::*;
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
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}
/// Which variants of an image to fetch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Platforms {
    /// Every variant that this host can run: Wasm and native.
    #[default]
    Host,
    /// One platform.
    One(Platform),
    /// Every variant.
    All,
}
/// How to pull.
#[derive(Debug, Clone, Default)]
pub struct PullOptions {
    /// Which variants.
    pub platforms: Platforms,
    /// For private repositories.
    pub credentials: Option<Credentials>,
    /// Accept plain HTTP and any certificate. Loopback registries may always speak plain HTTP.
    pub insecure: bool,
    /// Only fetch, do not unpack.
    pub no_unpack: bool,
}
/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// What the name stands for now: an index or a manifest.
    pub descriptor: Descriptor,
    /// Nothing had to be fetched and the name stood for it already.
    pub already_present: bool,
}
/// Fetches an image and gives it its name in the store.
pub fn pull(
    _store: &Store,
    _name: &Reference,
    _options: &PullOptions,
    _progress: &dyn Progress,
) -> Result<Pulled> {
    Err(Error::Io(std::io::Error::from(std::io::ErrorKind::Unsupported)))
}
/// The credentials for `registry` in a docker `config.json`, if the file is there and has some.
pub fn docker_credentials(_config: &std::path::Path, _registry: &str) -> Result<Option<Credentials>> {
    Ok(None)
}
