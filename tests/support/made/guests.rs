//! The guest programs of `tests/guests`, built on first use by the script there, each language when it is needed.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{cache, digest_of, once, repository, tool};

/// A built Wasm guest, for example `probe.wasm`, `probe.component.wasm`, `rust.wasm`; with the group in front where two
/// have one of that name: `c/files.wasm`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let (group, name) = name.split_once('/').unwrap_or_else(|| (group(name), name));
    let path = built(group).join(name);
    fs_err::read(&path).expect("a guest that tests/guests/build makes")
}

/// The same source as a static Linux program: `hello`, `probe`, `files`.
pub(crate) fn native(name: &str) -> Vec<u8> {
    guest(name)
}

/// A guest's source, for example `hello.wat`.
pub(crate) fn source(name: &str) -> PathBuf {
    sources().join(name)
}

fn sources() -> PathBuf {
    repository().join("tests/guests")
}

/// Which group of the script makes a program.
fn group(name: &str) -> &'static str {
    match name {
        "rust.wasm" | "files.wasm" => "rust",
        "http.wasm" | "sockets.wasm" => "http",
        "count.wasm" => "cpp",
        "go.wasm" => "go",
        "js.wasm" | "js-service.wasm" => "js",
        "python.wasm" => "python",
        "plugin-rust.wasm" => "plugin-rust",
        "plugin-js.wasm" | "plugin-python.wasm" => "plugins",
        _ => "c",
    }
}

/// The plugin in Rust has a script of its own.
fn built_plugin() -> PathBuf {
    let dir = cache("guests/plugin-rust");
    let script = sources().join("plugin-rust");
    let guests = repository().join("examples/plugin/guests");
    let inputs = ["plugin.wit", "rust/Cargo.toml", "rust/Cargo.lock", "rust/src/lib.rs"];
    let text: String = inputs.iter().map(|name| read(&guests.join(name))).chain([read(&script)]).collect();
    once(&dir, &digest_of(text.as_bytes()), || {
        tool(Command::new(&script).arg(&dir).env_remove("CARGO_TARGET_DIR"));
    });
    dir
}

fn built(group: &str) -> PathBuf {
    if group == "plugin-rust" {
        return built_plugin();
    }
    let dir = cache(&format!("guests/{group}"));
    let mut inputs = vec![sources().join("build")];
    match group {
        "c" => inputs.extend(files(&sources()).filter(|path| path.extension().is_some_and(|end| end == "c"))),
        "rust" => inputs.extend(
            ["rust", "rust/src", "rust/src/bin"].iter().flat_map(|name| files(&sources().join(name))),
        ),
        "http" => inputs.extend(
            ["http", "http/src", "http/src/bin"].iter().flat_map(|name| files(&sources().join(name))),
        ),
        language => {
            inputs.extend(files(&sources().join(language)).chain([sources().join("requirements.txt")]));
        }
    }
    inputs.sort();
    let text: String = inputs.iter().map(|path| read(path)).collect();
    once(&dir, &digest_of(text.as_bytes()), || {
        tool(Command::new(sources().join("build")).arg(&dir).arg(group).env_remove("CARGO_TARGET_DIR"));
    });
    dir
}

/// The files of a folder, without its folders.
fn files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs_err::read_dir(folder)
        .expect("sources")
        .map(|entry| entry.expect("entry").path())
        .filter(|path| path.is_file())
}

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).expect("guest source")
}
