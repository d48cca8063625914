//! Programs in a container that try to change or to run what is the host's: devices, streams, its executable.

use std::fs::Permissions;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::harness::{Fixture, forked, privileged, set_args, sh, write_executable};
use crate::bundle::Root;
use crate::native::{Executor, defaults};
use crate::stdio::{Stdio, Stream};

/// Every change asked for is one to what is there already, so that a host is none the worse for a failure.
#[test]
fn the_hosts_device_nodes_cannot_be_changed() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let changes = |path: &str| {
            format!(
                "for c in 'chmod 666' 'chown 0:0' 'touch -c -r {path}'; do busybox $c {path} 2>&1 | grep -c 'Read-only'; done"
            )
        };
        for path in ["/dev/full", "/dev/null", "/dev/tty", "/proc/interrupts", "/proc/timer_list"] {
            let run = fixture.run(|spec| set_args(spec, sh(&changes(path))));
            assert_eq!(run.output, "1\n1\n1\n", "{path}");
        }
        let script = "echo x > /dev/null && echo y >> /dev/null && head -c 3 /dev/urandom | wc -c; echo z 2>/dev/null > /dev/full || echo full";
        let run = fixture.run(|spec| set_args(spec, sh(script)));
        assert_eq!(run.output, "3\nfull\n");
    });
}

#[test]
fn streams_are_not_on_the_hosts_null_device() {
    forked(|| {
        let fixture = Fixture::new();
        let mut spec = fixture.spec();
        // Its standard input reads, its error output writes, and both are the container's own.
        let script = "busybox chmod 666 /proc/self/fd/0 && echo changed; busybox chmod 666 /proc/$$/fd/2 && echo changed; cat; echo gone >&2; grep -h mnt_id /proc/$$/fdinfo/0 /proc/$$/fdinfo/2; grep ' /dev/null ' /proc/self/mountinfo | while read id rest; do echo mnt_id: $id; done";
        set_args(&mut spec, sh(script));
        let bundle = fixture.bundle(spec, fixture.dir_root());
        let (mut read, write) = std::io::pipe().expect("a pipe");
        let stdio = Stdio::Streams {
            stdin: Stream::Null,
            stdout: Stream::File(OwnedFd::from(write).into()),
            stderr: Stream::Null,
        };
        let mut task = Executor::new().create(&bundle, stdio).expect("create");
        task.start().expect("start");
        assert_eq!(task.wait().expect("wait").code(), 0);
        let mut output = String::new();
        read.read_to_string(&mut output).expect("output");
        let lines: Vec<String> = output.lines().map(|line| line.replace(char::is_whitespace, "")).collect();
        assert!(lines.len() == 3 && lines.iter().all(|line| *line == lines[0]), "{output}");
    });
}

/// With layers and, in their stead, with the upper directory alone.
#[test]
fn device_nodes_of_the_root_do_not_work() {
    forked(|| {
        let fixture = Fixture::new();
        for extra in [0, 1] {
            let mut root = fixture.layers(extra);
            if let (Root::Layers { lower, upper, .. }, 0) = (&mut root, extra) {
                *upper = lower.remove(0).path;
            }
            let script =
                "while read dev at kind options rest; do test $at = / && echo $options; done < /proc/mounts";
            let run = fixture.run_root(root, |spec| set_args(spec, sh(script)));
            assert!(run.output.split([',', '\n']).any(|option| option == "nodev"), "{extra}: {}", run.output);
        }
    });
}

/// The test program stands for the host's executable.
#[test]
fn the_hosts_executable_is_not_run() {
    forked(|| {
        let fixture = Fixture::new();
        let own = std::env::current_exe().expect("a path");
        let root = fixture.rootfs();
        let bin = root.join("bin");
        symlink("/proc/self/exe", bin.join("link")).expect("link");
        symlink("/proc/self/fd/3", bin.join("three")).expect("link");
        write_executable(&bin.join("script"), "#!/proc/self/exe\n");
        write_executable(&bin.join("linked"), "#! /bin/link -x\n");
        write_executable(&bin.join("deep"), "#!/bin/script\n");
        write_executable(&bin.join("relative"), "#!proc/self/exe");
        write_executable(&bin.join("bound"), "#!/own\n");
        for command in [
            "/proc/self/exe",
            "/proc/1/exe",
            "/proc/thread-self/exe",
            "link",
            "three",
            "script",
            "linked",
            "deep",
            "relative",
            "/own",
            "bound",
        ] {
            let run = fixture.run(|spec| {
                let mount = defaults::mount("/own", "bind", own.to_str().expect("text"), &["bind", "ro"]);
                spec.mounts_mut().as_mut().expect("mounts").push(mount);
                set_args(spec, vec![command.to_owned()]);
            });
            assert_eq!(run.error(), format!("exec: \"{command}\": permission denied"));
        }
        // What is like it and harmless.
        write_executable(&bin.join("one"), "#! /bin/sh -e\necho one $1\n");
        write_executable(&bin.join("two"), "#!/bin/one");
        symlink("/bin/two", bin.join("far")).expect("link");
        symlink("loop", bin.join("loop")).expect("link");
        for (command, output) in [("far", "one /bin/far\n"), ("one", "one a\n")] {
            let args = [command, "a"].map(str::to_owned).to_vec();
            let run = fixture.run(|spec| set_args(spec, args));
            assert_eq!(run.output, output, "{:?}", run.result.err());
        }
        let run = fixture.run(|spec| set_args(spec, vec!["loop".to_owned()]));
        assert!(run.error().contains("not found"), "{}", run.error());
    });
}

/// Root's capabilities would read it; a user without any must still be able to execute it.
#[test]
fn programs_that_cannot_be_read() {
    if !privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let mode = |path: &Path, mode| {
            fs_err::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
        };
        let root = fixture.rootfs();
        fs_err::create_dir(root.join("sealed")).expect("directory");
        fs_err::copy(root.join("bin/busybox"), root.join("sealed/id")).expect("copy");
        mode(&root.join("sealed/id"), 0o111);
        write_executable(&root.join("sealed/script"), "#!/proc/self/exe\n");
        mode(&root.join("sealed/script"), 0o111);
        fs_err::create_dir(root.join("private")).expect("directory");
        fs_err::copy(root.join("bin/busybox"), root.join("private/id")).expect("copy");
        mode(&root.join("private"), 0o700);
        let run = |command: &str| {
            fixture.run(|spec| {
                let process = spec.process_mut().as_mut().expect("process");
                process.user_mut().set_uid(1000);
                let mut sets = process.capabilities().clone().expect("capabilities");
                sets.set_effective(None).set_permitted(None);
                process.set_capabilities(Some(sets));
                process.set_args(Some([command, "-u"].map(str::to_owned).to_vec()));
            })
        };
        assert_eq!(run("/sealed/id").output, "1000\n");
        for command in ["/sealed/script", "/private/id"] {
            assert_eq!(run(command).error(), format!("exec: \"{command}\": permission denied"));
        }
    });
}
