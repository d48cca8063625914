//! containerd is killed and comes back while a container is in each of its phases: what was made is found again and goes on,
//! what was being made is whole or gone.

use std::time::Duration;

use crate::grpc::Server;
use crate::made::until;
use crate::messages::{Any, Empty};
use crate::support::{NATIVE, SHIM, World};
use crate::wire::{Message, message};

message! {
    /// `tasks.v1.CreateTaskRequest`, less what is not needed.
    Create {
        1 container_id: String,
        3 rootfs: Vec<crate::messages::Mount>,
    }
}
message! {
    /// `StartRequest`, `WaitRequest`, `DeleteTaskRequest`.
    Of {
        1 container_id: String,
    }
}
message! {
    /// `CreateTaskResponse`.
    Created {
        1 container_id: String,
        2 pid: u32,
    }
}
message! {
    /// `StartResponse`.
    Started {
        1 pid: u32,
    }
}
message! {
    /// `WaitResponse`.
    Ended {
        1 exit_status: u32,
    }
}
message! {
    CreateContainer {
        1 container: Option<Container>,
    }
}
message! {
    Container {
        1 id: String,
        4 runtime: Option<Runtime>,
        5 spec: Option<Any>,
    }
}
message! {
    Runtime {
        1 name: String,
    }
}

/// A container of the host's busybox.
fn make(world: &World, id: &str, args: &[&str], hooks: &serde_json::Value) {
    let kinds = ["pid", "ipc", "uts", "mount", "network"].map(|kind| serde_json::json!({ "type": kind }));
    let spec = serde_json::json!({
        "ociVersion": "1.0.2",
        "root": { "path": "rootfs" },
        "process": { "cwd": "/", "args": args, "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 } },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs" },
        ],
        "hooks": hooks,
        "linux": { "namespaces": kinds, "cgroupsPath": format!("/{}/{id}", world.namespace()) },
    });
    let kind = "types.containerd.io/opencontainers/runtime-spec/1/Spec".to_owned();
    let container = Container {
        id: id.to_owned(),
        runtime: Some(Runtime { name: SHIM.to_owned() }),
        spec: Some(Any { type_url: kind, value: spec.to_string().into() }),
    };
    let asked = CreateContainer { container: Some(container) };
    let made: Result<Empty, String> = ask(world, "containers.v1.Containers/Create", &asked);
    made.unwrap();
}

fn ask<A: Message>(world: &World, method: &str, asked: &impl Message) -> Result<A, String> {
    let (socket, namespace) = (world.socket(), world.namespace());
    let server = Server { socket: &socket, namespace: &namespace, patience: Duration::from_secs(120) };
    server.call(&format!("containerd.services.{method}"), asked)
}

fn create(world: &World, id: &str) -> Result<Created, String> {
    let tree = world.path().join("tree");
    if !tree.exists() {
        for name in ["bin", "dev", "proc"] {
            fs_err::create_dir_all(tree.join(name)).unwrap();
        }
        fs_err::copy("/bin/busybox", tree.join("bin/sh")).unwrap();
    }
    let mount = crate::messages::Mount {
        kind: "bind".to_owned(),
        source: tree.display().to_string(),
        options: vec!["rbind".to_owned(), "ro".to_owned()],
        ..Default::default()
    };
    ask(world, "tasks.v1.Tasks/Create", &Create { container_id: id.to_owned(), rootfs: vec![mount] })
}

fn of(id: &str) -> Of {
    Of { container_id: id.to_owned() }
}

#[test]
fn what_was_made_goes_on() {
    let Some(mut world) = World::new() else { return };
    let nothing = serde_json::json!({});
    make(&world, "made", &["/bin/sh", "-c", "exit 4"], &nothing);
    let pid = create(&world, "made").unwrap().pid;
    world.detached(NATIVE, "paused", &["sh", "-c", "while :; do :; done"]);
    world.call(&["tasks", "pause", "paused"]);
    world.detached(NATIVE, "ended", &["sh", "-c", "exit 6"]);
    until("it has ended", || (world.status("ended") == "STOPPED").then_some(()));
    world.detached(NATIVE, "twice", &["sleep", "600"]);

    for _ in 0..2 {
        world.kill_containerd();
        world.restart_containerd();
    }
    assert_eq!((world.status("made"), world.pid("made")), ("CREATED".to_owned(), pid));
    assert_eq!(world.status("paused"), "PAUSED");
    assert_eq!(world.status("twice"), "RUNNING");
    let said = world.delete("ended");
    assert!(said.contains("exit code 6"), "{said}");

    let started: Started = ask(&world, "tasks.v1.Tasks/Start", &of("made")).unwrap();
    assert_eq!(started.pid, pid);
    let ended: Ended = ask(&world, "tasks.v1.Tasks/Wait", &of("made")).unwrap();
    assert_eq!(ended.exit_status, 4);
    // Asked for once more after it has ended, and removed twice.
    let ended: Ended = ask(&world, "tasks.v1.Tasks/Wait", &of("made")).unwrap();
    assert_eq!(ended.exit_status, 4);
    ask::<Empty>(&world, "tasks.v1.Tasks/Delete", &of("made")).unwrap();
    assert!(ask::<Empty>(&world, "tasks.v1.Tasks/Delete", &of("made")).is_err());
    world.call(&["tasks", "resume", "paused"]);
    assert_eq!(world.status("paused"), "RUNNING");
    for id in ["paused", "twice"] {
        world.remove(id);
    }
    for id in ["made", "ended"] {
        world.call(&["containers", "delete", id]);
    }
    world.is_clean();
}

/// A hook holds its creation up, and containerd is killed meanwhile.
#[test]
fn what_was_being_made_is_whole_or_gone() {
    let Some(mut world) = World::new() else { return };
    let begun = world.path().join("begun");
    let go_on = world.path().join("go-on");
    let script =
        format!("touch {}; while [ ! -e {} ]; do sleep 0.05; done", begun.display(), go_on.display());
    let hooks = serde_json::json!({ "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", script] }] });
    make(&world, "it", &["/bin/sh", "-c", "while :; do :; done"], &hooks);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| create(&world, "it"));
        until("the hook runs", || begun.exists().then_some(()));
        let killed = crate::made::tool(
            std::process::Command::new("kill").args(["-KILL", &world.containerd_pid().to_string()]),
        );
        assert!(killed.is_empty() && call.join().unwrap().is_err());
    });
    world.kill_containerd();
    fs_err::write(&go_on, "").unwrap();
    world.restart_containerd();
    // Found, and then it is a container as any other, or removed.
    world.attempt(&["tasks", "kill", "-s", "KILL", "it"]);
    until("it has ended", || {
        world.attempt(&["tasks", "delete", "--force", "it"]);
        world.status("it").is_empty().then_some(())
    });
    world.attempt(&["containers", "delete", "it"]);
    world.is_clean();
}
