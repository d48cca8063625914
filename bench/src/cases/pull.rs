//! Out of a local registry into an empty store, unpacked: a Debian, and the larger Python image in two compressions.

use std::cell::Cell;
use std::path::Path;
use std::rc::Rc;

use anyhow::{Result, ensure};

use super::python::{self, Served, emptied};
use super::{Case, Work};
use crate::made::{Registry, busybox, debian, skopeo};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const DEBIAN: Case = Case {
    name: "pull",
    what: "a minimal Debian from a local registry into an empty store, unpacked; skopeo only copies blobs",
    runs: 7,
    first: Some(|| drop(debian())),
    work: Work::Compare(|world| {
        let image = debian().unwrap_or_else(|| {
            println!("(no debootstrap: busybox instead)");
            busybox()
        });
        let registry = Registry::start();
        let name = registry.push("debian:local", &image);
        pulls(world, &Rc::new(Served { registry, name }), &[])
    }),
};

pub(crate) const GZIP: Case = Case {
    name: "pull-gz",
    what: "the Python image (535 MB unpacked, 4 layers), gzip, into an empty store, unpacked",
    runs: 5,
    first: Some(python::make),
    work: Work::Compare(|world| {
        pulls(world, &python::serve(world, "gz")?, &[("docker", 0.25), ("podman", 0.22)])
    }),
};

pub(crate) const ZSTD: Case = Case {
    name: "pull-zstd",
    what: "the same with zstd, which docker 20.10 does not know",
    runs: 5,
    first: Some(python::make),
    work: Work::Compare(|world| pulls(world, &python::serve(world, "zstd")?, &[("podman", 0.16)])),
};

pub(crate) const TWENTY: Case = Case {
    name: "pull-20",
    what: "20 processes pull the Python image (gzip) into one store at once: one download",
    runs: 3,
    first: Some(python::make),
    work: Work::Compare(twenty),
};

/// Dhow and every peer; `bars` are shares of a peer's time.
fn pulls(world: &World, served: &Rc<Served>, bars: &[(&str, f64)]) -> Result<Vec<Contender>> {
    let barred = |contender: Contender, peer: &str| match bars.iter().find(|(name, _)| *name == peer) {
        Some((_, share)) => contender.bar(Bar::Share(*share)),
        None => contender,
    };
    let name = served.name.clone();
    let mut contenders = vec![dhow(world, served, "pull-store")?.bar(Bar::Memory(64_000_000))];
    // docker 20.10 takes zstd for a damaged archive.
    if let Some(docker) = world.docker().filter(|_| !name.ends_with(":zstd")) {
        let pull = docker.call(["pull", "-q", &name]);
        let (pids, name) = (docker.pids(), name.clone());
        let contender = Contender::new(&format!("{} pull", peers::docker_version()), pull).daemons(pids);
        contenders.push(barred(contender.before(move || python::without_docker(&docker, &name)), "docker"));
    }
    if let Some(podman) = world.podman() {
        let pull = podman.call(["pull", "-q", "--tls-verify=false", &name]);
        let name = name.clone();
        let contender = Contender::new(&format!("{} pull", peers::version("podman".as_ref())), pull);
        contenders.push(barred(contender.before(move || python::without_podman(&podman, &name)), "podman"));
    }
    if let Some(containerd) = world.containerd() {
        let pull = containerd.ctr(["images", "pull", "--plain-http", &name]);
        let (pid, name) = (containerd.pid(), name.clone());
        let contender =
            Contender::new(&format!("{} pull", peers::version("ctr".as_ref())), pull).daemons([pid]);
        contenders.push(contender.before(move || python::without_containerd(&containerd, &name)));
    }
    if peers::find("skopeo").is_some() {
        let copy = world.folder("skopeo")?;
        let command = skopeo(["copy", &format!("docker://{name}"), &format!("oci:{}:it", copy.display())]);
        let label = format!("{} copy (not unpacked)", peers::version("skopeo".as_ref()));
        contenders.push(Contender::new(&label, command).before(move || emptied(&copy)));
    }
    Ok(contenders)
}

fn dhow(world: &World, served: &Rc<Served>, folder: &str) -> Result<Contender> {
    let store = python::store(world, folder)?;
    let pull = world.dhow(&store, ["pull", "-q", &served.name]);
    let served = Rc::clone(served);
    Ok(Contender::new("dhow pull", pull).before(move || {
        // The registry lives as long as this contender.
        let _ = &served;
        emptied(&store)
    }))
}

fn twenty(world: &World) -> Result<Vec<Contender>> {
    let served = python::serve(world, "gz")?;
    let mut contenders = vec![dhow(world, &served, "pull-store")?.bar(Bar::Memory(64_000_000))];
    let store = python::store(world, "pull-store-20")?;
    let commands = (0..20).map(|_| world.dhow(&store, ["pull", "-q", &served.name])).collect();
    let whole = stored_bytes(&served.registry.storage())?;
    let (before, after) = (Rc::clone(&served), served);
    // What had been sent when the run began.
    let mark = Rc::new(Cell::new(0));
    let seen = Rc::clone(&mark);
    contenders.push(
        Contender::all_at_once("dhow pull, 20 at once", commands)
            .before(move || {
                mark.set(sent(&before));
                emptied(&store)
            })
            .after(move || {
                let bytes = sent(&after) - seen.get();
                ensure!(bytes <= whole + whole / 50, "{bytes} bytes were served for an image of {whole}");
                Ok(())
            })
            .bar(Bar::Times(1.2))
            .bar(Bar::Memory(64_000_000)),
    );
    if let Some(docker) = world.docker() {
        let served = python::serve(world, "gz")?;
        let name = served.name.clone();
        let commands = (0..20).map(|_| docker.call(["pull", "-q", &name])).collect();
        let label = format!("{} pull, 20 at once", peers::docker_version());
        let pids = docker.pids();
        contenders.push(Contender::all_at_once(&label, commands).daemons(pids).before(move || {
            let _ = &served;
            python::without_docker(&docker, &name)
        }));
    }
    Ok(contenders)
}

/// Bytes of blobs that a registry has sent so far.
fn sent(served: &Served) -> u64 {
    let answers = served.registry.served();
    answers
        .iter()
        .filter(|(method, path, _)| method == "GET" && path.contains("/blobs/"))
        .map(|answer| answer.2)
        .sum()
}

/// Bytes of all blobs that a registry has.
fn stored_bytes(storage: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs_err::read_dir(storage)? {
        let entry = entry?;
        let found = entry.metadata()?;
        sum += if found.is_dir() { stored_bytes(&entry.path())? } else { found.len() };
    }
    Ok(sum)
}
