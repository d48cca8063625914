//! What name a signature must have been made for: `signedIdentity` of containers-policy.json(5).
//!
//! A signature says "this digest is what I call NAME". Without a look at NAME, any image that the same key has ever
//! signed could be served under any other name.

use serde_json::Value;

use super::Checked;
use super::json::Fields;
use crate::Reference;

/// Which names a signature may carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Identity {
    /// Exactly the image's name with its tag.
    MatchExact,
    /// Exactly the image's name if that has a tag, else its repository. The default.
    MatchRepoDigestOrExact,
    /// The image's repository, any tag.
    MatchRepository,
    /// Exactly this name.
    ExactReference(String),
    /// This repository, any tag.
    ExactRepository(String),
    /// As `MatchRepoDigestOrExact` after the image's name was moved from one prefix to another.
    Remap {
        /// Registry, namespace or repository of the image.
        prefix: String,
        /// What the signer calls it.
        signed_prefix: String,
    },
    /// Dhow's own: the digest alone decides. For signatures that name nothing, as new sigstore bundles do.
    MatchDigest,
}

impl Identity {
    /// Reads the value of `signedIdentity`.
    pub(super) fn parse(value: Option<Value>) -> Checked<Self> {
        let Some(value) = value else { return Ok(Self::MatchRepoDigestOrExact) };
        let mut fields = Fields::of("signedIdentity", value)?;
        let identity = match fields.text("type")?.as_str() {
            "matchExact" => Self::MatchExact,
            "matchRepoDigestOrExact" => Self::MatchRepoDigestOrExact,
            "matchRepository" => Self::MatchRepository,
            "matchDigest" => Self::MatchDigest,
            "exactReference" => {
                let text = fields.text("dockerReference")?;
                let named = Named::parse(&text)?;
                if named.is_bare() {
                    return Err(format!("dockerReference \"{text}\" has neither tag nor digest"));
                }
                Self::ExactReference(text)
            }
            "exactRepository" => {
                let text = fields.text("dockerRepository")?;
                if !Named::parse(&text)?.is_bare() {
                    return Err(format!("dockerRepository \"{text}\" has a tag or digest"));
                }
                Self::ExactRepository(text)
            }
            "remapIdentity" => {
                let prefix = fields.text("prefix")?;
                let signed_prefix = fields.text("signedPrefix")?;
                for text in [&prefix, &signed_prefix] {
                    check_prefix(text)?;
                }
                Self::Remap { prefix, signed_prefix }
            }
            other => return Err(format!("unknown type \"{}\" of signedIdentity", other.escape_default())),
        };
        fields.done()?;
        Ok(identity)
    }

    /// Whether a signature for the name `signed` (none if it names nothing) is one for `image`.
    pub(super) fn check(&self, image: Option<&Reference>, signed: Option<&str>) -> Checked<()> {
        if *self == Self::MatchDigest {
            return Ok(());
        }
        let Some(text) = signed else {
            return Err("the signature names no repository, only a digest; \
                 allow that with \"signedIdentity\": {\"type\": \"matchDigest\"}"
                .into());
        };
        let signed = Named::parse(text)
            .map_err(|e| format!("the signature is for \"{}\": {e}", text.escape_default()))?;
        let image = || {
            image
                .map(Named::of)
                .ok_or_else(|| "the image has no name that the signature could be for".to_owned())
        };
        let fits = match self {
            Self::MatchExact => signed.is_exactly(&image()?),
            Self::MatchRepoDigestOrExact => signed.is_exactly_or_pinned(&image()?),
            Self::MatchRepository => signed.name == image()?.name,
            Self::ExactReference(expected) => signed.is_exactly(&Named::parse(expected)?),
            Self::ExactRepository(expected) => signed.name == Named::parse(expected)?.name,
            Self::Remap { prefix, signed_prefix } => {
                signed.is_exactly_or_pinned(&image()?.moved(prefix, signed_prefix))
            }
            Self::MatchDigest => true,
        };
        if fits { Ok(()) } else { Err(format!("the signature is for \"{}\"", text.escape_default())) }
    }
}

/// A name as a signature has it: nothing is added to it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    /// Registry and repository, in full.
    name: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Named {
    fn parse(text: &str) -> Checked<Self> {
        let reference = Reference::parse(text).map_err(|e| e.to_string())?;
        let mut named = Self::of(&reference);
        // The parser adds a tag where there is none, which would turn "any" into "latest".
        let last = text.rsplit('/').next().unwrap_or(text);
        if !last.contains([':', '@']) {
            named.tag = None;
        }
        Ok(named)
    }

    fn of(reference: &Reference) -> Self {
        Self {
            name: format!("{}/{}", reference.registry(), reference.repository()),
            tag: reference.tag().map(str::to_owned),
            digest: reference.digest().map(ToString::to_string),
        }
    }

    fn is_bare(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    fn is_exactly(&self, image: &Self) -> bool {
        !self.is_bare() && !image.is_bare() && self == image
    }

    /// The digest of the image was compared before any signature was looked at.
    fn is_exactly_or_pinned(&self, image: &Self) -> bool {
        match (&image.tag, &image.digest) {
            _ if self.is_bare() => false,
            (Some(_), _) => self == image,
            (None, Some(_)) => self.name == image.name,
            (None, None) => false,
        }
    }

    fn moved(self, prefix: &str, to: &str) -> Self {
        let rest = match self.name.strip_prefix(prefix) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
            _ => return self,
        };
        Self { name: format!("{to}{rest}"), ..self }
    }
}

fn check_prefix(text: &str) -> Checked<()> {
    // A prefix alone need not be a name ("docker.io/library"); with a component after it, it must become one.
    let full = format!("{text}/x");
    let named =
        Named::parse(&full).map_err(|_| format!("\"{}\" is no prefix of names", text.escape_default()))?;
    if text.contains('@') || named.name != full {
        return Err(format!("prefix \"{}\" is not written in full", text.escape_default()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: &str = "@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_fit_as_the_manual_says() {
        let pinned = format!("h.io/a/b{AT}");
        let both = format!("h.io/a/b:1{AT}");
        let exact = |r: &str| json!({"type": "exactReference", "dockerReference": r});
        let repo = |r: &str| json!({"type": "exactRepository", "dockerRepository": r});
        let remap = |a: &str, b: &str| json!({"type": "remapIdentity", "prefix": a, "signedPrefix": b});
        let of = |t: &str| json!({"type": t});
        // rule, image, name in the signature, fits
        let cases = [
            (of("matchExact"), "h.io/a/b:1", "h.io/a/b:1", true),
            (of("matchExact"), "h.io/a/b:1", "h.io/a/b:2", false),
            (of("matchExact"), "h.io/a/b:1", "h.io/a/b", false),
            (of("matchExact"), "h.io/a/b:latest", "h.io/a/b", false),
            (of("matchExact"), "busybox", "docker.io/library/busybox:latest", true),
            (of("matchExact"), &pinned, "h.io/a/b:1", false),
            (of("matchRepoDigestOrExact"), "h.io/a/b:1", "h.io/a/b:1", true),
            (of("matchRepoDigestOrExact"), "h.io/a/b:1", "h.io/a/b:2", false),
            (of("matchRepoDigestOrExact"), "h.io/a/b:1", "h.io/a/b", false),
            (of("matchRepoDigestOrExact"), &pinned, "h.io/a/b:7", true),
            (of("matchRepoDigestOrExact"), &pinned, "h.io/a/c:7", false),
            (of("matchRepoDigestOrExact"), &pinned, "h.io/a/b", false),
            (of("matchRepoDigestOrExact"), &both, "h.io/a/b:1", false),
            (of("matchRepoDigestOrExact"), &both, &both, true),
            (of("matchRepository"), "h.io/a/b:1", "h.io/a/b", true),
            (of("matchRepository"), "h.io/a/b:1", "h.io/a/b:9", true),
            (of("matchRepository"), "h.io/a/b:1", "h.io/a/bb:1", false),
            (of("matchRepository"), "h.io/a/b:1", "NOT A NAME", false),
            (exact("x.io/y:1"), "h.io/a/b:1", "x.io/y:1", true),
            (exact("x.io/y:1"), "h.io/a/b:1", "h.io/a/b:1", false),
            (repo("x.io/y"), "h.io/a/b:1", "x.io/y:3", true),
            (repo("x.io/y"), "h.io/a/b:1", "x.io/yy:3", false),
            (remap("h.io/a", "x.io"), "h.io/a/b:1", "x.io/b:1", true),
            (remap("h.io/a", "x.io"), "h.io/a/b:1", "h.io/a/b:1", false),
            (remap("h.io/a", "x.io"), "h.io/ab/b:1", "h.io/ab/b:1", true),
            (remap("h.io", "x.io/m"), "h.io/a/b:1", "x.io/m/a/b:1", true),
            (remap("h.io", "x.io"), "h.io:5000/a:1", "x.io:5000/a:1", false),
            (remap("h.io/a/b", "x.io/c"), &pinned, "x.io/c:5", true),
            (of("matchDigest"), "h.io/a/b:1", "anything at all", true),
        ];
        for (rule, image, signed, fits) in cases {
            let identity = Identity::parse(Some(rule.clone())).unwrap();
            let found = identity.check(Some(&image.parse().unwrap()), Some(signed));
            assert_eq!(found.is_ok(), fits, "{rule} {image} {signed}: {found:?}");
        }
        assert_eq!(Identity::parse(None).unwrap(), Identity::MatchRepoDigestOrExact);
        let name: Reference = "h.io/a".parse().unwrap();
        assert!(Identity::MatchRepository.check(Some(&name), None).unwrap_err().contains("matchDigest"));
        assert!(Identity::MatchDigest.check(None, None).is_ok());
        assert!(Identity::MatchRepository.check(None, Some("h.io/a:1")).is_err());
        assert!(Identity::ExactRepository("h.io/a".into()).check(None, Some("h.io/a:1")).is_ok());
    }

    #[test]
    fn nonsense_is_refused_when_it_is_read() {
        for bad in [
            json!("matchExact"),
            json!({}),
            json!({"type": "match"}),
            json!({"type": "matchExact", "x": 1}),
            json!({"type": "exactReference"}),
            json!({"type": "exactReference", "dockerReference": "x.io/y"}),
            json!({"type": "exactReference", "dockerReference": ""}),
            json!({"type": "exactRepository", "dockerRepository": "x.io/y:1"}),
            json!({"type": "exactRepository", "dockerRepository": "X Y"}),
            json!({"type": "remapIdentity", "prefix": "h.io"}),
            json!({"type": "remapIdentity", "prefix": "busybox", "signedPrefix": "h.io"}),
            json!({"type": "remapIdentity", "prefix": "h.io/a:1", "signedPrefix": "h.io"}),
            json!({"type": "remapIdentity", "prefix": "h.io/", "signedPrefix": "h.io"}),
        ] {
            assert!(Identity::parse(Some(bad.clone())).is_err(), "{bad}");
        }
    }
}
