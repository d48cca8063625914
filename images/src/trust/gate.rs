//! A policy at work: asked by a pull before anything but the top manifest is fetched, and by whoever loads archives.

use std::sync::Arc;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use super::collect;
use super::collect::SignatureSource;
use super::lookaside::Lookaside;
use super::origin::Origin;
use super::policy::Policy;
use super::record::Verdict;
use super::verify;
use super::verify::Accepted;
use super::verify::Subject;
use crate::Descriptor;
use crate::Digest;
use crate::Reference;
use crate::Store;
use crate::error::Result;
use crate::registry::Check;

/// A policy, and where simple signatures lie.
#[derive(Debug, Clone)]
pub struct Gate {
    policy: Policy,
    lookaside: Lookaside,
}

impl Gate {
    /// Puts a policy to work.
    #[must_use]
    pub fn new(policy: Policy, lookaside: Lookaside) -> Self {
        Self { policy, lookaside }
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Where simple signatures lie.
    #[must_use]
    pub fn lookaside(&self) -> &Lookaside {
        &self.lookaside
    }

    /// Lets an image of a registry into the store or refuses it, and keeps what was decided and why.
    ///
    /// # Errors
    /// [`crate::Error::Untrusted`]; what goes wrong while signatures are fetched; the disk's.
    pub fn admit(
        &self,
        store: &Store,
        name: &Reference,
        top: &Descriptor,
        manifest: &[u8],
        source: &dyn SignatureSource,
    ) -> Result<Vec<Accepted>> {
        let origin = Origin::registry(name);
        let wanted = self.policy.wants(&origin);
        let material = collect::collect(source, name, &top.digest, wanted, &self.lookaside)?;
        let now = now();
        let subject = Subject { origin: &origin, digest: &top.digest, manifest };
        let accepted = verify::check(&self.policy, &subject, &material, now)?.accepted;
        let verdict = Verdict::new(&self.policy, &origin, accepted.clone(), now)?;
        store.record_trust(&top.digest, &origin, &material, Some(verdict))?;
        Ok(accepted)
    }

    /// Lets an archive in or refuses it. Signatures do not travel in archives: where one is demanded, no archive fits.
    ///
    /// # Errors
    /// [`crate::Error::Untrusted`].
    pub fn allows(&self, origin: &Origin) -> Result<()> {
        let subject = Subject { origin, digest: &Digest::of(b""), manifest: b"" };
        verify::check(&self.policy, &subject, &[], now()).map(|_| ())
    }

    /// Notes that an image came from an archive that was let in.
    ///
    /// # Errors
    /// The disk's.
    pub fn record(&self, store: &Store, origin: &Origin, image: &Descriptor) -> Result<()> {
        let verdict = Verdict::new(&self.policy, origin, Vec::new(), now())?;
        store.record_trust(&image.digest, origin, &[], Some(verdict))
    }

    /// The form in which a pull asks.
    #[must_use]
    pub fn into_check(self, store: &Store) -> Check {
        let store = store.clone();
        Check(Arc::new(move |name, top, manifest, remote| {
            self.admit(&store, name, top, manifest, remote).map(|_| ())
        }))
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
