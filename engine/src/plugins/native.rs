//! The native variant of a plugin (Linux): a Linux program of the image in a container of its own, which answers calls at a
//! socket as [`dhow_runtime::plugins::wire`] says, and has nothing else of this host but what it is granted: no network, no
//! capabilities, a root that it cannot write to. The program connects to the socket that the variable `DHOW_PLUGIN` names,
//! and is asked at once which functions it has.
//!
//! ```text
//! <root>/plugins/.<id>/    socket, and owner: the calling process and when it was started; the container is called
//!                          dhow-plugin-<id>
//! ```
//! Of a process that was killed both are left: [`Engine::sweep_plugins`] takes them away.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_images::{Matcher, Platform};
use dhow_runtime::process;
use fs_err as fs;

use super::request::{Directory, REQUESTS, Request, Variables};
use super::wire::{self, Answer, Question, Remote};
use super::{Function, Limits, RemotePlugin, functions};
use crate::attach;
use crate::config::{Config, HostConfig};
use crate::container::create::{CreateOptions, Source, random_id};
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::logs::{Entry, Wanted};
use crate::mounts::MountKind;
use crate::mounts::long::MountRequest;
use crate::record::Container;
use crate::system::A_MOMENT;

/// Where the socket's folder is in the container.
const PLACE: &str = "/run/dhow-plugin";
/// The file that says whose it is.
const OWNER: &str = "owner";
/// So many processes and threads.
const PROCESSES: i64 = 64;
/// How long it may take to connect.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long it may take to say which functions it has.
const THOUGHT: Duration = Duration::from_secs(10);
/// What the containers' names begin with.
const PREFIX: &str = "dhow-plugin-";

/// A native plugin that runs. It ends when this is dropped.
#[derive(Debug)]
pub struct Native<'e> {
    engine: &'e Engine,
    container: Option<Container>,
    folder: PathBuf,
    functions: Vec<Function>,
    stream: Option<UnixStream>,
    /// Who made it: a child that was forked meanwhile has it, too, and does not remove it.
    owner: u32,
}

impl Engine {
    /// Whether what this host takes of an image is a Linux program; not where the image cannot be found.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn is_native_plugin(&self, reference: &str) -> Result<bool> {
        let Ok(target) = self.find_image(reference) else { return Ok(false) };
        let image = self.store().image(&target, &Matcher::host())?;
        Ok(!image.platform.is_wasm() && image.wasm.is_empty())
    }

    /// What an image asks for, if it says so: its native variant, where that is what this host would take.
    ///
    /// # Errors
    /// When the image is not there, or says what is no list.
    pub fn native_requests(&self, reference: &str) -> Result<Option<Request>> {
        let image = self.store().image(&self.find_image(reference)?, &Matcher::only(&Platform::host()))?;
        let says = image.config.config.labels.get(REQUESTS).or_else(|| image.annotations.get(REQUESTS));
        says.map(|says| Request::parse(says)).transpose()
    }

    /// Starts the native variant of a plugin's image. Of the limits it has the memory; a deadline is each call's own. Of
    /// what is granted it gets variables and folders, as far as its image asks for them; it has the time and random numbers
    /// as every process does, and never a network. The calling process must have one thread, since it forks.
    ///
    /// # Errors
    /// When the image has no variant for this host, its program does not connect in time or says something that are no
    /// functions; when a network is granted.
    pub fn native_plugin(&self, reference: &str, limits: &Limits, grants: &Request) -> Result<Native<'_>> {
        let granted = match self.native_requests(reference)? {
            Some(requests) => grants.and(&requests),
            None => grants.clone(),
        };
        if !granted.network.is_empty() {
            return Err(Error::Invalid(format!(
                "{reference} is a Linux program here, which gets no network: rules for hosts are kept for WebAssembly only"
            )));
        }
        self.sweep_plugins(true)?;
        let (id, _) = random_id()?;
        let id = &id[..12];
        make_folder(&self.root().join("plugins"))?;
        let folder = self.root().join("plugins").join(format!(".{id}"));
        make_folder(&folder)?;
        // No lock: what is forked for the container would inherit it.
        let owner = std::process::id();
        let since = process::start_time(owner).unwrap_or_default();
        fs::write(folder.join(OWNER), format!("{owner} {since}"))?;
        let mut native =
            Native { engine: self, container: None, folder, functions: Vec::new(), stream: None, owner };
        let listener = attach::listen(&native.folder)?;
        // Whoever the image's user is; only the container gets to see the folder.
        for (path, mode) in [(native.folder.clone(), 0o711), (native.folder.join("socket"), 0o666)] {
            fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
        }
        let (config, host_config) = settings(&native.folder, limits, &granted);
        let (container, claim) = self.create(CreateOptions {
            source: Source::Image(reference.to_owned()),
            name: Some(format!("{PREFIX}{id}")),
            platforms: Matcher::only(&Platform::host()),
            config,
            host_config,
            default_network: None,
            networks: Vec::new(),
        })?;
        native.container = Some(container.clone());
        self.start(&container, claim)?;
        let mut stream = connected(reference, &listener, &container)?;
        native.functions = told(&mut stream).map_err(|why| Error::Invalid(format!("{reference}: {why}")))?;
        native.stream = Some(stream);
        Ok(native)
    }

    /// Finds what native plugins have left whose process was killed; with `remove` it is taken away. Gives the folders'
    /// names.
    ///
    /// # Errors
    /// When the folder cannot be read, or something cannot be removed.
    pub fn sweep_plugins(&self, remove: bool) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.root().join("plugins")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut left = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(id) = name.strip_prefix('.') else { continue };
            if !is_nobodys(&entry.path()) {
                continue;
            }
            // One that is being made has no owner for a moment, and one that is being removed neither.
            std::thread::sleep(A_MOMENT);
            if !is_nobodys(&entry.path()) {
                continue;
            }
            if remove {
                // That is what its process would have done.
                if let Ok(container) = self.container(&format!("{PREFIX}{id}")) {
                    self.remove(&container, true, true)?;
                }
                match fs::remove_dir_all(entry.path()) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                    _ => {}
                }
            }
            left.push(name);
        }
        Ok(left)
    }
}

impl Engine {
    /// What a native plugin's container has put out, as far as it is known.
    pub(super) fn output_of(&self, container: &Container) -> Vec<u8> {
        let mut output = Vec::new();
        let each = &mut |entry: &Entry| {
            output.extend_from_slice(entry.text.as_bytes());
            true
        };
        self.logs(container, &Wanted::default(), each).ok();
        output
    }
}

/// Whether a folder is there whose process is not.
fn is_nobodys(folder: &Path) -> bool {
    let owner = fs::read_to_string(folder.join(OWNER)).unwrap_or_default();
    let owner = owner.split_once(' ').and_then(|(pid, since)| Some((pid.parse().ok()?, since.parse().ok()?)));
    match owner {
        Some((pid, since)) => process::start_time(pid) != Some(since),
        None => folder.is_dir(),
    }
}

/// What its container is like.
fn settings(folder: &Path, limits: &Limits, granted: &Request) -> (Config, HostConfig) {
    let mut env = vec![format!("DHOW_PLUGIN={PLACE}/socket")];
    if let Variables::Values(values) = &granted.env {
        env.extend(values.iter().map(|(name, value)| format!("{name}={value}")));
    }
    let mount = |source: &Path, target: &str, read_only: bool| MountRequest {
        kind: MountKind::Bind,
        source: source.display().to_string(),
        target: target.to_owned(),
        read_only,
        ..MountRequest::default()
    };
    let mut mounts = vec![mount(folder, PLACE, true)];
    for Directory { path, name, write } in &granted.directories {
        mounts.push(mount(path, name, !write));
    }
    let host_config = HostConfig {
        mounts,
        network_mode: "none".to_owned(),
        readonly_rootfs: true,
        cap_drop: vec!["ALL".to_owned()],
        security_opt: vec!["no-new-privileges".to_owned()],
        memory: limits.memory.unwrap_or(0),
        pids_limit: Some(PROCESSES),
        ..HostConfig::default()
    };
    (Config { env, ..Config::default() }, host_config)
}

/// Waits for the program.
fn connected(reference: &str, listener: &UnixListener, container: &Container) -> Result<UnixStream> {
    let since = Instant::now();
    let stream = loop {
        match listener.accept() {
            Ok((stream, _)) => break stream,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return Err(error.into()),
            Err(_) if since.elapsed() > PATIENCE || !container.is_supervised()? => {
                return Err(Error::Invalid(format!(
                    "{reference}: its program does not connect to the socket that DHOW_PLUGIN names"
                )));
            }
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Asks the program for its functions, without a thread.
fn told(stream: &mut UnixStream) -> std::result::Result<Vec<Function>, String> {
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::WouldBlock => "its program does not say which functions it has".to_owned(),
        _ => error.to_string(),
    };
    stream.set_read_timeout(Some(THOUGHT)).map_err(failed)?;
    let question = Question { ask: Some("functions".to_owned()), ..Question::default() };
    wire::send(stream, &question).map_err(failed)?;
    let answer: Option<Answer> = wire::receive(stream).map_err(failed)?;
    let told = answer.and_then(|answer| answer.ok).unwrap_or_default();
    let told = functions(&told).map_err(|error| error.to_string())?;
    stream.set_read_timeout(None).map_err(failed)?;
    Ok(told)
}

impl Native<'_> {
    /// The functions it says it has.
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// What its container is called.
    pub(super) fn container_name(&self) -> String {
        self.container.as_ref().map(|container| container.record.name.clone()).unwrap_or_default()
    }

    /// Gives the program a moment to end by itself, now that nobody calls any more, and gives what it has put out.
    pub fn end(&mut self) -> Vec<u8> {
        /// As long as it takes a program to see that its stream has ended.
        const MOMENT: Duration = Duration::from_millis(200);
        self.stream.take();
        let Some(container) = &self.container else { return Vec::new() };
        let since = Instant::now();
        while since.elapsed() < MOMENT && container.is_supervised().unwrap_or(false) {
            std::thread::sleep(Duration::from_millis(1));
        }
        self.engine.output_of(container)
    }

    /// The way to call it. A thread is started, so nothing can be forked any more.
    ///
    /// # Errors
    /// The second time; for types that cannot be.
    pub fn plugin(&mut self, limits: &Limits) -> Result<RemotePlugin> {
        let stream = self.stream.take().ok_or_else(|| Error::Invalid("the plugin is in use".to_owned()))?;
        let made = RemotePlugin::with(Remote::over(stream)?, self.functions.clone(), limits);
        made.map_err(|error| Error::Invalid(error.to_string()))
    }
}

impl Drop for Native<'_> {
    fn drop(&mut self) {
        if std::process::id() != self.owner {
            return;
        }
        self.stream.take();
        if let Some(container) = &self.container {
            self.engine.remove(container, true, true).ok();
        }
        fs::remove_dir_all(&self.folder).ok();
    }
}
