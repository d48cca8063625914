//! What a container uses, as containerd's clients know it: `io.containerd.cgroups.v1.Metrics` and `v2`.

use crate::wire::message;

message! {
    First {
        1 hugetlb: Vec<FirstHuge>,
        2 pids: Option<Pids>,
        3 cpu: Option<FirstCpu>,
        4 memory: Option<FirstMemory>,
        5 blkio: Option<FirstIo>,
        9 oom: Option<FirstOom>,
    }
}

message! {
    FirstHuge {
        1 usage: u64,
        2 max: u64,
        3 failcnt: u64,
        4 pagesize: String,
    }
}

message! {
    /// Of both versions.
    #[derive(Copy)]
    Pids {
        1 current: u64,
        2 limit: u64,
    }
}

message! {
    FirstCpu {
        1 usage: Option<FirstCpuUsage>,
        2 throttling: Option<FirstThrottle>,
    }
}

message! {
    FirstCpuUsage {
        1 total: u64,
        2 kernel: u64,
        3 user: u64,
        4 per_cpu: Vec<u64>,
    }
}

message! {
    #[derive(Copy)]
    FirstThrottle {
        1 periods: u64,
        2 throttled_periods: u64,
        3 throttled_time: u64,
    }
}

message! {
    /// Only what somebody reads: the kubelet and `ctr` take these.
    FirstMemory {
        1 cache: u64,
        2 rss: u64,
        4 mapped_file: u64,
        9 pg_fault: u64,
        10 pg_maj_fault: u64,
        13 inactive_file: u64,
        14 active_file: u64,
        18 total_cache: u64,
        19 total_rss: u64,
        25 total_pg_fault: u64,
        26 total_pg_maj_fault: u64,
        29 total_inactive_file: u64,
        30 total_active_file: u64,
        33 usage: Option<MemoryEntry>,
        34 swap: Option<MemoryEntry>,
        35 kernel: Option<MemoryEntry>,
        36 kernel_tcp: Option<MemoryEntry>,
    }
}

message! {
    #[derive(Copy)]
    MemoryEntry {
        1 limit: u64,
        2 usage: u64,
        3 max: u64,
        4 failcnt: u64,
    }
}

message! {
    #[derive(Copy)]
    FirstOom {
        3 oom_kill: u64,
    }
}

message! {
    FirstIo {
        1 bytes: Vec<FirstIoEntry>,
        2 operations: Vec<FirstIoEntry>,
    }
}

message! {
    FirstIoEntry {
        1 op: String,
        3 major: u64,
        4 minor: u64,
        5 value: u64,
    }
}

message! {
    Second {
        1 pids: Option<Pids>,
        2 cpu: Option<SecondCpu>,
        4 memory: Option<SecondMemory>,
        6 io: Option<SecondIo>,
        7 hugetlb: Vec<SecondHuge>,
        8 memory_events: Option<SecondEvents>,
    }
}

message! {
    /// In microseconds.
    #[derive(Copy)]
    SecondCpu {
        1 usage: u64,
        2 user: u64,
        3 system: u64,
        4 periods: u64,
        5 throttled_periods: u64,
        6 throttled: u64,
    }
}

message! {
    /// Only what somebody reads.
    #[derive(Copy)]
    SecondMemory {
        1 anon: u64,
        2 file: u64,
        7 file_mapped: u64,
        13 inactive_file: u64,
        14 active_file: u64,
        18 pgfault: u64,
        19 pgmajfault: u64,
        32 usage: u64,
        33 usage_limit: u64,
        34 swap_usage: u64,
        35 swap_limit: u64,
        36 max_usage: u64,
    }
}

message! {
    #[derive(Copy)]
    SecondEvents {
        5 oom_kill: u64,
    }
}

message! {
    SecondIo {
        1 usage: Vec<SecondIoEntry>,
    }
}

message! {
    #[derive(Copy)]
    SecondIoEntry {
        1 major: u64,
        2 minor: u64,
        3 read_bytes: u64,
        4 written_bytes: u64,
        5 reads: u64,
        6 writes: u64,
    }
}

message! {
    SecondHuge {
        1 current: u64,
        2 max: u64,
        3 pagesize: String,
    }
}
