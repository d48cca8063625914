//! `exec`: another program in a running container.

use std::io::IsTerminal as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dhow_engine::Error;
use dhow_engine::container::ExecConfig;

use crate::args::Global;
use crate::client::{self, ClientArgs};
use crate::commands::run::environment::environment;
use crate::context;
use crate::error::{WithCode, hinted};
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(override_usage = "dhow exec [OPTIONS] CONTAINER COMMAND [ARG...]")]
#[command(after_help = "Examples:
  dhow exec web /tools/report.wasm today        another Wasm file of the container
  dhow exec web /app.wasm#migrate               one function of a module
  dhow exec -it -e LEVEL=debug -w /data web /shell.wasm")]
pub(crate) struct ExecArgs {
    /// Do not wait for the program
    #[arg(short, long)]
    detach: bool,
    /// Connect standard input
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// Give it all capabilities
    #[arg(long)]
    privileged: bool,
    /// Set an environment variable; a bare NAME is taken from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    #[command(flatten)]
    client: ClientArgs,
    /// Container, then the program and its arguments
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARG]", hide = true)]
    words: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &ExecArgs) -> Result<u8> {
    if args.detach {
        context::close_inherited();
    }
    if !args.detach && args.interactive && args.tty && !std::io::stdin().is_terminal() {
        return Err(hinted("the input device is not a TTY", "leave out -t, or run it from a terminal"));
    }
    let mut words = args.words.iter().cloned();
    let wanted = words.next().unwrap_or_default();
    let config = ExecConfig {
        attach_stdin: args.interactive,
        tty: args.tty,
        privileged: args.privileged,
        env: environment(&args.env_file, &args.env)?,
        cmd: words.collect(),
        user: args.user.clone().unwrap_or_default(),
        working_dir: args.workdir.clone().unwrap_or_default(),
    };
    let engine = context::engine(global)?;
    let container = engine.container(&wanted)?;
    let run = || {
        if args.detach {
            engine.exec_detached(&container, &config)?;
            return Ok(0);
        }
        let streams = args.client.streams(args.interactive, args.tty)?;
        client::attend_raw(ui, streams, |streams| Ok(engine.exec(&container, &config, streams)?))
    };
    run().map_err(|error: anyhow::Error| match error.downcast_ref::<Error>() {
        // The program's own failure to start has Docker's codes, all else is the command's. 125 is none of `exec`.
        Some(engine @ (Error::Start { .. } | Error::Runtime(_))) => {
            let code = Some(engine.exit_code()).filter(|code| *code != 125).unwrap_or(126);
            WithCode { code, error }.into()
        }
        _ => error,
    })
}
