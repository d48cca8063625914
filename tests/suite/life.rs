//! `run -d`, `create`, `start`, `stop`, `restart`, `kill`, `wait`, `pause`, `rename`: containers that live without the
//! command that started them, of both kinds.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{Host, Run, busybox, guest, is_root, source, until};

/// A host with both kinds of workload: `busybox:1`, `./probe.wasm`, `./loop.wat`.
fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("loop.wat", fs_err::read(source("loop.wat")).unwrap());
    for name in ["probe.wasm", "probe.component.wasm"] {
        host.file(name, guest(name));
    }
    host
}

/// What runs until somebody ends it, of every kind.
const ENDLESS: [&[&str]; 4] = [
    &["./loop.wat"],
    &["./probe.wasm", "sleep", "600"],
    &["./probe.component.wasm", "sleep", "600"],
    &["busybox:1", "sleep", "600"],
];

fn run_d(host: &Host, name: &str, args: &[&str]) -> Run {
    host.dhow(["run", "-d", "--name", name]).args(args)
}

fn state(host: &Host, name: &str) -> String {
    let format = "{{.State.Status}} {{.State.Running}} {{.State.Paused}} {{.State.ExitCode}}";
    host.dhow(["inspect", "--format", format, name]).ok().trim().to_owned()
}

fn pid(host: &Host, name: &str) -> Pid {
    let pid = host.dhow(["inspect", "--format", "{{.State.Pid}}", name]).ok();
    Pid::from_raw(pid.trim().parse().unwrap()).expect("a process")
}

#[test]
fn what_a_caller_has_open_is_not_kept() {
    let host = host();
    let lock = host.file("lock", "");
    for (number, program) in ENDLESS.iter().enumerate() {
        let name = format!("kept{number}");
        let run = [&["run", "-d", "--name", &name][..], program].concat();
        let exec: &[&str] = &["exec", "-d", &name, "sleep", "1000"];
        let restart: &[&str] = &["restart", "-t", "0", &name];
        let of_native = [exec, restart];
        let more = if program[0] == "busybox:1" { &of_native[..] } else { &of_native[1..] };
        for args in std::iter::once(&run[..]).chain(more.iter().copied()) {
            let dhow = host.dhow(args).into_command();
            let mut script = Command::new("sh");
            script.args(["-c", "exec 9>\"$0\" && flock 9 && \"$@\"", &lock]);
            script.arg(dhow.get_program()).args(dhow.get_args());
            script.envs(dhow.get_envs().filter_map(|(name, value)| Some((name, value?))));
            script.current_dir(dhow.get_current_dir().unwrap_or(Path::new(".")));
            Run::new(script).ok();
            let free = fs_err::File::open(host.path("lock")).unwrap().file().try_lock();
            assert!(free.is_ok(), "{args:?}: what it left behind has the script's lock");
        }
        host.dhow(["rm", "-f", &name]).ok();
    }
}

#[test]
fn in_the_background_and_back() {
    let host = host();
    for (number, args) in ENDLESS.iter().enumerate() {
        let name = format!("life{number}");
        let id = run_d(&host, &name, args).ok();
        assert_eq!(id.trim().len(), 64, "{id}");
        assert_eq!(state(&host, &name), "running true false 0", "{args:?}");
        let listed = host.dhow(["ps", "--no-trunc", "--format", "{{.ID}} {{.Status}}"]).ok();
        assert!(listed.starts_with(&format!("{} Up ", id.trim())), "{listed}");
        let began = Instant::now();
        let stop: &[&str] = if args[0] == "busybox:1" { &["stop", "-t", "1"] } else { &["stop"] };
        assert_eq!(host.dhow(stop).args([&name]).ok(), format!("{name}\n"));
        // The first process of a namespace does not mind a signal that it does not handle.
        let code = if args[0] == "busybox:1" { 137 } else { 143 };
        assert!(began.elapsed() < Duration::from_secs(9), "{args:?}: not at once");
        assert_eq!(state(&host, &name), format!("exited false false {code}"), "{args:?}");
        // Again, and nothing happens.
        assert_eq!(host.dhow(["stop", &name]).ok(), format!("{name}\n"));
        assert_eq!(host.dhow(["start", &name]).ok(), format!("{name}\n"));
        assert_eq!(host.dhow(["start", &name]).ok(), format!("{name}\n"));
        assert_eq!(state(&host, &name), "running true false 0");
        host.dhow(["rm", &name]).refused(1, "container is running");
        assert_eq!(host.dhow(["kill", &name]).ok(), format!("{name}\n"));
        assert_eq!(host.dhow(["wait", &name]).ok(), "137\n");
        host.dhow(["kill", &name])
            .refused(1, &format!("cannot kill container: {name}: container {}", id.trim()));
        assert_eq!(host.dhow(["rm", &name]).ok(), format!("{name}\n"));
    }
    host.has_no_container();
}

#[test]
fn signals_end_a_container_as_they_end_a_process() {
    let host = host();
    for (signal, code) in [("INT", 130), ("SIGTERM", 143), ("9", 137), ("SIGUSR1", 138), ("RTMIN+1", 163)] {
        run_d(&host, "it", &["./loop.wat"]).ok();
        host.dhow(["kill", "-s", signal, "it"]).ok();
        assert_eq!(host.dhow(["wait", "it"]).ok(), format!("{code}\n"), "{signal}");
        host.dhow(["rm", "it"]).ok();
    }
    host.dhow(["kill", "-s", "NOPE", "it"]).rejected(1, "nvalid signal: NOPE");
    let trap = "trap 'exit 9' TERM; trap 'exit 4' QUIT; echo ready; while :; do sleep 0.1; done";
    for (options, stop, code) in [
        (&[][..], &["stop"][..], 9),
        (&["--stop-signal", "QUIT"], &["stop"], 4),
        (&[], &["stop", "-s", "QUIT"], 4),
        (&["--stop-signal", "KILL"], &["restart"], 0),
    ] {
        host.dhow(["run", "-d", "--name", "it"]).args(options).args(["busybox:1", "sh", "-c", trap]).ok();
        until("it is ready", || host.dhow(["logs", "it"]).ok().contains("ready").then_some(()));
        host.dhow(stop).args(["it"]).ok();
        if stop[0] == "restart" {
            assert_eq!(state(&host, "it"), "running true false 0");
            host.dhow(["rm", "-f", "it"]).ok();
        } else {
            assert_eq!(host.dhow(["wait", "it"]).ok(), format!("{code}\n"));
            host.dhow(["rm", "it"]).ok();
        }
    }
}

#[test]
fn what_a_container_wrote_is_there_after_a_restart() {
    let host = host();
    host.dhow(["create", "--name", "wasm", "./probe.wasm", "append", "/note", "x", "read", "/note"]).ok();
    host.dhow(["create", "--name", "native", "busybox:1", "sh", "-c", "echo -n x >> /note; cat /note"]).ok();
    for name in ["wasm", "native"] {
        assert_eq!(state(&host, name), "created false false 0");
        assert_eq!(host.dhow(["wait", name]).ok(), "0\n", "as Docker has it of one that never ran");
        for expected in ["x", "xx", "xxx"] {
            assert_eq!(host.dhow(["start", "-a", name]).ok().replace('\n', ""), expected, "{name}");
        }
        host.dhow(["restart", name]).ok();
        assert_eq!(host.dhow(["wait", name]).ok(), "0\n");
        let log = host.dhow(["logs", name]).ok();
        assert_eq!(log.replace('\n', ""), "xxxxxxxxxx", "{name}");
    }
}

#[test]
fn input_ends_with_its_client() {
    let host = host();
    for args in [&["./probe.wasm", "cat"][..], &["./probe.component.wasm", "cat"], &["busybox:1", "cat"]] {
        assert_eq!(host.dhow(["run", "-i", "--name", "it"]).args(args).stdin("typed").ok(), "typed");
        assert_eq!(host.dhow(["start", "-ai", "it"]).stdin("again").ok(), "again");
        assert_eq!(host.dhow(["logs", "it"]).ok(), "typedagain");
        host.dhow(["rm", "it"]).ok();
        // Of one that was started by nobody in particular it does not.
        host.dhow(["run", "-d", "-i", "--name", "it"]).args(args).ok();
        for text in ["one\n", "two\n"] {
            host.dhow(["attach", "it"]).stdin(text).fails(0);
            until("it is logged", || host.dhow(["logs", "-n", "1", "it"]).ok().eq(text).then_some(()));
        }
        host.dhow(["rm", "-f", "it"]).ok();
    }
}

#[test]
fn exit_codes_reach_whoever_waits() {
    let host = host();
    for args in
        [&["./probe.wasm", "sleep", "1", "exit", "7"][..], &["busybox:1", "sh", "-c", "sleep 1; exit 7"]]
    {
        for options in [&["-d"][..], &["-d", "--rm"]] {
            host.dhow(["run", "--name", "it"]).args(options).args(args).ok();
            let waiting: Vec<_> = (0..3).map(|_| host.dhow(["wait", "it"]).spawn()).collect();
            for waiting in waiting {
                assert_eq!(waiting.outcome().stdout, "7\n", "{options:?} {args:?}");
            }
            host.dhow(["rm", "-f", "it"]).fails(0);
        }
    }
    // Nobody is connected to this one, and still the code is known.
    let mut running =
        host.dhow(["run", "--rm", "-i", "--name", "it", "./probe.wasm", "cat", "exit", "6"]).spawn();
    running.write(b"x\n");
    running.until("x\n");
    let waiting = host.dhow(["wait", "it"]).spawn();
    std::thread::sleep(Duration::from_millis(100));
    running.close_stdin();
    assert_eq!((running.outcome().code, waiting.outcome().stdout.as_str()), (6, "6\n"));
    host.dhow(["wait", "it"]).refused(1, "No such container: it");
}

#[test]
fn what_cannot_be_started_says_so() {
    let host = host();
    for (args, code, message) in [
        (&["busybox:1", "nosuch"][..], 127, "executable file not found in $PATH"),
        (&["busybox:1", "/etc"], 126, "permission denied"),
        (&["./broken.wasm"], 126, "broken.wasm"),
    ] {
        host.file("broken.wasm", b"\0asm\x01\0\0\0\xff");
        let outcome = run_d(&host, "it", args).fails(code);
        assert!(outcome.stderr.contains(message), "{outcome:#?}");
        assert_eq!(outcome.stdout.trim().len(), 64, "as with Docker the id is told: {outcome:#?}");
        assert_eq!(state(&host, "it"), format!("created false false {code}"), "{args:?}");
        assert!(host.dhow(["start", "it"]).fails(1).stderr.contains(message));
        host.dhow(["rm", "it"]).ok();
    }
    host.dhow(["start", "nosuch"]).refused(1, "No such container: nosuch");
    host.dhow(["start", "-a", "one", "two"])
        .rejected(1, "cannot start and attach multiple containers at once");
}

#[test]
fn a_paused_container_stands_still() {
    let host = host();
    for args in &ENDLESS[..3] {
        run_d(&host, "it", args).ok();
        assert_eq!(host.dhow(["pause", "it"]).ok(), "it\n");
        assert_eq!(state(&host, "it"), "paused true true 0");
        let listed = host.dhow(["ps", "--format", "{{.Status}} {{.State}}"]).ok();
        assert!(listed.ends_with("(Paused) paused\n"), "{listed}");
        let process = fs_err::read_to_string(format!("/proc/{}/stat", pid(&host, "it"))).unwrap();
        assert!(process.contains(") T "), "{process}");
        host.dhow(["pause", "it"]).rejected(1, "is already paused");
        host.dhow(["start", "it"]).rejected(1, "cannot start a paused container, try unpause instead");
        host.dhow(["attach", "it"]).rejected(1, "cannot attach to a paused container");
        host.dhow(["rm", "it"]).refused(1, "container is paused and must be unpaused first");
        assert_eq!(host.dhow(["unpause", "it"]).ok(), "it\n");
        assert_eq!(state(&host, "it"), "running true false 0");
        host.dhow(["unpause", "it"]).rejected(1, "is not paused");
        // Whatever ends a container ends a paused one.
        host.dhow(["pause", "it"]).ok();
        host.dhow(["stop", "it"]).ok();
        assert_eq!(state(&host, "it"), "exited false false 143");
        host.dhow(["pause", "it"]).refused(1, "is not running");
        host.dhow(["start", "it"]).ok();
        host.dhow(["pause", "it"]).ok();
        host.dhow(["kill", "it"]).ok();
        assert_eq!(host.dhow(["wait", "it"]).ok(), "137\n");
        host.dhow(["start", "it"]).ok();
        host.dhow(["pause", "it"]).ok();
        host.dhow(["rm", "-f", "it"]).ok();
    }
}

/// The same for all processes of a native one, those that came while it was looked for, too.
#[test]
fn a_paused_native_container_stands_still() {
    if !is_root() {
        println!("skipped: needs root, or a part of the control groups of one's own");
        return;
    }
    let host = Host::with_busybox();
    let script = "while :; do sleep 0.01 & echo x >> /tmp/count; wait; done";
    let start = |limits: &[&str]| {
        let words = ["busybox:1", "sh", "-c", script];
        host.dhow(["run", "-d", "--name", "it"]).args(limits).args(words).ok();
    };
    for limits in [&[][..], &["--pids-limit", "50"]] {
        start(limits);
        for _ in 0..3 {
            assert_eq!(host.dhow(["pause", "it"]).ok(), "it\n");
            assert_eq!(state(&host, "it"), "paused true true 0");
            let count = || host.dhow(["cp", "it:/tmp/count", "-"]).outcome().stdout;
            let before = count();
            std::thread::sleep(std::time::Duration::from_millis(60));
            assert!(before == count(), "it went on");
            host.dhow(["exec", "it", "true"]).refused(1, "is paused, unpause the container before exec");
            host.dhow(["pause", "it"]).rejected(1, "is already paused");
            assert_eq!(host.dhow(["unpause", "it"]).ok(), "it\n");
            until("it goes on", || (before != count()).then_some(()));
        }
        host.dhow(["pause", "it"]).ok();
        host.dhow(["stop", "-t", "0", "it"]).ok();
        assert_eq!(state(&host, "it"), "exited false false 137");
        host.dhow(["start", "it"]).ok();
        host.dhow(["pause", "it"]).ok();
        host.dhow(["kill", "it"]).ok();
        assert_eq!(host.dhow(["wait", "it"]).ok(), "137\n");
        host.dhow(["start", "it"]).ok();
        host.dhow(["pause", "it"]).ok();
        host.dhow(["commit", "it", "made:1"]).ok();
        host.dhow(["rm", "-f", "it"]).ok();
    }
}

#[test]
fn another_name() {
    let host = host();
    run_d(&host, "one", &["./loop.wat"]).ok();
    run_d(&host, "two", &["./loop.wat"]).ok();
    assert_eq!(host.dhow(["rename", "one", "three"]).ok(), "");
    host.dhow(["inspect", "one"]).rejected(1, "No such object: one");
    assert_eq!(state(&host, "three"), "running true false 0");
    host.dhow(["rename", "three", "two"])
        .refused(1, "The container name \"/two\" is already in use by container");
    host.dhow(["rename", "three", "three"]).rejected(1, "with the same name as its current name");
    host.dhow(["rename", "three", ".x"]).rejected(1, "nvalid container name (.x)");
    host.dhow(["rename", "nosuch", "four"]).refused(1, "No such container: nosuch");
    // The old one is free, also for the container that had it.
    host.dhow(["rename", "two", "one"]).ok();
    host.dhow(["rename", "three", "two"]).ok();
    // A container that removes itself removes the name it has then.
    run_d(&host, "five", &["--rm", "./probe.wasm", "sleep", "600"]).ok();
    host.dhow(["rename", "five", "six"]).ok();
    host.dhow(["stop", "six"]).ok();
    host.dhow(["rm", "-f", "one", "two"]).ok();
    host.has_no_container();
    assert_eq!(fs_err::read_dir(host.root().join("names")).unwrap().count(), 0);
}

#[test]
fn nothing_runs_without_its_monitor() {
    let host = host();
    for args in &ENDLESS {
        run_d(&host, "it", args).ok();
        let first = pid(&host, "it");
        let stat = fs_err::read_to_string(format!("/proc/{first}/stat")).unwrap();
        let parent = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(1).unwrap();
        kill_process(Pid::from_raw(parent.parse().unwrap()).unwrap(), Signal::KILL).unwrap();
        until("it is dead", || (state(&host, "it") == "dead false false 137").then_some(()));
        until("its process is gone", || {
            let stat = fs_err::read_to_string(format!("/proc/{first}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        assert_eq!(host.dhow(["wait", "it"]).ok(), "137\n");
        // It can be started again, and what the monitor left behind does not matter.
        host.dhow(["start", "it"]).ok();
        assert_eq!(state(&host, "it"), "running true false 0");
        host.dhow(["rm", "-f", "it"]).ok();
    }
}

#[test]
fn who_kills_the_sandbox_is_told_truthfully() {
    let host = host();
    for (signal, code) in [(Signal::KILL, 137), (Signal::ABORT, 134), (Signal::USR2, 140)] {
        run_d(&host, "it", &["./loop.wat"]).ok();
        kill_process(pid(&host, "it"), signal).unwrap();
        assert_eq!(host.dhow(["wait", "it"]).ok(), format!("{code}\n"));
        assert_eq!(state(&host, "it"), format!("exited false false {code}"));
        host.dhow(["rm", "it"]).ok();
    }
}

#[test]
fn a_fault_s_signal_that_was_sent_ends_a_program_too() {
    let host = host();
    host.file("trap.wat", fs_err::read(source("trap.wat")).unwrap());
    for args in &ENDLESS[..3] {
        for (signal, code) in [("SEGV", 139), ("BUS", 135), ("ILL", 132), ("FPE", 136)] {
            run_d(&host, "it", args).ok();
            host.dhow(["kill", "-s", signal, "it"]).ok();
            assert_eq!(host.dhow(["wait", "it"]).ok(), format!("{code}\n"), "{signal} {args:?}");
            assert_eq!(state(&host, "it"), format!("exited false false {code}"));
            host.dhow(["rm", "it"]).ok();
        }
    }
    // In the foreground the sandbox is the monitor.
    let mut running = host.dhow(["run", "--rm", "-i", "--name", "it", "./probe.wasm", "cat"]).spawn();
    running.write(b"x\n");
    running.until("x\n");
    host.dhow(["kill", "-s", "SEGV", "it"]).ok();
    assert_eq!(running.outcome().code, 139);
    // The guest's own faults are its traps, as ever.
    host.dhow(["run", "--rm", "./trap.wat"]).fails(134);
}

#[test]
fn many_hands_at_once() {
    let host = host();
    for args in [&["./loop.wat"][..], &["busybox:1", "sleep", "600"]] {
        host.dhow(["create", "--name", "it", "--stop-timeout", "0"]).args(args).ok();
        for _ in 0..3 {
            let verbs: [&[&str]; 8] = [
                &["start", "it"],
                &["stop", "it"],
                &["start", "it"],
                &["restart", "it"],
                &["rename", "it", "other"],
                &["start", "other"],
                &["rename", "other", "it"],
                &["stop", "other"],
            ];
            let running: Vec<_> = verbs.iter().map(|verb| host.dhow(*verb).spawn()).collect();
            for running in running {
                let outcome = running.outcome();
                // Names come and go; nothing else may go wrong.
                let fine = outcome.code == 0
                    || ["No such container", "same name", "already in use"]
                        .iter()
                        .any(|known| outcome.stderr.contains(known));
                assert!(fine, "{outcome:#?}");
            }
        }
        let id = host.dhow(["ps", "-aq"]).ok();
        assert_eq!(id.lines().count(), 1, "{id}");
        let removers: Vec<_> = (0..4).map(|_| host.dhow(["rm", "-f", id.trim()]).spawn()).collect();
        for remover in removers {
            assert_eq!(remover.outcome().code, 0);
        }
        host.has_no_container();
        host.check();
    }
}
