//! `linux.resources` in the kernel's words: which files say it, for both versions, and in which order.
//!
//! The specification's words are version 1's. What version 2 has in another form is converted, as runc does it; what it
//! does not have is an error.

use std::cell::OnceCell;
use std::path::Path;

use fs_err as fs;
use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources, LinuxThrottleDevice};

use super::files::weight;
use super::oci::{OciGroup, write};
use crate::error::{Error, Result};
use crate::small_file;

/// One value to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Change {
    file: String,
    value: String,
    /// The file may be missing, then this one is written, if there is one.
    instead: Option<Option<(String, String)>>,
}

#[expect(clippy::needless_pass_by_value, reason = "numbers and texts as they come are the shorter calls")]
impl Change {
    fn new(file: impl Into<String>, value: impl ToString) -> Self {
        Self { file: file.into(), value: value.to_string(), instead: None }
    }

    /// Where the kernel was built without it, it is left out.
    fn optional(file: impl Into<String>, value: impl ToString) -> Self {
        Self { instead: Some(None), ..Self::new(file, value) }
    }

    fn or(self, file: &str, value: impl ToString) -> Self {
        Self { instead: Some(Some((file.to_owned(), value.to_string()))), ..self }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        match (write(folder, &self.file, &self.value), &self.instead) {
            (Err(_), Some(instead)) if !folder.join(&self.file).exists() => match instead {
                Some((file, value)) => write(folder, file, value),
                None => Ok(()),
            },
            (written, _) => written,
        }
    }
}

fn invalid<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field, reason: reason.into() })
}

/// Whether anything is limited. Devices are not, for who may not be root.
pub(super) fn any(resources: &LinuxResources) -> bool {
    let mut rest = resources.clone();
    rest.set_devices(None);
    rest != LinuxResources::default()
}

/// What can be said before anything is written.
pub(super) fn check(resources: &LinuxResources, group: &OciGroup) -> Result<()> {
    const MEMORY: &str = "linux.resources.memory";
    if let Some(memory) = resources.memory() {
        if let (Some(limit), Some(swap)) = (memory.limit(), memory.swap())
            && limit > 0
            && swap > 0
            && swap < limit
        {
            return invalid(
                MEMORY,
                format!("swap {swap} is memory and swap together, and less than limit {limit}"),
            );
        }
        if memory.swappiness().is_some_and(|value| value > 100) {
            return invalid(MEMORY, "swappiness is more than 100");
        }
        if memory.check_before_update() == Some(true)
            && let Some(limit) = memory.limit().filter(|limit| *limit > 0)
            && let Some(usage) = usage(group)
            && u64::try_from(limit).is_ok_and(|limit| limit < usage)
        {
            return invalid(MEMORY, format!("limit {limit} is less than the {usage} bytes that are used"));
        }
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let size = limit.page_size();
        let units = ["KB", "MB", "GB"].iter().find_map(|unit| size.strip_suffix(unit));
        if !units
            .is_some_and(|number| !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit()))
        {
            return invalid("linux.resources.hugepageLimits", format!("{size} is no page size"));
        }
    }
    let names = resources.rdma().iter().flatten().map(|(name, _)| name);
    let interfaces = resources.network().iter().flat_map(|network| network.priorities().iter().flatten());
    for name in names.chain(interfaces.map(|one| one.name())) {
        if name.is_empty() || name.contains(char::is_whitespace) {
            return invalid("linux.resources", format!("\"{name}\" is no name of a device"));
        }
    }
    for key in resources.unified().iter().flatten().map(|(key, _)| key) {
        let clean = key.contains('.') && key.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
        if !clean || key.starts_with('.') {
            return invalid("linux.resources.unified", format!("{key} is no file of a control group"));
        }
    }
    if group.second.is_none() && resources.unified().as_ref().is_some_and(|all| !all.is_empty()) {
        return invalid(
            "linux.resources.unified",
            "is for control groups of version 2, which this host does not have",
        );
    }
    Ok(())
}

fn usage(group: &OciGroup) -> Option<u64> {
    let file = match (group.first_with("memory"), &group.second) {
        (Some(path), _) => path.join("memory.usage_in_bytes"),
        (None, Some(path)) => path.join("memory.current"),
        _ => return None,
    };
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// Folders and what is written there.
pub(super) fn changes<'a>(
    resources: &LinuxResources,
    group: &'a OciGroup,
) -> Result<Vec<(&'a Path, Vec<Change>)>> {
    let mut all: Vec<(&Path, Vec<Change>)> = Vec::new();
    let second = group.second.as_deref();
    let list = OnceCell::new();
    let is_offered = |name: &str| {
        let read = || second.and_then(|path| small_file::value(path.join("cgroup.controllers")).ok());
        list.get_or_init(|| read().unwrap_or_default()).split_whitespace().any(|other| other == name)
    };
    let mut put = |controller: &'static str, first: Vec<Change>, later: Result<Vec<Change>>| -> Result<()> {
        if let Some(path) = group.first_with(controller) {
            if !first.is_empty() {
                all.push((path, first));
            }
            return Ok(());
        }
        let name = if controller == "blkio" { "io" } else { controller };
        if first.is_empty() && later.as_ref().is_ok_and(Vec::is_empty) {
            return Ok(());
        }
        let changes = if group.first.is_empty() || is_offered(name) { later? } else { first };
        match second {
            _ if changes.is_empty() => Ok(()),
            Some(path) if is_offered(name) => {
                all.push((path, changes));
                Ok(())
            }
            _ => Err(Error::Host {
                what: format!("this host has no control group for {name}"),
                hint: "leave the limit out, or let the controller be delegated to this user".to_owned(),
            }),
        }
    };
    if let Some(memory) = resources.memory() {
        put("memory", memory_first(memory, group), memory_second(memory))?;
    }
    if let Some(cpu) = resources.cpu() {
        put("cpu", cpu_first(cpu), cpu_second(cpu))?;
        let lists = cpuset(cpu);
        put("cpuset", lists.0, Ok(lists.1))?;
    }
    if let Some(pids) = resources.pids() {
        // Zero has always been what is left out; a group in which nothing may start is nobody's wish.
        let limit = if pids.limit() <= 0 { "max".to_owned() } else { pids.limit().to_string() };
        let both = || vec![Change::new("pids.max", &limit)];
        put("pids", both(), Ok(both()))?;
    }
    if let Some(io) = resources.block_io() {
        put("blkio", io_first(io), io_second(io))?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        let (size, number) = (limit.page_size(), limit.limit());
        let reserved = |name: &str| format!("hugetlb.{size}.rsvd.{name}");
        put(
            "hugetlb",
            vec![
                Change::new(format!("hugetlb.{size}.limit_in_bytes"), number),
                Change::optional(reserved("limit_in_bytes"), number),
            ],
            Ok(vec![
                Change::new(format!("hugetlb.{size}.max"), amount(number)),
                Change::optional(reserved("max"), amount(number)),
            ]),
        )?;
    }
    if let Some(network) = resources.network() {
        let none = |field: &'static str| invalid(field, "version 2 of control groups does not have it");
        if let Some(class) = network.class_id() {
            let change = vec![Change::new("net_cls.classid", class)];
            put("net_cls", change, none("linux.resources.network.classID"))?;
        }
        let lines = network.priorities().iter().flatten();
        let lines: Vec<Change> = lines
            .map(|one| Change::new("net_prio.ifpriomap", format!("{} {}", one.name(), one.priority())))
            .collect();
        if !lines.is_empty() {
            put("net_prio", lines, none("linux.resources.network.priorities"))?;
        }
    }
    let mut rdma: Vec<_> = resources.rdma().iter().flatten().collect();
    rdma.sort_by_key(|(name, _)| name.as_str());
    for (name, limit) in rdma {
        let word =
            |word: &str, value: Option<u32>| value.map_or(String::new(), |value| format!(" {word}={value}"));
        let line = format!(
            "{name}{}{}",
            word("hca_handle", limit.hca_handles()),
            word("hca_object", limit.hca_objects())
        );
        let both = || vec![Change::new("rdma.max", &line)];
        put("rdma", both(), Ok(both()))?;
    }
    if let (Some(path), Some(given)) = (second, resources.unified()) {
        let mut given: Vec<_> = given.iter().collect();
        given.sort();
        for (file, value) in given {
            let controller = file.split('.').next().unwrap_or_default();
            if controller != "cgroup" && !is_offered(controller) {
                return invalid(
                    "linux.resources.unified",
                    format!("{file}: there is no controller {controller}"),
                );
            }
            // Several lines are several values.
            let lines = value.lines().map(|line| Change::new(file.as_str(), line)).collect();
            all.push((path, lines));
        }
    }
    Ok(all)
}

/// A number, or no limit.
fn amount(number: i64) -> String {
    if number < 0 { "max".to_owned() } else { number.to_string() }
}

/// The limit of both together may never be below the limit of memory, on the way either.
fn memory_first(memory: &LinuxMemory, group: &OciGroup) -> Vec<Change> {
    let mut all = Vec::new();
    let limit = memory.limit().map(|limit| Change::new("memory.limit_in_bytes", limit));
    // Without a limit of memory there is none of both together.
    let swap = memory.swap().or((memory.limit() == Some(-1)).then_some(-1));
    let swap = swap.map(|swap| (swap, Change::optional("memory.memsw.limit_in_bytes", swap)));
    match (limit, swap) {
        (Some(limit), Some((bytes, swap))) => {
            let folder = group.first_with("memory");
            let now = folder.and_then(|path| fs::read_to_string(path.join("memory.limit_in_bytes")).ok());
            let now = now.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(u64::MAX);
            let raises = u64::try_from(bytes).map_or(true, |bytes| now < bytes);
            all.extend(if raises { [swap, limit] } else { [limit, swap] });
        }
        (limit, swap) => all.extend(limit.into_iter().chain(swap.map(|(_, swap)| swap))),
    }
    all.extend(memory.reservation().map(|bytes| Change::new("memory.soft_limit_in_bytes", bytes)));
    all.extend(memory.kernel_tcp().map(|bytes| Change::optional("memory.kmem.tcp.limit_in_bytes", bytes)));
    all.extend(memory.swappiness().map(|value| Change::new("memory.swappiness", value)));
    if let Some(disabled) = memory.disable_oom_killer() {
        all.push(Change::new("memory.oom_control", u8::from(disabled)));
    }
    all
}

fn memory_second(memory: &LinuxMemory) -> Result<Vec<Change>> {
    const FIELD: &str = "linux.resources.memory";
    if memory.swappiness().is_some() {
        return invalid(FIELD, "swappiness cannot be set in version 2 of control groups");
    }
    if memory.disable_oom_killer() == Some(true) {
        return invalid(FIELD, "disableOOMKiller cannot be set in version 2 of control groups");
    }
    let mut all = Vec::new();
    all.extend(memory.limit().map(|bytes| Change::new("memory.max", amount(bytes))));
    match (memory.swap(), memory.limit()) {
        (None, _) => {}
        (Some(swap), _) if swap < 0 => all.push(Change::optional("memory.swap.max", "max")),
        // What comes on top, where version 1 counts both together.
        (Some(swap), Some(limit)) if limit >= 0 => {
            all.push(Change::optional("memory.swap.max", swap.saturating_sub(limit).max(0)));
        }
        (Some(_), _) => return invalid(FIELD, "swap needs a limit"),
    }
    all.extend(memory.reservation().map(|bytes| Change::new("memory.low", amount(bytes))));
    Ok(all)
}

fn cpu_first(cpu: &LinuxCpu) -> Vec<Change> {
    let mut all = Vec::new();
    // The kernel refuses shares of an idle group.
    let shares = cpu.shares().filter(|shares| *shares > 0 && cpu.idle().unwrap_or(0) == 0);
    all.extend(shares.map(|shares| Change::new("cpu.shares", shares)));
    all.extend(cpu.realtime_period().map(|micros| Change::new("cpu.rt_period_us", micros)));
    all.extend(cpu.realtime_runtime().map(|micros| Change::new("cpu.rt_runtime_us", micros)));
    // A burst is never more than the quota: first out of the way.
    if cpu.burst().is_some() {
        all.push(Change::new("cpu.cfs_burst_us", 0));
    }
    all.extend(
        cpu.period().filter(|micros| *micros > 0).map(|micros| Change::new("cpu.cfs_period_us", micros)),
    );
    all.extend(
        cpu.quota().filter(|micros| *micros != 0).map(|micros| Change::new("cpu.cfs_quota_us", micros)),
    );
    all.extend(
        cpu.burst().filter(|micros| *micros > 0).map(|micros| Change::new("cpu.cfs_burst_us", micros)),
    );
    all.extend(cpu.idle().map(|idle| Change::new("cpu.idle", idle)));
    all
}

fn cpu_second(cpu: &LinuxCpu) -> Result<Vec<Change>> {
    const FIELD: &str = "linux.resources.cpu";
    if cpu.realtime_period().is_some_and(|value| value != 0)
        || cpu.realtime_runtime().is_some_and(|value| value != 0)
    {
        return invalid(FIELD, "real-time limits cannot be set in version 2 of control groups");
    }
    let mut all = Vec::new();
    all.extend(cpu.idle().map(|idle| Change::new("cpu.idle", idle)));
    let shares = cpu.shares().filter(|shares| *shares > 0 && cpu.idle().unwrap_or(0) == 0);
    all.extend(shares.map(|shares| Change::new("cpu.weight", weight(shares))));
    if cpu.burst().is_some() {
        all.push(Change::new("cpu.max.burst", 0));
    }
    let (quota, period) = (cpu.quota().filter(|value| *value != 0), cpu.period().filter(|value| *value != 0));
    match (quota, period) {
        (None, None) => {}
        (quota, None) => all.push(Change::new("cpu.max", amount(quota.unwrap_or(-1)))),
        (quota, Some(period)) => {
            all.push(Change::new("cpu.max", format!("{} {period}", amount(quota.unwrap_or(-1)))));
        }
    }
    all.extend(cpu.burst().filter(|value| *value > 0).map(|micros| Change::new("cpu.max.burst", micros)));
    Ok(all)
}

/// The same words in both versions.
fn cpuset(cpu: &LinuxCpu) -> (Vec<Change>, Vec<Change>) {
    let given = |list: &Option<String>| list.clone().filter(|list| !list.is_empty());
    let both = || {
        let cpus = given(cpu.cpus()).map(|list| Change::new("cpuset.cpus", list));
        cpus.into_iter().chain(given(cpu.mems()).map(|list| Change::new("cpuset.mems", list))).collect()
    };
    (both(), both())
}

fn throttles<'a>(
    list: &'a Option<Vec<LinuxThrottleDevice>>,
    line: impl Fn(&LinuxThrottleDevice) -> Change + 'a,
) -> impl Iterator<Item = Change> + 'a {
    list.iter().flatten().map(line)
}

fn io_first(io: &LinuxBlockIo) -> Vec<Change> {
    let mut all = Vec::new();
    let weight = io.weight().filter(|weight| *weight > 0);
    all.extend(weight.map(|weight| Change::new("blkio.weight", weight).or("blkio.bfq.weight", weight)));
    all.extend(
        io.leaf_weight().filter(|weight| *weight > 0).map(|weight| Change::new("blkio.leaf_weight", weight)),
    );
    for device in io.weight_device().iter().flatten() {
        let line = |weight: u16| format!("{}:{} {weight}", device.major(), device.minor());
        all.extend(device.weight().filter(|weight| *weight > 0).map(|weight| {
            Change::new("blkio.weight_device", line(weight)).or("blkio.bfq.weight_device", line(weight))
        }));
        let leaf = device.leaf_weight().filter(|weight| *weight > 0);
        all.extend(leaf.map(|weight| Change::new("blkio.leaf_weight_device", line(weight))));
    }
    for (list, file) in [
        (io.throttle_read_bps_device(), "blkio.throttle.read_bps_device"),
        (io.throttle_write_bps_device(), "blkio.throttle.write_bps_device"),
        (io.throttle_read_iops_device(), "blkio.throttle.read_iops_device"),
        (io.throttle_write_iops_device(), "blkio.throttle.write_iops_device"),
    ] {
        all.extend(throttles(list, move |device| {
            Change::new(file, format!("{}:{} {}", device.major(), device.minor(), device.rate()))
        }));
    }
    all
}

fn io_second(io: &LinuxBlockIo) -> Result<Vec<Change>> {
    const FIELD: &str = "linux.resources.blockIO";
    let leaf = io.weight_device().iter().flatten().any(|device| device.leaf_weight().unwrap_or(0) > 0);
    if leaf || io.leaf_weight().unwrap_or(0) > 0 {
        return invalid(FIELD, "leaf weights cannot be set in version 2 of control groups");
    }
    /// From 10..1000 to 1..10000.
    fn converted(weight: u16) -> u64 {
        1 + (u64::from(weight).clamp(10, 1000) - 10) * 9999 / 990
    }
    let mut all = Vec::new();
    let weight = io.weight().filter(|weight| *weight > 0);
    all.extend(weight.map(|weight| {
        Change::new("io.bfq.weight", weight).or("io.weight", format!("default {}", converted(weight)))
    }));
    for device in io.weight_device().iter().flatten() {
        let (major, minor) = (device.major(), device.minor());
        all.extend(device.weight().filter(|weight| *weight > 0).map(|weight| {
            Change::new("io.bfq.weight", format!("{major}:{minor} {weight}"))
                .or("io.weight", format!("{major}:{minor} {}", converted(weight)))
        }));
    }
    for (list, word) in [
        (io.throttle_read_bps_device(), "rbps"),
        (io.throttle_write_bps_device(), "wbps"),
        (io.throttle_read_iops_device(), "riops"),
        (io.throttle_write_iops_device(), "wiops"),
    ] {
        all.extend(throttles(list, move |device| {
            // 0 takes the limit away.
            let rate = if device.rate() == 0 { "max".to_owned() } else { device.rate().to_string() };
            Change::new("io.max", format!("{}:{} {word}={rate}", device.major(), device.minor()))
        }));
    }
    Ok(all)
}
