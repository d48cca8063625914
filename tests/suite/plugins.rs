//! Plugins by the command: from files and from images, with what they are granted, and what is said when they fail.

use crate::support::{Host, Image, Tree};

/// Adds, greets, fails, loops, and asks for a random number.
const PLUGIN: &str = r#"(component
    (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
    (core func $get (canon lower (func $random "get-random-u64")))
    (core module $m
        (import "h" "get" (func $get (result i64)))
        (memory (export "memory") 1)
        (data (i32.const 0) "hello")
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "greet") (result i32)
            (i32.store (i32.const 8) (i32.const 0)) (i32.store (i32.const 12) (i32.const 5)) (i32.const 8))
        (func $fail (export "fail") unreachable)
        (func (export "loop") (loop $again (br $again)))
        (func (export "roll") (result i64) (call $get)))
    (core instance $h (export "get" (func $get)))
    (core instance $i (instantiate $m (with "h" (instance $h))))
    (alias core export $i "memory" (core memory $memory))
    (func $add (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
    (instance $sums (export "add" (func $add)))
    (export "acme:math/sums@1.0.0" (instance $sums))
    (func (export "greet") (result string) (canon lift (core func $i "greet") (memory $memory)))
    (func (export "fail") (canon lift (core func $i "fail")))
    (func (export "loop") (canon lift (core func $i "loop")))
    (func (export "roll") (result u64) (canon lift (core func $i "roll"))))"#;

#[test]
fn functions_of_files_and_images_are_called() {
    let code = wat::parse_str(PLUGIN).unwrap();
    let image = Image::wasm().layer(Tree::new().file("p.wasm", 0o644, code.clone())).entrypoint(&["/p.wasm"]);
    let host = Host::with(&[("acme/plugin:1", image)]);
    host.file("p.wasm", code);
    host.file("p.wat", PLUGIN);
    for plugin in ["./p.wasm", "./p.wat", "acme/plugin:1"] {
        let call = |args: &[&str]| host.dhow([&["plugin", "call", plugin], args].concat());
        assert_eq!(call(&["add", "2", "40"]).ok(), "42\n", "{plugin}");
        assert_eq!(call(&["acme:math/sums@1.0.0#add", "1", "1"]).ok(), "2\n");
        assert_eq!(call(&["greet"]).ok(), "\"hello\"\n");
    }
    let told = host.dhow(["plugin", "inspect", "acme/plugin:1"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let functions = told[0]["Functions"].as_array().unwrap();
    let add = serde_json::json!({ "Name": "acme:math/sums@1.0.0#add", "Type": "func(u32, u32) -> u32" });
    assert!(functions.contains(&add), "{told}");
}

#[test]
fn what_goes_wrong_is_said() {
    let host = Host::new();
    host.file("p.wat", PLUGIN);
    host.file("module.wat", "(module)");
    host.file("module.wasm", b"\0asm\x01\0\0\0");
    let call = |args: &[&str]| {
        let outcome = host.dhow([&["plugin", "call", "--timeout", "100ms"], args].concat()).outcome();
        assert_eq!(outcome.code, 1, "{args:?}");
        outcome.stderr
    };
    for (args, said) in [
        (&["./p.wat", "sub"][..], "there are acme:math/sums@1.0.0#add, greet"),
        (&["./p.wat", "add", "2"], "expected func(u32, u32) -> u32"),
        (&["./p.wat", "add", "2", "x"], "expected func(u32, u32) -> u32"),
        (&["./p.wat", "fail"], "!fail@0x"),
        (&["./p.wat", "loop"], "no answer within 100ms"),
        (&["--fuel", "1000", "./p.wat", "loop"], "more instructions needed than 1000"),
        (&["./p.wat", "roll"], "hint: grant it with `--random`"),
        (&["./module.wat", "f"], "the text of a core module"),
        (&["./module.wasm", "f"], "exports `memory` and `cabi_realloc`"),
        (&["./none.wasm", "f"], "none.wasm"),
        (&["acme/none", "f"], "acme/none"),
    ] {
        let stderr = call(args);
        assert!(stderr.contains(said) && stderr.starts_with("error: "), "{args:?}: {stderr}");
    }
    assert_ne!(host.dhow(["plugin", "call", "--random", "./p.wat", "roll"]).ok(), "");
}

#[test]
#[cfg(target_os = "linux")]
fn plugins_that_run_answer_by_their_name() {
    let host = Host::new();
    host.file("p.wat", PLUGIN);
    assert_eq!(host.dhow(["plugin", "run", "-d", "--name", "math", "./p.wat"]).ok(), "math\n");
    let call = |args: &[&str]| host.dhow([&["plugin", "call"], args].concat());
    assert_eq!(call(&["math", "add", "2", "40"]).ok(), "42\n");
    assert_eq!(call(&["--json", "math", "greet"]).ok(), "\"hello\"\n");
    call(&["math", "fail"]).fails(1);
    let late = call(&["--timeout", "100ms", "math", "loop"]).outcome();
    assert!(late.code == 1 && late.stderr.contains("no answer within 100ms"), "{late:?}");
    let wrong = call(&["math", "sub"]).outcome();
    assert!(wrong.code == 1 && wrong.stderr.contains("hint: `dhow plugin inspect`"), "{wrong:?}");
    call(&["--random", "math", "roll"]).rejected(1, "runs already");
    call(&["math", "roll"]).rejected(1, "wasi:random/random");
    let list = host.dhow(["plugin", "ls"]).ok();
    assert!(list.starts_with("NAME") && list.contains("./p.wat") && list.contains("Up "), "{list}");
    assert_eq!(host.dhow(["plugin", "ls", "--format", "{{.Name}} {{.Reference}}"]).ok(), "math ./p.wat\n");
    let told = host.dhow(["plugin", "inspect", "math"]).ok();
    assert!(told.contains("func(u32, u32) -> u32") && told.contains("\"Pid\""), "{told}");
    let counted =
        ["plugin", "stats", "--format", "{{.Name}} {{.Calls}} {{.Traps}} {{.Deadlines}} {{.Refused}}"];
    assert_eq!(host.dhow(counted).ok(), "math 5 1 1 0\n");
    assert_eq!(host.dhow(["plugin", "logs", "math"]).ok(), "");
    let again = host.dhow(["plugin", "run", "-d", "--name", "math", "./p.wat"]).outcome();
    assert!(again.code == 1 && again.stderr.contains("runs already"), "{again:?}");
    let kept = host.dhow(["plugin", "rm", "math"]).outcome();
    assert!(kept.code == 1 && kept.stderr.contains("runs"), "{kept:?}");
    assert_eq!(host.dhow(["plugin", "rm", "-f", "math"]).ok(), "math\n");
    assert_eq!(host.dhow(["plugin", "ls", "-q"]).ok(), "");
    let broken = host.dhow(["plugin", "run", "-d", "./none.wasm"]).outcome();
    assert!(broken.code == 1 && broken.stderr.contains("none.wasm"), "{broken:?}");
    assert_eq!(host.dhow(["plugin", "ls", "-q"]).ok(), "", "nothing is left of one that did not load");
    assert_eq!(host.dhow(["system", "check"]).outcome().code, 0);
}

/// Reads the file `data/words` of its first directory.
fn reader() -> String {
    let codes = [
        "access",
        "would-block",
        "already",
        "bad-descriptor",
        "busy",
        "deadlock",
        "quota",
        "exist",
        "file-too-large",
        "illegal-byte-sequence",
        "in-progress",
        "interrupted",
        "invalid",
        "io",
        "is-directory",
        "loop",
        "too-many-links",
        "message-size",
        "name-too-long",
        "no-device",
        "no-entry",
        "no-lock",
        "insufficient-memory",
        "insufficient-space",
        "not-directory",
        "not-empty",
        "not-recoverable",
        "unsupported",
        "no-tty",
        "no-such-device",
        "overflow",
        "not-permitted",
        "pipe",
        "read-only",
        "invalid-seek",
        "text-file-busy",
        "cross-device",
    ];
    let codes: String = codes.iter().map(|code| format!("\"{code}\" ")).collect();
    format!(
        r#"(component
    (import "wasi:filesystem/types@0.2.0" (instance $files
        (export "descriptor" (type $d (sub resource)))
        (type $c0 (enum {codes})) (export "error-code" (type $code (eq $c0)))
        (type $p0 (flags "symlink-follow")) (export "path-flags" (type $path (eq $p0)))
        (type $o0 (flags "create" "directory" "exclusive" "truncate")) (export "open-flags" (type $open (eq $o0)))
        (type $f0 (flags "read" "write" "file-integrity-sync" "data-integrity-sync" "requested-write-sync"
            "mutate-directory"))
        (export "descriptor-flags" (type $flags (eq $f0)))
        (export "[method]descriptor.open-at" (func (param "self" (borrow $d)) (param "path-flags" $path)
            (param "path" string) (param "open-flags" $open) (param "flags" $flags)
            (result (result (own $d) (error $code)))))
        (export "[method]descriptor.read" (func (param "self" (borrow $d)) (param "length" u64) (param "offset" u64)
            (result (result (tuple (list u8) bool) (error $code)))))))
    (alias export $files "descriptor" (type $descriptor))
    (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
        (alias outer 1 $descriptor (type $d0)) (export "descriptor" (type $d (eq $d0)))
        (export "get-directories" (func (result (list (tuple (own $d) string)))))))
    (core module $m
        (memory (export "memory") 1)
        (global $next (mut i32) (i32.const 4096))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.add (global.get $next) (local.get 3)))
            (local.get $at)))
    (core instance $mem (instantiate $m))
    (alias core export $mem "memory" (core memory $memory))
    (alias core export $mem "realloc" (core func $realloc))
    (core func $list (canon lower (func $preopens "get-directories") (memory $memory) (realloc $realloc)))
    (core func $open (canon lower (func $files "[method]descriptor.open-at") (memory $memory)))
    (core func $read (canon lower (func $files "[method]descriptor.read") (memory $memory) (realloc $realloc)))
    (core module $c
        (import "h" "memory" (memory 1))
        (import "h" "list" (func $list (param i32)))
        (import "h" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
        (import "h" "read" (func $read (param i32 i64 i64 i32)))
        (data (i32.const 64) "data/words")
        (func (export "words") (param $write i32) (result i32)
            (call $list (i32.const 8))
            (if (i32.eqz (i32.load (i32.const 12))) (then (return (call $failed (i32.const 254)))))
            (call $open (i32.load (i32.load (i32.const 8))) (i32.const 0) (i32.const 64) (i32.const 10)
                (local.get $write) (i32.add (local.get $write) (i32.const 1)) (i32.const 16))
            (if (i32.load8_u (i32.const 16)) (then (return (call $failed (i32.load8_u (i32.const 20))))))
            (call $read (i32.load (i32.const 20)) (i64.const 100) (i64.const 0) (i32.const 24))
            (if (i32.load8_u (i32.const 24)) (then (return (call $failed (i32.load8_u (i32.const 28))))))
            (i32.store8 (i32.const 40) (i32.const 0))
            (i32.store (i32.const 44) (i32.load (i32.const 28)))
            (i32.store (i32.const 48) (i32.load (i32.const 32)))
            (i32.const 40))
        (func $failed (param i32) (result i32)
            (i32.store8 (i32.const 40) (i32.const 1)) (i32.store8 (i32.const 44) (local.get 0)) (i32.const 40)))
    (core instance $h (export "memory" (memory $memory)) (export "list" (func $list)) (export "open" (func $open))
        (export "read" (func $read)))
    (core instance $i (instantiate $c (with "h" (instance $h))))
    (func (export "words") (param "create" bool) (result (result string (error u8)))
        (canon lift (core func $i "words") (memory $memory))))"#
    )
}

#[test]
fn images_bring_files_along_and_say_what_they_need() {
    let image = |code: &str, words: &str| {
        let layer = Tree::new().file("p.wasm", 0o644, wat::parse_str(code).unwrap());
        let data = Tree::new().dir("data", 0o755).file("data/words", 0o644, words);
        Image::wasm().layer(layer).layer(data).entrypoint(&["/p.wasm"])
    };
    let asks = |asks: &str| {
        image(PLUGIN, "").config("Labels", serde_json::json!({ "dev.dhow.plugin.requests": asks }))
    };
    let host = Host::with(&[
        ("acme/reader:1", image(&reader(), "one two")),
        ("acme/roller:1", asks(r#"{"random": true}"#)),
        ("acme/calm:1", asks("{}")),
        ("acme/odd:1", asks(r#"{"randmo": true}"#)),
    ]);
    let call = |args: &[&str]| host.dhow([&["plugin", "call"], args].concat());
    assert_eq!(call(&["--json", "acme/reader:1", "words", "[false]"]).ok(), "\"one two\"\n");
    // It is the image's file: nobody writes to it.
    let refused = call(&["--json", "acme/reader:1", "words", "[true]"]).outcome();
    assert!(refused.code == 1 && refused.stderr.contains("answers with an error"), "{}", refused.stderr);
    // Code in a file has no files.
    host.file("reader.wat", reader());
    let nothing = call(&["./reader.wat", "words", "false"]).outcome();
    assert!(nothing.code == 1 && nothing.stderr.contains("254"), "{}", nothing.stderr);

    call(&["--random", "acme/roller:1", "roll"]).ok();
    call(&["acme/roller:1", "roll"]).rejected(1, "wasi:random/random");
    call(&["--random", "acme/calm:1", "roll"]).rejected(1, "wasi:random/random");
    call(&["acme/odd:1", "roll"]).rejected(1, "dev.dhow.plugin.requests: unknown field `randmo`");
    let told = host.dhow(["plugin", "inspect", "acme/roller:1"]).ok();
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told[0]["Requests"], serde_json::json!({ "random": true }));
    for (args, said) in [
        (&["--json", "acme/reader:1", "words", "[1]"][..], "words, create: expected bool, found 1"),
        (&["--json", "acme/reader:1", "words", "[]", "[]"], "one array of all arguments"),
        (&["--json", "acme/reader:1", "words", "{}"], "expected a JSON array"),
    ] {
        call(args).rejected(1, said);
    }
    // A digest that is not there is no other image's.
    let digest = told[0]["Digest"].as_str().unwrap();
    call(&["--random", &format!("acme/roller@{digest}"), "roll"]).ok();
    let other = format!("acme/roller@sha256:{}", "0".repeat(64));
    call(&["--random", &other, "roll"]).rejected(1, &other);
    // Nothing of the store is held when they are gone.
    let check = host.dhow(["system", "check"]).outcome();
    assert!(check.code == 0 && check.stderr == "nothing wrong found\n", "{}", check.stderr);
}

#[test]
fn folders_are_granted_as_far_as_they_are() {
    let host = Host::new();
    host.file("reader.wat", reader());
    host.file("top/data/words", "of the host");
    let top = host.text("top");
    let call = |volume: &str, args: &[&str]| {
        host.dhow([&["plugin", "call", "-v", volume, "./reader.wat"], args].concat())
    };
    for volume in [format!("{top}:/top"), format!("{top}:/top:ro"), "./top:/elsewhere:ro".to_owned()] {
        assert_eq!(call(&volume, &["words", "false"]).ok(), "\"of the host\"\n", "{volume}");
    }
    // What is granted for reading is not written to.
    let refused = call("./top:/top:ro", &["words", "true"]).outcome();
    assert!(refused.code == 1 && refused.stderr.contains("answers with an error"), "{refused:?}");
    assert_eq!(fs_err::read_to_string(host.path("top/data/words")).unwrap(), "of the host");
    for (volume, said) in [
        ("words:/top", "a plugin gets folders"),
        ("./none:/top", "none"),
        ("./top:/top:shared", "neither `ro` nor `rw`"),
        ("./top:top", "top"),
    ] {
        call(volume, &["words", "false"]).rejected(1, said);
    }
    host.check();
}

#[test]
fn what_a_plugin_wants_and_would_get_is_shown() {
    let layer = Tree::new().file("p.wasm", 0o644, wat::parse_str(PLUGIN).unwrap());
    let asks = serde_json::json!({ "dev.dhow.plugin.requests": r#"{"random": true, "env": ["MODE"]}"# });
    let image = Image::wasm().layer(layer).entrypoint(&["/p.wasm"]).config("Labels", asks);
    let host = Host::with(&[("acme/roller:1", image)]);
    let inspect = |args: &[&str]| -> serde_json::Value {
        let told = host.dhow([&["plugin", "inspect"], args].concat()).ok();
        serde_json::from_str::<serde_json::Value>(&told).unwrap()[0].clone()
    };
    let random =
        |provider: &str| serde_json::json!([{ "Name": "wasi:random/random@0.2.0", "Provider": provider }]);
    let told = inspect(&["acme/roller:1"]);
    assert_eq!((&told["Kind"], &told["Imports"]), (&"wasm".into(), &random("denied")));
    assert_eq!(told["Requests"], serde_json::json!({ "random": true, "env": ["MODE"] }));
    let told = inspect(&["--random", "--clocks", "-e", "MODE=1", "-e", "B=2", "acme/roller:1"]);
    assert_eq!(told["Imports"], random("granted"));
    assert_eq!(told["Grants"], serde_json::json!({ "random": true, "env": ["MODE"] }));
    // One whose functions of the host are missing does not load, and is shown all the same.
    host.file("asks.wat", r#"(component (import "acme:host/log" (instance (export "write" (func)))))"#);
    host.dhow(["plugin", "call", "./asks.wat", "f"]).rejected(1, "acme:host/log");
    let told = inspect(&["./asks.wat"]);
    assert_eq!(told["Imports"], serde_json::json!([{ "Name": "acme:host/log", "Provider": "host" }]));
}

#[test]
fn a_policy_of_signatures_holds_for_plugins() {
    let layer = Tree::new().file("p.wasm", 0o644, wat::parse_str(PLUGIN).unwrap());
    let image = Image::wasm().layer(layer).entrypoint(&["/p.wasm"]);
    let host = Host::with(&[("acme/plugin:1", image)]);
    let reject = host.file("reject.json", r#"{ "default": [{ "type": "reject" }] }"#);
    let accept = host.file("accept.json", r#"{ "default": [{ "type": "insecureAcceptAnything" }] }"#);
    for command in [&["plugin", "call"][..], &["plugin", "inspect"], &["plugin", "run"]] {
        let words: &[&str] = if command[1] == "call" { &["add", "1", "1"] } else { &[] };
        let with = |policy: &str| {
            let args = [command, &["--signature-policy", policy, "acme/plugin:1"], words].concat();
            host.dhow(args)
        };
        if command[1] != "run" {
            with(&accept).ok();
        }
        with(&reject).rejected(1, "not trusted");
        with("/nowhere/policy.json").fails(1);
    }
    // So does the one that is configured.
    host.file("config.json", r#"{ "policy": "reject.json" }"#);
    let call = host.dhow(["plugin", "call", "acme/plugin:1", "add", "1", "1"]);
    call.env("DHOW_SETTINGS", host.path("config.json")).rejected(1, "not trusted");
}
