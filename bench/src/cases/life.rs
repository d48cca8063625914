//! What people do with containers all day: list them, read their logs, run something in them, remove them.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::{Case, Work};
use crate::made::{busybox, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const LIST: Case =
    Case { name: "ps-1000", what: "list 1,000 containers", runs: 30, first: None, work: Work::Compare(list) };

pub(crate) const LOGS: Case = Case {
    name: "logs-tail",
    what: "the last ten lines of a log of 1 GB",
    runs: 30,
    first: None,
    work: Work::Compare(logs),
};

pub(crate) const WRITE_LOG: Case = Case {
    name: "logs-write",
    what: "a native container that writes 100 MB of lines, in the background, until all of them are in its log",
    runs: 5,
    first: None,
    work: Work::Compare(write_logs),
};

pub(crate) const EXEC: Case = Case {
    name: "exec-true",
    what: "busybox true in a native container that runs",
    runs: 40,
    first: None,
    work: Work::Compare(exec),
};

pub(crate) const REMOVE: Case = Case {
    name: "rm-50",
    what: "rm -f of 50 running native containers",
    runs: 3,
    first: None,
    work: Work::Compare(remove),
};

/// The usual options of a container that only has to be there.
const IDLE: [&str; 5] = ["--network", "none", "busybox:1", "sleep", "10000"];

fn list(world: &World) -> Result<Vec<Contender>> {
    let store = world.store("busybox:1", &busybox())?;
    for _ in 0..1000 {
        tool(&mut world.dhow(&store, ["create", "--network", "none", "busybox:1", "true"]));
    }
    let most = Bar::AtMost(Duration::from_millis(20));
    // Docker takes minutes to make that many.
    Ok(vec![Contender::new("dhow ps -a", world.dhow(&store, ["ps", "-a"])).prints("busybox").bar(most)])
}

fn logs(world: &World) -> Result<Vec<Contender>> {
    let store = world.store("busybox:1", &busybox())?;
    let run = ["run", "--name", "logs", "--network", "none", "--log-opt", "max-size=2g", "busybox:1", "true"];
    tool(&mut world.dhow(&store, run));
    let format = ["inspect", "--format", "{{.LogPath}}", "logs"];
    let path = tool(&mut world.dhow(&store, format));
    write_log(Path::new(path.trim()))?;
    let most = Bar::AtMost(Duration::from_millis(20));
    let tail = ["logs", "--tail", "10", "logs"];
    let mut contenders = vec![Contender::new("dhow logs", world.dhow(&store, tail)).prints("line").bar(most)];
    if let Some(docker) = world.docker() {
        peers::import(&docker, "busybox:1", &busybox())?;
        tool(&mut docker.call(run));
        let path = tool(&mut docker.call(format));
        write_log(Path::new(path.trim()))?;
        let name = format!("{} logs", peers::docker_version());
        contenders.push(Contender::new(&name, docker.call(tail)).daemons(docker.pids()).prints("line"));
    }
    Ok(contenders)
}

/// A gigabyte of lines in Docker's form, which is both engines'.
fn write_log(path: &Path) -> Result<()> {
    let file = fs_err::File::create(path)?;
    let mut out = std::io::BufWriter::with_capacity(1 << 20, file);
    let words = "x".repeat(900);
    for number in 0..1_100_000 {
        writeln!(
            out,
            "{{\"log\":\"line {number} {words}\\n\",\"stream\":\"stdout\",\"time\":\"2026-01-02T03:04:05.000000006Z\"}}"
        )?;
    }
    out.flush().with_context(|| path.display().to_string())
}

/// From the start of a container to its end, which is not before everything is written. Both keep three files of 10 MB.
fn write_logs(world: &World) -> Result<Vec<Contender>> {
    let store = world.store("busybox:1", &busybox())?;
    let line = "the quick brown fox jumps over the lazy dog, and the quick brown fox jumps over it once more";
    let script = format!("yes '{line}' | head -c 100000000");
    let mut create = vec!["create", "--name", "writes", "--network", "none"];
    create.extend(["--log-opt", "max-size=10m", "--log-opt", "max-file=3", "busybox:1", "sh", "-c", &script]);
    let both = |start: Command| {
        // `start` and `wait` by one shell.
        let mut shell = Command::new("sh");
        let program = start.get_program().to_string_lossy().into_owned();
        let front: Vec<String> = start
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned())
            .take_while(|arg| arg != "start")
            .collect();
        let call = [&[program][..], &front].concat().join(" ");
        shell.args(["-c", &format!("{call} start writes && {call} wait writes")]);
        for (name, value) in start.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell
    };
    let mut make = world.dhow(&store, &create);
    let mut remove = world.dhow(&store, ["rm", "-f", "writes"]);
    let contender = Contender::new("dhow start, wait", both(world.dhow(&store, ["start"])));
    let contender = contender.prints("0").before(move || {
        drop(remove.output());
        tool(&mut make);
        Ok(())
    });
    let mut contenders = vec![contender];
    if let Some(docker) = world.docker() {
        peers::import(&docker, "busybox:1", &busybox())?;
        let (mut make, mut remove) = (docker.call(&create), docker.call(["rm", "-f", "writes"]));
        let name = format!("{} start, wait", peers::docker_version());
        let contender = Contender::new(&name, both(docker.call(["start"]))).daemons(docker.pids());
        contenders.push(contender.prints("0").bar(Bar::Share(0.5)).before(move || {
            drop(remove.output());
            tool(&mut make);
            Ok(())
        }));
    }
    Ok(contenders)
}

fn exec(world: &World) -> Result<Vec<Contender>> {
    let store = world.store("busybox:1", &busybox())?;
    let run = [&["run", "-d", "--name", "exec"], &IDLE[..]].concat();
    tool(&mut world.dhow(&store, &run));
    let command = ["exec", "exec", "true"];
    // The container goes when the figures are there.
    let own = Running(world.dhow(&store, ["rm", "-f", "exec"]));
    let mut contenders = vec![Contender::new("dhow exec", world.dhow(&store, command)).before(move || {
        let _ = &own;
        Ok(())
    })];
    if let Some(docker) = world.docker() {
        peers::import(&docker, "busybox:1", &busybox())?;
        let id = tool(&mut docker.call(&run));
        let name = format!("{} exec", peers::docker_version());
        // The container's shim, too: its runtime does the work.
        let daemons = docker.pids().into_iter().chain(peers::shim_of(id.trim()));
        contenders.push(Contender::new(&name, docker.call(command)).daemons(daemons).bar(Bar::Share(0.1)));
    }
    Ok(contenders)
}

/// Ends, by this command, what a case has left running.
struct Running(Command);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.output());
    }
}

fn remove(world: &World) -> Result<Vec<Contender>> {
    let store = world.store("busybox:1", &busybox())?;
    let names: Vec<String> = (0..50).map(|number| format!("rm{number}")).collect();
    let remove: Vec<&str> = ["rm", "-f"].into_iter().chain(names.iter().map(String::as_str)).collect();
    let start = |name: &str| [&["run", "-d", "--name", name], &IDLE[..]].concat().join(" ");
    let lines: Vec<String> = names.iter().map(|name| start(name)).collect();
    let dhow: PathBuf = store.clone();
    let mut runs: Vec<Command> =
        lines.iter().map(|line| world.dhow(&dhow, line.split(' ').collect::<Vec<_>>())).collect();
    let mut contenders = vec![Contender::new("dhow rm -f", world.dhow(&store, &remove)).before(move || {
        runs.iter_mut().for_each(|run| drop(tool(run)));
        Ok(())
    })];
    if let Some(docker) = world.docker() {
        peers::import(&docker, "busybox:1", &busybox())?;
        let mut runs: Vec<Command> =
            lines.iter().map(|line| docker.call(line.split(' ').collect::<Vec<_>>())).collect();
        let name = format!("{} rm -f", peers::docker_version());
        contenders.push(
            Contender::new(&name, docker.call(&remove)).daemons(docker.pids()).bar(Bar::Share(0.1)).before(
                move || {
                    runs.iter_mut().for_each(|run| drop(tool(run)));
                    Ok(())
                },
            ),
        );
    }
    Ok(contenders)
}
