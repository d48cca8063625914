//! What the processes of a group use, from the kernel's files of both versions. Nothing is changed here.
//!
//! A group has files only of the controllers that it was made for, so every figure may be missing.

use std::path::Path;
use std::time::Duration;

use super::{Group, files};

/// Figures of one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Time on processors since the group was made.
    pub cpu: Option<Duration>,
    /// Bytes of memory, without files that were read and can be forgotten.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Bytes read from and written to block devices.
    pub block: Option<(u64, u64)>,
}

impl Group {
    /// What its processes use now. What cannot be read is not known.
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        for part in &self.parts {
            let here = if part.unified { second(&part.path) } else { first(&part.path) };
            all.cpu = all.cpu.or(here.cpu);
            all.memory = all.memory.or(here.memory);
            all.pids = all.pids.or(here.pids);
            all.block = all.block.or(here.block);
        }
        all
    }
}

/// Version 1.
fn first(path: &Path) -> Stats {
    Stats {
        cpu: number(path, "cpuacct.usage").map(Duration::from_nanos),
        memory: number(path, "memory.usage_in_bytes")
            .map(|usage| usage.saturating_sub(word(path, "memory.stat", "total_inactive_file"))),
        pids: number(path, "pids.current"),
        block: text(path, "blkio.throttle.io_service_bytes").map(|text| operations(&text)),
    }
}

/// Version 2.
fn second(path: &Path) -> Stats {
    let cpu = text(path, "cpu.stat").map(|text| Duration::from_micros(files::field(&text, "usage_usec")));
    Stats {
        cpu,
        memory: number(path, "memory.current")
            .map(|usage| usage.saturating_sub(word(path, "memory.stat", "inactive_file"))),
        pids: number(path, "pids.current"),
        block: text(path, "io.stat").map(|text| pairs(&text)),
    }
}

fn text(path: &Path, file: &str) -> Option<String> {
    fs_err::read_to_string(path.join(file)).ok()
}

fn number(path: &Path, file: &str) -> Option<u64> {
    text(path, file)?.trim().parse().ok()
}

fn word(path: &Path, file: &str, name: &str) -> u64 {
    files::field(&text(path, file).unwrap_or_default(), name)
}

/// `8:0 Read 4096` and `8:0 Write 0`, for each device.
fn operations(text: &str) -> (u64, u64) {
    let sum = |operation: &str| {
        let values = text.lines().filter_map(|line| line.rsplit_once(' '));
        let of_this = values.filter(|(head, _)| head.ends_with(operation));
        of_this.filter_map(|(_, value)| value.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    (sum(" Read"), sum(" Write"))
}

/// `8:0 rbytes=4096 wbytes=0 rios=1 ...`, for each device.
fn pairs(text: &str) -> (u64, u64) {
    let sum = |name: &str| {
        let values = text.split_ascii_whitespace().filter_map(|word| word.strip_prefix(name));
        values.filter_map(|value| value.parse::<u64>().ok()).fold(0, u64::saturating_add)
    };
    (sum("rbytes="), sum("wbytes="))
}

#[cfg(test)]
mod tests {
    use super::super::{Controller, Part};
    use super::*;

    fn group(files: &[(&str, &str)], unified: bool) -> (tempfile::TempDir, Group) {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs_err::write(dir.path().join(name), content).unwrap();
        }
        let part = Part { path: dir.path().to_owned(), controllers: Controller::ALL.to_vec(), unified };
        (dir, Group { parts: vec![part] })
    }

    #[test]
    fn version_one() {
        let (_dir, group) = group(
            &[
                ("cpuacct.usage", "1500\n"),
                ("memory.usage_in_bytes", "1000\n"),
                ("memory.stat", "inactive_file 1\ntotal_inactive_file 300\n"),
                ("pids.current", "3\n"),
                ("blkio.throttle.io_service_bytes", "8:0 Read 10\n8:0 Write 4\n8:16 Read 5\nTotal 19\n"),
            ],
            false,
        );
        let cpu = Some(Duration::from_nanos(1500));
        assert_eq!(group.stats(), Stats { cpu, memory: Some(700), pids: Some(3), block: Some((15, 4)) });
    }

    #[test]
    fn version_two() {
        let (_dir, group) = group(
            &[
                ("cpu.stat", "usage_usec 20\nuser_usec 20\n"),
                ("memory.current", "1000\n"),
                ("memory.stat", "anon 1\ninactive_file 300\n"),
                ("io.stat", "8:0 rbytes=7 wbytes=1 rios=1\n8:16 rbytes=1 wbytes=x\n"),
            ],
            true,
        );
        let cpu = Some(Duration::from_micros(20));
        assert_eq!(group.stats(), Stats { cpu, memory: Some(700), pids: None, block: Some((8, 1)) });
    }

    #[test]
    fn what_is_not_there_is_not_known() {
        for unified in [false, true] {
            assert_eq!(
                group(&[("memory.current", "x"), ("pids.current", "-1")], unified).1.stats(),
                Stats::default()
            );
        }
    }
}
