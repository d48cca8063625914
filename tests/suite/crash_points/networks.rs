//! Networks made, removed, connected and disconnected by commands that are killed.

use super::{CHANGES, Case, can_trace, keeps_busybox, keeps_container, with_container};
use crate::support::{Host, is_root};

#[test]
fn networks() {
    if can_trace() {
        let listed = |host: &Host| {
            host.dhow(["network", "ls", "-q", "--filter", "type=custom", "--format", "{{.Name}}"]).ok()
        };
        let made = |host: &Host| assert_eq!(listed(host), "new\nold\n");
        let host = with_container("kept");
        host.dhow(["network", "create", "old"]).ok();
        let mut case = Case::new(host, &["network", "create", "new"], &keeps_container, &made);
        case.may_be_done = |said| said.contains("already exists");
        case.everywhere();
        let host = with_container("kept");
        host.dhow(["network", "create", "old"]).ok();
        let gone = |host: &Host| assert_eq!(listed(host), "");
        let mut case = Case::new(host, &["network", "rm", "old"], &keeps_container, &gone);
        case.may_be_done = |said| said.contains("not found");
        case.everywhere();
    }
}

/// The networks of the container `kept`, in a line.
fn networks_of_kept(host: &Host) -> String {
    let format = "{{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}";
    host.dhow(["inspect", "--format", format, "kept"]).ok()
}

#[test]
fn connect_and_disconnect() {
    if can_trace() && is_root() {
        let made = || {
            let host = Host::with_busybox();
            host.dhow(["network", "create", "first"]).ok();
            host.dhow(["network", "create", "old"]).ok();
            // Never started: the copies of a store have its networks in the kernel in turn, and none may.
            host.dhow(["create", "--name", "kept", "--network", "first", "busybox:1", "true"]).ok();
            host
        };
        let keeps = |host: &Host| {
            keeps_busybox(host);
            assert!(networks_of_kept(host).starts_with("first "));
        };
        let there = |host: &Host| {
            assert_eq!(networks_of_kept(host), "first old \n");
        };
        let host = made();
        let mut case = Case::new(host, &["network", "connect", "old", "kept"], &keeps, &there);
        case.may_be_done = |said| said.contains("already exists in network");
        case.everywhere();
        let host = made();
        host.dhow(["network", "connect", "old", "kept"]).ok();
        let gone = |host: &Host| assert_eq!(networks_of_kept(host), "first \n");
        let mut case = Case::new(host, &["network", "disconnect", "old", "kept"], &keeps, &gone);
        case.may_be_done = |said| said.contains("is not connected to network");
        case.everywhere();
    }
}

/// The same with a container that runs: the kernel has something of it, too.
#[test]
fn connect_and_disconnect_while_it_runs() {
    if !(can_trace() && is_root()) {
        return;
    }
    for verb in ["connect", "disconnect"] {
        let host = Host::with_busybox();
        host.dhow(["network", "create", "first"]).ok();
        host.dhow(["network", "create", "old"]).ok();
        let script = "echo said; sleep 1000";
        host.dhow(["run", "-d", "--name", "kept", "--network", "first", "busybox:1", "sh", "-c", script])
            .ok();
        let is_in = |host: &Host| networks_of_kept(host) == "first old \n";
        let prepare = |host: &Host| {
            if is_in(host) == (verb == "connect") {
                let other = if verb == "connect" { "disconnect" } else { "connect" };
                host.dhow(["network", other, "old", "kept"]).ok();
            }
        };
        let args = ["network", verb, "old", "kept"];
        // The store is the one that the running container has: it is not copied, and set back by the other command.
        let mut case = Case::new(host, &args, &keeps_container, &|_: &Host| ());
        case.args = args.map(str::to_owned).to_vec();
        prepare(&case.host);
        let (code, said) = case.traced(&["-e".to_owned(), format!("trace={CHANGES}")]);
        assert_eq!(code, Some(0), "{said}");
        let trace = fs_err::read_to_string(case.host.path("trace")).unwrap();
        let count = trace.lines().filter(|line| line.contains('(') && !line.contains("resumed>")).count();
        for n in Case::points(count) {
            prepare(&case.host);
            case.traced(&["-e".to_owned(), format!("inject={CHANGES}:signal=KILL:when={n}")]);
            let point = format!("{verb} killed at call {n} of {count}");
            let again = case.host.dhow(args).outcome();
            let done = ["already exists in network", "is not connected to network"];
            assert!(
                again.code == 0 || done.iter().any(|words| again.stderr.contains(words)),
                "{point}: {again:#?}"
            );
            assert_eq!(is_in(&case.host), verb == "connect", "{point}");
            // What it has in the kernel is what the record says.
            let shown = case.host.dhow(["exec", "kept", "ip", "-o", "-4", "address", "show"]).ok();
            let expected = if verb == "connect" { 3 } else { 2 };
            assert_eq!(shown.lines().count(), expected, "{point}: {shown}");
            case.host.dhow(["system", "check", "--repair"]).outcome();
            case.host.check();
        }
        case.host.dhow(["rm", "-f", "kept"]).ok();
        unmake(&case.host);
    }
}

/// Takes the networks of a host out of the kernel.
fn unmake(host: &Host) {
    host.dhow(["rm", "-f", "kept"]).outcome();
    host.dhow(["network", "rm", "first", "old"]).outcome();
}
