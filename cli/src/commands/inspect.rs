//! `inspect`: everything about containers or images, as JSON or by a template.

use anyhow::Result;
use clap::{Args, ValueEnum};
use dhow_engine::images::{Error as ImagesError, Platform};
use dhow_engine::{Engine, Error};
use serde_json::Value;

use crate::args::Global;
use crate::commands::{network, volume};
use crate::context;
use crate::template::Template;
use crate::ui::Ui;

/// `inspect` of one kind of thing.
#[derive(Debug, Args)]
pub(crate) struct InspectVolumeArgs {
    /// `json`, or a Go template such as `{{.Mountpoint}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

impl From<InspectVolumeArgs> for InspectArgs {
    fn from(args: InspectVolumeArgs) -> Self {
        Self {
            format: args.format,
            kind: Some(ObjectKind::Volume),
            platform: None,
            size: false,
            names: args.names,
        }
    }
}

/// `inspect` of one kind of thing.
#[derive(Debug, Args)]
pub(crate) struct InspectNetworkArgs {
    /// `json`, or a Go template such as `{{.Driver}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    #[arg(short, long, hide = true)]
    verbose: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

impl From<InspectNetworkArgs> for InspectArgs {
    fn from(args: InspectNetworkArgs) -> Self {
        Self {
            format: args.format,
            kind: Some(ObjectKind::Network),
            platform: None,
            size: false,
            names: args.names,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// `json`, or a Go template such as `{{.State.Status}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// What the names are [default: containers first, then images, volumes, networks]
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    pub(crate) kind: Option<ObjectKind>,
    /// Show this variant of an image [default: the one that `run` would take]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show what the files of a container take, as `SizeRw` and `SizeRootFs`
    #[arg(short, long)]
    size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "NAME|ID")]
    names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObjectKind {
    Container,
    Image,
    Network,
    Volume,
}

pub(crate) fn run(ui: &Ui, global: &Global, args: &InspectArgs, kind: Option<ObjectKind>) -> Result<u8> {
    let engine = context::engine(global)?;
    let template = match args.format.as_deref() {
        None | Some("json") => None,
        Some(format) => Some(Template::parse(format)?),
    };
    let mut found = Vec::new();
    let mut lines = String::new();
    let code = crate::commands::each(ui, &args.names, |wanted| {
        let object = look_up(&engine, wanted, kind, args)?;
        match &template {
            Some(template) => {
                lines.push_str(&template.render(&object)?);
                lines.push('\n');
            }
            None => found.push(object),
        }
        Ok(())
    })?;
    match (&template, &args.format) {
        (Some(_), _) => ui.print(&lines),
        (None, Some(_)) => ui.line(&Value::Array(found).to_string()),
        (None, None) => ui.line(&indented(&Value::Array(found))),
    }
    Ok(code)
}

fn look_up(
    engine: &Engine,
    wanted: &str,
    kind: Option<ObjectKind>,
    args: &InspectArgs,
) -> Result<Value, Error> {
    let platform = args.platform.as_ref();
    if kind == Some(ObjectKind::Network) {
        return network::show(engine, wanted);
    }
    if kind == Some(ObjectKind::Volume) {
        return volume::show(engine, wanted);
    }
    if kind != Some(ObjectKind::Image) {
        match engine.container(wanted) {
            Err(Error::NoSuchContainer(_)) if kind.is_none() => {}
            other => return engine.inspect_container(&other?, args.size),
        }
    }
    match engine.inspect_image(wanted, platform) {
        Err(Error::Images(ImagesError::NoSuchImage { .. } | ImagesError::InvalidReference { .. }))
            if kind.is_none() =>
        {
            let volume = volume::show(engine, wanted);
            let found = match volume {
                Err(Error::NoSuchVolume(_)) => network::show(engine, wanted),
                other => other,
            };
            found.map_err(|error| match error {
                Error::NoSuchNetwork(_) => Error::NoSuchObject(wanted.to_owned()),
                other => other,
            })
        }
        other => other,
    }
}

/// Docker's four spaces.
fn indented(value: &Value) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
    // Writing a JSON value to memory cannot fail.
    serde::Serialize::serialize(value, &mut serializer).ok();
    String::from_utf8(text).unwrap_or_default()
}
