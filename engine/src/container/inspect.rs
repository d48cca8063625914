//! `inspect`: a container as Docker's Engine API shows it (`GET /containers/{id}/json`), and its line in `ps`.

use dhow_images::Digest;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::list::Listed;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::Result;
use crate::network::{Endpoint, Membership};
use crate::ports::PortMap;
use crate::record::{Container, Record, State, Status};

/// Go's zero time, which Docker prints for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// Everything about a container; with `size` also what its files take.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn inspect_container(&self, container: &Container, size: bool) -> Result<Value> {
        let mut all = container.inspect()?;
        if size {
            let listed = Listed { container: container.clone(), state: container.state()? };
            for size in self.sizes(&[listed])? {
                all["SizeRw"] = size.own.into();
                all["SizeRootFs"] = size.all.into();
            }
        }
        all["GraphDriver"] = self.container_files(container);
        for (key, file) in
            [("ResolvConfPath", "resolv.conf"), ("HostnamePath", "hostname"), ("HostsPath", "hosts")]
        {
            let path = container.folder().join(file);
            all[key] = if path.exists() { path.to_string_lossy().into() } else { "".into() };
        }
        if let Some(path) = self.log_path(container).filter(|path| path.exists()) {
            all["LogPath"] = path.to_string_lossy().into();
        }
        Ok(all)
    }

    /// Where its files are.
    fn container_files(&self, container: &Container) -> Value {
        let record = &container.record;
        let Some(image) = &record.image else { return json!({ "Data": null, "Name": "none" }) };
        let data = self.data_folder(container);
        let ids: Vec<Digest> = image.layers.iter().filter_map(|id| id.parse().ok()).collect();
        let lower = self.store().layer_dirs(&ids);
        let lower: Vec<_> = lower.iter().rev().map(|layer| layer.path.to_string_lossy()).collect();
        json!({
            "Data": {
                "LowerDir": lower.join(":"),
                "MergedDir": data.join("merged"),
                "UpperDir": data.join("upper"),
                "WorkDir": data.join("work"),
            },
            "Name": "overlay",
        })
    }
}

impl Container {
    /// Its ports: those that can be reached, and where; exposed ones with an empty list. None of a container that does
    /// not run.
    pub fn ports(&self, state: &State) -> PortMap {
        if state.status != Status::Running {
            return PortMap::new();
        }
        let mut ports = state.ports.clone();
        // Nobody reaches anything of one without a network, or whose network is another's.
        let mode = self.record.host_config.network_mode.as_str();
        if self.record.kind == dhow_runtime::Kind::Native
            && (matches!(mode, "" | "none" | "host") || mode.starts_with("container:"))
        {
            return ports;
        }
        for port in
            self.record.config.exposed_ports.keys().chain(self.record.host_config.port_bindings.keys())
        {
            ports.entry(port.clone()).or_default();
        }
        ports
    }

    /// Everything that its own record says.
    fn inspect(&self) -> Result<Value> {
        let record = &self.record;
        let state = self.state()?;
        // A port that is exposed and not published is null, as in Docker.
        let ports: serde_json::Map<String, Value> = self
            .ports(&state)
            .into_iter()
            .map(|(port, bindings)| (port, if bindings.is_empty() { Value::Null } else { json!(bindings) }))
            .collect();
        let time = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
        let mut shown = json!({
            "Id": record.id,
            "Created": record.created.to_string(),
            "Path": record.args.first(),
            "Args": record.args.get(1..).unwrap_or_default(),
            "State": {
                "Status": state.status.as_str(),
                "Running": state.status.is_running(),
                "Paused": state.status == Status::Paused,
                "Restarting": state.status == Status::Restarting,
                "OOMKilled": state.oom_killed,
                "Dead": state.status == Status::Dead,
                "Pid": state.pid,
                "ExitCode": state.exit_code,
                "Error": state.error,
                "StartedAt": time(state.started_at),
                "FinishedAt": time(state.finished_at),
            },
            "LogPath": "",
            "Image": record.image.as_ref().map_or("", |image| image.id.as_str()),
            "Name": format!("/{}", record.name),
            "RestartCount": state.restart_count,
            "Driver": if record.image.is_some() { "overlay" } else { "none" },
            "Platform": record.image.as_ref().map_or("wasi/wasm", |image| image.platform.as_str()),
            "ImageManifestDescriptor": record.image.as_ref().map(|image| json!({ "digest": image.manifest })),
            "Executor": match record.kind {
                dhow_runtime::Kind::Wasm => "wasm",
                dhow_runtime::Kind::Native => "native",
            },
            "ExecIDs": Some(self.exec_ids()).filter(|ids| !ids.is_empty()),
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "HostConfig": host_config(record),
            "Mounts": mounts(record),
            "NetworkSettings": network_settings(record, &state, ports),
            "Config": config(&record.config),
        });
        if let Some(health) = self.health().filter(|_| state.status != Status::Created) {
            shown["State"]["Health"] = json!(health);
        }
        Ok(shown)
    }
}

/// Docker's fields, and none of those that say how it is done here.
fn mounts(record: &crate::record::Record) -> Value {
    let mut shown = json!(record.mounts);
    for point in shown.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
        for own in ["Memory", "Subpath", "Image"] {
            point.remove(own);
        }
    }
    shown
}

/// What Docker shows of what was not asked for.
const NOT_ASKED: &str = r#"{
    "Binds": null, "ContainerIDFile": "", "LogConfig": {}, "NetworkMode": "default", "PortBindings": {},
    "RestartPolicy": { "Name": "no", "MaximumRetryCount": 0 }, "AutoRemove": false, "VolumeDriver": "",
    "VolumesFrom": null, "CapAdd": null, "CapDrop": null, "CgroupnsMode": "private", "Dns": [],
    "DnsOptions": [], "DnsSearch": [], "ExtraHosts": null, "GroupAdd": null, "IpcMode": "private",
    "Cgroup": "", "Links": null, "OomScoreAdj": 0, "PidMode": "", "Privileged": false,
    "PublishAllPorts": false, "ReadonlyRootfs": false, "SecurityOpt": null, "UTSMode": "", "UsernsMode": "",
    "ShmSize": 67108864, "Runtime": "dhow", "ConsoleSize": [0, 0], "Isolation": "", "CpuShares": 0,
    "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
    "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [], "BlkioDeviceReadIOps": [],
    "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0, "CpuRealtimePeriod": 0,
    "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [], "DeviceCgroupRules": null,
    "DeviceRequests": null, "KernelMemory": 0, "KernelMemoryTCP": 0, "MemoryReservation": 0,
    "MemorySwap": 0, "MemorySwappiness": null, "OomKillDisable": false, "PidsLimit": null, "Ulimits": [],
    "CpuCount": 0, "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": null,
    "ReadonlyPaths": null
}"#;

/// What was asked for, over what Docker shows of what was not.
fn host_config(record: &Record) -> Value {
    let host = &record.host_config;
    // Where it cannot be read, what was asked for is shown alone.
    let mut shown: Value = serde_json::from_str(NOT_ASKED).unwrap_or_default();
    #[cfg(target_os = "linux")]
    {
        use dhow_runtime::native::defaults::{MASKED_PATHS, READONLY_PATHS};
        let none = host.privileged || crate::spec::shows_system_paths(host);
        shown["MaskedPaths"] = if none { Value::Null } else { json!(MASKED_PATHS) };
        shown["ReadonlyPaths"] = if none { Value::Null } else { json!(READONLY_PATHS) };
    }
    if let (Value::Object(shown), Value::Object(given)) = (&mut shown, json!(host)) {
        for (key, value) in given {
            let nothing =
                value.as_array().is_some_and(Vec::is_empty) || value == json!({}) || value == json!("");
            let value = if key == "Links" && !nothing { links(record) } else { value };
            let no_size = key == "ShmSize" && value == json!(0);
            if (!nothing && !no_size) || !shown.contains_key(&key) {
                shown.insert(key, value);
            }
        }
    }
    shown
}

/// As Docker shows links: `/db:/web/sql`.
fn links(record: &Record) -> Value {
    let parsed = record.host_config.links.iter().filter_map(|text| crate::network::links::parse(text).ok());
    json!(parsed.map(|(name, alias)| format!("/{name}:/{}/{alias}", record.name)).collect::<Vec<_>>())
}

/// The same for the portable part.
fn config(config: &Config) -> Value {
    let mut shown = json!({ "Domainname": "", "Volumes": null, "OnBuild": null });
    if let (Value::Object(shown), Value::Object(given)) = (&mut shown, json!(config)) {
        shown.extend(given);
        if config.exposed_ports.is_empty() {
            shown.remove("ExposedPorts");
        }
        for key in ["StopSignal", "StopTimeout"] {
            if shown.get(key).is_some_and(Value::is_null) {
                shown.remove(key);
            }
        }
    }
    shown
}

/// Docker's fields; those of the default network are repeated at the top.
fn network_settings(record: &Record, state: &State, ports: Map<String, Value>) -> Value {
    let memberships = record.memberships();
    let asked = |network: &str| memberships.iter().find(|one| one.network == network);
    let mut networks: Map<String, Value> = state
        .networks
        .iter()
        .map(|(name, endpoint)| (name.clone(), connected(record, asked(name), Some(endpoint))))
        .collect();
    for membership in &memberships {
        let planned = || connected(record, Some(membership), None);
        networks.entry(membership.network.clone()).or_insert_with(planned);
    }
    if let mode @ ("host" | "none") = record.host_config.network_mode.as_str() {
        networks.insert(mode.to_owned(), connected(record, None, None));
    }
    let mut settings = match state.networks.get(crate::network::DEFAULT) {
        Some(endpoint) => connected(record, None, Some(endpoint)),
        None => connected(record, None, None),
    };
    if let Some(fields) = settings.as_object_mut() {
        for field in ["NetworkID", "Aliases", "IPAMConfig", "Links", "DriverOpts", "DNSNames"] {
            fields.remove(field);
        }
    }
    let alive = state.status.is_alive();
    settings["Bridge"] = "".into();
    settings["HairpinMode"] = false.into();
    settings["SandboxID"] = if alive { record.id.as_str() } else { "" }.into();
    settings["SandboxKey"] = if alive { format!("/proc/{}/ns/net", state.pid) } else { String::new() }.into();
    settings["LinkLocalIPv6Address"] = "".into();
    settings["LinkLocalIPv6PrefixLen"] = 0.into();
    settings["SecondaryIPAddresses"] = Value::Null;
    settings["SecondaryIPv6Addresses"] = Value::Null;
    settings["Ports"] = Value::Object(ports);
    settings["Networks"] = Value::Object(networks);
    settings
}

/// One network of a container: what was asked for, and what it has while it runs.
fn connected(record: &Record, asked: Option<&Membership>, endpoint: Option<&Endpoint>) -> Value {
    let text = |address: Option<&dyn std::fmt::Display>| address.map(ToString::to_string).unwrap_or_default();
    let asked = asked.cloned().unwrap_or_default();
    let mut config = Map::new();
    if let Some(address) = asked.address {
        config.insert("IPv4Address".to_owned(), address.to_string().into());
    }
    if let Some(address) = asked.address6 {
        config.insert("IPv6Address".to_owned(), address.to_string().into());
    }
    if !asked.link_local.is_empty() {
        config.insert("LinkLocalIPs".to_owned(), json!(asked.link_local));
    }
    let mut aliases = asked.aliases.clone();
    if !matches!(asked.network.as_str(), "" | crate::network::DEFAULT) {
        aliases.push(crate::error::short(&record.id).to_owned());
    }
    let has = |names: Vec<String>| if names.is_empty() { Value::Null } else { json!(names) };
    json!({
        "IPAMConfig": if config.is_empty() { Value::Null } else { Value::Object(config) },
        "Links": has(asked.links.clone()),
        "Aliases": has(aliases),
        "DNSNames": has(endpoint.map(|endpoint| endpoint.names.clone()).unwrap_or_default()),
        "NetworkID": endpoint.map_or("", |endpoint| &endpoint.network_id),
        "EndpointID": endpoint.map_or("", |endpoint| &endpoint.id),
        "Gateway": text(endpoint.and_then(|one| one.gateway.as_ref()).map(|ip| ip as _)),
        "IPAddress": text(endpoint.map(|one| &one.address as _)),
        "IPPrefixLen": endpoint.map_or(0, |endpoint| endpoint.prefix),
        "IPv6Gateway": text(endpoint.and_then(|one| one.gateway6.as_ref()).map(|ip| ip as _)),
        "GlobalIPv6Address": text(endpoint.and_then(|one| one.address6.as_ref()).map(|ip| ip as _)),
        "GlobalIPv6PrefixLen": endpoint.map_or(0, |endpoint| endpoint.prefix6),
        "MacAddress": endpoint.map_or(asked.mac_address.as_str(), |endpoint| &endpoint.mac_address),
        "DriverOpts": if asked.driver_opts.is_empty() { Value::Null } else { json!(asked.driver_opts) },
        "GwPriority": asked.gw_priority,
    })
}
