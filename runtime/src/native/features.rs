//! What this executor can do, in the specification's words: its `features` structure.
//!
//! As the specification wants it, this is about the program and not about the host it runs on.

use std::collections::HashMap;

use oci_spec::runtime::{
    ApparmorBuilder, Arch, CgroupBuilder, Features, FeaturesBuilder, IDMapBuilder, IntelRdtBuilder,
    LinuxFeatureBuilder, LinuxNamespaceType, LinuxSeccompAction as Action, MemoryPolicyBuilder,
    MountExtensionsBuilder, NetDevicesBuilder, SeccompBuilder, SelinuxBuilder,
};

use crate::native::{mounts, plan};

/// The lowest and the highest version of the specification that is understood.
const VERSIONS: (&str, &str) = ("1.0.0", "1.3.0");

/// All of it.
///
/// # Errors
/// None: every part is given. The signature is that of the builders.
pub fn features() -> Result<Features, oci_spec::OciSpecError> {
    let texts = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let mut options: Vec<String> = mounts::option_names().collect();
    options.sort();
    options.dedup();
    let namespaces = vec![
        LinuxNamespaceType::Cgroup,
        LinuxNamespaceType::Ipc,
        LinuxNamespaceType::Mount,
        LinuxNamespaceType::Network,
        LinuxNamespaceType::Pid,
        LinuxNamespaceType::Time,
        LinuxNamespaceType::User,
        LinuxNamespaceType::Uts,
    ];
    let actions = vec![
        Action::ScmpActAllow,
        Action::ScmpActErrno,
        Action::ScmpActKill,
        Action::ScmpActKillProcess,
        Action::ScmpActKillThread,
        Action::ScmpActLog,
        Action::ScmpActNotify,
        Action::ScmpActTrace,
        Action::ScmpActTrap,
    ];
    let archs = if cfg!(target_arch = "x86_64") {
        vec![Arch::ScmpArchX86, Arch::ScmpArchX86_64]
    } else {
        vec![Arch::ScmpArchAarch64]
    };
    let flags = texts(&[
        "SECCOMP_FILTER_FLAG_LOG",
        "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        "SECCOMP_FILTER_FLAG_TSYNC",
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    ]);
    let operators = texts(&[
        "SCMP_CMP_EQ",
        "SCMP_CMP_GE",
        "SCMP_CMP_GT",
        "SCMP_CMP_LE",
        "SCMP_CMP_LT",
        "SCMP_CMP_MASKED_EQ",
        "SCMP_CMP_NE",
    ]);
    let seccomp = SeccompBuilder::default()
        .enabled(true)
        .actions(actions)
        .operators(operators)
        .archs(archs)
        .known_flags(flags.clone())
        .supported_flags(flags)
        .build()?;
    let modes = [
        "MPOL_DEFAULT",
        "MPOL_BIND",
        "MPOL_INTERLEAVE",
        "MPOL_WEIGHTED_INTERLEAVE",
        "MPOL_PREFERRED",
        "MPOL_PREFERRED_MANY",
        "MPOL_LOCAL",
    ];
    let policy = MemoryPolicyBuilder::default()
        .modes(texts(&modes))
        .flags(texts(&["MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES"]))
        .build()?;
    let groups =
        CgroupBuilder::default().v1(true).v2(true).systemd(true).systemd_user(true).rdma(true).build()?;
    let id_map = IDMapBuilder::default().enabled(true).build()?;
    let linux = LinuxFeatureBuilder::default()
        .namespaces(namespaces)
        .capabilities(plan::CAPABILITIES.iter().map(|name| format!("CAP_{name}")).collect::<Vec<_>>())
        .cgroup(groups)
        .seccomp(seccomp)
        .apparmor(ApparmorBuilder::default().enabled(true).build()?)
        .selinux(SelinuxBuilder::default().enabled(true).build()?)
        .intel_rdt(IntelRdtBuilder::default().enabled(true).schemata(true).monitoring(true).build()?)
        .memory_policy(policy)
        .mount_extensions(MountExtensionsBuilder::default().idmap(id_map).build()?)
        .net_devices(NetDevicesBuilder::default().enabled(true).build()?)
        .build()?;
    let hooks = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    FeaturesBuilder::default()
        .oci_version_min(VERSIONS.0)
        .oci_version_max(VERSIONS.1)
        .hooks(texts(&hooks))
        .mount_options(options)
        .linux(linux)
        .annotations(HashMap::from([("org.dhow.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]))
        .build()
}

#[cfg(test)]
mod tests {
    #[test]
    fn everything_is_named() {
        let features = super::features().expect("complete");
        let linux = features.linux().as_ref().expect("linux");
        assert_eq!(linux.capabilities().as_ref().map(Vec::len), Some(41));
        assert!(linux.capabilities().iter().flatten().any(|name| name == "CAP_CHECKPOINT_RESTORE"));
        assert!(features.mount_options().iter().flatten().any(|name| name == "rnosymfollow"));
        assert_eq!(features.hooks().as_ref().map(Vec::len), Some(6));
    }
}
