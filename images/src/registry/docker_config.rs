//! Docker's file of credentials.
//!
//! Docker's credential helpers are programs; this library starts none, so their entries are not seen.

use std::collections::HashMap;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use serde::Deserialize;

use super::Credentials;
use crate::DEFAULT_REGISTRY;
use crate::Error;
use crate::error::Result;

#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    auths: HashMap<String, DockerAuth>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

/// The credentials for a registry in a Docker `config.json`. `None` when the file or an entry for the registry is
/// not there, or the entry is left to a credential helper.
///
/// # Errors
/// When the file cannot be read or is damaged.
pub fn docker_credentials(config: &Path, registry: &str) -> Result<Option<Credentials>> {
    let bytes = match fs::read(config) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e.into()),
    };
    let invalid = |reason: &str| Error::manifest(config.display(), reason);
    let mut parsed: DockerConfig = serde_json::from_slice(&bytes)
        .map_err(|e| invalid(&format!("not a valid Docker configuration: {e}")))?;
    let host = |key: &str| {
        let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
        match key.split('/').next().unwrap_or(key) {
            "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY.to_owned(),
            other => other.to_owned(),
        }
    };
    // The exact name wins over another spelling of it.
    let Some(key) = std::iter::once(registry)
        .find(|key| parsed.auths.contains_key(*key))
        .map(str::to_owned)
        .or_else(|| parsed.auths.keys().find(|key| host(key) == registry).cloned())
    else {
        return Ok(None);
    };
    let entry = parsed.auths.remove(&key).unwrap_or_default();
    if !entry.identitytoken.is_empty() {
        return Ok(Some(Credentials::IdentityToken(entry.identitytoken)));
    }
    if !entry.auth.is_empty() {
        let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
        let Some((user, password)) = decoded.as_deref().and_then(|text| text.split_once(':')) else {
            return Err(invalid(&format!("the entry for {key} is damaged")));
        };
        // Docker pads with zero bytes.
        let password = password.trim_end_matches('\0');
        return Ok(Some(Credentials::Basic { user: user.into(), password: password.into() }));
    }
    if !entry.username.is_empty() {
        return Ok(Some(Credentials::Basic { user: entry.username, password: entry.password }));
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        let basic = |user: &str, password: &str| {
            Some(Credentials::Basic { user: user.into(), password: password.into() })
        };
        assert_eq!(docker_credentials(&path, "x").unwrap(), None);
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"localhost:5000":{{"username":"u","password":"p"}},
            "h":{{"identitytoken":"t"}},"helper":{{}},"bad":{{"auth":"%"}}}},"credsStore":"desktop"}}"#,
            STANDARD.encode("me:a:b")
        );
        fs::write(&path, text).unwrap();
        assert_eq!(docker_credentials(&path, "docker.io").unwrap(), basic("me", "a:b"));
        assert_eq!(docker_credentials(&path, "localhost:5000").unwrap(), basic("u", "p"));
        assert_eq!(docker_credentials(&path, "h").unwrap(), Some(Credentials::IdentityToken("t".into())));
        assert_eq!(docker_credentials(&path, "helper").unwrap(), None);
        assert_eq!(docker_credentials(&path, "other").unwrap(), None);
        assert!(docker_credentials(&path, "bad").is_err());
        assert_eq!(format!("{:?}", basic("u", "secret")), "Some(Credentials(..))");
    }
}
