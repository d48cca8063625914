//! `start`: runs a container, in the foreground or by itself, and what is written down at its end.

use std::path::{Path, PathBuf};

use dhow_images::{Digest, Matcher, NoProgress, Platform, UnpackedLayer};
use dhow_runtime::wasm::Part;
use dhow_runtime::{Bundle, Kind, Layer, Root};
use fs_err as fs;
use jiff::Timestamp;

use crate::detach::DetachKeys;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::mounts::{MountKind, MountPoint};
use crate::record::{Attempt, Claim, Container, ImageOrigin, ModuleOrigin, Record, State, Status};
use crate::{ports, resources, spec};

/// Which of the client's streams are connected, and how.
#[derive(Debug, Clone)]
pub struct ClientStreams {
    /// Standard input (`-i`).
    pub input: bool,
    /// The container has a terminal (`-t`).
    pub terminal: bool,
    /// The keys by which the user leaves a terminal without ending anything.
    pub detach_keys: Option<DetachKeys>,
    /// Signals that reach this process are passed on (`--sig-proxy`).
    pub sig_proxy: bool,
    /// Standard output and error are shown (`--attach`).
    pub outputs: [bool; 2],
}

/// What is written down about a container's end.
#[derive(Debug, Default)]
pub(crate) struct End {
    /// The exit code, 128 + number for a signal.
    pub(crate) code: u8,
    /// Why it never ran.
    pub(crate) error: Option<String>,
    /// It wanted more memory than it may have.
    pub(crate) oom_killed: bool,
    /// Everybody has been told so.
    pub(crate) told: bool,
    /// Name and id of each network that it was connected to.
    pub(crate) networks: Vec<(String, String)>,
}

impl End {
    /// It ran, and ended with this code.
    pub(crate) fn code(code: u8) -> Self {
        Self { code, ..Self::default() }
    }

    /// It could not be started.
    pub(crate) fn failed(error: &Error) -> Self {
        Self { code: error.exit_code(), error: Some(error.to_string()), ..Self::default() }
    }
}

/// How an attached run ended for the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attended {
    /// The container has ended with this code, 128 + number for a signal.
    Ended(u8),
    /// The user has left by the keys for that; the container goes on.
    Detached,
    /// The connection is over and the container goes on: the input has ended where it is not the container's, or nobody
    /// took the output.
    Over,
}

/// How long is waited before somebody else's short work is looked at again.
pub(crate) const A_BLINK: std::time::Duration = std::time::Duration::from_millis(2);

impl Engine {
    /// The right to start a container that exists: `None` when it runs already. One that is just being started or is
    /// about to end is waited for.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`] when it is gone by now, [`Error::Paused`].
    pub fn claim_to_start(&self, container: &Container) -> Result<Option<Claim>> {
        loop {
            match container.try_claim()? {
                Attempt::Taken(claim) => {
                    container.end_survivor()?;
                    claim.forget()?;
                    container.unmark_stopped()?;
                    return Ok(Some(claim));
                }
                Attempt::Gone => return Err(Error::NoSuchContainer(container.record.name.clone())),
                Attempt::Busy => match container.state()?.status {
                    Status::Running | Status::Restarting => return Ok(None),
                    Status::Paused => {
                        return Err(Error::Invalid(
                            "cannot start a paused container, try unpause instead".to_owned(),
                        ));
                    }
                    _ => std::thread::sleep(A_BLINK),
                },
            }
        }
    }

    /// Runs a container with this process's streams and passes on the signals it receives, until the container ends or
    /// the user leaves it.
    ///
    /// # Errors
    /// When the container could not be started; [`Error::exit_code`] is Docker's code for it.
    pub fn start_attached(
        &self,
        container: &Container,
        claim: Claim,
        streams: ClientStreams,
    ) -> Result<Attended> {
        let (claim, bundle) = self.bundle_or_finish(container, claim)?;
        self.supervise(container, claim, &bundle, streams)
    }

    /// Starts a container and leaves it to itself; back as soon as its program runs.
    ///
    /// # Errors
    /// As [`Engine::start_attached`].
    pub fn start(&self, container: &Container, claim: Claim) -> Result<()> {
        let (claim, bundle) = self.bundle_or_finish(container, claim)?;
        self.leave_alone(container, claim, &bundle)
    }

    fn bundle_or_finish(&self, container: &Container, claim: Claim) -> Result<(Claim, Bundle)> {
        match self.bundle(container) {
            Ok(bundle) => Ok((claim, bundle)),
            Err(error) => {
                self.finish(container, claim, &End::failed(&error))?;
                Err(error)
            }
        }
    }

    /// Whether the client's terminal becomes the container's by copying, so that its own must be raw meanwhile.
    pub fn copies_terminal(&self, container: &Container) -> bool {
        let record = &container.record;
        cfg!(target_os = "linux") && (record.kind == Kind::Native || is_kept(record))
    }

    #[cfg(target_os = "linux")]
    fn leave_alone(&self, container: &Container, claim: Claim, bundle: &Bundle) -> Result<()> {
        use crate::monitor::{Care, Route, Routes};
        let config = &container.record.config;
        let stdin = if config.open_stdin { Route::Copy } else { Route::Null };
        let routes = if config.tty {
            Routes::Terminal { input: true, size: None }
        } else {
            Routes::Streams([stdin, Route::Copy, Route::Copy])
        };
        let care = Care { routes, kept: true, detached: true };
        self.monitor(container, claim, bundle, care)?.until_started()
    }

    #[cfg(not(target_os = "linux"))]
    fn leave_alone(&self, container: &Container, claim: Claim, _bundle: &Bundle) -> Result<()> {
        let error = Error::NotYet {
            what: "a container in the background on this system".to_owned(),
            hint: "run it in the foreground, without `-d`".to_owned(),
        };
        self.finish(container, claim, &End::failed(&error))?;
        Err(error)
    }

    /// Starts the monitor, or writes down that none has come of it.
    #[cfg(target_os = "linux")]
    fn monitor(
        &self,
        container: &Container,
        claim: Claim,
        bundle: &Bundle,
        care: crate::monitor::Care,
    ) -> Result<crate::monitor::client::Client> {
        crate::monitor::launch(self, container, claim, bundle, care).or_else(|error| {
            if let Some(claim) = container.claim()? {
                self.finish(container, claim, &End::failed(&error))?;
            }
            Err(error)
        })
    }

    #[cfg(target_os = "linux")]
    fn supervise(
        &self,
        container: &Container,
        claim: Claim,
        bundle: &Bundle,
        streams: ClientStreams,
    ) -> Result<Attended> {
        use crate::monitor::client::{Ended, terminal_size};
        use crate::monitor::{Care, Route, Routes, route_streams};
        let record = &container.record;
        // Who is to look after its health must be there beside it.
        let kept = is_kept(record);
        self.tell_later(&Event::of_container(record, "attach", &[]));
        let routes = if streams.terminal {
            // Somebody may come later and type.
            let input = streams.input || (kept && record.config.open_stdin);
            Routes::Terminal { input, size: terminal_size() }
        } else if kept {
            let stdin = if record.config.open_stdin { Route::Copy } else { Route::Null };
            Routes::Streams([stdin, Route::Copy, Route::Copy])
        } else {
            let [stdin, mut stdout, mut stderr] = route_streams(record.kind, streams.input);
            for (route, wanted) in [&mut stdout, &mut stderr].into_iter().zip(streams.outputs) {
                if !wanted {
                    *route = Route::Null;
                }
            }
            Routes::Streams([stdin, stdout, stderr])
        };
        let care = Care { routes, kept, detached: false };
        let client = self
            .monitor(container, claim, bundle, care)?
            .with_input(streams.input)
            .showing(streams.outputs)
            .leaving_by(streams.detach_keys)
            .passing_signals(streams.sig_proxy);
        // A Wasm program that is its own monitor is in its control group with it, so somebody else removes that.
        let has_group = record.kind == Kind::Wasm && !kept && resources::has_group(record);
        let ended = client.attend(has_group);
        if has_group {
            container.await_sessions()?;
        }
        let oom_killed = has_group && resources::end_group(self, record);
        let ended = ended?;
        match ended {
            Ended::Code(code) => Ok(Attended::Ended(code)),
            Ended::Detached => Ok(Attended::Detached),
            Ended::Lost => Err(Error::MonitorLost { id: record.id.clone() }),
            Ended::Unwritten(status) => {
                let code = status.code();
                // Unless somebody has removed it meanwhile (`rm -f`).
                if let Some(claim) = container.claim()? {
                    container.end_survivor()?;
                    self.finish(container, claim, &End { oom_killed, ..End::code(code) })?;
                }
                Ok(Attended::Ended(code))
            }
        }
    }

    /// Without fork the calling process is the sandbox.
    #[cfg(not(target_os = "linux"))]
    fn supervise(
        &self,
        container: &Container,
        claim: Claim,
        bundle: &Bundle,
        streams: ClientStreams,
    ) -> Result<Attended> {
        use dhow_runtime::{Executor, Stdio, Stream};
        let stdio = if streams.terminal {
            Stdio::Terminal(None)
        } else {
            let of = |wanted| if wanted { Stream::Inherit } else { Stream::Null };
            let [stdout, stderr] = streams.outputs.map(of);
            Stdio::Streams { stdin: of(streams.input), stdout, stderr }
        };
        let mut task = Executor::wasm(Some(self.aot_folder())).create(bundle, stdio)?;
        let running = State {
            status: Status::Running,
            pid: task.pid(),
            started_at: Some(Timestamp::now()),
            ports: ports::published(&bundle.wasm.network),
            ..State::default()
        };
        container.set_state(&running)?;
        task.start()?;
        let code = task.wait()?.code();
        let end = End { oom_killed: task.out_of_memory(), ..End::code(code) };
        task.delete()?;
        self.finish(container, claim, &end)?;
        Ok(Attended::Ended(code))
    }

    /// What the executors need of a container.
    pub(crate) fn bundle(&self, container: &Container) -> Result<Bundle> {
        let record = &container.record;
        let mut lower = match &record.image {
            Some(image) => self.lower(image, record.kind)?,
            None => Vec::new(),
        };
        let data = self.data_folder(container);
        let (upper, work, merged) = (data.join("upper"), data.join("work"), data.join("merged"));
        match record.kind {
            Kind::Native => {
                for part in [&upper, &work, &merged] {
                    fs::create_dir_all(part)?;
                }
                open_to_all(&upper, 0o755)?;
                lower.insert(0, Layer { path: self.skeleton()?, id: None });
            }
            // What is not written needs no place: the Wasm executor makes `upper` with the first change.
            Kind::Wasm if lower.is_empty() => lower.push(Layer { path: self.skeleton()?, id: None }),
            Kind::Wasm => {}
        }
        let root = Root::Layers { lower, upper, work, merged };
        let module = record.module.as_ref().map(ModuleOrigin::module);
        Ok(Bundle {
            id: record.id.clone(),
            spec: spec::build(container, &root, &self.around(record)?)?,
            root,
            module,
            wasm: match record.kind {
                Kind::Wasm => dhow_runtime::wasm::Options {
                    network: self.wasm_network(record)?,
                    limits: resources::wasm(&record.host_config),
                    wall: Some(spec::wall(&record.host_config)?),
                    files: record.host_config.files()?,
                    invoke: record.host_config.invoke.clone(),
                    parts: components(record),
                },
                Kind::Native => dhow_runtime::wasm::Options::default(),
            },
        })
    }

    /// The layers of an image, lowest first: one for each, or a single one with the tree of them all.
    pub(crate) fn lower(&self, image: &ImageOrigin, kind: Kind) -> Result<Vec<Layer>> {
        let store = self.store();
        let mut diff_ids = Vec::with_capacity(image.layers.len());
        for diff_id in &image.layers {
            diff_ids.push(diff_id.parse::<Digest>()?);
        }
        if kind == Kind::Native
            && let Some(path) = store.mounted_tree(&diff_ids)?
        {
            return Ok(vec![Layer { path, id: None }]);
        }
        let mut layers = store.layer_dirs(&diff_ids);
        if !layers.iter().all(|layer| layer.path.is_dir()) {
            // They were kept in another form when the container was made, or repaired away since.
            let platform = image.platform.parse::<Platform>()?;
            let image = store.image(&store.find(&image.id)?, &Matcher::only(&platform))?;
            layers = store.unpack(&image, &NoProgress)?;
        }
        let mut lower = Vec::with_capacity(layers.len());
        for UnpackedLayer { path, id, .. } in layers {
            // Of a layer that occurs twice only the upper one shows, and the kernel refuses the other.
            lower.retain(|layer: &Layer| layer.path != path);
            lower.push(Layer { path, id: Some(id.to_string()) });
        }
        Ok(lower)
    }

    /// The lowest layer of every native container: the directories and files that something is mounted on, so that an
    /// image that lacks them does not make each container write.
    pub(crate) fn skeleton(&self) -> Result<PathBuf> {
        let skeleton = self.root().join("skeleton");
        if skeleton.is_dir() {
            return Ok(skeleton);
        }
        // Made elsewhere and renamed: it is there in whole or not at all.
        let draft = self.root().join(format!("skeleton.{}", std::process::id()));
        for folder in ["", "dev", "proc", "sys", "etc"] {
            fs::create_dir_all(draft.join(folder))?;
            open_to_all(&draft.join(folder), 0o755)?;
        }
        for file in ["hosts", "hostname", "resolv.conf"].map(|name| draft.join("etc").join(name)) {
            fs::File::create(&file)?;
            open_to_all(&file, 0o644)?;
        }
        match fs::rename(&draft, &skeleton) {
            // Another process was faster.
            Err(_) if skeleton.is_dir() => fs::remove_dir_all(&draft)?,
            other => other?,
        }
        Ok(skeleton)
    }

    /// Writes down the end, or removes a container that was to be removed, and gives the claim up.
    pub(crate) fn finish(&self, container: &Container, claim: Claim, end: &End) -> Result<()> {
        let End { code, error, oom_killed, told, .. } = end;
        let (code, oom_killed) = (*code, *oom_killed);
        claim.note(code)?;
        container.await_sessions()?;
        #[cfg(target_os = "linux")]
        self.let_memory_go(&container.record);
        if !*told && error.is_none() {
            self.tell_end(&container.record, end);
        }
        if container.record.host_config.auto_remove {
            return self.erase(container, claim);
        }
        #[cfg(target_os = "linux")]
        let _edit = container.edit()?;
        let before = container.state().unwrap_or_default();
        let never_ran = error.is_some() && before.restart_count == 0;
        let status = if never_ran { Status::Created } else { Status::Exited };
        let ended = container.set_state(&State {
            status,
            pid: 0,
            pid_started: None,
            // As Docker says of one that the engine could not start; 125 is the command's word for it.
            exit_code: if never_ran && code == 125 { 128 } else { code },
            // It may have been a session's process, earlier.
            oom_killed: oom_killed || (before.status.is_alive() && before.oom_killed),
            error: error.clone().unwrap_or_default(),
            ports: ports::PortMap::new(),
            networks: std::collections::BTreeMap::new(),
            started_at: before.started_at,
            finished_at: Some(Timestamp::now()),
            restart_count: before.restart_count,
        });
        drop(claim);
        match ended {
            // The code is noted, and says it all to who looks.
            Err(Error::Io(error)) if status == Status::Exited && is_full(&error) => Ok(()),
            ended => ended,
        }
    }

    /// Tells how a container has ended.
    pub(crate) fn tell_end(&self, record: &Record, end: &End) {
        if end.oom_killed {
            self.tell_later(&Event::of_container(record, "oom", &[]));
        }
        self.tell_later(&Event::of_container(record, "die", &[("exitCode", &end.code.to_string())]));
        for (name, id) in &end.networks {
            self.tell_later(&of_network(record, "disconnect", name, id));
        }
        for point in volumes(record) {
            let about = [("container", record.id.as_str()), ("driver", "local")];
            self.tell_later(&Event::new("volume", "unmount", &point.name, &about));
        }
        // With its removal, where that is next.
        if !record.host_config.auto_remove {
            self.tell_now();
        }
    }

    /// Tells that a container runs, and what it has.
    #[cfg(target_os = "linux")]
    pub(crate) fn tell_start(&self, record: &Record, networks: &[(String, String)]) {
        for (name, id) in networks {
            self.tell_later(&of_network(record, "connect", name, id));
        }
        for point in volumes(record) {
            let writable = if point.writable { "true" } else { "false" };
            let about = [
                ("container", record.id.as_str()),
                ("destination", &point.destination),
                ("driver", "local"),
                ("propagation", ""),
                ("read/write", writable),
            ];
            self.tell_later(&Event::new("volume", "mount", &point.name, &about));
        }
        self.tell_of(record, "start", &[]);
    }
}

fn volumes(record: &Record) -> impl Iterator<Item = &MountPoint> {
    record.mounts.iter().filter(|point| point.kind == MountKind::Volume)
}

pub(crate) fn of_network(record: &Record, action: &str, name: &str, id: &str) -> Event {
    let about = [("container", record.id.as_str()), ("name", name), ("type", crate::network::BRIDGE)];
    Event::new("network", action, id, &about)
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}

/// Whether there is something at its end that no process behind a Wasm program's wall can do: memory to be unmounted,
/// volumes of its own to be removed.
fn ends_with_more(record: &crate::record::Record) -> bool {
    record.mounts.iter().any(|point| point.memory.is_some() || point.anonymous)
}

/// Whether a container has a log and others may attach: one in networks has a monitor in any case, for its names, and so
/// has one whose health is looked after.
fn is_kept(record: &crate::record::Record) -> bool {
    !record.host_config.auto_remove
        || record.config.healthcheck.is_some()
        || (record.kind == Kind::Wasm && (record.networks.is_some() || ends_with_more(record)))
}

/// Names files of the image, separated by commas, that the program is linked with.
pub(super) const COMPONENTS: &str = "dev.dhow.wasm.components";

/// The components that a container's program is linked with: the other Wasm layers of its artifact, and the files that
/// a label names.
fn components(record: &Record) -> Vec<Part> {
    let layers = record.module.iter().flat_map(|module| &module.components);
    let named = record.config.labels.get(COMPONENTS).map_or("", String::as_str);
    let named = named.split(',').map(str::trim).filter(|path| !path.is_empty());
    layers
        .map(|component| Part::File(component.module()))
        .chain(named.map(|path| Part::InRoot(path.to_owned())))
        .collect()
}

/// Whatever the caller's umask is: a container's other users look at this.
pub(super) fn open_to_all(path: &Path, mode: u32) -> Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}
