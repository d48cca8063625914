//! Hostile and odd layers, through both sinks.

use fs_err as fs;
use proptest::prelude::*;

use super::*;
use crate::layer::tar::tests::end;
use crate::layer::tar::tests::pax;
use crate::layer::tar::tests::raw;

fn file(name: &str, content: &str) -> Vec<u8> {
    raw(b'0', name.as_bytes(), b"", content.as_bytes(), |_| ())
}

fn special(flag: u8, name: &str, link: &str) -> Vec<u8> {
    raw(flag, name.as_bytes(), link.as_bytes(), b"", |b| b[100..107].copy_from_slice(b"0000755"))
}

fn portable(root: &Path, archive: &[u8]) -> Result<Extracted, Fault> {
    extract_into(archive, portable::PortableSink::new(root).unwrap())
}

fn message(fault: Fault) -> String {
    match fault {
        Fault::Io(e) => e.to_string(),
        Fault::Bad { entry, reason } => format!("{entry:?} {reason}"),
    }
}

/// A root for a layer beside a file that nothing may touch.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("root")).unwrap();
        fs::create_dir(dir.path().join("outside")).unwrap();
        fs::write(dir.path().join("outside/file"), "untouched").unwrap();
        Self { dir }
    }

    fn root(&self) -> std::path::PathBuf {
        self.dir.path().join("root")
    }

    fn assert_untouched(&self) {
        let outside: Vec<_> = fs::read_dir(self.dir.path().join("outside")).unwrap().collect();
        assert_eq!(outside.len(), 1);
        assert_eq!(fs::read_to_string(self.dir.path().join("outside/file")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(self.dir.path()).unwrap().count(), 2);
    }
}

#[test]
fn nothing_leaves_the_layer() {
    let outside = |place: &Place| place.dir.path().join("outside").display().to_string();
    type Make = fn(&str) -> Vec<Vec<u8>>;
    let cases: Vec<(&str, Make)> = vec![
        ("dotdot", |_| vec![file("../outside/file", "evil")]),
        ("absolute link", |o| vec![special(b'2', "l", o), file("l/file", "evil")]),
        ("relative link", |_| vec![special(b'2', "l", "../outside"), file("l/file", "evil")]),
        ("link to link", |o| vec![special(b'2', "a", "b"), special(b'2', "b", o), file("a/file", "evil")]),
        ("file over link", |o| vec![special(b'2', "l", &format!("{o}/file")), file("l", "evil")]),
        ("dir over link", |o| vec![special(b'2', "l", o), special(b'5', "l", ""), file("l/file", "ours")]),
        ("hard link out", |o| vec![special(b'1', "h", &format!("{o}/file")), file("h", "evil")]),
        ("hard link through link", |o| vec![special(b'2', "l", o), special(b'1', "h", "l/file")]),
        ("hard link to link", |o| {
            vec![special(b'2', "l", &format!("{o}/file")), special(b'1', "h", "l"), file("h", "evil")]
        }),
        ("whiteout out", |o| vec![special(b'2', "l", o), file("l/.wh.file", "")]),
        ("opaque out", |o| vec![special(b'2', "l", o), file("l/.wh..wh..opq", "")]),
        ("whiteout of dotdot", |_| vec![file(".wh...", "")]),
        ("magic link", |_| vec![special(b'2', "l", "/proc/self/root"), file("l/tmp/dhow-evil", "evil")]),
        ("deep", |_| vec![file(&"a/".repeat(49), "")]),
    ];
    for (name, make) in cases {
        for sink in ["system", "portable"] {
            let place = Place::new();
            let mut archive = make(&outside(&place)).concat();
            archive.extend(end());
            // Accepted or refused: what counts is what happened outside.
            drop(match sink {
                "portable" => portable(&place.root(), &archive),
                _ => extract(&archive[..], &place.root()),
            });
            place.assert_untouched();
            assert!(!Path::new("/tmp/dhow-evil").exists(), "{name} {sink}");
        }
    }
}

#[test]
fn refused_with_the_reason() {
    let cases = [
        ("name has .. in it", vec![file("a/../../b", "")]),
        ("whiteout of nothing", vec![file(".wh.", "")]),
        ("whiteout of nothing", vec![file(".wh..", "")]),
        ("name of a whiteout", vec![file("a/.wh.b/c", "")]),
        ("root is not a directory", vec![file("/", "").into_iter().collect(), special(b'2', "./", "x")]),
        ("hard link to a directory", vec![special(b'5', "d", ""), special(b'1', "h", "d")]),
        ("hard link to the root", vec![special(b'1', "h", "/")]),
        ("trailing garbage", vec![end(), b"x".to_vec()]),
    ];
    for (expected, parts) in cases {
        for sink in ["system", "portable"] {
            let place = Place::new();
            let mut archive = parts.concat();
            archive.extend(end());
            let result = match sink {
                "portable" => portable(&place.root(), &archive),
                _ => extract(&archive[..], &place.root()),
            };
            let found = result.map_or_else(message, |_| "accepted".into());
            assert!(found.contains(expected), "{sink}: {expected}: {found}");
        }
    }
}

#[test]
fn the_last_entry_of_a_name_counts() {
    for sink in ["system", "portable"] {
        let place = Place::new();
        let archive = [
            file("a", "first"),
            file("a", "second"),
            special(b'5', "d", ""),
            file("d/x", "x"),
            file("d", "now a file"),
            file("f", "now a directory"),
            special(b'5', "f", ""),
            file("f/x", "x"),
            file("implicit/parent/x", "x"),
            file("h", "linked"),
            special(b'1', "h2", "h"),
            special(b'1', "h2", "h"),
            special(b'1', "h", "h"),
            end(),
        ]
        .concat();
        let extracted = match sink {
            "portable" => portable(&place.root(), &archive),
            _ => extract(&archive[..], &place.root()),
        };
        let extracted = extracted.unwrap_or_else(|fault| panic!("{sink}: {}", message(fault)));
        assert_eq!(extracted.entries, 13, "{sink}");
        let read = |name: &str| fs::read_to_string(place.root().join(name)).unwrap();
        assert_eq!(read("a"), "second");
        assert_eq!(read("d"), "now a file");
        assert_eq!(read("f/x"), "x");
        assert_eq!(read("implicit/parent/x"), "x");
        assert_eq!(read("h") + &read("h2"), "linkedlinked");
    }
}

#[test]
fn whiteouts_keep_their_names_in_the_portable_form() {
    let place = Place::new();
    let archive =
        [file("a/.wh.gone", ""), file("b/.wh..wh..opq", ""), file(".wh..wh.plnk/x", ""), end()].concat();
    portable(&place.root(), &archive).map_err(message).unwrap_err();
    let archive =
        [file("a/.wh.gone", ""), file("b/.wh..wh..opq", ""), file(".wh..wh.aufs", ""), end()].concat();
    let place = Place::new();
    portable(&place.root(), &archive).map_err(message).unwrap();
    assert!(place.root().join("a/.wh.gone").is_file());
    assert!(place.root().join("b/.wh..wh..opq").is_file());
    assert!(!place.root().join(".wh..wh.aufs").exists());
}

#[cfg(target_os = "linux")]
mod linux {
    use std::os::unix::fs::FileTypeExt as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::super::linux::LinuxSink;
    use super::super::linux::Rights;
    use super::*;

    fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 64];
        let n = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
        value.truncate(n);
        Some(value)
    }

    #[test]
    fn whiteouts_take_the_kernels_form() {
        for rights in [Rights::All, Rights::Mapped, Rights::User] {
            if rights != Rights::User && !rustix::process::geteuid().is_root() {
                continue;
            }
            let place = Place::new();
            let archive = [
                file("a/.wh.gone", ""),
                file("b/.wh..wh..opq", ""),
                // A name that is removed and made anew hides what was there before.
                file("c/.wh.d", ""),
                special(b'5', "c/d", ""),
                special(b'5', "c/e", ""),
                file("c/.wh.e", ""),
                file(".wh.g", ""),
                file("g/h", "implicit"),
                file("c/.wh.f", ""),
                file("c/f", "stays"),
                file("k", "stays"),
                file(".wh.k", ""),
                end(),
            ]
            .concat();
            extract_into(&archive[..], LinuxSink::with_rights(&place.root(), rights).unwrap())
                .map_err(message)
                .unwrap();
            let gone = fs::symlink_metadata(place.root().join("a/gone")).unwrap();
            assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
            let name = if rights == Rights::All { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
            for dir in ["b", "c/d", "c/e", "g"] {
                assert_eq!(xattr(&place.root().join(dir), name).as_deref(), Some(&b"y"[..]), "{dir}");
            }
            assert_eq!(xattr(&place.root().join("a"), name), None);
            assert_eq!(fs::read_to_string(place.root().join("c/f")).unwrap(), "stays");
            assert_eq!(fs::read_to_string(place.root().join("k")).unwrap(), "stays");
        }
    }

    #[test]
    fn owners_modes_times_and_attributes_are_kept() {
        let place = Place::new();
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let records: &[(&str, &[u8])] = &[
            ("uid", b"1234"),
            ("gid", b"70000"),
            ("mtime", b"1000.25"),
            ("SCHILY.xattr.user.k", b"v"),
            ("SCHILY.xattr.security.capability", &capability),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ];
        let mode = |block: &mut [u8]| block[100..107].copy_from_slice(b"0006755");
        let device = |block: &mut [u8]| {
            block[329..336].copy_from_slice(b"0000001");
            block[337..344].copy_from_slice(b"0000003");
        };
        let archive = [
            pax(&[("mtime", b"5"), ("uid", b"7")]),
            raw(b'5', b"d", b"", b"", |b| b[100..107].copy_from_slice(b"0001700")),
            pax(records),
            raw(b'0', b"d/f", b"", b"x", mode),
            raw(b'6', b"pipe", b"", b"", mode),
            raw(b'3', b"null", b"", b"", device),
            pax(&[("uid", b"9"), ("mtime", b"-7")]),
            special(b'2', "link", "nowhere"),
            end(),
        ]
        .concat();
        let root = rustix::process::geteuid().is_root();
        extract(&archive[..], &place.root()).map_err(message).unwrap();
        let meta = |name: &str| fs::symlink_metadata(place.root().join(name)).unwrap();
        let f = meta("d/f");
        assert_eq!((f.mode() & 0o7777, f.mtime(), f.mtime_nsec()), (0o6755, 1000, 250_000_000));
        let path = place.root().join("d/f");
        assert_eq!(xattr(&path, "user.k").as_deref(), Some(&b"v"[..]));
        assert_eq!(xattr(&path, "user.overlay.opaque"), None);
        assert_eq!((meta("d").mode() & 0o7777, meta("d").mtime()), (0o1700, 5));
        assert!(meta("pipe").file_type().is_fifo());
        assert_eq!(meta("link").mtime(), -7);
        if root {
            assert_eq!((f.uid(), f.gid(), meta("d").uid(), meta("link").uid()), (1234, 70000, 7, 9));
            assert_eq!(xattr(&path, "trusted.overlay.opaque"), None);
            assert_eq!(xattr(&path, "security.capability").as_deref(), Some(&capability[..]));
            assert_eq!(meta("null").rdev(), rustix::fs::makedev(1, 3));
        }
        let place = Place::new();
        extract_into(&archive[..], LinuxSink::with_rights(&place.root(), Rights::User).unwrap())
            .map_err(message)
            .unwrap();
        assert!(!place.root().join("null").exists());
        assert_eq!(
            fs::symlink_metadata(place.root().join("d/f")).unwrap().uid(),
            rustix::process::geteuid().as_raw()
        );
    }

    #[test]
    fn holes_stay_holes() {
        let sparse = |size: &str, map: &str| {
            [
                pax(&[("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())]),
                file("f", "abcdef"),
                end(),
            ]
            .concat()
        };
        for sink in ["system", "portable"] {
            let place = Place::new();
            let archive = sparse("1000000000", "4096,3,999999000,3");
            let extracted = match sink {
                "portable" => portable(&place.root(), &archive),
                _ => extract(&archive[..], &place.root()),
            };
            assert_eq!(extracted.map_err(message).unwrap().size, 6);
            let path = place.root().join("f");
            let meta = fs::metadata(&path).unwrap();
            assert_eq!(meta.len(), 1_000_000_000);
            assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
            let mut part = [0; 5];
            std::os::unix::fs::FileExt::read_exact_at(fs::File::open(&path).unwrap().file(), &mut part, 4095)
                .unwrap();
            assert_eq!(&part, b"\0abc\0");
        }
        let place = Place::new();
        let fault = extract(&sparse("9223372036854775807", "0,6")[..], &place.root()).unwrap_err();
        assert!(message(fault).contains("unpacks to more than"));
    }

    #[test]
    fn owners_that_do_not_exist_here_are_counted() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let archive =
            [pax(&[("uid", b"4294967294")]), file("a", ""), file("b", ""), special(b'5', "d", ""), end()]
                .concat();
        let run = |rights| {
            let place = Place::new();
            extract_into(&archive[..], LinuxSink::with_rights(&place.root(), rights).unwrap())
                .map_err(message)
                .unwrap()
                .lost_owners
        };
        assert_eq!((run(Rights::All), run(Rights::User)), (0, 1));
    }

    #[test]
    fn attributes_beyond_the_file_systems_limit_are_named() {
        // The kernel takes 64 KiB of one attribute, no file system more than a few hundred KiB of all.
        let many: Vec<(String, Vec<u8>)> =
            (0..15).map(|n| (format!("SCHILY.xattr.user.{n}"), vec![b'x'; 65_000])).collect();
        let many: Vec<(&str, &[u8])> = many.iter().map(|(k, v)| (&k[..], &v[..])).collect();
        let one = [b'x'; 70_000];
        for records in [&many[..], &[("SCHILY.xattr.user.k", &one[..])]] {
            let place = Place::new();
            let probe = place.root().join("probe");
            fs::write(&probe, "").unwrap();
            let probed = rustix::fs::setxattr(&probe, "user.k", b"v", rustix::fs::XattrFlags::empty());
            let limited = records.iter().enumerate().find_map(|(n, (_, value))| {
                rustix::fs::setxattr(&probe, format!("user.{n}"), value, rustix::fs::XattrFlags::empty())
                    .err()
            });
            if probed.is_err() || limited.is_none() {
                // This file system has no attributes, or no limit.
                continue;
            }
            let archive = [pax(records), file("d/f", ""), end()].concat();
            match extract(&archive[..], &place.root()).unwrap_err() {
                Fault::Bad { entry, reason } => {
                    assert_eq!(entry.as_deref(), Some("d/f"));
                    assert_eq!(reason, "too many or too large extended attributes");
                }
                Fault::Io(e) => panic!("{e}"),
            }
        }
    }

    #[test]
    fn links_within_the_layer_are_followed_as_in_a_container() {
        let place = Place::new();
        let archive = [
            special(b'5', "usr/lib", ""),
            special(b'2', "lib", "/usr/lib"),
            file("lib/a", "a"),
            special(b'2', "up", "../../../../usr"),
            file("up/b", "b"),
            end(),
        ]
        .concat();
        extract(&archive[..], &place.root()).map_err(message).unwrap();
        assert_eq!(fs::read_to_string(place.root().join("usr/lib/a")).unwrap(), "a");
        assert_eq!(fs::read_to_string(place.root().join("usr/b")).unwrap(), "b");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    /// Random trees of few names with links everywhere: no panic, nothing outside.
    #[test]
    fn any_sequence_of_entries_stays_inside(entries in proptest::collection::vec(
        (prop::sample::select(b"0125".to_vec()), "(a|b|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq)(/(a|b|\\.wh\\.b)){0,2}",
            "(\\.\\./){0,3}(/)?(a|b|outside)(/(a|b|file))?"), 0..12)) {
        let archive: Vec<u8> = entries
            .iter()
            .flat_map(|(flag, name, link)| raw(*flag, name.as_bytes(), link.as_bytes(), if *flag == b'0' { b"x" } else { b"" }, |_| ()))
            .chain(end())
            .collect();
        for sink in [true, false] {
            let place = Place::new();
            drop(if sink { extract(&archive[..], &place.root()) } else { portable(&place.root(), &archive) });
            place.assert_untouched();
        }
    }
}
