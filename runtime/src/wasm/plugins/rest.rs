//! Leaving a plugin alone after it has failed, for longer each time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long a plugin is left alone after a failure.
#[derive(Debug)]
pub(super) struct Rest {
    times: Option<(Duration, Duration)>,
    since: Instant,
    /// In nanoseconds since then.
    until: AtomicU64,
    failures: AtomicU64,
}

impl Rest {
    pub(super) fn new(times: Option<(Duration, Duration)>) -> Self {
        Self { times, since: Instant::now(), until: AtomicU64::new(0), failures: AtomicU64::new(0) }
    }

    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        Duration::from_nanos(until).checked_sub(now.duration_since(self.since)).filter(|left| !left.is_zero())
    }

    pub(super) fn failed(&self, now: Instant) {
        let Some((first, most)) = self.times else { return };
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).min(30);
        let pause = first.saturating_mul(1 << failures).min(most);
        let until = now.duration_since(self.since).saturating_add(pause);
        self.until.store(u64::try_from(until.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    pub(super) fn over(&self) {
        // Seldom written, so that threads do not take the line from each other.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.until.store(0, Ordering::Relaxed);
        }
    }
}
