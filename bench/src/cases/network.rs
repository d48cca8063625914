//! Containers in networks: how long it takes until one runs, with an address and a published port.

use anyhow::Result;

use super::{Case, Work};
use crate::made::{busybox, guest, is_root, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "network-run",
    what: "run -d of a native sleep with an address and a published port",
    runs: 40,
    first: None,
    work: Work::Compare(prepare),
};

pub(crate) const WASM: Case = Case {
    name: "network-run-wasm",
    what: "run -d of a Wasm program with a published port, in a network and without; Docker's is a native sleep",
    runs: 40,
    first: Some(|| drop(guest("sockets.wasm"))),
    work: Work::Compare(prepare_wasm),
};

fn prepare_wasm(world: &World) -> Result<Vec<Contender>> {
    anyhow::ensure!(is_root(), "networks need root");
    let store = world.folder("store-network-wasm")?;
    let file = world.folder("network-wasm")?.join("sockets.wasm");
    fs_err::write(&file, guest("sockets.wasm"))?;
    let program = file.to_string_lossy().into_owned();
    tool(&mut world.dhow(&store, ["network", "create", "bench"]));
    let mut contenders = Vec::new();
    for (name, network) in [("own network, -p 7", "bench"), ("no network, -p 7", "none")] {
        let run = ["run", "-d", "--name", "bench", "--network", network, "-p", "7", &program, "echo", "7"];
        let mut remove = world.dhow(&store, ["rm", "-f", "bench"]);
        let contender = Contender::new(&format!("dhow run -d, Wasm, {name}"), world.dhow(&store, run));
        contenders.push(contender.after(move || {
            tool(&mut remove);
            Ok(())
        }));
    }
    if let Some(docker) = world.filtering_docker() {
        peers::import(&docker, "busybox:1", &busybox())?;
        tool(&mut docker.call(["network", "create", "bench"]));
        let mut remove = docker.call(["rm", "-f", "bench"]);
        let name = format!("{} run -d, native, own network, -p 80", peers::docker_version());
        let run =
            ["run", "-d", "--name", "bench", "--network", "bench", "-p", "80", "busybox:1", "sleep", "600"];
        let contender = Contender::new(&name, docker.call(run)).daemons(docker.pids());
        contenders.push(contender.bar(Bar::Share(0.04)).after(move || {
            tool(&mut remove);
            Ok(())
        }));
    }
    Ok(contenders)
}

fn prepare(world: &World) -> Result<Vec<Contender>> {
    anyhow::ensure!(is_root(), "networks need root");
    let image = busybox();
    let store = world.store("busybox:1", &image)?;
    tool(&mut world.dhow(&store, ["network", "create", "bench"]));
    let run = |network: &'static str| {
        let mut run = vec!["run", "-d", "--name", "bench", "--network", network];
        run.extend((network != "none").then_some(["-p", "80"]).into_iter().flatten());
        run.extend(["busybox:1", "sleep", "600"]);
        run
    };
    let mut contenders = Vec::new();
    // The difference of the first two is what a network costs; names are served in the third.
    for (name, network) in
        [("bridge, -p 80", "bridge"), ("no network", "none"), ("own network, -p 80", "bench")]
    {
        let mut remove = world.dhow(&store, ["rm", "-f", "bench"]);
        let command = world.dhow(&store, run(network));
        let contender = Contender::new(&format!("dhow run -d, {name}"), command);
        contenders.push(contender.after(move || {
            tool(&mut remove);
            Ok(())
        }));
    }
    if let Some(docker) = world.filtering_docker() {
        peers::import(&docker, "busybox:1", &image)?;
        tool(&mut docker.call(["network", "create", "bench"]));
        let mut remove = docker.call(["rm", "-f", "bench"]);
        let name = format!("{} run -d, own network, -p 80", peers::docker_version());
        let contender = Contender::new(&name, docker.call(run("bench"))).daemons(docker.pids());
        contenders.push(contender.bar(Bar::Share(0.08)).after(move || {
            tool(&mut remove);
            Ok(())
        }));
    }
    Ok(contenders)
}
