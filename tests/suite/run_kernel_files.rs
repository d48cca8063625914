//! `--storage-opt files=kernel`: a Wasm program's files by the kernel's overlay. What a program sees, and what becomes of
//! what it writes, is the same as with the union; only root may ask for it.

use std::process::Command;

use crate::support::{Host, Image, Tree, guest, is_root, source, until};

const KERNEL: [&str; 2] = ["--storage-opt", "files=kernel"];

/// The host, and whether it can do this at all.
fn host(images: &[(&str, Image)]) -> Option<Host> {
    if !is_root() {
        println!("skipped: only root may mount an overlay");
        return None;
    }
    Some(Host::with(images))
}

fn image() -> Image {
    Image::wasm()
        .layer(
            Tree::new()
                .dir("etc", 0o755)
                .file("etc/kept", 0o644, "kept\n")
                .file("etc/changed", 0o644, "image\n")
                .file("etc/removed", 0o644, "image\n")
                .dir("srv", 0o755)
                .dir("srv/gone", 0o755)
                .file("srv/gone/inner", 0o644, ""),
        )
        .layer(Tree::new().dir("etc", 0o755).file("etc/second", 0o644, "2\n"))
        .layer(
            Tree::new()
                .dir("bin", 0o755)
                .file("bin/probe.wasm", 0o644, guest("probe.wasm"))
                .file("bin/component.wasm", 0o644, guest("probe.component.wasm"))
                .file("bin/loop.wasm", 0o644, wat::parse_file(source("loop.wat")).unwrap()),
        )
        .config("Env", serde_json::json!(["PATH=/bin"]))
        .entrypoint(&["probe.wasm"])
}

const CHANGES: [&str; 12] = [
    "append",
    "/etc/changed",
    "more",
    "rm",
    "/etc/removed",
    "rm",
    "/srv/gone/inner",
    "mkdir",
    "/srv/new",
    "write",
    "/srv/new/file",
    "new",
];
const DIFF: &str = "C /etc\nC /etc/changed\nD /etc/removed\nC /srv\nC /srv/gone\nD /srv/gone/inner\nA /srv/new\nA /srv/new/file\n";

#[test]
fn what_a_program_writes_is_what_it_would_be_with_the_union() {
    let Some(host) = host(&[("probe:1", image())]) else { return };
    for (name, program) in [("module", "probe.wasm"), ("component", "component.wasm")] {
        let both = [("union", &[][..]), ("kernel", &KERNEL[..])].map(|(backing, options)| {
            let named = format!("{name}-{backing}");
            let run = host.dhow(["run", "--name", &named, "--entrypoint", program]);
            run.args(options).args(["probe:1"]).args(CHANGES).ok();
            let diff = host.dhow(["diff", &named]).ok();
            host.dhow(["commit", &named, &format!("{named}:1")]).ok();
            let seen = ["read", "/etc/changed", "exists", "/etc/removed", "ls", "/srv", "ls", "/srv/gone"];
            let committed = host.dhow(["run", "--rm", &format!("{named}:1")]).args(seen).ok();
            host.dhow(["export", "-o", &format!("{named}.tar"), &named]).ok();
            let mut names = Command::new("tar");
            names.arg("-tf").arg(host.path(&format!("{named}.tar")));
            let exported = String::from_utf8(names.output().unwrap().stdout).unwrap();
            assert!(exported.contains("srv/new/file") && !exported.contains("removed"), "{exported}");
            host.dhow(["cp", &format!("{named}:/etc/changed"), "out"]).ok();
            let copied = fs_err::read_to_string(host.path("out")).unwrap();
            fs_err::remove_file(host.path("out")).unwrap();
            (diff, committed, exported, copied)
        });
        assert_eq!(both[0].0, DIFF, "{name}");
        assert_eq!(both[0].1, "image\nmore\n/etc/removed does not exist\ngone\nnew\n", "{name}");
        assert_eq!(both[0].3, "image\nmore\n", "{name}");
        assert_eq!(both[0], both[1], "{name}");
    }
}

#[test]
fn it_stays_over_stops_copies_and_other_programs() {
    let Some(host) = host(&[("probe:1", image())]) else { return };
    let run = host.dhow(["run", "-d", "--name", "it", "--entrypoint", "loop.wasm"]);
    run.args(KERNEL).args(["probe:1"]).ok();
    let exec = |args: &[&str]| host.dhow(["exec", "it", "probe.wasm"]).args(args).ok();
    exec(&["write", "/note", "one", "rm", "/etc/removed"]);
    assert_eq!(exec(&["read", "/note", "exists", "/etc/removed"]), "one\n/etc/removed does not exist\n");
    // Into one that runs, and it is seen at once.
    host.file("in", "copied\n");
    host.dhow(["cp", "in", "it:/etc/in"]).ok();
    assert_eq!(exec(&["read", "/etc/in"]), "copied\n");
    host.dhow(["stop", "-t", "0", "it"]).ok();
    host.dhow(["cp", "in", "it:/etc/later"]).ok();
    host.dhow(["start", "it"]).ok();
    assert_eq!(
        exec(&["read", "/note", "read", "/etc/later", "exists", "/etc/removed"]),
        "one\ncopied\n/etc/removed does not exist\n"
    );
    assert_eq!(host.dhow(["diff", "it"]).ok(), "C /etc\nA /etc/in\nA /etc/later\nD /etc/removed\nA /note\n");
    // The second wall is there as ever.
    let pid = host.dhow(["inspect", "-f", "{{.State.Pid}}", "it"]).ok();
    until("the wall stands", || {
        let status = fs_err::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap();
        (status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t2")).then_some(())
    });
    host.dhow(["rm", "-f", "it"]).ok();
}

#[test]
fn read_only_roots_volumes_and_memory() {
    let Some(host) = host(&[("probe:1", image())]) else { return };
    host.file("data/file", "of the host\n");
    let mount = format!("{}:/data", host.text("data"));
    let run = |options: &[&str], args: &[&str]| {
        host.dhow(["run", "--rm"]).args(KERNEL).args(options).args(["probe:1"]).args(args.iter())
    };
    run(&["--read-only"], &["write", "/x", "1"]).fails(1);
    assert_eq!(
        run(&["--read-only", "--tmpfs", "/tmp"], &["write", "/tmp/x", "1", "read", "/tmp/x"]).ok(),
        "1\n"
    );
    assert_eq!(
        run(&["-v", &mount], &["read", "/data/file", "write", "/data/mine", "m"]).ok(),
        "of the host\n"
    );
    assert_eq!(fs_err::read_to_string(host.path("data/mine")).unwrap().trim(), "m");
}

/// Names that mean something to a layer are names like others to the kernel, and no layer can have them.
#[test]
fn names_that_a_layer_cannot_have() {
    let Some(host) = host(&[("probe:1", image())]) else { return };
    let run = host.dhow(["run", "--name", "odd"]).args(KERNEL).args(["probe:1"]);
    assert_eq!(run.args(["write", "/etc/.wh.kept", "x", "read", "/etc/kept"]).ok(), "kept\n");
    assert_eq!(host.dhow(["diff", "odd"]).ok(), "C /etc\nA /etc/.wh.kept\n");
    host.dhow(["commit", "odd", "odd:1"]).rejected(1, "has a name that would remove another file");
}

#[test]
fn functions_answer_as_they_should() {
    let image = Image::wasm()
        .layer(
            Tree::new()
                .file("lower.txt", 0o644, "lower\n")
                .symlink("link", "lower.txt")
                .dir("dir", 0o755)
                .file("dir/a", 0o644, "")
                .file("dir/gone", 0o644, ""),
        )
        .layer(Tree::new().dir("dir", 0o755).whiteout("dir/gone").file("dir/b", 0o644, ""))
        .layer(Tree::new().file("wasi.wasm", 0o644, guest("wasi.wasm")))
        .entrypoint(&["/wasi.wasm"]);
    let Some(host) = host(&[("wasi:1", image)]) else { return };
    for _ in 0..2 {
        assert_eq!(host.dhow(["run", "--rm"]).args(KERNEL).args(["wasi:1"]).ok(), "");
    }
}

#[test]
fn who_may_not_mount_is_told_so() {
    let Some(host) = Host::unprivileged() else { return };
    host.load(&[("probe:1", image())]);
    let run = host.dhow(["run", "--rm"]).args(KERNEL).args(["probe:1", "ls", "/"]);
    run.refused(125, "may not mount the kernel's overlay");
    host.dhow(["run", "--rm", "--storage-opt", "files=other", "probe:1"])
        .rejected(125, "`union` or `kernel`");
    host.has_no_container();
}
