//! Plugins that stay loaded for others (Linux): a process that answers calls at a socket in its folder, as
//! [`dhow_runtime::plugins::wire`] says.
//!
//! ```text
//! <root>/plugins/<name>/   plugin.json, socket, log, and lock: held by the process for as long as it lives
//! ```
//! A folder whose lock nobody holds is what a process left that was killed; it says so in lists, and `rm` takes it away.

use std::fs::{File, TryLockError};
use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dhow_runtime::process;
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::wire::{self, Remote};
use super::{Callee, Found, Limits, Plugin, RemotePlugin, Sink};
use crate::attach;
use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::names;
use crate::record;

const FOLDER: &str = "plugins";
const RECORD: &str = "plugin.json";
const LOCK: &str = "lock";
const LOG: &str = "log";
/// A log that has become longer begins anew.
const LONGEST_LOG: u64 = 10 << 20;
/// How often it is looked whether the tag has moved.
const LOOK: Duration = Duration::from_secs(1);

/// What is written down about one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Running {
    /// What it is called.
    pub name: String,
    /// The image or file.
    pub reference: String,
    /// Digest of what the image's name meant when it was loaded; empty for a file.
    pub digest: String,
    /// The container of a native plugin; empty for others.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub container: String,
    /// Its process.
    pub pid: u32,
    /// Since when.
    pub started_at: Option<Timestamp>,
    /// Its process lives; not written down.
    #[serde(skip)]
    pub alive: bool,
}

/// A name that is taken, until its process ends.
#[derive(Debug)]
pub struct Reserved {
    folder: PathBuf,
    running: Running,
    _lock: File,
}

impl Engine {
    fn running_folder(&self, name: &str) -> PathBuf {
        self.root().join(FOLDER).join(name)
    }

    /// Takes a name for a plugin that is about to be loaded. What a dead process left under it is replaced.
    ///
    /// # Errors
    /// When a plugin runs under it, or it is none.
    pub fn reserve_plugin(&self, name: &str, reference: &str) -> Result<Reserved> {
        names::validate(name)?;
        make_folder(&self.root().join(FOLDER))?;
        let folder = self.running_folder(name);
        make_folder(&folder)?;
        let lock = fs::OpenOptions::new().write(true).create(true).truncate(false).open(folder.join(LOCK))?;
        let lock = lock.into_parts().0;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Invalid(format!("a plugin with the name {name:?} runs already")));
            }
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        attach::unlisten(&folder);
        fs::File::create(folder.join(LOG))?;
        let running =
            Running { name: name.to_owned(), reference: reference.to_owned(), ..Running::default() };
        record::write(&folder.join(RECORD), &running, false)?;
        Ok(Reserved { folder, running, _lock: lock })
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn running_plugins(&self) -> Result<Vec<Running>> {
        let entries = match fs::read_dir(self.root().join(FOLDER)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut all = Vec::new();
        for entry in entries {
            // One that goes meanwhile is none.
            all.extend(read(&entry?.path()));
        }
        all.sort_by(|a: &Running, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The one of this name, if there is one.
    pub fn running_plugin(&self, name: &str) -> Option<Running> {
        names::validate(name).ok().and_then(|()| read(&self.running_folder(name)))
    }

    /// One that runs, to be called as if it was loaded here. It finds its way again when the other process has begun anew.
    ///
    /// # Errors
    /// When it does not run.
    pub fn connect_plugin(&self, name: &str, limits: &Limits) -> Result<RemotePlugin> {
        let folder = self.running_folder(name);
        let again = move || Remote::over(attach::connect(&folder)?);
        let made = RemotePlugin::new(self.plugin_remote(name)?, limits);
        let made = made.map_err(|error| Error::Invalid(format!("plugin {name:?}: {error}")))?;
        Ok(made.reconnecting(again))
    }

    /// Connects to one.
    ///
    /// # Errors
    /// When it does not run.
    pub fn plugin_remote(&self, name: &str) -> Result<Remote> {
        let stream = attach::connect(&self.running_folder(name))
            .map_err(|error| Error::Invalid(format!("plugin {name:?} does not answer: {error}")))?;
        Ok(Remote::over(stream)?)
    }

    /// What it has put out.
    ///
    /// # Errors
    /// When there is no such plugin.
    pub fn plugin_log(&self, name: &str) -> Result<Vec<u8>> {
        match fs::read(self.running_folder(name).join(LOG)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(none(name)),
            other => {
                let mut log = other?;
                let container =
                    self.running_plugin(name).map(|running| running.container).unwrap_or_default();
                if let Ok(container) = self.container(&container) {
                    log.extend(self.output_of(&container));
                }
                Ok(log)
            }
        }
    }

    /// Ends one and removes what there is of it; one that runs only with `force`.
    ///
    /// # Errors
    /// When there is no such plugin, or it runs.
    pub fn remove_plugin(&self, name: &str, force: bool) -> Result<()> {
        // What a native plugin's process has left that was killed holds its lock.
        self.sweep_plugins(true)?;
        /// How long it has for what it is just doing.
        const PATIENCE: Duration = Duration::from_secs(10);
        let running = self.running_plugin(name).ok_or_else(|| none(name))?;
        let folder = self.running_folder(name);
        if running.alive {
            if !force {
                return Err(Error::Invalid(format!(
                    "plugin {name:?} runs; stop it by removing it with force"
                )));
            }
            if let Ok(remote) = self.plugin_remote(name) {
                // It may be gone before it has answered.
                remote.ask("stop").ok();
            }
            let since = Instant::now();
            while read(&folder).is_some_and(|running| running.alive) {
                if since.elapsed() > PATIENCE {
                    return Err(Error::Invalid(format!("plugin {name:?} does not end")));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Reserved {
    /// Where the plugin's output goes.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn log(&self) -> Result<Sink> {
        let file = fs::OpenOptions::new().append(true).open(self.folder.join(LOG))?.into_parts().0;
        let file = Mutex::new(file);
        Ok(Arc::new(move |text| {
            let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
            if file.metadata().is_ok_and(|found| found.len() > LONGEST_LOG) {
                file.set_len(0).ok();
            }
            // What a full disk does not take is lost.
            file.write_all(text).ok();
        }))
    }

    /// Answers calls until somebody removes the plugin. `ready` is told when the first can come. With `found`, an image's
    /// plugin takes the code over that its tag means from then on.
    ///
    /// # Errors
    /// When the socket cannot be made.
    pub fn serve(
        mut self,
        engine: &Engine,
        plugin: &Plugin,
        found: Option<Found>,
        ready: impl FnOnce(),
    ) -> Result<()> {
        self.begin(found.as_ref().map(|found| found.digest.clone()).unwrap_or_default(), String::new())?;
        let listener = attach::listen(&self.folder)?;
        listener.set_nonblocking(false)?;
        ready();
        let over = Arc::new(AtomicBool::new(false));
        std::thread::scope(|scope| {
            if let Some(mut found) = found {
                let over = &over;
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        std::thread::park_timeout(LOOK);
                        // One that was removed or does not load leaves the plugin as it is.
                        engine.refresh(plugin, &mut found).ok();
                    }
                });
            }
            self.accept(&listener, &Arc::new(plugin.clone()), &over);
        });
        self.leave();
        Ok(())
    }

    /// Writes down what runs now, and since when.
    pub(super) fn begin(&mut self, digest: String, container: String) -> Result<()> {
        self.running.container = container;
        self.running.pid = std::process::id();
        self.running.started_at = Some(Timestamp::now());
        self.running.digest = digest;
        record::write(&self.folder.join(RECORD), &self.running, false)
    }

    /// The image or file.
    pub(super) fn reference(&self) -> &str {
        &self.running.reference
    }

    /// Where it listens.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes what there is of it.
    pub(super) fn leave(&self) {
        attach::unlisten(&self.folder);
        fs::remove_dir_all(&self.folder).ok();
    }

    /// Serves whoever connects, until `over` is set and one more has connected.
    pub(super) fn accept<C: Callee + Send + 'static>(
        &self,
        listener: &UnixListener,
        plugin: &Arc<C>,
        over: &Arc<AtomicBool>,
    ) {
        for stream in listener.incoming() {
            let last = over.load(Ordering::SeqCst);
            let Ok(stream) = stream else { continue };
            let (plugin, over, folder) = (Arc::clone(plugin), Arc::clone(over), self.folder.clone());
            // They end with their clients, or with the process.
            std::thread::spawn(move || {
                let Ok(to) = stream.try_clone() else { return };
                let other = |ask: &str| {
                    (ask == "stop").then(|| {
                        over.store(true, Ordering::SeqCst);
                        wake(&folder);
                        true.into()
                    })
                };
                wire::serve(&*plugin, &stream, to, &other).ok();
            });
            // Also where it is not the one that was to wake us: somebody waits for an answer.
            if last {
                return;
            }
        }
    }
}

/// Lets go of a wait for the next connection.
pub(super) fn wake(folder: &Path) {
    attach::connect(folder).ok();
}

/// Runs `child` in a process of its own, which nobody's terminal reaches, and comes back as soon as that calls what it is
/// given. The calling process must have one thread.
///
/// # Errors
/// When there is no room for a process; what `child` answers when it fails before.
pub fn apart(child: impl FnOnce(&mut dyn FnMut()) -> std::result::Result<(), String>) -> Result<()> {
    let (mut ours, theirs) = UnixStream::pair()?;
    process::fork(|| {
        let mut theirs = theirs;
        rustix::process::setsid().ok();
        if let Ok(null) = fs::OpenOptions::new().read(true).write(true).open("/dev/null") {
            let null = null.into_parts().0;
            rustix::stdio::dup2_stdin(&null).ok();
            rustix::stdio::dup2_stdout(&null).ok();
            rustix::stdio::dup2_stderr(&null).ok();
        }
        let mut starter = theirs.try_clone().ok();
        let ended = child(&mut || {
            if let Some(mut starter) = starter.take() {
                starter.write_all(b"+").ok();
                starter.shutdown(std::net::Shutdown::Both).ok();
            }
        });
        match ended {
            Ok(()) => 0,
            Err(error) => {
                theirs.write_all(error.as_bytes()).ok();
                1
            }
        }
    })?;
    let mut said = String::new();
    ours.read_to_string(&mut said)?;
    match said.as_str() {
        "+" => Ok(()),
        "" => Err(Error::Invalid("the plugin's process has ended".to_owned())),
        error => Err(Error::Invalid(error.to_owned())),
    }
}

fn read(folder: &Path) -> Option<Running> {
    let mut running: Running = record::read(&folder.join(RECORD)).ok()?;
    let lock = fs::File::open(folder.join(LOCK)).ok()?.into_parts().0;
    running.alive = matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock));
    Some(running)
}

fn none(name: &str) -> Error {
    Error::Invalid(format!("no such plugin: {name}"))
}
