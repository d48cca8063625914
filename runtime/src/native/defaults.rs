//! What a container gets when nobody says otherwise: the parts of a specification as Docker fills them in.
//!
//! Only data and small constructors; the engine puts a whole specification together. Values measured from the
//! configuration dockerd hands to runc, and from the profile it documents.

mod calls;

use oci_spec::runtime::{
    Arch, Capabilities, Capability, LinuxCapabilities, LinuxNamespace, LinuxNamespaceType, LinuxSeccomp,
    LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator as Operator,
    LinuxSyscall, Mount,
};

/// The capabilities of a container that asks for none: Docker's fourteen.
pub const CAPABILITIES: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// Paths whose content a container must not see.
pub const MASKED_PATHS: [&str; 13] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
    "/sys/devices/virtual/thermal",
];

/// Paths a container must not change.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The namespaces of a container as root has it. Without privilege a user namespace comes on top.
pub const NAMESPACES: [LinuxNamespaceType; 6] = [
    LinuxNamespaceType::Mount,
    LinuxNamespaceType::Network,
    LinuxNamespaceType::Uts,
    LinuxNamespaceType::Pid,
    LinuxNamespaceType::Ipc,
    LinuxNamespaceType::Cgroup,
];

/// The sysctls Docker sets in a network namespace of the container's own: any port and ping without
/// privilege. The second cannot be set in a user namespace that maps fewer groups.
pub const SYSCTLS: [(&str, &str); 2] =
    [("net.ipv4.ip_unprivileged_port_start", "0"), ("net.ipv4.ping_group_range", "0 2147483647")];

/// Capability sets for a process: `wanted` bounds and is permitted; nothing is inheritable or ambient, so a
/// process that is not root has none of them after exec.
pub fn capability_sets(wanted: &Capabilities) -> LinuxCapabilities {
    let mut sets = LinuxCapabilities::default();
    sets.set_bounding(Some(wanted.clone()))
        .set_effective(Some(wanted.clone()))
        .set_permitted(Some(wanted.clone()))
        .set_inheritable(None)
        .set_ambient(None);
    sets
}

/// [`NAMESPACES`] in the specification's form.
pub fn namespaces() -> Vec<LinuxNamespace> {
    NAMESPACES.iter().map(|kind| namespace(*kind)).collect()
}

/// A new namespace of this kind.
pub fn namespace(kind: LinuxNamespaceType) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(kind);
    namespace
}

/// The mounts every container has, in their order. `shm_size` is in bytes; Docker's default is 64 MiB.
pub fn mounts(shm_size: u64) -> Vec<Mount> {
    let shm = format!("size={shm_size}");
    let rows: [(&str, &str, &str, &[&str]); 7] = [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
        // Docker's has no `nodev`, but a device cgroup. Here nodes are bound, and what a container makes does not work.
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "nodev", "strictatime", "mode=755", "size=65536k"]),
        (
            "/dev/pts",
            "devpts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
        ),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
    ];
    rows.iter().map(|(target, kind, source, options)| mount(target, kind, source, options)).collect()
}

/// One mount of the specification.
pub fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Mount {
    let mut mount = Mount::default();
    mount
        .set_destination(target.into())
        .set_typ(Some(kind.to_owned()))
        .set_source(Some(source.into()))
        .set_options(Some(options.iter().map(|option| (*option).to_owned()).collect()));
    mount
}

/// Docker's seccomp profile for a process with these capabilities: an allow list, everything else is refused
/// with `EPERM`, calls newer than this program with `ENOSYS`. In the specification's form, to be shown or handed on; [`super::seccomp::Filter::docker_default`]
/// is the same profile compiled.
pub fn seccomp(capabilities: &Capabilities) -> LinuxSeccomp {
    let mut calls = Vec::new();
    seccomp_rules(capabilities, |names, action, value, args| {
        let mut call = LinuxSyscall::default();
        call.set_names(names.iter().map(|name| (*name).to_owned()).collect())
            .set_action(action)
            .set_errno_ret(value)
            .set_args((!args.is_empty()).then(|| args.to_vec()));
        calls.push(call);
    });
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(Action::ScmpActErrno)
        .set_default_errno_ret(Some(EPERM))
        .set_architectures(Some(architectures()))
        .set_syscalls(Some(calls));
    profile
}

#[cfg(target_arch = "x86_64")]
fn architectures() -> Vec<Arch> {
    vec![Arch::ScmpArchX86_64, Arch::ScmpArchX86]
}

#[cfg(not(target_arch = "x86_64"))]
fn architectures() -> Vec<Arch> {
    vec![Arch::ScmpArchAarch64]
}

/// The kernel's `CLONE_NEW*`, all of them but the one for time, which `clone` cannot say.
const CLONE_NEW_ANY: u64 = 0x7e02_0000;
const AF_VSOCK: u64 = 40;
/// The execution domains of `personality` that change nothing dangerous, and the question for the current one.
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
const EPERM: u32 = 1;
const ENOSYS: u32 = 38;

/// Every rule of [`seccomp`]: names, action, its error number, conditions.
pub(super) fn seccomp_rules(
    capabilities: &Capabilities,
    mut rule: impl FnMut(&[&str], Action, Option<u32>, &[LinuxSeccompArg]),
) {
    for group in calls::ALWAYS {
        rule(group, Action::ScmpActAllow, None, &[]);
    }
    for (capability, group) in calls::WITH_CAPABILITY {
        if capabilities.contains(capability) {
            rule(group, Action::ScmpActAllow, None, &[]);
        }
    }
    for personality in PERSONALITIES {
        rule(
            &["personality"],
            Action::ScmpActAllow,
            None,
            &[argument(Operator::ScmpCmpEq, personality, None)],
        );
    }
    // The host's hypervisor sockets know no network namespaces. The kernel takes an int, so the upper half of the
    // register must not make a difference. (It may for `personality`, where only what is allowed is named; the
    // mask for `clone` lies in the lower half.)
    let vsock = argument(Operator::ScmpCmpMaskedEq, u32::MAX.into(), Some(AF_VSOCK));
    rule(&["socket"], Action::ScmpActErrno, Some(EPERM), &[vsock]);
    rule(&["socket"], Action::ScmpActAllow, None, &[argument(Operator::ScmpCmpNe, AF_VSOCK, None)]);
    if !capabilities.contains(&Capability::SysAdmin) {
        let no_new_namespace = argument(Operator::ScmpCmpMaskedEq, CLONE_NEW_ANY, Some(0));
        rule(&["clone"], Action::ScmpActAllow, None, &[no_new_namespace]);
        // Its flags lie in memory, where a filter cannot look; libc falls back to clone.
        rule(&["clone3"], Action::ScmpActErrno, Some(ENOSYS), &[]);
    }
}

fn argument(operator: Operator, value: u64, second: Option<u64>) -> LinuxSeccompArg {
    let argument = LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value);
    let argument = match second {
        Some(second) => argument.value_two(second),
        None => argument,
    };
    // Every field has a default, so this cannot fail.
    argument.build().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_open_their_calls() {
        let has = |capabilities: &Capabilities, wanted: &str| {
            let mut found = false;
            seccomp_rules(capabilities, |names, action, _, args| {
                found |= action == Action::ScmpActAllow && args.is_empty() && names.contains(&wanted);
            });
            found
        };
        let default: Capabilities = CAPABILITIES.into_iter().collect();
        let all: Capabilities = [Capability::SysAdmin, Capability::SysPtrace].into_iter().collect();
        for (name, by_default, with_more) in [
            ("read", true, true),
            ("mount", false, true),
            ("chroot", true, false),
            ("clone3", false, true),
            ("bpf", false, true),
            ("kcmp", false, true),
        ] {
            assert_eq!(has(&default, name), by_default, "{name}");
            assert_eq!(has(&all, name), with_more, "{name}");
        }
    }

    #[test]
    fn no_call_is_listed_twice() {
        let mut names: Vec<&str> = calls::ALWAYS.iter().flat_map(|group| group.iter().copied()).collect();
        names.sort_unstable();
        let doubled: Vec<_> = names.windows(2).filter(|pair| pair[0] == pair[1]).collect();
        assert!(doubled.is_empty(), "{doubled:?}");
    }
}
