//! `dhow oci --systemd-cgroup` beside a real systemd on cgroup v2: units and groups say the same from a container's creation to its
//! removal, and systemd may end it.

use serde_json::json;

use crate::support::{Bundle, Host, inside_systemd, repository, tool, until};

/// Properties of a unit, as systemd has them.
fn properties<const N: usize>(unit: &str, names: [&str; N]) -> [String; N] {
    let mut command = std::process::Command::new("systemctl");
    let shown =
        tool(command.args(["show", "-p", &names.join(","), unit]).stdout(std::process::Stdio::piped()));
    let value = |name: &str| shown.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    names.map(|name| value(name).unwrap_or_else(|| panic!("no {name}: {shown}")).to_owned())
}

fn property(unit: &str, name: &str) -> String {
    let [value] = properties(unit, [name]);
    value
}

fn oci(bundle: &Bundle, args: &[&str]) -> String {
    bundle.oci(&[&["--systemd-cgroup"], args].concat()).ok()
}

#[test]
fn units_are_what_containers_are() {
    if !inside_systemd("cgroup2_systemd::units_are_what_containers_are") {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.change(|spec| {
        spec["linux"]["cgroupsPath"] = json!("app-one.slice:dhow:a");
        spec["linux"]["resources"] = json!({
            "memory": { "limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20 },
            "cpu": { "shares": 512, "quota": 20000, "period": 100_000 },
            "pids": { "limit": 30 },
            "unified": { "memory.high": "50331648" }
        });
    });
    let unit = "dhow-a.scope";
    let group = std::path::Path::new("/sys/fs/cgroup/app.slice/app-one.slice").join(unit);
    let read = |name: &str| fs_err::read_to_string(group.join(name)).unwrap().trim().to_owned();
    oci(&bundle, &["create", "a"]);
    assert_eq!(properties(unit, ["ActiveState", "Slice", "Delegate"]), ["active", "app-one.slice", "yes"]);
    let pid = bundle.state("a")["pid"].to_string();
    assert!(read("cgroup.procs").contains(&pid), "{pid}");
    oci(&bundle, &["start", "a"]);
    let names = ["MemoryMax", "MemorySwapMax", "MemoryLow", "TasksMax", "CPUQuotaPerSecUSec", "CPUWeight"];
    let weight = read("cpu.weight");
    assert_eq!(properties(unit, names), ["67108864", "33554432", "33554432", "30", "200ms", &weight]);
    let files = ["memory.max", "memory.swap.max", "memory.low", "pids.max", "cpu.max"];
    assert_eq!(files.map(read), ["67108864", "33554432", "33554432", "30", "20000 100000"]);
    assert_eq!(read("memory.high"), "50331648");
    // What is changed stays so when systemd writes all it knows again.
    oci(&bundle, &["update", "--memory", "48m", "--pids-limit", "20", "--cpu-quota", "30000", "a"]);
    tool(std::process::Command::new("systemctl").arg("daemon-reload"));
    tool(std::process::Command::new("systemctl").args(["set-property", "--runtime", unit, "CPUWeight=50"]));
    assert_eq!((read("memory.max"), read("pids.max")), ("50331648".into(), "20".into()));
    assert_eq!(properties(unit, ["MemoryMax", "TasksMax"]), ["50331648", "20"]);
    assert_eq!((read("cpu.max"), read("cpu.weight")), ("30000 100000".into(), "50".into()));
    // Another process is in it, or in what is below.
    let joined = oci(&bundle, &["exec", "a", "cat", "/proc/self/cgroup"]);
    assert!(joined.starts_with("0::/"), "{joined}");
    oci(&bundle, &["exec", "-d", "a", "sleep", "500"]);
    assert_eq!(read("cgroup.procs").lines().count(), 2);
    oci(&bundle, &["pause", "a"]);
    assert_eq!((bundle.status("a").as_str(), read("cgroup.freeze").as_str()), ("paused", "1"));
    oci(&bundle, &["resume", "a"]);
    oci(&bundle, &["kill", "a", "KILL"]);
    bundle.until("a", "stopped");
    oci(&bundle, &["delete", "a"]);
    assert!(!group.exists(), "{}", group.display());
    assert_eq!(property(unit, "LoadState"), "not-found");
}

#[test]
fn who_ends_a_unit_ends_its_container() {
    if !inside_systemd("cgroup2_systemd::who_ends_a_unit_ends_its_container") {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!(":dhow:b"));
    oci(&bundle, &["run", "-d", "b"]);
    assert_eq!(property("dhow-b.scope", "Slice"), "system.slice");
    tool(std::process::Command::new("systemctl").args(["stop", "dhow-b.scope"]));
    bundle.until("b", "stopped");
    oci(&bundle, &["delete", "b"]);
    // The same name again, and a program that is over at once.
    for _ in 0..3 {
        bundle.change(|spec| spec["process"]["args"] = json!(["sh", "-c", "exit 7"]));
        assert_eq!(bundle.oci(&["--systemd-cgroup", "run", "b"]).code, 7);
        until("the unit is gone", || (property("dhow-b.scope", "LoadState") == "not-found").then_some(()));
    }
    // What cannot be a unit is said, and leaves nothing.
    bundle.change(|spec| spec["linux"]["cgroupsPath"] = json!("no.scope:dhow:b"));
    bundle.oci(&["--systemd-cgroup", "create", "b"]).fails(1, "linux.cgroupsPath");
    bundle.is_clean();
}

/// The service of docs/restart.md, but for its paths.
#[test]
fn a_service_starts_containers_and_ends_them() {
    if !inside_systemd("cgroup2_systemd::a_service_starts_containers_and_ends_them") {
        return;
    }
    let host = Host::with_busybox();
    let docs = fs_err::read_to_string(repository().join("docs/restart.md")).unwrap();
    let unit = docs.split("```ini\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a unit");
    let environment = format!("[Service]\nEnvironment=DHOW_ROOT={}", host.root().display());
    let unit =
        unit.replace("/usr/local/bin/dhow", env!("CARGO_BIN_EXE_dhow")).replace("[Service]", &environment);
    fs_err::write("/etc/systemd/system/dhow.service", unit).unwrap();
    let systemctl = |args: &[&str]| tool(std::process::Command::new("systemctl").args(args));
    systemctl(&["daemon-reload"]);
    host.dhow(["run", "-d", "--name", "kept", "--restart", "always", "busybox:1", "sleep", "600"]).ok();
    host.dhow(["run", "-d", "--name", "once", "busybox:1", "sleep", "600"]).ok();
    host.dhow(["system", "stop"]).ok();
    let status = |name: &str| host.dhow(["inspect", "-f", "{{.State.Status}}", name]).ok().trim().to_owned();
    assert_eq!((status("kept").as_str(), status("once").as_str()), ("exited", "exited"));
    systemctl(&["start", "dhow"]);
    assert_eq!(property("dhow", "ActiveState"), "active");
    assert_eq!((status("kept").as_str(), status("once").as_str()), ("running", "exited"));
    host.dhow(["start", "once"]).ok();
    systemctl(&["stop", "dhow"]);
    assert_eq!((status("kept").as_str(), status("once").as_str()), ("exited", "exited"));
    // As after a boot: nobody has stopped it.
    systemctl(&["start", "dhow"]);
    assert_eq!((status("kept").as_str(), status("once").as_str()), ("running", "exited"));
    assert_eq!(host.dhow(["exec", "kept", "echo", "here"]).ok(), "here\n");
    systemctl(&["stop", "dhow"]);
    assert_eq!(property("dhow", "Result"), "success");
}
