//! Which addresses a registry may send this machine to.
//!
//! Not to itself, unless the registry is there too, and not to link-local addresses, where clouds keep credentials.
//! The host is judged as it is written, and again by what it stands for at the moment of the connection: a name
//! can lead anywhere, and the system takes `127.1` and `0x7f000001` for addresses.

use std::net::IpAddr;
use std::net::SocketAddr;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::resolver::ResolvedSocketAddrs;
use ureq::unversioned::resolver::Resolver;
use ureq::unversioned::transport::NextTimeout;

/// Whether a registry at the host `own` may send us to `host`. Hosts have no port and no brackets.
pub(super) fn may_be_asked(host: &str, own: &str) -> bool {
    // The host that the user named is the user's choice.
    if !host.is_empty() && host.eq_ignore_ascii_case(own) {
        return true;
    }
    match host.parse() {
        Ok(ip) => is_fit(ip, is_loopback(own)),
        // An IPv6 address with a zone, or a number that is no address to us but one to the system.
        Err(_) if host.is_empty() || host.contains([':', '%']) || ends_in_number(host) => false,
        Err(_) => is_loopback(own) || !is_loopback(host),
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

fn is_fit(ip: IpAddr, loopback_too: bool) -> bool {
    let ip = ip.to_canonical();
    let local = match ip {
        // All of 0.0.0.0/8 is "this host".
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_unspecified(),
    };
    !local && (loopback_too || !ip.is_loopback())
}

/// No top-level domain is a number, so such a host is meant as an IPv4 address. The rule is the URL standard's.
fn ends_in_number(host: &str) -> bool {
    let last = host.strip_suffix('.').unwrap_or(host).rsplit('.').next().unwrap_or_default();
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    hex.map_or_else(
        || !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
        |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()),
    )
}

/// Looks names up, and refuses those that stand for an address where the registry may not send us.
#[derive(Debug)]
pub(super) struct Guard {
    inner: DefaultResolver,
    /// Hosts that the user named, which may be anywhere: the registry first.
    own: Vec<String>,
}

impl Guard {
    pub(super) fn new(own: Vec<String>) -> Self {
        Self { inner: DefaultResolver::default(), own }
    }
}

impl Resolver for Guard {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let found = self.inner.resolve(uri, config, timeout)?;
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        // One bad address is enough: an honest name has none.
        let loopback_too = self.own.first().is_some_and(|registry| is_loopback(registry));
        let fit = |address: &SocketAddr| is_fit(address.ip(), loopback_too);
        if self.own.iter().any(|own| host.eq_ignore_ascii_case(own)) || found.iter().all(fit) {
            Ok(found)
        } else {
            Err(Error::Other(Box::new(Refusal)))
        }
    }
}

/// What the guard ends a connection with.
#[derive(Debug, thiserror::Error)]
#[error("the name stands for an address of this machine or its link")]
struct Refusal;

pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Other(inner) if inner.is::<Refusal>())
}

#[cfg(test)]
mod tests {
    use ureq::unversioned::transport::DefaultConnector;

    use super::*;

    const REFUSED_BY_ALL: &[&str] = &[
        "",
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "2852039166",
        "0xa9fea9fe",
        "0XA9FEA9FE",
        "0xa9.254.43518",
        "169.254.43518",
        "0251.0376.0251.0376",
        "169.254.169.254.",
        "127.1",
        "0x7f.1",
        "0x",
        "1",
        "127.0.0.01",
        "0.0.0.0",
        "0.1.2.3",
        "0",
        "::",
        "fe80::1",
        "fe80::1%25eth0",
        "::ffff:0.0.0.0",
        "a.b.0x7f",
        "1.",
        "999.1.1.1",
    ];
    const LOOPBACK: &[&str] =
        &["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "LocalHost", "localhost."];
    const FINE: &[&str] = &[
        "10.0.0.1",
        "192.168.1.1",
        "8.8.8.8",
        "fd00::1",
        "2001:db8::1",
        "::ffff:10.0.0.1",
        "cdn.example",
        "1.2.3.example",
        "0x7f.example",
        "xn--p1ai",
        "a.0xg",
        "127.0.0.1.example",
    ];

    #[test]
    fn hosts_are_judged_by_the_address_they_are() {
        for host in REFUSED_BY_ALL {
            assert!(!may_be_asked(host, "registry.example"), "{host}");
            assert!(!may_be_asked(host, "127.0.0.1"), "{host}");
        }
        for host in LOOPBACK {
            assert!(!may_be_asked(host, "registry.example"), "{host}");
            assert!(may_be_asked(host, "localhost"), "{host}");
            assert!(may_be_asked(host, "::1"), "{host}");
        }
        for host in FINE {
            assert!(may_be_asked(host, "registry.example"), "{host}");
        }
        assert!(may_be_asked("169.254.7.7", "169.254.7.7"), "the registry that the user chose");
        assert!(!may_be_asked("", ""));
    }

    #[test]
    fn names_are_judged_by_what_they_stand_for() {
        // Names that the system resolves without asking anybody.
        let ask = |own: &str, host: &str| {
            let agent = ureq::Agent::with_parts(
                Config::builder().proxy(None).build(),
                DefaultConnector::default(),
                Guard::new(vec![own.to_owned()]),
            );
            // Port 1: nobody is there.
            let error = agent.get(format!("http://{host}:1/")).call().unwrap_err();
            is_refusal(&error)
        };
        for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(ask("registry.example", host), "{host}");
            assert!(!ask("localhost", host), "{host}");
        }
        assert!(!ask("[::1]".trim_matches(['[', ']']), "[::1]"));
        for host in ["169.254.169.254", "0.0.0.0", "[::ffff:169.254.169.254]"] {
            assert!(ask("127.0.0.1", host), "{host}");
        }
        if cfg!(unix) {
            assert!(ask("registry.example", "0x7f.1"));
            assert!(ask("registry.example", "2852039166"));
        }
    }
}
