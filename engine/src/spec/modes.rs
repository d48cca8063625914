//! Which namespaces a container shares with others: `--pid`, `--ipc`, `--uts`, `--userns`, `--cgroupns`, and the settings of
//! the kernel that belong to them.

use std::path::PathBuf;

use crate::config::{Config, HostConfig};
use crate::error::{Error, Result};

/// Namespaces of other containers that a container joins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) network: Option<PathBuf>,
    /// The folder of the container whose network it is, with what that has in `/etc`.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) pid: Option<PathBuf>,
    pub(crate) ipc: Option<PathBuf>,
    /// The folder of the host that is `/dev/shm` of all who share it.
    pub(crate) shm: Option<PathBuf>,
}

/// The other container of a mode such as `container:NAME`.
pub(crate) fn other(mode: &str) -> Option<&str> {
    mode.strip_prefix("container:").filter(|name| !name.is_empty())
}

/// Settings of the kernel that are kept for each namespace; with a dot at the end all below.
const SYSCTLS: [&str; 10] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
    "fs.mqueue.",
    "net.",
];

/// Checks what can be checked without looking at anything, in Docker's words.
pub(super) fn validate(host: &HostConfig) -> Result<()> {
    let invalid = |text: String| Err(Error::Invalid(text));
    let is = |mode: &str, known: &[&str]| known.contains(&mode) || other(mode).is_some();
    if !is(&host.pid_mode, &["", "host"]) {
        return invalid("--pid: invalid PID mode".to_owned());
    }
    if !is(&host.ipc_mode, &["", "none", "private", "shareable", "host"]) {
        return invalid("--ipc: invalid IPC mode".to_owned());
    }
    if !["", "host"].contains(&host.uts_mode.as_str()) {
        return invalid("--uts: invalid UTS mode".to_owned());
    }
    if !["", "host"].contains(&host.userns_mode.as_str()) {
        return invalid("--userns: invalid USER mode".to_owned());
    }
    if !["", "private", "host"].contains(&host.cgroupns_mode.as_str()) {
        return invalid("--cgroupns: invalid CGROUP mode".to_owned());
    }
    for (name, value) in &host.sysctls {
        let known = SYSCTLS.iter().any(|known| match known.strip_suffix('.') {
            Some(_) => name.starts_with(known),
            None => name == known,
        });
        if !known || value.is_empty() {
            let given = if value.is_empty() { name.clone() } else { format!("{name}={value}") };
            return invalid(format!(
                "invalid argument \"{given}\" for \"--sysctl\" flag: sysctl '{given}' is not allowed"
            ));
        }
        let shared = match name.split('.').next() {
            Some("net") => host.network_mode == "host" || other(&host.network_mode).is_some(),
            _ => host.ipc_mode == "host" || other(&host.ipc_mode).is_some(),
        };
        if shared {
            return invalid(format!(
                "sysctl '{name}' not allowed: it belongs to a namespace that is not the container's own"
            ));
        }
    }
    if !(-1000..=1000).contains(&host.oom_score_adj) {
        return invalid(format!(
            "Invalid value {}, range for oom score adj is [-1000, 1000]",
            host.oom_score_adj
        ));
    }
    Ok(())
}

/// Checks what one that shares another's network cannot have of its own, in Docker's words and order.
pub(crate) fn validate_shared_network(config: &Config, host: &HostConfig) -> Result<()> {
    if other(&host.network_mode).is_none() {
        return Ok(());
    }
    let given = [
        (!config.hostname.is_empty(), "hostname and the network mode"),
        (
            !host.links.is_empty(),
            "container type network can't be used with links. This would result in undefined behavior",
        ),
        (!host.dns.is_empty(), "dns and the network mode"),
        (!host.extra_hosts.is_empty(), "custom host-to-IP mapping and the network mode"),
        (
            !host.port_bindings.is_empty() || host.publish_all_ports,
            "port publishing and the container type network mode",
        ),
        (!config.exposed_ports.is_empty(), "port exposing and the container type network mode"),
    ];
    match given.iter().find(|(given, _)| *given) {
        Some((_, what)) => Err(Error::Invalid(format!("conflicting options: {what}"))),
        None => Ok(()),
    }
}

/// Checks what depends on both parts.
pub(crate) fn validate_names(config: &Config, host: &HostConfig) -> Result<()> {
    if host.uts_mode == "host" && !(config.hostname.is_empty() && config.domainname.is_empty()) {
        return Err(Error::Invalid("conflicting options: hostname and the UTS mode".to_owned()));
    }
    if config.domainname.len() > 64
        || config.domainname.contains(|c: char| c.is_control() || c.is_whitespace())
    {
        return Err(Error::Invalid(format!("invalid domain name: {:?}", config.domainname)));
    }
    Ok(())
}

/// What a Wasm program cannot have: it has no processes, devices or namespaces of its own.
pub(super) fn validate_wasm(host: &HostConfig) -> Result<()> {
    let asked = [
        ("--privileged", host.privileged),
        ("--pid", !host.pid_mode.is_empty()),
        ("--ipc", !matches!(host.ipc_mode.as_str(), "" | "private" | "none")),
        ("--uts", !host.uts_mode.is_empty()),
        ("--userns", !host.userns_mode.is_empty()),
        ("--cgroupns", !host.cgroupns_mode.is_empty()),
        ("--device", !host.devices.is_empty()),
        ("--device-cgroup-rule", !host.device_cgroup_rules.is_empty()),
        ("--sysctl", !host.sysctls.is_empty()),
    ];
    match asked.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Error::NotYet {
            what: format!("{option} for WebAssembly"),
            hint: "a Wasm program has no processes, devices and namespaces; leave it out".to_owned(),
        }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_words() {
        let words = |host: HostConfig| validate(&host).unwrap_err().to_string();
        let host = HostConfig::default;
        let text = str::to_owned;
        assert!(words(HostConfig { pid_mode: text("foo"), ..host() }).contains("PID mode"));
        assert!(words(HostConfig { pid_mode: text("container:"), ..host() }).contains("PID mode"));
        assert!(words(HostConfig { ipc_mode: text("foo"), ..host() }).contains("IPC mode"));
        assert!(words(HostConfig { uts_mode: text("container:x"), ..host() }).contains("UTS mode"));
        assert!(words(HostConfig { userns_mode: text("x"), ..host() }).contains("USER mode"));
        assert!(words(HostConfig { cgroupns_mode: text("x"), ..host() }).contains("CGROUP mode"));
        assert!(words(HostConfig { oom_score_adj: 2000, ..host() }).contains("[-1000, 1000]"));
        let sysctls = |name: &str, value: &str| [(text(name), text(value))].into_iter().collect();
        for (name, value) in [("foo", "bar"), ("kernel.panic", "1"), ("net.x", ""), ("kernel.semx", "1")] {
            assert!(
                words(HostConfig { sysctls: sysctls(name, value), ..host() }).contains("is not allowed"),
                "{name}"
            );
        }
        let shared = HostConfig { sysctls: sysctls("net.a", "1"), network_mode: text("host"), ..host() };
        assert!(words(shared).contains("not the container's own"));
        for (name, value) in
            [("net.ipv4.ip_forward", "1"), ("kernel.shmmax", "1"), ("fs.mqueue.msg_max", "9")]
        {
            validate(&HostConfig { sysctls: sysctls(name, value), ..host() }).unwrap();
        }
        validate(&HostConfig { pid_mode: text("container:x"), ipc_mode: text("shareable"), ..host() })
            .unwrap();
        let named = Config { hostname: text("x"), ..Config::default() };
        let uts = HostConfig { uts_mode: text("host"), ..host() };
        assert!(validate_names(&named, &uts).is_err() && validate_names(&Config::default(), &uts).is_ok());
        assert!(validate_wasm(&HostConfig { privileged: true, ..host() }).is_err());
        assert!(validate_wasm(&host()).is_ok());
    }
}
