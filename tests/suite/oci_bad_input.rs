//! `dhow oci`: what is malformed, contradicting, missing or greedy is named or contained, and never waited for.

use serde_json::{Value, json};

use crate::support::{Bundle, is_root, until};

fn skipped() -> bool {
    if !is_root() {
        println!("skipped: needs root");
    }
    !is_root()
}

/// A change, and a word that the error has: the field.
type Case = (fn(&mut Value), &'static str);

#[test]
fn bad_specifications_say_which_field() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["true"]);
    let good = fs_err::read(bundle.path("bundle/config.json")).unwrap();
    let cases: &[Case] = &[
        (|spec| spec["ociVersion"] = json!("1"), "ociVersion"),
        (|spec| spec["ociVersion"] = json!(7), "ociVersion"),
        (|spec| drop(spec.as_object_mut().unwrap().remove("ociVersion")), "ociVersion"),
        (|spec| spec["root"] = json!({}), "path"),
        (|spec| spec["root"]["path"] = json!("nowhere"), "root.path"),
        (|spec| spec["root"]["path"] = json!("config.json"), "config.json"),
        (|spec| drop(spec.as_object_mut().unwrap().remove("process")), "process"),
        (|spec| drop(spec.as_object_mut().unwrap().remove("linux")), "linux"),
        (|spec| spec["process"]["args"] = json!([]), "process.args"),
        (|spec| spec["process"]["args"] = json!("sh"), "args"),
        (|spec| spec["process"]["args"] = json!(["a\u{0}b"]), "process.args"),
        (|spec| spec["process"]["cwd"] = json!("tmp"), "process.cwd"),
        (|spec| spec["process"]["env"] = json!([1]), "env"),
        (|spec| spec["process"]["user"]["uid"] = json!(-1), "uid"),
        (|spec| spec["process"]["user"]["uid"] = json!(4_294_967_295_u32), "process.user"),
        (|spec| spec["process"]["user"]["gid"] = json!(1_u64 << 33), "gid"),
        (|spec| spec["process"]["capabilities"]["effective"] = json!(["CAP_NOPE"]), "CAP_NOPE"),
        (
            |spec| spec["process"]["capabilities"]["inheritable"] = json!(["CAP_SYS_ADMIN"]),
            "process.capabilities",
        ),
        (|spec| spec["process"]["oomScoreAdj"] = json!(2000), "process.oomScoreAdj"),
        (
            |spec| spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOPE", "soft": 1, "hard": 1 }]),
            "RLIMIT_NOPE",
        ),
        (
            |spec| spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 2, "hard": 1 }]),
            "process.rlimits",
        ),
        (
            |spec| spec["process"]["scheduler"] = json!({ "policy": "SCHED_FIFO", "priority": 0 }),
            "process.scheduler",
        ),
        (
            |spec| spec["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_BE", "priority": 9 }),
            "process.ioPriority",
        ),
        (|spec| spec["hostname"] = json!("x".repeat(70)), "hostname"),
        (|spec| spec["linux"]["namespaces"] = json!([{ "type": "nope" }]), "nope"),
        (
            |spec| spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "pid" })),
            "linux.namespaces",
        ),
        (
            |spec| spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "user" })),
            "linux.uidMappings",
        ),
        (
            |spec| spec["linux"]["namespaces"][0]["path"] = json!("/etc/hostname"),
            "/etc/hostname is no pid namespace",
        ),
        (|spec| spec["linux"]["timeOffsets"] = json!({ "boottime": { "secs": 1 } }), "linux.timeOffsets"),
        (|spec| spec["linux"]["sysctl"] = json!({ "kernel.core_pattern": "x" }), "linux.sysctl"),
        (|spec| spec["linux"]["rootfsPropagation"] = json!("open"), "linux.rootfsPropagation"),
        (|spec| spec["linux"]["maskedPaths"] = json!(["proc"]), "linux.maskedPaths"),
        (|spec| spec["linux"]["cgroupsPath"] = json!("/.."), "linux.cgroupsPath"),
        (
            |spec| {
                spec["linux"]["devices"] = json!([{ "path": "/dev/x", "type": "z", "major": 1, "minor": 1 }]);
            },
            "type",
        ),
        (|spec| spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_NOPE" }), "SCMP_ACT_NOPE"),
        (
            |spec| {
                spec["linux"]["seccomp"] =
                    json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_NOPE"] });
            },
            "SCMP_ARCH_NOPE",
        ),
        (|spec| spec["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_NOTIFY" }), "seccomp"),
        (|spec| spec["linux"]["intelRdt"] = json!({ "closID": "a/b" }), "linux.intelRdt"),
        (|spec| spec["linux"]["personality"] = json!({ "domain": "NOPE" }), "NOPE"),
        (|spec| spec["linux"]["resources"] = json!({ "memory": { "limit": "much" } }), "limit"),
        (|spec| spec["linux"]["resources"] = json!({ "memory": { "limit": 1024 } }), ""),
        (|spec| spec["linux"]["resources"] = json!({ "cpu": { "cpus": "0-99999" } }), "cpus"),
        (
            |spec| {
                spec["linux"]["resources"] =
                    json!({ "devices": [{ "allow": true, "type": "q", "access": "rwm" }] });
            },
            "type",
        ),
        (|spec| spec["mounts"][0]["destination"] = json!(""), "mount"),
        (|spec| spec["mounts"][1]["options"] = json!(["size=lots"]), "/dev"),
        (|spec| spec["mounts"][1]["type"] = json!("nofs"), "nofs"),
        (
            |spec| {
                spec["mounts"].as_array_mut().unwrap().push(json!({ "destination": "/x", "type": "bind", "source": "/no/where", "options": ["bind"] }));
            },
            "/no/where",
        ),
        (
            |spec| {
                spec["hooks"] = json!({ "createRuntime": [{ "path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1 }] });
            },
            "took longer than 1 s",
        ),
        (|spec| spec["hooks"] = json!({ "startContainer": [{ "path": "/none" }] }), "startContainer"),
        (|spec| spec["annotations"] = json!({ "": "x" }), "annotations"),
    ];
    let mut wrong = Vec::new();
    for (number, (change, field)) in cases.iter().enumerate() {
        bundle.change(change);
        let called = bundle.oci(&["run", "a"]);
        if called.code != 1 || !called.stderr.contains(field) || called.stderr.contains("panicked") {
            wrong.push(format!("{number}, {field}: {called:?}"));
        }
        bundle.is_clean();
        fs_err::write(bundle.path("bundle/config.json"), &good).unwrap();
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    // No text at all is a specification, and none makes the runtime panic.
    for text in ["{", "null", "[]", "{\"ociVersion\":\"1.0.0\"}", "\u{0}", "\"x\"", &"[".repeat(100_000)] {
        fs_err::write(bundle.path("bundle/config.json"), text).unwrap();
        let called = bundle.oci(&["run", "a"]);
        assert!(called.code == 1 && !called.stderr.contains("panicked"), "{called:#?}");
    }
    // Nor a pipe that nobody writes into, nor a folder.
    fs_err::remove_file(bundle.path("bundle/config.json")).unwrap();
    fs_err::create_dir(bundle.path("bundle/config.json")).unwrap();
    bundle.oci(&["run", "a"]).fails(1, "config.json");
    fs_err::remove_dir(bundle.path("bundle/config.json")).unwrap();
    fs_err::write(bundle.path("bundle/config.json"), good).unwrap();
}

/// Bombs and hogs end within their container, and it can be removed.
#[test]
fn greed_is_contained() {
    if skipped() {
        return;
    }
    let limited = |args: &[&str], resources: Value| {
        let bundle = Bundle::new(args);
        bundle.change(|spec| spec["linux"]["resources"] = resources);
        bundle
    };
    let bomb = limited(
        &["sh", "-c", "sh -c 'while :; do sleep 600 & done'; exec sleep 600"],
        json!({ "pids": { "limit": 30 } }),
    );
    bomb.oci(&["run", "-d", "a"]).ok();
    until("it is at its limit", || {
        let pids: Vec<u32> = serde_json::from_str(&bomb.oci(&["ps", "--format", "json", "a"]).ok()).unwrap();
        assert!(pids.len() <= 30);
        (pids.len() >= 20).then_some(())
    });
    bomb.oci(&["delete", "--force", "a"]).ok();
    bomb.is_clean();
    let hog = limited(
        &["sh", "-c", "x=x; while :; do x=$x$x; done"],
        json!({ "memory": { "limit": 32 << 20, "swap": 32 << 20 } }),
    );
    // The shell is killed by the kernel, or has no memory left to say so.
    assert_ne!(hog.oci(&["run", "a"]).code, 0);
    hog.is_clean();
    let full = Bundle::new(&[
        "sh",
        "-c",
        "i=3; while eval \"exec $i</dev/null\" 2>/dev/null; do i=$((i+1)); done; echo $i",
    ]);
    full.change(|spec| {
        spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "soft": 40, "hard": 40 }]);
    });
    let called = full.oci(&["run", "a"]);
    assert!(
        called.stdout.trim().parse::<u32>().is_ok_and(|last| last <= 40) || called.code != 0,
        "{called:#?}"
    );
}

/// Joining, killing and deleting a container that is just about to end: an answer each time.
#[test]
fn races_with_the_end_have_an_answer() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "0.02"]);
    for _ in 0..10 {
        bundle.oci(&["run", "-d", "a"]).ok();
        let calls: Vec<_> = [
            &["exec", "a", "true"][..],
            &["kill", "a", "TERM"],
            &["exec", "a", "true"],
            &["state", "a"],
            &["pause", "a"],
            &["resume", "a"],
            &["update", "--pids-limit", "9", "a"],
        ]
        .into_iter()
        .map(|args| bundle.command(args).stdin(std::process::Stdio::null()).output().unwrap())
        .collect();
        for call in calls {
            let said = String::from_utf8_lossy(&call.stderr);
            assert!(call.status.code().is_some() && !said.contains("panicked"), "{said}");
        }
        bundle.oci(&["delete", "--force", "a"]).ok();
        bundle.is_clean();
    }
}

/// Other limits, what is used, and lack of memory.
#[test]
fn limits_change_and_are_told() {
    if skipped() {
        return;
    }
    let bundle = Bundle::new(&["sleep", "600"]);
    bundle.change(|spec| {
        spec["linux"]["resources"] = json!({ "pids": { "limit": 30 }, "memory": { "limit": 64 << 20 } });
    });
    bundle.oci(&["run", "-d", "a"]).ok();
    let stats = || -> Value { serde_json::from_str(&bundle.oci(&["events", "--stats", "a"]).ok()).unwrap() };
    assert_eq!(stats()["data"]["pids"]["limit"], 30);
    bundle.oci(&["update", "--pids-limit", "20", "--memory", "48m", "a"]).ok();
    assert_eq!(stats()["data"]["pids"]["limit"], 20);
    assert_eq!(stats()["data"]["memory"]["usage"]["limit"], 48 << 20);
    bundle.oci(&["update", "--memory", "lots", "a"]).fails(1, "memory");
    bundle.oci(&["events", "--interval", "0s", "a"]).fails(1, "must be greater than 0");
    let mut command = bundle.command(&["events", "--interval", "100ms", "a"]);
    let out = bundle.path("events");
    let mut events = command.stdout(fs_err::File::create(&out).unwrap().into_parts().0).spawn().unwrap();
    let said = || fs_err::read_to_string(&out).unwrap();
    until("it speaks now and then", || (said().lines().count() > 2).then_some(()));
    bundle.oci(&["exec", "a", "sh", "-c", "x=x; while :; do x=$x$x; done"]);
    until("it tells of the lack", || said().contains("\"type\":\"oom\"").then_some(()));
    bundle.oci(&["kill", "a", "KILL"]).ok();
    assert!(events.wait().unwrap().success());
    bundle.oci(&["delete", "a"]).ok();
    bundle.oci(&["events", "a"]).fails(1, "does not exist");
    bundle.oci(&["checkpoint", "a"]).fails(1, "does not exist");
}
