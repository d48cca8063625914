//! `-p`, `--expose`, `--add-host`, `--dns` and `--allow-net`: Docker's port specifications, and from what a record asks
//! for to what its program may use of the network.
//!
//! Ports are written as Docker's API has them: `80/tcp` in the container, and for each a list of [`PortBinding`]s.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dhow_runtime::Kind;
use dhow_runtime::wasm::{Allow, Network, Protocol, Publish};
use serde::{Deserialize, Serialize};

use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::record::Record;

/// Where a container's port is reached: Docker's `PortBinding`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct PortBinding {
    /// Address of this host; empty for all of them.
    pub host_ip: String,
    /// Port of this host, or a range of which the first free one is taken; empty or 0 for any free one.
    pub host_port: String,
}

/// Ports of a container, `80/tcp` to what they are bound to.
pub type PortMap = BTreeMap<String, Vec<PortBinding>>;

/// The most ports of one container. Each may cost a socket.
const PORTS_MAX: usize = 4096;

/// An inclusive range.
type Range = (u16, u16);

/// Adds what one `-p` says: `[[ip:][host port]:]container port[/protocol]`, with ranges, or the long form
/// `target=80,published=8080,protocol=tcp`.
///
/// # Errors
/// Docker's messages for what is wrong.
pub fn publish(ports: &mut PortMap, text: &str) -> Result<()> {
    let short = if text.contains('=') { from_long_form(text)? } else { text.to_owned() };
    let empty = || Error::Invalid(format!("no port specified: {short}<empty>"));
    let (front, protocol) = short.split_once('/').unwrap_or((&short, ""));
    let protocol = known_protocol(protocol)?;
    let (front, container) = front.rsplit_once(':').unwrap_or(("", front));
    if container.is_empty() {
        return Err(empty());
    }
    let (ip, host) = front.rsplit_once(':').unwrap_or(("", front));
    let bare = ip.strip_prefix('[').and_then(|ip| ip.strip_suffix(']')).unwrap_or(ip);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(Error::Invalid(format!("invalid IP address: {bare}")));
    }
    let wrong = |what: &str, text: &str| Error::Invalid(format!("invalid {what}: {text}"));
    let targets = range(container).ok_or_else(|| wrong("containerPort", container))?;
    let hosts = match host {
        "" => None,
        text => Some(range(text).ok_or_else(|| wrong("hostPort", text))?),
    };
    let count = |range: Range| u32::from(range.1 - range.0);
    if let Some(hosts) = hosts
        && count(hosts) != count(targets)
        && count(targets) != 0
    {
        return Err(Error::Invalid(format!(
            "invalid ranges specified for container and host Ports: {container} and {host}"
        )));
    }
    for (offset, target) in (targets.0..=targets.1).enumerate() {
        let host_port = match hosts {
            None => String::new(),
            // One port of the container, somewhere in a range of the host.
            Some((first, last)) if targets.0 == targets.1 && first != last => format!("{first}-{last}"),
            Some((first, _)) => (usize::from(first) + offset).to_string(),
        };
        let binding = PortBinding { host_ip: bare.to_owned(), host_port };
        let bindings = ports.entry(format!("{target}/{protocol}")).or_default();
        if !bindings.contains(&binding) {
            bindings.push(binding);
        }
    }
    bounded(ports.len())
}

/// The ports that one `--expose` names, as `80/tcp`.
///
/// # Errors
/// Docker's messages for what is wrong.
pub fn expose(text: &str) -> Result<Vec<String>> {
    if text.contains(':') {
        return Err(Error::Invalid(format!("invalid port format for --expose: {text}")));
    }
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = known_protocol(protocol)?;
    let wrong =
        |why: &str| Error::Invalid(format!("invalid range format for --expose: {text}, error: {why}"));
    if ports.is_empty() {
        return Err(wrong("empty string specified for ports"));
    }
    let (first, last) =
        range(ports).ok_or_else(|| wrong(&format!("invalid range specified for port: {ports}")))?;
    bounded(usize::from(last - first) + 1)?;
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

fn bounded(count: usize) -> Result<()> {
    if count > PORTS_MAX {
        return Err(Error::Invalid(format!("more than {PORTS_MAX} ports for one container")));
    }
    Ok(())
}

/// `target=80,published=8080,protocol=tcp` as the short form says it.
fn from_long_form(text: &str) -> Result<String> {
    let (mut target, mut published, mut protocol) = ("", "", "tcp");
    for field in text.split(',') {
        match field.split_once('=') {
            Some(("target", value)) => target = value,
            Some(("published", value)) => published = value,
            Some(("protocol", value)) => protocol = value,
            Some(("mode" | "name" | "app_protocol", _)) => {}
            _ => {
                return Err(Error::Invalid(format!(
                    "invalid publish opts format (should be name=value but got '{field}')"
                )));
            }
        }
    }
    let colon = if published.is_empty() { "" } else { ":" };
    Ok(format!("{published}{colon}{target}/{protocol}"))
}

fn known_protocol(text: &str) -> Result<&'static str> {
    match text.to_ascii_lowercase().as_str() {
        "" | "tcp" => Ok("tcp"),
        "udp" => Ok("udp"),
        "sctp" => Ok("sctp"),
        _ => Err(Error::Invalid(format!("invalid proto: {text}"))),
    }
}

fn range(text: &str) -> Option<Range> {
    let number = |text: &str| text.parse::<u16>().ok().filter(|_| text.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

/// A line of `--add-host`: `name:address` or `name=address`, where the address may be `host-gateway`, this host.
///
/// # Errors
/// Docker's messages for what is wrong.
pub fn extra_host(text: &str) -> Result<(String, IpAddr)> {
    let split = text.split_once('=').or_else(|| text.split_once(':'));
    let Some((name, address)) = split.filter(|(name, _)| !name.is_empty()) else {
        return Err(Error::Invalid(format!("bad format for add-host: \"{text}\"")));
    };
    let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
    let ip = match bare {
        "host-gateway" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        bare => bare
            .parse()
            .map_err(|_| Error::Invalid(format!("invalid IP address in add-host: \"{address}\"")))?,
    };
    Ok((name.to_owned(), ip))
}

/// An address of `--dns`.
///
/// # Errors
/// Docker's message for what is no address.
pub fn dns_server(text: &str) -> Result<SocketAddr> {
    // Tests and odd set-ups have it on another port; Docker takes addresses only.
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    let ip = text
        .parse::<IpAddr>()
        .map_err(|_| Error::Invalid(format!("IP address is not correctly formatted: {text}")))?;
    Ok(SocketAddr::new(ip, 53))
}

/// Checks what a record would ask for.
pub(crate) fn validate(host: &HostConfig) -> Result<()> {
    for (port, bindings) in &host.port_bindings {
        container_port(port)?;
        for binding in bindings {
            binding.addresses()?;
            binding.range()?;
        }
    }
    bounded(host.port_bindings.len())?;
    host.extra_hosts.iter().try_for_each(|entry| extra_host(entry).map(drop))?;
    host.dns.iter().try_for_each(|entry| dns_server(entry).map(drop))?;
    host.allow_net.iter().try_for_each(|entry| allow(entry).map(drop))
}

fn allow(text: &str) -> Result<Allow> {
    text.parse().map_err(|error| Error::Invalid(format!("invalid --allow-net: {error}")))
}

pub(crate) fn container_port(text: &str) -> Result<(u16, &'static str)> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let number = port.parse().map_err(|_| Error::Invalid(format!("invalid containerPort: {port}")))?;
    Ok((number, known_protocol(protocol)?))
}

impl PortBinding {
    /// The addresses of this host. Without one, all of both families, as in Docker.
    fn addresses(&self) -> Result<Vec<IpAddr>> {
        if self.host_ip.is_empty() {
            return Ok(vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()]);
        }
        let ip = self.host_ip.parse();
        Ok(vec![ip.map_err(|_| Error::Invalid(format!("invalid IP address: {}", self.host_ip)))?])
    }

    pub(crate) fn range(&self) -> Result<Range> {
        let text = if self.host_port.is_empty() { "0" } else { &self.host_port };
        range(text).ok_or_else(|| Error::Invalid(format!("invalid hostPort: {text}")))
    }
}

/// What a Wasm program may use of the network, with a port of this host for each that asks for any.
pub(crate) fn network(record: &Record) -> Result<Network> {
    let host = &record.host_config;
    let mut network = Network {
        host: host.network_mode == "host",
        exposed: record.config.exposed_ports.keys().filter_map(|port| tcp_port(port)).collect(),
        dns_search: host.dns_search.clone(),
        ..Network::default()
    };
    for entry in &host.extra_hosts {
        network.hosts.push(extra_host(entry)?);
    }
    for entry in &host.dns {
        network.dns.push(dns_server(entry)?);
    }
    if host.network_mode == "none" || host.network_mode.starts_with("container:") {
        return Ok(network);
    }
    for entry in &host.allow_net {
        network.allow.push(allow(entry)?);
    }
    // In a network of its own the program has every port; which are this host's is the network's.
    if network.host || record.networks.is_some() {
        return Ok(network);
    }
    network.publish = free_ports(record)?;
    Ok(network)
}

/// What a record publishes, with a port of this host for each that asks for any.
pub(crate) fn free_ports(record: &Record) -> Result<Vec<Publish>> {
    let mut ports = Vec::new();
    for (port, binding) in wanted(record)? {
        let (guest_port, protocol) = container_port(&port)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => {
                let why = match record.kind {
                    Kind::Wasm => "a Wasm program has sockets of TCP and UDP only",
                    Kind::Native => "pasta and slirp4netns carry TCP and UDP only, SCTP needs root",
                };
                return Err(Error::Invalid(format!("port {port} cannot be published: {why}")));
            }
        };
        for host in free_port(&binding, protocol)? {
            ports.push(Publish { protocol, host, guest_port });
        }
    }
    Ok(ports)
}

/// Every binding that a record asks for, with its port.
pub(crate) fn wanted(record: &Record) -> Result<Vec<(String, PortBinding)>> {
    let host = &record.host_config;
    let mut wanted = Vec::new();
    for (port, bindings) in &host.port_bindings {
        container_port(port)?;
        // An empty list, which the API allows, asks for any port.
        if bindings.is_empty() {
            wanted.push((port.clone(), PortBinding::default()));
        }
        wanted.extend(bindings.iter().map(|binding| (port.clone(), binding.clone())));
    }
    if host.publish_all_ports {
        let exposed = record.config.exposed_ports.keys();
        let unbound = exposed.filter(|port| !host.port_bindings.contains_key(*port));
        wanted.extend(unbound.map(|port| (port.clone(), PortBinding::default())));
    }
    Ok(wanted)
}

fn tcp_port(port: &str) -> Option<u16> {
    container_port(port).ok().filter(|(_, protocol)| *protocol == "tcp").map(|(number, _)| number)
}

/// The host's addresses for a binding, all with one port, which is free now unless it was named.
fn free_port(binding: &PortBinding, protocol: Protocol) -> Result<Vec<SocketAddr>> {
    let mut addresses = binding.addresses()?;
    if addresses.len() > 1 {
        // A host without IPv6 is none that cannot publish.
        let probe = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), 0);
        let absent = std::net::UdpSocket::bind(probe).is_err();
        addresses.retain(|ip| ip.is_ipv4() || !absent);
    }
    let all = |port: u16| addresses.iter().map(|ip| SocketAddr::new(*ip, port)).collect::<Vec<_>>();
    let is_free = |port: u16| all(port).into_iter().all(|address| can_bind(address, protocol));
    match binding.range()? {
        (0, 0) => {
            for _ in 0..64 {
                let port = any_port(addresses[0], protocol)?;
                if is_free(port) {
                    return Ok(all(port));
                }
            }
            Err(Error::Invalid("no free port on this host".to_owned()))
        }
        (first, last) if first == last => Ok(all(first)),
        (first, last) => (first..=last)
            .find(|port| is_free(*port))
            .map(all)
            .ok_or_else(|| Error::Invalid(format!("all ports of {first}-{last} are allocated on this host"))),
    }
}

fn can_bind(address: SocketAddr, protocol: Protocol) -> bool {
    match protocol {
        // Not Linux's default: a port on `::` is `0.0.0.0`'s too unless it is told otherwise, so a listener on the
        // latter shows as taken here. Each address is asked for by its own kind alone.
        Protocol::Tcp if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            std::net::TcpListener::bind(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())).is_ok()
        }
        Protocol::Tcp => std::net::TcpListener::bind(address).is_ok(),
        Protocol::Udp if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) => {
            std::net::UdpSocket::bind(SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port())).is_ok()
        }
        Protocol::Udp => std::net::UdpSocket::bind(address).is_ok(),
    }
}

fn any_port(ip: IpAddr, protocol: Protocol) -> Result<u16> {
    let any = SocketAddr::new(ip, 0);
    Ok(match protocol {
        Protocol::Tcp => std::net::TcpListener::bind(any)?.local_addr()?.port(),
        Protocol::Udp => std::net::UdpSocket::bind(any)?.local_addr()?.port(),
    })
}

/// What is published, as the state and `inspect` keep it.
pub(crate) fn published(network: &Network) -> PortMap {
    shown(&network.publish)
}

/// The same for ports alone.
pub(crate) fn shown(published: &[Publish]) -> PortMap {
    let mut ports = PortMap::new();
    for publish in published {
        let protocol = match publish.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        let binding = PortBinding {
            host_ip: publish.host.ip().to_string(),
            host_port: publish.host.port().to_string(),
        };
        ports.entry(format!("{}/{protocol}", publish.guest_port)).or_default().push(binding);
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(texts: &[&str]) -> std::result::Result<String, String> {
        let mut ports = PortMap::new();
        for text in texts {
            publish(&mut ports, text).map_err(|error| error.to_string())?;
        }
        let shown = ports.iter().flat_map(|(port, bindings)| {
            bindings.iter().map(move |binding| format!("{}|{}>{port}", binding.host_ip, binding.host_port))
        });
        Ok(shown.collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn dockers_forms() {
        for (texts, expected) in [
            (&["80"][..], "|>80/tcp"),
            (&["8080:80"], "|8080>80/tcp"),
            (&[":80"], "|>80/tcp"),
            (&["0:80"], "|0>80/tcp"),
            (&["8080:80/udp", "8080:80/TCP"], "|8080>80/tcp |8080>80/udp"),
            (&["127.0.0.1:8080:80"], "127.0.0.1|8080>80/tcp"),
            (&["127.0.0.1::80"], "127.0.0.1|>80/tcp"),
            (&["[::1]:8080:80"], "::1|8080>80/tcp"),
            (&["::1:8080:80"], "::1|8080>80/tcp"),
            (&["8000-8001:80-81"], "|8000>80/tcp |8001>81/tcp"),
            (&["80-81"], "|>80/tcp |>81/tcp"),
            (&["8000-8010:80"], "|8000-8010>80/tcp"),
            (&["80:80", "80:80", "81:80"], "|80>80/tcp |81>80/tcp"),
            (&["target=80,published=8080,protocol=udp"], "|8080>80/udp"),
            (&["target=80"], "|>80/tcp"),
        ] {
            assert_eq!(shown(texts).as_deref(), Ok(expected), "{texts:?}");
        }
    }

    #[test]
    fn dockers_messages() {
        for (text, message) in [
            ("", "no port specified: <empty>"),
            (":", "no port specified: :<empty>"),
            ("8080:", "no port specified: 8080:<empty>"),
            ("1.2.3.4:80:", "no port specified: 1.2.3.4:80:<empty>"),
            ("a:b", "invalid containerPort: b"),
            ("80-70", "invalid containerPort: 80-70"),
            ("+80", "invalid containerPort: +80"),
            ("99999:80", "invalid hostPort: 99999"),
            ("1:2:3:4", "invalid IP address: 1:2"),
            ("300.1.1.1:80:80", "invalid IP address: 300.1.1.1"),
            ("80/xyz", "invalid proto: xyz"),
            ("8000-8010:80-81", "invalid ranges specified for container and host Ports: 80-81 and 8000-8010"),
            ("x=1", "invalid publish opts format (should be name=value but got 'x=1')"),
            ("1-65535", "more than 4096 ports for one container"),
        ] {
            assert_eq!(shown(&[text]), Err(message.to_owned()), "{text}");
        }
    }

    #[test]
    fn exposed() {
        assert_eq!(expose("80").unwrap(), ["80/tcp"]);
        assert_eq!(expose("53-54/udp").unwrap(), ["53/udp", "54/udp"]);
        for bad in ["", "x", "80:80", "90-80", "70000", "80/foo"] {
            assert!(expose(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_and_servers() {
        assert_eq!(extra_host("db:10.0.0.1").unwrap().1.to_string(), "10.0.0.1");
        assert_eq!(extra_host("db:::1").unwrap().1.to_string(), "::1");
        assert_eq!(extra_host("db=[::1]").unwrap().1.to_string(), "::1");
        assert!(extra_host("h:host-gateway").unwrap().1.is_loopback());
        for bad in ["x", "a:b", ":1.2.3.4", ""] {
            assert!(extra_host(bad).is_err(), "{bad}");
        }
        assert_eq!(dns_server("1.1.1.1").unwrap().to_string(), "1.1.1.1:53");
        assert_eq!(dns_server("::1").unwrap().to_string(), "[::1]:53");
        assert!(dns_server("example.com").is_err());
    }
}
