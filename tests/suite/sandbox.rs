//! What a native container is kept from: the parts of /proc, /sys and /dev that docs/security.md promises.

use crate::support::Host;

fn says(host: &Host, script: &str) -> String {
    host.dhow(["run", "--rm", "--network", "none", "busybox:1", "sh", "-c", script]).ok()
}

/// `target type options` of each mount.
fn mounts(host: &Host) -> Vec<(String, String, String)> {
    let table = says(host, "cat /proc/self/mounts");
    let field = |line: &str, n| line.split(' ').nth(n).unwrap().to_owned();
    table.lines().map(|line| (field(line, 1), field(line, 2), field(line, 3))).collect()
}

#[test]
fn mounts_are_docker_s() {
    let host = Host::with_busybox();
    let table = mounts(&host);
    let of = |target: &str| {
        let found =
            table.iter().rfind(|(at, ..)| at == target).unwrap_or_else(|| panic!("{target}: {table:#?}"));
        (found.1.clone(), found.2.split(',').map(str::to_owned).collect::<Vec<_>>())
    };
    for (target, kind, options) in [
        ("/", "overlay", &["rw"][..]),
        ("/proc", "proc", &["rw", "nosuid", "nodev", "noexec"]),
        ("/dev", "tmpfs", &["rw", "nosuid", "mode=755"]),
        ("/dev/pts", "devpts", &["nosuid", "noexec", "ptmxmode=666"]),
        ("/dev/shm", "tmpfs", &["nosuid", "nodev", "noexec", "size=65536k"]),
        ("/dev/mqueue", "mqueue", &["nosuid", "nodev", "noexec"]),
        ("/sys", "sysfs", &["ro", "nosuid", "nodev", "noexec"]),
        ("/proc/sys", "proc", &["ro"]),
        ("/proc/bus", "proc", &["ro"]),
        ("/proc/irq", "proc", &["ro"]),
    ] {
        let (found, set) = of(target);
        assert_eq!(found, kind, "{target}");
        for option in options {
            assert!(set.iter().any(|has| has == option), "{target} lacks {option}: {set:?}");
        }
    }
    // Nothing of the host is mounted beyond that.
    assert!(table.len() < 40, "{table:#?}");
    assert!(!table.iter().any(|(target, ..)| target.contains("oldroot")), "{table:#?}");
}

#[test]
fn devices_are_the_harmless_ones() {
    let host = Host::with_busybox();
    let names = says(&host, "ls /dev");
    let expected = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    // A link to /proc/kcore is there where the kernel has that, masked as it is.
    assert_eq!(names.lines().filter(|name| *name != "core").collect::<Vec<_>>(), expected);
    let out = says(
        &host,
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; (echo y > /dev/full) 2>/dev/null || echo full",
    );
    assert_eq!(out.lines().map(str::trim).collect::<Vec<_>>(), ["4", "4", "full"]);
}

#[test]
fn kernel_files_are_masked_or_read_only() {
    let host = Host::with_busybox();
    // Masked files read as empty, masked folders list as empty; not every kernel has every one.
    for path in ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/latency_stats", "/proc/sched_debug"]
    {
        assert_eq!(says(&host, &format!("head -c 10 {path} 2>/dev/null | wc -c")).trim(), "0", "{path}");
    }
    for path in ["/proc/acpi", "/proc/scsi", "/sys/firmware"] {
        assert_eq!(says(&host, &format!("ls -A {path} 2>/dev/null | wc -l")).trim(), "0", "{path}");
    }
    for path in
        ["/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/sys/kernel/x", "/proc/sys/vm/swappiness"]
    {
        let out = says(&host, &format!("(echo x > {path}) 2>/dev/null && echo written || echo refused"));
        assert_eq!(out, "refused\n", "{path}");
    }
}

#[test]
fn calls_of_the_kernel_are_filtered() {
    let host = Host::with_busybox();
    for (call, script) in [
        ("mount", "mount -t tmpfs none /tmp"),
        ("unshare", "unshare -U true"),
        ("mknod of a disk", "mknod /tmp/disk b 8 0 && head -c 1 /tmp/disk"),
        ("setting the clock", "date -s 2001-01-01; date | grep 2001"),
        ("chroot escape", "mount --bind / /tmp"),
        ("reboot", "reboot -f"),
        ("swapon", "swapon /etc/passwd"),
    ] {
        let out = says(&host, &format!("({script}) >/dev/null 2>&1 && echo allowed || echo refused"));
        assert_eq!(out, "refused\n", "{call}");
    }
}

#[test]
fn names_of_the_world_are_its_own() {
    let host = Host::with_busybox();
    let links = "for n in cgroup ipc mnt net pid uts; do readlink /proc/self/ns/$n; done";
    let inside = says(&host, links);
    for (name, link) in ["ipc", "mnt", "net", "pid", "uts"]
        .iter()
        .zip(inside.lines().filter(|line| !line.starts_with("cgroup")))
    {
        let outside = fs_err::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(link, outside.to_str().unwrap(), "{name} is shared with the host");
    }
    assert_eq!(says(&host, "hostname inside 2>/dev/null || echo refused"), "refused\n");
}

#[test]
fn nothing_of_the_caller_is_inherited() {
    let host = Host::with_busybox();
    let open = says(&host, "ls /proc/self/fd | wc -l");
    assert_eq!(open.trim(), "4", "0, 1, 2 and the folder that is listed");
    assert_eq!(says(&host, "umask; grep ^SigBlk: /proc/self/status | cut -f 2"), "0022\n0000000000000000\n");
    // Rust programs ignore SIGPIPE, a container must not. The C library ignores its own 32 and 33 when it spawns.
    let ignored = says(&host, "grep ^SigIgn: /proc/self/status | cut -f 2");
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert_eq!(ignored & 0x7fff_ffff, 0, "{ignored:x}");
}
