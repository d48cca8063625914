//! `run`: create a container from an image or a Wasm file and stay with it until it ends.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::{ArgAction, Args, ValueEnum};
use dhow_engine::config::Ulimit;
use dhow_engine::container::{CreateOptions, Source};
use dhow_engine::images::{Empty, Error as ImagesError, Matcher, Platform, Reference};
use dhow_engine::logs::LogConfig;
use dhow_engine::mounts::long::MountRequest;
use dhow_engine::mounts::short::Bind;
use dhow_engine::ports::{self, PortMap};
use dhow_engine::record::{Claim, Container};
use dhow_engine::{Config, Engine, Error, HostConfig};

use crate::args::Global;
use crate::client::{ClientArgs, attend};
use crate::commands::pull;
use crate::context;
use crate::error::{WithCode, hinted};
use crate::trust::TrustArgs;
use crate::ui::Ui;
use crate::units;

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
#[derive(Debug, Args)]
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
    /// Mount as `type=bind,source=/here,target=/there,readonly`; the types are `bind`, `volume` and `tmpfs`
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
    /// `none` (loopback only) or `host`
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    network: Option<String>,
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
    trust: TrustArgs,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Image or Wasm file, then the command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE|FILE [COMMAND] [ARG]", hide = true)]
    words: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PullPolicy {
    Always,
    Missing,
    Never,
}

pub(crate) fn run(ui: &Ui, global: &Global, command: &RunCommand) -> Result<u8> {
    let args = &command.args;
    let attached = !command.detach;
    if attached && args.interactive && args.tty && !std::io::stdin().is_terminal() {
        // Docker's words; its code for this is 1.
        let error = hinted("the input device is not a TTY", "leave out -t, or run it from a terminal");
        return Err(WithCode { code: 1, error }.into());
    }
    let streams = command.client.streams(args.interactive, args.tty)?;
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
    let engine = args.trust.apply(context::engine(global)?)?;
    let (container, _claim) = make(ui, &engine, args, true)?;
    ui.line(&container.record.id);
    Ok(0)
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
    if args.network.as_deref() == Some("host") && (args.publish_all || !args.publish.is_empty()) {
        ui.warn("published ports are discarded when using host network mode");
    }
    let options = CreateOptions {
        source,
        name: args.name.clone(),
        platforms,
        config: Config {
            attach_stdin: args.interactive && attached,
            stdin_once: args.interactive && attached,
            attach_stdout: attached,
            attach_stderr: attached,
            ..config(args, what, command)?
        },
        host_config: host_config(args)?,
    };
    // Before the container: a file that cannot be made must not leave one.
    let cidfile = args.cidfile.as_deref().map(CidFile::create).transpose()?;
    let made = create_or_pull(ui, engine, options, platform, args)?;
    if let Some(file) = cidfile {
        file.write(&made.0.record.id)?;
    }
    let is_wasm = made.0.record.kind == dhow_engine::runtime::Kind::Wasm;
    if is_wasm && args.pids_limit.is_some_and(|limit| limit > 0) {
        ui.note("note: --pids-limit changes nothing: a Wasm program has no processes and threads of its own");
    }
    Ok(made)
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
    platform: Option<Platform>,
    args: &RunArgs,
) -> Result<(Container, Claim)> {
    let Source::Image(name) = &options.source else { return Ok(engine.create(options)?) };
    let name = name.clone();
    if args.pull != PullPolicy::Always {
        match engine.create(options.clone()) {
            Err(Error::Images(ImagesError::NoSuchImage { .. } | ImagesError::VariantAbsent { .. }))
                if args.pull == PullPolicy::Missing => {}
            other => return Ok(other?),
        }
        if !args.quiet {
            ui.note(&format!("Unable to find image '{}' locally", familiar(&name)?));
        }
    }
    let reference = Reference::parse(&name).map_err(Error::from)?;
    pull::fetch(ui, engine, &reference, platform, args.quiet)?;
    Ok(engine.create(options)?)
}

fn familiar(name: &str) -> Result<String> {
    Ok(Reference::parse(name).map_err(Error::from)?.familiar())
}

fn config(args: &RunArgs, image: String, command: Vec<String>) -> Result<Config> {
    let env = environment(&args.env_file, &args.env)?;
    let mut labels = BTreeMap::new();
    for label in &args.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        labels.insert(name.to_owned(), value.to_owned());
    }
    let mut exposed_ports = BTreeMap::new();
    for entry in &args.expose {
        exposed_ports.extend(ports::expose(entry)?.into_iter().map(|port| (port, Empty {})));
    }
    // As in Docker: what is published is exposed.
    exposed_ports.extend(port_bindings(args)?.into_keys().map(|port| (port, Empty {})));
    let mut volumes = BTreeMap::new();
    for volume in args.volume.iter().filter(|volume| is_own_volume(volume)) {
        volumes.insert(Bind::parse(volume)?.target, Empty {});
    }
    if let Some(signal) = &args.stop_signal {
        signal.parse::<dhow_engine::runtime::Signal>()?;
    }
    if let Some(directory) = &args.workdir
        && !directory.starts_with('/')
    {
        bail!("the working directory '{directory}' is invalid, it needs to be an absolute path");
    }
    Ok(Config {
        hostname: args.hostname.clone().unwrap_or_default(),
        user: args.user.clone().unwrap_or_default(),
        tty: args.tty,
        open_stdin: args.interactive,
        env,
        cmd: Some(command).filter(|command| !command.is_empty()),
        image,
        working_dir: args.workdir.clone().unwrap_or_default(),
        // Docker: an empty entrypoint removes the image's.
        entrypoint: args
            .entrypoint
            .clone()
            .map(|program| if program.is_empty() { vec![] } else { vec![program] }),
        labels,
        stop_signal: args.stop_signal.clone(),
        volumes,
        stop_timeout: args.stop_timeout,
        exposed_ports,
        ..Config::default()
    })
}

fn host_config(args: &RunArgs) -> Result<HostConfig> {
    let mut tmpfs = BTreeMap::new();
    for entry in &args.tmpfs {
        let (target, options) = entry.split_once(':').unwrap_or((entry, ""));
        tmpfs.insert(target.to_owned(), options.to_owned());
    }
    let ulimits = args.ulimit.iter().map(|limit| Ulimit::parse(limit)).collect::<Result<_, _>>();
    let shm_size = match &args.shm_size {
        Some(text) => {
            units::parse_size(text).with_context(|| format!("invalid value for --shm-size: '{text}'"))?
        }
        None => 0,
    };
    let size = |option: &str, text: &Option<String>| match text {
        Some(text) => {
            units::parse_size(text).with_context(|| format!("invalid value for {option}: '{text}'"))
        }
        None => Ok(0),
    };
    let memory_swap = match args.memory_swap.as_deref() {
        Some("-1") => -1,
        _ => i64::try_from(size("--memory-swap", &args.memory_swap)?)?,
    };
    let timeout = match &args.timeout {
        Some(text) => dhow_engine::duration::parse(text)
            .and_then(|time| u64::try_from(time.as_nanos()).ok())
            .filter(|time| *time > 0)
            .with_context(|| format!("invalid value for --timeout: '{text}' (`30s` is one)"))?,
        None => 0,
    };
    let binds = args.volume.iter().filter(|volume| !is_own_volume(volume));
    let binds = binds.map(|volume| absolute(volume)).collect::<Result<_>>()?;
    let mounts = args.mount.iter().map(|text| MountRequest::parse(text)).collect::<Result<_, _>>()?;
    Ok(HostConfig {
        binds,
        mounts,
        volumes_from: args.volumes_from.clone(),
        tmpfs,
        network_mode: args.network.clone().unwrap_or_else(|| "default".to_owned()),
        port_bindings: port_bindings(args)?,
        publish_all_ports: args.publish_all,
        extra_hosts: args.add_host.clone(),
        dns: args.dns.clone(),
        dns_search: args.dns_search.clone(),
        allow_net: args.allow_net.clone(),
        auto_remove: args.rm,
        readonly_rootfs: args.read_only,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        group_add: args.group_add.clone(),
        security_opt: args.security_opt.clone(),
        ulimits: ulimits.map_err(anyhow::Error::msg)?,
        storage_opt: storage_options(&args.storage_opt)?,
        shm_size,
        invoke: args.invoke.clone(),
        memory: size("--memory", &args.memory)?,
        memory_swap,
        nano_cpus: args.cpus.as_deref().map(nano_cpus).transpose()?.unwrap_or_default(),
        cpu_shares: args.cpu_shares.unwrap_or_default(),
        cpu_period: args.cpu_period.unwrap_or_default(),
        cpu_quota: args.cpu_quota.unwrap_or_default(),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        pids_limit: args.pids_limit,
        fuel: args.fuel,
        timeout,
        log_config: log_config(args)?,
    })
}

fn storage_options(options: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |option: &String| {
        let (name, value) = option.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    let pairs = options.iter().map(|option| {
        pair(option).with_context(|| format!("invalid value for --storage-opt: '{option}' is not NAME=VALUE"))
    });
    pairs.collect()
}

fn log_config(args: &RunArgs) -> Result<LogConfig> {
    let mut log = LogConfig::default();
    if let Some(driver) = &args.log_driver {
        log.driver.clone_from(driver);
    }
    for option in &args.log_opt {
        let (name, value) =
            option.split_once('=').ok_or_else(|| anyhow::anyhow!("invalid log option: {option}"))?;
        log.config.insert(name.to_owned(), value.to_owned());
    }
    Ok(log)
}

fn port_bindings(args: &RunArgs) -> Result<PortMap> {
    let mut bindings = PortMap::new();
    for entry in &args.publish {
        ports::publish(&mut bindings, entry)?;
    }
    Ok(bindings)
}

/// A number of processors in billionths, as Docker reads `--cpus`.
fn nano_cpus(text: &str) -> Result<u64> {
    let invalid = || hinted(format!("invalid value for --cpus: '{text}'"), "`--cpus 0.5` is half of one");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return Err(invalid());
    }
    if fraction.len() > 9 {
        bail!("value is too precise");
    }
    let number = |text: &str| if text.is_empty() { Ok(0) } else { text.parse::<u64>() };
    let whole = number(whole).ok().and_then(|whole| whole.checked_mul(1_000_000_000));
    let fraction = number(&format!("{fraction:0<9}")).ok();
    whole.zip(fraction).and_then(|(whole, part)| whole.checked_add(part)).ok_or_else(invalid)
}

/// Whether a `-v` has no source.
fn is_own_volume(volume: &str) -> bool {
    // A Windows path has a colon of its own.
    !volume.get(2..).unwrap_or_default().contains(':') && !volume.get(..2).unwrap_or(volume).contains(':')
}

/// `./x` and `.` are relative to where the user is, as in Docker's command.
fn absolute(volume: &str) -> Result<String> {
    match volume.split_once(':') {
        Some((source, rest)) if source == "." || source.starts_with("./") || source.starts_with("..") => {
            Ok(format!("{}:{rest}", std::path::absolute(source)?.display()))
        }
        _ => Ok(volume.to_owned()),
    }
}

/// A bare name takes its value from this environment; unset ones stay bare, which removes the image's.
fn from_environment(entry: &str) -> String {
    if entry.contains('=') {
        return entry.to_owned();
    }
    std::env::var(entry).map_or_else(|_| entry.to_owned(), |value| format!("{entry}={value}"))
}

/// The variables of files, then those given one by one.
pub(crate) fn environment(files: &[PathBuf], entries: &[String]) -> Result<Vec<String>> {
    let mut env = Vec::new();
    for file in files {
        env.extend(read_env_file(file)?);
    }
    for entry in entries {
        if entry.is_empty() || entry.starts_with('=') {
            bail!("invalid environment variable: {entry:?}");
        }
        env.push(from_environment(entry));
    }
    Ok(env)
}

fn read_env_file(file: &Path) -> Result<Vec<String>> {
    let text = fs_err::read_to_string(file).with_context(|| format!("open {}", file.display()))?;
    let mut env = Vec::new();
    for line in text.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let name = line.split('=').next().unwrap_or(line);
        if name.is_empty() || name.contains(char::is_whitespace) {
            bail!("invalid env file {}: variable '{name}' contains whitespace or is empty", file.display());
        }
        env.push(from_environment(line));
    }
    Ok(env)
}

/// The file of `--cidfile`. Removed again if no container comes of it.
struct CidFile<'a> {
    path: &'a Path,
    file: Option<std::fs::File>,
}

impl<'a> CidFile<'a> {
    fn create(path: &'a Path) -> Result<Self> {
        let made = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
        match made {
            Ok(file) => Ok(Self { path, file: Some(file) }),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => bail!(
                "container ID file found, make sure the other container isn't running or delete {}",
                path.display()
            ),
            Err(error) => Err(error)
                .with_context(|| format!("failed to create the container ID file {}", path.display())),
        }
    }

    fn write(mut self, id: &str) -> Result<()> {
        use std::io::Write as _;
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.write_all(id.as_bytes()).with_context(|| format!("write {}", self.path.display()))
    }
}

impl Drop for CidFile<'_> {
    fn drop(&mut self) {
        if self.file.is_some() {
            // It was ours and is empty; that it stays is the lesser evil.
            fs_err::remove_file(self.path).ok();
        }
    }
}
