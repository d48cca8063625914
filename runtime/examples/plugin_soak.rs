//! A host under load: calls from many threads with traps, deadlines, cancellations, failing functions of the host and reloads in
//! between, each answer looked at; then many instances that live at the same time.
//!
//! ```sh
//! cargo run --profile library --package dhow-runtime --features plugins --example plugin_soak            # 1,000,000 calls, 10,000 instances
//! cargo run --package dhow-runtime --features plugins --example plugin_soak 50000 1000
//! ```
//!
//! Not with `--release`, whose panics end the process: some of these functions of the host panic.
//! A test runs a small one. What is wrong ends it with an error.

#![cfg_attr(not(test), expect(clippy::print_stdout, reason = "an example"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use dhow_runtime::plugins::{CallOptions, Cancel, Config, Error, Host, Limits, Plugin, Pool, Source, Val};

/// What goes wrong here is told as a text.
type Outcome<T = ()> = Result<T, String>;

/// Adds, and some number that says which code it is; what else can happen.
fn code(number: u32) -> Source {
    let text = format!(
        r#"(component
        (import "check" (func $check (param "n" u32) (result u32)))
        (core func $check (canon lower (func $check)))
        (core module $m
            (import "h" "check" (func $check (param i32) (result i32)))
            (memory (export "memory") 1)
            (func (export "add") (param i32 i32) (result i32)
                (i32.add (i32.add (local.get 0) (local.get 1)) (i32.const {number})))
            (func (export "ask") (param i32) (result i32) (call $check (local.get 0)))
            (func (export "trap") unreachable)
            (func (export "spin") (loop $again (br $again)))
            (func (export "grow") (drop (memory.grow (i32.const 100)))))
        (core instance $h (export "check" (func $check)))
        (core instance $i (instantiate $m (with "h" (instance $h))))
        (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (func (export "ask") (param "n" u32) (result u32) (canon lift (core func $i "ask")))
        (func (export "trap") (canon lift (core func $i "trap")))
        (func (export "spin") (canon lift (core func $i "spin")))
        (func (export "grow") (canon lift (core func $i "grow"))))"#
    );
    Source::Bytes(text.into_bytes())
}

/// Gives back what it is asked, but fails for multiples of seven and panics for those of eleven.
fn load(host: &Host, pool: Pool) -> Outcome<Plugin> {
    let limits =
        Limits { deadline: Some(Duration::from_secs(20)), memory: Some(1 << 20), ..Limits::default() };
    let plugin = host.plugin(code(0)).pool(pool).limits(limits).function("", "check", |_, args| match args {
        [Val::U32(n)] if n.is_multiple_of(7) => Err("seven".into()),
        #[expect(clippy::panic, reason = "what a function of the host may do")]
        [Val::U32(n)] if n.is_multiple_of(11) => panic!("eleven"),
        other => Ok(other.to_vec()),
    });
    plugin.load().map_err(|error| error.to_string())
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from((self.0 >> 11) % u64::from(end)).unwrap_or(0)
    }
}

/// One call, and whether it ended as it should.
fn one(plugin: &Plugin, random: &mut Random) -> Outcome {
    let wrong = |what: &str, got: &dyn std::fmt::Debug| Err(format!("{what}: {got:?}"));
    let soon =
        |time: u64| CallOptions { deadline: Some(Duration::from_millis(time)), ..CallOptions::default() };
    match random.below(1000) {
        0..850 => {
            let (a, b) = (random.below(1000), random.below(1000));
            match plugin.call("add", &[Val::U32(a), Val::U32(b)]).as_deref() {
                // By the code before a reload, or by the code after it.
                Ok([Val::U32(sum)]) if *sum == a + b || *sum == a + b + 1 => Ok(()),
                got => wrong("add", &got),
            }
        }
        850..950 => {
            let n = random.below(1000);
            let (fails, panics) = (n.is_multiple_of(7), n.is_multiple_of(11));
            match plugin.call("ask", &[Val::U32(n)]) {
                Err(Error::Host(why)) if fails && why == "seven" => Ok(()),
                Err(Error::Panic(why)) if !fails && panics && why == "eleven" => Ok(()),
                Ok(got) if !fails && !panics && got == [Val::U32(n)] => Ok(()),
                got => wrong("ask", &got),
            }
        }
        950..990 => match plugin.call("trap", &[]) {
            Err(Error::Trap { backtrace, .. }) if !backtrace.is_empty() => Ok(()),
            got => wrong("trap", &got),
        },
        990..996 => match plugin.call("grow", &[]) {
            Err(Error::OutOfMemory { .. }) => Ok(()),
            got => wrong("grow", &got),
        },
        996..998 => match plugin.call_with(&soon(2), "spin", &[]) {
            Err(Error::Deadline { .. }) => Ok(()),
            got => wrong("deadline", &got),
        },
        _ => {
            let cancel = Cancel::new();
            let options = CallOptions { cancel: Some(cancel.clone()), ..CallOptions::default() };
            let canceller = thread::spawn(move || {
                thread::sleep(Duration::from_millis(1));
                cancel.cancel();
            });
            let got = plugin.call_with(&options, "spin", &[]);
            canceller.join().map_err(|_| "the canceller panicked")?;
            match got {
                Err(Error::Cancelled) => Ok(()),
                got => wrong("cancel", &got),
            }
        }
    }
}

/// So many calls from eight threads, while plugins are loaded anew. Gives the time it took.
pub fn calls(count: u64) -> Outcome<Duration> {
    const THREADS: u64 = 8;
    let host = Host::new(Config::default()).map_err(|error| error.to_string())?;
    let warm = Pool::Warm { size: 4, calls: 500, idle: Duration::from_secs(1) };
    let plugins: Vec<_> = [Pool::Fresh, warm, Pool::Fresh, warm]
        .into_iter()
        .map(|pool| load(&host, pool))
        .collect::<Outcome<_>>()?;
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let started = Instant::now();
    thread::scope(|scope| {
        let reloader = scope.spawn(|| {
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                number ^= 1;
                for plugin in &plugins {
                    plugin.reload(code(number)).map_err(|error| error.to_string())?;
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        });
        let (plugins, done) = (&plugins, &done);
        let callers: Vec<_> = (0..THREADS)
            .map(|number| {
                scope.spawn(move || {
                    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (number + 1));
                    for _ in 0..count / THREADS {
                        let plugin = random.below(4) as usize;
                        one(&plugins[plugin], &mut random)?;
                        done.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        let ended: Vec<Outcome> = callers
            .into_iter()
            .map(|caller| caller.join().unwrap_or(Err("a caller panicked".to_owned())))
            .collect();
        over.store(true, Ordering::Relaxed);
        reloader.join().unwrap_or(Err("the reloader panicked".to_owned()))?;
        ended.into_iter().collect::<Outcome>()
    })?;
    let counted: u64 = plugins.iter().map(|plugin| plugin.stats().calls).sum();
    if counted != done.load(Ordering::Relaxed) {
        return Err(format!("{counted} calls were counted"));
    }
    Ok(started.elapsed())
}

/// So many instances of a hundred plugins that wait in their pools, each after a call. Gives what one of them costs in memory,
/// as far as this system tells.
pub fn waiting(count: usize) -> Outcome<u64> {
    /// One call within the other, so that each has an instance of its own.
    fn nested(plugin: &Plugin, depth: usize) -> Result<(), Error> {
        plugin.with(&CallOptions::default(), async |store, instance| {
            let add = instance.get_typed_func::<(u32, u32), (u32,)>(&mut *store, "add")?;
            add.call(&mut *store, (1, 2))?;
            if depth > 1 {
                nested(plugin, depth - 1).map_err(wasmtime::Error::from)?;
            }
            Ok(())
        })
    }
    let told = |error: Error| error.to_string();
    let most = u32::try_from(count).map_err(|error| error.to_string())?;
    let host = Host::new(Config { instances: most, ..Config::default() }).map_err(told)?;
    let each = count / 100;
    let pool = Pool::Warm { size: each, calls: u32::MAX, idle: Duration::from_secs(600) };
    let plugins = (0..100).map(|_| load(&host, pool)).collect::<Outcome<Vec<_>>>()?;
    for plugin in &plugins {
        nested(plugin, 1).map_err(told)?;
    }
    let before = resident();
    for plugin in &plugins {
        nested(plugin, each).map_err(told)?;
    }
    let after = resident();
    let warm: u64 = plugins.iter().map(|plugin| plugin.stats().warm).sum();
    if warm != 100 * each as u64 {
        return Err(format!("{warm} instances are warm"));
    }
    Ok(after.saturating_sub(before) / (warm - 100).max(1))
}

/// So many instances of a hundred plugins that live at once, each in the middle of a call. Gives what one of them costs
/// in memory, as far as this system tells.
pub fn instances(count: u32) -> Outcome<u64> {
    let told = |error: Error| error.to_string();
    let config = Config { instances: count, ..Config::default() };
    let host = Host::new(config).map_err(told)?;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let arrived = Arc::new(AtomicU64::new(0));
    let plugins: Vec<_> = (0..100)
        .map(|number| {
            let (gate, arrived) = (Arc::clone(&gate), Arc::clone(&arrived));
            let plugin = host.plugin(code(number)).function_async("", "check", move |args| {
                let (gate, arrived) = (Arc::clone(&gate), Arc::clone(&arrived));
                async move {
                    arrived.fetch_add(1, Ordering::SeqCst);
                    let _passed = gate.acquire().await?;
                    Ok(args)
                }
            });
            plugin.load().map_err(told)
        })
        .collect::<Outcome<_>>()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .map_err(|e| e.to_string())?;
    runtime.block_on(async {
        // What the first ones bring with them is not theirs.
        let call = |number: u32| {
            let plugin = plugins[number as usize % plugins.len()].clone();
            tokio::spawn(async move {
                plugin
                    .call_async(&CallOptions::default(), "ask", &[Val::U32(number)])
                    .await
                    .map(|got| (number, got))
            })
        };
        let here = async |wanted: u32| {
            while arrived.load(Ordering::SeqCst) < u64::from(wanted) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let first = count.min(200);
        let mut calls: Vec<_> = (0..first).map(call).collect();
        here(first).await;
        let before = resident();
        calls.extend((first..count).map(call));
        here(count).await;
        let after = resident();
        gate.add_permits(count as usize);
        for called in calls {
            let (number, got) = called.await.map_err(|error| error.to_string())?.map_err(told)?;
            if got != [Val::U32(number)] {
                return Err(format!("{number} gave {got:?}"));
            }
        }
        Ok(after.saturating_sub(before) / u64::from(count - first).max(1))
    })
}

/// Bytes of this process in memory; 0 where nobody tells.
fn resident() -> u64 {
    let text = fs_err::read_to_string("/proc/self/smaps_rollup").unwrap_or_default();
    let of = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    of("Private_Dirty:").unwrap_or(0) * 1024
}

#[cfg(not(test))]
fn main() -> Outcome {
    let mut given = std::env::args().skip(1).map(|arg| arg.parse::<u64>().map_err(|error| error.to_string()));
    let count = given.next().transpose()?.unwrap_or(1_000_000);
    let live = given.next().transpose()?.unwrap_or(10_000);
    // A panic of a function of the host is part of it.
    std::panic::set_hook(Box::new(|_| ()));
    calls(count / 10)?;
    let before = resident();
    let took = calls(count)?;
    println!(
        "{count} calls in {took:?}; private memory {} kB before, {} kB after",
        before / 1024,
        resident() / 1024
    );
    let live = u32::try_from(live).map_err(|error| error.to_string())?;
    println!("{live} warm instances of 100 plugins: {} bytes each", waiting(live as usize)?);
    println!("{live} in the middle of an async call: {} bytes each, with stack and task", instances(live)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_short_one() {
        super::calls(20_000).unwrap();
    }

    #[test]
    fn many_instances_live_at_once() {
        super::instances(500).unwrap();
        super::waiting(500).unwrap();
    }
}
