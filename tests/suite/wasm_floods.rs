//! Wasm programs that want more and more of something: tables, descriptors, handles of the host, files without number.
//! They get an error or end, and take no more of this host than a bound.

use crate::support::{Host, Image, Tree, guest, until};

/// Runs a program of WebAssembly text.
fn run(text: &str, options: &[&str]) -> (i32, String) {
    let host = Host::new();
    let program = host.file("flood.wat", text);
    let outcome = host.dhow(["run", "--rm"]).args(options).args([program]).patiently().outcome();
    (outcome.code, outcome.stderr)
}

const EXIT: &str = r#"(import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))"#;

#[test]
fn tables_count_as_memory() {
    let program = format!(
        r#"(module {EXIT} (memory (export "memory") 1) (table $t 1 funcref)
          (func (export "_start")
            (loop $more (br_if $more (i32.ne (table.grow $t (ref.null func) (i32.const 10000)) (i32.const -1))))
            (call $exit (i32.const 3))))"#
    );
    let (code, said) = run(&program, &["-m", "20m"]);
    assert!(code == 137 && said.contains("memory limit of 20 MiB exceeded"), "{code} {said}");
    // A table's own maximum is no excess.
    let bounded = program.replace("(table $t 1 funcref)", "(table $t 1 50000 funcref)");
    assert_eq!(run(&bounded, &["-m", "20m"]).0, 3);
}

#[test]
fn descriptors_end_at_their_limit() {
    // Opens the root again and again; ends with the number of the error.
    let program = format!(
        r#"(module {EXIT}
          (import "wasi_snapshot_preview1" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
          (memory (export "memory") 1) (data (i32.const 0) ".")
          (func (export "_start") (local $error i32)
            (loop $more
              (local.set $error (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 2)
                (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8)))
              (br_if $more (i32.eqz (local.get $error))))
            (call $exit (local.get $error))))"#
    );
    // 33: too many open files of this process.
    assert_eq!(run(&program, &["--ulimit", "nofile=64"]).0, 33);
    assert_eq!(run(&program, &[]).0, 33);
}

#[test]
fn calls_without_end_cost_time_and_nothing_else() {
    let program = r#"(module
      (import "wasi_snapshot_preview1" "clock_time_get" (func $time (param i32 i64 i32) (result i32)))
      (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
      (memory (export "memory") 1)
      (func (export "_start") (local $left i32)
        (local.set $left (i32.const 1000000))
        (loop $more
          (drop (call $time (i32.const 1) (i64.const 0) (i32.const 16)))
          (drop (call $write (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 8)))
          (drop (call $write (i32.const 99) (i32.const 0xfffffff0) (i32.const 0xffffffff) (i32.const 8)))
          (br_if $more (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))))"#;
    assert_eq!(run(program, &["-m", "20m"]), (0, String::new()));
}

#[test]
fn handles_of_the_host_have_an_end() {
    let program = r#"(component
      (import "wasi:io/poll@0.2.0" (instance $poll (export "pollable" (type (sub resource)))))
      (alias export $poll "pollable" (type $pollable))
      (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
        (alias outer 1 $pollable (type $outer))
        (export "pollable" (type $p (eq $outer)))
        (export "subscribe-duration" (func (param "when" u64) (result (own $p))))))
      (core func $subscribe (canon lower (func $clock "subscribe-duration")))
      (core module $m
        (import "clock" "subscribe" (func $subscribe (param i64) (result i32)))
        (func (export "run") (result i32)
          (loop $more (drop (call $subscribe (i64.const 1000000000))) (br $more)) unreachable))
      (core instance $i (instantiate $m (with "clock" (instance (export "subscribe" (func $subscribe))))))
      (func $run (result (result)) (canon lift (core func $i "run")))
      (instance $c (export "run" (func $run)))
      (export "wasi:cli/run@0.2.0" (instance $c)))"#;
    let (code, said) = run(program, &[]);
    assert!(code == 134 && said.contains("cannot allocate another handle"), "{code} {said}");
}

/// The most memory that a container's process has had, in KiB, once it has ended by itself with code 0.
fn peak(host: &Host, name: &str) -> u64 {
    let pid = host.dhow(["inspect", "-f", "{{.State.Pid}}", name]).ok();
    let mut peak = 0;
    loop {
        let status = fs_err::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
        peak = peak.max(line.trim().trim_end_matches(" kB").parse().unwrap());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    until("it has ended", || host.dhow(["ps", "-q"]).ok().is_empty().then_some(()));
    assert_eq!(host.dhow(["wait", name]).ok(), "0\n");
    peak
}

/// A million files takes minutes on a slow disk: with `DHOW_TEST_EXHAUSTIVE`; else twenty thousand.
#[test]
fn files_without_number_in_the_union() {
    let count = if std::env::var_os("DHOW_TEST_EXHAUSTIVE").is_some() { "1000000" } else { "20000" };
    let program = Tree::new().file("files.wasm", 0o644, guest("files-c.wasm"));
    let lower = Tree::new().dir("d", 0o755).file("d/of-the-image", 0o644, "x");
    let image = Image::wasm().layer(lower).layer(program).entrypoint(&["/files.wasm"]);
    let host = Host::with(&[("files:1", image)]);
    host.dhow(["run", "-d", "--name", "it", "files:1", "work", "/d", count]).ok();
    let peak = peak(&host, "it");
    let said = host.dhow(["logs", "it"]).ok();
    let number: u64 = count.parse().unwrap();
    // With . and .. and the file of the image, which is removed as well.
    assert_eq!(said, format!("{}\n{}\n2\n", number + 3, number + 1));
    assert!(peak < 150 << 10, "{peak} KiB");
    host.dhow(["rm", "it"]).ok();
}
