//! What a container has of others and of this host at its start: namespaces that it joins, names and addresses of those
//! that it is linked to, memory that it shares, sources of its mounts.

use std::path::PathBuf;

use dhow_runtime::Kind;

#[cfg(target_os = "linux")]
use super::start::open_to_all;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Container, Record};
use crate::{ports, spec};

impl Engine {
    /// What a Wasm program may use of the network, with the names of those whose it shares or that it is linked to.
    pub(super) fn wasm_network(&self, record: &Record) -> Result<dhow_runtime::wasm::Network> {
        let mut network = ports::network(record)?;
        for other in self.linked(record)? {
            network.hosts.extend(other.names.into_iter().map(|name| (name, other.address)));
        }
        #[cfg(target_os = "linux")]
        if let Some(other) = spec::modes::other(&record.host_config.network_mode) {
            let other = self.container(other)?;
            if network.dns.is_empty() {
                network.dns = crate::network::files::servers(&other.record)?;
            }
            let name = &other.record.config.hostname;
            for endpoint in other.state()?.networks.values() {
                network.hosts.push((name.clone(), endpoint.address.into()));
                network.hosts.extend(endpoint.address6.map(|ip| (name.clone(), ip.into())));
            }
        }
        Ok(network)
    }

    /// What a container has of others.
    pub(crate) fn around(&self, record: &Record) -> Result<spec::Around> {
        let mut around = spec::Around::default();
        #[cfg(target_os = "linux")]
        if !record.mounts.is_empty() {
            around.sources = self.mount_sources(record)?;
        }
        let host = &record.host_config;
        for linked in self.linked(record)? {
            around.env.extend(linked.env);
        }
        if let spec::Network::Container(wanted) = spec::Network::parse(&host.network_mode)? {
            let (other, path) = self.namespace_of(&wanted, "network", "net")?;
            if !has_network_namespace(&other.record) {
                return Err(Error::NotYet {
                    what: format!(
                        "the network of {}, a Wasm program without one of its own,",
                        other.record.name
                    ),
                    hint: "start that one with `--network` and the name of a network".to_owned(),
                });
            }
            around.joined.network = Some(path);
            around.joined.folder = Some(other.folder().to_owned());
        }
        if record.kind == Kind::Wasm {
            return Ok(around);
        }
        if let Some(wanted) = spec::modes::other(&host.pid_mode) {
            around.joined.pid = Some(self.namespace_of(wanted, "PID", "pid")?.1);
        }
        if let Some(wanted) = spec::modes::other(&host.ipc_mode) {
            let (other, path) = self.namespace_of(wanted, "IPC", "ipc")?;
            if other.record.host_config.ipc_mode != "shareable" {
                return Err(Error::Invalid(format!(
                    "can't join IPC of container {}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)",
                    other.record.id
                )));
            }
            around.joined.ipc = Some(path);
            around.joined.shm = self.shared_memory(&other.record)?;
        } else if host.ipc_mode == "shareable" {
            around.joined.shm = self.shared_memory(record)?;
        }
        if host.init == Some(true) {
            around.init = Some(self.init_program()?);
        }
        Ok(around)
    }

    /// A running container, and one of its namespaces.
    fn namespace_of(&self, wanted: &str, what: &str, file: &str) -> Result<(Container, PathBuf)> {
        let other = self.container(wanted)?;
        let state = other.state()?;
        if !state.status.is_alive() {
            return Err(Error::Invalid(format!(
                "cannot join {what} of a non running container: {}",
                other.record.id
            )));
        }
        Ok((other, PathBuf::from(format!("/proc/{}/ns/{file}", state.pid))))
    }

    /// The folder in the host's memory that containers share as `/dev/shm`; made where it is missing.
    fn shared_memory(&self, record: &Record) -> Result<Option<PathBuf>> {
        #[cfg(target_os = "linux")]
        {
            let folder = self.shm_folder(&record.id)?;
            crate::engine::make_folder(&folder)?;
            open_to_all(&folder, 0o1777)?;
            if crate::volume::shares_memory() && !crate::volume::is_mounted(&folder)? {
                let size = Some(record.host_config.shm_size).filter(|size| *size > 0);
                let options =
                    format!("nosuid,nodev,noexec,mode=1777,size={}", size.unwrap_or(spec::SHM_SIZE));
                dhow_runtime::native::view::mount_memory(&folder, &options)?;
            }
            Ok(Some(folder))
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = record;
            Ok(None)
        }
    }
}

/// Whether a container has a network namespace that is not this host's, or shares one on purpose.
fn has_network_namespace(record: &Record) -> bool {
    record.kind == Kind::Native
        || record.networks.is_some()
        || record.host_config.network_mode == "host"
        || spec::modes::other(&record.host_config.network_mode).is_some()
}
