//! Limits as Docker's flags, and Dhow's own, on Wasm programs: how the program ends and what is known afterwards.

use serde_json::Value;

use crate::support::{Host, guest, is_root};

/// Takes a mebibyte at a time until it gets no more; ends with 3 then.
const GROW: &str = r#"(module (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (loop $more (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
    (call $exit (i32.const 3))))"#;

const LOOP: &str = r#"(module (memory (export "memory") 1) (func (export "_start") (loop $l (br $l))))"#;

/// Reads standard input, which says nothing.
const WAIT: &str = r#"(module (import "wasi_snapshot_preview1" "fd_read" (func $read (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (data (i32.const 0) "\10\00\00\00\10\00\00\00")
  (func (export "_start") (drop (call $read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

/// A host with these programs as files.
fn host() -> Host {
    let host = Host::new();
    for (name, text) in [("grow.wat", GROW), ("loop.wat", LOOP), ("wait.wat", WAIT)] {
        fs_err::write(host.path(name), text).expect("guest");
    }
    host
}

fn inspect(host: &Host, name: &str) -> Value {
    let text = host.dhow(["inspect", name]).ok();
    let mut all: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    all.remove(0)
}

#[test]
fn out_of_memory_is_137_and_said_everywhere() {
    let host = host();
    let grow = host.text("grow.wat");
    let run = host.dhow(["run", "--name", "big", "-m", "20m", &grow]).fails(137).stderr;
    assert!(run.contains("memory limit of 20 MiB exceeded"), "{run}");
    let seen = inspect(&host, "big");
    assert_eq!(seen["State"]["OOMKilled"], true, "{seen}");
    assert_eq!((&seen["State"]["ExitCode"], &seen["State"]["Status"]), (&137.into(), &"exited".into()));
    assert_eq!(seen["HostConfig"]["Memory"], 20 << 20);
    let left = groups(seen["Id"].as_str().expect("an id"));
    assert!(left.is_empty(), "{left:?}");
    let ps = host.dhow(["ps", "-a"]).ok();
    assert!(ps.contains("Exited (137)"), "{ps}");
    // The same module's own maximum is no excess.
    let own = GROW.replace(r#"(memory (export "memory") 1)"#, r#"(memory (export "memory") 1 40)"#);
    fs_err::write(host.path("own.wat"), own).expect("guest");
    host.dhow(["run", "--rm", "--memory=20m", &host.text("own.wat")]).fails(3);
}

#[test]
fn fuel_and_time_have_codes_of_their_own() {
    let host = host();
    let (endless, wait) = (host.text("loop.wat"), host.text("wait.wat"));
    let run = host.dhow(["run", "--name", "fuel", "--fuel", "100000", &endless]).fails(152).stderr;
    assert!(run.contains("fuel limit of 100000 exceeded"), "{run}");
    assert_eq!(inspect(&host, "fuel")["State"]["ExitCode"], 152);
    assert_eq!(inspect(&host, "fuel")["State"]["OOMKilled"], false);
    let run = host.dhow(["run", "--name", "time", "--timeout", "100ms", &endless]).fails(124).stderr;
    assert!(run.contains("time limit of 100ms exceeded"), "{run}");
    // In the middle of a host call that never comes back.
    let mut call = host.dhow(["run", "-i", "--name", "wait", "--timeout", "100ms", &wait]).into_command();
    let quiet = std::process::Stdio::null;
    call.stdin(std::process::Stdio::piped()).stdout(quiet()).stderr(quiet());
    let mut child = call.spawn().expect("run");
    let _open = child.stdin.take();
    assert_eq!(child.wait().expect("wait").code(), Some(124));
    for name in ["time", "wait"] {
        let seen = inspect(&host, name);
        assert_eq!(
            (&seen["State"]["ExitCode"], &seen["State"]["Status"]),
            (&124.into(), &"exited".into()),
            "{name}"
        );
    }
}

#[test]
fn a_share_of_the_processors_slows_a_program_down() {
    let host = host();
    let endless = host.text("loop.wat");
    host.dhow(["run", "--rm", "--cpus", "0.2", "--timeout", "300ms", &endless]).fails(124);
    host.dhow(["run", "--rm", "--cpu-quota", "20000", "--timeout", "100ms", &endless]).fails(124);
}

#[test]
fn nonsense_is_refused_in_docker_s_words() {
    let host = host();
    let grow = host.text("grow.wat");
    for (options, words) in [
        (&["-m", "x"][..], "invalid value for --memory: 'x': invalid size: 'x'"),
        (&["--memory-swap", "1m"], "You should always set the Memory limit when using Memoryswap limit"),
        (&["-m", "2m", "--memory-swap", "1m"], "Minimum memoryswap limit should be larger than memory limit"),
        (&["--cpus", "0.001"], "Range of CPUs is from 0.01"),
        (&["--cpus", "many"], "invalid value for --cpus: 'many'"),
        (&["--cpus", "0.0000000001"], "value is too precise"),
        (&["--cpus", "0.5", "--cpu-quota", "50000"], "Conflicting options"),
        (&["--cpuset-cpus", "a"], "Invalid value a for cpuset cpus"),
        (&["--timeout", "soon"], "invalid value for --timeout: 'soon'"),
        (&["--timeout", "0s"], "invalid value for --timeout: '0s'"),
        (&["--fuel", "0"], "the fuel must be a positive number"),
    ] {
        host.dhow(["run", "--rm"]).args(options).args([&grow]).rejected(125, words);
    }
    assert_eq!(host.dhow(["ps", "-aq"]).ok(), "");
}

#[test]
fn what_a_kind_does_not_have_is_said() {
    let host = host();
    let out = host
        .dhow(["run", "--rm", "--pids-limit", "5", "--fuel", "99999", &host.text("loop.wat")])
        .fails(152)
        .stderr;
    assert_eq!(out.matches("--pids-limit changes nothing").count(), 1, "{out}");
    if !is_root() {
        return;
    }
    let host = Host::with_busybox();
    for option in ["--fuel=5", "--timeout=5s"] {
        host.dhow(["run", "--rm", option, "busybox:1", "true"]).rejected(125, "is for Wasm programs");
    }
    host.dhow(["run", "--rm", "-m", "1m", "busybox:1", "true"])
        .rejected(125, "Minimum memory limit allowed is 6MB");
}

#[test]
fn native_containers_are_limited_by_the_kernel() {
    if !is_root() || !std::path::Path::new("/sys/fs/cgroup").exists() {
        println!("skipped: control groups need root");
        return;
    }
    let host = Host::with_busybox();
    let hog = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo got ${#x}";
    host.dhow(["run", "--name", "hog", "-m", "16m", "--memory-swap", "16m", "busybox:1", "sh", "-c", hog])
        .fails(137);
    let seen = inspect(&host, "hog");
    assert_eq!(
        (&seen["State"]["OOMKilled"], &seen["State"]["ExitCode"]),
        (&true.into(), &137.into()),
        "{seen}"
    );
    let many = "for i in 1 2 3 4 5 6; do sleep 2 & done; wait";
    let run = host.dhow(["run", "--rm", "--pids-limit", "4", "busybox:1", "sh", "-c", many]).outcome();
    assert!(run.code != 0 && run.stderr.contains("fork"), "{run:#?}");
    assert_eq!(
        host.dhow(["run", "--rm", "--cpus", "0.5", "-c", "512", "busybox:1", "echo", "fine"]).ok(),
        "fine\n"
    );
    let left = groups(seen["Id"].as_str().expect("an id"));
    assert!(left.is_empty(), "{left:?}");
}

/// A program of every version is told that it has too many files open, and goes on.
#[test]
fn open_files_are_limited_in_every_version() {
    let host = Host::new();
    for (name, code) in
        [("probe.wasm", "No file descriptors available"), ("probe.component.wasm", "Quota exceeded")]
    {
        host.file(name, guest(name));
        let run = |limit: &str| {
            let limit = format!("nofile={limit}");
            host.dhow(["run", "--rm", "--ulimit", &limit])
                .args([&host.text(name), "hold", "/many", "20"])
                .outcome()
        };
        let refused = run("10");
        assert_eq!((refused.code, refused.stdout.as_str()), (0, "held fewer\n"), "{refused:#?}");
        assert!(refused.stderr.contains(code), "{name}: {refused:#?}");
        let enough = run("100");
        assert_eq!((enough.code, enough.stdout.as_str()), (0, "held 20\n"), "{enough:#?}");
    }
}

/// The control groups of a container.
fn groups(id: &str) -> Vec<std::path::PathBuf> {
    let hierarchies = fs_err::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten();
    let ours = hierarchies.filter_map(|entry| fs_err::read_dir(entry.path().join("dhow")).ok());
    let paths = ours.flatten().flatten().map(|entry| entry.path());
    paths.filter(|path| path.to_string_lossy().ends_with(id)).collect()
}
