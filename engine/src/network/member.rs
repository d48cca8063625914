//! What a container asks of each network that it is to be in.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::{DEFAULT, Network};
use crate::config::HostConfig;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Record;
use crate::spec;

/// One network of a container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Membership {
    /// The network's name.
    pub network: String,
    /// Other names for the container in it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Its address; any free one when `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
    /// Its address of IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address6: Option<Ipv6Addr>,
    /// Further addresses of its interface, which are nobody's to give: Docker's `LinkLocalIPs`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub link_local: Vec<IpAddr>,
    /// Its hardware address, as `02:42:0a:d2:00:02`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    /// Containers in it by names that only this one has for them, as `name:alias`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// What the driver is told of this endpoint.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub driver_opts: BTreeMap<String, String>,
    /// Of several networks that lead out the one with the highest does.
    #[serde(skip_serializing_if = "is_zero")]
    pub gw_priority: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

/// The driver option that names the interface in the container.
const INTERFACE: &str = "com.docker.network.endpoint.ifname";

impl Membership {
    /// Nothing but the network.
    pub fn of(network: &str) -> Self {
        Self { network: network.to_owned(), ..Self::default() }
    }

    /// The name of its interface inside, if one was asked for.
    ///
    /// # Errors
    /// One that the kernel would not take.
    pub(super) fn interface(&self) -> Result<Option<&str>> {
        let Some(name) = self.driver_opts.get(INTERFACE) else { return Ok(None) };
        let fits = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || name.len() > 15 || name.starts_with('.') || !name.chars().all(fits) {
            return Err(Error::Invalid(format!("invalid interface name: {name}")));
        }
        Ok(Some(name))
    }

    /// The hardware address in bytes, if one was asked for.
    pub(super) fn hardware(&self) -> Result<Option<[u8; 6]>> {
        if self.mac_address.is_empty() {
            return Ok(None);
        }
        let invalid = || Error::Invalid(format!("invalid MAC address: {}", self.mac_address));
        let mut bytes = [0; 6];
        let mut parts = self.mac_address.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2).ok_or_else(invalid)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| invalid())?;
        }
        // One of many receivers is no sender.
        if parts.next().is_some() || bytes[0] & 1 == 1 {
            return Err(invalid());
        }
        Ok(Some(bytes))
    }

    /// Reads `--link-local-ip`.
    ///
    /// # Errors
    /// Docker's words for what is no address.
    pub fn link_local(given: &[String]) -> Result<Vec<IpAddr>> {
        let wrong = || Error::Invalid(format!("Invalid link-local IP address: [{}]", given.join(" ")));
        given.iter().map(|text| text.parse().map_err(|_| wrong())).collect()
    }

    /// Checks it against its network, in Docker's words.
    pub(super) fn validate(&self, network: &Network) -> Result<()> {
        self.interface()?;
        for link in &self.links {
            super::links::parse(link)?;
        }
        let refused = |words: &str| Err(Error::Invalid(words.to_owned()));
        self.hardware()?;
        if network.name == DEFAULT {
            if self.address.is_some() || self.address6.is_some() {
                return refused("user specified IP address is supported on user defined networks only");
            }
            if !self.aliases.is_empty() {
                return refused(
                    "network-scoped alias is supported only for containers in user defined networks",
                );
            }
        }
        let beyond = |address: &dyn std::fmt::Display| {
            Err(Error::Invalid(format!(
                "Invalid address {address}: It does not belong to any of this network's subnets"
            )))
        };
        if let Some(address) = self.address {
            if !network.chosen {
                return refused(
                    "user specified IP address is supported only when connecting to networks with user configured subnets",
                );
            }
            if !network.addresses()?.contains(address) {
                return beyond(&address);
            }
        }
        if let Some(address) = self.address6
            && !network.addresses6()?.is_some_and(|subnet| subnet.contains(address))
        {
            return beyond(&address);
        }
        if let Some(alias) = self.aliases.iter().find(|alias| !is_name(alias)) {
            return Err(Error::Invalid(format!("invalid network alias: \"{alias}\"")));
        }
        Ok(())
    }
}

/// What can be asked for by a name server's rules, and harmless wherever it is printed.
fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.split('.').all(|label| (1..=63).contains(&label.len()))
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

impl Record {
    /// The networks that the container is in, by what was asked for: none of a container that has the host's, another
    /// one's or nothing.
    pub fn memberships(&self) -> Vec<Membership> {
        match (&self.networks, spec::Network::parse(&self.host_config.network_mode)) {
            (Some(networks), _) => networks.clone(),
            (None, Ok(spec::Network::Ours(name))) => vec![Membership::of(&name)],
            (None, _) => Vec::new(),
        }
    }

    /// Whether it finds other containers by their names.
    pub(crate) fn has_names(&self) -> bool {
        self.memberships().iter().any(|membership| membership.network != DEFAULT)
    }
}

impl Engine {
    /// Settles what a new container asks for: names in the place of ids, and nothing that cannot be.
    pub(crate) fn settle_memberships(
        &self,
        host: &mut HostConfig,
        mut asked: Vec<Membership>,
    ) -> Result<Option<Vec<Membership>>> {
        for asked in asked.iter_mut().filter(|asked| matches!(asked.network.as_str(), "" | "default")) {
            asked.network.clone_from(&host.network_mode);
        }
        self.check_links(host, &asked)?;
        let spec::Network::Ours(first) = spec::Network::parse(&host.network_mode)? else {
            let plain = |asked: &Membership| *asked == Membership::of(&asked.network);
            if asked.len() > 1 || asked.iter().any(|asked| asked.network != host.network_mode) {
                let words =
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
                return Err(Error::Invalid(words.to_owned()));
            }
            if let Some(asked) = asked.iter().find(|asked| !plain(asked)) {
                let words = if asked.address.is_some() || asked.address6.is_some() {
                    "user specified IP address is supported on user defined networks only"
                } else if !asked.aliases.is_empty() {
                    "network-scoped alias is supported only for containers in user defined networks"
                } else {
                    "conflicting options: mac-address and the network mode"
                };
                return Err(Error::Invalid(words.to_owned()));
            }
            return Ok(None);
        };
        if asked.is_empty() {
            asked.push(Membership::of(&first));
        }
        let mut settled: Vec<Membership> = Vec::new();
        for mut membership in asked {
            if membership.network == DEFAULT && membership == Membership::of(DEFAULT) && first == DEFAULT {
                // It is made with its first use.
                settled.push(membership);
                continue;
            }
            if matches!(spec::Network::parse(&membership.network)?, spec::Network::Ours(_)) {
                let network = match membership.network.as_str() {
                    DEFAULT => self.default_network(),
                    name => self.network(name),
                };
                match network {
                    Ok(network) => {
                        membership.validate(&network)?;
                        membership.network.clone_from(&network.name);
                    }
                    // It may be made before the container is started, which fails otherwise.
                    Err(Error::NoSuchNetwork(_)) => {}
                    Err(error) => return Err(error),
                }
            } else {
                let words =
                    "conflicting options: cannot attach both user-defined and non-user-defined network-modes";
                return Err(Error::Invalid(words.to_owned()));
            }
            if settled.iter().any(|other| other.network == membership.network) {
                let words = format!("network \"{}\" is specified multiple times", membership.network);
                return Err(Error::Invalid(words));
            }
            settled.push(membership);
        }
        if let Some(first) = settled.first() {
            host.network_mode.clone_from(&first.network);
        }
        Ok(Some(settled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses() {
        let of = |text: &str| Membership { mac_address: text.to_owned(), ..Membership::default() }.hardware();
        assert_eq!(of("").unwrap(), None);
        assert_eq!(of("02:42:0a:d2:00:02").unwrap(), Some([2, 0x42, 10, 0xd2, 0, 2]));
        for bad in ["x", "02:42", "01:42:0a:d2:00:02", "02:42:0a:d2:00:02:03", "2:42:a:d2:0:2"] {
            assert!(of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn aliases() {
        assert!(is_name("db") && is_name("db.internal") && is_name("a_b-c"));
        for bad in ["", ".", "a..b", "a b", "a\nb", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
