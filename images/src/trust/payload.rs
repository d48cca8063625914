//! What a signature says: this digest is what I call this name ("atomic container signature").
//!
//! The same document in simple signing and in cosign; only `type` differs. See containers-signature(5).

use super::Checked;
use super::json;
use super::json::Fields;
use crate::Digest;

/// Largest payload, in bytes.
pub(super) const MAX_PAYLOAD: usize = 1 << 20;

/// Which kind of signature the payload is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Simple signing.
    Atomic,
    /// cosign.
    Cosign,
}

/// What a signature says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payload {
    pub(super) digest: Digest,
    /// The signer's name for the image.
    pub(super) reference: String,
    /// When, by the signer's own clock, in seconds since 1970.
    pub(super) timestamp: Option<i64>,
}

/// Reads a payload. Only what is known may be in its critical part.
pub(super) fn parse(bytes: &[u8], kind: Kind) -> Checked<Payload> {
    if bytes.len() > MAX_PAYLOAD {
        return Err("the signed document is larger than 1 MiB".into());
    }
    let mut fields = Fields::of("the signed document", json::parse(bytes)?)?;
    let mut critical = Fields::of("critical", fields.need("critical")?)?;
    let optional = fields.need("optional")?;
    fields.done()?;
    let expected = match kind {
        Kind::Atomic => "atomic container signature",
        Kind::Cosign => "cosign container image signature",
    };
    let found = critical.text("type")?;
    if found != expected {
        return Err(format!("the signed document is a \"{}\", not a \"{expected}\"", found.escape_default()));
    }
    let mut image = Fields::of("image", critical.need("image")?)?;
    let mut identity = Fields::of("identity", critical.need("identity")?)?;
    critical.done()?;
    let digest = image.text("docker-manifest-digest")?;
    let digest = digest.parse().map_err(|e: crate::Error| e.to_string())?;
    image.done()?;
    // cosign can sign without a name; that fits no identity but `matchDigest`.
    let reference = identity.string("docker-reference")?.ok_or("identity has no \"docker-reference\"")?;
    identity.done()?;
    let timestamp = match &optional {
        serde_json::Value::Null => None,
        serde_json::Value::Object(map) => map.get("timestamp").and_then(serde_json::Value::as_i64),
        _ => return Err("\"optional\" of the signed document is not an object".into()),
    };
    Ok(Payload { digest, reference, timestamp })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn only_what_is_known_is_read() {
        let text =
            |critical: &str, optional: &str| format!(r#"{{"critical":{critical},"optional":{optional}}}"#);
        let critical = |kind: &str| {
            format!(
                r#"{{"type":"{kind}","image":{{"docker-manifest-digest":"{DIGEST}"}},"identity":{{"docker-reference":"h/x:1"}}}}"#
            )
        };
        let atomic = critical("atomic container signature");
        let cosign = critical("cosign container image signature");
        let good = parse(text(&atomic, r#"{"timestamp":5,"x":1}"#).as_bytes(), Kind::Atomic).unwrap();
        assert_eq!((good.reference.as_str(), good.timestamp), ("h/x:1", Some(5)));
        assert!(parse(text(&cosign, "null").as_bytes(), Kind::Cosign).is_ok());
        for bad in [
            text(&cosign, "{}"),
            text(&atomic, "[]"),
            text(&atomic.replace("\"image\"", "\"x\":1,\"image\""), "{}"),
            text(&atomic.replace("\"image\"", "\"type\":\"x\",\"image\""), "{}"),
            text(&atomic.replace(DIGEST, "sha256:00"), "{}"),
            text(&atomic.replace("docker-reference", "reference"), "{}"),
            text(&atomic.replace("\"h/x:1\"", "7"), "{}"),
            format!(r#"{{"critical":{atomic}}}"#),
            format!(r#"{{"critical":{atomic},"optional":{{}},"more":1}}"#),
            format!("{} ", text(&atomic, "{}")) + "x",
            "[]".into(),
        ] {
            assert!(parse(bad.as_bytes(), Kind::Atomic).is_err(), "{bad}");
        }
        let long = text(&atomic, &format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_PAYLOAD)));
        assert!(parse(long.as_bytes(), Kind::Atomic).is_err());
    }
}
