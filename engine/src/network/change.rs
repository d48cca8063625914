//! Connecting containers that exist to networks, and taking them out: one that runs at once, any other with its next
//! start. Also what a new name of a running container changes.

use std::os::fd::AsFd as _;

use fs_err as fs;

use super::endpoint::{Wanted, failed, names, rewrite_file, ways_out};
use super::firewall::Table;
use super::publish::forwards;
use super::{DEFAULT, Endpoint, Membership, Network, link};
use crate::attach::{self, Frame};
use crate::container::start::of_network;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ports::PortMap;
use crate::record::{Container, Record, State};
use crate::spec;

impl Engine {
    /// Puts a container into a network, running or not. The process must have one thread.
    ///
    /// # Errors
    /// Docker's messages for what cannot be.
    pub fn connect(&self, container: &Container, wanted: Membership) -> Result<()> {
        let network = self.network_by(&wanted.network)?;
        let wanted = Membership { network: network.name.clone(), ..wanted };
        let Some(_edit) = container.edit()? else {
            return Err(Error::NoSuchContainer(container.record.name.clone()));
        };
        let mut now = Container::load(container.folder().to_owned())?;
        match spec::Network::parse(&now.record.host_config.network_mode)? {
            spec::Network::Ours(_) => {}
            spec::Network::Copied => {
                return refused(
                    "container cannot be connected to a network: a program beside it is its network",
                );
            }
            spec::Network::Host => {
                return refused(
                    "container cannot be disconnected from host network or connected to host network",
                );
            }
            spec::Network::None => {
                return refused(
                    "container cannot be connected to multiple networks with one of the networks in private (none) mode",
                );
            }
            spec::Network::Container(_) => {
                return refused(
                    "container sharing network namespace with another container or host cannot be connected to any other network",
                );
            }
        }
        wanted.validate(&network)?;
        let mut memberships = now.record.memberships();
        if memberships.iter().any(|other| other.network == network.name) {
            return refused(&format!(
                "endpoint with name {} already exists in network {}",
                now.record.name, network.name
            ));
        }
        let state = now.state()?;
        if state.status.is_alive() {
            self.there_in_any_case(|| self.connect_running(&now, state, &wanted, &network))?;
        }
        memberships.push(wanted);
        self.remember(&mut now, memberships)?;
        self.tell(&of_network(&now.record, "connect", &network.name, &network.id));
        Ok(())
    }

    /// Takes a container out of a network, running or not. The process must have one thread.
    ///
    /// # Errors
    /// Docker's messages for what cannot be.
    pub fn disconnect(&self, container: &Container, wanted: &str) -> Result<()> {
        let network = self.network_by(wanted)?;
        let Some(_edit) = container.edit()? else {
            return Err(Error::NoSuchContainer(container.record.name.clone()));
        };
        let mut now = Container::load(container.folder().to_owned())?;
        if spec::Network::parse(&now.record.host_config.network_mode)? == spec::Network::Host {
            return refused(
                "container cannot be disconnected from host network or connected to host network",
            );
        }
        let mut memberships = now.record.memberships();
        let before = memberships.len();
        memberships.retain(|membership| membership.network != network.name);
        if memberships.len() == before {
            return refused(&format!(
                "container {} is not connected to network {}",
                now.record.id, network.name
            ));
        }
        let state = now.state()?;
        if state.status.is_alive() {
            self.there_in_any_case(|| self.disconnect_running(&now, state, &network))?;
        }
        self.remember(&mut now, memberships)?;
        self.tell(&of_network(&now.record, "disconnect", &network.name, &network.id));
        Ok(())
    }

    /// Frees what a container that is gone, by name or id, has in a network (`disconnect -f`).
    ///
    /// # Errors
    /// When it has nothing there.
    pub fn disconnect_gone(&self, wanted: &str, network: &str) -> Result<()> {
        let network = self.network_by(network)?;
        let stale = self.stale_endpoints(&network.name)?;
        let is_it = |endpoint: &&Endpoint| {
            endpoint.container.starts_with(wanted) || endpoint.names.iter().any(|name| name == wanted)
        };
        match stale.iter().find(is_it) {
            Some(endpoint) => self.free(endpoint),
            None => Err(Error::NoSuchContainer(wanted.to_owned())),
        }
    }

    fn network_by(&self, wanted: &str) -> Result<Network> {
        match wanted {
            DEFAULT => self.default_network(),
            "host" => {
                refused("container cannot be disconnected from host network or connected to host network")
            }
            "none" => refused(
                "container cannot be connected to multiple networks with one of the networks in private (none) mode",
            ),
            name => self.network(name),
        }
    }

    fn remember(&self, container: &mut Container, memberships: Vec<Membership>) -> Result<()> {
        container.record.networks = Some(memberships);
        Container::write(container.folder().to_owned(), container.record.clone()).map(drop)
    }

    fn connect_running(
        &self,
        container: &Container,
        mut state: State,
        membership: &Membership,
        network: &Network,
    ) -> Result<()> {
        let record = &container.record;
        let namespace = fs::File::open(format!("/proc/{}/ns/net", state.pid))?;
        // What a command that was killed has left of the same.
        state.networks.remove(&network.name);
        for left in self.endpoints(&network.name)?.iter().filter(|left| left.container == record.id) {
            link::remove(&cable(left)).map_err(failed("remove a cable that was left over"))?;
            self.free(left)?;
        }
        let used: Vec<&str> = state.networks.values().map(|endpoint| endpoint.interface.as_str()).collect();
        let prefix = network.understood()?.prefix;
        let number = (0..).find(|number| !used.contains(&format!("{prefix}{number}").as_str())).unwrap_or(0);
        let mut memberships = record.memberships();
        memberships.push(membership.clone());
        let all = self.networks_of(&memberships)?;
        // The new one is the last; it may lead out in the place of another.
        let [leads, leads6] = ways_out(&all).map(|first| first.is_some_and(|first| first + 1 == all.len()));
        let replaces = leads && state.networks.values().any(|endpoint| endpoint.gateway.is_some());
        let replaces6 = leads6 && state.networks.values().any(|endpoint| endpoint.gateway6.is_some());
        // Ports that are held and lead nowhere yet.
        let ports = if leads { state.ports.clone() } else { PortMap::new() };
        for endpoint in state.networks.values_mut().filter(|endpoint| leads && !endpoint.ports.is_empty()) {
            endpoint.ports.clear();
            self.rewrite(endpoint)?;
        }
        let mut wiring = self.wire(network.subnet6.is_some())?;
        let (first, first6) = (leads && !replaces, leads6 && !replaces6);
        let one = Wanted { membership, network, number, leads: first, leads6: first6, ports };
        let endpoint = self.connect_one(&mut wiring, record, namespace.file().as_fd(), one)?;
        drop(wiring);
        if replaces || replaces6 {
            let (way, way6) =
                (endpoint.gateway.filter(|_| replaces), endpoint.gateway6.filter(|_| replaces6));
            let led = link::lead(namespace.file().as_fd(), &endpoint.interface, way, way6);
            if let Err(error) = led {
                link::remove(&cable(&endpoint)).ok();
                self.free(&endpoint)?;
                return Err(failed("change the container's way out")(error));
            }
        }
        state.networks.insert(network.name.clone(), endpoint.clone());
        if let Err(error) = container.set_state(&state) {
            self.free(&endpoint)?;
            return Err(error);
        }
        let mut now = record.clone();
        now.networks = Some(memberships);
        self.show(container, &now, &state)
    }

    fn disconnect_running(&self, container: &Container, mut state: State, network: &Network) -> Result<()> {
        let Some(endpoint) = state.networks.remove(&network.name) else { return Ok(()) };
        let namespace = fs::File::open(format!("/proc/{}/ns/net", state.pid))?;
        self.free(&endpoint)?;
        // The cable ends with either of its ends.
        link::remove(&cable(&endpoint)).map_err(failed("remove the container's cable"))?;
        let mut left = container.record.memberships();
        left.retain(|membership| membership.network != network.name);
        let all = self.networks_of(&left)?;
        let [next, next6] = ways_out(&all).map(|next| next.map(|next| all[next].1.name.as_str()));
        // Who led out has gone, or not: then it is told again what it knows.
        if let Some(next6) = next6.and_then(|name| state.networks.get(name)) {
            link::lead(namespace.file().as_fd(), &next6.interface, None, next6.gateway6)
                .map_err(failed("change the container's way out"))?;
        }
        if let Some(next) = next.and_then(|name| state.networks.get_mut(name)) {
            link::lead(namespace.file().as_fd(), &next.interface, next.gateway, None)
                .map_err(failed("change the container's way out"))?;
            if !endpoint.ports.is_empty() {
                next.ports = endpoint.ports;
                self.rewrite(next)?;
                let mut table =
                    Table::open(&self.network_owner()?).map_err(failed("connect to the packet filter"))?;
                table.add(&forwards(next)).map_err(failed("publish the container's ports"))?;
            }
        }
        container.set_state(&state)?;
        let mut now = container.record.clone();
        now.networks = Some(left);
        self.show(container, &now, &state)
    }

    /// What the container sees of the change, and its monitor.
    fn show(&self, container: &Container, record: &Record, state: &State) -> Result<()> {
        let mut endpoints: Vec<Endpoint> = state.networks.values().cloned().collect();
        endpoints.sort_by(|a, b| a.interface.cmp(&b.interface));
        self.write_hosts(container, record, &endpoints)?;
        if record.has_names() {
            let text = super::files::resolv_conf(record)?;
            rewrite_file(&container.folder().join("resolv.conf"), &text)?;
        }
        // One that nobody can attach to serves names already, or never will.
        if let Ok(mut monitor) = attach::connect(container.folder()) {
            let mut frames = attach::Outbox::default();
            frames.push_frame(Frame::Networks, &[]);
            frames.flush(&mut monitor);
            // Its answer; one that ends meanwhile has none.
            monitor.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
            std::io::Read::read(&mut monitor, &mut [0; 5]).ok();
        }
        Ok(())
    }

    /// Others find a running container by its new name from now on.
    pub(crate) fn rename_endpoints(&self, container: &Container) -> Result<()> {
        let mut state = container.state()?;
        if !state.status.is_alive() || state.networks.is_empty() {
            return Ok(());
        }
        let memberships = container.record.memberships();
        for endpoint in state.networks.values_mut() {
            if let Some(membership) = memberships.iter().find(|one| one.network == endpoint.network) {
                endpoint.names = names(&container.record, membership);
                self.rewrite(endpoint)?;
            }
        }
        container.set_state(&state)
    }
}

/// The end of an endpoint's cable on this host.
fn cable(endpoint: &Endpoint) -> String {
    format!("veth{}", &endpoint.id[..endpoint.id.len().min(9)])
}

fn refused<T>(words: &str) -> Result<T> {
    Err(Error::Invalid(words.to_owned()))
}
