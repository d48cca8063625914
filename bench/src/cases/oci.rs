//! The same bundle by each runtime: run to its end, and created, started and deleted.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Case, Work};
use crate::made::{busybox, is_root};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const RUN: Case = Case {
    name: "oci-run",
    what: "`run` of the same bundle, busybox true in runc's default specification",
    runs: 60,
    first: None,
    work: Work::Compare(run),
};

pub(crate) const DOCKER: Case = Case {
    name: "oci-run-docker",
    what: "`run` of busybox true in the specification that dockerd gives its runtime, with its seccomp profile",
    runs: 60,
    first: None,
    work: Work::Compare(docker),
};

pub(crate) const LIFE: Case = Case {
    name: "oci-create-start-delete",
    what: "three commands of a shell on the same bundle, whose program sleeps",
    runs: 40,
    first: None,
    work: Work::Compare(life),
};

/// The runtimes, ours first, with the share of crun's time that ours may take.
fn runtimes(world: &World, share: f64) -> Result<Vec<(String, PathBuf, Option<f64>)>> {
    let dhow = world.dhow(&world.folder("oci")?, [""]).get_program().to_owned();
    let link = world.folder("oci")?.join("dhow-oci");
    if !link.exists() {
        std::os::unix::fs::symlink(dhow, &link)?;
    }
    let mut all = vec![("dhow oci".to_owned(), link, None)];
    if is_root() {
        let peers = [("crun", Some(share)), ("runc", None)];
        all.extend(peers.into_iter().filter_map(|(name, share)| {
            let path = peers::find(name)?;
            Some((peers::version(&path), path, share))
        }));
    }
    Ok(all)
}

fn contenders(
    world: &World,
    bundle: &Path,
    share: f64,
    call: impl Fn(&Path, &str, &Path) -> Command,
) -> Result<Vec<Contender>> {
    let all = runtimes(world, share)?.into_iter().enumerate().map(|(number, (name, path, share))| {
        let id = format!("dhow-bench-{}-{number}", std::process::id());
        let contender = Contender::new(&name, call(&path, &id, bundle));
        match share {
            Some(share) => contender.bar(Bar::Share(share)),
            None => contender,
        }
    });
    Ok(all.collect())
}

fn run(world: &World) -> Result<Vec<Contender>> {
    let Some(runc) = peers::find("runc") else { return Ok(Vec::new()) };
    let bundle = peers::bundle(world, &runc, &busybox(), &["true"])?;
    contenders(world, &bundle, 0.4, call_of_run)
}

fn docker(world: &World) -> Result<Vec<Contender>> {
    let Some(docker) = world.docker() else { return Ok(Vec::new()) };
    let bundle = peers::docker_bundle(world, &docker, &busybox(), &["true"])?;
    contenders(world, &bundle, 0.25, call_of_run)
}

fn call_of_run(path: &Path, id: &str, bundle: &Path) -> Command {
    let mut command = Command::new(path);
    command.args(["run", id]).current_dir(bundle);
    command
}

fn life(world: &World) -> Result<Vec<Contender>> {
    let Some(runc) = peers::find("runc") else { return Ok(Vec::new()) };
    let bundle = peers::bundle(world, &runc, &busybox(), &["sleep", "60"])?;
    contenders(world, &bundle, 0.4, |path, id, bundle| {
        let mut command = Command::new("sh");
        let script =
            r#""$0" create "$1" </dev/null >/dev/null 2>&1 && "$0" start "$1" && "$0" delete -f "$1""#;
        command.args(["-c", script]).arg(path).arg(id).current_dir(bundle);
        command
    })
}
