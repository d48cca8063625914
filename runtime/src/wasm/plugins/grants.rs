//! What a plugin may reach beyond its own memory: nothing, unless it is named here.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::wasm::network::Allow;

/// What may be done in a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Access {
    /// Looking.
    Read,
    /// Everything.
    Write,
}

/// Takes what a plugin writes to its standard output and error, piece by piece, from whichever thread calls it.
pub type Sink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// A list of what is granted. Two lists meet in what both have: [`Grants::and`].
#[derive(Clone, Default)]
pub struct Grants {
    pub(super) clocks: bool,
    pub(super) random: bool,
    pub(super) env: Vec<(String, String)>,
    pub(super) directories: Vec<(PathBuf, String, Access)>,
    pub(super) network: Vec<Allow>,
    pub(super) output: Option<Sink>,
    pub(super) kv: usize,
}

impl Grants {
    /// Nothing at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// The time, and waiting for it.
    #[must_use]
    pub fn clocks(mut self) -> Self {
        self.clocks = true;
        self
    }

    /// Random numbers. Most languages want some for their hash tables.
    #[must_use]
    pub fn random(mut self) -> Self {
        self.random = true;
        self
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// The folder `path`, which the plugin knows as `name` (absolute).
    #[must_use]
    pub fn directory(mut self, path: impl Into<PathBuf>, name: &str, access: Access) -> Self {
        self.directories.push((path.into(), name.to_owned(), access));
        self
    }

    /// Connections and requests to what the rule names, such as `api.example.com:443`. Names may be looked up.
    #[must_use]
    pub fn network(mut self, rule: Allow) -> Self {
        self.network.push(rule);
        self
    }

    /// Standard output and error.
    #[must_use]
    pub fn output(mut self, sink: Sink) -> Self {
        self.output = Some(sink);
        self
    }

    /// Remembering so many bytes, keys included, in `dhow:plugin/kv`.
    #[must_use]
    pub fn kv(mut self, bytes: usize) -> Self {
        self.kv = bytes;
        self
    }

    /// What both lists have: of variables, directories and rules those of this list whose name the other one has, too,
    /// with the weaker access and the smaller number.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let named = |name: &str| other.env.iter().any(|(other, _)| other == name);
        let weaker = |(path, name, access): &(PathBuf, String, Access)| {
            let other = other.directories.iter().find(|(_, other, _)| other == name)?;
            Some((path.clone(), name.clone(), *access.min(&other.2)))
        };
        Self {
            clocks: self.clocks && other.clocks,
            random: self.random && other.random,
            env: self.env.iter().filter(|(name, _)| named(name)).cloned().collect(),
            directories: self.directories.iter().filter_map(weaker).collect(),
            network: self.network.iter().filter(|rule| other.network.contains(rule)).cloned().collect(),
            output: self.output.clone().filter(|_| other.output.is_some()),
            kv: self.kv.min(other.kv),
        }
    }
}

impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.env.iter().map(|(name, _)| name).collect();
        f.debug_struct("Grants")
            .field("clocks", &self.clocks)
            .field("random", &self.random)
            // Values may be secrets.
            .field("env", &names)
            .field("directories", &self.directories)
            .field("network", &self.network)
            .field("output", &self.output.is_some())
            .field("kv", &self.kv)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lists_meet_in_what_both_have() {
        let rule = |text: &str| text.parse::<Allow>().expect("a rule");
        let asked = Grants::none()
            .clocks()
            .random()
            .env("A", "1")
            .env("B", "2")
            .directory("/host/data", "/data", Access::Write)
            .directory("/host/more", "/more", Access::Read)
            .network(rule("a.example:443"))
            .network(rule("b.example"))
            .kv(100);
        let ceiling = Grants::none()
            .random()
            .env("B", "")
            .directory("/", "/data", Access::Read)
            .network(rule("b.example"))
            .kv(10);
        let both = asked.and(&ceiling);
        assert!(!both.clocks && both.random && both.output.is_none());
        assert_eq!(both.env, [("B".to_owned(), "2".to_owned())]);
        assert_eq!(both.directories, [("/host/data".into(), "/data".to_owned(), Access::Read)]);
        assert_eq!(both.network, [rule("b.example")]);
        assert_eq!(both.kv, 10);
        let nothing = format!("{:?}", asked.and(&Grants::none()));
        assert_eq!(nothing, format!("{:?}", Grants::none()), "an empty list means nothing");
    }
}
