//! `-v`: folders and files of the host inside a container, for both kinds.

use crate::support::{Host, Image, Tree, busybox, guest};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    host.file("data/text", "from the host\n");
    host
}

#[test]
fn a_folder_can_be_read_and_written() {
    let host = host();
    let volume = format!("{}:/data", host.text("data"));
    let out = host.dhow(["run", "--rm", "-v", &volume, "./probe.wasm"]).args([
        "read",
        "/data/text",
        "write",
        "/data/wasm",
        "w",
    ]);
    assert_eq!(out.ok(), "from the host\n");
    let out = host.dhow(["run", "--rm", "-v", &volume, "busybox:1"]).args([
        "sh",
        "-c",
        "cat /data/*; echo n > /data/native",
    ]);
    assert_eq!(out.ok(), "from the host\nw\n");
    assert_eq!(fs_err::read_to_string(host.path("data/native")).unwrap(), "n\n");
}

#[test]
fn read_only_is_read_only() {
    let host = host();
    let volume = format!("{}:/data:ro", host.text("data"));
    let wasm = host.dhow([
        "run",
        "--rm",
        "-v",
        &volume,
        "./probe.wasm",
        "read",
        "/data/text",
        "write",
        "/data/x",
        "w",
    ]);
    let outcome = wasm.fails(1);
    assert_eq!(outcome.stdout, "from the host\n");
    assert!(outcome.stderr.starts_with("write /data/x: "), "{outcome:#?}");
    for verb in [&["rm", "/data/text"][..], &["mkdir", "/data/d"], &["append", "/data/text", "x"]] {
        host.dhow(["run", "--rm", "-v", &volume, "./probe.wasm"]).args(verb).fails(1);
    }
    let script = "cat /data/text; touch /data/x || mount -o remount,rw /data || echo no";
    let native = host.dhow(["run", "--rm", "-v", &volume, "busybox:1", "sh", "-c", script]).outcome();
    assert_eq!(native.stdout, "from the host\nno\n", "{native:#?}");
    assert_eq!(fs_err::read_dir(host.path("data")).unwrap().count(), 1);
}

#[test]
fn a_single_file_and_a_folder_below_another() {
    let host = host();
    host.file("inner/text", "inner\n");
    let (file, outer, inner) = (
        format!("{}:/etc/one:ro", host.text("data/text")),
        format!("{}:/data", host.text("data")),
        format!("{}:/data/inner", host.text("inner")),
    );
    let volumes = ["run", "--rm", "-v", &file, "-v", &inner, "-v", &outer];
    let out = host.dhow(volumes).args(["busybox:1", "cat", "/etc/one", "/data/text", "/data/inner/text"]);
    assert_eq!(out.ok(), "from the host\nfrom the host\ninner\n");
    let out = host.dhow(volumes).args([
        "./probe.wasm",
        "read",
        "/etc/one",
        "read",
        "/data/text",
        "read",
        "/data/inner/text",
    ]);
    assert_eq!(out.ok(), "from the host\nfrom the host\ninner\n");
}

#[test]
fn a_missing_folder_is_made_as_docker_makes_it() {
    let host = host();
    let volume = format!("{}:/data", host.text("not/yet"));
    host.dhow(["run", "--rm", "-v", &volume, "busybox:1", "touch", "/data/made"]).ok();
    assert!(host.path("not/yet/made").exists());
    let volume = format!("{}:/data", host.text("nor/this"));
    host.dhow(["run", "--rm", "-v", &volume, "./probe.wasm", "write", "/data/made", "x"]).ok();
    assert!(host.path("nor/this/made").exists());
}

#[test]
fn a_volume_hides_what_the_image_has_there() {
    let image = Image::wasm()
        .layer(Tree::new().dir("data", 0o755).file("data/image", 0o644, "").file(
            "p.wasm",
            0o644,
            guest("probe.wasm"),
        ))
        .entrypoint(&["/p.wasm"]);
    let host = host();
    host.load(&[("probe:1", image)]);
    let volume = format!("{}:/data", host.text("data"));
    assert_eq!(host.dhow(["run", "--rm", "-v", &volume, "probe:1", "ls", "/data"]).ok(), "text\n");
    assert_eq!(host.dhow(["run", "--rm", "probe:1", "ls", "/data"]).ok(), "image\n");
}

#[test]
fn a_guest_cannot_leave_its_volume() {
    let host = host();
    host.file("secret", "secret\n");
    std::os::unix::fs::symlink(host.path("secret"), host.path("data/absolute")).unwrap();
    std::os::unix::fs::symlink("../secret", host.path("data/relative")).unwrap();
    let volume = format!("{}:/data", host.text("data"));
    for path in ["/data/absolute", "/data/relative", "/data/../secret", "/data/../../etc/passwd"] {
        let wasm = host.dhow(["run", "--rm", "-v", &volume, "./probe.wasm", "read", path]).outcome();
        assert!(wasm.code == 1 && wasm.stdout.is_empty(), "{path}: {wasm:#?}");
        let native = host.dhow(["run", "--rm", "-v", &volume, "busybox:1", "cat", path]).outcome();
        assert!(!native.stdout.contains("secret"), "{path}: {native:#?}");
    }
}

#[test]
fn nonsense_is_refused() {
    let host = host();
    for volume in ["/tmp:relative", "/tmp:/x:bogus", ":/x", "/a:/b:ro:c", "/tmp:/"] {
        let outcome = host.dhow(["run", "--rm", "-v", volume, "busybox:1", "true"]).fails(125);
        outcome.is_rejection("");
        assert!(outcome.stderr.contains("invalid"), "{outcome:#?}");
    }
    host.has_no_container();
}
