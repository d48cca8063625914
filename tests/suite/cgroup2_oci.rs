//! `dhow oci` on cgroup v2, in a kernel that has all of it: limits, updates, standing still, counts, lack of memory.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, inside_guest_kernel, until};

fn stats(bundle: &Bundle) -> Value {
    serde_json::from_str(&bundle.oci(&["events", "--stats", "a"]).ok()).unwrap()
}

/// A container that sleeps, and its group.
fn sleeping(resources: Value) -> (Bundle, PathBuf) {
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.change(|spec| spec["linux"]["resources"] = resources);
    bundle.oci(&["run", "-d", "a"]).ok();
    let pid = bundle.state("a")["pid"].to_string();
    let text = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let path = text.trim().strip_prefix("0::/").unwrap_or_else(|| panic!("{text}"));
    let group = PathBuf::from("/sys/fs/cgroup").join(path);
    (bundle, group)
}

#[test]
fn limits_are_kept_changed_and_told() {
    if !inside_guest_kernel("cgroup2_oci::limits_are_kept_changed_and_told") {
        return;
    }
    let (bundle, group) = sleeping(json!({
        "memory": { "limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20 },
        "cpu": { "shares": 512, "quota": 20000, "period": 100_000 },
        "pids": { "limit": 30 },
        "unified": { "memory.high": "50331648" }
    }));
    let read = |name: &str| fs_err::read_to_string(group.join(name)).unwrap().trim().to_owned();
    assert_eq!((read("memory.max"), read("memory.low")), ("67108864".into(), "33554432".into()));
    assert_eq!((read("cpu.max"), read("pids.max")), ("20000 100000".into(), "30".into()));
    assert_eq!(read("memory.high"), "50331648");
    assert_ne!(read("cpu.weight"), "100");
    bundle.oci(&["update", "--pids-limit", "20", "--memory", "48m", "--cpu-quota", "30000", "a"]).ok();
    assert_eq!((read("memory.max"), read("pids.max")), ("50331648".into(), "20".into()));
    assert_eq!(read("cpu.max"), "30000 100000");
    let now = stats(&bundle);
    assert_eq!(now["data"]["pids"], json!({ "current": 1, "limit": 20 }), "{now}");
    assert_eq!(now["data"]["memory"]["usage"]["limit"], 48 << 20, "{now}");
    assert!(now["data"]["memory"]["usage"]["usage"].as_u64().unwrap() > 0, "{now}");
    assert!(now["data"]["cpu"]["usage"]["total"].is_number(), "{now}");
    bundle.oci(&["delete", "-f", "a"]).ok();
    assert!(!group.exists(), "{}", group.display());
}

#[test]
fn containers_stand_still_and_go_on() {
    if !inside_guest_kernel("cgroup2_oci::containers_stand_still_and_go_on") {
        return;
    }
    let (bundle, group) = sleeping(json!({}));
    let frozen = || {
        let events = fs_err::read_to_string(group.join("cgroup.events")).unwrap();
        events.lines().any(|line| line == "frozen 1")
    };
    bundle.oci(&["pause", "a"]).ok();
    assert_eq!(bundle.status("a"), "paused");
    assert!(frozen());
    bundle.oci(&["pause", "a"]).fails(1, "paused");
    bundle.oci(&["resume", "a"]).ok();
    assert_eq!(bundle.status("a"), "running");
    assert!(!frozen());
    bundle.oci(&["exec", "a", "true"]).ok();
    bundle.oci(&["pause", "a"]).ok();
    bundle.oci(&["delete", "--force", "a"]).ok();
    assert!(!group.exists(), "{}", group.display());
}

#[test]
fn lack_of_memory_is_told() {
    if !inside_guest_kernel("cgroup2_oci::lack_of_memory_is_told") {
        return;
    }
    let (bundle, group) = sleeping(json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } }));
    let out = bundle.path("events");
    let mut command = bundle.command(&["events", "--interval", "100ms", "a"]);
    let mut events = command.stdout(fs_err::File::create(&out).unwrap().into_parts().0).spawn().unwrap();
    let said = || fs_err::read_to_string(&out).unwrap();
    until("it speaks now and then", || (said().lines().count() > 1).then_some(()));
    bundle.oci(&["exec", "a", "sh", "-c", "x=x; while :; do x=$x$x; done"]);
    until("it tells of the lack", || said().contains("\"type\":\"oom\"").then_some(()));
    let kernel = fs_err::read_to_string(group.join("memory.events")).unwrap();
    assert!(!kernel.contains("oom_kill 0"), "{kernel}");
    bundle.oci(&["kill", "a", "KILL"]).ok();
    assert!(events.wait().unwrap().success());
    bundle.oci(&["delete", "a"]).ok();
}
