//! Gives the linker the order in which a start comes to the functions of `dhow` (`start.order`). They then lie together:
//! half as many pages are mapped for a container's start, which takes half of its memory and a seventh of its time.
//!
//! The file's lines are patterns for sections, one function each, with `*` where the compiler puts a hash: hashes change
//! with every dependency, compiler and option. It only helps: what a build does not have is passed over, and
//! `bench/start-order` makes it anew. With `DHOW_LINK_MAP=FILE` the linker writes down where it has put everything.

#![expect(
    clippy::disallowed_methods,
    reason = "a build script that cannot read or write has nothing more to say"
)]

use std::env;
use std::fmt::Write as _;
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=start.order");
    println!("cargo:rerun-if-env-changed=DHOW_LINK_MAP");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let linux = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    // For this target the toolchain links with lld, which leaves all other sections where they were; somebody else's linker
    // may not.
    let own_linker = env::var_os("RUSTC_LINKER").is_some()
        || env::var("CARGO_ENCODED_RUSTFLAGS")
            .is_ok_and(|flags| flags.contains("fuse-ld") || flags.contains("linker"));
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|all| all.split(',').any(|feature| feature == "crt-static"));
    if linux && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is_static {
        // See src/begin.rs.
        pass("--wrap=__libc_start_main");
    }
    if linux && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is("PROFILE", "release") && !own_linker {
        let read = |name: &str| env::var(name).unwrap_or_default();
        let order = Path::new(&read("CARGO_MANIFEST_DIR")).join("start.order");
        let script = Path::new(&read("OUT_DIR")).join("start.ld");
        let patterns = std::fs::read_to_string(&order).unwrap_or_default();
        if std::fs::write(&script, linker_script(&patterns)).is_ok() {
            pass(&format!("-T{}", script.display()));
        }
        if let Some(map) = env::var_os("DHOW_LINK_MAP") {
            pass(&format!("-Map={}", Path::new(&map).display()));
        }
    }
}

/// Puts what is listed before all other code, in a section of its own, by whose size one sees whether it was found.
fn linker_script(order: &str) -> String {
    let mut script = "SECTIONS {\n.text.start : {\n".to_owned();
    for line in order.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        // `libc-start.o:.text` is a part of the C library.
        let (file, section) = line
            .split_once(".o:")
            .map_or(("*".to_owned(), line), |(object, section)| (format!("*libc.a:{object}.o"), section));
        writeln!(script, "{file}({section})").ok();
    }
    script.push_str("}\n} INSERT BEFORE .text;\n");
    script
}

fn pass(option: &str) {
    println!("cargo:rustc-link-arg-bin=dhow=-Xlinker");
    println!("cargo:rustc-link-arg-bin=dhow={option}");
}
