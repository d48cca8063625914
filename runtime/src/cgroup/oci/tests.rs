//! Paths and words by themselves, made-up hierarchies, and the real ones where this is root.

use oci_spec::runtime::{
    LinuxBlockIoBuilder, LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxMemoryBuilder, LinuxPidsBuilder,
    LinuxResourcesBuilder, LinuxThrottleDeviceBuilder,
};

use super::*;

#[test]
fn paths_of_the_specification() {
    let of = |path: &str| Place::of(Some(Path::new(path)), "id", false);
    assert_eq!(of("/a/b").expect("valid"), Place::Absolute("a/b".into()));
    assert_eq!(of("a/b").expect("valid"), Place::Relative("a/b".into()));
    assert_eq!(of("/../../a/./b//c").expect("valid"), Place::Absolute("a/b/c".into()));
    assert_eq!(of("../a").expect("valid"), Place::Relative("a".into()), "never above");
    assert_eq!(of("").expect("valid"), Place::Absolute("dhow-id".into()));
    assert_eq!(Place::of(None, "id", true).expect("valid"), Place::Relative("dhow-id".into()));
    for bad in ["/", "/..", ".", "/a\nb"] {
        assert!(of(bad).is_err(), "{bad}");
    }
    let (point, own) = (Path::new("/m"), Path::new("/own/one"));
    assert_eq!(Place::Absolute("a".into()).below(point, own), Path::new("/m/a"));
    assert_eq!(Place::Relative("a".into()).below(point, own), Path::new("/m/own/one/a"));
}

const MOUNTS: &str = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 /part /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:27 / /elsewhere rw - cgroup cgroup rw,cpu,cpuacct
35 30 0:31 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
36 30 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
";

#[test]
fn hosts_are_read() {
    let own = "5:memory:/part/user\n4:cpu,cpuacct:/\n3:name=systemd:/../x\n0::/u/v\n";
    let host = Host::parse(MOUNTS, own);
    let rows: Vec<String> = host
        .first
        .iter()
        .map(|one| format!("{} {} {}", one.names.join(","), one.point.display(), one.own.display()))
        .collect();
    assert_eq!(
        rows,
        [
            "cpu,cpuacct /sys/fs/cgroup/cpu,cpuacct /",
            "memory /sys/fs/cgroup/memory /user",
            "name=systemd /sys/fs/cgroup/systemd /",
        ],
        "a hierarchy this process is not in does not count"
    );
    assert_eq!(host.second, Some(("/sys/fs/cgroup/unified".into(), "/u/v".into())));
    for (mounts, own) in [("", ""), ("a - cgroup", "::"), ("1 2 3 4 5 - cgroup2 x rw", "")] {
        let host = Host::parse(mounts, own);
        assert!(host.first.is_empty() && host.second.is_none());
    }
}

/// A hierarchy of version 2 made of plain files.
fn plain_files() -> (tempfile::TempDir, OciGroup) {
    let folder = tempfile::tempdir().expect("a folder");
    let files = "cgroup.procs cpu.max cpu.max.burst cpu.weight cpu.idle cpuset.cpus cpuset.mems io.weight io.max io.bfq.weight \
        memory.max memory.low memory.swap.max pids.max hugetlb.2MB.max rdma.max misc.max memory.high cgroup.kill";
    for file in files.split_whitespace() {
        fs::write(folder.path().join(file), "").expect("file");
    }
    fs::write(folder.path().join("cgroup.controllers"), "cpuset cpu io memory hugetlb pids rdma misc\n")
        .expect("file");
    fs::write(folder.path().join("memory.current"), "1000\n").expect("file");
    let saved = [(String::new(), folder.path().to_path_buf())].into_iter().collect();
    (folder, OciGroup::open(&saved))
}

fn parse(text: &str) -> LinuxResources {
    serde_json::from_str(text).expect("valid")
}

#[test]
fn version_two_is_told() {
    let (folder, group) = plain_files();
    let all = parse(
        r#"{"memory":{"limit":1000,"swap":3000,"reservation":500,"kernel":5,"useHierarchy":true},
            "cpu":{"shares":1024,"quota":5000,"period":10000,"burst":100,"cpus":"0-1","mems":"0"},
            "pids":{"limit":1},
            "blockIO":{"weight":500,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}],
                       "throttleWriteIOPSDevice":[{"major":8,"minor":1,"rate":0}]},
            "hugepageLimits":[{"pageSize":"2MB","limit":4096}],
            "rdma":{"mlx":{"hcaHandles":3}},
            "unified":{"memory.high":"900","misc.max":"a 1\nb 2"}}"#,
    );
    group.update(&all).expect("written");
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).expect("file");
    for (file, value) in [
        ("memory.max", "1000"),
        ("memory.swap.max", "2000"),
        ("memory.low", "500"),
        ("memory.high", "900"),
        ("cpu.weight", "39"),
        ("cpu.max", "5000 10000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "1"),
        ("io.bfq.weight", "500"),
        ("hugetlb.2MB.max", "4096"),
        ("rdma.max", "mlx hca_handle=3"),
    ] {
        assert!(read(file).starts_with(value), "{file}: {}", read(file));
    }
    fs::remove_file(folder.path().join("io.bfq.weight")).expect("file");
    group.update(&parse(r#"{"blockIO":{"weight":1000}}"#)).expect("written");
    assert_eq!(read("io.weight"), "default 10000");
    group.update(&parse(r#"{"memory":{"limit":-1,"swap":-1},"pids":{"limit":-1}}"#)).expect("written");
    assert!(read("memory.max").starts_with("max") && read("pids.max").starts_with("max"));
}

#[test]
fn what_cannot_be_is_refused() {
    let (_folder, group) = plain_files();
    for (text, field) in [
        (r#"{"memory":{"limit":2000,"swap":1000}}"#, "memory"),
        (r#"{"memory":{"swap":1000}}"#, "memory"),
        (r#"{"memory":{"swappiness":101}}"#, "memory"),
        (r#"{"memory":{"swappiness":10}}"#, "memory"),
        (r#"{"memory":{"disableOOMKiller":true}}"#, "memory"),
        (r#"{"memory":{"limit":999,"checkBeforeUpdate":true}}"#, "1000 bytes"),
        (r#"{"cpu":{"realtimeRuntime":5}}"#, "cpu"),
        (r#"{"blockIO":{"leafWeight":5}}"#, "blockIO"),
        (r#"{"network":{"classID":5}}"#, "classID"),
        (r#"{"hugepageLimits":[{"pageSize":"../x","limit":1}]}"#, "hugepageLimits"),
        (r#"{"hugepageLimits":[{"pageSize":"2MB/x","limit":1}]}"#, "hugepageLimits"),
        (r#"{"unified":{"../memory.max":"1"}}"#, "unified"),
        (r#"{"unified":{"nothing.max":"1"}}"#, "no controller nothing"),
        (r#"{"rdma":{"a b":{"hcaHandles":1}}}"#, "no name"),
    ] {
        let error = group.update(&parse(text)).expect_err(text).to_string();
        assert!(error.contains(field), "{text}: {error}");
    }
    let none = OciGroup::open(&[("memory".to_owned(), PathBuf::from("/nowhere"))].into_iter().collect());
    let error = none.update(&parse(r#"{"unified":{"memory.max":"1"}}"#)).expect_err("version 1").to_string();
    assert!(error.contains("version 2"), "{error}");
}

#[test]
fn saved_groups_are_opened_again() {
    let pairs = [("cpu", "/a"), ("cpuacct", "/a"), ("name=systemd", "/b"), ("", "/c")];
    let saved: BTreeMap<String, PathBuf> =
        pairs.iter().map(|(name, path)| ((*name).to_owned(), PathBuf::from(path))).collect();
    let group = OciGroup::open(&saved);
    assert_eq!(group.saved(), saved);
    assert_eq!(group.folders().count(), 3);
    assert_eq!(group.first_with("cpuacct"), Some(Path::new("/a")));
}

/// The real thing: limits, processes, freezing, killing, statistics, all of it gone afterwards.
#[test]
fn a_real_group_lives_and_goes() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let pids = LinuxPidsBuilder::default().limit(50).build().expect("pids");
    let mut resources = LinuxResourcesBuilder::default().pids(pids);
    let host = Host::of_this_process().expect("hierarchies");
    let has = |name: &str| {
        host.first.iter().any(|one| one.names.iter().any(|other| other == name)) || super::super::is_unified()
    };
    if has("memory") {
        resources = resources.memory(LinuxMemoryBuilder::default().limit(64 << 20).build().expect("memory"));
    }
    if has("cpu") {
        resources = resources.cpu(
            LinuxCpuBuilder::default()
                .shares(512_u64)
                .quota(50_000)
                .period(100_000_u64)
                .build()
                .expect("cpu"),
        );
    }
    if has("blkio") {
        let throttle = LinuxThrottleDeviceBuilder::default()
            .major(7)
            .minor(0)
            .rate(1_000_000_u64)
            .build()
            .expect("rate");
        let io = LinuxBlockIoBuilder::default().throttle_read_bps_device(vec![throttle]).build().expect("io");
        resources = resources.block_io(io);
    }
    let resources = resources.build().expect("resources");
    let path = PathBuf::from(format!("/dhow-test-{}/deep/one", std::process::id()));
    let mut group = OciGroup::create(Some(&path), "id", Some(&resources), false, false).expect("made");
    let null = std::process::Stdio::null;
    let mut sleeper = std::process::Command::new("sh");
    sleeper.args(["-c", "sleep 60 & wait"]).stdin(null()).stdout(null()).stderr(null());
    let mut child = sleeper.spawn().expect("sh");
    group.add(child.id(), false, false).expect("added");
    let text = fs::read_to_string(format!("/proc/{}/cgroup", child.id())).expect("cgroup");
    assert!(text.lines().all(|line| line.ends_with(path.to_str().expect("text"))), "{text}");
    assert!(group.pids().expect("pids").contains(&child.id()));
    let again = OciGroup::open(&group.saved());
    again.freeze().expect("frozen");
    assert!(again.is_frozen());
    again.thaw().expect("thawed");
    assert!(!again.is_frozen());
    let stats = again.stats();
    assert_eq!(stats.pids.limit, 50);
    assert!(stats.pids.current >= 1);
    if has("memory") {
        assert_eq!(stats.memory.usage.limit, 64 << 20);
    }
    let text = serde_json::to_string(&stats).expect("JSON");
    assert!(text.contains("\"throttledPeriods\"") && text.contains("\"failcnt\""), "{text}");
    let pids = LinuxPidsBuilder::default().limit(60).build().expect("pids");
    let mut change = LinuxResourcesBuilder::default().pids(pids);
    if has("memory") {
        // Up with both, then down with both: the order matters.
        for bytes in [1_i64 << 30, 32 << 20] {
            let memory = LinuxMemoryBuilder::default().limit(bytes).swap(bytes * 2).build().expect("memory");
            let all = LinuxResourcesBuilder::default().memory(memory).build().expect("resources");
            again.update(&all).expect("changed");
        }
        change = change.memory(LinuxMemoryBuilder::default().limit(48 << 20).build().expect("memory"));
        let watch = again.watch_memory().expect("a watch");
        assert_eq!(watch.acknowledge(), Some(0));
    }
    again.update(&change.build().expect("resources")).expect("changed");
    assert_eq!(again.stats().pids.limit, 60);
    // Frozen, and with a group of the container's own.
    for folder in again.folders() {
        fs::create_dir(folder.join("inner")).expect("inner");
    }
    again.freeze().expect("frozen");
    again.kill_all().expect("killed");
    child.wait().expect("an end");
    again.remove().expect("removed");
    assert!(again.folders().all(|folder| !folder.exists()));
    assert!(again.pids().expect("none").is_empty());
    for folder in again.folders().filter_map(Path::parent) {
        fs::remove_dir(folder)
            .and_then(|()| fs::remove_dir(folder.parent().expect("above")))
            .expect("emptied");
    }
    let bad = LinuxHugepageLimitBuilder::default().page_size("3KB").limit(1).build().expect("limit");
    let bad = LinuxResourcesBuilder::default().hugepage_limits(vec![bad]).build().expect("resources");
    assert!(OciGroup::create(Some(&path), "id", Some(&bad), false, false).is_err());
    let folder = again.folders().next().expect("one");
    assert!(!folder.exists(), "nothing is left behind");
    for folder in again.folders().filter_map(Path::parent) {
        fs::remove_dir(folder).ok();
        fs::remove_dir(folder.parent().expect("above")).ok();
    }
}

/// A process takes more than there is, and somebody who waits is told.
#[test]
fn memory_runs_out() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let path = PathBuf::from(format!("/dhow-memory-{}", std::process::id()));
    let bytes = 16_i64 << 20;
    let memory = LinuxMemoryBuilder::default().limit(bytes).swap(bytes).build().expect("memory");
    let resources = LinuxResourcesBuilder::default().memory(memory).build().expect("resources");
    let group = match OciGroup::create(Some(&path), "id", Some(&resources), false, false) {
        Ok(group) => group,
        Err(Error::Host { what, .. }) => {
            println!("skipped: {what}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let watch = group.watch_memory().expect("a watch");
    let folder = group.first_with("memory").or(group.second.as_deref()).expect("a folder").to_path_buf();
    let script = "echo $$ > \"$0/cgroup.procs\" && head -c 100000000 /dev/zero | tail -c 100000000";
    let null = std::process::Stdio::null;
    let mut hog = std::process::Command::new("sh");
    let status = hog.arg("-c").arg(script).arg(&folder).stdin(null()).stdout(null()).stderr(null()).status();
    let flags = if watch.is_exceptional() { PollFlags::PRI } else { PollFlags::IN };
    let patience = Timespec { tv_sec: 60, tv_nsec: 0 };
    let told = poll(&mut [PollFd::new(&watch, flags)], Some(&patience)).expect("a poll");
    let (kills, heard) = (group.out_of_memory_kills(), watch.acknowledge());
    group.remove().expect("removed");
    assert!(!status.expect("sh").success());
    assert_eq!((told, kills, heard), (1, 1, Some(1)));
}

/// All tests of control groups once more, in a kernel in which version 2 has the controllers.
#[test]
fn version_two_in_a_guest_kernel() {
    if std::env::var_os("DHOW_GUEST_KERNEL").is_some() || !cfg!(target_arch = "x86_64") {
        return;
    }
    let own = std::env::current_exe().expect("own path");
    let mut command =
        std::process::Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guest-kernel"));
    let output = command.arg(own).args(["cgroup::", "--nocapture"]).output().expect("tests/guest-kernel");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{} in the guest:\n{}\n{}", output.status, text[0], text[1]);
    assert!(!text[0].contains("skipped: "), "{}", text[0]);
}
