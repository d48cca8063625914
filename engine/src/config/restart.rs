//! `--restart`: whether a container is started again when it has ended.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Docker's `RestartPolicy`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct RestartPolicy {
    /// `no` (or empty), `always`, `unless-stopped` or `on-failure`.
    pub name: String,
    /// How often at most, with `on-failure`; 0 is without end.
    pub maximum_retry_count: i64,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { name: "no".to_owned(), maximum_retry_count: 0 }
    }
}

/// What a policy decides by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    /// How it has ended.
    pub(crate) code: u8,
    /// How often it was started again since somebody has started it.
    pub(crate) restarts: u32,
    /// Somebody has stopped it.
    pub(crate) stopped: bool,
}

impl RestartPolicy {
    /// Reads `always`, `on-failure:3` and so on.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |what: &str| Error::Invalid(what.to_owned());
        let (name, count) = match text.split_once(':') {
            Some((name, count)) => (name, Some(count)),
            None => (text, None),
        };
        if name.is_empty() && count.is_some() {
            return Err(invalid("invalid restart policy format: no policy provided before colon"));
        }
        let maximum_retry_count = match count.filter(|count| !count.is_empty()) {
            Some(count) => count.parse().map_err(|_| {
                invalid("invalid restart policy format: maximum retry count must be an integer")
            })?,
            None => 0,
        };
        let policy = Self { name: name.to_owned(), maximum_retry_count };
        policy.validate()?;
        Ok(policy)
    }

    /// Checks name and count.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn validate(&self) -> Result<()> {
        let name = &self.name;
        match name.as_str() {
            "on-failure" if self.maximum_retry_count < 0 => {
                Err(Error::Invalid("maximum retry count cannot be negative".to_owned()))
            }
            "on-failure" => Ok(()),
            "" | "no" | "always" | "unless-stopped" if self.maximum_retry_count != 0 => Err(Error::Invalid(
                format!("maximum retry count cannot be used with restart policy '{name}'"),
            )),
            "" | "no" | "always" | "unless-stopped" => Ok(()),
            _ => Err(Error::Invalid(format!("invalid restart policy '{name}'"))),
        }
    }

    /// Whether it never starts anything.
    pub fn is_none(&self) -> bool {
        matches!(self.name.as_str(), "" | "no")
    }

    /// Whether a container that has ended like this runs again.
    #[cfg(any(target_os = "linux", test))]
    pub(crate) fn again(&self, ended: Ended) -> bool {
        !ended.stopped && self.wants(ended)
    }

    /// The same for when the system has come up: `always` means that, whoever has stopped it.
    pub(crate) fn after_boot(&self, ended: Ended) -> bool {
        match self.name.as_str() {
            "unless-stopped" => !ended.stopped,
            _ => self.wants(ended),
        }
    }

    fn wants(&self, ended: Ended) -> bool {
        match self.name.as_str() {
            "always" | "unless-stopped" => true,
            "on-failure" => {
                let most = self.maximum_retry_count;
                ended.code != 0 && (most == 0 || i64::from(ended.restarts) < most)
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_words() {
        for (text, name, count) in [
            ("no", "no", 0),
            ("", "", 0),
            ("always", "always", 0),
            ("unless-stopped", "unless-stopped", 0),
            ("on-failure", "on-failure", 0),
            ("on-failure:", "on-failure", 0),
            ("on-failure:3", "on-failure", 3),
        ] {
            let policy = RestartPolicy::parse(text).unwrap();
            assert_eq!((policy.name.as_str(), policy.maximum_retry_count), (name, count));
        }
        for (text, words) in [
            ("foo", "invalid restart policy 'foo'"),
            ("always:3", "cannot be used with restart policy 'always'"),
            ("on-failure:x", "must be an integer"),
            ("on-failure:-1", "cannot be negative"),
            (":3", "no policy provided before colon"),
        ] {
            let error = RestartPolicy::parse(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn who_runs_again() {
        let ended = |code, restarts, stopped| Ended { code, restarts, stopped };
        let of = |text| RestartPolicy::parse(text).unwrap();
        for (text, ended, again, after_boot) in [
            ("no", ended(1, 0, false), false, false),
            ("always", ended(0, 90, false), true, true),
            ("always", ended(0, 0, true), false, true),
            ("unless-stopped", ended(0, 0, false), true, true),
            ("unless-stopped", ended(0, 0, true), false, false),
            ("on-failure", ended(0, 0, false), false, false),
            ("on-failure", ended(1, 1000, false), true, true),
            ("on-failure:2", ended(1, 1, false), true, true),
            ("on-failure:2", ended(1, 2, false), false, false),
        ] {
            let policy = of(text);
            assert_eq!(
                (policy.again(ended), policy.after_boot(ended)),
                (again, after_boot),
                "{text} {ended:?}"
            );
        }
    }
}
