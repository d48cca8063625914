//! `/etc/hosts` and `/etc/resolv.conf` of native containers, as Docker fills them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fs_err as fs;

use super::Endpoint;
use super::inside::SERVER;
use super::links::Linked;
use crate::error::Result;
use crate::ports;
use crate::record::Record;

/// The beginning of every `hosts` file.
const LOOPBACK: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
     ff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n";

/// Where the host's resolver is when `/etc/resolv.conf` names a stub on loopback.
const BEHIND_STUB: &str = "/run/systemd/resolve/resolv.conf";

/// Names that every program of the container finds without asking anybody.
///
/// # Errors
/// What is wrong with `--add-host`.
pub(crate) fn hosts(record: &Record, endpoints: &[Endpoint], linked: &[Linked]) -> Result<String> {
    let mut text = LOOPBACK.to_owned();
    let gateway = endpoints.iter().find_map(|endpoint| endpoint.gateway);
    for entry in &record.host_config.extra_hosts {
        let (name, mut address) = ports::extra_host(entry)?;
        if let (Some(gateway), true) = (gateway, entry.ends_with("host-gateway")) {
            address = IpAddr::V4(gateway);
        }
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    for other in linked {
        let _ = writeln!(text, "{}\t{}", other.address, other.names.join(" "));
    }
    let config = &record.config;
    let hostname = match config.domainname.as_str() {
        "" => config.hostname.clone(),
        domain => format!("{0}.{domain} {0}", config.hostname),
    };
    for endpoint in endpoints {
        let _ = writeln!(text, "{}\t{hostname}", endpoint.address);
        if let Some(address) = endpoint.address6 {
            let _ = writeln!(text, "{address}\t{hostname}");
        }
    }
    if endpoints.is_empty() {
        let _ = writeln!(text, "{}\t{hostname}", Ipv4Addr::LOCALHOST);
    }
    Ok(text)
}

/// Whom to ask for other names: who was named, else whom the host asks. A server on the host's loopback cannot be reached
/// from a network of its own, so it is left out there.
pub(crate) fn resolv_conf(record: &Record) -> Result<String> {
    let host = &record.host_config;
    let own = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut text = own.clone();
    if !matches!(host.network_mode.as_str(), "host" | "none" | "") {
        text = reachable(&own);
        if !text.lines().any(|line| line.starts_with("nameserver")) {
            text = reachable(&fs::read_to_string(BEHIND_STUB).unwrap_or(own));
        }
    }
    let named = record.has_names();
    if named {
        // The monitor answers there, and asks `--dns` or this host's servers itself.
        text = format!("{}nameserver {SERVER}\n", without(&text, "nameserver"));
    } else if !host.dns.is_empty() {
        text = without(&text, "nameserver");
        for server in &host.dns {
            let _ = writeln!(text, "nameserver {}", ports::dns_server(server)?.ip());
        }
    }
    if !host.dns_search.is_empty() {
        text = without(&without(&text, "search"), "domain");
        // As with Docker, `.` is for none at all.
        if host.dns_search != ["."] {
            let _ = writeln!(text, "search {}", host.dns_search.join(" "));
        }
    }
    if !host.dns_options.is_empty() || named {
        let mut options = host.dns_options.clone();
        if options.is_empty() {
            options.extend(words_of(&text, "options"));
        }
        if named && !options.iter().any(|option| option.starts_with("ndots")) {
            // Names of containers have no dots.
            options.push("ndots:0".to_owned());
        }
        text = without(&text, "options");
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    Ok(text)
}

/// The words behind a keyword.
fn words_of(text: &str, keyword: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| line.split_whitespace().next() == Some(keyword));
    lines.flat_map(|line| line.split_whitespace().skip(1)).map(str::to_owned).collect()
}

/// The servers that programs of a container ask themselves.
///
/// # Errors
/// As [`resolv_conf`].
pub(crate) fn servers(record: &Record) -> Result<Vec<SocketAddr>> {
    let servers = words_of(&resolv_conf(record)?, "nameserver");
    let addresses = servers.iter().filter_map(|server| server.parse::<IpAddr>().ok());
    Ok(addresses.map(|address| SocketAddr::new(address, 53)).collect())
}

fn reachable(text: &str) -> String {
    let keeps = |line: &&str| {
        let server = line.strip_prefix("nameserver").map(str::trim);
        server.is_none_or(|server| !server.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()))
    };
    lines(text.lines().filter(keeps))
}

fn without(text: &str, keyword: &str) -> String {
    lines(text.lines().filter(|line| line.split_whitespace().next() != Some(keyword)))
}

fn lines<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_on_loopback_are_left_out() {
        let text = "# made\nnameserver 127.0.0.53\nnameserver 10.0.0.1\nnameserver ::1\nsearch a b\n";
        assert_eq!(reachable(text), "# made\nnameserver 10.0.0.1\nsearch a b\n");
        assert_eq!(without(text, "nameserver"), "# made\nsearch a b\n");
    }
}
