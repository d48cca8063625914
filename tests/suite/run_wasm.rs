//! `dhow run FILE`: a bare module, component or text file, no image needed.

use crate::support::{Host, guest, letters, source};

/// The two forms of the same program: a WASI 0.1 module and a WASI 0.2 component.
const PROBES: [&str; 2] = ["probe.wasm", "probe.component.wasm"];

/// A host whose own folder holds the probe under its name.
fn host(name: &str) -> Host {
    let host = Host::new();
    host.file(name, guest(name));
    host
}

#[test]
fn a_module_a_component_and_text_run_without_an_image() {
    let host = Host::new();
    for name in ["hello.wasm", "hello.component.wasm"] {
        host.file(name, guest(name));
        assert_eq!(host.dhow(["run", &format!("./{name}"), "world"]).ok(), "hello from Wasm: world\n");
    }
    for (name, line) in [("hello.wat", "hello from text\n"), ("component.wat", "hello from a component\n")] {
        host.file(name, fs_err::read(source(name)).unwrap());
        assert_eq!(host.dhow(["run", "--rm", &format!("./{name}")]).ok(), line);
        assert_eq!(host.dhow(["run", "--rm", &host.text(name)]).ok(), line, "by its absolute path");
    }
    assert_eq!(host.dhow(["ps", "-aq"]).ok().lines().count(), 2, "without --rm a container stays");
}

#[test]
fn a_rust_program_with_its_standard_library_runs() {
    let host = host("rust.wasm");
    let file = host.file("data/text", "from the host\n");
    let data = format!("{}:/data:ro", host.text("data"));
    let run = host.dhow([
        "run",
        "--rm",
        "-v",
        &data,
        "-e",
        "FILE=/data/text",
        "-e",
        "EXIT=9",
        "./rust.wasm",
        "ab",
        "a",
    ]);
    let outcome = run.fails(9);
    assert_eq!(
        outcome.lines(),
        ["hello from Rust: ab a", "letters: {'a': 2, 'b': 1}", "file: from the host"],
        "{file}: {outcome:#?}"
    );
}

#[test]
fn arguments_arrive_as_they_are() {
    for name in PROBES {
        let host = host(name);
        let args = ["", " two words ", "-e", "--rm", "ünïcode", "$HOME", "*"];
        let run = host.dhow(["run", "--rm", &format!("./{name}"), "args"]).args(args);
        assert_eq!(run.ok().lines().collect::<Vec<_>>(), args, "{name}");
    }
}

#[test]
fn environment_is_what_was_asked_for() {
    for name in PROBES {
        let host = host(name);
        let file = host.file("env", "# a comment\nFROM_FILE=yes\nHOST_ONE\n");
        let path = format!("./{name}");
        let probe = ["env", "K", "env", "EMPTY", "env", "HOST_ONE", "env", "FROM_FILE", "env", "SECRET"];
        let run = host
            .dhow([
                "run",
                "--rm",
                "-e",
                "K=V=W",
                "--env",
                "EMPTY=",
                "-e",
                "HOST_ONE",
                "-e",
                "HOST_TWO",
                "--env-file",
                &file,
            ])
            .args([&path])
            .args(probe)
            .env("HOST_ONE", "1")
            .env("SECRET", "the host's own");
        let expected = ["K=V=W", "EMPTY=", "HOST_ONE=1", "FROM_FILE=yes", "SECRET is not set"];
        assert_eq!(run.ok().lines().collect::<Vec<_>>(), expected, "{name}");
        // Who names a variable without having it takes it away.
        let given = ["run", "--rm", "-e", "HOSTNAME", "-e", "HOME", &path, "env", "HOSTNAME", "env", "HOME"];
        let said = host.dhow(given).env("HOME", "/x").ok();
        assert_eq!(said, "HOSTNAME is not set\nHOME=/x\n", "{name}");
    }
}

#[test]
fn standard_input_is_piped_with_i_and_empty_without() {
    for name in PROBES {
        let host = host(name);
        let path = format!("./{name}");
        let big = letters(1_000_000);
        let echoed = host.dhow(["run", "--rm", "-i", &path, "cat"]).stdin(big.clone()).ok();
        assert!(echoed.as_bytes() == big, "{name}: {} of {} bytes", echoed.len(), big.len());
        assert_eq!(host.dhow(["run", "--rm", &path, "cat"]).stdin("not for the guest").ok(), "", "{name}");
    }
}

#[test]
fn output_and_errors_are_separate_streams() {
    for name in PROBES {
        let host = host(name);
        let outcome = host.dhow(["run", "--rm", &format!("./{name}"), "err", "wrong", "cwd"]).outcome();
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, "wrong\n"), "{name}: {outcome:#?}");
        assert_eq!(outcome.stdout, "/\n", "{name}");
    }
}

#[test]
fn a_lot_of_output_arrives_completely() {
    let host = host("probe.wasm");
    let out = host.dhow(["run", "--rm", "./probe.wasm", "flood", "5000000"]).ok();
    assert!(out.len() == 5_000_000 && out.bytes().all(|byte| byte == b'x'), "{} bytes", out.len());
}

#[test]
fn exit_codes_are_the_program_s() {
    let host = host("probe.wasm");
    for code in [0, 1, 7, 125, 126, 127, 200, 255] {
        let outcome = host.dhow(["run", "--rm", "./probe.wasm", "exit", &code.to_string()]).fails(code);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{outcome:#?}");
    }
    host.file("exit.wat", fs_err::read(source("exit.wat")).unwrap());
    host.dhow(["run", "--rm", "./exit.wat"]).fails(7);
    // A command component's result is ok or not ok, so every failure of the program is 1.
    host.file("probe.component.wasm", guest("probe.component.wasm"));
    host.dhow(["run", "--rm", "./probe.component.wasm", "exit", "0"]).fails(0);
    host.dhow(["run", "--rm", "./probe.component.wasm", "exit", "7"]).fails(1);
}

#[test]
fn a_trap_is_an_abort() {
    let host = Host::new();
    host.file("trap.wat", fs_err::read(source("trap.wat")).unwrap());
    host.file("probe.component.wasm", guest("probe.component.wasm"));
    for args in [&["./trap.wat"][..], &["./probe.component.wasm", "trap"]] {
        let outcome = host.dhow(["run", "--rm"]).args(args).fails(134);
        assert!(outcome.stderr.contains("unreachable"), "{outcome:#?}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
    }
}

#[test]
fn a_bare_module_sees_nothing_of_the_host() {
    for name in PROBES {
        let host = host(name);
        let path = format!("./{name}");
        for outside in ["/etc/passwd", "../etc/passwd", "/proc/self/status", host.text(name).as_str()] {
            let outcome = host.dhow(["run", "--rm", &path, "exists", outside]).outcome();
            assert_eq!(outcome.stdout, format!("{outside} does not exist\n"), "{name}: {outcome:#?}");
        }
        let outcome = host.dhow(["run", "--rm", &path, "environ"]).env("SECRET", "s").outcome();
        assert!(!outcome.stdout.contains("SECRET"), "{outcome:#?}");
    }
}

#[test]
fn it_has_a_file_system_of_its_own() {
    for name in PROBES {
        let host = host(name);
        let path = format!("./{name}");
        let out = host
            .dhow(["run", "--rm", &path, "mkdir", "/d", "write", "/d/f", "text", "read", "/d/f", "ls", "/d"])
            .ok();
        assert_eq!(out, "text\nf\n", "{name}");
        assert_eq!(host.dhow(["run", "--rm", &path, "exists", "/d"]).ok(), "/d does not exist\n", "{name}");
    }
}

#[test]
fn compiled_code_is_kept_and_found_again() {
    let host = host("probe.wasm");
    let compiled = || {
        let mut found = Vec::new();
        for engine in fs_err::read_dir(host.root().join("aot")).into_iter().flatten() {
            let engine = engine.unwrap().path();
            if engine.is_dir() {
                found.extend(fs_err::read_dir(engine).unwrap().map(|entry| {
                    let entry = entry.unwrap();
                    (entry.path(), entry.metadata().unwrap().modified().unwrap())
                }));
            }
        }
        found.sort();
        found
    };
    host.dhow(["run", "--rm", "./probe.wasm", "cwd"]).ok();
    let first = compiled();
    assert!(!first.is_empty(), "nothing is kept");
    host.dhow(["run", "--rm", "./probe.wasm", "cwd"]).ok();
    assert_eq!(compiled(), first, "the second run compiled again");

    // Code that was damaged, or put there by somebody else, is not run: it is made again.
    for (path, _) in &first {
        if path.is_file() {
            let length = fs_err::metadata(path).unwrap().len();
            let file = fs_err::OpenOptions::new().write(true).open(path).unwrap();
            file.set_len(length / 2).unwrap();
        }
    }
    assert_eq!(host.dhow(["run", "--rm", "./probe.wasm", "cwd"]).ok(), "/\n");
}
