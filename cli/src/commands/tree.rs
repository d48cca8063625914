//! `image tree`: what the layers of an image hold and cost.

use anyhow::Result;
use clap::Args;
use dhow_engine::error::short;
use dhow_engine::image::Inside;
use dhow_engine::images::{LayerReport, Matcher, Platform};
use serde_json::{Value, json};

use crate::args::Global;
use crate::context;
use crate::table;
use crate::template::Template;
use crate::ui::Ui;
use crate::units::human_size;

#[derive(Debug, Args)]
pub(crate) struct TreeArgs {
    /// `json`, or a Go template such as `{{range .Layers}}{{.Wasted}} {{.CreatedBy}}{{println}}{{end}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show so many of each layer's largest files
    #[arg(long, value_name = "NUMBER", default_value_t = 3)]
    largest: usize,
    /// Do not shorten digests and commands
    #[arg(long)]
    no_trunc: bool,
    /// Look into this variant [default: the one that `run` would take]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Name or id
    image: String,
}

/// Longest command that is shown whole.
const WIDEST_COMMAND: usize = 90;

pub(crate) fn run(ui: &Ui, global: &Global, args: &TreeArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let matcher = args.platform.as_ref().map_or_else(Matcher::host, Matcher::only);
    let inside = engine.look_into(&args.image, &matcher, args.largest)?;
    match args.format.as_deref() {
        None => ui.print(&drawn(&inside, args)),
        Some("json") => ui.line(&object(&inside, args).to_string()),
        Some(format) => ui.line(&Template::parse(format)?.render(&object(&inside, args))?),
    }
    Ok(0)
}

fn sum(inside: &Inside, of: impl Fn(&LayerReport) -> u64) -> u64 {
    inside.tree.layers.iter().map(of).sum()
}

fn drawn(inside: &Inside, args: &TreeArgs) -> String {
    let layers = &inside.tree.layers;
    let mut text = format!(
        "{} ({}): {} layer{}, {} packed, {} of files, {} wasted\n",
        args.image,
        inside.image.platform,
        layers.len(),
        if layers.len() == 1 { "" } else { "s" },
        human_size(sum(inside, |layer| layer.compressed)),
        human_size(sum(inside, |layer| layer.size)),
        human_size(sum(inside, |layer| layer.wasted)),
    );
    for (at, module) in inside.image.wasm.iter().enumerate() {
        let is_last = layers.is_empty() && at + 1 == inside.image.wasm.len();
        let branch = if is_last { "└─" } else { "├─" };
        text.push_str(&format!(
            "{branch} module {}  {}\n",
            name(&module.digest.to_string(), args),
            human_size(module.size)
        ));
    }
    for (at, (layer, created_by)) in layers.iter().zip(&inside.created_by).enumerate() {
        let is_last = at + 1 == layers.len();
        let (branch, trunk) = if is_last { ("└─", "   ") } else { ("├─", "│  ") };
        text.push_str(&format!(
            "{branch} {}  {} packed, {} unpacked, {} file{}",
            name(&layer.digest, args),
            human_size(layer.compressed),
            human_size(layer.uncompressed),
            layer.files,
            if layer.files == 1 { "" } else { "s" },
        ));
        text.push_str(&format!(": +{} ~{} -{}", layer.added, layer.replaced, layer.deleted));
        if layer.wasted > 0 {
            text.push_str(&format!(", {} wasted", human_size(layer.wasted)));
        }
        text.push('\n');
        if !created_by.is_empty() {
            text.push_str(&format!("{trunk}{}\n", command(created_by, args)));
        }
        for file in &layer.largest {
            let hidden = if file.visible { "" } else { "  (hidden)" };
            text.push_str(&format!(
                "{trunk}{:>8}  {}{hidden}\n",
                human_size(file.size),
                table::printable(&file.path)
            ));
        }
    }
    text
}

fn name<'d>(digest: &'d str, args: &TreeArgs) -> &'d str {
    if args.no_trunc { digest } else { short(digest) }
}

fn command(text: &str, args: &TreeArgs) -> String {
    let text = table::printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if args.no_trunc || text.chars().count() <= WIDEST_COMMAND {
        return text;
    }
    let cut: String = text.chars().take(WIDEST_COMMAND - 1).collect();
    format!("{cut}…")
}

fn object(inside: &Inside, args: &TreeArgs) -> Value {
    let layers: Vec<Value> = inside
        .tree
        .layers
        .iter()
        .zip(&inside.created_by)
        .map(|(layer, created_by)| {
            json!({
                "Digest": layer.digest,
                "DiffID": layer.diff_id,
                "CreatedBy": created_by,
                "CompressedSize": layer.compressed,
                "UncompressedSize": layer.uncompressed,
                "Entries": layer.entries,
                "Files": layer.files,
                "Size": layer.size,
                "Added": layer.added,
                "Replaced": layer.replaced,
                "Deleted": layer.deleted,
                "Wasted": layer.wasted,
                "Largest": layer.largest.iter().map(|file| json!({
                    "Path": file.path,
                    "Size": file.size,
                    "Visible": file.visible,
                })).collect::<Vec<_>>(),
            })
        })
        .collect();
    json!({
        "Image": args.image,
        "Digest": inside.image.manifest.digest.to_string(),
        "Platform": inside.image.platform.to_string(),
        "CompressedSize": sum(inside, |layer| layer.compressed),
        "Size": sum(inside, |layer| layer.size),
        "Wasted": sum(inside, |layer| layer.wasted),
        "Module": inside.image.wasm.first().map(|module| json!({
            "Digest": module.digest.to_string(),
            "Size": module.size,
        })),
        "Layers": layers,
    })
}
