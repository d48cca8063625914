//! `process`: who it is, its limits, and what is executed in the end.

use std::ffi::CString;

use oci_spec::runtime::{Capabilities, Capability, PosixRlimitType, Process};
use rustix::process::{Resource, Rlimit};

use super::invalid;
use super::namespaces::Namespaces;
use crate::error::{Error, Result};
use crate::native::idmap::Maps;
use crate::native::sys::StringArray;

/// Who the process is.
#[derive(Debug)]
pub(in crate::native) struct User {
    pub(in crate::native) uid: u32,
    pub(in crate::native) gid: u32,
    pub(in crate::native) groups: Vec<u32>,
    pub(in crate::native) umask: u32,
    pub(in crate::native) capabilities: CapabilityBits,
}

/// Capability sets as bits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(in crate::native) struct CapabilityBits {
    pub(in crate::native) bounding: u64,
    pub(in crate::native) effective: u64,
    pub(in crate::native) permitted: u64,
    pub(in crate::native) inheritable: u64,
    pub(in crate::native) ambient: u64,
}

/// What is executed in the end.
#[derive(Debug)]
pub(in crate::native) struct Command {
    /// `process.args[0]`, for messages.
    pub(in crate::native) name: String,
    /// Where it may be, in order. Just itself when it contains a slash.
    pub(in crate::native) candidates: Vec<CString>,
    pub(in crate::native) arguments: StringArray,
    pub(in crate::native) environment: StringArray,
}

pub(super) fn user(process: &Process, namespaces: &Namespaces) -> Result<User> {
    const FIELD: &str = "process.user";
    let user = process.user();
    let groups = user.additional_gids().clone().unwrap_or_default();
    // The kernel reads this as "leave it as it is", which would be root.
    if user.uid() == u32::MAX || user.gid() == u32::MAX || groups.contains(&u32::MAX) {
        return invalid(FIELD, format!("{} is no user or group id", u32::MAX));
    }
    let mut groups = groups;
    if let Some(maps) = &namespaces.maps {
        if !Maps::has(&maps.uids, user.uid()) || !Maps::has(&maps.gids, user.gid()) {
            return Err(Error::Host {
                what: format!("user {}:{} does not exist in this user namespace", user.uid(), user.gid()),
                hint: "give this user subordinate ids in /etc/subuid and /etc/subgid, or run as root"
                    .to_owned(),
            });
        }
        // An image's groups that have no counterpart here cannot own anything here either.
        groups.retain(|group| Maps::has(&maps.gids, *group));
    }
    let sets = process.capabilities().as_ref();
    let bits = |set: Option<&Option<Capabilities>>| set.and_then(Option::as_ref).map_or(0, capability_bits);
    let capabilities = CapabilityBits {
        bounding: bits(sets.map(|sets| sets.bounding())),
        effective: bits(sets.map(|sets| sets.effective())),
        permitted: bits(sets.map(|sets| sets.permitted())),
        inheritable: bits(sets.map(|sets| sets.inheritable())),
        ambient: bits(sets.map(|sets| sets.ambient())),
    };
    let beyond = capabilities.inheritable & !capabilities.bounding;
    if let Some(name) = CAPABILITIES.get(beyond.trailing_zeros() as usize) {
        let reason = format!("{name} is not in the bounding set: operation not permitted");
        return invalid("process.capabilities.inheritable", reason);
    }
    Ok(User {
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask().unwrap_or(0o022) & 0o777,
        capabilities,
    })
}

/// In the order of the kernel's numbers.
pub(in crate::native) const CAPABILITIES: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

pub(super) fn capability_bits(set: &Capabilities) -> u64 {
    let numbered = CAPABILITIES.iter().enumerate();
    numbered
        .filter(|(_, capability)| set.contains(capability))
        .fold(0, |bits, (number, _)| bits | 1 << number)
}

pub(super) fn oom_score_adj(process: &Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(value) if !(-1000..=1000).contains(&value) => {
            invalid("process.oomScoreAdj", format!("{value} is not between -1000 and 1000"))
        }
        value => Ok(value),
    }
}

pub(super) fn rlimits(process: &Process) -> Result<Vec<(Resource, Rlimit)>> {
    let mut limits: Vec<(Resource, Rlimit)> = Vec::new();
    for limit in process.rlimits().iter().flatten() {
        let resource = resource(limit.typ());
        if limits.iter().any(|(other, _)| *other == resource) {
            return invalid("process.rlimits", format!("{} is there twice", limit.typ()));
        }
        if limit.soft() > limit.hard() {
            return invalid(
                "process.rlimits",
                format!("the soft limit of {} is above the hard one", limit.typ()),
            );
        }
        let value = |number: u64| (number != u64::MAX).then_some(number);
        limits.push((resource, Rlimit { current: value(limit.soft()), maximum: value(limit.hard()) }));
    }
    Ok(limits)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

pub(super) fn command(process: &Process, terminal: bool) -> Result<Command> {
    let args = process.args().as_deref().unwrap_or_default();
    let env = process.env().as_deref().unwrap_or_default();
    let Some(name) = args.first() else { return invalid("process.args", "is empty") };
    let strings = |field: &'static str, list: &[String]| {
        let string = |text: &String| match CString::new(text.as_str()) {
            Ok(string) => Ok(string),
            Err(_) => invalid(field, "has a NUL in it"),
        };
        list.iter().map(string).collect::<Result<Vec<_>>>()
    };
    let mut environment = strings("process.env", env)?;
    if terminal && !env.iter().any(|entry| entry.starts_with("TERM=")) {
        environment.push(c"TERM=xterm".to_owned());
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
    let candidates = candidates(name, path);
    Ok(Command {
        candidates: strings("process.args", &candidates)?,
        name: name.clone(),
        arguments: StringArray::new(strings("process.args", args)?),
        environment: StringArray::new(environment),
    })
}

/// Where a command may be. Folders of `PATH` that are not absolute are left out: they would mean the working
/// directory, which is not the user's.
pub(super) fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.is_empty() {
        Vec::new()
    } else if name.contains('/') {
        vec![name.to_owned()]
    } else {
        let folders = path.split(':').filter(|folder| folder.starts_with('/'));
        folders.map(|folder| format!("{}/{name}", folder.trim_end_matches('/'))).collect()
    }
}
