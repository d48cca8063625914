//! `images` with filters and trees, `tag`, `history`, variants removed one by one, and every field of `inspect`.

use serde_json::{Value, json};

use crate::support::{Host, Image, Squeeze, Tree, busybox};

fn small(content: &str) -> Image {
    Image::native().layer(Tree::new().file("file", 0o644, content)).cmd(&["/file"])
}

fn names(host: &Host, args: &[&str]) -> Vec<String> {
    let mut all = vec!["images", "--format", "{{.Repository}}:{{.Tag}}"];
    all.extend(args);
    let mut names: Vec<String> = host.dhow(all).ok().lines().map(str::to_owned).collect();
    names.sort();
    names
}

#[test]
fn filters_choose_as_docker_s_do() {
    let labelled = small("l").config("Labels", json!({ "k": "v", "only": "" }));
    let host = Host::with(&[
        ("one:1", small("1")),
        ("team/two:2", labelled),
        ("wasm:1", Image::wasm().layer(Tree::new().file("w", 0o644, "w"))),
    ]);
    host.dhow(["tag", "one:1", "one:2"]).ok();
    let id = host.dhow(["images", "-q", "--no-trunc", "wasm:1"]).ok();
    host.dhow(["tag", id.trim(), "other:1"]).ok();
    let all = ["one:1", "one:2", "other:1", "team/two:2", "wasm:1"];
    assert_eq!(names(&host, &[]), all);
    assert_eq!(names(&host, &["-a"]), all);
    for (args, expected) in [
        (vec!["one"], vec!["one:1", "one:2"]),
        (vec!["one:2"], vec!["one:2"]),
        (vec!["o*"], vec!["one:1", "one:2", "other:1"]),
        (vec!["*/*"], vec!["team/two:2"]),
        (vec!["--filter", "reference=*:1"], vec!["one:1", "other:1", "wasm:1"]),
        (vec!["-f", "reference=one", "-f", "reference=wasm"], vec!["one:1", "one:2", "wasm:1"]),
        (vec!["-f", "label=k"], vec!["team/two:2"]),
        (vec!["-f", "label=k=v", "-f", "label=only"], vec!["team/two:2"]),
        (vec!["-f", "label=k=w"], vec![]),
        (vec!["-f", "dangling=true"], vec![]),
        (vec!["-f", "dangling=false", "-f", "platform=wasi/wasm"], vec!["other:1", "wasm:1"]),
    ] {
        assert_eq!(names(&host, &args), expected, "{args:?}");
    }
    host.dhow(["images", "-f", "colour=red"]).refused(1, "Invalid filter 'colour'");
    host.dhow(["images", "-f", "dangling=perhaps"]).rejected(1, "Invalid filter 'dangling=perhaps'");
    host.dhow(["images", "-f", "before=nosuch"]).refused(1, "no such image: nosuch");
    let line = host.dhow(["images", "--format", "json", "team/two"]).ok();
    let row: Value = serde_json::from_str(&line).unwrap();
    for key in [
        "Containers",
        "CreatedAt",
        "CreatedSince",
        "Digest",
        "ID",
        "SharedSize",
        "Size",
        "UniqueSize",
        "VirtualSize",
    ] {
        assert!(row[key].is_string(), "{key}: {line}");
    }
    assert_eq!(row["Labels"], "k=v,only=");

    // Whatever becomes of the file that makes it quick, the list is the same.
    let listed = host.dhow(["images", "--no-trunc"]).ok();
    for content in ["", "garbage"] {
        fs_err::write(host.root().join("summaries"), content).unwrap();
        assert_eq!(host.dhow(["images", "--no-trunc"]).ok(), listed);
    }
    fs_err::remove_file(host.root().join("summaries")).unwrap();
    assert_eq!(host.dhow(["images", "--no-trunc"]).ok(), listed);
}

#[test]
fn tag_moves_names_and_history_tells_steps() {
    let host = Host::with(&[
        ("one:1", busybox().layer(Tree::new().file("f", 0o644, "12345"))),
        ("two:1", small("2")),
    ]);
    assert_eq!(host.dhow(["tag", "one:1", "localhost:5000/new:3"]).ok(), "");
    host.dhow(["tag", "two:1", "localhost:5000/new:3"]).ok();
    let id = |name: &str| host.dhow(["inspect", "--format", "{{.Id}}", name]).ok();
    assert_eq!(id("localhost:5000/new:3"), id("two:1"));
    host.dhow(["tag", "nosuch", "x:1"]).refused(1, "no such image: nosuch");
    host.dhow(["image", "tag", "one:1", "Bad"]).refused(1, "invalid reference format");

    let rows = host.dhow(["history", "one:1"]).ok();
    let lines: Vec<&str> = rows.lines().collect();
    assert!(lines[0].starts_with("IMAGE          CREATED"), "{rows}");
    assert_eq!(lines.len(), 3, "{rows}");
    assert!(lines[1].contains(" test ") && lines[1].contains(" 5B"), "{rows}");
    assert!(lines[2].starts_with("<missing>"), "{rows}");
    let bytes = host.dhow(["history", "--human=false", "--format", "{{.Size}} {{.CreatedBy}}", "one:1"]).ok();
    assert!(bytes.starts_with("5 test\n"), "{bytes}");
    let quiet = host.dhow(["history", "-q", "--no-trunc", "one:1"]).ok();
    assert_eq!(quiet, format!("{}<missing>\n", id("one:1")));
}

#[test]
fn variants_are_shown_and_removed_one_by_one() {
    let wasm = || Image::wasm().layer(Tree::new().file("w", 0o644, "wasm"));
    let host = Host::with(&[("app:1", Image::index([busybox(), wasm()])), ("alone:1", small("1"))]);
    let tree = host.dhow(["images", "--tree"]).ok();
    assert!(
        tree.starts_with("IMAGE") && tree.contains("├─ linux/") && tree.contains("└─ wasi/wasm"),
        "{tree}"
    );
    host.dhow(["run", "--platform", "linux", "--name", "user", "app:1", "true"]).ok();
    let native = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    host.dhow(["rmi", "--platform", native, "app:1"]).refused(1, "conflict: unable to remove variant");
    let gone = host.dhow(["rmi", "--platform", "wasi/wasm", "app:1"]).ok();
    assert!(gone.starts_with("Deleted: sha256:"), "{gone}");
    assert_eq!(host.dhow(["images", "--format", "{{.Platforms}}", "app"]).ok(), format!("{native}\n"));
    host.dhow(["rmi", "--platform", "wasi/wasm", "app:1"]).refused(1, "no variant for wasi/wasm");
    host.dhow(["rm", "user"]).ok();
    assert_eq!(host.dhow(["run", "--rm", "app:1", "echo", "still"]).ok(), "still\n");
    let last = host.dhow(["rmi", "--platform", native, "app:1"]).ok();
    assert!(last.starts_with("Untagged: app:1\n"), "{last}");
    assert_eq!(host.dhow(["rmi", "--no-prune", "alone:1"]).ok().lines().next(), Some("Untagged: alone:1"));
}

#[test]
fn inspect_has_every_field() {
    let image = busybox()
        .squeeze(Squeeze::Zstd)
        .config("Healthcheck", json!({ "Test": ["CMD", "x"], "Interval": 5 }))
        .config("OnBuild", json!(["RUN y"]))
        .config("Shell", json!(["/bin/ash", "-c"]))
        .config("ArgsEscaped", json!(true))
        .config("Volumes", json!({ "/data": {} }))
        .config("ExposedPorts", json!({ "80/tcp": {} }))
        .config("StopSignal", json!("SIGINT"));
    let host = Host::with(&[("it:1", image)]);
    let all: Value = serde_json::from_str(&host.dhow(["image", "inspect", "it:1"]).ok()).unwrap();
    let it = &all[0];
    for key in [
        "Id",
        "RepoTags",
        "RepoDigests",
        "Parent",
        "Comment",
        "Created",
        "DockerVersion",
        "Author",
        "Config",
        "Architecture",
        "Os",
        "Size",
        "VirtualSize",
        "GraphDriver",
        "RootFS",
        "Metadata",
    ] {
        assert!(!it[key].is_null(), "{key}: {it:#}");
    }
    assert!(it["Metadata"]["LastTagTime"].as_str().unwrap().starts_with("20"), "{it:#}");
    assert!(it["Size"].as_u64().unwrap() > 1000, "{it:#}");
    let config = &it["Config"];
    assert_eq!(config["Healthcheck"], json!({ "Test": ["CMD", "x"], "Interval": 5 }));
    assert_eq!((&config["OnBuild"], &config["Shell"]), (&json!(["RUN y"]), &json!(["/bin/ash", "-c"])));
    assert_eq!((&config["ArgsEscaped"], &config["Tty"]), (&json!(true), &json!(false)));
    assert_eq!(
        (&config["Volumes"], &config["ExposedPorts"]),
        (&json!({ "/data": {} }), &json!({ "80/tcp": {} }))
    );
    assert_eq!((&config["Labels"], &config["Entrypoint"]), (&Value::Null, &Value::Null));
    host.dhow(["image", "inspect", "--platform", "linux/s390x", "it:1"]).fails(1);
}
