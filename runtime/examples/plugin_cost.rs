//! What a plugin costs over wasmtime itself: the same component, the same settings, in turns, in this process.
//!
//! ```sh
//! cargo run --release --package dhow-runtime --features plugins --example plugin_cost
//! ```
//!
//! Each figure is the best and the middle one of many turns of a thousand; the ratio is of the best ones. With the path of
//! `libextism` as its argument Extism takes part, which `bench/plugins` arranges.

#![expect(clippy::print_stdout, reason = "an example")]

#[cfg(not(target_feature = "crt-static"))]
#[path = "plugin_cost/extism.rs"]
mod extism;

use std::hint::black_box;
use std::time::{Duration, Instant};

use dhow_runtime::plugins::component::{self, Component, Linker};
use dhow_runtime::plugins::{CallOptions, Config, Host, Limits, Plugin, Pool, Source, Val, Value};
use wasmtime::{Engine, PoolingAllocationConfig, Store};

const TEXT: &str = r#"(component
    (core module $m
        (memory (export "memory") 4)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 4096))
        (func (export "nothing"))
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "echo") (param i32 i32) (result i32)
            (i32.store (i32.const 8) (local.get 0)) (i32.store (i32.const 12) (local.get 1)) (i32.const 8)))
    (core instance $i (instantiate $m))
    (alias core export $i "memory" (core memory $memory))
    (alias core export $i "realloc" (core func $realloc))
    (func (export "nothing") (canon lift (core func $i "nothing")))
    (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
    (func (export "text") (param "text" string) (result string)
        (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
    (func (export "echo") (param "bytes" (list u8)) (result (list u8))
        (canon lift (core func $i "echo") (memory $memory) (realloc $realloc))))"#;

const TURNS: usize = 60;
const CALLS: u32 = 1000;

/// What it is, and how many calls one turn of it makes.
type Step<'a> = (&'a str, u32, Box<dyn FnMut() + 'a>);

/// Runs all in turns and prints them, each with its share of the first.
fn compare(what: &str, mut steps: Vec<Step<'_>>) {
    let mut taken = vec![Vec::new(); steps.len()];
    for _ in 0..TURNS {
        for (number, (_, calls, step)) in steps.iter_mut().enumerate() {
            let started = Instant::now();
            for _ in 0..CALLS / *calls {
                step();
            }
            taken[number].push(started.elapsed() / CALLS);
        }
    }
    println!("{what}");
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mut first = None;
    for ((name, ..), mut times) in steps.iter().zip(taken) {
        times.sort();
        let (best, middle) = (micros(times[0]), micros(times[TURNS / 2]));
        let base = *first.get_or_insert(best);
        println!("  {name:<44} {best:>9.3} us {middle:>9.3} us   {:>5.2}", best / base);
    }
}

/// Extism, if it was asked for: one that makes an instance and calls it once, and one that echoes by an instance it keeps.
struct Peer {
    create: Box<dyn Fn()>,
    echo: Echo,
}

type Echo = Box<dyn Fn(&[u8])>;

#[cfg(target_feature = "crt-static")]
fn peer() -> Result<Option<Peer>, Box<dyn std::error::Error>> {
    match std::env::args().nth(1) {
        None => Ok(None),
        Some(library) => {
            Err(format!("{library}: a static program opens no library: use bench/plugins").into())
        }
    }
}

#[cfg(not(target_feature = "crt-static"))]
fn peer() -> Result<Option<Peer>, Box<dyn std::error::Error>> {
    let Some(library) = std::env::args().nth(1) else { return Ok(None) };
    let library: &extism::Extism = Box::leak(Box::new(extism::Extism::open(&library)?));
    println!("extism {}", library.version());
    let kept = std::cell::RefCell::new(library.instance());
    Ok(Some(Peer {
        create: Box::new(|| drop(black_box(library.instance().call(c"nothing", &[])))),
        echo: Box::new(move |bytes| drop(black_box(kept.borrow_mut().call(c"echo", bytes)))),
    }))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let source = || Source::Bytes(TEXT.as_bytes().to_vec());
    let host = Host::new(Config::default())?;
    let deadline = || Limits { deadline: Some(Duration::from_secs(5)), ..Limits::default() };
    let warm = Pool::Warm { size: 4, calls: u32::MAX, idle: Duration::from_secs(60) };
    let load = |pool, limits| host.plugin(source()).pool(pool).limits(limits).load();
    let (fresh, pooled, watched) =
        (load(Pool::Fresh, Limits::default())?, load(warm, Limits::default())?, load(warm, deadline())?);

    let mut config = wasmtime::Config::new();
    config.epoch_interruption(true);
    config.allocation_strategy(PoolingAllocationConfig::new());
    let engine = Engine::new(&config)?;
    let component = Component::new(&engine, TEXT)?;
    let pre = Linker::<()>::new(&engine).instantiate_pre(&component)?;
    let new = || {
        let mut store = Store::new(&engine, ());
        store.set_epoch_deadline(1_000_000);
        let instance = pre.instantiate(&mut store);
        instance.map(|instance| (store, instance))
    };

    let peer = peer()?;
    let mut steps: Vec<Step<'_>> = vec![
        (
            "wasmtime, pooled",
            1,
            Box::new(|| {
                let Ok((mut store, instance)) = new() else { return };
                let called = instance.get_typed_func::<(), ()>(&mut store, "nothing");
                called.and_then(|called| called.call(&mut store, ())).ok();
            }),
        ),
        (
            "plugin, fresh",
            1,
            Box::new({
                let call = fresh.typed::<(), ()>("nothing")?;
                move || drop(black_box(call.call(())))
            }),
        ),
    ];
    if let Some(peer) = &peer {
        steps.push(("extism", 1, Box::new(&peer.create)));
    }
    compare("an instance, one call without arguments, its end", steps);
    for size in [0usize, 1 << 10, 64 << 10] {
        let bytes = vec![7u8; size];
        let (mut store, instance) = new()?;
        let raw = instance.get_typed_func::<(&[u8],), (Vec<u8>,)>(&mut store, "echo")?;
        let typed = |plugin: &Plugin| plugin.typed::<(&[u8],), (Vec<u8>,)>("echo");
        let (calm, timed) = (typed(&pooled)?, typed(&watched)?);
        let values = [Val::List(bytes.iter().map(|byte| Val::U8(*byte)).collect())];
        let mut steps: Vec<Step<'_>> = vec![
            (
                "wasmtime, typed, the same instance",
                1,
                Box::new(|| drop(black_box(raw.call(&mut store, (&bytes,))))),
            ),
            (
                "plugin, typed, a thousand in one `with`",
                CALLS,
                Box::new({
                    let (calm, bytes) = (pooled.clone(), &bytes);
                    move || {
                        calm.with(&CallOptions::default(), async |store, instance| {
                            let echo =
                                instance.get_typed_func::<(&[u8],), (Vec<u8>,)>(&mut *store, "echo")?;
                            for _ in 0..CALLS {
                                drop(black_box(echo.call(&mut *store, (bytes,))?));
                            }
                            Ok(())
                        })
                        .ok();
                    }
                }),
            ),
            ("plugin, typed, warm", 1, Box::new(|| drop(black_box(calm.call((&bytes,)))))),
            ("plugin, typed, warm, deadline", 1, Box::new(|| drop(black_box(timed.call((&bytes,)))))),
            (
                "plugin, values with bytes in one piece, warm",
                1,
                Box::new({
                    let (plugin, args) = (pooled.clone(), [Value::Bytes(bytes.clone())]);
                    let options = CallOptions::default();
                    move || drop(black_box(plugin.call_values(&options, "echo", &args)))
                }),
            ),
        ];
        // A value of 32 bytes for each byte: a turn with 64 KiB would take a second and more.
        if size <= 1 << 10 {
            steps.push((
                "plugin, values, warm",
                1,
                Box::new(|| drop(black_box(pooled.call("echo", &values)))),
            ));
        }
        if let Some(peer) = &peer {
            steps.push(("extism", 1, Box::new(|| (peer.echo)(&bytes))));
        }
        compare(&format!("a list of {size} bytes there and back"), steps);
    }
    dynamic(&pooled, new()?)
}

/// Calls by values beside calls by Rust's types, each by wasmtime and by a plugin.
fn dynamic(
    plugin: &Plugin,
    (mut store, instance): (Store<()>, component::Instance),
) -> Result<(), Box<dyn std::error::Error>> {
    let text = "x".repeat(1 << 10);
    let add = instance.get_typed_func::<(u32, u32), (u32,)>(&mut store, "add")?;
    let add_values = instance.get_func(&mut store, "add").ok_or("no add")?;
    let echo = instance.get_typed_func::<(&str,), (String,)>(&mut store, "text")?;
    let echo_values = instance.get_func(&mut store, "text").ok_or("no text")?;
    let store = std::cell::RefCell::new(store);
    let by_values = |func: component::Func, args: &[Val]| {
        let mut results = [Val::Bool(false)];
        func.call(&mut *store.borrow_mut(), args, &mut results).ok();
        drop(black_box(results));
    };
    let (numbers, texts) = ([Val::U32(1), Val::U32(2)], [Val::String(text.clone())]);
    let (plugin_add, plugin_echo) =
        (plugin.typed::<(u32, u32), (u32,)>("add")?, plugin.typed::<(&str,), (String,)>("text")?);
    compare(
        "two numbers added",
        vec![
            ("plugin, typed, warm", 1, Box::new(|| drop(black_box(plugin_add.call((1, 2)))))),
            ("plugin, values, warm", 1, Box::new(|| drop(black_box(plugin.call("add", &numbers))))),
            (
                "wasmtime, typed, the same instance",
                1,
                Box::new(|| drop(black_box(add.call(&mut *store.borrow_mut(), (1, 2))))),
            ),
            ("wasmtime, values, the same instance", 1, Box::new(|| by_values(add_values, &numbers))),
        ],
    );
    compare(
        "a text of 1024 bytes there and back",
        vec![
            ("plugin, typed, warm", 1, Box::new(|| drop(black_box(plugin_echo.call((&text,)))))),
            ("plugin, values, warm", 1, Box::new(|| drop(black_box(plugin.call("text", &texts))))),
            (
                "wasmtime, typed, the same instance",
                1,
                Box::new(|| drop(black_box(echo.call(&mut *store.borrow_mut(), (&text,))))),
            ),
            ("wasmtime, values, the same instance", 1, Box::new(|| by_values(echo_values, &texts))),
        ],
    );
    Ok(())
}
