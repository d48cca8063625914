//! `import`: make an image of an archive of files.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use dhow_engine::Error;
use dhow_engine::image::Import;
use dhow_engine::images::archive::Source;
use dhow_engine::images::registry::download;
use dhow_engine::images::{Platform, Reference};

use crate::args::Global;
use crate::commands::gc;
use crate::context;
use crate::output;
use crate::registries;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct ImportArgs {
    /// Change a setting of the image: CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER,
    /// VOLUME or WORKDIR, as in a Dockerfile; may be given several times
    #[arg(short, long = "change", value_name = "INSTRUCTION")]
    changes: Vec<String>,
    /// A remark for the image's history
    #[arg(short, long, value_name = "TEXT")]
    message: Option<String>,
    /// What its programs run on [default: this host]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Tar archive (plain, gzip, bzip2, xz or zstd): a file, an http address, or `-` for standard input
    #[arg(value_name = "FILE|URL|-")]
    source: String,
    /// Name of the image [default: none, it is known by its id]
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &ImportArgs) -> Result<u8> {
    let name = args.name.as_deref().map(Reference::parse).transpose().map_err(Error::from)?;
    let message = args.message.clone().unwrap_or_else(|| format!("Imported from {}", args.source));
    let import = Import { name, changes: args.changes.clone(), message, platform: args.platform.clone() };
    let engine = context::engine(global)?;
    let mut body;
    let source = match args.source.as_str() {
        "-" => Source::File(output::standard_input()?),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let host = url.split("://").nth(1).unwrap_or(url).split(['/', '?', '#']).next().unwrap_or(url);
            // The host's certificates and proxies are those of a registry there.
            body = download(url, &registries::without_credentials(host)?).map_err(Error::from)?;
            Source::Reader(&mut body)
        }
        path => Source::Path(Path::new(path)),
    };
    let fresh: Vec<Reference> = import.name.iter().cloned().collect();
    let image = engine.import_image(source, import)?;
    gc::after(ui, &engine, &fresh)?;
    ui.line(&image.digest.to_string());
    Ok(0)
}
