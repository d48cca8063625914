//! Real containers: a busybox in namespaces, with and without privilege.
//!
//! They need the package busybox-static, and root or user namespaces. The harness has a thread of its own, so
//! every container is made in a forked child with one thread.

mod escape;
pub(crate) mod harness;
mod hostile;
mod namespaces;
mod rootless;
mod spec_mounts;
mod spec_process;

use std::time::Duration;

use harness::{Fixture, forked, sh};

use super::*;
use crate::bundle::{Layer, Root};
use crate::stdio::Stream;

#[test]
fn releases_have_numbers() {
    for (release, two) in [
        ("6.5.0", (6, 5)),
        ("6.18.44-fc-v657", (6, 18)),
        ("7.0-rc1", (7, 0)),
        ("5.14.0-570.el9.x86_64", (5, 14)),
        ("strange", (0, 0)),
    ] {
        assert_eq!(numbers(release), two, "{release}");
    }
}

#[test]
fn output_and_codes() {
    forked(|| {
        let fixture = Fixture::new();
        for (script, code, output) in [
            ("echo out; echo err >&2", 0, "out\nerr\n"),
            ("exit 42", 42, ""),
            ("cat", 0, ""),
            ("sh -c 'kill -TERM $$' 2>/dev/null; exit $?", 143, ""),
            ("echo $HOME-$A; pwd; umask; hostname", 0, "/root-b c\n/work/dir\n0022\nbox\n"),
        ] {
            let run = fixture.run(|spec| {
                spec.set_hostname(Some("box".to_owned()));
                let process = spec.process_mut().as_mut().expect("process");
                let env = ["PATH=/bin", "HOME=/root", "A=b c"].map(str::to_owned).to_vec();
                process.set_args(Some(sh(script))).set_env(Some(env)).set_cwd("/work/dir".into());
            });
            assert_eq!((run.code(), run.output.as_str()), (code, output), "{script}");
        }
    });
}

#[test]
fn the_sandbox_is_closed() {
    forked(|| {
        let fixture = Fixture::new();
        for (script, expected) in [
            ("echo $$; set -- /proc/[0-9]*; echo $#", "1\n1\n"),
            (
                "grep -E '^(CapInh|CapAmb|CapBnd|Seccomp)' /proc/self/status | tr -d '\\n\\t'",
                "CapInh:0000000000000000CapBnd:00000000a80425fbCapAmb:0000000000000000Seccomp:2Seccomp_filters:1",
            ),
            ("for n in 3 4 5 6 7 8 9 20 50; do test -e /proc/1/fd/$n && echo leak $n; done", ""),
            ("cat /proc/keys /proc/timer_list; ls -A /sys/firmware; ls -A /proc/acpi 2>/dev/null", ""),
            (
                "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /sys/x; do echo b > $f && echo written; done 2>/dev/null",
                "",
            ),
            ("mount -t tmpfs x /tmp 2>/dev/null || echo refused", "refused\n"),
            ("unshare -U true 2>/dev/null || echo refused", "refused\n"),
            ("cat /proc/mounts | wc -l > /dev/null; grep -c ' / ' /proc/mounts", "1\n"),
            (
                "ls /dev | tr '\\n' ' '",
                "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero ",
            ),
            ("echo x > /dev/null; head -c 3 /dev/zero | wc -c; test -c /dev/tty && echo c", "3\nc\n"),
            ("ifconfig lo | grep -c 'UP LOOPBACK RUNNING'", "1\n"),
            ("ls -l /proc/1/exe | grep -o 'busybox$'", "busybox\n"),
        ] {
            let run = fixture.run(|spec| harness::set_args(spec, sh(script)));
            assert_eq!(run.output, expected, "{script}");
        }
    });
}

#[test]
fn limits_are_lowered_to_what_is_permitted() {
    forked(|| {
        let fixture = Fixture::new();
        let run = fixture.run(|spec| {
            let limit = |kind, soft: u64, hard: u64| {
                let limit = oci_spec::runtime::PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard);
                limit.build().expect("valid")
            };
            use oci_spec::runtime::PosixRlimitType::{RlimitCore, RlimitNofile};
            let process = spec.process_mut().as_mut().expect("process");
            process
                .set_rlimits(Some(vec![limit(RlimitNofile, 64, 128), limit(RlimitCore, u64::MAX, u64::MAX)]));
            process.set_oom_score_adj(Some(500)).set_no_new_privileges(Some(true));
            let script =
                "ulimit -n; ulimit -H -n; cat /proc/self/oom_score_adj; grep NoNewPrivs /proc/self/status";
            process.set_args(Some(sh(script)));
        });
        assert_eq!(run.output, "64\n128\n500\nNoNewPrivs:\t1\n");
    });
}

#[test]
fn other_users_can_use_their_streams() {
    forked(|| {
        let fixture = Fixture::new();
        let run = fixture.run(|spec| {
            let process = spec.process_mut().as_mut().expect("process");
            process.user_mut().set_uid(if harness::privileged() { 1000 } else { 0 });
            process.set_args(Some(sh(
                "echo x > /dev/stdout; grep CapEff /proc/self/status | grep -c 0000000000000000",
            )));
        });
        let none = if harness::privileged() { "1" } else { "0" };
        assert_eq!(run.output, format!("x\n{none}\n"));
    });
}

#[test]
fn layers_are_merged_and_stay_as_they_were() {
    forked(|| {
        let fixture = Fixture::new();
        for extra in [0, 1, 130] {
            let root = fixture.layers(extra);
            let script = "cat /top 2>/dev/null; cat /layer1 2>/dev/null; echo new > /new; rm /bin/extra; ls /bin/extra 2>&1 | grep -c 'No such'";
            let run = fixture.run_root(root.clone(), |spec| harness::set_args(spec, sh(script)));
            let expected = if extra == 0 { "1\n".to_owned() } else { format!("{extra}\none\n1\n") };
            assert_eq!(run.output, expected, "{extra} layers");
            let Root::Layers { lower, upper, .. } = root else { unreachable!() };
            assert!(lower[0].path.join("bin/extra").exists() && !lower[0].path.join("new").exists());
            assert!(upper.join("new").exists());
        }
    });
}

#[test]
fn no_layers_is_just_the_upper_directory() {
    forked(|| {
        let fixture = Fixture::new();
        let Root::Layers { lower, work, merged, .. } = fixture.layers(0) else { unreachable!() };
        let root = Root::Layers { lower: Vec::<Layer>::new(), upper: lower[0].path.clone(), work, merged };
        assert!(root.is_bare());
        let run = fixture.run_root(root, |spec| harness::set_args(spec, sh("echo bare > /new")));
        assert_eq!(run.code(), 0, "{}", run.output);
        assert!(lower[0].path.join("new").exists());
    });
}

#[test]
fn read_only_roots_and_volumes() {
    forked(|| {
        let fixture = Fixture::new();
        let outside = fixture.path().join("outside");
        fs_err::create_dir(&outside).expect("outside");
        fs_err::write(outside.join("file"), "content\n").expect("file");
        let source = outside.to_str().expect("text");
        let file = outside.join("file");
        let run = fixture.run(|spec| {
            spec.root_mut().as_mut().expect("root").set_readonly(Some(true));
            let mounts = spec.mounts_mut().as_mut().expect("mounts");
            mounts.push(defaults::mount("/data/deep", "bind", source, &["rbind", "rw", "rprivate"]));
            mounts.push(defaults::mount("/data/ro", "bind", source, &["bind", "ro"]));
            mounts.push(defaults::mount("/etc/one", "bind", file.to_str().expect("text"), &["bind", "ro", "noexec"]));
            mounts.push(defaults::mount("/scratch", "tmpfs", "tmpfs", &["size=1m", "mode=700", "rprivate"]));
            let script = "cat /etc/one; echo w > /data/deep/w && echo ok; for f in /x /data/ro/x /etc/one; do echo x > $f; done 2>&1 | grep -c 'Read-only'; echo x > /scratch/x; ls /scratch; stat -c %a /scratch";
            harness::set_args(spec, sh(script));
        });
        assert_eq!(run.output, "content\nok\n3\nx\n700\n");
        assert!(outside.join("w").exists());
    });
}

#[test]
fn commands_that_cannot_run() {
    forked(|| {
        let fixture = Fixture::new();
        let bin = fixture.rootfs().join("bin");
        harness::write_executable(&bin.join("garbage"), "garbage");
        harness::write_executable(&bin.join("orphan"), "#!/no/such\n");
        fs_err::write(bin.join("plain"), "#!/bin/sh\n").expect("file");
        for (command, error) in [
            ("nope", "exec: \"nope\": executable file not found in $PATH"),
            ("/nope", "exec: \"/nope\": no such file or directory"),
            ("", "exec: \"\": executable file not found in $PATH"),
            ("garbage", "exec: \"garbage\": exec format error"),
            ("orphan", "exec: \"/bin/orphan\": no such file or directory"),
            ("plain", "exec: \"plain\": permission denied"),
            ("/bin", "exec: \"/bin\": permission denied"),
        ] {
            let run = fixture.run(|spec| harness::set_args(spec, vec![command.to_owned()]));
            assert_eq!(run.error(), error);
        }
    });
}

#[test]
fn a_terminal_is_the_containers_own() {
    forked(|| {
        let fixture = Fixture::new();
        let mut spec = fixture.spec();
        let script = "tty; test -t 0 && test -t 1 && test -t 2 && echo all; stty size; echo direct > /dev/tty; echo console > /dev/console; stat -c %t /dev/console";
        harness::set_args(&mut spec, sh(script));
        let size = crate::stdio::TerminalSize { rows: 24, columns: 80 };
        let bundle = fixture.bundle(spec, fixture.dir_root());
        let mut task = Executor::new().create(&bundle, Stdio::Terminal(Some(size))).expect("create");
        let console = task.take_console().expect("a console");
        assert!(task.take_console().is_none());
        task.start().expect("start");
        let output = harness::read_all(&console).replace('\r', "");
        assert_eq!(output, "/dev/pts/0\nall\n24 80\ndirect\nconsole\n88\n");
        assert_eq!(task.wait().expect("wait"), ExitStatus::Code(0));
    });
}

#[test]
fn states_and_signals() {
    forked(|| {
        let fixture = Fixture::new();
        let mut spec = fixture.spec();
        harness::set_args(&mut spec, sh("trap 'exit 9' TERM; echo ready; while :; do sleep 0.01; done"));
        let bundle = fixture.bundle(spec, fixture.dir_root());
        let (read, write) = std::io::pipe().expect("pipe");
        let stdio = Stdio::Streams {
            stdin: Stream::Null,
            stdout: Stream::File(OwnedFd::from(write).into()),
            stderr: Stream::Null,
        };
        let mut task = Executor::new().create(&bundle, stdio).expect("create");
        assert_eq!(task.status(), Status::Created);
        task.start().expect("start");
        assert_eq!(task.status(), Status::Running);
        assert!(task.start().is_err(), "only once");
        assert_eq!(harness::read_some(&read), "ready\n");
        task.kill(Signal::TERM).expect("kill");
        assert_eq!(task.wait().expect("wait"), ExitStatus::Code(9));
        assert_eq!((task.status(), task.wait().expect("again")), (Status::Stopped, ExitStatus::Code(9)));
        assert!(matches!(task.kill(Signal::TERM), Err(Error::NotRunning { .. })));
        task.delete().expect("delete");
    });
}

#[test]
fn nothing_stays_behind() {
    forked(|| {
        let fixture = Fixture::new();
        let create = || {
            let mut spec = fixture.spec();
            harness::set_args(&mut spec, sh("sleep 100"));
            let bundle = fixture.bundle(spec, fixture.layers(2));
            Executor::new().create(&bundle, Stdio::inherit()).expect("create")
        };
        let gone = |pid: u32| !fs_err::metadata(format!("/proc/{pid}")).is_ok_and(|data| data.is_dir());
        // Never started: dropping it is enough.
        let task = create();
        let pid = task.pid();
        drop(task);
        assert!(gone(pid));
        // Running: delete ends it.
        let mut task = create();
        let pid = task.pid();
        task.start().expect("start");
        task.delete().expect("delete");
        assert!(gone(pid));
        // Failed on the way.
        let run = fixture.run(|spec| harness::set_args(spec, vec!["nope".to_owned()]));
        assert!(run.result.is_err());
        assert!(fixture.mounts().is_empty());
        // A creator that dies takes the waiting child along.
        let (read, write) = std::io::pipe().expect("pipe");
        let child = crate::process::fork(|| {
            let task = create();
            let _sent = rustix::io::write(&write, &task.pid().to_le_bytes());
            std::mem::forget(task);
            0
        });
        child.expect("fork").wait().expect("wait");
        let mut bytes = [0; 4];
        rustix::io::read(&read, &mut bytes).expect("a process id");
        let pid = u32::from_le_bytes(bytes);
        let patience = (0..500).find(|_| {
            std::thread::sleep(Duration::from_millis(10));
            gone(pid)
        });
        assert!(patience.is_some(), "process {pid} still there");
    });
}

#[test]
fn namespaces_can_be_joined() {
    if !harness::privileged() {
        return;
    }
    forked(|| {
        let fixture = Fixture::new();
        let mut spec = fixture.spec();
        harness::set_args(&mut spec, ["/bin/sleep", "100"].map(str::to_owned).to_vec());
        let bundle = fixture.bundle(spec, fixture.dir_root());
        let mut first = Executor::new().create(&bundle, Stdio::inherit()).expect("create");
        first.start().expect("start");
        let path = |name: &str| format!("/proc/{}/ns/{name}", first.pid());
        let run = fixture.run(|spec| {
            use oci_spec::runtime::LinuxNamespaceType::{Ipc, Network, Pid, Uts};
            spec.set_hostname(None);
            let namespaces = spec.linux_mut().as_mut().expect("linux").namespaces_mut().as_mut().expect("list");
            for namespace in namespaces {
                let name = match namespace.typ() {
                    Network => "net",
                    Ipc => "ipc",
                    Uts => "uts",
                    Pid => "pid",
                    _ => continue,
                };
                namespace.set_path(Some(path(name).into()));
            }
            let script = "for n in net ipc uts pid; do readlink /proc/self/ns/$n; done; tr '\\0' ' ' < /proc/1/cmdline";
            harness::set_args(spec, sh(script));
        });
        let links = ["net", "ipc", "uts", "pid"].map(|name| {
            fs_err::read_link(path(name)).expect("namespace").to_str().expect("text").to_owned() + "\n"
        });
        assert_eq!(run.output, links.concat() + "/bin/sleep 100 ");
        first.delete().expect("delete");
        assert_eq!(
            fs_err::read_link("/proc/self/ns/pid").ok(),
            fs_err::read_link("/proc/self/ns/pid_for_children").ok()
        );
    });
}
