//! `/etc/hosts` and `/etc/resolv.conf` of native containers, as Docker fills them.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use fs_err as fs;

use super::Endpoint;
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
pub(crate) fn hosts(record: &Record, endpoints: &[Endpoint]) -> Result<String> {
    let mut text = LOOPBACK.to_owned();
    let gateway = endpoints.first().and_then(|endpoint| endpoint.gateway);
    for entry in &record.host_config.extra_hosts {
        let (name, mut address) = ports::extra_host(entry)?;
        if let (Some(gateway), true) = (gateway, entry.ends_with("host-gateway")) {
            address = IpAddr::V4(gateway);
        }
        // Writing to a text cannot fail.
        let _ = writeln!(text, "{address}\t{name}");
    }
    let hostname = &record.config.hostname;
    for endpoint in endpoints {
        let _ = writeln!(text, "{}\t{hostname}", endpoint.address);
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
    if !host.dns.is_empty() {
        text = without(&text, "nameserver");
        for server in &host.dns {
            let _ = writeln!(text, "nameserver {}", ports::dns_server(server)?.ip());
        }
    }
    if !host.dns_search.is_empty() {
        text = without(&text, "search");
        let _ = writeln!(text, "search {}", host.dns_search.join(" "));
    }
    Ok(text)
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
