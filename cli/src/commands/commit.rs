//! `commit`: make an image of a container.

use anyhow::Result;
use clap::Args;

use crate::args::Global;
use crate::context;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct CommitArgs {
    /// Who made it, as `Ada <ada@example.com>`
    #[arg(short, long, value_name = "TEXT")]
    author: Option<String>,
    /// Change a setting of the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR, as in a Dockerfile; may be given several times
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// Let a running container stand still meanwhile
    #[arg(
        short,
        long,
        default_value_t = true,
        action = clap::ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_name = "BOOL",
        hide_possible_values = true
    )]
    pause: bool,
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// Name or id, of a container that runs or not
    container: String,
    /// Name of the image [default: none, it is known by its id]
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &CommitArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let container = engine.container(&args.container)?;
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (ui, args);
        anyhow::bail!("cannot commit container {}: this needs Linux", container.record.name);
    }
    #[cfg(target_os = "linux")]
    {
        use dhow_engine::container::commit::Commit;
        use dhow_engine::images::Reference;
        let name =
            args.name.as_deref().map(Reference::parse).transpose().map_err(dhow_engine::Error::from)?;
        let fresh: Vec<Reference> = name.iter().cloned().collect();
        let commit = Commit {
            name,
            author: args.author.clone().unwrap_or_default(),
            message: args.message.clone().unwrap_or_default(),
            changes: args.changes.clone(),
            pause: args.pause,
        };
        let image = engine.commit(&container, &commit)?;
        crate::commands::gc::after(ui, &engine, &fresh)?;
        ui.line(&image.digest.to_string());
        Ok(0)
    }
}
