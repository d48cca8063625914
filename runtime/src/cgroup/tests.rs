//! Layouts of hosts as texts and folders; and, where this is root on a host with version 1, the real thing.

use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

use super::files::{field, values, weight};
use super::*;

fn resources() -> LinuxResources {
    LinuxResourcesBuilder::default()
        .memory(LinuxMemoryBuilder::default().limit(64 << 20).swap(128 << 20).build().expect("memory"))
        .cpu(LinuxCpuBuilder::default().quota(50_000).period(100_000u64).shares(512u64).build().expect("cpu"))
        .pids(LinuxPidsBuilder::default().limit(20).build().expect("pids"))
        .build()
        .expect("resources")
}

fn said(unified: bool, resources: &LinuxResources) -> Vec<String> {
    let controllers = Controller::needed(resources).into_iter();
    let all = controllers.flat_map(|controller| values(controller, unified, resources));
    all.map(|(file, value, _)| format!("{file}={value}")).collect()
}

#[test]
fn the_kernel_s_words() {
    let first = [
        "memory.limit_in_bytes=67108864",
        "memory.memsw.limit_in_bytes=134217728",
        "cpu.shares=512",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
        "pids.max=20",
    ];
    assert_eq!(said(false, &resources()), first);
    let second = [
        "memory.max=67108864",
        "memory.swap.max=67108864",
        "cpu.weight=20",
        "cpu.max=50000 100000",
        "pids.max=20",
    ];
    assert_eq!(said(true, &resources()), second);
    let memory = LinuxMemoryBuilder::default().limit(5).swap(-1).build().expect("memory");
    let any_swap = LinuxResourcesBuilder::default().memory(memory).build().expect("resources");
    assert_eq!(said(true, &any_swap), ["memory.max=5", "memory.swap.max=max"]);
    assert_eq!(said(false, &any_swap), ["memory.limit_in_bytes=5", "memory.memsw.limit_in_bytes=-1"]);
    assert!(said(true, &LinuxResourcesBuilder::default().build().expect("resources")).is_empty());
    assert_eq!([0, 2, 1024, 262_144, u64::MAX].map(weight), [1, 1, 39, 10_000, 10_000]);
    assert_eq!(field("low 1\noom_kill 3\noom_kill_disable 0\n", "oom_kill"), 3);
    assert_eq!(field("oom 9", "oom_kill"), 0);
}

const HYBRID: &str = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

#[test]
fn hosts_are_understood() {
    let host = Hierarchies::parse(HYBRID, "12:memory:/user\n0::/user/one/two\n");
    let parts = host.parts("x");
    let paths: Vec<String> = parts.iter().map(|part| part.path.display().to_string()).collect();
    assert_eq!(
        paths,
        [
            "/sys/fs/cgroup/cpu,cpuacct/dhow/x",
            "/sys/fs/cgroup/memory/dhow/x",
            "/sys/fs/cgroup/unified/dhow/x",
            "/sys/fs/cgroup/unified/user/one/dhow/x",
            "/sys/fs/cgroup/unified/user/dhow/x",
        ]
    );
    assert_eq!(parts[0].controllers, [Controller::Cpu]);
    for (mounts, own) in [("", ""), ("nonsense", "0::"), ("1 2 - cgroup2", "0::/../../x")] {
        let host = Hierarchies::parse(mounts, own);
        assert!(matches!(host.place(Controller::Memory, "x"), Err(Error::Host { .. })), "{mounts}");
    }
}

#[test]
fn version_two_is_divided_where_it_may_be() {
    let temp = tempfile::tempdir().expect("a directory");
    let (point, own) = (temp.path(), temp.path().join("user/one"));
    fs::create_dir_all(&own).expect("folders");
    let mounts = format!("33 30 0:29 / {} rw - cgroup2 cgroup2 rw\n", point.display());
    let host = Hierarchies::parse(&mounts, "0::/user/one\n");
    let write = |path: &str, text: &str| fs::write(point.join(path), text).expect("file");
    // Nothing is offered anywhere.
    assert!(host.place(Controller::Memory, "x").is_err());
    // The user's own part offers memory, and lets it be divided.
    write("user/cgroup.controllers", "memory pids\n");
    write("user/cgroup.subtree_control", "");
    fs::create_dir(point.join("user/dhow")).expect("folder");
    write("user/dhow/cgroup.subtree_control", "");
    let (path, unified) = host.place(Controller::Memory, "x").expect("a place");
    assert_eq!((path, unified), (point.join("user/dhow/x"), true));
    for folder in ["user", "user/dhow"] {
        let said = fs::read_to_string(point.join(folder).join("cgroup.subtree_control")).expect("file");
        assert_eq!(said, "+memory", "{folder}");
    }
    assert!(host.place(Controller::Cpu, "x").is_err(), "not offered");
}

#[test]
fn a_real_group_limits_and_goes() {
    let name = format!("test-{}", std::process::id());
    let group = match Group::create(&name, &resources()) {
        Ok(group) => group,
        Err(Error::Host { what, .. }) => {
            println!("skipped: {what}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("sleep");
    group.add(child.id()).expect("add");
    let own = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).expect("cgroup");
    assert!(own.contains(&format!("/dhow/{name}")), "{own}");
    assert_eq!(group.out_of_memory_kills(), 0);
    let memory =
        group.parts.iter().find(|part| part.controllers.contains(&Controller::Memory)).expect("memory");
    let file = if memory.unified { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(fs::read_to_string(memory.path.join(file)).expect("limit").trim(), "67108864");
    assert!(!remove_empty("test-", true, |_| false).contains(&name), "it has a process, and is new");
    child.kill().and_then(|()| child.wait()).expect("end");
    Group::find(&name).expect("found again").remove().expect("removed");
    assert!(Group::find(&name).is_none());
    group.remove().expect("gone already");
}
