//! `dhow version`, `dhow info`, `dhow system check`: what they say, and that the check finds real damage.

use serde_json::Value;

use crate::support::{Host, Image, Tree, busybox, guest};

#[test]
fn version_names_dhow_and_its_parts() {
    let host = Host::new();
    let out = host.dhow(["version"]).ok();
    assert!(out.contains(env!("CARGO_PKG_VERSION")) && out.contains("Wasmtime"), "{out}");
    let short = host.dhow(["--version"]).ok();
    assert!(short.to_lowercase().starts_with("dhow") && short.lines().count() == 1, "{short}");
    let json: Value = serde_json::from_str(&host.dhow(["version", "--format", "json"]).ok()).unwrap();
    assert!(json.is_object(), "{json}");
    let version = host.dhow(["version", "--format", "{{.Client.Version}}"]).ok();
    assert_eq!(version.trim(), env!("CARGO_PKG_VERSION"));
}

#[test]
fn info_counts_what_there_is() {
    let host = Host::with_busybox();
    host.dhow(["run", "busybox:1", "true"]).ok();
    let out = host.dhow(["info"]).ok();
    assert!(out.contains("Containers: 1") && out.contains("Images: 1"), "{out}");
    assert!(out.contains(host.root().to_str().unwrap()), "the root folder is named: {out}");
    let json: Value = serde_json::from_str(&host.dhow(["info", "--format", "json"]).ok()).unwrap();
    assert_eq!((&json["Containers"], &json["Images"]), (&1.into(), &1.into()), "{json}");
}

#[test]
fn the_root_option_wins_over_the_variable() {
    let host = Host::with_busybox();
    let other = host.text("other");
    assert_eq!(host.dhow(["--root", &other, "images", "-q"]).ok(), "");
    assert_eq!(host.dhow(["images", "-q"]).ok().lines().count(), 1);
    assert_eq!(host.dhow(["images", "-q"]).env("DHOW_ROOT", &other).ok(), "");
}

#[test]
fn a_check_of_a_used_store_finds_nothing() {
    let host = Host::with_busybox();
    host.file("probe.wasm", guest("probe.wasm"));
    host.dhow(["run", "busybox:1", "true"]).ok();
    host.dhow(["run", "./probe.wasm"]).ok();
    host.dhow(["run", "--rm", "busybox:1", "true"]).ok();
    host.check();
}

/// Every damage is found by the check, makes it fail, and is gone after the repair.
#[test]
fn damage_is_found_and_repaired() {
    type Damage = fn(&std::path::Path);
    let cases: [(&str, Damage); 5] = [
        ("a flipped bit in a blob", |root| {
            let blob = some_file(&root.join("blobs/sha256"));
            let mut bytes = fs_err::read(&blob).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs_err::remove_file(&blob).unwrap();
            fs_err::write(&blob, bytes).unwrap();
        }),
        ("a missing blob", |root| fs_err::remove_file(some_file(&root.join("blobs/sha256"))).unwrap()),
        ("a truncated record", |root| {
            let container = some_folder(&root.join("containers"));
            for entry in fs_err::read_dir(container).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_some_and(|extension| extension == "json") {
                    fs_err::write(path, "{").unwrap();
                }
            }
        }),
        ("half an unpacked layer", |root| {
            fs_err::create_dir_all(root.join("ingest/left-behind")).unwrap();
            fs_err::write(root.join("ingest/left-behind/file"), "x").unwrap();
        }),
        ("a container nobody owns", |root| {
            fs_err::create_dir_all(root.join("containers").join("ab".repeat(32)).join("upper")).unwrap();
        }),
    ];
    for (name, damage) in cases {
        let host = Host::with(&[
            ("busybox:1", busybox()),
            ("other:1", Image::native().layer(Tree::new().file("x", 0o644, "x"))),
        ]);
        host.dhow(["run", "busybox:1", "true"]).ok();
        damage(&host.root());
        let found = host.dhow(["system", "check"]).outcome();
        assert!(found.code == 1 && !found.stdout.is_empty(), "{name} is not found: {found:#?}");
        let repaired = host.dhow(["system", "check", "--repair"]).outcome();
        assert!(!repaired.stderr.contains("panicked"), "{name}: {repaired:#?}");
        let after = host.dhow(["system", "check"]).outcome();
        assert_eq!(after.code, 0, "{name} is not repaired: {repaired:#?} {after:#?}");
    }
}

fn some_file(folder: &std::path::Path) -> std::path::PathBuf {
    let mut paths: Vec<_> = fs_err::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().find(|path| path.is_file()).expect("a file")
}

fn some_folder(folder: &std::path::Path) -> std::path::PathBuf {
    fs_err::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| path.is_dir())
        .expect("a folder")
}
