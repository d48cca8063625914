//! Names of images: `[registry/]repository[:tag][@digest]`, normalised as Docker does it.
//!
//! The grammar is that of the distribution project's `reference` package. This is a name only: whether such an
//! image exists is the store's or the registry's answer.

use std::fmt;
use std::str::FromStr;

use crate::Digest;
use crate::Error;

/// The registry that names without one belong to.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag of a name that has neither tag nor digest.
pub const DEFAULT_TAG: &str = "latest";
/// Longest registry and repository together, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// A complete image name: the registry is always known, and there is a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Parses what a user types: `hello` is `docker.io/library/hello:latest`.
    ///
    /// # Errors
    /// [`Error::InvalidReference`], in Docker's words.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |reason: &str| Error::InvalidReference { text: text.into(), reason: reason.into() };
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(invalid("cannot specify 64-byte hexadecimal strings"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| invalid("invalid digest"))?;
                (rest, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = split_registry(rest);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(invalid("repository name must be lowercase"));
        }
        if !is_registry(registry) || !path.split('/').all(is_path_component) {
            return Err(invalid(""));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(invalid("invalid tag"));
        }
        let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        if registry.len() + 1 + repository.len() > MAX_NAME {
            return Err(invalid("repository name must not be more than 255 characters"));
        }
        let tag = match (tag, &digest) {
            (None, None) => Some(DEFAULT_TAG.to_owned()),
            (tag, _) => tag.map(str::to_owned),
        };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }

    /// Host and optional port, `docker.io` for Docker Hub.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The path within the registry, for example `library/hello`.
    #[must_use]
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag. There is none only where there is a digest.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest the image must have.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Registry and repository as users write them: `hello`, `localhost:5000/x`.
    #[must_use]
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        self.repository
            .strip_prefix("library/")
            .filter(|p| !p.contains('/'))
            .unwrap_or(&self.repository)
            .to_owned()
    }

    /// The whole name as users write it: `hello:1`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The whole name with nothing left out: `docker.io/library/hello:1`.
    #[must_use]
    pub fn canonical(&self) -> String {
        self.with_suffix(format!("{}/{}", self.registry, self.repository))
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), tag: None, ..self.clone() }
    }

    fn with_suffix(&self, mut name: String) -> String {
        if let Some(tag) = &self.tag {
            name.push(':');
            name.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            name.push('@');
            name.push_str(&digest.to_string());
        }
        name
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.canonical())
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

/// The first component is a registry if it looks like a host: a dot, a port, `localhost` or an upper-case letter.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':'])
                || first == "localhost"
                || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(v6) = text.strip_prefix('[') {
        let Some((host, rest)) = v6.split_once(']') else { return false };
        if host.is_empty() || !host.bytes().all(|b| b.is_ascii_hexdigit() || b == b':') {
            return false;
        }
        (None, rest.strip_prefix(':').map_or((!rest.is_empty()).then_some(""), Some))
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    let component = |c: &str| {
        !c.is_empty()
            && c.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !c.starts_with('-')
            && !c.ends_with('-')
    };
    host.is_none_or(|host| host.split('.').all(component))
        && port.is_none_or(|port| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit()))
}

/// Lower-case letters and digits, with single separators between them: `.`, `_`, `__` or any number of `-`.
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(first) || !alphanumeric(last) {
        return false;
    }
    text.split(|c: char| c.is_ascii() && alphanumeric(c as u8))
        .all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-'))
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    text.len() <= MAX_TAG
        && text.bytes().next().is_some_and(word)
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_as_docker_does() {
        let at = format!("@sha256:{HEX}");
        let cases = [
            ("hello", "docker.io/library/hello:latest", "hello:latest"),
            ("hello:1", "docker.io/library/hello:1", "hello:1"),
            ("docker.io/hello", "docker.io/library/hello:latest", "hello:latest"),
            ("index.docker.io/hello", "docker.io/library/hello:latest", "hello:latest"),
            ("docker.io/library/hello", "docker.io/library/hello:latest", "hello:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
            ("localhost:5000/x", "localhost:5000/x:latest", "localhost:5000/x:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("[fe80::1]/x", "[fe80::1]/x:latest", "[fe80::1]/x:latest"),
            ("Host/x", "Host/x:latest", "Host/x:latest"),
            ("u/a--b__c.d_e:V1.0-x", "docker.io/u/a--b__c.d_e:V1.0-x", "u/a--b__c.d_e:V1.0-x"),
            ("hello:5000", "docker.io/library/hello:5000", "hello:5000"),
        ];
        for (text, canonical, familiar) in cases {
            let reference = Reference::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(reference.familiar(), familiar);
        }
        let pinned = Reference::parse(&format!("hello{at}")).unwrap();
        assert_eq!((pinned.tag(), pinned.familiar()), (None, format!("hello{at}")));
        let both = Reference::parse(&format!("hello:1{at}")).unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/hello:1{at}"));
        assert_eq!(both.tag(), Some("1"));
    }

    #[test]
    fn rejects_with_dockers_words() {
        let lower = "repository name must be lowercase";
        let (long_path, long_tag) = ("a".repeat(250), format!("a:{}", "t".repeat(129)));
        let cases = [
            ("", "invalid reference format"),
            ("Hello", lower),
            ("user/App:1", lower),
            ("/x", "invalid reference format"),
            ("x/", "invalid reference format"),
            ("a//b", "invalid reference format"),
            ("x:", "invalid reference format"),
            ("x:.a", "invalid reference format"),
            ("x:a:b", "invalid reference format"),
            ("x:a/b", "invalid reference format"),
            ("a..b", "invalid reference format"),
            ("a___b", "invalid reference format"),
            ("-a", "invalid reference format"),
            ("a-", "invalid reference format"),
            ("a b", "invalid reference format"),
            ("a\n", "invalid reference format"),
            ("ä", "invalid reference format"),
            ("../../etc/passwd", "invalid reference format"),
            ("host.:1/x", "invalid reference format"),
            ("host:port/x", "invalid reference format"),
            ("[::1/x", "invalid reference format"),
            ("[]/x", "invalid reference format"),
            ("[::1]y/x", "invalid reference format"),
            ("https://host/x", "invalid reference format"),
            ("x@sha256:abc", "invalid reference format"),
            ("x@", "invalid reference format"),
            (HEX, "64-byte hexadecimal"),
            (&long_path, "must not be more than 255"),
            (&long_tag, "invalid reference format"),
        ];
        for (text, message) in cases {
            let error =
                Reference::parse(text).map(|r| panic!("{text} parsed as {r}")).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_errs_and_what_parses_is_stable(text in "[a-zA-Z0-9./:@_\\[\\]-]{0,40}|.{0,40}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.canonical()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
