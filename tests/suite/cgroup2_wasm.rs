//! Limits of Wasm programs by cgroup v2, in a kernel that has all of it: what the executor keeps itself, the kernel keeps
//! a second time, and more.

use std::path::PathBuf;

use crate::support::{Host, guest, inside_guest_kernel, until};

const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// The control group of a container's process.
fn group(host: &Host, name: &str) -> PathBuf {
    let pid = host.dhow(["inspect", "-f", "{{.State.Pid}}", name]).ok();
    let text = fs_err::read_to_string(format!("/proc/{}/cgroup", pid.trim())).unwrap();
    let path = text.trim().strip_prefix("0::/").unwrap_or_else(|| panic!("{text}"));
    PathBuf::from("/sys/fs/cgroup").join(path)
}

fn state(host: &Host, name: &str) -> String {
    host.dhow(["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", name]).ok()
}

#[test]
fn limits_are_in_a_group_of_its_own() {
    if !inside_guest_kernel("cgroup2_wasm::limits_are_in_a_group_of_its_own") {
        return;
    }
    let host = Host::new();
    let program = host.file("loop.wat", LOOP);
    let run = ["run", "-d", "--name", "it", "-m", "64m", "--cpus", "0.2", "--cpu-shares", "512"];
    host.dhow(run).args([&program]).ok();
    let group = group(&host, "it");
    let read = |name: &str| fs_err::read_to_string(group.join(name)).unwrap();
    // The program's memory and 64 MiB for the process around it.
    assert_eq!(read("memory.max"), format!("{}\n", 128 << 20));
    assert_eq!(read("cpu.max"), "20000 100000\n");
    assert_ne!(read("cpu.weight"), "100\n");
    until("the kernel holds it back", || {
        let stat = read("cpu.stat");
        let throttled = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        (throttled.parse::<u64>().unwrap() > 0).then_some(())
    });
    host.dhow(["pause", "it"]).ok();
    host.dhow(["unpause", "it"]).ok();
    host.dhow(["rm", "-f", "it"]).ok();
    assert!(!group.exists(), "{}", group.display());
}

#[test]
fn out_of_memory_by_either_keeper() {
    let programs = [guest("grow.wasm"), guest("files.wasm")];
    if !inside_guest_kernel("cgroup2_wasm::out_of_memory_by_either_keeper") {
        return;
    }
    let host = Host::new();
    let grow = host.file("grow.wasm", &programs[0]);
    let said = host.dhow(["run", "--name", "grow", "-m", "32m", &grow, "100"]).fails(137).stderr;
    assert!(said.contains("memory limit of 32 MiB exceeded"), "{said}");
    assert_eq!(state(&host, "grow"), "true 137\n");
    // What is not the program's own memory, but memory all the same: the kernel ends it.
    let files = host.file("files.wasm", &programs[1]);
    let run = host.dhow(["run", "--name", "files", "-m", "16m", "--memory-swap", "16m", "--tmpfs", "/big"]);
    run.args([files.as_str(), "/big", "1000000"]).fails(137);
    assert_eq!(state(&host, "files"), "true 137\n");
}

#[test]
fn processes_are_no_concern() {
    let hello = guest("hello.wasm");
    if !inside_guest_kernel("cgroup2_wasm::processes_are_no_concern") {
        return;
    }
    let host = Host::new();
    let hello = host.file("hello.wasm", hello);
    let run = host.dhow(["run", "--rm", "--pids-limit", "1", &hello]).outcome();
    assert_eq!((run.code, run.stdout.as_str()), (0, "hello from Wasm\n"), "{run:#?}");
    assert!(run.stderr.contains("--pids-limit changes nothing"), "{run:#?}");
    // A controller that this kernel has not.
    let run = host.dhow(["run", "--rm", "--cpuset-cpus", "0", &hello]).outcome();
    assert!(run.code == 125 && run.stderr.contains("cpuset"), "{run:#?}");
}
