//! The kernel's files: which ones say a limit, in which words, for both versions.

use std::io::{self, Write as _};
use std::path::Path;

use oci_spec::runtime::LinuxResources;

use super::Controller;

/// Writes a value in one call, as the kernel wants it. Never makes a file.
pub(crate) fn write(path: &Path, value: &str) -> io::Result<()> {
    std::fs::OpenOptions::new().write(true).open(path)?.write_all(value.as_bytes())
}

/// Writes values, one after the other and each in one call. Never makes a file.
pub(crate) fn write_all(path: &Path, values: &[String]) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).open(path)?;
    values.iter().try_for_each(|value| file.write_all(value.as_bytes()))
}

/// The number behind a word, in the kernel's lists of `word number`; 0 where it is missing.
pub(super) fn field(text: &str, word: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(word)?.strip_prefix(' '));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

/// File, value, and whether the file may be missing; in the order in which they must be written.
pub(super) fn values(
    controller: Controller,
    unified: bool,
    resources: &LinuxResources,
) -> Vec<(&'static str, String, bool)> {
    let mut all = Vec::new();
    let mut add = |file, value: String, optional| all.push((file, value, optional));
    match controller {
        Controller::Memory => {
            let memory = resources.memory().as_ref();
            let (limit, swap) = memory.map_or((None, None), |memory| (memory.limit(), memory.swap()));
            let Some(limit) = limit else { return all };
            add(if unified { "memory.max" } else { "memory.limit_in_bytes" }, amount(limit, unified), false);
            match (swap, unified) {
                (None, _) => {}
                // What comes on top, where version 1 counts both together.
                (Some(swap), true) => {
                    let more = if swap < 0 { -1 } else { (swap - limit).max(0) };
                    add("memory.swap.max", amount(more, true), true);
                }
                (Some(swap), false) => add("memory.memsw.limit_in_bytes", amount(swap, false), true),
            }
        }
        Controller::Cpu => {
            let Some(cpu) = resources.cpu() else { return all };
            if let Some(shares) = cpu.shares() {
                let (file, value) =
                    if unified { ("cpu.weight", weight(shares)) } else { ("cpu.shares", shares) };
                add(file, value.to_string(), false);
            }
            let (quota, period) = (cpu.quota(), cpu.period());
            if unified && (quota.is_some() || period.is_some()) {
                let quota = quota.map_or("max".to_owned(), |quota| amount(quota, true));
                add("cpu.max", format!("{quota} {}", period.unwrap_or(100_000)), false);
            } else {
                if let Some(period) = period {
                    add("cpu.cfs_period_us", period.to_string(), false);
                }
                if let Some(quota) = quota {
                    add("cpu.cfs_quota_us", quota.to_string(), false);
                }
            }
        }
        Controller::Cpuset => {
            if let Some(cpus) = resources.cpu().as_ref().and_then(|cpu| cpu.cpus().clone()) {
                add("cpuset.cpus", cpus, false);
            }
        }
        Controller::Pids => {
            if let Some(pids) = resources.pids() {
                let limit = if pids.limit() > 0 { pids.limit().to_string() } else { "max".to_owned() };
                add("pids.max", limit, false);
            }
        }
    }
    all
}

/// A number, or no limit.
fn amount(number: i64, unified: bool) -> String {
    if number < 0 && unified { "max".to_owned() } else { number.to_string() }
}

/// Version 1's shares, 2 to 262144, as version 2's weight, 1 to 10000: the mapping that runc and systemd use.
pub(super) fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// `0-3,7`: the kernel's lists of processors and memory nodes, all below `end`. An empty one is an empty list.
pub(crate) fn number_list(text: &str, end: u32) -> Option<Vec<u32>> {
    let mut numbers = Vec::new();
    let number = |text: &str| text.trim().parse::<u32>().ok().filter(|number| *number < end);
    for part in text.split(',').filter(|_| !text.trim().is_empty()) {
        match part.split_once('-') {
            Some((first, last)) => {
                let (first, last) = (number(first)?, number(last)?);
                if first > last {
                    return None;
                }
                numbers.extend(first..=last);
            }
            None => numbers.push(number(part)?),
        }
    }
    Some(numbers)
}
