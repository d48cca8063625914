//! What the flags of `run` and `create` say, as the settings of a container.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, anyhow, bail};
use dhow_engine::config::Ulimit;
use dhow_engine::images::Empty;
use dhow_engine::logs::LogConfig;
use dhow_engine::mounts::long::MountRequest;
use dhow_engine::mounts::short::Bind;
use dhow_engine::ports::{self, PortMap};
use dhow_engine::{Config, HostConfig};

use super::RunArgs;
use super::environment::environment;
use super::limits::{memory_swap, nano_cpus, size};
use crate::error::{hinted, reason};
use crate::units;

pub(super) fn config(args: &RunArgs, image: String, command: Vec<String>) -> Result<Config> {
    let env = environment(&args.env_file, &args.env)?;
    let mut labels = BTreeMap::new();
    for label in &args.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        if name.is_empty() {
            let words = format!("invalid argument \"{label}\" for \"-l, --label\" flag: invalid label");
            return Err(hinted(
                format!("{words} '{label}': empty name"),
                "a label is `NAME` or `NAME=VALUE`",
            ));
        }
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
    let mut config = Config {
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
    };
    args.more.set_config(&mut config)?;
    Ok(config)
}

/// What Docker's daemon refuses, not its command, which makes another exit code of `create`.
pub(super) fn refuse(args: &RunArgs) -> Result<()> {
    if let Some(signal) = &args.stop_signal {
        signal.parse::<dhow_engine::runtime::Signal>()?;
    }
    if let Some(directory) = &args.workdir
        && !directory.starts_with('/')
    {
        bail!("the working directory '{directory}' is invalid, it needs to be an absolute path");
    }
    Ok(())
}

pub(super) fn host_config(args: &RunArgs) -> Result<HostConfig> {
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
    let mut host = HostConfig {
        binds,
        mounts,
        volumes_from: args.volumes_from.clone(),
        tmpfs,
        network_mode: super::networks::mode(args)?,
        port_bindings: port_bindings(args)?,
        publish_all_ports: args.publish_all,
        extra_hosts: args.add_host.clone(),
        links: super::networks::links(args)?,
        dns: args.dns.clone(),
        dns_search: args.dns_search.clone(),
        dns_options: args.dns_option.clone(),
        allow_net: args.allow_net.clone(),
        auto_remove: args.rm,
        readonly_rootfs: args.read_only,
        cap_add: args.cap_add.clone(),
        cap_drop: args.cap_drop.clone(),
        group_add: args.group_add.clone(),
        security_opt: args.security_opt.iter().map(|text| security_option(text)).collect::<Result<_>>()?,
        ulimits: ulimits.map_err(anyhow::Error::msg)?,
        storage_opt: storage_options(&args.storage_opt)?,
        shm_size,
        invoke: args.invoke.clone(),
        memory: size("--memory", args.memory.as_deref())?,
        memory_swap: memory_swap(args.memory_swap.as_deref())?,
        nano_cpus: args.cpus.as_deref().map(nano_cpus).transpose()?.unwrap_or_default(),
        cpu_shares: args.cpu_shares.unwrap_or_default(),
        cpu_period: args.cpu_period.unwrap_or_default(),
        cpu_quota: args.cpu_quota.unwrap_or_default(),
        cpuset_cpus: args.cpuset_cpus.clone().unwrap_or_default(),
        pids_limit: args.pids_limit,
        fuel: args.fuel,
        timeout,
        log_config: log_config(args)?,
        container_id_file: args.cidfile.as_ref().map(|path| path.display().to_string()).unwrap_or_default(),
        ..HostConfig::default()
    };
    args.more.set_host_config(&mut host)?;
    Ok(host)
}

/// The network of native containers that ask for none, if this environment says so.
pub(crate) fn default_network() -> Option<String> {
    std::env::var("DHOW_NETWORK").ok().filter(|network| !matches!(network.as_str(), "" | "default"))
}

/// A seccomp profile is read here: the engine takes it as it stands in the record.
pub(crate) fn security_option(text: &str) -> Result<String> {
    const LARGEST: u64 = 1 << 20;
    let Some((name, path)) = text.split_once(['=', ':']).filter(|(name, _)| *name == "seccomp") else {
        return Ok(text.to_owned());
    };
    if ["unconfined", "builtin"].contains(&path) || path.starts_with('{') {
        return Ok(text.to_owned());
    }
    let read = fs_err::metadata(path).and_then(|found| {
        if found.len() > LARGEST { Ok(String::new()) } else { fs_err::read_to_string(path) }
    });
    let profile = read.map_err(|error| {
        anyhow!("opening seccomp profile ({path}) failed: open {path}: {}", reason(&error))
    })?;
    let profile: serde_json::Value = serde_json::from_str(&profile)
        .with_context(|| format!("compacting json for seccomp profile ({path}) failed"))?;
    Ok(format!("{name}={profile}"))
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
