//! `attach`: this terminal for a container that runs.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::client::{self, ClientArgs};
use crate::context;
use crate::error::hinted;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not attach standard input
    #[arg(long)]
    no_stdin: bool,
    #[command(flatten)]
    client: ClientArgs,
    /// Name or id
    container: String,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &AttachArgs) -> Result<u8> {
    use std::io::IsTerminal as _;
    let engine = context::engine(global)?;
    let container = engine.container(&args.container)?;
    let config = &container.record.config;
    let input = config.open_stdin && !args.no_stdin;
    if input && config.tty && !std::io::stdin().is_terminal() {
        return Err(hinted("the input device is not a TTY", "leave standard input out with `--no-stdin`"));
    }
    let streams = args.client.streams(input, config.tty)?;
    client::attend(ui, &engine, &container, streams, |streams| Ok(engine.attach(&container, streams)?))
}
