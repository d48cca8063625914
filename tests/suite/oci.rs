//! `dhow oci`: a container's life as an OCI runtime keeps it, with runc for comparison.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Bundle, Runtime, is_root, until};

/// These need root as runc does; without it containers of other runtimes cannot be compared.
fn skipped() -> bool {
    if !is_root() {
        println!("skipped: needs root");
    }
    !is_root()
}

#[test]
fn a_container_s_life_is_runc_s() {
    if skipped() {
        return;
    }
    let both = [Runtime::Dhow, Runtime::Runc].map(|runtime| {
        let bundle = Bundle::of(runtime, &["sleep", "600"]);
        let mut seen = Vec::new();
        let look = |seen: &mut Vec<Value>| {
            let mut state = bundle.state("life");
            assert_eq!(state["bundle"], bundle.text("bundle"));
            assert_eq!(state["rootfs"], bundle.text("bundle/rootfs"));
            assert_eq!(state["pid"] == 0, state["status"] == "stopped");
            for own in ["ociVersion", "pid", "bundle", "rootfs", "created"] {
                assert!(state.as_object_mut().unwrap().remove(own).is_some(), "{own}");
            }
            seen.push(state);
        };
        let calls: [&[&str]; 14] = [
            &["start", "life"],
            &["state", "life"],
            &["create", "--bundle", ".", "--pid-file", "../pid", "life"],
            &["create", "life"],
            &["start", "life"],
            &["start", "life"],
            &["delete", "life"],
            &["kill", "life", "NOPE"],
            &["kill", "life", "KILL"],
            &["kill", "life", "KILL"],
            &["start", "life"],
            &["exec", "life", "true"],
            &["delete", "life"],
            &["delete", "life"],
        ];
        let mut codes = Vec::new();
        for (number, call) in calls.iter().enumerate() {
            if number == 9 {
                bundle.until("life", "stopped");
            }
            let called = bundle.oci(call);
            codes.push((call.join(" "), called.code));
            if (2..12).contains(&number) && number != 8 {
                look(&mut seen);
            }
            if number == 2 {
                let pid = fs_err::read_to_string(bundle.path("pid")).unwrap();
                assert_eq!(bundle.state("life")["pid"].to_string(), pid);
            }
        }
        let called = bundle.oci(&["delete", "--force", "life"]);
        assert_eq!(called.code, 0, "{called:#?}");
        (codes, seen)
    });
    assert_eq!(both[0], both[1]);
}

#[test]
fn failures_have_the_words_callers_look_for() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.oci(&["state", "no"]).fails(1, "does not exist");
    bundle.oci(&["delete", "no"]).fails(1, "does not exist");
    bundle.oci(&["delete", "--force", "no"]).ok();
    for id in ["", ".", "..", "a/b", "../../x", "a b"] {
        bundle.oci(&["create", id]).fails(1, "invalid container ID format");
        bundle.oci(&["delete", "--force", id]).fails(1, "invalid container ID format");
    }
    bundle.oci(&["create", "a"]).ok();
    bundle.oci(&["create", "a"]).fails(1, "already exists");
    bundle.oci(&["start", "a"]).ok();
    bundle.oci(&["delete", "a"]).fails(1, "cannot delete container a that is not stopped: running");
    bundle.oci(&["exec", "a", "nope"]).fails(255, "executable file not found in $PATH");
    bundle.oci(&["exec", "a", "/nope"]).fails(255, "no such file or directory");
    bundle.oci(&["kill", "a", "9"]).ok();
    bundle.until("a", "stopped");
    bundle.oci(&["kill", "a"]).fails(1, "container not running");
    bundle.oci(&["start", "a"]).fails(1, "cannot start a container that has stopped");
    bundle.oci(&["exec", "a", "true"]).fails(255, "cannot exec in a stopped container");
    bundle.oci(&["delete", "a"]).ok();
    let log = bundle.text("log");
    bundle.oci(&["--log", &log, "--log-format", "json", "delete", "a"]).fails(1, "does not exist");
    let line: Value = serde_json::from_str(fs_err::read_to_string(&log).unwrap().trim_end()).unwrap();
    assert_eq!(line["level"], "error");
    assert!(line["msg"].as_str().unwrap().contains("does not exist"), "{line}");
    for (args, words) in [
        (["nope"].as_slice(), "executable file not found in $PATH"),
        (&["/nope"], "no such file or directory"),
        (&["/etc"], "permission denied"),
        (&[], "process.args"),
    ] {
        bundle.change(|spec| spec["process"]["args"] = json!(args));
        for verb in ["create", "run"] {
            bundle.oci(&[verb, "a"]).fails(1, words);
            bundle.is_clean();
        }
    }
}

#[test]
fn bad_bundles_leave_nothing() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["true"]);
    fs_err::rename(bundle.path("bundle/config.json"), bundle.path("good")).unwrap();
    bundle.oci(&["run", "a"]).fails(1, "config.json");
    for (text, words) in [
        ("", "EOF"),
        ("[]", "config.json"),
        ("{\"ociVersion\":\"2.0.0\"}", "ociVersion"),
        ("{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":\"/nowhere/at/all\"}}", "root.path"),
        ("{\"ociVersion\":\"1.0.0\",\"root\":{\"path\":\"rootfs\"}}", "process"),
    ] {
        fs_err::write(bundle.path("bundle/config.json"), text).unwrap();
        bundle.oci(&["run", "a"]).fails(1, words);
        bundle.is_clean();
    }
    fs_err::rename(bundle.path("good"), bundle.path("bundle/config.json")).unwrap();
    for (change, words) in [
        ((|spec| spec["process"]["terminal"] = true.into()) as fn(&mut Value), "console socket"),
        (|spec| spec["process"]["cwd"] = "relative".into(), "cwd"),
        (|spec| spec["mounts"][0]["source"] = "/nowhere".into(), ""),
        (|spec| spec["linux"]["namespaces"] = json!([{ "type": "pid", "path": "/nowhere" }]), "/nowhere"),
        (|spec| spec["hooks"] = json!({ "createRuntime": [{ "path": "/nowhere" }] }), "createRuntime"),
        (|spec| spec["hooks"] = json!({ "createContainer": [{ "path": "/bin/false" }] }), "createContainer"),
    ] {
        let good = fs_err::read(bundle.path("bundle/config.json")).unwrap();
        bundle.change(change);
        let called = bundle.oci(&["create", "a"]);
        assert!(words.is_empty() || (called.code == 1 && called.stderr.contains(words)), "{called:#?}");
        bundle.oci(&["delete", "--force", "a"]).ok();
        bundle.is_clean();
        fs_err::write(bundle.path("bundle/config.json"), good).unwrap();
    }
}

#[test]
fn run_ends_as_the_program_ends() {
    if skipped() {
        return;
    }
    for (script, code) in [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("echo out; echo err >&2", 0)] {
        let both = [Runtime::Dhow, Runtime::Runc].map(|runtime| {
            // Not as process 1, which no signal of its own ends.
            let script = format!("sh -c '{script}'; exit $?");
            Bundle::of(runtime, &["sh", "-c", &script]).oci(&["run", "a"])
        });
        assert_eq!((both[0].code, &both[0]), (code, &both[1]), "{script}");
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    let mut child = bundle.command(&["run", "a"]).spawn().unwrap();
    // Killed before it has executed anything, `run` says that instead.
    until("it runs", || {
        let state: serde_json::Value = serde_json::from_str(&bundle.oci(&["state", "a"]).stdout).ok()?;
        let program = fs_err::read_to_string(format!("/proc/{}/comm", state["pid"])).ok()?;
        (program == "sleep\n").then_some(())
    });
    let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::USR1).unwrap();
    bundle.oci(&["kill", "a", "KILL"]).ok();
    assert_eq!(child.wait().unwrap().code(), Some(137));
    bundle.is_clean();
}

#[test]
fn a_process_joins_the_container() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.oci(&["run", "--detach", "a"]).ok();
    let says = |args: &[&str]| bundle.oci(&[&["exec"], args].concat()).ok();
    assert_eq!(says(&["a", "cat", "/proc/1/comm"]), "sleep\n");
    assert_eq!(says(&["a", "sh", "-c", "hostname 2>/dev/null || cat /proc/sys/kernel/hostname"]), "bundle\n");
    assert_eq!(says(&["--user", "7:8", "-g", "9", "a", "id"]), "uid=7 gid=8 groups=9\n");
    assert_eq!(says(&["--cwd", "/data", "--env", "A=b", "a", "sh", "-c", "pwd; echo $A"]), "/data\nb\n");
    assert_eq!(bundle.oci(&["exec", "a", "sh", "-c", "exit 9"]).code, 9);
    assert_eq!(bundle.oci(&["exec", "a", "sh", "-c", "kill -9 $$"]).code, 137);
    // No set outlives the program, and no descriptor comes with it.
    let sets = says(&[
        "--cap",
        "CAP_NET_RAW",
        "a",
        "sh",
        "-c",
        "grep Cap /proc/self/status || cat /proc/self/status",
    ]);
    for (name, value) in [("CapInh", "0000000000000000"), ("CapAmb", "0000000000000000")] {
        assert!(sets.contains(&format!("{name}:\t{value}")), "{sets}");
    }
    // The shell opens the folder itself.
    assert_eq!(says(&["a", "ls", "/proc/self/fd"]), "0\n1\n2\n3\n");
    for number in 0..64 {
        let cwd = format!("/proc/self/fd/{number}");
        let called = bundle.oci(&["exec", "--cwd", &cwd, "a", "pwd"]);
        assert!(called.code == 255 && called.stdout.is_empty(), "{number}: {called:#?}");
    }
    for user in ["1:", ":1", "-1", "0x1", "root", "4294967296"] {
        bundle.oci(&["exec", "--user", user, "a", "id"]).fails(255, "bad ");
    }
    let pid_file = bundle.text("pid");
    bundle.oci(&["exec", "-d", "--pid-file", &pid_file, "a", "sleep", "601"]).ok();
    let pid = fs_err::read_to_string(&pid_file).unwrap();
    let mut pids: Vec<String> =
        serde_json::from_str::<Vec<u32>>(&bundle.oci(&["ps", "--format", "json", "a"]).ok())
            .unwrap()
            .iter()
            .map(u32::to_string)
            .collect();
    let first = bundle.state("a")["pid"].to_string();
    pids.retain(|one| *one != first);
    assert_eq!(pids, [pid]);
    let table = bundle.oci(&["ps", "a"]).ok();
    assert_eq!((table.lines().count(), table.contains("sleep 601")), (3, true), "{table}");
    let process =
        json!({ "args": ["id", "-u"], "cwd": "/", "user": { "uid": 5, "gid": 5 }, "env": ["PATH=/bin"] });
    fs_err::write(bundle.path("process.json"), process.to_string()).unwrap();
    assert_eq!(says(&["--process", &bundle.text("process.json"), "a"]), "5\n");
    bundle.oci(&["kill", "a", "KILL"]).ok();
    bundle.until("a", "stopped");
    bundle.oci(&["delete", "a"]).ok();
}

#[test]
fn terminals_are_the_container_s_own() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "tty; stty size; read line; echo got $line"]);
    bundle.change(|spec| spec["process"]["terminal"] = true.into());
    let mut terminal = bundle.on_terminal(&["run", "a"]);
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    terminal.send("word\n");
    terminal.expect("got word");
    assert_eq!(terminal.code(), 0);
    assert!(terminal.is_cooked());
    bundle.change(|spec| {
        spec["process"]["terminal"] = false.into();
        spec["process"]["args"] = json!(["sleep", "600"]);
    });
    bundle.oci(&["run", "-d", "a"]).ok();
    let mut terminal = bundle.on_terminal(&["exec", "-t", "a", "sh", "-c", "tty; exit 3"]);
    terminal.expect("/dev/pts/0");
    assert_eq!(terminal.code(), 3);
    bundle.oci(&["create", "--console-socket", "/nowhere", "b"]).fails(1, "cannot use console socket");
    bundle.oci(&["delete", "-f", "a"]).ok();
}

#[test]
fn hooks_run_in_their_order() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "echo program >> /data/log; sleep 600"]);
    let log = bundle.text("bundle/rootfs/data/log");
    let hook = |kind: &str, log: &str| {
        // Settings of the container's are no reason to hide the host's from a hook.
        let look = "test -e /proc/sys/kernel/ostype || exit 9";
        let script = format!("read state; {look}; echo {kind} $A >> {log}; echo $state > {log}.{kind}");
        json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["A=b"], "timeout": 60 }])
    };
    bundle.change(|spec| {
        spec["mounts"] = json!([{ "destination": "/proc", "type": "proc", "source": "proc" }]);
        spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "8193" });
        spec["hooks"] = json!({
            "prestart": hook("prestart", &log),
            "createRuntime": hook("createRuntime", &log),
            "createContainer": hook("createContainer", &log),
            "startContainer": hook("startContainer", "/data/log"),
            "poststart": hook("poststart", &log),
            "poststop": hook("poststop", &log),
        });
    });
    let said = || fs_err::read_to_string(&log).unwrap_or_default();
    bundle.oci(&["create", "a"]).ok();
    assert_eq!(said(), "prestart b\ncreateRuntime b\ncreateContainer b\n");
    bundle.oci(&["start", "a"]).ok();
    until("all have spoken", || (said().contains("program") && said().contains("poststart")).then_some(()));
    assert!(said().contains("createContainer b\nstartContainer b\n"), "{}", said());
    let pid = bundle.state("a")["pid"].clone();
    for (kind, status) in [("createRuntime", "creating"), ("poststart", "running")] {
        let state: Value =
            serde_json::from_str(&fs_err::read_to_string(format!("{log}.{kind}")).unwrap()).unwrap();
        assert_eq!(
            (&state["id"], &state["status"], &state["pid"]),
            (&json!("a"), &json!(status), &pid),
            "{state}"
        );
        assert_eq!(state["annotations"], json!({ "org.example.key": "value" }));
    }
    bundle.oci(&["delete", "-f", "a"]).ok();
    assert!(said().ends_with("poststop b\n"), "{}", said());
}

/// Who makes a network depends on where it is shown: last of all, in Docker's order, somewhere else or nowhere. What is in it
/// does not, and the host's stays as it is.
#[test]
fn a_network_is_its_own_wherever_it_is_shown() {
    if skipped() {
        return;
    }
    let mount = |destination: &str, kind: &str| json!({ "destination": destination, "type": kind, "source": kind, "options": ["nosuid"] });
    let (proc, dev, sys, data) =
        (mount("/proc", "proc"), mount("/dev", "tmpfs"), mount("/sys", "sysfs"), mount("/data", "tmpfs"));
    let covered = mount("/sys/kernel", "tmpfs");
    let orders = [
        ("last", json!([proc, dev, data, sys])),
        ("Docker's", json!([proc, dev, sys, data])),
        ("first", json!([sys, proc, dev, data])),
        ("mounted upon", json!([proc, dev, data, sys, covered])),
        ("nowhere", json!([proc, dev, data])),
    ];
    let host = fs_err::read_link("/proc/self/ns/net").unwrap().display().to_string();
    for (order, mounts) in orders {
        let both = [Runtime::Dhow, Runtime::Runc].map(|runtime| {
            let look = "busybox readlink /proc/self/ns/net; busybox ip addr show; ls /sys/kernel | busybox wc -l; \
                        for shown in /sys/class/net/*; do echo $shown $(cat $shown/flags); done 2>/dev/null";
            let bundle = Bundle::of(runtime, &["sh", "-c", look]);
            let of_host = bundle.text("of-host");
            bundle.change(|spec| {
                spec["mounts"] = mounts.clone();
                let look = format!("readlink /proc/self/ns/net > {of_host}");
                let hook = json!({ "path": "/bin/sh", "args": ["sh", "-c", look], "env": ["PATH=/bin"] });
                spec["hooks"] = json!({ "poststop": [hook] });
            });
            let ran = bundle.oci(&["run", "a"]).ok();
            let (network, inside) = ran.split_once('\n').expect("lines");
            assert!(network.starts_with("net:[") && network != host, "{order}: {network}");
            assert!(inside.contains("lo: <LOOPBACK,UP"), "{order}: {inside}");
            assert!(!inside.contains("eth"), "{order}: {inside}");
            let hook = fs_err::read_to_string(bundle.path("of-host")).unwrap();
            assert_eq!(hook.lines().next(), Some(host.as_str()), "{order}");
            inside.to_owned()
        });
        assert_eq!(both[0], both[1], "{order}");
        assert_eq!(both[0].contains("/sys/class/net/lo 0x9"), order != "nowhere", "{order}: {}", both[0]);
    }
}

#[test]
fn one_of_many_starts_it() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.oci(&["create", "a"]).ok();
    let starts: Vec<_> = (0..8)
        .map(|_| bundle.command(&["start", "a"]).stderr(std::process::Stdio::piped()).spawn().unwrap())
        .collect();
    let worked = starts.into_iter().map(|start| start.wait_with_output().unwrap());
    assert_eq!(worked.filter(|output| output.status.success()).count(), 1);
    assert_eq!(bundle.status("a"), "running");
    let deletes: Vec<_> = (0..8).map(|_| bundle.command(&["delete", "-f", "a"]).spawn().unwrap()).collect();
    for delete in deletes {
        assert!(delete.wait_with_output().unwrap().status.success());
    }
    bundle.is_clean();
}

/// Wherever the creator is killed, force removes what is left, and no process waits for ever.
#[test]
fn a_killed_creator_leaves_nothing_that_stays() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "617"]);
    for round in 0..40 {
        let mut child = bundle.command(&["create", "a"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(round * 250));
        child.kill().unwrap();
        child.wait().unwrap();
        bundle.oci(&["delete", "--force", "a"]).ok();
        bundle.is_clean();
        let name = bundle.text("bundle/rootfs");
        until("no process is left in it", || {
            let own = Command::new("sh")
                .args(["-c", "grep -ls \"$1\" /proc/[0-9]*/mountinfo", "sh", &name])
                .output();
            own.unwrap().stdout.is_empty().then_some(())
        });
    }
}

#[test]
fn lists_are_runc_s() {
    if skipped() {
        return;
    }
    let both = [Runtime::Dhow, Runtime::Runc].map(|runtime| {
        let bundle = Bundle::of(runtime, &["sleep", "600"]);
        let mut said = Vec::new();
        bundle.oci(&["create", "one"]).ok();
        // Containers that share a group cannot be deleted one by one.
        let second = format!("{}-two", bundle.group());
        bundle.change(|spec| spec["linux"]["cgroupsPath"] = second.into());
        bundle.oci(&["create", "two"]).ok();
        bundle.oci(&["start", "two"]).ok();
        said.push(bundle.oci(&["list", "-q"]).ok());
        let table = bundle.oci(&["list"]).ok();
        said.push(table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" "));
        let all: Value = serde_json::from_str(&bundle.oci(&["list", "--format", "json"]).ok()).unwrap();
        for one in all.as_array().unwrap() {
            let mut fields: Vec<&str> = one.as_object().unwrap().keys().map(String::as_str).collect();
            fields.sort_unstable();
            said.push(format!("{} {} {} {fields:?}", one["id"], one["status"], one["owner"]));
        }
        for id in ["one", "two"] {
            bundle.oci(&["delete", "-f", id]).ok();
        }
        said
    });
    assert_eq!(both[0], both[1]);
}

#[test]
fn paused_containers_stand_still() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.oci(&["run", "-d", "a"]).ok();
    bundle.oci(&["resume", "a"]).fails(1, "container not paused");
    bundle.oci(&["pause", "a"]).ok();
    assert_eq!(bundle.status("a"), "paused");
    bundle.oci(&["exec", "a", "true"]).fails(255, "cannot exec in a paused container");
    bundle.oci(&["resume", "a"]).ok();
    assert_eq!(bundle.status("a"), "running");
    bundle.oci(&["pause", "a"]).ok();
    bundle.oci(&["delete", "a"]).fails(1, "not stopped: paused");
    bundle.oci(&["delete", "--force", "a"]).ok();
}

/// Of version 1 a container that asks for nothing has groups where something counts; the others come when they are needed.
#[test]
fn groups_are_made_when_something_is_asked_of_them() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sh", "-c", "sleep 600 & wait"]);
    bundle.change(|spec| {
        let linux = spec["linux"].as_object_mut().unwrap();
        linux.remove("cgroupsPath");
        linux.remove("resources");
    });
    let id = format!("idle-{}", std::process::id());
    bundle.oci(&["run", "-d", &id]).ok();
    let both = || {
        let all: Vec<u32> = serde_json::from_str(&bundle.oci(&["ps", "-f", "json", &id]).ok()).unwrap();
        (all.len() == 2).then_some(all)
    };
    let pids = until("all processes are there", both);
    let inside = |pid: &u32, controller: &str| {
        let text = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
        let mut lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
        let found = lines.find(|(names, _)| names.split(',').any(|name| name == controller));
        found.map(|(_, path)| path == format!("/dhow-{id}"))
    };
    let is = |controller: &str, wanted: bool| {
        for pid in &pids {
            // Where there is such a hierarchy.
            assert_ne!(inside(pid, controller), Some(!wanted), "{controller} of {pid}");
        }
    };
    for controller in ["memory", "pids", "devices"] {
        is(controller, true);
    }
    // Version 2 beside them counts time, and needs no hierarchy for its own name.
    let is_beside = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    for controller in ["cpuacct", "name=systemd"] {
        is(controller, !is_beside);
    }
    let stats: Value = serde_json::from_str(&bundle.oci(&["events", "--stats", &id]).ok()).unwrap();
    assert!(stats["data"]["cpu"]["usage"]["total"].as_u64() > Some(0), "{stats}");
    let has_cpuset = inside(&pids[0], "cpuset").is_some();
    if has_cpuset {
        is("cpuset", false);
    }
    bundle.oci(&["pause", &id]).ok();
    assert_eq!(bundle.status(&id), "paused");
    bundle.oci(&["resume", &id]).ok();
    bundle.oci(&["update", "--cpuset-cpus", "0", &id]).ok();
    if has_cpuset {
        is("cpuset", true);
    }
    let mask = bundle.oci(&["exec", &id, "busybox", "grep", "Cpus_allowed_list", "/proc/self/status"]).ok();
    assert_eq!(mask.split_whitespace().last(), Some("0"));
    bundle.oci(&["delete", "--force", &id]).ok();
    for hierarchy in fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        assert!(!hierarchy.path().join(format!("dhow-{id}")).exists(), "{}", hierarchy.path().display());
    }
    bundle.is_clean();
}

#[test]
fn a_link_of_that_name_is_the_runtime() {
    let dir = tempfile::tempdir().unwrap();
    let link = dir.path().join("dhow-oci");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_dhow"), &link).unwrap();
    let said =
        |args: &[&str]| String::from_utf8(Command::new(&link).args(args).output().unwrap().stdout).unwrap();
    assert!(said(&["--version"]).starts_with("dhow version "), "{}", said(&["--version"]));
    assert!(said(&["--version"]).contains("\nspec: 1."));
    assert!(said(&["--help"]).contains("Commands:"));
    assert!(said(&["create", "--help"]).contains("--pid-file"));
    let features: Value = serde_json::from_str(&said(&["features"])).unwrap();
    assert_eq!(features["ociVersionMin"], "1.0.0");
}
