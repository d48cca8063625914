//! `RUN`: a program on top of a stage's layers, by the executor of the stage's platform. What it changed is a layer.
//!
//! The step is a container that no list shows: it has the seccomp filter, capabilities and network of one. What is mounted
//! for it alone lies in folders of ours, so that no link in a context or stage leads anywhere else, and leaves no trace.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_images::assemble::EntryKind;
use dhow_images::{DiffOptions, Marks};
use dhow_runtime::spec::Mount as SpecMount;
use dhow_runtime::{Bundle, ExitStatus, Kind, Layer, Root as RootFs, Stdio, Stream, Task};
use fs_err as fs;
use jiff::Timestamp;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode, OFlags};

use super::agent::Agent;
use super::cache::Made;
use super::root::Root;
use super::stage::{Own, Stage};
use super::work::{Work, open_to_all};
use crate::config::{Config, HostConfig};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::monitor::names::Names;
use crate::monitor::sandbox;
use crate::mounts;
use crate::network::Attached;
use crate::record::{Container, Record, State, Status};
use crate::{resources, spec};

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
    pub(super) _agent: Option<Agent>,
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
    latest: Option<i64>,
    output: &mut dyn FnMut(&[u8]),
) -> Result<(ExitStatus, Option<Own>)> {
    let folder = work.path("run");
    let (upper, scratch, merged) = (folder.join("upper"), folder.join("work"), folder.join("merged"));
    for part in [&folder, &upper, &scratch, &merged] {
        fs::create_dir(part)?;
    }
    open_to_all(&upper)?;
    let view = stage.view(engine, work)?;
    let stubs = stubs(&view, job)?;
    let record = record(&work.id, stage, job);
    let container = Container::write(work.folder.clone(), record)?;
    let mut lower = stage.lower(engine)?;
    if stage.kind() == Kind::Native || lower.is_empty() {
        lower.insert(0, Layer { path: engine.skeleton()?, id: None });
    }
    let root = RootFs::Layers { lower, upper: upper.clone(), work: scratch, merged };
    let mut spec = spec::build(&container, &root, &spec::Around::default())?;
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
    let bundle = Bundle { id: work.id.clone(), spec, root, module: None, wasm };
    let status = execute(engine, &container, &bundle, stage.kind(), output)?;
    if status.code() != 0 {
        return Ok((status, None));
    }
    let handle = Root::open(&upper)?;
    for stub in stubs.iter().rev() {
        remove_stub(&handle, stub)?;
    }
    let options = match stage.kind() {
        Kind::Native => DiffOptions { latest, ..DiffOptions::default() },
        Kind::Wasm => DiffOptions { marks: Marks::Portable, owner: Some((0, 0)), latest },
    };
    let (layer, _) = engine.store().commit_diff(&upper, &options, dhow_images::media::Compression::Gzip)?;
    work.keep([&layer.blob.digest, &layer.diff_id])?;
    let made = Made { blob: layer.blob, diff_id: layer.diff_id };
    // What a Wasm program wrote has other marks, and times that are to be changed are in the archive alone.
    let files = (stage.kind() == Kind::Native && latest.is_none()).then_some(upper);
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
            ..HostConfig::default()
        },
        mounts: Vec::new(),
        networks: None,
    }
}

fn execute(
    engine: &Engine,
    container: &Container,
    bundle: &Bundle,
    kind: Kind,
    output: &mut dyn FnMut(&[u8]),
) -> Result<ExitStatus> {
    let (mut reader, writer) = std::io::pipe()?;
    let file = |writer: &std::io::PipeWriter| -> Result<std::fs::File> {
        Ok(std::fs::File::from(OwnedFd::from(writer.try_clone()?)))
    };
    let stdio = Stdio::Streams {
        stdin: Stream::Null,
        stdout: Stream::File(file(&writer)?),
        stderr: Stream::File(file(&writer)?),
    };
    drop(writer);
    let mut names = None;
    let (mut task, attached) = match kind {
        Kind::Native => {
            let task = spec::executor(&container.record)?.create(bundle, stdio)?;
            let namespace = fs::File::open(format!("/proc/{}/ns/net", task.pid()))?.into_parts().0;
            let attached = engine.connect_all(container, namespace.into(), None)?;
            names = serve_names(engine, container, &attached)?;
            (task, attached)
        }
        Kind::Wasm => {
            let before = nix::sys::signal::SigSet::thread_get_mask().map_err(std::io::Error::from)?;
            let guest = sandbox::Guest { bundle, aot: engine.aot_folder(), terminal: false, before: &before };
            let task = sandbox::spawn(&container.record.id, stdio, || Ok(()), guest)?;
            (task, Attached::default())
        }
    };
    let ended = see(&mut task, &mut reader, names.as_mut(), output);
    if ended.is_err() {
        task.kill(dhow_runtime::Signal::KILL).ok();
    }
    if names.take().is_some() {
        // The next step's files are its own.
        fs::remove_file(container.folder().join("state.json")).ok();
    }
    engine.disconnect_all(container, &attached)?;
    let deleted = task.delete();
    let status = ended?;
    deleted?;
    Ok(status)
}

/// The server of names of a step in networks that have them, as a container's monitor is one. It answers from the state.
fn serve_names(engine: &Engine, container: &Container, attached: &Attached) -> Result<Option<Names>> {
    let namespace = attached.namespace.as_ref().filter(|_| container.record.has_names());
    let Some(namespace) = namespace else { return Ok(None) };
    let endpoints = attached.endpoints.iter();
    let networks = endpoints.map(|endpoint| (endpoint.network.clone(), endpoint.clone())).collect();
    container.set_state(&State { status: Status::Running, networks, ..State::default() })?;
    let mut names = Names::new((namespace.try_clone()?, None), engine.directory(container), Vec::new());
    let action = "serve names in the step's network";
    names.serve().map_err(|source| Error::Network { action, source })?;
    Ok(Some(names))
}

fn see(
    task: &mut Task,
    reader: &mut std::io::PipeReader,
    mut names: Option<&mut Names>,
    output: &mut dyn FnMut(&[u8]),
) -> Result<ExitStatus> {
    task.start()?;
    let mut buffer = vec![0; 32 << 10];
    loop {
        if let Some(names) = &mut names
            && !wait(reader, names)?
        {
            continue;
        }
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => output(&buffer[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(task.wait()?)
}

/// Serves names until there is output; whether there is any.
fn wait(reader: &std::io::PipeReader, names: &mut Names) -> Result<bool> {
    let mut fds = vec![PollFd::new(reader, PollFlags::IN)];
    names.wait_for(&mut fds);
    let patience = names.patience().map(|left| Timespec {
        tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match poll(&mut fds, patience.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => {}
        Err(error) => return Err(std::io::Error::from(error).into()),
    }
    let is_ready = !fds[0].revents().is_empty();
    drop(fds);
    names.step();
    Ok(is_ready)
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
    let split = path.iter().rposition(|byte| *byte == b'/');
    let (parent, name) = split.map_or((&b""[..], path), |slash| (&path[..slash], &path[slash + 1..]));
    let parent = upper.path(parent)?;
    let name = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(name);
    match found.kind {
        EntryKind::Dir => {
            // One that is not empty has become something.
            rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR).ok();
        }
        EntryKind::File if found.size == 0 => {
            rustix::fs::unlinkat(&parent, name, AtFlags::empty()).ok();
        }
        _ => {}
    }
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
    Ok(Held { mount, target, copy: None, _lock: None, _agent: None })
}

/// A mount of memory.
pub(super) fn memory(target: &str, size: Option<&str>) -> Result<Held> {
    let target = mounts::clean(target);
    let options = size.map(|size| format!("exec,size={size}")).unwrap_or_else(|| "exec".to_owned());
    let mount = mounts::tmpfs(&target, &options)?;
    Ok(Held { mount, target, copy: None, _lock: None, _agent: None })
}

/// A handle on a folder of ours.
pub(super) fn folder(path: &std::path::Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(rustix::fs::openat(rustix::fs::CWD, path, flags, Mode::empty()).map_err(std::io::Error::from)?)
}
