//! One rule of what a program may connect to: `*`, `example.com`, `*.example.com:443`, `10.0.0.0/8`, `[::1]:8080`.
//!
//! A rule for everything or for a name does not reach addresses that are this host's or its neighbours' (loopback,
//! private, link-local and such): a name in a public zone may point there, on purpose. A rule that is an address or a
//! network, or the name `localhost`, does.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// Something that may be connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    /// Every public address and every name.
    Any,
    /// In lower case, in the form of the domain name system, without the last dot.
    Name(String),
    /// What ends with this, which begins with a dot.
    Below(String),
    /// An address, or all that share this many leading bits.
    Network(IpAddr, u8),
}

/// The text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}': {reason}")]
pub struct InvalidRule {
    text: String,
    reason: &'static str,
}

impl FromStr for Allow {
    type Err = InvalidRule;

    fn from_str(text: &str) -> Result<Self, InvalidRule> {
        let wrong = |reason| InvalidRule { text: text.to_owned(), reason };
        let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => {
                (host, Some(rest.strip_prefix(':').ok_or_else(|| wrong("what follows ']' is no port"))?))
            }
            // More than one colon: an IPv6 address without a port.
            None => match text.split_once(':') {
                Some((host, port)) if !port.contains(':') => (host, Some(port)),
                _ => (text, None),
            },
        };
        let port = match port {
            None | Some("*") => None,
            Some(port) => match port.parse::<u16>() {
                Ok(port) if port != 0 => Some(port),
                _ => return Err(wrong("the port is no number from 1 to 65535")),
            },
        };
        if host == "*" {
            return Ok(Self { host: Host::Any, port });
        }
        let (address, bits) = host.split_once('/').map_or((host, None), |(host, bits)| (host, Some(bits)));
        let host = match (address.parse::<IpAddr>(), bits) {
            (Ok(ip), None) => Host::Network(ip, if ip.is_ipv4() { 32 } else { 128 }),
            (Ok(ip), Some(bits)) => match bits.parse::<u8>() {
                Ok(bits) if bits <= if ip.is_ipv4() { 32 } else { 128 } => Host::Network(ip, bits),
                _ => return Err(wrong("the length of the network's prefix is wrong")),
            },
            (Err(_), Some(_)) => return Err(wrong("what precedes '/' is no address")),
            (Err(_), None) => {
                let (below, name) = match host.strip_prefix("*.") {
                    Some(name) => (true, name),
                    None => (false, host),
                };
                let name = normal(name).ok_or_else(|| wrong("this is neither a name nor an address"))?;
                if below { Host::Below(format!(".{name}")) } else { Host::Name(name) }
            }
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.port) {
            (Host::Any, _) => f.write_str("*")?,
            (Host::Name(name), _) => f.write_str(name)?,
            (Host::Below(name), _) => write!(f, "*{name}")?,
            (Host::Network(ip @ IpAddr::V6(_), 128), Some(_)) => write!(f, "[{ip}]")?,
            (Host::Network(ip @ IpAddr::V6(_), bits), Some(_)) => write!(f, "[{ip}/{bits}]")?,
            (Host::Network(ip, bits), _) if *bits == if ip.is_ipv4() { 32 } else { 128 } => {
                write!(f, "{ip}")?;
            }
            (Host::Network(ip, bits), _) => write!(f, "{ip}/{bits}")?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl Allow {
    /// Whether a program that asks for this port of an address may have it, by the address alone.
    pub fn covers(&self, ip: IpAddr, port: u16) -> bool {
        if self.port.is_some_and(|only| only != port) {
            return false;
        }
        let ip = ip.to_canonical();
        match &self.host {
            Host::Any => !is_near(ip),
            Host::Network(network, bits) => same_prefix(*network, ip, *bits),
            Host::Name(name) => name == "localhost" && ip.is_loopback(),
            Host::Below(_) => false,
        }
    }

    /// Whether it lets a name, in its normal form, be looked up and its public addresses be connected to.
    pub fn names(&self, name: &str) -> bool {
        match &self.host {
            Host::Any => true,
            Host::Name(known) => known == name,
            Host::Below(end) => name.ends_with(end.as_str()),
            Host::Network(..) => false,
        }
    }

    /// The only port it is for.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// A name as rules and answers are compared by: ASCII, lower case, no last dot. `None` for what is no name.
pub(super) fn normal(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let ascii = if name.is_ascii() { name.to_ascii_lowercase() } else { idna::domain_to_ascii(name).ok()? };
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    (ascii.len() <= 253 && ascii.split('.').all(label)).then_some(ascii)
}

fn same_prefix(network: IpAddr, ip: IpAddr, bits: u8) -> bool {
    let (left, right, width) = match (network, ip) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return false,
    };
    let rest = width - u32::from(bits).min(width);
    rest >= 128 || left >> rest == right >> rest
}

/// Whether an address is this host's, its neighbours' or nobody's: what no name of a public zone should lead to.
pub(super) fn is_near(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_near_v4(ip),
        IpAddr::V6(ip) => is_near_v6(ip),
    }
}

fn is_near_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    a == 0
        || a >= 224 // multicast, reserved, broadcast
        || ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || (a == 100 && (64..128).contains(&b)) // shared by providers' customers (RFC 6598)
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && matches!(b, 18 | 19)) // benchmarks (RFC 2544)
}

fn is_near_v6(ip: Ipv6Addr) -> bool {
    let parts = ip.segments();
    let v4 = |high: u16, low: u16| is_near_v4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match parts {
        // Loopback, unspecified, and the old forms that carry an IPv4 address.
        [0, 0, 0, 0, 0, 0, ..] => true,
        // Translated to IPv4 on its way (RFC 6052).
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x64, 0xff9b, ..] => true,
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => v4(high, low),
        [first, ..] => {
            first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || first & 0xffc0 == 0xfec0
                || first >= 0xff00
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("*", "*"),
            ("*:443", "*:443"),
            ("Example.COM.", "example.com"),
            ("example.com:443", "example.com:443"),
            ("*.example.com", "*.example.com"),
            ("bücher.example", "xn--bcher-kva.example"),
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.0/8:5432", "10.0.0.0/8:5432"),
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("::1", "::1"),
            ("[::1]:80", "[::1]:80"),
            ("[fd00::/8]:80", "[fd00::/8]:80"),
            ("fd00::/8", "fd00::/8"),
            ("my_db", "my_db"),
            ("db:*", "db"),
        ] {
            assert_eq!(text.parse::<Allow>().map(|rule| rule.to_string()).as_deref(), Ok(shown), "{text}");
        }
        let long = "a".repeat(64);
        for bad in [
            "",
            ":80",
            "a b",
            "x:0",
            "x:y",
            "x:70000",
            "10.0.0.0/33",
            "name/8",
            "*.",
            "a..b",
            "http://x",
            "[::1]80",
            "[::1",
            "a*b",
            &long,
        ] {
            assert!(bad.parse::<Allow>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_rules_cover() {
        for (rule, address, port, covered) in [
            ("*", "1.1.1.1", 80, true),
            ("*", "2606:4700::1", 80, true),
            ("*:443", "1.1.1.1", 80, false),
            ("*", "127.0.0.1", 80, false),
            ("*", "10.1.2.3", 80, false),
            ("*", "169.254.169.254", 80, false),
            ("*", "192.168.1.1", 80, false),
            ("*", "100.64.0.1", 80, false),
            ("*", "0.0.0.0", 80, false),
            ("*", "::1", 80, false),
            ("*", "::ffff:127.0.0.1", 80, false),
            ("*", "::127.0.0.1", 80, false),
            ("*", "64:ff9b::7f00:1", 80, false),
            ("*", "64:ff9b::101:101", 80, true),
            ("*", "2002:7f00:1::", 80, false),
            ("*", "fd00::1", 80, false),
            ("*", "fe80::1", 80, false),
            ("*", "224.0.0.1", 80, false),
            ("localhost", "127.0.0.1", 80, true),
            ("localhost", "10.0.0.1", 80, false),
            ("127.0.0.1", "127.0.0.1", 80, true),
            ("127.0.0.1", "::ffff:127.0.0.1", 80, true),
            ("127.0.0.1", "127.0.0.2", 80, false),
            ("10.0.0.0/8:5432", "10.9.9.9", 5432, true),
            ("10.0.0.0/8:5432", "10.9.9.9", 5433, false),
            ("10.0.0.0/8", "11.0.0.1", 1, false),
            ("0.0.0.0/0", "127.0.0.1", 1, true),
            ("::/0", "::1", 1, true),
            ("::/0", "1.1.1.1", 1, false),
            ("fd00::/8", "fd12::1", 1, true),
            ("example.com", "1.1.1.1", 80, false),
        ] {
            let rule: Allow = rule.parse().unwrap();
            assert_eq!(rule.covers(address.parse().unwrap(), port), covered, "{rule} {address}:{port}");
        }
    }

    #[test]
    fn names() {
        for (rule, name, named) in [
            ("*", "example.com", true),
            ("example.com", "example.com", true),
            ("example.com", "www.example.com", false),
            ("*.example.com", "www.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
            ("1.2.3.4", "example.com", false),
        ] {
            assert_eq!(rule.parse::<Allow>().unwrap().names(name), named, "{rule} {name}");
        }
    }
}
