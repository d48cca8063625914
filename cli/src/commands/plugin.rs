//! `plugin`: components as a host application has them: their functions, and calls of these.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use dhow_engine::plugins::{CallOptions, Config, Error, Grants, Host, Limits, Plugin, Request, Source};
use serde_json::json;

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Call a function of a plugin, and print its answer
    Call(CallArgs),
    /// Show which functions a plugin has, with their types
    Inspect(InspectArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// Image, or a file (with a `/` or `.wasm` in its name)
    #[arg(value_name = "IMAGE|FILE")]
    plugin: String,
    /// Function, or INTERFACE#FUNCTION
    function: String,
    /// Its arguments as WAVE: 1, true, '[1, 2]', '{name: "x"}'; texts may go without quotes
    #[arg(value_name = "ARG", allow_hyphen_values = true, trailing_var_arg = true)]
    args: Vec<String>,
    /// How long the call may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    timeout: Duration,
    /// How much memory it may use
    #[arg(short, long, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// How many instructions it may execute, roughly
    #[arg(long, value_name = "N")]
    fuel: Option<u64>,
    /// Grant the time
    #[arg(long)]
    clocks: bool,
    /// Grant random numbers
    #[arg(long)]
    random: bool,
    /// Grant connections and requests to a host
    #[arg(long, value_name = "HOST[:PORT]")]
    allow_net: Vec<String>,
    /// Take the arguments as one JSON array, and answer in JSON
    #[arg(long)]
    json: bool,
    /// Grant a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// Image, or a file (with a `/` or `.wasm` in its name)
    #[arg(value_name = "IMAGE|FILE")]
    plugin: String,
}

pub(crate) fn run(ui: &Ui, global: &Global, command: &PluginCommand) -> Result<u8> {
    match command {
        PluginCommand::Call(args) => call(ui, global, args),
        PluginCommand::Inspect(args) => {
            let (plugin, requests) = load(global, &args.plugin, Grants::none(), Limits::default())?;
            let told = |function: &dhow_engine::plugins::Function| json!({ "Name": function.name, "Type": function.ty });
            let functions: Vec<_> = plugin.functions().iter().map(told).collect();
            let mut told = json!({ "Functions": functions });
            if let Some(requests) = requests {
                told["Requests"] = json!(requests);
            }
            ui.print(&format!("{}\n", serde_json::to_string_pretty(&json!([told]))?));
            Ok(0)
        }
    }
}

fn call(ui: &Ui, global: &Global, args: &CallArgs) -> Result<u8> {
    let mut grants = Grants::none().output(std::sync::Arc::new(|text| {
        use std::io::Write as _;
        // Whoever does not read it does not want it.
        std::io::stderr().write_all(text).ok();
    }));
    if args.clocks {
        grants = grants.clocks();
    }
    if args.random {
        grants = grants.random();
    }
    for rule in &args.allow_net {
        grants = grants.network(rule.parse()?);
    }
    for variable in &args.env {
        let (name, value) = variable.split_once('=').context("--env: a variable is NAME=VALUE")?;
        grants = grants.env(name, value);
    }
    let limits = Limits { memory: args.memory, deadline: Some(args.timeout), fuel: args.fuel, output: None };
    let (plugin, _) = load(global, &args.plugin, grants, limits)?;
    let options = CallOptions::default();
    let answer = if args.json {
        let arguments = args.args.first().map_or("[]", String::as_str);
        if args.args.len() > 1 {
            bail!("--json: one array of all arguments, not {} of them", args.args.len());
        }
        plugin.call_json(&options, &args.function, arguments).map(|answer| answer + "\n")
    } else {
        plugin.call_text(&options, &args.function, &args.args)
    };
    let answer = answer.map_err(explained)?;
    ui.print(&answer);
    Ok(0)
}

fn load(global: &Global, name: &str, grants: Grants, limits: Limits) -> Result<(Plugin, Option<Request>)> {
    let engine = context::engine(global)?;
    let is_file = name.contains(".wasm") || name.contains(".wat") || name.starts_with(['/', '.']);
    let host = Host::new(Config { cache: Some(engine.compiled_code()), instances: 1, ..Config::default() })?;
    let (loading, requests) = if is_file {
        (host.plugin(Source::File(name.into())).name(name), None)
    } else {
        let found = engine.plugin(name)?;
        (found.builder(&host)?, found.requests)
    };
    Ok((loading.grant(grants).limits(limits).load()?, requests))
}

/// What to do about a failure.
fn explained(error: Error) -> anyhow::Error {
    match &error {
        Error::Denied { capability } => {
            let hint = match capability.split('/').next().unwrap_or_default() {
                "wasi:clocks" => "grant it with `--clocks`",
                "wasi:random" => "grant it with `--random`",
                "wasi:sockets" | "wasi:http" => "grant it with `--allow-net HOST[:PORT]`",
                _ => "only an application that embeds the plugin can grant it",
            };
            hinted(error.to_string(), hint)
        }
        Error::NoFunction { .. } => {
            hinted(error.to_string(), "`dhow plugin inspect` shows the functions with their types")
        }
        Error::Trap { backtrace, .. } if !backtrace.is_empty() => {
            let lines: Vec<_> = backtrace.iter().map(|frame| format!("    {frame}")).collect();
            anyhow::anyhow!("{error}\n{}", lines.join("\n"))
        }
        _ => error.into(),
    }
}

fn time(text: &str) -> std::result::Result<Duration, String> {
    dhow_engine::duration::parse(text).ok_or_else(|| "no time; `30s` is one".to_owned())
}
