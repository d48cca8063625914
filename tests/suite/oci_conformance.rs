//! `dhow oci`: what the public suites for OCI runtimes (opencontainers/runtime-tools, youki's contest) have found once.

use serde_json::{Value, json};

use crate::support::{Bundle, is_root};

fn skipped() -> bool {
    if !is_root() {
        println!("skipped: needs root");
    }
    !is_root()
}

fn kinds(kinds: &[&str]) -> Value {
    kinds.iter().map(|kind| json!({ "type": kind })).collect()
}

/// The container shares its creator's mounts, and changes nothing there.
#[test]
fn a_container_without_a_mount_namespace_leaves_the_host_s_alone() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.change(|spec| {
        spec["linux"]["namespaces"] = kinds(&[]);
        spec.as_object_mut().unwrap().remove("hostname");
    });
    let rootfs = bundle.text("bundle/rootfs");
    bundle.oci(&["run", "-d", "a"]).ok();
    let pid = bundle.state("a")["pid"].clone();
    for kind in ["mnt", "pid", "net", "ipc", "uts", "user", "cgroup"] {
        let namespace = |pid: &str| fs_err::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(namespace(&pid.to_string()), namespace("self"), "{kind}");
    }
    assert!(!fs_err::read_to_string("/proc/self/mountinfo").unwrap().contains(&rootfs));
    // Others find its root by its first process.
    assert_eq!(bundle.oci(&["exec", "a", "ls", "/"]).ok(), "bin\ndata\ndev\netc\nproc\nsys\ntmp\n");
    bundle.oci(&["exec", "a", "cat", "/proc/self/comm"]).ok();
    bundle.oci(&["delete", "-f", "a"]).ok();
    bundle.change(|spec| {
        spec["linux"]["namespaces"] = kinds(&["user"]);
        spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        spec["linux"]["gidMappings"] = spec["linux"]["uidMappings"].clone();
    });
    bundle.oci(&["run", "a"]).fails(1, "a user namespace needs a mount namespace");
}

#[test]
fn mounts_stand_in_the_order_of_the_specification() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["cat", "/proc/self/mounts"]);
    let targets: Vec<String> = (0..6).map(|number| format!("/data/{number}")).collect();
    bundle.change(|spec| {
        for (number, target) in targets.iter().enumerate() {
            let options =
                if number % 2 == 0 { json!(["rbind", "rshared"]) } else { json!(["bind", "private"]) };
            let mount =
                json!({ "destination": target, "type": "bind", "source": "/etc", "options": options });
            spec["mounts"].as_array_mut().unwrap().push(mount);
        }
    });
    let said = bundle.oci(&["run", "a"]).ok();
    let found: Vec<&str> = said.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    let found: Vec<&&str> = found.iter().filter(|at| at.starts_with("/data/")).collect();
    assert_eq!(found, targets.iter().collect::<Vec<_>>());
}

#[test]
fn a_process_that_joins_is_as_its_container() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.change(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "A=spec"]);
        spec["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    bundle.oci(&["run", "-d", "a"]).ok();
    let own = bundle.oci(&["exec", "a", "busybox", "uname", "-m"]).ok();
    assert_ne!(own.trim_end(), std::env::consts::ARCH, "the execution domain is the container's");
    assert_eq!(bundle.oci(&["exec", "--env", "A=line", "a", "sh", "-c", "echo $A"]).ok(), "line\n");
    for (wanted, words) in [("nope:/", "unknown controller nope"), ("..", "is not below the container's")] {
        bundle.oci(&["exec", "--cgroup", wanted, "a", "true"]).fails(255, words);
    }
    bundle.oci(&["exec", "--cgroup", "/", "a", "true"]).ok();
    let process = |affinity: Value| {
        let process = json!({
            "args": ["cat", "/proc/self/status"], "cwd": "/", "user": { "uid": 0, "gid": 0 },
            "env": ["PATH=/bin"], "execCPUAffinity": affinity
        });
        fs_err::write(bundle.path("process.json"), process.to_string()).unwrap();
        bundle.oci(&["--debug", "exec", "--process", &bundle.text("process.json"), "a"])
    };
    let called = process(json!({ "initial": "0", "final": "0" }));
    assert!(called.stdout.contains("Cpus_allowed_list:\t0\n"), "{called:#?}");
    assert!(called.stderr.contains("affinity: 0x1"), "{called:#?}");
    process(json!({ "initial": "0-", "final": "0" })).fails(255, "execCPUAffinity");
    bundle.oci(&["delete", "-f", "a"]).ok();
}

#[test]
fn hooks_in_the_container_have_its_environment() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["cat", "/data/log"]);
    let script = "echo $A-$PROGRAM >> /data/log";
    bundle.change(|spec| {
        spec["process"]["env"] = json!(["PATH=/bin", "PROGRAM=its"]);
        spec["hooks"] = json!({ "startContainer": [
            { "path": "/bin/sh", "args": ["sh", "-c", script] },
            { "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=own"] },
            { "path": "/bin/sh", "args": ["sh", "-c", script], "env": [] },
        ]});
    });
    assert_eq!(bundle.oci(&["run", "a"]).ok(), "-its\nown-\n-\n");
}

#[test]
fn clocks_are_set_in_a_user_namespace() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["cat", "/proc/self/timens_offsets"]);
    bundle.change(|spec| {
        spec["linux"]["namespaces"] =
            kinds(&["pid", "ipc", "uts", "mount", "network", "cgroup", "user", "time"]);
        spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 65536 }]);
        spec["linux"]["gidMappings"] = spec["linux"]["uidMappings"].clone();
        spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1337, "nanosecs": 31 } });
    });
    let said = bundle.oci(&["run", "a"]).ok();
    assert!(said.contains("1337") && said.contains("31"), "{said}");
}

#[test]
fn no_limit_of_processes_is_zero() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "sleep 0 & wait; echo done"]);
    bundle.change(|spec| spec["linux"]["resources"] = json!({ "pids": { "limit": 0 } }));
    assert_eq!(bundle.oci(&["run", "a"]).ok(), "done\n");
}
