//! `plugin`: components as a host application has them: their functions, and calls of these.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use dhow_engine::Engine;
use dhow_engine::mounts::short::Bind;
use dhow_engine::plugins::{
    Builder, CallOptions, Config, Directory, Error, Found, Function, Grants, Host, Import, Inspection,
    Limits, Plugin, Pool, Provider, Request, Sink, Source, Variables,
};
use serde_json::json;

use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::trust::TrustArgs;
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
    /// Show which functions a plugin has, with their types, what it imports and asks for, and what it would get
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

impl CallArgs {
    fn json_arguments(&self) -> Result<&str> {
        match self.args.as_slice() {
            [] => Ok("[]"),
            [array] => Ok(array),
            more => bail!("--json: one array of all arguments, not {} of them", more.len()),
        }
    }
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
    /// Grant a folder of this host; with `:ro` only for reading
    #[arg(short, long, value_name = "FOLDER:PLACE[:ro]")]
    volume: Vec<String>,
    /// Grant so many bytes to remember, from call to call of a plugin that runs
    #[arg(long, value_name = "SIZE", value_parser = units::parse_size)]
    kv: Option<u64>,
    #[command(flatten)]
    trust: TrustArgs,
}

impl GivenArgs {
    /// The engine, under the policy of signatures.
    fn engine(&self, global: &Global) -> Result<Engine> {
        self.trust.apply(context::engine(global)?)
    }

    /// Whether nothing is granted and limited.
    fn is_empty(&self) -> bool {
        let Self { memory, fuel, clocks, random, allow_net, env, volume, kv, trust: _ } = self;
        let limited = memory.is_some() || fuel.is_some() || kv.is_some();
        !limited && !clocks && !random && allow_net.is_empty() && env.is_empty() && volume.is_empty()
    }

    /// What is granted.
    fn request(&self) -> Result<Request> {
        let variable = |text: &String| {
            let (name, value) = text.split_once('=').context("--env: a variable is NAME=VALUE")?;
            Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Request {
            clocks: self.clocks,
            random: self.random,
            output: true,
            env: Variables::Values(self.env.iter().map(variable).collect::<Result<_>>()?),
            directories: self.volume.iter().map(|text| folder(text)).collect::<Result<_>>()?,
            network: self.allow_net.clone(),
            kv: usize::try_from(self.kv.unwrap_or(0))?,
        })
    }

    fn grants(&self, output: Sink) -> Result<Grants> {
        Ok(self.request()?.grants(Some(output))?)
    }

    fn limits(&self, deadline: Duration) -> Limits {
        Limits { memory: self.memory, deadline: Some(deadline), fuel: self.fuel, output: None }
    }
}

/// A folder that is granted, as `-v` has it.
fn folder(text: &str) -> Result<Directory> {
    // What begins with a point is a path of this folder.
    let whole = if text.starts_with('.') {
        std::path::absolute(text)?.display().to_string()
    } else {
        text.to_owned()
    };
    let Bind { source, target, mode, .. } = Bind::parse(&whole)?;
    let source = source.filter(|source| std::path::Path::new(source).is_absolute());
    let Some(source) = source else {
        bail!("--volume {text}: a plugin gets folders, such as `./data:/data:ro`, and no volumes");
    };
    let write = match mode.as_str() {
        "" | "rw" => true,
        "ro" => false,
        other => bail!("--volume {text}: {other} is neither `ro` nor `rw`"),
    };
    let path = std::path::absolute(source)?;
    fs_err::read_dir(&path)?;
    Ok(Directory { path, name: target, write })
}

#[derive(Debug, Args)]
pub(crate) struct InspectArgs {
    /// A plugin that runs, an image, or a file (with a `/` or `.wasm` in its name)
    #[arg(value_name = "PLUGIN|IMAGE|FILE")]
    plugin: String,
    /// What it would get of these is shown, too
    #[command(flatten)]
    given: GivenArgs,
}

pub(crate) fn run(ui: &Ui, global: &Global, command: &PluginCommand) -> Result<u8> {
    // What native plugins have left whose callers were killed.
    #[cfg(target_os = "linux")]
    context::engine(global)?.sweep_plugins(true).ok();
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
    let engine = args.given.engine(global)?;
    let grants = args.given.request()?;
    #[cfg(target_os = "linux")]
    if !is_file(&args.plugin) && engine.is_native_plugin(&args.plugin)? {
        let told = running::inspect_native(&engine, &args.plugin, &args.given, &grants)?;
        ui.print(&format!("{}\n", serde_json::to_string_pretty(&json!([told]))?));
        return Ok(0);
    }
    let host = host(&engine, 1)?;
    let (loading, found) = begin(&engine, &host, &args.plugin)?;
    let Inspection { functions, imports } = loading.grant(grants.grants(Some(nowhere()))?).inspect()?;
    let from = |import: &Import| {
        let provider = match import.provider {
            Provider::Granted => "granted",
            Provider::Denied => "denied",
            Provider::Host => "host",
            _ => "always",
        };
        json!({ "Name": import.name, "Provider": provider })
    };
    let mut told = json!({
        "Kind": "wasm",
        "Functions": shown(&functions),
        "Imports": imports.iter().map(from).collect::<Vec<_>>(),
    });
    let requests = found.as_ref().and_then(|found| found.requests.as_ref());
    let effective = requests.map_or_else(|| grants.clone(), |requests| grants.and(requests));
    told["Grants"] = granted(&effective);
    if let Some(requests) = requests {
        told["Requests"] = json!(requests);
    }
    if let Some(found) = &found {
        told["Digest"] = json!(found.digest);
    }
    ui.print(&format!("{}\n", serde_json::to_string_pretty(&json!([told]))?));
    Ok(0)
}

fn shown(functions: &[Function]) -> Vec<serde_json::Value> {
    functions.iter().map(|function| json!({ "Name": function.name, "Type": function.ty })).collect()
}

/// What is granted, without the values of variables, which may be secrets.
fn granted(grants: &Request) -> serde_json::Value {
    let env = match &grants.env {
        Variables::Values(values) => Variables::Names(values.keys().cloned().collect()),
        names @ Variables::Names(_) => names.clone(),
    };
    json!(Request { env, ..grants.clone() })
}

/// Where the output goes of what is called.
fn to_stderr(text: &[u8]) {
    use std::io::Write as _;
    // Whoever does not read it does not want it.
    std::io::stderr().write_all(text).ok();
}

/// Where the output goes of what is not called.
fn nowhere() -> Sink {
    std::sync::Arc::new(|_| ())
}

fn call(ui: &Ui, global: &Global, args: &CallArgs) -> Result<u8> {
    #[cfg(target_os = "linux")]
    if let Some(answer) = running::call(global, args)? {
        ui.print(&answer);
        return Ok(0);
    }
    let grants = args.given.grants(std::sync::Arc::new(to_stderr))?;
    let engine = args.given.engine(global)?;
    let (plugin, _) = load(&engine, &args.plugin, grants, args.given.limits(args.timeout), Pool::Fresh)?;
    let options = CallOptions::default();
    let answer = if args.json {
        plugin.call_json(&options, &args.function, args.json_arguments()?).map(|answer| answer + "\n")
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

fn host(engine: &Engine, instances: u32) -> Result<Host> {
    let scratch = Some(engine.plugin_scratch()?);
    let config = Config { cache: Some(engine.compiled_code()), instances, scratch, ..Config::default() };
    Ok(Host::new(config)?)
}

fn begin(engine: &Engine, host: &Host, name: &str) -> Result<(Builder, Option<Found>)> {
    if is_file(name) {
        return Ok((host.plugin(Source::File(name.into())).name(name), None));
    }
    let found = engine.plugin(name)?;
    Ok((found.builder(host)?, Some(found)))
}

fn load(
    engine: &Engine,
    name: &str,
    grants: Grants,
    limits: Limits,
    pool: Pool,
) -> Result<(Plugin, Option<Found>)> {
    let instances = if pool == Pool::Fresh { 1 } else { INSTANCES };
    let host = host(engine, instances)?;
    let (loading, found) = begin(engine, &host, name)?;
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
                "dhow:plugin" => "grant it with `--kv SIZE`",
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
