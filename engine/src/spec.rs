//! From a record to the OCI runtime specification: what Docker would hand to its runtime for the same command line.

#[cfg(target_os = "linux")]
pub(crate) mod device;
pub(crate) mod modes;
#[cfg(target_os = "linux")]
mod native;
#[cfg(target_os = "linux")]
mod profile;
#[cfg(target_os = "linux")]
pub(crate) use native::{executor, native_executor, needs_user_namespace};

use dhow_runtime::spec::{
    LinuxBuilder, LinuxNamespace, LinuxNamespaceBuilder, LinuxNamespaceType, Mount, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType, ProcessBuilder, RootBuilder, Spec, SpecBuilder,
};
use dhow_runtime::{Kind, Root};

use crate::config::HostConfig;
use crate::error::{Error, Result};
use crate::mounts;
use crate::ports;
use crate::record::{Container, Record};
use crate::resources;

/// Bytes of `/dev/shm`, Docker's default.
#[cfg(target_os = "linux")]
pub(crate) const SHM_SIZE: u64 = 64 << 20;

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a container has of others.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    /// Namespaces of other containers.
    pub(crate) joined: modes::Joined,
    /// The program that is its first process, where it is to have one of ours.
    pub(crate) init: Option<std::path::PathBuf>,
    /// Sources of mounts that are found at each start, by destination.
    pub(crate) sources: std::collections::BTreeMap<String, mounts::Found>,
    /// Variables that tell of others.
    pub(crate) env: Vec<String>,
}

/// The network a container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Network {
    /// Its own, with nothing but loopback.
    None,
    /// The host's.
    Host,
    /// Its own, to which a program of this user's copies (`pasta`, `slirp4netns`).
    Copied,
    /// One of ours, by name or id.
    Ours(String),
    /// Another container's.
    Container(String),
}

impl Network {
    /// Docker's `--network`. What "default" means has been decided when the container was made.
    pub(crate) fn parse(mode: &str) -> Result<Self> {
        match mode {
            "" | "default" | "none" => Ok(Self::None),
            "host" => Ok(Self::Host),
            copied if crate::network::COPIED.contains(&copied) => Ok(Self::Copied),
            other => match other.strip_prefix("container:") {
                Some(container) => Ok(Self::Container(container.to_owned())),
                None => crate::network::validate(other).map(|()| Self::Ours(other.to_owned())),
            },
        }
    }
}

/// Checks what can be checked before anything is made.
pub(crate) fn validate(host: &HostConfig) -> Result<()> {
    Network::parse(&host.network_mode)?;
    modes::validate(host)?;
    host.log_config.bounds()?;
    ports::validate(host)?;
    resources::validate(host)?;
    for (target, options) in &host.tmpfs {
        mounts::tmpfs(target, options)?;
    }
    for option in &host.security_opt {
        security_option(option)?;
    }
    #[cfg(target_os = "linux")]
    native::validate(host)?;
    Ok(())
}

/// Whether this process may make bridges and cables in the namespace it is in.
#[cfg(target_os = "linux")]
pub(crate) fn may_make_networks() -> bool {
    native::may_make_networks()
}

/// What a native container that asks for no network gets: the default one, where this process may make it.
pub fn default_network() -> &'static str {
    #[cfg(target_os = "linux")]
    if native::may_make_networks() {
        return crate::network::DEFAULT;
    }
    #[cfg(target_os = "linux")]
    if let Some(tool) = crate::network::rootless::Tool::usable() {
        return tool.name();
    }
    "none"
}

/// Checks what only Wasm containers cannot have.
pub(crate) fn validate_wasm(host: &HostConfig) -> Result<()> {
    modes::validate_wasm(host)?;
    for option in &host.security_opt {
        if matches!(security_option(option)?, SecurityOption::Profile(_)) {
            return Err(Error::NotYet {
                what: "a seccomp profile of one's own for WebAssembly".to_owned(),
                hint: "a Wasm program makes no system calls; `seccomp=unconfined` takes the second wall away"
                    .to_owned(),
            });
        }
    }
    let network = Network::parse(&host.network_mode)?;
    match network {
        Network::None | Network::Host => Ok(()),
        Network::Copied | Network::Ours(_) | Network::Container(_) if !host.allow_net.is_empty() => {
            Err(Error::Invalid(format!(
                "conflicting options: --allow-net and the network \"{}\", in which a program reaches what the network reaches",
                host.network_mode
            )))
        }
        Network::Ours(_) | Network::Container(_) if cfg!(target_os = "linux") => Ok(()),
        Network::Copied | Network::Ours(_) | Network::Container(_) => Err(Error::NotYet {
            what: format!("network \"{}\" for WebAssembly", host.network_mode),
            hint: "publish ports with `-p`, allow destinations with `--allow-net`, or use `--network host`"
                .to_owned(),
        }),
    }
}

/// Checks what only native containers cannot have.
pub(crate) fn validate_native(host: &HostConfig) -> Result<()> {
    let asks = |what: &str, hint: &str| {
        Err(Error::NotYet { what: format!("{what} for a native container"), hint: hint.to_owned() })
    };
    if !host.allow_net.is_empty() {
        return asks("--allow-net", "it is for WebAssembly; a native container has a network or none");
    }
    Ok(())
}

/// What `--security-opt` may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SecurityOption<'a> {
    NoNewPrivileges(bool),
    Seccomp(bool),
    /// A profile as JSON.
    Profile(&'a str),
    /// The profile's name.
    AppArmor(&'a str),
    SystemPaths,
    /// There is none of that here.
    Nothing,
}

fn security_option(option: &str) -> Result<SecurityOption<'_>> {
    let (name, value) = option.split_once(['=', ':']).unwrap_or((option, ""));
    match (name, value) {
        ("no-new-privileges", "" | "true") => Ok(SecurityOption::NoNewPrivileges(true)),
        ("no-new-privileges", "false") => Ok(SecurityOption::NoNewPrivileges(false)),
        ("seccomp", "unconfined") => Ok(SecurityOption::Seccomp(false)),
        ("seccomp", "builtin") => Ok(SecurityOption::Seccomp(true)),
        ("seccomp", profile) if profile.trim_start().starts_with('{') => Ok(SecurityOption::Profile(profile)),
        ("apparmor", profile) if !profile.is_empty() => Ok(SecurityOption::AppArmor(profile)),
        ("systempaths", "unconfined") => Ok(SecurityOption::SystemPaths),
        ("label", "disable") => Ok(SecurityOption::Nothing),
        ("seccomp", _) => Err(Error::Invalid("decoding seccomp profile failed: it is no JSON object".to_owned())),
        ("label" | "systempaths" | "writable-cgroups", _) => Err(Error::NotYet {
            what: format!("--security-opt {option}"),
            hint: "supported are `no-new-privileges`, `seccomp=unconfined|builtin|FILE`, `apparmor=PROFILE`, `systempaths=unconfined` and `label=disable`".to_owned(),
        }),
        _ => Err(Error::Invalid(format!("invalid --security-opt: \"{option}\""))),
    }
}

/// Whether nothing of `/proc` and `/sys` is hidden (`systempaths=unconfined`).
#[cfg(target_os = "linux")]
pub(crate) fn shows_system_paths(host: &HostConfig) -> bool {
    host.security_opt.iter().any(|option| matches!(security_option(option), Ok(SecurityOption::SystemPaths)))
}

/// The second wall of a Wasm program.
pub(crate) fn wall(host: &HostConfig) -> Result<dhow_runtime::wasm::Wall> {
    let mut wall = dhow_runtime::wasm::Wall::default();
    for option in &host.security_opt {
        if let SecurityOption::Seccomp(wanted) = security_option(option)? {
            wall.filter = wanted;
        }
    }
    Ok(wall)
}

/// Whether a program is Wasm by its name; a record's executor is decided by this once.
pub(crate) fn is_named_wasm(program: &str) -> bool {
    // With a function of it after `#`, or not.
    let file = program.rsplit_once('#').map_or(program, |(file, _)| file);
    [".wasm", ".wat"].iter().any(|ending| program.ends_with(ending) || file.ends_with(ending))
}

/// The specification of a container.
///
/// `around` is what it has of others.
pub(crate) fn build(container: &Container, root: &Root, around: &Around) -> Result<Spec> {
    match container.record.kind {
        Kind::Wasm => wasm(&container.record, root, around),
        #[cfg(target_os = "linux")]
        Kind::Native => native::build(container, root, around),
        #[cfg(not(target_os = "linux"))]
        Kind::Native => {
            let _ = root;
            Err(Error::Invalid("native containers need Linux".to_owned()))
        }
    }
}

fn wasm(record: &Record, root: &Root, around: &Around) -> Result<Spec> {
    let mut mounts = asked_mounts(record, around)?;
    if let Root::Layers { upper, .. } = root {
        // Where this user may not have a file system in memory, it is a directory of the container's own.
        let memory = upper.with_file_name("memory");
        for (number, mount) in mounts.iter_mut().enumerate() {
            if mount.typ().as_deref() == Some("tmpfs") {
                mount.set_source(Some(memory.join(number.to_string())));
            }
        }
    }
    let process = ProcessBuilder::default()
        .terminal(record.config.tty)
        .args(record.args.clone())
        .env(environment(record, around, "/"))
        .cwd(working_dir(record))
        .rlimits(open_files(&record.host_config)?)
        .build()
        .map_err(invalid)?;
    let mut namespaces: Vec<LinuxNamespace> = Vec::new();
    if Network::parse(&record.host_config.network_mode)? != Network::Host {
        let mut own =
            LinuxNamespaceBuilder::default().typ(LinuxNamespaceType::Network).build().map_err(invalid)?;
        own.set_path(around.joined.network.clone());
        namespaces.push(own);
    }
    let mut linux = LinuxBuilder::default().namespaces(namespaces);
    if let Some(resources) = resources::linux(&record.host_config)? {
        linux = linux.resources(resources);
    }
    SpecBuilder::default()
        .process(process)
        .root(
            RootBuilder::default()
                .path("")
                .readonly(record.host_config.readonly_rootfs)
                .build()
                .map_err(invalid)?,
        )
        .hostname(record.config.hostname.clone())
        .mounts(mounts)
        .linux(linux.build().map_err(invalid)?)
        .build()
        .map_err(invalid)
        .map(|spec| annotated(spec, &record.host_config))
}

/// With the notes that were asked for.
fn annotated(mut spec: Spec, host: &HostConfig) -> Spec {
    if !host.annotations.is_empty() {
        let notes = host.annotations.iter().map(|(name, value)| (name.clone(), value.clone()));
        spec.set_annotations(Some(notes.collect()));
    }
    spec
}

/// The one resource limit that a Wasm program has; without it, the executor's own. It cannot be raised, so the soft one
/// counts.
fn open_files(host: &HostConfig) -> Result<Vec<PosixRlimit>> {
    let number = |limit: i64| u64::try_from(limit).unwrap_or(u64::MAX);
    let asked = host.ulimits.iter().filter(|limit| limit.name == "nofile");
    asked
        .map(|limit| {
            PosixRlimitBuilder::default()
                .typ(PosixRlimitType::RlimitNofile)
                .soft(number(limit.soft))
                .hard(number(limit.hard))
                .build()
                .map_err(invalid)
        })
        .collect()
}

/// Docker's order: the defaults, replaced where they stand by what was asked for, then the rest of that, and the home
/// folder last where it is not given.
/// Variables that a container has without being asked. A bare name among the user's takes them away, too, as dockerd does;
/// but not a native program's `HOME`, which its runtime fills in afterwards.
const GIVEN: [&str; 4] = ["PATH", "HOSTNAME", "TERM", "HOME"];

/// Takes out the bare names that have done what they are for: what is left to remove is what containers are given.
pub(crate) fn drop_bare_names(env: &mut Vec<String>) {
    env.retain(|entry| entry.contains('=') || GIVEN.contains(&entry.as_str()));
}

fn environment(record: &Record, around: &Around, home: &str) -> Vec<String> {
    let name_of = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={}", record.config.hostname)];
    if record.config.tty {
        env.push("TERM=xterm".to_owned());
    }
    let mut homeless = false;
    for entry in around.env.iter().chain(&record.config.env) {
        if !entry.contains('=') {
            env.retain(|known| name_of(known) != *entry);
            homeless |= entry == "HOME" && record.kind == Kind::Wasm;
            continue;
        }
        match env.iter_mut().find(|known| name_of(known) == name_of(entry)) {
            Some(known) => known.clone_from(entry),
            None => env.push(entry.clone()),
        }
    }
    if !homeless && !env.iter().any(|entry| name_of(entry) == "HOME") {
        env.push(format!("HOME={home}"));
    }
    env
}

fn working_dir(record: &Record) -> String {
    match record.config.working_dir.as_str() {
        "" => "/".to_owned(),
        absolute if absolute.starts_with('/') => absolute.to_owned(),
        relative => format!("/{relative}"),
    }
}

/// `--tmpfs`, and what was resolved of the rest, outer targets before inner ones.
fn asked_mounts(record: &Record, around: &Around) -> Result<Vec<Mount>> {
    let host = &record.host_config;
    let mut asked = Vec::new();
    for (target, options) in &host.tmpfs {
        asked.push(mounts::tmpfs(target, options)?);
    }
    for point in &record.mounts {
        asked.push(point.to_mount(around.sources.get(&point.destination))?);
    }
    asked.sort_by_key(|mount| mount.destination().components().count());
    Ok(asked)
}

pub(crate) fn invalid(error: impl std::fmt::Display) -> Error {
    Error::Invalid(format!("cannot put the container's specification together: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        assert_eq!(Network::parse("bridge").unwrap(), Network::Ours("bridge".to_owned()));
        assert!(Network::parse("a/b").is_err());
        assert_eq!(security_option("no-new-privileges").unwrap(), SecurityOption::NoNewPrivileges(true));
        assert_eq!(security_option("no-new-privileges:true").unwrap(), SecurityOption::NoNewPrivileges(true));
        assert_eq!(security_option("seccomp=unconfined").unwrap(), SecurityOption::Seccomp(false));
        for bad in ["", "seccomp=/no/such", "nonsense", "no-new-privileges=maybe"] {
            assert!(security_option(bad).is_err(), "{bad}");
        }
    }
}
