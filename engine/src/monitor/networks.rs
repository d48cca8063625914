//! What a monitor does with its container's networks: in before the program runs, out after its end.

use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use dhow_runtime::Bundle;
use dhow_runtime::spec::LinuxNamespaceType;
use fs_err as fs;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::Monitor;
use super::names::Names;
use super::proxy::Proxy;
use crate::error::{Error, Result};
use crate::network::Realm;
use crate::network::rootless::{Copier, Tool};
use crate::ports;
use crate::record::Container;

impl Monitor<'_> {
    /// What it is to be connected to may have been changed since its last start.
    fn look_at_record(&mut self) -> Result<()> {
        let now = Container::load(self.container.folder().to_owned())?;
        self.container.record.networks = now.record.networks;
        self.container.record.name = now.record.name;
        Ok(())
    }

    /// Whether the container's namespace is to be connected once it is there, to what its record said last.
    pub(super) fn makes_network(&self) -> bool {
        let record = &self.container.record;
        Tool::parse(&record.host_config.network_mode).is_some() || !record.memberships().is_empty()
    }

    /// Connects a native container whose process waits at its gate.
    pub(super) fn join_networks(&mut self, pid: u32) -> Result<()> {
        self.look_at_record()?;
        let record = &self.container.record;
        if let Some(tool) = Tool::parse(&record.host_config.network_mode) {
            let mut ports = ports::free_ports(record)?;
            ports.retain(|port| tool.publishes(port));
            let copier = Copier::start(tool, pid, &ports, self.container.folder())?;
            self.attached.copied = Some((copier, ports::shown(&ports)));
            return Ok(());
        }
        if record.memberships().is_empty() {
            return Ok(());
        }
        let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?.into_parts().0;
        let realm = self.attached.realm.take();
        self.join_networks_in(namespace.into(), realm)
    }

    /// Without root: the user namespace in which a container of networks is to be, so that cables can be laid to it.
    pub(super) fn choose_realm(&mut self, bundle: &Bundle) -> Result<Option<Bundle>> {
        self.attached.realm = None;
        self.look_at_record()?;
        let record = &self.container.record;
        let ours = Tool::parse(&record.host_config.network_mode).is_none();
        if !crate::spec::needs_user_namespace() || !ours || record.memberships().is_empty() {
            return Ok(None);
        }
        let realm = self.engine.realm()?;
        let mut own = bundle.clone();
        if let Some(linux) = own.spec.linux_mut().as_mut() {
            let namespaces = linux.namespaces_mut().iter_mut().flatten();
            for namespace in namespaces.filter(|one| one.typ() == LinuxNamespaceType::User) {
                namespace.set_path(Some(realm.users()));
            }
            linux.set_uid_mappings(None).set_gid_mappings(None);
        }
        self.attached.realm = Some(Arc::new(realm));
        Ok(Some(own))
    }

    /// Connects the owner of a namespace.
    pub(super) fn join_networks_in(&mut self, namespace: OwnedFd, realm: Option<Arc<Realm>>) -> Result<()> {
        self.attached = self.engine.connect_all(&self.container, namespace, realm)?;
        Ok(())
    }

    /// Puts a Wasm program that is to be in networks into a namespace of its own, where everything is open to it.
    pub(super) fn give_network(&mut self, bundle: &mut Bundle) -> Result<()> {
        if self.container.record.networks.is_none() {
            return Ok(());
        }
        self.look_at_record()?;
        let record = self.container.record.clone();
        if record.memberships().is_empty() {
            return Ok(());
        }
        let make = || {
            own_namespace().map_err(|source| Error::Network { action: "make a network namespace", source })
        };
        let (namespace, realm) = if crate::spec::may_make_networks() {
            (make()?, None)
        } else {
            let realm = self.engine.realm()?;
            let (_, made) = realm.fetch::<()>(|| Ok(((), vec![make()?])))?;
            let missing = || Error::Invalid("the network namespace is lost".to_owned());
            (made.into_iter().next().ok_or_else(missing)?, Some(Arc::new(realm)))
        };
        // The sandbox process keeps nothing of this one's, but it knows where to look.
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()));
        let linux = bundle.spec.linux_mut().as_mut();
        if let Some(namespaces) = linux.and_then(|linux| linux.namespaces_mut().as_mut()) {
            if realm.is_some() {
                // It goes there by itself: see `Realm::settle_in`.
                namespaces.retain(|one| one.typ() != LinuxNamespaceType::Network);
            }
            for namespace in namespaces.iter_mut().filter(|one| one.typ() == LinuxNamespaceType::Network) {
                namespace.set_path(Some(path.clone()));
            }
        }
        self.join_networks_in(namespace, realm)?;
        let network = &mut bundle.wasm.network;
        network.publish.clear();
        network.dns = crate::network::files::servers(&record)?;
        for endpoint in &self.attached.endpoints {
            network.hosts.push((record.config.hostname.clone(), endpoint.address.into()));
            network.hosts.extend(endpoint.address6.map(|ip| (record.config.hostname.clone(), ip.into())));
        }
        Ok(())
    }

    /// Serves the container's names and ports from now on.
    pub(super) fn serve_networks(&mut self) -> Result<()> {
        let Some(namespace) = &self.attached.namespace else { return Ok(()) };
        let record = &self.container.record;
        let servers = record.host_config.dns.iter().map(|text| ports::dns_server(text));
        let servers = servers.collect::<Result<_>>()?;
        let realm = self.attached.realm.clone();
        let directory = self.engine.directory(&self.container);
        let mut names = Names::new((namespace.try_clone()?, realm.clone()), directory, servers);
        if record.has_names() {
            let action = "serve names in the container's network";
            names.serve().map_err(|source| Error::Network { action, source })?;
        }
        self.company.names = Some(names);
        let kept = &mut self.attached.kept;
        let (doors, mailboxes) = (std::mem::take(&mut kept.doors), std::mem::take(&mut kept.mailboxes));
        let with_ports = self.attached.endpoints.iter().find(|endpoint| !endpoint.ports.is_empty());
        self.company.proxy =
            with_ports.map(|endpoint| Proxy::new(doors, mailboxes, (endpoint.address, realm)));
        Ok(())
    }

    /// Takes back what the container had.
    pub(super) fn leave_networks(&mut self) -> Result<()> {
        (self.company.names, self.company.proxy) = (None, None);
        let attached = std::mem::take(&mut self.attached);
        self.engine.disconnect_all(&self.container, &attached)
    }
}

/// A network namespace that nobody is in. This process has one thread.
fn own_namespace() -> std::io::Result<OwnedFd> {
    let open =
        || Ok::<OwnedFd, std::io::Error>(fs::File::open("/proc/thread-self/ns/net")?.into_parts().0.into());
    let before = open()?;
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
    let made = open();
    move_into_link_name_space(before.as_fd(), Some(LinkNameSpaceType::Network))?;
    made
}
