//! Restart policies without a daemon: the monitor starts its container again, `stop` ends that, and `system start` begins
//! after a boot or where monitors were killed. For both kinds.

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Host, busybox, guest, until};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

/// Programs that end with code 4 at once, of both kinds.
const FAILING: [&[&str]; 2] = [
    &["./probe.wasm", "append", "/runs", "x", "exit", "4"],
    &["busybox:1", "sh", "-c", "echo x >> /runs; exit 4"],
];
/// Programs that stay.
const STAYING: [&[&str]; 2] = [&["./probe.wasm", "sleep", "600"], &["busybox:1", "sleep", "600"]];

fn of(host: &Host, field: &str) -> String {
    host.dhow(["inspect", "--format", &format!("{{{{{field}}}}}"), "it"]).ok().trim().to_owned()
}

fn status(host: &Host) -> String {
    host.dhow(["ps", "-a", "--format", "{{.Status}}"]).ok().trim().to_owned()
}

#[test]
fn a_failing_container_gets_its_chances() {
    let host = host();
    for args in FAILING {
        let ended = host.dhow(["run", "--name", "it", "--restart", "on-failure:2"]).args(args).fails(4);
        assert_eq!(ended.stderr, "", "who has started it hears of the first end: {args:?}");
        until("it has had its chances", || {
            (of(&host, ".State.Status") == "exited" && of(&host, ".RestartCount") == "2").then_some(())
        });
        assert_eq!(of(&host, ".State.ExitCode"), "4");
        host.dhow(["cp", "it:/runs", "runs"]).ok();
        assert_eq!(fs_err::read_to_string(host.path("runs")).unwrap().matches('x').count(), 3, "{args:?}");
        // Somebody who starts it begins anew.
        host.dhow(["start", "it"]).ok();
        until("it has had them again", || {
            (of(&host, ".State.Status") == "exited" && of(&host, ".RestartCount") == "2").then_some(())
        });
        host.dhow(["rm", "it"]).ok();
    }
    for args in [&["./probe.wasm", "exit", "0"][..], &["busybox:1", "true"]] {
        host.dhow(["run", "-d", "--name", "it", "--restart", "on-failure"]).args(args).ok();
        until("it has ended well", || (of(&host, ".State.Status") == "exited").then_some(()));
        assert_eq!(of(&host, ".RestartCount"), "0");
        host.dhow(["rm", "it"]).ok();
    }
}

#[test]
fn one_that_always_runs_ends_when_it_is_stopped() {
    let host = host();
    for (args, policy) in FAILING.iter().zip(["always", "unless-stopped"]) {
        host.dhow(["run", "-d", "--name", "it", "--restart", policy]).args(*args).ok();
        // From the third time on the pauses are long enough to be met.
        until("it waits", || {
            let count: u32 = of(&host, ".RestartCount").parse().unwrap();
            (count >= 3 && of(&host, ".State.Status") == "restarting").then_some(())
        });
        assert_eq!(of(&host, ".State.Running"), "true");
        assert!(status(&host).starts_with("Restarting (4) "), "{}", status(&host));
        assert_eq!(host.dhow(["ps", "-q", "--filter", "status=restarting"]).ok().lines().count(), 1);
        host.dhow(["rm", "it"]).refused(1, "cannot remove container \"/it\": container is");
        assert_eq!(host.dhow(["start", "it"]).ok(), "it\n", "it is as good as running");
        assert_eq!(host.dhow(["wait", "it"]).ok(), "4\n");
        host.dhow(["stop", "it"]).ok();
        assert_eq!(of(&host, ".State.Status"), "exited");
        assert_eq!(of(&host, ".State.ExitCode"), "4");
        host.dhow(["start", "it"]).ok();
        host.dhow(["rm", "-f", "it"]).ok();
    }
    for args in STAYING {
        host.dhow(["run", "-d", "--name", "it", "--restart", "always"]).args(args).ok();
        host.dhow(["kill", "it"]).ok();
        assert_eq!(host.dhow(["wait", "it"]).ok(), "137\n");
        assert_eq!(of(&host, ".State.Status"), "exited", "who kills it wants it to be over");
        host.dhow(["start", "it"]).ok();
        // Somebody else's signal is an accident.
        let pid = of(&host, ".State.Pid");
        kill_process(Pid::from_raw(pid.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        until("it runs again", || {
            (of(&host, ".State.Status") == "running" && of(&host, ".State.Pid") != pid).then_some(())
        });
        host.dhow(["restart", "-t", "0", "it"]).ok();
        assert_eq!(
            (of(&host, ".State.Status"), of(&host, ".RestartCount")),
            ("running".to_owned(), "0".to_owned())
        );
        host.dhow(["stop", "-t", "0", "it"]).ok();
        host.dhow(["rm", "it"]).ok();
    }
    host.has_no_container();
}

#[test]
fn what_is_written_stays_and_streams_go_on() {
    let host = host();
    let script = "read line < /dev/stdin; echo run; exit 3";
    host.dhow(["run", "-d", "--name", "it", "--restart", "on-failure:2", "busybox:1", "sh", "-c", script])
        .ok();
    until("it has ended", || (of(&host, ".State.Status") == "exited").then_some(()));
    assert_eq!(host.dhow(["logs", "it"]).ok(), "run\nrun\nrun\n");
    host.dhow(["rm", "it"]).ok();
    // Who follows the log sees all of it.
    let mut follower = {
        host.dhow(["create", "--name", "it", "--restart", "on-failure:2", "busybox:1", "sh", "-c", script])
            .ok();
        host.dhow(["start", "it"]).ok();
        host.dhow(["logs", "-f", "it"]).spawn()
    };
    follower.until("run\nrun\nrun\n");
    assert_eq!(follower.outcome().code, 0);
    // Another name, and another policy, hold for the next time.
    host.dhow(["update", "--restart", "always", "it"]).ok();
    host.dhow(["start", "it"]).ok();
    host.dhow(["rename", "it", "other"]).ok();
    host.dhow(["rename", "other", "it"]).ok();
    until("it goes on", || (of(&host, ".RestartCount").parse::<u32>().unwrap() > 3).then_some(()));
    host.dhow(["update", "--restart", "no", "it"]).ok();
    until("it ends", || (of(&host, ".State.Status") == "exited").then_some(()));
}

#[test]
fn after_a_boot() {
    let host = host();
    let run = |name: &str, policy: &str, args: &[&str]| {
        host.dhow(["run", "-d", "--name", name, "--restart", policy]).args(args).ok();
    };
    let kill_monitor = |name: &str| {
        let pid = host.dhow(["inspect", "--format", "{{.State.Pid}}", name]).ok();
        let stat = fs_err::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap();
        let monitor = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap().parse().unwrap();
        kill_process(Pid::from_raw(monitor).unwrap(), Signal::KILL).unwrap();
    };
    for (kind, args) in ["wasm", "native"].iter().zip(STAYING) {
        for (name, policy) in [
            ("always", "always"),
            ("stopped", "always"),
            ("unless", "unless-stopped"),
            ("left", "unless-stopped"),
            ("failing", "on-failure"),
            ("none", "no"),
        ] {
            run(&format!("{kind}-{name}"), policy, args);
        }
        host.dhow(["create", "--name", &format!("{kind}-new"), "--restart", "always"]).args(args).ok();
        for name in ["stopped", "left"] {
            host.dhow(["stop", "-t", "0", &format!("{kind}-{name}")]).ok();
        }
        for name in ["always", "unless", "failing", "none"] {
            kill_monitor(&format!("{kind}-{name}"));
        }
    }
    until("all are dead", || host.dhow(["ps", "-q"]).ok().is_empty().then_some(()));
    let mut started: Vec<String> = host.dhow(["system", "start"]).ok().lines().map(str::to_owned).collect();
    started.sort();
    let mut expected: Vec<String> = ["wasm", "native"]
        .iter()
        .flat_map(|kind| ["always", "failing", "stopped", "unless"].map(|name| format!("{kind}-{name}")))
        .collect();
    expected.sort();
    assert_eq!(started, expected);
    assert_eq!(host.dhow(["system", "start"]).ok(), "", "nothing is left to do");
    assert_eq!(host.dhow(["ps", "-q"]).ok().lines().count(), 8);
    // And the system goes down in order, and comes up again.
    assert_eq!(host.dhow(["system", "stop", "-t", "0"]).ok().lines().count(), 8);
    assert_eq!(host.dhow(["ps", "-q"]).ok(), "");
    assert_eq!(host.dhow(["system", "start"]).ok().lines().count(), 8);
    assert!(host.dhow(["system", "start", "--help"]).ok().contains("[Unit]"), "it teaches");
}

#[test]
fn policies_that_are_none() {
    let host = host();
    for (policy, words) in [
        ("foo", "invalid restart policy 'foo'"),
        ("always:3", "maximum retry count cannot be used with restart policy 'always'"),
        ("on-failure:x", "maximum retry count must be an integer"),
        ("on-failure:-1", "maximum retry count cannot be negative"),
    ] {
        host.dhow(["run", "--restart", policy, "busybox:1", "true"]).rejected(125, words);
    }
    host.dhow(["run", "--rm", "--restart", "always", "busybox:1", "true"])
        .refused(125, "conflicting options: cannot specify both --restart and --rm");
    host.has_no_container();
}

/// The unit that users are told is one that systemd takes without a word, and the same in both places.
#[test]
fn the_unit_for_systemd() {
    let host = Host::new();
    let docs = fs_err::read_to_string(crate::support::repository().join("docs/restart.md")).unwrap();
    let unit = docs.split_once("```ini\n").unwrap().1.split_once("```").unwrap().0;
    let help = host.dhow(["system", "start", "--help"]).ok();
    for line in unit.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        assert!(help.contains(&format!("\n  {line}\n")), "{line}: {help}");
    }
    let call = host.dhow([""; 0]).into_command();
    let unit = unit.replace("/usr/local/bin/dhow", call.get_program().to_str().unwrap());
    let file = host.file("dhow.service", unit);
    let mut verify = std::process::Command::new("systemd-analyze");
    match verify.args(["verify", "--man=no", &file]).output() {
        Err(_) => println!("skipped: there is no systemd-analyze"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && !said.contains("dhow.service"), "{said}");
        }
    }
}
