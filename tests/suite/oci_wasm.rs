//! `dhow oci` with bundles whose process is Wasm: every verb answers as for a Linux program, and nothing of the host is run.

use serde_json::{Value, json};

use crate::support::{Bundle, is_root, until};

/// Says that it is there, then computes for ever.
const LOOP: &str = r#"(module
    (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const 8) "\10\00\00\00\04\00\00\00")
    (data (i32.const 16) "here")
    (func (export "_start")
        (drop (call $write (i32.const 1) (i32.const 8) (i32.const 1) (i32.const 0)))
        (loop $on (br $on))))"#;

/// Ends with 7.
const SEVEN: &str = r#"(module
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (memory (export "memory") 1)
    (func (export "_start") (call $exit (i32.const 7))))"#;

fn bundle() -> Option<Bundle> {
    if !is_root() {
        println!("skipped: needs root");
        return None;
    }
    let bundle = Bundle::new(&["/loop.wasm"]);
    for (name, text) in [("loop.wasm", LOOP), ("seven.wasm", SEVEN)] {
        fs_err::write(bundle.path("bundle/rootfs").join(name), wat::parse_str(text).unwrap()).unwrap();
    }
    Some(bundle)
}

#[test]
fn a_wasm_container_s_life_is_any_other_s() {
    let Some(bundle) = bundle() else { return };
    bundle.oci(&["create", "a"]).ok();
    assert_eq!(bundle.status("a"), "created");
    bundle.oci(&["start", "a"]).ok();
    assert_eq!(bundle.status("a"), "running");
    let pids =
        || -> Vec<u32> { serde_json::from_str(&bundle.oci(&["ps", "--format", "json", "a"]).ok()).unwrap() };
    assert_eq!(pids(), [u32::try_from(bundle.state("a")["pid"].as_u64().unwrap()).unwrap()]);
    assert!(bundle.oci(&["ps", "a"]).ok().contains("PID"));
    bundle.oci(&["delete", "a"]).fails(1, "not stopped: running");
    bundle.oci(&["pause", "a"]).ok();
    assert_eq!(bundle.status("a"), "paused");
    bundle.oci(&["exec", "a", "/seven.wasm"]).fails(255, "paused container");
    bundle.oci(&["resume", "a"]).ok();
    assert_eq!(bundle.status("a"), "running");
    let stats: Value = serde_json::from_str(&bundle.oci(&["events", "--stats", "a"]).ok()).unwrap();
    // Threads are counted, and compiling may have made some.
    assert!(stats["data"]["pids"]["current"].as_u64().unwrap() >= 1, "{stats}");
    bundle.oci(&["kill", "a", "TERM"]).ok();
    bundle.until("a", "stopped");
    bundle.oci(&["kill", "a", "TERM"]).fails(1, "not running");
    bundle.oci(&["exec", "a", "/seven.wasm"]).fails(255, "stopped container");
    bundle.oci(&["delete", "a"]).ok();
    bundle.is_clean();
}

#[test]
fn what_joins_a_wasm_container_is_wasm_too() {
    let Some(bundle) = bundle() else { return };
    bundle.oci(&["run", "-d", "a"]).ok();
    let call = bundle.oci(&["exec", "a", "/seven.wasm"]);
    assert_eq!(call.code, 7, "{call:#?}");
    // Neither a Linux program of the image's nor one of the host's is run, and nobody is left in the group.
    for program in ["/bin/true", "true", "/usr/bin/env", "/nothing.wasm"] {
        let call = bundle.oci(&["exec", "a", program]);
        assert_eq!(call.code, 255, "{program}: {call:#?}");
    }
    bundle.oci(&["exec", "-d", "--pid-file", &bundle.text("pid"), "a", "/loop.wasm"]).ok();
    let pid: u32 = fs_err::read_to_string(bundle.path("pid")).unwrap().parse().unwrap();
    let pids =
        || -> Vec<u32> { serde_json::from_str(&bundle.oci(&["ps", "--format", "json", "a"]).ok()).unwrap() };
    assert!(pids().contains(&pid) && pids().len() == 2, "{pid} {:?}", pids());
    // It does not outlive the container.
    bundle.oci(&["delete", "--force", "a"]).ok();
    until("the other one is gone", || (!is_alive(pid)).then_some(()));
    bundle.is_clean();
}

/// By its first bytes; by an annotation, whatever they are.
#[test]
fn a_wasm_program_is_known_by_more_than_its_name() {
    let Some(bundle) = bundle() else { return };
    let binary = wat::parse_str(SEVEN).unwrap();
    fs_err::write(bundle.path("bundle/rootfs/bin/app"), binary).unwrap();
    bundle.change(|spec| spec["process"]["args"] = json!(["/bin/app"]));
    assert_eq!(bundle.oci(&["run", "a"]).code, 7);
    bundle.change(|spec| {
        spec["process"]["args"] = json!(["/bin/busybox", "true"]);
        spec["annotations"] = json!({ "run.oci.handler": "wasm" });
    });
    bundle.oci(&["run", "a"]).fails(1, "not WebAssembly");
    bundle.is_clean();
}

fn is_alive(pid: u32) -> bool {
    fs_err::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
