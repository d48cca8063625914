//! Tells the shim's linker what `link.rs` of the command is about: much of what they do is the same.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script that cannot read or write has nothing more to say"
)]

#[path = "../cli/link.rs"]
mod link;

use std::path::Path;

const PROGRAM: &str = "containerd-shim-dhow-v1";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=../cli/link.rs");
    link::own_begin(PROGRAM);
    link::in_order(PROGRAM, Path::new("../cli/start.order"));
}
