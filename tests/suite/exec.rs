//! `exec`: another program beside a Wasm container's first one, in the same files.

use rustix::process::Signal;

use crate::support::{Host, Image, Terminal, Tree, guest, source, until};

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
