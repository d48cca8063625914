//! What a user can get wrong: one line that says what, one hint, Docker's exit code, nothing left behind.

use crate::support::{Host, Image, Tree, busybox, guest, is_root};

#[test]
fn unknown_images() {
    let host = Host::new();
    // A port at which nobody listens: refused at once, whatever the network is like.
    host.dhow(["run", "127.0.0.1:1/x:1"]).refused(125, "127.0.0.1:1");
    host.dhow(["pull", "127.0.0.1:1/x:1"]).refused(1, "127.0.0.1:1");
    host.dhow(["run", "--pull", "never", "nothing:1"]).refused(125, "nothing:1");
    host.dhow(["inspect", "nothing"]).fails(1);
    host.dhow(["rmi", "nothing"]).refused(1, "nothing:latest");
    host.has_no_container();
}

#[test]
fn names_that_are_none() {
    let host = Host::new();
    for (name, message) in [
        ("BadName:1", "must be lowercase"),
        ("bad:ref:x", "invalid reference format"),
        ("a//b", "invalid reference format"),
        ("", "invalid reference format"),
        ("x@sha256:123", "invalid reference format"),
        ("x:-1", "invalid reference format"),
    ] {
        for (command, code) in [("run", 125), ("pull", 1)] {
            host.dhow([command, name]).rejected(code, message);
        }
    }
}

#[test]
fn commands_that_do_not_exist_or_cannot_be_executed() {
    let image = busybox()
        .layer(
            Tree::new()
                .file("data", 0o644, "#!/bin/sh\n")
                .file("script", 0o755, "no interpreter line\n")
                .file("empty", 0o755, ""),
        )
        .layer(Tree::new().file("foreign", 0o755, b"\x7fELF\x02\x01\x01garbage").file(
            "lost",
            0o755,
            "#!/no/such\n",
        ));
    let host = Host::with(&[("busybox:1", image)]);
    let run = |command: &str| host.dhow(["run", "--rm", "busybox:1", command]);
    run("nosuch").refused(127, "exec: \"nosuch\": executable file not found in $PATH");
    run("/no/such").refused(127, "exec: \"/no/such\": ");
    run("/data").refused(126, "exec: \"/data\": permission denied");
    run("/etc").refused(126, "exec: \"/etc\": ");
    run("/foreign").refused(126, "exec: \"/foreign\": exec format error");
    run("/script").refused(126, "exec: \"/script\": exec format error");
    run("/empty").refused(126, "exec: \"/empty\": exec format error");
    run("/lost").refused(127, "/lost");
    run("").refused(127, "exec: \"\"");
    host.has_no_container();
}

#[test]
fn files_that_are_no_wasm() {
    let host = Host::new();
    host.file("empty.wasm", "");
    host.file("text.wasm", "this is not Wasm\n");
    host.file("cut.wasm", &guest("probe.wasm")[..20_000]);
    host.file("cut.component.wasm", &guest("probe.component.wasm")[..40_000]);
    host.file("elf.wasm", fs_err::read("/bin/busybox").unwrap());
    host.file("bad.wat", "(module (func $f (call $g)))");
    host.file("future.wasm", b"\0asm\x63\0\0\0");
    let mut flipped = guest("probe.wasm");
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    host.file("flipped.wasm", flipped);
    for name in [
        "empty.wasm",
        "text.wasm",
        "cut.wasm",
        "cut.component.wasm",
        "elf.wasm",
        "bad.wat",
        "future.wasm",
        "flipped.wasm",
    ] {
        host.dhow(["run", "--rm", &format!("./{name}")]).refused(126, name);
    }
    host.dhow(["run", "--rm", "./missing.wasm"]).refused(127, "missing.wasm");
    fs_err::create_dir(host.path("folder.wasm")).unwrap();
    host.dhow(["run", "--rm", "./folder.wasm"]).refused(126, "folder.wasm");
    host.has_no_container();
}

#[test]
fn wasm_that_asks_for_what_there_is_not() {
    let host = Host::new();
    host.file("import.wat", r#"(module (import "elsewhere" "f" (func)) (func (export "_start")))"#);
    host.file("entry.wat", r#"(module (memory (export "memory") 1))"#);
    host.file("world.wat", r#"(component (import "elsewhere:x/y@1.0.0" (instance)))"#);
    host.dhow(["run", "--rm", "./import.wat"]).refused(126, "elsewhere");
    host.dhow(["run", "--rm", "./entry.wat"]).refused(126, "_start");
    host.dhow(["run", "--rm", "./world.wat"]).refused(126, "world.wat");
}

#[test]
fn a_wasm_image_with_a_broken_program() {
    let image = |content: &[u8]| {
        Image::wasm().layer(Tree::new().file("p.wasm", 0o644, content)).entrypoint(&["/p.wasm"])
    };
    let host = Host::with(&[
        ("text:1", image(b"text")),
        ("missing:1", Image::wasm().entrypoint(&["/p.wasm"])),
        ("mute:1", Image::wasm()),
    ]);
    host.dhow(["run", "--rm", "text:1"]).refused(126, "/p.wasm");
    host.dhow(["run", "--rm", "missing:1"]).refused(127, "/p.wasm");
    host.dhow(["run", "--rm", "mute:1"]).rejected(125, "o command specified");
    host.has_no_container();
}

#[test]
fn a_platform_the_image_does_not_have() {
    let image = Image::index([
        Image::new("linux/s390x").layer(Tree::new()),
        Image::new("windows/amd64").layer(Tree::new()),
    ]);
    let host = Host::with(&[("foreign:1", image)]);
    let outcome = host.dhow(["run", "--rm", "foreign:1"]).fails(125);
    outcome.is_refusal("linux/s390x");
    assert!(outcome.stderr.contains("windows/amd64"), "the variants there are: {outcome:#?}");
    let outcome = host.dhow(["run", "--rm", "--platform", "wasi/wasm", "foreign:1"]).fails(125);
    outcome.is_refusal("wasi/wasm");
    host.dhow(["run", "--rm", "--platform", "not a platform", "foreign:1"]).fails(125);
}

#[test]
fn options_that_are_wrong() {
    let host = Host::with_busybox();
    for args in
        [&["run", "--bogus", "busybox:1"][..], &["run", "-e", "", "busybox:1", "true"], &["ps", "--bogus"]]
    {
        let outcome = host.dhow(args).fails(125);
        assert!(outcome.stdout.is_empty() && !outcome.stderr.is_empty(), "{outcome:#?}");
    }
    for args in [&["run"][..], &["nosuchcommand"], &["rm"], &["pull"]] {
        let outcome = host.dhow(args).fails(1);
        assert!(outcome.stdout.is_empty() && outcome.stderr.contains("help"), "{outcome:#?}");
    }
    host.dhow(["run", "--env-file", "/no/such", "busybox:1", "true"]).rejected(125, "/no/such");
    host.dhow(["run", "--rm", "--network", "nosuch", "busybox:1", "true"]).rejected(125, "nosuch");
    host.has_no_container();
}

#[test]
fn a_root_folder_that_is_not_ours() {
    let Some(host) = Host::unprivileged() else { return };
    for command in [&["images"][..], &["run", "x:1"], &["pull", "127.0.0.1:1/x:1"]] {
        let outcome = host.dhow(["--root", "/proc/nothing"]).args(command).outcome();
        assert!(outcome.code == 1 || outcome.code == 125, "{outcome:#?}");
        outcome.is_refusal("/proc/nothing");
    }
    if !is_root() {
        return;
    }
    let private = tempfile::tempdir().unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs_err::set_permissions(private.path(), mode).unwrap();
    let outcome = host.dhow(["--root", private.path().join("x").to_str().unwrap(), "images"]).fails(1);
    outcome.is_refusal("ermission denied");
}

#[test]
fn a_root_folder_that_is_a_file() {
    let host = Host::new();
    let file = host.file("file", "");
    host.dhow(["--root", &file, "images"]).refused(1, &file);
}

#[test]
fn archives_that_are_none() {
    let host = Host::new();
    host.file("garbage.tar", "garbage");
    host.file("empty.tar", "");
    host.file("other.tar", Tree::new().file("README", 0o644, "no image here").finish());
    for name in ["garbage.tar", "empty.tar", "other.tar"] {
        host.dhow(["load", "-i", name]).refused(1, name);
    }
    host.dhow(["load", "-i", "missing.tar"]).rejected(1, "missing.tar");
    host.dhow(["load"]).stdin("garbage").fails(1);
    assert_eq!(host.dhow(["images", "-q"]).ok(), "");
}
