//! `--link`: another container by a name that only one knows, Docker's way from before there were networks with names.
//!
//! In the default network a link is settled at each start: lines in `/etc/hosts` and variables of the environment tell
//! where the other one is, which must run. In other networks it is an alias that only this container's server of names
//! knows: see `directory`.

use std::net::IpAddr;

use super::{DEFAULT, Membership};
use crate::config::HostConfig;
use crate::engine::Engine;
use crate::error::{Error, Result, short};
use crate::record::Record;

/// A container that is linked to, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Linked {
    /// Its address in the default network.
    pub(crate) address: IpAddr,
    /// The names that it has by the link, the alias first.
    pub(crate) names: Vec<String>,
    /// Variables that describe it.
    pub(crate) env: Vec<String>,
}

/// The two halves of `NAME[:ALIAS]`.
///
/// # Errors
/// Docker's message.
pub fn parse(text: &str) -> Result<(&str, &str)> {
    let bad = || Error::Invalid(format!("bad format for links: {text}"));
    let mut parts = text.split(':');
    let name = parts.next().filter(|name| !name.is_empty()).ok_or_else(bad)?.trim_start_matches('/');
    let alias = match parts.next() {
        // As inspected: `/db:/web/db`.
        Some(alias) => alias.rsplit('/').next().filter(|alias| !alias.is_empty()).ok_or_else(bad)?,
        None => name,
    };
    let fits = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
    if parts.next().is_some() || !fits(name) || !fits(alias) {
        return Err(bad());
    }
    Ok((name, alias))
}

/// What the names of a membership lead to that only its container has: alias and target, in lower case.
#[cfg(target_os = "linux")]
pub(super) fn targets(membership: &Membership) -> Vec<(String, String)> {
    let parsed = membership.links.iter().filter_map(|text| parse(text).ok());
    parsed.map(|(name, alias)| (alias.to_ascii_lowercase(), name.to_ascii_lowercase())).collect()
}

impl Engine {
    /// Checks links before anything is made: the others are there.
    pub(crate) fn check_links(&self, host: &HostConfig, networks: &[Membership]) -> Result<()> {
        let all = host.links.iter().chain(networks.iter().flat_map(|one| &one.links));
        let mut any = false;
        for text in all {
            any = true;
            let (name, _) = parse(text)?;
            // In a network of its own the other may come later.
            if host.links.contains(text) {
                self.container(name).map_err(|error| {
                    Error::Invalid(format!("could not get container for {name}: {error}"))
                })?;
            }
        }
        let mode = host.network_mode.as_str();
        if any && mode == "host" {
            let words = "conflicting options: host type networking can't be used with links. This would result in undefined behavior";
            return Err(Error::Invalid(words.to_owned()));
        }
        if any && mode.starts_with("container:") {
            let words = "conflicting options: container type network can't be used with links. This would result in undefined behavior";
            return Err(Error::Invalid(words.to_owned()));
        }
        Ok(())
    }

    /// The containers that one is linked to in the default network, as they are now.
    ///
    /// # Errors
    /// One of them does not run, or has no address there.
    pub(crate) fn linked(&self, record: &Record) -> Result<Vec<Linked>> {
        let mut all = Vec::new();
        for text in &record.host_config.links {
            let (name, alias) = parse(text)?;
            let other = self.container(name)?;
            let state = other.state()?;
            if !state.status.is_alive() {
                return Err(Error::Invalid(format!(
                    "Cannot link to a non running container: /{} AS /{}/{alias}",
                    other.record.name, record.name
                )));
            }
            let Some(endpoint) = state.networks.get(DEFAULT) else {
                return Err(Error::Invalid(format!(
                    "Cannot link to /{}, as it does not belong to the default network",
                    other.record.name
                )));
            };
            let address = IpAddr::V4(endpoint.address);
            let mut names = vec![alias.to_owned(), short(&other.record.id).to_owned()];
            if other.record.config.hostname != names[1] {
                names.insert(1, other.record.config.hostname.clone());
            }
            if other.record.name != alias {
                names.push(other.record.name.clone());
            }
            let env = variables(&other.record, &record.name, alias, address);
            all.push(Linked { address, names, env });
        }
        Ok(all)
    }
}

/// Docker's variables of a link.
fn variables(other: &Record, own: &str, alias: &str, address: IpAddr) -> Vec<String> {
    let prefix = alias.to_ascii_uppercase().replace('-', "_");
    let mut ports: Vec<(u16, &str)> = other
        .config
        .exposed_ports
        .keys()
        .filter_map(|port| {
            let (number, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            Some((number.parse().ok()?, protocol))
        })
        .collect();
    // TCP first among those of one number.
    ports.sort_unstable();
    let mut env = Vec::new();
    if let Some((port, protocol)) = ports.first() {
        env.push(format!("{prefix}_PORT={protocol}://{address}:{port}"));
    }
    for (port, protocol) in &ports {
        let one = format!("{prefix}_PORT_{port}_{}", protocol.to_ascii_uppercase());
        env.push(format!("{one}={protocol}://{address}:{port}"));
        env.push(format!("{one}_ADDR={address}"));
        env.push(format!("{one}_PORT={port}"));
        env.push(format!("{one}_PROTO={protocol}"));
    }
    env.push(format!("{prefix}_NAME=/{own}/{alias}"));
    for entry in &other.config.env {
        let name = entry.split('=').next().unwrap_or_default();
        if !matches!(name, "HOME" | "PATH") {
            env.push(format!("{prefix}_ENV_{entry}"));
        }
    }
    env
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("db").unwrap(), ("db", "db"));
        assert_eq!(parse("db:sql").unwrap(), ("db", "sql"));
        assert_eq!(parse("/db:/web/sql").unwrap(), ("db", "sql"));
        for bad in ["", ":", "db:", ":sql", "a:b:c", "a b", "db:x\ny"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let links = vec!["db:SQL".to_owned()];
        let membership = Membership { links, ..Membership::of("n") };
        assert_eq!(targets(&membership), [("sql".to_owned(), "db".to_owned())]);
    }
}
