//! `ps`, `rm`, `inspect` and names: containers after they have run.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Host, guest, until};

#[test]
fn ps_lists_as_docker_does() {
    let host = Host::with_busybox();
    host.dhow(["run", "--name", "first", "busybox:1", "sh", "-c", "exit 3"]).fails(3);
    host.dhow(["run", "--name", "second", "busybox:1", "echo", "a rather long argument here"]).ok();
    assert_eq!(
        host.dhow(["ps"]).ok().split_whitespace().collect::<Vec<_>>().join(" "),
        "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
    );
    let out = host.dhow(["ps", "-a"]).ok();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 3, "{out}");
    assert!(lines[1].ends_with("second") && lines[2].ends_with("first"), "newest first: {out}");
    assert!(lines[1].contains("\"echo 'a rather long…\"") && lines[1].contains("Exited (0) "), "{out}");
    assert!(lines[2].contains("\"sh -c 'exit 3'\"") && lines[2].contains("Exited (3) "), "{out}");
    let ids = host.dhow(["ps", "-aq"]).ok();
    assert!(ids.lines().count() == 2 && ids.lines().all(|id| id.len() == 12), "{ids}");
    assert!(host.dhow(["ps", "-aq", "--no-trunc"]).ok().lines().all(|id| id.len() == 64));
    let format = host.dhow(["ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Command}}"]).ok();
    assert_eq!(format, "second busybox:1 \"echo 'a rather long…\"\nfirst busybox:1 \"sh -c 'exit 3'\"\n");
    let row: Value =
        serde_json::from_str(host.dhow(["ps", "-a", "--format", "json"]).ok().lines().next().unwrap())
            .unwrap();
    assert_eq!((&row["Names"], &row["State"]), (&json!("second"), &json!("exited")));
}

#[test]
fn a_running_container_is_listed_while_it_runs() {
    let host = Host::with_busybox();
    let mut running = host.dhow(["run", "--rm", "-i", "--name", "alive", "busybox:1", "cat"]).spawn();
    running.write(b"x\n");
    running.until("x\n");
    let out = host.dhow(["ps", "--format", "{{.Names}} {{.Status}}"]).ok();
    assert!(out.starts_with("alive Up "), "{out}");
    let state = host.dhow(["inspect", "--format", "{{.State.Status}} {{.State.Running}}", "alive"]).ok();
    assert_eq!(state, "running true\n");
    host.dhow(["rm", "alive"]).refused(1, "alive");
    running.close_stdin();
    assert_eq!(running.outcome().code, 0);
    host.has_no_container();
}

#[test]
fn rm_takes_names_ids_and_several() {
    let host = Host::with_busybox();
    for name in ["one", "two", "three"] {
        host.dhow(["run", "--name", name, "busybox:1", "true"]).ok();
    }
    let id = host.dhow(["ps", "-aq", "--no-trunc"]).ok();
    let newest = id.lines().next().unwrap();
    assert_eq!(host.dhow(["rm", &newest[..6]]).ok(), format!("{}\n", &newest[..6]));
    let mixed = host.dhow(["rm", "one", "nosuch", "two"]).fails(1);
    assert_eq!(mixed.stdout, "one\ntwo\n");
    mixed.is_refusal_after_output("o such container: nosuch");
    host.has_no_container();
    host.dhow(["rm", "-f", "nosuch"]).fails(0);
}

#[test]
fn names_are_given_checked_and_unique() {
    let host = Host::with_busybox();
    host.dhow(["run", "busybox:1", "true"]).ok();
    let given = host.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok();
    let parts: Vec<&str> = given.trim().split('_').collect();
    assert!(
        parts.len() == 2
            && parts
                .iter()
                .all(|part| part.len() > 1 && part.bytes().all(|byte| byte.is_ascii_alphanumeric())),
        "{given}"
    );
    host.dhow(["run", "--name", "mine", "busybox:1", "true"]).ok();
    let taken = host.dhow(["run", "--name", "mine", "busybox:1", "true"]);
    taken.refused(125, "Conflict. The container name \"/mine\" is already in use by container");
    for bad in ["a", "bad name", "-x", ".x", "a/b", "ü"] {
        let refused = host.dhow(["run", &format!("--name={bad}"), "busybox:1", "true"]);
        refused.rejected(
            125,
            &format!("nvalid container name ({bad}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        );
    }
    assert_eq!(host.dhow(["ps", "-aq"]).ok().lines().count(), 2, "nothing is left of what was refused");
}

#[test]
fn inspect_of_a_container_has_docker_s_fields() {
    let host = Host::with_busybox();
    let options =
        ["run", "--name", "it", "-e", "K=V", "-w", "/tmp", "--label", "l=1", "-u", "app", "--hostname", "h"];
    host.dhow(options).args(["busybox:1", "sh", "-c", "exit 5"]).fails(5);
    let all: Value = serde_json::from_str(&host.dhow(["inspect", "it"]).ok()).unwrap();
    let it = &all[0];
    assert_eq!(it["Name"], "/it");
    assert_eq!(it["Id"].as_str().map(str::len), Some(64));
    assert_eq!((&it["Path"], &it["Args"]), (&json!("sh"), &json!(["-c", "exit 5"])));
    let state = &it["State"];
    assert_eq!(
        (&state["Status"], &state["ExitCode"], &state["Running"]),
        (&json!("exited"), &json!(5), &json!(false))
    );
    for time in [&it["Created"], &state["StartedAt"], &state["FinishedAt"]] {
        assert!(time.as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{time}");
    }
    let config = &it["Config"];
    assert_eq!(
        (&config["Image"], &config["User"], &config["WorkingDir"], &config["Hostname"]),
        (&json!("busybox:1"), &json!("app"), &json!("/tmp"), &json!("h"))
    );
    assert_eq!(config["Labels"]["l"], "1");
    assert!(config["Env"].as_array().unwrap().contains(&json!("K=V")), "{config:#}");
    assert!(it["Image"].as_str().unwrap().starts_with("sha256:"), "{it:#}");
    let format = "{{.State.Status}} {{.State.ExitCode}} {{.Path}} {{.Args}} {{.Config.Cmd}} {{.Name}} {{.Config.Image}}";
    let out = host.dhow(["inspect", "it", "--format", format]).ok();
    assert_eq!(out, "exited 5 sh [-c exit 5] [sh -c exit 5] /it busybox:1\n");
}

#[test]
fn a_wasm_container_is_recorded_the_same_way() {
    let host = Host::new();
    host.file("probe.wasm", guest("probe.wasm"));
    host.dhow(["run", "--name", "wasm", "./probe.wasm", "exit", "4"]).fails(4);
    let out = host.dhow(["ps", "-a", "--format", "{{.Names}} {{.Status}}"]).ok();
    assert!(out.starts_with("wasm Exited (4) "), "{out}");
    let state = host.dhow(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "wasm"]).ok();
    assert_eq!(state, "exited 4\n");
    assert_eq!(host.dhow(["rm", "wasm"]).ok(), "wasm\n");
}

#[test]
fn what_a_killed_command_leaves_is_told_truthfully() {
    let host = Host::with_busybox();
    let mut running = host
        .dhow(["run", "-i", "--name", "orphan", "busybox:1", "sh", "-c", "echo ready; cat; sleep 1; exit 6"])
        .spawn();
    running.until("ready\n");
    running.signal(Signal::KILL);
    assert_eq!(running.outcome().code, -9);
    // Either the container goes on and its end is recorded, or it is known to be dead; never a lie in between.
    let state = until("the container's end", || {
        let state =
            host.dhow(["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", "orphan"]).ok();
        state.starts_with("exited").then_some(state)
    });
    assert!(["exited 6\n", "exited 137\n"].contains(&state.as_str()), "{state}");
    host.dhow(["rm", "orphan"]).ok();
}

#[test]
fn many_at_once_do_not_disturb_each_other() {
    let host = Host::with_busybox();
    host.file("probe.wasm", guest("probe.wasm"));
    let running: Vec<_> = (0..24)
        .map(|n| {
            let args = if n % 2 == 0 { ["busybox:1", "echo"] } else { ["./probe.wasm", "args"] };
            (n, host.dhow(["run", "--rm"]).args(args).args([n.to_string()]).spawn())
        })
        .collect();
    for (n, one) in running {
        let outcome = one.outcome();
        assert_eq!((outcome.code, outcome.stdout), (0, format!("{n}\n")), "{}", outcome.stderr);
    }
    host.has_no_container();
}

#[test]
fn what_the_caller_inherited_does_not_matter() {
    // With SIGCHLD ignored children vanish unasked; with this umask nobody else could read the container's root.
    let host = Host::with_busybox();
    let call = host
        .dhow(["run", "--rm", "-u", "1000", "busybox:1", "sh", "-c", "ls -ld / /etc | cut -c1-10; exit 4"])
        .into_command();
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "umask 077; trap '' CHLD; exec \"$0\" \"$@\""])
        .arg(call.get_program())
        .args(call.get_args());
    for (name, value) in call.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let out = shell.output().unwrap();
    assert_eq!(out.status.code(), Some(4), "{}", String::from_utf8_lossy(&out.stderr));
    assert_eq!(String::from_utf8_lossy(&out.stdout), "drwxr-xr-x\ndrwxr-xr-x\n");
}

#[test]
fn rm_f_reaches_a_container_that_is_just_starting() {
    let host = Host::with_busybox();
    for round in 0..5 {
        let name = format!("early{round}");
        let running = host.dhow(["run", "--name", &name, "busybox:1", "sleep", "600"]).spawn();
        until("it exists", || (host.dhow(["inspect", &name]).outcome().code == 0).then_some(()));
        host.dhow(["rm", "-f", &name]).ok();
        assert_eq!(running.outcome().code, 137);
    }
    host.has_no_container();
}

#[test]
fn input_ends_when_the_client_is_killed() {
    let host = Host::with_busybox();
    let mut running =
        host.dhow(["run", "--name", "eof", "-i", "busybox:1", "sh", "-c", "cat; exit 7"]).spawn();
    running.write(b"x\n");
    running.until("x\n");
    running.signal(Signal::KILL);
    drop(running.outcome());
    until("it has ended", || {
        let state = host.dhow(["inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "eof"]).ok();
        (state == "exited 7\n").then_some(())
    });
    host.dhow(["rm", "eof"]).ok();
}
