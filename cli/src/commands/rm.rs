//! `rm`: remove containers.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill a running container first; do not mind one that does not exist
    #[arg(short, long)]
    force: bool,
    /// Remove the containers' own volumes too, which nobody gave a name
    #[arg(short, long)]
    volumes: bool,
    #[arg(short, long, hide = true)]
    link: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &RmArgs) -> Result<u8> {
    if args.link {
        return Err(crate::error::hinted(
            "--link is not supported: it was replaced by networks",
            "`dhow network disconnect` takes a container out of a network",
        ));
    }
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        let removed = engine
            .container(wanted)
            .and_then(|container| engine.remove(&container, args.force, args.volumes));
        match removed {
            // Said, and no failure.
            Err(error @ dhow_engine::Error::NoSuchContainer(_)) if args.force => {
                crate::error::print(ui, &error.into());
                return Ok(());
            }
            other => other?,
        }
        ui.line(wanted);
        Ok(())
    })
}
