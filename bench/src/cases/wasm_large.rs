//! How long it takes until a large guest's first instruction: JavaScript (12 MB) and Python (18 MB), whose engines are
//! in the module. With `--fuel 1` a program is ended as soon as it has begun, so that the whole process is what it takes
//! to begin; what the languages' engines do before the program's first line is not Dhow's, and shown beside it.

use std::time::Duration;

use anyhow::Result;

use super::{Case, Work};
use crate::made::{Image, Tree, guest};
use crate::measure::{Bar, Contender};
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "wasm-large",
    what: "JavaScript and Python components to their first instruction; images in the store, compiled",
    runs: 30,
    first: Some(|| ["js.wasm", "python.wasm"].into_iter().for_each(|name| drop(guest(name)))),
    work: Work::Compare(prepare),
};

/// How a program ends that has used its fuel up.
const OUT_OF_FUEL: i32 = 152;

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let most = Duration::from_millis(15);
    let mut contenders = Vec::new();
    // What both do without arguments is to complain.
    for (language, code) in [("js", 1), ("python", 1)] {
        let program = guest(&format!("{language}.wasm"));
        let image =
            Image::wasm().layer(Tree::new().file("app.wasm", 0o644, program)).entrypoint(&["/app.wasm"]);
        let name = format!("{language}:1");
        let store = world.store(&name, &image)?;
        let begin = world.dhow(&store, ["run", "--rm", "--fuel", "1", &name]);
        let begin = Contender::new(&format!("{language}, first instruction"), begin);
        contenders.push(begin.ends_with(OUT_OF_FUEL).bar(Bar::AtMost(most)));
        let whole = world.dhow(&store, ["run", "--rm", &name]);
        contenders.push(Contender::new(&format!("{language}, to its own message"), whole).ends_with(code));
    }
    Ok(contenders)
}
