//! Sigstore's trusted root (`application/vnd.dev.sigstore.trustedroot+json`): authorities and logs of one sigstore
//! instance, each with the time it was in use. Which one to trust is the policy's decision; none is built in.

use rustls_pki_types::CertificateDer;
use serde_json::Value;

use super::Checked;
use super::json;
use super::key::PublicKey;
use super::rekor::Log;
use super::time;

/// Most entries of each kind.
const MAX_ENTRIES: usize = 64;

/// What a trusted root contains.
#[derive(Debug, Default)]
pub(super) struct TrustedRoot {
    pub(super) authorities: Vec<Authority>,
    /// Transparency logs of signatures.
    pub(super) logs: Vec<Log>,
    /// Transparency logs of certificates.
    pub(super) certificate_logs: Vec<Log>,
}

/// An authority: its certificates, the root's last.
#[derive(Debug)]
pub(super) struct Authority {
    pub(super) chain: Vec<CertificateDer<'static>>,
    valid: (Option<i64>, Option<i64>),
}

impl Authority {
    pub(super) fn was_valid(&self, time: i64) -> bool {
        self.valid.0.is_none_or(|start| start <= time) && self.valid.1.is_none_or(|end| time <= end)
    }
}

impl TrustedRoot {
    /// Reads `trusted_root.json`. Fields that are not needed are skipped: later versions may have more.
    pub(super) fn parse(bytes: &[u8]) -> Checked<Self> {
        let value = json::parse(bytes)?;
        let kind = value["mediaType"].as_str().unwrap_or_default();
        if !kind.starts_with("application/vnd.dev.sigstore.trustedroot") {
            return Err("not a sigstore trusted root".into());
        }
        let mut root = Self::default();
        for entry in list(&value, "tlogs")? {
            root.logs.extend(log(entry)?);
        }
        for entry in list(&value, "ctlogs")? {
            root.certificate_logs.extend(log(entry)?);
        }
        for entry in list(&value, "certificateAuthorities")? {
            let chain = list(&entry["certChain"], "certificates")?
                .iter()
                .map(|certificate| raw(certificate).map(CertificateDer::from))
                .collect::<Checked<Vec<_>>>()?;
            if chain.is_empty() {
                return Err("an authority of the trusted root has no certificate".into());
            }
            root.authorities.push(Authority { chain, valid: valid(&entry["validFor"])? });
        }
        Ok(root)
    }
}

fn list<'a>(value: &'a Value, key: &str) -> Checked<&'a [Value]> {
    let list = match &value[key] {
        Value::Null => &[][..],
        Value::Array(list) => list.as_slice(),
        _ => return Err(format!("\"{key}\" of the trusted root is not a list")),
    };
    if list.len() > MAX_ENTRIES {
        return Err(format!("\"{key}\" of the trusted root has more than {MAX_ENTRIES} entries"));
    }
    Ok(list)
}

/// A log, or none if its key is of a kind that this version cannot check: signatures of it then do not count.
fn log(entry: &Value) -> Checked<Option<Log>> {
    let key = &entry["publicKey"];
    let Ok(public) = PublicKey::from_spki(&raw(key)?) else { return Ok(None) };
    let id = entry["logId"]["keyId"].as_str().map(json::base64).transpose()?;
    Ok(Some(Log { key: public, id, valid: valid(&key["validFor"])? }))
}

fn raw(value: &Value) -> Checked<Vec<u8>> {
    json::base64(value["rawBytes"].as_str().ok_or("an entry of the trusted root has no rawBytes")?)
}

fn valid(value: &Value) -> Checked<(Option<i64>, Option<i64>)> {
    let at = |key: &str| match &value[key] {
        Value::Null => Ok(None),
        found => found
            .as_str()
            .and_then(time::rfc3339)
            .map(Some)
            .ok_or_else(|| format!("\"{key}\" in the trusted root is not a time")),
    };
    Ok((at("start")?, at("end")?))
}
