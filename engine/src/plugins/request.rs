//! Lists of grants as JSON: what an image asks for, and what hosts in other languages grant.
//!
//! An image says in the label `dev.dhow.plugin.requests` (an artifact in the annotation of that name) what it needs:
//!
//! ```text
//! LABEL dev.dhow.plugin.requests='{"random": true, "network": ["api.example.com:443"], "env": ["MODE"]}'
//! ```
//! It gets nothing else then, whatever it is granted.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Access, Grants, Sink};
use crate::error::{Error, Result};

/// Name of the label and of the annotation.
pub const REQUESTS: &str = "dev.dhow.plugin.requests";

/// The list itself. What is not known is an error: a grant that is misspelt is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Request {
    /// The time.
    #[serde(skip_serializing_if = "is_false")]
    pub clocks: bool,
    /// Random numbers.
    #[serde(skip_serializing_if = "is_false")]
    pub random: bool,
    /// Standard output and error.
    #[serde(skip_serializing_if = "is_false")]
    pub output: bool,
    /// Variables with their values; or only their names, for asking.
    #[serde(skip_serializing_if = "Variables::is_empty")]
    pub env: Variables,
    /// Folders.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub directories: Vec<Directory>,
    /// Rules such as `api.example.com:443`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub network: Vec<String>,
    /// Bytes that it may remember.
    #[serde(skip_serializing_if = "is_zero")]
    pub kv: usize,
}

/// Variables, with or without values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Variables {
    /// Names.
    Names(Vec<String>),
    /// Names and values.
    Values(BTreeMap<String, String>),
}

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Directory {
    /// Where it is on the host; of no matter for asking.
    #[serde(default, skip_serializing_if = "is_nowhere")]
    pub path: PathBuf,
    /// As the plugin knows it, absolute.
    pub name: String,
    /// Whether it may be changed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub write: bool,
}

impl Default for Variables {
    fn default() -> Self {
        Self::Names(Vec::new())
    }
}

impl Variables {
    fn is_empty(&self) -> bool {
        match self {
            Self::Names(names) => names.is_empty(),
            Self::Values(values) => values.is_empty(),
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_false(value: &bool) -> bool {
    !value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(value: &usize) -> bool {
    *value == 0
}

fn is_nowhere(path: &std::path::Path) -> bool {
    path.as_os_str().is_empty()
}

impl Request {
    /// As a list of grants; output goes to `sink`.
    ///
    /// # Errors
    /// For a rule of the network that is none.
    pub fn grants(&self, sink: Option<Sink>) -> Result<Grants> {
        let Self { clocks, random, output, env, directories, network, kv } = self;
        let mut grants = Grants::none().kv(*kv);
        if *clocks {
            grants = grants.clocks();
        }
        if *random {
            grants = grants.random();
        }
        if let Some(sink) = sink.filter(|_| *output) {
            grants = grants.output(sink);
        }
        match env {
            Variables::Names(names) => {
                for name in names {
                    grants = grants.env(name, "");
                }
            }
            Variables::Values(values) => {
                for (name, value) in values {
                    grants = grants.env(name, value);
                }
            }
        }
        for Directory { path, name, write } in directories {
            grants = grants.directory(path, name, if *write { Access::Write } else { Access::Read });
        }
        for rule in network {
            let parsed = rule.parse();
            grants =
                grants.network(parsed.map_err(|error| Error::Invalid(format!("network: {rule}: {error}")))?);
        }
        Ok(grants)
    }

    /// As a list that others are compared with: [`super::Builder::requested`], [`super::Config::ceiling`].
    ///
    /// # Errors
    /// As [`Request::grants`].
    pub fn limit(&self) -> Result<Grants> {
        self.grants(Some(Arc::new(|_| ())))
    }

    /// What both lists have, as [`Grants::and`] says it: values and paths are those of this one.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let named = |name: &str| match &other.env {
            Variables::Names(names) => names.iter().any(|other| other == name),
            Variables::Values(values) => values.contains_key(name),
        };
        let weaker = |directory: &Directory| {
            let other = other.directories.iter().find(|other| other.name == directory.name)?;
            Some(Directory { write: directory.write && other.write, ..directory.clone() })
        };
        let both = |name: &&String| named(name);
        Self {
            clocks: self.clocks && other.clocks,
            random: self.random && other.random,
            output: self.output && other.output,
            env: match &self.env {
                Variables::Names(names) => Variables::Names(names.iter().filter(both).cloned().collect()),
                Variables::Values(values) => {
                    let pairs = values.iter().filter(|(name, _)| named(name));
                    Variables::Values(pairs.map(|(name, value)| (name.clone(), value.clone())).collect())
                }
            },
            directories: self.directories.iter().filter_map(weaker).collect(),
            network: self.network.iter().filter(|rule| other.network.contains(rule)).cloned().collect(),
            kv: self.kv.min(other.kv),
        }
    }

    /// What a label says.
    ///
    /// # Errors
    /// When that is no list.
    pub fn parse(text: &str) -> Result<Self> {
        // An array would do for serde.
        let object: serde_json::Result<serde_json::Map<_, _>> = serde_json::from_str(text);
        let request = object.and_then(|object| serde_json::from_value(object.into()));
        request.map_err(|error| Error::Invalid(format!("{REQUESTS}: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        let text =
            r#"{"random":true,"env":["MODE"],"directories":[{"name":"/data"}],"network":["a.example:443"]}"#;
        let request = Request::parse(text).unwrap();
        assert_eq!(serde_json::to_string(&request).unwrap(), text);
        let granted = Grants::none()
            .clocks()
            .random()
            .env("MODE", "1")
            .env("B", "2")
            .network("b.example".parse().unwrap());
        let both = format!("{:?}", granted.and(&request.limit().unwrap()));
        assert!(both.contains("random: true") && both.contains("clocks: false"), "{both}");
        // The same as of lists.
        let ours = Request::parse(
            r#"{"clocks": true, "random": true, "env": {"MODE": "1", "B": "2"}, "network": ["b.example"],
                "directories": [{"path": "/x", "name": "/data", "write": true}, {"path": "/x", "name": "/y"}]}"#,
        )
        .unwrap();
        let by_list = ours.grants(None).unwrap().and(&request.limit().unwrap());
        let and = ours.and(&request);
        assert_eq!(format!("{:?}", and.grants(None).unwrap()), format!("{by_list:?}"));
        assert_eq!(
            serde_json::to_string(&and).unwrap(),
            r#"{"random":true,"env":{"MODE":"1"},"directories":[{"path":"/x","name":"/data"}]}"#
        );
        assert!(both.contains("MODE") && !both.contains("\"B\"") && !both.contains("example"), "{both}");
        let values = Request::parse(r#"{"env": {"A": "1"}, "output": true, "kv": 5}"#).unwrap();
        let grants = format!("{:?}", values.grants(None).unwrap());
        assert!(grants.contains("output: false") && grants.contains("kv: 5"), "{grants}");
        for bad in ["", "[]", r#"{"netwrok": []}"#, r#"{"env": {"A": 1}}"#, r#"{"kv": -1}"#] {
            assert!(Request::parse(bad).is_err(), "{bad}");
        }
        Request::parse(r#"{"network": ["a b"]}"#).unwrap().limit().unwrap_err();
    }
}
