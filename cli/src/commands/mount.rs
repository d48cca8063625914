//! `image mount` and `image unmount`: an image's files for programs of the host.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use dhow_engine::error::short;
use dhow_engine::image::ImageMount;
use dhow_engine::images::{Matcher, Platform};
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::table;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct MountArgs {
    /// For the list: `table`, `json`, or a Go template such as `{{.Path}}`
    #[arg(long, value_name = "FORMAT", conflicts_with = "image")]
    format: Option<String>,
    /// Mount this variant [default: the one that `run` would take]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Name or id; without one, what is mounted is listed
    image: Option<String>,
    /// An empty directory [default: a place of its own below the root folder, which is printed]
    dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct UnmountArgs {
    /// Everything that is mounted
    #[arg(short, long)]
    all: bool,
    /// Also what is in use: it goes when its last user has gone
    #[arg(short, long)]
    force: bool,
    /// Names or ids of images, or directories
    #[arg(value_name = "IMAGE|DIR", required_unless_present = "all", conflicts_with = "all")]
    wanted: Vec<String>,
}

const COLUMNS: [(&str, &str); 4] =
    [("ID", "IMAGE ID"), ("Image", "IMAGE"), ("Platform", "PLATFORM"), ("Path", "PATH")];

pub(crate) fn mount(ui: &Ui, global: &Global, args: &MountArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let Some(image) = &args.image else {
        let rows: Vec<Value> = engine.mounted_images()?.iter().map(row).collect();
        ui.print(&table::render_format(args.format.as_deref(), &COLUMNS, &rows)?);
        return Ok(0);
    };
    if !context::may_mount() {
        return Err(hinted(
            "mounting an image needs root",
            "as another user look into it with `dhow image tree`, or mount it in a namespace of your own: \
             `unshare --user --map-root-user --map-auto --mount`, and in it `dhow --root DIR image mount`",
        ));
    }
    let matcher = args.platform.as_ref().map_or_else(Matcher::host, Matcher::only);
    let mount = engine.mount_image(image, &matcher, args.dir.as_deref())?;
    ui.line(&mount.path.display().to_string());
    Ok(0)
}

pub(crate) fn unmount(ui: &Ui, global: &Global, args: &UnmountArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let gone = |mount: &ImageMount| ui.line(&mount.digest);
    if args.all {
        for mount in engine.mounted_images()? {
            engine.unmount(&mount, args.force)?;
            gone(&mount);
        }
        return Ok(0);
    }
    crate::commands::each(ui, &args.wanted, |wanted| {
        engine.unmount_image(wanted, args.force)?.iter().for_each(gone);
        Ok(())
    })
}

fn row(mount: &ImageMount) -> Value {
    json!({
        "ID": short(&mount.digest),
        "Image": mount.image,
        "Platform": mount.platform,
        "Path": mount.path.display().to_string(),
    })
}
