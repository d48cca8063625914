//! The start path stays short: counted in system calls and processes, not in time, so that it can be asserted.

use std::process::Command;

use crate::support::{Host, Image, Tree, guest, is_root, tool};

/// Lines of `strace -f` for one run, or nothing where the host does not let us trace.
fn trace(host: &Host, args: &[&str]) -> Option<String> {
    if Command::new("strace").args(["-o", "/dev/null", "true"]).output().ok()?.status.code() != Some(0) {
        println!("skipped: this host does not allow strace");
        return None;
    }
    let file = host.text("trace");
    let call = host.dhow(["run", "--rm"]).args(args).into_command();
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", &file]).arg(call.get_program()).args(call.get_args());
    strace.env_clear().envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
    tool(strace.current_dir(call.get_current_dir().expect("set")));
    Some(fs_err::read_to_string(&file).expect("trace"))
}

/// How many times one of these calls was made.
fn count(trace: &str, calls: &[&str]) -> usize {
    let names = trace.lines().filter_map(|line| line.split_whitespace().nth(1));
    names.filter(|name| calls.iter().any(|call| name.starts_with(&format!("{call}(")))).count()
}

#[test]
fn a_compiled_wasm_image_starts_with_little() {
    let image = Image::wasm()
        .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
        .entrypoint(&["/hello.wasm"]);
    let host = Host::with(&[("hello:1", image)]);
    host.dhow(["run", "--rm", "hello:1"]).ok();
    let Some(trace) = trace(&host, &["hello:1"]) else { return };
    assert_eq!(count(&trace, &["execve"]), 1, "a helper was started");
    assert_eq!(
        count(&trace, &["socket", "epoll_create1"]),
        0,
        "network or an async runtime on the start path"
    );
    assert!(
        count(&trace, &["clone", "clone3", "fork", "vfork"]) <= 1,
        "threads or processes beyond the monitor"
    );
    let calls = trace.lines().count();
    assert!(calls < 400, "{calls} system calls for a hello");
}

#[test]
fn a_native_image_starts_with_little() {
    if !is_root() {
        println!("skipped: counted as root");
        return;
    }
    let host = Host::with_busybox();
    // The first run unpacks the image.
    host.dhow(["run", "--rm", "busybox:1", "true"]).ok();
    let Some(trace) = trace(&host, &["--network", "none", "busybox:1", "true"]) else { return };
    // dhow itself and the program.
    assert_eq!(count(&trace, &["execve"]), 2, "a helper was started");
    assert!(
        count(&trace, &["clone", "clone3", "fork", "vfork"]) <= 3,
        "more processes than monitor, init and program"
    );
    let calls = trace.lines().count();
    assert!(calls < 800, "{calls} system calls for a true");
}
