//! Directories that a layer has files in without an entry of their own: they keep what the layers below say of them,
//! mode, owner, times and attributes, as they do for `umoci unpack`, in every form that layers are kept in.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Host, Image, Layout, Tree, differences, is_root, listing, tool, umoci};

/// A layer with directories that are not like those that nobody described.
fn lower() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
        mkdir -p d/deep/er hidden gone; echo 1 > d/file; echo 2 > hidden/old; echo 3 > gone/old
        chown 1234:70000 d; chmod 2750 d; chmod 1777 d/deep; chown 5:6 hidden; chmod 711 hidden gone
        touch -d '2001-02-03 04:05:06.123456789' d; touch -d '1969-12-31 23:59:50' d/deep hidden gone
        touch -d '2020-01-01' .
    "#;
    tool(Command::new("sh").args(["-euc", script]).current_dir(dir.path()));
    rustix::fs::setxattr(dir.path().join("d"), "user.k", b"v", rustix::fs::XattrFlags::empty()).unwrap();
    let archive = tempfile::NamedTempFile::new().unwrap();
    let mut pack = Command::new("tar");
    pack.args(["--format=pax", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-cf"])
        .arg(archive.path());
    tool(pack.arg("-C").arg(dir.path()).arg("."));
    fs_err::read(archive.path()).unwrap()
}

/// A layer that names files only.
fn upper() -> Tree {
    Tree::new()
        .file("d/new", 0o644, "n")
        .file("d/deep/er/new", 0o644, "n")
        .file("hidden/.wh..wh..opq", 0o644, "")
        .file("hidden/new", 0o644, "n")
        .whiteout("gone")
        .file("gone/new", 0o644, "n")
        .file("fresh/new", 0o644, "n")
}

fn image() -> Image {
    Image::native()
        .archive(lower())
        .layer(upper())
        .layer(Tree::new().file("d/third", 0o600, "3"))
        .cmd(&["/x"])
}

/// Without what is new in the layer: nobody said anything about these directories.
fn known(mut tree: BTreeMap<String, String>) -> BTreeMap<String, String> {
    // umoci leaves the root as its work left it, and in an overlay of directories the uppermost layer's is seen.
    tree.remove("");
    for name in ["gone", "fresh"] {
        assert!(tree.remove(name).is_some_and(|line| line.starts_with("40755 0:0 ")), "{name}: {tree:#?}");
    }
    tree
}

#[test]
fn unnamed_parents_are_as_the_layers_below_have_them() {
    if !is_root() {
        println!("skipped: owners need root");
        return;
    }
    let layout = Layout::new();
    layout.tag(&layout.image(&image()), "it:1");
    let bundle = tempfile::tempdir().unwrap();
    let unpacked = bundle.path().join("bundle");
    tool(umoci(["unpack", "--image", &format!("{}:it:1", layout.path().display())]).arg(&unpacked));
    let reference = known(listing(&unpacked.join("rootfs")));
    assert!(reference["d"].contains("1234:70000") && reference["d"].contains("user.k"), "{reference:#?}");
    for form in ["index", "files"] {
        let host = Host::new();
        host.dhow(["load", "-q", "-i", layout.path().to_str().unwrap()]).ok();
        let path = host.dhow(["image", "mount", "it:1"]).env("DHOW_LAYERS", form).ok();
        let ours = known(listing(Path::new(path.trim())));
        let differ = differences(&reference, &ours);
        assert!(differ.is_empty(), "{form}: {}", differ.join("\n"));
        host.dhow(["image", "unmount", "it:1"]).ok();
        host.check();
        let sizes = host.dhow(["image", "history", "--format", "{{.Size}}", "it:1"]).ok();
        assert!(!sizes.is_empty());
        host.dhow(["rmi", "it:1"]).ok();
        assert_eq!(fs_err::read_dir(host.root().join("layers")).unwrap().count(), 0, "{form}");
    }
}

/// The same layer over two others is two directories; alone it is one more.
#[test]
fn one_layer_over_different_layers() {
    let shared = || Tree::new().file("d/file", 0o644, "shared");
    let over = |mode| Image::native().layer(Tree::new().dir("d", mode)).layer(shared()).cmd(&["/x"]);
    let host = Host::new();
    host.load(&[
        ("a:1", over(0o700)),
        ("b:1", over(0o711)),
        ("c:1", Image::native().layer(shared()).cmd(&["/x"])),
    ]);
    for (name, mode) in [("a:1", 0o700), ("b:1", 0o711), ("c:1", 0o755)] {
        let made =
            host.dhow(["create", "--layers", "files", "--name", &format!("of-{}", &name[..1]), name]).ok();
        assert!(!made.is_empty());
        let folders =
            host.dhow(["image", "inspect", "--format", "{{.GraphDriver.Data.UpperDir}}", name]).ok();
        let d = Path::new(folders.trim()).join("d");
        assert_eq!(fs_err::metadata(&d).unwrap().mode() & 0o7777, mode, "{name}");
        assert_eq!(fs_err::read(d.join("file")).unwrap(), b"shared");
    }
    host.check();
    host.dhow(["rm", "of-a", "of-b", "of-c"]).ok();
    host.dhow(["rmi", "a:1"]).ok();
    host.check();
    host.dhow(["rmi", "b:1", "c:1"]).ok();
    assert_eq!(fs_err::read_dir(host.root().join("layers")).unwrap().count(), 0);
}

/// Prints the time of `/d` as the eight bytes of `path_filestat_get`.
const TIME: &str = r#"(module
  (import "wasi_snapshot_preview1" "path_filestat_get"
    (func $stat (param i32 i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "d")
  (func (export "_start")
    (if (call $stat (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 64)) (then unreachable))
    (i32.store (i32.const 16) (i32.const 112))
    (i32.store (i32.const 20) (i32.const 8))
    (if (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 24)) (then unreachable))))"#;

#[test]
fn a_wasm_program_sees_the_time_of_the_layer_below() {
    let host = Host::new();
    let image = Image::wasm()
        .layer(Tree::new().dir("d", 0o755))
        .layer(Tree::new().file("d/p.wasm", 0o644, wat::parse_str(TIME).unwrap()))
        .entrypoint(&["/d/p.wasm"]);
    host.load(&[("time:1", image)]);
    let run = host.dhow(["run", "--rm", "time:1"]).into_command().output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let time = u64::from_le_bytes(run.stdout.try_into().unwrap());
    assert_eq!(time, 1_700_000_000_000_000_000);
}
