//! `cp`: files between this machine and a container.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::error::hinted;
use crate::ui::Ui;

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dhow cp ./config.toml web:/etc/app/   into a folder that is there
  dhow cp web:/var/log ./logs           a folder; its contents with web:/var/log/.
  dhow cp web:/etc - | tar t            as an archive, and from one: tar c . | dhow cp - web:/srv

A path in a container begins at its root, with or without a slash. Links that are named are copied as links, unless
-L is given; links on the way lead where they do in the container.")]
pub(crate) struct CpArgs {
    /// Let owners come along [default: copies belong to you here, and to root in a container]
    #[arg(short, long)]
    archive: bool,
    /// Follow a link that is named
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Do not say what was copied
    #[arg(short, long)]
    quiet: bool,
    /// What to copy
    #[arg(value_name = "[CONTAINER:]PATH|-")]
    source: String,
    /// Where to
    #[arg(value_name = "[CONTAINER:]PATH|-")]
    target: String,
}

/// A container and a path in it, if that is what `text` names: paths of this machine begin with a slash or a dot.
fn in_container(text: &str) -> Option<(&str, &str)> {
    let drive = cfg!(windows) && text.as_bytes().get(1) == Some(&b':');
    if text.starts_with(['/', '.']) || drive {
        return None;
    }
    text.split_once(':')
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &CpArgs) -> Result<u8> {
    let usage = "write the container's name before a path of it: `dhow cp web:/etc/hosts .`";
    match (in_container(&args.source), in_container(&args.target)) {
        (Some(_), Some(_)) => {
            Err(hinted("copying between containers is not supported", "copy to this machine first"))
        }
        (None, None) => Err(hinted("must specify at least one container source", usage)),
        (from, to) => copy(ui, global, args, from, to),
    }
}

#[cfg(not(target_os = "linux"))]
fn copy(
    _ui: &Ui,
    _global: &Global,
    _args: &CpArgs,
    _from: Option<(&str, &str)>,
    _to: Option<(&str, &str)>,
) -> Result<u8> {
    anyhow::bail!("copying files of containers needs Linux")
}

#[cfg(target_os = "linux")]
fn copy(
    ui: &Ui,
    global: &Global,
    args: &CpArgs,
    from: Option<(&str, &str)>,
    to: Option<(&str, &str)>,
) -> Result<u8> {
    use dhow_engine::container::cp::CopyOptions;
    use std::path::Path;
    let engine = crate::context::engine(global)?;
    let options = CopyOptions { archive: args.archive, follow: args.follow_link };
    let bytes = match (from, to) {
        (Some((name, path)), _) if args.target == "-" => {
            let container = engine.container(name)?;
            let mut output = crate::output::Output::open(None, "cp")?;
            engine.archive_from(&container, path, output.file(), options)?;
            output.finish()?;
            return Ok(0);
        }
        (Some((name, path)), _) => {
            engine.copy_from(&engine.container(name)?, path, Path::new(&args.target), options)?
        }
        (None, Some((name, path))) if args.source == "-" => {
            let container = engine.container(name)?;
            engine.archive_to(&container, &mut std::io::stdin().lock(), path, options)?;
            return Ok(0);
        }
        (None, Some((name, path))) => {
            engine.copy_to(&engine.container(name)?, Path::new(&args.source), path, options)?
        }
        (None, None) => return Ok(0),
    };
    if ui.interactive && !args.quiet {
        ui.note(&format!("Successfully copied {} to {}", crate::units::progress_size(bytes), args.target));
    }
    Ok(0)
}
