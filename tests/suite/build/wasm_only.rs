//! A Dockerfile for Wasm alone, `tests/wasm-build/Dockerfile`: as root, and as a user without rights, who needs no
//! namespace for it. `tests/windows` builds another on another system.

use std::process::Command;

use super::inspect;
use crate::support::{Host, guest, repository, tool};

/// What the image's program prints.
const PRINTED: &str = "first\nsecond\n and third\nFor a step.\ndir\ntext\nfrom an archive\n";

fn builds(host: &Host) {
    let dockerfile = fs_err::read_to_string(repository().join("tests/wasm-build/Dockerfile")).unwrap();
    host.file("c/Dockerfile", dockerfile);
    host.file("c/probe.wasm", guest("probe.wasm"));
    host.file("in/file", "from an archive\n");
    let (archive, folder) = (host.text("c/archive.tar"), host.text("."));
    tool(Command::new("tar").args(["-cf", &archive, "-C", &folder, "in"]));
    host.file("secret", "hush\n");
    let path = host.text("c");
    let build = |more: &[&str]| {
        let line = ["build", "--platform", "wasi/wasm", "--secret", "id=s,src=secret", "-t", "made:1"];
        let outcome = host.dhow(line).args(more).args([&path]).outcome();
        assert_eq!(outcome.code, 0, "{outcome:#?}");
        outcome.stderr
    };
    let log = build(&[]);
    assert!(log.contains("WHO=a step\n/\n") && log.contains("hush"), "{log}");
    assert_eq!(host.dhow(["run", "--rm", "made:1"]).ok(), PRINTED);
    let id = inspect(host, "made:1", "{{.Id}}");
    let log = build(&["--progress=plain"]);
    assert!(!log.contains("hush") && log.matches("Using cache").count() >= 12, "{log}");
    assert_eq!(inspect(host, "made:1", "{{.Id}}"), id);
    // Nothing that was only mounted on is left, and modes are what was asked for.
    host.dhow([
        "build",
        "-q",
        "--platform",
        "wasi/wasm",
        "--target",
        "mounts",
        "--secret",
        "id=s,src=secret",
    ])
    .args(["-o", "type=tar,dest=mounts.tar", &path])
    .ok();
    let listed = |name: &str| {
        let output = Command::new("tar").args(["-tvf", &host.text(name)]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let names = listed("mounts.tar");
    for gone in ["secret", "bound", "memory", "cache"] {
        assert!(!names.contains(gone), "{names}");
    }
    host.dhow(["build", "-q", "--platform", "wasi/wasm", "--secret", "id=s,src=secret"])
        .args(["-o", "type=tar,dest=all.tar", &path])
        .ok();
    let names = listed("all.tar");
    let mode = |name: &str| names.lines().find(|line| line.ends_with(name)).map(|line| &line[..10]);
    assert_eq!((mode("fewer/dir/two"), mode("fewer/one")), (Some("-rw-r-----"), None), "{names}");
    host.check();
}

#[test]
fn by_root() {
    builds(&Host::new());
}

#[test]
fn by_a_user_without_rights() {
    let Some(host) = Host::unprivileged() else { return };
    builds(&host);
}
