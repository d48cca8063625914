//! `events`: one order for what all processes do, without a daemon.

use serde_json::Value;

use crate::support::{Host, busybox, guest};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

/// What happened so far, as `type action`.
fn told(host: &Host, more: &[&str]) -> Vec<String> {
    let format = "{{.Type}} {{.Action}}";
    let text = host.dhow(["events", "--since", "1h", "--until", "0s", "--format", format]).args(more).ok();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_life_is_told_in_order() {
    let host = host();
    for args in [&["./probe.wasm", "exit", "3"][..], &["busybox:1", "sh", "-c", "exit 3"]] {
        host.dhow(["run", "--rm", "--name", "it", "-l", "tier=db"]).args(args).fails(3);
        let of = ["--filter", "container=it", "--filter", "label=tier=db"];
        assert_eq!(
            told(&host, &of),
            ["container create", "container attach", "container start", "container die", "container destroy"]
        );
        let json = host.dhow(["events", "--since", "1h", "--until", "0s", "--format", "json"]).args(of).ok();
        let events: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let die = &events[3];
        assert_eq!(die["Actor"]["Attributes"]["exitCode"], "3");
        assert_eq!((&die["status"], &die["from"]), (&"die".into(), &args[0].into()));
        assert_eq!(die["scope"], "local");
        let times: Vec<i64> = events.iter().map(|event| event["timeNano"].as_i64().unwrap()).collect();
        assert!(times.is_sorted(), "{times:?}");
        let line = host.dhow(["events", "--since", "1h", "--until", "0s", "--filter", "event=die"]).ok();
        let expected = format!("container die {} (exitCode=3, image=", die["Actor"]["ID"].as_str().unwrap());
        assert!(line.contains(&expected) && line.trim_end().ends_with(", name=it, tier=db)"), "{line}");
        fs_err::remove_file(host.root().join("events/log")).unwrap();
    }
    // One that cannot be started has not died.
    host.dhow(["run", "--rm", "--name", "it", "busybox:1", "nosuch"]).fails(127);
    assert_eq!(told(&host, &[]), ["container create", "container attach", "container destroy"]);
}

#[test]
fn a_native_container_is_paused() {
    let host = Host::with_busybox();
    host.dhow(["run", "-d", "--name", "it", "--network", "none", "busybox:1", "sleep", "600"]).ok();
    if host.dhow(["pause", "it"]).outcome().code != 0 {
        println!("skipped: it takes a control group, which this user may not make");
        return;
    }
    host.dhow(["unpause", "it"]).ok();
    let all = told(&host, &["--filter", "event=pause", "--filter", "event=unpause"]);
    assert_eq!(all, ["container pause", "container unpause"]);
    host.dhow(["rm", "-f", "it"]).ok();
}

#[test]
fn what_is_done_to_a_container() {
    let host = host();
    host.dhow(["run", "-d", "--name", "one", "./probe.wasm", "sleep", "600"]).ok();
    host.dhow(["exec", "one", "probe.wasm", "exit", "7"]).fails(7);
    host.dhow(["pause", "one"]).ok();
    host.dhow(["unpause", "one"]).ok();
    host.dhow(["rename", "one", "it"]).ok();
    host.dhow(["update", "--restart", "on-failure:1", "it"]).ok();
    host.dhow(["cp", "probe.wasm", "it:/x"]).ok();
    host.dhow(["cp", "it:/x", "y"]).ok();
    host.dhow(["export", "-o", "e.tar", "it"]).ok();
    host.dhow(["commit", "--pause=false", "it", "made:1"]).ok();
    host.dhow(["tag", "made:1", "made:2"]).ok();
    host.dhow(["rmi", "made:1", "made:2"]).ok();
    host.dhow(["restart", "it"]).ok();
    host.dhow(["kill", "it"]).ok();
    host.dhow(["wait", "it"]).ok();
    host.dhow(["rm", "it"]).ok();
    let all = told(&host, &["--filter", "type=container"]);
    let expected = [
        "create",
        "start",
        "exec_create: probe.wasm exit 7",
        "exec_start: probe.wasm exit 7",
        "exec_die",
        "pause",
        "unpause",
        "rename",
        "update",
        "extract-to-dir",
        "archive-path",
        "export",
        "commit",
        "kill",
        "die",
        "stop",
        "start",
        "restart",
        "kill",
        "die",
        "destroy",
    ];
    assert_eq!(all, expected.map(|action| format!("container {action}")));
    let images = told(&host, &["--filter", "type=image"]);
    assert_eq!(
        images,
        ["load", "tag", "tag", "untag", "untag", "delete"].map(|action| format!("image {action}"))
    );
    assert_eq!(told(&host, &["--filter", "event=exec_create", "--filter", "event=rename"]).len(), 2);
}

#[test]
fn volumes_and_those_who_use_them() {
    let host = host();
    host.dhow(["volume", "create", "data"]).ok();
    host.dhow(["run", "--rm", "-v", "data:/data", "./probe.wasm", "exit", "0"]).ok();
    host.dhow(["volume", "rm", "data"]).ok();
    host.dhow(["volume", "prune", "-f"]).ok();
    let volumes = told(&host, &["--filter", "type=volume"]);
    assert_eq!(
        volumes,
        ["create", "mount", "unmount", "destroy", "prune"].map(|action| format!("volume {action}"))
    );
}

#[test]
fn who_follows_sees_what_comes() {
    let host = host();
    let mut follower = host.dhow(["events", "--format", "{{.Action}} {{.Actor.Attributes.name}}"]).spawn();
    // Until it listens.
    crate::support::until("it listens", || {
        host.dhow(["volume", "create", "aa"]).ok();
        host.dhow(["volume", "rm", "aa"]).ok();
        let wanted = ["events", "--since", "1h", "--until", "0s"];
        (!host.dhow(wanted).ok().is_empty()).then_some(())
    });
    let many: Vec<_> = (0..8)
        .map(|number| {
            let name = format!("it{number}");
            host.dhow(["run", "--rm", "--name", &name, "./probe.wasm", "exit", "0"]).spawn()
        })
        .collect();
    for one in many {
        assert_eq!(one.outcome().code, 0);
    }
    host.dhow(["create", "--name", "last", "./probe.wasm", "exit", "0"]).ok();
    follower.until("create last");
    follower.signal(rustix::process::Signal::INT);
    let seen = follower.outcome().stdout;
    for number in 0..8 {
        let own: Vec<&str> =
            seen.lines().filter_map(|line| line.strip_suffix(&format!(" it{number}"))).collect();
        assert_eq!(own, ["create", "attach", "start", "die", "destroy"], "{seen}");
    }
    // The same order for everybody.
    let again = host
        .dhow([
            "events",
            "--since",
            "1h",
            "--until",
            "0s",
            "--filter",
            "type=container",
            "--format",
            "{{.Action}} {{.Actor.Attributes.name}}",
        ])
        .ok();
    let of_containers = |text: &str| {
        text.lines()
            .filter(|line| line.contains(" it") || line.ends_with(" last"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_containers(&seen), of_containers(&again));
}

#[test]
fn what_makes_no_sense() {
    let host = host();
    host.dhow(["events", "--filter", "foo=bar"]).rejected(1, "invalid filter 'foo'");
    host.dhow(["events", "--since", "yesterday"]).rejected(1, "failed to parse value as time or duration");
    host.dhow(["events", "--format", "{{.Action"]).fails(1);
    assert_eq!(host.dhow(["events", "--since", "1h", "--until", "30m"]).ok(), "");
    // A file that is damaged costs what is damaged.
    host.dhow(["volume", "create", "aa"]).ok();
    let path = host.root().join("events/log");
    let mut text = fs_err::read(&path).unwrap();
    text.splice(0..0, b"\0\0\xff{\"Type\":1}\n[]\n{\n".iter().copied());
    fs_err::write(&path, text).unwrap();
    host.dhow(["volume", "rm", "aa"]).ok();
    assert_eq!(told(&host, &["--filter", "type=volume"]), ["volume create", "volume destroy"]);
}
