//! Calling single functions, of reactors and of commands.

use std::io::{Read as _, Seek as _};

use super::{Executor, bundle};
use crate::stdio::{Stdio, Stream};

const REACTOR: &str = r#"(module
    (memory (export "memory") 1) (global $ready (mut i32) (i32.const 0))
    (func (export "_initialize") (global.set $ready (i32.const 40)))
    (func (export "ready") (result i32) (global.get $ready))
    (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
    (func (export "swap") (param i64 f64) (result f64 i64) (local.get 1) (local.get 0))
    (func (export "half") (param f32) (result f32) (f32.div (local.get 0) (f32.const 2)))
    (func (export "nothing"))
    (func (export "fails") unreachable)
    (func (export "takes") (param externref)))"#;

/// What `function` with these arguments prints, or why it does not.
fn call(text: &str, function: &str, args: &[&str]) -> Result<(u8, String), String> {
    let temp = tempfile::tempdir().expect("a directory");
    let mut out = tempfile::tempfile().expect("a file");
    let mut bundle = bundle(temp.path(), text, &[&["guest"], args].concat(), "/");
    bundle.wasm.invoke = Some(function.to_owned());
    let stdout = Stream::File(out.try_clone().expect("clone"));
    let stdio = Stdio::Streams { stdin: Stream::Null, stdout, stderr: Stream::Null };
    let mut task = Executor::new(None).create(&bundle, stdio).map_err(|error| error.to_string())?;
    task.start().expect("start");
    let code = task.wait().expect("wait").code();
    let mut text = String::new();
    out.rewind().and_then(|()| out.read_to_string(&mut text)).expect("read");
    Ok((code, text))
}

#[test]
fn results_are_printed_one_a_line() {
    for (function, args, expected) in [
        ("ready", &[][..], "40\n"),
        ("add", &["2", "0x10"], "18\n"),
        ("add", &["-1", "4294967295", "more"], "-2\n"),
        ("swap", &["9223372036854775807", "-1.5e3"], "-1500\n9223372036854775807\n"),
        ("half", &["inf"], "inf\n"),
        ("half", &["0.5"], "0.25\n"),
        ("nothing", &[], ""),
    ] {
        assert_eq!(call(REACTOR, function, args), Ok((0, expected.to_owned())), "{function} {args:?}");
    }
    assert_eq!(call(REACTOR, "fails", &[]), Ok((134, String::new())));
}

#[test]
fn what_cannot_be_called_is_said_before_anything_runs() {
    for (function, args, words) in [
        (
            "sub",
            &["1"][..],
            "cannot call sub: it exports no such function, but _initialize, ready, add, swap",
        ),
        ("memory", &[], "it exports no such function"),
        ("add", &["1"], "too few arguments, it takes (i32, i32)"),
        ("add", &["1", "two"], "\"two\" is no i32"),
        ("add", &["1", "4294967296"], "is no i32"),
        ("half", &["0x1"], "is no f32"),
        ("takes", &["1"], "its (ref null extern) cannot be given"),
    ] {
        let error = call(REACTOR, function, args).expect_err(function);
        assert!(error.contains(words) && error.contains("guest.wat"), "{error}");
    }
}

#[test]
fn a_command_s_other_functions_can_be_called_too() {
    let text = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (func (export "_start") unreachable) (func (export "quit") (param i32) (call $exit (local.get 0))))"#;
    assert_eq!(call(text, "quit", &["7"]), Ok((7, String::new())));
}
