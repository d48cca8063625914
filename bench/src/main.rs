//! `dhow-bench [--runs N] [--dhow FILE] [CASE...]`: the same work with Dhow and with each installed peer, in alternation.
//!
//! Measures whole processes: wall time from before the spawn to after the wait, and the processor time of the process,
//! everything it waited for, and the daemon that works for it. It prepares what it needs (stores, bundles, daemons, a registry) in a private
//! network and mount namespace where it may, and takes all of it away again. See `bench/README.md`.

#![cfg_attr(not(target_os = "linux"), allow(unused, reason = "the peers are Linux programs"))]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "printing is what this program is for")]

#[cfg(target_os = "linux")]
mod cases;
#[cfg(target_os = "linux")]
mod cost;
#[cfg(target_os = "linux")]
mod measure;
#[cfg(target_os = "linux")]
mod order;
#[cfg(target_os = "linux")]
mod peers;
#[cfg(target_os = "linux")]
mod world;

#[cfg(target_os = "linux")]
#[path = "../../tests/support/made/made.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the test suite, which uses more of it")]
mod made;

#[cfg(target_os = "linux")]
fn main() -> anyhow::Result<()> {
    use anyhow::{Context as _, bail};

    let (mut runs, mut dhow) = (None, None);
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    if std::env::args().nth(1).is_some_and(|first| first == cost::PEAK_OF) {
        return cost::print_peak(std::env::args_os().skip(2));
    }
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => runs = Some(arguments.next().context("--runs needs a number")?.parse()?),
            "--dhow" => {
                dhow = Some(arguments.next().context("--dhow needs the file of a built dhow")?.into());
            }
            "--help" | "-h" => {
                println!("usage: dhow-bench [--runs N] [--dhow FILE] [CASE...]\ncases: {}", cases::names());
                return Ok(());
            }
            name if cases::find(name).is_some() => wanted.push(name.to_owned()),
            other => bail!("no case is called `{other}`; there are: {}", cases::names()),
        }
    }
    let cases: Vec<_> = cases::ALL
        .iter()
        .filter(|case| wanted.is_empty() || wanted.iter().any(|name| name == case.name))
        .collect();
    // What needs the network is made before there is none.
    cases.iter().filter_map(|case| case.first).for_each(|first| first());
    let world = world::World::new(dhow)?;
    cost::adopt()?;
    for case in cases {
        println!("\n{}: {}", case.name, case.what);
        // One case that cannot be measured does not hide the others.
        let runs = runs.unwrap_or(case.runs);
        let measured = match case.work {
            cases::Work::Compare(prepare) => {
                prepare(&world).and_then(|contenders| measure::compare(contenders, runs))
            }
            cases::Work::Own(measure) => measure(&world, runs),
        };
        if let Err(error) = measured {
            println!("{} was not measured: {error:#}", case.name);
        }
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn main() {
    eprintln!("dhow-bench compares Linux programs; run it on Linux");
}
