//! `plugin run` and what is done with plugins that run (Linux), and calls of native plugins.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use clap::Args;
use dhow_engine::Engine;
use dhow_engine::plugins::wire::Remote;
use dhow_engine::plugins::{CallOptions, Error, Limits, Pool, RemotePlugin, Request, Running, apart};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{CallArgs, GivenArgs, explained, granted, is_file, load, shown, time, to_stderr};
use crate::args::Global;
use crate::context;
use crate::error::hinted;
use crate::table;
use crate::ui::Ui;
use crate::units;

#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// Its name [default: the last part of the image's or file's name]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Leave it alone as soon as it answers, and print its name
    #[arg(short, long)]
    detach: bool,
    /// How long a call may take
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = time)]
    timeout: Duration,
    /// How many instances are kept and used again; 0 for a fresh one with each call
    #[arg(long, value_name = "N", default_value_t = 0)]
    warm: usize,
    #[command(flatten)]
    given: GivenArgs,
    /// Image, or a file (with a `/` or `.wasm` in its name)
    #[arg(value_name = "IMAGE|FILE")]
    plugin: String,
}

#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// Print only names
    #[arg(short, long)]
    quiet: bool,
    /// `table`, `json`, or a Go template such as `{{.Reference}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Its name
    #[arg(value_name = "PLUGIN")]
    name: String,
}

#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// End those that run
    #[arg(short, long)]
    force: bool,
    /// Names
    #[arg(required = true, value_name = "PLUGIN")]
    names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct StatsArgs {
    /// `table`, `json`, or a Go template such as `{{.Calls}}`
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names [default: all that run]
    #[arg(value_name = "PLUGIN")]
    names: Vec<String>,
}

pub(super) fn run(ui: &Ui, global: &Global, args: &RunArgs) -> Result<u8> {
    context::close_inherited();
    let engine = args.given.engine(global)?;
    let name = args.name.clone().unwrap_or_else(|| short(&args.plugin));
    let native = !is_file(&args.plugin) && engine.is_native_plugin(&args.plugin)?;
    if native && args.warm > 0 {
        bail!("--warm: {} is a Linux program here, which is one process for all calls", args.plugin);
    }
    let reserved = engine.reserve_plugin(&name, &args.plugin)?;
    let serve = |ready: &mut dyn FnMut()| -> Result<()> {
        if native {
            let (limits, grants) = (args.given.native_limits(args.timeout)?, args.given.request()?);
            return Ok(reserved.serve_native(&engine, &args.plugin, &limits, &grants, ready)?);
        }
        let grants = args.given.grants(reserved.log()?)?;
        let pool = match args.warm {
            0 => Pool::Fresh,
            size => Pool::Warm { size, calls: u32::MAX, idle: Duration::from_secs(60) },
        };
        let (plugin, found) = load(&engine, &args.plugin, grants, args.given.limits(args.timeout), pool)?;
        Ok(reserved.serve(&engine, &plugin, found, ready)?)
    };
    if !args.detach {
        let served = serve(&mut || ());
        if served.is_err() {
            engine.remove_plugin(&name, true).ok();
        }
        return served.map(|()| 0);
    }
    // Before anything has made a thread.
    apart(|ready| {
        let served = serve(ready);
        if served.is_err() {
            engine.remove_plugin(&name, true).ok();
        }
        served.map_err(|error| format!("{error:#}"))
    })?;
    ui.line(&name);
    Ok(0)
}

impl GivenArgs {
    /// Limits of a Linux program, which counts no instructions.
    fn native_limits(&self, deadline: Duration) -> Result<Limits> {
        if self.fuel.is_some() {
            bail!("--fuel: instructions are counted in WebAssembly only");
        }
        if self.kv.is_some() {
            bail!("--kv: a Linux program has memory of its own");
        }
        Ok(self.limits(deadline))
    }
}

/// The last part of a name, without its tag or ending.
fn short(name: &str) -> String {
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split([':', '@', '.']).next().unwrap_or(last).to_owned()
}

pub(super) fn ls(ui: &Ui, global: &Global, args: &LsArgs) -> Result<u8> {
    const COLUMNS: [(&str, &str); 4] =
        [("Name", "NAME"), ("Reference", "REFERENCE"), ("Status", "STATUS"), ("Pid", "PID")];
    let engine = context::engine(global)?;
    let plugins = engine.running_plugins()?;
    if args.quiet && args.format.is_none() {
        for plugin in &plugins {
            ui.line(&plugin.name);
        }
        return Ok(0);
    }
    let rows: Vec<_> = plugins.iter().map(row).collect();
    ui.print(&table::render_format(args.format.as_deref(), &COLUMNS, &rows)?);
    Ok(0)
}

fn row(plugin: &Running) -> Value {
    let since = plugin.started_at.map(|at| Timestamp::now().duration_since(at));
    let status = match since {
        Some(since) if plugin.alive => format!("Up {}", units::human_duration(since)),
        None if plugin.alive => "Loading".to_owned(),
        _ => "Dead".to_owned(),
    };
    json!({
        "Name": plugin.name, "Reference": plugin.reference, "Digest": plugin.digest, "Status": status,
        "Pid": plugin.pid.to_string(),
    })
}

pub(super) fn logs(ui: &Ui, global: &Global, args: &LogsArgs) -> Result<u8> {
    let log = context::engine(global)?.plugin_log(&args.name)?;
    ui.print(&String::from_utf8_lossy(&log));
    Ok(0)
}

pub(super) fn rm(ui: &Ui, global: &Global, args: &RmArgs) -> Result<u8> {
    let engine = context::engine(global)?;
    let mut code = 0;
    for name in &args.names {
        match engine.remove_plugin(name, args.force) {
            Ok(()) => ui.line(name),
            Err(error) => {
                ui.error(&error.to_string());
                code = 1;
            }
        }
    }
    Ok(code)
}

pub(super) fn stats(ui: &Ui, global: &Global, args: &StatsArgs) -> Result<u8> {
    const COLUMNS: [(&str, &str); 8] = [
        ("Name", "NAME"),
        ("Calls", "CALLS"),
        ("Errors", "ERRORS"),
        ("Traps", "TRAPS"),
        ("P50", "P50"),
        ("P99", "P99"),
        ("Longest", "LONGEST"),
        ("Memory", "MEMORY"),
    ];
    let engine = context::engine(global)?;
    let plugins = engine.running_plugins()?.into_iter().filter(|plugin| plugin.alive);
    let wanted = |plugin: &Running| args.names.is_empty() || args.names.contains(&plugin.name);
    let plugins: Vec<_> = plugins.filter(wanted).collect();
    if let Some(missing) = args.names.iter().find(|name| !plugins.iter().any(|plugin| plugin.name == **name))
    {
        bail!("no such plugin runs: {missing}");
    }
    let mut rows = Vec::new();
    for plugin in &plugins {
        let Value::Object(told) = ask(&engine.plugin_remote(&plugin.name)?, "stats")? else { continue };
        let count = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or(0);
        let micros = |name: &str| format!("{:?}", Duration::from_micros(count(name)));
        rows.push(json!({
            "Name": plugin.name,
            "Calls": count("calls").to_string(),
            "Errors": count("errors").to_string(),
            "Traps": count("traps").to_string(),
            "Deadlines": count("deadlines").to_string(),
            "Exhausted": count("exhausted").to_string(),
            "Denied": count("denied").to_string(),
            "Cancelled": count("cancelled").to_string(),
            "Refused": count("refused").to_string(),
            "Instances": count("instances").to_string(),
            "Reloads": count("reloads").to_string(),
            "P50": micros("p50"),
            "P99": micros("p99"),
            "Longest": micros("longest"),
            "Busy": micros("busy"),
            "Memory": units::bytes_size(memory(plugin.pid)),
        }));
    }
    ui.print(&table::render_format(args.format.as_deref(), &COLUMNS, &rows)?);
    Ok(0)
}

/// Resident bytes of a process.
fn memory(pid: u32) -> u64 {
    let text = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// What is known of one that runs.
pub(super) fn inspect(global: &Global, name: &str) -> Result<Option<Value>> {
    let engine = context::engine(global)?;
    let Some(plugin) = engine.running_plugin(name).filter(|plugin| plugin.alive) else { return Ok(None) };
    let functions = engine.connect_plugin(name, &Limits::default())?.functions();
    Ok(Some(json!({
        "Name": plugin.name, "Reference": plugin.reference, "Digest": plugin.digest, "Pid": plugin.pid,
        "StartedAt": plugin.started_at, "Functions": shown(&functions),
    })))
}

/// What is known of a native plugin, which is started to be asked.
pub(super) fn inspect_native(
    engine: &Engine,
    reference: &str,
    given: &GivenArgs,
    grants: &Request,
) -> Result<Value> {
    // To be asked it needs nothing.
    let plugin =
        engine.native_plugin(reference, &given.native_limits(Duration::ZERO)?, &Request::default())?;
    let requests = engine.native_requests(reference)?;
    let effective = requests.as_ref().map_or_else(|| grants.clone(), |requests| grants.and(requests));
    let mut told = json!({
        "Kind": "native", "Functions": shown(plugin.functions()), "Grants": granted(&effective),
    });
    if let Some(requests) = requests {
        told["Requests"] = json!(requests);
    }
    Ok(told)
}

/// Calls a plugin that runs, or the native variant of one that has no other; `None` where it is neither.
pub(super) fn call(global: &Global, args: &CallArgs) -> Result<Option<String>> {
    let engine = args.given.engine(global)?;
    if engine.running_plugin(&args.plugin).is_some_and(|plugin| plugin.alive) {
        if !args.given.is_empty() {
            let said = "what a plugin is granted and how much it may use is said when it is started";
            return Err(hinted(format!("{} runs already", args.plugin), said));
        }
        // Its own deadline is the process's that runs it; this one is the call's.
        let limits = Limits { deadline: Some(args.timeout), ..Limits::default() };
        return answer(&engine.connect_plugin(&args.plugin, &limits)?, args).map(Some);
    }
    if is_file(&args.plugin) || !engine.is_native_plugin(&args.plugin)? {
        return Ok(None);
    }
    let limits = args.given.native_limits(args.timeout)?;
    let mut plugin = engine.native_plugin(&args.plugin, &limits, &args.given.request()?)?;
    let answer = answer(&plugin.plugin(&limits)?, args);
    to_stderr(&plugin.end());
    answer.map(Some)
}

fn answer(plugin: &RemotePlugin, args: &CallArgs) -> Result<String> {
    let options = CallOptions::default();
    let answer = if args.json {
        plugin.call_json(&options, &args.function, args.json_arguments()?).map(|answer| answer + "\n")
    } else {
        plugin.call_text(&options, &args.function, &args.args)
    };
    answer.map_err(|error| match error {
        // Here nothing can be granted any more.
        Error::Denied { .. } => {
            hinted(error.to_string(), "what a plugin is granted is said when it is started")
        }
        error => explained(error),
    })
}

fn ask(remote: &Remote, what: &str) -> Result<Value> {
    remote.ask(what).map_err(|failure| anyhow!("{failure}"))
}
