//! `volume`: directories that are kept by name.

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use dhow_engine::volume::{CreateVolume, LOCAL, Volume, VolumeUsage};
use dhow_engine::{Engine, Error};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::args::Global;
use crate::commands::inspect::{self, InspectVolumeArgs};
use crate::commands::prune;
use crate::context::{self, as_owner};
use crate::error::hinted;
use crate::filter::{self, Filter};
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Subcommand)]
pub(crate) enum VolumeCommand {
    /// Make a volume
    Create(Box<CreateArgs>),
    /// Show everything about volumes
    Inspect(InspectVolumeArgs),
    /// List volumes
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Remove volumes that no container uses and nobody gave a name
    Prune(PruneArgs),
    /// Remove volumes
    #[command(visible_alias = "remove")]
    Rm(RmArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Who keeps it
    #[arg(short, long, value_name = "DRIVER", default_value = LOCAL)]
    driver: String,
    /// Set a label
    #[arg(long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// What the driver is told: `type=none`, `o=bind` and `device=/FOLDER` for a folder of this host, or `type=tmpfs`,
    /// `device=tmpfs` and `o=size=64m` for a file system in memory, which is there while a container runs with it
    #[arg(short, long, value_name = "NAME=VALUE")]
    opt: Vec<String>,
    /// Its name [default: a random one]
    #[arg(value_name = "VOLUME")]
    name: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Docker's options for volumes of many hosts.
#[derive(Debug, Args)]
struct ClusterArgs {
    #[arg(long, hide = true)]
    availability: Option<String>,
    #[arg(long, hide = true)]
    group: Option<String>,
    #[arg(long, hide = true)]
    limit_bytes: Option<String>,
    #[arg(long, hide = true)]
    required_bytes: Option<String>,
    #[arg(long, hide = true)]
    scope: Option<String>,
    #[arg(long, hide = true)]
    secret: Vec<String>,
    #[arg(long, hide = true)]
    sharing: Option<String>,
    #[arg(long, hide = true)]
    topology_preferred: Vec<String>,
    #[arg(long, hide = true)]
    topology_required: Vec<String>,
    #[arg(id = "volume_type", long = "type", hide = true)]
    kind: Option<String>,
}

impl ClusterArgs {
    fn refuse(&self) -> Result<()> {
        let one = [
            &self.availability,
            &self.group,
            &self.limit_bytes,
            &self.required_bytes,
            &self.scope,
            &self.sharing,
            &self.kind,
        ];
        let many = [&self.secret, &self.topology_preferred, &self.topology_required];
        if one.iter().any(|given| given.is_some()) || many.iter().any(|given| !given.is_empty()) {
            return Err(hinted(
                "volumes of several hosts are not supported",
                "a volume belongs to this host: `--driver local` and its `--opt` are what there is",
            ));
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Only what fits: `name=TEXT`, `label=NAME[=VALUE]`, `driver=local`, `dangling=true` (used by no container)
    #[arg(short, long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
    #[arg(long, hide = true)]
    cluster: bool,
    /// `table`, `json`, or a Go template such as `{{.Mountpoint}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Do not mind one that does not exist
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Also those with a name
    #[arg(short, long)]
    all: bool,
    /// Only what fits: `label=NAME[=VALUE]`, `label!=NAME[=VALUE]`
    #[arg(long, value_name = "FILTER", value_parser = filter::parse)]
    filter: Vec<Filter>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

const COLUMNS: [(&str, &str); 2] = [("Driver", "DRIVER"), ("Name", "VOLUME NAME")];

pub(crate) fn run(ui: &Ui, global: &Global, command: VolumeCommand) -> Result<u8> {
    match command {
        VolumeCommand::Create(args) => create(ui, global, *args),
        VolumeCommand::Inspect(args) => {
            inspect::run(ui, global, &args.into(), Some(inspect::ObjectKind::Volume))
        }
        VolumeCommand::Ls(args) => list(ui, global, &args),
        VolumeCommand::Prune(args) => as_owner(ui, || prune(ui, global, &args)),
        VolumeCommand::Rm(args) => as_owner(ui, || remove(ui, global, &args)),
    }
}

fn create(ui: &Ui, global: &Global, args: CreateArgs) -> Result<u8> {
    args.cluster.refuse()?;
    let pairs = |list: &[String]| {
        list.iter()
            .map(|text| text.split_once('=').unwrap_or((text, "")))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    };
    let (labels, options) = (pairs(&args.label), pairs(&args.opt));
    let wanted = CreateVolume { name: args.name, driver: args.driver, options, labels };
    ui.line(&context::engine(global)?.create_volume(wanted)?.name);
    Ok(0)
}

fn list(ui: &Ui, global: &Global, args: &LsArgs) -> Result<u8> {
    if args.cluster {
        return Err(hinted("volumes of several hosts are not supported", "leave --cluster out"));
    }
    let engine = context::engine(global)?;
    let users = engine.volume_users()?;
    let mut rows = Vec::new();
    for volume in engine.volumes()? {
        if passes(&args.filter, &volume, users.contains_key(&volume.name))? {
            rows.push(row(&engine, &volume, None)?);
        }
    }
    if args.quiet && args.format.is_none() {
        for row in &rows {
            ui.line(row["Name"].as_str().unwrap_or_default());
        }
        return Ok(0);
    }
    ui.print(&table::render_format(args.format.as_deref(), &COLUMNS, &rows)?);
    Ok(0)
}

/// Whether a volume fits: of several names any one will do, everything else must hold.
fn passes(filters: &[Filter], volume: &Volume, used: bool) -> Result<bool> {
    let mut names = filters.iter().filter(|(key, _)| key == "name").peekable();
    if names.peek().is_some() && !names.any(|(_, part)| volume.name.contains(part.as_str())) {
        return Ok(false);
    }
    for (key, value) in filters {
        let fits = match key.as_str() {
            "name" => true,
            "driver" => value == LOCAL,
            "label" => match value.split_once('=') {
                Some((name, value)) => volume.labels.get(name).is_some_and(|found| found == value),
                None => volume.labels.contains_key(value),
            },
            "dangling" => match value.as_str() {
                "true" | "1" => !used,
                "false" | "0" => used,
                _ => bail!("invalid filter 'dangling=[{value}]'"),
            },
            other => {
                let known = "known here: name, label, driver, dangling";
                return Err(hinted(format!("invalid filter '{other}'"), known));
            }
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The fields of one volume in a list.
pub(crate) fn row(engine: &Engine, volume: &Volume, usage: Option<&VolumeUsage>) -> Result<Value, Error> {
    let unknown = || "N/A".to_owned();
    Ok(json!({
        "Name": volume.name,
        "Driver": LOCAL,
        "Scope": LOCAL,
        "Mountpoint": engine.volume_data(&volume.name)?,
        "Labels": volume.labels,
        "Links": usage.map_or_else(unknown, |usage| usage.links.to_string()),
        "Size": usage.map_or_else(unknown, |usage| units::progress_size(usage.size)),
        "Availability": "N/A",
        "Group": "N/A",
        "Status": "N/A",
    }))
}

/// Everything about one volume, as Docker's Engine API shows it.
pub(crate) fn show(engine: &Engine, name: &str) -> Result<Value, Error> {
    let volume = engine.volume(name)?;
    // Docker shows whole seconds.
    let created = volume.created_at.round(jiff::Unit::Second).unwrap_or(volume.created_at);
    Ok(json!({
        "CreatedAt": created.to_string(),
        "Driver": LOCAL,
        "Labels": volume.labels,
        "Mountpoint": engine.volume_data(&volume.name)?,
        "Name": volume.name,
        "Options": volume.options,
        "Scope": LOCAL,
    }))
}

fn remove(ui: &Ui, global: &Global, args: &RmArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    crate::commands::each(ui, &args.names, |name| {
        engine.remove_volume(name, args.force)?;
        ui.line(name);
        Ok(())
    })
}

fn prune(ui: &Ui, global: &Global, args: &PruneArgs) -> Result<u8> {
    let filters = filter::understand(&args.filter, &["label", "label!"], Timestamp::now())?.filters;
    let which = if args.all { "all local volumes" } else { "anonymous local volumes" };
    let warning = format!("WARNING! This will remove {which} not used by at least one container.");
    if !args.force && !prune::confirmed(ui, &warning)? {
        return Ok(0);
    }
    let pruned = context::engine(global)?.prune_volumes(args.all, &filters)?;
    prune::list_volumes(ui, &pruned);
    prune::total(ui, pruned.reclaimed);
    Ok(0)
}
