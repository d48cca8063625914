//! Docker's client configuration, `config.json`: credentials for registries, and who keeps them.
//!
//! `auths` holds them in clear, `credHelpers` names a program for one registry, `credsStore` one for all. Every
//! spelling of a registry that Docker or podman writes is understood. Programs are run by the caller. Whatever else
//! is in the file stays as it is.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fs_err as fs;
use serde::Deserialize;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::Credentials;
use crate::DEFAULT_REGISTRY;
use crate::Error;
use crate::error::Result;
use crate::store::replace_file;

/// How Docker names its own registry in the file, and to helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// The user name that says that the secret is an identity token.
const TOKEN_USER: &str = "<token>";

/// Runs `docker-credential-NAME ACTION`, feeds it the input and gives what it printed, and whether it succeeded.
pub type RunHelper<'a> = &'a dyn Fn(&str, &str, &[u8]) -> io::Result<(bool, Vec<u8>)>;

/// The file, read.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    path: PathBuf,
    content: Map<String, Value>,
}

impl DockerConfig {
    /// Reads a file; one that is not there or empty is an empty configuration.
    ///
    /// # Errors
    /// When the file cannot be read or is no JSON object.
    pub fn load(path: &Path) -> Result<Self> {
        let invalid =
            |reason: &str| bad(path.display(), format!("not a valid Docker configuration: {reason}"));
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Vec::new()
            }
            Err(e) => return Err(e.into()),
        };
        let content = if bytes.trim_ascii().is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(&bytes).map_err(|e| invalid(&e.to_string()))?
        };
        for key in ["auths", "credHelpers"] {
            if content.get(key).is_some_and(|value| !value.is_object() && !value.is_null()) {
                return Err(invalid(&format!("`{key}` is no object")));
            }
        }
        Ok(Self { path: path.to_owned(), content })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The name of the program that keeps the credentials of a registry, if one does.
    #[must_use]
    pub fn helper(&self, registry: &str) -> Option<&str> {
        let own = self.content.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|all| all.iter().find(|(key, _)| registry_of(key) == registry));
        own.map(|(_, name)| name)
            .or_else(|| self.content.get("credsStore"))
            .and_then(Value::as_str)
            // It becomes part of a program's name.
            .filter(|name| !name.is_empty() && !name.contains(['/', '\\', '\0']))
    }

    /// The credentials for a registry, or for one repository of it: podman's files may have entries for those.
    ///
    /// # Errors
    /// When the entry is damaged, or a helper cannot be run.
    pub fn credentials(
        &self,
        registry: &str,
        repository: Option<&str>,
        run: RunHelper<'_>,
    ) -> Result<Option<Credentials>> {
        if let Some(helper) = self.helper(registry)
            && let Some(found) = ask(helper, registry, run)?
        {
            return Ok(Some(found));
        }
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else { return Ok(None) };
        // The most special entry first, then the exact name, then other spellings of it.
        let mut names = Vec::new();
        let mut path = repository.map(|repository| format!("{registry}/{repository}"));
        while let Some(name) = path {
            path = name.rsplit_once('/').map(|(parent, _)| parent.to_owned());
            names.push(name);
        }
        if repository.is_none() {
            names.push(registry.to_owned());
        }
        let exact = names.iter().find_map(|name| auths.get_key_value(name));
        let Some((key, entry)) = exact
            .or_else(|| auths.iter().find(|(key, _)| !is_namespace(key) && registry_of(key) == registry))
        else {
            return Ok(None);
        };
        self.parse_entry(key, entry)
    }

    fn parse_entry(&self, key: &str, entry: &Value) -> Result<Option<Credentials>> {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Auth {
            auth: String,
            username: String,
            password: String,
            identitytoken: String,
            registrytoken: String,
        }
        let damaged = || bad(self.path.display(), format!("the entry for {key} is damaged"));
        let entry = Auth::deserialize(entry).map_err(|_| damaged())?;
        if !entry.identitytoken.is_empty() {
            return Ok(Some(Credentials::IdentityToken(entry.identitytoken)));
        }
        if !entry.registrytoken.is_empty() {
            return Ok(Some(Credentials::RegistryToken(entry.registrytoken)));
        }
        let (user, password) = if entry.auth.is_empty() {
            (entry.username, entry.password)
        } else {
            let decoded = STANDARD.decode(entry.auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
            let (user, password) = decoded.as_deref().and_then(|t| t.split_once(':')).ok_or_else(damaged)?;
            // Docker pads with zero bytes.
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        Ok(credentials(user, password))
    }

    /// The user name that is known for a registry without asking a helper.
    #[must_use]
    pub fn user(&self, registry: &str) -> Option<String> {
        match self.credentials(registry, None, &|_, _, _| Ok((false, Vec::new()))).ok()?? {
            Credentials::Basic { user, .. } => Some(user),
            _ => None,
        }
    }

    /// Keeps credentials for a registry: with its helper, or in the file. `user` goes with an identity token.
    /// [`DockerConfig::save`] is still to be called.
    ///
    /// # Errors
    /// When a helper refuses or cannot be run.
    pub fn store(
        &mut self,
        registry: &str,
        user: &str,
        secret: &Credentials,
        run: RunHelper<'_>,
    ) -> Result<()> {
        let key = key_of(registry);
        let mut entry = Map::new();
        match self.helper(registry) {
            Some(helper) => {
                let (user, secret) = match secret {
                    Credentials::Basic { user, password } => (user.as_str(), password.as_str()),
                    Credentials::IdentityToken(token) | Credentials::RegistryToken(token) => {
                        (TOKEN_USER, token.as_str())
                    }
                };
                let input = json!({ "ServerURL": key, "Username": user, "Secret": secret }).to_string();
                let (done, said) = run(helper, "store", input.as_bytes()).map_err(|e| failed(helper, &e))?;
                if !done {
                    return Err(refused(helper, &said));
                }
            }
            None => match secret {
                Credentials::Basic { user, password } => {
                    entry.insert("auth".into(), STANDARD.encode(format!("{user}:{password}")).into());
                }
                Credentials::IdentityToken(token) => {
                    entry.insert("auth".into(), STANDARD.encode(format!("{user}:")).into());
                    entry.insert("identitytoken".into(), token.as_str().into());
                }
                Credentials::RegistryToken(token) => {
                    entry.insert("registrytoken".into(), token.as_str().into());
                }
            },
        }
        // With a helper, an empty entry says that there is something to ask it for.
        self.forget(registry);
        let auths = self.content.entry("auths").or_insert_with(|| json!({}));
        if auths.is_null() {
            *auths = json!({});
        }
        if let Some(auths) = auths.as_object_mut() {
            auths.insert(key.to_owned(), Value::Object(entry));
        }
        Ok(())
    }

    /// Forgets the credentials for a registry, also with its helper. Whether there were any in the file.
    /// [`DockerConfig::save`] is still to be called.
    ///
    /// # Errors
    /// When a helper cannot be run. That it knows nothing of the registry is no error.
    pub fn erase(&mut self, registry: &str, run: RunHelper<'_>) -> Result<bool> {
        let known = self.forget(registry);
        if let Some(helper) = self.helper(registry) {
            let (done, said) =
                run(helper, "erase", key_of(registry).as_bytes()).map_err(|e| failed(helper, &e))?;
            if !done && known && !is_unknown(&said) {
                return Err(refused(helper, &said));
            }
        }
        Ok(known)
    }

    /// Removes every spelling of a registry from `auths`.
    fn forget(&mut self, registry: &str) -> bool {
        let Some(auths) = self.content.get_mut("auths").and_then(Value::as_object_mut) else { return false };
        let before = auths.len();
        auths.retain(|key, _| is_namespace(key) || registry_of(key) != registry);
        auths.len() < before
    }

    /// Writes the file, all or nothing, for its owner only.
    ///
    /// # Errors
    /// The disk's.
    pub fn save(&self) -> Result<()> {
        // The file may be a link into somebody's collection of such files: then that one is meant.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        if let Some(folder) = path.parent().filter(|folder| !folder.exists()) {
            if let Some(above) = folder.parent() {
                fs::create_dir_all(above)?;
            }
            crate::store::make_dir(folder)?;
        }
        let mut text = Vec::new();
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
        serde::Serialize::serialize(&self.content, &mut serializer)
            .map_err(|e| bad(path.display(), e.to_string()))?;
        replace_file(&path, &text, true)
    }
}

fn credentials(user: String, password: String) -> Option<Credentials> {
    if user == TOKEN_USER {
        return Some(Credentials::IdentityToken(password));
    }
    (!user.is_empty()).then_some(Credentials::Basic { user, password })
}

/// What a helper knows about a registry.
fn ask(helper: &str, registry: &str, run: RunHelper<'_>) -> Result<Option<Credentials>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        username: String,
        secret: String,
    }
    let (done, said) = run(helper, "get", key_of(registry).as_bytes()).map_err(|e| failed(helper, &e))?;
    if !done {
        return if is_unknown(&said) || said.trim_ascii().is_empty() {
            Ok(None)
        } else {
            Err(refused(helper, &said))
        };
    }
    let answer: Answer =
        serde_json::from_slice(&said).map_err(|_| refused(helper, b"its answer is not valid"))?;
    Ok(credentials(answer.username, answer.secret))
}

/// The protocol has no code for this, only these words.
fn is_unknown(said: &[u8]) -> bool {
    String::from_utf8_lossy(said).contains("credentials not found")
}

fn failed(helper: &str, error: &io::Error) -> Error {
    let reason = match error.kind() {
        io::ErrorKind::NotFound => "there is no such program".to_owned(),
        _ => format!("cannot be run: {error}"),
    };
    bad(format_args!("docker-credential-{helper}"), reason)
}

fn refused(helper: &str, said: &[u8]) -> Error {
    let said: String = String::from_utf8_lossy(said).chars().filter(|c| !c.is_control()).take(200).collect();
    let said = if said.is_empty() { "it failed".to_owned() } else { said };
    bad(format_args!("docker-credential-{helper}"), said)
}

fn bad(what: impl std::fmt::Display, reason: String) -> Error {
    Error::CredentialStore { what: what.to_string(), reason }
}

/// The registry, as in references, that a user or a key of the file means: without scheme and path.
#[must_use]
pub fn registry_of(text: &str) -> &str {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    match rest.split('/').next().unwrap_or(rest) {
        "" | "index.docker.io" | "registry-1.docker.io" => DEFAULT_REGISTRY,
        other => other,
    }
}

/// A key that podman writes for a part of a registry: `quay.io/team`.
fn is_namespace(key: &str) -> bool {
    let path = key.split_once('/').map_or("", |(_, path)| path.trim_end_matches('/'));
    !key.contains("://") && !matches!(path, "" | "v1" | "v2")
}

/// How a registry is written into the file.
fn key_of(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { HUB_KEY } else { registry }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const NO_HELPER: RunHelper<'static> = &|_, _, _| Err(io::Error::other("not expected"));

    fn basic(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Basic { user: user.into(), password: password.into() })
    }

    fn config(text: &str) -> (tempfile::TempDir, DockerConfig) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        let config = DockerConfig::load(&path).unwrap();
        (dir, config)
    }

    #[test]
    fn every_spelling() {
        let (_dir, config) = config(&format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{}"}},"localhost:5000":{{"username":"u","password":"p"}},
            "h":{{"identitytoken":"t"}},"r":{{"registrytoken":"x"}},"helper":{{}},"bad":{{"auth":"%"}},"odd":{{"auth":5}},
            "https://a.example/v2/":{{"username":"a"}},"http://b.example":{{"username":"b"}},"c.example/v1/":{{"username":"c"}},
            "quay.example/team":{{"username":"team"}},"quay.example":{{"username":"all"}},"tok":{{"auth":"{}"}}}}}}"#,
            STANDARD.encode("me:a:b\0\0"),
            STANDARD.encode("<token>:idt"),
        ));
        let find = |registry: &str, repository| config.credentials(registry, repository, NO_HELPER).unwrap();
        let cases = [
            ("docker.io", basic("me", "a:b")),
            ("localhost:5000", basic("u", "p")),
            ("h", Some(Credentials::IdentityToken("t".into()))),
            ("r", Some(Credentials::RegistryToken("x".into()))),
            ("tok", Some(Credentials::IdentityToken("idt".into()))),
            ("a.example", basic("a", "")),
            ("b.example", basic("b", "")),
            ("c.example", basic("c", "")),
            ("helper", None),
            ("other", None),
        ];
        for (registry, expected) in cases {
            assert_eq!(find(registry, None), expected, "{registry}");
            assert_eq!(find(registry, Some("x/y")), expected, "{registry}");
        }
        assert_eq!(find("quay.example", Some("team/app")), basic("team", ""));
        assert_eq!(find("quay.example", Some("other/app")), basic("all", ""));
        assert_eq!(find("quay.example", None), basic("all", ""));
        for bad in ["bad", "odd"] {
            assert!(config.credentials(bad, None, NO_HELPER).is_err());
        }
        assert_eq!(format!("{:?}", basic("u", "secret")), "Some(Credentials(..))");
    }

    #[test]
    fn what_is_no_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        assert!(DockerConfig::load(&path).unwrap().content.is_empty());
        for (text, good) in [
            ("", true),
            (" \n", true),
            ("{}", true),
            (r#"{"auths":null}"#, true),
            ("[]", false),
            ("{", false),
            (r#"{"auths":[]}"#, false),
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(DockerConfig::load(&path).is_ok(), good, "{text:?}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_the_rest_stays() {
        let (dir, mut config) = config(
            r#"{"psFormat":"x","auths":{"http://h/v1/":{"auth":"eDp5"},"h/team":{"auth":"eDp5"}},"plugins":{"a":{"b":1}}}"#,
        );
        let secret = Credentials::Basic { user: "u".into(), password: "p:q".into() };
        config.store("h", "u", &secret, NO_HELPER).unwrap();
        config.store("docker.io", "me", &Credentials::IdentityToken("t".into()), NO_HELPER).unwrap();
        config.save().unwrap();
        let path = dir.path().join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        let written: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(written["psFormat"], "x");
        assert_eq!(written["plugins"]["a"]["b"], 1);
        assert_eq!(written["auths"]["h"]["auth"], STANDARD.encode("u:p:q"));
        assert_eq!(written["auths"][HUB_KEY]["identitytoken"], "t");
        assert_eq!(written["auths"][HUB_KEY]["auth"], STANDARD.encode("me:"));
        assert!(written["auths"].get("http://h/v1/").is_none() && written["auths"].get("h/team").is_some());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        }
        let mut again = DockerConfig::load(&path).unwrap();
        assert_eq!(again.credentials("h", None, NO_HELPER).unwrap(), Some(secret));
        assert_eq!(again.user("h").as_deref(), Some("u"));
        assert!(again.erase("h", NO_HELPER).unwrap());
        assert!(!again.erase("h", NO_HELPER).unwrap());
        again.save().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn helpers_keep_what_they_are_given() {
        let (_dir, mut config) =
            config(r#"{"credsStore":"all","credHelpers":{"https://h":"one","bad":"../x"}}"#);
        let calls = Mutex::new(Vec::new());
        let run = |name: &str, action: &str, input: &[u8]| {
            let input = String::from_utf8_lossy(input).into_owned();
            calls.lock().unwrap().push(format!("{name} {action} {input}"));
            Ok(match (name, action) {
                ("one", "get") => (true, br#"{"ServerURL":"h","Username":"<token>","Secret":"t"}"#.to_vec()),
                ("all", "get") if input == "odd" => (true, b"no json".to_vec()),
                ("all", "get") => (false, b"credentials not found in native keychain\n".to_vec()),
                _ => (true, Vec::new()),
            })
        };
        assert_eq!(
            config.credentials("h", None, &run).unwrap(),
            Some(Credentials::IdentityToken("t".into()))
        );
        assert_eq!(config.credentials("docker.io", None, &run).unwrap(), None);
        assert!(config.credentials("odd", None, &run).is_err());
        assert_eq!(config.helper("bad"), None);
        let secret = Credentials::Basic { user: "u".into(), password: "p".into() };
        config.store("docker.io", "u", &secret, &run).unwrap();
        assert_eq!(config.content["auths"][HUB_KEY], json!({}), "the secret is not in the file");
        assert!(config.erase("docker.io", &run).unwrap());
        assert_eq!(
            *calls.lock().unwrap(),
            [
                "one get h".to_owned(),
                format!("all get {HUB_KEY}"),
                "all get odd".to_owned(),
                format!(r#"all store {{"ServerURL":"{HUB_KEY}","Username":"u","Secret":"p"}}"#),
                format!("all erase {HUB_KEY}"),
            ]
        );
        let failing = |_: &str, _: &str, _: &[u8]| Ok((false, b"locked\n".to_vec()));
        assert!(config.store("x", "u", &secret, &failing).unwrap_err().to_string().contains("locked"));
        assert!(config.credentials("x", None, NO_HELPER).is_err(), "a helper that cannot be run");
    }
}
