//! `--memory`, `--cpus` and their kin: what may be said, and the same in the words of the OCI runtime specification.

#[cfg(target_os = "linux")]
mod freeze;
#[cfg(target_os = "linux")]
mod group;

use std::time::Duration;

use dhow_runtime::Kind;
use dhow_runtime::spec::{
    LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources, LinuxResourcesBuilder,
};
use dhow_runtime::wasm::Limits;

use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::spec::invalid;
#[cfg(target_os = "linux")]
pub(crate) use freeze::{end_frozen, freeze, thaw};
#[cfg(target_os = "linux")]
pub(crate) use group::{Group, change, end_group, find, group, has_group};

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
    if !host.cpuset_mems.is_empty() && !is_list(&host.cpuset_mems) {
        let value = &host.cpuset_mems;
        return Err(Error::Invalid(format!(
            "Invalid value {value} for cpuset mems: invalid format: {value}"
        )));
    }
    if host.memory != 0 && host.memory_reservation > host.memory {
        return invalid("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    if host.blkio_weight != 0 && !(10..=1000).contains(&host.blkio_weight) {
        return invalid("Range of blkio weight is from 10 to 1000");
    }
    if host.cpu_realtime_period != 0 && host.cpu_realtime_runtime > host.cpu_realtime_period {
        return invalid("cpu real-time runtime cannot be higher than cpu real-time period");
    }
    #[cfg(target_os = "linux")]
    group::validate_parent(&host.cgroup_parent)?;
    if host.fuel == Some(0) {
        return invalid("the fuel must be a positive number");
    }
    Ok(())
}

/// Checks what depends on what the container is.
pub(crate) fn validate_for(host: &HostConfig, kind: Kind) -> Result<()> {
    for (what, asked, there) in [
        ("CPUs", &host.cpuset_cpus, "/sys/devices/system/cpu/online"),
        ("memory nodes", &host.cpuset_mems, "/sys/devices/system/node/online"),
    ] {
        if asked.is_empty() || !is_list(asked) {
            continue;
        }
        // Where it is not said, the kernel will know.
        let Ok(there) = fs_err::read_to_string(there) else { continue };
        let there = there.trim();
        if !is_within(asked, there) {
            return Err(Error::Invalid(format!(
                "Requested {what} are not available - requested {asked}, available: {there}"
            )));
        }
    }
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

/// Whether all of one list is in the other.
fn is_within(asked: &str, there: &str) -> bool {
    let ranges = |text: &str| -> Vec<(u64, u64)> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        };
        text.split(',').filter_map(range).collect()
    };
    let there = ranges(there);
    let has = |number: u64| there.iter().any(|(first, last)| (*first..=*last).contains(&number));
    // No host has more processors than that.
    ranges(asked).iter().all(|(first, last)| last - first.min(last) < 65_536 && (*first..=*last).all(has))
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
    fn what_is_there() {
        for (asked, there, fits) in [
            ("0", "0-1", true),
            ("0-1", "0-1", true),
            ("1,0", "0-1", true),
            ("2", "0-1", false),
            ("0-2", "0-1", false),
            ("0,5-6", "0-3,5-7", true),
            ("0-18446744073709551615", "0-1", false),
        ] {
            assert_eq!(is_within(asked, there), fits, "{asked} of {there}");
        }
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
