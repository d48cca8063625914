//! Snapshots from the first to the last step, and killed at each of them.

use std::process::Command;

use super::*;
use crate::DiffOptions;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::store::tests::store;
use crate::write_diff;

fn diff(upper: &Path, out: &mut dyn Write) -> Result<()> {
    write_diff(upper, &DiffOptions::default(), out).map(drop)
}

fn image(store: &Store) -> Image {
    let mut layer = LayerBuilder::new();
    layer.file("base", 0o644, b"base".to_vec());
    let mut builder = ImageBuilder::new(&Platform::host());
    builder.layer(layer);
    let descriptor = builder.build(store).unwrap();
    store.image(&descriptor, &Matcher::host()).unwrap()
}

fn write(store: &Store, key: &str, name: &str, text: &str) {
    let (upper, _) = store.snapshots().mounts(key).unwrap().upper.unwrap();
    fs::write(upper.join(name), text).unwrap();
}

#[test]
fn a_chain_from_an_image() {
    let (_dir, store) = store();
    let image = image(&store);
    let snapshots = store.snapshots();
    snapshots.prepare("step-1", SnapshotParent::Image(&image)).unwrap();
    write(&store, "step-1", "one", "1");
    let one = snapshots.commit("done-1", "step-1", diff).unwrap();
    assert_eq!((one.kind, one.layers.len()), (SnapshotKind::Committed, 1));
    assert!(snapshots.info("step-1").is_err());
    snapshots.prepare("step-2", SnapshotParent::Committed("done-1")).unwrap();
    write(&store, "step-2", "two", "2");
    let two = snapshots.commit("done-2", "step-2", diff).unwrap();
    snapshots.view("look", SnapshotParent::Committed("done-2")).unwrap();
    let keys: Vec<_> = snapshots.list().unwrap().into_iter().map(|info| info.key).collect();
    assert_eq!(keys, ["done-1", "done-2", "look"]);

    // A child needs no parent, and nobody else keeps the image.
    assert!(snapshots.remove("done-1").unwrap() && snapshots.remove("done-2").unwrap());
    assert!(!snapshots.remove("done-2").unwrap());
    store.remove_unreferenced().unwrap();
    let mounts = snapshots.mounts("look").unwrap();
    assert_eq!(mounts.upper, None);
    assert!(matches!(mounts.image, Some(Snapshot::Files(layers)) if layers[0].path.join("base").exists()));
    let texts: Vec<_> = mounts
        .layers
        .iter()
        .zip(["one", "two"])
        .map(|(layer, name)| fs::read_to_string(layer.path.join(name)).unwrap())
        .collect();
    assert_eq!(texts, ["1", "2"]);
    assert_eq!(store.check(false).unwrap(), []);
    // An unpacked layer that was lost is made again of its blob.
    super::super::remove_tree(store.layer_dir(&two.layers[1].diff_id)).unwrap();
    assert!(snapshots.mounts("look").unwrap().layers[1].path.join("two").exists());

    snapshots.remove("look").unwrap();
    store.remove_unreferenced().unwrap();
    let usage = store.total_usage().unwrap();
    assert_eq!((usage.blobs, usage.unpacked), (0, 0));
}

#[test]
fn what_cannot_be_is_refused() {
    let (_dir, store) = store();
    let snapshots = store.snapshots();
    snapshots.prepare("a", SnapshotParent::Empty).unwrap();
    snapshots.view("v", SnapshotParent::Empty).unwrap();
    let refused = |result: Result<SnapshotInfo>, reason: &str| {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::Snapshot { .. }) && error.to_string().contains(reason), "{error}");
    };
    refused(snapshots.prepare("a", SnapshotParent::Empty), "exists already");
    for key in ["", ".", "..", "../x", "a/b", ".hidden", "a\nb"] {
        refused(snapshots.prepare(key, SnapshotParent::Empty), "is not a valid key");
    }
    refused(snapshots.prepare("b", SnapshotParent::Committed("a")), "is not committed");
    refused(snapshots.prepare("b", SnapshotParent::Committed("none")), "does not exist");
    refused(snapshots.commit("b", "v", diff), "is not active");
    refused(snapshots.commit("a", "v", diff), "exists already");
    let failing = |_: &Path, _: &mut dyn Write| Err(Error::Io(io::Error::other("no")));
    assert!(snapshots.commit("b", "a", failing).is_err());
    assert_eq!(
        snapshots.info("a").unwrap().kind,
        SnapshotKind::Active,
        "a commit that failed can be repeated"
    );
    snapshots.commit("b", "a", diff).unwrap();
    refused(snapshots.commit("b", "a", diff), "exists already");
    assert!(names_in(&store.root().join("ingest")).unwrap().is_empty());
}

#[test]
fn a_damaged_record_stops_sweeps_and_is_found() {
    let (_dir, store) = store();
    store.snapshots().prepare("a", SnapshotParent::Empty).unwrap();
    fs::write(store.snapshots().folder().join("a").join(RECORD), "{").unwrap();
    assert!(store.remove_unreferenced().is_err());
    assert!(store.snapshots().list().unwrap().is_empty());
    let seen = store.check(false).unwrap();
    assert!(seen.len() == 1 && seen[0].what.contains("not a valid snapshot record"), "{seen:?}");
    assert!(store.check(true).unwrap()[0].repaired);
    assert_eq!(store.check(false).unwrap(), []);
    store.remove_unreferenced().unwrap();
}

/// The life of a snapshot in a process of its own, for [`every_step_can_be_the_last`].
#[test]
#[ignore = "is run by another test"]
fn one_life() {
    let root = std::env::var("DHOW_TEST_STORE").unwrap();
    live(&Store::open(root).unwrap());
}

/// Everything up to a view on a committed snapshot, going on where an earlier one stopped.
fn live(store: &Store) {
    let snapshots = store.snapshots();
    if snapshots.info("done").is_err() {
        if snapshots.info("step").is_err() {
            snapshots.prepare("step", SnapshotParent::Image(&image(store))).unwrap();
        }
        write(store, "step", "one", "1");
        snapshots.commit("done", "step", diff).unwrap();
    } else if snapshots.info("step").is_ok() {
        snapshots.commit("done", "step", diff).unwrap();
    }
    if snapshots.info("look").is_err() {
        snapshots.view("look", SnapshotParent::Committed("done")).unwrap();
    }
    snapshots.remove("done").unwrap();
}

#[test]
fn every_step_can_be_the_last() {
    let calls =
        "openat,write,rename,mkdir,unlink,unlinkat,rmdir,fsync,fdatasync,syncfs,fchmod,chmod,mkdirat,flock";
    let run = |store: &Store, options: &[&str]| {
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o", "/dev/null"]).args(options).arg(std::env::current_exe().unwrap());
        strace.args(["--exact", "--ignored", "store::snapshots::tests::one_life"]);
        strace.env("DHOW_TEST_STORE", store.root());
        strace.output().expect("strace (Debian package strace)").status.success()
    };
    let (_dir, whole) = store();
    if !run(&whole, &["-e", "trace=none"]) {
        let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status().unwrap();
        assert!(!traced.success(), "the test itself fails");
        return;
    }
    let mut killed = 0;
    for n in (1..400).step_by(11) {
        let (_dir, store) = store();
        let inject = format!("inject={calls}:signal=KILL:when={n}");
        if run(&store, &["-e", &inject]) {
            break;
        }
        killed += 1;
        // Nothing is damaged, and the next one goes on.
        for problem in store.check(false).unwrap() {
            assert!(problem.what.contains("ended early"), "{n}: {problem:?}");
        }
        store.remove_unreferenced().unwrap();
        live(&store);
        let mounts = store.snapshots().mounts("look").unwrap();
        assert_eq!(fs::read_to_string(mounts.layers[0].path.join("one")).unwrap(), "1", "{n}");
        store.remove_unreferenced().unwrap();
        assert_eq!(store.check(false).unwrap(), [], "{n}");
        assert_eq!(store.snapshots().list().unwrap().len(), 1);
    }
    assert!(killed > 5, "{killed}");
}
