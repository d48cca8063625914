//! `stop` and `restart`.

use anyhow::Result;
use clap::Args;
use dhow_engine::runtime::Signal;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

/// How a container is asked to end.
#[derive(Debug, Args)]
pub(crate) struct Politeness {
    /// Signal to send [default: the container's own, or SIGTERM]
    #[arg(short, long, value_name = "SIGNAL")]
    signal: Option<Signal>,
    /// Seconds until it is killed; -1 waits for ever [default: the container's own, or 10]
    #[arg(short, long, visible_alias = "time", value_name = "SECONDS", allow_negative_numbers = true)]
    timeout: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    #[command(flatten)]
    how: Politeness,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RestartArgs {
    #[command(flatten)]
    how: Politeness,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

pub(crate) fn stop(ui: &Ui, global: &Global, args: &StopArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    // Each may take its ten seconds.
    crate::commands::beside(ui, &args.containers, |wanted| {
        Ok(engine.stop(&engine.container(wanted)?, args.how.signal, args.how.timeout)?)
    })
}

pub(crate) fn restart(ui: &Ui, global: &Global, args: &RestartArgs) -> Result<u8> {
    context::close_inherited();
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.containers, |wanted| {
        engine.restart(&engine.container(wanted)?, args.how.signal, args.how.timeout)?;
        ui.line(wanted);
        Ok(())
    })
}
