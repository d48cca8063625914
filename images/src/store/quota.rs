//! A limit that is not exceeded: what does not fit is refused before it is written.
//!
//! Sizes are what [`Store::total_usage`] counts: lengths of blobs and of unpacked files. Several processes that
//! begin at the same time do not know of each other and may exceed the limit together; what comes next is refused.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use super::Store;
use crate::Error;
use crate::error::Result;

/// What a session may still write.
#[derive(Debug, Default)]
pub(super) struct Budget {
    /// What the store took when this was first asked.
    used: OnceLock<u64>,
    /// What the session has been granted since.
    granted: AtomicU64,
}

impl Store {
    /// Refuses content that would make the store larger than this: pulls, loads and all else fail with
    /// [`Error::QuotaExceeded`] before they write what does not fit.
    #[must_use]
    pub fn with_quota(self, bytes: u64) -> Self {
        Self { quota: Some(bytes), ..self }
    }
}

impl Budget {
    /// Grants the writing of this many bytes more, or refuses it.
    pub(super) fn grant(&self, store: &Store, bytes: u64) -> Result<()> {
        let Some(max) = store.quota else { return Ok(()) };
        let used = match self.used.get() {
            Some(used) => *used,
            None => {
                let usage = store.total_usage()?;
                *self.used.get_or_init(|| usage.blobs + usage.unpacked)
            }
        };
        let granted = self.granted.fetch_add(bytes, Ordering::Relaxed);
        let after = used.saturating_add(granted).saturating_add(bytes);
        if after <= max {
            return Ok(());
        }
        self.granted.fetch_sub(bytes, Ordering::Relaxed);
        Err(Error::QuotaExceeded { used: used.saturating_add(granted), needed: bytes, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Descriptor;
    use crate::Digest;
    use crate::store::session::Session;
    use crate::store::tests::store;

    #[test]
    fn what_does_not_fit_is_refused_before_it_is_written() {
        let (_dir, store) = store();
        let store = store.with_quota(1000);
        let session = Session::new(&store).unwrap();
        session.put("x", &[1; 600]).unwrap();
        session.put("x", &[1; 600]).unwrap();
        session.put("x", &[2; 400]).unwrap();
        let error = session.put("x", b"y").unwrap_err();
        assert!(matches!(error, Error::QuotaExceeded { used: 1000, needed: 1, max: 1000 }), "{error}");
        // Another session counts what is there. A stream that is too long is not even begun.
        let other = Session::new(&store).unwrap();
        let blob = Descriptor::new("x", Digest::of(b"never read"), 10);
        let mut source = std::io::repeat(0);
        assert!(matches!(other.ingest("x", &blob, &mut source), Err(Error::QuotaExceeded { .. })));
        assert_eq!(store.total_usage().unwrap().blobs, 1000);
    }
}
