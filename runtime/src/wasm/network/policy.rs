//! What one container's program may do with the network, asked at every address it uses.
//!
//! A rule for a name opens the addresses that the name had when it was looked up, which are remembered. Addresses of
//! this host and its neighbours are opened by rules that are addresses, by `--add-host`, and by `localhost`: never by
//! what a server says a name stands for.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use super::publish::{Reserved, reserve};
use super::resolver::{Failure, HostsFile, Resolver, Source};
use super::rule::is_near;
use super::{Network, Protocol, Publish};

/// The most addresses that are remembered.
const LEARNED_MAX: usize = 4096;
/// The most destinations that are kept to be told of.
const DENIED_MAX: usize = 16;

/// Why a name has no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::wasm) enum NoAddress {
    /// No rule names it.
    #[error("not allowed")]
    Denied,
    /// It could not be resolved.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What is allowed, and what was learned meanwhile.
pub(in crate::wasm) struct Policy {
    network: Network,
    resolver: Resolver,
    /// Addresses of names that rules allow, and the ports they allow; `None` is all.
    learned: Mutex<HashMap<IpAddr, BTreeSet<Option<u16>>>>,
    /// Who has sent datagrams to a published port, and so gets answers.
    heard: Mutex<HashSet<SocketAddr>>,
    reserved: Mutex<Vec<Reserved>>,
    denied: Mutex<BTreeSet<String>>,
}

impl Policy {
    /// `hosts_file` reads the container's `/etc/hosts`.
    pub(in crate::wasm) fn new(network: Network, hosts_file: HostsFile) -> Self {
        let resolver =
            Resolver::new(network.hosts.clone(), network.dns.clone(), network.dns_search.clone(), hosts_file);
        Self {
            network,
            resolver,
            learned: Mutex::default(),
            heard: Mutex::default(),
            reserved: Mutex::default(),
            denied: Mutex::default(),
        }
    }

    /// Whether nothing is denied.
    pub(in crate::wasm) fn is_open(&self) -> bool {
        self.network.host
    }

    /// Takes the published ports.
    ///
    /// # Errors
    /// When one cannot be had.
    pub(in crate::wasm) fn reserve(&self) -> crate::error::Result<()> {
        if !self.network.publish.is_empty() {
            *self.reserved.lock().unwrap_or_else(PoisonError::into_inner) = reserve(&self.network.publish)?;
        }
        Ok(())
    }

    /// The TCP ports that were taken, for who listens on all of them.
    pub(in crate::wasm) fn take_reserved(&self) -> Vec<Reserved> {
        std::mem::take(&mut *self.reserved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What the program is said to listen on.
    pub(in crate::wasm) fn exposed(&self) -> &[u16] {
        &self.network.exposed
    }

    /// Whether the process needs sockets of its own.
    pub(in crate::wasm) fn needs_sockets(&self) -> bool {
        self.network.needs_sockets()
    }

    /// The ports that can be reached from outside.
    pub(in crate::wasm) fn published(&self, protocol: Protocol) -> impl Iterator<Item = &Publish> {
        self.network.publish.iter().filter(move |publish| publish.protocol == protocol)
    }

    /// Where a program that binds `asked` is bound instead. Its own choice of an address counts for nothing: who
    /// publishes a port decides where it is.
    pub(in crate::wasm) fn bound_to(&self, protocol: Protocol, asked: SocketAddr) -> SocketAddr {
        if self.network.host || asked.port() == 0 {
            return asked;
        }
        let family = |publish: &&Publish| publish.host.is_ipv4() == asked.is_ipv4();
        let wanted = |publish: &&Publish| publish.guest_port == asked.port();
        self.published(protocol).filter(wanted).find(family).map_or(asked, |publish| publish.host)
    }

    /// What a program is told about the address it is bound to.
    pub(in crate::wasm) fn seen_as(&self, protocol: Protocol, real: SocketAddr) -> SocketAddr {
        let same = |publish: &&Publish| {
            publish.host.port() == real.port() && publish.host.is_ipv4() == real.is_ipv4()
        };
        let guest = self.published(protocol).find(same).map(|publish| publish.guest_port);
        SocketAddr::new(real.ip(), guest.unwrap_or(real.port()))
    }

    /// Whether a program may bind this address of the host: any port for its own connections, or a published one.
    pub(in crate::wasm) fn may_bind(&self, protocol: Protocol, real: SocketAddr) -> bool {
        self.network.host || real.port() == 0 || self.published(protocol).any(|publish| publish.host == real)
    }

    /// Whether a program may wait for connections there.
    pub(in crate::wasm) fn may_listen(&self, real: SocketAddr) -> bool {
        self.network.host || self.published(Protocol::Tcp).any(|publish| publish.host == real)
    }

    /// Whether a program may connect or send to this address.
    pub(in crate::wasm) fn may_reach(&self, address: SocketAddr) -> bool {
        let allowed = self.is_reachable(address);
        if !allowed {
            self.deny(address.to_string());
        }
        allowed
    }

    fn is_reachable(&self, address: SocketAddr) -> bool {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        if self.network.host || self.network.allow.iter().any(|rule| rule.covers(ip, port)) {
            return true;
        }
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.get(&ip).is_some_and(|ports| ports.contains(&None) || ports.contains(&Some(port)))
    }

    /// Whether a datagram from there may come in: as an answer, or to a published port.
    pub(in crate::wasm) fn may_hear(&self, address: SocketAddr) -> bool {
        if self.published(Protocol::Udp).next().is_none() {
            return self.is_reachable(address);
        }
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if heard.len() >= LEARNED_MAX {
            heard.clear();
        }
        heard.insert(address);
        true
    }

    /// Whether a program may send a datagram there: where it may go anyway, and to who has asked it something.
    pub(in crate::wasm) fn may_send(&self, address: SocketAddr) -> bool {
        let heard = || self.heard.lock().unwrap_or_else(PoisonError::into_inner).contains(&address);
        heard() || self.may_reach(address)
    }

    /// The addresses of a name, which are remembered.
    pub(in crate::wasm) async fn resolve(&self, name: &str) -> Result<Arc<[IpAddr]>, NoAddress> {
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(Arc::new([ip]));
        }
        let mut candidates = self.resolver.candidates(name).ok_or(Failure::Invalid)?;
        let plain = super::rule::normal(name).ok_or(Failure::Invalid)?;
        let rules = || self.network.allow.iter();
        if !self.network.host && !rules().any(|rule| rule.names(&plain)) {
            // A short name may be allowed by its long form.
            candidates.retain(|candidate| rules().any(|rule| rule.names(candidate)));
            if candidates.is_empty() {
                self.deny(plain);
                return Err(NoAddress::Denied);
            }
        }
        let (addresses, source) = self.resolver.lookup(&candidates).await?;
        if !self.network.host {
            let named = |name: &str| {
                rules().filter(|rule| rule.names(name)).map(|rule| rule.port()).collect::<Vec<_>>()
            };
            let ports: BTreeSet<Option<u16>> =
                candidates.iter().flat_map(|name| named(name)).chain(named(&plain)).collect();
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            for ip in addresses.iter().map(IpAddr::to_canonical) {
                if is_near(ip) && source == Source::Others {
                    continue;
                }
                if learned.len() >= LEARNED_MAX {
                    learned.clear();
                }
                learned.entry(ip).or_default().extend(&ports);
            }
        }
        Ok(addresses)
    }

    fn deny(&self, what: String) {
        let mut denied = self.denied.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() < DENIED_MAX {
            denied.insert(what);
        }
    }

    /// What was denied since this was last asked, in the user's words; `None` if nothing was.
    pub(in crate::wasm) fn denials(&self) -> Option<String> {
        let denied = std::mem::take(&mut *self.denied.lock().unwrap_or_else(PoisonError::into_inner));
        let first = denied.first()?;
        let all = denied.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        Some(format!("note: the network was denied for {all}; to allow it: --allow-net {first}\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        let network = Network {
            allow: allow.iter().map(|rule| rule.parse().unwrap()).collect(),
            publish: vec![
                Publish { protocol: Protocol::Tcp, host: "0.0.0.0:8080".parse().unwrap(), guest_port: 80 },
                Publish { protocol: Protocol::Tcp, host: "[::]:8080".parse().unwrap(), guest_port: 80 },
                Publish { protocol: Protocol::Udp, host: "127.0.0.1:5353".parse().unwrap(), guest_port: 53 },
            ],
            hosts: vec![
                ("db".to_owned(), "10.0.0.5".parse().unwrap()),
                ("web.example".to_owned(), "192.0.2.1".parse().unwrap()),
            ],
            dns: vec!["127.0.0.1:1".parse().unwrap()],
            ..Network::default()
        };
        Policy::new(network, Box::new(|| Some(b"10.0.0.6 image.example\n192.0.2.2 other.example\n".to_vec())))
    }

    fn resolve(policy: &Policy, name: &str) -> Result<String, NoAddress> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(policy.resolve(name))?;
        Ok(found.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn published_ports() {
        let policy = policy(&[]);
        assert_eq!(policy.bound_to(Protocol::Tcp, at("127.0.0.1:80")), at("0.0.0.0:8080"));
        assert_eq!(policy.bound_to(Protocol::Tcp, at("[::]:80")), at("[::]:8080"));
        assert_eq!(policy.bound_to(Protocol::Udp, at("0.0.0.0:53")), at("127.0.0.1:5353"));
        assert_eq!(policy.seen_as(Protocol::Tcp, at("0.0.0.0:8080")), at("0.0.0.0:80"));
        assert_eq!(policy.seen_as(Protocol::Tcp, at("127.0.0.1:4444")), at("127.0.0.1:4444"));
        for (protocol, address, may) in [
            (Protocol::Tcp, "0.0.0.0:8080", true),
            (Protocol::Tcp, "0.0.0.0:0", true),
            (Protocol::Tcp, "0.0.0.0:80", false),
            (Protocol::Tcp, "127.0.0.1:8080", false),
            (Protocol::Udp, "0.0.0.0:8080", false),
        ] {
            assert_eq!(policy.may_bind(protocol, at(address)), may, "{address}");
        }
        assert!(!policy.may_send(at("192.0.2.9:53")));
        assert!(policy.may_hear(at("192.0.2.9:53")) && policy.may_send(at("192.0.2.9:53")));
        assert!(!policy.may_send(at("192.0.2.9:54")) && !policy.may_reach(at("192.0.2.9:53")));
        assert!(policy.may_listen(at("0.0.0.0:8080")));
        assert!(!policy.may_listen(at("0.0.0.0:40000")), "a port that the system gave");
    }

    #[test]
    fn names_open_what_they_stood_for() {
        let policy = policy(&["db:5432", "*.example"]);
        assert!(!policy.may_reach(at("10.0.0.5:5432")), "not before it was looked up");
        assert_eq!(resolve(&policy, "db").as_deref(), Ok("10.0.0.5"));
        assert!(policy.may_reach(at("10.0.0.5:5432")), "--add-host says so");
        assert!(!policy.may_reach(at("10.0.0.5:5433")));
        assert_eq!(resolve(&policy, "web.example").as_deref(), Ok("192.0.2.1"));
        assert!(policy.may_reach(at("192.0.2.1:1")));
        assert_eq!(resolve(&policy, "other.example").as_deref(), Ok("192.0.2.2"));
        assert!(policy.may_reach(at("192.0.2.2:1")));
        assert_eq!(resolve(&policy, "image.example").as_deref(), Ok("10.0.0.6"));
        assert!(!policy.may_reach(at("10.0.0.6:1")), "an image does not open the neighbourhood");
        assert_eq!(resolve(&policy, "else.test"), Err(NoAddress::Denied));
        assert_eq!(resolve(&policy, "192.0.2.7").as_deref(), Ok("192.0.2.7"));
        assert!(!policy.may_reach(at("192.0.2.7:1")));
        let told = policy.denials().unwrap();
        for word in ["10.0.0.5:5433", "10.0.0.6:1", "192.0.2.7:1", "else.test", "--allow-net"] {
            assert!(told.contains(word), "{told}");
        }
        assert_eq!(policy.denials(), None, "told once");
    }

    #[test]
    fn nothing_by_default_and_everything_with_the_hosts_network() {
        let closed = Policy::new(Network::default(), Box::new(|| None));
        assert!(!closed.may_reach(at("192.0.2.1:80")) && !closed.may_listen(at("0.0.0.0:80")));
        assert!(!closed.may_hear(at("192.0.2.1:80")));
        assert_eq!(resolve(&closed, "localhost"), Err(NoAddress::Denied));
        let open = Policy::new(Network { host: true, ..Network::default() }, Box::new(|| None));
        assert!(open.may_reach(at("127.0.0.1:80")) && open.may_listen(at("0.0.0.0:80")));
        assert_eq!(open.bound_to(Protocol::Tcp, at("0.0.0.0:80")), at("0.0.0.0:80"));
        assert_eq!(resolve(&open, "localhost").as_deref(), Ok("127.0.0.1 ::1"));
    }
}
