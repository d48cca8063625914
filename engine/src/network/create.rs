//! Making networks: their names, drivers, subnets and options.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;

use super::address::{Subnet, candidates};
use super::address6::Subnet6;
use super::options::Options;
use super::{BRIDGE, BUILT_IN, COPIED, DEFAULT, ENDPOINTS, Network, RECORD, validate};
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::record;

/// How a network is to be made.
#[derive(Debug, Clone, Default)]
pub struct CreateNetwork {
    /// Its name.
    pub name: String,
    /// `bridge`, or empty for it.
    pub driver: String,
    /// Its addresses; a free subnet when `None`.
    pub subnet: Option<Subnet>,
    /// This host's address; the first one of the subnet when `None`.
    pub gateway: Option<Ipv4Addr>,
    /// The part of the subnet that containers get addresses of which ask for none.
    pub ip_range: Option<Subnet>,
    /// Addresses that nobody gets, by what they are for.
    pub reserved: BTreeMap<String, Ipv4Addr>,
    /// It has addresses of IPv6.
    pub ipv6: bool,
    /// Which; local ones of its own when `None`.
    pub subnet6: Option<Subnet6>,
    /// This host's address of IPv6; the first one of the subnet when `None`.
    pub gateway6: Option<Ipv6Addr>,
    /// It leads nowhere.
    pub internal: bool,
    /// Docker's note that services may use it.
    pub attachable: bool,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
    /// What who chooses addresses is told; kept and shown.
    pub ipam_options: BTreeMap<String, String>,
    /// Free-form notes.
    pub labels: BTreeMap<String, String>,
}

fn refused<T>(words: String) -> Result<T> {
    Err(Error::Invalid(words))
}

impl CreateNetwork {
    /// What can be checked without knowing other networks, in Docker's words.
    fn validate(&self) -> Result<()> {
        if matches!(self.driver.as_str(), "host" | "null") {
            return refused(format!("only one instance of \"{}\" network is allowed", self.driver));
        }
        if !self.driver.is_empty() && self.driver != BRIDGE {
            return refused(format!(
                "could not find plugin {0} in v1 plugin registry: plugin \"{0}\" not found",
                self.driver
            ));
        }
        let subnet = self.subnet;
        let fits = |address: Ipv4Addr| subnet.is_some_and(|subnet| subnet.contains(address));
        if let Some(gateway) = self.gateway.filter(|gateway| !fits(*gateway)) {
            return refused(format!("no matching subnet for gateway {gateway}"));
        }
        if let Some(range) = self.ip_range.filter(|range| !fits(range.first) || !fits(range.last())) {
            return refused(format!("no matching subnet for range {range}"));
        }
        if let Some(address) = self.reserved.values().find(|address| !fits(**address)) {
            return refused(format!("no matching subnet for aux-address {address}"));
        }
        if self.subnet6.is_some() && !self.ipv6 {
            return refused("a subnet of IPv6 needs --ipv6".to_owned());
        }
        let fits6 = |address: Ipv6Addr| self.subnet6.is_some_and(|subnet| subnet.contains(address));
        if let Some(gateway) = self.gateway6.filter(|gateway| !fits6(*gateway)) {
            return refused(format!("no matching subnet for gateway {gateway}"));
        }
        Ok(())
    }
}

impl Engine {
    /// Makes a network. Nothing of it is in the kernel before something is connected to it.
    ///
    /// # Errors
    /// Docker's messages for what cannot be: a name that is taken, a driver that is not there, a subnet that overlaps.
    pub fn create_network(&self, wanted: CreateNetwork) -> Result<Network> {
        validate(&wanted.name)?;
        let name = wanted.name.as_str();
        if BUILT_IN.contains(&name) || COPIED.contains(&name) || name == DEFAULT {
            let words = format!("operation is not permitted on predefined {} network", wanted.name);
            return Err(Error::Invalid(words));
        }
        self.make_network(wanted)
    }

    pub(super) fn make_network(&self, wanted: CreateNetwork) -> Result<Network> {
        wanted.validate()?;
        let options = Options::of(&wanted.options)?;
        let lock = self.networks_lock()?;
        lock.file().lock()?;
        let others = self.networks()?;
        if others.iter().any(|other| other.name == wanted.name) {
            return refused(format!("network with name {} already exists", wanted.name));
        }
        let id = crate::container::create::random_id()?.0;
        let subnet = free_subnet(&wanted, &others, &id)?;
        let Some(gateway) = wanted.gateway.or_else(|| subnet.hosts().next()) else {
            return refused(format!("no matching subnet for gateway {}", subnet.first));
        };
        let subnet6 = match (wanted.ipv6, wanted.subnet6) {
            (false, _) => None,
            (true, given) => Some(given.unwrap_or_else(|| Subnet6::local(&id))),
        };
        for other in &others {
            if let (Some(own), Some(other)) = (subnet6, other.addresses6()?)
                && own.overlaps(other)
            {
                return refused("Pool overlaps with other one on this address space".to_owned());
            }
        }
        let gateway6 = wanted.gateway6.or_else(|| subnet6.and_then(|subnet| subnet.hosts().next()));
        let bridge = options.bridge.unwrap_or_else(|| format!("br-{}", &id[..12]));
        if others.iter().any(|other| other.bridge == bridge) {
            return refused(format!("the interface {bridge} belongs to another network"));
        }
        let network = Network {
            id,
            name: wanted.name,
            created: Timestamp::now(),
            bridge,
            subnet: subnet.to_string(),
            gateway,
            subnet6: subnet6.map(|subnet| subnet.to_string()),
            gateway6,
            ip_range: wanted.ip_range.map(|range| range.to_string()),
            reserved: wanted.reserved,
            internal: wanted.internal,
            attachable: wanted.attachable,
            chosen: wanted.subnet.is_some(),
            options: wanted.options,
            ipam_options: wanted.ipam_options,
            labels: wanted.labels,
        };
        let folder = self.network_folder(&network.name);
        let make = || -> Result<()> {
            make_folder(&folder)?;
            make_folder(&folder.join(ENDPOINTS))?;
            record::write(&folder.join(RECORD), &network, true)
        };
        if let Err(error) = make() {
            // A full disk: what was begun goes.
            crate::container::remove_folder(&folder).ok();
            return Err(error);
        }
        let about = [("name", network.name.as_str()), ("type", BRIDGE)];
        self.tell_later(&Event::new("network", "create", &network.id, &about));
        Ok(network)
    }
}

/// A subnet that no other network and no route of this host has. Where the search begins is the id's to say: what has no
/// route yet (another root's networks, another engine's) seldom wants the same one.
fn free_subnet(wanted: &CreateNetwork, others: &[Network], id: &str) -> Result<Subnet> {
    let mut taken = Vec::new();
    for other in others {
        taken.push(other.addresses()?);
    }
    if let Some(subnet) = wanted.subnet {
        if taken.iter().any(|other| other.overlaps(subnet)) {
            return refused("Pool overlaps with other one on this address space".to_owned());
        }
        return Ok(subnet);
    }
    #[cfg(target_os = "linux")]
    taken.extend(super::link::routes()?);
    let mut candidates: Vec<Subnet> = candidates(wanted.name == DEFAULT).collect();
    let first = usize::from_str_radix(id.get(..4).unwrap_or_default(), 16).unwrap_or(0);
    let all = candidates.len().max(1);
    candidates.rotate_left(first % all);
    candidates
        .into_iter()
        .find(|candidate| !taken.iter().any(|other| other.overlaps(*candidate)))
        .ok_or_else(|| Error::Invalid("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network".to_owned()))
}
