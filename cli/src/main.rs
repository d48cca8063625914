//! `dhow`: parse, dispatch, exit code. Everything that happens is in [`dhow_engine`]; everything printed goes through
//! `ui`.

#![cfg_attr(all(not(test), target_os = "linux", target_env = "gnu"), no_main)]

mod args;
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod begin;
mod client;
mod commands;
mod context;
mod error;
mod filter;
#[cfg(target_os = "linux")]
mod init;
#[cfg(target_os = "linux")]
mod oci;
mod output;
mod progress;
mod prompt;
mod registries;
mod table;
mod template;
mod trust;
#[cfg(unix)]
mod tty;
mod ui;
mod units;

/// What the C library calls. Rust's own start in front of a `main` also reads the map of this process and makes a stack for
/// a message about overflows: seventeen system calls, a tenth of those of a Wasm program's whole container.
#[cfg(all(not(test), target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "the name that the C library looks for")]
// SAFETY: nobody else gives anything this name, and it has the type of C's `main`, of which the arguments are not used:
// `std::env::args` has them on its own.
#[unsafe(no_mangle)]
extern "C" fn main(_: std::ffi::c_int, _: *const *const std::ffi::c_char) -> std::ffi::c_int {
    if dhow_engine::runtime::process::begin().is_err() {
        return 125;
    }
    // Not by returning, which would not flush what was printed.
    std::process::exit(run().into())
}

#[cfg(any(test, not(all(target_os = "linux", target_env = "gnu"))))]
fn main() -> std::process::ExitCode {
    run().into()
}

/// Does what the command line says; gives the exit code.
fn run() -> u8 {
    #[cfg(target_os = "linux")]
    if let Some(code) = init::main() {
        return code;
    }
    let ui = ui::Ui::new();
    #[cfg(target_os = "linux")]
    if let Some(code) = oci::main(ui) {
        return code;
    }
    let code = match args::parse() {
        Ok(args) => commands::dispatch(&ui, args),
        Err(error) => return args::explain(&error),
    };
    match code {
        Ok(code) => code,
        Err(error) => error::report(&ui, &error),
    }
}
