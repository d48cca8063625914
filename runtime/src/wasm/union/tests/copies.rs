//! Copy-up: who an object is before and after, hard links, and whole directories that are moved.

use super::{Tree, make, tree};
use crate::wasm::union::{Errno, Kind};

#[cfg(unix)]
#[test]
fn numbers_outlive_everything() {
    let tree = tree(&[&["dir/a=1", "dir/b=2", "dir/sub/c=3", "x=4"], &["dir/d=5"]]);
    let paths = ["dir", "dir/a", "dir/b", "dir/sub", "dir/sub/c", "x", "dir/d"];
    let before = paths.map(|path| tree.ino(path));
    for path in ["dir/a", "dir/sub/c", "x"] {
        tree.append(path, "+").expect(path);
    }
    tree.rename("x", "dir/x").expect("rename");
    tree.rename("dir/x", "x").expect("and back");
    tree.unlink("dir/d").expect("unlink");
    tree.write("dir/d", "another").expect("write");
    for later in [None, Some(tree.again())] {
        let union = later.as_ref().unwrap_or(&tree.union);
        for (path, before) in paths.iter().zip(before).filter(|(path, _)| **path != "dir/d") {
            assert_eq!(union.stat(union.root(), path, false).expect(path).ino, before, "{path}");
            // What a listing says is what stat says.
            let (parent, name) = path.rsplit_once('/').unwrap_or((".", path));
            let listing = union.directory(union.root(), parent).expect(parent).list().expect(parent);
            let listed = listing.iter().find(|entry| entry.name == name).map(|entry| entry.ino);
            assert_eq!(listed, Some(before), "{path}");
        }
        assert_ne!(union.stat(union.root(), "dir/d", false).expect("d").ino, before[6], "a new file");
    }
}

#[cfg(unix)]
#[test]
fn a_moved_copy_keeps_its_number_and_a_new_file_gets_its_own() {
    let tree = tree(&[&["log=old", "place/"]]);
    let number = tree.ino("log");
    tree.rename("log", "place/log.1").expect("rotate");
    tree.write("log", "new").expect("write");
    for union in [&tree.union, &tree.again()] {
        let stat = |path: &str| union.stat(union.root(), path, false).expect(path);
        assert_eq!((stat("place/log.1").ino, stat("place/log.1").stat.links), (number, 1));
        assert_ne!(stat("log").ino, number);
        let listing = union.directory(union.root(), "place").expect("dir").list().expect("list");
        assert_eq!(listing.get(0).map(|entry| entry.ino), Some(number));
    }
    tree.unlink("place/log.1").expect("unlink");
    let hidden = fs_err::read_dir(tree.upper(".wh..wh.dhow")).expect("the hidden folder");
    assert_eq!(hidden.count(), 0, "nothing of a removed copy stays");
}

#[cfg(unix)]
#[test]
fn hard_links_of_a_layer_stay_links() {
    let tree = tree(&[&["bin/a=one"]]);
    let layer = tree.temp.path().join("layer0");
    fs_err::hard_link(layer.join("bin/a"), layer.join("bin/b")).expect("link");
    fs_err::hard_link(layer.join("bin/a"), layer.join("c")).expect("link");
    let number = tree.ino("bin/a");
    tree.append("bin/a", "+").expect("append");
    for union in [&tree.union, &tree.again()] {
        let tree = |path: &str| union.stat(union.root(), path, false).expect(path);
        for path in ["bin/a", "bin/b", "c"] {
            assert_eq!((tree(path).ino, tree(path).stat.size), (number, 4), "{path}");
        }
    }
    assert_eq!(tree.read("c").as_deref(), Ok("one+"));
    tree.append("c", "+").expect("append by another name");
    assert_eq!(tree.read("bin/a").as_deref(), Ok("one++"));
    tree.unlink("bin/a").expect("unlink");
    tree.rename("bin/b", "moved").expect("rename");
    assert_eq!(tree.names("bin"), [""; 0]);
    tree.append("moved", "!").expect("append");
    assert_eq!(tree.read("c").as_deref(), Ok("one++!"));
    tree.write("c", "").expect("truncate");
    assert_eq!(tree.read("moved").as_deref(), Ok(""));
    let root = tree.root();
    tree.union.link((&root, "moved"), false, (&root, "again")).expect("link");
    assert_eq!(tree.ino("again"), number);
    assert_eq!(fs_err::read_to_string(layer.join("c")).expect("read"), "one");
}

#[test]
fn directories_are_moved_with_what_layers_have_in_them() {
    let tree = tree(&[
        &["app/bin/tool=t", "app/lib/a=1", "app/lib/deep/er/b=2", "app/gone=x", "other/old=o"],
        &["app/lib/a=top", "app/.wh.gone="],
    ]);
    tree.write("app/lib/new", "n").expect("write");
    tree.unlink("app/lib/deep/er/b").expect("unlink");
    let number = tree.ino("app");
    tree.rename("app", "moved").expect("rename");
    assert_eq!(tree.kind("app"), Err(Errno::NotFound));
    let held = tree.union.directory(&tree.root(), "moved/lib").expect("dir");
    tree.rename("moved", "other/moved").expect("again, now without copying");
    assert_eq!(held.path(), "/other/moved/lib");
    for later in [None, Some(tree.again())] {
        let union = later.as_ref().unwrap_or(&tree.union);
        let names = |path: &str| {
            let listing = union.directory(union.root(), path).expect(path).list().expect(path);
            let mut names: Vec<_> = listing.iter().map(|entry| entry.name.to_owned()).collect();
            names.sort();
            names
        };
        assert_eq!(names("."), ["other"]);
        assert_eq!(names("other"), ["moved", "old"]);
        assert_eq!(names("other/moved"), ["bin", "lib"]);
        assert_eq!(names("other/moved/lib"), ["a", "deep", "new"]);
        assert_eq!(names("other/moved/lib/deep/er"), [""; 0]);
        if cfg!(unix) {
            assert_eq!(union.stat(union.root(), "other/moved", false).expect("stat").ino, number);
        }
    }
    assert_eq!(tree.read("other/moved/lib/a").as_deref(), Ok("top"));
    // What takes the old name shows nothing of it, and may be moved over by what came from it.
    tree.mkdir("app").expect("mkdir");
    assert_eq!(tree.names("app"), [""; 0]);
    tree.rename("other/moved", "app").expect("back");
    assert_eq!(tree.names("app"), ["bin", "lib"]);
    assert_eq!(tree.names("app/lib"), ["a", "deep", "new"]);
    assert_eq!(tree.rename("app", "other"), Err(Errno::NotEmpty));
}

#[cfg(unix)]
#[test]
fn long_names_and_names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt as _;
    let (long, longest) = ("l".repeat(253), "m".repeat(255));
    let tree = tree(&[&["dir/a=1", "dir/sub/b=2"]]);
    let dir = tree.temp.path().join("layer0/dir");
    for name in [&long, &longest] {
        fs_err::write(dir.join(name), "lower").expect("write");
    }
    let odd = std::ffi::OsStr::from_bytes(b"sub/\xff\xfe");
    fs_err::write(dir.join(odd), "no text").expect("write");
    // Seen, but not by name; neither lost when its directory is moved nor in the way of nothing.
    assert_eq!(tree.names("dir/sub"), ["b"]);
    tree.unlink("dir/sub/b").expect("unlink");
    assert_eq!(tree.rmdir("dir/sub"), Err(Errno::NotEmpty));
    tree.rename("dir/sub", "moved").expect("rename");
    assert_eq!(
        fs_err::read_to_string(tree.upper("moved").join(std::ffi::OsStr::from_bytes(b"\xff\xfe")))
            .expect("read"),
        "no text"
    );
    let path = |name: &str| format!("dir/{name}");
    tree.append(&path(&long), "+").expect("copy-up");
    assert_eq!(tree.names("dir"), ["a", &long, &longest]);
    #[cfg(target_os = "linux")]
    {
        // Their marks would be too long; the kernel overlay's are not.
        tree.unlink(&path(&long)).expect("unlink a copy");
        tree.unlink(&path(&longest)).expect("unlink");
        for union in [&tree.union, &tree.again()] {
            assert_eq!(union.stat(union.root(), &path(&long), false).err(), Some(Errno::NotFound));
            assert_eq!(union.directory(union.root(), "dir").expect("dir").list().expect("list").len(), 1);
        }
        tree.mkdir(&path(&long)).expect("mkdir over the mark");
        tree.write(&path(&longest), "new").expect("write over the mark");
        assert_eq!(tree.read(&path(&longest)).as_deref(), Ok("new"));
        tree.rename(&path(&longest), "dir/short").expect("rename");
        assert_eq!(tree.rename("dir/short", &path(&long)), Err(Errno::IsDir));
        tree.rmdir(&path(&long)).expect("rmdir");
        tree.rename("dir/short", &path(&long)).expect("rename over the mark");
        tree.mkdir("new").expect("mkdir");
        tree.unlink(&path(&long)).expect("unlink");
        tree.rename("new", &path(&long)).expect("a directory over the mark");
        assert_eq!(
            tree.again().directory(tree.again().root(), "dir").expect("dir").list().expect("list").len(),
            2
        );
        let root = tree.root();
        tree.union.symlink("a", &root, &path(&longest)).expect("symlink over the mark");
        tree.unlink(&path(&longest)).expect("unlink");
        tree.union.link((&root, "dir/a"), false, (&root, &path(&longest))).expect("link over the mark");
        assert_eq!(tree.read(&path(&longest)).as_deref(), Ok("1"));
    }
    let longer = "x".repeat(300);
    assert_eq!(tree.mkdir(&longer), Err(Errno::NameTooLong));
    assert_eq!(tree.unlink(&format!("dir/{longer}")), Err(Errno::NameTooLong));
}

#[cfg(target_os = "linux")]
#[test]
fn attributes_and_holes_are_copied() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    use std::os::unix::fs::MetadataExt as _;
    let tree = tree(&[&["dir/file=data"]]);
    let lower = tree.temp.path().join("layer0/dir");
    setxattr(lower.join("file"), "user.kept", b"yes", XattrFlags::empty()).expect("xattr");
    setxattr(lower.join("file"), "user.overlay.origin", b"no", XattrFlags::empty()).expect("xattr");
    setxattr(&lower, "user.dir", b"too", XattrFlags::empty()).expect("xattr");
    let sparse = fs_err::File::options().write(true).open(lower.join("file")).expect("open");
    sparse.set_len(64 << 20).expect("a hole");
    let when = fs_err::metadata(lower.join("file")).expect("stat").modified().expect("time");
    tree.rename("dir/file", "dir/copy").expect("rename");
    let copy = fs_err::metadata(tree.upper("dir/copy")).expect("stat");
    assert_eq!(copy.len(), 64 << 20);
    assert!(copy.blocks() < 1000, "{} blocks for one page of data", copy.blocks());
    assert_eq!(copy.modified().expect("time"), when);
    let mut value = [0; 16];
    let length = getxattr(tree.upper("dir/copy"), "user.kept", &mut value).expect("xattr");
    assert_eq!(&value[..length], b"yes");
    assert!(getxattr(tree.upper("dir/copy"), "user.overlay.origin", &mut value).is_err());
    assert_eq!(getxattr(tree.upper("dir"), "user.dir", &mut value), Ok(3));
}

#[test]
fn a_tree_as_deep_as_descriptors_allow() {
    let tree = tree(&[&["a=1"]]);
    let mut node = tree.root();
    for _ in 0..300 {
        tree.union.mkdir(&node, "d").expect("mkdir");
        node = tree.union.directory(&node, "d").expect("open");
    }
    assert_eq!(node.path().len(), 600);
    assert_eq!(node.metadata().map(|found| found.stat.kind), Ok(Kind::Dir));
    tree.rename("d", "e").expect("rename");
    tree.union.mkdir(&node, "last").expect("mkdir");
    assert_eq!(node.path().get(..4), Some("/e/d"));
}

#[test]
fn drops_of_deep_trees_need_no_stack() {
    let (fs, stack) = (tree(&[&["a=1"]]), Vec::new());
    let mut node = fs.root();
    for _ in 0..200_000 {
        let place = super::super::node::Place { parent: node, name: "d".into() };
        node =
            super::super::node::Node::new(std::sync::Arc::clone(&fs.root().fs), Some(place), stack.clone());
    }
    drop(node);
}

/// Whatever one process does, a copy of the tree made by another way is as good: nothing is left half-made.
#[test]
fn what_is_half_made_is_not_seen() {
    let tree: Tree = tree(&[&["a=1"]]);
    make(&tree.upper(""), &[".wh..wh.dhow/.wh..wh.dhow.1.0=half", ".wh..wh.dhow.1.1=half"]);
    assert_eq!(tree.names("."), ["a"]);
    assert_eq!(tree.kind(".wh..wh.dhow"), Err(Errno::NotFound));
    tree.append("a", "+").expect("append");
    tree.write("b", "1").expect("write");
    assert_eq!(tree.names("."), ["a", "b"]);
}
