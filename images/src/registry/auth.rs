//! Challenges of a registry and the answers to them, and Docker's file of credentials.
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

/// What a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the service at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
        scope: Option<String>,
    },
}

/// Reads the `WWW-Authenticate` headers of an answer. Tokens are preferred, as they say less.
pub(super) fn parse_challenges<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Challenge> {
    let mut found = None;
    for header in headers {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let mut parameters = parameters(rest);
            if let Some(realm) = parameters.remove("realm") {
                let (service, scope) = (parameters.remove("service"), parameters.remove("scope"));
                return Some(Challenge::Bearer { realm, service, scope });
            }
        } else if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    found
}

/// `name=value` or `name="value"` with commas between, RFC 9110 section 11.
fn parameters(text: &str) -> HashMap<String, String> {
    let mut all = HashMap::new();
    let mut chars = text.chars().peekable();
    loop {
        let name: String = std::iter::from_fn(|| chars.next_if(|c| *c != '=')).collect();
        if chars.next().is_none() {
            return all;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    other => value.push(other),
                }
            }
        } else {
            value.extend(std::iter::from_fn(|| chars.next_if(|c| *c != ',')));
        }
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        all.insert(name, value);
    }
}

/// The address of a token, RFC 3986 query encoding.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
    let mut url = realm.to_owned();
    let mut separator = if realm.contains('?') { '&' } else { '?' };
    for (name, value) in [("service", service), ("scope", Some(scope))] {
        let Some(value) = value else { continue };
        url.push(separator);
        url.push_str(name);
        url.push('=');
        url.push_str(&query_encode(value));
        separator = '&';
    }
    url
}

pub(super) fn query_encode(value: &str) -> String {
    let mut encoded = String::new();
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

pub(super) fn basic_header(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The answer of a token service.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
}

/// The header that a token service's answer allows.
pub(super) fn bearer_header(answer: &[u8]) -> Option<String> {
    let token: Token = serde_json::from_slice(answer).ok()?;
    let token = token.token.or(token.access_token).filter(|t| !t.is_empty())?;
    // It becomes part of a header.
    token.bytes().all(|b| b.is_ascii_graphic()).then(|| format!("Bearer {token}"))
}

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
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
                scope: scope.map(Into::into),
            })
        };
        let cases = [
            (
                vec![r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#],
                bearer("https://a/t", Some("s"), Some("repository:x:pull,push")),
            ),
            (vec![r#"bearer realm=https://a , SCOPE="a\"b""#], bearer("https://a ", None, Some("a\"b"))),
            (vec!["Basic realm=\"x\"", "Bearer realm=\"https://a\""], bearer("https://a", None, None)),
            (vec!["Basic"], Some(Challenge::Basic)),
            (vec!["Bearer service=\"s\""], None),
            (vec!["Bearer realm=\"unterminated"], bearer("unterminated", None, None)),
            (vec!["Negotiate", ""], None),
        ];
        for (headers, expected) in cases {
            assert_eq!(parse_challenges(headers.iter().copied()), expected, "{headers:?}");
        }
        assert_eq!(
            token_url("https://a/t", Some("s p"), "repository:x/y:pull"),
            "https://a/t?service=s%20p&scope=repository%3Ax%2Fy%3Apull"
        );
        assert_eq!(token_url("https://a/t?x=1", None, "s"), "https://a/t?x=1&scope=s");
    }

    #[test]
    fn tokens_must_fit_a_header() {
        assert_eq!(bearer_header(br#"{"access_token":"abc"}"#).as_deref(), Some("Bearer abc"));
        for bad in ["", "{}", r#"{"token":""}"#, r#"{"token":"a\r\nX: y"}"#] {
            assert_eq!(bearer_header(bad.as_bytes()), None, "{bad}");
        }
    }

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
