//! The host against programs in WebAssembly text, by way of the public interface: what a guest prints, leaves behind
//! and ends with. Programs in C and Rust are the test suite's.

use std::io::{Read as _, Seek as _};
use std::path::Path;

use super::link::NAMES;
use crate::error::{Error, Result};
use crate::spec::{ProcessBuilder, RootBuilder, SpecBuilder};
use crate::stdio::{Stdio, Stream};
use crate::task::{ExitStatus, Status};
use crate::wasm::{Executor, Task};
use crate::{Bundle, Module, Root};

mod hostile;
mod invoke;

/// What a guest did.
#[derive(Debug)]
struct Outcome {
    code: u8,
    out: String,
    err: String,
}

fn bundle(dir: &Path, text: &str, args: &[&str], cwd: &str) -> Bundle {
    fs_err::create_dir_all(dir.join("root")).expect("root");
    fs_err::write(dir.join("guest.wat"), text).expect("guest");
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    let process =
        ProcessBuilder::default().args(args).cwd(cwd).env(vec!["A=1".to_owned()]).rlimits(Vec::new()).build();
    let root = RootBuilder::default().path("unused").readonly(false).build().expect("root");
    let spec =
        SpecBuilder::default().process(process.expect("process")).root(root).mounts(Vec::new()).build();
    Bundle {
        id: "test".to_owned(),
        spec: spec.expect("spec"),
        root: Root::Dir(dir.join("root")),
        module: Some(Module { path: dir.join("guest.wat"), id: None }),
        wasm: crate::wasm::Options::default(),
    }
}

fn create(dir: &Path, text: &str, stdio: Stdio) -> Result<Task> {
    Executor::new(None).create(&bundle(dir, text, &["guest", "two words"], "/"), stdio)
}

fn nothing() -> Stdio {
    Stdio::Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null }
}

/// Runs a guest with this input.
fn run(text: &str, input: &str) -> Outcome {
    let temp = tempfile::tempdir().expect("a directory");
    let file = || tempfile::tempfile().expect("a file");
    let (mut stdin, mut stdout, mut stderr) = (file(), file(), file());
    std::io::Write::write_all(&mut stdin, input.as_bytes()).expect("input");
    stdin.rewind().expect("rewind");
    let clone = |file: &std::fs::File| Stream::File(file.try_clone().expect("clone"));
    let stdio = Stdio::Streams { stdin: clone(&stdin), stdout: clone(&stdout), stderr: clone(&stderr) };
    let mut task = create(temp.path(), text, stdio).expect("create");
    assert_eq!(task.status(), Status::Created);
    assert!(matches!(task.wait(), Err(Error::NotRunning { .. })), "not started yet");
    task.start().expect("start");
    let status = task.wait().expect("wait");
    assert_eq!(task.status(), Status::Stopped);
    assert_eq!(task.wait().expect("wait again"), status);
    let ExitStatus::Code(code) = status else { panic!("{status:?}") };
    let text = |file: &mut std::fs::File| {
        let mut text = String::new();
        file.rewind().and_then(|()| file.read_to_string(&mut text)).expect("read");
        text
    };
    Outcome { code, out: text(&mut stdout), err: text(&mut stderr) }
}

/// A command around `body`, with everything imported that it calls and some helpers.
fn command(imports: &[(&str, &str)], body: &str) -> String {
    use std::fmt::Write as _;
    let mut text = "(module\n".to_owned();
    for (name, signature) in imports {
        writeln!(text, r#"(import "wasi_snapshot_preview1" "{name}" (func ${name} {signature}))"#)
            .expect("text");
    }
    writeln!(text, r#"(memory (export "memory") 2) (func (export "_start") {body}))"#).expect("text");
    text
}

const EXIT: (&str, &str) = ("proc_exit", "(param i32)");

#[test]
fn all_functions_are_there() {
    assert_eq!(NAMES.len(), 46);
    let mut sorted = NAMES.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 46);
}

#[test]
fn input_is_copied_to_output() {
    let read = ("fd_read", "(param i32 i32 i32 i32) (result i32)");
    let write = ("fd_write", "(param i32 i32 i32 i32) (result i32)");
    let body = "
        (i32.store (i32.const 0) (i32.const 64)) (i32.store (i32.const 4) (i32.const 60000))
        (loop $again
            (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 16)))
            (if (i32.load (i32.const 16)) (then
                (i32.store (i32.const 4) (i32.load (i32.const 16)))
                (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 20)))
                (drop (call $fd_write (i32.const 2) (i32.const 0) (i32.const 1) (i32.const 20)))
                (br $again))))";
    let outcome = run(&command(&[read, write], body), "some text");
    assert_eq!((outcome.code, outcome.out.as_str(), outcome.err.as_str()), (0, "some text", "some text"));
}

#[test]
fn arguments_are_counted_and_copied() {
    let sizes = ("args_sizes_get", "(param i32 i32) (result i32)");
    let get = ("args_get", "(param i32 i32) (result i32)");
    let write = ("fd_write", "(param i32 i32 i32 i32) (result i32)");
    let body = "
        (drop (call $args_sizes_get (i32.const 0) (i32.const 4)))
        (drop (call $args_get (i32.const 16) (i32.const 64)))
        (i32.store (i32.const 32) (i32.const 64)) (i32.store (i32.const 36) (i32.load (i32.const 4)))
        (drop (call $fd_write (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))
        (call $proc_exit (i32.load (i32.const 0)))";
    let outcome = run(&command(&[sizes, get, write, EXIT], body), "");
    assert_eq!((outcome.code, outcome.out.as_str()), (2, "guest\0two words\0"));
}

#[test]
fn exit_codes() {
    for (code, expected) in [(0, 0), (1, 1), (200, 200), (255, 255), (256, 0), (-1, 255)] {
        let outcome = run(&command(&[EXIT], &format!("(call $proc_exit (i32.const {code}))")), "");
        assert_eq!(
            (outcome.code, outcome.out, outcome.err),
            (expected, String::new(), String::new()),
            "{code}"
        );
    }
}

#[test]
fn hostile_pointers_are_errors_not_traps() {
    // Each call with pointers beyond the memory; the answer is the exit code.
    let far = "(i32.const -8)";
    let long = "(i32.const 2147483647)";
    for (import, call, errno) in [
        (
            ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
            format!("(i32.const 1) {far} (i32.const 2) (i32.const 0)"),
            21,
        ),
        (
            ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
            format!("(i32.const 1) (i32.const 0) {long} (i32.const 0)"),
            28,
        ),
        (
            ("fd_write", "(param i32 i32 i32 i32) (result i32)"),
            format!("(i32.const 1) (i32.const 0) (i32.const 1) {far}"),
            21,
        ),
        (("random_get", "(param i32 i32) (result i32)"), format!("(i32.const 8) {long}"), 21),
        (("args_get", "(param i32 i32) (result i32)"), format!("{far} {far}"), 21),
        (("args_get", "(param i32 i32) (result i32)"), format!("(i32.const 0) {far}"), 21),
        (
            ("clock_time_get", "(param i32 i64 i32) (result i32)"),
            format!("(i32.const 0) (i64.const 0) {far}"),
            21,
        ),
        (
            ("clock_time_get", "(param i32 i64 i32) (result i32)"),
            "(i32.const 9) (i64.const 0) (i32.const 0)".into(),
            28,
        ),
        (
            ("fd_prestat_dir_name", "(param i32 i32 i32) (result i32)"),
            "(i32.const 3) (i32.const 0) (i32.const 0)".into(),
            37,
        ),
        (
            ("fd_prestat_dir_name", "(param i32 i32 i32) (result i32)"),
            "(i32.const 3) (i32.const -1) (i32.const 9)".into(),
            21,
        ),
        (("fd_prestat_get", "(param i32 i32) (result i32)"), "(i32.const 4) (i32.const 0)".into(), 8),
        (
            ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)"),
            format!("(i32.const 3) {far} {long} (i64.const 0) (i32.const 0)"),
            21,
        ),
        (
            ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)"),
            "(i32.const 3) (i32.const 0) (i32.const 8) (i64.const -1) (i32.const 8)".into(),
            0,
        ),
        (
            ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
            format!("(i32.const 3) {far} (i32.const 9)"),
            21,
        ),
        (
            ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
            format!("(i32.const 3) (i32.const 0) {long}"),
            37,
        ),
        (
            ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
            "(i32.const 3) (i32.const 0) (i32.const 0)".into(),
            44,
        ),
        (
            ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
            "(i32.const 1) (i32.const 0) (i32.const 1)".into(),
            54,
        ),
        (
            ("path_unlink_file", "(param i32 i32 i32) (result i32)"),
            "(i32.const 99) (i32.const 0) (i32.const 1)".into(),
            8,
        ),
        (
            ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
            "(i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)".into(),
            28,
        ),
        (
            ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
            format!("(i32.const 0) (i32.const 0) {long} (i32.const 0)"),
            28,
        ),
        (
            ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
            format!("{far} (i32.const 0) (i32.const 9) (i32.const 0)"),
            21,
        ),
        (
            ("fd_seek", "(param i32 i64 i32 i32) (result i32)"),
            "(i32.const 1) (i64.const 0) (i32.const 0) (i32.const 0)".into(),
            70,
        ),
        (("fd_close", "(param i32) (result i32)"), "(i32.const -1)".into(), 8),
        (("fd_renumber", "(param i32 i32) (result i32)"), "(i32.const 0) (i32.const -1)".into(), 8),
        (("sock_shutdown", "(param i32 i32) (result i32)"), "(i32.const 0) (i32.const 0)".into(), 57),
        (("proc_raise", "(param i32) (result i32)"), "(i32.const 6)".into(), 58),
        (("sched_yield", "(result i32)"), String::new(), 0),
    ] {
        let body = format!("(call $proc_exit (call ${} {call}))", import.0);
        let outcome = run(&command(&[import, EXIT], &body), "");
        assert_eq!(outcome.code, errno, "{} {call}: {}", import.0, outcome.err);
    }
}

#[test]
fn descriptors_run_out() {
    let open = ("path_open", "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)");
    let body = "(local $errno i32)
        (i32.store8 (i32.const 0) (i32.const 46))
        (loop $more
            (local.set $errno (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 2)
                (i64.const 0) (i64.const 0) (i32.const 0) (i32.const 8)))
            (br_if $more (i32.eqz (local.get $errno))))
        (call $proc_exit (i32.add (local.get $errno) (i32.eq (i32.load (i32.const 8)) (i32.const 65535))))";
    assert_eq!(run(&command(&[open, EXIT], body), "").code, 33 + 1);
}

#[test]
fn waiting_for_time_and_input() {
    let poll = ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)");
    // A millisecond, and input that is there: only the input is reported, with its own data.
    let body = "
        (i64.store (i32.const 0) (i64.const 7)) (i32.store (i32.const 16) (i32.const 1))
        (i64.store (i32.const 24) (i64.const 1000000))
        (i64.store (i32.const 48) (i64.const 9)) (i32.store8 (i32.const 56) (i32.const 1))
        (i32.store (i32.const 64) (i32.const 0))
        (drop (call $poll_oneoff (i32.const 0) (i32.const 128) (i32.const 2) (i32.const 256)))
        (call $proc_exit (i32.add
            (i32.mul (i32.load (i32.const 256)) (i32.const 100)) (i32.load (i32.const 128))))";
    assert_eq!(run(&command(&[poll, EXIT], body), "input").code, 109);
    // The millisecond alone.
    let alone = body.replace("(i32.const 2) (i32.const 256)", "(i32.const 1) (i32.const 256)");
    assert_eq!(run(&command(&[poll, EXIT], &alone), "").code, 107);
}

#[test]
fn a_trap_shows_where() {
    let text =
        r#"(module (func $inner unreachable) (func $outer call $inner) (export "_start" (func $outer)))"#;
    let outcome = run(text, "");
    assert_eq!(outcome.code, 134);
    for part in ["guest.wat failed", "inner", "outer", "wasm `unreachable` instruction executed"] {
        assert!(outcome.err.contains(part), "{part}: {}", outcome.err);
    }
    let deep = r#"(module (func $f (export "_start") call $f))"#;
    let outcome = run(deep, "");
    assert!(outcome.code == 134 && outcome.err.contains("stack"), "{outcome:?}");
    let no_memory = r#"(module (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
        (func (export "_start") (drop (call 0 (i32.const 0)))))"#;
    let outcome = run(no_memory, "");
    assert!(outcome.code == 134 && outcome.err.contains("exports no memory"), "{outcome:?}");
}

#[test]
fn what_cannot_run_is_said_before_it_runs() {
    for (text, words) in [
        ("(module)", "exports no function _start () -> (), but nothing"),
        (r#"(module (func (export "run")) (memory (export "memory") 1))"#, "but run, memory"),
        (r#"(module (func (export "_start") (param i32)))"#, "_start"),
        (r#"(module (import "env" "f" (func)) (func (export "_start")))"#, "imports env.f"),
        (
            r#"(module (import "wasi_snapshot_preview1" "fd_none" (func)) (func (export "_start")))"#,
            "imports wasi_snapshot_preview1.fd_none",
        ),
        (
            r#"(module (import "wasi_snapshot_preview1" "fd_close" (func)) (func (export "_start")))"#,
            "incompatible import type",
        ),
        ("(module (func (export \"_start\") (result i32)))", "type mismatch"),
        ("(module", "expected"),
        (r#"(module (memory 1 2 shared) (func (export "_start")))"#, "threads"),
    ] {
        let temp = tempfile::tempdir().expect("a directory");
        let error = create(temp.path(), text, nothing()).expect_err(text);
        assert!(matches!(error, Error::InvalidModule { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(words) && message.contains("guest.wat"), "{message}");
        assert!(!message.contains('\n'), "{message}");
    }
}

#[test]
fn the_working_directory_is_made_and_preopened_last() {
    let temp = tempfile::tempdir().expect("a directory");
    let body = r#"(module
        (import "wasi_snapshot_preview1" "path_create_directory" (func $mkdir (param i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get" (func $prestat (param i32 i32) (result i32)))
        (memory (export "memory") 1) (data (i32.const 0) "made")
        (func (export "_start") (local $fd i32)
            (local.set $fd (i32.const 3))
            (loop $next
                (local.set $fd (i32.add (local.get $fd) (i32.const 1)))
                (br_if $next (i32.eqz (call $prestat (local.get $fd) (i32.const 16)))))
            (drop (call $mkdir (i32.sub (local.get $fd) (i32.const 1)) (i32.const 0) (i32.const 4)))))"#;
    let bundle = bundle(temp.path(), body, &["guest"], "/work/deep");
    fs_err::create_dir(temp.path().join("root/etc")).expect("dir");
    let mut task = Executor::new(None).create(&bundle, nothing()).expect("create");
    task.start().expect("start");
    assert_eq!(task.wait().expect("wait"), ExitStatus::Code(0));
    assert!(temp.path().join("root/work/deep/made").is_dir());
}

#[test]
fn programs_in_the_root() {
    let temp = tempfile::tempdir().expect("a directory");
    let mut bundle = bundle(temp.path(), "", &["app.wasm"], "/");
    bundle.module = None;
    let root = temp.path().join("root");
    let code = |number: i32| {
        let text = command(&[EXIT], &format!("(call $proc_exit (i32.const {number}))"));
        wat::parse_str(text).expect("a module")
    };
    fs_err::create_dir_all(root.join("opt/dir.wasm")).expect("dir");
    fs_err::write(root.join("app.wasm"), code(1)).expect("write");
    fs_err::write(root.join("opt/app.wasm"), code(2)).expect("write");
    fs_err::write(root.join("opt/only.wasm"), code(3)).expect("write");
    fs_err::write(root.join("text.wasm"), "(module)").expect("write");
    fs_err::write(root.join("elf.wasm"), b"\x7fELF\x02\x01\x01\0").expect("write");
    let mut go = |command: &str, cwd: &str| {
        let mut process = bundle.spec.process().clone().expect("process");
        process.set_args(Some(vec![command.to_owned()])).set_cwd(cwd.into());
        process.set_env(Some(vec!["PATH=/bin:/opt".to_owned()]));
        bundle.spec.set_process(Some(process));
        let mut task = Executor::new(None).create(&bundle, nothing()).map_err(|error| error.to_string())?;
        task.start().and_then(|()| task.wait()).map(ExitStatus::code).map_err(|error| error.to_string())
    };
    assert_eq!(go("/app.wasm", "/opt"), Ok(1));
    assert_eq!(go("app.wasm", "/"), Ok(1));
    assert_eq!(go("app.wasm", "/opt"), Ok(2));
    assert_eq!(go("./app.wasm", "/opt"), Ok(2));
    assert_eq!(go("only.wasm", "/"), Ok(3));
    assert_eq!(go("/opt/../app.wasm", "/"), Ok(1));
    for (command, words) in [
        ("/none.wasm", "no such file or directory"),
        ("none.wasm", "not found in $PATH"),
        ("/app.wasm/x", "no such file or directory"),
        ("/opt/dir.wasm", "is a directory"),
        ("/../../../../etc/passwd", "operation not permitted"),
        ("/text.wasm", "not WebAssembly but text"),
        ("/elf.wasm", "ELF"),
    ] {
        let error = go(command, "/").expect_err(command);
        assert!(error.contains(words) && error.contains(command), "{error}");
    }
}

#[test]
fn signals_to_a_task_that_is_over() {
    let temp = tempfile::tempdir().expect("a directory");
    let mut task = create(temp.path(), r#"(module (func (export "_start")))"#, nothing()).expect("create");
    task.start().expect("start");
    assert_eq!(task.wait().expect("wait"), ExitStatus::Code(0));
    assert!(matches!(task.kill(crate::Signal::TERM), Err(Error::NotRunning { .. })));
    assert_eq!(task.pid(), std::process::id());
    task.delete().expect("delete");
}

#[test]
fn code_in_a_layer_with_an_id_is_found_without_its_file() {
    let temp = tempfile::tempdir().expect("a directory");
    let mut bundle = bundle(temp.path(), "", &["/bin/app.wasm"], "/");
    bundle.module = None;
    let layer = crate::Layer { path: temp.path().join("layer"), id: Some("sha256:abc".to_owned()) };
    fs_err::create_dir_all(layer.path.join("bin")).expect("layer");
    fs_err::create_dir(temp.path().join("upper")).expect("upper");
    let write = |dir: &Path, number: i32| {
        let text = command(&[EXIT], &format!("(call $proc_exit (i32.const {number}))"));
        fs_err::create_dir_all(dir.join("bin")).expect("bin");
        fs_err::write(dir.join("bin/app.wasm"), wat::parse_str(text).expect("a module")).expect("write");
    };
    write(&layer.path, 1);
    bundle.root = Root::Layers {
        lower: vec![layer.clone()],
        upper: temp.path().join("upper"),
        work: temp.path().join("work"),
        merged: temp.path().join("merged"),
    };
    let aot = temp.path().join("aot");
    let go = || {
        let mut task = Executor::new(Some(aot.clone())).create(&bundle, nothing()).expect("create");
        task.start().expect("start");
        task.wait().expect("wait").code()
    };
    Executor::new(Some(aot.clone())).precompile_in_layer(&layer, "/bin/app.wasm").expect("precompile");
    // What the id names never changes, so nobody looks at the file again.
    fs_err::write(layer.path.join("bin/app.wasm"), "something else").expect("write");
    assert_eq!(go(), 1);
    // What a container has in its own directory is looked at each time.
    write(&temp.path().join("upper"), 2);
    assert_eq!(go(), 2);
    write(&temp.path().join("upper"), 3);
    assert_eq!(go(), 3);
}

#[test]
fn a_read_only_root() {
    let temp = tempfile::tempdir().expect("a directory");
    let mkdir = ("path_create_directory", "(param i32 i32 i32) (result i32)");
    let body = "(i32.store8 (i32.const 0) (i32.const 97))
        (call $proc_exit (call $path_create_directory (i32.const 3) (i32.const 0) (i32.const 1)))";
    let mut bundle = bundle(temp.path(), &command(&[mkdir, EXIT], body), &["guest"], "/work");
    bundle.spec.set_root(Some(RootBuilder::default().path("unused").readonly(true).build().expect("root")));
    let mut task = Executor::new(None).create(&bundle, nothing()).expect("create");
    task.start().expect("start");
    assert_eq!(task.wait().expect("wait").code(), 69);
    assert!(temp.path().join("root/work").is_dir());
}
