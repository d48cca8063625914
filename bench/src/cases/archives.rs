//! `save` of a stored image, and `load` of an archive that docker has saved.

use std::path::Path;

use anyhow::Result;

use super::python;
use super::{Case, Work};
use crate::made::tool;
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const SAVE: Case = Case {
    name: "save",
    what: "the stored Python image into an archive; what podman and ctr write by default",
    runs: 3,
    first: Some(python::make),
    work: Work::Compare(save),
};

pub(crate) const LOAD: Case = Case {
    name: "load",
    what: "the Python image out of an archive of `docker save` into an empty store, unpacked",
    runs: 3,
    first: Some(python::make),
    work: Work::Compare(load),
};

fn save(world: &World) -> Result<Vec<Contender>> {
    let served = python::serve(world, "gz")?;
    let name = served.name.clone();
    let store = python::store(world, "save-store")?;
    python::stored(world, &store, &name)?;
    let folder = python::store(world, "saved")?;
    let file = folder.join("image.tar");
    let to = file.to_string_lossy().into_owned();
    let gone = move || {
        drop(fs_err::remove_file(&file));
        Ok(())
    };
    let save = world.dhow(&store, ["save", "-o", &to, &name]);
    let mut contenders =
        vec![Contender::new("dhow save", save).before(gone.clone()).bar(Bar::Memory(64_000_000))];
    if let Some(docker) = world.docker() {
        tool(&mut docker.call(["pull", "-q", &name]));
        let (save, pids) = (docker.call(["save", "-o", &to, &name]), docker.pids());
        let contender = Contender::new(&format!("{} save", peers::docker_version()), save).daemons(pids);
        contenders.push(contender.before(gone.clone()).bar(Bar::Share(0.35)));
    }
    if let Some(podman) = world.podman() {
        tool(&mut podman.call(["pull", "-q", &name]));
        let save = podman.call(["save", "-q", "-o", &to, &name]);
        contenders.push(
            Contender::new(&format!("{} save", peers::version("podman".as_ref())), save).before(gone.clone()),
        );
    }
    if let Some(containerd) = world.containerd() {
        tool(&mut containerd.ctr(["images", "pull", "--plain-http", &name]));
        let save = containerd.ctr(["images", "export", &to, &name]);
        let contender = Contender::new(&format!("{} images export", peers::version("ctr".as_ref())), save);
        contenders.push(contender.daemons([containerd.pid()]).before(gone));
    }
    Ok(contenders)
}

fn load(world: &World) -> Result<Vec<Contender>> {
    let served = python::serve(world, "gz")?;
    let name = served.name.clone();
    let file = python::store(world, "saved")?.join("image.tar");
    let store = python::store(world, "load-store")?;
    let from = file.to_string_lossy().into_owned();
    let saved = saved(world, &file, &name)?;
    if !saved {
        println!("(no docker: the archive is dhow's own)");
        python::stored(world, &store, &name)?;
        tool(&mut world.dhow(&store, ["save", "-o", &from, &name]));
    }
    let load = world.dhow(&store, ["load", "-q", "-i", &from]);
    let mut contenders = vec![
        Contender::new("dhow load", load)
            .before(move || python::emptied(&store))
            .bar(Bar::Memory(64_000_000)),
    ];
    if let Some(docker) = world.docker() {
        let (load, pids, name) = (docker.call(["load", "-q", "-i", &from]), docker.pids(), name.clone());
        let contender = Contender::new(&format!("{} load", peers::docker_version()), load).daemons(pids);
        contenders
            .push(contender.before(move || python::without_docker(&docker, &name)).bar(Bar::Share(0.25)));
    }
    if let Some(podman) = world.podman() {
        let load = podman.call(["load", "-q", "-i", &from]);
        let contender = Contender::new(&format!("{} load", peers::version("podman".as_ref())), load);
        contenders.push(contender.before(move || python::without_podman(&podman, &name)));
    }
    Ok(contenders)
}

/// Lets docker write the archive; `false` where there is no docker.
fn saved(world: &World, file: &Path, name: &str) -> Result<bool> {
    let Some(docker) = world.docker() else { return Ok(false) };
    tool(&mut docker.call(["pull", "-q", name]));
    tool(docker.call(["save", "-o"]).arg(file).arg(name));
    python::without_docker(&docker, name)?;
    Ok(true)
}
