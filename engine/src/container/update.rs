//! `update`: other limits, and another restart policy, for a container that runs or not.

use serde::{Deserialize, Serialize};

use crate::config::{HostConfig, RestartPolicy};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Container, Record};
use crate::resources;

/// What is to be changed: Docker's body of `POST /containers/{id}/update`. What is 0 or not given stays.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Update {
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of memory and swap together; -1 unlimited.
    pub memory_swap: i64,
    /// Bytes of memory that the kernel presses it down to when others need some.
    pub memory_reservation: u64,
    /// Billionths of a processor.
    pub nano_cpus: u64,
    /// Weight against other containers.
    pub cpu_shares: u64,
    /// Microseconds in which the quota may be used.
    pub cpu_period: u64,
    /// Microseconds of a processor in each period; -1 unlimited.
    pub cpu_quota: i64,
    /// Processors it may run on.
    pub cpuset_cpus: String,
    /// Nodes of memory it may use.
    pub cpuset_mems: String,
    /// Processes and threads; -1 and 0 are unlimited.
    pub pids_limit: Option<i64>,
    /// Weight at block devices.
    pub blkio_weight: u16,
    /// Microseconds in which the real-time budget may be used.
    pub cpu_realtime_period: i64,
    /// Microseconds of real-time scheduling in each period.
    pub cpu_realtime_runtime: i64,
    /// Whether it is started again when it has ended.
    pub restart_policy: Option<RestartPolicy>,
}

impl Engine {
    /// Changes a container's limits, at once where it runs, and its restart policy.
    ///
    /// # Errors
    /// In Docker's words for what cannot be; [`Error::Foreground`] for one whose limits nobody could take back.
    pub fn update(&self, container: &Container, update: &Update) -> Result<()> {
        #[cfg(target_os = "linux")]
        let _edit = container.edit()?;
        // As it is now: somebody may have renamed it since it was looked up.
        let now = Container::load(container.folder().to_owned())?;
        let refused =
            |reason: Error| Error::Invalid(format!("Cannot update container {}: {reason}", now.record.id));
        let host_config = merged(&now.record.host_config, update).map_err(refused)?;
        resources::validate(&host_config)?;
        resources::validate_for(&host_config, now.record.kind)?;
        if let Some(policy) = &update.restart_policy {
            policy.validate()?;
            if now.record.host_config.auto_remove && !policy.is_none() {
                let reason =
                    "Restart policy cannot be updated because AutoRemove is enabled for the container";
                return Err(refused(Error::Invalid(reason.to_owned())));
            }
        }
        let changed = Container::with(now.folder().to_owned(), Record { host_config, ..now.record.clone() });
        if now.state()?.status.is_alive() {
            // A full disk is met before anything has changed: limits that nobody has written down would stay for ever.
            Container::write(now.folder().to_owned(), now.record.clone())?;
            self.limit_now(&changed, &now.record)?;
        }
        Container::write(changed.folder().to_owned(), changed.record.clone())?;
        self.tell_of(&changed.record, "update", &[]);
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn limit_now(&self, container: &Container, before: &Record) -> Result<()> {
        use dhow_runtime::Kind;
        let record = &container.record;
        let has_monitor = record.kind == Kind::Native || !record.host_config.auto_remove || {
            // Only who has a monitor of its own has a socket.
            container.folder().join("socket").exists()
        };
        if !has_monitor && !resources::has_group(before) && resources::has_group(record) {
            return Err(Error::Foreground { name: record.name.clone(), what: "cannot be limited now" });
        }
        resources::change(self, container, before)
    }

    #[cfg(not(target_os = "linux"))]
    fn limit_now(&self, _container: &Container, _before: &Record) -> Result<()> {
        Err(Error::elsewhere("other limits for a container that runs"))
    }
}

/// The settings as they would be.
fn merged(host: &HostConfig, update: &Update) -> Result<HostConfig> {
    let mut host = host.clone();
    let conflict = |reason: &str| Err(Error::Invalid(reason.to_owned()));
    if update.nano_cpus > 0 && (host.cpu_quota > 0 || host.cpu_period > 0) {
        return conflict(
            "Conflicting options: Nano CPUs cannot be updated as CPU Period or CPU Quota has already been set",
        );
    }
    if update.cpu_quota > 0 && host.nano_cpus > 0 {
        return conflict("Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set");
    }
    if update.cpu_period > 0 && host.nano_cpus > 0 {
        return conflict(
            "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set",
        );
    }
    let swap = if update.memory_swap == 0 { host.memory_swap } else { update.memory_swap };
    // Docker: what is not said is twice as much, and stays that.
    let swap =
        if swap == 0 { i64::try_from(host.memory.saturating_mul(2)).unwrap_or(i64::MAX) } else { swap };
    if update.memory > 0
        && update.memory_swap == 0
        && host.memory > 0
        && u64::try_from(swap).is_ok_and(|swap| swap > 0 && update.memory > swap)
    {
        return conflict(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        );
    }
    let number = |own: &mut u64, new| {
        if new > 0 {
            *own = new;
        }
    };
    if update.memory > 0 && host.memory > 0 && host.memory_swap == 0 && update.memory_swap == 0 {
        host.memory_swap = swap;
    }
    number(&mut host.memory, update.memory);
    number(&mut host.memory_reservation, update.memory_reservation);
    number(&mut host.nano_cpus, update.nano_cpus);
    number(&mut host.cpu_shares, update.cpu_shares);
    number(&mut host.cpu_period, update.cpu_period);
    if update.memory_swap != 0 {
        host.memory_swap = update.memory_swap;
    }
    if update.cpu_quota != 0 {
        host.cpu_quota = update.cpu_quota;
    }
    for (own, new) in
        [(&mut host.cpuset_cpus, &update.cpuset_cpus), (&mut host.cpuset_mems, &update.cpuset_mems)]
    {
        if !new.is_empty() {
            own.clone_from(new);
        }
    }
    if update.pids_limit.is_some() {
        host.pids_limit = update.pids_limit;
    }
    for (own, new) in [
        (&mut host.cpu_realtime_period, update.cpu_realtime_period),
        (&mut host.cpu_realtime_runtime, update.cpu_realtime_runtime),
    ] {
        if new != 0 {
            *own = new;
        }
    }
    if update.blkio_weight > 0 {
        host.blkio_weight = update.blkio_weight;
    }
    if let Some(policy) = &update.restart_policy {
        host.restart_policy.clone_from(policy);
    }
    Ok(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn docker_s_rules() {
        let host = HostConfig { memory: 100 << 20, ..HostConfig::default() };
        let words = |host: &HostConfig, update: Update| merged(host, &update).unwrap_err().to_string();
        let more = Update { memory: 300 << 20, ..Update::default() };
        assert!(words(&host, more.clone()).contains("update the memoryswap at the same time"));
        let both = Update { memory_swap: -1, ..more };
        assert_eq!(merged(&host, &both).unwrap().memory_swap, -1);
        let less = Update { memory: 50 << 20, ..Update::default() };
        let less = merged(&host, &less).unwrap();
        assert_eq!((less.memory, less.memory_swap), (50 << 20, 200 << 20));
        let cpus = HostConfig { nano_cpus: 1, ..HostConfig::default() };
        assert!(words(&cpus, Update { cpu_quota: 2000, ..Update::default() }).contains("CPU Quota"));
        assert!(words(&cpus, Update { cpu_period: 2000, ..Update::default() }).contains("CPU Period"));
        let quota = HostConfig { cpu_quota: 2000, ..HostConfig::default() };
        assert!(words(&quota, Update { nano_cpus: 2000, ..Update::default() }).contains("Nano CPUs"));
        assert_eq!(merged(&host, &Update::default()).unwrap(), host);
    }
}
