//! `--memory`, `--cpus` and their kin: what may be said, and the same in the words of the OCI runtime specification.

use std::time::Duration;

use dhow_runtime::Kind;
#[cfg(target_os = "linux")]
use dhow_runtime::cgroup::Group;
use dhow_runtime::spec::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use dhow_runtime::wasm::Limits;

use crate::config::HostConfig;
#[cfg(target_os = "linux")]
use crate::engine::Engine;
use crate::error::{Error, Result};
#[cfg(target_os = "linux")]
use crate::record::Record;
use crate::spec::invalid;

/// Docker's least memory of a native container: below it a runtime cannot even start.
const LEAST_MEMORY: u64 = 6 << 20;
/// What the kernel takes when nothing is said.
const PERIOD: u64 = 100_000;

/// Checks the values on their own, in Docker's words.
pub(crate) fn validate(host: &HostConfig) -> Result<()> {
    let invalid = |text: &str| Err(Error::Invalid(text.to_owned()));
    if host.memory_swap != 0 && host.memory == 0 {
        return invalid("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if u64::try_from(host.memory_swap).is_ok_and(|swap| swap != 0 && swap < host.memory) {
        return invalid("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if host.nano_cpus > 0 {
        if host.cpu_period > 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set");
        }
        if host.cpu_quota > 0 {
            return invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set");
        }
        let there = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        if host.nano_cpus < 10_000_000 || host.nano_cpus > there * 1_000_000_000 {
            return Err(Error::Invalid(format!(
                "Range of CPUs is from 0.01 to {there}.00, as there are only {there} CPUs available"
            )));
        }
    }
    if host.cpu_period != 0 && !(1_000..=1_000_000).contains(&host.cpu_period) {
        return invalid(
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        );
    }
    if host.cpu_quota > 0 && host.cpu_quota < 1_000 {
        return invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)");
    }
    if !host.cpuset_cpus.is_empty() && !is_list(&host.cpuset_cpus) {
        let value = &host.cpuset_cpus;
        return Err(Error::Invalid(format!("Invalid value {value} for cpuset cpus")));
    }
    if host.fuel == Some(0) {
        return invalid("the fuel must be a positive number");
    }
    Ok(())
}

/// Checks what depends on what the container is.
pub(crate) fn validate_for(host: &HostConfig, kind: Kind) -> Result<()> {
    if kind == Kind::Wasm {
        return Ok(());
    }
    if host.memory != 0 && host.memory < LEAST_MEMORY {
        return Err(Error::Invalid("Minimum memory limit allowed is 6MB".to_owned()));
    }
    for (option, given) in [("--fuel", host.fuel.is_some()), ("--timeout", host.timeout != 0)] {
        if given {
            return Err(Error::Invalid(format!("{option} is for Wasm programs, and this one is native")));
        }
    }
    Ok(())
}

/// `0-2,7`: the kernel's lists of processors.
fn is_list(text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.split(',').all(|part| match part.split_once('-') {
        Some((first, last)) => is_number(first) && is_number(last),
        None => is_number(part),
    })
}

/// The share of the processors: quota and period in microseconds.
fn cpu_quota(host: &HostConfig) -> Option<(i64, u64)> {
    let period = if host.cpu_period == 0 { PERIOD } else { host.cpu_period };
    if host.nano_cpus > 0 {
        // Within the range of `validate` this fits by far.
        let quota = host.nano_cpus.saturating_mul(period) / 1_000_000_000;
        return Some((i64::try_from(quota).unwrap_or(i64::MAX), period));
    }
    (host.cpu_quota > 0 || host.cpu_period > 0).then_some((host.cpu_quota.max(-1), period))
}

/// What a control group is for; nothing when no limit asks for one.
pub(crate) fn linux(host: &HostConfig) -> Result<Option<LinuxResources>> {
    let mut resources = LinuxResourcesBuilder::default();
    let mut wanted = false;
    if let Ok(limit @ 1..) = i64::try_from(host.memory) {
        // Docker: as much swap again, unless something is said.
        let swap = if host.memory_swap == 0 { limit.saturating_mul(2) } else { host.memory_swap };
        resources =
            resources.memory(LinuxMemoryBuilder::default().limit(limit).swap(swap).build().map_err(invalid)?);
        wanted = true;
    }
    let quota = cpu_quota(host);
    if quota.is_some() || host.cpu_shares != 0 || !host.cpuset_cpus.is_empty() {
        let mut cpu = LinuxCpuBuilder::default();
        if let Some((quota, period)) = quota {
            cpu = cpu.period(period);
            if quota > 0 {
                cpu = cpu.quota(quota);
            }
        }
        if host.cpu_shares != 0 {
            cpu = cpu.shares(host.cpu_shares);
        }
        if !host.cpuset_cpus.is_empty() {
            cpu = cpu.cpus(host.cpuset_cpus.clone());
        }
        resources = resources.cpu(cpu.build().map_err(invalid)?);
        wanted = true;
    }
    if let Some(limit @ 1..) = host.pids_limit {
        resources = resources.pids(LinuxPidsBuilder::default().limit(limit).build().map_err(invalid)?);
        wanted = true;
    }
    if wanted { resources.build().map(Some).map_err(invalid) } else { Ok(None) }
}

/// What a Wasm program's process needs besides the program's own memory, and may have besides it.
#[cfg(target_os = "linux")]
const HOST_MEMORY: i64 = 64 << 20;

/// What the kernel is told of a container's limits.
#[cfg(target_os = "linux")]
fn of_kind(record: &Record) -> Result<Option<LinuxResources>> {
    let Some(mut resources) = linux(&record.host_config)? else { return Ok(None) };
    if record.kind == Kind::Wasm {
        resources.set_pids(None);
        if let Some(memory) = resources.memory_mut() {
            memory.set_limit(memory.limit().map(|limit| limit.saturating_add(HOST_MEMORY)));
            memory.set_swap(
                memory.swap().map(|swap| if swap < 0 { swap } else { swap.saturating_add(HOST_MEMORY) }),
            );
        }
    }
    Ok(Some(resources))
}

/// Changes what the kernel is told of a container that runs. One that had no group gets one, with all its processes.
///
/// # Errors
/// When a limit cannot be kept.
#[cfg(target_os = "linux")]
pub(crate) fn change(engine: &Engine, container: &crate::record::Container, before: &Record) -> Result<()> {
    let record = &container.record;
    let Some(mut resources) = of_kind(record)? else { return Ok(()) };
    // What was limited and is no more has to be said.
    let had = of_kind(before)?;
    let had_quota = had.as_ref().and_then(|had| had.cpu().as_ref()?.quota()).is_some();
    if let Some(cpu) = resources.cpu_mut()
        && had_quota
        && cpu.quota().is_none()
    {
        cpu.set_quota(Some(-1));
    }
    let had_pids = had.as_ref().is_some_and(|had| had.pids().is_some());
    if had_pids && resources.pids().is_none() && record.kind == Kind::Native {
        resources.set_pids(Some(LinuxPidsBuilder::default().limit(-1).build().map_err(invalid)?));
    }
    let group = Group::update(&engine.group_name(&record.id)?, &resources)?;
    // Whoever is started while this looks is found by the next look.
    let mut known = std::collections::BTreeSet::new();
    loop {
        let mut found = false;
        for pid in crate::processes::of(container) {
            if known.insert(pid) {
                found = true;
                // It may have ended.
                group.add(pid).ok();
            }
        }
        if !found {
            return Ok(());
        }
    }
}

/// Makes the control group of a container whose limits need one. For a Wasm program it is the second keeper of its limits:
/// where there can be none, the executor keeps them alone. Its processes are no concern then.
///
/// # Errors
/// When a limit cannot be kept at all.
#[cfg(target_os = "linux")]
pub(crate) fn group(engine: &Engine, record: &Record) -> Result<Option<Group>> {
    let Some(resources) = of_kind(record)? else { return Ok(None) };
    let name = engine.group_name(&record.id)?;
    if record.kind == Kind::Native {
        return Ok(Some(Group::create(&name, &resources)?));
    }
    match Group::create(&name, &resources) {
        Ok(group) => Ok(Some(group)),
        Err(error) => {
            let host = &record.host_config;
            let only_the_kernel_can = host.cpu_shares != 0 || !host.cpuset_cpus.is_empty();
            if only_the_kernel_can { Err(error.into()) } else { Ok(None) }
        }
    }
}

/// Whether a container's limits ask for a control group.
#[cfg(target_os = "linux")]
pub(crate) fn has_group(record: &Record) -> bool {
    linux(&record.host_config).is_ok_and(|resources| resources.is_some())
}

/// Removes a container's control group, once nothing of it lives; says whether the kernel has killed in it for lack of
/// memory. What cannot be removed is found by `system check`.
#[cfg(target_os = "linux")]
pub(crate) fn end_group(engine: &Engine, record: &Record) -> bool {
    let find = || Group::find(&engine.group_name(&record.id).ok()?);
    let Some(group) = has_group(record).then(find).flatten() else { return false };
    let killed = group.out_of_memory_kills() > 0;
    group.remove().ok();
    killed
}

/// What the specification has no words for.
pub(crate) fn wasm(host: &HostConfig) -> Limits {
    #[expect(clippy::cast_precision_loss, reason = "microseconds of a processor are exact enough")]
    let cpus =
        cpu_quota(host).filter(|(quota, _)| *quota > 0).map(|(quota, period)| quota as f64 / period as f64);
    Limits { fuel: host.fuel, timeout: (host.timeout != 0).then(|| Duration::from_nanos(host.timeout)), cpus }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostConfig {
        HostConfig::default()
    }

    #[test]
    fn docker_s_checks() {
        let words = |host: HostConfig| validate(&host).expect_err("refused").to_string();
        assert!(words(HostConfig { memory_swap: 1, ..host() }).contains("always set the Memory limit"));
        assert!(words(HostConfig { memory: 20, memory_swap: 10, ..host() }).contains("Minimum memoryswap"));
        assert!(words(HostConfig { nano_cpus: 1_000_000_000, cpu_quota: 5, ..host() }).contains("CPU Quota"));
        assert!(words(HostConfig { nano_cpus: 1, ..host() }).contains("Range of CPUs is from 0.01"));
        assert!(words(HostConfig { nano_cpus: u64::MAX, ..host() }).contains("Range of CPUs"));
        assert!(words(HostConfig { cpu_period: 999, ..host() }).contains("1ms"));
        assert!(words(HostConfig { cpu_quota: 999, ..host() }).contains("1ms"));
        for list in ["x", "1-", ",", "0-1,", "0 1"] {
            assert!(words(HostConfig { cpuset_cpus: list.to_owned(), ..host() }).contains("cpuset"));
        }
        let fine = HostConfig {
            memory: 64 << 20,
            memory_swap: -1,
            nano_cpus: 500_000_000,
            cpuset_cpus: "0-1,3".to_owned(),
            pids_limit: Some(-1),
            ..host()
        };
        assert!(validate(&fine).is_ok());
    }

    #[test]
    fn what_only_one_kind_has() {
        let small = HostConfig { memory: 1 << 20, ..host() };
        assert!(validate_for(&small, Kind::Native).is_err() && validate_for(&small, Kind::Wasm).is_ok());
        let fuel = HostConfig { fuel: Some(1), ..host() };
        assert!(validate_for(&fuel, Kind::Native).is_err() && validate_for(&fuel, Kind::Wasm).is_ok());
    }

    #[test]
    fn in_the_specification_s_words() {
        assert!(linux(&host()).unwrap().is_none());
        assert!(linux(&HostConfig { pids_limit: Some(-1), ..host() }).unwrap().is_none());
        let all = HostConfig {
            memory: 64 << 20,
            nano_cpus: 1_500_000_000,
            cpu_shares: 512,
            cpuset_cpus: "0".to_owned(),
            pids_limit: Some(10),
            ..host()
        };
        let resources = linux(&all).unwrap().unwrap();
        let memory = resources.memory().as_ref().unwrap();
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        let cpu = resources.cpu().as_ref().unwrap();
        assert_eq!((cpu.quota(), cpu.period(), cpu.shares()), (Some(150_000), Some(100_000), Some(512)));
        assert_eq!(cpu.cpus().as_deref(), Some("0"));
        assert_eq!(wasm(&all).cpus, Some(1.5));
        assert_eq!(wasm(&HostConfig { cpu_quota: -1, cpu_period: 1000, ..host() }).cpus, None);
    }
}
