//! One program in each language that compiles to WebAssembly, from an image, as its author would run it.

use serde_json::{Value, json};

use crate::support::{Host, Image, Tree, digest_of, guest, native, source};

/// An installation with `app:1`: the guest, and two files in /data.
fn host(name: &str) -> Host {
    let files = Tree::new()
        .dir("data", 0o755)
        .file("data/sales.csv", 0o644, "item,price,count\nnail,0.5,100\nhammer,12,3\n")
        .dir("data/sub", 0o755)
        .file("data/sub/text", 0o644, "to be or not to be\n")
        .dir("work", 0o755);
    let program = Tree::new().file("app.wasm", 0o644, guest(name));
    Host::with(&[("app:1", Image::wasm().layer(files).layer(program).entrypoint(&["/app.wasm"]))])
}

fn sum(text: &str) -> String {
    digest_of(text.as_bytes()).trim_start_matches("sha256:").to_owned()
}

const SALES: &str = "item,price,count\nnail,0.5,100\nhammer,12,3\n";
const TEXT: &str = "to be or not to be\n";

#[test]
fn cpp() {
    let host = host("count.wasm");
    let run = |args: &[&str]| host.dhow(["run", "--rm", "-i", "app:1"]).args(args);
    assert_eq!(run(&["2"]).stdin(TEXT).ok(), "      2 be\n      2 to\n");
    let long: String = (0..20_000).map(|n| format!("w{} ", n % 500)).collect();
    let counted = run(&["1000"]).stdin(long).ok();
    assert_eq!(counted.lines().count(), 500);
    assert!(counted.starts_with("     40 w0\n"), "{counted}");
    assert_eq!(run(&[]).stdin("").fails(1).stdout, "");
    assert_eq!(run(&["x"]).fails(2).stderr, "count: x is no number\n");
}

#[test]
fn rust_works_on_many_files() {
    let host = host("files.wasm");
    let expected = "made 1000, listed 1000\nread 35544 bytes\nleft 1000, moved 333, copied 333\nkept 500\n";
    assert_eq!(host.dhow(["run", "--rm", "app:1", "/work/deep/er", "1000"]).ok(), expected);
    // The same in a folder of the host, where everybody sees what came of it.
    let volume = format!("{}:/files", host.text("files"));
    assert_eq!(host.dhow(["run", "--rm", "-v", &volume, "app:1", "/files", "1000"]).ok(), expected);
    let kept = fs_err::read_dir(host.path("files")).unwrap().flat_map(|entry| {
        fs_err::read_dir(entry.unwrap().path()).unwrap().map(|entry| entry.unwrap().file_name())
    });
    assert_eq!(kept.count(), 500);
    assert!(
        host.dhow(["run", "--rm", "--read-only", "app:1", "/work", "1"]).fails(1).stderr.contains("files: ")
    );
}

#[test]
fn go() {
    let host = host("go.wasm");
    let listed = format!("{}  /data/sales.csv\n{}  /data/sub/text\n", sum(SALES), sum(TEXT));
    let run = host.dhow(["run", "--rm", "app:1", "/data"]).outcome();
    assert_eq!(
        (run.code, run.stdout.as_str(), run.stderr.as_str()),
        (0, listed.as_str(), "hello from Go: wasip1/wasm\n")
    );
    let out = format!("{}:/out", host.text("out"));
    let run =
        host.dhow(["run", "--rm", "-v", &out, "app:1", "-w", "/out/sums", "/data", "/nowhere"]).fails(1);
    assert!(run.stderr.contains("/nowhere"), "{run:#?}");
    assert_eq!(fs_err::read_to_string(host.path("out/sums")).unwrap(), listed);
    assert!(
        host.dhow(["run", "--rm", "app:1", "-x"]).fails(2).stderr.contains("flag provided but not defined")
    );
}

#[test]
fn python() {
    let host = host("python.wasm");
    let out = format!("{}:/out", host.text("out"));
    let run = host.dhow([
        "run",
        "--rm",
        "-v",
        &out,
        "-e",
        "GREETING=salut",
        "app:1",
        "--out",
        "/out/table",
        "/data",
    ]);
    assert_eq!(run.patiently().ok(), "salut from Python\n");
    let table: Value = serde_json::from_slice(&fs_err::read(host.path("out/table")).unwrap()).unwrap();
    let expected = json!({
        "/data/sales.csv": { "size": SALES.len(), "sha256": sum(SALES) },
        "/data/sub/text": { "size": TEXT.len(), "sha256": sum(TEXT) },
    });
    assert_eq!(table, expected);
    let run = host.dhow(["run", "--rm", "app:1", "/nowhere"]).fails(1);
    assert_eq!(run.stdout, "hello from Python\n");
    assert!(run.stderr.contains("/nowhere: no such folder"), "{run:#?}");
    assert!(host.dhow(["run", "--rm", "app:1"]).fails(1).stderr.contains("usage: tool"));
}

#[test]
fn javascript() {
    let host = host("js.wasm");
    let out = format!("{}:/out", host.text("out"));
    let run = host.dhow(["run", "--rm", "-v", &out, "app:1", "/data/sales.csv", "count", "/out/sum.json"]);
    assert_eq!(run.patiently().ok(), "hello from JavaScript\n");
    let written = fs_err::read_to_string(host.path("out/sum.json")).unwrap();
    assert_eq!(written, "{\"column\":\"count\",\"rows\":2,\"sum\":103}\n");
    let run = host.dhow(["run", "--rm", "app:1", "/data/sales.csv", "none", "/work/x"]).fails(1);
    assert!(run.stderr.contains("/data/sales.csv: no column none"), "{run:#?}");
    let run = host.dhow(["run", "--rm", "app:1", "/no", "none", "/work/x"]).fails(1);
    assert!(run.stderr.contains("/no: no-entry"), "{run:#?}");
}

#[test]
fn a_plugin_in_c() {
    let host = Host::new();
    host.file("plugin.wasm", guest("plugin-c.wasm"));
    let call = host.dhow(["plugin", "call", "./plugin.wasm", "reverse", "[1, 2, 3]"]);
    assert_eq!(call.ok(), "[3, 2, 1]\n");
}

#[test]
fn a_plugin_in_rust() {
    let host = Host::new();
    host.file("plugin.wasm", guest("plugin-rust.wasm"));
    let call = |args: &[&str]| host.dhow([&["plugin", "call", "./plugin.wasm"], args].concat());
    assert_eq!(call(&["reverse", "[1, 2, 3]"]).ok(), "[3, 2, 1]\n");
    assert_eq!(call(&["greet", "Ada"]).ok(), "\"Hello, Ada!\"\n");
    call(&["greet", ""]).rejected(1, "the plugin answers with an error: \"no name\"");
}

#[test]
fn memory_grows_as_far_as_a_module_may() {
    for name in ["grow.wasm", "grow.component.wasm"] {
        let host = host(name);
        assert_eq!(host.dhow(["run", "--rm", "app:1", "100"]).ok(), "has 100 MiB\n");
    }
    let host = Host::with(&[(
        "app:1",
        Image::native().layer(Tree::new().file("app", 0o755, native("grow"))).entrypoint(&["/app"]),
    )]);
    assert_eq!(host.dhow(["run", "--rm", "--network", "none", "app:1", "100"]).ok(), "has 100 MiB\n");
}

#[test]
fn a_loop_without_end_is_ended() {
    let host = Host::new();
    let module = wat::parse_file(source("loop.wat")).unwrap();
    let image = Image::wasm().layer(Tree::new().file("app.wasm", 0o644, module)).entrypoint(&["/app.wasm"]);
    host.load(&[("app:1", image)]);
    let mut running = host.dhow(["run", "--name", "busy", "app:1"]).spawn();
    running.until("ready\n");
    assert_eq!(host.dhow(["rm", "-f", "busy"]).ok(), "busy\n");
    assert_eq!(running.outcome().code, 137);
}
