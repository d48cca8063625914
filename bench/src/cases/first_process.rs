//! From an empty store to the end of the image's program, against the pull alone.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use super::python::{self, emptied};
use super::{Case, Work};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "pull-to-first-process",
    what: "pull the Python image (gzip), then run `sh -c 'exec true'` of it without network; against the pull alone",
    runs: 5,
    first: Some(python::make),
    work: Work::Compare(prepare),
};

/// Runs one command, then the other.
fn both(first: &Command, second: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"n=$1; shift; a=; while [ $n -gt 0 ]; do a="$a '$1'"; shift; n=$((n-1)); done; eval "$a" && exec "$@""#, "sh"]);
    let words = |command: &Command| {
        let program = command.get_program().to_owned();
        std::iter::once(program).chain(command.get_args().map(ToOwned::to_owned)).collect::<Vec<_>>()
    };
    let before = words(first);
    shell.arg(before.len().to_string()).args(before).args(words(second));
    for (name, value) in first.get_envs().filter_map(|(name, value)| Some((name, value?))) {
        shell.env(name, value);
    }
    shell
}

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let served = python::serve(world, "gz")?;
    let name = served.name.clone();
    let run = ["run", "--rm", "--network", "none", &name, "sh", "-c", "exec true"];
    let store = python::store(world, "first-store")?;
    let pull = world.dhow(&store, ["pull", "-q", &name]);
    let to_run = both(&pull, &world.dhow(&store, run));
    let (here, there) = (store.clone(), store);
    let mut contenders = vec![
        Contender::new("dhow pull", pull).before(move || {
            let _ = &served;
            emptied(&here)
        }),
        Contender::new("dhow pull, dhow run", to_run)
            .before(move || emptied(&there))
            .bar(Bar::Plus(Duration::from_millis(50))),
    ];
    if let Some(docker) = world.docker() {
        let command = both(&docker.call(["pull", "-q", &name]), &docker.call(run));
        let (label, pids, name) =
            (format!("{} pull, run", peers::docker_version()), docker.pids(), name.clone());
        contenders.push(
            Contender::new(&label, command)
                .daemons(pids)
                .before(move || python::without_docker(&docker, &name)),
        );
    }
    if let Some(podman) = world.podman() {
        let command = both(&podman.call(["pull", "-q", &name]), &podman.call(run));
        let (label, name) = (format!("{} pull, run", peers::version("podman".as_ref())), name.clone());
        contenders
            .push(Contender::new(&label, command).before(move || python::without_podman(&podman, &name)));
    }
    Ok(contenders)
}
