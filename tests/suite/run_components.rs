//! Components: of WASI 0.3, of several parts, and what is said of those that cannot run.

use serde_json::{Value, json};

use crate::support::{Host, Image, Layout, Tree, guest, source};

/// A command that ends with the code that `app:sums/answer` gives.
const PROGRAM: &str = r#"(component
    (import "app:sums/answer@1.0.0" (instance $sums (export "f" (func (result u32)))))
    (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
    (core func $f (canon lower (func $sums "f")))
    (core module $m
        (import "sums" "f" (func $f (result i32)))
        (func (export "run") (result i32) (i32.ne (call $f) (i32.const 42))))
    (core instance $i (instantiate $m (with "sums" (instance (export "f" (func $f))))))
    (func $run (result (result)) (canon lift (core func $i "run")))
    (instance $command (export "run" (func $run)))
    (export "wasi:cli/run@0.2.0" (instance $command)))"#;

/// A component that exports an interface with a function `f` that gives a number.
fn answer(interface: &str, number: u32) -> Vec<u8> {
    binary(&format!(
        r#"(component
            (core module $m (func (export "f") (result i32) (i32.const {number})))
            (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i "f")))
            (instance $e (export "f" (func $f)))
            (export "{interface}" (instance $e)))"#
    ))
}

fn binary(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("text")
}

/// A host with the artifact `artifact:1` of these Wasm layers.
fn artifact(layers: &[Vec<u8>]) -> Host {
    let layout = Layout::new();
    let layers: Vec<Value> = layers.iter().map(|layer| layout.blob("application/wasm", layer)).collect();
    let digests: Vec<&Value> = layers.iter().map(|layer| &layer["digest"]).collect();
    let config = json!({ "architecture": "wasm", "os": "wasip2", "layerDigests": digests });
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": layout.json("application/vnd.wasm.config.v0+json", &config),
        "layers": layers,
    });
    layout.tag(&layout.json("application/vnd.oci.image.manifest.v1+json", &manifest), "artifact:1");
    let host = Host::new();
    layout.archive(&host.path("a.tar"));
    host.dhow(["load", "-q", "-i", "a.tar"]).ok();
    host
}

#[test]
fn a_program_of_wasi_0_3_runs() {
    let host = Host::new();
    host.file("async.wat", fs_err::read(source("async.wat")).unwrap());
    for _ in ["compiled", "from the cache"] {
        assert_eq!(host.dhow(["run", "--rm", "./async.wat"]).ok(), "hello from the future\n");
    }
    let run = host.dhow(["run", "--rm", "./async.wat", "argument"]).fails(1);
    assert_eq!(run.stdout, "hello from the future\n");
}

#[test]
fn the_layers_of_an_artifact_are_linked() {
    let right = answer("app:sums/answer@1.2.0", 42);
    let host = artifact(&[binary(PROGRAM), answer("app:other/thing@1.0.0", 7), right]);
    for _ in ["linked", "from the cache"] {
        host.dhow(["run", "--rm", "artifact:1"]).ok();
    }
    let wrong = answer("app:sums/answer@1.0.0", 41);
    artifact(&[binary(PROGRAM), wrong]).dhow(["run", "--rm", "artifact:1"]).fails(1);
}

#[test]
fn what_cannot_be_linked_is_said_before_anything_runs() {
    let host = artifact(&[binary(PROGRAM), answer("app:sums/answer@2.0.0", 42)]);
    let outcome = host.dhow(["run", "--rm", "artifact:1"]).fails(126);
    for words in ["imports app:sums/answer@1.0.0", "exports app:sums/answer@2.0.0"] {
        assert!(outcome.stderr.contains(words), "{outcome:#?}");
    }
    let host = artifact(&[binary(PROGRAM), guest("hello.wasm")]);
    host.dhow(["run", "--rm", "artifact:1"]).refused(126, "only components can be linked");
}

#[test]
fn a_label_names_components_within_the_image() {
    let image = |label: &str| {
        Image::wasm()
            .layer(Tree::new().file("app.wasm", 0o644, binary(PROGRAM)))
            .layer(Tree::new().dir("lib", 0o755).file(
                "lib/sums.wasm",
                0o644,
                answer("app:sums/answer@1.0.0", 42),
            ))
            .entrypoint(&["/app.wasm"])
            .config("Labels", json!({ "dev.dhow.wasm.components": label }))
    };
    let host = Host::with(&[("app:1", image("/lib/sums.wasm")), ("app:2", image("/lib/none.wasm"))]);
    for _ in ["linked", "from the cache"] {
        host.dhow(["run", "--rm", "app:1"]).ok();
    }
    host.dhow(["run", "--rm", "app:2"]).refused(127, "/lib/none.wasm");
    // The user's word is the last.
    let label = "dev.dhow.wasm.components=/lib/sums.wasm";
    host.dhow(["run", "--rm", "--label", label, "app:2"]).ok();
}

#[test]
fn what_a_program_asks_for_is_shown() {
    let image = |name: &str| {
        Image::wasm().layer(Tree::new().file("app.wasm", 0o644, guest(name))).entrypoint(&["app.wasm"])
    };
    let host = Host::with(&[("c:1", image("hello.component.wasm")), ("m:1", image("hello.wasm"))]);
    let grants = "{{range .Wasm.Imports}}{{.Name}} {{.Grant}}\n{{end}}";
    let component = host.dhow(["image", "inspect", "-f", grants, "c:1"]).ok();
    assert!(component.contains("wasi:cli/stdout@0.2.") && component.contains(" granted\n"), "{component}");
    let module = host.dhow(["inspect", "-f", grants, "m:1"]).ok();
    assert!(module.contains("wasi_snapshot_preview1.fd_write granted\n"), "{module}");
    let form = "{{.Wasm.Form}} {{.Wasm.Exports}}";
    assert!(host.dhow(["inspect", "-f", form, "c:1"]).ok().starts_with("component [wasi:cli/run@0.2."));

    let sockets = binary(r#"(component (import "wasi:sockets/tcp@0.2.6" (instance)))"#);
    let denied = "{{range .Wasm.Imports}}{{.Name}}: {{.Grant}}; {{.By}}{{end}}";
    assert_eq!(
        artifact(&[sockets]).dhow(["image", "inspect", "-f", denied, "artifact:1"]).ok(),
        "wasi:sockets/tcp@0.2.6: denied; --network host, -p or --allow-net\n"
    );
    let damaged = artifact(&[b"\0asm\x0d\0\x01\0\x7f".to_vec()]);
    let shown = damaged.dhow(["image", "inspect", "-f", "{{.Wasm.Error}}", "artifact:1"]).ok();
    assert!(shown.contains("blobs/sha256/"), "{shown}");
}

#[test]
fn unmet_imports_are_named_before_the_start() {
    let host = Host::new();
    for (name, text, words) in [
        ("module.wat", r#"(module (import "env" "magic" (func)) (func (export "_start")))"#, "env.magic"),
        (
            "one.wat",
            r#"(component (import "app:thing/x@1.0.0" (instance (export "f" (func)))))"#,
            "app:thing/x@1.0.0",
        ),
        (
            "draft.wat",
            r#"(component (import "wasi:cli/exit@0.3.0-rc-2025-09-16" (instance (export "f" (func)))))"#,
            "draft",
        ),
        (
            "library.wat",
            r#"(component (core module $m) (export "app:thing/m" (core module $m)))"#,
            "app:thing/m",
        ),
    ] {
        host.file(name, text);
        let outcome = host.dhow(["run", "--rm", &format!("./{name}")]).fails(126);
        assert!(outcome.stderr.contains(words), "{name}: {outcome:#?}");
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn a_component_s_trap_has_a_stack_and_a_code() {
    let host = Host::new();
    for (version, form) in
        [("0.2.0", "(func $run (result (result))"), ("0.3.0", "(func $run async (result (result))")]
    {
        host.file(
            "trap.wat",
            format!(
                r#"(component
                    (core module $m (func $inner unreachable) (func $outer (export "run") (result i32) call $inner i32.const 0))
                    (core instance $i (instantiate $m))
                    {form} (canon lift (core func $i "run")))
                    (instance $c (export "run" (func $run)))
                    (export "wasi:cli/run@{version}" (instance $c)))"#
            ),
        );
        let outcome = host.dhow(["run", "--rm", "./trap.wat"]).fails(134);
        for words in ["!inner", "!outer", "unreachable"] {
            assert!(outcome.stderr.contains(words), "{version}: {outcome:#?}");
        }
    }
}

/// One of a service's functions is called like any component's, under limits too.
#[test]
fn a_function_of_a_service_is_called() {
    let host = Host::new();
    let text = r#"(component
        (core module $m (func (export "add") (param i32 i32) (result i32)
            (i32.add (local.get 0) (local.get 1))))
        (core instance $i (instantiate $m))
        (func $add (param "a" s32) (param "b" s32) (result s32) (canon lift (core func $i "add")))
        (instance $handler (export "handle" (func $add)))
        (export "add" (func $add))
        (export "wasi:http/incoming-handler@0.2.0" (instance $handler)))"#;
    host.file("sums.wat", text.as_bytes());
    for limits in [&[][..], &["--fuel", "100000"], &["--timeout", "1m"]] {
        // Compiled, then from the cache.
        for _ in 0..2 {
            let words = ["run", "--rm"].into_iter().chain(limits.iter().copied());
            let run = words.chain(["--invoke", "add", "./sums.wat", "2", "3"]);
            assert_eq!(host.dhow(run).ok(), "5\n", "{limits:?}");
        }
    }
}
