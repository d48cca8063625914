//! `exec`: another program beside a Wasm container's first one, in the same files.

use rustix::process::Signal;

use crate::support::{Host, Image, Terminal, Tree, guest, is_root, source, until};

/// A host with a container `it` that runs until somebody ends it, with another module beside its own.
fn host() -> Host {
    let image = Image::wasm()
        .layer(
            Tree::new()
                .file("bin/loop.wasm", 0o644, wat::parse_file(source("loop.wat")).unwrap())
                .file("bin/probe.wasm", 0o644, guest("probe.wasm"))
                .file("bin/component.wasm", 0o644, guest("probe.component.wasm")),
        )
        .config("Env", serde_json::json!(["PATH=/bin", "WHO=image"]))
        .entrypoint(&["/bin/loop.wasm"]);
    let host = Host::with(&[("it:1", image)]);
    host.dhow(["run", "-d", "--name", "it", "it:1"]).ok();
    host
}

#[test]
fn another_module_in_the_same_files() {
    let host = host();
    assert_eq!(host.dhow(["exec", "it", "/bin/probe.wasm", "args", "a", "b"]).ok(), "a\nb\n");
    assert_eq!(host.dhow(["exec", "it", "probe.wasm", "env", "WHO"]).ok().trim(), "WHO=image");
    let options = ["exec", "-e", "WHO=me", "-w", "/bin", "it"];
    let out = host.dhow(options).args(["probe.wasm", "env", "WHO", "env", "PWD"]).ok();
    assert_eq!(out, "WHO=me\nPWD=/bin\n");
    host.dhow(["exec", "it", "probe.wasm", "exit", "7"]).fails(7);
    host.dhow(["exec", "it", "probe.wasm", "trap"]).fails(134);
    // What one writes, the other sees, and the container keeps.
    host.dhow(["exec", "it", "component.wasm", "write", "/note", "hello"]).ok();
    assert_eq!(host.dhow(["exec", "it", "probe.wasm", "read", "/note"]).ok().trim(), "hello");
    for module in ["probe.wasm", "component.wasm"] {
        assert_eq!(host.dhow(["exec", "-i", "it", module, "cat"]).stdin("typed").ok(), "typed");
    }
    host.dhow(["restart", "it"]).ok();
    assert_eq!(host.dhow(["exec", "it", "probe.wasm", "read", "/note"]).ok().trim(), "hello");
    // In the background.
    assert_eq!(host.dhow(["exec", "-d", "it", "probe.wasm", "write", "/later", "x"]).ok(), "");
    until("the background program has written", || {
        (host.dhow(["exec", "it", "probe.wasm", "exists", "/later"]).outcome().stdout.contains("yes")
            || host.dhow(["exec", "it", "probe.wasm", "read", "/later"]).outcome().code == 0)
            .then_some(())
    });
    assert_eq!(host.dhow(["inspect", "--format", "{{json .ExecIDs}}", "it"]).ok(), "null\n");
}

#[test]
fn a_session_counts_for_the_container_s_limits() {
    if !is_root() {
        println!("skipped: control groups need root");
        return;
    }
    let host = Host::new();
    for (name, content) in [("probe.wasm", guest("probe.wasm")), ("grow.wasm", guest("grow.wasm"))] {
        host.file(name, content);
    }
    let home = host.text("");
    let limits = ["--cpus", "1.5", "-m", "64m", "-v", &format!("{home}:/home"), "-w", "/home"];
    host.dhow(["run", "-d", "--name", "it"]).args(limits).args(["./probe.wasm", "sleep", "600"]).ok();
    host.dhow(["exec", "-d", "it", "/home/probe.wasm", "sleep", "600"]).fails(0);
    let top = until("the session is there", || {
        let top = host.dhow(["top", "it", "-o", "pid"]).ok();
        (top.lines().count() == 3).then_some(top)
    });
    let groups: Vec<String> = top
        .lines()
        .skip(1)
        .map(|pid| fs_err::read_to_string(format!("/proc/{}/cgroup", pid.trim())).expect("a process"))
        .collect();
    assert!(groups[0].contains("/dhow/"), "{groups:?}");
    until("the session is in the group", || {
        let pid = top.lines().nth(2).expect("a session").trim();
        (fs_err::read_to_string(format!("/proc/{pid}/cgroup")).ok()? == groups[0]).then_some(())
    });
    // It may have no more than the container, and both its own end and the container say why it ended.
    let grown = host.dhow(["exec", "it", "/home/grow.wasm"]).fails(137).stderr;
    assert!(grown.contains("memory limit of 64 MiB exceeded"), "{grown}");
    let state = "{{.State.OOMKilled}} {{.State.Running}}";
    assert_eq!(host.dhow(["inspect", "--format", state, "it"]).ok(), "true true\n");
    host.dhow(["stop", "it"]).ok();
    assert_eq!(host.dhow(["inspect", "--format", state, "it"]).ok(), "true false\n");
    // A run of its own has a state of its own.
    host.dhow(["start", "it"]).ok();
    assert_eq!(host.dhow(["inspect", "--format", state, "it"]).ok(), "false true\n");
    host.dhow(["rm", "-f", "it"]).ok();
    let left = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let left = left.filter_map(|entry| fs_err::read_dir(entry.path().join("dhow")).ok()).flatten().flatten();
    let id = groups[0].lines().find_map(|line| line.split("/dhow/").nth(1)).expect("a group").to_owned();
    assert_eq!(left.filter(|entry| entry.file_name() == id.as_str()).count(), 0);
}

#[test]
fn what_cannot_be_executed() {
    let host = host();
    host.dhow(["exec", "it", "nosuch.wasm"]).refused(127, "executable file not found in $PATH");
    host.dhow(["exec", "it", "/bin"]).refused(126, "is a directory");
    host.dhow(["exec", "nosuch", "probe.wasm"]).refused(1, "No such container: nosuch");
    host.dhow(["pause", "it"]).ok();
    host.dhow(["exec", "it", "probe.wasm"]).refused(1, "is paused, unpause the container before exec");
    host.dhow(["stop", "it"]).ok();
    host.dhow(["exec", "it", "probe.wasm"]).refused(1, "is not running");
}

#[test]
fn nobody_outlives_the_container() {
    let host = host();
    let mut inside = host.dhow(["exec", "-i", "it", "probe.wasm", "err", "ready", "cat"]).spawn();
    inside.until_error("ready\n");
    host.dhow(["exec", "-d", "it", "loop.wasm"]).ok();
    let ids = host.dhow(["inspect", "--format", "{{len .ExecIDs}}", "it"]).ok();
    assert_eq!(ids, "2\n");
    host.dhow(["stop", "it"]).ok();
    assert_eq!(inside.outcome().code, 137);
    host.dhow(["rm", "it"]).ok();
    host.has_no_container();
}

#[test]
fn signals_and_terminals_reach_the_program() {
    let host = host();
    let mut inside = host.dhow(["exec", "it", "loop.wasm"]).spawn();
    inside.until("ready\n");
    inside.signal(Signal::INT);
    assert_eq!(inside.outcome().code, 130);
    let call = host.dhow(["exec", "-it", "it", "probe.wasm", "tty", "cat"]).into_command();
    let mut terminal = Terminal::start(&call, 33, 101);
    terminal.expect("stdin 1 stdout 1 stderr 1");
    terminal.send("\x03");
    assert_eq!(terminal.code(), 130);
    assert!(terminal.is_cooked());
}
