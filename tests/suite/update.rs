//! `update`: other limits for containers that run or not, of both kinds.

use crate::support::{Host, busybox, guest, is_root};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

fn of(host: &Host, field: &str) -> String {
    host.dhow(["inspect", "--format", &format!("{{{{{field}}}}}"), "it"]).ok().trim().to_owned()
}

/// A file of the control group that a container's first process is in.
fn limit(host: &Host, controller: &str, first: &str, second: &str) -> String {
    let groups = fs_err::read_to_string(format!("/proc/{}/cgroup", of(host, ".State.Pid"))).unwrap();
    let own = |wanted: &str| {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let names = parts.next()?;
            names.split(',').any(|name| name == wanted).then(|| parts.next().unwrap_or_default().to_owned())
        })
    };
    let file = match own(controller).filter(|path| path.contains("/dhow/")) {
        Some(path) => format!("/sys/fs/cgroup/{controller}{path}/{first}"),
        None => format!("/sys/fs/cgroup{}/{second}", own("").unwrap()),
    };
    fs_err::read_to_string(file).unwrap().trim().to_owned()
}

#[test]
fn limits_hold_at_once() {
    if !is_root() {
        println!("skipped: control groups need root");
        return;
    }
    let host = host();
    // A Wasm program's process has 64 MiB on top, for what is the host's.
    for (args, more) in
        [(&["./probe.wasm", "sleep", "600"][..], 64 << 20), (&["busybox:1", "sleep", "600"], 0)]
    {
        for options in [&[][..], &["--memory", "32m"], &["--cpus", "0.5"]] {
            host.dhow(["run", "-d", "--name", "it"]).args(options).args(args).ok();
            for size in [64_u64, 256, 48] {
                let size = format!("{}", size << 20);
                assert_eq!(
                    host.dhow(["update", "--memory", &size, "--memory-swap", "-1", "it"]).ok(),
                    "it\n"
                );
                let expected = (size.parse::<u64>().unwrap() + more).to_string();
                assert_eq!(
                    limit(&host, "memory", "memory.limit_in_bytes", "memory.max"),
                    expected,
                    "{options:?}"
                );
                assert_eq!(of(&host, ".HostConfig.Memory"), size);
            }
            host.dhow(["update", "--cpu-shares", "512", "it"]).ok();
            assert_eq!(of(&host, ".HostConfig.CpuShares"), "512");
            if more == 0 {
                host.dhow(["update", "--pids-limit", "20", "it"]).ok();
                assert_eq!(limit(&host, "pids", "pids.max", "pids.max"), "20");
                // What is started later is in the group, too.
                host.dhow(["exec", "it", "true"]).ok();
                host.dhow(["update", "--pids-limit", "-1", "it"]).ok();
                assert_eq!(limit(&host, "pids", "pids.max", "pids.max"), "max");
            }
            assert_eq!(of(&host, ".State.Status"), "running");
            host.dhow(["restart", "-t", "0", "it"]).ok();
            let expected = ((48 << 20) + more).to_string();
            assert_eq!(limit(&host, "memory", "memory.limit_in_bytes", "memory.max"), expected);
            host.dhow(["rm", "-f", "it"]).ok();
            host.check();
        }
    }
}

#[test]
fn docker_s_rules_and_words() {
    let host = host();
    host.dhow(["update", "it"]).refused(1, "you must provide one or more flags when using this command");
    host.dhow(["update", "--memory", "10m", "nosuch"]).refused(1, "No such container: nosuch");
    host.dhow(["create", "--name", "it", "--memory", "100m", "busybox:1", "true"]).ok();
    for (options, words) in [
        (&["--memory", "300m"][..], "Memory limit should be smaller than already set memoryswap limit"),
        (&["--memory", "1k"], "Minimum memory limit allowed is 6MB"),
        (&["--cpuset-cpus", "x"], "Invalid value x for cpuset cpus"),
        (&["--restart", "foo"], "invalid restart policy 'foo'"),
    ] {
        host.dhow(["update"]).args(options).args(["it"]).rejected(1, words);
        assert_eq!(of(&host, ".HostConfig.Memory"), "104857600");
    }
    host.dhow(["update", "--cpus", "1", "it"]).ok();
    host.dhow(["update", "--cpu-quota", "2000", "it"])
        .rejected(1, "CPU Quota cannot be updated as NanoCPUs has already been set");
    host.dhow(["update", "--restart", "on-failure:2", "it"]).ok();
    assert_eq!(of(&host, ".HostConfig.RestartPolicy.MaximumRetryCount"), "2");
    host.dhow(["create", "--name", "other", "--rm", "busybox:1", "true"]).ok();
    host.dhow(["update", "--restart", "always", "other"])
        .rejected(1, "Restart policy cannot be updated because AutoRemove is enabled for the container");
    // One that fails keeps nobody else from being served.
    assert_eq!(host.dhow(["update", "--cpu-shares", "20", "nosuch", "it"]).fails(1).stdout, "it\n");
}
