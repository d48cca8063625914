//! Hostile and odd layers in both forms that the store has: directories, and archives with an index. Each is refused
//! for a reason that is said, or accepted by both; afterwards the store is as it should be, and gets empty again.

use super::*;
use crate::Matcher;
use crate::NoProgress;
use crate::compose;
use crate::layer::tar::tests::end;
use crate::layer::tar::tests::pax;
use crate::layer::tar::tests::raw;
use crate::store::tests::store;

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    raw(b'0', name.as_bytes(), b"", content, |_| ())
}

fn entry(flag: u8, name: &str, link: &str) -> Vec<u8> {
    raw(flag, name.as_bytes(), link.as_bytes(), b"", |block| block[100..107].copy_from_slice(b"0000755"))
}

fn with(records: &[(&str, &[u8])], entry: Vec<u8>) -> Vec<u8> {
    [pax(records), entry].concat()
}

fn layer(parts: &[Vec<u8>]) -> Vec<u8> {
    [parts.concat(), end()].concat()
}

/// An image of these archives with the name `x`.
fn image(store: &Store, tars: &[Vec<u8>]) -> Image {
    let session = Session::new(store).unwrap();
    let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
    let config = serde_json::json!({
        "os": "linux", "architecture": "amd64", "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let config = session.put(media::CONFIG, config.to_string().as_bytes()).unwrap();
    let layers = tars.iter().map(|tar| session.put(media::LAYER, tar).unwrap()).collect();
    let manifest = compose::json(&compose::manifest(config, layers)).unwrap();
    let descriptor = session.put(media::MANIFEST, &manifest).unwrap();
    store.tag(&"x".parse().unwrap(), &descriptor).unwrap();
    store.image(&descriptor, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap()
}

/// Unpacks the archives in one form, and looks at the store afterwards.
fn run(tars: &[Vec<u8>], form: LayerForm) -> std::result::Result<(), String> {
    let (_dir, store) = store();
    let image = image(&store, tars);
    let done = match form {
        LayerForm::Files => store.unpack(&image, &NoProgress).map(drop),
        LayerForm::Index => {
            let session = Session::new(&store).unwrap();
            session.claim(image.diff_ids.iter().chain([&image.manifest.digest])).unwrap();
            store
                .unpack_missing(&session, &image, form, &NoProgress)
                .and_then(|()| index(&session, &image, &NoProgress).map(drop))
        }
    };
    assert_eq!(store.check(false).unwrap(), [], "{form:?} {done:?}");
    if done.is_ok() && form == LayerForm::Files {
        // What has become of it does not stand in the way of anything.
        store.unpack(&image, &NoProgress).unwrap();
    }
    store.untag(&"x".parse().unwrap()).unwrap();
    store.remove_unreferenced().unwrap();
    for folder in ["layers", "trees", "ingest", "blobs/sha256"] {
        // `trees` is made when it is needed.
        let left = fs::read_dir(store.root().join(folder)).map_or(0, |entries| entries.count());
        assert_eq!(left, 0, "{folder} {done:?}");
    }
    done.map_err(|e| e.to_string())
}

#[test]
fn hostile_layers_are_refused_or_accepted_by_both_forms() {
    let deep = "d/".repeat(5000);
    let (longest, too_long) = ("n".repeat(255), "n".repeat(256));
    let path = |name: &[u8]| with(&[("path", name)], file("x", b"x"));
    let meta = |key: &str, value: &str| with(&[(key, value.as_bytes())], file("x", b"x"));
    let sparse: &[(&str, &[u8])] = &[("GNU.sparse.size", b"9223372036854775807"), ("GNU.sparse.map", b"0,1")];
    let many: Vec<Vec<u8>> = (0..100_000).map(|n| file(&format!("many/{n}"), b"")).collect();
    // Each case: the layers, and what the error says; nothing if there is none.
    type Layers = Vec<Vec<Vec<u8>>>;
    let cases: Vec<(&str, Layers, &str)> = vec![
        ("whiteout of the root", vec![vec![file(".wh.", b"")]], "whiteout of nothing"),
        ("whiteout of dot", vec![vec![file(".wh..", b"")]], "whiteout of nothing"),
        ("whiteout of dotdot", vec![vec![file(".wh...", b"")]], "whiteout of nothing"),
        ("whiteout of dotdot below", vec![vec![file("d/.wh...", b"")]], "whiteout of nothing"),
        ("whiteout of an empty name", vec![vec![file("d/.wh.", b"")]], "whiteout of nothing"),
        ("whiteout of what is not there", vec![vec![file("d/.wh.x", b"")]], ""),
        ("opaque root", vec![vec![file("a", b"")], vec![file(".wh..wh..opq", b""), file("b", b"")]], ""),
        ("opaque root of one layer", vec![vec![file(".wh..wh..opq", b""), file("b", b"")]], ""),
        ("root that is a link", vec![vec![entry(b'2', "./", "x")]], "root is not a directory"),
        ("dotdot", vec![vec![file("a/../../x", b"")]], ".."),
        (
            "links through layers",
            vec![
                vec![entry(b'2', "a", "b")],
                vec![entry(b'2', "b", "c")],
                vec![entry(b'2', "c", "/etc")],
                vec![file("a/x", b""), entry(b'1', "h", "b")],
            ],
            "",
        ),
        (
            "links in a circle",
            vec![vec![entry(b'2', "a", "b"), entry(b'2', "b", "a"), file("a/x", b"")]],
            "symbolic link",
        ),
        (
            "hard link through a circle",
            vec![vec![entry(b'2', "a", "b"), entry(b'2', "b", "a")], vec![entry(b'1', "h", "a/x")]],
            "symbolic link",
        ),
        (
            "link becomes a directory",
            vec![vec![entry(b'2', "l", "/etc")], vec![entry(b'5', "l", ""), file("l/passwd", b"")]],
            "",
        ),
        (
            "directory becomes a link",
            vec![vec![file("d/x", b"")], vec![entry(b'2', "d", "/etc"), entry(b'1', "h", "d/x")]],
            "",
        ),
        ("hard link to nothing", vec![vec![file("a", b"")], vec![entry(b'1', "h", "b")]], "not below it"),
        ("hard link to nothing at all", vec![vec![entry(b'1', "h", "b")]], "not below it"),
        (
            "hard link to a directory below",
            vec![vec![entry(b'5', "d", "")], vec![entry(b'1', "h", "d")]],
            "directory",
        ),
        (
            "hard link to what is hidden",
            vec![vec![file("a", b"")], vec![file(".wh.a", b"")], vec![entry(b'1', "h", "a")]],
            "not below it",
        ),
        ("hard link out", vec![vec![entry(b'1', "h", "/../etc/passwd")]], ".."),
        ("5000 deep", vec![vec![path(format!("{deep}x").as_bytes())]], "long"),
        ("100,000 files", vec![many], ""),
        (
            "duplicates",
            vec![vec![file("a", b"1"), file("a", b"2"), entry(b'5', "a", ""), file("a", b"3")]],
            "",
        ),
        (
            "devices and a pipe",
            vec![vec![entry(b'3', "c", ""), entry(b'4', "b", ""), entry(b'6', "p", "")]],
            "",
        ),
        ("sparse file of 8 EiB", vec![vec![with(sparse, file("x", b"x"))]], "unpacks to more than"),
        ("time before 1970", vec![vec![meta("mtime", "-5.25")]], ""),
        ("time far away", vec![vec![meta("mtime", "99999999999999")]], ""),
        ("time that is none", vec![vec![meta("mtime", "1e30")]], "damaged pax header"),
        ("large owner", vec![vec![meta("uid", "3000000000")]], ""),
        ("too large owner", vec![vec![meta("uid", "4294967296")]], "damaged pax header"),
        ("no text", vec![vec![path(b"d/\xff\xfe")]], ""),
        ("longest name", vec![vec![path(longest.as_bytes())]], ""),
        ("too long name", vec![vec![path(too_long.as_bytes())]], "long"),
        ("too long directory", vec![vec![path(format!("{too_long}/x").as_bytes())]], "long"),
    ];
    let mut wrong = Vec::new();
    for (name, layers, expected) in cases {
        let tars: Vec<Vec<u8>> = layers.iter().map(|parts| layer(parts)).collect();
        for form in [LayerForm::Files, LayerForm::Index] {
            let found = run(&tars, form);
            let right = match &found {
                Ok(()) => expected.is_empty(),
                Err(e) => !expected.is_empty() && e.contains(expected),
            };
            if !right {
                wrong.push(format!("{name}, {form:?}: expected {expected:?}, found {found:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_cut_archive_is_an_error_except_between_entries() {
    let parts = [
        entry(b'5', "d", ""),
        file("d/f", &[7; 1300]),
        with(&[("mtime", b"5.5")], file("g", b"g")),
        entry(b'2', "l", "g"),
    ];
    let whole = layer(&parts);
    let mut ends = vec![0];
    for part in &parts {
        ends.push(ends.last().unwrap() + part.len());
    }
    for cut in (0..whole.len()).step_by(512) {
        let tars = [whole[..cut].to_vec()];
        // The zero blocks in the end are often left out, so an archive may end after any entry.
        let fine = ends.contains(&cut) || cut > *ends.last().unwrap();
        for form in [LayerForm::Files, LayerForm::Index] {
            let found = run(&tars, form);
            assert_eq!(found.is_ok(), fine, "{cut} {form:?} {found:?}");
        }
    }
}

#[test]
fn a_layer_over_different_layers_is_unpacked_for_each() {
    let (_dir, store) = store();
    let upper = layer(&[entry(b'1', "h", "a"), file("own", b"own")]);
    let of = |content: &[u8]| {
        let image = image(&store, &[layer(&[file("a", content)]), upper.clone()]);
        store.unpack(&image, &NoProgress).unwrap()
    };
    let (one, two) = (of(b"one"), of(b"two"));
    assert_ne!(one[1].path, two[1].path);
    for (layers, content) in [(&one, "one"), (&two, "two")] {
        assert_eq!(fs::read_to_string(layers[1].path.join("h")).unwrap(), content);
        assert_eq!(fs::read_to_string(layers[1].path.join("own")).unwrap(), "own");
    }
    // The name `x` is the second one's, so what the first has to itself goes.
    store.remove_unreferenced().unwrap();
    assert!(!one[1].path.exists() && two[1].path.is_dir());
    assert_eq!(store.check(false).unwrap(), []);
}
