//! Who has which name, for one container: read from the endpoints of the networks that it is in.
//!
//! Nothing is told to anybody when containers come and go: the folders on the disk say it, and what was read of one is
//! kept only for as long as it does not change.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use fs_err as fs;

use super::{DEFAULT, ENDPOINTS, Endpoint};
use crate::record::State;

/// A folder that was changed later than this before it was read may change again without showing it: clocks of file
/// systems are coarse.
const TOO_FRESH: Duration = Duration::from_secs(1);

/// The names that one container finds.
#[derive(Debug)]
pub(crate) struct Directory {
    /// The folder of all networks.
    networks: PathBuf,
    /// The folders in which containers are.
    containers: Vec<PathBuf>,
    /// The container's own folder.
    own: PathBuf,
    known: HashMap<String, Known>,
}

/// What was read of a network.
#[derive(Debug)]
struct Known {
    changed: SystemTime,
    endpoints: Vec<Endpoint>,
}

/// What is known of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// Its addresses, of both families.
    Addresses(Vec<IpAddr>),
    /// Nothing: somebody else may know.
    Nothing,
    /// Nothing, and nobody else may be asked: all the container's networks lead nowhere.
    Alone,
}

impl Directory {
    pub(super) fn new(networks: PathBuf, containers: Vec<PathBuf>, own: PathBuf) -> Self {
        Self { networks, containers, own, known: HashMap::new() }
    }

    /// The endpoints that the container has now.
    fn own_endpoints(&self) -> Vec<Endpoint> {
        let state = crate::record::read::<State>(&self.own.join("state.json"));
        state.map(|state| state.networks.into_values().collect()).unwrap_or_default()
    }

    /// The address that its published ports lead to now.
    pub(crate) fn published(&self) -> Option<Ipv4Addr> {
        let with_ports = self.own_endpoints().into_iter().find(|endpoint| !endpoint.ports.is_empty());
        with_ports.map(|endpoint| endpoint.address)
    }

    /// Whether it is in a network in which there are names.
    pub(crate) fn has_names(&self) -> bool {
        self.own_endpoints().iter().any(|endpoint| endpoint.network != DEFAULT)
    }

    /// The addresses of a name, which is in lower case.
    pub(crate) fn find(&mut self, name: &str) -> Found {
        let own = self.own_endpoints();
        let mut addresses = Vec::new();
        for mine in own.iter().filter(|endpoint| endpoint.network != DEFAULT) {
            let network = &mine.network;
            let linked =
                mine.links.iter().find(|(alias, _)| alias == name).map(|(_, target)| target.as_str());
            let plain = name.strip_suffix(&network.to_ascii_lowercase()).and_then(|n| n.strip_suffix('.'));
            for endpoint in self.endpoints(network) {
                let has = |name: &str| endpoint.names.iter().any(|known| known == name);
                // By a link only this container has that name for it.
                let is_linked =
                    linked.is_some_and(|target| has(target) || endpoint.container.starts_with(target));
                if (is_linked || has(name) || plain.is_some_and(has)) && self.lives(&endpoint) {
                    addresses.push(IpAddr::V4(endpoint.address));
                    addresses.extend(endpoint.address6.map(IpAddr::V6));
                }
            }
        }
        match addresses.is_empty() {
            false => Found::Addresses(addresses),
            true if !own.is_empty() && own.iter().all(|endpoint| endpoint.gateway.is_none()) => Found::Alone,
            true => Found::Nothing,
        }
    }

    /// The name of an address, with its network.
    pub(crate) fn name_of(&mut self, address: IpAddr) -> Option<String> {
        for own in self.own_endpoints().into_iter().filter(|endpoint| endpoint.network != DEFAULT) {
            let here = self.endpoints(&own.network).into_iter().find(|endpoint| {
                IpAddr::V4(endpoint.address) == address || endpoint.address6.map(IpAddr::V6) == Some(address)
            });
            if let Some(endpoint) = here.filter(|endpoint| self.lives(endpoint)) {
                let name = endpoint.names.first()?;
                return Some(format!("{name}.{}", own.network));
            }
        }
        None
    }

    /// Every endpoint of a network, also of containers whose monitor was killed. What cannot be read is not there.
    fn endpoints(&mut self, network: &str) -> Vec<Endpoint> {
        let folder = self.networks.join(network).join(ENDPOINTS);
        let Ok(changed) = fs::metadata(&folder).and_then(|found| found.modified()) else { return Vec::new() };
        if let Some(known) = self.known.get(network).filter(|known| known.changed == changed) {
            return known.endpoints.clone();
        }
        let endpoints = read_all(&folder);
        self.known.remove(network);
        if changed.elapsed().is_ok_and(|age| age > TOO_FRESH) {
            self.known.insert(network.to_owned(), Known { changed, endpoints: endpoints.clone() });
        }
        endpoints
    }

    fn lives(&self, endpoint: &Endpoint) -> bool {
        self.containers
            .iter()
            .any(|place| crate::record::is_supervised(&place.join(&endpoint.container)).unwrap_or(false))
    }
}

fn read_all(folder: &Path) -> Vec<Endpoint> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let places = entries.flatten().filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."));
    let mut endpoints: Vec<Endpoint> =
        places.filter_map(|entry| crate::record::read(&entry.path()).ok()).collect();
    endpoints.sort_by_key(|endpoint| endpoint.address);
    endpoints
}
