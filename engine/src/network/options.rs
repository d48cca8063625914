//! `--opt` of `network create`: what the bridge driver understands, by Docker's names.

use std::collections::BTreeMap;

use super::Network;
use crate::error::{Error, Result};

/// What the driver was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Name of the interface on this host.
    pub(super) bridge: Option<String>,
    /// Whether its containers reach each other.
    pub(super) icc: bool,
    /// Whether what leaves this host has this host's address.
    pub(super) masquerade: bool,
    /// Largest packet.
    pub(super) mtu: Option<u32>,
    /// Where ports are published that name no address.
    pub(super) binding: Option<String>,
    /// How interfaces in containers are called, before the number.
    pub(super) prefix: String,
}

impl Options {
    /// Reads options. What is not known is kept and does nothing, as with Docker.
    pub(super) fn of(options: &BTreeMap<String, String>) -> Result<Self> {
        let mut read = Self {
            bridge: None,
            icc: true,
            masquerade: true,
            mtu: None,
            binding: None,
            prefix: "eth".to_owned(),
        };
        for (name, value) in options {
            let invalid = |why: &str| Error::Invalid(format!("invalid value for {name}: \"{value}\": {why}"));
            let truth = || match value.as_str() {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
                _ => Err(invalid("`true` or `false` is expected")),
            };
            match name.as_str() {
                "com.docker.network.bridge.name" => read.bridge = Some(interface_name(value)?),
                "com.docker.network.bridge.enable_icc" => read.icc = truth()?,
                "com.docker.network.bridge.enable_ip_masquerade" => read.masquerade = truth()?,
                "com.docker.network.bridge.host_binding_ipv4" => match value.parse::<std::net::Ipv4Addr>() {
                    Ok(_) => read.binding = Some(value.clone()),
                    Err(_) => return Err(invalid("an IPv4 address is expected")),
                },
                "com.docker.network.driver.mtu" => match value.parse() {
                    Ok(mtu @ 68..=65_535) => read.mtu = Some(mtu),
                    _ => return Err(invalid("a number from 68 to 65535 is expected")),
                },
                "com.docker.network.container_iface_prefix" => {
                    interface_name(&format!("{value}0"))?;
                    read.prefix.clone_from(value);
                }
                _ => {}
            }
        }
        Ok(read)
    }
}

impl Network {
    /// What its driver was told.
    ///
    /// # Errors
    /// A damaged record.
    pub(super) fn understood(&self) -> Result<Options> {
        Options::of(&self.options)
    }
}

/// What an interface may be called; the kernel takes more, tools do not.
fn interface_name(name: &str) -> Result<String> {
    let fits = (1..16).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
        && !name.starts_with('.');
    if fits {
        return Ok(name.to_owned());
    }
    Err(Error::Invalid(format!(
        "invalid interface name {name}: at most 15 letters, digits, `_`, `.` and `-`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let of =
            |name: &str, value: &str| Options::of(&BTreeMap::from([(name.to_owned(), value.to_owned())]));
        assert!(!of("com.docker.network.bridge.enable_icc", "false").unwrap().icc);
        assert_eq!(of("com.docker.network.driver.mtu", "1400").unwrap().mtu, Some(1400));
        assert_eq!(of("some.other", "x").unwrap(), Options::of(&BTreeMap::new()).unwrap());
        for (name, bad) in [
            ("com.docker.network.bridge.enable_icc", "perhaps"),
            ("com.docker.network.bridge.name", "much-too-long-a-name"),
            ("com.docker.network.bridge.name", "a/b"),
            ("com.docker.network.bridge.host_binding_ipv4", "x"),
            ("com.docker.network.driver.mtu", "1"),
            ("com.docker.network.driver.mtu", "x"),
            ("com.docker.network.container_iface_prefix", "a b"),
        ] {
            assert!(of(name, bad).is_err(), "{name}={bad}");
        }
    }
}
