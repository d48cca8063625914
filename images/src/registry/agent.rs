//! The HTTP library, set up: one agent for each way out of this machine.
//!
//! A host that the registry sends us to gets neither the certificate that is for the registry, nor a connection to
//! this machine.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use ureq::Agent;
use ureq::Proxy;
use ureq::unversioned::transport::DefaultConnector;

use super::Access;
use super::address::Guard;
use super::proxy::Proxies;
use super::reply::authority_of;
use super::reply::host_of;
use super::reply::port_of;
use super::tls::Tls;
use crate::Error;
use crate::error::Result;

const MAX_CONNECT: Duration = Duration::from_secs(20);

/// Makes agents when they are needed: certificates cost milliseconds to read.
#[derive(Debug)]
pub(super) struct Agents {
    /// Host of the registry, without port.
    host: String,
    tls: Tls,
    insecure: bool,
    proxies: Proxies,
    timeout: Duration,
    made: Mutex<HashMap<(bool, Option<String>), Agent>>,
}

impl Agents {
    pub(super) fn new(host: &str, tls: &Tls, insecure: bool, access: &Access) -> Self {
        Self {
            host: host.into(),
            tls: tls.clone(),
            insecure,
            proxies: access.proxies.clone(),
            timeout: access.timeout,
            made: Mutex::default(),
        }
    }

    /// How long a registry may say nothing.
    pub(super) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The agent for an address.
    pub(super) fn for_url(&self, url: &str) -> Result<Agent> {
        let authority = authority_of(url);
        let host = host_of(&authority);
        let own = host.eq_ignore_ascii_case(&self.host);
        let scheme = if url.starts_with("http://") { "http" } else { "https" };
        let proxy = self.proxies.for_request(scheme, host, port_of(url));
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (own, proxy.map(str::to_owned));
        if let Some(agent) = made.get(&key) {
            return Ok(agent.clone());
        }
        let agent = self.make(own, proxy)?;
        made.insert(key, agent.clone());
        Ok(agent)
    }

    fn make(&self, own: bool, proxy: Option<&str>) -> Result<Agent> {
        let mut hosts = vec![self.host.clone()];
        let proxy = match proxy {
            Some(url) => {
                let invalid = || {
                    Error::Unreachable {
                    registry: self.host.clone(),
                    // The address may hold a password.
                    reason: "the proxy's address is not valid; expected `http://host:port` or `socks5://host:port`".into(),
                }
                };
                let proxy = Proxy::new(url).map_err(|_| invalid())?;
                // The user chose it, wherever it is.
                hosts.push(proxy.host().trim_matches(['[', ']']).to_owned());
                Some(proxy)
            }
            None => None,
        };
        let config = Agent::config_builder()
            .tls_config(self.tls.config(self.insecure, own)?)
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("dhow/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(self.timeout.min(MAX_CONNECT)))
            .timeout_recv_response(Some(self.timeout))
            .timeout_per_read(Some(self.timeout))
            .max_response_header_size(64 << 10)
            .build();
        Ok(Agent::with_parts(config, DefaultConnector::default(), Guard::new(hosts)))
    }
}
