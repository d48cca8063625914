//! Linux containers from their making to their removal.

use std::io::Write as _;
use std::process::Stdio;

use crate::made::until;
use crate::support::{NATIVE, SHIM, WASM, World, said};

#[test]
fn a_container_runs_to_its_end() {
    let Some(world) = World::new() else { return };
    let output = world.run(&["--rm", NATIVE, "one", "sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!(said(&output), "out\n", "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("err\n"), "{output:?}");
    assert_eq!(output.status.code(), Some(3));
    // Nothing on any stream, and a name that is free again.
    for _ in 0..3 {
        let output = world.run(&["--rm", NATIVE, "one", "true"]);
        assert!(output.status.success() && said(&output).is_empty(), "{output:?}");
    }
    let output = world.run(&["--rm", NATIVE, "one", "/nothing/at/all"]);
    assert!(!output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no such file"), "{output:?}");
    world.attempt(&["containers", "delete", "one"]);
    world.is_clean();
}

#[test]
fn input_arrives_and_ends() {
    let Some(world) = World::new() else { return };
    let mut command =
        world.command(&["run", "--rm", "--snapshotter", "native", "--runtime", SHIM, NATIVE, "one", "cat"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let line = "x".repeat(200_000) + "\n";
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn({
        let line = line.clone();
        move || stdin.write_all(line.as_bytes())
    });
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success());
    assert_eq!(said(&output).len(), line.len());
    world.is_clean();
}

#[test]
fn others_join_stop_and_go_on() {
    let Some(world) = World::new() else { return };
    world.detached(NATIVE, "it", &["sleep", "600"]);
    assert_eq!(world.status("it"), "RUNNING");
    assert_eq!(world.call(&["tasks", "exec", "--exec-id", "a", "it", "cat", "/proc/1/comm"]), "sleep\n");
    let failed = world.attempt(&["tasks", "exec", "--exec-id", "b", "it", "sh", "-c", "exit 9"]);
    assert_eq!(failed.status.code(), Some(9), "{failed:?}");
    let failed = world.attempt(&["tasks", "exec", "--exec-id", "c", "it", "/nothing"]);
    assert!(!failed.status.success());
    assert!(world.call(&["tasks", "ps", "it"]).contains(&world.pid("it").to_string()));
    world.call(&["tasks", "pause", "it"]);
    assert_eq!(world.status("it"), "PAUSED");
    world.call(&["tasks", "resume", "it"]);
    assert_eq!(world.status("it"), "RUNNING");
    let metrics = world.call(&["tasks", "metrics", "it"]);
    assert!(metrics.contains("memory.usage_in_bytes") || metrics.contains("memory.usage"), "{metrics}");
    let again = world.run(&["-d", NATIVE, "it", "true"]);
    assert!(!again.status.success(), "{again:?}");
    let failed = world.attempt(&["tasks", "delete", "it"]);
    assert!(!failed.status.success(), "{failed:?}");
    world.call(&["tasks", "kill", "-s", "KILL", "it"]);
    until("it has ended", || (world.status("it") == "STOPPED").then_some(()));
    let said = world.delete("it");
    assert!(said.contains("exit code 137"), "{said}");
    world.call(&["containers", "delete", "it"]);
    world.is_clean();
}

#[test]
fn terminals_are_real() {
    let Some(world) = World::new() else { return };
    // `ctr -t` wants a terminal of its own: script makes one.
    let line = format!(
        "{} --address {} --namespace {} run --rm -t --snapshotter native --runtime {SHIM} {NATIVE} one sh -c 'tty; stty size; echo $0'",
        crate::made::ctr_program(),
        world.socket().display(),
        world.namespace()
    );
    let mut command = std::process::Command::new("script");
    let output = command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null()).output().unwrap();
    let text = said(&output);
    assert!(text.contains("/dev/pts/0"), "{output:?}");
    world.is_clean();
}

/// Whatever is told, an end is never told before a beginning.
#[test]
fn events_come_in_their_order() {
    let Some(world) = World::new() else { return };
    let events = world.events();
    until("events are heard", || {
        world.run(&["--rm", NATIVE, "first", "true"]);
        events.topics().contains(&"/tasks/delete".to_owned()).then_some(())
    });
    let before = events.topics().len();
    for _ in 0..5 {
        assert!(world.run(&["--rm", NATIVE, "one", "true"]).status.success());
    }
    let topics = || events.topics()[before..].to_vec();
    until("all are there", || (topics().len() == 20).then_some(()));
    let once = ["/tasks/create", "/tasks/start", "/tasks/exit", "/tasks/delete"];
    for (number, topic) in topics().iter().enumerate() {
        assert_eq!(topic, once[number % 4], "{:?}", topics());
    }
}

#[test]
fn many_run_at_once() {
    let Some(world) = World::new() else { return };
    let children: Vec<_> = (0..50)
        .map(|number| {
            let id = format!("one-{number}");
            let args =
                ["run", "--rm", "--snapshotter", "native", "--runtime", SHIM, NATIVE, &id, "echo", &id];
            let mut command = world.command(&args);
            (
                id.clone(),
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
            )
        })
        .collect();
    for (id, child) in children {
        let output = child.wait_with_output().unwrap();
        assert_eq!(said(&output), format!("{id}\n"), "{output:?}");
    }
    world.is_clean();
}

#[test]
fn logs_go_to_files_and_programs() {
    let Some(world) = World::new() else { return };
    let log = world.path().join("logs/log");
    let uri = format!("file://{}", log.display());
    let output = world.run(&["-d", "--log-uri", &uri, NATIVE, "it", "sh", "-c", "echo one; echo two >&2"]);
    assert!(output.status.success(), "{output:?}");
    until("both are there", || {
        let text = fs_err::read_to_string(&log).unwrap_or_default();
        (text.contains("one\n") && text.contains("two\n")).then_some(())
    });
    world.remove("it");
    let program = world.path().join("logger");
    let script = format!(
        "#!/bin/sh\nexec 5>&-\necho $CONTAINER_NAMESPACE/$CONTAINER_ID $* > {0}.who\ncat <&3 > {0}.out\n",
        log.display()
    );
    fs_err::write(&program, script).unwrap();
    crate::made::tool(std::process::Command::new("chmod").arg("755").arg(&program));
    let uri = format!("binary://{}?a=b", program.display());
    let output = world.run(&["-d", "--log-uri", &uri, NATIVE, "it", "sh", "-c", "echo three"]);
    assert!(output.status.success(), "{output:?}");
    let read = |end: &str| fs_err::read_to_string(format!("{}.{end}", log.display())).unwrap_or_default();
    until("it is there", || (read("out") == "three\n").then_some(()));
    assert_eq!(read("who"), format!("{}/it a b\n", world.namespace()));
    world.remove("it");
    world.is_clean();
}

/// The server is killed: containerd has the container removed.
#[test]
fn a_killed_shim_leaves_nothing() {
    let Some(world) = World::new() else { return };
    world.detached(NATIVE, "it", &["sleep", "600"]);
    let pid = world.pid("it");
    let [shim] = world.shims()[..] else { panic!("{:?}", world.shims()) };
    kill(shim);
    until("the container's process is gone", || {
        (!std::path::Path::new(&format!("/proc/{pid}/ns")).exists() || is_over(pid)).then_some(())
    });
    until("containerd has noticed", || world.status("it").is_empty().then_some(()));
    world.attempt(&["containers", "delete", "it"]);
    world.is_clean();
}

/// containerd is killed and comes back: containers run on, and it finds them.
#[test]
fn containers_outlive_containerd() {
    let Some(mut world) = World::new() else { return };
    world.detached(NATIVE, "it", &["sleep", "600"]);
    world.detached(NATIVE, "ends", &["sh", "-c", "sleep 0.5; exit 5"]);
    let pid = world.pid("it");
    world.kill_containerd();
    std::thread::sleep(std::time::Duration::from_millis(700));
    world.restart_containerd();
    assert_eq!((world.status("it"), world.pid("it")), ("RUNNING".to_owned(), pid));
    until("the end is known", || (world.status("ends") == "STOPPED").then_some(()));
    let said = world.delete("ends");
    assert!(said.contains("exit code 5"), "{said}");
    world.call(&["tasks", "exec", "--exec-id", "a", "it", "true"]);
    world.remove("it");
    world.is_clean();
}

/// Both are killed: containerd, when it is back, finds nobody, and has the container removed.
#[test]
fn a_container_whose_keepers_were_killed_goes() {
    let Some(mut world) = World::new() else { return };
    world.detached(NATIVE, "it", &["sleep", "600"]);
    world.detached(WASM, "wasm", &["/hello.wasm", "run", "on"]);
    let pids = [world.pid("it"), world.pid("wasm")];
    // A Wasm program's process is a copy of its shim's.
    let shims: Vec<u32> = world.shims().into_iter().filter(|pid| !pids.contains(pid)).collect();
    assert_eq!(shims.len(), 2);
    world.kill_containerd();
    shims.into_iter().for_each(kill);
    world.restart_containerd();
    for pid in pids {
        until("the container's process is gone", || {
            (!std::path::Path::new(&format!("/proc/{pid}/ns")).exists() || is_over(pid)).then_some(())
        });
    }
    for id in ["it", "wasm"] {
        until("containerd has noticed", || world.status(id).is_empty().then_some(()));
        world.call(&["containers", "delete", id]);
    }
    world.is_clean();
}

/// What a container's logger reads is held by nobody else, so that its end is noticed.
#[test]
fn a_logger_s_pipes_are_its_own() {
    let Some(world) = World::new() else { return };
    let program = world.path().join("logger");
    fs_err::write(&program, "#!/bin/sh\nexec 5>&-\ncat <&3 >/dev/null\n").unwrap();
    crate::made::tool(std::process::Command::new("chmod").arg("755").arg(&program));
    let uri = format!("binary://{}", program.display());
    let output = world.run(&["-d", "--log-uri", &uri, WASM, "it", "/hello.wasm", "run", "on"]);
    assert!(output.status.success(), "{output:?}");
    let pipes: Vec<_> = fs_err::read_dir(format!("/proc/{}/fdinfo", world.pid("it")))
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let number = entry.file_name().to_str()?.to_owned();
            let file = fs_err::read_link(format!("/proc/{}/fd/{number}", world.pid("it"))).ok()?;
            let info = fs_err::read_to_string(entry.path()).ok()?;
            // The last digit of the flags: 0 reads, 1 writes.
            let reads = info.lines().any(|line| line.starts_with("flags:") && line.ends_with('0'));
            (file.to_str()?.starts_with("pipe:") && reads).then_some((number, file))
        })
        .collect();
    assert!(pipes.is_empty(), "{pipes:?}");
    world.remove("it");
    world.is_clean();
}

/// Checkpoints are CRIU's: where that does not work on this kernel the container goes on, and why is said.
#[test]
fn a_checkpoint_is_made_or_its_failure_told() {
    let Some(world) = World::new() else { return };
    world.detached(NATIVE, "it", &["sleep", "600"]);
    let works = std::process::Command::new("criu")
        .arg("check")
        .output()
        .expect("Debian package criu")
        .status
        .success();
    let image = world.path().join("image");
    let done = world.attempt(&["tasks", "checkpoint", "--image-path", image.to_str().unwrap(), "it"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() == works && (works || said.contains("criu failed: type DUMP")), "{done:?}");
    assert_eq!(world.status("it"), "RUNNING");
    world.remove("it");
    world.is_clean();
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

fn is_over(pid: u32) -> bool {
    fs_err::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}
