//! What a group has used: processor time, memory, processes, disks, large pages, and how long it waited for them.
//!
//! The same structure for both versions, with the names of runc's `events`, so that it can be handed on as JSON as it is.
//! What a host does not count is 0 or missing.

use std::collections::BTreeMap;
use std::path::Path;

use fs_err as fs;
use serde::Serialize;

use super::OciGroup;
use crate::cgroup::files;

/// Everything.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Stats {
    /// Processors.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Processes and threads.
    pub pids: Pids,
    /// Disks.
    pub blkio: Io,
    /// Large pages, by their size.
    pub hugetlb: BTreeMap<String, LargePages>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cpu {
    /// How much, in nanoseconds.
    pub usage: CpuUsage,
    /// How often its quota was used up.
    pub throttling: Throttling,
    /// Waiting for processors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Nanoseconds of processor time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct CpuUsage {
    /// All of it.
    pub total: u64,
    /// By processor; version 1 only.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// Of a group with a quota.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Throttling {
    /// Periods that have passed.
    pub periods: u64,
    /// Those in which the quota was used up.
    pub throttled_periods: u64,
    /// Nanoseconds spent waiting for the next one.
    pub throttled_time: u64,
}

/// Memory, in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Memory {
    /// Contents of files.
    pub cache: u64,
    /// All of it.
    pub usage: MemoryEntry,
    /// With swap.
    pub swap: MemoryEntry,
    /// The kernel's, for this group.
    pub kernel: MemoryEntry,
    /// Of that, for connections.
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// The kernel's own list, `memory.stat`.
    pub raw: BTreeMap<String, u64>,
    /// Waiting for memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One kind of memory, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct MemoryEntry {
    /// The most there may be; the largest number is no limit.
    pub limit: u64,
    /// What there is.
    pub usage: u64,
    /// The most there has been.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Processes and threads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pids {
    /// What there is.
    pub current: u64,
    /// The most there may be; 0 is no limit.
    pub limit: u64,
}

/// Disks.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Io {
    /// Bytes.
    pub io_service_bytes_recursive: Vec<IoEntry>,
    /// Operations.
    pub io_serviced_recursive: Vec<IoEntry>,
    /// Waiting for disks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// One number about one disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct IoEntry {
    /// Device number.
    pub major: u64,
    /// Device number.
    pub minor: u64,
    /// `Read`, `Write` and so on.
    pub op: String,
    /// How many.
    pub value: u64,
}

/// Large pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct LargePages {
    /// What there is.
    pub usage: u64,
    /// The most there has been.
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure stall information: shares of time, in percent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    /// Somebody waited.
    pub some: Stall,
    /// Everybody waited.
    pub full: Stall,
}

/// Shares of the last seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Stall {
    /// Of the last 10, in percent.
    pub avg10: f64,
    /// Of the last 60.
    pub avg60: f64,
    /// Of the last 300.
    pub avg300: f64,
    /// Microseconds altogether.
    pub total: u64,
}

impl OciGroup {
    /// What the group has used.
    pub fn stats(&self) -> Stats {
        let mut stats = match &self.second {
            Some(path) => second(path),
            None => Stats::default(),
        };
        if let Some(path) = self.first_with("cpuacct") {
            stats.cpu.usage = usage(path);
        }
        if let Some(path) = self.first_with("cpu") {
            let text = read(path, "cpu.stat");
            stats.cpu.throttling = Throttling {
                periods: word(&text, "nr_periods"),
                throttled_periods: word(&text, "nr_throttled"),
                throttled_time: word(&text, "throttled_time"),
            };
        }
        if let Some(path) = self.first_with("memory") {
            stats.memory = Memory { psi: stats.memory.psi, ..memory(path) };
        }
        if let Some(path) = self.first_with("pids") {
            stats.pids = pids(path);
        }
        if let Some(path) = self.first_with("blkio") {
            stats.blkio = Io { psi: stats.blkio.psi, ..disks(path) };
        }
        if let Some(path) = self.first_with("hugetlb") {
            stats.hugetlb =
                large_pages(path, "limit_in_bytes", ["usage_in_bytes", "max_usage_in_bytes", "failcnt"]);
        }
        stats
    }
}

fn read(path: &Path, file: &str) -> String {
    fs::read_to_string(path.join(file)).unwrap_or_default()
}

/// A file with one number; `max` is the largest.
fn number(path: &Path, file: &str) -> u64 {
    let text = read(path, file);
    if text.trim() == "max" { u64::MAX } else { text.trim().parse().unwrap_or(0) }
}

fn word(text: &str, name: &str) -> u64 {
    files::field(text, name)
}

fn second(path: &Path) -> Stats {
    let cpu = read(path, "cpu.stat");
    let micros = |name: &str| word(&cpu, name).saturating_mul(1000);
    let raw = pairs(&read(path, "memory.stat"));
    let get = |name: &str| raw.get(name).copied().unwrap_or(0);
    let swap = number(path, "memory.swap.current");
    let swap_max = number(path, "memory.swap.max");
    let (current, limit) = (number(path, "memory.current"), number(path, "memory.max"));
    let events = read(path, "memory.events");
    let memory = Memory {
        cache: get("file"),
        usage: MemoryEntry {
            limit,
            usage: current,
            max: number(path, "memory.peak"),
            failcnt: word(&events, "max"),
        },
        // Together, as version 1 counts.
        swap: MemoryEntry {
            limit: limit.saturating_add(swap_max),
            usage: current.saturating_add(swap),
            max: number(path, "memory.swap.peak"),
            failcnt: 0,
        },
        kernel: MemoryEntry { usage: get("kernel"), ..MemoryEntry::default() },
        kernel_tcp: MemoryEntry { usage: get("sock"), ..MemoryEntry::default() },
        psi: pressure(path, "memory.pressure"),
        raw,
    };
    Stats {
        cpu: Cpu {
            usage: CpuUsage {
                total: micros("usage_usec"),
                percpu: Vec::new(),
                kernel: micros("system_usec"),
                user: micros("user_usec"),
            },
            throttling: Throttling {
                periods: word(&cpu, "nr_periods"),
                throttled_periods: word(&cpu, "nr_throttled"),
                throttled_time: micros("throttled_usec"),
            },
            psi: pressure(path, "cpu.pressure"),
        },
        memory,
        pids: pids(path),
        blkio: io_stat(&read(path, "io.stat"), pressure(path, "io.pressure")),
        hugetlb: large_pages(path, "max", ["current", "", ""]),
    }
}

fn usage(path: &Path) -> CpuUsage {
    // In 1/100 of a second, which is what user space is told on every architecture.
    let ticks = |text: &str, name: &str| word(text, name).saturating_mul(10_000_000);
    let text = read(path, "cpuacct.stat");
    let each = read(path, "cpuacct.usage_percpu");
    CpuUsage {
        total: number(path, "cpuacct.usage"),
        percpu: each.split_whitespace().filter_map(|number| number.parse().ok()).collect(),
        kernel: ticks(&text, "system"),
        user: ticks(&text, "user"),
    }
}

fn memory(path: &Path) -> Memory {
    let entry = |name: &str| MemoryEntry {
        limit: number(path, &format!("{name}.limit_in_bytes")),
        usage: number(path, &format!("{name}.usage_in_bytes")),
        max: number(path, &format!("{name}.max_usage_in_bytes")),
        failcnt: number(path, &format!("{name}.failcnt")),
    };
    let raw = pairs(&read(path, "memory.stat"));
    Memory {
        cache: raw.get("total_cache").or(raw.get("cache")).copied().unwrap_or(0),
        usage: entry("memory"),
        swap: entry("memory.memsw"),
        kernel: entry("memory.kmem"),
        kernel_tcp: entry("memory.kmem.tcp"),
        raw,
        psi: None,
    }
}

fn pids(path: &Path) -> Pids {
    let limit = number(path, "pids.max");
    Pids { current: number(path, "pids.current"), limit: if limit == u64::MAX { 0 } else { limit } }
}

/// `name number` in each line.
fn pairs(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, number) = line.split_once(' ')?;
        Some((name.to_owned(), number.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 ...`
fn io_stat(text: &str, psi: Option<Pressure>) -> Io {
    let mut io = Io { psi, ..Io::default() };
    for line in text.lines() {
        let mut words = line.split(' ');
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for word in words {
            let Some((name, value)) = word.split_once('=') else { continue };
            let (list, op) = match name {
                "rbytes" => (&mut io.io_service_bytes_recursive, "Read"),
                "wbytes" => (&mut io.io_service_bytes_recursive, "Write"),
                "rios" => (&mut io.io_serviced_recursive, "Read"),
                "wios" => (&mut io.io_serviced_recursive, "Write"),
                _ => continue,
            };
            list.push(IoEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
        }
    }
    io
}

/// `8:0 Read 4096` in each line; the scheduler's own files where there are some.
fn disks(path: &Path) -> Io {
    let list = |files: [&str; 3]| {
        let text = files
            .iter()
            .map(|file| read(path, file))
            .find(|text| text.lines().count() > 1)
            .unwrap_or_default();
        let entry = |line: &str| {
            let mut words = line.split(' ');
            let (major, minor) = device(words.next()?)?;
            let (op, value) = (words.next()?.to_owned(), words.next()?.parse().ok()?);
            Some(IoEntry { major, minor, op, value })
        };
        text.lines().filter_map(entry).collect()
    };
    Io {
        io_service_bytes_recursive: list([
            "blkio.bfq.io_service_bytes_recursive",
            "blkio.io_service_bytes_recursive",
            "blkio.throttle.io_service_bytes_recursive",
        ]),
        io_serviced_recursive: list([
            "blkio.bfq.io_serviced_recursive",
            "blkio.io_serviced_recursive",
            "blkio.throttle.io_serviced_recursive",
        ]),
        psi: None,
    }
}

/// For every size that has a limit file.
fn large_pages(path: &Path, limit: &str, [usage, max, failures]: [&str; 3]) -> BTreeMap<String, LargePages> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let size = name.strip_prefix("hugetlb.")?.strip_suffix(limit)?.strip_suffix('.')?;
        (!size.contains('.')).then(|| size.to_owned())
    });
    let value = |size: &str, file: &str| {
        if file.is_empty() { 0 } else { number(path, &format!("hugetlb.{size}.{file}")) }
    };
    sizes
        .map(|size| {
            let pages = LargePages {
                usage: value(&size, usage),
                max: value(&size, max),
                failcnt: value(&size, failures),
            };
            (size, pages)
        })
        .collect()
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn pressure(path: &Path, file: &str) -> Option<Pressure> {
    let text = fs::read_to_string(path.join(file)).ok()?;
    let stall = |kind: &str| {
        let mut stall = Stall::default();
        let line = text.lines().find_map(|line| line.strip_prefix(kind)).unwrap_or_default();
        for (name, value) in line.split_whitespace().filter_map(|word| word.split_once('=')) {
            let share = value.parse().unwrap_or(0.0);
            match name {
                "avg10" => stall.avg10 = share,
                "avg60" => stall.avg60 = share,
                "avg300" => stall.avg300 = share,
                "total" => stall.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        stall
    };
    Some(Pressure { some: stall("some "), full: stall("full ") })
}
