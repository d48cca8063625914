//! The control group of a container (Linux): the small one for the usual limits, or one with everything that the kernel has.
//!
//! Both lie at `dhow/<root>-<id>`, or below the parent that was named. A container whose limits ask for none has no group.

use std::path::{Path, PathBuf};

use dhow_runtime::cgroup::Group as Small;
use dhow_runtime::cgroup::oci::OciGroup;
use dhow_runtime::spec::{LinuxPidsBuilder, LinuxResources};
use dhow_runtime::{Bundle, Kind, Stdio, Task, native};
use serde_json::{Value, json};

use super::linux;
use crate::config::{HostConfig, ThrottleDevice};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Container, Record};
use crate::spec::{device, invalid};

/// What a Wasm program's process needs besides the program's own memory, and may have besides it.
const HOST_MEMORY: i64 = 64 << 20;

/// The folder of groups for which no parent was named.
const PARENT: &str = "dhow";

/// A container's group.
#[derive(Debug)]
pub(crate) enum Group {
    /// Memory, processors, processes.
    Small(Small),
    /// All controllers.
    Whole(Box<OciGroup>),
}

impl Group {
    /// Puts a process into it; what that starts from then on is in it, too.
    pub(crate) fn add(&mut self, pid: u32) -> dhow_runtime::Result<()> {
        match self {
            Self::Small(group) => group.add(pid),
            Self::Whole(group) => group.add(pid, false, false),
        }
    }

    /// Creates a native container, in its group if it has one.
    pub(crate) fn create(
        group: Option<&mut Self>,
        executor: &native::Executor,
        bundle: &Bundle,
        stdio: Stdio,
    ) -> dhow_runtime::Result<Task> {
        let task = match group {
            Some(group) => executor.create_in(bundle, stdio, &mut |pid| group.add(pid)),
            None => executor.create(bundle, stdio),
        };
        task.map(Task::Native)
    }

    /// How many of its processes the kernel has killed for lack of memory.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        match self {
            Self::Small(group) => group.out_of_memory_kills(),
            Self::Whole(group) => group.out_of_memory_kills(),
        }
    }

    fn remove(&self) {
        // What cannot be removed is found by `system check`.
        match self {
            Self::Small(group) => group.remove().ok(),
            Self::Whole(group) => group.remove().ok(),
        };
    }
}

/// What the kernel is told of a container's limits.
fn of_kind(record: &Record) -> Result<Option<LinuxResources>> {
    let host = &record.host_config;
    let mut resources = linux(host)?;
    if asks_for_more(host) {
        add_more(host, record.kind, resources.get_or_insert_default())?;
    }
    let Some(mut resources) = resources else { return Ok(None) };
    if record.kind == Kind::Wasm {
        resources.set_pids(None);
        if let Some(memory) = resources.memory_mut() {
            let more = |bytes: i64| if bytes < 0 { bytes } else { bytes.saturating_add(HOST_MEMORY) };
            memory.set_limit(memory.limit().map(more));
            memory.set_swap(memory.swap().map(more));
            memory.set_reservation(memory.reservation().map(more));
        }
    }
    Ok(Some(resources))
}

/// Whether a container needs the group with everything.
fn asks_for_more(host: &HostConfig) -> bool {
    host.memory_reservation != 0
        || host.memory_swappiness.is_some()
        || host.oom_kill_disable == Some(true)
        || !host.cpuset_mems.is_empty()
        || host.cpu_realtime_period != 0
        || host.cpu_realtime_runtime != 0
        || host.blkio_weight != 0
        || !host.blkio_weight_device.is_empty()
        || !host.blkio_device_read_bps.is_empty()
        || !host.blkio_device_write_bps.is_empty()
        || !host.blkio_device_read_iops.is_empty()
        || !host.blkio_device_write_iops.is_empty()
        || !host.device_cgroup_rules.is_empty()
        || host.devices.iter().any(|device| device.cgroup_permissions != "rwm")
        || !host.cgroup_parent.is_empty()
}

/// What the usual limits do not have.
fn add_more(host: &HostConfig, kind: Kind, resources: &mut LinuxResources) -> Result<()> {
    let memory = host.memory_reservation != 0
        || host.memory_swappiness.is_some()
        || host.oom_kill_disable == Some(true);
    if memory {
        let mut all = resources.memory().unwrap_or_default();
        all.set_reservation(i64::try_from(host.memory_reservation).ok().filter(|bytes| *bytes > 0));
        all.set_swappiness(host.memory_swappiness.and_then(|value| u64::try_from(value).ok()));
        all.set_disable_oom_killer(host.oom_kill_disable.filter(|disabled| *disabled));
        resources.set_memory(Some(all));
    }
    if !host.cpuset_mems.is_empty() || host.cpu_realtime_period != 0 || host.cpu_realtime_runtime != 0 {
        let mut all = resources.cpu().clone().unwrap_or_default();
        all.set_mems(Some(host.cpuset_mems.clone()).filter(|list| !list.is_empty()));
        all.set_realtime_period(u64::try_from(host.cpu_realtime_period).ok().filter(|time| *time > 0));
        all.set_realtime_runtime(Some(host.cpu_realtime_runtime).filter(|time| *time != 0));
        resources.set_cpu(Some(all));
    }
    let throttle = |devices: &[ThrottleDevice]| -> Result<Value> {
        let rows = devices.iter().map(|device| {
            let (major, minor) = device::number(&device.path)?;
            Ok(json!({ "major": major, "minor": minor, "rate": device.rate }))
        });
        Ok(Value::Array(rows.collect::<Result<_>>()?))
    };
    let weights = host.blkio_weight_device.iter().map(|device| {
        let (major, minor) = device::number(&device.path)?;
        Ok(json!({ "major": major, "minor": minor, "weight": device.weight }))
    });
    let block = json!({
        "weight": Some(host.blkio_weight).filter(|weight| *weight != 0),
        "weightDevice": weights.collect::<Result<Vec<_>>>()?,
        "throttleReadBpsDevice": throttle(&host.blkio_device_read_bps)?,
        "throttleWriteBpsDevice": throttle(&host.blkio_device_write_bps)?,
        "throttleReadIOPSDevice": throttle(&host.blkio_device_read_iops)?,
        "throttleWriteIOPSDevice": throttle(&host.blkio_device_write_iops)?,
    });
    let asked = block.as_object().into_iter().flatten();
    let asked: serde_json::Map<_, _> = asked
        .filter(|(_, value)| !value.is_null() && **value != json!([]))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if !asked.is_empty() {
        resources.set_block_io(Some(serde_json::from_value(Value::Object(asked)).map_err(invalid)?));
    }
    if kind == Kind::Native {
        resources.set_devices(Some(serde_json::from_value(rules(host)?).map_err(invalid)?));
    }
    Ok(())
}

/// What may be done with which device, besides what every container may.
fn rules(host: &HostConfig) -> Result<Value> {
    if host.privileged {
        return Ok(json!([{ "allow": true, "type": "a", "access": "rwm" }]));
    }
    let mut rules = Vec::new();
    for (node, access) in device::asked(host)? {
        let kind = node.kind.to_string();
        rules.push(json!({ "allow": true, "type": kind, "major": node.number.0, "minor": node.number.1, "access": access }));
    }
    for rule in &host.device_cgroup_rules {
        crate::config::validate_rule(rule)?;
        let words: Vec<&str> = rule.split(' ').collect();
        let [kind, numbers, access] = words[..] else { continue };
        let (major, minor) = numbers.split_once(':').unwrap_or((numbers, "*"));
        let mut row = json!({ "allow": true, "type": kind, "access": access });
        for (key, number) in [("major", major), ("minor", minor)] {
            if let Ok(number) = number.parse::<u32>() {
                row[key] = number.into();
            }
        }
        rules.push(row);
    }
    Ok(Value::Array(rules))
}

/// Where the group with everything is.
fn path(engine: &Engine, record: &Record) -> Result<PathBuf> {
    let parent = record.host_config.cgroup_parent.trim_matches('/');
    let parent = if parent.is_empty() { PARENT } else { parent };
    Ok(Path::new("/").join(parent).join(engine.group_name(&record.id)?))
}

fn whole(engine: &Engine, record: &Record, resources: Option<&LinuxResources>) -> Result<OciGroup> {
    Ok(OciGroup::create(Some(&path(engine, record)?), &record.id, resources, false, false)?)
}

/// Makes the control group of a container whose limits need one. For a Wasm program it is the second keeper of its limits:
/// where there can be none, the executor keeps them alone. Its processes are no concern then.
///
/// # Errors
/// When a limit cannot be kept at all.
pub(crate) fn group(engine: &Engine, record: &Record) -> Result<Option<Group>> {
    let Some(resources) = of_kind(record)? else { return Ok(None) };
    let host = &record.host_config;
    if asks_for_more(host) {
        return Ok(Some(Group::Whole(Box::new(whole(engine, record, Some(&resources))?))));
    }
    let name = engine.group_name(&record.id)?;
    if record.kind == Kind::Native {
        return Ok(Some(Group::Small(Small::create(&name, &resources)?)));
    }
    match Small::create(&name, &resources) {
        Ok(group) => Ok(Some(Group::Small(group))),
        Err(error) => {
            let only_the_kernel_can = host.cpu_shares != 0 || !host.cpuset_cpus.is_empty();
            if only_the_kernel_can { Err(error.into()) } else { Ok(None) }
        }
    }
}

/// The group of a container that runs, if it has one.
pub(crate) fn find(engine: &Engine, record: &Record) -> Option<Group> {
    if asks_for_more(&record.host_config) {
        return whole(engine, record, None).ok().map(|group| Group::Whole(Box::new(group)));
    }
    Small::find(&engine.group_name(&record.id).ok()?).map(Group::Small)
}

/// Changes what the kernel is told of a container that runs. One that had no group gets one, with all its processes.
///
/// # Errors
/// When a limit cannot be kept.
pub(crate) fn change(engine: &Engine, container: &Container, before: &Record) -> Result<()> {
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
    let mut group = if asks_for_more(&record.host_config) {
        // Its devices are what they were.
        resources.set_devices(None);
        let group = whole(engine, record, None)?;
        group.update(&resources)?;
        Group::Whole(Box::new(group))
    } else {
        Group::Small(Small::update(&engine.group_name(&record.id)?, &resources)?)
    };
    add_all(&mut group, container);
    Ok(())
}

/// Puts all processes of a container into a group.
pub(super) fn add_all(group: &mut Group, container: &Container) {
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
            return;
        }
    }
}

/// Whether a container's limits ask for a control group.
pub(crate) fn has_group(record: &Record) -> bool {
    let host = &record.host_config;
    asks_for_more(host) || linux(host).is_ok_and(|resources| resources.is_some())
}

/// Removes a container's control group, once nothing of it lives; says whether the kernel has killed in it for lack of
/// memory.
pub(crate) fn end_group(engine: &Engine, record: &Record) -> bool {
    let Some(group) = has_group(record).then(|| find(engine, record)).flatten() else { return false };
    let killed = group.out_of_memory_kills() > 0;
    group.remove();
    killed
}

/// Checks the parent's name: a path below the top, without anything in it that leads elsewhere.
pub(super) fn validate_parent(parent: &str) -> Result<()> {
    let clean = parent.trim_matches('/');
    let is_name =
        |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(char::is_control);
    if !parent.is_empty() && (clean.is_empty() || !clean.split('/').all(is_name)) {
        return Err(Error::Invalid(format!("invalid cgroup parent: {parent:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Device;

    #[test]
    fn what_needs_everything() {
        let host = HostConfig::default;
        assert!(!asks_for_more(&HostConfig { memory: 5, pids_limit: Some(3), ..host() }));
        let device = |text: &str| HostConfig { devices: vec![Device::parse(text).unwrap()], ..host() };
        assert!(!asks_for_more(&device("/dev/null")) && asks_for_more(&device("/dev/null:r")));
        let all = HostConfig {
            memory_reservation: 10 << 20,
            memory_swappiness: Some(5),
            cpuset_mems: "0".to_owned(),
            blkio_weight: 100,
            blkio_device_read_bps: vec![ThrottleDevice { path: "/dev/null".to_owned(), rate: 7 }],
            device_cgroup_rules: vec!["c 1:* rw".to_owned()],
            ..device("/dev/null:/dev/x:r")
        };
        let mut resources = LinuxResources::default();
        add_more(&all, Kind::Native, &mut resources).unwrap();
        let memory = resources.memory().as_ref().unwrap();
        assert_eq!((memory.reservation(), memory.swappiness()), (Some(10 << 20), Some(5)));
        assert_eq!(resources.cpu().as_ref().unwrap().mems().as_deref(), Some("0"));
        let block = resources.block_io().as_ref().unwrap();
        assert_eq!(block.weight(), Some(100));
        assert_eq!(block.throttle_read_bps_device().as_ref().unwrap()[0].rate(), 7);
        let devices = resources.devices().as_ref().unwrap();
        assert_eq!((devices.len(), devices[0].minor(), devices[1].minor()), (2, Some(3), None));
    }

    #[test]
    fn parents() {
        for fine in ["", "foo", "/foo/bar", "foo/"] {
            validate_parent(fine).unwrap();
        }
        for bad in ["/", "../x", "a/../b", "a//b", "a\nb"] {
            assert!(validate_parent(bad).is_err(), "{bad}");
        }
    }
}
