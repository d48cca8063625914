//! `plugin`: components as a host application has them: their functions, and calls of these.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use dhow_engine::Engine;
use dhow_engine::plugins::{
    CallOptions, Config, Error, Found, Grants, Host, Limits, Plugin, Pool, Sink, Source,
};
use serde_json::json;

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::ui::Ui;
use crate::units;

#[cfg(target_os = "linux")]
mod running;

/// How many calls of a plugin that runs are answered at a time.
const INSTANCES: u32 = 256;

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Call a function of a plugin, and print its answer
    Call(CallArgs),
    /// Show which functions a plugin has, with their types
    Inspect(InspectArgs),
    /// List plugins that run
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "list")]
    Ls(running::LsArgs),
    /// Show what plugins that run have put out
    #[cfg(target_os = "linux")]
    Logs(running::LogsArgs),
    /// Remove plugins, with --force also those that run
    #[cfg(target_os = "linux")]
    #[command(visible_alias = "remove")]
    Rm(running::RmArgs),
    /// Load a plugin and keep it for calls by its name
    #[cfg(target_os = "linux")]
    Run(running::RunArgs),
    /// Show how often plugins that run were called, and how long that took
    #[cfg(target_os = "linux")]
    Stats(running::StatsArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CallArgs {
    /// A plugin that runs, an image, or a file (with a `/` or `.wasm` in its name)
    #[arg(value_name = "PLUGIN|IMAGE|FILE")]
    plugin: String,
    /// Function, or INTERFACE#FUNCTION
    function: String,
    /// Its arguments as WAVE: 1, true, '[1, 2]', '{name: "x"}'; texts may go without quotes
    ///
    /// Of plugins that run, and of native ones, they are JSON: 1, true, '[1, 2]', '{"name": "x"}'.
    #[arg(value_name = "ARG", allow_hyphen_values = true, trailing_var_arg = true)]
    args: Vec<String>,
    /// How long the call may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    timeout: Duration,
    /// Take the arguments as one JSON array, and answer in JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    given: GivenArgs,
}

/// What a plugin is granted, and how much it may use.
#[derive(Debug, Args)]
struct GivenArgs {
    /// How much memory it may use
    #[arg(short, long, value_name = "SIZE", value_parser = units::parse_size)]
    memory: Option<u64>,
    /// How many instructions a call may execute, roughly
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
    /// Grant a variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
}

impl GivenArgs {
    fn grants(&self, output: Sink) -> Result<Grants> {
        let mut grants = Grants::none().output(output);
        if self.clocks {
            grants = grants.clocks();
        }
        if self.random {
            grants = grants.random();
        }
        for rule in &self.allow_net {
            grants = grants.network(rule.parse()?);
        }
        for variable in &self.env {
            let (name, value) = variable.split_once('=').context("--env: a variable is NAME=VALUE")?;
            grants = grants.env(name, value);
        }
        Ok(grants)
    }

    fn limits(&self, deadline: Duration) -> Limits {
        Limits { memory: self.memory, deadline: Some(deadline), fuel: self.fuel, output: None }
    }
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A plugin that runs, an image, or a file (with a `/` or `.wasm` in its name)
    #[arg(value_name = "PLUGIN|IMAGE|FILE")]
    plugin: String,
}

pub(crate) fn run(ui: &Ui, global: &Global, command: &PluginCommand) -> Result<u8> {
    match command {
        PluginCommand::Call(args) => call(ui, global, args),
        PluginCommand::Inspect(args) => inspect(ui, global, args),
        #[cfg(target_os = "linux")]
        PluginCommand::Ls(args) => running::ls(ui, global, args),
        #[cfg(target_os = "linux")]
        PluginCommand::Logs(args) => running::logs(ui, global, args),
        #[cfg(target_os = "linux")]
        PluginCommand::Rm(args) => running::rm(ui, global, args),
        #[cfg(target_os = "linux")]
        PluginCommand::Run(args) => running::run(ui, global, args),
        #[cfg(target_os = "linux")]
        PluginCommand::Stats(args) => running::stats(ui, global, args),
    }
}

fn inspect(ui: &Ui, global: &Global, args: &InspectArgs) -> Result<u8> {
    #[cfg(target_os = "linux")]
    if let Some(told) = running::inspect(global, &args.plugin)? {
        ui.print(&format!("{}\n", serde_json::to_string_pretty(&json!([told]))?));
        return Ok(0);
    }
    let engine = context::engine(global)?;
    let (plugin, found) = load(&engine, &args.plugin, Grants::none(), Limits::default(), Pool::Fresh)?;
    let told =
        |function: &dhow_engine::plugins::Function| json!({ "Name": function.name, "Type": function.ty });
    let functions: Vec<_> = plugin.functions().iter().map(told).collect();
    let mut told = json!({ "Functions": functions });
    if let Some(requests) = found.and_then(|found| found.requests) {
        told["Requests"] = json!(requests);
    }
    ui.print(&format!("{}\n", serde_json::to_string_pretty(&json!([told]))?));
    Ok(0)
}

fn call(ui: &Ui, global: &Global, args: &CallArgs) -> Result<u8> {
    #[cfg(target_os = "linux")]
    if let Some(answer) = running::call(global, args)? {
        ui.print(&answer);
        return Ok(0);
    }
    let grants = args.given.grants(std::sync::Arc::new(|text| {
        use std::io::Write as _;
        // Whoever does not read it does not want it.
        std::io::stderr().write_all(text).ok();
    }))?;
    let engine = context::engine(global)?;
    let (plugin, _) = load(&engine, &args.plugin, grants, args.given.limits(args.timeout), Pool::Fresh)?;
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

fn is_file(name: &str) -> bool {
    name.contains(".wasm") || name.contains(".wat") || name.starts_with(['/', '.'])
}

fn load(
    engine: &Engine,
    name: &str,
    grants: Grants,
    limits: Limits,
    pool: Pool,
) -> Result<(Plugin, Option<Found>)> {
    let instances = if pool == Pool::Fresh { 1 } else { INSTANCES };
    let host = Host::new(Config { cache: Some(engine.compiled_code()), instances, ..Config::default() })?;
    let (loading, found) = if is_file(name) {
        (host.plugin(Source::File(name.into())).name(name), None)
    } else {
        let found = engine.plugin(name)?;
        (found.builder(&host)?, Some(found))
    };
    Ok((loading.grant(grants).limits(limits).pool(pool).load()?, found))
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
