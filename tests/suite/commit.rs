//! `diff` and `commit`: what a container has become of its image, for both kinds, and an image made of it.

use serde_json::{Value, json};

use crate::support::{Docker, Host, Image, Tree, busybox, guest, tool, until};

/// The same files under either program.
fn files() -> Tree {
    Tree::new()
        .dir("etc", 0o755)
        .file("etc/kept", 0o644, "kept\n")
        .file("etc/changed", 0o644, "image\n")
        .file("etc/removed", 0o644, "image\n")
        .dir("srv", 0o755)
        .dir("srv/gone", 0o755)
        .file("srv/gone/inner", 0o644, "")
}

fn wasm() -> Image {
    Image::wasm()
        .layer(files().file("probe.wasm", 0o755, guest("probe.wasm")))
        .entrypoint(&["/probe.wasm"])
        .config("Env", json!(["FROM=image"]))
}

fn linux() -> Image {
    busybox().layer(files())
}

fn changed() -> Host {
    let host = Host::with(&[("probe:1", wasm()), ("busybox:2", linux())]);
    let args = [
        "append",
        "/etc/changed",
        "more",
        "rm",
        "/etc/removed",
        "mkdir",
        "/srv/new",
        "write",
        "/srv/new/file",
        "new",
    ];
    host.dhow(["run", "--name", "wasm", "-e", "MINE=yes", "probe:1"]).args(args).ok();
    let script = "echo more >> /etc/changed; rm /etc/removed; rm -r /srv/gone; mkdir /srv/new; echo new > /srv/new/file";
    host.dhow(["run", "--name", "linux", "-e", "MINE=yes", "busybox:2", "sh", "-c", script]).ok();
    host
}

#[test]
fn what_was_no_image_with_files_becomes_one() {
    let host = Host::new();
    let file = host.file("probe.wasm", guest("probe.wasm"));
    host.dhow(["image", "convert", "--wasm-artifact", &file, "artifact:1"]).ok();
    for (name, source) in [("file", "./probe.wasm"), ("artifact", "artifact:1")] {
        let options = ["run", "--name", name, "-e", "WHO=me", source];
        host.dhow(options).args(["write", "/note", "from the container"]).ok();
        let image = format!("{name}-made:1");
        host.dhow(["commit", "-c", "ENV MORE=yes", name, &image]).ok();
        let out = host.dhow(["run", "--rm", &image, "read", "/note", "env", "WHO", "env", "MORE"]).ok();
        assert_eq!(out, "from the container\nWHO=me\nMORE=yes\n", "{name}");
        // It is an image like others.
        host.dhow(["create", "--name", "next", &image]).ok();
        host.dhow(["commit", "next", "again:1"]).ok();
        assert_eq!(host.dhow(["run", "--rm", "again:1", "read", "/note"]).ok(), "from the container\n");
        host.dhow(["rm", "next", name]).ok();
    }
    host.file("text.wat", "(module (memory (export \"memory\") 1) (func (export \"_start\")))");
    host.dhow(["run", "--name", "text", "./text.wat"]).ok();
    host.dhow(["commit", "text"]).refused(1, "an image of WebAssembly text");
}

#[test]
fn a_container_stands_still_while_it_is_committed() {
    let host = Host::with(&[("probe:1", wasm())]);
    host.dhow(["run", "-d", "--name", "it", "probe:1", "write", "/note", "x", "sleep", "600"]).ok();
    until("it has written", || (host.dhow(["cp", "it:/note", "-"]).outcome().code == 0).then_some(()));
    let state = |host: &Host| host.dhow(["inspect", "-f", "{{.State.Status}}", "it"]).ok();
    for options in [&[][..], &["-p=false"], &["--pause=true"]] {
        host.dhow(["commit"]).args(options).args(["it", "made:1"]).ok();
        assert_eq!(state(&host), "running\n", "{options:?}");
        assert_eq!(host.dhow(["run", "--rm", "made:1", "read", "/note"]).ok(), "x\n");
    }
    // Who was paused before stays so.
    host.dhow(["pause", "it"]).ok();
    host.dhow(["commit", "it", "made:2"]).ok();
    assert_eq!(state(&host), "paused\n");
}

#[test]
fn diff_names_what_was_added_changed_and_deleted() {
    let host = changed();
    assert_eq!(
        host.dhow(["diff", "wasm"]).ok(),
        "C /etc\nC /etc/changed\nD /etc/removed\nC /srv\nA /srv/new\nA /srv/new/file\n"
    );
    let native = host.dhow(["container", "diff", "linux"]).ok();
    let expected =
        "C /etc\nC /etc/changed\nD /etc/removed\nC /srv\nD /srv/gone\nA /srv/new\nA /srv/new/file\n";
    assert_eq!(native, expected);
    host.dhow(["run", "--name", "quiet", "probe:1", "ls", "/"]).ok();
    assert_eq!(host.dhow(["diff", "quiet"]).ok(), "");
    host.dhow(["diff", "none"]).refused(1, "No such container: none");
}

#[test]
fn a_commit_is_an_image_with_one_more_layer() {
    let host = changed();
    let commit = |args: &[&str]| host.dhow(["commit"]).args(args);
    let id = commit(&[
        "-a",
        "Ada",
        "-m",
        "a remark",
        "-c",
        "ENV ADDED=1",
        "-c",
        "CMD [\"ls\", \"/srv\"]",
        "wasm",
        "made:1",
    ])
    .ok();
    assert!(id.starts_with("sha256:") && id.trim_end().len() == 71, "{id}");
    assert_eq!(host.dhow(["run", "--rm", "made:1"]).ok(), "gone\nnew\n");
    let read = [
        "read",
        "/etc/changed",
        "exists",
        "/etc/removed",
        "read",
        "/srv/new/file",
        "env",
        "MINE",
        "env",
        "ADDED",
    ];
    let text = host.dhow(["run", "--rm", "made:1"]).args(read).ok();
    assert_eq!(text, "image\nmore\n/etc/removed does not exist\nnew\nMINE=yes\nADDED=1\n");
    let shown: Value = serde_json::from_str(&host.dhow(["image", "inspect", "made:1"]).ok()).unwrap();
    assert_eq!((&shown[0]["Author"], &shown[0]["Os"]), (&json!("Ada"), &json!("wasi")));
    assert_eq!(shown[0]["RootFS"]["Layers"].as_array().unwrap().len(), 2);
    assert!(host.dhow(["history", "made:1"]).ok().contains("a remark"));

    commit(&["linux", "made:2"]).ok();
    let script = "cat /etc/changed /srv/new/file; ls /srv; env | grep MINE; ls /etc/removed";
    let run = host.dhow(["run", "--rm", "made:2", "sh", "-c", script]).outcome();
    assert_eq!(run.stdout, "image\nmore\nnew\nnew\nMINE=yes\n", "{run:#?}");
    // Without a name it is known by its id; a container that wrote nothing gives the same files.
    let id = commit(&["linux"]).ok();
    assert_eq!(host.dhow(["run", "--rm", id.trim_end(), "cat", "/etc/kept"]).ok(), "kept\n");
    host.dhow(["run", "--name", "quiet", "probe:1", "ls", "/etc"]).ok();
    commit(&["quiet", "made:3"]).ok();
    assert_eq!(host.dhow(["run", "--rm", "made:3"]).ok(), "changed\nkept\nremoved\n");

    commit(&["-c", "RUN x", "wasm", "made:4"]).rejected(1, "run is not a valid change command");
    commit(&["none", "made:4"]).refused(1, "No such container: none");
    host.file("probe.wasm", guest("probe.wasm"));
    host.dhow(["run", "--name", "bare", "./probe.wasm", "ls", "/"]).ok();
    commit(&["bare", "made:4"]).ok();
}

#[test]
fn docker_says_the_same() {
    let Some(docker) = Docker::start() else { return };
    let host = changed();
    let archive = host.path("image.tar");
    host.dhow(["save", "-o", "image.tar", "busybox:2"]).ok();
    docker_run(&docker, ["load", "-q", "-i", archive.to_str().unwrap()]);
    let script = "echo more >> /etc/changed; rm /etc/removed; rm -r /srv/gone; mkdir /srv/new; echo new > /srv/new/file";
    docker_run(&docker, ["run", "--name", "linux", "--network", "none", "busybox:2", "sh", "-c", script]);
    let theirs = docker_run(&docker, ["diff", "linux"]);
    let mut theirs: Vec<&str> = theirs.lines().collect();
    theirs.sort_by_key(|line| line[2..].to_owned());
    let ours = host.dhow(["diff", "linux"]).ok();
    assert_eq!(ours.lines().collect::<Vec<_>>(), theirs);
}

fn docker_run<const N: usize>(docker: &Docker, args: [&str; N]) -> String {
    tool(&mut docker.call(args))
}
