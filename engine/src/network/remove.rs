//! Removing networks: one, those that nobody uses, and what a crash has left.

use fs_err as fs;

use super::{DEFAULT, FOLDER, GONE, Network};
use crate::container::remove_folder;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::prune::Filters;
use crate::system::Problem;

/// What `network prune` did.
#[derive(Debug, Default)]
pub struct PrunedNetworks {
    /// Names.
    pub deleted: Vec<String>,
}

impl Engine {
    /// Removes a network that no running container is connected to.
    ///
    /// # Errors
    /// [`Error::NoSuchNetwork`], [`Error::NetworkInUse`], Docker's message for a network that is always there.
    pub fn remove_network(&self, wanted: &str) -> Result<Network> {
        if super::BUILT_IN.contains(&wanted) || wanted == DEFAULT {
            return Err(Error::Invalid(format!("{wanted} is a pre-defined network and cannot be removed")));
        }
        let lock = self.networks_lock()?;
        lock.file().lock()?;
        let network = self.network(wanted)?;
        self.remove_unused(&network)?;
        Ok(network)
    }

    fn remove_unused(&self, network: &Network) -> Result<()> {
        #[cfg(target_os = "linux")]
        {
            let endpoints = self.endpoints(&network.name)?;
            if !endpoints.is_empty() {
                return Err(Error::NetworkInUse {
                    name: network.name.clone(),
                    id: network.id.clone(),
                    containers: endpoints.into_iter().map(|endpoint| endpoint.container).collect(),
                });
            }
        }
        // First its name goes: nobody new can be connected.
        let gone = self.networks_folder().join(format!("{GONE}{}", network.id));
        fs::rename(self.network_folder(&network.name), &gone)?;
        #[cfg(target_os = "linux")]
        self.unmake(network)?;
        let about = [("name", network.name.as_str()), ("type", super::BRIDGE)];
        self.tell_later(&Event::new("network", "destroy", &network.id, &about));
        remove_folder(&gone)
    }

    /// Removes the networks that no container is made for, except the default one.
    ///
    /// # Errors
    /// When a record cannot be read, or something cannot be removed.
    pub fn prune_networks(&self, filters: &Filters) -> Result<PrunedNetworks> {
        let lock = self.networks_lock()?;
        lock.file().lock()?;
        let containers = self.containers()?;
        let mut pruned = PrunedNetworks::default();
        for network in self.networks()?.into_iter().filter(|network| network.name != DEFAULT) {
            let labels: Vec<_> = network.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let is_it =
                |mode: &str| mode == network.name || (!mode.is_empty() && network.id.starts_with(mode));
            let mut memberships = containers.iter().flat_map(|container| container.record.memberships());
            let used = memberships.any(|membership| is_it(&membership.network));
            if used || !filters.pass(Some(network.created), &labels) {
                continue;
            }
            match self.remove_unused(&network) {
                Err(Error::NetworkInUse { .. }) => {}
                other => {
                    other?;
                    pruned.deleted.push(network.name);
                }
            }
        }
        self.tell_of_prune("network", 0);
        Ok(pruned)
    }

    /// The part of [`Engine::check`] that is about networks. Who checks in another user namespace (see [`crate::owner`])
    /// does this before.
    ///
    /// # Errors
    /// As of [`Engine::check`].
    pub fn check_networks_first(&self, repair: bool) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        #[cfg(target_os = "linux")]
        self.free_addresses_of_builds()?;
        self.check_networks(repair, &mut problems)?;
        Ok(problems)
    }

    /// Leftovers of making and removing, records that cannot be read, addresses of containers that are gone.
    pub(crate) fn check_networks(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let entries = match fs::read_dir(self.networks_folder()) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        let lock = self.networks_lock()?;
        lock.file().lock()?;
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            if name.starts_with(GONE) {
                if repair {
                    remove_folder(&entry.path())?;
                }
                let what = "leftover of a network that was being removed".to_owned();
                problems.push(Problem::new(format!("{FOLDER}/{name}"), what, repair));
            } else if !name.starts_with('.') {
                self.check_network(&name, repair, problems)?;
            }
        }
        #[cfg(target_os = "linux")]
        self.check_table(repair, problems)?;
        Ok(())
    }

    fn check_network(&self, name: &str, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let what = match self.network(name) {
            Ok(network) => {
                #[cfg(target_os = "linux")]
                self.check_endpoints(&network, repair, problems)?;
                #[cfg(not(target_os = "linux"))]
                drop(network);
                return Ok(());
            }
            Err(Error::Damaged { reason, .. }) => format!("damaged record: {reason}"),
            Err(Error::NoSuchNetwork(_)) => "leftover of a network that was being made".to_owned(),
            Err(error) => return Err(error),
        };
        if repair {
            remove_folder(&self.network_folder(name))?;
        }
        problems.push(Problem::new(format!("{FOLDER}/{name}"), what, repair));
        Ok(())
    }
}
