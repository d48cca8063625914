//! Code and values that mean harm: each a typed error, and the host goes on.

use super::*;

/// A component of one core module, whose functions are lifted by `lifts`; `imports` come first, and `with` is what the module gets.
fn module(imports: &str, with: &str, body: &str, lifts: &str) -> Source {
    let text = format!(
        r#"(component {imports}
            (core module $m {body})
            (core instance $i (instantiate $m {with}))
            (alias core export $i "memory" (core memory $memory))
            (alias core export $i "realloc" (core func $realloc))
            {lifts})"#
    );
    Source::Bytes(text.into_bytes())
}

#[test]
fn what_is_no_component_does_not_load() {
    let host = host();
    let Source::Bytes(text) = sample() else { unreachable!() };
    let good = wat::parse_bytes(&text).expect("a component").into_owned();
    let mut bad: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\0asm".to_vec(),
        b"\0asm\x01\0\0\0".to_vec(),
        b"\0asm\x0d\0\x01\0\xff".to_vec(),
        b"(component (import".to_vec(),
        b"(component (core module $m (func (export \"f\") (result i32))))".to_vec(),
        vec![0xff; 4096],
    ];
    for bytes in bad.drain(..) {
        let loaded = host.plugin(Source::Bytes(bytes.clone())).load();
        assert!(matches!(loaded, Err(Error::Load(_))), "{} bytes: {loaded:?}", bytes.len());
    }
    // Cut anywhere, and with a byte that is another one. Some of these are components still.
    for end in (8..good.len()).step_by(37) {
        let loaded = host.plugin(Source::Bytes(good[..end].to_vec())).load();
        assert!(matches!(loaded, Ok(_) | Err(Error::Load(_))), "{end} bytes: {loaded:?}");
    }
    for at in (8..good.len()).step_by(53) {
        let mut bytes = good.clone();
        bytes[at] ^= 0x55;
        if let Ok(plugin) = host.plugin(Source::Bytes(bytes)).load() {
            plugin.call_with(&soon(50), "count", &[]).ok();
        }
    }
    assert!(matches!(host.plugin(Source::File("/nowhere.wasm".into())).load(), Err(Error::Load(_))));
}

fn soon(milliseconds: u64) -> CallOptions {
    CallOptions { deadline: Some(Duration::from_millis(milliseconds)), ..CallOptions::default() }
}

#[test]
fn components_of_another_world_are_told_what_is_expected() {
    let host = host();
    // A function of the host with Rust's types, which are others.
    let typed = host.plugin(caller()).link(|linker| {
        let mut interface = linker.instance("acme:host/log")?;
        interface.func_wrap("write", |_, (text,): (String,)| Ok((text,)))
    });
    let loaded = typed.load();
    assert!(matches!(&loaded, Err(Error::Incompatible { .. })), "{loaded:?}");
    let none = host.plugin(caller()).load();
    assert!(matches!(&none, Err(Error::Incompatible { expected, .. }) if expected.contains("acme:host/log")));
    let plugin = host.plugin(sample()).load().expect("loaded");
    assert!(matches!(plugin.call("handle", &[]), Err(Error::NoFunction { .. })));
    assert!(matches!(plugin.typed::<(String,), (u64,)>("add"), Err(Error::Incompatible { .. })));
}

#[test]
fn guests_that_exhaust_something_end_alone() {
    let body = r#"(memory (export "memory") 1) (table $t 1 funcref)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func $deep (export "recurse") (param i32) (result i32) (i32.add (call $deep (local.get 0)) (i32.const 1)))
        (func (export "table") (result i32) (table.grow $t (ref.null func) (i32.const 90000)))
        (func (export "huge") (result i32) (table.grow $t (ref.null func) (i32.const 200000)))
        (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
        (func (export "add") (param i32) (result i32) (i32.add (local.get 0) (i32.const 1)))"#;
    let lift = |name: &str| {
        format!(
            r#"(func (export "{name}") (param "n" u32) (result u32) (canon lift (core func $i "{name}")))"#
        )
    };
    let bare =
        |name: &str| format!(r#"(func (export "{name}") (result u32) (canon lift (core func $i "{name}")))"#);
    let lifts = [lift("recurse"), bare("table"), bare("huge"), lift("grow"), lift("add")].concat();
    let source = || module("", "", body, &lifts);
    let host = host();
    let limits = Limits { memory: Some(256 << 10), ..Limits::default() };
    let pool = Pool::Warm { size: 1, calls: 100, idle: Duration::from_secs(60) };
    let plugin = host.plugin(source()).limits(limits).pool(pool).load().expect("loaded");
    let number = |n| [Val::U32(n)];
    for _ in 0..3 {
        let deep = plugin.call("recurse", &number(1));
        assert!(
            matches!(&deep, Err(Error::Trap { message, backtrace })
                if message.contains("stack") && (10..=64).contains(&backtrace.len())),
            "{deep:?}"
        );
        assert!(matches!(plugin.call("table", &[]), Err(Error::OutOfMemory { limit: 0x4_0000 })));
        assert!(matches!(plugin.call("grow", &number(100)), Err(Error::OutOfMemory { .. })));
        assert_eq!(plugin.call("add", &number(1)).expect("and the next one is served"), number(2));
    }
    // Without a limit of its own there is the pool's: growing fails, and nothing else.
    let free = host.plugin(source()).load().expect("loaded");
    assert_eq!(free.call("huge", &[]).expect("refused"), number(u32::MAX));
    assert_eq!(free.call("table", &[]).expect("grown"), number(1));
    // As many instances as there can be, the same plugin within itself.
    let small = Host::new(Config { instances: 2, ..Config::default() }).expect("a host");
    let plugin = small.plugin(source()).load().expect("loaded");
    let busy = plugin.with(&CallOptions::default(), async |_, _| {
        plugin
            .with(&CallOptions::default(), async |_, _| {
                Ok(matches!(plugin.call("add", &number(1)), Err(Error::Busy(_))))
            })
            .map_err(wasmtime::Error::from)
    });
    assert!(busy.expect("called"), "a third one has no room");
    assert_eq!(plugin.call("add", &number(1)).expect("room again"), number(2));
}

#[test]
fn guests_that_lie_about_their_memory_trap() {
    let body = r#"(memory (export "memory") 1) (global $mode (mut i32) (i32.const 0))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (if (i32.eq (global.get $mode) (i32.const 0)) (then unreachable))
            (if (i32.eq (global.get $mode) (i32.const 1)) (then (return (i32.const 0xfffffff0))))
            (if (i32.eq (global.get $mode) (i32.const 2)) (then (loop $again (br $again))))
            (i32.const 1024))
        (func (export "set") (param i32) (global.set $mode (local.get 0)))
        (func (export "take") (param i32 i32))
        (func (export "give") (param i32) (result i32)
            (i32.store (i32.const 8) (i32.const 0x10000))
            (i32.store (i32.const 12) (local.get 0))
            (i32.const 8))
        (func (export "odd") (param i32) (result i32) (i32.store (i32.const 8) (local.get 0)) (i32.const 8))
        (func (export "char") (param i32) (result i32) (local.get 0))
        (func (export "place") (param i32) (result i32) (local.get 0))"#;
    let lifts = r#"(func (export "set") (param "mode" u32) (canon lift (core func $i "set")))
        (func (export "take") (param "text" string)
            (canon lift (core func $i "take") (memory $memory) (realloc $realloc)))
        (func (export "give") (param "length" u32) (result (list u64)) (canon lift (core func $i "give") (memory $memory)))
        (func (export "odd") (param "case" u32) (result (option u32)) (canon lift (core func $i "odd") (memory $memory)))
        (func (export "char") (param "code" u32) (result char) (canon lift (core func $i "char")))
        (func (export "place") (param "at" u32) (result (list string)) (canon lift (core func $i "place") (memory $memory)))"#;
    let pool = Pool::Warm { size: 1, calls: 100, idle: Duration::from_secs(60) };
    let plugin = host().plugin(module("", "", body, lifts)).pool(pool).load().expect("loaded");
    let set = |mode| plugin.call("set", &[Val::U32(mode)]).expect("set");
    // In allocation: it traps, it gives a place that is none, it loops.
    set(0);
    assert!(
        matches!(plugin.call("take", &[text("hello")]), Err(Error::Trap { backtrace, .. }) if !backtrace.is_empty())
    );
    set(1);
    assert!(matches!(plugin.call("take", &[text("hello")]), Err(Error::Trap { .. })));
    set(2);
    let looped = plugin.call_with(&soon(50), "take", &[text("hello")]);
    assert!(matches!(looped, Err(Error::Deadline { .. })), "{looped:?}");
    set(3);
    assert_eq!(plugin.call("take", &[text("hello")]).expect("taken"), []);
    for (name, values) in [
        ("give", &[1, 0x1000_0000, u32::MAX][..]),
        ("odd", &[2, u32::MAX]),
        ("char", &[0xd800, 0x11_0000, u32::MAX]),
        ("place", &[1, 0xffff, u32::MAX]),
    ] {
        for value in values {
            let lied = plugin.call(name, &[Val::U32(*value)]);
            assert!(matches!(lied, Err(Error::Trap { .. })), "{name} {value:#x}: {lied:?}");
        }
    }
    assert_eq!(plugin.call("char", &[Val::U32(0x20ac)]).expect("a letter"), [Val::Char('€')]);
}

#[test]
fn code_that_traps_when_it_is_made_is_no_poison() {
    let source = module(
        "",
        "",
        r#"(memory (export "memory") 1) (func $start unreachable) (start $start)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)) (func (export "go"))"#,
        r#"(func (export "go") (canon lift (core func $i "go")))"#,
    );
    let plugin = host().plugin(source).load().expect("loaded: nothing of it has run");
    for _ in 0..3 {
        assert!(matches!(plugin.call("go", &[]), Err(Error::Trap { .. })));
    }
    plugin.reload(sample()).expect("replaced");
    assert_eq!(plugin.call("count", &[]).expect("the new code"), [Val::U32(1)]);
}

/// Asks the host by `ask`, and once more while the host lowers its answer.
fn asker() -> Source {
    let imports = r#"(import "ask" (func $ask (param "n" u32) (result string)))
        (core module $lib
            (memory (export "memory") 1)
            (table (export "table") 1 funcref)
            (global $again (mut i32) (i32.const 0))
            (type $ask (func (param i32 i32)))
            (func (export "again") (param i32) (global.set $again (local.get 0)))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (if (global.get $again) (then (call_indirect (type $ask) (i32.const 5) (i32.const 64) (i32.const 0))))
                (i32.const 1024)))
        (core instance $l (instantiate $lib))
        (alias core export $l "memory" (core memory $shared))
        (alias core export $l "realloc" (core func $grow))
        (core func $lowered (canon lower (func $ask) (memory $shared) (realloc $grow)))
        (core instance $h (export "ask" (func $lowered)))
        (alias core export $l "table" (core table $table))
        (alias core export $l "again" (core func $again))
        (core instance $lib2 (export "table" (table $table)) (export "memory" (memory $shared))
            (export "realloc" (func $grow)) (export "again" (func $again)))"#;
    module(
        imports,
        r#"(with "h" (instance $h)) (with "l" (instance $lib2))"#,
        r#"(import "h" "ask" (func $ask (param i32 i32)))
        (import "l" "memory" (memory 1)) (import "l" "table" (table 1 funcref))
        (import "l" "realloc" (func $realloc (param i32 i32 i32 i32) (result i32)))
        (import "l" "again" (func $again (param i32)))
        (export "memory" (memory 0)) (export "realloc" (func $realloc))
        (elem (i32.const 0) $ask)
        (func (export "go") (param i32 i32) (result i32)
            (call $again (local.get 1)) (call $ask (local.get 0) (i32.const 32)) (i32.load (i32.const 36)))"#,
        r#"(func (export "go") (param "n" u32) (param "again" bool) (result u32) (canon lift (core func $i "go")))"#,
    )
}

#[test]
fn functions_of_the_host_are_called_within_each_other() {
    let host = host();
    let itself: Arc<Mutex<Option<Plugin>>> = Arc::default();
    let other = Arc::clone(&itself);
    let limits = Limits { deadline: Some(Duration::from_secs(20)), ..Limits::default() };
    let plugin = host.plugin(asker()).limits(limits).function("", "ask", move |_, args| {
        let [Val::U32(n)] = *args else { return Err("no number".into()) };
        if n == 0 {
            return Ok(vec![text("")]);
        }
        // The plugin that calls is called, with an instance of its own.
        let plugin = other.lock().map_err(|_| "poisoned")?.clone().ok_or("none")?;
        let inner = plugin.call("go", &[Val::U32(n - 1), Val::Bool(false)])?;
        let [Val::U32(length)] = inner[..] else { return Err("no length".into()) };
        Ok(vec![text(&"x".repeat(length as usize + 1))])
    });
    let plugin = plugin.load().expect("loaded");
    *itself.lock().expect("set") = Some(plugin.clone());
    let go = |n, again| plugin.call("go", &[Val::U32(n), Val::Bool(again)]);
    assert_eq!(go(5, false).expect("five deep"), [Val::U32(5)]);
    // Out of its own allocation no component may call.
    let within = go(1, true);
    assert!(matches!(within, Err(Error::Trap { .. })), "{within:?}");
    // More within each other than there can be instances.
    let deep = go(50, false);
    assert!(
        matches!(&deep, Err(Error::Host(why)) if why.contains("a function of the host failed")),
        "{deep:?}"
    );
    assert_eq!(go(3, false).expect("all are back"), [Val::U32(3)]);
    *itself.lock().expect("set") = None;
}

#[test]
fn what_waits_in_the_host_counts_and_panics_stay_inside() {
    let host = host();
    let limits = Limits { deadline: Some(Duration::from_millis(20)), ..Limits::default() };
    let slow = host.plugin(caller()).limits(limits).function("acme:host/log", "write", |_, args| {
        thread::sleep(Duration::from_millis(60));
        Ok(args.to_vec())
    });
    let slow = slow.load().expect("loaded");
    assert!(matches!(slow.call("go", &[Val::U32(1)]), Err(Error::Deadline { .. })));
    let waits = host.plugin(caller()).function_async("acme:host/log", "write", |args| async move {
        match args[..] {
            [Val::U32(0)] => panic!("not zero"),
            [Val::U32(1)] => Err("not one".into()),
            [Val::U32(2)] => Ok(vec![text("2")]),
            _ => Ok(args),
        }
    });
    let waits = waits.load().expect("loaded");
    assert!(matches!(waits.call("go", &[Val::U32(0)]), Err(Error::Panic(why)) if why == "not zero"));
    assert!(matches!(waits.call("go", &[Val::U32(1)]), Err(Error::Host(why)) if why == "not one"));
    assert!(waits.call("go", &[Val::U32(2)]).is_err());
    assert_eq!(waits.call("go", &[Val::U32(3)]).expect("answered"), [Val::U32(3)]);
    let json = host.plugin(caller()).function_json_async("acme:host/log", "write", |args| async move {
        tokio::time::sleep(Duration::from_millis(1)).await;
        match args.as_str() {
            "[1]" => Ok("7".to_owned()),
            "[2]" => Ok("seven".to_owned()),
            _ => Err("no".into()),
        }
    });
    let json = json.load().expect("loaded");
    assert_eq!(json.call("go", &[Val::U32(1)]).expect("answered"), [Val::U32(7)]);
    for n in [2, 3] {
        assert!(matches!(json.call("go", &[Val::U32(n)]), Err(Error::Host(_))));
    }
}

#[test]
fn one_call_may_have_limits_of_its_own() {
    let host = host();
    let pool = Pool::Warm { size: 1, calls: 100, idle: Duration::from_secs(60) };
    let limits = Limits { fuel: Some(1_000_000), output: Some(1000), ..Limits::default() };
    let plugin = host.plugin(sample()).pool(pool).limits(limits).load().expect("loaded");
    let usual = CallOptions::default();
    let echo = |options: &CallOptions, length: usize| {
        plugin.call_with(options, "echo", &[text(&"x".repeat(length))])
    };
    echo(&usual, 900).expect("fits");
    assert!(matches!(echo(&usual, 1100), Err(Error::Trap { .. })), "more than it may hand over");
    let more = CallOptions { output: Some(5000), ..CallOptions::default() };
    echo(&more, 4000).expect("fits");
    assert!(echo(&usual, 4000).is_err(), "only that one");
    let little = CallOptions { fuel: Some(1), ..CallOptions::default() };
    assert!(matches!(plugin.call_with(&little, "count", &[]), Err(Error::OutOfFuel { limit: 1 })));
    plugin.call("count", &[]).expect("enough again");
    let small = CallOptions { memory: Some(1 << 20), ..CallOptions::default() };
    let grown = plugin.call_with(&small, "grow", &[]);
    assert!(matches!(grown, Err(Error::OutOfMemory { limit: 0x10_0000 })), "{grown:?}");
    let stats = plugin.stats();
    assert_eq!((stats.memory, stats.largest), (0, 64 << 10), "none is left, and they had a page");
    plugin.call("grow", &[]).expect("as much as it wants");
    let stats = plugin.stats();
    assert_eq!((stats.memory, stats.largest), (1001 << 16, 1001 << 16));
    // The one that waits is too large for this.
    assert_eq!(plugin.call_with(&small, "count", &[]).expect("another one"), [Val::U32(1)]);
    assert_eq!(plugin.stats().memory, 64 << 10);
    let uncounted = host.plugin(sample()).load().expect("loaded");
    assert!(matches!(uncounted.call_with(&little, "count", &[]), Err(Error::Incompatible { .. })));
}

#[test]
fn what_code_wants_is_told_before_it_is_loaded() {
    let text = format!(
        r#"(component {LOG}
        (import "wasi:random/random@0.2.0" (instance (export "get-random-u64" (func (result u64)))))
        (import "wasi:clocks/wall-clock@0.2.0" (instance))
        (import "wasi:cli/environment@0.2.0" (instance))
        (import "dhow:plugin/kv@0.1.0" (instance))
        (core module $m (func (export "go")))
        (core instance $i (instantiate $m))
        (func (export "go") (canon lift (core func $i "go"))))"#
    );
    let plugin = host().plugin(Source::Bytes(text.into_bytes()));
    let asked = Grants::none().random().kv(10);
    let found = plugin.grant(Grants::none().random().clocks().kv(5)).requested(asked).inspect();
    let Inspection { functions, imports } = found.expect("readable");
    assert_eq!(functions, [Function { name: "go".to_owned(), ty: "func()".to_owned() }]);
    let imports: Vec<_> = imports.iter().map(|import| (import.name.as_str(), import.provider)).collect();
    let wanted = [
        ("acme:host/log", Provider::Host),
        ("wasi:random/random@0.2.0", Provider::Granted),
        ("wasi:clocks/wall-clock@0.2.0", Provider::Denied),
        ("wasi:cli/environment@0.2.0", Provider::Always),
        ("dhow:plugin/kv@0.1.0", Provider::Granted),
    ];
    assert_eq!(imports, wanted);
}
