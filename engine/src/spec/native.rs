//! The native part of the specification: user, capabilities, namespaces, Docker's mounts and masks.

use std::collections::HashMap;
use std::path::Path;

use dhow_runtime::native::seccomp::Filter;
use dhow_runtime::native::{self, defaults, idmap};
use dhow_runtime::spec::{
    Capabilities, Capability, LinuxBuilder, LinuxNamespaceType, Mount, PosixRlimit, PosixRlimitBuilder,
    ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};
use dhow_runtime::{Executor, Root, read_files};
use fs_err as fs;

use super::{
    Around, Network, SHM_SIZE, SecurityOption, annotated, asked_mounts, device, environment, invalid,
    profile, security_option, working_dir,
};
use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::mounts;
use crate::record::{Container, Record, Status};
use crate::{resources, user};

/// Where a first process of ours is, in the file system in memory that every container has.
pub(crate) const INIT: &str = "/dev/init";

/// Every capability of Linux 6.
const ALL_CAPABILITIES: [&str; 41] = [
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "SYSLOG",
    "WAKE_ALARM",
];

/// The most of `/etc/passwd` or `/etc/group` that is read. Real ones have a few kilobytes.
const MAX_PASSWD: u64 = 1 << 20;

pub(super) fn validate(host: &HostConfig) -> Result<()> {
    capabilities(host)?;
    rlimits(host)?;
    Ok(())
}

pub(super) fn build(container: &Container, root: &Root, around: &Around) -> Result<Spec> {
    let record = &container.record;
    let host = &record.host_config;
    let network = Network::parse(&host.network_mode)?;
    let [passwd, group] = read_files(root, ["/etc/passwd", "/etc/group"], MAX_PASSWD)?
        .map(|content| String::from_utf8_lossy(&content.unwrap_or_default()).into_owned());
    let identity = user::resolve(&record.config.user, &host.group_add, &passwd, &group)?;

    let (mut no_new_privileges, mut apparmor, mut seccomp) = (false, None, None);
    let mut shows_all = host.privileged;
    for option in &host.security_opt {
        match security_option(option)? {
            SecurityOption::NoNewPrivileges(wanted) => no_new_privileges = wanted,
            SecurityOption::AppArmor(name) => apparmor = Some(name).filter(|name| *name != "unconfined"),
            SecurityOption::Profile(text) => seccomp = Some(text),
            SecurityOption::SystemPaths => shows_all = true,
            SecurityOption::Seccomp(_) | SecurityOption::Nothing => {}
        }
    }
    let capabilities = capabilities(host)?;
    let user = UserBuilder::default()
        .uid(identity.uid)
        .gid(identity.gid)
        .additional_gids(identity.groups.clone())
        .build()
        .map_err(invalid)?;
    let mut sets = defaults::capability_sets(&capabilities);
    if identity.uid != 0 {
        // As exec does it for a user who is not root, and as Docker does; the bounding set stays.
        sets.set_effective(None).set_permitted(None);
    }
    let mut args = record.args.clone();
    if around.init.is_some() {
        args.splice(0..0, [INIT.to_owned(), "--".to_owned()]);
    }
    let mut process = ProcessBuilder::default()
        .terminal(record.config.tty)
        .user(user)
        .args(args)
        .env(environment(record, around, &identity.home))
        .cwd(working_dir(record))
        .capabilities(sets)
        .rlimits(rlimits(host)?)
        .no_new_privileges(no_new_privileges)
        .build()
        .map_err(invalid)?;
    if host.oom_score_adj != 0 {
        process.set_oom_score_adj(i32::try_from(host.oom_score_adj).ok());
    }
    if let Some(profile) = apparmor {
        process.set_apparmor_profile(Some(profile.to_owned()));
    }

    let mut namespaces = defaults::namespaces();
    if network == Network::Host {
        namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::Network);
    }
    let shared = [
        (LinuxNamespaceType::Pid, &host.pid_mode),
        (LinuxNamespaceType::Ipc, &host.ipc_mode),
        (LinuxNamespaceType::Uts, &host.uts_mode),
        (LinuxNamespaceType::Cgroup, &host.cgroupns_mode),
    ];
    for (kind, _) in shared.iter().filter(|(_, mode)| *mode == "host") {
        namespaces.retain(|namespace| namespace.typ() != *kind);
    }
    let joined = &around.joined;
    let others = joined.folder.as_deref();
    for (kind, path) in [
        (LinuxNamespaceType::Network, &joined.network),
        (LinuxNamespaceType::Pid, &joined.pid),
        (LinuxNamespaceType::Ipc, &joined.ipc),
    ] {
        for namespace in namespaces.iter_mut().filter(|one| one.typ() == kind && path.is_some()) {
            namespace.set_path(path.clone());
        }
    }
    let mut linux = LinuxBuilder::default();
    if !shows_all {
        linux = linux
            .masked_paths(defaults::MASKED_PATHS.map(str::to_owned).to_vec())
            .readonly_paths(defaults::READONLY_PATHS.map(str::to_owned).to_vec());
    }
    if let Some(text) = seccomp.filter(|_| !host.privileged) {
        let names =
            capabilities.iter().map(|name| format!("CAP_{}", name.to_string().trim_start_matches("CAP_")));
        let names = names.collect();
        linux = linux.seccomp(profile::read(
            text,
            &profile::Subject { capabilities: &names, kernel: native::kernel() },
        )?);
    }
    let mut sysctls: HashMap<String, String> =
        host.sysctls.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if needs_user_namespace() {
        let mut users = defaults::namespace(LinuxNamespaceType::User);
        // The root of another user namespace may not join what belongs to this one.
        let others = [&joined.network, &joined.pid, &joined.ipc].into_iter().flatten().next();
        if let Some(other) = others {
            users.set_path(Some(other.with_file_name("user")));
        } else {
            let found = idmap::default_maps();
            let maps = found.maps();
            linux = linux.uid_mappings(maps.uids.clone()).gid_mappings(maps.gids.clone());
        }
        namespaces.push(users);
    } else if matches!(network, Network::None | Network::Copied | Network::Ours(_)) {
        for (name, value) in defaults::SYSCTLS {
            sysctls.entry(name.to_owned()).or_insert_with(|| value.to_owned());
        }
    }
    if !sysctls.is_empty() {
        linux = linux.sysctl(sysctls);
    }

    if let Some(resources) = resources::linux(host)? {
        linux = linux.resources(resources);
    }

    let mut all = defaults::mounts(if host.shm_size == 0 { SHM_SIZE } else { host.shm_size });
    share_memory(&mut all, host, around)?;
    if host.privileged {
        open_up(&mut all);
    }
    all.append(&mut device::mounts(host)?);
    if let Some(init) = &around.init {
        all.push(mounts::mount(
            INIT,
            "bind",
            &init.to_string_lossy(),
            &["bind", "ro", "nosuid", "rprivate"],
        )?);
    }
    let mut asked = asked_mounts(record, around)?;
    all.retain(|default| asked.iter().all(|mount| mount.destination() != default.destination()));
    for name in ["resolv.conf", "hostname", "hosts"] {
        let target = format!("/etc/{name}");
        if asked.iter().any(|mount| mount.destination() == Path::new(&target)) {
            continue;
        }
        let shared = others.filter(|_| network != Network::Host).map(|folder| folder.join(name));
        if let Some(source) = shared.filter(|source| source.exists()) {
            // Who shares a network finds the same names.
            all.push(mounts::mount(&target, "bind", &source.to_string_lossy(), &["rbind", "rprivate"])?);
            continue;
        }
        let source = container.folder().join(name);
        // What a running container has made of them is its own: another program in it sees that.
        if !source.exists() || !container.state().is_ok_and(|state| state.status == Status::Running) {
            fs::write(&source, network_file(name, record)?)?;
            fs::set_permissions(&source, std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        }
        all.push(mounts::mount(&target, "bind", &source.to_string_lossy(), &["rbind", "rprivate"])?);
    }
    all.append(&mut asked);
    put_sys_last(&mut all);

    let mut linux = linux.namespaces(namespaces).build().map_err(invalid)?;
    if shows_all {
        // Nothing said would be something in the builder's eyes.
        linux.set_masked_paths(None).set_readonly_paths(None);
    }
    let mut spec = SpecBuilder::default()
        .process(process)
        .root(RootBuilder::default().path("").readonly(host.readonly_rootfs).build().map_err(invalid)?)
        .mounts(all)
        .linux(linux)
        .build()
        .map_err(invalid)?;
    if host.uts_mode == "host" {
        spec.set_hostname(None).set_domainname(None);
    } else {
        spec.set_hostname(Some(record.config.hostname.clone()));
        if !record.config.domainname.is_empty() {
            spec.set_domainname(Some(record.config.domainname.clone()));
        }
    }
    Ok(annotated(spec, host))
}

/// Moves the views of the kernel's devices and of the control groups to the end, so that the executor can make the network and
/// the groups that they show while it makes the other mounts; unless one of those is to be in them.
fn put_sys_last(all: &mut [Mount]) {
    let is_view = |mount: &Mount| matches!(mount.typ().as_deref(), Some("sysfs" | "cgroup"));
    if all.iter().all(|mount| is_view(mount) || !mount.destination().starts_with("/sys")) {
        // The order among themselves stays.
        all.sort_by_key(is_view);
    }
}

/// Where the memory that processes share is: `--ipc`.
fn share_memory(all: &mut Vec<Mount>, host: &HostConfig, around: &Around) -> Result<()> {
    let replace = |all: &mut Vec<Mount>, target: &str, source: &Path| -> Result<()> {
        all.retain(|mount| mount.destination() != Path::new(target));
        all.push(mounts::mount(
            target,
            "bind",
            &source.to_string_lossy(),
            &["bind", "nosuid", "nodev", "noexec", "rprivate"],
        )?);
        Ok(())
    };
    match (host.ipc_mode.as_str(), &around.joined.shm) {
        ("host", _) => {
            for target in ["/dev/shm", "/dev/mqueue"] {
                if Path::new(target).is_dir() {
                    replace(all, target, Path::new(target))?;
                }
            }
        }
        ("none", _) => all.retain(|mount| mount.destination() != Path::new("/dev/shm")),
        (_, Some(folder)) => replace(all, "/dev/shm", folder)?,
        _ => {}
    }
    Ok(())
}

/// What `--privileged` lets a container write to.
fn open_up(all: &mut [Mount]) {
    for mount in all {
        let (closed, open) = match mount.destination().to_str() {
            Some("/sys" | "/sys/fs/cgroup") => ("ro", Some("rw")),
            Some("/dev") => ("nodev", None),
            _ => continue,
        };
        let mut options = mount.options().clone().unwrap_or_default();
        options.retain(|option| option != closed);
        options.extend(open.map(str::to_owned));
        mount.set_options(Some(options));
    }
}

/// The executor with Docker's seccomp profile, unless the user asked for none. Compiled rather than written into the
/// specification, where it would be four hundred names to carry and read again.
pub(crate) fn executor(record: &Record) -> Result<Executor> {
    native_executor(record).map(Executor::Native)
}

/// The same, for what only it can do.
pub(crate) fn native_executor(record: &Record) -> Result<native::Executor> {
    let mut wanted = !record.host_config.privileged;
    for option in &record.host_config.security_opt {
        if let SecurityOption::Seccomp(seccomp) = security_option(option)? {
            wanted = seccomp && !record.host_config.privileged;
        }
    }
    let executor = if wanted {
        let filter = Filter::docker_default(&capabilities(&record.host_config)?)?;
        native::Executor::with_default_filter(filter)
    } else {
        native::Executor::new()
    };
    // To who is to connect it, and has no more rights than itself.
    let visible = match Network::parse(&record.host_config.network_mode)? {
        Network::Copied => true,
        Network::Ours(_) => needs_user_namespace(),
        _ => false,
    };
    let executor = if visible { executor.showing_itself() } else { executor };
    Ok(executor.ending_with_creator())
}

/// Whether this process lacks what making namespaces and mounts takes.
pub(crate) fn needs_user_namespace() -> bool {
    rustix::thread::capabilities(None)
        .is_ok_and(|sets| !sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN))
}

/// Whether this process may make bridges and cables in the namespace it is in.
pub(super) fn may_make_networks() -> bool {
    use rustix::thread::CapabilitySet;
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(needed))
}

/// What Docker keeps in `/etc` of every container, so that names work without the image knowing them.
fn network_file(name: &str, record: &Record) -> Result<String> {
    match name {
        "hostname" => Ok(format!("{}\n", record.config.hostname)),
        // The container's own line is written when it has an address.
        "hosts" => crate::network::files::hosts(record, &[], &[]),
        _ => crate::network::files::resolv_conf(record),
    }
}

/// Docker's arithmetic: the default set, all or more, less what is dropped.
fn capabilities(host: &HostConfig) -> Result<Capabilities> {
    let parse = |text: &str, what: &str| -> Result<Option<Capability>> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if name == "ALL" {
            return Ok(None);
        }
        let known = serde_json::from_value(serde_json::Value::String(format!("CAP_{name}")));
        known
            .map(Some)
            .map_err(|_| Error::Invalid(format!("invalid {what}: unknown capability: \"CAP_{name}\"")))
    };
    let mut wanted: Capabilities = defaults::CAPABILITIES.into_iter().collect();
    let adds = host.cap_add.iter().map(|text| parse(text, "CapAdd")).collect::<Result<Vec<_>>>()?;
    let drops = host.cap_drop.iter().map(|text| parse(text, "CapDrop")).collect::<Result<Vec<_>>>()?;
    if drops.contains(&None) {
        wanted.clear();
    }
    if adds.contains(&None) || host.privileged {
        // No more than this process may give: a host that is a container itself has not all of them.
        let own = own_capabilities();
        let has = |name: &&&str| own.as_ref().is_none_or(|own| own.contains(&name.to_string()));
        wanted = ALL_CAPABILITIES
            .iter()
            .filter(has)
            .filter_map(|name| parse(name, "CapAdd").ok().flatten())
            .collect();
    }
    wanted.extend(adds.into_iter().flatten());
    for dropped in drops.iter().flatten() {
        wanted.remove(dropped);
    }
    Ok(wanted)
}

/// The names of what this process has itself; `None` where a user namespace gives it all.
fn own_capabilities() -> Option<Vec<String>> {
    if needs_user_namespace() {
        return None;
    }
    let sets = rustix::thread::capabilities(None).ok()?;
    Some(sets.permitted.iter_names().map(|(name, _)| name.to_owned()).collect())
}

fn rlimits(host: &HostConfig) -> Result<Vec<PosixRlimit>> {
    host.ulimits
        .iter()
        .map(|limit| {
            let name = format!("RLIMIT_{}", limit.name.to_ascii_uppercase());
            let kind = serde_json::from_value(serde_json::Value::String(name))
                .map_err(|_| Error::Invalid(format!("invalid ulimit type: {}", limit.name)))?;
            // -1, unlimited, is the highest value.
            PosixRlimitBuilder::default()
                .typ::<dhow_runtime::spec::PosixRlimitType>(kind)
                .soft(limit.soft.cast_unsigned())
                .hard(limit.hard.cast_unsigned())
                .build()
                .map_err(invalid)
        })
        .collect()
}
