//! Entries of a Rekor transparency log, checked offline.
//!
//! A log promises an entry with a signed entry timestamp (a signature over body, time, log and index) or proves it
//! with a path to a signed tree head (`proof`). Only the former says *when*. And an entry is worth something only if
//! it is about this very signature: its body must name the same content, the same signature and the same signer.

use serde_json::Value;

use super::Checked;
use super::json;
use super::key::PublicKey;
use super::key::hex;
use super::key::sha256;
use super::key::unhex;
use super::proof;
use super::proof::Proof;

/// Largest body of an entry, in bytes.
const MAX_BODY: usize = 1 << 20;

/// An entry as a signature brings it along.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// The canonical body.
    pub(super) body: Vec<u8>,
    /// Seconds since 1970; zero in logs that do not tell.
    pub(super) integrated_time: i64,
    pub(super) log_index: i64,
    /// SHA-256 of the log's key.
    pub(super) log_id: Vec<u8>,
    /// The signed entry timestamp.
    pub(super) promise: Option<Vec<u8>>,
    pub(super) proof: Option<Proof>,
}

/// A log that is trusted, and from when to when.
#[derive(Debug, Clone)]
pub(super) struct Log {
    pub(super) key: PublicKey,
    /// The id it goes by, where that is not the key's.
    pub(super) id: Option<Vec<u8>>,
    pub(super) valid: (Option<i64>, Option<i64>),
}

impl Log {
    /// A log known by its key alone.
    pub(super) fn of(key: PublicKey) -> Self {
        Self { key, id: None, valid: (None, None) }
    }

    fn is(&self, id: &[u8]) -> bool {
        self.key.id() == id || self.id.as_deref() == Some(id)
    }

    pub(super) fn was_valid(&self, time: i64) -> bool {
        self.valid.0.is_none_or(|start| start <= time) && self.valid.1.is_none_or(|end| time <= end)
    }
}

/// What an entry must be about.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    /// What was signed: the payload itself, also inside an envelope.
    pub(super) payload: &'a [u8],
    /// What the signature was computed over, where that differs (an envelope's encoding).
    pub(super) message: &'a [u8],
    pub(super) signature: &'a [u8],
    /// The certificate, or the public key, in DER.
    pub(super) signer: &'a [u8],
}

/// Checks an entry; the time at which the log promised it, if it did.
pub(super) fn verify(entry: &Entry, logs: &[Log], about: &About<'_>) -> Checked<Option<i64>> {
    if entry.body.len() > MAX_BODY {
        return Err("the log entry is larger than 1 MiB".into());
    }
    let log = logs
        .iter()
        .find(|log| log.is(&entry.log_id))
        .ok_or_else(|| format!("the log {} is not a known one", hex(&entry.log_id)))?;
    let mut time = None;
    if let Some(promise) = &entry.promise {
        if !log.key.verify(&entry.canonical(), promise) {
            return Err("the log's signed entry timestamp does not hold".into());
        }
        if !log.was_valid(entry.integrated_time) {
            return Err("the log was not in use at the time of its entry".into());
        }
        time = Some(entry.integrated_time);
    }
    if let Some(proof) = &entry.proof {
        proof::verify(proof, &entry.body, &log.key)?;
    }
    if entry.promise.is_none() && entry.proof.is_none() {
        return Err("the log entry has neither a signed timestamp nor a proof".into());
    }
    check_body(&entry.body, about)?;
    Ok(time)
}

impl Entry {
    /// Reads the annotation `dev.sigstore.cosign/bundle`.
    pub(super) fn from_annotation(text: &str) -> Checked<Self> {
        let what = "the log entry";
        let mut outer = json::Fields::of(what, json::parse(text.as_bytes())?)?;
        let promise =
            outer.bytes("SignedEntryTimestamp")?.ok_or("the log entry has no SignedEntryTimestamp")?;
        let mut payload = json::Fields::of(what, outer.need("Payload")?)?;
        outer.done()?;
        let body = payload.bytes("body")?.ok_or("the log entry has no body")?;
        let number = |value: Value| value.as_i64().ok_or("the log entry has a number that is none");
        let integrated_time = number(payload.need("integratedTime")?)?;
        let log_index = number(payload.need("logIndex")?)?;
        let log_id = unhex(&payload.text("logID")?).ok_or("the log entry has an id that is not hex")?;
        payload.done()?;
        Ok(Self { body, integrated_time, log_index, log_id, promise: Some(promise), proof: None })
    }

    /// What the signed entry timestamp is over: RFC 8785 JSON, keys sorted.
    fn canonical(&self) -> Vec<u8> {
        format!(
            r#"{{"body":"{}","integratedTime":{},"logID":"{}","logIndex":{}}}"#,
            json::to_base64(&self.body),
            self.integrated_time,
            hex(&self.log_id),
            self.log_index
        )
        .into_bytes()
    }
}

/// Compares an entry's body with what it must be about.
fn check_body(body: &[u8], about: &About<'_>) -> Checked<()> {
    let body = json::parse(body).map_err(|e| format!("the log entry's body is {e}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let bytes = |value: &Value| json::base64(&text(value)).unwrap_or_default();
    let spec = &body["spec"];
    let (kind, version) = (text(&body["kind"]), text(&body["apiVersion"]));
    let is_sha256 = |value: &Value| matches!(value.as_str(), Some("sha256" | "SHA2_256"));
    let digest_hex = |value: &Value, of: &[u8]| {
        is_sha256(&value["algorithm"]) && text(&value["value"]).eq_ignore_ascii_case(&hex(&sha256(of)))
    };
    let digest_raw =
        |value: &Value, of: &[u8]| is_sha256(&value["algorithm"]) && bytes(&value["digest"]) == sha256(of);
    let pem_signer = |pem: &[u8]| der_of(pem).is_some_and(|der| der == about.signer);
    let raw_signer = |verifier: &Value| {
        let certificate = bytes(&verifier["x509Certificate"]["rawBytes"]);
        let key = bytes(&verifier["publicKey"]["rawBytes"]);
        !about.signer.is_empty() && (certificate == about.signer || key == about.signer)
    };
    // content, signature, signer
    let found = match (kind.as_str(), version.as_str()) {
        ("hashedrekord", "0.0.1") => {
            let signature = &spec["signature"];
            (
                digest_hex(&spec["data"]["hash"], about.message),
                bytes(&signature["content"]) == about.signature,
                pem_signer(&bytes(&signature["publicKey"]["content"])),
            )
        }
        ("dsse", "0.0.1") => {
            let [signature] = spec["signatures"].as_array().map_or(&[][..], Vec::as_slice) else {
                return Err("the log entry has not exactly one signature".into());
            };
            (
                digest_hex(&spec["payloadHash"], about.payload),
                bytes(&signature["signature"]) == about.signature,
                pem_signer(&bytes(&signature["verifier"])),
            )
        }
        ("intoto", "0.0.2") => {
            let envelope = &spec["content"]["envelope"];
            let [signature] = envelope["signatures"].as_array().map_or(&[][..], Vec::as_slice) else {
                return Err("the log entry has not exactly one signature".into());
            };
            // The signature is encoded twice in this kind.
            let sig = String::from_utf8(bytes(&signature["sig"])).unwrap_or_default();
            (
                digest_hex(&spec["content"]["payloadHash"], about.payload),
                json::base64(&sig).is_ok_and(|sig| sig == about.signature),
                pem_signer(&bytes(&signature["publicKey"])),
            )
        }
        ("hashedrekord", "0.0.2") => {
            let record = &spec["hashedRekordV002"];
            (
                digest_raw(&record["data"], about.message),
                bytes(&record["signature"]["content"]) == about.signature,
                raw_signer(&record["signature"]["verifier"]),
            )
        }
        ("dsse", "0.0.2") => {
            let record = &spec["dsseV002"];
            let [signature] = record["signatures"].as_array().map_or(&[][..], Vec::as_slice) else {
                return Err("the log entry has not exactly one signature".into());
            };
            (
                digest_raw(&record["payloadHash"], about.payload),
                bytes(&signature["content"]) == about.signature,
                raw_signer(&signature["verifier"]),
            )
        }
        _ => {
            return Err(format!(
                "the log entry is of the unknown kind \"{} {}\"",
                kind.escape_default(),
                version.escape_default()
            ));
        }
    };
    match found {
        (true, true, true) => Ok(()),
        (false, ..) => Err("the log entry is about other content".into()),
        (_, false, _) => Err("the log entry is about another signature".into()),
        (.., false) => Err("the log entry is about another signer".into()),
    }
}

/// The bytes of the only block of a PEM text, whatever its label.
fn der_of(pem: &[u8]) -> Option<Vec<u8>> {
    use rustls_pki_types::pem::PemObject as _;
    use rustls_pki_types::pem::SectionKind;
    <(SectionKind, Vec<u8>)>::from_pem_slice(pem).ok().map(|(_, der)| der)
}
