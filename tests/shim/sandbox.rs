//! Pods without a pause container, as containerd 2 asks for them with `sandboxer = "shim"`: what it says was written down from
//! 2.3, and is said here to the shim alone.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::made::{tool, until};
use crate::messages::sandbox::{
    CreateSandbox, Dns, LinuxPod, PodConfig, PodNamespaces, PodSecurity, PodUsers, SandboxStarted,
    SandboxStatus,
};
use crate::messages::{Any, Connected, CreateTask, Empty, Id, Waited};
use crate::protocol::{EXISTS, INVALID, NOT_FOUND, Refusal, Shim, UNIMPLEMENTED, kill, start, target};
use crate::support::SHIM;
use crate::wire::Message;

const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";
const SHARED: [&str; 4] = ["net", "ipc", "uts", "pid"];

/// A shim that was started for a pod.
fn shim() -> Option<Shim> {
    let shim = Shim::with(&json!({ "io.kubernetes.cri.sandbox-id": "pod" }))?;
    fs_err::create_dir(shim.path("pod")).unwrap();
    // There is no specification of a pod.
    assert_eq!(start(shim.dir.path(), "pod", None), shim.address.as_bytes());
    Some(shim)
}

fn name(shim: &Shim) -> String {
    shim.dir.path().file_name().unwrap().to_str().unwrap().to_owned()
}

fn described(shim: &Shim) -> CreateSandbox {
    let linux = LinuxPod { cgroup_parent: format!("/{}", name(shim)), ..LinuxPod::default() };
    let dns = Dns { servers: vec!["192.0.2.1".into()], ..Dns::default() };
    let config = PodConfig { hostname: "web".into(), dns: Some(dns), linux: Some(linux) };
    with(shim, &config)
}

fn with(shim: &Shim, config: &PodConfig) -> CreateSandbox {
    CreateSandbox {
        sandbox_id: "pod".into(),
        bundle_path: shim.path("pod").to_str().unwrap().to_owned(),
        options: Some(Any::of("runtime.v1.PodSandboxConfig", config)),
        netns_path: String::new(),
    }
}

fn pod() -> Id {
    Id { id: "pod".into() }
}

fn ask(shim: &mut Shim, method: &str) -> Result<Vec<u8>, Refusal> {
    shim.ask_of(SANDBOX, method, &pod())
}

fn status(shim: &mut Shim) -> SandboxStatus {
    SandboxStatus::decode(&ask(shim, "SandboxStatus").unwrap()).unwrap()
}

/// Makes the pod; gives its process.
fn run(shim: &mut Shim) -> u32 {
    let asked = described(shim);
    shim.ask_of(SANDBOX, "CreateSandbox", &asked).unwrap();
    SandboxStarted::decode(&ask(shim, "StartSandbox").unwrap()).unwrap().pid
}

/// A container as the CRI plugin describes it: in the namespaces of the pod's process.
fn join(shim: &Shim, holder: u32, args: &[&str]) -> CreateTask {
    let path = shim.path("one").join("config.json");
    let mut spec: Value = serde_json::from_slice(&fs_err::read(&path).unwrap()).unwrap();
    let joined =
        |kind: &str, file: &str| json!({ "type": kind, "path": format!("/proc/{holder}/ns/{file}") });
    spec["linux"]["namespaces"] = json!([
        { "type": "mount" }, joined("network", "net"), joined("ipc", "ipc"), joined("uts", "uts"), joined("pid", "pid"),
    ]);
    spec["process"]["args"] = json!(args);
    let mounts = spec["mounts"].as_array_mut().unwrap();
    mounts
        .push(json!({ "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=1m"] }));
    fs_err::write(&path, spec.to_string()).unwrap();
    shim.create("one")
}

fn namespace(pid: impl std::fmt::Display, kind: &str) -> PathBuf {
    fs_err::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap()
}

fn is_gone(pid: u32) -> bool {
    !Path::new(&format!("/proc/{pid}/exe")).exists()
}

fn mounts(shim: &Shim) -> usize {
    let table = fs_err::read_to_string("/proc/self/mountinfo").unwrap();
    table.lines().filter(|line| line.contains(shim.dir.path().to_str().unwrap())).count()
}

#[test]
fn a_pod_has_a_process_of_its_own() {
    let Some(mut shim) = shim() else { return };
    assert_eq!(ask(&mut shim, "StartSandbox").unwrap_err().0, NOT_FOUND);
    let asked = described(&shim);
    shim.ask_of(SANDBOX, "CreateSandbox", &asked).unwrap();
    assert_eq!(shim.ask_of(SANDBOX, "CreateSandbox", &asked).unwrap_err().0, EXISTS);
    assert_eq!(status(&mut shim).state, "SANDBOX_NOTREADY");
    let started = SandboxStarted::decode(&ask(&mut shim, "StartSandbox").unwrap()).unwrap();
    assert!(ask(&mut shim, "StartSandbox").is_err() && started.created_at.is_some());
    let said = status(&mut shim);
    assert_eq!((said.state.as_str(), said.pid), ("SANDBOX_READY", started.pid));
    ask(&mut shim, "PingSandbox").unwrap();
    // It is neither the host's nor the shim's, and has no rights and no files.
    for kind in SHARED {
        assert_ne!(namespace(started.pid, kind), namespace("self", kind), "{kind}");
    }
    let about = fs_err::read_to_string(format!("/proc/{}/status", started.pid)).unwrap();
    for line in ["CapEff:\t0000000000000000", "CapBnd:\t0000000000000000", "Uid:\t65535\t", "NoNewPrivs:\t1"]
    {
        assert!(about.contains(line), "{line}: {about}");
    }
    let root = fs_err::read_dir(format!("/proc/{}/root", started.pid)).unwrap();
    let files: Vec<_> = root.flatten().map(|entry| entry.file_name()).collect();
    assert!(files.contains(&"bin".into()) && !files.contains(&"etc".into()), "{files:?}");

    // A container comes and goes, and the pod stays.
    let script = "busybox hostname; busybox cat /etc/hostname /etc/resolv.conf; busybox stat -c %a /dev/shm; exec sleep 600";
    let said = shim.path("said");
    let create = CreateTask {
        stdout: format!("file://{}", said.display()),
        ..join(&shim, started.pid, &["sh", "-c", script])
    };
    shim.ask("Create", &create).unwrap();
    shim.ask("Start", &target("one")).unwrap();
    until("it has spoken", || {
        let text = fs_err::read_to_string(&said).unwrap_or_default();
        (text == "web\nweb\nnameserver 192.0.2.1\n1777\n").then_some(())
    });
    let connected = Connected::decode(&shim.ask("Connect", &Id { id: "one".into() }).unwrap()).unwrap();
    for kind in SHARED {
        assert_eq!(namespace(connected.task_pid, kind), namespace(started.pid, kind), "{kind}");
    }
    shim.ask("Kill", &kill("one", "")).unwrap();
    shim.ask("Wait", &target("one")).unwrap();
    shim.ask("Delete", &target("one")).unwrap();
    shim.ask("Shutdown", &Id::default()).unwrap();

    let waits = shim.send(SANDBOX, "WaitSandbox", &pod());
    let stop = shim.send(SANDBOX, "StopSandbox", &pod());
    let mut answers = BTreeMap::from([shim.hear(), shim.hear()]);
    assert!(answers.remove(&stop).unwrap().is_ok());
    assert!(Waited::decode(&answers.remove(&waits).unwrap().unwrap()).unwrap().exited_at.is_some());
    assert_eq!(status(&mut shim).state, "SANDBOX_NOTREADY");
    assert!(is_gone(started.pid));
    assert_eq!(mounts(&shim), 0);
    // As often as one likes.
    ask(&mut shim, "StopSandbox").unwrap();
    assert_eq!(ask(&mut shim, "ShutdownSandbox").unwrap(), Empty {}.encode_to_vec());
    // It cannot be found any more, and lets its caller hang up first: containerd takes the other order for a failure.
    assert!(shim.is_open_for(std::time::Duration::from_millis(500)));
    let path = PathBuf::from(shim.address.strip_prefix("unix://").unwrap());
    until("the server has ended", || (!path.exists()).then_some(()));
}

/// Without its process there is no pod, whoever ended that.
#[test]
fn a_pod_ends_with_its_process() {
    let Some(mut shim) = shim() else { return };
    let holder = run(&mut shim);
    let waits = shim.send(SANDBOX, "WaitSandbox", &pod());
    tool(Command::new("kill").args(["-KILL", &holder.to_string()]));
    let (stream, answer) = shim.hear();
    assert_eq!((stream, Waited::decode(&answer.unwrap()).unwrap().exit_status), (waits, 137));
    assert_eq!(status(&mut shim).state, "SANDBOX_NOTREADY");
    ask(&mut shim, "ShutdownSandbox").unwrap();
    assert_eq!(mounts(&shim), 0);
}

/// From 2.3 on, containerd has only the pod removed when its shim was killed, and none of its containers.
#[test]
fn what_a_killed_shim_leaves_is_removed_with_its_pod() {
    let Some(mut shim) = shim() else { return };
    let holder = run(&mut shim);
    let create = join(&shim, holder, &["sleep", "600"]);
    shim.ask("Create", &create).unwrap();
    shim.ask("Start", &target("one")).unwrap();
    let connected = Connected::decode(&shim.ask("Connect", &Id { id: "one".into() }).unwrap()).unwrap();
    let delete = || {
        let mut command = Command::new(SHIM);
        command.args(["-address", shim.dir.path().to_str().unwrap(), "-namespace", &name(&shim)]);
        command.args(["-id", "pod", "-bundle", shim.path("pod").to_str().unwrap(), "delete"]);
        tool(command.current_dir(shim.path("pod")).stdin(Stdio::null()))
    };
    tool(Command::new("kill").args(["-KILL", &connected.shim_pid.to_string()]));
    until("the server has ended", || is_gone(connected.shim_pid).then_some(()));
    delete();
    for pid in [holder, connected.task_pid] {
        until("its processes have ended", || is_gone(pid).then_some(()));
    }
    assert_eq!(mounts(&shim), 0);
    delete();
}

#[test]
fn what_cannot_be_a_pod_leaves_nothing() {
    let Some(mut shim) = shim() else { return };
    let refused = |shim: &mut Shim, asked: &CreateSandbox, code: i32| {
        assert_eq!(shim.ask_of(SANDBOX, "CreateSandbox", asked).unwrap_err().0, code);
        assert_eq!(ask(shim, "SandboxStatus").unwrap_err().0, NOT_FOUND);
    };
    let good = described(&shim);
    for id in ["", "..", "a/b"] {
        refused(&mut shim, &CreateSandbox { sandbox_id: id.into(), ..good.clone() }, INVALID);
    }
    let other = Some(Any { type_url: "some.Config".into(), value: Vec::new() });
    refused(&mut shim, &CreateSandbox { options: other, ..good.clone() }, INVALID);
    let namespaces = PodNamespaces { users: Some(PodUsers::default()), ..PodNamespaces::default() };
    let security = Some(PodSecurity { namespaces: Some(namespaces) });
    let linux = Some(LinuxPod { security, ..LinuxPod::default() });
    let users = with(&shim, &PodConfig { linux, ..PodConfig::default() });
    refused(&mut shim, &users, UNIMPLEMENTED);
    // A network that is not there.
    let lost = CreateSandbox { netns_path: "/none/at/all".into(), ..good };
    shim.ask_of(SANDBOX, "CreateSandbox", &lost).unwrap();
    let (_, text) = ask(&mut shim, "StartSandbox").unwrap_err();
    assert!(text.contains("/none/at/all"), "{text}");
    assert_eq!((status(&mut shim).state.as_str(), mounts(&shim)), ("SANDBOX_NOTREADY", 0));
    ask(&mut shim, "ShutdownSandbox").unwrap();
}
