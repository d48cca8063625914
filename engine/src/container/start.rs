//! `start`: runs a created container in the foreground, and what is written down at its end.

use std::path::PathBuf;

use dhow_images::Digest;
use dhow_runtime::{Bundle, Kind, Layer, Module, Root};
use fs_err as fs;
use jiff::Timestamp;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Claim, Container, State, Status};
use crate::spec;

/// Which of the client's streams are connected.
#[derive(Debug, Clone, Copy)]
pub struct ClientStreams {
    /// Standard input (`-i`).
    pub input: bool,
    /// The container has a terminal (`-t`).
    pub terminal: bool,
}

impl Engine {
    /// Runs a container with this process's streams and passes on the signals it receives, until the container ends.
    /// Returns the exit code, 128 + number for a signal.
    ///
    /// # Errors
    /// When the container could not be started; [`Error::exit_code`] is Docker's code for it.
    pub fn start_attached(&self, container: &Container, claim: Claim, streams: ClientStreams) -> Result<u8> {
        let started =
            self.bundle(container).and_then(|bundle| self.supervise(container, claim, &bundle, streams));
        if let Err(error) = &started
            && !matches!(error, Error::Start { .. })
            && !container.is_supervised().unwrap_or(true)
        {
            // Failed before there was a monitor to write it down.
            self.finish(container, error.exit_code(), Some(error.to_string()))?;
        }
        started
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
            // A Wasm guest reads the user's terminal itself; two readers would take each other's input.
            let copied = container.record.kind == dhow_runtime::Kind::Native;
            Routes::Terminal { input: streams.input && copied, size: terminal_size() }
        } else {
            Routes::Streams(route_streams(container.record.kind, streams.input))
        };
        match launch(self, container, claim, bundle, routes)?.attend()? {
            Ended::Code(code) => Ok(code),
            Ended::Killed(signal) => {
                let code = 128 + signal.number();
                // Unless somebody has removed it meanwhile (`rm -f`).
                if let Some(_claim) = container.claim()? {
                    container.end_survivor()?;
                    self.finish(container, code, None)?;
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
            ..State::default()
        };
        container.set_state(&running)?;
        task.start()?;
        let code = task.wait()?.code();
        task.delete()?;
        // Windows removes no folder in which a file is open, and the claim is one.
        drop(claim);
        self.finish(container, code, None)?;
        Ok(code)
    }

    /// What the executors need of a container.
    fn bundle(&self, container: &Container) -> Result<Bundle> {
        let record = &container.record;
        let mut lower = Vec::new();
        for diff_id in record.image.iter().flat_map(|image| &image.layers) {
            let path = self.store().layer_path(&diff_id.parse::<Digest>()?);
            // Of a layer that occurs twice only the upper one shows, and the kernel refuses the other.
            lower.retain(|layer: &Layer| layer.path != path);
            lower.push(Layer { path, id: Some(diff_id.clone()) });
        }
        let data = self.data_folder(container);
        let (upper, work, merged) = (data.join("upper"), data.join("work"), data.join("merged"));
        match record.kind {
            Kind::Native => {
                for part in [&upper, &work, &merged] {
                    fs::create_dir_all(part)?;
                }
                lower.insert(0, Layer { path: self.skeleton()?, id: None });
            }
            // What is not written needs no place: the Wasm executor makes `upper` with the first change.
            Kind::Wasm if lower.is_empty() => lower.push(Layer { path: self.skeleton()?, id: None }),
            Kind::Wasm => {}
        }
        let root = Root::Layers { lower, upper, work, merged };
        let module = record
            .module
            .as_ref()
            .map(|module| Module { path: module.path.clone(), id: module.digest.clone() });
        Ok(Bundle { id: record.id.clone(), spec: spec::build(container, &root)?, root, module })
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
        for folder in ["dev", "proc", "sys", "etc"] {
            fs::create_dir_all(draft.join(folder))?;
        }
        for file in ["hosts", "hostname", "resolv.conf"] {
            fs::File::create(draft.join("etc").join(file))?;
        }
        match fs::rename(&draft, &skeleton) {
            // Another process was faster.
            Err(_) if skeleton.is_dir() => fs::remove_dir_all(&draft)?,
            other => other?,
        }
        Ok(skeleton)
    }

    /// Writes down the end, or removes a container that was to be removed. An `error` means it never ran.
    pub(crate) fn finish(&self, container: &Container, code: u8, error: Option<String>) -> Result<()> {
        if container.record.host_config.auto_remove {
            return self.erase(container);
        }
        let before = container.state().unwrap_or_default();
        let status = if error.is_some() { Status::Created } else { Status::Exited };
        container.set_state(&State {
            status,
            pid: 0,
            pid_started: None,
            exit_code: code,
            error: error.unwrap_or_default(),
            started_at: before.started_at,
            finished_at: Some(Timestamp::now()),
        })
    }
}
