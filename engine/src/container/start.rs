//! `start`: runs a created container in the foreground, and what is written down at its end.

use std::path::{Path, PathBuf};

use dhow_images::{Digest, Matcher, NoProgress, Platform};
use dhow_runtime::wasm::Part;
use dhow_runtime::{Bundle, Kind, Layer, Root};
use fs_err as fs;
use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Claim, Container, ImageOrigin, ModuleOrigin, Record, State, Status};
use crate::{ports, resources, spec};

/// Which of the client's streams are connected.
#[derive(Debug, Clone, Copy)]
pub struct ClientStreams {
    /// Standard input (`-i`).
    pub input: bool,
    /// The container has a terminal (`-t`).
    pub terminal: bool,
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
}

impl End {
    /// It ran, and ended with this code.
    pub(crate) fn code(code: u8) -> Self {
        Self { code, ..Self::default() }
    }

    /// It could not be started.
    pub(crate) fn failed(error: &Error) -> Self {
        Self { code: error.exit_code(), error: Some(error.to_string()), oom_killed: false }
    }
}

impl Engine {
    /// Runs a container with this process's streams and passes on the signals it receives, until the container ends.
    /// Returns the exit code, 128 + number for a signal.
    ///
    /// # Errors
    /// When the container could not be started; [`Error::exit_code`] is Docker's code for it.
    pub fn start_attached(&self, container: &Container, claim: Claim, streams: ClientStreams) -> Result<u8> {
        match self.bundle(container) {
            Ok(bundle) => self.supervise(container, claim, &bundle, streams),
            Err(error) => {
                self.finish(container, claim, End::failed(&error))?;
                Err(error)
            }
        }
    }

    #[cfg(target_os = "linux")]
    fn supervise(
        &self,
        container: &Container,
        claim: Claim,
        bundle: &Bundle,
        streams: ClientStreams,
    ) -> Result<u8> {
        use crate::monitor::client::{Ended, terminal_size};
        use crate::monitor::{Routes, launch, route_streams};
        let routes = if streams.terminal {
            Routes::Terminal { input: streams.input, size: terminal_size() }
        } else {
            Routes::Streams(route_streams(container.record.kind, streams.input))
        };
        let client = match launch(self, container, claim, bundle, routes) {
            Ok(client) => client,
            Err(error) => {
                // No monitor has come of it to write this down.
                if let Some(claim) = container.claim()? {
                    self.finish(container, claim, End::failed(&error))?;
                }
                return Err(error);
            }
        };
        // A Wasm program is in its control group with its monitor, so it is not the monitor who removes that.
        let has_group = container.record.kind == Kind::Wasm && resources::has_group(&container.record);
        let ended = client.attend(has_group);
        let oom_killed = has_group && resources::end_group(self, &container.record);
        let ended = ended?;
        match ended {
            Ended::Code(code) => Ok(code),
            Ended::Unwritten(status) => {
                let code = status.code();
                // Unless somebody has removed it meanwhile (`rm -f`).
                if let Some(claim) = container.claim()? {
                    container.end_survivor()?;
                    self.finish(container, claim, End { oom_killed, ..End::code(code) })?;
                }
                Ok(code)
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
    ) -> Result<u8> {
        use dhow_runtime::{Executor, Stdio, Stream};
        let stdio = if streams.terminal {
            Stdio::Terminal(None)
        } else {
            let stdin = if streams.input { Stream::Inherit } else { Stream::Null };
            Stdio::Streams { stdin, stdout: Stream::Inherit, stderr: Stream::Inherit }
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
        self.finish(container, claim, end)?;
        Ok(code)
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
            spec: spec::build(container, &root)?,
            root,
            module,
            wasm: match record.kind {
                Kind::Wasm => dhow_runtime::wasm::Options {
                    network: ports::network(record)?,
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
        let mut lower = Vec::new();
        for (diff_id, id) in diff_ids.iter().zip(&image.layers) {
            let path = store.layer_path(diff_id);
            // Of a layer that occurs twice only the upper one shows, and the kernel refuses the other.
            lower.retain(|layer: &Layer| layer.path != path);
            lower.push(Layer { path, id: Some(id.clone()) });
        }
        if !lower.iter().all(|layer| layer.path.is_dir()) {
            // They were kept in another form when the container was made, or repaired away since.
            let platform = image.platform.parse::<Platform>()?;
            let image = store.image(&store.find(&image.id)?, &Matcher::only(&platform))?;
            store.unpack(&image, &NoProgress)?;
        }
        Ok(lower)
    }

    /// The lowest layer of every native container: the directories and files that something is mounted on, so that an
    /// image that lacks them does not make each container write.
    fn skeleton(&self) -> Result<PathBuf> {
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
    pub(crate) fn finish(&self, container: &Container, claim: Claim, end: End) -> Result<()> {
        let End { code, error, oom_killed } = end;
        if container.record.host_config.auto_remove {
            return self.erase(container, claim);
        }
        let before = container.state().unwrap_or_default();
        let status = if error.is_some() { Status::Created } else { Status::Exited };
        container.set_state(&State {
            status,
            pid: 0,
            pid_started: None,
            exit_code: code,
            oom_killed,
            error: error.unwrap_or_default(),
            ports: ports::PortMap::new(),
            started_at: before.started_at,
            finished_at: Some(Timestamp::now()),
        })?;
        drop(claim);
        Ok(())
    }
}

/// Names files of the image, separated by commas, that the program is linked with.
const COMPONENTS: &str = "dev.dhow.wasm.components";

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
fn open_to_all(path: &Path, mode: u32) -> Result<()> {
    #[cfg(unix)]
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    #[cfg(not(unix))]
    let _ = (path, mode);
    Ok(())
}
