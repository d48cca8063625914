//! `network`: bridges that containers are connected to.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Result, anyhow, bail};
use clap::{Args, Subcommand};
use dhow_engine::network::address::Subnet;
use dhow_engine::network::address6::Subnet6;
use dhow_engine::network::{BRIDGE, BUILT_IN, CreateNetwork, DEFAULT, Membership, Network};
use dhow_engine::{Engine, Error};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::args::Global;
use crate::commands::inspect::{self, InspectNetworkArgs};
use crate::commands::prune;
use crate::commands::run::networks::pairs;
use crate::context;
use crate::error::hinted;
use crate::filter::{self, Filter};
use crate::table;
use crate::ui::Ui;

#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Put a container into a network, running or not
    Connect(ConnectArgs),
    /// Make a network
    Create(CreateArgs),
    /// Take a container out of a network
    Disconnect(DisconnectArgs),
    /// Show everything about networks
    Inspect(InspectNetworkArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove networks that no container was made for
    Prune(PruneArgs),
    /// Remove networks
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// What carries it
    #[arg(short, long, value_name = "DRIVER", default_value = BRIDGE)]
    driver: String,
    /// Its addresses, as `10.1.2.0/24` or `fd00:1::/64`, one of each family [default: a free subnet]
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// This host's address in a subnet [default: the first one]
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<IpAddr>,
    /// Part of the subnet that containers get addresses of
    #[arg(long, value_name = "SUBNET")]
    ip_range: Option<String>,
    /// Addresses that no container gets
    #[arg(long, value_name = "NAME=ADDRESS")]
    aux_address: Vec<String>,
    /// Give containers addresses of IPv6, too
    #[arg(long)]
    ipv6: bool,
    /// Docker's note that services may use it
    #[arg(long)]
    attachable: bool,
    /// It leads nowhere
    #[arg(long)]
    internal: bool,
    /// Set a label
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// What the driver is told
    ///
    /// `com.docker.network.bridge.name=NAME` names the interface, `com.docker.network.bridge.enable_icc=false` keeps
    /// its containers from each other, `com.docker.network.driver.mtu=NUMBER` is the largest packet.
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Who chooses addresses: `default`
    #[arg(long, value_name = "DRIVER")]
    ipam_driver: Option<String>,
    /// What that one is told; it is kept and shown
    #[arg(long, value_name = "NAME=VALUE")]
    ipam_opt: Vec<String>,
    /// Where it is: `local`
    #[arg(long, value_name = "SCOPE")]
    scope: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    ipv4: Option<bool>,
    #[arg(long, hide = true)]
    ingress: bool,
    #[arg(long, hide = true)]
    config_only: bool,
    #[arg(long, hide = true)]
    config_from: Option<String>,
    /// Its name
    #[arg(value_name = "NETWORK")]
    name: String,
}

impl CreateArgs {
    /// What Docker has for many hosts, or for networks of IPv6 alone.
    fn refuse(&self) -> Result<()> {
        if self.ingress || self.scope.as_deref().is_some_and(|scope| !matches!(scope, "" | "local")) {
            return Err(hinted(
                "networks of several hosts are not supported",
                "leave out --ingress and --scope: a network belongs to this host",
            ));
        }
        if self.config_only || self.config_from.is_some() {
            return Err(hinted(
                "networks that only configure others are not supported",
                "leave out --config-only and --config-from, and say the options with each network",
            ));
        }
        if self.ipv4 == Some(false) {
            return Err(hinted(
                "a network without IPv4 is not supported",
                "leave out --ipv4=false; --ipv6 adds the other family",
            ));
        }
        if let Some(driver) = self.ipam_driver.as_deref().filter(|name| !matches!(*name, "" | "default")) {
            return Err(hinted(
                format!("could not find an IPAM driver named \"{driver}\""),
                "addresses are chosen by `default`",
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Another name for the container in it
    #[arg(long, value_name = "NAME")]
    alias: Vec<String>,
    /// Address in it
    #[arg(long, value_name = "IP")]
    ip: Option<Ipv4Addr>,
    /// Address of IPv6 in it
    #[arg(long, value_name = "IP")]
    ip6: Option<Ipv6Addr>,
    /// Another container in it by a name that only this one has for it
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    /// What the driver is told: `com.docker.network.endpoint.ifname=NAME` names the interface inside
    #[arg(long, value_name = "NAME=VALUE")]
    driver_opt: Vec<String>,
    /// The network with the highest leads to everywhere else [default: 0]
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    gw_priority: Option<i64>,
    /// A further address of its interface
    #[arg(long, value_name = "IP")]
    link_local_ip: Vec<String>,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

#[derive(Debug, Args)]
pub(crate) struct DisconnectArgs {
    /// Also one that is gone and has left its address behind
    #[arg(short, long)]
    force: bool,
    /// Name or id
    #[arg(value_name = "NETWORK")]
    network: String,
    /// Name or id
    #[arg(value_name = "CONTAINER")]
    container: String,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only what fits: `name=TEXT`, `id=ID`, `label=NAME[=VALUE]`, `driver=NAME`, `type=custom|builtin`,
    /// `dangling=true`
    #[arg(short, long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Print only ids
    #[arg(short, long)]
    quiet: bool,
    /// Do not shorten anything
    #[arg(long)]
    no_trunc: bool,
    /// `table`, `json`, or a Go template such as `{{.Name}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Do not mind one that does not exist
    #[arg(short, long)]
    force: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Only what fits: `until=TIME`, `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`
    #[arg(long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const COLUMNS: [(&str, &str); 4] =
    [("ID", "NETWORK ID"), ("Name", "NAME"), ("Driver", "DRIVER"), ("Scope", "SCOPE")];

pub(crate) fn run(ui: &Ui, global: &Global, command: NetworkCommand) -> Result<u8> {
    match command {
        NetworkCommand::Connect(args) => connect(global, args),
        NetworkCommand::Create(args) => create(ui, global, args),
        NetworkCommand::Disconnect(args) => disconnect(global, &args),
        NetworkCommand::Inspect(args) => {
            inspect::run(ui, global, &args.into(), Some(inspect::ObjectKind::Network))
        }
        NetworkCommand::Ls(args) => list(ui, global, &args),
        NetworkCommand::Prune(args) => prune(ui, global, &args),
        NetworkCommand::Rm(args) => remove(ui, global, &args),
    }
}

fn create(ui: &Ui, global: &Global, args: CreateArgs) -> Result<u8> {
    args.refuse()?;
    let mut wanted = CreateNetwork {
        name: args.name,
        driver: args.driver,
        ip_range: args.ip_range.as_deref().map(str::parse::<Subnet>).transpose()?,
        ipv6: args.ipv6,
        internal: args.internal,
        attachable: args.attachable,
        options: pairs(&args.opt),
        ipam_options: pairs(&args.ipam_opt),
        labels: pairs(&args.label),
        ..CreateNetwork::default()
    };
    let twice = "multiple overlapping subnet configuration is not supported";
    for subnet in &args.subnet {
        let again = if subnet.contains(':') {
            wanted.subnet6.replace(subnet.parse::<Subnet6>()?).is_some()
        } else {
            wanted.subnet.replace(subnet.parse::<Subnet>()?).is_some()
        };
        if again {
            bail!("{twice}");
        }
    }
    for gateway in args.gateway {
        let again = match gateway {
            IpAddr::V4(address) => wanted.gateway.replace(address).is_some(),
            IpAddr::V6(address) => wanted.gateway6.replace(address).is_some(),
        };
        if again {
            bail!("cannot configure multiple gateways ({gateway}) for the same subnet");
        }
    }
    for (name, address) in pairs(&args.aux_address) {
        let parsed = address.parse().map_err(|_| anyhow!("no matching subnet for aux-address {address}"))?;
        wanted.reserved.insert(name, parsed);
    }
    ui.line(&context::engine(global)?.create_network(wanted)?.id);
    Ok(0)
}

#[cfg(target_os = "linux")]
fn connect(global: &Global, args: ConnectArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let container = engine.container(&args.container)?;
    let wanted = Membership {
        network: args.network,
        aliases: args.alias,
        address: args.ip,
        address6: args.ip6,
        links: args.link,
        driver_opts: pairs(&args.driver_opt),
        gw_priority: args.gw_priority.unwrap_or_default(),
        link_local: Membership::link_local(&args.link_local_ip)?,
        ..Membership::default()
    };
    engine.connect(&container, wanted)?;
    Ok(0)
}

#[cfg(target_os = "linux")]
fn disconnect(global: &Global, args: &DisconnectArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    match engine.container(&args.container) {
        Err(Error::NoSuchContainer(_)) if args.force => {
            engine.disconnect_gone(&args.container, &args.network)?;
        }
        container => engine.disconnect(&container?, &args.network)?,
    }
    Ok(0)
}

#[cfg(not(target_os = "linux"))]
fn connect(_: &Global, _: ConnectArgs) -> Result<u8> {
    bail!("networks of containers need Linux")
}

#[cfg(not(target_os = "linux"))]
fn disconnect(_: &Global, _: &DisconnectArgs) -> Result<u8> {
    bail!("networks of containers need Linux")
}

fn list(ui: &Ui, global: &Global, args: &LsArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    engine.default_network()?;
    let mut rows: Vec<Value> = engine.networks()?.iter().map(|network| row(network, args.no_trunc)).collect();
    rows.extend(BUILT_IN.map(|name| {
        let driver = if name == "none" { "null" } else { name };
        json!({ "ID": built_in_id(name, args.no_trunc), "Name": name, "Driver": driver, "Scope": "local",
            "Internal": "false", "IPv6": "false", "Labels": {} })
    }));
    rows.sort_by(|a, b| a["Name"].as_str().cmp(&b["Name"].as_str()));
    if let Some(wanted) = dangling(&args.filter)? {
        let mut used: BTreeSet<String> = BUILT_IN.iter().chain(&[DEFAULT]).map(ToString::to_string).collect();
        for network in engine.networks()? {
            let connected = connected(&engine, &network)?;
            used.extend(connected.as_object().filter(|all| !all.is_empty()).map(|_| network.name));
        }
        rows.retain(|row| row["Name"].as_str().is_some_and(|name| used.contains(name)) != wanted);
    }
    let mut fitting = Vec::new();
    for row in rows {
        if passes(&args.filter, &row)? {
            fitting.push(row);
        }
    }
    if args.quiet && args.format.is_none() {
        for row in &fitting {
            ui.line(row["ID"].as_str().unwrap_or_default());
        }
        return Ok(0);
    }
    ui.print(&table::render_format(args.format.as_deref(), &COLUMNS, &fitting)?);
    Ok(0)
}

/// Networks without a record have the same id everywhere.
fn built_in_id(name: &str, whole: bool) -> String {
    let digit = if name == "host" { "1" } else { "2" };
    digit.repeat(if whole { 64 } else { 12 })
}

/// Whether networks are wanted that nothing is connected to, or the others.
fn dangling(filters: &[Filter]) -> Result<Option<bool>> {
    let Some((_, value)) = filters.iter().rfind(|(key, _)| key == "dangling") else { return Ok(None) };
    match value.to_lowercase().as_str() {
        "true" | "1" => Ok(Some(true)),
        "false" | "0" => Ok(Some(false)),
        _ => bail!("invalid filter 'dangling={value}'"),
    }
}

/// Whether a network fits: of several values for one key any will do, except for labels.
fn passes(filters: &[Filter], row: &Value) -> Result<bool> {
    let text = |key: &str| row[key].as_str().unwrap_or_default();
    let builtin = text("Name") == DEFAULT || BUILT_IN.contains(&text("Name"));
    for key in ["name", "id", "driver", "type", "scope"] {
        let mut wanted = filters.iter().filter(|(name, _)| name == key).peekable();
        let fits = |value: &str| match key {
            "name" => text("Name").contains(value),
            "id" => text("ID").starts_with(value),
            "driver" => text("Driver") == value,
            "scope" => text("Scope") == value,
            _ => (value == "builtin") == builtin,
        };
        if wanted.peek().is_some() && !wanted.any(|(_, value)| fits(value)) {
            return Ok(false);
        }
    }
    for (key, value) in filters {
        match key.as_str() {
            "name" | "id" | "driver" | "scope" | "dangling" => {}
            "type" if matches!(value.as_str(), "builtin" | "custom") => {}
            "type" => bail!("invalid filter: 'type'='{value}'"),
            "label" => {
                let (name, wanted) =
                    value.split_once('=').map_or((value.as_str(), None), |(n, v)| (n, Some(v)));
                let Some(label) = row["Labels"].get(name) else { return Ok(false) };
                if wanted.is_some_and(|wanted| label != wanted) {
                    return Ok(false);
                }
            }
            other => {
                let known = "known here: name, id, label, driver, scope, type, dangling";
                return Err(hinted(format!("invalid filter '{other}'"), known));
            }
        }
    }
    Ok(true)
}

fn row(network: &Network, whole: bool) -> Value {
    let id = if whole { &network.id } else { &network.id[..network.id.len().min(12)] };
    json!({
        "ID": id,
        "Name": network.name,
        "Driver": BRIDGE,
        "Scope": "local",
        "Internal": network.internal.to_string(),
        "IPv6": network.subnet6.is_some().to_string(),
        "Labels": network.labels,
        "CreatedAt": network.created.to_string(),
    })
}

/// Everything about one network, as Docker's Engine API shows it.
pub(crate) fn show(engine: &Engine, name: &str) -> Result<Value, Error> {
    if BUILT_IN.contains(&name) {
        let driver = if name == "none" { "null" } else { name };
        return Ok(json!({ "Name": name, "Id": built_in_id(name, true), "Scope": "local", "Driver": driver,
            "EnableIPv4": false, "EnableIPv6": false, "IPAM": { "Driver": "default", "Options": null, "Config": [] },
            "Internal": false, "Attachable": false, "Ingress": false, "ConfigFrom": { "Network": "" },
            "ConfigOnly": false, "Containers": {}, "Options": {}, "Labels": {} }));
    }
    let network = if name == DEFAULT { engine.default_network()? } else { engine.network(name)? };
    let mut config = vec![json!({ "Subnet": network.subnet, "Gateway": network.gateway.to_string() })];
    if let Some(range) = &network.ip_range {
        config[0]["IPRange"] = json!(range);
    }
    if !network.reserved.is_empty() {
        config[0]["AuxiliaryAddresses"] = json!(network.reserved);
    }
    if let Some(subnet) = &network.subnet6 {
        let gateway = network.gateway6.map(|gateway| gateway.to_string());
        config.push(json!({ "Subnet": subnet, "Gateway": gateway }));
    }
    let mut options = network.options.clone();
    if network.name == DEFAULT {
        // What dockerd says of its own.
        let more = [
            ("bridge.default_bridge", "true"),
            ("bridge.enable_icc", "true"),
            ("bridge.enable_ip_masquerade", "true"),
            ("bridge.host_binding_ipv4", "0.0.0.0"),
            ("bridge.name", network.bridge.as_str()),
            ("driver.mtu", "1500"),
        ];
        for (key, value) in more {
            options.entry(format!("com.docker.network.{key}")).or_insert_with(|| value.to_owned());
        }
    }
    Ok(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created.to_string(),
        "Scope": "local",
        "Driver": BRIDGE,
        "EnableIPv4": true,
        "EnableIPv6": network.subnet6.is_some(),
        "IPAM": {
            "Driver": "default",
            "Options": network.ipam_options,
            "Config": config,
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": false,
        "ConfigFrom": { "Network": "" },
        "ConfigOnly": false,
        "Containers": connected(engine, &network)?,
        "Options": options,
        "Labels": network.labels,
    }))
}

#[cfg(target_os = "linux")]
fn connected(engine: &Engine, network: &Network) -> Result<Value, Error> {
    let mut containers = Map::new();
    for endpoint in engine.endpoints(&network.name)? {
        // One that ends just now is none any more.
        let Ok(container) = engine.container(&endpoint.container) else { continue };
        containers.insert(
            endpoint.container.clone(),
            json!({
                "Name": container.record.name,
                "EndpointID": endpoint.id,
                "MacAddress": endpoint.mac_address,
                "IPv4Address": format!("{}/{}", endpoint.address, endpoint.prefix),
                "IPv6Address": endpoint
                    .address6
                    .map(|address| format!("{address}/{}", endpoint.prefix6))
                    .unwrap_or_default(),
            }),
        );
    }
    Ok(Value::Object(containers))
}

#[cfg(not(target_os = "linux"))]
fn connected(_engine: &Engine, _network: &Network) -> Result<Value, Error> {
    Ok(Value::Object(Map::new()))
}

fn remove(ui: &Ui, global: &Global, args: &RmArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.names, |name| {
        match engine.remove_network(name) {
            Err(Error::NoSuchNetwork(_)) if args.force => {}
            other => {
                other?;
                ui.line(name);
            }
        }
        Ok(())
    })
}

fn prune(ui: &Ui, global: &Global, args: &PruneArgs) -> Result<u8> {
    let filters = filter::understand(&args.filter, &["until", "label", "label!"], Timestamp::now())?.filters;
    let warning = "WARNING! This will remove all custom networks not used by at least one container.";
    if !args.force && !prune::confirmed(ui, warning)? {
        return Ok(0);
    }
    let pruned = context::engine(global)?.prune_networks(&filters)?;
    if !pruned.deleted.is_empty() {
        ui.line("Deleted Networks:");
        for name in &pruned.deleted {
            ui.line(name);
        }
        ui.line("");
    }
    Ok(0)
}
