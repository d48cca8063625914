//! Programs in WebAssembly text that want more than they may have, as core modules and as components.

use std::io::{Read as _, Seek as _};
use std::time::Instant;

use crate::spec::{
    LinuxBuilder, LinuxMemoryBuilder, LinuxResourcesBuilder, ProcessBuilder, RootBuilder, SpecBuilder,
};
use crate::stdio::{Stdio, Stream};
use crate::wasm::{Executor, Options};
use crate::{Bundle, Module, Root};

use super::*;

/// How a guest ended, whether for lack of memory, and what it said.
fn run(text: &str, memory: Option<i64>, limits: Limits) -> (ExitStatus, bool, String) {
    let temp = tempfile::tempdir().expect("a directory");
    fs_err::create_dir_all(temp.path().join("root")).expect("root");
    fs_err::write(temp.path().join("guest.wat"), text).expect("guest");
    let process = ProcessBuilder::default().args(vec!["guest".to_owned()]).cwd("/").build().expect("process");
    let root = RootBuilder::default().path("unused").build().expect("root");
    let mut spec = SpecBuilder::default().process(process).root(root).mounts(Vec::new());
    if let Some(memory) = memory {
        let memory = LinuxMemoryBuilder::default().limit(memory).build().expect("memory");
        let resources = LinuxResourcesBuilder::default().memory(memory).build().expect("resources");
        spec = spec.linux(LinuxBuilder::default().resources(resources).build().expect("linux"));
    }
    let bundle = Bundle {
        id: "test".to_owned(),
        spec: spec.build().expect("spec"),
        root: Root::Dir(temp.path().join("root")),
        module: Some(Module { path: temp.path().join("guest.wat"), id: None }),
        wasm: Options { limits, ..Options::default() },
    };
    let mut stderr = tempfile::tempfile().expect("a file");
    let stdio = Stdio::Streams {
        stdin: Stream::Null,
        stdout: Stream::Null,
        stderr: Stream::File(stderr.try_clone().expect("clone")),
    };
    let mut task = Executor::new(None).create(&bundle, stdio).expect("create");
    task.start().expect("start");
    let status = task.wait().expect("wait");
    let mut said = String::new();
    stderr.rewind().and_then(|()| stderr.read_to_string(&mut said)).expect("read");
    (status, task.out_of_memory(), said)
}

fn command(body: &str) -> String {
    format!(r#"(module (memory (export "memory") 1) (table $t 1 funcref) (func (export "_start") {body}))"#)
}

/// A command that is a component around this body.
fn component(body: &str) -> String {
    format!(
        r#"(component
  (core module $m (memory (export "memory") 1) (table $t 1 funcref) (func (export "run") (result i32) {body} (i32.const 0)))
  (core instance $i (instantiate $m))
  (func $run (result (result)) (canon lift (core func $i "run")))
  (component $c (import "run" (func $f (result (result)))) (export "run" (func $f)))
  (instance $r (instantiate $c (with "run" (func $run))))
  (export "wasi:cli/run@0.2.0" (instance $r)))"#
    )
}

fn both(body: &str) -> [String; 2] {
    [command(body), component(body)]
}

const LOOP: &str = "(loop $l (br $l))";
const GROW: &str = "(loop $l (br_if $l (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))";

#[test]
fn memory_that_is_not_given_ends_the_guest() {
    for text in both(GROW) {
        let (status, out_of_memory, said) = run(&text, Some(8 << 20), Limits::default());
        assert_eq!((status.code(), out_of_memory), (137, true), "{said}");
        assert!(
            said.contains("memory limit of 8 MiB exceeded: it had 7 MiB and wanted 1 MiB more"),
            "{said}"
        );
    }
}

#[test]
fn what_a_guest_needs_to_begin_with_counts() {
    let text = r#"(module (memory (export "memory") 1000) (func (export "_start")))"#;
    let (status, out_of_memory, said) = run(text, Some(8 << 20), Limits::default());
    assert_eq!((status.code(), out_of_memory), (137, true), "{said}");
    assert_eq!(run(text, Some(64 << 20), Limits::default()).0.code(), 0);
    // The specification's words for none.
    assert_eq!(run(text, Some(-1), Limits::default()).0.code(), 0);
}

#[test]
fn tables_and_all_memories_count_together() {
    let table = "(drop (table.grow $t (ref.null func) (i32.const 2000000)))";
    for text in both(table) {
        let (status, out_of_memory, said) = run(&text, Some(8 << 20), Limits::default());
        assert_eq!((status.code(), out_of_memory), (137, true), "{said}");
        assert_eq!(run(&text, Some(64 << 20), Limits::default()).0.code(), 0);
    }
    let two = r#"(module (memory (export "memory") 80) (memory 80) (func (export "_start")))"#;
    assert_eq!(run(two, Some(8 << 20), Limits::default()).0.code(), 137);
    assert_eq!(run(two, Some(11 << 20), Limits::default()).0.code(), 0);
}

#[test]
fn a_module_s_own_maximum_is_no_excess() {
    let text = r#"(module (memory (export "memory") 1 2) (func (export "_start")
        (if (i32.ne (memory.grow (i32.const 2)) (i32.const -1)) (then unreachable))
        (if (i32.ne (memory.grow (i32.const 1)) (i32.const 1)) (then unreachable))))"#;
    let (status, out_of_memory, said) = run(text, Some(128 << 10), Limits::default());
    assert_eq!((status.code(), out_of_memory), (0, false), "{said}");
}

#[test]
fn tables_have_an_end_without_any_limit() {
    let grow = "(if (i32.ne (table.grow $t (ref.null func) (i32.const 11000000)) (i32.const -1)) (then unreachable))";
    for text in both(grow) {
        assert_eq!(run(&text, None, Limits::default()).0.code(), 0);
    }
}

#[test]
fn fuel_runs_out() {
    for text in both(LOOP) {
        let limits = Limits { fuel: Some(10_000), ..Limits::default() };
        let (status, _, said) = run(&text, None, limits);
        assert_eq!(status.code(), OUT_OF_FUEL, "{said}");
        assert!(said.contains("fuel limit of 10000 exceeded"), "{said}");
    }
    for text in both("") {
        let limits = Limits { fuel: Some(10_000), ..Limits::default() };
        assert_eq!(run(&text, None, limits).0.code(), 0);
    }
}

#[test]
fn time_runs_out() {
    for text in both(LOOP) {
        let limits = Limits { timeout: Some(Duration::from_millis(20)), ..Limits::default() };
        let (status, _, said) = run(&text, None, limits);
        assert_eq!(status.code(), OUT_OF_TIME, "{said}");
        assert!(said.contains("time limit of 20ms exceeded"), "{said}");
    }
    for text in both("") {
        let limits = Limits { timeout: Some(Duration::from_secs(3600)), ..Limits::default() };
        let begun = Instant::now();
        assert_eq!(run(&text, None, limits).0.code(), 0);
        assert!(begun.elapsed() < Duration::from_secs(1800), "nobody waits for the clock");
    }
}

#[test]
fn all_limits_at_once() {
    for text in both(GROW) {
        let limits =
            Limits { fuel: Some(1 << 40), timeout: Some(Duration::from_secs(3600)), cpus: Some(0.5) };
        assert_eq!(run(&text, Some(8 << 20), limits).0.code(), 137);
    }
}

#[test]
#[cfg(unix)]
fn a_share_of_the_processors_is_kept() {
    // Ends by the clock on the wall, so that what it used can be compared with it.
    let limits = Limits { timeout: Some(Duration::from_millis(600)), cpus: Some(0.2), ..Limits::default() };
    let used = || {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).expect("nanoseconds"))
    };
    // Compiling is not counted.
    let text = command(LOOP);
    run(&text, None, Limits { timeout: Some(Duration::from_millis(1)), ..limits.clone() });
    let before = used();
    assert_eq!(run(&text, None, limits).0.code(), OUT_OF_TIME);
    let used = used() - before;
    assert!(used < Duration::from_millis(480), "{used:?} of 600 ms at a share of a fifth");
}

#[test]
fn nonsense_is_refused() {
    let spec = SpecBuilder::default().build().expect("spec");
    for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let limits = Limits { cpus: Some(cpus), ..Limits::default() };
        assert!(Bounds::of(&spec, &limits).is_err(), "{cpus}");
    }
}

#[test]
fn budgets_are_shared_and_given_back() {
    use wasmtime::ResourceLimiter as _;
    let budget = Budget::new(Some(100));
    let (mut one, mut two) = (budget.limiter(), budget.limiter());
    assert!(one.memory_growing(0, 60, None).is_ok_and(|yes| yes));
    assert!(two.memory_growing(0, 60, None).is_err());
    assert!(two.memory_growing(0, 40, None).is_ok_and(|yes| yes));
    two.memory_grow_failed(wasmtime::Error::msg("no room")).expect("fine");
    assert_eq!(budget.used(), 60);
    assert!(!two.memory_growing(0, 40, Some(30)).expect("fine"));
    two.memory_grow_failed(wasmtime::Error::msg("never")).expect("fine");
    assert_eq!(budget.used(), 60);
    drop(one);
    assert_eq!(budget.used(), 0);
}

#[test]
fn sizes() {
    for (bytes, text) in [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (64 << 20, "64 MiB"),
        (3 << 30, "3 GiB"),
        (u64::MAX, "17179869183.9 GiB"),
    ] {
        assert_eq!(size(bytes), text);
    }
}
