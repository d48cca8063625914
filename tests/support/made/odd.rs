//! An image with everything that a file system can hold, packed by GNU tar: three layers, the upper two of which add,
//! change, replace, remove and hide.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

use super::{Image, tool};

/// Version 2 of a file capability: `cap_net_raw` permitted and effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The image; needs root for its devices and owners.
pub(crate) fn odd() -> Image {
    let [lower, middle, upper] = [lower as fn(&Path), middle, upper].map(|fill| {
        let dir = tempfile::Builder::new().prefix("dhow-odd-").tempdir().expect("temporary folder");
        fill(dir.path());
        pack(dir.path())
    });
    Image::native().archive(lower).archive(middle).archive(upper).entrypoint(&["/bin/sh"])
}

fn lower(root: &Path) {
    for name in ["bin", "dir", "dir/deep/er", "sticky", "replaced-dir", "hidden/inner", "links", "empty"] {
        fs_err::create_dir_all(root.join(name)).expect("folder");
    }
    fs_err::copy("/bin/busybox", root.join("bin/busybox")).expect("Debian package busybox-static");
    link(root, "bin/sh", "busybox");
    let long = "n".repeat(200);
    for (name, mode) in [
        ("file", "644"),
        ("setuid", "4755"),
        ("setgid", "2711"),
        ("none", "0"),
        ("all", "7777"),
        ("kept", "600"),
        ("removed", "644"),
        ("replaced-file", "644"),
        ("replaced-dir/in", "644"),
        ("hidden/inner/file", "644"),
        ("hidden/other", "640"),
        ("dir/deep/er/file", "644"),
        ("grüße", "644"),
        ("with space\nand line", "644"),
        (long.as_str(), "644"),
        ("links/first", "644"),
        ("capable", "755"),
        ("noted", "644"),
        ("owned", "644"),
        ("changed", "644"),
    ] {
        file(root, name, &format!("content of {name}\n"), mode);
    }
    fs_err::write(root.join(OsStr::from_bytes(b"latin-\xe9")), "no UTF-8").expect("file");
    fs_err::write(root.join("nothing"), "").expect("file");
    for (name, target) in [("links/second", "links/first"), ("third", "links/first")] {
        fs_err::hard_link(root.join(target), root.join(name)).expect("hard link");
    }
    for (name, target) in
        [("relative", "dir/deep"), ("absolute", "/etc/passwd"), ("dangling", "../../nowhere")]
    {
        link(root, name, target);
    }
    let node = |name: &str, rest: &[&str]| tool(Command::new("mknod").arg(root.join(name)).args(rest));
    node("fifo", &["p"]);
    node("null", &["c", "1", "3"]);
    node("block", &["b", "7", "99"]);
    for (name, attribute, value) in [
        ("capable", "security.capability", &CAPABILITY[..]),
        ("noted", "user.note", b"some \0 bytes"),
        ("dir", "user.of-a-dir", b"x"),
    ] {
        rustix::fs::setxattr(root.join(name), attribute, value, rustix::fs::XattrFlags::empty())
            .expect("xattr");
    }
    owner(root, "owned", "100000:200000");
    owner(root, "setuid", "1000:50");
    owner(root, "relative", "3000000:7");
    // Owners are changed first: that takes set-user-id away.
    mode(root, "setuid", "4755");
    mode(root, "dir", "2755");
    mode(root, "sticky", "1777");
    for (n, name) in ["file", "dir/deep/er/file", "sticky", "links/first", "fifo", "relative", "dir", "."]
        .iter()
        .enumerate()
    {
        time(root, name, &format!("@170000000{n}.12345678{n}"));
    }
}

fn middle(root: &Path) {
    file(root, ".wh.removed", "", "600");
    file(root, "dir/deep/.wh.er", "", "600");
    file(root, ".wh.not-there", "", "600");
    file(root, "hidden/.wh..wh..opq", "", "600");
    file(root, "hidden/new", "only this is seen", "644");
    file(root, "changed", "changed in the second layer\n", "600");
    fs_err::create_dir_all(root.join("replaced-file")).expect("folder");
    file(root, "replaced-file/in", "a folder in the place of a file", "644");
    link(root, "replaced-dir", "sticky");
    file(root, "pair-a", "one file, two names", "644");
    fs_err::hard_link(root.join("pair-a"), root.join("dir/pair-b")).expect("hard link");
    for (name, at) in [
        (".", "@1710000000.5"),
        ("dir", "@1710000001.25"),
        ("dir/deep", "@1710000002"),
        ("hidden", "@1710000003.000000001"),
    ] {
        time(root, name, at);
    }
}

fn upper(root: &Path) {
    file(root, "removed", "and is here again\n", "644");
    file(root, "changed", "and once more\n", "644");
    file(root, "hidden/.wh.new", "", "600");
    file(root, ".wh.empty", "", "600");
    for (name, at) in [(".", "@1720000000.75"), ("hidden", "@1720000001")] {
        time(root, name, at);
    }
}

fn file(root: &Path, name: &str, content: &str, bits: &str) {
    let path = root.join(name);
    fs_err::create_dir_all(path.parent().expect("has a parent")).expect("folder");
    fs_err::write(&path, content).expect("file");
    mode(root, name, bits);
}

fn mode(root: &Path, name: &str, bits: &str) {
    tool(Command::new("chmod").arg(bits).arg(root.join(name)));
}

fn owner(root: &Path, name: &str, to: &str) {
    tool(Command::new("chown").args(["-h", to]).arg(root.join(name)));
}

fn time(root: &Path, name: &str, at: &str) {
    tool(Command::new("touch").args(["-h", "-d", at]).arg(root.join(name)));
}

fn link(root: &Path, name: &str, target: &str) {
    fs_err::os::unix::fs::symlink(target, root.join(name)).expect("symbolic link");
}

fn pack(root: &Path) -> Vec<u8> {
    let mut tar = Command::new("tar");
    tar.args([
        "--format=pax",
        "--sort=name",
        "--numeric-owner",
        "--xattrs",
        "--xattrs-include=*",
        "-c",
        "-C",
    ]);
    let output = tar.arg(root).arg(".").output().expect("tar");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
