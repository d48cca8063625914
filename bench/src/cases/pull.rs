//! A Debian (debootstrap minbase) out of a local registry into an empty store.

use std::process::Command;

use anyhow::Result;

use super::Case;
use crate::made::{Registry, busybox, debian, tool};
use crate::measure::Contender;
use crate::peers::{self, Docker};
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "pull",
    what: "a minimal Debian from a local registry into an empty store, unpacked; skopeo only copies blobs",
    runs: 7,
    prepare,
};

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let image = debian().unwrap_or_else(|| {
        println!("(no debootstrap: busybox instead)");
        busybox()
    });
    let registry = Registry::start();
    let name = registry.push("debian:local", &image);
    let store = world.folder("pull-store")?;
    let emptied = store.clone();
    let mut contenders =
        vec![Contender::new("dhow pull", world.dhow(&store, ["pull", "-q", &name])).prints("debian").before(
            move || {
                fs_err::remove_dir_all(&emptied)?;
                fs_err::create_dir(&emptied)?;
                // The registry lives as long as this contender.
                let _ = &registry;
                Ok(())
            },
        )];
    if let Some(docker) = Docker::start(world)? {
        let pull = docker.call(["pull", "-q", &name]);
        let label = docker.name.clone();
        let image = name.clone();
        contenders.push(Contender::new(&label, pull).in_daemon().prints("debian").before(move || {
            // There is nothing to remove the first time.
            docker.call(["rmi", &image]).output()?;
            Ok(())
        }));
    }
    if let Some(skopeo) = peers::find("skopeo") {
        let copy = world.folder("skopeo")?;
        let emptied = copy.clone();
        let mut command = Command::new(&skopeo);
        command.args([
            "--insecure-policy",
            "copy",
            "-q",
            "--src-tls-verify=false",
            &format!("docker://{name}"),
        ]);
        command.arg(format!("oci:{}:it", copy.display()));
        let label = format!("{} copy (not unpacked)", peers::version(&skopeo));
        contenders.push(Contender::new(&label, command).before(move || {
            tool(Command::new("rm").arg("-rf").arg(&emptied));
            fs_err::create_dir(&emptied)?;
            Ok(())
        }));
    }
    Ok(contenders)
}
