//! A pulled image into an empty registry.

use std::rc::Rc;

use anyhow::Result;

use super::python::{self, emptied};
use super::{Case, Work};
use crate::made::{Options, Registry, skopeo, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "push",
    what: "the pulled Python image (gzip) into an empty registry",
    runs: 3,
    first: Some(python::make),
    work: Work::Compare(prepare),
};

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let served = python::serve(world, "gz")?;
    let source = served.name.clone();
    // On the same disk as everything else; the registry keeps nothing in memory, so it can be emptied while it runs.
    let storage = python::store(world, "registry")?;
    let target = Rc::new(Registry::with(Options { storage: Some(&storage), ..Options::default() }));
    let name = target.name("py:pushed");
    let empty = move || {
        let _ = &target;
        emptied(&storage)
    };
    let store = python::store(world, "push-store")?;
    python::stored(world, &store, &source)?;
    tool(&mut world.dhow(&store, ["tag", &source, &name]));
    let push = world.dhow(&store, ["push", "-q", &name]);
    let mut contenders =
        vec![Contender::new("dhow push", push).before(empty.clone()).bar(Bar::Memory(64_000_000))];
    if let Some(docker) = world.docker() {
        tool(&mut docker.call(["pull", "-q", &source]));
        tool(&mut docker.call(["tag", &source, &name]));
        let (push, pids) = (docker.call(["push", "-q", &name]), docker.pids());
        let contender = Contender::new(&format!("{} push", peers::docker_version()), push);
        contenders.push(contender.daemons(pids).before(empty.clone()).bar(Bar::Share(0.1)));
    }
    if let Some(podman) = world.podman() {
        tool(&mut podman.call(["pull", "-q", &source]));
        let push = podman.call(["push", "-q", "--tls-verify=false", &source, &name]);
        contenders.push(
            Contender::new(&format!("{} push", peers::version("podman".as_ref())), push)
                .before(empty.clone()),
        );
    }
    if let Some(containerd) = world.containerd() {
        tool(&mut containerd.ctr(["images", "pull", "--plain-http", &source]));
        let push = containerd.ctr(["images", "push", "--plain-http", &name, &source]);
        let contender = Contender::new(&format!("{} push", peers::version("ctr".as_ref())), push);
        contenders.push(contender.daemons([containerd.pid()]).before(empty.clone()));
    }
    if peers::find("skopeo").is_some() {
        let copy = python::store(world, "skopeo-push")?;
        let layout = format!("oci:{}:it", copy.display());
        tool(&mut skopeo(["copy", &format!("docker://{source}"), &layout]));
        let command = skopeo(["copy", &layout, &format!("docker://{name}")]);
        contenders.push(
            Contender::new(&format!("{} copy", peers::version("skopeo".as_ref())), command).before(empty),
        );
    }
    Ok(contenders)
}
