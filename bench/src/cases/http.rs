//! Requests a second of a Rust component that answers HTTP, and how long they take, against `wasmtime serve`: the same
//! component, the same processors, in turns. wrk makes the load; it has one thread, so it takes from both the same.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::{Case, Work};
use crate::made::{guest, tool};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "http",
    what: "requests a second to a Rust component (wasi:http 0.2), 16 connections of wrk, 3 seconds a turn",
    runs: 7,
    first: Some(|| drop(guest("http.wasm"))),
    work: Work::Own(measure),
};

/// A server that runs, and what it has answered so far.
struct Server {
    name: String,
    child: Child,
    url: String,
    turns: Vec<Turn>,
}

/// What one turn gave.
#[derive(Debug, Clone, Copy)]
struct Turn {
    requests: f64,
    half: Duration,
    most: Duration,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Politely, so that the container is removed.
        Command::new("kill").arg(self.child.id().to_string()).status().ok();
        self.child.wait().ok();
    }
}

fn measure(world: &World, turns: usize) -> Result<()> {
    let wrk = peers::find("wrk").context("the load generator is missing: apt install wrk")?;
    let folder = world.folder("http")?;
    let file = folder.join("http.wasm");
    fs_err::write(&file, guest("http.wasm"))?;
    let store = world.folder("store-http")?;
    let port = free_port()?;
    let publish = format!("127.0.0.1:{port}:80");
    let program = file.to_string_lossy().into_owned();
    let mut dhow = world.dhow(&store, ["run", "--rm", "-p", &publish, &program]);
    let mut servers = vec![start("dhow run -p", &mut dhow, port)?];
    if let Some(wasmtime) = peers::find("wasmtime") {
        let compiled = folder.join("http.cwasm");
        tool(Command::new(&wasmtime).arg("compile").arg(&file).arg("-o").arg(&compiled));
        let port = free_port()?;
        let name = format!("{} serve, precompiled", peers::version(&wasmtime));
        let mut serve = Command::new(wasmtime);
        serve.args(["serve", "-Scli", "--allow-precompiled", "--addr"]).arg(format!("127.0.0.1:{port}"));
        servers.push(start(&name, serve.arg(compiled), port)?);
    }
    for server in &servers {
        // Not timed: whatever is made at the first request.
        load(&wrk, &server.url, 1)?;
    }
    for round in 0..turns {
        for turn in 0..servers.len() {
            let server = (round + turn) % servers.len();
            let done = load(&wrk, &servers[server].url, 3)?;
            servers[server].turns.push(done);
        }
    }
    print(&servers);
    Ok(())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Starts a server and waits until it answers.
fn start(name: &str, command: &mut Command, port: u16) -> Result<Server> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let url = format!("http://127.0.0.1:{port}/");
    let mut server = Server { name: name.to_owned(), child, url, turns: Vec::new() };
    for _ in 0..600 {
        if crate::world::answers(port) {
            return Ok(server);
        }
        if let Some(status) = server.child.try_wait()? {
            anyhow::bail!("{name}: {status}");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    anyhow::bail!("{name} does not answer at {}", server.url)
}

fn load(wrk: &Path, url: &str, seconds: u32) -> Result<Turn> {
    let mut command = Command::new(PathBuf::from(wrk));
    command.args(["-t1", "-c16", "--latency"]).arg(format!("-d{seconds}s")).arg(url);
    let text = tool(&mut command);
    ensure!(!text.contains("Non-2xx") && !text.contains("Socket errors"), "{url}: {text}");
    let value = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label));
        line.map(str::trim).with_context(|| format!("no `{label}` in what wrk said: {text}"))
    };
    let requests = value("Requests/sec:")?.parse()?;
    Ok(Turn { requests, half: duration(value("50%")?)?, most: duration(value("99%")?)? })
}

/// `1.23ms` and the like.
fn duration(text: &str) -> Result<Duration> {
    for (unit, factor) in [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)] {
        if let Some(number) = text.strip_suffix(unit)
            && let Ok(number) = number.parse::<f64>()
        {
            return Ok(Duration::from_secs_f64(number * factor));
        }
    }
    anyhow::bail!("`{text}` is no time")
}

/// The middle one.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn print(servers: &[Server]) {
    println!("{:<40} {:>10} {:>10} {:>9} {:>9}  bar", "", "best req/s", "median", "p50 ms", "p99 ms");
    let of = |server: &Server, value: fn(&Turn) -> f64| middle(server.turns.iter().map(value).collect());
    let p99 = |server: &Server| of(server, |turn| turn.most.as_secs_f64() * 1e3);
    for server in servers {
        let best = server.turns.iter().map(|turn| turn.requests).fold(0.0, f64::max);
        let (median, p50) =
            (of(server, |turn| turn.requests), of(server, |turn| turn.half.as_secs_f64() * 1e3));
        println!("{:<40} {best:>10.0} {median:>10.0} {p50:>9.3} {:>9.3}", server.name, p99(server));
    }
    let [dhow, peer] = servers else { return };
    // Neighbouring turns had the same machine.
    let ratio = middle(
        dhow.turns.iter().zip(&peer.turns).map(|(ours, theirs)| ours.requests / theirs.requests).collect(),
    );
    let word = |met: bool| if met { "met" } else { "MISSED" };
    println!("requests: {ratio:.3} of the peer's >= 1.0: {}", word(ratio >= 1.0));
    let (ours, theirs) = (p99(dhow), p99(peer));
    println!("p99: {ours:.3} ms <= the peer's {theirs:.3} ms: {}", word(ours <= theirs));
}
