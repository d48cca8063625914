//! The less frequent options of `run` and `create`, and what is said of Docker's that cannot be here.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use dhow_engine::config::{self, Device, HealthConfig, RestartPolicy};
use dhow_engine::{Config, HostConfig, duration};

use super::limits::{size, throttle_device, weight_device};
use crate::error::hinted;

/// See [`super::RunArgs`].
#[derive(Debug, Default, Args)]
pub(crate) struct MoreArgs {
    /// Start it again when it has ended: `no`, `always`, `unless-stopped`, `on-failure[:TIMES]`
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// Run a small first process that reaps others and passes signals on
    #[arg(long)]
    init: bool,
    /// All capabilities and devices that this user has itself, nothing hidden
    #[arg(long)]
    privileged: bool,
    /// Connect only these streams: `stdin`, `stdout`, `stderr`
    #[arg(short = 'a', long, value_name = "STREAM")]
    pub(super) attach: Vec<String>,
    /// What tells whether it is well, by its exit code; in a Wasm image a program, or `#FUNCTION` of its own
    #[arg(long, value_name = "COMMAND")]
    health_cmd: Option<String>,
    /// Time between two checks [default: 30s]
    #[arg(allow_hyphen_values = true, long, value_name = "DURATION")]
    health_interval: Option<String>,
    /// Longest check [default: 30s]
    #[arg(allow_hyphen_values = true, long, value_name = "DURATION")]
    health_timeout: Option<String>,
    /// So many failures in a row are too many [default: 3]
    #[arg(allow_hyphen_values = true, long, value_name = "NUMBER")]
    health_retries: Option<i64>,
    /// For so long failures do not count
    #[arg(allow_hyphen_values = true, long, value_name = "DURATION")]
    health_start_period: Option<String>,
    /// Time between two checks then [default: 5s]
    #[arg(allow_hyphen_values = true, long, value_name = "DURATION")]
    health_start_interval: Option<String>,
    /// No health check, whatever the image says
    #[arg(long)]
    no_healthcheck: bool,
    /// Processes it sees: its own, `host`, or `container:NAME`
    #[arg(long, value_name = "MODE")]
    pid: Option<String>,
    /// `private`, `shareable`, `host`, `none`, or `container:NAME`
    #[arg(long, value_name = "MODE")]
    ipc: Option<String>,
    /// Host name: its own, or `host`
    #[arg(long, value_name = "MODE")]
    uts: Option<String>,
    /// User ids: `host`
    #[arg(long, value_name = "MODE")]
    userns: Option<String>,
    /// Control groups it sees: `private` or `host`
    #[arg(long, value_name = "MODE")]
    cgroupns: Option<String>,
    /// The control group below which its own is made
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Give it a device of this machine
    #[arg(long, value_name = "PATH[:INSIDE][:rwm]")]
    device: Vec<String>,
    /// What it may do with devices besides, as `c 1:3 rwm`
    #[arg(long, value_name = "RULE")]
    device_cgroup_rule: Vec<String>,
    /// Set what the kernel keeps for each namespace
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// How willingly the kernel kills it, -1000 to 1000
    #[arg(allow_hyphen_values = true, long, value_name = "NUMBER")]
    oom_score_adj: Option<i64>,
    /// Let it wait where memory is missing, in place of killing it
    #[arg(long)]
    oom_kill_disable: bool,
    /// Memory that it is pressed down to when others need some
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// How willingly its memory is swapped, 0 to 100
    #[arg(allow_hyphen_values = true, long, value_name = "NUMBER")]
    memory_swappiness: Option<i64>,
    /// Nodes of memory to use, as `0-1`
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Time in which the real-time budget may be used
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_period: Option<i64>,
    /// Real-time scheduling in each period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_rt_runtime: Option<i64>,
    /// Weight against others at block devices, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<u16>,
    /// The same for one device
    #[arg(long, value_name = "PATH:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Most bytes in a second read from a device
    #[arg(long, value_name = "PATH:BYTES")]
    device_read_bps: Vec<String>,
    /// Most bytes in a second written to a device
    #[arg(long, value_name = "PATH:BYTES")]
    device_write_bps: Vec<String>,
    /// Most operations in a second that read from a device
    #[arg(long, value_name = "PATH:NUMBER")]
    device_read_iops: Vec<String>,
    /// Most operations in a second that write to a device
    #[arg(long, value_name = "PATH:NUMBER")]
    device_write_iops: Vec<String>,
    /// Domain name inside
    #[arg(long, value_name = "DOMAIN")]
    domainname: Option<String>,
    /// Read labels from a file
    #[arg(long, value_name = "FILE")]
    label_file: Vec<PathBuf>,
    /// Add a note for the runtime
    #[arg(long, value_name = "NAME=VALUE")]
    annotation: Vec<String>,
    /// Who keeps volumes that do not say: `local`
    #[arg(long, value_name = "DRIVER")]
    volume_driver: Option<String>,
    #[arg(long, hide = true)]
    isolation: Option<String>,
    #[arg(long, hide = true)]
    runtime: Option<String>,
    /// A further address of its first interface
    #[arg(long, value_name = "IP")]
    pub(super) link_local_ip: Vec<String>,
    #[arg(long, hide = true)]
    gpus: Option<String>,
    #[arg(long, hide = true)]
    kernel_memory: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    disable_content_trust: Option<bool>,
    #[arg(long, hide = true)]
    use_api_socket: bool,
    #[arg(long, hide = true)]
    cpu_count: Option<String>,
    #[arg(long, hide = true)]
    cpu_percent: Option<String>,
    #[arg(long, hide = true)]
    io_maxbandwidth: Option<String>,
    #[arg(long, hide = true)]
    io_maxiops: Option<String>,
}

impl MoreArgs {
    /// Options that exist in Docker and mean nothing, or nothing good, here.
    pub(super) fn refuse(&self) -> Result<()> {
        for (option, given) in [
            ("--cpu-count", self.cpu_count.is_some()),
            ("--cpu-percent", self.cpu_percent.is_some()),
            ("--io-maxbandwidth", self.io_maxbandwidth.is_some()),
            ("--io-maxiops", self.io_maxiops.is_some()),
        ] {
            if given {
                return Err(hinted(
                    format!("{option} is only for containers of Windows"),
                    "limit processors with `--cpus`, devices with `--device-read-bps` and its kin",
                ));
            }
        }
        if self.gpus.is_some() {
            return Err(hinted(
                "could not select device driver \"\" with capabilities: [[gpu]]",
                "give it the device files themselves with `--device`",
            ));
        }
        if self.kernel_memory.is_some() {
            return Err(hinted(
                "--kernel-memory is not supported: the kernel has no such limit any more",
                "`--memory` counts what the kernel uses for a container, too",
            ));
        }
        if self.disable_content_trust == Some(false) {
            return Err(hinted(
                "--disable-content-trust=false is not supported: that trust service is no more",
                "a policy of signatures does it: see docs/trust.md",
            ));
        }
        if self.use_api_socket {
            return Err(hinted("--use-api-socket is not supported yet", "there is no daemon with a socket"));
        }
        if let Some(isolation) = self.isolation.as_deref().filter(|mode| !["", "default"].contains(mode)) {
            return Err(hinted(
                format!("Invalid isolation: \"{isolation}\" - linux only supports 'default'"),
                "leave the option out",
            ));
        }
        if let Some(runtime) = self.runtime.as_deref().filter(|name| !["", "dhow"].contains(name)) {
            return Err(hinted(
                format!("unknown or invalid runtime name: {runtime}"),
                "Dhow is its own runtime; leave the option out",
            ));
        }
        if let Some(driver) = self.volume_driver.as_deref().filter(|name| !["", "local"].contains(name)) {
            return Err(hinted(
                format!("the volume driver \"{driver}\" is not supported yet"),
                "volumes are kept by `local`",
            ));
        }
        for stream in &self.attach {
            if !["stdin", "stdout", "stderr"].contains(&stream.to_lowercase().as_str()) {
                bail!(
                    "invalid argument \"{stream}\" for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR"
                );
            }
        }
        Ok(())
    }

    /// Whether a first process of ours is asked for.
    pub(super) fn has_init(&self) -> bool {
        self.init
    }

    /// Whether the kernel is told how willingly to kill.
    pub(super) fn has_oom_score(&self) -> bool {
        self.oom_score_adj.is_some()
    }

    /// Whether a stream is to be connected: all are, unless some are named.
    pub(super) fn attaches(&self, stream: &str) -> bool {
        self.attach.is_empty() || self.attach.iter().any(|named| named.eq_ignore_ascii_case(stream))
    }

    /// Puts what they say into the portable settings.
    pub(super) fn set_config(&self, config: &mut Config) -> Result<()> {
        config.domainname = self.domainname.clone().unwrap_or_default();
        for file in &self.label_file {
            for label in super::environment::lines(file)? {
                let (name, value) = label.split_once('=').unwrap_or((&label, ""));
                // Those given one by one come after and win.
                config.labels.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        config.healthcheck = self.healthcheck()?;
        Ok(())
    }

    fn healthcheck(&self) -> Result<Option<HealthConfig>> {
        let time = |option: &str, text: &Option<String>| -> Result<i64> {
            let Some(text) = text else { return Ok(0) };
            if text.starts_with('-') && duration::parse(&text[1..]).is_some() {
                bail!("--{option} cannot be negative");
            }
            let time = duration::parse(text).and_then(|time| i64::try_from(time.as_nanos()).ok());
            time.with_context(|| {
                format!(
                    "invalid argument \"{text}\" for \"--{option}\" flag: time: invalid duration \"{text}\""
                )
            })
        };
        if self.health_retries.is_some_and(|retries| retries < 0) {
            bail!("--health-retries cannot be negative");
        }
        let config = HealthConfig {
            test: match &self.health_cmd {
                Some(command) => vec!["CMD-SHELL".to_owned(), command.clone()],
                None => Vec::new(),
            },
            interval: time("health-interval", &self.health_interval)?,
            timeout: time("health-timeout", &self.health_timeout)?,
            start_period: time("health-start-period", &self.health_start_period)?,
            start_interval: time("health-start-interval", &self.health_start_interval)?,
            retries: self.health_retries.unwrap_or_default(),
        };
        let is_given = config != HealthConfig::default();
        if self.no_healthcheck {
            if is_given {
                bail!("--no-healthcheck conflicts with --health-* options");
            }
            return Ok(Some(HealthConfig { test: vec!["NONE".to_owned()], ..config }));
        }
        Ok(Some(config).filter(|_| is_given))
    }

    /// Puts what they say into the settings for this host.
    pub(super) fn set_host_config(&self, host: &mut HostConfig) -> Result<()> {
        if let Some(policy) = &self.restart {
            host.restart_policy = RestartPolicy::parse(policy)?;
            if host.auto_remove && !host.restart_policy.is_none() {
                return Err(hinted(
                    "conflicting options: cannot specify both --restart and --rm",
                    "a container that is removed cannot be started again",
                ));
            }
        }
        host.init = self.init.then_some(true);
        host.privileged = self.privileged;
        let text = |given: &Option<String>| given.clone().unwrap_or_default();
        host.pid_mode = text(&self.pid);
        host.ipc_mode = text(&self.ipc);
        host.uts_mode = text(&self.uts);
        host.userns_mode = text(&self.userns);
        host.cgroupns_mode = text(&self.cgroupns);
        host.cgroup_parent = text(&self.cgroup_parent);
        host.cpuset_mems = text(&self.cpuset_mems);
        host.volume_driver = text(&self.volume_driver);
        host.isolation = text(&self.isolation);
        host.devices = self.device.iter().map(|text| Device::parse(text)).collect::<Result<_, _>>()?;
        for rule in &self.device_cgroup_rule {
            config::validate_rule(rule)?;
        }
        host.device_cgroup_rules.clone_from(&self.device_cgroup_rule);
        for entry in &self.sysctl {
            let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
            host.sysctls.insert(name.to_owned(), value.to_owned());
        }
        for entry in &self.annotation {
            let pair = entry.split_once('=');
            let (name, value) = pair.with_context(|| {
                format!("invalid argument \"{entry}\" for \"--annotation\" flag: must be a key=value pair")
            })?;
            host.annotations.insert(name.to_owned(), value.to_owned());
        }
        host.oom_score_adj = self.oom_score_adj.unwrap_or_default();
        host.oom_kill_disable = self.oom_kill_disable.then_some(true);
        host.memory_reservation = size("--memory-reservation", self.memory_reservation.as_deref())?;
        if let Some(value) = self.memory_swappiness.filter(|value| *value != -1) {
            if !(0..=100).contains(&value) {
                bail!("invalid value: {value}. Valid memory swappiness range is 0-100");
            }
            host.memory_swappiness = Some(value);
        }
        host.cpu_realtime_period = self.cpu_rt_period.unwrap_or_default();
        host.cpu_realtime_runtime = self.cpu_rt_runtime.unwrap_or_default();
        host.blkio_weight = self.blkio_weight.unwrap_or_default();
        host.blkio_weight_device =
            self.blkio_weight_device.iter().map(|text| weight_device(text)).collect::<Result<_>>()?;
        let throttle = |option: &str, texts: &[String], bytes| {
            texts.iter().map(|text| throttle_device(option, text, bytes)).collect::<Result<Vec<_>>>()
        };
        host.blkio_device_read_bps = throttle("--device-read-bps", &self.device_read_bps, true)?;
        host.blkio_device_write_bps = throttle("--device-write-bps", &self.device_write_bps, true)?;
        host.blkio_device_read_iops = throttle("--device-read-iops", &self.device_read_iops, false)?;
        host.blkio_device_write_iops = throttle("--device-write-iops", &self.device_write_iops, false)?;
        Ok(())
    }
}
