//! A native `true` in a container without network, against runtimes with a prepared bundle and whole engines.

use std::process::Command;

use anyhow::Result;

use super::Case;
use crate::made::{busybox, is_root, tool};
use crate::measure::Contender;
use crate::peers::{self, Docker};
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "native-true",
    what: "busybox true in a container without network; engines from a stored image, runtimes from a bundle",
    runs: 60,
    prepare,
};

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let image = busybox();
    let store = world.store("busybox:1", &image)?;
    let run = ["run", "--rm", "--network", "none", "busybox:1", "true"];
    let mut contenders = vec![Contender::new("dhow run --rm", world.dhow(&store, run))];
    for name in ["crun", "runc"] {
        let Some(runtime) = peers::find(name) else { continue };
        if !is_root() {
            continue;
        }
        let bundle = peers::bundle(world, &runtime, &image, &["true"])?;
        let mut command = Command::new(&runtime);
        command.args(["run", &format!("dhow-bench-{}-{name}", std::process::id())]).current_dir(bundle);
        contenders.push(Contender::new(&format!("{} run BUNDLE", peers::version(&runtime)), command));
    }
    if let Some(podman) = peers::find("podman").filter(|_| is_root()) {
        let (root, state) = (world.folder("podman")?, world.folder("podman-run")?);
        let call = || {
            let mut command = Command::new(&podman);
            command.arg("--root").arg(&root).arg("--runroot").arg(&state);
            command.args([
                "--storage-driver",
                "overlay",
                "--cgroup-manager",
                "cgroupfs",
                "--events-backend",
                "none",
            ]);
            command
        };
        let archive = world.folder("archives")?.join("busybox.tar");
        world.layout("busybox:1", &image).archive(&archive);
        tool(call().args(["load", "-q", "-i"]).arg(&archive));
        let id = tool(call().args(["images", "-q"]));
        let mut command = call();
        // Root here may lack the right to raise the limits that podman sets.
        command
            .args([
                "run",
                "--rm",
                "--network",
                "none",
                "--ulimit",
                "nofile=1024:1024",
                "--ulimit",
                "nproc=1024:1024",
            ])
            .args([id.trim(), "true"]);
        contenders.push(Contender::new(&format!("{} run --rm", peers::version(&podman)), command));
    }
    if let Some(docker) = Docker::start(world)? {
        docker.import("busybox:1", &image)?;
        let command = docker.call(run);
        let name = docker.name.clone();
        // Lives as long as the contender.
        contenders.push(Contender::new(&name, command).in_daemon().before(move || {
            let _ = &docker;
            Ok(())
        }));
    }
    Ok(contenders)
}
