//! Every kind of damage is found, named, repaired, and gone.

use super::*;
use crate::Platform;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::store::tests::store;

/// A store with one tagged image, its layer unpacked, and a lease.
fn with_image() -> (tempfile::TempDir, Store, Descriptor) {
    let (dir, store) = store();
    let mut layer = LayerBuilder::new();
    layer.file("bin/x", 0o755, b"x".to_vec());
    let mut builder = ImageBuilder::new(&Platform::host());
    builder.layer(layer);
    let image = builder.build(&store).unwrap();
    store.tag(&"reg.example/x:1".parse().unwrap(), &image).unwrap();
    store.unpack(&store.image(&image, &crate::Matcher::host()).unwrap(), &crate::NoProgress).unwrap();
    store.lease("c1", std::slice::from_ref(&image.digest), true).unwrap();
    assert_eq!(store.check(false).unwrap(), []);
    (dir, store, image)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn first(folder: impl AsRef<Path>) -> PathBuf {
    folder.as_ref().join(&names_in(folder.as_ref()).unwrap()[0])
}

#[test]
fn every_kind_of_damage_is_found_and_repaired() {
    type Damage = fn(&Store, &Manifest, &Descriptor);
    let cases: &[(&str, &str, bool, Damage)] = &[
        ("flipped bit in a layer", "content has digest", true, |s, m, _| {
            flip(&s.blob_path(&m.layers[0].digest));
        }),
        ("flipped bit in a config", "content has digest", true, |s, m, _| {
            flip(&s.blob_path(&m.config.digest));
        }),
        ("flipped bit in a manifest", "content has digest", true, |s, _, i| {
            flip(&s.blob_path(&i.digest));
        }),
        ("truncated blob", "content has digest", true, |s, m, _| {
            fs::write(s.blob_path(&m.layers[0].digest), "x").unwrap();
        }),
        ("zeroed blob", "content has digest", true, |s, m, _| {
            let zeros = vec![0; usize::try_from(m.config.size).unwrap()];
            fs::write(s.blob_path(&m.config.digest), zeros).unwrap();
        }),
        ("missing layer", "is missing", true, |s, m, _| {
            fs::remove_file(s.blob_path(&m.layers[0].digest)).unwrap();
        }),
        ("missing config", "is missing", true, |s, m, _| {
            fs::remove_file(s.blob_path(&m.config.digest)).unwrap();
        }),
        ("missing manifest", "which is missing", true, |s, _, i| {
            fs::remove_file(s.blob_path(&i.digest)).unwrap();
        }),
        ("a folder in a blob's place", "not a regular file", true, |s, m, _| {
            fs::remove_file(s.blob_path(&m.config.digest)).unwrap();
            fs::create_dir(s.blob_path(&m.config.digest)).unwrap();
        }),
        ("truncated name", "not a valid name record", true, |s, _, _| {
            let path = first(s.root().join("refs"));
            let bytes = fs::read(&path).unwrap();
            fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("empty name", "not a valid name record", true, |s, _, _| {
            fs::write(first(s.root().join("refs")), "").unwrap();
        }),
        ("zeroed name", "not a valid name record", true, |s, _, _| {
            fs::write(first(s.root().join("refs")), [0; 200]).unwrap();
        }),
        ("another's name", "is the record of another name", false, |s, _, _| {
            fs::copy(first(s.root().join("refs")), s.root().join("refs/Other")).unwrap();
        }),
        ("foreign name", "does not belong here", false, |s, _, _| {
            fs::write(s.root().join("refs/READ ME"), "x").unwrap();
        }),
        ("half-written name", "ended early", false, |s, _, _| {
            fs::write(s.root().join("refs/.tmp-1"), "{").unwrap();
        }),
        ("half-written lease", "ended early", false, |s, _, _| {
            fs::write(s.root().join("leases/.tmp-1"), "{").unwrap();
        }),
        ("half-made store", "ended early", false, |s, _, _| {
            fs::write(s.root().join(".oci-layout-1"), "{").unwrap();
        }),
        ("garbled lease", "cannot tell what it keeps", false, |s, _, _| {
            fs::write(s.root().join("leases/c1"), "garbage\n").unwrap();
        }),
        ("binary lease", "cannot tell what it keeps", false, |s, _, _| {
            fs::write(s.root().join("leases/c1"), [0xff; 40]).unwrap();
        }),
        ("foreign lease", "does not belong here", false, |s, _, _| {
            fs::write(s.root().join("leases/READ ME"), "x").unwrap();
        }),
        ("layer without record", "not complete", false, |s, _, _| {
            fs::remove_file(first(s.root().join("layers")).join("layer.json")).unwrap();
        }),
        ("layer with a garbled record", "not complete", false, |s, _, _| {
            fs::write(first(s.root().join("layers")).join("layer.json"), "{").unwrap();
        }),
        ("half a layer", "not complete", false, |s, _, _| {
            fs::create_dir_all(s.root().join("layers").join(Digest::of(b"half").hex()).join("fs")).unwrap();
        }),
        ("dead session", "ended early", false, |s, _, _| {
            fs::create_dir_all(s.root().join("ingest/1-dead")).unwrap();
        }),
        ("foreign blob", "not the name of a blob", false, |s, _, _| {
            fs::write(s.root().join("blobs/sha256/readme"), "x").unwrap();
        }),
        ("foreign folder", "does not belong here", false, |s, _, _| {
            fs::create_dir_all(s.root().join("blobs/md5/x")).unwrap();
        }),
        ("foreign download", "does not belong here", false, |s, _, _| {
            fs::create_dir_all(s.root().join("downloads")).unwrap();
            #[cfg(unix)]
            chmod(&s.root().join("downloads"), 0o700);
            fs::write(s.root().join("downloads/READ ME"), "x").unwrap();
        }),
        ("half-written list", "ended early", false, |s, _, _| {
            fs::create_dir_all(s.root().join("lists")).unwrap();
            fs::write(s.root().join("lists/.tmp-1"), "x").unwrap();
        }),
        ("foreign layer", "not the name of a layer", false, |s, _, _| {
            fs::write(s.root().join("layers/readme"), "x").unwrap();
        }),
        #[cfg(unix)]
        ("readable blob", "has mode 0644, not 0600", false, |s, m, _| {
            chmod(&s.blob_path(&m.config.digest), 0o644);
        }),
        #[cfg(unix)]
        ("readable folder", "has mode 0755, not 0700", false, |s, _, _| {
            chmod(&s.root().join("layers"), 0o755);
        }),
        #[cfg(unix)]
        ("locked name", "has mode 0400, not 0600", false, |s, _, _| {
            chmod(&first(s.root().join("refs")), 0o400);
        }),
    ];
    for (name, message, loses, damage) in cases {
        let (_dir, store, image) = with_image();
        let manifest = Manifest::parse("x", &store.read_blob(&image).unwrap()).unwrap();
        damage(&store, &manifest, &image);
        let seen = store.check(false).unwrap();
        assert!(seen.iter().any(|p| p.what.contains(message) && !p.repaired), "{name}: {seen:#?}");
        let lost = seen.iter().any(|p| p.images.iter().any(|name| name.familiar() == "reg.example/x:1"));
        assert_eq!(lost, *loses, "{name}: {seen:#?}");
        let repaired = store.check(true).unwrap();
        assert!(repaired.iter().all(|p| p.repaired), "{name}: {repaired:#?}");
        assert_eq!(store.check(false).unwrap(), [], "{name}");
        let resolved = store.resolve(&"reg.example/x:1".parse().unwrap()).unwrap();
        assert_eq!(resolved.is_some(), !loses, "{name}");
        store.remove_unreferenced().unwrap();
    }
}

#[cfg(unix)]
fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_file_of_somebody_else_is_taken_back() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let (_dir, store, image) = with_image();
    std::os::unix::fs::chown(store.blob_path(&image.digest), Some(12345), None).unwrap();
    let seen = store.check(false).unwrap();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].what, "belongs to user 12345, not to 0");
    assert!(store.check(true).unwrap()[0].repaired);
    assert_eq!(store.check(false).unwrap(), []);
}

#[test]
fn foreign_files_are_kept_elsewhere() {
    let (_dir, store) = store();
    for path in ["blobs/sha256/readme", "layers/readme", "refs/READ ME"] {
        fs::write(store.root().join(path), path).unwrap();
    }
    assert_eq!(store.check(true).unwrap().len(), 3);
    assert_eq!(store.check(false).unwrap(), []);
    let lost = store.root().join("lost");
    let mut texts: Vec<_> =
        names_in(&lost).unwrap().iter().map(|name| fs::read_to_string(lost.join(name)).unwrap()).collect();
    texts.sort();
    assert_eq!(texts, ["blobs/sha256/readme", "layers/readme", "refs/READ ME"]);
}

#[test]
fn the_owner_of_a_lease_is_asked() {
    let (_dir, store, image) = with_image();
    fs::write(store.root().join("leases/c1"), "garbage\n").unwrap();
    let owner = |id: &str| (id == "c1").then(|| vec![image.digest.clone()]);
    let options = CheckOptions { repair: true, lease: Some(&owner), ..CheckOptions::default() };
    assert!(store.check_with(&options).unwrap()[0].repaired);
    assert_eq!(store.uses().unwrap(), std::slice::from_ref(&image.digest));
}

#[test]
fn progress_ends_with_everything() {
    let (_dir, store, _) = with_image();
    let most = Mutex::new((0, 0));
    let progress = |done, total| {
        let mut most = most.lock().unwrap();
        *most = (*most).max((done, total));
    };
    store.check_with(&CheckOptions { progress: Some(&progress), ..CheckOptions::default() }).unwrap();
    let blobs = store.disk_usage().unwrap().blobs;
    assert_eq!(*most.lock().unwrap(), (blobs, blobs));
}
