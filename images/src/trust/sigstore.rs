//! Sigstore signatures: what a `sigstoreSigned` requirement trusts, and whether a signature satisfies it.

use std::collections::BTreeMap;

use rustls_pki_types::CertificateDer;

use super::Checked;
use super::bundle::Bundle;
use super::certificate;
use super::certificate::Certificate;
use super::json;
use super::key::PublicKey;
use super::payload;
use super::policy;
use super::policy::Signer;
use super::policy::Source;
use super::rekor;
use super::rekor::About;
use super::rekor::Entry;
use super::rekor::Log;
use super::sct;
use super::trusted_root::TrustedRoot;
use super::verify::Accepted;
use super::verify::Subject;

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
const CERTIFICATE: &str = "dev.sigstore.cosign/certificate";
const CHAIN: &str = "dev.sigstore.cosign/chain";
const BUNDLE: &str = "dev.sigstore.cosign/bundle";
/// The annotations that say something about a signature.
pub(super) const ANNOTATIONS: [&str; 4] = [SIGNATURE, CERTIFICATE, CHAIN, BUNDLE];

/// A requirement with its keys and certificates read.
#[derive(Debug)]
pub(super) struct Trusted<'a> {
    requirement: &'a policy::Sigstore,
    signer: TrustedSigner<'a>,
    /// With any, every signature must be in one of them.
    logs: Vec<Log>,
}

#[derive(Debug)]
enum TrustedSigner<'a> {
    Keys(Vec<PublicKey>),
    Fulcio {
        authorities: Vec<Authority>,
        issuer: &'a str,
        subject: &'a policy::Subject,
        /// With any, every certificate must be in one of them.
        certificate_logs: Vec<Log>,
    },
    Pki {
        authority: Authority,
        email: Option<&'a str>,
        hostname: Option<&'a str>,
    },
}

/// One authority: where a path may end, and what may lie on it.
#[derive(Debug)]
struct Authority {
    roots: Vec<CertificateDer<'static>>,
    intermediates: Vec<CertificateDer<'static>>,
    /// Seconds since 1970.
    window: Option<super::trusted_root::Authority>,
}

/// A signature, with everything that came along.
struct Evidence<'a> {
    about: AboutParts<'a>,
    certificate: Option<Vec<u8>>,
    intermediates: Vec<CertificateDer<'static>>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct AboutParts<'a> {
    payload: &'a [u8],
    message: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Trusted<'a> {
    /// Reads what a requirement names.
    pub(super) fn load(requirement: &'a policy::Sigstore) -> Checked<Self> {
        let mut logs = Vec::new();
        for source in &requirement.rekor {
            logs.extend(keys(source)?.into_iter().map(Log::of));
        }
        let root = match &requirement.root {
            Some(source) => Some(TrustedRoot::parse(&source.read()?).map_err(|e| named(source, &e))?),
            None => None,
        };
        let root = root.unwrap_or_default();
        if requirement.rekor.is_empty() {
            logs = root.logs;
        }
        let signer = match &requirement.signer {
            Signer::Keys(sources) => {
                let lists = sources.iter().map(keys).collect::<Checked<Vec<_>>>()?;
                TrustedSigner::Keys(lists.into_iter().flatten().collect())
            }
            Signer::Fulcio { ca, issuer, subject, ct_log } => {
                let authorities = match ca {
                    Some(source) => vec![Authority {
                        roots: certificates(source)?,
                        intermediates: Vec::new(),
                        window: None,
                    }],
                    None => root.authorities.into_iter().map(Authority::of).collect(),
                };
                if authorities.is_empty() {
                    return Err("the trusted root names no certificate authority".into());
                }
                if logs.is_empty() {
                    return Err("the trusted root names no usable transparency log".into());
                }
                let certificate_logs = match ct_log {
                    Some(source) => keys(source)?.into_iter().map(Log::of).collect(),
                    None => root.certificate_logs,
                };
                TrustedSigner::Fulcio { authorities, issuer, subject, certificate_logs }
            }
            Signer::Pki { roots, intermediates, email, hostname } => TrustedSigner::Pki {
                authority: Authority {
                    roots: certificates(roots)?,
                    intermediates: intermediates.as_ref().map(certificates).transpose()?.unwrap_or_default(),
                    window: None,
                },
                email: email.as_deref(),
                hostname: hostname.as_deref(),
            },
        };
        Ok(Self { requirement, signer, logs })
    }

    /// Judges a payload with cosign's annotations.
    pub(super) fn cosign(
        &self,
        subject: &Subject<'_>,
        payload: &[u8],
        annotations: &BTreeMap<String, String>,
        now: i64,
    ) -> Checked<Accepted> {
        let signature = annotations.get(SIGNATURE).ok_or("the signature itself is missing")?;
        let signature = json::base64(signature)?;
        let chain = |name: &str| match annotations.get(name).filter(|text| !text.trim().is_empty()) {
            Some(pem) => certificate::from_pem(pem.as_bytes()),
            None => Ok(Vec::new()),
        };
        let certificate = match chain(CERTIFICATE)?.as_slice() {
            [] => None,
            [one] => Some(one.to_vec()),
            _ => return Err("there are several certificates where the signer's is expected".into()),
        };
        let entries = annotations.get(BUNDLE).map(|text| Entry::from_annotation(text)).transpose()?;
        let evidence = Evidence {
            about: AboutParts { payload, message: payload, signature: &signature },
            certificate,
            intermediates: chain(CHAIN)?,
            entries: entries.into_iter().collect(),
        };
        let mut accepted = self.signer(&evidence, now)?;
        let said = payload::parse(payload, payload::Kind::Cosign)?;
        if said.digest != *subject.digest {
            return Err(format!("the signature is for another image, {}", said.digest));
        }
        let reference = Some(said.reference).filter(|text| !text.is_empty());
        self.requirement.identity.check(subject.origin.reference().as_ref(), reference.as_deref())?;
        accepted.identity = reference;
        accepted.time = accepted.time.or(said.timestamp);
        Ok(accepted)
    }

    /// Judges a bundle.
    pub(super) fn bundle(&self, subject: &Subject<'_>, bytes: &[u8], now: i64) -> Checked<Accepted> {
        let bundle = Bundle::parse(bytes)?;
        let evidence = Evidence {
            about: AboutParts {
                payload: bundle.content.payload(subject.manifest),
                message: bundle.content.signed(subject.manifest),
                signature: &bundle.signature,
            },
            certificate: bundle.certificate,
            intermediates: bundle.intermediates.into_iter().map(CertificateDer::from).collect(),
            entries: bundle.entries,
        };
        let mut accepted = self.signer(&evidence, now)?;
        let reference = bundle.content.about(subject.manifest)?;
        self.requirement.identity.check(subject.origin.reference().as_ref(), reference.as_deref())?;
        accepted.identity = reference;
        Ok(accepted)
    }

    /// Whether somebody who is trusted made the signature. What it says is not looked at.
    fn signer(&self, evidence: &Evidence<'_>, now: i64) -> Checked<Accepted> {
        let about = evidence.about;
        match &self.signer {
            TrustedSigner::Keys(keys) => {
                let key = keys.iter().find(|key| key.verify(about.message, about.signature));
                let key = key.ok_or("the signature is not by the expected key")?;
                let time = self.logged(evidence, key.spki())?;
                Ok(Accepted { time, ..Accepted::by(key.fingerprint()) })
            }
            TrustedSigner::Fulcio { authorities, issuer, subject, certificate_logs } => {
                let der = evidence.certificate.as_deref().ok_or("the signature has no certificate")?;
                let leaf = Certificate::parse(der)?;
                if !leaf.key()?.verify(about.message, about.signature) {
                    return Err("the signature is not by the certificate's key".into());
                }
                // A certificate lives for minutes: only somebody else's clock tells that it was used in time.
                let time =
                    self.logged(evidence, der)?.ok_or("no log promises when the signature was made")?;
                let path = authorities
                    .iter()
                    .map(|authority| authority.verify(der, &evidence.intermediates, time))
                    .reduce(|a, b| if a.is_ok() { a } else { b });
                path.unwrap_or(Err("no certificate authority is known".into()))?;
                if !certificate_logs.is_empty() {
                    let keys: Vec<PublicKey> = certificate_logs.iter().map(|log| log.key.clone()).collect();
                    let mut issuers = Vec::new();
                    for der in authorities.iter().flat_map(Authority::all).chain(&evidence.intermediates) {
                        issuers.push(Certificate::parse(der)?.spki);
                    }
                    sct::verify(&leaf, &issuers, &keys)?;
                }
                let found = leaf.issuer()?;
                if found != *issuer {
                    return Err(format!("the signer was identified by \"{}\"", found.escape_default()));
                }
                let names = leaf.names()?;
                let signer = match subject {
                    policy::Subject::Email(wanted) => names.emails.iter().find(|name| *name == wanted),
                    policy::Subject::Uri(wanted) => names.uris.iter().find(|name| *name == wanted),
                    policy::Subject::Any(wanted) => {
                        names.emails.iter().chain(&names.uris).find(|name| *name == wanted)
                    }
                };
                let signer = signer.cloned().ok_or_else(|| {
                    let all: Vec<_> = names.emails.iter().chain(&names.uris).cloned().collect();
                    format!("is signed by \"{}\"", all.join(", ").escape_default())
                })?;
                Ok(Accepted { issuer: Some(found), time: Some(time), ..Accepted::by(signer) })
            }
            TrustedSigner::Pki { authority, email, hostname } => {
                let der = evidence.certificate.as_deref().ok_or("the signature has no certificate")?;
                let leaf = Certificate::parse(der)?;
                if !leaf.key()?.verify(about.message, about.signature) {
                    return Err("the signature is not by the certificate's key".into());
                }
                authority.verify(der, &evidence.intermediates, now)?;
                if let Some(email) = email
                    && !leaf.names()?.emails.iter().any(|name| name == email)
                {
                    return Err(format!("the certificate is not for {email}"));
                }
                if let Some(hostname) = hostname {
                    certificate::is_for_host(der, hostname)?;
                }
                let time = self.logged(evidence, der)?;
                let signer = email.or(*hostname).unwrap_or_default().to_owned();
                Ok(Accepted { time, expires: Some(leaf.valid.1), ..Accepted::by(signer) })
            }
        }
    }

    /// Whether a known log has the signature, if one must; when, if it promises that.
    fn logged(&self, evidence: &Evidence<'_>, signer: &[u8]) -> Checked<Option<i64>> {
        if self.logs.is_empty() {
            return Ok(None);
        }
        let AboutParts { payload, message, signature } = evidence.about;
        let about = About { payload, message, signature, signer };
        let mut reason = "the signature is in no transparency log".to_owned();
        for entry in &evidence.entries {
            match rekor::verify(entry, &self.logs, &about) {
                Ok(time) => return Ok(time),
                Err(found) => reason = found,
            }
        }
        Err(reason)
    }
}

impl Authority {
    /// One of a trusted root: the last certificate is the root's.
    fn of(found: super::trusted_root::Authority) -> Self {
        let mut intermediates = found.chain.clone();
        let roots = intermediates.pop().into_iter().collect();
        Self { roots, intermediates, window: Some(found) }
    }

    fn all(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        self.roots.iter().chain(&self.intermediates)
    }

    fn verify(&self, leaf: &[u8], sent: &[CertificateDer<'static>], time: i64) -> Checked<()> {
        if self.window.as_ref().is_some_and(|window| !window.was_valid(time)) {
            return Err("the certificate authority was not in use at the time of the signature".into());
        }
        let intermediates: Vec<_> = self.intermediates.iter().chain(sent).cloned().collect();
        certificate::verify_path(leaf, &self.roots, &intermediates, time)
    }
}

fn keys(source: &Source) -> Checked<Vec<PublicKey>> {
    PublicKey::from_pem(&source.read()?).map_err(|e| named(source, &e))
}

fn certificates(source: &Source) -> Checked<Vec<CertificateDer<'static>>> {
    certificate::from_pem(&source.read()?).map_err(|e| named(source, &e))
}

/// A reason, with the file that it is about.
fn named(source: &Source, reason: &str) -> String {
    match source.path() {
        Some(path) => format!("{}: {reason}", path.display()),
        None => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests;
