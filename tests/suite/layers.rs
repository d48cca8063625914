//! What is in layers: unpacked as others do, mounted, taken apart, compared.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Host, Image, Layout, Squeeze, Tree, busybox, digest_of, is_root, tool, umoci};

/// An image that was loaded from a layout, which others can read as well.
fn load(host: &Host, name: &str, image: &Image) -> Layout {
    let layout = Layout::new();
    layout.tag(&layout.image(image), name);
    host.dhow(["load", "-q", "-i", layout.path().to_str().unwrap()]).ok();
    layout
}

/// Everything that can be seen of a tree, by path. The root is not in it.
fn facts(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs_err::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs_err::symlink_metadata(&path).unwrap();
            let content = if meta.is_file() {
                digest_of(&fs_err::read(&path).unwrap())
            } else if meta.is_symlink() {
                fs_err::read_link(&path).unwrap().display().to_string()
            } else {
                String::new()
            };
            // A directory's link count and size are the file system's business.
            let counted = if meta.is_dir() { (0, 0) } else { (meta.nlink(), meta.size()) };
            let mut fact = format!(
                "{:o} {}:{} {counted:?} {}.{:09} {:x} {content}",
                meta.mode(),
                meta.uid(),
                meta.gid(),
                meta.mtime(),
                meta.mtime_nsec(),
                meta.rdev(),
            );
            for name in ["user.k", "security.capability"] {
                let mut value = [0; 64];
                if let Ok(length) = rustix::fs::lgetxattr(&path, name, &mut value[..]) {
                    fact += &format!(" {name}={:?}", &value[..length]);
                }
            }
            all.insert(path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), fact);
            if meta.is_dir() {
                todo.push(path);
            }
        }
    }
    all
}

/// Names only what differs.
fn assert_same(ours: &BTreeMap<Vec<u8>, String>, theirs: &BTreeMap<Vec<u8>, String>, what: &str) {
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ: Vec<_> = names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| (String::from_utf8_lossy(name), ours.get(name), theirs.get(name)))
        .collect();
    assert!(differ.is_empty(), "{what}: ours and theirs: {differ:#?}");
}

/// A folder with everything that GNU tar can pack.
fn everything(dir: &Path) {
    let script = r#"
        mkdir -p d/deep d/locked "d/$(printf 'x%.0s' $(seq 200))"
        echo content > d/file; echo more > d/deep/file; printf odd > "d/$(printf '\377\376')"
        echo long > "d/$(printf 'x%.0s' $(seq 200))/$(printf 'y%.0s' $(seq 250))"
        ln d/file d/hard; ln -s ../nowhere d/soft; ln -s "$(printf 'z%.0s' $(seq 300))" d/longlink
        mkfifo d/pipe; mknod d/null c 1 3; mknod d/block b 7 200
        truncate -s 3M d/sparse; printf start | dd of=d/sparse conv=notrunc status=none
        printf end | dd of=d/sparse bs=1 seek=2000000 conv=notrunc status=none
        truncate -s 1M d/hole
        chown 1234:70000 d/deep/file; chown -h 5:6 d/soft
        chmod 4755 d/file; chmod 2750 d/deep; chmod 1777 d; chmod 0 d/locked
        touch -d '2001-02-03 04:05:06.123456789' d/deep/file; touch -d '1969-12-31 23:59:50' d/hole
        touch -h -d '2011-11-11 11:11:11' d/soft; touch -d '2002-02-02 02:02:02' d/deep
    "#;
    tool(Command::new("sh").args(["-euc", script]).current_dir(dir));
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::setxattr(dir.join(name), key, value, rustix::fs::XattrFlags::empty()).unwrap();
    };
    set("d/file", "user.k", b"v");
    set("d/deep", "user.k", b"of a folder");
    // cap_net_bind_service, permitted and effective.
    set("d/file", "security.capability", &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn archives_of_gnu_tar_unpack_as_by_umoci_and_by_tar() {
    if !is_root() {
        println!("skipped: owners and devices need root");
        return;
    }
    let source = tempfile::tempdir().unwrap();
    everything(source.path());
    for (format, more) in [
        ("pax", &["--xattrs", "--xattrs-include=*"][..]),
        ("pax", &["--sparse", "--sparse-version=1.0", "--xattrs", "--xattrs-include=*"]),
        ("pax", &["--sparse", "--sparse-version=0.1"]),
        ("pax", &["--sparse", "--sparse-version=0.0"]),
        ("gnu", &["--sparse"]),
        ("gnu", &[]),
    ] {
        let archive = source.path().join("layer.tar");
        let mut pack = Command::new("tar");
        pack.arg(format!("--format={format}")).args(more).arg("-cf").arg(&archive);
        tool(pack.arg("-C").arg(source.path()).arg("d"));
        let image = Image::native().archive(fs_err::read(&archive).unwrap()).cmd(&["/x"]);
        let host = Host::new();
        let layout = load(&host, "everything:1", &image);
        let path = host.dhow(["image", "mount", "everything:1"]).ok();
        let ours = facts(&Path::new(path.trim()).join("d"));
        host.dhow(["image", "unmount", "everything:1"]).ok();

        let by_tar = tempfile::tempdir().unwrap();
        let mut unpack = Command::new("tar");
        unpack.args(["-p", "--xattrs", "--xattrs-include=*", "--numeric-owner", "-xf"]).arg(&archive);
        tool(unpack.arg("-C").arg(by_tar.path()));
        assert_same(&ours, &facts(&by_tar.path().join("d")), &format!("tar {format} {more:?}"));

        if (format, more) == ("gnu", &["--sparse"][..]) {
            // umoci does not know this form.
            continue;
        }
        let bundle = source.path().join("bundle");
        let name = format!("{}:everything:1", layout.path().display());
        tool(umoci(["unpack", "--image", &name]).arg(&bundle));
        let theirs = facts(&bundle.join("rootfs/d"));
        fs_err::remove_dir_all(&bundle).unwrap();
        assert_same(&ours, &theirs, &format!("umoci {format} {more:?}"));
    }
}

#[test]
fn layers_on_top_of_each_other_are_what_umoci_makes_of_them() {
    if !is_root() {
        println!("skipped: owners and devices need root");
        return;
    }
    let image = Image::native()
        .cmd(&["/x"])
        .layer(
            Tree::new()
                .dir("a", 0o755)
                .file("a/gone", 0o644, "1")
                .file("a/stays", 0o644, "2")
                .dir("hidden", 0o700)
                .file("hidden/old", 0o644, "3")
                .dir("folder", 0o755)
                .file("folder/x", 0o644, "4")
                .file("file", 0o644, "5")
                .symlink("link", "a")
                .dir("whole", 0o755)
                .file("whole/x", 0o644, ""),
        )
        .layer(
            Tree::new()
                .dir("a", 0o711)
                .whiteout("a/gone")
                .opaque("hidden")
                .file("hidden/new", 0o600, "6")
                .file("folder", 0o644, "now a file")
                .dir("file", 0o755)
                .file("file/inside", 0o644, "7")
                .dir("link", 0o755)
                .file("link/inside", 0o644, "8")
                .whiteout("whole")
                .hardlink("second", "folder"),
        )
        .squeeze(Squeeze::Zstd);
    // This umoci knows no zstd.
    let plain = image.clone().squeeze(Squeeze::Gzip);
    let host = Host::new();
    load(&host, "zstd:1", &image);
    let layout = load(&host, "gzip:1", &plain);
    let bundle = tempfile::tempdir().unwrap();
    tool(
        umoci(["unpack", "--image", &format!("{}:gzip:1", layout.path().display())])
            .arg(bundle.path().join("b")),
    );
    let theirs = facts(&bundle.path().join("b/rootfs"));
    for name in ["zstd:1", "gzip:1"] {
        let path = host.dhow(["image", "mount", name]).ok();
        assert_same(&facts(Path::new(path.trim())), &theirs, name);
    }
    host.dhow(["image", "unmount", "--all"]).ok();
}

#[test]
fn images_are_mounted_listed_and_unmounted() {
    let host = Host::new();
    load(&host, "busybox:1", &busybox());
    assert_eq!(host.dhow(["image", "mount", "--format", "{{.Path}}"]).ok(), "");
    if !is_root() {
        host.dhow(["image", "mount", "busybox:1"]).refused(1, "needs root");
        return;
    }
    let path = host.dhow(["image", "mount", "busybox:1"]).ok();
    let own = Path::new(path.trim());
    assert!(own.join("bin/busybox").is_file());
    fs_err::write(own.join("new"), "").unwrap_err();
    assert_eq!(host.dhow(["image", "mount", "busybox:1"]).ok(), path);
    fs_err::create_dir(host.path("a b")).unwrap();
    let other = host.text("a b");
    assert_eq!(host.dhow(["image", "mount", "busybox:1", &other]).ok(), format!("{other}\n"));
    host.dhow(["image", "mount", "busybox:1", &other]).rejected(1, "not empty");
    let list = host.dhow(["image", "mount", "--format", "{{.Image}} {{.Path}}"]).ok();
    assert_eq!(list, format!("busybox:1 {path}busybox:1 {other}\n"));
    host.check();
    // Its content stays for as long as it is mounted.
    host.dhow(["rmi", "busybox:1"]).ok();
    assert!(own.join("bin/busybox").is_file());
    let id = host.dhow(["image", "unmount", &other]).ok();
    assert!(id.starts_with("sha256:"), "{id}");
    host.dhow(["image", "unmount", &other]).rejected(1, "is not mounted");
    // Somebody unmounts it by hand, or the system starts anew.
    tool(Command::new("umount").arg(own));
    let found = host.dhow(["system", "check"]).fails(1).stdout;
    assert!(found.contains("is not mounted"), "{found}");
    host.dhow(["system", "check", "--repair"]).ok();
    host.check();
    assert_eq!(fs_err::read_dir(host.root().join("mounts")).unwrap().count(), 0);
    assert_eq!(fs_err::read_dir(host.root().join("leases")).unwrap().count(), 0);
}

#[test]
fn the_tree_of_an_image_says_what_layers_cost() {
    let host = Host::new();
    let image = Image::native()
        .cmd(&["/x"])
        .layer(Tree::new().file("big", 0o644, vec![7; 100_000]).file("a", 0o644, "1"))
        .layer(Tree::new().whiteout("big").file("b\x1b[2J", 0o644, "22"));
    load(&host, "tree:1", &image);
    let text = host.dhow(["image", "tree", "tree:1"]).ok();
    assert!(text.contains("100kB wasted"), "{text}");
    assert!(text.contains("/big  (hidden)") && !text.contains('\x1b'), "{text}");
    let json: Value =
        serde_json::from_str(&host.dhow(["image", "tree", "--format", "json", "tree:1"]).ok()).unwrap();
    let numbers: Vec<_> = json["Layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| {
            ["Files", "Size", "Added", "Replaced", "Deleted", "Wasted"].map(|key| l[key].as_u64().unwrap())
        })
        .collect();
    assert_eq!(numbers, [[2, 100_001, 2, 0, 0, 100_000], [1, 2, 1, 0, 1, 0]]);
    let out =
        host.dhow(["image", "tree", "--format", "{{range .Layers}}{{.CreatedBy}};{{end}}", "tree:1"]).ok();
    assert_eq!(out, "test;test;\n");
    host.dhow(["image", "tree", "absent:1"]).refused(1, "no such image");
}

#[test]
fn the_difference_of_images_is_told_by_name() {
    let host = Host::new();
    let base = Tree::new().dir("etc", 0o755).file("etc/same", 0o644, "x").file("etc/conf", 0o644, "1");
    let archive = base.finish();
    let one = Image::native().archive(archive.clone()).cmd(&["/x"]).layer(Tree::new().file("old", 0o644, ""));
    let two = Image::native()
        .archive(archive)
        .cmd(&["/x", "-v"])
        .layer(Tree::new().dir("etc", 0o755).file("etc/conf", 0o600, "22").owned("new", 0o644, (7, 8), ""));
    load(&host, "one:1", &one);
    load(&host, "two:1", &two);
    let out = host.dhow(["image", "diff", "one:1", "two:1"]).fails(1).stdout;
    let expected = "C setting config.Cmd ([\"/x\"] -> [\"/x\",\"-v\"])\n\
                    C /etc/conf (mode 644 -> 600, size 1B -> 2B, content)\n\
                    A /new\n\
                    D /old\n";
    assert_eq!(out, expected);
    assert_eq!(host.dhow(["image", "diff", "one:1", "one:1"]).ok(), "");
    let out =
        host.dhow(["image", "diff", "one:1", "two:1", "/etc", "--format", "{{.Change}}{{.Path}}"]).fails(1);
    assert_eq!(out.stdout, "C/etc/conf\n");
    let json = host.dhow(["image", "diff", "--format", "json", "one:1", "two:1", "new"]).fails(1).stdout;
    let row: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&row["After"]["UID"], &row["Before"]), (&Value::from(7), &Value::Null));
    host.dhow(["image", "diff", "one:1", "absent:1"]).refused(2, "no such image");
}

/// The same without the number of names that a file has.
fn without_links(facts: &BTreeMap<Vec<u8>, String>) -> BTreeMap<Vec<u8>, String> {
    let one = |fact: &String| match fact.split_once('(') {
        Some((before, rest)) => format!("{before}{}", rest.split_once(',').map_or(rest, |(_, after)| after)),
        None => fact.clone(),
    };
    facts.iter().map(|(path, fact)| (path.clone(), one(fact))).collect()
}

#[test]
fn hard_links_to_files_of_lower_layers_are_as_by_umoci() {
    if !is_root() {
        println!("skipped: owners need root");
        return;
    }
    let lower = Tree::new()
        .dir("d", 0o755)
        .owned("d/a", 0o4755, (1234, 70000), "of the lower layer")
        .file("e", 0o600, "e")
        .symlink("way", "/d");
    let upper = Tree::new()
        .dir("d", 0o755)
        .hardlink("one", "d/a")
        .hardlink("two", "one")
        .hardlink("d/e", "e")
        .file("e", 0o644, "new");
    let image =
        Image::native().layer(lower).layer(Tree::new().file("m", 0o644, "m")).layer(upper).cmd(&["/x"]);
    for form in ["index", "files"] {
        let host = Host::new();
        let layout = load(&host, "linked:1", &image);
        let path = host.dhow(["image", "mount", "linked:1"]).env("DHOW_LAYERS", form).ok();
        let ours = facts(Path::new(path.trim()));
        host.dhow(["image", "unmount", "linked:1"]).ok();
        let bundle = tempfile::tempdir().unwrap();
        let unpacked = bundle.path().join("bundle");
        tool(umoci(["unpack", "--image", &format!("{}:linked:1", layout.path().display())]).arg(&unpacked));
        let theirs = facts(&unpacked.join("rootfs"));
        assert!(theirs.len() > 6, "{theirs:?}");
        if form == "index" {
            assert_same(&ours, &theirs, form);
        } else {
            assert_same(&without_links(&ours), &without_links(&theirs), form);
        }
        host.check();
        host.dhow(["rmi", "linked:1"]).ok();
        assert_eq!(fs_err::read_dir(host.root().join("layers")).unwrap().count(), 0, "{form}");
    }
}
