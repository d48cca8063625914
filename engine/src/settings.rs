//! The settings file: what an administrator decides once for every command.
//!
//! ```json
//! {
//!   "policy": "policy.json",
//!   "registries": {
//!     "docker.io": { "mirrors": ["https://mirror.example", { "url": "http://10.0.0.5:5000", "insecure": true }] },
//!     "registry.example:5000": { "ca": "example-ca.crt", "cert": "me.cert", "key": "me.key", "proxy": "socks5://10.0.0.1" },
//!     "*": { "proxy": "http://proxy.example:3128" }
//!   },
//!   "gc": { "max_size": "20GB", "min_free": "5GB", "unused_for": "30d", "keep": ["debian:*"], "hard": true }
//! }
//! ```
//!
//! A registry's entry goes before that of `*`, key by key. Paths are relative to the folder of the file. A key that is
//! not known is an error: a misspelt security setting must not be ignored in silence. Where the file lies is the
//! caller's business.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use dhow_images::registry::{Access, Mirror, Proxies, Tls};
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::gc::Gc;

/// The whole file. Everything in it is optional.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    file: File,
    /// The file's folder, for relative paths.
    folder: PathBuf,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    policy: Option<PathBuf>,
    registries: BTreeMap<String, Registry>,
    gc: Gc,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Registry {
    mirrors: Option<Vec<MirrorEntry>>,
    insecure: Option<bool>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    proxy: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum MirrorEntry {
    Url(String),
    Full(FullMirror),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct FullMirror {
    url: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    ca: Option<PathBuf>,
}

impl Settings {
    /// Reads the file. One that is not there sets nothing.
    ///
    /// # Errors
    /// When the file cannot be read, is not JSON, or has a key or value that is not known.
    pub fn load(path: &Path) -> Result<Self> {
        let text = match fs_err::read_to_string(path) {
            Ok(text) => text,
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(Self::default());
            }
            Err(error) => return Err(error.into()),
        };
        let invalid = |reason: String| Error::Settings { path: path.to_owned(), reason };
        let file: File = serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        for (name, registry) in &file.registries {
            if registry.cert.is_some() != registry.key.is_some() {
                return Err(invalid(format!("registries: {name}: `cert` and `key` belong together")));
            }
        }
        Ok(Self { file, folder: path.parent().unwrap_or(Path::new("")).to_owned() })
    }

    /// The policy of signatures, if one is named.
    #[must_use]
    pub fn policy(&self) -> Option<PathBuf> {
        self.file.policy.as_ref().map(|policy| self.folder.join(policy))
    }

    /// When images go by themselves, and what the store may hold at most.
    pub fn gc(&self) -> &Gc {
        &self.file.gc
    }

    /// How to reach a registry, `docker.io` or `host[:port]`, as far as it is set here and in folders of certificates:
    /// each of `certificates` may have a folder `host[:port]` as Docker's `certs.d` has. Credentials and the
    /// environment's `proxies` are the caller's to add.
    ///
    /// # Errors
    /// When a certificate cannot be used.
    pub fn access(&self, registry: &str, certificates: &[PathBuf], proxies: Proxies) -> Result<Access> {
        let (own, all) = (self.file.registries.get(registry), self.file.registries.get("*"));
        // A registry's own value, else that of `*`.
        fn pick<T: Clone>(
            own: Option<&Registry>,
            all: Option<&Registry>,
            get: impl Fn(&Registry) -> &Option<T>,
        ) -> Option<T> {
            own.and_then(|r| get(r).clone()).or_else(|| all.and_then(|r| get(r).clone()))
        }
        let mut tls = folders_of(registry, certificates)?;
        if let Some(ca) = pick(own, all, |r| &r.ca) {
            tls.trust(&self.folder.join(ca))?;
        }
        if let (Some(cert), Some(key)) = (pick(own, all, |r| &r.cert), pick(own, all, |r| &r.key)) {
            tls.identify(&self.folder.join(cert), &self.folder.join(key))?;
        }
        let mut mirrors = Vec::new();
        for entry in pick(own, all, |r| &r.mirrors).unwrap_or_default() {
            let (url, insecure, ca) = match entry {
                MirrorEntry::Url(url) => (url, false, None),
                MirrorEntry::Full(full) => (full.url, full.insecure, full.ca),
            };
            let mut tls = folders_of(mirror_host(&url), certificates)?;
            if let Some(ca) = ca {
                tls.trust(&self.folder.join(ca))?;
            }
            mirrors.push(Mirror { url, insecure, tls, credentials: None });
        }
        let proxies = match pick(own, all, |r| &r.proxy) {
            Some(proxy) => Proxies { none_for: proxies.none_for, ..Proxies::only(&proxy) },
            None => proxies,
        };
        let insecure = pick(own, all, |r| &r.insecure).unwrap_or(false);
        Ok(Access { insecure, tls, proxies, mirrors, ..Access::default() })
    }
}

/// `host[:port]` of a mirror's address.
pub fn mirror_host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or(rest)
}

fn folders_of(registry: &str, certificates: &[PathBuf]) -> Result<Tls> {
    let mut tls = Tls::default();
    // A colon is not possible in a name on Windows; Docker leaves it out there.
    let name = if cfg!(windows) { registry.replace(':', "") } else { registry.to_owned() };
    for folder in certificates {
        tls.read_folder(&folder.join(&name))?;
    }
    Ok(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Result<Settings> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs_err::write(&path, text).unwrap();
        Settings::load(&path)
    }

    #[test]
    fn a_registry_goes_before_all_others() {
        let settings = settings(
            r#"{"registries":{"a.example":{"mirrors":["https://m",{"url":"http://n:1/p","insecure":true}],"insecure":true},
            "*":{"proxy":"http://p","insecure":false}}}"#,
        )
        .unwrap();
        let env = Proxies { none_for: "x".into(), ..Proxies::only("http://env") };
        let access = settings.access("a.example", &[], env.clone()).unwrap();
        assert!(access.insecure);
        assert_eq!(access.proxies, Proxies { none_for: "x".into(), ..Proxies::only("http://p") });
        let urls: Vec<_> = access.mirrors.iter().map(|m| (m.url.as_str(), m.insecure)).collect();
        assert_eq!(urls, [("https://m", false), ("http://n:1/p", true)]);
        assert!(!settings.access("b.example", &[], env).unwrap().insecure);
        assert_eq!(mirror_host("http://n:1/p"), "n:1");
        let nothing = Settings::load(Path::new("/nonexistent/config.json")).unwrap();
        assert_eq!(nothing.access("a", &[], Proxies::default()).unwrap().mirrors, []);
    }

    #[test]
    fn what_is_not_known_is_an_error() {
        for (text, reason) in [
            ("{", "EOF"),
            (r#"{"registry":{}}"#, "unknown field `registry`"),
            (r#"{"registries":{"a":{"insecur":true}}}"#, "unknown field `insecur`"),
            (r#"{"registries":{"a":{"insecure":"yes"}}}"#, "invalid type"),
            (r#"{"registries":{"a":{"cert":"x"}}}"#, "belong together"),
            (r#"{"registries":{"a":{"mirrors":[{"insecure":true}]}}}"#, "did not match"),
        ] {
            let error = settings(text).unwrap_err();
            assert!(error.to_string().contains(reason), "{text}: {error}");
            assert!(error.hint().is_some());
        }
        let missing = settings(r#"{"registries":{"a":{"ca":"no.crt"}}}"#).unwrap();
        assert!(missing.access("a", &[], Proxies::default()).is_err());
    }
}
