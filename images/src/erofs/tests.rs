//! The kernel as judge: an index is mounted and compared, name by name, with the extractor's directories under an
//! overlay. As root on Linux with file-backed EROFS only; elsewhere there is nothing to ask.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::os::fd::AsRawFd as _;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::path::PathBuf;

use fs_err as fs;
use proptest::prelude::*;
use rustix::mount::FsMountFlags;
use rustix::mount::FsOpenFlags;
use rustix::mount::MountAttrFlags;

use super::*;
use crate::layer::extract::extract_over;
use crate::layer::tar::tests::end;
use crate::layer::tar::tests::pax;
use crate::layer::tar::tests::raw;
use crate::store::mounts;

/// What can be seen of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, i64),
    device: u64,
    size: u64,
    content: Vec<u8>,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The names that lead to the same file.
    same: BTreeSet<PathBuf>,
}

/// A mounted tree that vanishes with its handle.
struct Mounted {
    _dir: tempfile::TempDir,
    mount: OwnedFd,
}

impl Mounted {
    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }

    fn look(&self) -> BTreeMap<PathBuf, Seen> {
        look(&self.root())
    }
}

fn look(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut files: BTreeMap<(u64, u64), BTreeSet<PathBuf>> = BTreeMap::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let name = dir.join(entry.unwrap().file_name());
            let path = root.join(&name);
            // An overlay lists whiteouts of directories that are in one layer only, and then does not find them.
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let kind = meta.file_type();
            let content = if kind.is_file() {
                fs::read(&path).unwrap()
            } else if kind.is_symlink() {
                std::os::unix::ffi::OsStringExt::into_vec(fs::read_link(&path).unwrap().into_os_string())
            } else {
                Vec::new()
            };
            if kind.is_dir() {
                todo.push(name.clone());
            } else {
                files.entry((meta.dev(), meta.ino())).or_default().insert(name.clone());
            }
            let size = if kind.is_file() { meta.len() } else { 0 };
            let one = Seen {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                mtime: (meta.mtime(), meta.mtime_nsec()),
                device: meta.rdev(),
                size,
                content,
                xattrs: xattrs(&path),
                same: BTreeSet::new(),
            };
            seen.insert(name, one);
        }
    }
    for names in files.into_values() {
        for name in &names {
            seen.get_mut(name).unwrap().same.clone_from(&names);
        }
    }
    seen
}

fn xattrs(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 1 << 16];
    let n = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let mut all = BTreeMap::new();
    for name in names[..n].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0_u8; 1 << 16];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
        value.truncate(n);
        // The overlay shows those of its layers' directories.
        if !name.starts_with(b"trusted.overlay.") {
            all.insert(name.to_vec(), value);
        }
    }
    all
}

fn here() -> bool {
    mounts::probe(tempfile::tempdir().unwrap().path())
}

/// The index of some archives, mounted.
fn indexed(tars: &[Vec<u8>]) -> Result<Mounted> {
    let dir = tempfile::tempdir().unwrap();
    let slices: Vec<&[u8]> = tars.iter().map(Vec::as_slice).collect();
    let image = index_of_tars(&slices)?;
    assert_eq!(image, index_of_tars(&slices).unwrap(), "not the same bytes every time");
    let index = dir.path().join("index");
    fs::write(&index, image).unwrap();
    let paths: Vec<PathBuf> = (0..tars.len()).map(|i| dir.path().join(format!("{i}.tar"))).collect();
    for (path, tar) in paths.iter().zip(tars) {
        // The kernel reads blocks, and refuses half ones.
        let mut whole = tar.clone();
        whole.resize(tar.len().next_multiple_of(512), 0);
        fs::write(path, whole).unwrap();
    }
    let mount = mounts::open(&index, &paths).unwrap();
    Ok(Mounted { _dir: dir, mount })
}

/// The same by the extractor and the kernel's overlay.
fn layered(tars: &[Vec<u8>]) -> std::result::Result<Mounted, Fault> {
    let dir = tempfile::tempdir().unwrap();
    let context = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    // An overlay without a writable layer wants two.
    let mut lower = vec![dir.path().join("lowest"), dir.path().join("lower")];
    for path in &lower {
        fs::create_dir(path).unwrap();
    }
    for (i, tar) in tars.iter().enumerate() {
        let root = dir.path().join(i.to_string());
        fs::create_dir(&root).unwrap();
        let below: Vec<PathBuf> = lower[2..].iter().rev().cloned().collect();
        extract_over(&tar[..], &root, &below)?;
        lower.push(root);
    }
    for path in lower.iter().rev() {
        rustix::mount::fsconfig_set_string(&context, "lowerdir+", path).unwrap();
    }
    rustix::mount::fsconfig_create(&context).unwrap();
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    Ok(Mounted { _dir: dir, mount })
}

/// Later than any time in these archives.
const LONG_AGO: i64 = 1_750_000_000;

fn compare(tars: &[Vec<u8>]) {
    match (indexed(tars), layered(tars)) {
        (Ok(ours), Ok(theirs)) => {
            let (ours, mut theirs) = (ours.look(), theirs.look());
            for (name, seen) in &mut theirs {
                // Between layers an overlay has copies in place of links.
                if let Some(ours) = ours.get(name)
                    && seen.same.is_subset(&ours.same)
                {
                    seen.same.clone_from(&ours.same);
                }
                // A directory whose path leads elsewhere at the end of the archive keeps the time when it was made.
                if seen.mtime.0 > LONG_AGO
                    && let Some(ours) = ours.get(name)
                {
                    (seen.mtime, seen.mode) = (ours.mtime, ours.mode);
                }
            }
            let names: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            for name in names {
                assert_eq!(ours.get(name), theirs.get(name), "{}", name.display());
            }
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("index: {:?}, extraction: {:?}", ours.err(), theirs.err()),
    }
}

fn file(name: &str, content: &[u8]) -> Vec<u8> {
    raw(b'0', name.as_bytes(), b"", content, |_| ())
}

fn entry(flag: u8, name: &str, link: &str) -> Vec<u8> {
    raw(flag, name.as_bytes(), link.as_bytes(), b"", |block| {
        block[100..107].copy_from_slice(b"0000755");
        block[136..147].copy_from_slice(b"14000000000");
    })
}

fn device(flag: u8, name: &str, major: u32, minor: u32) -> Vec<u8> {
    raw(flag, name.as_bytes(), b"", b"", |block| {
        block[329..336].copy_from_slice(format!("{major:07o}").as_bytes());
        block[337..344].copy_from_slice(format!("{minor:07o}").as_bytes());
    })
}

fn layer(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut tar = parts.concat();
    tar.extend(end());
    tar
}

#[test]
fn every_kind_of_file_is_as_extracted() {
    if !here() {
        return;
    }
    let big: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let many: Vec<Vec<u8>> = (0..700)
        .map(|i| file(&format!("many/{}{i}", "n".repeat(i % 90)), i.to_string().as_bytes()))
        .collect();
    let cap: &[(&str, &[u8])] = &[("SCHILY.xattr.security.capability", &capability)];
    let time: &[(&str, &[u8])] = &[("mtime", b"1700000000.123456789"), ("uid", b"100000"), ("gid", b"70000")];
    let large = vec![7; 900];
    let users: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.user.small", b"v"),
        ("SCHILY.xattr.user.empty", b""),
        ("SCHILY.xattr.user.large", &large),
        ("SCHILY.xattr.trusted.never", b"x"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
    ];
    let long_target = "t/".repeat(700);
    let deep = format!("{}x", "d/".repeat(45));
    let tars = [
        layer(&[
            entry(b'5', "dir", ""),
            file("dir/empty", b""),
            file("dir/one", b"1"),
            file("dir/block", &[1; 512]),
            file("dir/more", &[2; 513]),
            file("big", &big),
            entry(b'1', "hard", "big"),
            entry(b'1', "dir/harder", "hard"),
            entry(b'2', "soft", "dir/one"),
            pax(&[("linkpath", long_target.as_bytes())]),
            entry(b'2', "long", "x"),
            pax(&[("linkpath", "m".repeat(448).as_bytes())]),
            entry(b'2', "edge", "x"),
            pax(&[("linkpath", "m".repeat(449).as_bytes())]),
            entry(b'2', "over", "x"),
            entry(b'6', "pipe", ""),
            device(b'3', "null", 1, 3),
            device(b'4', "disk", 259, 70_000),
            device(b'3', "dir/gone", 0, 0),
            pax(cap),
            file("ping", b"#!"),
            pax(cap),
            file("ping2", b"#!"),
            pax(users),
            file("users", b"u"),
            pax(users),
            entry(b'5', "users.d", ""),
            pax(time),
            file("time", b"t"),
            pax(&[("mtime", b"-5.25")]),
            file("old", b"t"),
            file(&deep, b"deep"),
            file("!before-the-dot", b""),
            file("-", b""),
            many.concat(),
        ]),
        layer(&[
            file("many/.wh.0", b""),
            file(".wh.hard", b""),
            file("dir/.wh..wh..opq", b""),
            file("dir/new", b"new"),
            file("soft/now-a-dir", b"x"),
            entry(b'2', "link", "/dir"),
            file("link/through", b"x"),
        ]),
        // Without padding and end.
        file("last", b"unpadded")[..512 + 8].to_vec(),
    ];
    compare(&tars);
    let seen = indexed(&tars).unwrap().look();
    assert_eq!(seen[Path::new("last")].content, b"unpadded");
    assert_eq!(seen[Path::new("big")].content, big);
    assert!(!seen.contains_key(Path::new("hard")) && !seen.contains_key(Path::new("dir/harder")));
    assert_eq!(seen[Path::new("ping")].xattrs[&b"security.capability"[..]], capability);
}

#[test]
fn what_only_extraction_can_do_is_said() {
    let sparse = [
        pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.size", b"4096"),
            ("GNU.sparse.map", b"0,1"),
        ]),
        file("sparse", b"x"),
    ]
    .concat();
    let acl = [pax(&[("SCHILY.xattr.system.posix_acl_access", b"\x02\0\0\0")]), file("acl", b"x")].concat();
    for (tar, expected) in
        [(sparse, "sparse"), (acl, "access control"), (device(b'3', "d", 5000, 1), "device number")]
    {
        let tar = layer(&[tar]);
        let error = index_of_tars(&[&tar]).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_whiteout_that_becomes_a_directory_is_no_target() {
    let tar = layer(&[file(".wh.b", b""), entry(b'1', "b/a", "b")]);
    let error = index_of_tars(&[&tar]).unwrap_err().to_string();
    assert!(error.contains("not in this layer and not below it"), "{error}");
}

#[test]
fn an_opaque_root_hides_everything_below() {
    if !here() {
        return;
    }
    for place in 0..3 {
        let mut upper = vec![file("new", b""), entry(b'5', "d", ""), file("d/y", b"")];
        upper.insert(place, file(".wh..wh..opq", b""));
        let tars = [layer(&[file("a", b""), file("d/x", b""), entry(b'2', "l", "d")]), layer(&upper)];
        compare(&tars);
        assert_eq!(layered(&tars).unwrap().look().len(), 3);
    }
}

#[test]
fn hard_links_lead_to_files_of_layers_below() {
    if !here() {
        return;
    }
    let records: &[(&str, &[u8])] =
        &[("uid", b"1234"), ("gid", b"70000"), ("mtime", b"1000.25"), ("SCHILY.xattr.user.k", b"v")];
    let tars = [
        layer(&[
            pax(records),
            raw(b'0', b"d/a", b"", &[7; 100_000], |block| block[100..107].copy_from_slice(b"0004755")),
            entry(b'2', "d/soft", "a"),
            entry(b'2', "way", "/d/../d"),
            entry(b'6', "pipe", ""),
            device(b'3', "null", 1, 3),
            entry(b'5', "hidden", ""),
            file("hidden/x", b"x"),
        ]),
        layer(&[file("e", b"middle"), file("hidden/.wh..wh..opq", b""), entry(b'2', "d/later", "/e")]),
        layer(&[
            entry(b'1', "one", "d/a"),
            // The layer replaces and removes what it has led to.
            file("d/a", b"new"),
            entry(b'1', "two", "way/later"),
            file(".wh.e", b""),
            entry(b'1', "three", "e"),
            entry(b'1', "four", "one"),
            entry(b'1', "five", "three"),
            entry(b'1', "soft", "d/soft"),
            entry(b'1', "p", "pipe"),
            entry(b'1', "n", "null"),
        ]),
    ];
    compare(&tars);
    let seen = layered(&tars).unwrap().look();
    let one = &seen[Path::new("one")];
    assert_eq!((one.content.len(), one.mode, one.owner), (100_000, 0o104_755, (1234, 70000)));
    assert_eq!((one.mtime, &one.xattrs[&b"user.k"[..]][..]), ((1000, 250_000_000), &b"v"[..]));
    assert_eq!(one.same, ["four", "one"].map(PathBuf::from).into());
    assert_eq!(seen[Path::new("three")].content, b"middle");
    assert!(!seen.contains_key(Path::new("e")));
    for target in ["hidden/x", "d", "absent", "d/soft/x"] {
        let tars = [&tars[..2], &[layer(&[entry(b'1', "h", target)])]].concat();
        assert!(indexed(&tars).is_err() && layered(&tars).is_err(), "{target}");
    }
}

#[test]
fn deep_trees_take_no_stack() {
    // Each step goes through a link to the deepest directory so far.
    let mut parts = vec![entry(b'5', &"d/".repeat(40), "")];
    for i in 0..30 {
        let target = if i == 0 { "d/".repeat(40) } else { format!("l{}/{}", i - 1, "d/".repeat(40)) };
        parts.push(entry(b'2', &format!("l{i}"), &target[..target.len().min(100)]));
        parts.push(entry(b'5', &format!("l{i}/{}", "d/".repeat(40)), ""));
    }
    let tar = layer(&parts);
    index_of_tars(&[&tar, &tar]).unwrap();
}

#[test]
fn chain_ids() {
    let a = Digest::of(b"a");
    assert_eq!(chain_id(&[]), None);
    assert_eq!(chain_id(std::slice::from_ref(&a)), Some(a.clone()));
    let two = chain_id(&[a.clone(), Digest::of(b"b")]).unwrap();
    assert_eq!(two, Digest::of(format!("{a} {}", Digest::of(b"b")).as_bytes()));
}

/// Names that meet each other often.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a"), Just("b"), Just("c"), Just("l")].prop_map(str::to_owned)
}

fn path() -> impl Strategy<Value = String> {
    proptest::collection::vec(name(), 1..4).prop_map(|parts| parts.join("/"))
}

/// One random entry.
fn any_entry() -> impl Strategy<Value = Vec<u8>> {
    let target =
        prop_oneof![path(), path().prop_map(|p| format!("/{p}")), path().prop_map(|p| format!("../{p}"))];
    prop_oneof![
        3 => (path(), 0_u32..0o1000).prop_map(|(p, mode)| raw(b'5', p.as_bytes(), b"", b"", |block| {
            block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        })),
        4 => (path(), proptest::collection::vec(any::<u8>(), 0..1500)).prop_map(|(p, c)| file(&p, &c)),
        2 => (path(), target).prop_map(|(p, t)| entry(b'2', &p, &t)),
        2 => (path(), path()).prop_map(|(p, t)| entry(b'1', &p, &t)),
        2 => path().prop_map(|p| {
            let (parent, name) = p.rsplit_once('/').map_or((String::new(), &*p), |(a, b)| (format!("{a}/"), b));
            file(&format!("{parent}.wh.{name}"), b"")
        }),
        1 => path().prop_map(|p| file(&format!("{p}/.wh..wh..opq"), b"")),
        1 => path().prop_map(|p| entry(b'6', &p, "")),
        1 => (path(), 0_u32..2).prop_map(|(p, minor)| device(b'3', &p, 0, minor)),
        1 => (path(), name()).prop_map(|(p, value)| {
            [pax(&[("SCHILY.xattr.user.x", value.as_bytes()), ("mtime", b"12.5")]), file(&p, b"x")].concat()
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    /// Whatever layers say, both forms show the same tree, or refuse both.
    #[test]
    fn any_layers_are_as_extracted(
        layers in proptest::collection::vec(proptest::collection::vec(any_entry(), 0..12), 1..4)
    ) {
        if here() {
            let tars: Vec<Vec<u8>> = layers.iter().map(|parts| layer(parts)).collect();
            compare(&tars);
        }
    }

    #[test]
    fn any_bytes_are_read_without_harm(mut tar in proptest::collection::vec(any_entry(), 1..6).prop_map(|p| layer(&p)),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        for (place, value) in flips {
            let place = place.index(tar.len());
            tar[place] = value;
        }
        drop(index_of_tars(&[&tar]));
    }
}
