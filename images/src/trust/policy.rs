//! The policy file: containers-policy.json(5), read strictly.
//!
//! A policy says for each image, by where it comes from, what must hold before it may be used. It is a gate, so a
//! file that cannot be read or understood is an error and never means "accept". Key files are read when a
//! requirement is checked; a path in it is used as it is. Not supported: `signedBaseLayer`.
//!
//! Dhow's own additions, which other programs refuse: `trustedRootPath`/`trustedRootData` beside `fulcio`,
//! `subjectURI` and `ctLogPublicKeyPath`/`-Data` inside it, and the identity `matchDigest`.

use std::collections::BTreeMap;
use std::path::Path;
use std::path::PathBuf;

use serde_json::Value;

use super::Checked;
use super::identity::Identity;
use super::json;
use super::json::Fields;
use super::origin::Origin;
use crate::Error;
use crate::error::Result;

/// Largest policy or key file, in bytes.
pub(super) const MAX_FILE: u64 = 4 << 20;

/// What must hold for images, by where they come from.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The file, as errors and records name it.
    path: PathBuf,
    default: Vec<Requirement>,
    transports: BTreeMap<String, BTreeMap<String, Vec<Requirement>>>,
}

/// One thing that must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Requirement {
    /// Always fulfilled.
    Accept,
    /// Never fulfilled.
    Reject,
    /// A simple signature.
    SignedBy(SignedBy),
    /// A sigstore signature.
    Sigstore(Box<Sigstore>),
}

/// `signedBy`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SignedBy {
    /// OpenPGP keyrings.
    pub(super) keys: Vec<Source>,
    /// For which name.
    pub(super) identity: Identity,
}

/// `sigstoreSigned`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sigstore {
    /// Who signs.
    pub(super) signer: Signer,
    /// Keys of transparency logs, in PEM; with one, every signature must be in that log.
    pub(super) rekor: Vec<Source>,
    /// A sigstore trusted root, with authorities and logs.
    pub(super) root: Option<Source>,
    /// For which name.
    pub(super) identity: Identity,
}

/// Who makes a sigstore signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Signer {
    /// The owner of one of these public keys, in PEM.
    Keys(Vec<Source>),
    /// Somebody whom a Fulcio authority certified.
    Fulcio {
        /// Certificates of authorities, in PEM; else those of the trusted root.
        ca: Option<Source>,
        /// Who vouched for the signer.
        issuer: String,
        /// The signer.
        subject: Subject,
        /// Keys of certificate logs, in PEM: certificates must then prove that they are in one.
        ct_log: Option<Source>,
    },
    /// Somebody with a certificate of an ordinary authority, valid now.
    Pki {
        /// Certificates of authorities, in PEM.
        roots: Source,
        /// Certificates between them and the signer's, in PEM.
        intermediates: Option<Source>,
        /// The signer's address.
        email: Option<String>,
        /// The signer's host.
        hostname: Option<String>,
    },
}

/// Whom a certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A mail address.
    Email(String),
    /// A URI: a workflow or a service.
    Uri(String),
    /// Either, as the command line takes it.
    Any(String),
}

/// Bytes that a policy names or contains.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// A file.
    Path(PathBuf),
    /// The bytes.
    Data(Vec<u8>),
}

impl Source {
    /// The bytes. Keys are public: a file that others may read is in order.
    pub(super) fn read(&self) -> Checked<Vec<u8>> {
        match self {
            Self::Path(path) => read_file(path).map_err(|e| e.to_string()),
            Self::Data(bytes) => Ok(bytes.clone()),
        }
    }

    pub(super) fn path(&self) -> Option<&Path> {
        match self {
            Self::Path(path) => Some(path),
            Self::Data(_) => None,
        }
    }
}

/// Reads a small file whole.
pub(super) fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            format!("{}: is larger than 4 MiB", path.display()),
        ));
    }
    Ok(bytes)
}

impl Policy {
    /// Reads a policy file.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`] when it cannot be read, is larger than 4 MiB or says something unknown.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = read_file(path).map_err(|e| Error::InvalidPolicy {
            path: path.display().to_string(),
            reason: format!("cannot be read: {e}"),
        })?;
        Self::parse(path, &bytes)
    }

    /// Reads the text of a policy; `path` is how errors and records name it.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let parse = || {
            let mut fields = Fields::of("the policy", json::parse(bytes)?)?;
            let default = requirements("default", fields.need("default")?)?;
            let mut transports = BTreeMap::new();
            if let Some(value) = fields.take("transports") {
                let Value::Object(all) = value else { return Err("\"transports\" is not an object".into()) };
                for (transport, scopes) in all {
                    let Value::Object(scopes) = scopes else {
                        return Err(format!("transport \"{}\" is not an object", transport.escape_default()));
                    };
                    let mut read = BTreeMap::new();
                    for (scope, list) in scopes {
                        super::origin::check_scope(&transport, &scope)?;
                        let what = format!("{transport}:{scope}");
                        read.insert(scope, requirements(&what, list)?);
                    }
                    transports.insert(transport, read);
                }
            }
            fields.done()?;
            Ok((default, transports))
        };
        let (default, transports) = parse()
            .map_err(|reason: String| Error::InvalidPolicy { path: path.display().to_string(), reason })?;
        Ok(Self { path: path.to_owned(), default, transports })
    }

    /// A policy of one requirement for everything, made by the program and not by a file.
    pub(super) fn of(requirement: Requirement) -> Self {
        Self { path: PathBuf::new(), default: vec![requirement], transports: BTreeMap::new() }
    }

    /// The file it came from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What must hold for an image: the requirements of the most specific scope, and of no other.
    pub(super) fn requirements(&self, origin: &Origin) -> &[Requirement] {
        if let Some(scopes) = self.transports.get(origin.transport()) {
            for scope in origin.scopes() {
                if let Some(list) = scopes.get(&scope) {
                    return list;
                }
            }
            if let Some(list) = scopes.get("") {
                return list;
            }
        }
        &self.default
    }

    /// Which kinds of signatures an image from there needs: sigstore's, simple ones.
    #[must_use]
    pub fn wants(&self, origin: &Origin) -> super::Wanted {
        let requirements = self.requirements(origin);
        // A rejected image needs no look at its signatures.
        if requirements.contains(&Requirement::Reject) {
            return super::Wanted::default();
        }
        super::Wanted {
            sigstore: requirements.iter().any(|r| matches!(r, Requirement::Sigstore(_))),
            simple: requirements.iter().any(|r| matches!(r, Requirement::SignedBy(_))),
        }
    }

    /// Every file that a decision about such an image depends on, the policy first.
    pub(super) fn inputs(&self, origin: &Origin) -> Vec<PathBuf> {
        let mut files = vec![self.path.clone()];
        let mut add = |source: &Source| files.extend(source.path().map(Path::to_owned));
        for requirement in self.requirements(origin) {
            match requirement {
                Requirement::Accept | Requirement::Reject => {}
                Requirement::SignedBy(signed) => signed.keys.iter().for_each(&mut add),
                Requirement::Sigstore(sigstore) => {
                    sigstore.rekor.iter().for_each(&mut add);
                    sigstore.root.iter().for_each(&mut add);
                    match &sigstore.signer {
                        Signer::Keys(keys) => keys.iter().for_each(&mut add),
                        Signer::Fulcio { ca, ct_log, .. } => ca.iter().chain(ct_log).for_each(&mut add),
                        Signer::Pki { roots, intermediates, .. } => {
                            std::iter::once(roots).chain(intermediates).for_each(&mut add);
                        }
                    }
                }
            }
        }
        files
    }
}

fn requirements(what: &str, value: Value) -> Checked<Vec<Requirement>> {
    let Value::Array(list) = value else { return Err(format!("\"{what}\" is not a list")) };
    if list.is_empty() {
        return Err(format!("\"{what}\" has no requirements; write insecureAcceptAnything or reject"));
    }
    list.into_iter().map(|entry| requirement(entry).map_err(|e| format!("\"{what}\": {e}"))).collect()
}

fn requirement(value: Value) -> Checked<Requirement> {
    let mut fields = Fields::of("a requirement", value)?;
    let requirement = match fields.text("type")?.as_str() {
        "insecureAcceptAnything" => Requirement::Accept,
        "reject" => Requirement::Reject,
        "signedBy" => Requirement::SignedBy(signed_by(&mut fields)?),
        "sigstoreSigned" => Requirement::Sigstore(Box::new(sigstore(&mut fields)?)),
        "signedBaseLayer" => return Err("signedBaseLayer is not supported".into()),
        other => return Err(format!("unknown requirement \"{}\"", other.escape_default())),
    };
    fields.done()?;
    Ok(requirement)
}

fn signed_by(fields: &mut Fields) -> Checked<SignedBy> {
    match fields.text("keyType")?.as_str() {
        "GPGKeys" => {}
        other => return Err(format!("unknown keyType \"{}\"; GPGKeys is", other.escape_default())),
    }
    let keys = sources(fields, "key", false)?;
    if keys.is_empty() {
        return Err("exactly one of keyPath, keyPaths and keyData is needed".into());
    }
    Ok(SignedBy { keys, identity: Identity::parse(fields.take("signedIdentity"))? })
}

fn sigstore(fields: &mut Fields) -> Checked<Sigstore> {
    let mut signers = Vec::new();
    let keys = sources(fields, "key", true)?;
    if !keys.is_empty() {
        signers.push(Signer::Keys(keys));
    }
    let rekor = sources(fields, "rekorPublicKey", true)?;
    let root = one_source(fields, "trustedRoot")?;
    if let Some(value) = fields.take("fulcio") {
        signers.push(fulcio(value, root.is_some())?);
        if rekor.is_empty() && root.is_none() {
            return Err("fulcio needs the key of a log: rekorPublicKeyPath or the like".into());
        }
    }
    if let Some(value) = fields.take("pki") {
        signers.push(pki(value)?);
    }
    let identity = Identity::parse(fields.take("signedIdentity"))?;
    match (signers.pop(), signers.is_empty()) {
        (Some(signer), true) => Ok(Sigstore { signer, rekor, root, identity }),
        _ => Err("exactly one of keyPath, keyPaths, keyData, keyDatas, fulcio and pki is needed".into()),
    }
}

fn fulcio(value: Value, has_root: bool) -> Checked<Signer> {
    let mut fields = Fields::of("fulcio", value)?;
    let ca = one_source(&mut fields, "ca")?;
    if ca.is_none() && !has_root {
        return Err("fulcio has neither caPath nor caData".into());
    }
    let issuer = fields.text("oidcIssuer")?;
    let subject = match (fields.string("subjectEmail")?, fields.string("subjectURI")?) {
        (Some(email), None) if !email.is_empty() => Subject::Email(email),
        (None, Some(uri)) if !uri.is_empty() => Subject::Uri(uri),
        _ => return Err("fulcio needs exactly one of subjectEmail and subjectURI".into()),
    };
    let ct_log = one_source(&mut fields, "ctLogPublicKey")?;
    fields.done()?;
    Ok(Signer::Fulcio { ca, issuer, subject, ct_log })
}

fn pki(value: Value) -> Checked<Signer> {
    let mut fields = Fields::of("pki", value)?;
    let roots = one_source(&mut fields, "caRoots")?.ok_or("pki has neither caRootsPath nor caRootsData")?;
    let intermediates = one_source(&mut fields, "caIntermediates")?;
    let named = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (email, hostname) = (named(fields.string("subjectEmail")?), named(fields.string("subjectHostname")?));
    if email.is_none() && hostname.is_none() {
        return Err("pki needs subjectEmail or subjectHostname".into());
    }
    fields.done()?;
    Ok(Signer::Pki { roots, intermediates, email, hostname })
}

/// At most one of `<name>Path` and `<name>Data`.
fn one_source(fields: &mut Fields, name: &str) -> Checked<Option<Source>> {
    let (path, data) = (fields.path(&format!("{name}Path"))?, fields.bytes(&format!("{name}Data"))?);
    match (path, data) {
        (Some(_), Some(_)) => Err(format!("{name}Path and {name}Data exclude each other")),
        (Some(path), None) => Ok(Some(Source::Path(path))),
        (None, data) => Ok(data.map(Source::Data)),
    }
}

/// At most one of `<name>Path`, `<name>Paths`, `<name>Data` and, where that is allowed, `<name>Datas`.
fn sources(fields: &mut Fields, name: &str, datas: bool) -> Checked<Vec<Source>> {
    let mut found: Vec<Vec<Source>> = one_source(fields, name)?.into_iter().map(|one| vec![one]).collect();
    if let Some(paths) = fields.strings(&format!("{name}Paths"))? {
        found.push(paths.into_iter().map(|path| Source::Path(path.into())).collect());
    }
    if datas && let Some(list) = fields.strings(&format!("{name}Datas"))? {
        let list: Checked<Vec<_>> = list.iter().map(|text| json::base64(text).map(Source::Data)).collect();
        found.push(list?);
    }
    if found.len() > 1 {
        return Err(format!("several of {name}Path, {name}Paths, {name}Data exclude each other"));
    }
    Ok(found.pop().unwrap_or_default())
}

#[cfg(test)]
mod tests;
