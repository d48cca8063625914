//! `process.execCPUAffinity`: on which processors a process that joins a container may run, before and after it is in the
//! container's control group. Of no concern to a container's first process.

use oci_spec::runtime::{ExecCPUAffinity, Process};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cgroup::files::number_list;
use crate::error::{Error, Result};
use crate::native::report::{Doing, Failure};

/// Both lists; none is whatever it was.
#[derive(Debug, Default)]
pub(in crate::native) struct Affinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

/// The lists of a process: the one to begin with and the last one, without the empty ones.
///
/// # Errors
/// When one is no list of processors.
pub(crate) fn lists(process: &Process) -> Result<[Vec<u32>; 2]> {
    let wanted = process.exec_cpu_affinity().as_ref();
    let list = |text: Option<&String>| {
        let text = text.map(String::as_str).unwrap_or_default();
        let most = u32::try_from(CpuSet::MAX_CPU).unwrap_or(u32::MAX);
        number_list(text, most).ok_or_else(|| Error::InvalidSpec {
            field: "process.execCPUAffinity",
            reason: format!("{text:?} is no list of processors"),
        })
    };
    let of =
        |get: fn(&ExecCPUAffinity) -> &Option<String>| list(wanted.and_then(|wanted| get(wanted).as_ref()));
    Ok([of(ExecCPUAffinity::initial)?, of(ExecCPUAffinity::cpu_affinity_final)?])
}

impl Affinity {
    pub(in crate::native) fn plan(process: &Process) -> Result<Self> {
        let [initial, last] = lists(process)?.map(|list| {
            let mut set = CpuSet::new();
            for cpu in &list {
                set.set(*cpu as usize);
            }
            (!list.is_empty()).then_some(set)
        });
        Ok(Self { initial, last })
    }

    /// Before this process is in its group.
    pub(in crate::native) fn begin(&self) -> std::result::Result<(), Failure> {
        set(self.initial.as_ref())
    }

    /// As soon as it is.
    pub(in crate::native) fn end(&self) -> std::result::Result<(), Failure> {
        set(self.last.as_ref())
    }
}

fn set(wanted: Option<&CpuSet>) -> std::result::Result<(), Failure> {
    let Some(wanted) = wanted else { return Ok(()) };
    sched_setaffinity(None, wanted).doing(|| "choose the processors (process.execCPUAffinity)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_the_kernel_s() {
        for (text, list) in [
            ("0", Some(vec![0])),
            ("0-2,5", Some(vec![0, 1, 2, 5])),
            ("", Some(vec![])),
            ("x", None),
            ("3-1", None),
            ("1024", None),
        ] {
            let mut process = Process::default();
            let json = serde_json::json!({ "initial": "0", "final": "0" });
            let mut affinity: ExecCPUAffinity = serde_json::from_value(json).expect("both");
            affinity.set_initial(Some(text.to_owned())).set_cpu_affinity_final(None);
            process.set_exec_cpu_affinity(Some(affinity));
            assert_eq!(lists(&process).ok(), list.map(|list| [list, Vec::new()]), "{text}");
        }
        assert_eq!(lists(&Process::default()).ok(), Some([Vec::new(), Vec::new()]));
    }
}
