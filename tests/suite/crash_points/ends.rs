//! The same for ends that somebody wants: `stop`, `kill` and `rm` of a container that runs, and `rm` of one that does not. Its
//! monitor is not the traced command's child; those are killed where a run is.

use super::{Case, can_trace, keeps_container, with_container};
use crate::support::Host;

fn start(host: &Host) {
    host.dhow([
        "run",
        "-d",
        "--name",
        "new",
        "--network",
        "none",
        "-v",
        "data:/data",
        "busybox:1",
        "sleep",
        "1000",
    ])
    .ok();
}

fn made(host: &Host) {
    host.dhow(["create", "--name", "new", "--network", "none", "-v", "/data", "busybox:1", "true"]).ok();
}

fn is_gone(said: &str) -> bool {
    said.contains("No such container") || said.contains("is not running")
}

#[test]
fn stop_and_kill() {
    if can_trace() {
        for args in [&["stop", "-t", "0", "new"][..], &["kill", "new"]] {
            let done = |host: &Host| {
                // Of a container whose end was wanted the code is known, whoever was killed.
                assert_eq!(host.dhow(["wait", "new"]).ok(), "137\n");
                host.dhow(["rm", "new"]).ok();
            };
            let mut case = Case::new(with_container("kept"), args, &keeps_container, &done);
            (case.prepare, case.may_be_done) = (start, is_gone);
            case.killed_everywhere();
        }
    }
}

#[test]
fn remove() {
    if can_trace() {
        for (args, prepare) in [(&["rm", "-f", "new"][..], start as fn(&Host)), (&["rm", "-v", "new"], made)]
        {
            let done = |host: &Host| {
                let names = host.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok();
                assert!(!names.lines().any(|name| name == "new"), "{names}");
            };
            let mut case = Case::new(with_container("kept"), args, &keeps_container, &done);
            (case.prepare, case.may_be_done) = (prepare, is_gone);
            case.killed_everywhere();
        }
    }
}
