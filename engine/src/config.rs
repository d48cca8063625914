//! What a user asks of a container, in the shapes of Docker's Engine API (`Config` and `HostConfig` of
//! `POST /containers/create`), reduced to what this version honours. Also what `inspect` shows.

mod device;
mod health;
mod restart;

use std::collections::BTreeMap;

use dhow_images::Empty;
use dhow_runtime::wasm::Backing;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::mounts::long::MountRequest;
use crate::ports::PortMap;

pub use device::{Device, ThrottleDevice, WeightDevice, validate_rule};
pub use health::{Health, HealthConfig, Probe};
pub(crate) use restart::Ended;
pub use restart::RestartPolicy;

/// The portable part: what the image could say as well.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Config {
    /// Host name inside; empty for the short id.
    pub hostname: String,
    /// Domain name inside.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// `user[:group]`, names or numbers; empty for the image's.
    pub user: String,
    /// The client's standard input is connected.
    pub attach_stdin: bool,
    /// The client's standard output is connected.
    pub attach_stdout: bool,
    /// The client's standard error is connected.
    pub attach_stderr: bool,
    /// A terminal is allocated.
    pub tty: bool,
    /// Standard input is kept open.
    pub open_stdin: bool,
    /// Standard input ends with the first client that was connected to it.
    pub stdin_once: bool,
    /// `NAME=value`; merged over the image's.
    pub env: Vec<String>,
    /// Arguments; replaces the image's.
    pub cmd: Option<Vec<String>>,
    /// The image, as the user named it.
    pub image: String,
    /// Empty for the image's.
    pub working_dir: String,
    /// Replaces the image's; its command is dropped too then.
    pub entrypoint: Option<Vec<String>>,
    /// Merged over the image's.
    pub labels: BTreeMap<String, String>,
    /// Directories that get a volume of the container's own.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Signal name or number for `stop`.
    pub stop_signal: Option<String>,
    /// Ports that the program listens on, as `80/tcp`; with the image's.
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Seconds that `stop` waits before it kills; -1 waits for ever, `None` is 10.
    pub stop_timeout: Option<i64>,
    /// What tells whether it is well; merged over the image's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
}

/// The part that concerns this host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HostConfig {
    /// `source:target[:options]`.
    pub binds: Vec<String>,
    /// `--mount`, in full.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountRequest>,
    /// `container[:ro]`: what is mounted in others is mounted here too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub volumes_from: Vec<String>,
    /// Target to mount options, as in `size=64m,mode=1777`.
    pub tmpfs: BTreeMap<String, String>,
    /// `none` or `host`; empty is `default`.
    pub network_mode: String,
    /// Where ports of the container are on this host, by `80/tcp`.
    pub port_bindings: PortMap,
    /// Publish all exposed ports, on any that are free.
    pub publish_all_ports: bool,
    /// `name:address`.
    pub extra_hosts: Vec<String>,
    /// Containers in the default network, as `name:alias`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<String>,
    /// Addresses of servers to ask for names.
    pub dns: Vec<String>,
    /// Domains to look for short names in.
    pub dns_search: Vec<String>,
    /// What its resolver is told, as `ndots:2`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns_options: Vec<String>,
    /// Dhow's own: what a Wasm program may connect to, as [`dhow_runtime::wasm::Allow`] parses it.
    pub allow_net: Vec<String>,
    /// Remove the container when it ends.
    pub auto_remove: bool,
    /// The root file system cannot be written.
    pub readonly_rootfs: bool,
    /// Capabilities beyond the default, with or without `CAP_`; `ALL`.
    pub cap_add: Vec<String>,
    /// Capabilities less than the default; `ALL`.
    pub cap_drop: Vec<String>,
    /// Supplementary groups, names or numbers.
    pub group_add: Vec<String>,
    /// `no-new-privileges`, `seccomp=unconfined`, `seccomp=FILE`.
    pub security_opt: Vec<String>,
    /// Resource limits of the process.
    pub ulimits: Vec<Ulimit>,
    /// `files`: what puts a Wasm program's layers together, `union` or `kernel`. Nothing else is known.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub storage_opt: BTreeMap<String, String>,
    /// Bytes of `/dev/shm`; 0 for Docker's 64 MiB.
    pub shm_size: u64,
    /// The function of a Wasm program to call instead of its main one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub invoke: Option<String>,
    /// Bytes of memory; 0 is unlimited. For Wasm that is what the program has, its memories and tables.
    pub memory: u64,
    /// Bytes of memory and swap together; 0 is twice the memory, -1 unlimited.
    pub memory_swap: i64,
    /// Billionths of a processor; 0 is unlimited.
    pub nano_cpus: u64,
    /// Weight against other containers, 1024 if all are equal; 0 for that.
    pub cpu_shares: u64,
    /// Microseconds in which the quota may be used; 0 for 100,000.
    pub cpu_period: u64,
    /// Microseconds of a processor in each period; 0 and less is unlimited.
    pub cpu_quota: i64,
    /// Processors it may run on, as `0-2,7`; empty for all.
    pub cpuset_cpus: String,
    /// Processes and threads; `None`, 0 and -1 are unlimited.
    pub pids_limit: Option<i64>,
    /// Dhow's own: how much fuel a Wasm program may use, about one unit for an instruction.
    pub fuel: Option<u64>,
    /// Dhow's own: nanoseconds that a Wasm program may run; 0 is unlimited.
    pub timeout: u64,
    /// What becomes of the container's output.
    pub log_config: crate::logs::LogConfig,
    /// Whether it is started again when it has ended.
    #[serde(skip_serializing_if = "RestartPolicy::is_none")]
    pub restart_policy: RestartPolicy,
    /// The file that the id was written to.
    #[serde(rename = "ContainerIDFile", skip_serializing_if = "String::is_empty")]
    pub container_id_file: String,
    /// Who keeps volumes that do not say; only `local` is there.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub volume_driver: String,
    /// A first process of ours that reaps and passes signals on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// All capabilities that this process has itself, the host's devices, and nothing hidden.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub privileged: bool,
    /// `host`, `container:NAME`, or empty for its own.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pid_mode: String,
    /// `none`, `private`, `shareable`, `host`, `container:NAME`; empty is `private`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ipc_mode: String,
    /// `host`, or empty for its own.
    #[serde(rename = "UTSMode", skip_serializing_if = "String::is_empty")]
    pub uts_mode: String,
    /// `host`, or empty for what this user needs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub userns_mode: String,
    /// `private` or `host`; empty is `private`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroupns_mode: String,
    /// The control group below which the container's own is made.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cgroup_parent: String,
    /// Devices of the host.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// What it may do with devices besides, as `c 1:3 rwm`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_cgroup_rules: Vec<String>,
    /// Settings of the kernel that belong to a namespace.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// How willingly the kernel kills it, -1000 to 1000.
    #[serde(skip_serializing_if = "is_zero")]
    pub oom_score_adj: i64,
    /// The kernel lets it wait where memory is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
    /// Bytes of memory that the kernel presses it down to when others need some.
    #[serde(skip_serializing_if = "is_none")]
    pub memory_reservation: u64,
    /// 0 to 100: how willingly its memory is swapped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    /// Nodes of memory it may use, as `0-1`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cpuset_mems: String,
    /// Microseconds in which the real-time budget may be used.
    #[serde(rename = "CpuRealtimePeriod", skip_serializing_if = "is_zero")]
    pub cpu_realtime_period: i64,
    /// Microseconds of real-time scheduling in each period.
    #[serde(rename = "CpuRealtimeRuntime", skip_serializing_if = "is_zero")]
    pub cpu_realtime_runtime: i64,
    /// Weight against others at block devices, 10 to 1000; 0 is none.
    #[serde(skip_serializing_if = "is_none")]
    pub blkio_weight: u16,
    /// The same for single devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_weight_device: Vec<WeightDevice>,
    /// Bytes in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_device_read_bps: Vec<ThrottleDevice>,
    /// Bytes in a second.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blkio_device_write_bps: Vec<ThrottleDevice>,
    /// Operations in a second.
    #[serde(rename = "BlkioDeviceReadIOps", skip_serializing_if = "Vec::is_empty")]
    pub blkio_device_read_iops: Vec<ThrottleDevice>,
    /// Operations in a second.
    #[serde(rename = "BlkioDeviceWriteIOps", skip_serializing_if = "Vec::is_empty")]
    pub blkio_device_write_iops: Vec<ThrottleDevice>,
    /// `default`, or empty for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation: String,
    /// Free-form notes that go into the runtime's specification.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &i64) -> bool {
    *value == 0
}

fn is_none<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl HostConfig {
    /// What puts a Wasm program's layers together.
    ///
    /// # Errors
    /// A storage option, or a value of one, that there is not.
    pub fn files(&self) -> Result<Backing, Error> {
        let mut files = Backing::Union;
        for (name, value) in &self.storage_opt {
            files = match (name.as_str(), value.as_str()) {
                ("files", "union") => Backing::Union,
                ("files", "kernel") => Backing::Kernel,
                ("files", _) => {
                    let reason = format!("storage option files is `union` or `kernel`, not `{value}`");
                    return Err(Error::Invalid(reason));
                }
                _ => {
                    return Err(Error::Invalid(format!("unknown storage option `{name}`; there is `files`")));
                }
            };
        }
        Ok(files)
    }
}

/// One resource limit; -1 is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Ulimit {
    /// For example `nofile`.
    pub name: String,
    /// The limit in force.
    pub soft: i64,
    /// The most the process may raise it to.
    pub hard: i64,
}

impl Ulimit {
    /// Parses Docker's `name=soft[:hard]`.
    ///
    /// # Errors
    /// Docker's message for what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        const KNOWN: [&str; 15] = [
            "core",
            "cpu",
            "data",
            "fsize",
            "locks",
            "memlock",
            "msgqueue",
            "nice",
            "nofile",
            "nproc",
            "rss",
            "rtprio",
            "rttime",
            "sigpending",
            "stack",
        ];
        let invalid = || format!("invalid ulimit argument: {text}");
        let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
        if !KNOWN.contains(&name) {
            return Err(format!("invalid ulimit type: {name}"));
        }
        let number = |text: &str| text.parse::<i64>().ok().filter(|limit| *limit >= -1).ok_or_else(invalid);
        let (soft, hard) = match limits.split_once(':') {
            Some((soft, hard)) => (number(soft)?, number(hard)?),
            None => (number(limits)?, number(limits)?),
        };
        if hard != -1 && (soft == -1 || soft > hard) {
            return Err(format!(
                "ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"
            ));
        }
        Ok(Self { name: name.to_owned(), soft, hard })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits() {
        let limit = Ulimit::parse("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 2048));
        assert_eq!(Ulimit::parse("core=-1").unwrap().hard, -1);
        for bad in ["nofile", "files=1", "nofile=x", "nofile=2:1", "nofile=-1:5", "nofile=-2"] {
            assert!(Ulimit::parse(bad).is_err(), "{bad}");
        }
    }
}
