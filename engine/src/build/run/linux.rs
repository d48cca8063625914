//! A step's program on Linux: its executor's process, its networks, and what it has written.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use dhow_images::media::Compression;
use dhow_images::{DiffOptions, Marks};
use dhow_runtime::native::{defaults, idmap};
use dhow_runtime::spec::{LinuxNamespaceType, Spec};
use dhow_runtime::{Bundle, ExitStatus, Kind, Stdio, Stream, Task};
use fs_err as fs;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::cache::Made;
use super::super::root::Root;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::monitor::names::Names;
use crate::monitor::sandbox;
use crate::network::rootless::{Copier, Tool};
use crate::network::{Attached, is_there};
use crate::ports::PortMap;
use crate::record::{Container, State, Status};
use crate::{resources, spec};

/// The layer of what a program has written.
pub(super) fn changed(
    engine: &Engine,
    (_, upper): (&Root, &Path),
    kind: Kind,
    latest: Option<i64>,
) -> Result<Made> {
    let options = match kind {
        Kind::Native => DiffOptions { latest, ..DiffOptions::default() },
        Kind::Wasm => DiffOptions { marks: Marks::Portable, owner: Some((0, 0)), latest },
    };
    let (layer, _) = engine.store().commit_diff(upper, &options, Compression::Gzip)?;
    Ok(Made { blob: layer.blob, diff_id: layer.diff_id })
}

/// Puts a step into a user namespace of its own, with the ids that there are: this process is root of one, and what
/// makes mounts and devices for a container needs to know that it is no more than that.
pub(super) fn within(spec: &mut Spec) {
    let (Some(maps), Some(linux)) = (idmap::same_ids(), spec.linux_mut().as_mut()) else { return };
    let mut namespaces = linux.namespaces().clone().unwrap_or_default();
    namespaces.retain(|namespace| namespace.typ() != LinuxNamespaceType::User);
    namespaces.push(defaults::namespace(LinuxNamespaceType::User));
    linux.set_namespaces(Some(namespaces));
    // As for containers without root: what may be set there is not what root sets.
    linux.set_sysctl(None);
    linux.set_uid_mappings(Some(maps.uids)).set_gid_mappings(Some(maps.gids));
}

fn is_within(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_ref());
    namespaces.into_iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::User)
}

/// Runs the step, its output to `output`.
pub(super) fn execute(
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
    let record = &container.record;
    let mut group = resources::group(engine, record)?;
    let (mut task, attached) = match kind {
        Kind::Native => {
            let mut executor = spec::native_executor(&container.record)?;
            if is_within(&bundle.spec) {
                // What hides itself is hidden from the root of an outer namespace, too.
                executor = executor.showing_itself();
            }
            let task = resources::Group::create(group.as_mut(), &executor, bundle, stdio)?;
            let attached = connect(engine, container, task.pid())?;
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
    // Not before: a Wasm program may have been compiled just now, which takes more than it may have.
    let placed = match group.filter(|_| kind == Kind::Wasm) {
        Some(mut group) => group.add(task.pid()).map_err(Error::from),
        None => Ok(()),
    };
    let ended = placed.and_then(|()| see(&mut task, &mut reader, names.as_mut(), output));
    if ended.is_err() {
        task.kill(dhow_runtime::Signal::KILL).ok();
    }
    if names.take().is_some() {
        // The next step's files are its own.
        fs::remove_file(container.folder().join("state.json")).ok();
    }
    engine.disconnect_all(container, &attached)?;
    let deleted = task.delete();
    resources::end_group(engine, record);
    let status = ended?;
    deleted?;
    Ok(status)
}

/// Connects a step whose process waits at its gate.
fn connect(engine: &Engine, container: &Container, pid: u32) -> Result<Attached> {
    if let Some(tool) = Tool::parse(&container.record.host_config.network_mode) {
        let copier = Copier::start(tool, pid, &[], container.folder())?;
        return Ok(Attached { copied: Some((copier, PortMap::new())), ..Attached::default() });
    }
    if container.record.memberships().is_empty() {
        return Ok(Attached::default());
    }
    let namespace = fs::File::open(format!("/proc/{pid}/ns/net"))?.into_parts().0;
    // Where this is no root of the host's network: see `Engine::as_root_of_networks`.
    let realm = if is_there() { None } else { Some(Arc::new(engine.realm()?)) };
    engine.connect_all(container, namespace.into(), realm)
}

/// The server of names of a step in networks that have them, as a container's monitor is one. It answers from the state.
fn serve_names(engine: &Engine, container: &Container, attached: &Attached) -> Result<Option<Names>> {
    let namespace = attached.namespace.as_ref().filter(|_| container.record.has_names());
    let Some(namespace) = namespace else { return Ok(None) };
    let endpoints = attached.endpoints.iter();
    let networks = endpoints.map(|endpoint| (endpoint.network.clone(), endpoint.clone())).collect();
    container.set_state(&State { status: Status::Running, networks, ..State::default() })?;
    let mut names =
        Names::new((namespace.try_clone()?, attached.realm.clone()), engine.directory(container), Vec::new());
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
