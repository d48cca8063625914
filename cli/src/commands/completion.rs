//! `completion`: a script for the user's shell.

use anyhow::Result;
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use crate::args::Cli;
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(after_help = "Example:
  dhow completion bash > /etc/bash_completion.d/dhow")]
pub(crate) struct CompletionArgs {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(crate) fn run(ui: &Ui, args: &CompletionArgs) -> Result<u8> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "dhow", &mut script);
    ui.print(&String::from_utf8_lossy(&script));
    Ok(0)
}
