//! The end of a wait that is given as a time of day: `events --until`, `logs --follow --until`.
//!
//! How long that is is asked of the wall clock once. One that is set meanwhile, by an hour or by years, neither ends a
//! wait early nor makes it endless.

use std::time::{Duration, Instant};

use jiff::Timestamp;

/// When a wait is over.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Until(Option<Instant>);

impl Until {
    /// Until this time, which may be over already; without one, or with one that nobody lives to see, without an end.
    pub(crate) fn new(until: Option<Timestamp>) -> Self {
        Self::seen(until, Timestamp::now(), Instant::now())
    }

    /// As the clock shows `wall` at the moment `now`.
    fn seen(until: Option<Timestamp>, wall: Timestamp, now: Instant) -> Self {
        let far = |until: Timestamp| Duration::try_from(until.duration_since(wall)).unwrap_or(Duration::ZERO);
        Self(until.and_then(|until| now.checked_add(far(until))))
    }

    /// How long it still is; `None` without an end.
    pub(crate) fn left(&self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether it is over.
    pub(crate) fn is_over(&self) -> bool {
        self.0.is_some_and(|end| end <= Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wall_clock_is_asked_once() {
        const HOUR: Duration = Duration::from_secs(3600);
        let now = Instant::now();
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        for (until, wall, wait) in [
            ("2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z", Some(HOUR)),
            // Over already, by a little or by years: not a negative time, and not its amount.
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00.000000001Z", Some(Duration::ZERO)),
            ("1970-01-01T00:00:00Z", "2026-01-01T00:00:00Z", Some(Duration::ZERO)),
            // A clock that is wrong when it is asked: as long as it says, whatever it says later.
            ("2026-01-01T00:00:00Z", "1970-01-01T00:00:00Z", Some(HOUR * 24 * 20_454)),
        ] {
            let until = Until::seen(Some(time(until)), time(wall), now);
            assert_eq!(until.0.map(|end| end - now), wait, "{until:?} at {wall}");
        }
        assert!(Until::seen(None, time("2026-01-01T00:00:00Z"), now).left().is_none());
        let over = Until::new(Some(Timestamp::UNIX_EPOCH));
        assert!(over.is_over() && over.left() == Some(Duration::ZERO));
        let endless = Until::new(None);
        assert!(!endless.is_over() && endless.left().is_none());
        let never = Until::new(Some(Timestamp::MAX));
        assert!(!never.is_over() && never.left().is_none_or(|left| left > HOUR));
    }
}
