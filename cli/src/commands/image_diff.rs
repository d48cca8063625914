//! `image diff`: how two images differ, in their settings and file by file.

use anyhow::Result;
use clap::Args;
use dhow_engine::image::{Comparison, SettingChange};
use dhow_engine::images::{Aspect, Change, ChangeKind, Matcher, NodeInfo, Platform};
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::error::WithCode;
use crate::table;
use crate::ui::Ui;
use crate::units::human_size;

#[derive(Debug, Args)]
pub(crate) struct DiffArgs {
    /// `table`, `json`, or a Go template such as `{{.Change}} {{.Path}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Modification times are a difference too
    #[arg(long)]
    times: bool,
    /// Compare these variants [default: those that `run` would take]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Name or id of the first image
    #[arg(value_name = "IMAGE")]
    first: String,
    /// Name or id of the second image
    #[arg(value_name = "IMAGE")]
    second: String,
    /// Only this path and what is below it, and no settings
    path: Option<String>,
}

const COLUMNS: [(&str, &str); 4] =
    [("Change", "CHANGE"), ("Scope", "SCOPE"), ("Path", "PATH"), ("Details", "DETAILS")];

pub(crate) fn run(ui: &Ui, global: &Global, args: &DiffArgs) -> Result<u8> {
    let compare = || -> Result<Comparison> {
        let engine = context::engine(global)?;
        let matcher = args.platform.as_ref().map_or_else(Matcher::host, Matcher::only);
        Ok(engine.compare_images(&args.first, &args.second, &matcher, args.times)?)
    };
    let found = compare().map_err(|error| WithCode { code: 2, error })?;
    let mut rows = Vec::new();
    if args.path.is_none() {
        rows.extend(found.settings.iter().map(setting));
    }
    let below = args.path.as_deref().map(|path| format!("/{}", path.trim_matches('/')));
    let is_wanted = |change: &&Change| {
        below.as_deref().is_none_or(|below| {
            let rest = change.path.strip_prefix(below);
            below == "/" || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    rows.extend(found.files.iter().filter(is_wanted).map(file));
    let code = u8::from(!rows.is_empty());
    match args.format.as_deref() {
        None => ui.print(&rows.iter().map(line).collect::<String>()),
        format => ui.print(&table::render_format(format, &COLUMNS, &rows)?),
    }
    Ok(code)
}

fn line(row: &Value) -> String {
    let text = |key: &str| table::printable(row[key].as_str().unwrap_or_default());
    let scope = if row["Scope"] == "setting" { "setting " } else { "" };
    match text("Details") {
        details if details.is_empty() => format!("{} {scope}{}\n", text("Change"), text("Path")),
        details => format!("{} {scope}{} ({details})\n", text("Change"), text("Path")),
    }
}

fn setting(change: &SettingChange) -> Value {
    let (letter, details) = match (&change.before, &change.after) {
        (Value::Null, after) => ("A", after.to_string()),
        (before, Value::Null) => ("D", before.to_string()),
        (before, after) => ("C", format!("{before} -> {after}")),
    };
    json!({
        "Change": letter,
        "Scope": "setting",
        "Path": change.name,
        "Details": details,
        "Before": change.before,
        "After": change.after,
    })
}

fn file(change: &Change) -> Value {
    let letter = match change.kind {
        ChangeKind::Added => "A",
        ChangeKind::Changed => "C",
        ChangeKind::Removed => "D",
    };
    let details: Vec<String> = match (&change.before, &change.after) {
        (Some(before), Some(after)) => {
            change.aspects.iter().map(|aspect| detail(*aspect, before, after)).collect()
        }
        _ => Vec::new(),
    };
    json!({
        "Change": letter,
        "Scope": "file",
        "Path": change.path,
        "Details": details.join(", "),
        "Aspects": change.aspects.iter().map(|aspect| aspect.name()).collect::<Vec<_>>(),
        "Before": change.before.as_ref().map(node),
        "After": change.after.as_ref().map(node),
    })
}

fn detail(aspect: Aspect, before: &NodeInfo, after: &NodeInfo) -> String {
    let from_to =
        |show: &dyn Fn(&NodeInfo) -> String| format!("{} {} -> {}", aspect.name(), show(before), show(after));
    match aspect {
        Aspect::Type => from_to(&|node| node.kind.to_owned()),
        Aspect::Mode => from_to(&|node| format!("{:o}", node.mode)),
        Aspect::Owner => from_to(&|node| format!("{}:{}", node.uid, node.gid)),
        Aspect::Size => from_to(&|node| human_size(node.size)),
        Aspect::Target => from_to(&|node| node.target.clone().unwrap_or_default()),
        Aspect::Device => {
            from_to(&|node| node.device.map_or_else(String::new, |(major, minor)| format!("{major}:{minor}")))
        }
        Aspect::Content | Aspect::Xattrs | Aspect::Time => aspect.name().to_owned(),
    }
}

fn node(node: &NodeInfo) -> Value {
    json!({
        "Type": node.kind,
        "Mode": format!("{:04o}", node.mode),
        "UID": node.uid,
        "GID": node.gid,
        "Size": node.size,
        "ModTime": jiff::Timestamp::new(node.mtime.0, i32::try_from(node.mtime.1).unwrap_or_default()).ok().map(|time| time.to_string()),
        "Target": node.target,
        "Device": node.device.map(|(major, minor)| format!("{major}:{minor}")),
        "Xattrs": node.xattrs.iter().map(|(name, _)| String::from_utf8_lossy(name)).collect::<Vec<_>>(),
    })
}
