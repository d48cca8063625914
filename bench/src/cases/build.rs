//! Building images: ten steps of which three run something, without and with a cache; a context of which little is needed;
//! many files.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Case, Work};
use crate::made::{busybox, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const COLD: Case = Case {
    name: "build",
    what: "build ten steps, three of them RUN, nothing cached",
    runs: 10,
    first: None,
    work: Work::Compare(|world| ten(world, false)),
};

pub(crate) const CACHED: Case = Case {
    name: "build-cached",
    what: "the same with everything cached",
    runs: 20,
    first: None,
    work: Work::Compare(|world| ten(world, true)),
};

pub(crate) const CONTEXT: Case = Case {
    name: "build-context",
    what: "copy 1 MB of a context of 1 GB, nothing cached",
    runs: 10,
    first: None,
    work: Work::Compare(context),
};

pub(crate) const FILES: Case = Case {
    name: "build-files",
    what: "copy 50,000 files, nothing cached",
    runs: 3,
    first: None,
    work: Work::Compare(files),
};

const TEN: &str = "FROM docker.io/library/busybox:1\nENV A=1\nLABEL b=2\nWORKDIR /w\nCOPY src /w/src\nRUN echo one > /one\n\
    RUN cat /w/src/* > /two\nRUN mkdir /d && touch /d/f\nCOPY last /last\nCMD [\"cat\", \"/two\"]\n";

/// A folder with a Dockerfile.
fn folder(world: &World, name: &str, dockerfile: &str) -> Result<PathBuf> {
    let folder = world.folder(name)?;
    fs_err::create_dir_all(folder.join("src"))?;
    fs_err::write(folder.join("Dockerfile"), dockerfile)?;
    Ok(folder)
}

fn ten(world: &World, cached: bool) -> Result<Vec<Contender>> {
    let folder = folder(world, "ten", TEN)?;
    for number in 0..10 {
        fs_err::write(folder.join("src").join(format!("f{number}")), format!("{number}\n").repeat(100))?;
    }
    fs_err::write(folder.join("last"), "last\n")?;
    // Against dockerd and against buildah the wants differ where everything is cached.
    let bars =
        if cached { [Bar::Share(0.3), Bar::Share(0.06)] } else { [Bar::Share(0.25), Bar::Share(0.25)] };
    contenders(world, &folder, cached, bars)
}

fn contenders(
    world: &World,
    folder: &Path,
    cached: bool,
    [of_docker, of_buildah]: [Bar; 2],
) -> Result<Vec<Contender>> {
    let image = busybox();
    let store = world.store("busybox:1", &image)?;
    let place = folder.display().to_string();
    let line = |more: &[&str]| -> Vec<String> {
        let fixed = ["build", "-q", "--network", "none", "-t", "built:1"];
        fixed.iter().chain(more).map(|word| (*word).to_owned()).chain([place.clone()]).collect()
    };
    let fresh: &[&str] = if cached { &[] } else { &["--no-cache"] };
    let ours = line(fresh);
    tool(&mut world.dhow(&store, &ours));
    let mut all = vec![Contender::new("dhow build", world.dhow(&store, &ours))];
    if let Some(docker) = world.docker() {
        peers::import(&docker, "busybox:1", &image)?;
        let command = || {
            let mut command = docker.call(line(fresh));
            command.env("DOCKER_BUILDKIT", "0");
            command
        };
        tool(&mut command());
        let name = format!("{} build", peers::docker_version());
        all.push(Contender::new(&name, command()).daemons(docker.pids()).bar(of_docker));
    }
    if let Some(podman) = world.podman() {
        let archive = world.folder("archives")?.join("busybox.tar");
        world.layout("docker.io/library/busybox:1", &image).archive(&archive);
        tool(podman.call(["load", "-q", "-i"]).arg(&archive));
        let command = || {
            let mut words = vec!["build", "-q", "--layers", "--pull-never", "-t", "built:1"];
            words.extend(fresh);
            words.push(&place);
            podman.buildah(words)
        };
        tool(&mut command());
        let name = format!("{} build --layers", peers::version("buildah".as_ref()));
        all.push(Contender::new(&name, command()).bar(of_buildah));
    }
    Ok(all)
}

/// 1 MB alone, and the same beside 1 GB.
fn context(world: &World) -> Result<Vec<Contender>> {
    let dockerfile = "FROM scratch\nCOPY src/needed /\n";
    let (small, large) = (folder(world, "small", dockerfile)?, folder(world, "large", dockerfile)?);
    let noise: Vec<u8> = (0..1_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    for folder in [&small, &large] {
        fs_err::write(folder.join("src/needed"), &noise)?;
    }
    fs_err::create_dir_all(large.join("other"))?;
    for number in 0..1000 {
        fs_err::write(large.join("other").join(number.to_string()), &noise)?;
    }
    let store = world.store("busybox:1", &busybox())?;
    let line = |folder: &Path| {
        let place = folder.display().to_string();
        world.dhow(&store, ["build", "-q", "--no-cache", &place])
    };
    Ok(vec![
        Contender::new("dhow build, context of 1 MB", line(&small)),
        Contender::new("dhow build, context of 1 GB", line(&large)).bar(Bar::Times(1.1)),
    ])
}

fn files(world: &World) -> Result<Vec<Contender>> {
    let folder = folder(world, "many", "FROM docker.io/library/busybox:1\nCOPY src /src\n")?;
    for dir in 0..100 {
        let dir = folder.join("src").join(format!("d{dir}"));
        fs_err::create_dir_all(&dir)?;
        for number in 0..500 {
            fs_err::write(dir.join(format!("file-{number}")), format!("content of {number}\n"))?;
        }
    }
    contenders(world, &folder, false, [Bar::Share(0.5), Bar::Share(1.0)])
}
