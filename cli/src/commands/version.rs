//! `version`: what this is made of.

use anyhow::Result;
use clap::Args;
use serde_json::json;

use crate::template::Template;
use crate::ui::Ui;

#[derive(Debug, Args)]
pub(crate) struct VersionArgs {
    /// `json`, or a Go template such as `{{.Client.Version}}`
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
}

pub(crate) fn run(ui: &Ui, args: &VersionArgs) -> Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    let wasmtime = dhow_engine::runtime::executor::WASMTIME;
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    let value = json!({
        "Client": { "Version": version, "Wasmtime": wasmtime, "Os": os, "Arch": arch, "Context": "none" },
        "Server": null,
    });
    match args.format.as_deref() {
        None => ui.print(&format!(
            "Dhow\n Version:   {version}\n Wasmtime:  {wasmtime}\n OS/Arch:   {os}/{arch}\n Daemon:    none needed\n"
        )),
        Some("json") => ui.line(&value.to_string()),
        Some(format) => ui.line(&Template::parse(format)?.render(&value)?),
    }
    Ok(0)
}
