//! What a host sees of its plugins.

mod bad_input;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;

/// A component whose core module has `body`, and whose functions are `lifts`.
fn component(imports: &str, body: &str, lifts: &str) -> Source {
    let text = format!(
        r#"(component
            {imports}
            (core module $m
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 1024))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (global.get $next))
                    (global.set $next (i32.add (global.get $next) (local.get 3)))
                    (local.get $at))
                {body})
            (core instance $i (instantiate $m))
            (alias core export $i "memory" (core memory $memory))
            (alias core export $i "realloc" (core func $realloc))
            {lifts})"#
    );
    Source::Bytes(text.into_bytes())
}

/// Counts its calls; adds; fails; traps; loops; grows.
fn sample() -> Source {
    component(
        "",
        r#"(global $calls (mut i32) (i32.const 0))
        (func (export "count") (result i32)
            (global.set $calls (i32.add (global.get $calls) (i32.const 1))) (global.get $calls))
        (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
        (func (export "check") (param i32) (result i32)
            (i32.store8 (i32.const 16) (i32.eqz (local.get 0)))
            (i32.store (i32.const 20) (i32.const 7)) (i32.const 16))
        (func $deep (unreachable))
        (func (export "trap") (call $deep))
        (func (export "loop") (loop $again (br $again)))
        (func (export "grow") (drop (memory.grow (i32.const 1000))))
        (func (export "echo") (param i32 i32) (result i32)
            (i32.store (i32.const 8) (local.get 0)) (i32.store (i32.const 12) (local.get 1)) (i32.const 8))
        (func (export "lie") (result i32)
            (i32.store (i32.const 8) (i32.const 65000)) (i32.store (i32.const 12) (i32.const 10000)) (i32.const 8))
        (func (export "garbage") (result i32)
            (i32.store8 (i32.const 64) (i32.const 0xff))
            (i32.store (i32.const 8) (i32.const 64)) (i32.store (i32.const 12) (i32.const 1)) (i32.const 8))"#,
        r#"(func (export "count") (result u32) (canon lift (core func $i "count")))
        (func (export "add") (param "a" u32) (param "b" u32) (result u32) (canon lift (core func $i "add")))
        (func (export "check") (param "good" bool) (result (result (error u32)))
            (canon lift (core func $i "check") (memory $memory)))
        (func (export "trap") (canon lift (core func $i "trap")))
        (func (export "loop") (canon lift (core func $i "loop")))
        (func (export "grow") (canon lift (core func $i "grow")))
        (func (export "echo") (param "text" string) (result string)
            (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
        (func (export "lie") (result string) (canon lift (core func $i "lie") (memory $memory)))
        (func (export "garbage") (result string) (canon lift (core func $i "garbage") (memory $memory)))"#,
    )
}

fn host() -> Host {
    Host::new(Config { instances: 16, ..Config::default() }).expect("a host")
}

fn text(value: &str) -> Val {
    Val::String(value.to_owned())
}

#[test]
fn calls_by_values_and_by_types() {
    let plugin = host().plugin(sample()).load().expect("loaded");
    assert_eq!(plugin.call("add", &[Val::U32(2), Val::U32(3)]).expect("added"), [Val::U32(5)]);
    assert_eq!(plugin.call("echo", &[text("höre")]).expect("echoed"), [text("höre")]);
    let add = plugin.typed::<(u32, u32), (u32,)>("add").expect("its types");
    assert_eq!(add.call((40, 2)).expect("added"), (42,));
    let echo = plugin.typed::<(&str,), (String,)>("echo").expect("its types");
    assert_eq!(echo.call(("x",)).expect("echoed").0, "x");
    let world = async |store: &mut wasmtime::Store<State>, instance: &component::Instance| {
        let add = instance.get_typed_func::<(u32, u32), (u32,)>(&mut *store, "add")?;
        add.call(&mut *store, (1, 1))
    };
    assert_eq!(plugin.with(&CallOptions::default(), world).expect("as one call"), (2,));
    let add = Function { name: "add".to_owned(), ty: "func(u32, u32) -> u32".to_owned() };
    assert!(plugin.functions().contains(&add));
}

#[test]
fn bytes_stay_in_one_piece() {
    let source = component(
        "",
        r#"(func (export "echo") (param i32 i32) (result i32)
            (i32.store (i32.const 8) (local.get 0)) (i32.store (i32.const 12) (local.get 1)) (i32.const 8))
        (func (export "named") (param i32 i32 i32 i32) (result i32)
            (i32.store8 (i32.const 16) (i32.eqz (local.get 1)))
            (i32.store (i32.const 20) (local.get 2)) (i32.store (i32.const 24) (local.get 3)) (i32.const 16))
        (func (export "first") (param i32 i32 i32) (result i32)
            (i32.store (i32.const 8) (local.get 0)) (i32.store (i32.const 12) (local.get 2)) (i32.const 8))"#,
        r#"(func (export "echo") (param "bytes" (list u8)) (result (list u8))
            (canon lift (core func $i "echo") (memory $memory) (realloc $realloc)))
        (func (export "named") (param "name" string) (param "bytes" (list u8))
            (result (result (list u8) (error string)))
            (canon lift (core func $i "named") (memory $memory) (realloc $realloc)))
        (func (export "first") (param "bytes" (list u8)) (param "count" u32) (result (list u8))
            (canon lift (core func $i "first") (memory $memory) (realloc $realloc)))"#,
    );
    let plugin = host().plugin(source).load().expect("loaded");
    let options = CallOptions::default();
    let call = |name: &str, args: &[Value]| plugin.call_values(&options, name, args);
    let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
    for content in [&b""[..], b"x", &[7; 40_000]] {
        assert_eq!(call("echo", &[bytes(content)]).expect("echoed"), [bytes(content)]);
    }
    // As ordinary values, too.
    let values = Value::Val(Val::List(vec![Val::U8(1), Val::U8(2)]));
    assert_eq!(call("echo", &[values]).expect("echoed"), [bytes(&[1, 2])]);
    assert_eq!(call("echo", &[Value::Val(Val::List(Vec::new()))]).expect("echoed"), [bytes(b"")]);
    assert_eq!(call("named", &["n".into(), bytes(b"yes")]).expect("well"), [bytes(b"yes")]);
    let failed = call("named", &["".into(), bytes(b"why")]);
    assert!(matches!(&failed, Err(Error::Guest(Some(why))) if **why == text("why")), "{failed:?}");
    // Not of the usual shape.
    assert_eq!(call("first", &[bytes(b"abc"), Val::U32(2).into()]).expect("cut"), [bytes(b"ab")]);
    let wrong = call("echo", &["text".into()]);
    assert!(matches!(&wrong, Err(Error::Incompatible { .. })), "{wrong:?}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let waited = runtime.block_on(plugin.call_values_async(&options, "echo", &[bytes(b"later")]));
    assert_eq!(waited.expect("echoed"), [bytes(b"later")]);
}

/// Collects the names of spans and what events say.
#[derive(Default)]
struct Spans(Arc<Mutex<Vec<String>>>, AtomicU64);

impl tracing::Subscriber for Spans {
    fn enabled(&self, about: &tracing::Metadata<'_>) -> bool {
        about.target().starts_with("dhow_runtime")
    }
    fn new_span(&self, span: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        struct Fields(String);
        impl tracing::field::Visit for Fields {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
                self.0.push_str(&format!(" {}={value:?}", field.name()));
            }
        }
        let mut fields = Fields(span.metadata().name().to_owned());
        span.record(&mut fields);
        self.0.lock().expect("seen").push(fields.0);
        tracing::span::Id::from_u64(self.1.fetch_add(1, Ordering::Relaxed) + 1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn calls_are_seen_in_spans() {
    let seen = Spans::default();
    let told = Arc::clone(&seen.0);
    tracing::subscriber::with_default(seen, || {
        let plugin = host().plugin(sample()).name("acme/sample").load().expect("loaded");
        plugin.call("add", &[Val::U32(2), Val::U32(3)]).expect("added");
        plugin.call("trap", &[]).expect_err("a trap");
    });
    let told = told.lock().expect("seen").clone();
    for wanted in [
        "plugin.load plugin=\"acme/sample\"",
        "plugin.call plugin=\"acme/sample\" function=\"add\"",
        "plugin.call plugin=\"acme/sample\" function=\"trap\"",
    ] {
        assert!(told.contains(&wanted.to_owned()), "{wanted}: {told:?}");
    }
}

#[test]
fn what_differs_is_said_in_words() {
    let plugin = host().plugin(sample()).load().expect("loaded");
    let said = |error: Error| error.to_string();
    let few = plugin.call("add", &[Val::U32(2)]).map_err(said);
    assert_eq!(few, Err("add: expected func(u32, u32) -> u32, found (u32)".to_owned()));
    let other = plugin.call("add", &[Val::U32(2), text("3")]);
    assert!(matches!(other, Err(Error::Incompatible { .. })), "{other:?}");
    let none = plugin.call("sub", &[]);
    assert!(
        matches!(&none, Err(Error::NoFunction { has, .. }) if has.contains(&"add".to_owned())),
        "{none:?}"
    );
    let typed = plugin.typed::<(u32,), (u32,)>("add");
    assert!(matches!(&typed, Err(Error::Incompatible { found, .. }) if found == "func(u32, u32) -> u32"));
    let stats = plugin.stats();
    assert_eq!((stats.traps, stats.refused), (2, 1), "what wasmtime refuses was begun");
}

#[test]
fn every_way_to_end_badly_is_told_apart() {
    let limits = Limits {
        deadline: Some(Duration::from_millis(40)),
        memory: Some(1 << 20),
        fuel: None,
        output: Some(1 << 16),
    };
    let host = host();
    let plugin = host.plugin(sample()).limits(limits.clone()).load().expect("loaded");
    let bad = plugin.call("check", &[Val::Bool(false)]);
    assert!(matches!(&bad, Err(Error::Guest(Some(code))) if **code == Val::U32(7)), "{bad:?}");
    assert_eq!(plugin.call("check", &[Val::Bool(true)]).expect("good"), []);
    let trap = plugin.call("trap", &[]);
    assert!(
        matches!(&trap, Err(Error::Trap { message, backtrace })
            if message.contains("unreachable") && backtrace.len() == 2 && backtrace[0].contains("deep")),
        "{trap:?}"
    );
    let started = Instant::now();
    assert!(matches!(plugin.call("loop", &[]), Err(Error::Deadline { .. })));
    assert!(started.elapsed() >= Duration::from_millis(40));
    assert!(matches!(plugin.call("grow", &[]), Err(Error::OutOfMemory { limit: 0x10_0000 })));
    for hostile in ["lie", "garbage"] {
        let ended = plugin.call(hostile, &[]);
        assert!(matches!(ended, Err(Error::Trap { .. })), "{hostile}: {ended:?}");
    }
    let long = plugin.call("echo", &[text(&"x".repeat(50_000))]).expect("fits");
    assert_eq!(long.len(), 1);
    let cancel = Cancel::new();
    let options = CallOptions { cancel: Some(cancel.clone()), ..CallOptions::default() };
    let calling = thread::spawn({
        let plugin = plugin.clone();
        move || plugin.call_with(&options, "loop", &[])
    });
    thread::sleep(Duration::from_millis(20));
    cancel.cancel();
    assert!(matches!(calling.join().expect("ended"), Err(Error::Cancelled)));
    let stats = plugin.stats();
    assert_eq!((stats.errors, stats.traps, stats.deadlines), (1, 3, 1));
    assert_eq!((stats.exhausted, stats.cancelled), (1, 1));
    let fuelled =
        host.plugin(sample()).limits(Limits { fuel: Some(10_000), ..limits }).load().expect("loaded");
    assert!(matches!(fuelled.call("loop", &[]), Err(Error::OutOfFuel { limit: 10_000 })));
    assert_eq!(fuelled.call("add", &[Val::U32(1), Val::U32(1)]).expect("afresh each time"), [Val::U32(2)]);
}

#[test]
fn instances_are_fresh_or_warm_and_never_poisoned() {
    let host = host();
    let fresh = host.plugin(sample()).load().expect("loaded");
    for _ in 0..3 {
        assert_eq!(fresh.call("count", &[]).expect("counted"), [Val::U32(1)]);
    }
    assert_eq!(fresh.stats().instances, 3);
    let pool = Pool::Warm { size: 2, calls: 3, idle: Duration::from_secs(60) };
    let warm = host.plugin(sample()).pool(pool).load().expect("loaded");
    let counts: Vec<_> = (0..4).map(|_| warm.call("count", &[]).expect("counted")).collect();
    assert_eq!(counts, [[Val::U32(1)], [Val::U32(2)], [Val::U32(3)], [Val::U32(1)]], "three calls each");
    assert!(warm.call("trap", &[]).is_err());
    assert_eq!(warm.call("count", &[]).expect("counted"), [Val::U32(1)], "not the one that trapped");
    assert_eq!(warm.stats().warm, 1);
    let short = Pool::Warm { size: 2, calls: 100, idle: Duration::from_millis(1) };
    let idle = host.plugin(sample()).pool(short).load().expect("loaded");
    idle.call("count", &[]).expect("counted");
    thread::sleep(Duration::from_millis(5));
    assert_eq!(idle.call("count", &[]).expect("counted"), [Val::U32(1)], "it had waited too long");
}

#[test]
fn code_is_replaced_and_failures_make_it_rest() {
    let host = host();
    let rest = (Duration::from_secs(30), Duration::from_secs(60));
    let plugin = host.plugin(sample()).rest_after_failure(rest.0, rest.1).load().expect("loaded");
    assert!(plugin.call("trap", &[]).is_err());
    let resting = plugin.call("count", &[]);
    assert!(matches!(resting, Err(Error::Resting { left }) if left <= rest.0), "{resting:?}");
    let other = component(
        "",
        r#"(func (export "count") (result i32) (i32.const 99))"#,
        r#"(func (export "count") (result u32) (canon lift (core func $i "count")))"#,
    );
    assert!(matches!(plugin.reload(Source::Bytes(b"(component".to_vec())), Err(Error::Load(_))));
    plugin.reload(other).expect("replaced");
    assert_eq!(plugin.call("count", &[]).expect("the new code"), [Val::U32(99)]);
    assert_eq!(plugin.stats().reloads, 1);
}

const LOG: &str = r#"(import "acme:host/log" (instance $log (export "write" (func (param "n" u32) (result u32)))))
    (core func $write (canon lower (func $log "write")))
    (core instance $host (export "write" (func $write)))"#;

/// A plugin that calls `acme:host/log` with its argument.
fn caller() -> Source {
    let text = format!(
        r#"(component {LOG}
            (core module $m
                (import "host" "write" (func $write (param i32) (result i32)))
                (func (export "go") (param i32) (result i32) (call $write (local.get 0))))
            (core instance $i (instantiate $m (with "host" (instance $host))))
            (func (export "go") (param "n" u32) (result u32) (canon lift (core func $i "go"))))"#
    );
    Source::Bytes(text.into_bytes())
}

#[derive(Default)]
struct Seen(u32);

#[test]
fn functions_of_the_host_may_fail_and_panic() {
    let host = host();
    let missing = host.plugin(caller()).load();
    assert!(
        matches!(&missing, Err(Error::Incompatible { expected, .. }) if expected.contains("acme:host/log"))
    );
    let plugin = host
        .plugin(caller())
        .function("acme:host/log", "write", |state, args| match args {
            [Val::U32(0)] => Err("not zero".into()),
            [Val::U32(1)] => panic!("never one"),
            [Val::U32(2)] => Ok(vec![]),
            [Val::U32(3)] => Ok(vec![text("3")]),
            [Val::U32(n)] => {
                state.data::<Seen>().0 += n;
                Ok(vec![Val::U32(state.data::<Seen>().0)])
            }
            _ => Err("what?".into()),
        })
        .pool(Pool::Warm { size: 1, calls: 100, idle: Duration::from_secs(60) })
        .load()
        .expect("loaded");
    let call = |n| plugin.call("go", &[Val::U32(n)]);
    assert!(matches!(call(0), Err(Error::Host(why)) if why == "not zero"));
    assert!(matches!(call(1), Err(Error::Panic(why)) if why == "never one"));
    assert!(matches!(call(2), Err(Error::Host(_))));
    assert!(call(3).is_err());
    assert_eq!(call(10).expect("the host's answer"), [Val::U32(10)]);
    assert_eq!(call(10).expect("the same instance's data"), [Val::U32(20)]);
}

#[tokio::test]
async fn async_hosts_are_never_blocked() {
    let host = host();
    let plugin = host
        .plugin(caller())
        .function_async("acme:host/log", "write", |args| async move {
            tokio::time::sleep(Duration::from_millis(match args[..] {
                [Val::U32(n)] => u64::from(n),
                _ => 0,
            }))
            .await;
            Ok(args)
        })
        .limits(Limits { deadline: Some(Duration::from_millis(500)), ..Limits::default() })
        .load()
        .expect("loaded");
    let options = CallOptions::default();
    let ticks = AtomicU64::new(0);
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ticks.fetch_add(1, Ordering::Relaxed);
        }
    };
    let work = async {
        assert_eq!(plugin.call_async(&options, "go", &[Val::U32(30)]).await.expect("waited"), [Val::U32(30)]);
        let late = plugin.call_async(&options, "go", &[Val::U32(60_000)]).await;
        assert!(matches!(late, Err(Error::Deadline { .. })), "{late:?}");
        let looping = host.plugin(sample()).load().expect("loaded");
        let short = CallOptions { deadline: Some(Duration::from_millis(100)), ..CallOptions::default() };
        assert!(matches!(looping.call_async(&short, "loop", &[]).await, Err(Error::Deadline { .. })));
        let cancel = Cancel::new();
        let given_up = CallOptions { cancel: Some(cancel.clone()), ..CallOptions::default() };
        let (ended, ()) = tokio::join!(looping.call_async(&given_up, "loop", &[]), async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            cancel.cancel();
        });
        assert!(matches!(ended, Err(Error::Cancelled)), "{ended:?}");
    };
    tokio::select! {
        () = work => {}
        () = ticking => {}
    }
    assert!(ticks.load(Ordering::Relaxed) > 20, "the thread was free meanwhile");
    // And without a runtime around it.
    let blocking = plugin.clone();
    let answer = thread::spawn(move || blocking.call("go", &[Val::U32(5)])).join().expect("ended");
    assert_eq!(answer.expect("waited"), [Val::U32(5)]);
}

#[test]
fn what_is_not_granted_is_denied_and_named() {
    let random = r#"(component
        (import "wasi:random/random@0.2.0" (instance $random (export "get-random-u64" (func (result u64)))))
        (core func $get (canon lower (func $random "get-random-u64")))
        (core module $m (import "h" "get" (func $get (result i64))) (func (export "go") (result i64) (call $get)))
        (core instance $h (export "get" (func $get)))
        (core instance $i (instantiate $m (with "h" (instance $h))))
        (func (export "go") (result u64) (canon lift (core func $i "go"))))"#;
    let source = || Source::Bytes(random.as_bytes().to_vec());
    let strict = Host::new(Config { ceiling: Some(Grants::none()), instances: 4, ..Config::default() });
    let denied = [
        host().plugin(source()).load(),
        host().plugin(source()).grant(Grants::none().random()).requested(Grants::none()).load(),
        strict.expect("a host").plugin(source()).grant(Grants::none().random()).load(),
    ];
    for plugin in denied {
        let plugin = plugin.expect("it loads all the same");
        let called = plugin.call("go", &[]);
        assert!(
            matches!(&called, Err(Error::Denied { capability }) if capability == "wasi:random/random@0.2.0"),
            "{called:?}"
        );
        assert_eq!(plugin.stats().denied, 1);
    }
    let plugin = host().plugin(source()).grant(Grants::none().random()).load().expect("loaded");
    assert_ne!(plugin.call("go", &[]).expect("a number"), plugin.call("go", &[]).expect("a number"));
}

#[test]
fn a_plugin_remembers_within_its_quota() {
    let source = r#"(component
        (import "dhow:plugin/kv@0.1.0" (instance $kv
            (export "set" (func (param "key" string) (param "value" (list u8)) (result bool)))))
        (core module $memory (memory (export "memory") 1) (data (i32.const 0) "key"))
        (core instance $mem (instantiate $memory))
        (alias core export $mem "memory" (core memory $shared))
        (core func $set (canon lower (func $kv "set") (memory $shared)))
        (core module $m
            (import "h" "set" (func $set (param i32 i32 i32 i32) (result i32)))
            (func (export "go") (param i32) (result i32)
                (call $set (i32.const 0) (i32.const 3) (i32.const 0) (local.get 0))))
        (core instance $h (export "set" (func $set)))
        (core instance $i (instantiate $m (with "h" (instance $h))))
        (func (export "go") (param "size" u32) (result bool) (canon lift (core func $i "go"))))"#;
    let source = || Source::Bytes(source.as_bytes().to_vec());
    let plugin = host().plugin(source()).grant(Grants::none().kv(1000)).load().expect("loaded");
    let set = |size| plugin.call("go", &[Val::U32(size)]).expect("called");
    assert_eq!(set(5), [Val::Bool(true)]);
    assert_eq!(set(2000), [Val::Bool(false)]);
    let kv = plugin.kv().expect("granted");
    assert_eq!(kv.get("key").as_deref(), Some(&b"key\0\0"[..]), "from one fresh instance to the next");
    let without = host().plugin(source()).load().expect("loaded");
    assert!(matches!(without.call("go", &[Val::U32(1)]), Err(Error::Denied { .. })));
    assert!(without.kv().is_none());
}

/// As languages make them: with imports of all of WASI that they hardly use.
#[test]
fn output_and_directories_go_where_the_host_says() {
    let text =
        fs_err::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/guests/component.wat")).expect("source");
    let said = Arc::new(Mutex::new(Vec::new()));
    let sink: Sink = {
        let said = Arc::clone(&said);
        Arc::new(move |bytes| said.lock().expect("one thread").extend_from_slice(bytes))
    };
    let temp = tempfile::tempdir().expect("a folder");
    let scratch = temp.path().join("scratch");
    for folder in ["scratch", "data"] {
        fs_err::create_dir(temp.path().join(folder)).expect("made");
    }
    let host =
        Host::new(Config { scratch: Some(scratch), instances: 4, ..Config::default() }).expect("a host");
    let grants = Grants::none().output(sink).directory(temp.path().join("data"), "/data", Access::Read);
    let plugin = host.plugin(Source::Bytes(text)).grant(grants).load().expect("loaded");
    plugin.call("run", &[]).expect("it ran");
    assert_eq!(String::from_utf8_lossy(&said.lock().expect("done")), "hello from a component\n");
    let gone = Grants::none().directory(temp.path().join("gone"), "/data", Access::Read);
    assert!(matches!(host.plugin(sample()).grant(gone).load(), Err(Error::Load(_))));
}

#[test]
fn many_threads_get_their_own_answers() {
    let host = Host::new(Config { instances: 8, ..Config::default() }).expect("a host");
    let pool = Pool::Warm { size: 4, calls: 50, idle: Duration::from_secs(1) };
    let limits = Limits { deadline: Some(Duration::from_secs(20)), ..Limits::default() };
    let plugin = host.plugin(sample()).pool(pool).limits(limits).load().expect("loaded");
    thread::scope(|scope| {
        for thread in 0..4u32 {
            let plugin = &plugin;
            scope.spawn(move || {
                let add = plugin.typed::<(u32, u32), (u32,)>("add").expect("its types");
                for n in 0..500 {
                    assert_eq!(add.call((thread, n)).expect("added"), (thread + n,));
                    if n % 50 == 0 {
                        assert!(matches!(plugin.call("trap", &[]), Err(Error::Trap { .. })));
                    }
                    if n % 125 == thread {
                        plugin.reload(sample()).expect("replaced");
                    }
                }
            });
        }
    });
    let stats = plugin.stats();
    assert_eq!((stats.calls, stats.traps), (4 * 500 + 4 * 10 + 4, 40));
    assert_eq!(stats.reloads, 16);
}
