//! Guests that mean harm: every function with arguments from the edges, floods, and growth without end. Whatever they
//! do ends in an error number, a trap or their own end, never in a panic of the host.

use std::fmt::Write as _;

use super::super::link::PARAMETERS;
use super::{EXIT, command, run};

/// Numbers that lie on some edge: of the memory (two pages), of the descriptors, of the integers. At 64 there is a
/// file's name.
const WORDS: [&str; 16] = [
    "0",
    "1",
    "2",
    "3",
    "4",
    "5",
    "8",
    "64",
    "127",
    "1024",
    "65536",
    "131064",
    "131071",
    "131072",
    "2147483647",
    "-1",
];
const LONG: [&str; 8] =
    ["0", "1", "131072", "4294967295", "4294967296", "9223372036854775807", "-1", "-9223372036854775808"];

/// The same sequence every time (xorshift).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap_or(0)
    }
}

#[test]
fn every_function_with_arguments_from_the_edges() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut imports = vec![("proc_exit".to_owned(), "(param i32)".to_owned())];
    let mut body = "(i32.store8 (i32.const 64) (i32.const 102))".to_owned();
    for (name, parameters) in PARAMETERS {
        let types: Vec<_> =
            parameters.iter().map(|ty| if ty.contains("64") { "i64" } else { "i32" }).collect();
        imports.push(((*name).to_owned(), format!("(param {}) (result i32)", types.join(" "))));
        // Those would leave the others without descriptors.
        let closes = matches!(*name, "fd_close" | "fd_renumber");
        for _ in 0..150 {
            let argument = |(index, ty): (usize, &&str)| match *ty {
                "i32" if closes && index == 0 => "(i32.const 77)".to_owned(),
                "i32" if index == 0 && numbers.below(2) == 0 => "(i32.const 3)".to_owned(),
                "i32" => format!("(i32.const {})", WORDS[numbers.below(WORDS.len())]),
                _ => format!("(i64.const {})", LONG[numbers.below(LONG.len())]),
            };
            let arguments: Vec<_> = types.iter().enumerate().map(argument).collect();
            writeln!(body, "(drop (call ${name} {}))", arguments.join(" ")).expect("text");
        }
    }
    body.push_str("(call $proc_exit (i32.const 42))");
    let imports: Vec<_> = imports.iter().map(|(name, ty)| (name.as_str(), ty.as_str())).collect();
    let outcome = run(&command(&imports, &body), "input");
    assert_eq!(outcome.code, 42, "{}", outcome.err);
}

#[test]
fn more_than_anybody_needs_is_refused() {
    let write = ("fd_write", "(param i32 i32 i32 i32) (result i32)");
    let poll = ("poll_oneoff", "(param i32 i32 i32 i32) (result i32)");
    let readdir = ("fd_readdir", "(param i32 i32 i32 i64 i32) (result i32)");
    let random = ("random_get", "(param i32 i32) (result i32)");
    let big = |import, call: &str| {
        // A gigabyte of memory, so that it is not the pointers that are wrong.
        let body = format!(
            "(if (i32.lt_s (memory.grow (i32.const 16384)) (i32.const 0)) (then unreachable))
             (call $proc_exit (call ${call}))"
        );
        run(&command(&[import, EXIT], &body), "").code
    };
    assert_eq!(big(write, "fd_write (i32.const 1) (i32.const 64) (i32.const 1000000) (i32.const 0)"), 28);
    assert_eq!(big(write, "fd_write (i32.const 1) (i32.const 64) (i32.const 1024) (i32.const 0)"), 0);
    assert_eq!(
        big(poll, "poll_oneoff (i32.const 64) (i32.const 80000000) (i32.const 1000000) (i32.const 0)"),
        28
    );
    assert_eq!(
        big(poll, "poll_oneoff (i32.const 64) (i32.const 80000000) (i32.const 65536) (i32.const 0)"),
        0
    );
    let whole = "fd_readdir (i32.const 3) (i32.const 64) (i32.const 1000000000) (i64.const 0) (i32.const 0)";
    assert_eq!(big(readdir, whole), 0);
    assert_eq!(big(random, "random_get (i32.const 64) (i32.const 100000000)"), 0);
}

#[test]
fn floods_and_growth_end() {
    let close = ("fd_close", "(param i32) (result i32)");
    let flood = "(local $n i32)
        (loop $more (drop (call $fd_close (local.get $n)))
            (br_if $more (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000000))))
        (call $proc_exit (i32.const 9))";
    assert_eq!(run(&command(&[close, EXIT], flood), "").code, 9);
    // Memory and tables to where nobody gives any more.
    let growth = r#"(module (memory (export "memory") 1) (table $t 1 funcref)
        (func (export "_start")
            (loop $more (br_if $more (i32.ne (memory.grow (i32.const 4096)) (i32.const -1))))
            (loop $more (br_if $more
                (i32.and (i32.ne (table.grow $t (ref.null func) (i32.const 65536)) (i32.const -1))
                         (i32.lt_u (table.size $t) (i32.const 4000000)))))))"#;
    assert_eq!(run(growth, "").code, 0);
    let recursion = r#"(module (memory (export "memory") 1)
        (func $f (param i64 i64) (result i64)
            (i64.add (local.get 0) (call $f (local.get 1) (local.get 0))))
        (func (export "_start") (drop (call $f (i64.const 1) (i64.const 2)))))"#;
    let outcome = run(recursion, "");
    assert!(outcome.code == 134 && outcome.err.contains("call stack exhausted"), "{outcome:?}");
}

#[test]
fn a_module_of_the_older_version() {
    let text = r#"(module
        (import "wasi_unstable" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "fd_write" (func $again (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "path_open"
            (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
        (import "wasi_unstable" "fd_seek" (func $seek (param i32 i64 i32 i32) (result i32)))
        (import "wasi_unstable" "fd_filestat_get" (func $stat (param i32 i32) (result i32)))
        (import "wasi_unstable" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
        (import "wasi_unstable" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1) (data (i32.const 0) "f") (data (i32.const 16) "hello")
        (func $must (param i32 i32) (if (i32.ne (local.get 0) (local.get 1)) (then (call $exit (i32.const 1)))))
        (func (export "_start")
            (i32.store (i32.const 32) (i32.const 16)) (i32.store (i32.const 36) (i32.const 5))
            (call $must (i32.const 0) (call $open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 1)
                (i64.const 0x42) (i64.const 0) (i32.const 0) (i32.const 8)))
            (call $must (i32.const 0) (call $write (i32.load (i32.const 8)) (i32.const 32) (i32.const 1) (i32.const 40)))
            ;; 1 was the end, and the size lay eight bytes earlier.
            (call $must (i32.const 0) (call $seek (i32.load (i32.const 8)) (i64.const -2) (i32.const 1) (i32.const 48)))
            (call $must (i32.const 3) (i32.load (i32.const 48)))
            (i64.store (i32.const 120) (i64.const 77))
            (call $must (i32.const 0) (call $stat (i32.load (i32.const 8)) (i32.const 64)))
            (call $must (i32.const 1) (i32.load (i32.const 84)))
            (call $must (i32.const 5) (i32.load (i32.const 88)))
            (call $must (i32.const 77) (i32.load (i32.const 120)))
            ;; A millisecond, behind an identifier.
            (i64.store (i32.const 200) (i64.const 5)) (i64.store (i32.const 216) (i64.const 99999999999999))
            (i32.store (i32.const 224) (i32.const 1)) (i64.store (i32.const 232) (i64.const 1000000))
            (call $must (i32.const 0) (call $poll (i32.const 200) (i32.const 300) (i32.const 1) (i32.const 400)))
            (call $must (i32.const 5) (i32.load (i32.const 300)))
            (call $must (i32.const 0) (call $again (i32.const 1) (i32.const 32) (i32.const 1) (i32.const 40)))))"#;
    let outcome = run(text, "");
    assert_eq!((outcome.code, outcome.out.as_str()), (0, "hello"), "{}", outcome.err);
    let text = r#"(module (import "wasi_unstable" "sock_accept" (func)) (func (export "_start")))"#;
    let temp = tempfile::tempdir().expect("a directory");
    let error = super::create(temp.path(), text, super::nothing()).expect_err("it had none").to_string();
    assert!(error.contains("wasi_unstable.sock_accept"), "{error}");
}
