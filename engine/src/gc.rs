//! Automatic collection: the `gc` section of the settings, and doing what it says. Off unless configured.
//!
//! ```json
//! "gc": {
//!   "max_size": "20GB",           images go, the least recently used first, until the store is no larger
//!   "min_free": "5GB",            ... until the file system has this much left
//!   "unused_for": "30d",          images go that were not used for longer, whatever room there is
//!   "keep": ["debian:*"],         names that stay in any case
//!   "keep_labels": ["keep=yes"],  labels of images that stay in any case
//!   "hard": true                  max_size is not exceeded even for a moment: what does not fit is refused
//! }
//! ```
//!
//! Sizes are bytes, or a number with `kB`, `MB`, `GB`, `TB` (powers of 1000) or `KiB` … `TiB` (of 1024). Times are Go's
//! durations with `d` and `w`.

use std::time::Duration;

use dhow_images::{Collected, Keep, Policy, Reference};
use serde::Deserialize;

use crate::engine::Engine;
use crate::error::Result;

/// The section of the settings.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Gc {
    max_size: Option<Size>,
    min_free: Option<Size>,
    unused_for: Option<Age>,
    keep: Vec<String>,
    keep_labels: Vec<String>,
    hard: bool,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "NumberOrText")]
struct Size(u64);

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
struct Age(Duration);

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u64),
    Text(String),
}

impl TryFrom<NumberOrText> for Size {
    type Error = String;

    fn try_from(value: NumberOrText) -> std::result::Result<Self, String> {
        match value {
            NumberOrText::Number(bytes) => Ok(Self(bytes)),
            NumberOrText::Text(text) => {
                size(&text).map(Self).ok_or_else(|| format!("invalid size {text:?}: `20GB` is one"))
            }
        }
    }
}

impl TryFrom<String> for Age {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        crate::duration::parse(&text.replace(' ', ""))
            .map(Self)
            .ok_or_else(|| format!("invalid time {text:?}: `30d` or `12h` is one"))
    }
}

/// A number and the unit behind it.
fn split(text: &str) -> Option<(f64, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit.trim_start()))
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let (letter, base) = match unit.strip_suffix('i') {
        Some(letter) => (letter, 1024.0),
        None => (unit, 1000.0_f64),
    };
    let power = ["", "k", "m", "g", "t", "p"].iter().position(|known| *known == letter)?;
    let bytes = number * base.powi(i32::try_from(power).ok()?);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked")]
    (bytes.is_finite() && (0.0..9e18).contains(&bytes)).then_some(bytes as u64)
}

impl Gc {
    /// The limits, with some images that stay because they came just now.
    pub fn policy(&self, fresh: &[Reference]) -> Policy {
        let label = |text: &String| match text.split_once('=') {
            Some((name, value)) => Keep::Label(name.to_owned(), Some(value.to_owned())),
            None => Keep::Label(text.clone(), None),
        };
        let names = self.keep.iter().cloned().chain(fresh.iter().map(Reference::canonical)).map(Keep::Name);
        Policy {
            max_size: self.max_size.map(|size| size.0),
            min_free: self.min_free.map(|size| size.0),
            unused_for: self.unused_for.map(|age| age.0),
            keep: names.chain(self.keep_labels.iter().map(label)).collect(),
        }
    }

    /// What the store may not exceed.
    pub fn quota(&self) -> Option<u64> {
        self.max_size.filter(|_| self.hard).map(|size| size.0)
    }
}

impl Engine {
    /// Lets images go until a policy's limits hold; with `dry_run` it only says which would go.
    ///
    /// # Errors
    /// When a name or lease cannot be read.
    pub fn collect(&self, policy: &Policy, dry_run: bool) -> Result<Collected> {
        Ok(self.store().collect(policy, dry_run)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_section_is_read() {
        let text = r#"{"max_size": "20GB", "min_free": 512, "unused_for": "1w12h", "keep": ["a:*"],
            "keep_labels": ["x", "y=1"], "hard": true}"#;
        let gc: Gc = serde_json::from_str(text).unwrap();
        let policy = gc.policy(&["b".parse().unwrap()]);
        assert_eq!((policy.max_size, policy.min_free), (Some(20_000_000_000), Some(512)));
        assert_eq!(policy.unused_for, Some(Duration::from_secs(7 * 86400 + 12 * 3600)));
        assert_eq!(policy.keep.len(), 4);
        assert_eq!(gc.quota(), Some(20_000_000_000));
        assert!(Gc::default().policy(&[]).is_off() && Gc::default().quota().is_none());
        for bad in [r#"{"max": 1}"#, r#"{"max_size": "x"}"#, r#"{"max_size": -1}"#, r#"{"unused_for": "1y"}"#]
        {
            assert!(serde_json::from_str::<Gc>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_and_times() {
        for (text, expected) in [
            ("0", Some(0)),
            ("12", Some(12)),
            ("1kB", Some(1000)),
            ("1.5 MB", Some(1_500_000)),
            ("2GiB", Some(2 << 30)),
            ("1t", Some(1_000_000_000_000)),
            ("", None),
            ("GB", None),
            ("1x", None),
            ("1e3", None),
            ("99999999999PB", None),
        ] {
            assert_eq!(size(text), expected, "{text}");
        }
        for (text, expected) in
            [("90s", Some(90)), ("1.5h", Some(5400)), ("2d", Some(172_800)), ("", None), ("5", None)]
        {
            assert_eq!(crate::duration::parse(text), expected.map(Duration::from_secs), "{text}");
        }
    }
}
