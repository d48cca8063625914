//! `image convert`: the same image in another form, and Wasm files as images.

use std::path::Path;

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use dhow_engine::images::convert::{self, ConvertOptions, Format};
use dhow_engine::images::media::Compression;
use dhow_engine::images::{Platform, Reference};
use dhow_engine::{Engine, Error};
use jiff::Timestamp;

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::progress::PullProgress;
use crate::ui::Ui;

/// Largest Wasm file, in bytes.
const MAX_WASM: u64 = 1 << 30;

#[derive(Debug, Args)]
pub(crate) struct ConvertArgs {
    /// Pack layers so; their content and the image's configuration stay the same [default: as they are]
    #[arg(long, value_enum, value_name = "KIND")]
    compression: Option<Packing>,
    /// How hard to try: 1 to 9 for gzip, 1 to 22 for zstd; packs layers anew that are packed so already
    #[arg(long, value_name = "LEVEL", requires = "compression")]
    level: Option<u8>,
    /// Use the media types of OCI, or of Docker (schema 2)
    #[arg(long, value_enum, value_name = "FORMAT")]
    format: Option<MediaTypes>,
    /// Convert this variant only [default: every variant that is here]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Make a CNCF Wasm artifact of a Wasm file, in place of an image with the file in it
    #[arg(long)]
    wasm_artifact: bool,
    /// Name or id of an image that is here, or the path of a Wasm file: `app.wasm`, `./app`
    #[arg(value_name = "IMAGE|FILE")]
    source: String,
    /// Name of the result
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Packing {
    Gzip,
    Zstd,
    None,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MediaTypes {
    Oci,
    Docker,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &ConvertArgs) -> Result<u8> {
    let target = Reference::parse(&args.target).map_err(Error::from)?;
    if target.digest().is_some() {
        return Err(hinted("refusing to create a tag with a digest reference", "name the result NAME[:TAG]"));
    }
    let compression = match args.compression {
        None => None,
        Some(packing) => {
            let (compression, most) = match packing {
                Packing::Gzip => (Compression::Gzip, 9),
                Packing::Zstd => (Compression::Zstd, 22),
                Packing::None => (Compression::None, 0),
            };
            if args.level.is_some_and(|level| level == 0 || level > most) {
                let message =
                    format!("invalid level {} for this compression", args.level.unwrap_or_default());
                return Err(hinted(message, "gzip has levels from 1 to 9, zstd from 1 to 22"));
            }
            Some((compression, args.level))
        }
    };
    let engine = context::engine(global)?;
    let is_file = args.source.contains(['/', '\\']) && Path::new(&args.source).is_file()
        || Path::new(&args.source).extension().is_some_and(|extension| extension == "wasm");
    let source = if is_file {
        of_file(&engine, Path::new(&args.source), args.wasm_artifact)?
    } else if args.wasm_artifact {
        return Err(hinted(
            format!("{} is no Wasm file", args.source),
            "`--wasm-artifact` makes an artifact of a file: `app.wasm`, `./app`",
        ));
    } else {
        engine.find_image(&args.source)?
    };
    let options = ConvertOptions {
        compression,
        format: args.format.map(|format| match format {
            MediaTypes::Oci => Format::Oci,
            MediaTypes::Docker => Format::Docker,
        }),
        platform: args.platform.clone(),
    };
    let progress = PullProgress::new(*ui, !ui.interactive, false);
    let converted = convert::convert(engine.store(), &source, &options, &progress);
    progress.finish();
    let converted = converted.map_err(Error::from)?;
    engine.store().tag(&target, &converted).map_err(Error::from)?;
    ui.line(&converted.digest.to_string());
    Ok(0)
}

fn of_file(engine: &Engine, path: &Path, artifact: bool) -> Result<dhow_engine::images::Descriptor> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.with_context(|| format!("{}: the name is not valid UTF-8", path.display()))?;
    let size = fs_err::metadata(path)?.len();
    if size > MAX_WASM {
        anyhow::bail!("{}: is larger than 1 GiB", path.display());
    }
    let code = fs_err::read(path)?;
    let made = if artifact {
        convert::wasm_artifact(engine.store(), name, &code)
    } else {
        let created = Timestamp::now().to_string();
        convert::wasm_image(engine.store(), name, &code, Some(&created))
    };
    Ok(made.map_err(Error::from)?)
}
