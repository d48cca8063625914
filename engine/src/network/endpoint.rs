//! Endpoints: a container is connected to its networks before its program runs, and leaves them when it ends.
//!
//! `endpoints/<address>` appears in whole, by a hard link: of two who want the same address one gets it. An endpoint whose
//! container nobody supervises any more is stale, and its address free. The cable goes with the container's namespace;
//! only the record and the published ports are taken back.
//!
//! Connecting one that runs is in `change`, published ports are in `publish`.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;

use super::address::{Subnet, hardware, hardware_text};
use super::firewall::{Element, Table};
use super::link::{self, Inside};
use super::publish::{self, Kept, forwards};
use super::rootless::Copier;
use super::{DEFAULT, Directory, ENDPOINTS, Endpoint, Membership, Network, Realm};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ports::{self, PortMap};
use crate::record::{Container, Record};

/// What a running container has of its networks; given up when dropped, except for what others see: see
/// [`Engine::disconnect_all`].
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// In the order of their interfaces.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Keeps published ports from others.
    pub(crate) kept: Kept,
    /// The container's namespace.
    pub(crate) namespace: Option<OwnedFd>,
    /// Without root: the program that is its network, and its ports.
    pub(crate) copied: Option<(Copier, PortMap)>,
    /// Without root: where its networks are.
    pub(crate) realm: Option<Arc<Realm>>,
}

impl Attached {
    /// As the state keeps it.
    pub(crate) fn by_name(&self) -> BTreeMap<String, Endpoint> {
        self.endpoints.iter().map(|endpoint| (endpoint.network.clone(), endpoint.clone())).collect()
    }

    /// Where the container's ports are.
    pub(crate) fn ports(&self) -> PortMap {
        if let Some((_, ports)) = &self.copied {
            return ports.clone();
        }
        let with_ports = self.endpoints.iter().find(|endpoint| !endpoint.ports.is_empty());
        with_ports.map(|endpoint| endpoint.ports.clone()).unwrap_or_default()
    }
}

/// A transaction on the networks of this root: what is needed of the kernel, and nobody who removes a network.
pub(super) struct Wiring {
    _lock: fs::File,
    owner: String,
    pub(super) table: Table,
}

/// One endpoint in the making.
pub(super) struct Wanted<'a> {
    pub(super) membership: &'a Membership,
    pub(super) network: &'a Network,
    /// The interface's number inside.
    pub(super) number: usize,
    /// It is to lead to everywhere else.
    pub(super) leads: bool,
    /// It is to lead to everywhere else of IPv6.
    pub(super) leads6: bool,
    pub(super) ports: PortMap,
}

impl Engine {
    /// Name of this root's table, and beginning of its interfaces' aliases.
    pub(super) fn network_owner(&self) -> Result<String> {
        Ok(format!("dhow-{}", self.identity()?))
    }

    /// Connects a container that does not run yet, whose namespace this is. The process must have one thread.
    pub(crate) fn connect_all(
        &self,
        container: &Container,
        namespace: OwnedFd,
        realm: Option<Arc<Realm>>,
    ) -> Result<Attached> {
        let record = &container.record;
        let mut attached = Attached::default();
        let mut wanted = Vec::new();
        for membership in record.memberships() {
            let network = match membership.network.as_str() {
                "default" | DEFAULT => self.default_network()?,
                name => self.network(name)?,
            };
            // It may be another one of that name by now.
            membership.validate(&network)?;
            wanted.push((membership, network));
        }
        if wanted.is_empty() {
            return Ok(attached);
        }
        if realm.is_some() && ports::wanted(record)?.iter().any(|(port, _)| port.ends_with("/sctp")) {
            let why = "without root: pasta and slirp4netns carry TCP and UDP only";
            return Err(Error::Invalid(format!("ports of SCTP cannot be published {why}")));
        }
        // The first that leads anywhere has the ports and the way out.
        let [first, first6] = ways_out(&wanted);
        let first = first.unwrap_or(0);
        let (_, main) = &wanted[first];
        let held = publish::take(record, main.understood()?.binding.as_deref(), main.subnet6.is_some())?;
        let ports = publish::shown(&held);
        let exclusive = wanted.iter().any(|(_, network)| network.subnet6.is_some());
        let connect = || {
            let mut endpoints = Vec::new();
            if realm.is_some() {
                self.remove_lost_bridges()?;
            }
            let mut wiring = self.wire(exclusive)?;
            for (number, (membership, network)) in wanted.iter().enumerate() {
                let leads = number == first;
                let ports = if leads { ports.clone() } else { PortMap::new() };
                let one =
                    Wanted { membership, network, number, leads, leads6: first6 == Some(number), ports };
                match self.connect_one(&mut wiring, record, namespace.as_fd(), one) {
                    Ok(endpoint) => endpoints.push(endpoint),
                    Err(error) => {
                        self.free_all(endpoints.iter())?;
                        return Err(error);
                    }
                }
            }
            Ok(endpoints)
        };
        attached.endpoints = match &realm {
            Some(realm) => realm.inside(connect)?,
            None => connect()?,
        };
        attached.kept = publish::kept(held);
        attached.namespace = Some(namespace);
        attached.realm = realm;
        self.write_hosts(container, record, &attached.endpoints)?;
        Ok(attached)
    }

    /// The names that a container finds.
    pub(crate) fn directory(&self, container: &Container) -> Directory {
        let containers = self.places().map(|place| place.containers.clone()).collect();
        Directory::new(self.networks_folder(), containers, container.folder().to_owned())
    }

    /// Makes sure that the table is there, and that nobody removes a network. Where addresses are not taken by a link
    /// alone, nobody else takes any.
    pub(super) fn wire(&self, exclusive: bool) -> Result<Wiring> {
        let lock = self.networks_lock()?;
        if exclusive {
            lock.file().lock()?;
        } else {
            lock.file().lock_shared()?;
        }
        let owner = self.network_owner()?;
        let mut table = Table::open(&owner).map_err(failed("connect to the packet filter"))?;
        if table.install().map_err(failed("make the table of the packet filter"))? {
            // It was flushed, or this is the first container since the host was started.
            self.refill(&mut table)?;
        }
        Ok(Wiring { _lock: lock, owner, table })
    }

    /// Connects a container to one network.
    pub(super) fn connect_one(
        &self,
        wiring: &mut Wiring,
        record: &Record,
        namespace: BorrowedFd<'_>,
        wanted: Wanted<'_>,
    ) -> Result<Endpoint> {
        let network = wanted.network;
        let subnet = network.addresses()?;
        let subnet6 = network.addresses6()?;
        let options = network.understood()?;
        let alias = format!("{} {}", wiring.owner, network.id);
        let bridge = link::ensure_bridge(&link::Bridge {
            name: &network.bridge,
            alias: &alias,
            address: (network.gateway, subnet),
            address6: network.gateway6.zip(subnet6),
            mtu: options.mtu,
        })
        .map_err(failed("make the network's bridge"))?;
        let added = match wiring.table.add(&[bridge_of(network)?]) {
            // The table is an earlier version's, and lacks something.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                wiring
                    .table
                    .uninstall()
                    .and_then(|()| wiring.table.install())
                    .map(drop)
                    .map_err(failed("make the table anew"))?;
                self.refill(&mut wiring.table)?;
                wiring.table.add(&[bridge_of(network)?])
            }
            added => added,
        };
        added.map_err(failed("add the bridge to the packet filter"))?;
        let membership = wanted.membership;
        let (leads, leads6) = (wanted.leads, wanted.leads6);
        let endpoint = self.take_address(record, wanted, &options.prefix)?;
        let inside = Inside {
            name: endpoint.interface.clone(),
            address: endpoint.address,
            subnet,
            address6: endpoint.address6.zip(subnet6),
            link_local: membership.link_local.clone(),
            gateway: endpoint.gateway.filter(|_| leads),
            gateway6: endpoint.gateway6.filter(|_| leads6),
            hardware: membership.hardware()?.unwrap_or_else(|| hardware(endpoint.address)),
            mtu: options.mtu,
            silent: !options.icc,
        };
        let outside = format!("veth{}", &endpoint.id[..9]);
        let done = link::connect(&outside, &alias, bridge, namespace, &inside)
            .map_err(failed("connect the container to its network"))
            .and_then(|()| {
                let published = forwards(&endpoint);
                wiring.table.add(&published).map_err(failed("publish the container's ports"))
            });
        if let Err(error) = done {
            self.free(&endpoint)?;
            return Err(error);
        }
        Ok(endpoint)
    }

    /// Takes back what a container had of its networks, as they are now. Its cables go with its namespace.
    pub(crate) fn disconnect_all(&self, container: &Container, attached: &Attached) -> Result<()> {
        if attached.namespace.is_none() {
            return Ok(());
        }
        let mut endpoints = container.state().map(|state| state.networks).unwrap_or_default();
        for endpoint in &attached.endpoints {
            endpoints.entry(endpoint.network.clone()).or_insert_with(|| endpoint.clone());
        }
        self.free_all(endpoints.values())
    }

    fn free_all<'a>(&self, endpoints: impl Iterator<Item = &'a Endpoint>) -> Result<()> {
        for endpoint in endpoints {
            self.free(endpoint)?;
        }
        Ok(())
    }

    /// The ports first: who gets the address next must not get them with it.
    pub(super) fn free(&self, endpoint: &Endpoint) -> Result<()> {
        let forwards = forwards(endpoint);
        if !forwards.is_empty() {
            self.there(|| {
                let mut table =
                    Table::open(&self.network_owner()?).map_err(failed("connect to the packet filter"))?;
                table.remove(&forwards).map_err(failed("take ports out of the packet filter"))
            })?;
        }
        let path = self.network_folder(&endpoint.network).join(ENDPOINTS).join(endpoint.address.to_string());
        // Unless it is another one's by now.
        if read(&path)?.is_some_and(|there| there.id == endpoint.id) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// An address, written down: the one that is wanted, or any that is free.
    fn take_address(&self, record: &Record, wanted: Wanted<'_>, prefix: &str) -> Result<Endpoint> {
        let Wanted { membership, network, number, ports, .. } = wanted;
        let subnet = network.addresses()?;
        let folder = self.network_folder(&network.name).join(ENDPOINTS);
        let mut endpoint = Endpoint {
            id: crate::container::create::random_id()?.0,
            network: network.name.clone(),
            network_id: network.id.clone(),
            container: record.id.clone(),
            interface: membership.interface()?.map_or_else(|| format!("{prefix}{number}"), str::to_owned),
            address: subnet.first,
            prefix: subnet.prefix,
            gateway: (!network.internal).then_some(network.gateway),
            address6: None,
            prefix6: 0,
            gateway6: network.gateway6.filter(|_| !network.internal),
            mac_address: String::new(),
            ports,
            aliases: membership.aliases.clone(),
            names: names(record, membership),
            links: super::links::targets(membership),
        };
        if let Some(subnet6) = network.addresses6()? {
            let taken = self.all_endpoints(&network.name)?;
            endpoint.address6 = Some(free_address6(subnet6.hosts(), membership, network, &taken)?);
            endpoint.prefix6 = subnet6.prefix;
        }
        let reserved = |address: &Ipv4Addr| {
            *address == network.gateway || network.reserved.values().any(|other| other == address)
        };
        let range = network.ip_range.as_deref().map(str::parse::<Subnet>).transpose()?;
        let candidates: Box<dyn Iterator<Item = Ipv4Addr>> = match membership.address {
            Some(address) => Box::new(std::iter::once(address)),
            None => {
                let fits = move |address: &Ipv4Addr| range.is_none_or(|range| range.contains(*address));
                Box::new(subnet.hosts().filter(fits))
            }
        };
        for address in candidates.filter(|address| !reserved(address)) {
            endpoint.address = address;
            let hardware = membership.hardware()?.unwrap_or_else(|| hardware(address));
            endpoint.mac_address = hardware_text(hardware);
            if self.claim_address(&folder, &endpoint)? {
                return Ok(endpoint);
            }
        }
        if membership.address.is_some() {
            return Err(Error::Invalid("Address already in use".to_owned()));
        }
        Err(Error::Invalid(format!(
            "no available IPv4 addresses on this network's address pools: {} ({})",
            network.name, network.id
        )))
    }

    fn claim_address(&self, folder: &Path, endpoint: &Endpoint) -> Result<bool> {
        let place = folder.join(endpoint.address.to_string());
        if let Some(there) = read(&place)? {
            if self.is_supervised_id(&there.container)? {
                return Ok(false);
            }
            // Its monitor was killed.
            self.free(&there)?;
        }
        // No address begins with a dot.
        let own = folder.join(format!(".{}", endpoint.id));
        crate::record::write(&own, endpoint, false)?;
        let claimed = fs::hard_link(&own, &place);
        fs::remove_file(&own)?;
        match claimed {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            // The network was removed just now.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(Error::NoSuchNetwork(endpoint.network.clone()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Replaces the record of an endpoint that is this container's.
    pub(super) fn rewrite(&self, endpoint: &Endpoint) -> Result<()> {
        let path = self.network_folder(&endpoint.network).join(ENDPOINTS).join(endpoint.address.to_string());
        let own = path.with_file_name(format!(".{}", endpoint.id));
        crate::record::write(&own, endpoint, false)?;
        Ok(fs::rename(own, path)?)
    }

    pub(super) fn is_supervised_id(&self, id: &str) -> Result<bool> {
        for place in self.places() {
            if crate::record::is_supervised(&place.containers.join(id))? {
                return Ok(true);
            }
        }
        crate::record::is_supervised(&self.builds_folder().join(id))
    }

    /// Takes back the addresses of a container that is gone, without another check's words.
    pub(crate) fn free_addresses_of(&self, container: &str) -> Result<()> {
        for network in self.networks()? {
            let entries = match fs::read_dir(self.network_folder(&network.name).join(ENDPOINTS)) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                other => other?,
            };
            for entry in entries {
                if let Ok(Some(endpoint)) = read(&entry?.path())
                    && endpoint.container == container
                {
                    self.free(&endpoint)?;
                }
            }
        }
        Ok(())
    }

    /// Every endpoint of a network whose container lives.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn endpoints(&self, network: &str) -> Result<Vec<Endpoint>> {
        let mut living = Vec::new();
        for endpoint in self.all_endpoints(network)? {
            if self.is_supervised_id(&endpoint.container)? {
                living.push(endpoint);
            }
        }
        Ok(living)
    }

    fn all_endpoints(&self, network: &str) -> Result<Vec<Endpoint>> {
        let entries = match fs::read_dir(self.network_folder(network).join(ENDPOINTS)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut endpoints = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                continue;
            }
            endpoints.extend(read(&entry.path())?);
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        Ok(endpoints)
    }

    /// Every endpoint of a network whose container is gone.
    pub(super) fn stale_endpoints(&self, network: &str) -> Result<Vec<Endpoint>> {
        let mut stale = Vec::new();
        for endpoint in self.all_endpoints(network)? {
            if !self.is_supervised_id(&endpoint.container)? {
                stale.push(endpoint);
            }
        }
        Ok(stale)
    }

    /// Puts everything that runs into a table that was just made.
    pub(super) fn refill(&self, table: &mut Table) -> Result<()> {
        let mut elements = Vec::new();
        for network in self.networks()? {
            if link::index(&network.bridge).is_some() {
                elements.push(bridge_of(&network)?);
            }
            for endpoint in self.endpoints(&network.name)? {
                elements.extend(forwards(&endpoint));
            }
        }
        table.add(&elements).map_err(failed("fill the table of the packet filter"))
    }

    /// Takes out what belongs to networks that were removed where their bridges could not be reached.
    fn remove_lost_bridges(&self) -> Result<()> {
        let owner = self.network_owner()?;
        let networks = self.networks()?;
        for (name, alias) in link::aliases().map_err(failed("look at links"))? {
            let id = alias.split_once(' ').filter(|(whose, _)| *whose == owner).map(|(_, id)| id);
            let is_lost = |id: &str| networks.iter().all(|network| network.id != id);
            if id.is_some_and(is_lost) {
                link::remove(&name).map_err(failed("remove a bridge"))?;
            }
        }
        Ok(())
    }

    /// Takes a network out of the kernel.
    pub(super) fn unmake(&self, network: &Network) -> Result<()> {
        self.there(|| self.unmake_there(network)).map(drop)
    }

    fn unmake_there(&self, network: &Network) -> Result<()> {
        let owner = self.network_owner()?;
        let alias = format!("{owner} {}", network.id);
        let mut table = Table::open(&owner).map_err(failed("connect to the packet filter"))?;
        if link::alias_of(&network.bridge).as_deref() == Some(&alias) {
            table
                .remove(&[bridge_of(network)?])
                .map_err(failed("take the bridge out of the packet filter"))?;
            link::remove(&network.bridge).map_err(failed("remove the network's bridge"))?;
        }
        // Without a bridge there is nothing to filter.
        if self.networks()?.iter().all(|network| link::index(&network.bridge).is_none()) {
            table.uninstall().map_err(failed("remove the table of the packet filter"))?;
        }
        Ok(())
    }
}

pub(super) fn failed(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Network { action, source }
}

pub(super) fn read(path: &Path) -> Result<Option<Endpoint>> {
    match crate::record::read(path) {
        Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn bridge_of(network: &Network) -> Result<Element> {
    let options = network.understood()?;
    Ok(Element::Bridge {
        name: network.bridge.clone(),
        internal: network.internal,
        silent: !options.icc,
        masked: options.masquerade,
    })
}

/// Every name of a container in a network, in lower case. The default network has none.
pub(super) fn names(record: &Record, membership: &Membership) -> Vec<String> {
    if membership.network == DEFAULT {
        return Vec::new();
    }
    let short = crate::error::short(&record.id);
    let mut names = vec![record.name.to_ascii_lowercase()];
    let others = membership.aliases.iter().map(String::as_str).chain([short, &record.config.hostname]);
    for name in others.filter(|name| !name.is_empty()).map(str::to_ascii_lowercase) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

impl Engine {
    /// The same file: it is mounted in the container already, unless the user has one of his own there.
    pub(super) fn write_hosts(
        &self,
        container: &Container,
        record: &Record,
        endpoints: &[Endpoint],
    ) -> Result<()> {
        let text = super::files::hosts(record, endpoints, &self.linked(record)?)?;
        rewrite_file(&container.folder().join("hosts"), &text)
    }
}

impl Engine {
    /// The networks of a container, as they are now. One that is gone is missing.
    pub(super) fn networks_of(&self, memberships: &[Membership]) -> Result<Vec<(Membership, Network)>> {
        let mut found = Vec::new();
        for membership in memberships {
            match self.network(&membership.network) {
                Err(Error::NoSuchNetwork(_)) => {}
                network => found.push((membership.clone(), network?)),
            }
        }
        Ok(found)
    }
}

/// The networks that lead to everywhere else, by IPv4 and by IPv6.
pub(super) fn ways_out(wanted: &[(Membership, Network)]) -> [Option<usize>; 2] {
    [
        way_out(wanted, |network| !network.internal),
        way_out(wanted, |network| !network.internal && network.subnet6.is_some()),
    ]
}

/// Which network leads to everywhere else: of those that lead anywhere the first with the highest priority.
fn way_out(wanted: &[(Membership, Network)], leads: impl Fn(&Network) -> bool) -> Option<usize> {
    let leading = wanted.iter().enumerate().filter(|(_, (_, network))| leads(network));
    leading.min_by_key(|(_, (membership, _))| std::cmp::Reverse(membership.gw_priority)).map(|(at, _)| at)
}

/// Gives a file that is mounted somewhere another content; one that is not there stays so.
pub(super) fn rewrite_file(path: &Path, text: &str) -> Result<()> {
    use std::io::Write as _;
    match fs::OpenOptions::new().write(true).truncate(true).open(path) {
        Ok(mut file) => Ok(file.write_all(text.as_bytes())?),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The caller holds the lock of all networks alone.
fn free_address6(
    mut hosts: impl Iterator<Item = Ipv6Addr>,
    membership: &Membership,
    network: &Network,
    taken: &[Endpoint],
) -> Result<Ipv6Addr> {
    let free = |address: &Ipv6Addr| {
        network.gateway6 != Some(*address) && taken.iter().all(|endpoint| endpoint.address6 != Some(*address))
    };
    let found = match membership.address6 {
        Some(address) => Some(address).filter(free),
        None => hosts.find(free),
    };
    found.ok_or_else(|| Error::Invalid("Address already in use".to_owned()))
}
