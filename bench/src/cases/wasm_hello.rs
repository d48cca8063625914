//! A Wasm hello whose image is in the store and compiled, against the cost of any process at all.

use std::process::Command;

use anyhow::Result;

use super::{Case, Work};
use crate::made::{Image, Tree, guest, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "wasm-hello",
    what: "a Wasm program prints one line; its image is in the store and compiled",
    runs: 200,
    first: None,
    work: Work::Compare(prepare),
};

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let program = guest("hello.wasm");
    let image =
        Image::wasm().layer(Tree::new().file("hello.wasm", 0o644, &program)).entrypoint(&["/hello.wasm"]);
    let store = world.store("hello:1", &image)?;
    let folder = world.folder("wasm-hello")?;
    let file = folder.join("hello.wasm");
    fs_err::write(&file, &program)?;
    let text = file.to_string_lossy().into_owned();
    let mut contenders = vec![
        Contender::new("/bin/true", Command::new("/bin/true")),
        Contender::new("dhow run --rm IMAGE", world.dhow(&store, ["run", "--rm", "hello:1"]))
            .prints("hello")
            .bar(Bar::Times(3.0))
            .bar(Bar::Memory(6_000_000)),
        Contender::new("dhow run --rm FILE", world.dhow(&store, ["run", "--rm", &text])).prints("hello"),
        Contender::new("the same program, native", Command::new(native(&folder)?)).prints("hello"),
    ];
    if let Some(wasmtime) = peers::find("wasmtime") {
        let compiled = folder.join("hello.cwasm");
        tool(Command::new(&wasmtime).arg("compile").arg(&file).arg("-o").arg(&compiled));
        let name = format!("{}, precompiled", peers::version(&wasmtime));
        let mut run = Command::new(wasmtime);
        run.args(["run", "--allow-precompiled"]).arg(compiled);
        contenders.push(Contender::new(&name, run).prints("hello"));
    }
    Ok(contenders)
}

fn native(folder: &std::path::Path) -> Result<std::path::PathBuf> {
    let path = folder.join("hello");
    fs_err::write(&path, crate::made::native("hello"))?;
    tool(Command::new("chmod").arg("755").arg(&path));
    Ok(path)
}
