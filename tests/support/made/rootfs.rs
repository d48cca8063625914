//! Root file systems for native images: a busybox, and a Debian that debootstrap makes once.

use std::process::Command;

use super::{Image, Tree, cache, is_root, once, tool};

/// busybox with a link for each of its commands, a root user, a user `app` (1000) and a group `staff` (50).
pub(crate) fn busybox() -> Image {
    let program = "/bin/busybox";
    let bytes = fs_err::read(program).expect("Debian package busybox-static");
    let mut tree = Tree::new();
    for dir in ["bin", "etc", "home", "home/app", "proc", "dev", "sys", "root", "usr", "var"] {
        tree = tree.dir(dir, 0o755);
    }
    tree = tree.dir("tmp", 0o1777).file("bin/busybox", 0o755, bytes);
    for name in tool(Command::new(program).arg("--list")).lines().filter(|name| *name != "busybox") {
        tree = tree.symlink(&format!("bin/{name}"), "busybox");
    }
    let tree = tree
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1000:app:/home/app:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nstaff:x:50:app\napp:x:1000:\n");
    Image::native()
        .layer(tree)
        .config(
            "Env",
            serde_json::json!(["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]),
        )
        .cmd(&["sh"])
}

/// A minimal Debian, as `debootstrap --variant=minbase` makes it; `None`, with a note, without root.
pub(crate) fn debian() -> Option<Image> {
    let dir = cache("debian");
    let archive = dir.join("minbase.tar");
    if !is_root() && !archive.exists() {
        println!("skipped: debootstrap needs root");
        return None;
    }
    once(&dir, "bookworm", || {
        let root = dir.join("root");
        let packages = dir.join("debootstrap.log");
        drop(fs_err::remove_dir_all(&root));
        let made = Command::new("debootstrap")
            .args(["--variant=minbase", "bookworm"])
            .arg(&root)
            .stdout(fs_err::File::create(&packages).expect("log").into_parts().0)
            .status()
            .expect("Debian package debootstrap");
        assert!(made.success(), "debootstrap: see {}", packages.display());
        let excluded =
            ["--exclude=./var/cache/apt/*", "--exclude=./var/lib/apt/lists/*", "--exclude=./dev/*"];
        tool(Command::new("tar").arg("-cf").arg(&archive).args(excluded).arg("-C").arg(&root).arg("."));
        fs_err::remove_dir_all(&root).expect("remove the unpacked tree");
    });
    let image = Image::native().archive(fs_err::read(&archive).expect("Debian archive"));
    Some(image.cmd(&["bash"]).config("Env", serde_json::json!(["PATH=/usr/sbin:/usr/bin:/sbin:/bin"])))
}
