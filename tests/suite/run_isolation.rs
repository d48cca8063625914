//! Options of `run` that share, open or close what isolates a native container: namespaces, devices, capabilities, settings
//! of the kernel, the first process; and what is said of those that cannot be.

use serde_json::Value;

use crate::support::{Host, busybox, guest, is_root, until};

fn host() -> Option<Host> {
    if !is_root() {
        println!("skipped: namespaces of the host and devices need root");
        return None;
    }
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    Some(host)
}

fn run(host: &Host, options: &[&str], script: &str) -> String {
    host.dhow(["run", "--rm"]).args(options).args(["busybox:1", "sh", "-c", script]).ok().trim().to_owned()
}

#[test]
fn a_first_process_of_ours() {
    let Some(host) = host() else { return };
    assert_eq!(
        run(&host, &["--init"], "echo $$; cat /proc/1/cmdline | tr '\\0' ' ' | cut -c 1-12"),
        "2\n/dev/init --"
    );
    // Whose parent has ended is reaped.
    let orphans = "(sh -c 'sleep 0.1 & exit 0'); sleep 0.5; grep -l '^State:.Z' /proc/[0-9]*/status | wc -l";
    assert_eq!(run(&host, &["--init"], orphans), "0");
    for (script, code) in [("exit 7", 7), ("kill -9 $$", 137), ("true", 0)] {
        host.dhow(["run", "--rm", "--init", "busybox:1", "sh", "-c", script]).fails(code);
    }
    let missing = host.dhow(["run", "--rm", "--init", "busybox:1", "nosuch"]).fails(127);
    assert!(missing.stderr.contains("exec: \"nosuch\""), "{missing:#?}");
    // Signals reach the program, though it is not the first process.
    let trap = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done";
    host.dhow(["run", "-d", "--init", "--name", "it", "busybox:1", "sh", "-c", trap]).ok();
    until("it is ready", || host.dhow(["logs", "it"]).ok().contains("ready").then_some(()));
    host.dhow(["stop", "it"]).ok();
    assert_eq!(
        host.dhow(["inspect", "--format", "{{.State.ExitCode}} {{.HostConfig.Init}}", "it"]).ok(),
        "9 true\n"
    );
    host.dhow(["rm", "it"]).ok();
    let note = host.dhow(["run", "--rm", "--init", "./probe.wasm", "exit", "3"]).fails(3);
    assert!(note.stderr.starts_with("note: --init changes nothing"), "{note:#?}");
}

#[test]
fn namespaces_of_others() {
    let Some(host) = host() else { return };
    let own =
        |kind: &str| fs_err::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned();
    for (option, kind) in [("--pid", "pid"), ("--ipc", "ipc"), ("--uts", "uts"), ("--cgroupns", "cgroup")] {
        let inside = format!("readlink /proc/self/ns/{kind}");
        assert_eq!(run(&host, &[option, "host"], &inside), own(kind), "{option}");
        assert_ne!(run(&host, &[], &inside), own(kind), "{option}");
    }
    let name = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert_eq!(run(&host, &["--uts", "host"], "hostname; echo $HOSTNAME"), format!("{name}\n{name}"));
    assert_eq!(
        run(
            &host,
            &["-h", "web", "--domainname", "example.com"],
            "hostname; cat /proc/sys/kernel/domainname"
        ),
        "web\nexample.com"
    );
    host.dhow(["run", "-d", "--name", "it", "--ipc", "shareable", "busybox:1", "sleep", "600"]).ok();
    host.dhow(["exec", "it", "sh", "-c", "echo shared > /dev/shm/file"]).ok();
    assert_eq!(
        run(&host, &["--ipc", "container:it"], "cat /dev/shm/file; echo more >> /dev/shm/file"),
        "shared"
    );
    assert_eq!(host.dhow(["exec", "it", "cat", "/dev/shm/file"]).ok(), "shared\nmore\n");
    assert_eq!(run(&host, &["--pid", "container:it"], "cat /proc/1/cmdline | tr '\\0' ' '"), "sleep 600");
    host.dhow(["rm", "-f", "it"]).ok();
    host.dhow(["run", "-d", "--name", "it", "busybox:1", "sleep", "600"]).ok();
    host.dhow(["run", "--rm", "--ipc", "container:it", "busybox:1", "true"])
        .rejected(125, "non-shareable IPC");
    host.dhow(["stop", "-t", "0", "it"]).ok();
    host.dhow(["run", "--rm", "--pid", "container:it", "busybox:1", "true"])
        .rejected(125, "cannot join PID of a non running container");
    host.dhow(["run", "--rm", "--pid", "container:nosuch", "busybox:1", "true"])
        .refused(125, "No such container: nosuch");
    assert_eq!(run(&host, &["--ipc", "none"], "mount | grep -c /dev/shm || true"), "0");
}

#[test]
fn devices_and_everything() {
    let Some(host) = host() else { return };
    assert_eq!(
        run(&host, &["--device", "/dev/null:/dev/mine"], "test -c /dev/mine && echo x > /dev/mine; echo $?"),
        "0"
    );
    host.dhow(["run", "--rm", "--device", "/nosuch", "busybox:1", "true"])
        .rejected(125, "error gathering device information while adding custom device \"/nosuch\"");
    let all = "grep -c . /proc/mounts; grep Seccomp: /proc/self/status; test -w /sys/kernel && echo writable; ls /dev | wc -l";
    let shown = run(&host, &["--privileged"], all);
    assert!(shown.contains("Seccomp:\t0") && shown.contains("writable"), "{shown}");
    let masked = "mount | grep -c ' /proc/' || true";
    assert_ne!(run(&host, &[], masked), "0");
    assert_eq!(run(&host, &["--privileged"], masked), "0");
    assert_eq!(run(&host, &["--security-opt", "systempaths=unconfined"], masked), "0");
    // Never more than this process has itself.
    let of = |text: &str| {
        let line = text.lines().find(|line| line.starts_with("CapEff:")).unwrap().to_owned();
        u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap()
    };
    let own = of(&fs_err::read_to_string("/proc/self/status").unwrap());
    for options in [&["--privileged"][..], &["--cap-add", "ALL"]] {
        let inside = of(&run(&host, options, "grep CapEff /proc/self/status"));
        assert!(inside & !own == 0 && inside.count_ones() > 14, "{options:?} {inside:x}");
    }
    host.dhow(["run", "-d", "--name", "it", "busybox:1", "sleep", "600"]).ok();
    let usual = of(&host.dhow(["exec", "it", "grep", "CapEff", "/proc/self/status"]).ok());
    let more = of(&host.dhow(["exec", "--privileged", "it", "grep", "CapEff", "/proc/self/status"]).ok());
    assert!(usual & !more == 0 && more.count_ones() > usual.count_ones(), "{usual:x} {more:x}");
    host.dhow(["rm", "-f", "it"]).ok();
}

#[test]
fn settings_and_profiles() {
    let Some(host) = host() else { return };
    let sysctls = ["--sysctl", "net.ipv4.ip_forward=1", "--sysctl", "kernel.shmmax=12345"];
    assert_eq!(run(&host, &sysctls, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmax"), "1\n12345");
    assert_eq!(run(&host, &["--oom-score-adj", "321"], "cat /proc/self/oom_score_adj"), "321");
    let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        {"names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_SYS_ADMIN"]}}]}"#;
    host.file("profile.json", profile);
    let option = ["--security-opt", "seccomp=profile.json"];
    let script = "mkdir /x 2>&1; ln -s a /l && echo linked; true";
    let refused = "mkdir: can't create directory '/x': Function not implemented";
    assert_eq!(run(&host, &option, script), format!("{refused}\nlinked"));
    let with_capability = [&option[..], &["--cap-add", "SYS_ADMIN"]].concat();
    assert_eq!(run(&host, &with_capability, "ln -s a /l 2>&1; true"), "ln: /l: Operation not permitted");
    for (option, words) in [
        ("seccomp=/nosuch", "opening seccomp profile (/nosuch) failed"),
        ("seccomp={}", "decoding seccomp profile failed"),
        ("foo", "invalid --security-opt: \"foo\""),
    ] {
        host.dhow(["run", "--rm", "--security-opt", option, "busybox:1", "true"]).rejected(125, words);
    }
    // Rare limits, all at once, and nothing is left of them.
    let rare = [
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "--memory-swappiness",
        "10",
        "--cpuset-mems",
        "0",
        "--device-cgroup-rule",
        "c 1:11 r",
        "--cgroup-parent",
        "dhow/suite",
    ];
    let groups = run(&host, &[&rare[..], &["--cgroupns", "host"]].concat(), "cat /proc/self/cgroup");
    assert!(groups.contains("/dhow/suite/"), "{groups}");
    host.dhow([
        "run",
        "-d",
        "--name",
        "it",
        "-m",
        "64m",
        "--memory-reservation",
        "32m",
        "busybox:1",
        "sleep",
        "600",
    ])
    .ok();
    host.dhow(["exec", "it", "true"]).ok();
    host.dhow(["update", "--memory", "80m", "--memory-swap", "-1", "--memory-reservation", "40m", "it"]).ok();
    host.dhow(["rm", "-f", "it"]).ok();
    host.check();
}

#[test]
fn labels_streams_and_notes() {
    let Some(host) = host() else { return };
    host.file("labels", "# of the house\ntier=db\n\nmine\nshared=file\n");
    host.dhow([
        "create",
        "--name",
        "it",
        "--label-file",
        "labels",
        "-l",
        "shared=own",
        "--annotation",
        "a=b",
        "busybox:1",
        "true",
    ])
    .ok();
    let labels: Value =
        serde_json::from_str(&host.dhow(["inspect", "--format", "{{json .Config.Labels}}", "it"]).ok())
            .unwrap();
    assert_eq!(labels, serde_json::json!({ "tier": "db", "mine": "", "shared": "own" }));
    host.dhow(["rm", "it"]).ok();
    for args in [&["busybox:1", "sh", "-c", "echo out; echo err >&2"][..], &["./probe.wasm", "err", "err\n"]]
    {
        let both = host.dhow(["run", "--rm"]).args(args).fails(0);
        for options in [&["--rm"][..], &[]] {
            let only = host.dhow(["run", "-a", "stderr"]).args(options).args(args).fails(0);
            assert_eq!((only.stdout.as_str(), &only.stderr), ("", &both.stderr), "{options:?} {args:?}");
        }
        let only = host.dhow(["run", "--rm", "-a", "STDOUT"]).args(args).fails(0);
        assert_eq!((&only.stdout, only.stderr.as_str()), (&both.stdout, ""));
    }
    host.dhow(["container", "prune", "-f"]).ok();
}

#[test]
fn what_cannot_be_is_said() {
    let Some(host) = host() else { return };
    for (code, options, words) in [
        (125, &["--pid", "foo"][..], "--pid: invalid PID mode"),
        (1, &["--ipc", "foo"], "--ipc: invalid IPC mode"),
        (125, &["--uts", "foo"], "--uts: invalid UTS mode"),
        (125, &["--userns", "foo"], "--userns: invalid USER mode"),
        (125, &["--cgroupns", "foo"], "--cgroupns: invalid CGROUP mode"),
        (1, &["--uts", "host", "--hostname", "x"], "conflicting options: hostname and the UTS mode"),
        (125, &["--device", "foo"], "foo is not an absolute path"),
        (125, &["--device", "/dev/null:/dev/x:q"], "bad mode specified: q"),
        (125, &["--device-cgroup-rule", "x"], "invalid device cgroup format 'x'"),
        (125, &["--sysctl", "foo=bar"], "sysctl 'foo=bar' is not allowed"),
        (1, &["--oom-score-adj", "2000"], "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
        (125, &["--memory-swappiness", "200"], "Valid memory swappiness range is 0-100"),
        (
            1,
            &["-m", "6m", "--memory-reservation", "10m"],
            "Minimum memory limit can not be less than memory reservation",
        ),
        (1, &["--cpuset-mems", "x"], "Invalid value x for cpuset mems"),
        (1, &["--blkio-weight", "5"], "Range of blkio weight is from 10 to 1000"),
        (125, &["--blkio-weight-device", "foo"], "bad format: foo"),
        (125, &["--device-read-bps", "/dev/null:x"], "invalid rate for device: /dev/null:x"),
        (1, &["--link", "nosuch:x"], "could not get container for nosuch"),
        (1, &["--gpus", "all"], "could not select device driver"),
        (1, &["--runtime", "foo"], "unknown or invalid runtime name: foo"),
        (1, &["--isolation", "foo"], "Invalid isolation: \"foo\" - linux only supports 'default'"),
        (1, &["--volume-driver", "foo"], "the volume driver \"foo\" is not supported yet"),
        (1, &["--cpu-count", "2"], "--cpu-count is only for containers of Windows"),
        (1, &["--kernel-memory", "10m"], "--kernel-memory is not supported"),
        (125, &["--attach", "foo"], "valid streams are STDIN, STDOUT and STDERR"),
        (125, &["--label-file", "/nosuch"], "open /nosuch"),
    ] {
        host.dhow(["create"]).args(options).args(["busybox:1", "true"]).rejected(code, words);
    }
    for option in
        [&["--privileged"][..], &["--pid", "host"], &["--device", "/dev/null"], &["--sysctl", "net.x=1"]]
    {
        host.dhow(["create"])
            .args(option)
            .args(["./probe.wasm"])
            .refused(1, "for WebAssembly is not supported yet");
    }
    host.has_no_container();
}
