//! Everything a container's first process has to do, worked out and checked before it exists.
//!
//! The specification is read here and nowhere else in the native executor. What this version cannot do is
//! refused, never ignored; resource limits (cgroups) are the exception, see [`crate::native`].

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::{
    Capabilities, Capability, Linux, LinuxDevice, LinuxDeviceType, LinuxNamespaceType, PosixRlimitType,
    Process, Spec,
};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::process::{Resource, Rlimit};

use crate::bundle::{Bundle, Root};
use crate::error::{Error, Result};
use crate::native::dev::Device;
use crate::native::idmap::Maps;
use crate::native::mounts::{self, Context, Step};
use crate::native::paths;
use crate::native::seccomp::Filter;
use crate::native::sys::StringArray;
use crate::stdio::{Stdio, Stream, TerminalSize};

/// The whole plan. File descriptors in it are closed at exec.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) namespaces: Namespaces,
    pub(super) root: Root,
    pub(super) read_only: bool,
    pub(super) context: Context,
    pub(super) mounts: Vec<Step>,
    pub(super) devices: Vec<Device>,
    pub(super) masked: Vec<PathBuf>,
    pub(super) read_only_paths: Vec<PathBuf>,
    pub(super) sysctls: Vec<(PathBuf, String)>,
    pub(super) hostname: Option<String>,
    pub(super) domainname: Option<String>,
    pub(super) stdio: Streams,
    pub(super) user: User,
    pub(super) oom_score_adj: Option<i32>,
    pub(super) rlimits: Vec<(Resource, Rlimit)>,
    pub(super) no_new_privileges: bool,
    pub(super) filter: Option<Filter>,
    pub(super) cwd: PathBuf,
    pub(super) command: Command,
}

/// Which namespaces are made and which are joined.
#[derive(Debug, Default)]
pub(super) struct Namespaces {
    /// `CLONE_NEW*` for the new ones.
    pub(super) new: u64,
    /// Others to join, with their kind.
    pub(super) join: Vec<(OwnedFd, i32)>,
    /// The process namespace to be born in.
    pub(super) pid: Option<OwnedFd>,
    /// The maps of a new user namespace.
    pub(super) maps: Option<Maps>,
    /// Whether the process may set its supplementary groups.
    pub(super) may_set_groups: bool,
}

impl Namespaces {
    pub(super) fn has(&self, kind: i32) -> bool {
        self.new & u64::from(kind.cast_unsigned()) != 0
    }
}

/// The process's three streams.
#[derive(Debug)]
pub(super) enum Streams {
    /// A descriptor above 2 for each, or none to keep what is there.
    Files([Option<OwnedFd>; 3]),
    /// A terminal is to be made.
    Terminal(Option<TerminalSize>),
}

/// Who the process is.
#[derive(Debug)]
pub(super) struct User {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: Vec<u32>,
    pub(super) umask: u32,
    pub(super) capabilities: CapabilityBits,
}

/// Capability sets as bits.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct CapabilityBits {
    pub(super) bounding: u64,
    pub(super) effective: u64,
    pub(super) permitted: u64,
    pub(super) inheritable: u64,
    pub(super) ambient: u64,
}

/// What is executed in the end.
#[derive(Debug)]
pub(super) struct Command {
    /// `process.args[0]`, for messages.
    pub(super) name: String,
    /// Where it may be, in order. Just itself when it contains a slash.
    pub(super) candidates: Vec<CString>,
    pub(super) arguments: StringArray,
    pub(super) environment: StringArray,
}

fn invalid<T>(field: &'static str, reason: impl Into<String>) -> Result<T> {
    Err(Error::InvalidSpec { field, reason: reason.into() })
}

impl Plan {
    /// Reads a bundle. `default_filter` is for a specification without a seccomp profile.
    pub(super) fn new(bundle: &Bundle, stdio: Stdio, default_filter: Option<&Filter>) -> Result<Self> {
        let spec = &bundle.spec;
        let Some(process) = spec.process() else { return invalid("process", "is missing") };
        let Some(linux) = spec.linux() else { return invalid("linux", "is missing") };
        refuse_unsupported(spec, process, linux)?;
        let namespaces = namespaces(linux)?;
        let context = Context {
            user_namespace: namespaces.has(libc::CLONE_NEWUSER),
            new_namespaces: namespaces.new,
            tty_group: namespaces.maps.as_ref().is_none_or(|maps| Maps::has(&maps.gids, 5)),
        };
        let mounts = spec
            .mounts()
            .iter()
            .flatten()
            .map(|mount| mounts::plan(mount, context))
            .collect::<Result<Vec<_>>>()?;
        let filter = match linux.seccomp() {
            Some(profile) => Some(Filter::compile(profile)?),
            None => default_filter.cloned(),
        };
        let Some(cwd) = paths::normal(process.cwd()) else {
            return invalid("process.cwd", format!("{} is not an absolute path", process.cwd().display()));
        };
        if let Root::Dir(path) = &bundle.root
            && !path.is_absolute()
        {
            return invalid("root.path", format!("{} is not an absolute path", path.display()));
        }
        let terminal = matches!(stdio, Stdio::Terminal(_));
        Ok(Self {
            root: bundle.root.clone(),
            read_only: spec.root().as_ref().and_then(oci_spec::runtime::Root::readonly).unwrap_or(false),
            context,
            mounts,
            devices: devices(linux)?,
            masked: clean_paths("linux.maskedPaths", linux.masked_paths().as_deref())?,
            read_only_paths: clean_paths("linux.readonlyPaths", linux.readonly_paths().as_deref())?,
            sysctls: sysctls(linux, &namespaces)?,
            hostname: name("hostname", spec.hostname(), &namespaces)?,
            domainname: name("domainname", spec.domainname(), &namespaces)?,
            stdio: streams(stdio, process)?,
            user: user(process, &namespaces)?,
            oom_score_adj: oom_score_adj(process)?,
            rlimits: rlimits(process)?,
            no_new_privileges: process.no_new_privileges().unwrap_or(false),
            filter,
            cwd,
            command: command(process, terminal)?,
            namespaces,
        })
    }
}

fn refuse_unsupported(spec: &Spec, process: &Process, linux: &Linux) -> Result<()> {
    let reason = "is not supported by this executor";
    let hooks = spec.hooks().as_ref().is_some_and(|hooks| *hooks != oci_spec::runtime::Hooks::default());
    let text = |value: &Option<String>| value.as_deref().is_some_and(|value| !value.is_empty());
    let shared = linux.rootfs_propagation().as_deref().is_some_and(|mode| mode.ends_with("shared"));
    let table = [
        (hooks, "hooks"),
        (text(process.apparmor_profile()), "process.apparmorProfile"),
        (text(process.selinux_label()), "process.selinuxLabel"),
        (process.scheduler().is_some(), "process.scheduler"),
        (process.io_priority().is_some(), "process.ioPriority"),
        (text(linux.mount_label()), "linux.mountLabel"),
        (linux.intel_rdt().is_some(), "linux.intelRdt"),
        (linux.personality().is_some(), "linux.personality"),
        (linux.memory_policy().is_some(), "linux.memoryPolicy"),
        (linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty()), "linux.timeOffsets"),
        (linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty()), "linux.netDevices"),
        (shared, "linux.rootfsPropagation"),
    ];
    table.iter().find(|row| row.0).map_or(Ok(()), |row| invalid(row.1, reason))
}

fn namespaces(linux: &Linux) -> Result<Namespaces> {
    const FIELD: &str = "linux.namespaces";
    let mut found = Namespaces::default();
    for namespace in linux.namespaces().iter().flatten() {
        let kind = match namespace.typ() {
            LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
            LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
            LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
            LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
            LinuxNamespaceType::User => libc::CLONE_NEWUSER,
            LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
            LinuxNamespaceType::Network => libc::CLONE_NEWNET,
            LinuxNamespaceType::Time => {
                return invalid(FIELD, "a time namespace is not supported by this executor");
            }
        };
        let joined = found.join.iter().any(|(_, other)| *other == kind)
            || (kind == libc::CLONE_NEWPID && found.pid.is_some());
        if found.has(kind) || joined {
            return invalid(FIELD, format!("{:?} is there twice", namespace.typ()));
        }
        let Some(path) = namespace.path() else {
            found.new |= u64::from(kind.cast_unsigned());
            continue;
        };
        let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| Error::Io { path: path.clone(), source: errno.into() })?;
        match kind {
            libc::CLONE_NEWNS | libc::CLONE_NEWUSER => {
                return invalid(FIELD, format!("joining the namespace {} is not supported", path.display()));
            }
            libc::CLONE_NEWPID => found.pid = Some(fd),
            _ => found.join.push((fd, kind)),
        }
    }
    if !found.has(libc::CLONE_NEWNS) {
        return invalid(FIELD, "a mount namespace is needed");
    }
    let maps = Maps {
        uids: linux.uid_mappings().clone().unwrap_or_default(),
        gids: linux.gid_mappings().clone().unwrap_or_default(),
    };
    let mapped = !maps.uids.is_empty() && !maps.gids.is_empty();
    match (found.has(libc::CLONE_NEWUSER), mapped) {
        (true, true) => {
            found.may_set_groups = maps.allows_setgroups();
            found.maps = Some(maps);
        }
        (true, false) => return invalid("linux.uidMappings", "a user namespace needs id mappings"),
        (false, _) if !rustix::process::geteuid().is_root() => {
            return Err(Error::Host {
                what: "containers need root or a user namespace".to_owned(),
                hint: "add a user namespace with id mappings to the specification".to_owned(),
            });
        }
        (false, _) => found.may_set_groups = true,
    }
    Ok(found)
}

fn devices(linux: &Linux) -> Result<Vec<Device>> {
    const FIELD: &str = "linux.devices";
    let given = linux.devices().as_deref().unwrap_or_default();
    let mut devices = given.iter().map(device).collect::<Result<Vec<_>>>()?;
    let missing: Vec<_> =
        Device::defaults().filter(|one| devices.iter().all(|other| other.path != one.path)).collect();
    devices.extend(missing);
    return Ok(devices);

    fn device(device: &LinuxDevice) -> Result<Device> {
        let shown = device.path().display();
        let Some(path) = paths::normal(device.path()).filter(|path| path.file_name().is_some()) else {
            return invalid(FIELD, format!("{shown} is not an absolute path"));
        };
        let kind = match device.typ() {
            LinuxDeviceType::B => FileType::BlockDevice,
            LinuxDeviceType::C | LinuxDeviceType::U => FileType::CharacterDevice,
            LinuxDeviceType::P => FileType::Fifo,
            LinuxDeviceType::A => return invalid(FIELD, format!("{shown} has no type")),
        };
        let number = |value: i64| match u32::try_from(value) {
            Ok(number) => Ok(number),
            Err(_) if kind == FileType::Fifo => Ok(0),
            Err(_) => invalid(FIELD, format!("{shown} has the number {value}")),
        };
        Ok(Device {
            kind,
            major: number(device.major())?,
            minor: number(device.minor())?,
            mode: device.file_mode().unwrap_or(0o666) & 0o7777,
            uid: device.uid().unwrap_or(0),
            gid: device.gid().unwrap_or(0),
            path,
        })
    }
}

fn clean_paths(field: &'static str, given: Option<&[String]>) -> Result<Vec<PathBuf>> {
    let clean = |path: &String| match paths::normal(Path::new(path)) {
        Some(path) => Ok(path),
        None => invalid(field, format!("{path} is not an absolute path")),
    };
    given.unwrap_or_default().iter().map(clean).collect()
}

/// Settings that belong to a namespace of the container's own; any other would change the host.
fn sysctls(linux: &Linux, namespaces: &Namespaces) -> Result<Vec<(PathBuf, String)>> {
    const FIELD: &str = "linux.sysctl";
    const IPC: [&str; 8] =
        ["msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced"];
    let mut settings = Vec::new();
    for (key, value) in linux.sysctl().iter().flatten() {
        // The names of interfaces may have dots in them; such keys are written with slashes.
        let path = if key.contains('/') { key.clone() } else { key.replace('.', "/") };
        let mut parts = path.split('/');
        let owner = match (parts.next(), parts.next()) {
            _ if path.split('/').any(|part| matches!(part, "" | "." | "..")) => None,
            (Some("net"), _) => Some(libc::CLONE_NEWNET),
            (Some("fs"), Some("mqueue")) => Some(libc::CLONE_NEWIPC),
            (Some("kernel"), Some(name)) if IPC.contains(&name) => Some(libc::CLONE_NEWIPC),
            (Some("kernel"), Some("domainname" | "hostname")) => Some(libc::CLONE_NEWUTS),
            _ => None,
        };
        let Some(owner) = owner else { return invalid(FIELD, format!("{key} belongs to no namespace")) };
        if !namespaces.has(owner) && namespaces.join.iter().all(|(_, kind)| *kind != owner) {
            return invalid(
                FIELD,
                format!("{key} would change the host: the container shares that namespace"),
            );
        }
        settings.push((Path::new("sys").join(path), value.clone()));
    }
    Ok(settings)
}

fn name(field: &'static str, given: &Option<String>, namespaces: &Namespaces) -> Result<Option<String>> {
    match given {
        Some(name) if name.is_empty() => Ok(None),
        Some(name) if name.len() > 64 => invalid(field, "is longer than 64 bytes"),
        Some(_) if !namespaces.has(libc::CLONE_NEWUTS) => {
            invalid(field, "needs a uts namespace of the container's own")
        }
        Some(name) => Ok(Some(name.clone())),
        None => Ok(None),
    }
}

fn streams(stdio: Stdio, process: &Process) -> Result<Streams> {
    let (stdin, stdout, stderr) = match stdio {
        Stdio::Streams { stdin, stdout, stderr } => (stdin, stdout, stderr),
        Stdio::Terminal(size) => {
            let clamp = |cells: u64| u16::try_from(cells).unwrap_or(u16::MAX);
            let wanted = process.console_size();
            let from_spec =
                wanted.map(|size| TerminalSize { rows: clamp(size.height()), columns: clamp(size.width()) });
            return Ok(Streams::Terminal(size.or(from_spec)));
        }
    };
    Ok(Streams::Files([stream(stdin)?, stream(stdout)?, stream(stderr)?]))
}

fn stream(stream: Stream) -> Result<Option<OwnedFd>> {
    let file =
        |errno: rustix::io::Errno| Error::Setup { action: "open a stream".to_owned(), source: errno.into() };
    Ok(match stream {
        Stream::Inherit => None,
        Stream::Null => {
            let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
            Some(above_stdio(File::from(null.map_err(file)?)).map_err(file)?)
        }
        Stream::File(open) => Some(above_stdio(open).map_err(file)?),
    })
}

/// Streams are put in place one after the other, so none may lie where another goes.
fn above_stdio(file: File) -> rustix::io::Result<OwnedFd> {
    if file.as_raw_fd() > 2 { Ok(file.into()) } else { rustix::io::fcntl_dupfd_cloexec(file.as_fd(), 3) }
}

fn user(process: &Process, namespaces: &Namespaces) -> Result<User> {
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
    Ok(User {
        uid: user.uid(),
        gid: user.gid(),
        groups,
        umask: user.umask().unwrap_or(0o022) & 0o777,
        capabilities: CapabilityBits {
            bounding: bits(sets.map(|sets| sets.bounding())),
            effective: bits(sets.map(|sets| sets.effective())),
            permitted: bits(sets.map(|sets| sets.permitted())),
            inheritable: bits(sets.map(|sets| sets.inheritable())),
            ambient: bits(sets.map(|sets| sets.ambient())),
        },
    })
}

/// In the order of the kernel's numbers.
const CAPABILITIES: [Capability; 41] = [
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

fn capability_bits(set: &Capabilities) -> u64 {
    let numbered = CAPABILITIES.iter().enumerate();
    numbered
        .filter(|(_, capability)| set.contains(capability))
        .fold(0, |bits, (number, _)| bits | 1 << number)
}

fn oom_score_adj(process: &Process) -> Result<Option<i32>> {
    match process.oom_score_adj() {
        Some(value) if !(-1000..=1000).contains(&value) => {
            invalid("process.oomScoreAdj", format!("{value} is not between -1000 and 1000"))
        }
        value => Ok(value),
    }
}

fn rlimits(process: &Process) -> Result<Vec<(Resource, Rlimit)>> {
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

fn command(process: &Process, terminal: bool) -> Result<Command> {
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
fn candidates(name: &str, path: &str) -> Vec<String> {
    if name.is_empty() {
        Vec::new()
    } else if name.contains('/') {
        vec![name.to_owned()]
    } else {
        let folders = path.split(':').filter(|folder| folder.starts_with('/'));
        folders.map(|folder| format!("{}/{name}", folder.trim_end_matches('/'))).collect()
    }
}

#[cfg(test)]
mod tests;
