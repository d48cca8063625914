//! The cache: what is kept, what is trusted, and that nothing in it can keep a program from running.

use super::*;
use std::cell::Cell;

const TEXT: &[u8] = br#"(module (func (export "_start")))"#;

/// A cache, its engine, and how often the source was read.
struct Bench {
    temp: tempfile::TempDir,
    engine: Engine,
    reads: Cell<u32>,
}

impl Bench {
    fn new() -> Self {
        let temp = tempfile::tempdir().expect("a directory");
        Self { temp, engine: engine::run(Flavor::default()).expect("an engine"), reads: Cell::new(0) }
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("aot").join(engine::compatibility(&self.engine))
    }

    fn file(&self) -> PathBuf {
        self.dir().join("name")
    }

    fn get(&self, source: &[u8]) -> Result<Code> {
        let cache = Cache::new(Some(self.temp.path().join("aot")));
        let read = || {
            self.reads.set(self.reads.get() + 1);
            Ok(source.to_vec())
        };
        cache.code(
            &self.engine,
            Wanted {
                name: Some("name".to_owned()),
                path: "guest",
                text: true,
                flavor: Flavor::default(),
                read,
            },
        )
    }

    /// Whether the next call finds the code without reading its source.
    fn is_cached(&self) -> bool {
        self.reads.set(0);
        assert!(matches!(self.get(TEXT), Ok(Code::Module(_))));
        self.reads.get() == 0
    }
}

#[test]
fn compiled_once() {
    let bench = Bench::new();
    assert!(!bench.is_cached());
    assert!(bench.is_cached());
    let names: Vec<_> =
        fs_err::read_dir(bench.dir()).expect("list").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["name"], "no lock and no temporary file is left");
}

#[test]
fn components_too() {
    let bench = Bench::new();
    assert!(matches!(bench.get(b"(component)"), Ok(Code::Component(_))));
    assert!(matches!(bench.get(b"never read"), Ok(Code::Component(_))));
    assert_eq!(bench.reads.get(), 1);
}

#[test]
fn damaged_files_are_made_anew() {
    let bench = Bench::new();
    assert!(!bench.is_cached());
    let good = fs_err::read(bench.file()).expect("code");
    let mut longer = good.clone();
    longer.push(0);
    let mut mark = good.clone();
    let at = mark.len() - 9;
    mark[at] = 0;
    for bad in [&b""[..], b"short", &good[..good.len() / 2], &good[..good.len() - 1], &longer, &mark] {
        fs_err::write(bench.file(), bad).expect("write");
        assert!(!bench.is_cached(), "{} bytes", bad.len());
        assert!(bench.is_cached());
    }
    // Well-formed on our side, but not wasmtime's.
    let mut foreign = vec![7; 100];
    foreign.extend(Sha256::digest([7; 100]));
    foreign.extend(MODULE);
    foreign.extend(100u64.to_le_bytes());
    fs_err::write(bench.file(), foreign).expect("write");
    assert!(!bench.is_cached() && bench.is_cached());
}

#[cfg(unix)]
#[test]
fn files_of_others_are_not_loaded() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let bench = Bench::new();
    assert!(!bench.is_cached());
    let mode = |path: &Path, mode| {
        fs_err::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    };
    mode(&bench.file(), 0o620);
    assert!(!bench.is_cached(), "written by the group");
    mode(&bench.file(), 0o602);
    assert!(!bench.is_cached(), "written by anybody");
    mode(&bench.dir(), 0o777);
    assert!(!bench.is_cached(), "in a directory where anybody may put files");
    mode(&bench.dir(), 0o700);
    assert!(bench.is_cached());
    let elsewhere = bench.temp.path().join("elsewhere");
    fs_err::rename(bench.file(), &elsewhere).expect("move");
    symlink(&elsewhere, bench.file()).expect("symlink");
    assert!(!bench.is_cached(), "a link");
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(bench.file(), Some(12345), None).expect("chown");
        assert!(!bench.is_cached(), "somebody else's");
    }
}

#[cfg(unix)]
#[test]
fn an_unusable_cache_is_no_obstacle() {
    let bench = Bench::new();
    fs_err::write(bench.temp.path().join("aot"), "a file where the directory should be").expect("write");
    assert!(!bench.is_cached());
    assert!(!bench.is_cached());
}

#[test]
fn a_check_sees_every_byte() {
    let bench = Bench::new();
    assert!(!bench.is_cached() && is_whole(&bench.file()));
    let good = fs_err::read(bench.file()).expect("code");
    for at in [0, good.len() / 2, good.len() - 60, good.len() - 40, good.len() - 12, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        fs_err::write(bench.file(), bad).expect("write");
        assert!(!is_whole(&bench.file()), "byte {at} of {}", good.len());
    }
    fs_err::write(bench.file(), &good[..good.len() - 1]).expect("write");
    assert!(!is_whole(&bench.file()));
}

/// Each process says which file it has loaded: had two compiled, the later one would have replaced the other's.
#[cfg(unix)]
#[test]
fn processes_at_once_compile_once() {
    use crate::task::ExitStatus;
    use std::os::unix::fs::MetadataExt as _;
    let bench = Bench::new();
    // Takes long enough for all of them to meet.
    let functions = (0..2000).map(|n| {
        format!("(func (export \"f{n}\") (param i32) (result i32) (i32.mul (local.get 0) (i32.const {n})))")
    });
    let text = format!("(module {})", functions.collect::<String>());
    let children: Vec<_> = (0..4)
        .map(|number| {
            crate::process::fork_unchecked(|| {
                let loaded = bench.get(text.as_bytes()).is_ok();
                let inode = fs_err::metadata(bench.file()).map_or(0, |meta| meta.ino());
                fs_err::write(bench.temp.path().join(number.to_string()), inode.to_string()).expect("answer");
                u8::from(!loaded)
            })
            .expect("fork")
        })
        .collect();
    for child in children {
        assert_eq!(child.wait().expect("wait"), ExitStatus::Code(0));
    }
    let answers: std::collections::BTreeSet<String> = (0..4)
        .map(|number| fs_err::read_to_string(bench.temp.path().join(number.to_string())).expect("answer"))
        .collect();
    assert_eq!(answers.len(), 1, "{answers:?}");
    assert_eq!(fs_err::read_dir(bench.dir()).expect("list").count(), 1);
}

#[test]
fn every_flavor_has_code_of_its_own() {
    let mut keys = std::collections::BTreeSet::new();
    for (fuel, epoch) in [(false, false), (true, false), (false, true), (true, true)] {
        keys.insert(engine::compatibility(&engine::run(Flavor { fuel, epoch }).expect("an engine")));
    }
    assert_eq!(keys.len(), Flavor::COUNT);
}

#[test]
fn invalid_code_leaves_nothing() {
    let bench = Bench::new();
    assert!(matches!(bench.get(b"\0asm\x01\0\0\0broken"), Err(Error::InvalidModule { .. })));
    assert_eq!(fs_err::read_dir(bench.dir()).expect("list").count(), 0);
}

#[test]
fn names() {
    let hex = "0123456789abcdef".repeat(4);
    assert_eq!(name_of_id(&format!("sha256:{hex}")), format!("sha256-{hex}"));
    for odd in ["sha256:../../etc", "", "x/y", &format!("sha256:{}", hex.to_uppercase())] {
        let name = name_of_id(odd);
        assert!(name.starts_with("id-") && name.len() == 67, "{name}");
    }
    assert_ne!(name_in_layer("a", "b"), name_in_layer("ab", ""));
    let layer = format!("sha512:{}", hex.repeat(2));
    for length in [0, 1, 48, 49, 4096] {
        let (one, other) =
            (name_in_layer(&layer, &"/".repeat(length)), name_in_layer(&layer, &"x".repeat(length)));
        assert!((length == 0) == (one == other), "{one}");
        assert!(
            one.len() <= 240 && one.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
        );
    }
}
