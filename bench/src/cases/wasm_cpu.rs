//! A Wasm program that only computes, without limits: nobody but the compiler decides how long it takes.

use std::process::Command;

use anyhow::Result;

use super::{Case, Work};
use crate::made::tool;
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "wasm-cpu",
    what: "a Wasm program computes for a third of a second: calls, then loads and stores; compiled",
    runs: 10,
    first: None,
    work: Work::Compare(prepare),
};

const PROGRAM: &str = r#"(module
  (memory (export "memory") 16)
  (func $fib (param i32) (result i32)
    (if (result i32) (i32.lt_u (local.get 0) (i32.const 2))
      (then (local.get 0))
      (else (i32.add (call $fib (i32.sub (local.get 0) (i32.const 1)))
                     (call $fib (i32.sub (local.get 0) (i32.const 2)))))))
  (func (export "_start") (local i32 i32)
    (drop (call $fib (i32.const 37)))
    (loop $l
      (i32.store (i32.and (local.get 0) (i32.const 0xffffc))
        (i32.add (local.get 1) (i32.load (i32.and (i32.mul (local.get 0) (i32.const 7)) (i32.const 0xffffc)))))
      (local.set 1 (i32.add (local.get 1) (i32.const 3)))
      (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 4))) (i32.const 800000000))))))
"#;

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let folder = world.folder("wasm-cpu")?;
    let file = folder.join("cpu.wat");
    fs_err::write(&file, PROGRAM)?;
    let text = file.to_string_lossy().into_owned();
    let store = world.folder("store-cpu")?;
    let mut contenders = vec![
        Contender::new("dhow run --rm FILE", world.dhow(&store, ["run", "--rm", &text])),
        Contender::new("with --fuel", world.dhow(&store, ["run", "--rm", "--fuel", "100000000000", &text])),
        Contender::new("with --timeout", world.dhow(&store, ["run", "--rm", "--timeout", "1h", &text])),
    ];
    if let Some(wasmtime) = peers::find("wasmtime") {
        let compiled = folder.join("cpu.cwasm");
        tool(Command::new(&wasmtime).arg("compile").arg(&file).arg("-o").arg(&compiled));
        let name = format!("{}, precompiled", peers::version(&wasmtime));
        let mut run = Command::new(wasmtime);
        run.args(["run", "--allow-precompiled"]).arg(compiled);
        contenders.push(Contender::new(&name, run).bar(Bar::Share(1.03)));
    }
    Ok(contenders)
}
