//! Tells the linker of `dhow` what `link.rs` is about. With `DHOW_LINK_MAP=FILE` it writes down where it has put everything.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script that cannot read or write has nothing more to say"
)]

mod link;

use std::env;
use std::path::Path;

const PROGRAM: &str = "dhow";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=link.rs");
    println!("cargo:rerun-if-env-changed=DHOW_LINK_MAP");
    link::own_begin(PROGRAM);
    let is_ordered = link::in_order(PROGRAM, Path::new("start.order"));
    if is_ordered && let Some(map) = env::var_os("DHOW_LINK_MAP") {
        link::pass(PROGRAM, &format!("-Map={}", Path::new(&map).display()));
    }
}
