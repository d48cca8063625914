//! Has the program's first instructions call `src/begin.rs` of the command, in the place of the C library's start, where that is
//! a static glibc on x86-64.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let is_static = env::var("CARGO_CFG_TARGET_FEATURE")
        .is_ok_and(|all| all.split(',').any(|feature| feature == "crt-static"));
    let is_linux = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    if is_linux && is("CARGO_CFG_TARGET_ARCH", "x86_64") && is_static {
        for option in ["-Xlinker", "--wrap=__libc_start_main"] {
            println!("cargo:rustc-link-arg-bin=containerd-shim-dhow-v1={option}");
        }
    }
}
