//! The policy of trust of this engine: which images may become containers. What a policy is and how it is checked is
//! [`dhow_images::trust`]; here it is only asked.

use std::path::{Path, PathBuf};

use dhow_images::trust::{Accepted, now, show_time};
use dhow_images::{Descriptor, Digest, Reference};
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::Result;

impl Engine {
    /// The same engine under the policy in a file: no container is made from an image that does not fulfil it. Nothing is
    /// read yet.
    #[must_use]
    pub fn with_policy(mut self, policy: Option<PathBuf>) -> Self {
        self.policy = policy;
        self
    }

    /// The policy's file, if there is a policy.
    pub fn policy(&self) -> Option<&Path> {
        self.policy.as_deref()
    }

    /// Whether an image of the store may be used under this engine's policy; `wanted` is what the user calls it. An image
    /// that was checked before costs one small file and a hash of the policy.
    pub(crate) fn check_trust(&self, image: &Descriptor, wanted: &str) -> Result<()> {
        let Some(policy) = &self.policy else { return Ok(()) };
        let names = self.names_of(&image.digest)?;
        let named: Vec<Reference> =
            Reference::parse(wanted).ok().into_iter().filter(|name| names.contains(name)).collect();
        self.store().check_trust(image, if named.is_empty() { &names } else { &named }, policy, now())?;
        Ok(())
    }

    /// The signatures that let an image in, as `inspect` shows them.
    pub(crate) fn signatures_of(&self, image: &Digest) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for record in self.store().trust_records(image)? {
            let Some(verdict) = record.verdict else { continue };
            for accepted in verdict.accepted {
                all.push(signature(&accepted, &record.origin.to_string(), verdict.time));
            }
        }
        Ok(all)
    }
}

fn signature(accepted: &Accepted, origin: &str, verified: i64) -> Value {
    json!({
        "Kind": accepted.kind,
        "Signer": accepted.signer,
        "Issuer": accepted.issuer,
        "Identity": accepted.identity,
        "Signed": accepted.time.map(show_time),
        "Expires": accepted.expires.map(show_time),
        "Origin": origin,
        "Verified": show_time(verified),
    })
}
