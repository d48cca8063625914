//! `--network` in its short and long form, with the options that belong to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use anyhow::{Result, bail};
use dhow_engine::network::Membership;

use super::RunArgs;

/// The network mode: the first network.
pub(super) fn mode(args: &RunArgs) -> Result<String> {
    match args.network.first() {
        Some(text) => Ok(parse(text)?.network),
        None => Ok("default".to_owned()),
    }
}

/// Whether links are names in a network; in the default one they are the container's own affair.
fn links_in_network(args: &RunArgs) -> Result<bool> {
    for link in &args.link {
        dhow_engine::network::links::parse(link)?;
    }
    let mode = mode(args)?;
    let default = matches!(mode.as_str(), "" | "default" | "bridge" | "none" | "host");
    Ok(!args.link.is_empty() && !default && !mode.starts_with("container:"))
}

/// Links in the default network.
pub(super) fn links(args: &RunArgs) -> Result<Vec<String>> {
    Ok(if links_in_network(args)? { Vec::new() } else { args.link.clone() })
}

/// What is asked of each network; nothing where only a mode is named.
pub(super) fn memberships(args: &RunArgs) -> Result<Vec<Membership>> {
    let mut asked = args.network.iter().map(|text| parse(text)).collect::<Result<Vec<_>>>()?;
    let plain = args.network_alias.is_empty()
        && !links_in_network(args)?
        && args.ip.is_none()
        && args.ip6.is_none()
        && args.more.link_local_ip.is_empty()
        && args.mac_address.is_none();
    if plain && asked.len() < 2 && args.network.first().is_none_or(|text| !text.contains('=')) {
        return Ok(Vec::new());
    }
    if asked.is_empty() {
        asked.push(Membership::of("default"));
    }
    // As in Docker they belong to the first one.
    let Some(first) = asked.first_mut() else { return Ok(asked) };
    if !plain && args.network.first().is_some_and(|text| text.contains('=')) {
        let both = (!args.network_alias.is_empty(), args.ip.is_some(), args.ip6.is_some());
        match both {
            (true, ..) if !first.aliases.is_empty() => {
                bail!("conflicting options: cannot specify both --network-alias and per-network alias");
            }
            (_, true, _) if first.address.is_some() => {
                bail!("conflicting options: cannot specify both --ip and per-network IPv4 address");
            }
            (.., true) if first.address6.is_some() => {
                bail!("conflicting options: cannot specify both --ip6 and per-network IPv6 address");
            }
            _ => {}
        }
    }
    first.aliases.extend(args.network_alias.iter().cloned());
    first.address = first.address.or(args.ip);
    first.address6 = first.address6.or(args.ip6);
    first.link_local.extend(Membership::link_local(&args.more.link_local_ip)?);
    if links_in_network(args)? {
        first.links.extend(args.link.iter().cloned());
    }
    if let Some(address) = &args.mac_address {
        first.mac_address.clone_from(address);
    }
    Ok(asked)
}

/// One `--network`: a name, or `name=...,alias=...`.
fn parse(text: &str) -> Result<Membership> {
    if !text.contains('=') {
        return Ok(Membership::of(text));
    }
    let mut membership = Membership::default();
    for field in text.split(',') {
        let Some((key, value)) = field.split_once('=') else { bail!("invalid field {field}") };
        match key.trim().to_ascii_lowercase().as_str() {
            "name" => value.clone_into(&mut membership.network),
            "alias" => membership.aliases.push(value.to_owned()),
            "ip" => membership.address = Some(value.parse::<Ipv4Addr>()?),
            "ip6" => membership.address6 = Some(value.parse::<Ipv6Addr>()?),
            "link-local-ip" => {
                membership.link_local.extend(Membership::link_local(&[value.to_owned()])?);
            }
            "mac-address" => value.clone_into(&mut membership.mac_address),
            "driver-opt" => {
                let (name, value) = value.split_once('=').unwrap_or((value, ""));
                membership.driver_opts.insert(name.to_owned(), value.to_owned());
            }
            "link" => membership.links.push(value.to_owned()),
            "gw-priority" => {
                membership.gw_priority =
                    value.parse().map_err(|_| anyhow::anyhow!("invalid gw-priority: {value}"))?;
            }
            key => bail!("invalid field key {key}"),
        }
    }
    if membership.network.is_empty() {
        bail!("network name must be specified in {text}");
    }
    Ok(membership)
}

/// `NAME=VALUE` of an option that may be given often.
pub(crate) fn pairs(list: &[String]) -> BTreeMap<String, String> {
    list.iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        assert_eq!(parse("back").unwrap(), Membership::of("back"));
        let long = parse("name=back,alias=db,alias=sql,ip=10.1.2.3,mac-address=02:42:00:00:00:01").unwrap();
        assert_eq!((long.network.as_str(), long.aliases.len()), ("back", 2));
        assert_eq!(long.address, Some(Ipv4Addr::new(10, 1, 2, 3)));
        for bad in ["alias=x", "name=a,what=b", "name=a,b", "name=a,ip=x"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let args = |network: &[&str], alias: &[&str]| RunArgs {
            network: network.iter().map(|text| (*text).to_owned()).collect(),
            network_alias: alias.iter().map(|text| (*text).to_owned()).collect(),
            ..RunArgs::default()
        };
        assert_eq!(memberships(&args(&["none"], &[])).unwrap(), []);
        assert_eq!(memberships(&args(&["a", "b"], &["x"])).unwrap()[0].aliases, ["x"]);
        assert!(memberships(&args(&["name=a,alias=y"], &["x"])).is_err());
        assert_eq!(mode(&args(&["name=a,alias=y"], &[])).unwrap(), "a");
    }
}
