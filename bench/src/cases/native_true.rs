//! A native `true` in a container without network, against runtimes with a prepared bundle and whole engines.

use std::process::Command;

use anyhow::Result;

use super::{Case, Work};
use crate::made::{busybox, is_root, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "native-true",
    what: "busybox true in a container without network; engines from a stored image, runtimes from a bundle",
    runs: 60,
    first: None,
    work: Work::Compare(prepare),
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
        let contender = Contender::new(&format!("{} run BUNDLE", peers::version(&runtime)), command);
        contenders.push(if name == "crun" { contender.bar(Bar::Share(0.5)) } else { contender });
    }
    if let Some(podman) = world.podman() {
        let archive = world.folder("archives")?.join("busybox.tar");
        world.layout("busybox:1", &image).archive(&archive);
        tool(podman.call(["load", "-q", "-i"]).arg(&archive));
        let id = tool(&mut podman.call(["images", "-q"]));
        let command = podman.call(["run", "--rm", "--network", "none", id.trim(), "true"]);
        contenders.push(Contender::new(&format!("{} run --rm", peers::version("podman".as_ref())), command));
    }
    if let Some(docker) = world.docker() {
        peers::import(&docker, "busybox:1", &image)?;
        // The container's own processes are the shim's children and not in the figures.
        let name = format!("{} run --rm", peers::docker_version());
        contenders.push(Contender::new(&name, docker.call(run)).daemons(docker.pids()));
    }
    Ok(contenders)
}
