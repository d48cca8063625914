//! What the linker is told about the programs whose start counts: `dhow`, and the shim, whose build script has this file as a
//! module, too.
//!
//! The order in which a start comes to the functions of `dhow` (`start.order`): they then lie together, and half as many
//! pages are mapped for a container's start, which takes half of its memory and a seventh of its time.
//!
//! The file's lines are patterns for sections, one function each, with `*` where the compiler puts a hash: hashes change
//! with every dependency, compiler and option. It only helps: what a build does not have is passed over, and
//! `bench/start-order` makes it anew.

use std::env;
use std::fmt::Write as _;
use std::path::Path;

fn is(name: &str, value: &str) -> bool {
    env::var(name).is_ok_and(|found| found == value)
}

fn is_linux() -> bool {
    is("CARGO_CFG_TARGET_OS", "linux")
        && is("CARGO_CFG_TARGET_ENV", "gnu")
        && is("CARGO_CFG_TARGET_ARCH", "x86_64")
}

/// Has the program's first instructions call `src/begin.rs` in the place of the C library's start, where that is a static glibc
/// on x86-64.
pub(crate) fn own_begin(program: &str) {
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|all| all.split(',').any(|feature| feature == "crt-static"));
    if is_linux() && is_static {
        pass(program, "--wrap=__libc_start_main");
    }
}

/// Puts the functions of this list before all others. Gives whether the toolchain's own linker does it, as it does in releases:
/// somebody else's may not leave all other sections where they were, as lld does.
pub(crate) fn in_order(program: &str, order: &Path) -> bool {
    println!("cargo:rerun-if-changed={}", order.display());
    let is_foreign = env::var_os("RUSTC_LINKER").is_some()
        || env::var("CARGO_ENCODED_RUSTFLAGS")
            .is_ok_and(|flags| flags.contains("fuse-ld") || flags.contains("linker"));
    if !is_linux() || !is("PROFILE", "release") || is_foreign {
        return false;
    }
    let script = Path::new(&env::var_os("OUT_DIR").unwrap_or_default()).join("start.ld");
    let patterns = std::fs::read_to_string(order).unwrap_or_default();
    if std::fs::write(&script, linker_script(&patterns)).is_ok() {
        pass(program, &format!("-T{}", script.display()));
    }
    true
}

/// A section of its own, by whose size one sees whether what is listed was found.
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

/// Passes an option to the linker of a program.
pub(crate) fn pass(program: &str, option: &str) {
    println!("cargo:rustc-link-arg-bin={program}=-Xlinker");
    println!("cargo:rustc-link-arg-bin={program}={option}");
}
