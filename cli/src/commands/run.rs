//! `run`: create a container from an image or a Wasm file and stay with it until it ends.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{ArgAction, Args, ValueEnum};
use dhow_engine::container::{CreateOptions, Source};
use dhow_engine::images::{Error as ImagesError, Matcher, Platform, Reference};
use dhow_engine::record::{Claim, Container};
use dhow_engine::{Config, Engine, Error};

use crate::args::Global;
use crate::client::{ClientArgs, attend};
use crate::commands::pull;
use crate::context;
use crate::error::{WithCode, hinted};
use crate::trust::TrustArgs;
use crate::ui::Ui;

mod cidfile;
pub(crate) mod environment;
pub(crate) mod limits;
mod more;
pub(crate) mod networks;
pub(crate) mod plain;
mod settings;

use cidfile::CidFile;
use settings::{config, host_config};
pub(crate) use settings::{default_network, security_option};

#[derive(Debug, Args)]
#[command(disable_help_flag = true)] // `-h` is the host name, as in Docker.
#[command(override_usage = "dhow run [OPTIONS] IMAGE|FILE.wasm [COMMAND] [ARG...]")]
#[command(after_help = "Examples:
  dhow run ./hello.wasm world                   a Wasm module or component, no image needed
  dhow run --rm --invoke add ./math.wasm 2 3    one function of a module
  dhow run --rm hello:1 a b c                   an image; its Wasm variant where there is one
  dhow run --rm --platform linux/amd64 hello:1  the native variant of the same image
  dhow run --rm -it debian bash                 a shell
  dhow run -d --name web -p 8080:80 web:1       in the background: see `dhow logs`, `dhow stop`
  dhow run --rm -v \"$PWD\":/src:ro -w /src IMAGE make")]
pub(crate) struct RunCommand {
    /// Run in the background and print the container's id
    #[arg(short, long)]
    detach: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    args: RunArgs,
}

#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
#[command(override_usage = "dhow create [OPTIONS] IMAGE|FILE.wasm [COMMAND] [ARG...]")]
#[command(after_help = "The options are those of `dhow run`. `dhow start` starts what this makes.")]
pub(crate) struct CreateCommand {
    #[command(flatten)]
    args: RunArgs,
}

/// What a container is made of and with.
#[derive(Debug, Default, Args)]
pub(crate) struct RunArgs {
    /// Keep standard input open
    #[arg(short, long)]
    interactive: bool,
    /// Allocate a terminal
    #[arg(short, long)]
    tty: bool,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Variant of the image: `wasi/wasm`, `linux/amd64`, … [default: Wasm where there is one, else native]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// When to pull the image
    #[arg(long, value_enum, default_value_t = PullPolicy::Missing)]
    pull: PullPolicy,
    /// Replace the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Call a function that a Wasm program exports, with the arguments as numbers, and print its results
    #[arg(long, value_name = "FUNCTION")]
    invoke: Option<String>,
    /// Set an environment variable; a bare NAME is taken from this environment
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// Working directory inside
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User, and group, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Additional groups
    #[arg(long, value_name = "GROUP")]
    group_add: Vec<String>,
    /// Host name inside [default: the short id]
    #[arg(short = 'h', long)]
    hostname: Option<String>,
    /// Mount a folder or file of this machine, or a volume; without a source a volume of the container's own
    #[arg(short, long, value_name = "[SOURCE:]TARGET[:ro]")]
    volume: Vec<String>,
    /// Mount as `type=bind,source=/here,target=/there,readonly`; the types are `bind`, `volume`, `tmpfs` and `image`
    #[arg(long, value_name = "KEY=VALUE,...")]
    mount: Vec<String>,
    /// Mount what is mounted in another container
    #[arg(long, value_name = "CONTAINER[:ro]")]
    volumes_from: Vec<String>,
    /// Mount a file system in memory
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// `files=kernel`: the kernel's overlay puts a Wasm program's files together, not Dhow's union (Linux, as root)
    #[arg(long, value_name = "NAME=VALUE")]
    storage_opt: Vec<String>,
    /// Size of /dev/shm
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// `none` (loopback only), `host`, `bridge`, a network of `dhow network create`, or `container:NAME` [default: `bridge`
    /// for native containers of root; for WebAssembly what `-p` and `--allow-net` open] [env: DHOW_NETWORK]
    ///
    /// May be given several times, and in full as `name=NETWORK,alias=NAME,ip=ADDRESS,ip6=ADDRESS,mac-address=ADDRESS,
    /// gw-priority=NUMBER`; the network with the highest priority leads to everywhere else.
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Vec<String>,
    /// Another name for the container in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    network_alias: Vec<String>,
    /// Address in its network, which must have been made with `--subnet`
    #[arg(long, value_name = "IP")]
    ip: Option<std::net::Ipv4Addr>,
    /// Address of IPv6 in its network
    #[arg(long, value_name = "IP")]
    ip6: Option<std::net::Ipv6Addr>,
    /// Hardware address in its network
    #[arg(long, value_name = "ADDRESS")]
    mac_address: Option<String>,
    /// Another container by a name that only this one has for it; in the default network it must run
    #[arg(long, value_name = "CONTAINER[:ALIAS]")]
    link: Vec<String>,
    /// Publish ports of the container on this host
    #[arg(short, long, value_name = "[[IP:]PORT:]PORT[/PROTO]")]
    publish: Vec<String>,
    /// Publish all exposed ports, each on any free one of this host
    #[arg(short = 'P', long)]
    publish_all: bool,
    /// Say that the program listens on a port, or a range of them
    #[arg(long, value_name = "PORT[/PROTO]")]
    expose: Vec<String>,
    /// Let a Wasm program connect to a host, a domain or a network, or to everything public
    ///
    /// RULE is `*`, `example.com`, `*.example.com`, `192.0.2.7` or `10.0.0.0/8`, each with or without `:PORT`.
    /// Addresses of this machine and of private networks need a rule that is an address or a network, or `localhost`.
    #[arg(long, value_name = "RULE")]
    allow_net: Vec<String>,
    /// Give a name an address
    #[arg(long, value_name = "NAME:IP")]
    add_host: Vec<String>,
    /// Server to ask for names [default: this host's]
    #[arg(long, value_name = "IP")]
    dns: Vec<String>,
    /// Domain to look for short names in
    #[arg(long, value_name = "DOMAIN")]
    dns_search: Vec<String>,
    /// Tell the program's resolver something, as `ndots:2`
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    dns_option: Vec<String>,
    /// Add a Linux capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a Linux capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// `no-new-privileges`, `seccomp=unconfined`
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Most memory; for a Wasm program that of its memories and tables
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Most memory and swap together; -1 for any amount of swap
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Most processors, as `0.5`
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<String>,
    /// Weight against other containers, 1024 if all are equal
    #[arg(short = 'c', long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// Time in which the quota may be used
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Time of a processor in each period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors to run on, as `0-2,7`
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Most processes and threads, -1 for any number; a Wasm program has only one
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Most instructions of a Wasm program, about; it ends with exit code 152
    #[arg(long, value_name = "NUMBER")]
    fuel: Option<u64>,
    /// Longest run of a Wasm program, as `30s` or `1h30m`; it ends with exit code 124
    #[arg(long, value_name = "DURATION")]
    timeout: Option<String>,
    /// Limit of the process, as `nofile=1024:2048`
    #[arg(long, value_name = "TYPE=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Set a label
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    label: Vec<String>,
    /// Signal that `stop` sends
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// Seconds that `stop` waits before it kills [default: 10]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    stop_timeout: Option<i64>,
    /// What becomes of the output: `json-file` or `none`
    #[arg(long, value_name = "DRIVER")]
    log_driver: Option<String>,
    /// `max-size=10m`, `max-file=3`
    #[arg(long, value_name = "NAME=VALUE")]
    log_opt: Vec<String>,
    /// Write the container's id to a file
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
    /// Do not print progress of a pull
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    more: more::MoreArgs,
    #[command(flatten)]
    trust: TrustArgs,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Image or Wasm file, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE|FILE [COMMAND] [ARG]", hide = true)]
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    Always,
    #[default]
    Missing,
    Never,
}

pub(crate) fn run(ui: &Ui, global: &Global, command: &RunCommand) -> Result<u8> {
    let args = &command.args;
    let attached = !command.detach;
    if !attached {
        context::close_inherited();
    }
    if !attached && !args.more.attach.is_empty() {
        return Err(hinted(
            "conflicting options: cannot specify both --attach and --detach",
            "leave one of them out",
        ));
    }
    args.more.refuse()?;
    if attached && args.interactive && args.tty && !std::io::stdin().is_terminal() {
        // Docker's words; its code for this is 1.
        let error = hinted("the input device is not a TTY", "leave out -t, or run it from a terminal");
        return Err(WithCode { code: 1, error }.into());
    }
    let mut streams = command.client.streams(args.interactive && args.more.attaches("stdin"), args.tty)?;
    streams.outputs = ["stdout", "stderr"].map(|stream| args.more.attaches(stream));
    let engine = args.trust.apply(context::engine(global)?)?;
    let (container, claim) = make(ui, &engine, args, attached)?;
    if attached {
        return attend(ui, &engine, &container, streams, |streams| {
            Ok(engine.start_attached(&container, claim, streams)?)
        });
    }
    // As with Docker the id is told even if the program cannot be started.
    ui.line(&container.record.id);
    engine.start(&container, claim)?;
    Ok(0)
}

pub(crate) fn create(ui: &Ui, global: &Global, command: &CreateCommand) -> Result<u8> {
    let args = &command.args;
    args.more.refuse().map_err(of_flag)?;
    let engine = args.trust.apply(context::engine(global)?)?;
    let (container, _claim) = make(ui, &engine, args, true).map_err(of_flag)?;
    engine.keep_created(&container)?;
    ui.line(&container.record.id);
    Ok(0)
}

/// What Docker's command says of a flag itself is 125 of `create`, too; the rest is its engine's, and 1.
fn of_flag(error: anyhow::Error) -> anyhow::Error {
    let text = error.to_string();
    let is_flag = text.starts_with("invalid argument ")
        || (text.starts_with("--") && text.contains(": invalid ") && !text.starts_with("--ipc:"));
    if is_flag { crate::error::of_run(error) } else { error }
}

/// Makes the container. `attached`: whoever asks for it wants its streams.
fn make(ui: &Ui, engine: &Engine, args: &RunArgs, attached: bool) -> Result<(Container, Claim)> {
    let mut words = args.words.iter().cloned();
    let what = words.next().unwrap_or_default();
    let command: Vec<String> = words.collect();
    let source = source(&what);
    let (platforms, platform) = match &args.platform {
        Some(text) => {
            let platform: Platform = text.parse()?;
            (Matcher::only(&platform), Some(platform))
        }
        None => (Matcher::host(), None),
    };
    if args.network.first().is_some_and(|network| network == "host")
        && (args.publish_all || !args.publish.is_empty())
    {
        ui.warn("published ports are discarded when using host network mode");
    }
    let asked = config(args, what, command).and_then(|config| {
        Ok(CreateOptions {
            source,
            name: args.name.clone(),
            platforms,
            config: Config {
                attach_stdin: args.interactive && attached && args.more.attaches("stdin"),
                stdin_once: args.interactive && attached && args.more.attaches("stdin"),
                attach_stdout: attached && args.more.attaches("stdout"),
                attach_stderr: attached && args.more.attaches("stderr"),
                ..config
            },
            host_config: host_config(args)?,
            default_network: default_network(),
            networks: networks::memberships(args)?,
        })
    });
    // What cannot even be asked for is 125 of `create`, too, as Docker's command has it; the rest is the engine's.
    let is_engines = |error: &anyhow::Error| error.to_string().starts_with("invalid restart policy '");
    let options =
        asked.map_err(|error| if is_engines(&error) { error } else { crate::error::of_run(error) })?;
    settings::refuse(args)?;
    // Before the container: a file that cannot be made must not leave one.
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let made = create_or_pull(ui, engine, options, platform.as_ref(), args)?;
    if let Some(file) = cidfile {
        file.write(&made.0.record.id)?;
    }
    let is_wasm = made.0.record.kind == dhow_engine::runtime::Kind::Wasm;
    if is_wasm {
        note_without_effect(ui, args);
    }
    Ok(made)
}

/// What is accepted for the sake of images with both kinds, and means nothing to a Wasm program, is not passed over in
/// silence.
fn note_without_effect(ui: &Ui, args: &RunArgs) {
    let no_processes = "a Wasm program has no processes and threads of its own";
    let no_rights = "a Wasm program has no rights on this machine that could be more or less";
    for (option, given, why) in [
        ("--pids-limit", args.pids_limit.is_some_and(|limit| limit > 0), no_processes),
        ("--init", args.more.has_init(), no_processes),
        ("--cap-add", !args.cap_add.is_empty(), no_rights),
        ("--group-add", !args.group_add.is_empty(), no_rights),
        ("--shm-size", args.shm_size.is_some(), "a Wasm program has no /dev/shm"),
        ("--oom-score-adj", args.more.has_oom_score(), "a Wasm program that lacks memory ends alone"),
    ] {
        if given {
            ui.note(&format!("note: {option} changes nothing: {why}"));
        }
    }
}

/// A path (`./x`, `/x`, `x.wasm` if there is such a file) is a Wasm file; everything else names an image.
fn source(what: &str) -> Source {
    let path = Path::new(what);
    let looks_like_path = what.starts_with(['.', '/']) || path.is_absolute() || what.contains('\\');
    let has_ending = path.extension().is_some_and(|ending| ending == "wasm" || ending == "wat");
    if looks_like_path || (has_ending && path.is_file()) {
        Source::Module(path.to_owned())
    } else {
        Source::Image(what.to_owned())
    }
}

/// Creates the container, after a pull where the policy wants one. The image is looked up once when it is here.
fn create_or_pull(
    ui: &Ui,
    engine: &Engine,
    options: CreateOptions,
    platform: Option<&Platform>,
    args: &RunArgs,
) -> Result<(Container, Claim)> {
    let Source::Image(name) = &options.source else { return Ok(engine.create(options)?) };
    let name = name.clone();
    if args.pull != PullPolicy::Always {
        match engine.create(options.clone()) {
            Err(error) if args.pull == PullPolicy::Missing && is_absent(&error) => {}
            other => return Ok(other?),
        }
        if !args.quiet {
            ui.note(&format!("Unable to find image '{}' locally", familiar(&name)?));
        }
    }
    let reference = Reference::parse(&name).map_err(Error::from)?;
    for _ in 0..PULLS {
        pull::fetch(ui, engine, &reference, platform.cloned(), args.quiet)?;
        match engine.create(options.clone()) {
            Err(error) if is_absent(&error) => {}
            other => return Ok(other?),
        }
    }
    Ok(engine.create(options)?)
}

/// How often an image is pulled that somebody removes before a container has it.
const PULLS: usize = 5;

/// Whether a pull would help.
fn is_absent(error: &Error) -> bool {
    matches!(error, Error::Images(ImagesError::NoSuchImage { .. } | ImagesError::VariantAbsent { .. }))
}

fn familiar(name: &str) -> Result<String> {
    Ok(Reference::parse(name).map_err(Error::from)?.familiar())
}
