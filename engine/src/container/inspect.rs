//! `inspect`: a container as Docker's Engine API shows it (`GET /containers/{id}/json`), and its line in `ps`.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::engine::Engine;
use crate::error::Result;
use crate::network::Endpoint;
use crate::ports::PortMap;
use crate::record::{Container, State, Status};

/// Go's zero time, which Docker prints for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl Engine {
    /// Everything about a container.
    ///
    /// # Errors
    /// When its state cannot be read.
    pub fn inspect_container(&self, container: &Container) -> Result<Value> {
        let mut all = container.inspect()?;
        if let Some(path) = self.log_path(container).filter(|path| path.exists()) {
            all["LogPath"] = path.to_string_lossy().into();
        }
        Ok(all)
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
        Ok(json!({
            "Id": record.id,
            "Created": record.created.to_string(),
            "Path": record.args.first(),
            "Args": record.args.get(1..).unwrap_or_default(),
            "State": {
                "Status": state.status.as_str(),
                "Running": state.status.is_alive(),
                "Paused": state.status == Status::Paused,
                "Restarting": false,
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
            "RestartCount": 0,
            "Driver": if record.image.is_some() { "overlay" } else { "none" },
            "Platform": record.image.as_ref().map_or("wasi/wasm", |image| image.platform.as_str()),
            "ImageManifestDescriptor": record.image.as_ref().map(|image| json!({ "digest": image.manifest })),
            "Executor": match record.kind {
                dhow_runtime::Kind::Wasm => "wasm",
                dhow_runtime::Kind::Native => "native",
            },
            "ExecIDs": Some(self.exec_ids()).filter(|ids| !ids.is_empty()),
            "HostConfig": record.host_config,
            "Mounts": record.mounts,
            "NetworkSettings": network_settings(&state, ports),
            "Config": record.config,
        }))
    }
}

/// Docker's fields; those of the default network are repeated at the top.
fn network_settings(state: &State, ports: serde_json::Map<String, Value>) -> Value {
    let of = |endpoint: &Endpoint| {
        json!({
            "NetworkID": endpoint.network_id,
            "EndpointID": endpoint.id,
            "Gateway": endpoint.gateway.map(|gateway| gateway.to_string()).unwrap_or_default(),
            "IPAddress": endpoint.address.to_string(),
            "IPPrefixLen": endpoint.prefix,
            "MacAddress": endpoint.mac_address,
            "Aliases": endpoint.aliases,
            "IPv6Gateway": "",
            "GlobalIPv6Address": "",
            "GlobalIPv6PrefixLen": 0,
        })
    };
    let networks: serde_json::Map<String, Value> =
        state.networks.iter().map(|(name, endpoint)| (name.clone(), of(endpoint))).collect();
    let mut settings = match state.networks.get(crate::network::DEFAULT) {
        Some(endpoint) => of(endpoint),
        None => {
            json!({ "IPAddress": "", "IPPrefixLen": 0, "Gateway": "", "MacAddress": "", "EndpointID": "" })
        }
    };
    if let Some(fields) = settings.as_object_mut() {
        fields.remove("NetworkID");
        fields.remove("Aliases");
    }
    settings["Ports"] = Value::Object(ports);
    settings["Networks"] = Value::Object(networks);
    settings
}
