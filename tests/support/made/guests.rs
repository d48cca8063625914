//! The guest programs of `tests/guests`, built on first use by the script there.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{cache, digest_of, once, repository, tool};

/// A built Wasm guest, for example `probe.wasm`, `probe.component.wasm`, `rust.wasm`.
pub(crate) fn guest(name: &str) -> Vec<u8> {
    let path = built().join(name);
    fs_err::read(&path).expect("a guest that tests/guests/build makes")
}

/// The same source as a static Linux program: `hello`, `probe`.
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

fn built() -> PathBuf {
    let dir = cache("guests");
    let inputs = ["build", "echo.c", "hello.c", "probe.c", "wasi.c", "rust/Cargo.toml", "rust/src/main.rs"];
    let text: String = inputs.iter().map(|name| read(&sources().join(name))).collect();
    once(&dir, &digest_of(text.as_bytes()), || {
        tool(Command::new(sources().join("build")).arg(&dir).env_remove("CARGO_TARGET_DIR"));
    });
    dir
}

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).expect("guest source")
}
