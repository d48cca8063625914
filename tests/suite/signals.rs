//! Signals sent to `dhow run` reach the program, and its end is what the caller sees.

use rustix::process::Signal;

use crate::support::{Host, busybox, guest, source};

const TRAP: &str = "trap 'exit 9' TERM; trap 'exit 4' INT; trap 'exit 5' HUP; trap 'exit 6' USR1; echo ready; while :; do sleep 0.1; done";

#[test]
fn a_native_program_gets_them() {
    let host = Host::with_busybox();
    for (signal, code) in [(Signal::TERM, 9), (Signal::INT, 4), (Signal::HUP, 5), (Signal::USR1, 6)] {
        let mut running = host.dhow(["run", "--rm", "busybox:1", "sh", "-c", TRAP]).spawn();
        running.until("ready\n");
        running.signal(signal);
        let outcome = running.outcome();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (code, ""), "{signal:?}: {outcome:#?}");
    }
    host.has_no_container();
}

#[test]
fn process_one_ignores_what_it_does_not_handle() {
    let host = Host::with_busybox();
    let script = "echo ready; read line; echo \"then $line\"; exit 8";
    let mut running = host.dhow(["run", "--rm", "-i", "busybox:1", "sh", "-c", script]).spawn();
    running.until("ready\n");
    running.signal(Signal::TERM);
    running.signal(Signal::USR2);
    running.write(b"still here\n");
    running.until("then still here\n");
    assert_eq!(running.outcome().code, 8);
}

#[test]
fn a_stopped_signal_s_death_is_128_and_its_number() {
    let host = Host::with(&[("busybox:1", busybox())]);
    let mut running = host
        .dhow(["run", "--name", "victim", "busybox:1", "sh", "-c", "echo ready; sleep 100; true"])
        .spawn();
    running.until("ready\n");
    host.dhow(["rm", "-f", "victim"]).ok();
    assert_eq!(running.outcome().code, 137);
    host.has_no_container();
}

#[test]
fn a_wasm_guest_ends_as_a_process_would() {
    let host = Host::new();
    host.file("loop.wat", fs_err::read(source("loop.wat")).unwrap());
    for name in ["probe.wasm", "probe.component.wasm"] {
        host.file(name, guest(name));
    }
    let cases: [&[&str]; 5] = [
        &["./loop.wat"],
        &["./probe.wasm", "err", "ready", "sleep", "1000"],
        &["./probe.component.wasm", "err", "ready", "sleep", "1000"],
        &["./probe.wasm", "err", "ready", "cat"],
        &["./probe.component.wasm", "err", "ready", "cat"],
    ];
    for args in cases {
        for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
            let mut running = host.dhow(["run", "--rm", "-i"]).args(args).spawn();
            if args.len() == 1 {
                running.until("ready\n");
            } else {
                running.until_error("ready\n");
            }
            running.signal(signal);
            let outcome = running.outcome();
            assert_eq!(outcome.code, code, "{args:?} {signal:?}: {outcome:#?}");
            assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
        }
    }
    host.has_no_container();
}

#[test]
fn the_end_of_input_reaches_the_program_while_it_runs() {
    let host = Host::with_busybox();
    host.file("probe.wasm", guest("probe.wasm"));
    for args in [&["busybox:1", "cat"][..], &["./probe.wasm", "cat"]] {
        let mut running = host.dhow(["run", "--rm", "-i"]).args(args).spawn();
        running.write(b"one\n");
        running.until("one\n");
        running.write(b"two\n");
        running.until("two\n");
        running.close_stdin();
        let outcome = running.outcome();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "one\ntwo\n"), "{args:?}: {outcome:#?}");
    }
}

#[test]
fn output_nobody_reads_any_more_ends_nothing_badly() {
    let host = Host::with_busybox();
    host.file("probe.wasm", guest("probe.wasm"));
    // The first line is taken, then the pipe is closed, as `dhow run ... | head -n 1` does.
    for args in ["busybox:1 yes", "./probe.wasm flood 100000000"] {
        let call = host.dhow(["run", "--rm"]).args(args.split(' ')).into_command();
        let script = format!("{} run --rm {args} | head -c 3 | wc -c", call.get_program().to_str().unwrap());
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", &script])
            .env_clear()
            .envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        shell.current_dir(call.get_current_dir().unwrap());
        let output = shell.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "3", "{args}: {output:?}");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"), "{args}: {output:?}");
    }
    host.has_no_container();
}
