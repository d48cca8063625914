//! Specifications that must be refused, and how a command is looked for.

use super::process::{candidates, capability_bits};
use super::*;
use crate::native::defaults;
use oci_spec::runtime::{
    Capability, LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, LinuxTimeOffsetBuilder,
    PosixRlimitBuilder, PosixRlimitType,
};

/// A specification that is accepted, also without root.
fn good() -> Spec {
    let mut spec = Spec::default();
    spec.set_mounts(Some(defaults::mounts(1 << 20)));
    let maps = crate::native::idmap::default_maps().maps().clone();
    if let Some(linux) = spec.linux_mut() {
        let mut namespaces = defaults::namespaces();
        namespaces.push(defaults::namespace(LinuxNamespaceType::User));
        linux
            .set_namespaces(Some(namespaces))
            .set_uid_mappings(Some(maps.uids))
            .set_gid_mappings(Some(maps.gids));
    }
    spec
}

fn plan(spec: Spec) -> Result<Plan> {
    let root = Root::Dir("/nowhere".into());
    Plan::new(
        &Bundle { id: "test".to_owned(), spec, root, module: None, wasm: Default::default() },
        Stdio::inherit(),
        &Wishes::default(),
    )
}

fn field(change: impl FnOnce(&mut Spec)) -> &'static str {
    let mut spec = good();
    change(&mut spec);
    match plan(spec) {
        Err(Error::InvalidSpec { field, .. }) => field,
        Err(Error::Host { .. }) => "host",
        Err(other) => panic!("{other}"),
        Ok(_) => "accepted",
    }
}

/// Setters return what they changed.
fn discard<T>(_changed: &mut T) {}

fn process(change: impl FnOnce(&mut Process)) -> &'static str {
    field(|spec| change(spec.process_mut().as_mut().expect("process")))
}

fn linux(change: impl FnOnce(&mut Linux)) -> &'static str {
    field(|spec| change(spec.linux_mut().as_mut().expect("linux")))
}

#[test]
fn bad_specifications_name_the_field() {
    let text = |text: &str| Some(text.to_owned());
    let sysctl = |key: &str| Some([(key.to_owned(), "1".to_owned())].into_iter().collect());
    let limit = |soft: u64, hard: u64| {
        let limit = PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft).hard(hard);
        limit.build().expect("valid")
    };
    assert_eq!(field(|_| ()), "accepted");
    assert_eq!(field(|spec| discard(spec.set_process(None))), "process");
    assert_eq!(field(|spec| discard(spec.set_linux(None))), "linux");
    assert_eq!(field(|spec| discard(spec.set_hostname(Some("x".repeat(65))))), "hostname");
    assert_eq!(process(|it| discard(it.set_args(Some(Vec::new())))), "process.args");
    assert_eq!(process(|it| discard(it.set_args(Some(vec!["a\0b".to_owned()])))), "process.args");
    assert_eq!(process(|it| discard(it.set_env(Some(vec!["A=\0".to_owned()])))), "process.env");
    assert_eq!(process(|it| discard(it.set_cwd("relative".into()))), "process.cwd");
    assert_eq!(process(|it| discard(it.set_apparmor_profile(text("x")))), "process.apparmorProfile");
    assert_eq!(process(|it| discard(it.set_oom_score_adj(Some(1001)))), "process.oomScoreAdj");
    assert_eq!(process(|it| discard(it.set_rlimits(Some(vec![limit(2, 1)])))), "process.rlimits");
    assert_eq!(
        process(|it| discard(it.set_rlimits(Some(vec![limit(1, 1), limit(1, 1)])))),
        "process.rlimits"
    );
    assert_eq!(process(|it| discard(it.user_mut().set_uid(u32::MAX))), "process.user");
    assert_eq!(process(|it| discard(it.user_mut().set_gid(u32::MAX))), "process.user");
    assert_eq!(
        process(|it| discard(it.user_mut().set_additional_gids(Some(vec![u32::MAX])))),
        "process.user"
    );
    assert_eq!(process(|it| discard(it.user_mut().set_uid(4_000_000_000))), "host", "not mapped");
    assert_eq!(linux(|it| discard(it.set_namespaces(Some(Vec::new())))), "hostname", "the host's own");
    let only_user = || Some(vec![defaults::namespace(LinuxNamespaceType::User)]);
    assert_ne!(linux(|it| discard(it.set_namespaces(only_user()))), "accepted");
    let twice = || Some([defaults::namespaces(), defaults::namespaces()].concat());
    assert_eq!(linux(|it| discard(it.set_namespaces(twice()))), "linux.namespaces");
    assert_eq!(linux(|it| discard(it.set_uid_mappings(None::<Vec<LinuxIdMapping>>))), "linux.uidMappings");
    assert_eq!(linux(|it| discard(it.set_masked_paths(Some(vec!["proc".to_owned()])))), "linux.maskedPaths");
    assert_eq!(linux(|it| discard(it.set_rootfs_propagation(text("rshared")))), "accepted");
    assert_eq!(linux(|it| discard(it.set_rootfs_propagation(text("open")))), "linux.rootfsPropagation");
    assert_eq!(
        linux(|it| discard(it.set_mount_label(text("x")))),
        "accepted",
        "means nothing without SELinux"
    );
    for (version, expected) in [
        ("1.0.0", "accepted"),
        ("1.3.0-dev+x", "accepted"),
        ("2.0.0", "ociVersion"),
        ("", "ociVersion"),
        ("1.0", "ociVersion"),
        ("1.0.0.0", "ociVersion"),
        ("1.x.0", "ociVersion"),
    ] {
        assert_eq!(field(|spec| discard(spec.set_version(version.to_owned()))), expected, "{version}");
    }
    let keys = |key: &str| Some([(key.to_owned(), String::new())].into_iter().collect());
    assert_eq!(field(|spec| discard(spec.set_annotations(keys("a")))), "accepted");
    assert_eq!(field(|spec| discard(spec.set_annotations(keys("")))), "annotations");
    let offsets = |clock: &str, nanoseconds: u32| {
        let offset =
            LinuxTimeOffsetBuilder::default().secs(1_i64).nanosecs(nanoseconds).build().expect("valid");
        Some([(clock.to_owned(), offset)].into_iter().collect())
    };
    let time = |clock: &str, nanoseconds: u32, namespace: bool| {
        linux(|it| {
            if namespace {
                it.namespaces_mut()
                    .as_mut()
                    .expect("list")
                    .push(defaults::namespace(LinuxNamespaceType::Time));
            }
            discard(it.set_time_offsets(offsets(clock, nanoseconds)));
        })
    };
    assert_eq!(time("monotonic", 0, true), "accepted");
    assert_eq!(time("monotonic", 0, false), "linux.timeOffsets");
    assert_eq!(time("monotonic", 1_000_000_000, true), "linux.timeOffsets");
    assert_eq!(time("realtime", 0, true), "linux.timeOffsets");
    let join = |kind, path: &str| {
        linux(|it| {
            let list = it.namespaces_mut().as_mut().expect("list");
            list.retain(|namespace| namespace.typ() != kind);
            let mut namespace = defaults::namespace(kind);
            list.push(namespace.set_path(Some(path.into())).clone());
        })
    };
    use LinuxNamespaceType::{Ipc, Mount, Network};
    assert_eq!(join(Ipc, "/proc/self/ns/ipc"), "accepted");
    assert_eq!(join(Network, "/proc/self/ns/ipc"), "linux.namespaces", "another kind");
    assert_eq!(join(Network, "/dev/null"), "linux.namespaces", "no namespace");
    assert_eq!(join(Network, "proc/self/ns/net"), "linux.namespaces", "not absolute");
    assert_eq!(join(Mount, "/proc/self/ns/mnt"), "linux.namespaces", "the host's own");
    let range = |inside: u32, outside: u32, size: u32| {
        let map = LinuxIdMappingBuilder::default().container_id(inside).host_id(outside).size(size);
        map.build().expect("valid")
    };
    for ranges in [
        vec![range(0, 0, 0)],
        vec![range(0, u32::MAX, 2)],
        vec![range(0, 0, 10), range(5, 100, 10)],
        vec![range(0, 0, 10), range(10, 9, 10)],
        (0..341).map(|at| range(at, at, 1)).collect(),
    ] {
        assert_eq!(
            linux(|it| discard(it.set_gid_mappings(Some(ranges.clone())))),
            "linux.gidMappings",
            "{ranges:?}"
        );
    }
    for key in [
        "kernel.core_pattern",
        "vm.swappiness",
        "net/../vm/x",
        "net..x",
        "kernel.hostname/../core_pattern",
        "",
    ] {
        assert_eq!(linux(|it| discard(it.set_sysctl(sysctl(key)))), "linux.sysctl", "{key}");
    }
    for key in
        ["net.ipv4.ip_forward", "net/ipv4/conf/eth0.1/forwarding", "kernel.shmmax", "fs.mqueue.msg_max"]
    {
        assert_eq!(linux(|it| discard(it.set_sysctl(sysctl(key)))), "accepted", "{key}");
    }
}

#[test]
fn commands_are_looked_for_in_the_containers_path() {
    let cases: [(&str, &str, &[&str]); 7] = [
        ("sh", "/usr/bin:/bin/", &["/usr/bin/sh", "/bin/sh"]),
        ("sh", ":.:bin:/bin", &["/bin/sh"]),
        ("sh", "", &[]),
        ("./sh", "/bin", &["./sh"]),
        ("/x/sh", "/bin", &["/x/sh"]),
        ("", "/bin", &[]),
        ("sh", "/", &["/sh"]),
    ];
    for (name, path, expected) in cases {
        assert_eq!(candidates(name, path), expected, "{name} in {path}");
    }
}

#[test]
fn capability_bits_are_the_kernels() {
    let bits = |list: &[Capability]| capability_bits(&list.iter().copied().collect());
    assert_eq!(bits(&[]), 0);
    assert_eq!(bits(&[Capability::Chown, Capability::SysAdmin]), 1 | 1 << 21);
    assert_eq!(bits(&[Capability::CheckpointRestore]), 1 << 40);
    assert_eq!(bits(&defaults::CAPABILITIES), 0xa804_25fb, "as a Docker container shows them");
}
