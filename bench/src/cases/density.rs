//! What idle containers hold: 1,000 Wasm services, 200 Wasm programs that wait and 200 native ones, each with its monitor.
//!
//! *Private* memory is what would come back if the process ended; *PSS* adds its share of what several have.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::{Case, Work};
use crate::made::{busybox, guest, tool};
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "density",
    what: "memory of 1,000 idle Wasm services and 200 waiting Wasm programs, in the background, with their monitors",
    runs: 1000,
    first: Some(|| drop(guest("http.wasm"))),
    work: Work::Own(measure),
};

pub(crate) const NATIVE: Case = Case {
    name: "native-idle",
    what: "memory and threads of the monitors of 200 native containers that sleep, in the background, without network",
    runs: 200,
    first: None,
    work: Work::Own(measure_native),
};

/// Waits for an hour.
const WAITS: &str = r#"(module
  (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
  (memory (export "memory") 1)
  (func (export "_start")
    (i32.store (i32.const 16) (i32.const 1))
    (i64.store (i32.const 24) (i64.const 3600000000000))
    (drop (call $poll (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))))
"#;

/// The first port; the namespace has no other user of them.
const PORTS: usize = 20_000;

/// What one kind of process holds, in kB.
#[derive(Debug, Default, Clone, Copy)]
struct Held {
    count: u64,
    private: u64,
    pss: u64,
}

fn measure(world: &World, services: usize) -> Result<()> {
    let folder = world.folder("density")?;
    let store = world.folder("store-density")?;
    let (service, program) = (folder.join("http.wasm"), folder.join("waits.wat"));
    fs_err::write(&service, guest("http.wasm"))?;
    fs_err::write(&program, WAITS)?;
    let _end = End(world, &store);
    println!(
        "{:<28} {:>6} {:>10} {:>9} {:>12} {:>11}  bar",
        "", "count", "private kB", "PSS kB", "with monitor", "PSS kB"
    );

    let publish = |number: usize| vec!["-p".to_owned(), format!("127.0.0.1:{}:80", PORTS + number)];
    start(world, &store, services, &service, publish)?;
    for number in [0, services / 2, services.saturating_sub(1)] {
        let port = u16::try_from(PORTS + number)?;
        ensure!(crate::world::answers(port), "service {number} does not answer");
    }
    report(world, &store, "idle services", services, 1024)?;
    end(world, &store)?;

    let programs = services.div_ceil(5);
    start(world, &store, programs, &program, |_| Vec::new())?;
    report(world, &store, "waiting programs", programs, 3072)?;
    end(world, &store)
}

fn measure_native(world: &World, count: usize) -> Result<()> {
    let store = world.store("idle:1", &busybox())?;
    let _end = End(world, &store);
    let begun = Instant::now();
    for number in 0..count {
        let run = ["run", "-d", "--network", "none", "idle:1", "sleep", "3600"];
        let output = world.dhow(&store, run).output()?;
        ensure!(output.status.success(), "container {number}: {}", String::from_utf8_lossy(&output.stderr));
    }
    println!("({count} were started in {:.1} s)", begun.elapsed().as_secs_f64());
    // A monitor lets go of what its start needed when it has had nothing to do for a moment.
    std::thread::sleep(std::time::Duration::from_secs(1));
    let mut monitors = Vec::new();
    for ids in ids(world, &store)?.chunks(100) {
        let mut inspect = world.dhow(&store, ["inspect", "-f", "{{.State.Pid}}"]);
        for pid in tool(inspect.args(ids)).split_whitespace().map(str::parse::<u32>) {
            monitors.push(Monitor::of(parent(pid?)?)?);
        }
    }
    ensure!(monitors.len() == count, "{} of {count} live", monitors.len());
    let most = |of: fn(&Monitor) -> u64| monitors.iter().map(of).max().unwrap_or(0);
    let rows = [
        ("resident kB", most(|one| one.resident), 1536),
        ("private kB", most(|one| one.private), 400),
        ("threads", most(|one| one.threads), 1),
    ];
    for (what, largest, bar) in rows {
        let verdict = if largest <= bar { "met" } else { "MISSED" };
        println!("the largest monitor, {what:<12} {largest:>6} <= {bar}: {verdict}");
    }
    let begun = Instant::now();
    end(world, &store)?;
    println!("({count} were removed in {:.1} s)", begun.elapsed().as_secs_f64());
    Ok(())
}

/// What one monitor holds, in kB.
#[derive(Debug)]
struct Monitor {
    resident: u64,
    private: u64,
    threads: u64,
}

impl Monitor {
    fn of(pid: u32) -> Result<Self> {
        let text = fs_err::read_to_string(format!("/proc/{pid}/status"))?;
        let of = |label: &str| -> Option<u64> {
            text.lines().find_map(|line| line.strip_prefix(label))?.split_whitespace().next()?.parse().ok()
        };
        let mut held = Held::default();
        held.add(pid)?;
        let (resident, threads) = (of("VmRSS:").context("no VmRSS")?, of("Threads:").context("no threads")?);
        Ok(Self { resident, private: held.private, threads })
    }
}

fn start(
    world: &World,
    store: &Path,
    count: usize,
    program: &Path,
    options: impl Fn(usize) -> Vec<String>,
) -> Result<()> {
    let begun = Instant::now();
    for number in 0..count {
        let mut run = world.dhow(store, ["run", "-d"]);
        let output = run.args(options(number)).arg(program).output()?;
        ensure!(output.status.success(), "container {number}: {}", String::from_utf8_lossy(&output.stderr));
    }
    println!("({count} were started in {:.1} s)", begun.elapsed().as_secs_f64());
    Ok(())
}

fn report(world: &World, store: &Path, what: &str, count: usize, most: u64) -> Result<()> {
    let (mut guests, mut monitors) = (Held::default(), Held::default());
    for ids in ids(world, store)?.chunks(100) {
        let mut inspect = world.dhow(store, ["inspect", "-f", "{{.State.Pid}}"]);
        for pid in tool(inspect.args(ids)).split_whitespace().map(str::parse::<u32>) {
            let pid = pid?;
            guests.add(pid)?;
            monitors.add(parent(pid)?)?;
        }
    }
    ensure!(guests.count == count as u64, "{} of {count} live", guests.count);
    let each = |sum: u64| sum / guests.count.max(1);
    let (private, pss) = (each(guests.private), each(guests.pss));
    let (all, all_pss) = (each(guests.private + monitors.private), each(guests.pss + monitors.pss));
    let verdict = if all <= most { "met" } else { "MISSED" };
    println!(
        "{what:<28} {count:>6} {private:>10} {pss:>9} {all:>12} {all_pss:>11}  private with monitor <= {most} kB: {verdict}"
    );
    Ok(())
}

impl Held {
    fn add(&mut self, pid: u32) -> Result<()> {
        let text = fs_err::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let of = |label: &str| -> u64 {
            let lines = text.lines().filter_map(|line| line.strip_prefix(label));
            lines.filter_map(|value| value.trim().strip_suffix(" kB")?.parse::<u64>().ok()).sum()
        };
        self.count += 1;
        self.private += of("Private_Clean:") + of("Private_Dirty:");
        self.pss += of("Pss:");
        Ok(())
    }
}

/// The monitor of a container's process.
fn parent(pid: u32) -> Result<u32> {
    let text = fs_err::read_to_string(format!("/proc/{pid}/status"))?;
    let parent = text.lines().find_map(|line| line.strip_prefix("PPid:")).context("no parent")?;
    Ok(parent.trim().parse()?)
}

fn ids(world: &World, store: &Path) -> Result<Vec<String>> {
    let output = world.dhow(store, ["ps", "-aq", "--no-trunc"]).output()?;
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn end(world: &World, store: &Path) -> Result<()> {
    for ids in ids(world, store)?.chunks(100) {
        let output = world.dhow(store, ["rm", "-f"]).args(ids).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

/// Leaves no container behind, whatever went wrong.
struct End<'a>(&'a World, &'a Path);

impl Drop for End<'_> {
    fn drop(&mut self) {
        end(self.0, self.1).ok();
    }
}
