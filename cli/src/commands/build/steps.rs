//! What steps of a build may use: those options of `docker build` that are a container's.

use anyhow::{Context as _, Result, bail};
use clap::Args;
use dhow_engine::config::{HostConfig, Ulimit};

use crate::commands::run::limits::{memory_swap, size};
use crate::commands::run::security_option;
use crate::units;

/// Limits of each step.
#[derive(Debug, Args)]
pub(crate) struct StepArgs {
    /// Memory that a step may use, as `512m`
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Memory and swap together; -1 is without a limit
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Its weight where processors are short, 1024 is usual
    #[arg(short, long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// What --cpu-quota is counted in, in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Time of processors in each --cpu-period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors to use, as `0-1,3`
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Nodes of memory to use, as `0-1`
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// The control group below which that of a step is made
    #[arg(long, value_name = "PATH")]
    cgroup_parent: Option<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<String>,
    /// A limit of the kernel for each process, as `nofile=1024:2048`
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// How steps are kept apart: `seccomp=FILE`, `seccomp=unconfined`, `no-new-privileges`
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Of Windows; `default` is all there is
    #[arg(long, hide = true)]
    isolation: Option<String>,
}

impl StepArgs {
    pub(super) fn limits(&self) -> Result<HostConfig> {
        if let Some(isolation) =
            self.isolation.as_deref().filter(|isolation| !matches!(*isolation, "" | "default"))
        {
            bail!("--isolation {isolation} is not supported: it is for containers of Windows");
        }
        let shm_size = match &self.shm_size {
            Some(text) => {
                units::parse_size(text).with_context(|| format!("invalid value for --shm-size: '{text}'"))?
            }
            None => 0,
        };
        let ulimits = self.ulimit.iter().map(|limit| Ulimit::parse(limit)).collect::<Result<_, _>>();
        let host = HostConfig {
            memory: size("--memory", self.memory.as_deref())?,
            memory_swap: memory_swap(self.memory_swap.as_deref())?,
            cpu_shares: self.cpu_shares.unwrap_or_default(),
            cpu_period: self.cpu_period.unwrap_or_default(),
            cpu_quota: self.cpu_quota.unwrap_or_default(),
            cpuset_cpus: self.cpuset_cpus.clone().unwrap_or_default(),
            cpuset_mems: self.cpuset_mems.clone().unwrap_or_default(),
            cgroup_parent: self.cgroup_parent.clone().unwrap_or_default(),
            shm_size,
            ulimits: ulimits.map_err(anyhow::Error::msg)?,
            security_opt: self
                .security_opt
                .iter()
                .map(|text| security_option(text))
                .collect::<Result<_>>()?,
            ..HostConfig::default()
        };
        Ok(host)
    }
}
