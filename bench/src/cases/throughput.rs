//! How much goes through a network in a second: from container to container, and from this host to a published port, by its
//! loopback and by another of its addresses. iperf3 does it, one stream, in turns.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::{Case, Work};
use crate::made::{busybox, is_root, tool};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "network-throughput",
    what: "iperf3, one stream, 3 seconds a turn: container to container, host to a published port",
    runs: 5,
    first: None,
    work: Work::Own(measure),
};

/// Where the program and its libraries are on this host.
const PROGRAM: [&str; 6] = ["-v", "/usr:/usr:ro", "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro"];
const PORT: &str = "5201";

/// One way for bytes, and what came of it so far, in bits a second.
struct Way {
    name: String,
    client: Command,
    turns: Vec<f64>,
}

fn measure(world: &World, turns: usize) -> Result<()> {
    ensure!(is_root(), "networks need root");
    let iperf = peers::find("iperf3").context("the load generator is missing: apt install iperf3")?;
    let image = busybox();
    let store = world.store("busybox:1", &image)?;
    let mut ways = Vec::new();
    ways.extend(prepare("dhow", &|args| world.dhow(&store, args.iter().copied()), &iperf)?);
    let docker = world.filtering_docker();
    if let Some(docker) = &docker {
        peers::import(docker, "busybox:1", &image)?;
        ways.extend(prepare(&peers::docker_version(), &|args| docker.call(args.iter().copied()), &iperf)?);
    }
    for round in 0..turns {
        for turn in 0..ways.len() {
            let at = (round + turn) % ways.len();
            let done = once(&mut ways[at].client)?;
            ways[at].turns.push(done);
        }
    }
    println!("{:<52} {:>10} {:>10}", "Gbit/s", "max", "median");
    for way in &mut ways {
        way.turns.sort_by(f64::total_cmp);
        let (most, half) = (way.turns.last().copied(), way.turns.get(way.turns.len() / 2).copied());
        println!("{:<52} {:>10.2} {:>10.2}", way.name, most.unwrap_or(0.0) / 1e9, half.unwrap_or(0.0) / 1e9);
    }
    let remove = ["rm", "-f", "server", "client"];
    tool(&mut world.dhow(&store, remove));
    if let Some(docker) = &docker {
        tool(&mut docker.call(remove));
    }
    Ok(())
}

/// A server and a client in a network of their own, and the ways to the server.
fn prepare(who: &str, call: &dyn Fn(&[&str]) -> Command, iperf: &std::path::Path) -> Result<Vec<Way>> {
    let iperf = iperf.to_string_lossy();
    tool(&mut call(&["network", "create", "bench"]));
    let server = ["run", "-d", "--name", "server", "--network", "bench", "-p", "5201"];
    tool(&mut call(&[&server[..], &PROGRAM, &["busybox:1", &iperf, "-s"]].concat()));
    let client = ["run", "-d", "--name", "client", "--network", "bench"];
    tool(&mut call(&[&client[..], &PROGRAM, &["busybox:1", "sleep", "100000"]].concat()));
    let inspect =
        |format: &str| Ok::<_, anyhow::Error>(tool(&mut call(&["inspect", "--format", format, "server"])));
    let address = inspect("{{.NetworkSettings.Networks.bench.IPAddress}}")?;
    let gateway = inspect("{{.NetworkSettings.Networks.bench.Gateway}}")?;
    let published = tool(&mut call(&["port", "server", PORT]));
    let port =
        published.lines().next().and_then(|line| line.rsplit(':').next()).context("no published port")?;
    let from_host = |name: &str, host: &str, port: &str| {
        let mut client = Command::new(&*iperf);
        client.args(["-c", host, "-p", port, "-t", "3", "-J"]);
        Way { name: format!("{who}: {name}"), client, turns: Vec::new() }
    };
    let inside = call(&["exec", "client", &iperf, "-c", address.trim(), "-t", "3", "-J"]);
    Ok(vec![
        Way { name: format!("{who}: container to container"), client: inside, turns: Vec::new() },
        from_host("host to the container's address", address.trim(), PORT),
        from_host("host to a published port, by another address", gateway.trim(), port),
        from_host("host to a published port, by its loopback", "127.0.0.1", port),
    ])
}

/// Bits a second that were received.
fn once(client: &mut Command) -> Result<f64> {
    let said = tool(client);
    let said: serde_json::Value =
        serde_json::from_str(&said).context("iperf3 says something else than JSON")?;
    said["end"]["sum_received"]["bits_per_second"].as_f64().context("iperf3 says no figure")
}
