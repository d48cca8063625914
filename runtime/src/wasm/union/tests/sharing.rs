//! Several processes with the same layers and the same writable directory: what one does, the others see.

use std::sync::Arc;

use super::{Tree, tree};
use crate::wasm::union::{Errno, Open, Opened, Union};

fn other(tree: &Tree) -> Tree {
    Tree { union: tree.again(), temp: tempfile::tempdir().expect("a directory") }
}

#[test]
fn what_one_does_the_other_sees() {
    let one = tree(&[&["dir/sub/f=1", "dir/g=2", "a=3", "b/c=4"]]);
    let two = other(&one);
    // Both know the directories before either has written.
    for tree in [&one, &two] {
        assert_eq!(tree.names("dir/sub"), ["f"]);
        assert_eq!(tree.names("b"), ["c"]);
    }
    let held = two.union.directory(&two.root(), "dir/sub").expect("dir");
    one.write("dir/sub/new", "by one").expect("write");
    assert_eq!(two.read("dir/sub/new").as_deref(), Ok("by one"));
    assert_eq!(held.list().expect("list").len(), 2);
    one.append("dir/sub/f", "+").expect("copy-up");
    assert_eq!(two.read("dir/sub/f").as_deref(), Ok("1+"));
    two.append("dir/sub/f", "!").expect("append");
    assert_eq!(one.read("dir/sub/f").as_deref(), Ok("1+!"));
    two.unlink("dir/g").expect("unlink");
    assert_eq!(one.read("dir/g"), Err(Errno::NotFound));
    one.write("dir/g", "again").expect("write");
    assert_eq!(two.read("dir/g").as_deref(), Ok("again"));
    // A directory goes, and another of its name comes.
    one.unlink("b/c").expect("unlink");
    one.rmdir("b").expect("rmdir");
    assert_eq!(two.kind("b"), Err(Errno::NotFound));
    one.mkdir("b").expect("mkdir");
    assert_eq!(two.names("b"), [""; 0]);
    two.write("b/x", "x").expect("write");
    assert_eq!(one.names("b"), ["x"]);
    // One is moved.
    one.rename("dir", "moved").expect("rename");
    assert_eq!(two.kind("dir"), Err(Errno::NotFound));
    assert_eq!(two.read("moved/sub/f").as_deref(), Ok("1+!"));
    // Who has it open stays in it.
    two.union.mkdir(&held, "late").expect("mkdir");
    assert_eq!(one.names("moved/sub"), ["f", "late", "new"]);
    let numbers = |path: &str| (one.ino(path), two.ino(path));
    for path in ["moved", "moved/sub", "moved/sub/f", "a", "b"] {
        let (one, two) = numbers(path);
        assert_eq!(one, two, "{path}");
    }
}

#[test]
fn a_removed_directory_is_empty_for_who_has_it_open() {
    let one = tree(&[&["low/f=1", "x=1"]]);
    let two = other(&one);
    one.mkdir("own").expect("mkdir");
    let held: Vec<_> =
        ["own", "low"].iter().map(|path| two.union.directory(&two.root(), path).expect(path)).collect();
    one.rmdir("own").expect("rmdir");
    one.unlink("low/f").expect("unlink");
    one.rmdir("low").expect("rmdir");
    for node in held {
        assert_eq!(node.list().expect("list").len(), 0);
        assert_eq!(two.union.mkdir(&node, "z"), Err(Errno::NotFound));
    }
    two.mkdir("low").expect("mkdir");
    assert_eq!(one.names("low"), [""; 0]);
}

/// Both copy the same files up and append to them, at the same time: no line is lost.
#[test]
fn copies_made_at_once_are_one() {
    let names: Vec<String> = (0..40).map(|number| format!("dir/f{number}=")).collect();
    let entries: Vec<&str> = names.iter().map(String::as_str).collect();
    let tree = tree(&[&entries]);
    let append = |union: &Union, who: usize| {
        for round in 0..200 {
            let path = format!("dir/f{}", round % 40);
            let how = Open { write: true, append: true, follow: true, ..Open::default() };
            match union.open(union.root(), &path, &how).expect(&path) {
                Opened::File(mut open) => {
                    std::io::Write::write_all(&mut open.file, format!("{who}\n").as_bytes()).expect(&path);
                }
                Opened::Dir(_) => panic!("{path} is a directory"),
            }
        }
    };
    std::thread::scope(|scope| {
        for who in 0..4 {
            let union = tree.again();
            scope.spawn(move || append(&union, who));
        }
    });
    for number in 0..40 {
        let text = tree.read(&format!("dir/f{number}")).expect("read");
        assert_eq!(text.lines().count(), 20, "dir/f{number}: {text:?}");
    }
}

/// Names come and go under several processes; each answer is one that some order of the operations gives, and in the
/// end all see the same tree.
#[test]
fn racing_changes_end_in_one_tree() {
    let tree = tree(&[&["d0/a=1", "d0/s/b=2", "d1/c=3", "d2/d=4"], &["d1/e=5"]]);
    let work = |union: &Union, who: u64| {
        let mut seed = who + 1;
        let mut roll = |sides: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % sides
        };
        let root = Arc::clone(union.root());
        for _ in 0..400 {
            let (from, to) = (format!("d{}", roll(3)), format!("d{}", roll(3)));
            let name = ["a", "b", "c", "s"][usize::try_from(roll(4)).expect("small")];
            let path = format!("{from}/{name}");
            let create = Open { write: true, create: true, follow: true, ..Open::default() };
            let answer = match roll(7) {
                0 => union.open(&root, &path, &create).map(drop),
                1 => union.unlink(&root, &path),
                2 => union.mkdir(&root, &from),
                3 => union.rmdir(&root, &from),
                4 => union.rename((&root, &path), (&root, &format!("{to}/{name}"))),
                5 => union.rename((&root, &from), (&root, &to)),
                _ => union.directory(&root, &from).and_then(|node| node.list()).map(drop),
            };
            if let Err(error) = answer {
                let expected = matches!(
                    error,
                    Errno::NotFound
                        | Errno::Exists
                        | Errno::NotEmpty
                        | Errno::IsDir
                        | Errno::NotDir
                        | Errno::Invalid
                        | Errno::Busy
                );
                assert!(expected, "{error:?}");
            }
        }
    };
    std::thread::scope(|scope| {
        for who in 0..3 {
            let union = tree.again();
            scope.spawn(move || work(&union, who));
        }
    });
    let seen = |union: &Union| {
        let mut lines = Vec::new();
        walk(union, ".", &mut lines);
        lines
    };
    assert_eq!(seen(&tree.union), seen(&tree.again()));
}

fn walk(union: &Union, path: &str, lines: &mut Vec<String>) {
    let listing = union.directory(union.root(), path).expect(path).list().expect(path);
    let mut entries: Vec<_> = listing.iter().map(|entry| (entry.name.to_owned(), entry.kind)).collect();
    entries.sort_by(|one, other| one.0.cmp(&other.0));
    for (name, kind) in entries {
        let path = format!("{path}/{name}");
        lines.push(format!("{path} {kind:?}"));
        if kind == crate::wasm::union::Kind::Dir {
            walk(union, &path, lines);
        }
    }
}

/// Real processes: this test starts itself again with what to do in its environment.
#[test]
fn two_processes() {
    const FOLDER: &str = "DHOW_TEST_UNION";
    let again = |folder: &std::path::Path| {
        let layer = crate::bundle::Layer { path: folder.join("layer0"), id: None };
        Union::layered(&folder.join("upper"), &[layer]).expect("union")
    };
    if let Some(folder) = std::env::var_os(FOLDER) {
        let union = again(std::path::Path::new(&folder));
        let root = Arc::clone(union.root());
        for number in 0..200 {
            union.rename((&root, "count/a"), (&root, "count/b")).ok();
            union.rename((&root, "count/b"), (&root, "count/a")).ok();
            union.mkdir(&root, &format!("made/{}-{number}", std::process::id())).expect("mkdir");
        }
        return;
    }
    let tree = tree(&[&["count/a=the only one", "made/low=1"]]);
    let start = || {
        std::process::Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "wasm::union::tests::sharing::two_processes"])
            .env(FOLDER, tree.temp.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("start")
    };
    let mut children = [start(), start()];
    // Whatever moment it is: there is one file, or it is just being moved, never two, never another.
    while children.iter_mut().any(|child| child.try_wait().expect("wait").is_none()) {
        let names = tree.names("count");
        assert!(names.len() <= 2, "{names:?}");
        if let Ok(text) = tree.read("count/a") {
            assert_eq!(text, "the only one");
        }
    }
    for mut child in children {
        assert!(child.wait().expect("wait").success());
    }
    assert_eq!(tree.names("made").len(), 401);
    assert_eq!(tree.names("count").len(), 1);
}
