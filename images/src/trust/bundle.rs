//! Sigstore bundles (`application/vnd.dev.sigstore.bundle.v0.3+json`, and 0.1 and 0.2): a signature together with the
//! certificate and the log entries that make it verifiable without a network.
//!
//! Time stamps of RFC 3161 are not read: a certificate's time comes from a log's signed entry timestamp only.

use serde_json::Value;

use super::Checked;
use super::json;
use super::key::hex;
use super::key::sha256;
use super::proof::Proof;
use super::rekor::Entry;

/// Largest bundle, in bytes.
pub(super) const MAX_BUNDLE: usize = 4 << 20;
/// Most log entries.
const MAX_ENTRIES: usize = 8;
/// Most certificates.
const MAX_CHAIN: usize = 16;
/// Most subjects of a statement that are looked at.
const MAX_SUBJECTS: usize = 1024;
/// What cosign says about an image it signs.
const COSIGN_SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

/// A bundle, its parts found; nothing is verified yet.
#[derive(Debug)]
pub(super) struct Bundle {
    /// The signer's certificate.
    pub(super) certificate: Option<Vec<u8>>,
    /// Certificates between it and the authority, as the signer sent them.
    pub(super) intermediates: Vec<Vec<u8>>,
    pub(super) entries: Vec<Entry>,
    pub(super) content: Content,
    pub(super) signature: Vec<u8>,
}

/// What is signed.
#[derive(Debug)]
pub(super) enum Content {
    /// A statement in an envelope (DSSE).
    Envelope {
        /// The statement.
        payload: Vec<u8>,
        /// What the signature is over.
        encoded: Vec<u8>,
    },
    /// Content that is not part of the bundle, by its SHA-256.
    Message([u8; 32]),
}

impl Bundle {
    /// Finds the parts.
    pub(super) fn parse(bytes: &[u8]) -> Checked<Self> {
        if bytes.len() > MAX_BUNDLE {
            return Err("the bundle is larger than 4 MiB".into());
        }
        let value = json::parse(bytes)?;
        let media_type = text(&value["mediaType"]);
        if !is_bundle(media_type) {
            return Err(format!("the bundle has the unknown media type \"{}\"", media_type.escape_default()));
        }
        let material = &value["verificationMaterial"];
        let mut chain = Vec::new();
        if let Some(one) = material.get("certificate") {
            chain.push(bytes_of(&one["rawBytes"])?);
        }
        if let Some(many) = material["x509CertificateChain"]["certificates"].as_array() {
            for certificate in many.iter().take(MAX_CHAIN) {
                chain.push(bytes_of(&certificate["rawBytes"])?);
            }
        }
        let mut entries = Vec::new();
        for entry in material["tlogEntries"].as_array().into_iter().flatten().take(MAX_ENTRIES) {
            entries.push(log_entry(entry)?);
        }
        let (content, signature) = match (value.get("dsseEnvelope"), value.get("messageSignature")) {
            (Some(envelope), None) => dsse(envelope)?,
            (None, Some(message)) => {
                let digest = &message["messageDigest"];
                if text(&digest["algorithm"]) != "SHA2_256" {
                    return Err("the bundle's digest is not SHA-256".into());
                }
                let digest = <[u8; 32]>::try_from(bytes_of(&digest["digest"])?);
                let digest = digest.map_err(|_| "the bundle's digest has a wrong length")?;
                (Content::Message(digest), bytes_of(&message["signature"])?)
            }
            _ => return Err("the bundle has not exactly one signature".into()),
        };
        let mut chain = chain.into_iter();
        Ok(Self { certificate: chain.next(), intermediates: chain.collect(), entries, content, signature })
    }
}

impl Content {
    /// What the signature is over. `manifest` is the image's.
    pub(super) fn signed<'a>(&'a self, manifest: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Envelope { encoded, .. } => encoded,
            Self::Message(_) => manifest,
        }
    }

    /// What a log entry's hash of the payload is over.
    pub(super) fn payload<'a>(&'a self, manifest: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Envelope { payload, .. } => payload,
            Self::Message(_) => manifest,
        }
    }

    /// Whether this is about the image with this manifest, and the name it gives to the image.
    pub(super) fn about(&self, manifest: &[u8]) -> Checked<Option<String>> {
        let digest = sha256(manifest);
        match self {
            Self::Message(signed) if *signed == digest => Ok(None),
            Self::Message(_) => Err("the signature is for another image".into()),
            Self::Envelope { payload, .. } => {
                let statement = json::parse(payload).map_err(|e| format!("the statement is {e}"))?;
                let kind = text(&statement["_type"]);
                if !matches!(kind, "https://in-toto.io/Statement/v1" | "https://in-toto.io/Statement/v0.1") {
                    return Err(format!(
                        "the statement is of the unknown type \"{}\"",
                        kind.escape_default()
                    ));
                }
                // A statement of another kind (an SBOM, a provenance) is no consent to run the image.
                let predicate = text(&statement["predicateType"]);
                if predicate != COSIGN_SIGN {
                    return Err(format!(
                        "is an attestation ({}), not a signature",
                        predicate.escape_default()
                    ));
                }
                let wanted = hex(&digest);
                let subjects = statement["subject"].as_array().into_iter().flatten().take(MAX_SUBJECTS);
                let subject = subjects
                    .into_iter()
                    .find(|subject| text(&subject["digest"]["sha256"]) == wanted)
                    .ok_or("the signature is for another image")?;
                Ok(Some(text(&subject["name"]).to_owned()).filter(|name| !name.is_empty()))
            }
        }
    }
}

/// Whether this is the media type of a bundle that can be read.
pub(super) fn is_bundle(media_type: &str) -> bool {
    matches!(
        media_type,
        "application/vnd.dev.sigstore.bundle.v0.3+json"
            | "application/vnd.dev.sigstore.bundle+json;version=0.3"
            | "application/vnd.dev.sigstore.bundle+json;version=0.2"
            | "application/vnd.dev.sigstore.bundle+json;version=0.1"
    )
}

fn dsse(envelope: &Value) -> Checked<(Content, Vec<u8>)> {
    let kind = text(&envelope["payloadType"]);
    if kind != "application/vnd.in-toto+json" {
        return Err(format!("the envelope holds the unknown \"{}\"", kind.escape_default()));
    }
    let payload = bytes_of(&envelope["payload"])?;
    let [signature] = envelope["signatures"].as_array().map_or(&[][..], Vec::as_slice) else {
        return Err("the envelope has not exactly one signature".into());
    };
    let signature = bytes_of(&signature["sig"])?;
    let encoded = pre_authentication(kind, &payload);
    Ok((Content::Envelope { payload, encoded }, signature))
}

/// What a DSSE signature is over, version 1.
pub(super) fn pre_authentication(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    out.extend(payload);
    out
}

fn log_entry(value: &Value) -> Checked<Entry> {
    let proof = match value.get("inclusionProof").filter(|proof| !proof.is_null()) {
        Some(proof) => Some(Proof {
            index: unsigned(&proof["logIndex"])?,
            size: unsigned(&proof["treeSize"])?,
            root: bytes_of(&proof["rootHash"])?,
            hashes: proof["hashes"].as_array().into_iter().flatten().map(bytes_of).collect::<Checked<_>>()?,
            checkpoint: text(&proof["checkpoint"]["envelope"]).to_owned(),
        }),
        None => None,
    };
    let promise = &value["inclusionPromise"]["signedEntryTimestamp"];
    Ok(Entry {
        body: bytes_of(&value["canonicalizedBody"])?,
        integrated_time: signed(&value["integratedTime"])?,
        log_index: signed(&value["logIndex"])?,
        log_id: bytes_of(&value["logId"]["keyId"])?,
        promise: if promise.is_null() { None } else { Some(bytes_of(promise)?) },
        proof,
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn bytes_of(value: &Value) -> Checked<Vec<u8>> {
    json::base64(value.as_str().ok_or("the bundle lacks a field")?)
}

/// 64-bit numbers are strings in this JSON; zero is left out.
fn signed(value: &Value) -> Checked<i64> {
    match value {
        Value::Null => Some(0),
        Value::String(text) => text.parse().ok(),
        other => other.as_i64(),
    }
    .ok_or_else(|| "the bundle has a number that is none".into())
}

fn unsigned(value: &Value) -> Checked<u64> {
    u64::try_from(signed(value)?).map_err(|_| "the bundle has a negative number".into())
}
