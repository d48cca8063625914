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
    let mut ids = std::collections::BTreeSet::new();
    let mut find = |wanted: &String| {
        let container = engine.container(wanted)?;
        // Named twice, it is gone the second time.
        let is_first = ids.insert(container.record.id.clone());
        if is_first { Ok(container) } else { Err(dhow_engine::Error::NoSuchContainer(wanted.clone())) }
    };
    let found: Vec<_> = args.containers.iter().map(&mut find).collect();
    let there: Vec<_> = found.iter().flatten().cloned().collect();
    let mut removed = engine.remove_many(&there, args.force, args.volumes).into_iter();
    let mut code = 0;
    for (wanted, found) in args.containers.iter().zip(found) {
        match found.and_then(|_| removed.next().unwrap_or(Ok(()))) {
            Ok(()) => ui.line(wanted),
            // Said, and no failure.
            Err(error @ dhow_engine::Error::NoSuchContainer(_)) if args.force => {
                crate::error::print(ui, &error.into());
            }
            Err(error) => {
                crate::error::print(ui, &error.into());
                code = 1;
            }
        }
    }
    Ok(code)
}
