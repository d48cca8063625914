//! `dhow`: parse, dispatch, exit code. Everything that happens is in [`dhow_engine`]; everything printed goes through
//! `ui`.

mod args;
mod client;
mod commands;
mod context;
mod error;
mod filter;
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

use std::process::ExitCode;

fn main() -> ExitCode {
    let ui = ui::Ui::new();
    let code = match args::parse() {
        Ok(args) => commands::dispatch(&ui, args),
        Err(error) => return args::explain(&error),
    };
    match code {
        Ok(code) => ExitCode::from(code),
        Err(error) => ExitCode::from(error::report(&ui, &error)),
    }
}
