//! `exec`: another program beside a container's first one, in the same files.
//!
//! An exec session is a process of its own with a monitor of its own, so it needs nothing of the container's monitor: a
//! container in the foreground of a command can be entered, too. It ends with the container's first process, at the
//! latest. While it runs there is the file `exec/<session id>.json` in the container's folder, held by its monitor.

use std::fs::TryLockError;

#[cfg(target_os = "linux")]
use dhow_runtime::Kind;
use fs_err as fs;
use serde::{Deserialize, Serialize};

use super::start::{Attended, ClientStreams};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Container;
#[cfg(target_os = "linux")]
use crate::record::Status;

/// What is to be run: Docker's body of `POST /containers/{id}/exec`, as far as it is honoured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ExecConfig {
    /// Standard input is connected.
    pub attach_stdin: bool,
    /// It has a terminal.
    pub tty: bool,
    /// All capabilities that this host can give.
    pub privileged: bool,
    /// `NAME=value`; over the container's.
    pub env: Vec<String>,
    /// The program and its arguments. `PROGRAM#FUNCTION` calls one function of a Wasm module.
    pub cmd: Vec<String>,
    /// Empty for the container's.
    pub user: String,
    /// Empty for the container's.
    pub working_dir: String,
}

/// Folder of the sessions that run, below a container's.
const FOLDER: &str = "exec";

impl Engine {
    /// Runs a program in a running container, with this process's streams, until it ends.
    ///
    /// # Errors
    /// When the container does not run or is paused, in Docker's words; when the program could not be started.
    pub fn exec(
        &self,
        container: &Container,
        config: &ExecConfig,
        streams: ClientStreams,
    ) -> Result<Attended> {
        self.run_exec(container, config, Some(streams))
    }

    /// Runs a program in a running container and leaves it alone; back as soon as it runs.
    ///
    /// # Errors
    /// As [`Engine::exec`].
    pub fn exec_detached(&self, container: &Container, config: &ExecConfig) -> Result<()> {
        self.run_exec(container, config, None).map(drop)
    }

    #[cfg(target_os = "linux")]
    fn run_exec(
        &self,
        container: &Container,
        config: &ExecConfig,
        streams: Option<ClientStreams>,
    ) -> Result<Attended> {
        use crate::monitor::client::{Ended, terminal_size};
        use crate::monitor::{Route, Routes, exec};
        let record = &container.record;
        let gone = || Error::NotRunning { id: record.id.clone() };
        match container.state()?.status {
            Status::Running => {}
            Status::Paused => return Err(Error::Paused { name: record.name.clone(), what: "exec" }),
            Status::Restarting => return Err(Error::Restarting { id: record.id.clone() }),
            _ => return Err(gone()),
        }
        let process = container.process()?.ok_or_else(gone)?;
        let inside = self.inside(container, config)?;
        let bundle = self.bundle(&inside).map_err(|error| match error {
            // As Docker counts it: the program was there, and could not be started.
            Error::Invalid(message) if message.starts_with("unable to find ") => {
                Error::Start { message, hint: None, code: 126 }
            }
            other => other,
        })?;
        let (id, _) = super::create::random_id()?;
        let input = streams.as_ref().map_or(config.attach_stdin, |streams| streams.input);
        let routes = if config.tty {
            let size = streams.as_ref().and_then(|_| terminal_size());
            Routes::Terminal { input, size }
        } else {
            let stdin = if input && streams.is_some() { Route::Copy } else { Route::Null };
            Routes::Streams([stdin, Route::Copy, Route::Copy])
        };
        let session = exec::Session { id, folder: container.folder().join(FOLDER), process, mask: None };
        let client = exec::launch(self, &inside, session, &bundle, routes, streams.is_none(), &mut || {})?;
        let Some(streams) = streams else {
            client.until_started()?;
            return Ok(Attended::Over);
        };
        let client = client.leaving_by(streams.detach_keys).passing_signals(streams.sig_proxy);
        Ok(match client.attend(false)? {
            Ended::Code(code) => Attended::Ended(code),
            Ended::Detached => Attended::Detached,
            Ended::Lost => Attended::Over,
            Ended::Unwritten(status) => Attended::Ended(status.code()),
        })
    }

    /// A session for whoever listens to its output: the container's monitor, which looks after its health.
    #[cfg(target_os = "linux")]
    pub(crate) fn probe(
        &self,
        container: &Container,
        config: &ExecConfig,
        mask: nix::sys::signal::SigSet,
        leave: &mut dyn FnMut(),
    ) -> Result<crate::monitor::client::Client> {
        use crate::monitor::{Route, Routes, exec};
        let gone = || Error::NotRunning { id: container.record.id.clone() };
        let process = container.process()?.ok_or_else(gone)?;
        let inside = self.inside(container, config)?;
        let bundle = self.bundle(&inside)?;
        let (id, _) = super::create::random_id()?;
        let routes = Routes::Streams([Route::Null, Route::Copy, Route::Copy]);
        let folder = container.folder().join(FOLDER);
        let session = exec::Session { id, folder, process, mask: Some(mask) };
        exec::launch(self, &inside, session, &bundle, routes, false, leave)
    }

    #[cfg(not(target_os = "linux"))]
    fn run_exec(
        &self,
        _container: &Container,
        _config: &ExecConfig,
        _streams: Option<ClientStreams>,
    ) -> Result<Attended> {
        Err(Error::elsewhere("exec"))
    }

    /// The container as a session sees it: the same files and limits, another program, no ports.
    #[cfg(target_os = "linux")]
    fn inside(&self, container: &Container, config: &ExecConfig) -> Result<Container> {
        let mut inside = container.clone();
        let record = &mut inside.record;
        let mut args = config.cmd.clone();
        let Some(program) = args.first_mut() else {
            return Err(Error::Invalid("No exec command specified".to_owned()));
        };
        record.host_config.invoke = None;
        if record.kind == Kind::Wasm
            && let Some((file, function)) = program.clone().split_once('#')
            && !function.is_empty()
        {
            record.host_config.invoke = Some(function.to_owned());
            file.clone_into(program);
        }
        // By the name it has in the container, what the container runs itself is another file of it.
        if record.args.first() != Some(program) {
            record.module = None;
        }
        record.args = args;
        record.config.tty = config.tty;
        record.config.env.extend(config.env.iter().cloned());
        if !config.working_dir.is_empty() {
            record.config.working_dir.clone_from(&config.working_dir);
        }
        if !config.user.is_empty() {
            record.config.user.clone_from(&config.user);
        }
        // A session joins what the container has.
        record.host_config.init = None;
        for mode in [&mut record.host_config.pid_mode, &mut record.host_config.ipc_mode] {
            mode.clear();
        }
        if config.privileged {
            record.host_config.cap_add = vec!["ALL".to_owned()];
            record.host_config.cap_drop.clear();
        }
        record.host_config.port_bindings.clear();
        record.host_config.publish_all_ports = false;
        Ok(inside)
    }
}

/// A session that runs, as its monitor has written it down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct SessionRecord {
    /// The program and its arguments.
    pub(crate) args: Vec<String>,
    /// Its process; 0 while it is being set up.
    pub(crate) pid: u32,
}

impl Container {
    /// The files of the sessions that run.
    fn session_files(&self) -> Vec<std::path::PathBuf> {
        let Ok(entries) = fs::read_dir(self.folder().join(FOLDER)) else { return Vec::new() };
        let runs = |path: &std::path::PathBuf| {
            let file = fs::File::open(path).map(|file| file.into_parts().0);
            file.is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
        };
        entries.flatten().map(|entry| entry.path()).filter(runs).collect()
    }

    /// The ids of the sessions that run.
    pub fn exec_ids(&self) -> Vec<String> {
        let files = self.session_files();
        let id =
            |path: &std::path::PathBuf| Some(path.file_name()?.to_str()?.strip_suffix(".json")?.to_owned());
        files.iter().filter_map(id).collect()
    }

    /// The sessions that run.
    #[cfg(target_os = "linux")]
    pub(crate) fn sessions(&self) -> Vec<SessionRecord> {
        let files = self.session_files();
        files.iter().filter_map(|path| serde_json::from_slice(&fs::read(path).ok()?).ok()).collect()
    }

    /// Waits until no session uses the container's files any more. They end with its first process, which has ended.
    pub(crate) fn await_sessions(&self) -> Result<()> {
        let entries = match fs::read_dir(self.folder().join(FOLDER)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            match fs::File::open(entry?.path()) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                file => file?.into_parts().0.lock_shared()?,
            }
        }
        Ok(())
    }
}
