//! Which requests go through a proxy: the rules of `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`.
//!
//! There is no standard; this follows Go's reading, which Docker's users know. The caller reads the variables.

use std::net::IpAddr;

use super::address::is_loopback;

/// Proxies by scheme, and who is reached without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://`: `[http|https|socks4|socks4a|socks5|socks5h://][user:password@]host[:port]`.
    pub http: Option<String>,
    /// For `https://`.
    pub https: Option<String>,
    /// For whatever has none of its own.
    pub all: Option<String>,
    /// `NO_PROXY`: hosts, suffixes, addresses and networks with commas between them, each with an optional port; `*` for all.
    pub none_for: String,
}

impl Proxies {
    /// One proxy for everything.
    #[must_use]
    pub fn only(url: &str) -> Self {
        Self { all: Some(url.into()), ..Self::default() }
    }

    /// The proxy for a request, if it needs one. A loopback address never does.
    pub(super) fn for_request(&self, scheme: &str, host: &str, port: u16) -> Option<&str> {
        let own = if scheme == "http" { &self.http } else { &self.https };
        let proxy = own.as_deref().or(self.all.as_deref()).map(str::trim).filter(|p| !p.is_empty())?;
        if is_loopback(host) || self.excluded(host, port) { None } else { Some(proxy) }
    }

    fn excluded(&self, host: &str, port: u16) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let address: Option<IpAddr> = host.parse().ok();
        let rules = self.none_for.split(',').map(str::trim).filter(|rule| !rule.is_empty());
        rules.map(str::to_ascii_lowercase).any(|rule| excludes(&rule, &host, address, port))
    }
}

fn excludes(rule: &str, host: &str, address: Option<IpAddr>, port: u16) -> bool {
    if rule == "*" {
        return true;
    }
    if let Some((network, bits)) = rule.split_once('/') {
        let (Ok(network), Ok(bits), Some(address)) = (network.parse(), bits.parse(), address) else {
            return false;
        };
        return contains(network, bits, address);
    }
    let (name, wanted_port) = split_port(rule);
    if wanted_port.is_some_and(|wanted| wanted != port) {
        return false;
    }
    if let Ok(wanted) = name.parse::<IpAddr>() {
        return address.is_some_and(|address| address.to_canonical() == wanted.to_canonical());
    }
    // `example.org` means the host and what is below it, `.example.org` and `*.example.org` only what is below.
    let below = name.strip_prefix('*').unwrap_or(name);
    match below.strip_prefix('.') {
        Some(domain) => !domain.is_empty() && host.strip_suffix(domain).is_some_and(|h| h.ends_with('.')),
        None => {
            !name.is_empty()
                && host.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        }
    }
}

/// `host:port`, `[v6]:port`, `v6` or `host`.
fn split_port(rule: &str) -> (&str, Option<u16>) {
    if let Some(v6) = rule.strip_prefix('[') {
        let (host, rest) = v6.split_once(']').unwrap_or((v6, ""));
        return (host, rest.strip_prefix(':').and_then(|port| port.parse().ok()));
    }
    match rule.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, port.parse().ok()),
        _ => (rule, None),
    }
}

fn contains(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let same = |a: &[u8], b: &[u8]| {
        bits as usize <= a.len() * 8
            && a.iter().zip(b).enumerate().all(|(i, (a, b))| {
                let left = (bits as usize).saturating_sub(i * 8).min(8);
                let mask = if left == 0 { 0 } else { 0xffu8 << (8 - left) };
                a & mask == b & mask
            })
    };
    match (network, address.to_canonical()) {
        (IpAddr::V4(a), IpAddr::V4(b)) => same(&a.octets(), &b.octets()),
        (IpAddr::V6(a), IpAddr::V6(b)) => same(&a.octets(), &b.octets()),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_needs_no_proxy() {
        let cases = [
            ("", "a.example", 443, false),
            ("*", "a.example", 443, true),
            ("a.example", "a.example", 443, true),
            (" b , A.Example ", "a.EXAMPLE.", 443, true),
            ("example", "a.example", 443, true),
            ("ample", "a.example", 443, false),
            (".example", "a.example", 443, true),
            (".a.example", "a.example", 443, false),
            ("*.example", "a.example", 443, true),
            ("*.example", "example", 443, false),
            ("a.example:443", "a.example", 443, true),
            ("a.example:80", "a.example", 443, false),
            ("10.0.0.0/8", "10.1.2.3", 443, true),
            ("10.0.0.0/9", "10.128.2.3", 443, false),
            ("10.0.0.0/33", "10.0.0.0", 443, false),
            ("0.0.0.0/0", "10.1.2.3", 443, true),
            ("10.0.0.0/8", "ten.example", 443, false),
            ("10.1.2.3", "10.1.2.3", 443, true),
            ("10.1.2.3:5000", "10.1.2.3", 5000, true),
            ("10.1.2.3:5000", "10.1.2.3", 443, false),
            ("10.1.2.3", "::ffff:10.1.2.3", 443, true),
            ("fd00::/8", "fd12::1", 443, true),
            ("fd00::/8", "fe80::1", 443, false),
            ("fd12::1", "fd12::1", 443, true),
            ("[fd12::1]:443", "fd12::1", 443, true),
            ("[fd12::1]:80", "fd12::1", 443, false),
            (".", "a.example", 443, false),
            (",,", "a.example", 443, false),
            ("/", "a.example", 443, false),
        ];
        for (rules, host, port, expected) in cases {
            let proxies = Proxies { none_for: rules.into(), ..Proxies::only("http://proxy") };
            let proxy = proxies.for_request("https", host, port);
            assert_eq!(proxy.is_none(), expected, "{rules} {host} {port}");
        }
    }

    #[test]
    fn which_proxy() {
        let proxies = Proxies {
            http: Some("http://h".into()),
            https: Some(" ".into()),
            all: Some("socks5://a".into()),
            none_for: String::new(),
        };
        assert_eq!(proxies.for_request("http", "x", 80), Some("http://h"));
        assert_eq!(proxies.for_request("https", "x", 443), None, "set to nothing");
        let proxies = Proxies { https: None, ..proxies };
        assert_eq!(proxies.for_request("https", "x", 443), Some("socks5://a"));
        for loopback in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(proxies.for_request("http", loopback, 80), None);
        }
        assert_eq!(Proxies::default().for_request("http", "x", 80), None);
    }
}
