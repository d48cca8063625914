//! Gives the linker the order in which a start comes to the functions of `dhow` (`start.order`). They then lie together:
//! half as many pages are mapped for a Wasm program's container, which takes half of its memory and a seventh of its time.
//!
//! The file only helps. Names in it that a build does not have, because the compiler, a dependency or the code is another
//! one, are passed over; `bench/start-order` makes it anew.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=start.order");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let linux = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // For this target the toolchain links with lld, which knows the option; somebody else's linker may not.
    let own_linker = env::var_os("RUSTC_LINKER").is_some()
        || env::var("CARGO_ENCODED_RUSTFLAGS")
            .is_ok_and(|flags| flags.contains("fuse-ld") || flags.contains("linker"));
    if linux && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("PROFILE", "release") && !own_linker {
        let folder = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        for option in [&format!("--symbol-ordering-file={folder}/start.order"), "--no-warn-symbol-ordering"] {
            println!("cargo:rustc-link-arg-bin=dhow=-Xlinker");
            println!("cargo:rustc-link-arg-bin=dhow={option}");
        }
    }
}
