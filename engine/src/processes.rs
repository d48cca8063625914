//! The processes of a container, as the kernel counts them now (Linux): who they are, and what they use.
//!
//! A Wasm program is one process, and each of its exec sessions another. The processes of a native container are those
//! in its first one's PID namespace and their descendants; without such a namespace, the descendants alone.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use dhow_runtime::Kind;
use fs_err as fs;

use crate::record::Container;

/// A process, from `proc_pid_stat(5)`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    /// Clock ticks on processors, its ended threads included.
    ticks: u64,
    threads: u64,
}

/// What processes use together. What cannot be read of one of them is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Time on processors.
    pub(crate) cpu: Duration,
    /// Bytes of memory that belong to no file.
    pub(crate) memory: u64,
    /// Processes and threads.
    pub(crate) threads: u64,
    /// Bytes read from and written to block devices; `None` where this user may not know.
    pub(crate) block: Option<(u64, u64)>,
}

/// The numbers of a container's processes, the first one first. Empty when it has none.
pub(crate) fn of(container: &Container) -> Vec<u32> {
    let Ok(Some(first)) = container.process() else { return Vec::new() };
    let first = first.pid();
    if container.record.kind == Kind::Wasm {
        let sessions = container.sessions().into_iter().map(|session| session.pid).filter(|pid| *pid != 0);
        return std::iter::once(first).chain(sessions).collect();
    }
    let own = namespace("self");
    let inside = namespace(&first.to_string()).filter(|inside| Some(*inside) != own);
    members(&all(), first, |pid| inside.is_some() && namespace(&pid.to_string()) == inside)
}

/// What these processes use now.
pub(crate) fn usage(pids: &[u32]) -> Usage {
    let second = rustix::param::clock_ticks_per_second().max(1);
    let mut usage = Usage::default();
    let mut ticks = 0u64;
    for pid in pids {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}"));
        if let Some(process) = read("stat").ok().and_then(|text| parse(&text)) {
            ticks = ticks.saturating_add(process.ticks);
            usage.threads += process.threads;
        }
        if let Ok(status) = read("status") {
            let memory = kibibytes(&status, "RssAnon:") + kibibytes(&status, "RssShmem:");
            usage.memory = usage.memory.saturating_add(memory << 10);
        }
        if let Ok(io) = read("io") {
            let (was_read, written) = usage.block.unwrap_or_default();
            let counter = |name: &str| number_after(&io, name).unwrap_or(0);
            usage.block = Some((
                was_read.saturating_add(counter("read_bytes:")),
                written.saturating_add(counter("write_bytes:")),
            ));
        }
    }
    let nanoseconds = u128::from(ticks) * 1_000_000_000 / u128::from(second);
    usage.cpu = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
    usage
}

/// Bytes that this process's network namespace has received and sent, over all devices but the loopback; `None` where
/// that is this process's own namespace, or cannot be known.
pub(crate) fn network(pid: u32) -> Option<(u64, u64)> {
    let namespace = |who: &str| fs::read_link(format!("/proc/{who}/ns/net")).ok();
    let theirs = namespace(&pid.to_string())?;
    if Some(theirs) == namespace("self") {
        return None;
    }
    Some(devices(&fs::read_to_string(format!("/proc/{pid}/net/dev")).ok()?))
}

/// The bytes of memory that this host has.
pub(crate) fn host_memory() -> u64 {
    kibibytes(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") << 10
}

/// Every process.
fn all() -> Vec<Process> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter_map(|pid| parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)).collect()
}

/// The first process, those that `is_inside` knows, and everything that descends from them.
fn members(all: &[Process], first: u32, is_inside: impl Fn(u32) -> bool) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process.pid);
    }
    let mut found = vec![first];
    found.extend(all.iter().map(|process| process.pid).filter(|pid| *pid != first && is_inside(*pid)));
    let mut known: HashSet<u32> = found.iter().copied().collect();
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        for child in children.get(pid).into_iter().flatten() {
            if known.insert(*child) {
                found.push(*child);
            }
        }
        next += 1;
    }
    found[1..].sort_unstable();
    found
}

/// The PID namespace of a process, as the kernel numbers it.
fn namespace(who: &str) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata(format!("/proc/{who}/ns/pid")).ok().map(|meta| meta.ino())
}

fn parse(stat: &str) -> Option<Process> {
    let (pid, _) = stat.split_once(' ')?;
    // The second field is the program's name in parentheses, and may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(14)?.saturating_add(number(15)?),
        threads: number(20)?,
    })
}

/// The first number behind a word at the beginning of a line.
fn number_after(text: &str, word: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(word))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

fn kibibytes(text: &str, word: &str) -> u64 {
    number_after(text, word).unwrap_or(0).min(u64::MAX >> 11)
}

/// The columns `bytes` of both halves of `/proc/net/dev`.
fn devices(text: &str) -> (u64, u64) {
    let mut sums = (0u64, 0u64);
    for line in text.lines() {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let counters: Vec<u64> =
            counters.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect();
        sums.0 = sums.0.saturating_add(counters.first().copied().unwrap_or(0));
        sums.1 = sums.1.saturating_add(counters.get(8).copied().unwrap_or(0));
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: u32, parent: u32) -> Process {
        Process { pid, parent, ticks: 0, threads: 1 }
    }

    #[test]
    fn lines_of_the_kernel() {
        let stat = "42 (a) b (c) S 7 42 42 0 -1 4194560 90 0 0 0 11 22 0 0 20 0 3 0 555 1000 20 0";
        assert_eq!(parse(stat), Some(Process { pid: 42, parent: 7, ticks: 33, threads: 3 }));
        for bad in ["", "42", "42 (x)", "42 (x) S 1", "x (y) S 1 2 3"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        let table = "Inter-|   Receive |  Transmit\n face |bytes packets|bytes\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0\neth1:5 0 0 0 0 0 0 0 1\n";
        assert_eq!(devices(table), (105, 8));
        assert_eq!(kibibytes("MemTotal:       2000 kB\n", "MemTotal:"), 2000);
    }

    #[test]
    fn who_belongs() {
        let all = [process(1, 0), process(5, 1), process(9, 5), process(6, 5), process(7, 1), process(8, 7)];
        assert_eq!(members(&all, 5, |_| false), [5, 6, 9]);
        // Entered from outside, and what that has started.
        assert_eq!(members(&all, 5, |pid| pid == 7), [5, 6, 7, 8, 9]);
        assert_eq!(members(&[], 5, |_| false), [5]);
    }

    #[test]
    fn this_process_uses_something() {
        let usage = usage(&[std::process::id()]);
        assert!(usage.memory > 0 && usage.threads > 0, "{usage:?}");
        assert!(host_memory() > usage.memory);
        assert_eq!(network(std::process::id()), None);
    }
}
