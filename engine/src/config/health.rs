//! `HEALTHCHECK`: what tells whether a container that runs is well, and what became of it.

#[cfg(any(target_os = "linux", test))]
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Docker's `HealthConfig`. Times are nanoseconds; 0, and what is not given, is the image's, or the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HealthConfig {
    /// `CMD` and a program with its arguments, `CMD-SHELL` and one line, or `NONE`. Empty for the image's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between the end of one probe and the next.
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// How long a probe may take.
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// For so long after the start failures do not count.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// Between probes in that time.
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// So many failures in a row are too many.
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// What is known of a container's health: Docker's `State.Health`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Health {
    /// `starting`, `healthy` or `unhealthy`.
    pub status: String,
    /// How many probes have failed, one after the other.
    pub failing_streak: u32,
    /// The last five.
    pub log: Vec<Probe>,
}

/// One probe that has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Probe {
    /// When it was started.
    pub start: Timestamp,
    /// When it had ended.
    pub end: Timestamp,
    /// 0 is well; -1 when it could not be run, or took too long.
    pub exit_code: i32,
    /// The first 4 KiB of what it wrote.
    pub output: String,
}

/// How many probes are remembered.
#[cfg(any(target_os = "linux", test))]
const REMEMBERED: usize = 5;

impl HealthConfig {
    /// Docker's least time.
    const LEAST: i64 = 1_000_000;

    /// Checks the values.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn validate(&self) -> Result<()> {
        for (name, value) in [
            ("Interval", self.interval),
            ("Timeout", self.timeout),
            ("StartPeriod", self.start_period),
            ("StartInterval", self.start_interval),
        ] {
            if value != 0 && value < Self::LEAST {
                return Err(Error::Invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
            }
        }
        if self.retries < 0 {
            return Err(Error::Invalid("Retries in Healthcheck cannot be negative".to_owned()));
        }
        Ok(())
    }

    /// The image's settings where these say nothing.
    pub(crate) fn over(mut self, image: Self) -> Self {
        let pick = |own: &mut i64, other| {
            if *own == 0 {
                *own = other;
            }
        };
        if self.test.is_empty() {
            self.test = image.test;
        }
        pick(&mut self.interval, image.interval);
        pick(&mut self.timeout, image.timeout);
        pick(&mut self.start_period, image.start_period);
        pick(&mut self.start_interval, image.start_interval);
        pick(&mut self.retries, image.retries);
        self
    }

    /// Whether there is anything to run.
    pub fn is_active(&self) -> bool {
        matches!(self.test.first().map(String::as_str), Some("CMD" | "CMD-SHELL")) && self.test.len() > 1
    }

    #[cfg(any(target_os = "linux", test))]
    /// The time between probes of a container that runs for so long.
    pub(crate) fn pause(&self, running: Duration, known: bool) -> Duration {
        if !known && running < time(self.start_period, Duration::ZERO) && self.start_period > 0 {
            return time(self.start_interval, Duration::from_secs(5));
        }
        time(self.interval, Duration::from_secs(30))
    }

    #[cfg(any(target_os = "linux", test))]
    /// The most that a probe may take.
    pub(crate) fn patience(&self) -> Duration {
        time(self.timeout, Duration::from_secs(30))
    }
}

#[cfg(any(target_os = "linux", test))]
fn time(nanoseconds: i64, default: Duration) -> Duration {
    u64::try_from(nanoseconds).ok().filter(|value| *value > 0).map_or(default, Duration::from_nanos)
}

#[cfg(any(target_os = "linux", test))]
impl Health {
    /// Of a container that has just been started.
    pub(crate) fn starting() -> Self {
        Self { status: "starting".to_owned(), failing_streak: 0, log: Vec::new() }
    }

    /// Learns how a probe has ended; whether the status is another one now. `running`: for how long the container did.
    pub(crate) fn learn(&mut self, config: &HealthConfig, probe: Probe, running: Duration) -> bool {
        let well = probe.exit_code == 0;
        self.log.push(probe);
        let too_many = self.log.len().saturating_sub(REMEMBERED);
        self.log.drain(..too_many);
        let before = self.status.clone();
        if well {
            self.failing_streak = 0;
            "healthy".clone_into(&mut self.status);
        } else {
            let excused = before == "starting" && running < time(config.start_period, Duration::ZERO);
            if !excused {
                self.failing_streak = self.failing_streak.saturating_add(1);
                let retries = if config.retries == 0 { 3 } else { config.retries };
                if i64::from(self.failing_streak) >= retries {
                    "unhealthy".clone_into(&mut self.status);
                }
            }
        }
        before != self.status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probe(exit_code: i32) -> Probe {
        Probe { start: Timestamp::UNIX_EPOCH, end: Timestamp::UNIX_EPOCH, exit_code, output: String::new() }
    }

    #[test]
    fn failures_add_up() {
        let config = HealthConfig { retries: 2, start_period: 1_000_000_000, ..HealthConfig::default() };
        let mut health = Health::starting();
        let early = Duration::from_millis(500);
        let late = Duration::from_secs(2);
        assert!(!health.learn(&config, probe(1), early) && health.failing_streak == 0);
        assert!(!health.learn(&config, probe(1), late) && health.status == "starting");
        assert!(health.learn(&config, probe(-1), late) && health.status == "unhealthy");
        assert!(health.learn(&config, probe(0), late) && health.status == "healthy");
        assert_eq!(health.failing_streak, 0);
        // Once it was well, what is early does not matter.
        assert!(!health.learn(&config, probe(1), early) && health.failing_streak == 1);
        for _ in 0..9 {
            health.learn(&config, probe(0), late);
        }
        assert_eq!(health.log.len(), REMEMBERED);
    }

    #[test]
    fn times() {
        let config = HealthConfig { start_period: 10_000_000_000, ..HealthConfig::default() };
        assert_eq!(config.pause(Duration::from_secs(1), false), Duration::from_secs(5));
        assert_eq!(config.pause(Duration::from_secs(1), true), Duration::from_secs(30));
        assert_eq!(config.pause(Duration::from_secs(11), false), Duration::from_secs(30));
        assert_eq!(HealthConfig::default().pause(Duration::ZERO, false), Duration::from_secs(30));
        for bad in [
            HealthConfig { interval: 1000, ..HealthConfig::default() },
            HealthConfig { timeout: -1, ..HealthConfig::default() },
            HealthConfig { retries: -1, ..HealthConfig::default() },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
        let of = |test: &[&str]| HealthConfig {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            ..HealthConfig::default()
        };
        assert!(of(&["CMD", "x"]).is_active() && of(&["CMD-SHELL", "x"]).is_active());
        assert!(!of(&["NONE"]).is_active() && !of(&["CMD"]).is_active() && !of(&[]).is_active());
        let merged =
            HealthConfig { retries: 9, ..of(&[]) }.over(HealthConfig { interval: 5, ..of(&["CMD", "x"]) });
        assert_eq!((merged.retries, merged.interval, merged.test.len()), (9, 5, 2));
    }
}
