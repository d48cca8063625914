//! The JSON that says how a host is set up, and what a plugin may do. What is not known is an error.

use std::path::PathBuf;
use std::time::Duration;

use dhow_engine::duration;
use dhow_engine::plugins::{Limits, Pool, Request};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};

use crate::error::Error;

/// Of `dhow_host_new`. All may be missing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HostSettings {
    /// Dhow's data folder, for images; without one there are none.
    pub(crate) store: Option<PathBuf>,
    /// Folder for compiled code; with a store its own one.
    pub(crate) cache: Option<PathBuf>,
    /// An empty folder, needed for granted directories.
    pub(crate) scratch: Option<PathBuf>,
    /// How many instances there can be at a time; 1000.
    pub(crate) instances: Option<u32>,
    /// A policy of signatures, which images have to fulfil.
    pub(crate) policy: Option<PathBuf>,
    /// What no plugin gets more than.
    pub(crate) ceiling: Option<Request>,
}

/// Of `dhow_loader_set`. What is missing stays as it is.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PluginSettings {
    /// What errors call it.
    pub(crate) name: Option<String>,
    pub(crate) grants: Option<Request>,
    /// What the plugin itself asks for: it gets nothing else.
    pub(crate) requested: Option<Request>,
    pub(crate) limits: Option<Limited>,
    pub(crate) pool: Option<Warm>,
    pub(crate) rest_after_failure: Option<Rest>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limited {
    memory: Option<u64>,
    #[serde(deserialize_with = "maybe_time")]
    deadline: Option<Duration>,
    fuel: Option<u64>,
    output: Option<usize>,
}

/// A pool of warm instances.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Warm {
    size: usize,
    #[serde(default = "any_number")]
    calls: u32,
    #[serde(default = "a_minute", deserialize_with = "time")]
    idle: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rest {
    #[serde(deserialize_with = "time")]
    pub(crate) first: Duration,
    #[serde(deserialize_with = "time")]
    pub(crate) most: Duration,
}

fn any_number() -> u32 {
    u32::MAX
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}

/// `"50ms"`, or seconds.
#[derive(Deserialize)]
#[serde(untagged)]
enum Time {
    Text(String),
    Seconds(f64),
}

fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let time = match Time::deserialize(from)? {
        Time::Text(text) => duration::parse(&text),
        Time::Seconds(seconds) => Duration::try_from_secs_f64(seconds).ok(),
    };
    time.ok_or_else(|| D::Error::custom("no time; \"50ms\" is one, and so is 0.05"))
}

fn maybe_time<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(deserialize_with = "time")] Duration);
    Ok(Option::<Given>::deserialize(from)?.map(|given| given.0))
}

/// Reads settings; none are as good as `{}`.
pub(crate) fn read<T: DeserializeOwned + Default>(text: Option<&str>) -> Result<T, Error> {
    let Some(text) = text else { return Ok(T::default()) };
    serde_json::from_str(text).map_err(|error| Error::usage(format!("settings: {error}")))
}

impl From<Limited> for Limits {
    fn from(Limited { memory, deadline, fuel, output }: Limited) -> Self {
        Self { memory, deadline, fuel, output }
    }
}

impl From<Warm> for Pool {
    fn from(Warm { size, calls, idle }: Warm) -> Self {
        Self::Warm { size, calls, idle }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_and_checked() {
        let all: PluginSettings = read(Some(
            r#"{"name": "x", "grants": {"clocks": true, "env": {"A": "1"}, "network": ["a.example:443"], "kv": 10,
                "directories": [{"path": "/x", "name": "/y", "write": true}]},
                "limits": {"deadline": "50ms", "memory": 65536}, "pool": {"size": 4},
                "rest_after_failure": {"first": 0.5, "most": "1m"}}"#,
        ))
        .unwrap();
        assert_eq!(all.grants.unwrap().network, ["a.example:443"]);
        assert_eq!(Limits::from(all.limits.unwrap()).deadline, Some(Duration::from_millis(50)));
        let warm = Pool::Warm { size: 4, calls: u32::MAX, idle: Duration::from_secs(60) };
        assert_eq!(Pool::from(all.pool.unwrap()), warm);
        assert_eq!(all.rest_after_failure.unwrap().first, Duration::from_millis(500));
        for (bad, why) in [
            ("{", "EOF"),
            (r#"{"colour": 1}"#, "unknown field `colour`"),
            (r#"{"limits": {"deadline": "soon"}}"#, "no time"),
            (r#"{"limits": {"deadline": -1}}"#, "no time"),
            (r#"{"pool": {}}"#, "missing field `size`"),
        ] {
            let error = read::<PluginSettings>(Some(bad)).unwrap_err();
            assert!(format!("{error:?}").contains(why), "{error:?}");
        }
    }
}
