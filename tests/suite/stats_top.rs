//! `stats` and `top` of both kinds of containers, beside Docker's.

use std::process::Command;

use serde_json::Value;

use crate::support::{Docker, Host, Terminal, busybox, guest, is_root, source, tool, until};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("loop.wat", fs_err::read(source("loop.wat")).unwrap());
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

/// The fields of every line of `stats --no-stream --format json`, by name.
fn stats(host: &Host, args: &[&str]) -> Vec<Value> {
    let text = host.dhow(["stats", "--no-stream", "--format", "json"]).args(args).ok();
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

fn percent(value: &Value) -> f64 {
    let text = value.as_str().expect("text");
    text.strip_suffix('%').unwrap_or_else(|| panic!("{text}")).parse().expect("a number")
}

#[test]
fn what_runs_is_measured() {
    let host = host();
    host.dhow(["run", "-d", "--name", "busy", "./loop.wat"]).ok();
    host.dhow(["run", "-d", "--name", "idle", "-m", "64m", "./probe.wasm", "sleep", "600"]).ok();
    host.dhow(["run", "-d", "--name", "shell", "busybox:1", "sh", "-c", "sleep 600 & sleep 600; true"]).ok();
    until("the shell has its children", || (stats(&host, &["shell"])[0]["PIDs"] == "3").then_some(()));
    host.dhow(["create", "--name", "new", "./loop.wat"]).ok();
    let seen = stats(&host, &["busy", "idle", "shell", "new"]);
    let names: Vec<&str> = seen.iter().map(|row| row["Name"].as_str().unwrap()).collect();
    assert_eq!(names, ["busy", "idle", "shell", "new"]);
    assert!(percent(&seen[0]["CPUPerc"]) > percent(&seen[1]["CPUPerc"]), "{seen:#?}");
    for row in &seen[..3] {
        assert!(percent(&row["MemPerc"]) >= 0.0, "{row}");
        assert!(!row["MemUsage"].as_str().unwrap().starts_with("0B"), "{row}");
        assert_eq!(row["NetIO"], "0B / 0B");
        assert_eq!(row["Container"], row["Name"], "as it was asked for");
    }
    assert!(seen[1]["MemUsage"].as_str().unwrap().ends_with(" / 64MiB"), "{seen:#?}");
    // One that does not run uses nothing.
    for (key, value) in [("CPUPerc", "0.00%"), ("MemUsage", "0B / 0B"), ("BlockIO", "0B / 0B"), ("PIDs", "0")]
    {
        assert_eq!(seen[3][key], value, "{seen:#?}");
    }
    assert_eq!(stats(&host, &[]).len(), 3);
    assert_eq!(stats(&host, &["-a"]).len(), 4);
    let table = host.dhow(["stats", "--no-stream", "--no-trunc"]).ok();
    let title = "NAME      CPU %     MEM USAGE / LIMIT";
    assert!(table.lines().next().unwrap().contains(title), "{table}");
    assert!(table.lines().skip(1).all(|line| line.split("   ").next().unwrap().len() == 64), "{table}");
    host.dhow(["stats", "--no-stream", "busy", "nosuch"]).refused(1, "No such container: nosuch");
    // A paused one is there, and stands still.
    host.dhow(["pause", "busy"]).ok();
    assert_eq!(percent(&stats(&host, &["busy"])[0]["CPUPerc"]), 0.0);
    for name in ["busy", "idle", "shell", "new"] {
        host.dhow(["rm", "-f", name]).ok();
    }
    let empty = host.dhow(["stats", "--no-stream"]).ok();
    assert_eq!(empty.lines().count(), 1, "{empty}");
}

#[test]
fn a_terminal_has_a_living_table() {
    let host = host();
    host.dhow(["run", "-d", "--name", "one", "./loop.wat"]).ok();
    let mut terminal = Terminal::start(&host.dhow(["stats"]).into_command(), 24, 100);
    terminal.expect("one");
    host.dhow(["run", "-d", "--name", "another", "./loop.wat"]).ok();
    terminal.expect("another");
    // It is drawn anew, not further down.
    terminal.expect("\x1b[H\x1b[JCONTAINER ID");
    drop(terminal);
    // Somebody who asked for one by name is done when it is gone.
    let mut running = host.dhow(["stats", "--format", "{{.Name}} {{.NetIO}}", "one"]).spawn();
    running.until("one 0B / 0B\none 0B / 0B\n");
    host.dhow(["rm", "-f", "one"]).ok();
    assert_eq!(running.outcome().code, 0);
}

#[test]
fn processes_are_listed_as_ps_does_it() {
    let host = host();
    host.dhow(["run", "-d", "--name", "shell", "busybox:1", "sh", "-c", "sleep 601 & sleep 602; true"]).ok();
    // A child that was forked shows its parent's words until it has become another program.
    let commands = ["sh -c sleep 601 & sleep 602; true", "sleep 601", "sleep 602"];
    let top = until("both children are there", || {
        let top = host.dhow(["top", "shell"]).ok();
        let has = |command: &&str| top.lines().any(|line| line.trim_end().ends_with(&format!("  {command}")));
        (top.lines().count() == 4 && commands.iter().all(has)).then_some(top)
    });
    assert!(top.starts_with("UID                 PID                 PPID                C "), "{top}");
    // A Wasm program's own words, not those of its host; sessions too.
    host.dhow(["run", "-d", "--name", "wasm", "./probe.wasm", "sleep", "600"]).ok();
    host.dhow(["exec", "-d", "wasm", "probe.wasm", "sleep", "601"]).fails(0);
    let pid = host.dhow(["inspect", "--format", "{{.State.Pid}}", "wasm"]).ok();
    let top = until("the session is there", || {
        let top = host.dhow(["top", "wasm", "-o", "pid,args"]).ok();
        (top.lines().count() == 3).then_some(top)
    });
    let lines: Vec<Vec<&str>> = top.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["PID", "COMMAND"]);
    assert!(lines.iter().any(|line| line[0] == pid.trim() && line.ends_with(&["sleep", "600"])), "{top}");
    assert!(lines.iter().any(|line| line.ends_with(&["sleep", "601"])), "{top}");
    host.dhow(["pause", "wasm"]).ok();
    assert_eq!(host.dhow(["top", "wasm", "-o", "pid"]).ok().lines().count(), 3);
    for (args, message) in [
        (&["wasm", "-o", "cmd"][..], "Couldn't find PID field in ps output"),
        (&["wasm", "-o", "pid=PID"], "specifying \"pid=PID\" is not allowed"),
        (&["wasm", "--nosuch"], "ps: "),
    ] {
        host.dhow(["top"]).args(args).rejected(1, message);
    }
    host.dhow(["rm", "-f", "wasm"]).ok();
    host.dhow(["create", "--name", "wasm", "./probe.wasm"]).ok();
    host.dhow(["top", "wasm"]).refused(1, "is not running");
    host.dhow(["top", "nosuch"]).refused(1, "No such container: nosuch");
}

#[test]
fn the_tables_are_docker_s() {
    if !is_root() {
        println!("skipped: dockerd needs root");
        return;
    }
    let Some(docker) = Docker::start() else { return };
    let host = host();
    let archive = host.text("busybox.tar");
    host.dhow(["save", "-o", &archive, "busybox:1"]).ok();
    tool(&mut docker.call(["load", "-i", &archive]));
    let script = "sleep 601 & sleep 602; true";
    let run = ["run", "-d", "--name", "it", "--network", "none", "busybox:1", "sh", "-c", script];
    tool(&mut docker.call(run));
    host.dhow(run).ok();
    until("both have their children", || {
        let theirs = tool(&mut docker.call(["top", "it"]));
        let ours = host.dhow(["top", "it"]).ok();
        [theirs, ours]
            .iter()
            .all(|top| top.contains("  sleep 601") && top.contains("  sleep 602"))
            .then_some(())
    });
    let both = |args: &[&str]| (tool(&mut docker.call(args)), host.dhow(args).ok());
    // The titles, and of a line what is not of the moment.
    let (theirs, ours) = both(&["stats", "--no-stream"]);
    assert_eq!(title_words(&ours), title_words(&theirs));
    let format = "{{.Name}}|{{.Container}}|{{.NetIO}}|{{.PIDs}}";
    let (theirs, ours) = both(&["stats", "--no-stream", "--format", format, "it"]);
    assert_eq!(ours, theirs);
    let (theirs, ours) = both(&["stats", "--no-stream", "--format", "{{.MemUsage}}", "it"]);
    assert_eq!(ours.split(" / ").nth(1), theirs.split(" / ").nth(1), "this host's memory");
    // All but the numbers and times of processes.
    for args in [&["top", "it"][..], &["top", "it", "-o", "pid,args"], &["top", "it", "aux"]] {
        let (theirs, ours) = both(args);
        assert_eq!(commands(&ours), commands(&theirs), "{args:?}\n{ours}\n{theirs}");
        assert_eq!(ours.lines().next(), theirs.lines().next(), "{args:?}");
    }
    tool(&mut docker.call(["rm", "-f", "it"]));
    assert_eq!(failed(docker.call(["top", "it"])), 1);
    host.dhow(["rm", "-f", "it"]).ok();
    host.dhow(["top", "it"]).fails(1);
}

fn failed(mut command: Command) -> i32 {
    command.output().expect("docker").status.code().expect("a code")
}

fn title_words(table: &str) -> Vec<&str> {
    table.lines().next().unwrap_or_default().split_whitespace().collect()
}

/// The last words of every line, sorted.
fn commands(table: &str) -> Vec<String> {
    let last = |line: &str| line.rsplit("   ").next().unwrap_or_default().trim().to_owned();
    let mut all: Vec<String> = table.lines().map(last).collect();
    all.sort();
    all
}
