//! Trees to archives and back.

use fs_err as fs;
use proptest::prelude::*;
use rustix::fs::XattrFlags;

use super::*;
use crate::layer::extract::extract;
use crate::layer::tar::TarReader;

fn diff(root: &Path, options: DiffOptions) -> Result<Vec<u8>> {
    let mut archive = Vec::new();
    write_diff(root, &options, &mut archive).map(|_| archive)
}

fn entries(archive: &[u8]) -> Vec<Entry> {
    let mut reader = TarReader::new(archive);
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        all.push(entry);
    }
    all
}

fn names(archive: &[u8]) -> Vec<String> {
    entries(archive).into_iter().map(|e| String::from_utf8(e.path).unwrap()).collect()
}

/// What comes out again is the same to the byte: so nothing was lost on either way.
fn assert_round_trip(root: &Path, marks: Marks) -> Vec<u8> {
    let options = DiffOptions { marks, ..DiffOptions::default() };
    let first = diff(root, options).unwrap();
    let again = tempfile::tempdir().unwrap();
    extract(&first[..], again.path()).unwrap();
    let back = diff(again.path(), DiffOptions { marks: Marks::Kernel, ..options }).unwrap();
    assert_eq!(names(&first), names(&back));
    assert!(first == back, "{:#?}\n{:#?}", entries(&first), entries(&back));
    first
}

fn opaque(dir: &Path) {
    let name = if rustix::process::geteuid().is_root() { "trusted" } else { "user" };
    rustix::fs::setxattr(dir, format!("{name}.overlay.opaque"), b"y", XattrFlags::empty()).unwrap();
}

fn whiteout(path: &Path) {
    rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
}

#[test]
fn an_upper_directory_survives_the_way_there_and_back() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["b", "b/hidden", "a", "z"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("b/file"), "content").unwrap();
    fs::write(at("a-b"), "").unwrap();
    fs::hard_link(at("b/file"), at("a/link")).unwrap();
    fs_err::os::unix::fs::symlink("../nowhere", at("z/link")).unwrap();
    fs::hard_link(at("z/link"), at("z/link2")).unwrap();
    rustix::fs::mknodat(CWD, at("z/pipe"), FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    rustix::fs::setxattr(at("b/file"), "user.k", b"v\0\n", XattrFlags::empty()).unwrap();
    rustix::fs::setxattr(at("b"), "user.dir", b"", XattrFlags::empty()).unwrap();
    whiteout(&at("b/gone"));
    opaque(&at("b/hidden"));
    let _socket = std::os::unix::net::UnixListener::bind(at("z/socket")).unwrap();
    let mode = |name: &str, mode| {
        fs::set_permissions(at(name), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode("b/file", 0o4711);
    mode("z", 0o1777);
    let archive = assert_round_trip(dir.path(), Marks::Kernel);
    let expected = [
        "a",
        "a/link",
        "a-b",
        "b",
        "b/file",
        "b/.wh.gone",
        "b/hidden",
        "b/hidden/.wh..wh..opq",
        "z",
        "z/link",
        "z/link2",
        "z/pipe",
    ];
    // The order of names: `a` and everything below it, then `a-b`.
    assert_eq!(names(&archive), expected);
    let all = entries(&archive);
    let find = |name: &[u8]| all.iter().find(|e| e.path == name).unwrap();
    assert_eq!((find(b"b/file").kind, find(b"b/file").link.as_slice()), (Kind::HardLink, &b"a/link"[..]));
    assert_eq!((find(b"a/link").meta.mode, find(b"a/link").size), (0o4711, 7));
    assert_eq!(find(b"z").meta.mode, 0o1777);
    assert_ne!(find(b"a-b").meta.mtime.1, 0);
}

#[test]
fn times_and_owners_can_be_fixed() {
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "x").unwrap();
        dir
    };
    let options = DiffOptions { owner: Some((7, 8)), latest: Some(1000), ..DiffOptions::default() };
    let archive = diff(make().path(), options).unwrap();
    assert_eq!(archive, diff(make().path(), options).unwrap());
    for entry in entries(&archive) {
        assert_eq!((entry.meta.uid, entry.meta.gid, entry.meta.mtime), (7, 8, (1000, 0)));
    }
}

#[test]
fn the_unions_marks_are_understood() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    for name in ["d/.wh..wh..opq", "d/.wh.gone", ".wh..wh.dhow.7", "d/file"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let archive = assert_round_trip(dir.path(), Marks::Portable);
    assert_eq!(names(&archive), ["d", "d/.wh..wh..opq", "d/file", "d/.wh.gone"]);
    // To a container with the kernel's overlay these are names like others, which no layer can have.
    let error = diff(dir.path(), DiffOptions::default()).unwrap_err().to_string();
    assert_eq!(error, ".wh..wh.dhow.7: has a name that would remove another file");
    let whole = diff(dir.path(), DiffOptions { marks: Marks::None, ..DiffOptions::default() }).unwrap();
    assert_eq!(names(&whole).len(), 5);
}

#[test]
fn deep_trees_need_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let deep: std::path::PathBuf = std::iter::repeat_n("d", 1500).collect();
    fs::create_dir_all(dir.path().join(&deep)).unwrap();
    fs::write(dir.path().join(&deep).join("f"), "x").unwrap();
    fs::write(dir.path().join("d/last"), "x").unwrap();
    let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let few = rustix::process::Rlimit { current: Some(200), ..before };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, few).unwrap();
    let archive = diff(dir.path(), DiffOptions::default());
    rustix::process::setrlimit(rustix::process::Resource::Nofile, before).unwrap();
    let names = names(&archive.unwrap());
    assert_eq!(names.len(), 1502);
    assert_eq!(names.last().map(String::as_str), Some("d/last"));
}

#[test]
fn an_overlay_that_the_kernel_wrote() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work", "merged", "lower/replaced", "lower/gone"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("lower/replaced/old"), "").unwrap();
    fs::write(at("lower/file"), "").unwrap();
    let options = std::ffi::CString::new(format!(
        "lowerdir={},upperdir={},workdir={},redirect_dir=off,metacopy=off",
        at("lower").display(),
        at("upper").display(),
        at("work").display()
    ))
    .unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if rustix::mount::mount("overlay", at("merged"), "overlay", flags, &*options).is_err() {
        // No overlay on this file system.
        return;
    }
    fs::remove_dir_all(at("merged/replaced")).unwrap();
    fs::create_dir(at("merged/replaced")).unwrap();
    fs::write(at("merged/replaced/new"), "").unwrap();
    fs::remove_dir(at("merged/gone")).unwrap();
    fs::remove_file(at("merged/file")).unwrap();
    rustix::mount::unmount(at("merged"), rustix::mount::UnmountFlags::empty()).unwrap();
    let archive = assert_round_trip(&at("upper"), Marks::Kernel);
    assert_eq!(
        names(&archive),
        [".wh.file", ".wh.gone", "replaced", "replaced/.wh..wh..opq", "replaced/new"]
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn any_tree_survives(steps in proptest::collection::vec(
        (0..7u8, "[abc]{1,2}(/[abc]){0,3}", "[abc]{1,2}(/[abc]){0,2}", 0..0o1000u32, -5_000_000_000i64..5_000_000_000), 0..25)) {
        let dir = tempfile::tempdir().unwrap();
        for (kind, path, other, mode, time) in steps {
            let path = dir.path().join(path);
            let Some(parent) = path.parent() else { continue };
            // What is in the way stays: then this step does nothing.
            if fs::create_dir_all(parent).is_err() || fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            match kind {
                0 => fs::create_dir(&path).unwrap(),
                1 | 2 => fs::write(&path, &other).unwrap(),
                3 => fs_err::os::unix::fs::symlink(&other, &path).unwrap(),
                4 => drop(fs::hard_link(dir.path().join(other), &path)),
                5 => whiteout(&path),
                _ => {
                    fs::create_dir(&path).unwrap();
                    opaque(&path);
                }
            }
            if kind < 3 {
                // The owner must be able to read it again.
                let mode = std::os::unix::fs::PermissionsExt::from_mode(mode | 0o700);
                fs::set_permissions(&path, mode).unwrap();
            }
            if kind < 4 {
                let time = rustix::fs::Timespec { tv_sec: time, tv_nsec: time.rem_euclid(1_000_000_000) };
                let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            }
        }
        assert_round_trip(dir.path(), Marks::Kernel);
    }
}
