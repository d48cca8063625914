//! Images and specifications that try to reach the host.

use std::os::unix::fs::symlink;

use super::harness::{Fixture, forked, privileged, set_args, sh};
use crate::native::defaults;

/// A directory of the host's that nobody must touch.
fn canary(fixture: &Fixture) -> std::path::PathBuf {
    let path = fixture.path().join("canary");
    fs_err::create_dir(&path).expect("canary");
    fs_err::write(path.join("null"), "untouched").expect("file");
    path
}

fn is_untouched(canary: &std::path::Path) {
    let names: Vec<_> =
        fs_err::read_dir(canary).expect("list").map(|entry| entry.expect("entry").file_name()).collect();
    assert_eq!(names, ["null"]);
    assert_eq!(fs_err::read_to_string(canary.join("null")).expect("file"), "untouched");
}

#[test]
fn links_in_place_of_proc_sys_and_dev_are_refused() {
    forked(|| {
        for name in ["proc", "sys", "dev"] {
            let fixture = Fixture::new();
            let canary = canary(&fixture);
            symlink(&canary, fixture.rootfs().join(name)).expect("link");
            let run = fixture.run(|spec| set_args(spec, sh("true")));
            assert!(run.error().contains("symbolic link"), "{name}: {}", run.error());
            is_untouched(&canary);
        }
    });
}

#[test]
fn without_a_dev_mount_nothing_of_the_image_is_trusted() {
    forked(|| {
        let fixture = Fixture::new();
        let canary = canary(&fixture);
        let attempt = |made: &str| {
            let run = fixture.run(|spec| {
                let mounts = spec.mounts_mut().as_mut().expect("mounts");
                mounts.retain(|mount| !mount.destination().starts_with("/dev"));
                set_args(spec, sh("true"));
            });
            assert!(run.result.is_err(), "{made} was accepted");
            is_untouched(&canary);
        };
        symlink(&canary, fixture.rootfs().join("dev")).expect("link");
        attempt("a linked /dev");
        fs_err::remove_file(fixture.rootfs().join("dev")).expect("remove");
        fs_err::create_dir(fixture.rootfs().join("dev")).expect("dev");
        symlink(canary.join("null"), fixture.rootfs().join("dev/null")).expect("link");
        attempt("a linked /dev/null");
        fs_err::remove_file(fixture.rootfs().join("dev/null")).expect("remove");
        if privileged() {
            fs_err::write(fixture.rootfs().join("dev/null"), "a file").expect("file");
            attempt("a file as /dev/null");
        }
    });
}

#[test]
fn nothing_is_mounted_over_procfs() {
    forked(|| {
        let fixture = Fixture::new();
        let canary = canary(&fixture);
        let source = canary.to_str().expect("text");
        symlink("/proc", fixture.rootfs().join("innocent")).expect("link");
        symlink("/proc/self", fixture.rootfs().join("me")).expect("link");
        for target in ["/proc", "/proc/self", "/proc/1/attr", "/innocent", "/innocent/sys", "/x/../proc/fs"] {
            let run = fixture.run(|spec| {
                let mount = defaults::mount(target, "bind", source, &["rbind"]);
                spec.mounts_mut().as_mut().expect("mounts").push(mount);
                set_args(spec, sh("true"));
            });
            let error = run.error();
            assert!(error.contains("/proc") || error.contains("procfs"), "{target}: {error}");
        }
        symlink("/proc/sys", fixture.rootfs().join("data")).expect("link");
        for (target, kind) in
            [("/innocent", "tmpfs"), ("/innocent/sys", "tmpfs"), ("/data", "tmpfs"), ("/me", "proc")]
        {
            let run = fixture.run(|spec| {
                spec.mounts_mut().as_mut().expect("mounts").push(defaults::mount(target, kind, kind, &[]));
                set_args(spec, sh("true"));
            });
            let error = run.error();
            assert!(error.contains("over procfs"), "{target}: {error}");
        }
        is_untouched(&canary);
    });
}

#[test]
fn targets_stay_inside() {
    forked(|| {
        let fixture = Fixture::new();
        let canary = canary(&fixture);
        let up = "../".repeat(12);
        symlink(format!("{up}{}", canary.display()), fixture.rootfs().join("up")).expect("link");
        symlink(&canary, fixture.rootfs().join("abs")).expect("link");
        symlink("/run/not/there", fixture.rootfs().join("dangling")).expect("link");
        let source = fixture.path().join("source");
        fs_err::create_dir(&source).expect("source");
        fs_err::write(source.join("here"), "").expect("file");
        for target in ["/up", "/abs/new", "/dangling", "/../../../../tmp/x", "/up/../../../.."] {
            let run = fixture.run(|spec| {
                let mount = defaults::mount(target, "bind", source.to_str().expect("text"), &["rbind"]);
                spec.mounts_mut().as_mut().expect("mounts").push(mount);
                set_args(spec, sh(&format!("ls {target}")));
            });
            // The last one is the root itself, which cannot be covered.
            let refused = run.result.is_err();
            assert_eq!(
                (refused, run.output.as_str()),
                if target.ends_with("..") { (true, "") } else { (false, "here\n") },
                "{target}"
            );
        }
        is_untouched(&canary);
    });
}

#[test]
fn working_directories_stay_inside() {
    forked(|| {
        let fixture = Fixture::new();
        for number in 0..24 {
            let run = fixture.run(|spec| {
                let process = spec.process_mut().as_mut().expect("process");
                process.set_cwd(format!("/proc/self/fd/{number}").into()).set_args(Some(sh("pwd")));
            });
            assert!(run.result.is_err(), "{number}: {}", run.output);
        }
        let canary = canary(&fixture);
        symlink(&canary, fixture.rootfs().join("cwd")).expect("link");
        let run = fixture.run(|spec| {
            spec.process_mut()
                .as_mut()
                .expect("process")
                .set_cwd("/cwd".into())
                .set_args(Some(sh("ls; pwd -P")));
        });
        // Made inside the root, where the link leads to.
        assert_eq!(run.output, format!("{}\n", canary.display()));
        is_untouched(&canary);
    });
}

#[test]
fn mounts_of_the_container_stay_in_it() {
    forked(|| {
        let fixture = Fixture::new();
        let shared = fixture.path().join("shared");
        fs_err::create_dir(&shared).expect("shared");
        let run = fixture.run(|spec| {
            let list = spec.mounts_mut().as_mut().expect("mounts");
            list.push(defaults::mount("/s", "bind", shared.to_str().expect("text"), &["rbind", "rslave"]));
            list.push(defaults::mount("/s/inner", "tmpfs", "tmpfs", &[]));
            set_args(spec, sh("echo x > /s/inner/x; ls /s/inner"));
        });
        assert_eq!(run.output, "x\n");
        assert!(fixture.mounts().is_empty());
        assert_eq!(fs_err::read_dir(shared.join("inner")).expect("list").count(), 0);
    });
}
