//! The two forms of layers, from outside: the same container from both, what is mounted and when it goes, and what
//! happens to a damaged archive.

use std::path::PathBuf;

use crate::support::{Host, Image, Squeeze, Tree, busybox, is_root};

fn image(squeeze: Squeeze) -> Image {
    busybox()
        .layer(Tree::new().file("a/one", 0o640, "one\n").file("a/two", 0o644, "two\n").symlink("l", "a/two"))
        .layer(Tree::new().file("a/.wh.one", 0o644, "").file("a/three", 0o755, "3\n"))
        .squeeze(squeeze)
}

/// The archives of layers in a store; none where this host keeps directories.
fn tars(host: &Host) -> Vec<PathBuf> {
    let layers = fs_err::read_dir(host.root().join("layers")).unwrap();
    layers.map(|entry| entry.unwrap().path().join("tar")).filter(|tar| tar.exists()).collect()
}

fn mounts(host: &Host) -> usize {
    // Another test may have the same image mounted, of another store.
    let store = host.root().into_os_string().into_string().unwrap();
    let table = fs_err::read_to_string("/proc/self/mounts").unwrap();
    table.lines().filter(|line| line.contains(" erofs ") && line.contains(&store)).count()
}

const LOOK: &str = "cat l a/three; ls -l a | tail -n +2; echo new > a/two; cat l; test ! -e a/one";

#[test]
fn both_forms_are_the_same_to_a_container() {
    for squeeze in [Squeeze::Plain, Squeeze::Gzip, Squeeze::Zstd] {
        let mut seen = Vec::new();
        for form in ["index", "files"] {
            let host = Host::with(&[("x:1", image(squeeze))]);
            let run = host.dhow(["run", "--rm", "x:1", "sh", "-c", LOOK]).env("DHOW_LAYERS", form);
            seen.push(run.ok());
            assert!(form == "index" || mounts(&host) == 0);
        }
        assert_eq!(seen[0], seen[1]);
        assert!(seen[0].starts_with("two\n3\n") && seen[0].ends_with("new\n"), "{}", seen[0]);
    }
}

#[test]
fn an_indexed_image_is_mounted_once_and_goes_with_its_last_name() {
    let host = Host::with(&[("x:1", image(Squeeze::Gzip))]);
    host.dhow(["run", "--rm", "x:1", "true"]).ok();
    if !is_root() || tars(&host).is_empty() {
        println!("skipped: this host keeps directories");
        return;
    }
    assert_eq!((tars(&host).len(), mounts(&host)), (3, 1));
    assert!(!host.root().join("layers").join(tars(&host)[0].parent().unwrap()).join("fs").exists());
    host.dhow(["run", "--name", "stays", "x:1", "true"]).ok();
    assert_eq!(mounts(&host), 1);
    // Whoever asks for directories gets them from the archives, and the index stays.
    let files = host.dhow(["run", "--rm", "x:1", "cat", "l"]).env("DHOW_LAYERS", "files");
    assert_eq!(files.ok(), "two\n");
    host.dhow(["rm", "stays"]).ok();
    host.dhow(["rmi", "x:1"]).ok();
    assert_eq!((tars(&host).len(), mounts(&host)), (0, 0));
    assert_eq!(fs_err::read_dir(host.root().join("trees")).unwrap().count(), 0);
}

#[test]
fn a_damaged_archive_is_found_and_made_again() {
    let host = Host::with(&[("x:1", image(Squeeze::Gzip))]);
    host.dhow(["run", "--rm", "x:1", "true"]).ok();
    if tars(&host).is_empty() {
        return;
    }
    host.dhow(["rmi", "x:1"]).ok();
    host.load(&[("x:1", image(Squeeze::Gzip))]);
    host.dhow(["run", "--rm", "x:1", "true"]).ok();
    assert_eq!(host.dhow(["system", "check"]).outcome().code, 0);
    // A flipped bit is found by the check, and repaired by what comes next.
    let tar = tars(&host).remove(0);
    let mut bytes = fs_err::read(&tar).unwrap();
    bytes[600] ^= 1;
    fs_err::write(&tar, bytes).unwrap();
    let found = host.dhow(["system", "check"]).outcome();
    assert_eq!(found.code, 1, "{found:?}");
    assert!(found.stdout.contains("uncompressed layer has digest"), "{found:?}");
    host.dhow(["system", "check", "--repair"]).ok();
    assert_eq!(mounts(&host), 0, "an index without a layer is unmounted");
    assert_eq!(host.dhow(["run", "--rm", "x:1", "cat", "l"]).ok(), "two\n");
    assert_eq!(host.dhow(["system", "check"]).outcome().code, 0);
}
