//! What a Wasm guest does with files, in a container, against the same program as a bare process.
//!
//! Whole processes are timed, the container's start and its removal included; so the bare programs remove what they
//! wrote as well. What is worked on comes from the image, so that layers and copy-up are part of it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Case, Work};
use crate::made::{Image, Tree, guest, native, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

const ENTRIES: usize = 5000;

const fn case(name: &'static str, what: &'static str, prepare: fn(&World) -> Result<Vec<Contender>>) -> Case {
    Case { name, what, runs: 20, first: None, work: Work::Compare(prepare) }
}

pub(crate) const LIST: Case =
    case("wasm-list", "a guest lists 5,000 entries of its image", |world| compare(world, "list", "many"));
pub(crate) const WRITE: Case =
    case("wasm-write", "a guest writes 64 MiB", |world| compare(world, "write", "new"));
pub(crate) const READ: Case =
    case("wasm-read", "a guest reads 64 MiB of its image", |world| compare(world, "read", "data"));
pub(crate) const SMALL: Case = case(
    "wasm-small-files",
    "a guest makes, looks at and removes 10,000 files in a directory of its image",
    |world| compare(world, "small", "few"),
);
pub(crate) const COPY_UP: Case =
    case("wasm-copy-up", "a guest adds a byte to a file of 100 MB of its image", |world| {
        compare(world, "append", "big")
    });

fn compare(world: &World, what: &str, on: &str) -> Result<Vec<Contender>> {
    let store = world.folder("store-files-1")?;
    let folder = world.folder("wasm-files")?;
    if !folder.join("native").exists() {
        // Whatever is cheap to squeeze would measure something else.
        let mut state = 1u64;
        let mut noise = |length: usize| -> Vec<u8> {
            let words = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                state.to_le_bytes()
            });
            words.flatten().take(length).collect()
        };
        let mut tree = Tree::new().file("files.wasm", 0o644, guest("c/files.wasm")).dir("few", 0o755);
        tree = tree.file("big", 0o644, noise(100_000_000)).file("data", 0o644, noise(64 << 20));
        for number in 0..ENTRIES {
            tree = tree.file(&format!("many/entry-{number}"), 0o644, b"");
        }
        let image = Image::wasm().layer(tree).entrypoint(&["/files.wasm"]);
        world.store("files:1", &image)?;
        // The same files for the others.
        let root = folder.join("root");
        let Image::Single(single) = &image else { anyhow::bail!("an index has no layers") };
        tar::Archive::new(single.layers[0].as_slice()).unpack(&root)?;
        fs_err::write(folder.join("native"), native("files"))?;
        tool(Command::new("chmod").arg("755").arg(folder.join("native")));
    }
    let root = folder.join("root");
    let path = root.join(on);
    let bar = match what {
        "list" => 5.0,
        "small" => 3.0,
        "append" => 1.2,
        _ => 1.3,
    };
    let run = world.dhow(&store, ["run", "--rm", "files:1", what, &format!("/{on}")]);
    let mut all = vec![Contender::new("dhow run --rm IMAGE", run)];
    match what {
        "list" => {
            let mut ls = Command::new("ls");
            ls.arg("-f").arg(&path);
            all.push(Contender::new("ls -f", ls).bar(Bar::Share(bar)));
            all.push(Contender::new("the same program, native", bare(&folder, what, &path)));
        }
        "append" => {
            // The container's copy is removed with it.
            let mut cp = Command::new("sh");
            let copy = folder.join("copy");
            cp.args(["-c", "cp \"$0\" \"$1\" && rm \"$1\""]).arg(&path).arg(copy);
            all.push(Contender::new("cp, rm", cp).bar(Bar::Share(bar)));
        }
        _ => all.push(
            Contender::new("the same program, native", bare(&folder, what, &path)).bar(Bar::Share(bar)),
        ),
    }
    if what != "append"
        && let Some(wasmtime) = peers::find("wasmtime")
    {
        let compiled = folder.join("files.cwasm");
        tool(Command::new(&wasmtime).arg("compile").arg(root.join("files.wasm")).arg("-o").arg(&compiled));
        let name = format!("{}, precompiled, one directory", peers::version(&wasmtime));
        let mut run = Command::new(&wasmtime);
        let mut dir = OsString::from(&root);
        dir.push("::/");
        run.args(["run", "--allow-precompiled", "--dir"])
            .arg(dir)
            .arg(compiled)
            .args([what, &format!("/{on}")]);
        all.push(Contender::new(&name, run));
    }
    Ok(all)
}

fn bare(folder: &Path, what: &str, path: &PathBuf) -> Command {
    let mut command = Command::new(folder.join("native"));
    command.arg(what).arg(path);
    command
}
