//! The wall from inside, each time in a process of its own.

use std::io::{Read as _, Write as _};

use super::*;
use crate::process::fork_unchecked;
use crate::signal::Signal;
use crate::task::ExitStatus;

/// How a process ends that does this behind a wall: 0 for `true`.
fn behind(wall: &Wall, act: impl FnOnce() -> bool) -> ExitStatus {
    let wall = wall.clone();
    let child = fork_unchecked(move || match wall.raise() {
        Ok(()) => u8::from(!act()),
        Err(_) => 99,
    });
    child.and_then(crate::process::Child::wait).expect("a child")
}

fn is_refused<T>(result: rustix::io::Result<T>) -> bool {
    result.err() == Some(Errno::PERM)
}

#[test]
fn what_a_host_needs_works() {
    let temp = tempfile::tempdir().expect("a directory");
    let done = behind(&Wall::default(), || {
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
    refused(&closed, &|| drop_capabilities(false).is_err());
    refused(&closed, &|| {
        let pages = fs_err::read_to_string("/proc/self/status").expect("status");
        pages.contains("NoNewPrivs:\t1") && pages.contains("Seccomp:\t2")
    });
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
    let wall = Wall { filter: false, network: false };
    let done = behind(&wall, || {
        let status = fs_err::read_to_string("/proc/self/status").expect("status");
        status.contains("NoNewPrivs:\t1") && std::process::Command::new("true").status().is_ok()
    });
    assert_eq!(done, ExitStatus::Code(0));
}

#[test]
fn the_program_is_small() {
    let filter = filter(true).expect("a filter");
    assert!(filter.len() < 400, "{} instructions", filter.len());
}
