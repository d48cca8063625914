//! What kind of process it is to the kernel: scheduling, io priority, memory policy, execution domain, and labels of
//! security modules.
//!
//! Everything is worked out and checked before the process exists; [`Tuning::apply`] is one call for each thing that
//! was asked for and none for the others. Labels count from exec on: their file is opened while `/proc` is the host's.

pub(crate) mod affinity;

use std::os::fd::OwnedFd;

use oci_spec::runtime::{
    IOPriorityClass, Linux, LinuxIOPriority, LinuxMemoryPolicy, LinuxPersonalityDomain, LinuxSchedulerFlag,
    LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Scheduler,
};
use rustix::fs::{Mode, OFlags};

use crate::cgroup::files::number_list;
use crate::error::{Error, Result};
use crate::native::report::{Doing, Failure};
use crate::native::sys::tune::{self, SchedAttr};

/// The most memory nodes a policy may name.
const MOST_NODES: u32 = 1024;

/// Calls to be made, ready.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tuning {
    scheduler: Option<SchedAttr>,
    io_priority: Option<u16>,
    personality: Option<u32>,
    memory_policy: Option<(u32, Vec<u64>)>,
    label: Option<Label>,
}

/// What a security module is to be told before exec.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Label {
    /// Below `/proc/thread-self/attr`.
    file: &'static str,
    text: String,
}

fn invalid<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field, reason: reason.into() })
}

impl Tuning {
    /// What a process wants. `linux` is missing for one that joins a container: the settings there were for the first.
    pub(super) fn plan(process: &Process, linux: Option<&Linux>) -> Result<Self> {
        let linux_memory = linux.and_then(|linux| linux.memory_policy().as_ref());
        Ok(Self {
            scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
            io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
            personality: linux
                .and_then(|linux| linux.personality().as_ref())
                .map(|wanted| match wanted.flags().as_deref() {
                    None | Some([]) => Ok(match wanted.domain() {
                        LinuxPersonalityDomain::PerLinux => 0,
                        LinuxPersonalityDomain::PerLinux32 => 8,
                    }),
                    Some([flag, ..]) => invalid("linux.personality", format!("no flag is known, not {flag}")),
                })
                .transpose()?,
            memory_policy: linux_memory.map(memory_policy).transpose()?,
            label: label(process)?,
        })
    }

    /// Opens what can only be reached as long as `/proc` is the host's.
    pub(super) fn open_label(&self) -> std::result::Result<Option<OwnedFd>, Failure> {
        let Some(label) = &self.label else { return Ok(None) };
        let path = format!("/proc/thread-self/attr/{}", label.file);
        rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
            .map(Some)
            .doing(|| format!("open {path}"))
    }

    /// Tells the security module what the program to be executed is.
    pub(super) fn write_label(&self, file: Option<&OwnedFd>) -> std::result::Result<(), Failure> {
        let (Some(label), Some(file)) = (&self.label, file) else { return Ok(()) };
        rustix::io::write(file, label.text.as_bytes())
            .map(drop)
            .doing(|| format!("set the label {}", label.text))
    }

    /// Makes the calls. While this process still has its privileges.
    pub(super) fn apply(&self) -> std::result::Result<(), Failure> {
        if let Some(attr) = &self.scheduler {
            tune::sched_setattr(attr).doing(|| "set the scheduler (process.scheduler)")?;
        }
        if let Some(priority) = self.io_priority {
            tune::ioprio_set(priority).doing(|| "set the io priority (process.ioPriority)")?;
        }
        if let Some(domain) = self.personality {
            tune::personality(domain).doing(|| "set the execution domain (linux.personality)")?;
        }
        if let Some((mode, nodes)) = &self.memory_policy {
            tune::set_mempolicy(*mode, nodes).doing(|| "set the memory policy (linux.memoryPolicy)")?;
        }
        Ok(())
    }
}

fn scheduler(wanted: &Scheduler) -> Result<SchedAttr> {
    const FIELD: &str = "process.scheduler";
    let policy = match wanted.policy() {
        LinuxSchedulerPolicy::SchedOther => 0,
        LinuxSchedulerPolicy::SchedFifo => 1,
        LinuxSchedulerPolicy::SchedRr => 2,
        LinuxSchedulerPolicy::SchedBatch => 3,
        LinuxSchedulerPolicy::SchedIso => 4,
        LinuxSchedulerPolicy::SchedIdle => 5,
        LinuxSchedulerPolicy::SchedDeadline => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                LinuxSchedulerFlag::SchedResetOnFork => 0x01,
                LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
                LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
                LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
                LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
                LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
                LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
            }
    });
    let nice = wanted.nice().unwrap_or(0);
    if !(-20..=19).contains(&nice) {
        return invalid(FIELD, format!("nice {nice} is not between -20 and 19"));
    }
    let Ok(priority @ 0..=99) = u32::try_from(wanted.priority().unwrap_or(0)) else {
        return invalid(FIELD, format!("priority {:?} is not between 0 and 99", wanted.priority()));
    };
    let real_time = matches!(policy, 1 | 2);
    if real_time != (priority != 0) {
        return invalid(FIELD, format!("priority {priority} does not go with {:?}", wanted.policy()));
    }
    let (runtime, deadline, period) =
        (wanted.runtime().unwrap_or(0), wanted.deadline().unwrap_or(0), wanted.period().unwrap_or(0));
    if policy != 6 && (runtime, deadline, period) != (0, 0, 0) {
        return invalid(FIELD, "runtime, deadline and period are for SCHED_DEADLINE");
    }
    Ok(SchedAttr { policy, flags, nice, priority, runtime, deadline, period, ..SchedAttr::default() })
}

fn io_priority(wanted: &LinuxIOPriority) -> Result<u16> {
    let class = match wanted.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u16::try_from(wanted.priority()) {
        Ok(level @ 0..=7) => Ok(class << 13 | level),
        _ => invalid("process.ioPriority", format!("priority {} is not between 0 and 7", wanted.priority())),
    }
}

fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<(u32, Vec<u64>)> {
    const FIELD: &str = "linux.memoryPolicy";
    let mode = match wanted.mode() {
        MemoryPolicyModeType::MpolDefault => 0,
        MemoryPolicyModeType::MpolPreferred => 1,
        MemoryPolicyModeType::MpolBind => 2,
        MemoryPolicyModeType::MpolInterleave => 3,
        MemoryPolicyModeType::MpolLocal => 4,
        MemoryPolicyModeType::MpolPreferredMany => 5,
        MemoryPolicyModeType::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |flags, flag| {
        flags
            | match flag {
                MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
                MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
                MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
            }
    });
    if flags >> 14 == 3 {
        return invalid(FIELD, "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other");
    }
    let list = wanted.nodes().as_deref().unwrap_or_default();
    let Some(nodes) = number_list(list, MOST_NODES) else {
        return invalid(FIELD, format!("{list} is no list of memory nodes"));
    };
    let mut mask = Vec::new();
    for node in nodes {
        let word = node as usize / 64;
        if mask.len() <= word {
            mask.resize(word + 1, 0);
        }
        if let Some(word) = mask.get_mut(word) {
            *word |= 1_u64 << (node % 64);
        }
    }
    match (mode, mask.is_empty()) {
        (0 | 4, false) => invalid(FIELD, format!("{:?} takes no nodes", wanted.mode())),
        (2 | 3 | 5 | 6, true) => invalid(FIELD, format!("{:?} needs nodes", wanted.mode())),
        _ => Ok((mode | flags, mask)),
    }
}

/// At most one security module has labels at a time.
fn label(process: &Process) -> Result<Option<Label>> {
    let given = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    if let Some(profile) = given(process.apparmor_profile()) {
        let enabled = fs_err::read_to_string("/sys/module/apparmor/parameters/enabled");
        if enabled.is_ok_and(|enabled| enabled.starts_with('Y')) {
            return Ok(Some(Label { file: "exec", text: format!("exec {profile}") }));
        }
        return invalid("process.apparmorProfile", "this kernel has no AppArmor");
    }
    if let Some(label) = given(process.selinux_label()) {
        if has_selinux() {
            return Ok(Some(Label { file: "exec", text: label }));
        }
        return invalid("process.selinuxLabel", "this host does not use SELinux");
    }
    Ok(None)
}

/// Whether labels of files and processes mean anything here.
fn has_selinux() -> bool {
    fs_err::metadata("/sys/fs/selinux/enforce").is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::{LinuxIOPriorityBuilder, LinuxPersonality};

    #[test]
    fn lists_are_read() {
        for (text, numbers) in [
            ("", Some(vec![])),
            ("0-3,7", Some(vec![0, 1, 2, 3, 7])),
            ("5", Some(vec![5])),
            ("3-1", None),
            ("1,", None),
            ("-1", None),
            ("a", None),
            ("1024", None),
            ("0-4294967295", None),
        ] {
            assert_eq!(number_list(text, 1024), numbers, "{text}");
        }
    }

    fn process(change: impl FnOnce(&mut Process)) -> Result<Tuning> {
        let mut process = Process::default();
        change(&mut process);
        Tuning::plan(&process, None)
    }

    fn schedule(policy: LinuxSchedulerPolicy, change: impl FnOnce(&mut Scheduler)) -> Result<Tuning> {
        let mut scheduler = Scheduler::default();
        scheduler.set_policy(policy);
        change(&mut scheduler);
        process(|process| drop(process.set_scheduler(Some(scheduler)).clone()))
    }

    #[test]
    fn schedulers_are_checked() -> Result<()> {
        use LinuxSchedulerPolicy::{SchedBatch, SchedDeadline, SchedFifo, SchedOther};
        let batch = schedule(SchedBatch, |it| drop(it.set_nice(Some(5)).clone()))?;
        assert_eq!(batch.scheduler, Some(SchedAttr { policy: 3, nice: 5, ..SchedAttr::default() }));
        assert!(schedule(SchedFifo, |_| ()).is_err(), "no priority");
        assert!(schedule(SchedFifo, |it| drop(it.set_priority(Some(100)).clone())).is_err());
        assert!(schedule(SchedOther, |it| drop(it.set_priority(Some(1)).clone())).is_err());
        assert!(schedule(SchedOther, |it| drop(it.set_nice(Some(20)).clone())).is_err());
        assert!(schedule(SchedOther, |it| drop(it.set_runtime(Some(20)).clone())).is_err());
        assert!(schedule(SchedDeadline, |it| drop(it.set_runtime(Some(20)).clone())).is_ok());
        Ok(())
    }

    #[test]
    fn the_rest_is_checked() -> Result<()> {
        let priority = |level: i64| {
            let builder = LinuxIOPriorityBuilder::default().class(IOPriorityClass::IoprioClassIdle);
            io_priority(&builder.priority(level).build().expect("valid"))
        };
        assert_eq!(priority(7)?, 3 << 13 | 7);
        assert!(priority(8).is_err() && priority(-1).is_err());
        let policy = |mode, nodes: &str, flags: &[MemoryPolicyFlagType]| {
            let mut policy = LinuxMemoryPolicy::default();
            policy.set_mode(mode).set_nodes(Some(nodes.to_owned())).set_flags(Some(flags.to_vec()));
            memory_policy(&policy).ok()
        };
        use MemoryPolicyFlagType::{MpolFRelativeNodes, MpolFStaticNodes};
        use MemoryPolicyModeType::{MpolBind, MpolDefault, MpolPreferred};
        assert_eq!(policy(MpolBind, "0,65", &[MpolFStaticNodes]), Some((2 | 1 << 15, vec![1, 2])));
        assert_eq!(policy(MpolBind, "", &[]), None);
        assert_eq!(policy(MpolDefault, "0", &[]), None);
        assert_eq!(policy(MpolPreferred, "", &[]), Some((1, vec![])));
        assert_eq!(policy(MpolBind, "0", &[MpolFStaticNodes, MpolFRelativeNodes]), None);
        assert!(process(|it| drop(it.set_apparmor_profile(Some(String::new())).clone())).is_ok());
        let mut linux = Linux::default();
        let mut domain = LinuxPersonality::default();
        domain.set_domain(LinuxPersonalityDomain::PerLinux32);
        linux.set_personality(Some(domain.clone()));
        assert_eq!(Tuning::plan(&Process::default(), Some(&linux))?.personality, Some(8));
        domain.set_flags(Some(vec!["ADDR_NO_RANDOMIZE".to_owned()]));
        linux.set_personality(Some(domain));
        assert!(Tuning::plan(&Process::default(), Some(&linux)).is_err());
        Ok(())
    }
}
