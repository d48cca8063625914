//! `start`: containers that exist, in the background or attached.

use anyhow::{Result, bail};
use clap::Args;

use crate::args::Global;
use crate::client::{self, ClientArgs};
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Attach standard output and error, and pass on signals
    #[arg(short, long)]
    attach: bool,
    /// Attach standard input as well
    #[arg(short, long)]
    interactive: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[arg(long, hide = true)]
    checkpoint: Option<String>,
    #[arg(long, hide = true)]
    checkpoint_dir: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &StartArgs) -> Result<u8> {
    if args.checkpoint.is_some() || args.checkpoint_dir.is_some() {
        return Err(crate::error::hinted(
            "checkpoints are not supported yet",
            "`dhow pause` lets a container stand still, `dhow commit` keeps its files",
        ));
    }
    let attached = args.attach || args.interactive;
    if !attached {
        context::close_inherited();
    }
    let engine = context::engine(global)?;
    if attached {
        let [wanted] = args.containers.as_slice() else {
            bail!("you cannot start and attach multiple containers at once");
        };
        let container = engine.container(wanted)?;
        let config = &container.record.config;
        let streams = args.client.streams(args.interactive && config.open_stdin, config.tty)?;
        return client::attend(ui, &engine, &container, streams, |streams| {
            Ok(match engine.claim_to_start(&container)? {
                Some(claim) => engine.start_attached(&container, claim, streams)?,
                // It runs: as with Docker this is `attach` then.
                None => engine.attach(&container, streams)?,
            })
        });
    }
    crate::commands::each(ui, &args.containers, |wanted| {
        let container = engine.container(wanted)?;
        if let Some(claim) = engine.claim_to_start(&container)? {
            engine.start(&container, claim)?;
        }
        ui.line(wanted);
        Ok(())
    })
}
