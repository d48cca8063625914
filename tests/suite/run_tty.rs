//! `-t` and `-it`: terminals, for both kinds.

use crate::support::{Host, Terminal, busybox, debian, guest};

fn terminal(host: &Host, args: &[&str]) -> Terminal {
    Terminal::start(&host.dhow(["run", "--rm"]).args(args).into_command(), 33, 101)
}

#[test]
fn an_interactive_shell() {
    let host = Host::with_busybox();
    let mut shell = terminal(&host, &["-it", "--network", "none", "busybox:1", "sh"]);
    shell.expect("# ");
    shell.send("tty; echo $TERM $((40 + 2))\r");
    shell.expect("/dev/pts/0\r\n");
    shell.expect("xterm 42\r\n");
    shell.send("exit 3\r");
    assert_eq!(shell.code(), 3);
    assert!(shell.is_cooked(), "the terminal is left as it was found");
    host.has_no_container();
}

#[test]
fn bash_in_debian_has_job_control_and_editing() {
    let Some(image) = debian() else { return };
    let host = Host::with(&[("debian:local", image)]);
    let mut shell = terminal(&host, &["-it", "debian:local", "bash", "--norc"]);
    shell.expect("# ");
    shell.send("stty size; sleep 50 & jobs; kill %1\r");
    shell.expect("33 101\r\n");
    shell.expect("Running");
    // ^C ends what runs in the foreground and not the shell.
    shell.send("bash -c 'echo before; exec sleep 50'\r");
    shell.expect("before\r\n");
    shell.send("\x03");
    shell.expect("# ");
    // ^A moves to the beginning of the line.
    shell.send("ver\x01echo sil\r");
    shell.expect("silver\r\n");
    shell.send("\x04");
    assert_eq!(shell.code(), 0);
    let shown = shell.shown();
    assert!(
        !shown.contains("no job control") && !shown.contains("cannot set terminal process group"),
        "{shown}"
    );
}

#[test]
fn the_window_s_size_follows() {
    let host = Host::with(&[("busybox:1", busybox())]);
    let mut shell = terminal(
        &host,
        &[
            "-it",
            "busybox:1",
            "sh",
            "-c",
            "trap 'stty size' WINCH; stty size; echo ready; while :; do sleep 0.1; done",
        ],
    );
    shell.expect("33 101\r\n");
    shell.expect("ready");
    shell.resize(40, 120);
    shell.expect("40 120\r\n");
}

#[test]
fn control_c_reaches_the_program() {
    let host = Host::with_busybox();
    let mut program = terminal(
        &host,
        &["-it", "busybox:1", "sh", "-c", "trap 'exit 6' INT; echo ready; while :; do sleep 0.1; done"],
    );
    program.expect("ready\r\n");
    program.send("\x03");
    assert_eq!(program.code(), 6);
    assert!(program.is_cooked());
}

#[test]
fn without_t_control_c_is_forwarded_as_a_signal() {
    let host = Host::with_busybox();
    let mut program = terminal(
        &host,
        &["busybox:1", "sh", "-c", "trap 'exit 6' INT; echo ready; while :; do sleep 0.1; done"],
    );
    program.expect("ready\r\n");
    program.send("\x03");
    assert_eq!(program.code(), 6);
}

#[test]
fn lines_typed_arrive_and_the_rest_is_not_eaten() {
    let host = Host::with_busybox();
    let mut program = terminal(&host, &["-it", "busybox:1", "sh", "-c", "read a; echo got $a; exit 5"]);
    program.send("hello\r");
    program.expect("hello\r\n");
    program.expect("got hello\r\n");
    assert_eq!(program.code(), 5);
}

#[test]
fn t_without_a_terminal_at_hand() {
    let host = Host::with_busybox();
    // Output alone may be given one, as docker does ...
    let out = host.dhow(["run", "--rm", "-t", "busybox:1", "sh", "-c", "tty; echo err >&2"]).ok();
    assert_eq!(out, "/dev/pts/0\r\nerr\r\n");
    // ... but input that is not a terminal cannot be typed on.
    let outcome = host.dhow(["run", "--rm", "-it", "busybox:1", "true"]).stdin("x").fails(1);
    assert!(outcome.stderr.contains("the input device is not a TTY"), "{outcome:#?}");
}

#[test]
fn a_wasm_guest_knows_whether_it_has_a_terminal() {
    for name in ["probe.wasm", "probe.component.wasm"] {
        let host = Host::new();
        host.file(name, guest(name));
        let path = format!("./{name}");
        assert_eq!(host.dhow(["run", "--rm", &path, "tty"]).ok(), "stdin 0 stdout 0 stderr 0\n", "{name}");
        let mut program = terminal(&host, &["-it", &path, "tty", "cat", "exit", "0"]);
        program.expect("stdin 1 stdout 1 stderr 1\r\n");
        program.send("typed\r");
        program.expect("typed\r\n");
        program.expect("typed\r\n");
        program.send("\x04");
        assert_eq!(program.code(), 0, "{name}");
        assert!(program.is_cooked(), "{name}");
    }
}

#[test]
fn control_c_ends_a_wasm_guest_that_never_calls_its_host() {
    let host = Host::new();
    host.file("loop.wat", fs_err::read(crate::support::source("loop.wat")).unwrap());
    for options in [&["-it", "./loop.wat"][..], &["./loop.wat"]] {
        let mut program = terminal(&host, options);
        program.expect("ready");
        program.send("\x03");
        assert_eq!(program.code(), 130, "{options:?}");
        assert!(program.is_cooked());
    }
}
