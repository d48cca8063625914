//! What a container's group has used, as a message of the version of control groups that this host has.

use std::collections::BTreeMap;

use dhow_runtime::cgroup::oci::stats::{IoEntry, MemoryEntry as Entry, Stats};

use crate::messages::Any;
use crate::messages::metrics::{
    First, FirstCpu, FirstCpuUsage, FirstHuge, FirstIo, FirstIoEntry, FirstMemory, FirstOom, FirstThrottle,
    MemoryEntry, Pids, Second, SecondCpu, SecondEvents, SecondHuge, SecondIo, SecondIoEntry, SecondMemory,
};

/// The message; `kills` is how many processes the kernel has ended for want of memory.
pub(crate) fn of(stats: &Stats, is_unified: bool, kills: u64) -> Any {
    if is_unified {
        Any::of("io.containerd.cgroups.v2.Metrics", &second(stats, kills))
    } else {
        Any::of("io.containerd.cgroups.v1.Metrics", &first(stats, kills))
    }
}

fn entry(entry: &Entry) -> MemoryEntry {
    MemoryEntry { limit: entry.limit, usage: entry.usage, max: entry.max, failcnt: entry.failcnt }
}

fn pids(stats: &Stats) -> Pids {
    Pids { current: stats.pids.current, limit: stats.pids.limit }
}

fn first(stats: &Stats, kills: u64) -> First {
    let raw = |name: &str| stats.memory.raw.get(name).copied().unwrap_or(0);
    let io = |entries: &[IoEntry]| {
        let entry = |entry: &IoEntry| FirstIoEntry {
            op: entry.op.clone(),
            major: entry.major,
            minor: entry.minor,
            value: entry.value,
        };
        entries.iter().map(entry).collect()
    };
    let huge = |(pagesize, pages): (&String, &dhow_runtime::cgroup::oci::stats::LargePages)| FirstHuge {
        usage: pages.usage,
        max: pages.max,
        failcnt: pages.failcnt,
        pagesize: pagesize.clone(),
    };
    First {
        hugetlb: stats.hugetlb.iter().map(huge).collect(),
        pids: Some(pids(stats)),
        cpu: Some(FirstCpu {
            usage: Some(FirstCpuUsage {
                total: stats.cpu.usage.total,
                kernel: stats.cpu.usage.kernel,
                user: stats.cpu.usage.user,
                per_cpu: stats.cpu.usage.percpu.clone(),
            }),
            throttling: Some(FirstThrottle {
                periods: stats.cpu.throttling.periods,
                throttled_periods: stats.cpu.throttling.throttled_periods,
                throttled_time: stats.cpu.throttling.throttled_time,
            }),
        }),
        memory: Some(FirstMemory {
            cache: raw("cache"),
            rss: raw("rss"),
            mapped_file: raw("mapped_file"),
            pg_fault: raw("pgfault"),
            pg_maj_fault: raw("pgmajfault"),
            inactive_file: raw("inactive_file"),
            active_file: raw("active_file"),
            total_cache: raw("total_cache"),
            total_rss: raw("total_rss"),
            total_pg_fault: raw("total_pgfault"),
            total_pg_maj_fault: raw("total_pgmajfault"),
            total_inactive_file: raw("total_inactive_file"),
            total_active_file: raw("total_active_file"),
            usage: Some(entry(&stats.memory.usage)),
            swap: Some(entry(&stats.memory.swap)),
            kernel: Some(entry(&stats.memory.kernel)),
            kernel_tcp: Some(entry(&stats.memory.kernel_tcp)),
        }),
        blkio: Some(FirstIo {
            bytes: io(&stats.blkio.io_service_bytes_recursive),
            operations: io(&stats.blkio.io_serviced_recursive),
        }),
        oom: Some(FirstOom { oom_kill: kills }),
    }
}

fn second(stats: &Stats, kills: u64) -> Second {
    let raw = |name: &str| stats.memory.raw.get(name).copied().unwrap_or(0);
    let micro = |nanoseconds: u64| nanoseconds / 1000;
    let huge = |(pagesize, pages): (&String, &dhow_runtime::cgroup::oci::stats::LargePages)| SecondHuge {
        current: pages.usage,
        max: pages.max,
        pagesize: pagesize.clone(),
    };
    Second {
        pids: Some(pids(stats)),
        cpu: Some(SecondCpu {
            usage: micro(stats.cpu.usage.total),
            user: micro(stats.cpu.usage.user),
            system: micro(stats.cpu.usage.kernel),
            periods: stats.cpu.throttling.periods,
            throttled_periods: stats.cpu.throttling.throttled_periods,
            throttled: micro(stats.cpu.throttling.throttled_time),
        }),
        memory: Some(SecondMemory {
            anon: raw("anon"),
            file: raw("file"),
            file_mapped: raw("file_mapped"),
            inactive_file: raw("inactive_file"),
            active_file: raw("active_file"),
            pgfault: raw("pgfault"),
            pgmajfault: raw("pgmajfault"),
            usage: stats.memory.usage.usage,
            usage_limit: stats.memory.usage.limit,
            swap_usage: stats.memory.swap.usage,
            swap_limit: stats.memory.swap.limit,
            max_usage: stats.memory.usage.max,
        }),
        io: Some(SecondIo { usage: disks(stats) }),
        hugetlb: stats.hugetlb.iter().map(huge).collect(),
        memory_events: Some(SecondEvents { oom_kill: kills }),
    }
}

/// One line for each disk.
fn disks(stats: &Stats) -> Vec<SecondIoEntry> {
    let mut disks: BTreeMap<(u64, u64), SecondIoEntry> = BTreeMap::new();
    let mut add = |entries: &[IoEntry],
                   read: fn(&mut SecondIoEntry) -> &mut u64,
                   write: fn(&mut SecondIoEntry) -> &mut u64| {
        for entry in entries {
            let disk = disks.entry((entry.major, entry.minor)).or_default();
            (disk.major, disk.minor) = (entry.major, entry.minor);
            if entry.op.eq_ignore_ascii_case("read") {
                *read(disk) += entry.value;
            } else if entry.op.eq_ignore_ascii_case("write") {
                *write(disk) += entry.value;
            }
        }
    };
    add(&stats.blkio.io_service_bytes_recursive, |disk| &mut disk.read_bytes, |disk| &mut disk.written_bytes);
    add(&stats.blkio.io_serviced_recursive, |disk| &mut disk.reads, |disk| &mut disk.writes);
    disks.into_values().collect()
}
