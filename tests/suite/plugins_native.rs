//! Native plugins by the command: the same calls and types as those of Wasm, in a process of their own, which stays or goes; and
//! what is left when somebody kills it.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Host, Image, Tree, busybox, is_root, until};

/// An image of the example `plugin_native`, which asks for what `asks` says.
fn image(asks: Option<&str>, words: &str) -> Image {
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_dhow")).with_file_name("examples/plugin_native");
    let program = fs_err::read(program).expect("the example plugin_native of dhow-runtime");
    let layer =
        Tree::new().file("plugin", 0o755, program).dir("data", 0o755).file("data/words", 0o644, words);
    let image = busybox().layer(layer).entrypoint(&["/plugin"]);
    match asks {
        Some(asks) => image.config("Labels", json!({ "dev.dhow.plugin.requests": asks })),
        None => image,
    }
}

/// Containers are root's here: without it there are no networks to be without.
fn skipped() -> bool {
    if !is_root() {
        println!("skipped: root's");
    }
    !is_root()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn native_plugins_are_called_alike() {
    if skipped() {
        return;
    }
    let host = Host::with(&[("acme/native:1", image(None, "its own"))]);
    let call = |args: &[&str]| host.dhow([&["plugin", "call"], args].concat());
    assert_eq!(call(&["acme/native:1", "add", "2", "40"]).ok(), "42\n");
    assert_eq!(call(&["acme/native:1", "greet", "{name: \"Ada\"}"]).ok(), "\"Hello, Ada!\"\n");
    assert_eq!(
        call(&["--json", "acme/native:1", "greet", "[{\"name\": \"Ada\"}]"]).ok(),
        "\"Hello, Ada!\"\n"
    );
    let look = parsed(&call(&["--json", "acme/native:1", "look"]).ok());
    let nothing = json!({
        "interfaces": 1, "writes": false, "mode": null, "words": "its own", "writes-data": false, "pid": look["pid"],
    });
    assert_eq!(look, nothing);
    for (args, said) in [
        (&["acme/native:1", "greet", "{name: \"\"}"][..], "answers with an error: \"nobody is there\""),
        (&["acme/native:1", "sub"], "there are add, greet"),
        (&["acme/native:1", "add", "2"], "expected func(u32, u32) -> u32"),
        (&["acme/native:1", "add", "2", "x"], "expected func(u32, u32) -> u32"),
        (
            &["--json", "acme/native:1", "greet", "[{\"name\": 7}]"],
            "greet, who.name: expected string, found 7",
        ),
        (&["acme/native:1", "lie"], "lie, its answer: expected u32, found \"text\""),
        (&["acme/native:1", "crash"], "the plugin's process has ended"),
        (&["--timeout", "200ms", "acme/native:1", "sleep"], "no answer within 200ms"),
        (&["--fuel", "5", "acme/native:1", "add", "1", "1"], "counted in WebAssembly only"),
        (&["--allow-net", "a.example", "acme/native:1", "add", "1", "1"], "gets no network"),
    ] {
        let outcome = call(args).outcome();
        assert!(outcome.code == 1 && outcome.stderr.contains(said), "{args:?}: {outcome:?}");
    }
    let crashed = call(&["acme/native:1", "crash"]).outcome();
    assert!(crashed.stderr.contains("about to crash"), "its output is shown: {}", crashed.stderr);
    assert_eq!(host.dhow(["ps", "-aq"]).ok(), "", "its container goes with the call");
    host.check();
}

#[test]
fn native_plugins_get_what_they_ask_for_and_are_granted() {
    if skipped() {
        return;
    }
    let asks = r#"{"env": ["MODE"], "directories": [{"name": "/data", "write": true}]}"#;
    let host = Host::with(&[
        ("acme/asks:1", image(Some(asks), "its own")),
        ("acme/calm:1", image(Some("{}"), "its own")),
        ("acme/odd:1", image(Some("[]"), "")),
    ]);
    host.file("data/words", "the host's");
    let granted = |image: &str, volume: &str| {
        let volume = format!("{}:{volume}", host.text("data"));
        let args = ["plugin", "call", "--json", "-e", "MODE=fast", "-e", "B=2", "-v", &volume, image, "look"];
        parsed(&host.dhow(args).ok())
    };
    let seen = granted("acme/asks:1", "/data:ro");
    assert_eq!((&seen["mode"], &seen["words"]), (&json!("fast"), &json!("the host's")));
    assert_eq!(seen["writes-data"], json!(false), "it was granted for reading");
    assert!(!host.path("data/new").exists());
    assert_eq!(granted("acme/asks:1", "/data")["writes-data"], json!(true));
    assert_eq!(fs_err::read_to_string(host.path("data/new")).unwrap(), "x");
    let calm = granted("acme/calm:1", "/data");
    assert_eq!(
        (&calm["mode"], &calm["words"]),
        (&Value::Null, &json!("its own")),
        "it has asked for nothing"
    );
    host.dhow(["plugin", "call", "acme/odd:1", "add", "1", "1"]).rejected(1, "dev.dhow.plugin.requests");

    let told = host.dhow(["plugin", "inspect", "-e", "MODE=secret", "-e", "B=2", "acme/asks:1"]).ok();
    assert!(!told.contains("secret"), "{told}");
    let told = &parsed(&told)[0];
    assert_eq!((&told["Kind"], &told["Grants"]), (&json!("native"), &json!({ "env": ["MODE"] })));
    assert_eq!(told["Requests"], parsed(asks));
    let greet =
        json!({ "Name": "greet", "Type": "func(who: record {name: string}) -> result<string, string>" });
    assert!(told["Functions"].as_array().unwrap().contains(&greet), "{told}");
    host.check();
}

#[test]
fn native_plugins_stay_and_begin_anew() {
    if skipped() {
        return;
    }
    let host = Host::with(&[("acme/native:1", image(None, "one")), ("acme/native:2", image(None, "two"))]);
    host.dhow(["plugin", "run", "--warm", "2", "acme/native:1"]).rejected(1, "one process for all calls");
    assert_eq!(host.dhow(["plugin", "run", "-d", "--name", "kept", "acme/native:1"]).ok(), "kept\n");
    let call = |args: &[&str]| host.dhow([&["plugin", "call"], args].concat());
    assert_eq!(call(&["kept", "add", "2", "40"]).ok(), "42\n");
    let look = || parsed(&call(&["--json", "kept", "look"]).ok());
    let first = look();
    assert_eq!(look()["pid"], first["pid"], "the same process");
    let listed = host.dhow(["plugin", "ls", "--format", "{{.Name}} {{.Reference}}"]).ok();
    assert_eq!(listed, "kept acme/native:1\n");
    let told = &parsed(&host.dhow(["plugin", "inspect", "kept"]).ok())[0];
    assert!(told["Functions"].as_array().is_some_and(|functions| functions.len() == 6), "{told}");
    assert_eq!(host.dhow(["plugin", "stats", "--format", "{{.Name}} {{.Calls}}"]).ok(), "kept 3\n");
    // Its end is one call's, and the next one finds another process.
    call(&["kept", "crash"]).rejected(1, "the plugin's process has ended");
    assert_eq!(call(&["kept", "add", "1", "1"]).ok(), "2\n");
    let log = host.dhow(["plugin", "logs", "kept"]).ok();
    assert!(log.contains("about to crash"), "{log}");
    // It follows its tag.
    host.dhow(["tag", "acme/native:2", "acme/native:1"]).ok();
    until("the code of the new tag", || (look()["words"] == json!("two")).then_some(()));
    assert_eq!(host.dhow(["plugin", "rm", "-f", "kept"]).ok(), "kept\n");
    assert_eq!(host.dhow(["ps", "-aq"]).ok(), "");
    let broken = host.dhow(["plugin", "run", "-d", "--name", "none", "acme/none:1"]).outcome();
    assert!(broken.code == 1 && broken.stderr.contains("acme/none"), "{broken:?}");
    assert_eq!(host.dhow(["plugin", "ls", "-q"]).ok(), "");
    host.check();
}

#[test]
fn what_a_killed_caller_leaves_is_swept() {
    if skipped() {
        return;
    }
    let host = Host::with(&[("acme/native:1", image(None, ""))]);
    let folders = || {
        let entries = fs_err::read_dir(host.root().join("plugins")).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with('.')).count()
    };
    let kill = || {
        // Its program takes no notice of its stream's end for a minute.
        let calling = host.dhow(["plugin", "call", "acme/native:1", "sleep"]).spawn();
        until("its container", || {
            let running = host.dhow(["ps", "-q"]).ok();
            (!running.is_empty() && folders() == 1).then_some(())
        });
        calling.signal(Signal::KILL);
        drop(calling);
    };
    kill();
    let found = host.dhow(["system", "check"]).outcome();
    assert!(found.code == 1 && found.stdout.contains("left by a native plugin"), "{found:?}");
    host.dhow(["system", "check", "--repair"]).ok();
    assert_eq!((host.dhow(["ps", "-aq"]).ok().as_str(), folders()), ("", 0));
    host.check();
    // The next command about plugins does the same.
    kill();
    assert_eq!(host.dhow(["plugin", "ls", "-q"]).ok(), "");
    assert_eq!((host.dhow(["ps", "-aq"]).ok().as_str(), folders()), ("", 0));
    // One that stays loaded, killed with all that belongs to it.
    assert_eq!(host.dhow(["plugin", "run", "-d", "--name", "kept", "acme/native:1"]).ok(), "kept\n");
    let told = &parsed(&host.dhow(["plugin", "inspect", "kept"]).ok())[0];
    let pid =
        told["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
    rustix::process::kill_process(pid.expect("a process"), Signal::KILL).expect("killed");
    until("its end", || {
        (host.dhow(["plugin", "ls", "--format", "{{.Status}}"]).ok() == "Dead\n").then_some(())
    });
    assert_eq!(host.dhow(["ps", "-aq"]).ok(), "");
    assert_eq!(host.dhow(["plugin", "rm", "kept"]).ok(), "kept\n");
    host.check();
}
