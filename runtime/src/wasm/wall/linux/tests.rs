//! The wall from inside, each time in a process of its own.

use std::io::{Read as _, Write as _};

use std::path::Path;

use super::super::Keep;
use super::*;
use crate::bundle::Layer;
use crate::process::fork_unchecked;
use crate::signal::Signal;
use crate::task::ExitStatus;

/// How a process ends that does this behind a wall, with a guest that has an empty folder: 0 for `true`.
fn behind(wall: &Wall, act: impl FnOnce() -> bool) -> ExitStatus {
    let root = tempfile::tempdir().expect("a directory");
    behind_of(wall, &Union::plain(root.path()).expect("a tree"), act)
}

/// The same with the files of this guest.
fn behind_of(wall: &Wall, union: &Union, act: impl FnOnce() -> bool) -> ExitStatus {
    let child = fork_unchecked(|| match wall.raise(union, false) {
        Ok(()) => u8::from(!act()),
        Err(_) => 99,
    });
    child.and_then(crate::process::Child::wait).expect("a child")
}

/// A wall that leaves this.
fn with(path: &Path, rights: Rights) -> Wall {
    Wall { keep: vec![Keep { path: path.to_owned(), rights }], ..Wall::default() }
}

/// Whether this kernel has Landlock as the wall needs it.
fn has_landlock() -> bool {
    let has = crate::native::sys::landlock_version().is_ok_and(|version| version >= 2);
    if !has {
        println!("skipped: no Landlock");
    }
    has
}

fn is_kept_out<T>(result: std::io::Result<T>) -> bool {
    // Moves between directories with different rights are links that cannot be made.
    matches!(result.err().and_then(|error| error.raw_os_error()), Some(libc::EACCES | libc::EXDEV))
}

fn is_refused<T>(result: rustix::io::Result<T>) -> bool {
    result.err() == Some(Errno::PERM)
}

#[test]
fn what_a_host_needs_works() {
    let temp = tempfile::tempdir().expect("a directory");
    let done = behind(&with(temp.path(), Rights::Write), || {
        let path = temp.path().join("a");
        let mut file = fs_err::File::create(&path).expect("create");
        file.write_all(b"text").expect("write");
        file.sync_all().expect("sync");
        fs_err::create_dir(temp.path().join("dir")).expect("mkdir");
        fs_err::rename(&path, temp.path().join("dir/b")).expect("rename");
        let mut text = String::new();
        let file = fs_err::File::open(temp.path().join("dir/b")).expect("open");
        file.take(9).read_to_string(&mut text).expect("read");
        assert_eq!(fs_err::read_dir(temp.path()).expect("list").count(), 1);
        fs_err::remove_dir_all(temp.path().join("dir")).expect("remove");
        // Memory, threads, time, a runtime.
        let sum = std::thread::spawn(|| vec![1u8; 8 << 20].iter().map(|one| u64::from(*one)).sum::<u64>());
        assert_eq!(sum.join().expect("thread"), 8 << 20);
        std::thread::sleep(std::time::Duration::from_millis(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            tokio::task::spawn_blocking(|| ()).await.expect("helper");
        });
        text == "text"
    });
    assert_eq!(done, ExitStatus::Code(0));
}

#[test]
fn what_no_host_does_is_fatal() {
    let sys = "SYS".parse::<Signal>().expect("a signal");
    type Act = fn() -> bool;
    let fatal: [(&str, Act); 5] = [
        ("umount", || rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()).is_ok()),
        ("chroot", || rustix::process::chroot("/").is_ok()),
        ("pidfd", || rustix::process::pidfd_open(getpid(), rustix::process::PidfdFlags::empty()).is_ok()),
        ("namespace", || {
            #[expect(deprecated, reason = "there is one thread")]
            rustix::thread::unshare(rustix::thread::UnshareFlags::NEWUTS).is_ok()
        }),
        ("hostname", || rustix::system::sethostname(b"x").is_ok()),
    ];
    for (what, act) in fatal {
        assert_eq!(behind(&Wall::default(), act), ExitStatus::Signaled(sys), "{what}");
    }
}

#[test]
fn the_rest_is_refused() {
    use rustix::net::{AddressFamily, SocketType, socket};
    let inet = || is_refused(socket(AddressFamily::INET, SocketType::STREAM, None));
    let unix = || is_refused(socket(AddressFamily::UNIX, SocketType::STREAM, None));
    let refused = |wall: &Wall, act: &dyn Fn() -> bool| {
        assert_eq!(behind(wall, act), ExitStatus::Code(0));
    };
    let (closed, open) = (Wall::default(), Wall { network: true, ..Wall::default() });
    refused(&closed, &inet);
    refused(&closed, &unix);
    refused(&open, &|| !inet());
    refused(&open, &unix);
    refused(&closed, &|| std::process::Command::new("true").status().is_err());
    let other = rustix::process::Pid::INIT;
    refused(&closed, &|| is_refused(rustix::process::test_kill_process(other)));
    refused(&closed, &|| part_and_drop_capabilities(false).is_err() || !rustix::process::geteuid().is_root());
    let readable = Wall { keep: with(Path::new("/proc"), Rights::Read).keep, ..Wall::default() };
    refused(&readable, &|| {
        let pages = fs_err::read_to_string("/proc/self/status").expect("status");
        pages.contains("NoNewPrivs:\t1") && pages.contains("Seccomp:\t2")
    });
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the numbers of errors are looked at")]
fn files_outside_are_out_of_reach() {
    if !has_landlock() {
        return;
    }
    let temp = tempfile::tempdir().expect("a directory");
    let at = |name: &str| temp.path().join(name);
    for folder in ["layer", "other", "upper", "volume", "ro", "kept", "kept/empty"] {
        fs_err::create_dir(at(folder)).expect("mkdir");
    }
    for file in ["layer/f", "other/f", "upper/f", "volume/f", "ro/f", "kept/f", "hosts", "secret"] {
        fs_err::write(at(file), file).expect("write");
    }
    std::os::unix::fs::symlink("/etc/passwd", at("volume/link")).expect("link");
    let layer = |name: &str| Layer { path: at(name), id: None };
    let mut union = Union::layered(&at("upper"), &[layer("layer")]).expect("a tree");
    union.bind(&at("volume"), Path::new("/volume"), false).expect("bind");
    union.bind(&at("ro"), Path::new("/ro"), true).expect("bind");
    union.bind(&at("hosts"), Path::new("/etc/hosts"), true).expect("bind");
    let wall = with(&at("kept"), Rights::Clear);
    type Act<'a> = &'a dyn Fn() -> bool;
    let reads = |name: &str| fs_err::read(at(name)).is_ok();
    let out = |name: &str| is_kept_out(std::fs::read(at(name)));
    let writes = |name: &str| std::fs::OpenOptions::new().write(true).open(at(name));
    let all: [(&str, Act<'_>); 16] = [
        ("what the guest has", &|| {
            ["layer/f", "upper/f", "volume/f", "ro/f", "hosts"].iter().all(|f| reads(f))
        }),
        ("a file of the host", &|| is_kept_out(std::fs::read("/etc/passwd"))),
        ("a link to it", &|| out("volume/link")),
        ("a file beside", &|| out("secret") && out("other/f")),
        ("its own state in /proc", &|| is_kept_out(std::fs::read("/proc/self/environ"))),
        ("a device", &|| is_kept_out(writes("/dev/null"))),
        ("listing", &|| is_kept_out(std::fs::read_dir("/")) && is_kept_out(std::fs::read_dir(temp.path()))),
        ("the upper directory", &|| {
            std::fs::write(at("upper/new"), "x").is_ok() && writes("upper/f").is_ok()
        }),
        ("a volume", &|| {
            std::fs::write(at("volume/new"), "x").is_ok() && std::fs::remove_file(at("volume/f")).is_ok()
        }),
        ("a layer", &|| is_kept_out(writes("layer/f")) && is_kept_out(std::fs::remove_file(at("layer/f")))),
        ("a read-only volume", &|| {
            is_kept_out(writes("ro/f")) && is_kept_out(std::fs::write(at("ro/new"), "x"))
        }),
        ("a single file", &|| is_kept_out(writes("hosts"))),
        ("links out", &|| is_kept_out(std::fs::hard_link(at("volume/new"), at("other/new")))),
        ("moves", &|| {
            is_kept_out(std::fs::rename(at("secret"), at("volume/secret")))
                && is_kept_out(std::fs::rename(at("layer/f"), at("upper/g")))
                && std::fs::create_dir(at("upper/d")).is_ok()
                && std::fs::rename(at("upper/f"), at("upper/d/f")).is_ok()
        }),
        ("special files", &|| {
            let place = at("upper/fifo");
            let (fifo, mode) = (FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, &place, fifo, mode, 0).is_err()
        }),
        ("what is kept", &|| {
            reads("kept/f")
                && is_kept_out(writes("kept/f"))
                && is_kept_out(std::fs::write(at("kept/new"), "x"))
                && std::fs::remove_dir(at("kept/empty")).is_ok()
                && std::fs::remove_file(at("kept/f")).is_ok()
                && is_kept_out(std::fs::remove_dir(at("kept")))
        }),
    ];
    // Each changes something for the next one.
    for (what, act) in all {
        assert_eq!(behind_of(&wall, &union, act), ExitStatus::Code(0), "{what}");
    }
    // Without the filter as well.
    let open = Wall { filter: false, ..wall.clone() };
    let none = || {
        is_kept_out(std::fs::read("/etc/passwd"))
            && is_kept_out(std::process::Command::new("/bin/true").status())
    };
    assert_eq!(behind_of(&open, &union, none), ExitStatus::Code(0));
    // What is not open is not made either, and what is not there is made in time.
    fs_err::remove_dir_all(at("upper")).expect("remove");
    let union = Union::layered(&at("upper"), &[layer("layer")]).expect("a tree");
    assert_eq!(
        behind_of(&wall, &union, || std::fs::write(at("upper/new"), "x").is_ok()),
        ExitStatus::Code(0)
    );
}

#[test]
fn it_has_namespaces_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: root's");
        return;
    }
    let kinds = ["uts", "ipc", "cgroup", "mnt", "net"];
    let of = || kinds.map(|kind| fs_err::read_link(format!("/proc/self/ns/{kind}")).expect("a namespace"));
    let ours = of();
    let done = behind(&Wall::default(), || {
        let own = of();
        let others = own.iter().zip(&ours).take(3).all(|(own, ours)| own != ours);
        others && own[3..] == ours[3..]
    });
    assert_eq!(done, ExitStatus::Code(0));
}

#[test]
fn no_memory_becomes_executable() {
    let engine = crate::wasm::engine::compile(crate::wasm::engine::Flavor::default()).expect("engine");
    let code = engine.precompile_module(br#"(module (func (export "f")))"#).expect("code");
    assert_eq!(
        behind(&Wall::default(), || {
            // Taking machine code over needs executable memory.
            let run = crate::wasm::engine::run(crate::wasm::engine::Flavor::default()).expect("engine");
            wasmtime::Module::new(&run, &code).is_err()
        }),
        ExitStatus::Code(0)
    );
}

#[test]
fn without_the_filter_only_privileges_go() {
    let wall = Wall { filter: false, ..with(Path::new("/proc"), Rights::Read) };
    let done = behind(&wall, || {
        let status = fs_err::read_to_string("/proc/self/status").expect("status");
        status.contains("NoNewPrivs:\t1") && status.contains("Seccomp:\t0")
    });
    assert_eq!(done, ExitStatus::Code(0));
}

#[test]
fn the_program_is_small() {
    let filter = filter(true).expect("a filter");
    assert!(filter.len() < 400, "{} instructions", filter.len());
}
