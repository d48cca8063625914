//! `images`, `rmi`, `inspect`, `load`: the store as the user sees it.

use serde_json::{Value, json};

use crate::support::{Host, Image, Layout, Tree, busybox, guest};

fn small(content: &str) -> Image {
    Image::native().layer(Tree::new().file("file", 0o644, content)).cmd(&["/file"])
}

/// The words of each line of a listing.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[test]
fn images_lists_as_docker_does() {
    let host = Host::with(&[("one:1", small("1")), ("localhost:5000/team/two:v2", small("2"))]);
    let out = host.dhow(["images"]).ok();
    let rows = table(&out);
    // Docker's columns, then one of our own.
    assert_eq!(rows[0].join(" "), "REPOSITORY TAG IMAGE ID CREATED SIZE PLATFORMS");
    let named =
        |name: &str| rows.iter().find(|row| row[0] == name).unwrap_or_else(|| panic!("{name}: {out}"));
    assert_eq!(named("one")[1], "1");
    assert_eq!(named("localhost:5000/team/two")[1], "v2");
    assert_eq!(named("one")[2].len(), 12, "{out}");
    assert!(out.contains("years ago"), "{out}");

    let short = host.dhow(["images", "-q"]).ok();
    assert!(short.lines().count() == 2 && short.lines().all(|id| id.len() == 12), "{short}");
    let long = host.dhow(["images", "-q", "--no-trunc"]).ok();
    assert!(long.lines().all(|id| id.len() == 71 && id.starts_with("sha256:")), "{long}");
    assert_eq!(table(&host.dhow(["images", "one"]).ok()).len(), 2);
    assert_eq!(table(&host.dhow(["images", "one:2"]).ok()).len(), 1);
    assert_eq!(table(&host.dhow(["images", "nothing"]).ok()).len(), 1);
    assert_eq!(
        table(&host.dhow(["images", "--digests"]).ok())[0].join(" "),
        "REPOSITORY TAG DIGEST IMAGE ID CREATED SIZE PLATFORMS"
    );
    let format = host.dhow(["images", "--format", "{{.Repository}}:{{.Tag}}", "one"]).ok();
    assert_eq!(format, "one:1\n");
    let line = host.dhow(["images", "--format", "json", "one"]).ok();
    let row: Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&row["Repository"], &row["Tag"]), (&json!("one"), &json!("1")), "{line}");
}

#[test]
fn an_empty_store_lists_only_the_header() {
    let host = Host::new();
    assert_eq!(table(&host.dhow(["images"]).ok()).len(), 1);
    assert_eq!(host.dhow(["images", "-q"]).ok(), "");
}

#[test]
fn rmi_removes_names_and_then_content() {
    let host = Host::new();
    let layout = Layout::new();
    let descriptor = layout.image(&small("same"));
    layout.tag(&descriptor, "first:1");
    layout.tag(&descriptor, "second:1");
    layout.archive(&host.path("two.tar"));
    let loaded = host.dhow(["load", "-i", "two.tar"]).ok();
    assert_eq!(loaded, "Loaded image: first:1\nLoaded image: second:1\n");
    assert_eq!(host.dhow(["rmi", "first:1"]).ok(), "Untagged: first:1\n");
    host.check();
    let last = host.dhow(["rmi", "second:1"]).ok();
    assert!(last.starts_with("Untagged: second:1\nDeleted: sha256:"), "{last}");
    assert_eq!(host.dhow(["images", "-q"]).ok(), "");
    for folder in ["blobs/sha256", "layers"] {
        let left: Vec<_> = fs_err::read_dir(host.root().join(folder)).into_iter().flatten().collect();
        assert!(left.is_empty(), "{folder} still holds {left:?}");
    }
}

#[test]
fn shared_layers_stay_while_somebody_needs_them() {
    let shared = || busybox().cmd(&["echo", "shared"]);
    let host = Host::with(&[("a:1", shared()), ("b:1", shared().layer(Tree::new().file("b", 0o644, "b")))]);
    host.dhow(["rmi", "b:1"]).ok();
    assert_eq!(host.dhow(["run", "--rm", "a:1"]).ok(), "shared\n");
    host.check();
}

#[test]
fn rmi_by_id_and_of_an_image_in_use() {
    let host = Host::with_busybox();
    let id = host.dhow(["images", "-q"]).ok();
    host.dhow(["run", "--name", "user", "busybox:1", "true"]).ok();
    let refused = host.dhow(["rmi", "busybox:1"]);
    refused.refused(1, "conflict: unable to remove repository reference \"busybox:1\" (must force)");
    host.dhow(["rm", "user"]).ok();
    let out = host.dhow(["rmi", id.trim()]).ok();
    assert!(out.starts_with("Untagged: busybox:1\nDeleted: sha256:"), "{out}");
    host.dhow(["rmi", "busybox:1"]).refused(1, "o such image: busybox:1");
    let both = host.dhow(["rmi", "nosuch", "nothing:2"]).fails(1);
    assert!(both.stderr.contains("nosuch:latest") && both.stderr.contains("nothing:2"), "{both:#?}");
}

#[test]
fn inspect_of_an_image_has_docker_s_fields() {
    let image = busybox()
        .layer(Tree::new().file("x", 0o644, "x"))
        .config("Env", json!(["A=b"]))
        .config("Labels", json!({"k": "v"}))
        .config("WorkingDir", json!("/tmp"))
        .config("User", json!("app"))
        .entrypoint(&["/bin/echo"])
        .cmd(&["hi"]);
    let host = Host::with(&[("it:1", image)]);
    let short = host.dhow(["images", "-q"]).ok();
    for name in ["it:1", short.trim()] {
        let all: Value = serde_json::from_str(&host.dhow(["inspect", name]).ok()).unwrap();
        let it = &all[0];
        assert_eq!(all.as_array().unwrap().len(), 1);
        assert!(it["Id"].as_str().unwrap().starts_with(&format!("sha256:{}", short.trim())), "{it:#}");
        assert_eq!(it["RepoTags"], json!(["it:1"]), "{it:#}");
        assert_eq!((&it["Os"], &it["Created"]), (&json!("linux"), &json!("2024-01-02T03:04:05Z")), "{it:#}");
        let config = &it["Config"];
        assert_eq!(config["Env"], json!(["A=b"]), "{config:#}");
        assert_eq!(
            (&config["Labels"]["k"], &config["WorkingDir"], &config["User"]),
            (&json!("v"), &json!("/tmp"), &json!("app"))
        );
        assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["/bin/echo"]), &json!(["hi"])));
        assert_eq!(it["RootFS"]["Layers"].as_array().unwrap().len(), 2, "{it:#}");
    }
    let out = host.dhow(["inspect", "--format", "{{.Os}} {{.RepoTags}} {{json .Config.Cmd}}", "it:1"]).ok();
    assert_eq!(out, "linux [it:1] [\"hi\"]\n");
    let missing = host.dhow(["inspect", "nosuch"]).fails(1);
    assert_eq!(missing.stdout, "[]\n");
    assert!(missing.stderr.contains("o such object: nosuch"), "{missing:#?}");
}

#[test]
fn names_mean_the_same_everywhere() {
    let host = Host::with(&[(
        "docker.io/library/hello:latest",
        Image::wasm().layer(Tree::new().file("h.wasm", 0o644, guest("hello.wasm"))).entrypoint(&["/h.wasm"]),
    )]);
    assert_eq!(host.dhow(["images", "--format", "{{.Repository}}:{{.Tag}}"]).ok(), "hello:latest\n");
    for name in
        ["hello", "hello:latest", "library/hello", "docker.io/hello", "index.docker.io/library/hello:latest"]
    {
        assert_eq!(host.dhow(["run", "--rm", name]).ok(), "hello from Wasm\n", "{name}");
    }
}
