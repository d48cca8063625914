//! The second wall around the process of a Wasm program, seen from the host while the program runs.

use std::time::{Duration, Instant};

use crate::support::{Host, is_root};

const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// The lines of `/proc/<pid>/status` of a container's process, once it says what is wanted.
fn status(host: &Host, name: &str, wanted: &str) -> String {
    let begun = Instant::now();
    loop {
        let pid = host.dhow(["inspect", "-f", "{{.State.Pid}}", name]).outcome().stdout;
        let text = fs_err::read_to_string(format!("/proc/{}/status", pid.trim())).unwrap_or_default();
        if text.contains(wanted) || begun.elapsed() > Duration::from_secs(30) {
            return text;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A number in hexadecimal.
fn capabilities(status: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:")).expect("CapEff");
    u64::from_str_radix(line.trim(), 16).expect("a number")
}

#[test]
fn a_running_program_has_few_rights() {
    let host = Host::new();
    fs_err::write(host.path("loop.wat"), LOOP).expect("guest");
    let guest = host.text("loop.wat");
    let running = host.dhow(["run", "--name", "walled", &guest]).spawn();
    let seen = status(&host, "walled", "Seccomp:\t2");
    assert!(seen.contains("NoNewPrivs:\t1") && seen.contains("Seccomp:\t2"), "{seen}");
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, SYS_ADMIN; nothing of it without root.
    assert_eq!(capabilities(&seen) & !0x20_001f, 0, "{seen}");
    if is_root() {
        let pid = host.dhow(["inspect", "-f", "{{.State.Pid}}", "walled"]).ok();
        let of = |process: &str, kind: &str| {
            fs_err::read_link(format!("/proc/{process}/ns/{kind}")).expect("a namespace")
        };
        for kind in ["uts", "ipc", "cgroup"] {
            assert_ne!(of(pid.trim(), kind), of("self", kind), "{kind}");
        }
    }
    host.dhow(["rm", "-f", "walled"]).outcome();
    drop(running);
    let open = host.dhow(["run", "--name", "open", "--security-opt", "seccomp=unconfined", &guest]).spawn();
    let seen = status(&host, "open", "NoNewPrivs:\t1");
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
    host.dhow(["rm", "-f", "open"]).outcome();
    drop(open);
}
