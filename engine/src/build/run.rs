//! `RUN`: a program on top of a stage's layers, by the executor of the stage's platform. What it changed is a layer.
//!
//! The step is a container that no list shows: it has the seccomp filter, capabilities and network of one. What is mounted
//! for it alone lies in folders of ours, so that no link in a context or stage leads anywhere else, and leaves no trace.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod portable;
#[cfg(any(test, not(target_os = "linux")))]
mod upper;

use std::path::PathBuf;

use dhow_images::assemble::EntryKind;
use dhow_runtime::spec::Mount as SpecMount;
use dhow_runtime::{Bundle, ExitStatus, Kind, Layer, Root as RootFs};
use fs_err as fs;
use jiff::Timestamp;

#[cfg(target_os = "linux")]
use super::agent::Agent;
use super::root::Root;
use super::stage::{Own, Stage};
use super::work::{Work, open_to_all};
use crate::config::{Config, HostConfig};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::mounts;
use crate::record::{Container, Record};
use crate::{resources, spec};
#[cfg(target_os = "linux")]
use linux::{changed, execute, within};
#[cfg(not(target_os = "linux"))]
use portable::{changed, execute, within};

/// What is to run.
#[derive(Debug)]
pub(super) struct Job {
    /// The program and its arguments.
    pub(super) args: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    /// `none`, `host` or a network of ours.
    pub(super) network: String,
    /// `name:address`.
    pub(super) hosts: Vec<String>,
    /// What is mounted.
    pub(super) mounts: Vec<Held>,
    /// In a user namespace of its own within this process's.
    pub(super) namespace: bool,
    /// Times of files become no later than this.
    pub(super) latest: Option<i64>,
    /// What it may use, and its rights.
    pub(super) limits: HostConfig,
}

/// A mount, and what goes with it.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) mount: SpecMount,
    /// Where it is, cleaned.
    pub(super) target: String,
    /// A file or folder of ours, which goes when the step is done.
    pub(super) copy: Option<PathBuf>,
    /// A lock on a cache.
    pub(super) _lock: Option<std::fs::File>,
    /// What passes on to an agent for SSH.
    #[cfg(target_os = "linux")]
    pub(super) _agent: Option<Agent>,
}

impl Held {
    fn new(mount: SpecMount, target: String) -> Self {
        Self {
            mount,
            target,
            copy: None,
            _lock: None,
            #[cfg(target_os = "linux")]
            _agent: None,
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(copy) = &self.copy {
            // Else it goes with the build's folder.
            if copy.is_dir() {
                dhow_images::remove_tree(copy).ok();
            } else {
                fs::remove_file(copy).ok();
            }
        }
    }
}

/// Runs a job. Gives how it ended, and the layer if that was well.
pub(super) fn run(
    engine: &Engine,
    work: &mut Work<'_>,
    stage: &mut Stage,
    job: &Job,
    output: &mut dyn FnMut(&[u8]),
) -> Result<(ExitStatus, Option<Own>)> {
    let folder = work.path("run");
    let (upper, scratch, merged) = (folder.join("upper"), folder.join("work"), folder.join("merged"));
    for part in [&folder, &upper, &scratch, &merged] {
        fs::create_dir(part)?;
    }
    open_to_all(&upper)?;
    if stage.kind() == Kind::Native && !cfg!(target_os = "linux") {
        return Err(Error::NotYet {
            what: format!("RUN in a stage for {}, which needs Linux,", stage.platform),
            hint: "stages for `wasi/wasm` have no such need".to_owned(),
        });
    }
    let view = stage.view(engine, work)?;
    let stubs = stubs(&view, job)?;
    let record = record(&work.id, stage, job);
    spec::validate(&record.host_config)?;
    resources::validate_for(&record.host_config, record.kind)?;
    let container = Container::write(work.folder.clone(), record)?;
    let mut lower = stage.lower(engine)?;
    if stage.kind() == Kind::Native || lower.is_empty() {
        lower.insert(0, Layer { path: engine.skeleton()?, id: None });
    }
    let root = RootFs::Layers { lower, upper: upper.clone(), work: scratch, merged };
    let mut spec = spec::build(&container, &root, &engine.around(&container.record)?)?;
    let mut all = spec.mounts().clone().unwrap_or_default();
    all.retain(|mount| job.mounts.iter().all(|held| held.mount.destination() != mount.destination()));
    all.extend(job.mounts.iter().map(|held| held.mount.clone()));
    spec.set_mounts(Some(all));
    let host = &container.record.host_config;
    let wasm = match stage.kind() {
        Kind::Wasm => dhow_runtime::wasm::Options {
            network: crate::ports::network(&container.record)?,
            limits: resources::wasm(host),
            wall: Some(spec::wall(host)?),
            ..dhow_runtime::wasm::Options::default()
        },
        Kind::Native => dhow_runtime::wasm::Options::default(),
    };
    if job.namespace && stage.kind() == Kind::Native {
        within(&mut spec);
    }
    let bundle = Bundle { id: work.id.clone(), spec, root, module: None, wasm };
    let status = execute(engine, &container, &bundle, stage.kind(), output)?;
    if status.code() != 0 {
        return Ok((status, None));
    }
    let handle = Root::open(&upper)?;
    for stub in stubs.iter().rev() {
        remove_stub(&handle, stub)?;
    }
    let made = changed(engine, (&handle, &upper), stage.kind(), job.latest)?;
    work.keep([&made.blob.digest, &made.diff_id])?;
    // What a Wasm program wrote has other marks, and times that are to be changed are in the archive alone.
    let files = (stage.kind() == Kind::Native && job.latest.is_none()).then_some(upper);
    Ok((status, Some(Own { made, files })))
}

fn record(id: &str, stage: &Stage, job: &Job) -> Record {
    let config = &stage.config.config;
    Record {
        id: id.to_owned(),
        name: format!("build-{}", crate::error::short(id)),
        created: Timestamp::now(),
        image: None,
        kind: stage.kind(),
        args: job.args.clone(),
        module: None,
        config: Config {
            hostname: crate::error::short(id).to_owned(),
            user: config.user.clone(),
            env: job.env.clone(),
            working_dir: config.working_dir.clone(),
            ..Config::default()
        },
        host_config: HostConfig {
            network_mode: job.network.clone(),
            extra_hosts: job.hosts.clone(),
            auto_remove: true,
            ..job.limits.clone()
        },
        mounts: Vec::new(),
        networks: None,
    }
}

/// What mounts will make in the writable directory only to be mounted on: the names that are not there yet.
fn stubs(view: &Root, job: &Job) -> Result<Vec<Vec<u8>>> {
    let mut stubs = Vec::new();
    for held in &job.mounts {
        let Ok(resolved) = view.resolve(held.target.as_bytes()) else { continue };
        let path = resolved.path;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let part = path[..end].to_vec();
            if view.stat(&part)?.is_none() && !stubs.contains(&part) {
                stubs.push(part);
            }
        }
    }
    Ok(stubs)
}

/// Removes an empty directory or file that was only mounted on. What the program has put in its place stays; no link is
/// followed.
fn remove_stub(upper: &Root, path: &[u8]) -> Result<()> {
    let Some(found) = upper.stat(path)? else { return Ok(()) };
    match found.kind {
        // One that is not empty has become something.
        EntryKind::Dir => upper.remove(path, true).ok(),
        EntryKind::File if found.size == 0 => upper.remove(path, false).ok(),
        _ => None,
    };
    Ok(())
}

/// A mount of a folder or file of ours, at a path that nobody else can change.
pub(super) fn bind(target: &str, source: &std::path::Path, read_only: bool) -> Result<Held> {
    let target = mounts::clean(target);
    if target == "/" {
        return Err(Error::Invalid("invalid mount target \"/\"".to_owned()));
    }
    let access = if read_only { "ro" } else { "rw" };
    let options = ["bind", access, "nosuid", "nodev", "rprivate"];
    let mount = mounts::mount(&target, "bind", &source.to_string_lossy(), &options)?;
    Ok(Held::new(mount, target))
}

/// A mount of memory.
pub(super) fn memory(target: &str, size: Option<&str>) -> Result<Held> {
    let target = mounts::clean(target);
    let options = size.map(|size| format!("exec,size={size}")).unwrap_or_else(|| "exec".to_owned());
    let mount = mounts::tmpfs(&target, &options)?;
    Ok(Held::new(mount, target))
}
