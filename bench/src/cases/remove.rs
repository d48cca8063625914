//! Removing a stored image, with its files.

use std::time::Duration;

use anyhow::Result;

use super::python;
use super::{Case, Work};
use crate::made::tool;
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "rmi",
    what: "remove the pulled Python image",
    runs: 3,
    first: Some(python::make),
    work: Work::Compare(prepare),
};

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let served = python::serve(world, "gz")?;
    let name = served.name.clone();
    let store = python::store(world, "rmi-store")?;
    let rmi = world.dhow(&store, ["rmi", &name]);
    let mut pull = world.dhow(&store, ["pull", "-q", &name]);
    let most = Duration::from_millis(50);
    let mut contenders = vec![Contender::new("dhow rmi", rmi).bar(Bar::AtMost(most)).before(move || {
        let _ = &served;
        tool(&mut pull);
        Ok(())
    })];
    if let Some(docker) = world.docker() {
        let mut pull = docker.call(["pull", "-q", &name]);
        let rmi = docker.call(["rmi", &name]);
        let contender =
            Contender::new(&format!("{} rmi", peers::docker_version()), rmi).daemons(docker.pids());
        contenders.push(contender.before(move || {
            tool(&mut pull);
            Ok(())
        }));
    }
    if let Some(podman) = world.podman() {
        let mut pull = podman.call(["pull", "-q", &name]);
        let rmi = podman.call(["rmi", &name]);
        let contender = Contender::new(&format!("{} rmi", peers::version("podman".as_ref())), rmi);
        contenders.push(contender.before(move || {
            tool(&mut pull);
            Ok(())
        }));
    }
    if let Some(containerd) = world.containerd() {
        let mut pull = containerd.ctr(["images", "pull", "--plain-http", &name]);
        let rmi = containerd.ctr(["images", "rm", "--sync", &name]);
        let contender = Contender::new(&format!("{} images rm --sync", peers::version("ctr".as_ref())), rmi);
        contenders.push(contender.daemons([containerd.pid()]).before(move || {
            tool(&mut pull);
            Ok(())
        }));
    }
    Ok(contenders)
}
