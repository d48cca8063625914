//! The decision: whether an image fulfils what a policy demands of it.

use serde::Deserialize;
use serde::Serialize;

use super::Checked;
use super::collect::Material;
use super::collect::Wanted;
use super::identity::Identity;
use super::openpgp;
use super::origin::Origin;
use super::payload;
use super::policy;
use super::policy::Policy;
use super::policy::Requirement;
use super::policy::SignedBy;
use super::policy::Signer;
use super::policy::Sigstore;
use super::policy::Source;
use super::sigstore::Trusted;
use crate::Digest;
use crate::Error;
use crate::error::Result;

/// The image that is judged.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Where it comes from.
    pub origin: &'a Origin,
    /// What its name stands for.
    pub digest: &'a Digest,
    /// The document with that digest, verified against it.
    pub manifest: &'a [u8],
}

/// A signature that counts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accepted {
    /// `cosign`, `sigstore bundle` or `simple signing`.
    pub kind: String,
    /// The key's fingerprint, or whom the certificate is for.
    pub signer: String,
    /// Who vouched for the signer, for a certificate of Fulcio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The name that the signer gave to the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// When it was signed, in seconds since 1970: by a log's clock for a certificate, else by the signer's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<i64>,
    /// When it stops to count, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
}

impl Accepted {
    pub(super) fn by(signer: String) -> Self {
        Self { signer, ..Self::default() }
    }
}

/// Why an image may be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The signatures that counted, one for each requirement that wants one.
    pub accepted: Vec<Accepted>,
}

/// One signature, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// `cosign`, `sigstore bundle` or `simple signing`.
    pub kind: &'static str,
    /// Where it was found.
    pub found: String,
    /// Whether it counts, or why not.
    pub result: std::result::Result<Accepted, String>,
}

/// Decides about an image at a time in seconds since 1970. All requirements must be fulfilled, each by one signature.
///
/// # Errors
/// [`Error::Untrusted`] with the reasons, also when a key file cannot be read: what cannot be checked is refused.
pub fn check(policy: &Policy, subject: &Subject<'_>, material: &[Material], now: i64) -> Result<Decision> {
    let mut decision = Decision::default();
    for requirement in policy.requirements(subject.origin) {
        let accepted = fulfils(requirement, subject, material, now)
            .map_err(|reason| Error::Untrusted { image: subject.origin.to_string(), reason })?;
        decision.accepted.extend(accepted);
    }
    Ok(decision)
}

/// What becomes of every signature under the requirements that the policy has for the image.
///
/// # Errors
/// [`Error::Untrusted`] when a key file cannot be read.
pub fn examine(
    policy: &Policy,
    subject: &Subject<'_>,
    material: &[Material],
    now: i64,
) -> Result<Vec<Examined>> {
    let requirements = policy.requirements(subject.origin);
    let mut judges = Vec::new();
    for requirement in requirements {
        let judge = Judge::of(requirement)
            .map_err(|reason| Error::Untrusted { image: subject.origin.to_string(), reason })?;
        judges.extend(judge);
    }
    let examined = material.iter().map(|one| {
        let results =
            judges.iter().filter(|judge| judge.is_for(one)).map(|judge| judge.judge(subject, one, now));
        let result = results.reduce(|a, b| if a.is_ok() { a } else { b });
        let result = result.unwrap_or_else(|| Err("nothing demands such a signature here".into()));
        Examined { kind: one.kind(), found: one.found().to_owned(), result }
    });
    Ok(examined.collect())
}

fn fulfils(
    requirement: &Requirement,
    subject: &Subject<'_>,
    material: &[Material],
    now: i64,
) -> Checked<Option<Accepted>> {
    let judge = match requirement {
        Requirement::Accept => return Ok(None),
        Requirement::Reject => return Err("the policy rejects every image from there".into()),
        Requirement::SignedBy(_) | Requirement::Sigstore(_) => Judge::of(requirement)?,
    };
    let Some(judge) = judge else { return Err("a requirement that nobody can check".into()) };
    let mut reasons: Vec<String> = Vec::new();
    for one in material.iter().filter(|one| judge.is_for(one)) {
        match judge.judge(subject, one, now) {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.dedup();
    let kind = judge.kind();
    Err(match reasons.as_slice() {
        [] => format!("a {kind} signature is required, and there is none"),
        [one] => one.clone(),
        // A registry could offer 64 of them.
        many => {
            let shown = many[..many.len().min(4)].join("; ");
            format!("none of the {kind} signatures counts: {shown}")
        }
    })
}

/// A requirement that signatures can fulfil, ready to be applied.
enum Judge<'a> {
    Sigstore(Box<Trusted<'a>>),
    Simple { keyrings: Vec<Vec<u8>>, identity: &'a Identity },
}

impl<'a> Judge<'a> {
    fn of(requirement: &'a Requirement) -> Checked<Option<Self>> {
        Ok(match requirement {
            Requirement::Accept | Requirement::Reject => None,
            Requirement::Sigstore(sigstore) => Some(Self::Sigstore(Box::new(Trusted::load(sigstore)?))),
            Requirement::SignedBy(SignedBy { keys, identity }) => {
                let keyrings = keys.iter().map(Source::read).collect::<Checked<_>>()?;
                Some(Self::Simple { keyrings, identity })
            }
        })
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Sigstore(_) => "sigstore",
            Self::Simple { .. } => "simple (OpenPGP)",
        }
    }

    fn is_for(&self, material: &Material) -> bool {
        matches!(material, Material::Simple { .. }) == matches!(self, Self::Simple { .. })
    }

    fn judge(&self, subject: &Subject<'_>, material: &Material, now: i64) -> Checked<Accepted> {
        let mut accepted = match (self, material) {
            (Self::Sigstore(trusted), Material::Cosign { payload, annotations, .. }) => {
                trusted.cosign(subject, payload, annotations, now)?
            }
            (Self::Sigstore(trusted), Material::Bundle { json, .. }) => trusted.bundle(subject, json, now)?,
            (Self::Simple { keyrings, identity }, Material::Simple { message, .. }) => {
                let verified = openpgp::verify(message, keyrings, now)?;
                let said = payload::parse(&verified.content, payload::Kind::Atomic)?;
                if said.digest != *subject.digest {
                    return Err(format!("the signature is for another image, {}", said.digest));
                }
                identity.check(subject.origin.reference().as_ref(), Some(&said.reference))?;
                Accepted {
                    identity: Some(said.reference),
                    time: Some(verified.created),
                    expires: verified.expires,
                    ..Accepted::by(verified.fingerprint)
                }
            }
            _ => return Err("the signature is of another kind".into()),
        };
        accepted.kind = material.kind().to_owned();
        Ok(accepted)
    }
}

/// What a command line can demand, in place of a policy file. The name in the signature is not compared: whoever asks
/// names the image and the signer himself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Demand {
    /// A sigstore signature by one of the keys in a PEM file.
    Key {
        /// The file.
        key: std::path::PathBuf,
        /// The key of a log that must have it, in PEM.
        log: Option<std::path::PathBuf>,
    },
    /// A sigstore signature with a certificate.
    Keyless {
        /// Whom it must be for.
        identity: String,
        /// Who must have vouched for that.
        issuer: String,
        /// A sigstore trusted root.
        root: std::path::PathBuf,
    },
    /// A simple signature by a key of an OpenPGP keyring.
    Keyring(std::path::PathBuf),
}

impl Demand {
    /// The policy that demands this of every image.
    #[must_use]
    pub fn into_policy(self) -> Policy {
        let identity = Identity::MatchDigest;
        Policy::of(match self {
            Self::Key { key, log } => Requirement::Sigstore(Box::new(Sigstore {
                signer: Signer::Keys(vec![Source::Path(key)]),
                rekor: log.into_iter().map(Source::Path).collect(),
                root: None,
                identity,
            })),
            Self::Keyless { identity: subject, issuer, root } => Requirement::Sigstore(Box::new(Sigstore {
                signer: Signer::Fulcio {
                    ca: None,
                    issuer,
                    subject: policy::Subject::Any(subject),
                    ct_log: None,
                },
                rekor: Vec::new(),
                root: Some(Source::Path(root)),
                identity,
            })),
            Self::Keyring(keyring) => {
                Requirement::SignedBy(SignedBy { keys: vec![Source::Path(keyring)], identity })
            }
        })
    }

    /// The kinds of signatures that can fulfil it.
    #[must_use]
    pub fn wants(&self) -> Wanted {
        let simple = matches!(self, Self::Keyring(_));
        Wanted { simple, sigstore: !simple }
    }
}
