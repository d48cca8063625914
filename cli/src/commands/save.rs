//! `save`: write images into an archive or a folder.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use dhow_engine::Error;
use dhow_engine::images::Platform;
use dhow_engine::images::archive::{self, SaveFormat, SaveOptions};

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::output::Output;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct SaveArgs {
    /// Write to a file (or folder, with a format that is one) [default: standard output]
    #[arg(short, long, value_name = "PATH")]
    output: Option<PathBuf>,
    /// Save this variant only [default: every variant that is here]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// What to write [default: a tar that is an OCI layout and a docker archive at once]
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<Format>,
    /// Names or ids; a name without tag stands for all tags of the repository
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Podman's names of formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A tar for `docker load` only
    DockerArchive,
    /// A tar that is an OCI layout only
    OciArchive,
    /// An OCI layout as a folder
    OciDir,
    /// A folder of one image's manifest and blobs, as skopeo's `dir:`
    DockerDir,
}

pub(crate) fn run(_ui: &Ui, global: &Global, args: &SaveArgs) -> Result<u8> {
    let format = match args.format {
        None => SaveFormat::Combined,
        Some(Format::DockerArchive) => SaveFormat::Docker,
        Some(_) => SaveFormat::Oci,
    };
    let options = SaveOptions { format, platform: args.platform.clone() };
    if let Some(format @ (Format::OciDir | Format::DockerDir)) = args.format {
        let Some(folder) = &args.output else {
            return Err(hinted("a folder cannot be written to standard output", "name it with `-o FOLDER`"));
        };
        let engine = context::engine(global)?;
        let images = engine.images_to_save(&args.images)?;
        let written = match (format, images.as_slice()) {
            (Format::OciDir, _) => archive::save_layouts(engine.store(), &images, &options, folder),
            (_, [one]) => archive::save_docker_dir(engine.store(), one, &options, folder),
            (_, several) => {
                let message = format!("docker-dir holds one image, and these are {}", several.len());
                return Err(hinted(message, "save each into a folder of its own, or use `--format oci-dir`"));
            }
        };
        written.map_err(Error::from)?;
        return Ok(0);
    }
    let mut output = Output::open(args.output.as_deref(), "save")?;
    let engine = context::engine(global)?;
    let images = engine.images_to_save(&args.images)?;
    archive::save(engine.store(), &images, &options, output.file()).map_err(Error::from)?;
    for image in &images {
        let id = image.image.digest.to_string();
        engine.tell_of_image("save", &id, &id);
    }
    output.finish()?;
    Ok(0)
}
