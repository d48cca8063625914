//! What is known in the store about an image's trust, so that `run` need neither ask a registry nor compute anything.
//!
//! ```text
//! <root>/trust/
//!   <algorithm>-<hex>              where the image came from, and the last decision for each place
//!   <algorithm>-<hex>.signatures   the signatures, for a decision under another policy
//! ```
//!
//! A decision holds as long as every file it depended on (the policy, its keys) has the same content and nothing has
//! expired. Otherwise it is made again from the kept signatures, with no network, and kept. An image that nobody
//! recorded is judged as if it came from the registry of its name, without any signature.

use std::io;
use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;
use serde::Deserialize;
use serde::Serialize;

use super::collect::Material;
use super::origin::Origin;
use super::policy;
use super::policy::Policy;
use super::verify;
use super::verify::Accepted;
use super::verify::Subject;
use crate::Descriptor;
use crate::Digest;
use crate::Error;
use crate::Reference;
use crate::Store;
use crate::error::Result;

/// Most places that are remembered for one image.
const MAX_ORIGINS: usize = 16;
/// The folder below the store's root.
const FOLDER: &str = "trust";
const SIGNATURES: &str = ".signatures";

/// One place that an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The place.
    pub origin: Origin,
    /// The last decision, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
}

/// A decision in favour of an image, and what it depended on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The policy, and the files that it names.
    pub inputs: Vec<PathBuf>,
    /// The SHA-256 of their content.
    pub fingerprint: Digest,
    /// When it was made, in seconds since 1970.
    pub time: i64,
    /// The signatures that counted; none where the policy demands none.
    pub accepted: Vec<Accepted>,
}

impl Verdict {
    /// A decision that was made just now.
    ///
    /// # Errors
    /// [`Error::InvalidPolicy`] when a file has become unreadable since.
    pub fn new(policy: &Policy, origin: &Origin, accepted: Vec<Accepted>, now: i64) -> Result<Self> {
        let inputs = policy.inputs(origin);
        let fingerprint = fingerprint(&inputs)?;
        Ok(Self { inputs, fingerprint, time: now, accepted })
    }

    fn holds(&self, policy: &Path, now: i64) -> bool {
        self.inputs.first().is_some_and(|first| first == policy)
            && self.accepted.iter().all(|a| a.expires.is_none_or(|expires| now < expires))
            && fingerprint(&self.inputs).is_ok_and(|found| found == self.fingerprint)
    }
}

impl Store {
    /// Remembers where an image came from, with which signatures, and what was decided.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn record_trust(
        &self,
        digest: &Digest,
        origin: &Origin,
        material: &[Material],
        verdict: Option<Verdict>,
    ) -> Result<()> {
        // No sweep may come between.
        let _shared = self.lock_shared()?;
        let folder = self.root().join(FOLDER);
        match crate::store::make_dir(&folder) {
            Err(_) if folder.is_dir() => {}
            other => other?,
        }
        let mut kept = self.trust_material(digest)?;
        kept.retain(|(known, _)| known != origin);
        kept.push((origin.clone(), material.to_vec()));
        let surplus = kept.len().saturating_sub(MAX_ORIGINS);
        kept.drain(..surplus);
        let mut records = self.trust_records(digest)?;
        records.retain(|record| {
            record.origin != *origin && kept.iter().any(|(known, _)| *known == record.origin)
        });
        records.push(Record { origin: origin.clone(), verdict });
        // The signatures first: a decision without them can be believed, but not made again.
        self.write_trust(digest, SIGNATURES, &kept)?;
        self.write_trust(digest, "", &records)
    }

    /// What is remembered about an image.
    ///
    /// # Errors
    /// [`Error::InvalidStore`] for a damaged file.
    pub fn trust_records(&self, digest: &Digest) -> Result<Vec<Record>> {
        Ok(self.read_trust(digest, "")?.unwrap_or_default())
    }

    /// The signatures that are kept for an image, by where it came from.
    ///
    /// # Errors
    /// [`Error::InvalidStore`] for a damaged file.
    pub fn trust_material(&self, digest: &Digest) -> Result<Vec<(Origin, Vec<Material>)>> {
        Ok(self.read_trust(digest, SIGNATURES)?.unwrap_or_default())
    }

    /// Whether an image of the store may be used under the policy in a file, at a time in seconds since 1970. `names`
    /// are those it is used under; they matter only if nobody has recorded where it came from.
    ///
    /// # Errors
    /// [`Error::Untrusted`], [`Error::InvalidPolicy`], or what is wrong with the store.
    pub fn check_trust(
        &self,
        image: &Descriptor,
        names: &[Reference],
        policy_file: &Path,
        now: i64,
    ) -> Result<Vec<Accepted>> {
        let records = self.trust_records(&image.digest)?;
        let known = records.iter().filter_map(|record| record.verdict.as_ref());
        if let Some(verdict) = known.into_iter().find(|verdict| verdict.holds(policy_file, now)) {
            return Ok(verdict.accepted.clone());
        }
        let policy = Policy::read(policy_file)?;
        if !records.is_empty() {
            return self.decide_again(image, &policy, now);
        }
        let mut origins: Vec<Origin> = names.iter().map(Origin::registry).collect();
        if origins.is_empty() {
            origins.push(Origin::local());
        }
        let manifest = self.read_blob(image)?;
        for origin in &origins {
            let subject = Subject { origin, digest: &image.digest, manifest: &manifest };
            verify::check(&policy, &subject, &[], now)?;
        }
        if let [origin] = origins.as_slice() {
            let verdict = Verdict::new(&policy, origin, Vec::new(), now)?;
            self.record_trust(&image.digest, origin, &[], Some(verdict))?;
        }
        Ok(Vec::new())
    }

    fn decide_again(&self, image: &Descriptor, policy: &Policy, now: i64) -> Result<Vec<Accepted>> {
        let manifest = self.read_blob(image)?;
        let mut refusal = None;
        for (origin, material) in self.trust_material(&image.digest)? {
            let subject = Subject { origin: &origin, digest: &image.digest, manifest: &manifest };
            match verify::check(policy, &subject, &material, now) {
                Ok(decision) => {
                    let verdict = Verdict::new(policy, &origin, decision.accepted.clone(), now)?;
                    self.record_trust(&image.digest, &origin, &material, Some(verdict))?;
                    return Ok(decision.accepted);
                }
                Err(error) => refusal = Some(error),
            }
        }
        Err(refusal.unwrap_or_else(|| Error::Untrusted {
            image: image.digest.to_string(),
            reason: "its signatures are missing from the store".into(),
        }))
    }

    /// Removes what is remembered about images that are not in the store any more. The exclusive lock is held.
    pub(crate) fn sweep_trust(&self, is_live: impl Fn(&Digest) -> bool) -> Result<()> {
        for (digest, path) in self.trust_files()? {
            if digest.is_none_or(|digest| !is_live(&digest)) {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// Every file here, with the image it is about if its name is in order.
    pub(crate) fn trust_files(&self) -> Result<Vec<(Option<Digest>, PathBuf)>> {
        let entries = match fs::read_dir(self.root().join(FOLDER)) {
            Ok(entries) => entries,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(e) => return Err(e.into()),
        };
        let mut files = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(crate::store::TEMPORARY) {
                // Of a process that is writing, or the next sweep's.
                continue;
            }
            let name = name.strip_suffix(SIGNATURES).unwrap_or(name);
            let digest =
                name.split_once('-').and_then(|(algorithm, hex)| format!("{algorithm}:{hex}").parse().ok());
            files.push((digest, path));
        }
        Ok(files)
    }

    fn trust_path(&self, digest: &Digest, suffix: &str) -> PathBuf {
        self.root().join(FOLDER).join(format!("{}-{}{suffix}", digest.algorithm().name(), digest.hex()))
    }

    fn read_trust<T: serde::de::DeserializeOwned>(&self, digest: &Digest, suffix: &str) -> Result<Option<T>> {
        let path = self.trust_path(digest, suffix);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| Error::InvalidStore {
                path: path.display().to_string(),
                reason: format!("not a valid record of trust: {e}"),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn write_trust<T: Serialize>(&self, digest: &Digest, suffix: &str, value: &T) -> Result<()> {
        let json = serde_json::to_vec(value).map_err(|e| Error::manifest(digest, e))?;
        crate::store::replace_file(&self.trust_path(digest, suffix), &json, true)
    }
}

/// The SHA-256 of the content of some files, each with its length before it.
fn fingerprint(files: &[PathBuf]) -> Result<Digest> {
    let mut hasher = crate::Hasher::new(crate::Algorithm::Sha256);
    for path in files {
        let bytes = policy::read_file(path).map_err(|e| Error::InvalidPolicy {
            path: path.display().to_string(),
            reason: format!("cannot be read: {e}"),
        })?;
        hasher.update(&(bytes.len() as u64).to_be_bytes());
        hasher.update(&bytes);
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests;
