//! Endpoints: a container is connected to its networks before its program runs, and leaves them when it ends.
//!
//! `endpoints/<address>` appears in whole, by a hard link: of two who want the same address one gets it. An endpoint whose
//! container nobody supervises any more is stale, and its address free. The cable goes with the container's namespace;
//! only the record and the published ports are taken back.
//!
//! A published port is held by a bound socket of the monitor for as long as the container runs, so that no other program
//! of this host gets it, and one that has it is noticed. Nothing is ever read from that socket: the packet filter leads
//! connections past it.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use fs_err as fs;

use super::address::{hardware, hardware_text};
use super::firewall::{Element, Forward, Protocol, Table};
use super::link::{self, Inside};
use super::{ENDPOINTS, Endpoint, Network};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ports::{self, PortMap};
use crate::record::{Container, Record};
use crate::system::Problem;

/// What a running container has of its networks; given up when dropped, except for what others see: see
/// [`Engine::disconnect_all`].
#[derive(Debug, Default)]
pub(crate) struct Attached {
    /// In order; the first leads to the world.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Keep published ports from others.
    held: Vec<OwnedFd>,
}

impl Attached {
    /// As the state keeps it.
    pub(crate) fn by_name(&self) -> BTreeMap<String, Endpoint> {
        self.endpoints.iter().map(|endpoint| (endpoint.network.clone(), endpoint.clone())).collect()
    }

    /// Where the container's ports are.
    pub(crate) fn ports(&self) -> PortMap {
        self.endpoints.first().map(|endpoint| endpoint.ports.clone()).unwrap_or_default()
    }
}

impl Engine {
    /// Name of this root's table, and beginning of its interfaces' aliases.
    fn network_owner(&self) -> Result<String> {
        Ok(format!("dhow-{}", self.identity()?))
    }

    /// Connects a container that waits at its gate. The process must have one thread.
    pub(crate) fn connect_all(&self, container: &Container, pid: u32) -> Result<Attached> {
        let record = &container.record;
        let mut attached = Attached::default();
        let Some(network) = self.network_of(record)? else { return Ok(attached) };
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?;
        // Nobody removes a network, or the table with the last one, meanwhile.
        let lock = self.networks_lock()?;
        lock.file().lock_shared()?;
        let owner = self.network_owner()?;
        let mut table = Table::open(&owner).map_err(failed("connect to the packet filter"))?;
        if table.install().map_err(failed("make the table of the packet filter"))? {
            // It was flushed, or this is the first container since the host was started.
            self.refill(&mut table)?;
        }
        let subnet = network.addresses()?;
        let alias = format!("{owner} {}", network.id);
        let bridge = link::ensure_bridge(&network.bridge, &alias, network.gateway, subnet)
            .map_err(failed("make the network's bridge"))?;
        table.add(&[bridge_of(&network)]).map_err(failed("add the bridge to the packet filter"))?;
        let (forwards, ports, held) = published(record)?;
        let id = crate::container::create::random_id()?.0;
        let endpoint = self.take_address(record, &network, id, ports)?;
        let done = (|| {
            let inside = Inside {
                name: endpoint.interface.clone(),
                address: endpoint.address,
                subnet,
                gateway: endpoint.gateway,
                hardware: hardware(endpoint.address),
            };
            let outside = format!("veth{}", &endpoint.id[..9]);
            link::connect(&outside, &alias, bridge, namespace.file().as_fd(), &inside)
                .map_err(failed("connect the container to its network"))?;
            table
                .add(&forwards_to(&forwards, endpoint.address))
                .map_err(failed("publish the container's ports"))
        })();
        if let Err(error) = done {
            self.free(&endpoint)?;
            return Err(error);
        }
        attached.held = held;
        attached.endpoints.push(endpoint);
        // The same file: it is mounted in the container already, unless the user has one of his own there.
        match fs::OpenOptions::new().write(true).truncate(true).open(container.folder().join("hosts")) {
            Ok(mut file) => file.write_all(super::files::hosts(record, &attached.endpoints)?.as_bytes())?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(attached)
    }

    /// Takes back what a container had of its networks. Its cables go with its namespace.
    pub(crate) fn disconnect_all(&self, attached: &Attached) -> Result<()> {
        for endpoint in &attached.endpoints {
            self.free(endpoint)?;
        }
        Ok(())
    }

    /// The ports first: who gets the address next must not get them with it.
    pub(super) fn free(&self, endpoint: &Endpoint) -> Result<()> {
        let forwards = forwards(&endpoint.ports, endpoint.address);
        if !forwards.is_empty() {
            let mut table =
                Table::open(&self.network_owner()?).map_err(failed("connect to the packet filter"))?;
            table.remove(&forwards).map_err(failed("take ports out of the packet filter"))?;
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

    /// The network of a container, if it has one of ours.
    fn network_of(&self, record: &Record) -> Result<Option<Network>> {
        match record.host_config.network_mode.as_str() {
            "" | "none" | "host" => Ok(None),
            "default" | super::DEFAULT => self.default_network().map(Some),
            mode if mode.starts_with("container:") => Ok(None),
            name => self.network(name).map(Some),
        }
    }

    /// A free address, written down.
    fn take_address(
        &self,
        record: &Record,
        network: &Network,
        id: String,
        ports: PortMap,
    ) -> Result<Endpoint> {
        let subnet = network.addresses()?;
        let folder = self.network_folder(&network.name).join(ENDPOINTS);
        let mut endpoint = Endpoint {
            id,
            network: network.name.clone(),
            network_id: network.id.clone(),
            container: record.id.clone(),
            interface: "eth0".to_owned(),
            address: subnet.first,
            prefix: subnet.prefix,
            gateway: (!network.internal).then_some(network.gateway),
            mac_address: String::new(),
            ports,
            aliases: Vec::new(),
        };
        for address in subnet.hosts().filter(|address| *address != network.gateway) {
            endpoint.address = address;
            endpoint.mac_address = hardware_text(hardware(address));
            if self.claim_address(&folder, &endpoint)? {
                return Ok(endpoint);
            }
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

    fn is_supervised_id(&self, id: &str) -> Result<bool> {
        for place in self.places() {
            if crate::record::is_supervised(&place.containers.join(id))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Every endpoint of a network whose container lives.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn endpoints(&self, network: &str) -> Result<Vec<Endpoint>> {
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
            if let Some(endpoint) = read(&entry.path())?
                && self.is_supervised_id(&endpoint.container)?
            {
                endpoints.push(endpoint);
            }
        }
        endpoints.sort_by_key(|endpoint| endpoint.address);
        Ok(endpoints)
    }

    /// Puts everything that runs into a table that was just made.
    fn refill(&self, table: &mut Table) -> Result<()> {
        let mut elements = Vec::new();
        for network in self.networks()? {
            if link::index(&network.bridge).is_some() {
                elements.push(bridge_of(&network));
            }
            for endpoint in self.endpoints(&network.name)? {
                elements.extend(forwards(&endpoint.ports, endpoint.address));
            }
        }
        table.add(&elements).map_err(failed("fill the table of the packet filter"))
    }

    /// Takes a network out of the kernel.
    pub(super) fn unmake(&self, network: &Network) -> Result<()> {
        let owner = self.network_owner()?;
        let alias = format!("{owner} {}", network.id);
        let mut table = Table::open(&owner).map_err(failed("connect to the packet filter"))?;
        if link::alias_of(&network.bridge).as_deref() == Some(&alias) {
            table
                .remove(&[bridge_of(network)])
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

impl Engine {
    /// Finds endpoints whose containers are gone.
    pub(super) fn check_endpoints(
        &self,
        network: &Network,
        repair: bool,
        problems: &mut Vec<Problem>,
    ) -> Result<()> {
        let folder = self.network_folder(&network.name).join(ENDPOINTS);
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let what = match read(&entry.path()) {
                Ok(None) => continue,
                Ok(Some(endpoint)) if self.is_supervised_id(&endpoint.container)? => continue,
                Ok(Some(endpoint)) => {
                    if repair {
                        self.free(&endpoint)?;
                    }
                    format!("address of container {}, which does not run", endpoint.container)
                }
                Err(Error::Damaged { reason, .. }) => format!("damaged record: {reason}"),
                Err(error) => return Err(error),
            };
            if repair {
                match fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            problems.push(Problem::new(
                format!("networks/{}/{ENDPOINTS}/{name}", network.name),
                what,
                repair,
            ));
        }
        Ok(())
    }
}

/// Takes everything out of the kernel that belongs to a root folder which does not exist any more.
pub(crate) fn sweep(identity: &str) -> std::io::Result<()> {
    let owner = format!("dhow-{identity}");
    for (name, alias) in link::aliases()? {
        if alias.split_once(' ').is_some_and(|(whose, _)| whose == owner) {
            link::remove(&name)?;
        }
    }
    Table::open(&owner)?.uninstall()
}

fn failed(action: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Network { action, source }
}

fn read(path: &Path) -> Result<Option<Endpoint>> {
    match crate::record::read(path) {
        Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

fn bridge_of(network: &Network) -> Element {
    Element::Bridge { name: network.bridge.clone(), internal: network.internal }
}

/// A port of the container, and the host's ports that lead to it.
type Wanted = Vec<(Protocol, u16, SocketAddrV4)>;

/// Takes the ports of this host that are to be published.
fn published(record: &Record) -> Result<(Wanted, PortMap, Vec<OwnedFd>)> {
    let (mut wanted, mut shown, mut held) = (Wanted::new(), PortMap::new(), Vec::new());
    for (port, binding) in ports::wanted(record)? {
        let (number, protocol) = ports::container_port(&port)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            other => {
                return Err(Error::NotYet {
                    what: format!("publishing the protocol {other}"),
                    hint: "TCP and UDP can be published".to_owned(),
                });
            }
        };
        let (address, socket) = hold(protocol, &binding)?;
        held.push(socket);
        wanted.push((protocol, number, address));
        shown.entry(port).or_default().push(ports::PortBinding {
            host_ip: address.ip().to_string(),
            host_port: address.port().to_string(),
        });
    }
    Ok((wanted, shown, held))
}

/// Takes a port for a binding.
fn hold(protocol: Protocol, binding: &ports::PortBinding) -> Result<(SocketAddrV4, OwnedFd)> {
    let ip = match binding.host_ip.as_str() {
        "" => Ipv4Addr::UNSPECIFIED,
        text => text.parse().map_err(|_| Error::NotYet {
            what: format!("publishing on {text}"),
            hint: "native containers are published on addresses of IPv4".to_owned(),
        })?,
    };
    let (first, last) = binding.range()?;
    let mut refused = None;
    for port in first..=last {
        let wanted = SocketAddrV4::new(ip, port);
        let bound = match protocol {
            Protocol::Tcp => TcpListener::bind(wanted).and_then(|s| Ok((s.local_addr()?, OwnedFd::from(s)))),
            Protocol::Udp => UdpSocket::bind(wanted).and_then(|s| Ok((s.local_addr()?, OwnedFd::from(s)))),
        };
        match bound {
            Ok((SocketAddr::V4(address), socket)) => return Ok((address, socket)),
            Ok(_) => {}
            Err(error) => refused = Some((wanted, error)),
        }
    }
    match refused {
        Some((wanted, error)) if error.kind() == ErrorKind::AddrInUse && first == last => {
            Err(Error::Invalid(format!(
                "driver failed programming external connectivity: Bind for {wanted} failed: port is already allocated"
            )))
        }
        Some((_, error)) if error.kind() == ErrorKind::AddrInUse => {
            Err(Error::Invalid(format!("all ports of {first}-{last} are allocated on this host")))
        }
        Some((wanted, error)) => Err(Error::Invalid(format!("cannot publish on {wanted}: {error}"))),
        None => Err(Error::Invalid("no free port on this host".to_owned())),
    }
}

fn forwards_to(wanted: &Wanted, container: Ipv4Addr) -> Vec<Element> {
    let to = |(protocol, port, host): &(Protocol, u16, SocketAddrV4)| {
        let container = SocketAddrV4::new(container, *port);
        Element::Forward(Forward { protocol: *protocol, host: *host, container })
    };
    wanted.iter().map(to).collect()
}

/// What was published, from what was written down.
fn forwards(ports: &PortMap, container: Ipv4Addr) -> Vec<Element> {
    let mut wanted = Wanted::new();
    for (port, bindings) in ports {
        let Ok((number, protocol)) = ports::container_port(port) else { continue };
        let protocol = if protocol == "udp" { Protocol::Udp } else { Protocol::Tcp };
        for binding in bindings {
            if let (Ok(ip), Ok(port)) = (binding.host_ip.parse(), binding.host_port.parse()) {
                wanted.push((protocol, number, SocketAddrV4::new(ip, port)));
            }
        }
    }
    forwards_to(&wanted, container)
}
