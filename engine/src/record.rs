//! A container's two small files, and the lock that tells whether it lives.
//!
//! `config.json` is written once. `state.json` is replaced by rename. `lock` is held exclusively by whoever supervises
//! the container (the monitor, or the command that is creating or removing it), so "is it running" never depends on a
//! process number that may have been given to somebody else.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use dhow_runtime::Kind;
use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{Config, HostConfig};
use crate::error::{Error, Result};
use crate::mounts::MountPoint;
use crate::network::{Endpoint, Membership};
use crate::ports::PortMap;

/// What was asked for, resolved: everything a start needs besides the image store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Unique on this root, without Docker's leading slash.
    pub name: String,
    /// When it was created.
    pub created: Timestamp,
    /// The image it was made from; `None` for a bare module.
    pub image: Option<ImageOrigin>,
    /// `wasm` or `native`.
    #[serde(with = "kind")]
    pub kind: Kind,
    /// Entrypoint and command, joined.
    pub args: Vec<String>,
    /// The Wasm code where it is no file of the image.
    pub module: Option<ModuleOrigin>,
    /// As asked, with the image's settings filled in.
    pub config: Config,
    /// As asked.
    pub host_config: HostConfig,
    /// What is mounted, with volumes named and made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<MountPoint>,
    /// The networks it is in, the one with the way out first; `None` for what its network mode says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub networks: Option<Vec<Membership>>,
}

/// Which content a container was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageOrigin {
    /// Digest of what the name pointed to: an index or a manifest.
    pub id: String,
    /// Digest of the manifest that was chosen.
    pub manifest: String,
    /// Its platform, as `os/architecture[/variant]`.
    pub platform: String,
    /// Diff ids of the layers, lowest first.
    pub layers: Vec<String>,
}

/// Where a container's Wasm code lies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ModuleOrigin {
    /// The file.
    pub path: PathBuf,
    /// Its digest, if its content cannot change.
    pub digest: Option<String>,
    /// Components that it is linked with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub components: Vec<Self>,
}

impl ModuleOrigin {
    /// As the run interface wants it.
    pub(crate) fn module(&self) -> dhow_runtime::Module {
        dhow_runtime::Module { path: self.path.clone(), id: self.digest.clone() }
    }
}

/// Docker's container states that exist here so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Made, never started.
    Created,
    /// Its process lives.
    Running,
    /// Its process lives and has been stopped where it was.
    Paused,
    /// It has ended, and its monitor is about to start it again.
    Restarting,
    /// It has ended.
    Exited,
    /// Its supervisor was killed; nothing is known of its end.
    Dead,
}

impl Status {
    /// Whether there is a process, paused or not: Docker's `Running`.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Running | Self::Paused)
    }

    /// Whether it counts as running: it lives, or will again in a moment.
    pub fn is_running(self) -> bool {
        self.is_alive() || self == Self::Restarting
    }

    /// As `ps` and `inspect` print it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// What became of a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct State {
    /// The state as it was last written; [`Container::state`] corrects it for supervisors that were killed.
    pub status: Status,
    /// The first process while it runs, else 0.
    pub pid: u32,
    /// When that process was started, in clock ticks since boot; tells it from a later one of the same number.
    #[serde(default)]
    pub pid_started: Option<u64>,
    /// Code of the last run.
    pub exit_code: u8,
    /// It ended because it wanted more memory than it may have.
    #[serde(default, rename = "OOMKilled")]
    pub oom_killed: bool,
    /// Why it could not be started.
    pub error: String,
    /// Where its ports are on this host while it runs.
    #[serde(default)]
    pub ports: PortMap,
    /// Its endpoint in each network while it runs, by the network's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub networks: BTreeMap<String, Endpoint>,
    /// When the last run began.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Option<Timestamp>,
    /// How often its monitor has started it again since somebody has started it.
    #[serde(default, skip_serializing_if = "is_none")]
    pub restart_count: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_none(count: &u32) -> bool {
    *count == 0
}

impl Default for State {
    fn default() -> Self {
        Self {
            status: Status::Created,
            pid: 0,
            pid_started: None,
            exit_code: 0,
            oom_killed: false,
            error: String::new(),
            ports: PortMap::new(),
            networks: BTreeMap::new(),
            started_at: None,
            finished_at: None,
            restart_count: 0,
        }
    }
}

/// A container on disk.
#[derive(Debug, Clone)]
pub struct Container {
    folder: PathBuf,
    /// What was asked for.
    pub record: Record,
}

/// The right to supervise or change a container; given up when dropped or when the process ends.
///
/// The file that is locked has the exit code of the last run as its content, from when the container has ended until it
/// is started again. So who waits for the lock learns the code even of a container that is gone by then.
#[derive(Debug)]
pub struct Claim(File);

impl Claim {
    /// Leaves the exit code to whoever waits.
    pub(crate) fn note(&self, code: u8) -> Result<()> {
        self.put(&format!("{code:<4}"))
    }

    /// Takes the code of an earlier run away, and keeps the place for the next one: it can be noted on a full disk.
    pub(crate) fn forget(&self) -> Result<()> {
        self.put("    ")
    }

    #[cfg(unix)]
    fn put(&self, text: &str) -> Result<()> {
        use std::os::unix::fs::FileExt as _;
        // At every start and every end: in one call.
        Ok(self.0.write_all_at(text.as_bytes(), 0)?)
    }

    #[cfg(not(unix))]
    fn put(&self, text: &str) -> Result<()> {
        use std::io::{Seek as _, Write as _};
        (&self.0).rewind()?;
        Ok((&self.0).write_all(text.as_bytes())?)
    }
}

/// What became of an attempt to claim a container.
#[derive(Debug)]
pub(crate) enum Attempt {
    /// It is the caller's now.
    Taken(Claim),
    /// Somebody else has it.
    Busy,
    /// It does not exist any more.
    Gone,
}

impl Container {
    /// Makes a new container's folder and claims it. Without a record it is nobody's once the claim is given up.
    pub(crate) fn reserve(containers: &Path, id: &str) -> Result<(PathBuf, Claim)> {
        let folder = containers.join(id);
        fs::create_dir(&folder)?;
        let made = fs::OpenOptions::new().read(true).write(true).create_new(true).open(folder.join("lock"));
        let made = made.map_err(Error::from).and_then(lock_file);
        if made.is_err() {
            // The first failure is the one to report; what cannot be removed is found by `system check`.
            fs::remove_dir_all(&folder).ok();
        }
        made.map(|claim| (folder, claim))
    }

    /// Writes the record of a reserved folder. It is there in whole or not at all.
    pub(crate) fn write(folder: PathBuf, record: Record) -> Result<Self> {
        write(&folder.join("config.json"), &record, !record.host_config.auto_remove)?;
        Ok(Self { folder, record })
    }

    /// A container as its record is about to be.
    pub(crate) fn with(folder: PathBuf, record: Record) -> Self {
        Self { folder, record }
    }

    /// Reads one container.
    pub(crate) fn load(folder: PathBuf) -> Result<Self> {
        let record: Record = read(&folder.join("config.json"))?;
        if folder.file_name().is_none_or(|name| name != record.id.as_str()) {
            return Err(Error::Damaged {
                path: folder.join("config.json"),
                reason: "names another id".to_owned(),
            });
        }
        Ok(Self { folder, record })
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Takes the right to supervise, waiting for whoever has it. `None` when the container is gone by then.
    pub(crate) fn claim(&self) -> Result<Option<Claim>> {
        let lock = match fs::OpenOptions::new().write(true).open(self.folder.join("lock")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let claim = lock_file(lock)?;
        Ok(self.folder.join("config.json").exists().then_some(claim))
    }

    /// As [`Container::claim`], without waiting.
    pub(crate) fn try_claim(&self) -> Result<Attempt> {
        let lock = match fs::OpenOptions::new().write(true).open(self.folder.join("lock")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Attempt::Gone),
            other => other?.into_parts().0,
        };
        match lock.try_lock() {
            Ok(()) if self.folder.join("config.json").exists() => Ok(Attempt::Taken(Claim(lock))),
            Ok(()) => Ok(Attempt::Gone),
            Err(TryLockError::WouldBlock) => Ok(Attempt::Busy),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }

    /// Waits until nobody supervises it; gives the exit code that was left behind, if one was.
    pub(crate) fn await_end(&self) -> Result<Option<u8>> {
        use std::io::Read as _;
        let mut lock = match fs::File::open(self.folder.join("lock")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?.into_parts().0,
        };
        lock.lock_shared()?;
        let mut code = String::new();
        (&mut lock).take(8).read_to_string(&mut code)?;
        Ok(code.trim().parse().ok())
    }

    /// Keeps others from changing the record or the state for as long as the file is open. Held for moments only, and
    /// never waited for while it is held.
    #[cfg(target_os = "linux")]
    pub(crate) fn edit(&self) -> Result<Option<File>> {
        let folder = match fs::File::open(&self.folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?.into_parts().0,
        };
        folder.lock()?;
        Ok(Some(folder))
    }

    /// Whether somebody supervises it right now.
    pub fn is_supervised(&self) -> Result<bool> {
        is_supervised(&self.folder)
    }

    /// What is true now: the last written state, corrected if its supervisor was killed.
    ///
    /// # Errors
    /// When the files cannot be read.
    pub fn state(&self) -> Result<State> {
        // What has ended, or was never begun, has nobody: the lock need not be looked at.
        let written = self.written_state()?;
        if !written.status.is_running() {
            return Ok(written);
        }
        let supervised = self.is_supervised()?;
        // Who is gone by now may have written its end down before.
        let state = if supervised { written } else { self.written_state()? };
        self.corrected(state, supervised)
    }

    /// The same, of one that somebody supervised a moment ago.
    pub(crate) fn state_of_supervised(&self) -> Result<State> {
        self.corrected(self.written_state()?, true)
    }

    fn corrected(&self, mut state: State, supervised: bool) -> Result<State> {
        if state.status == Status::Restarting && !supervised {
            state.status = Status::Exited;
        }
        if supervised || !state.status.is_alive() {
            return Ok(state);
        }
        // Its monitor was killed, or could not write more down than the code.
        let (status, exit_code, finished_at) = match self.noted()? {
            Some((code, when)) => (Status::Exited, code, Some(when)),
            None => (Status::Dead, 137, state.finished_at),
        };
        let (ports, networks) = (PortMap::new(), BTreeMap::new());
        Ok(State { status, pid: 0, exit_code, finished_at, ports, networks, ..state })
    }

    /// The exit code that was left behind, and when.
    fn noted(&self) -> Result<Option<(u8, Timestamp)>> {
        let Some((file, code)) = self.read_lock()? else { return Ok(None) };
        let when = file.metadata()?.modified()?;
        Ok(code.and_then(|code| Some((code, Timestamp::try_from(when).ok()?))))
    }

    fn read_lock(&self) -> Result<Option<(File, Option<u8>)>> {
        use std::io::Read as _;
        let mut lock = match fs::File::open(self.folder.join("lock")) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other?.into_parts().0,
        };
        let mut code = String::new();
        (&mut lock).take(8).read_to_string(&mut code)?;
        let code = code.trim().parse().ok();
        Ok(Some((lock, code)))
    }

    /// The state as it was last written.
    fn written_state(&self) -> Result<State> {
        match read(&self.folder.join("state.json")) {
            Err(Error::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => Ok(State::default()),
            other => other,
        }
    }

    /// Whether it was made to be started later, by whoever has said so.
    pub(crate) fn waits_for_start(&self) -> bool {
        let state: Result<State> = read(&self.folder.join("state.json"));
        state.is_ok_and(|state| state.status == Status::Created)
    }

    /// Its first process, while it has one.
    #[cfg(target_os = "linux")]
    pub(crate) fn process(&self) -> Result<Option<crate::survivor::Held>> {
        let state = self.state()?;
        match (state.status.is_alive(), state.pid_started) {
            (true, Some(started)) => crate::survivor::hold(state.pid, started),
            _ => Ok(None),
        }
    }

    /// The number of its process, if that has outlived the monitor.
    pub(crate) fn survivor(&self) -> Result<Option<u32>> {
        #[cfg(target_os = "linux")]
        if !self.is_supervised()? {
            let state = self.written_state()?;
            let lives =
                state.pid_started.is_some() && crate::survivor::start_time(state.pid) == state.pid_started;
            return Ok((state.status.is_alive() && lives).then_some(state.pid));
        }
        Ok(None)
    }

    /// Ends a process that has outlived its monitor. The caller holds the claim, so there is none.
    pub(crate) fn end_survivor(&self) -> Result<()> {
        #[cfg(target_os = "linux")]
        {
            let state = self.written_state()?;
            if let (true, Some(started)) = (state.status.is_alive(), state.pid_started) {
                crate::survivor::end(state.pid, started)?;
            }
        }
        Ok(())
    }

    /// Writes down, while it lives, that something in it wanted more memory than there is for it.
    #[cfg(target_os = "linux")]
    pub(crate) fn note_out_of_memory(&self) -> Result<()> {
        let Some(_edit) = self.edit()? else { return Ok(()) };
        let state = self.state()?;
        if state.status.is_alive() {
            self.set_state(&State { oom_killed: true, ..state })?;
        }
        Ok(())
    }

    pub(crate) fn set_state(&self, state: &State) -> Result<()> {
        write(&self.folder.join("state.json"), state, !self.record.host_config.auto_remove)
    }
}

/// Whether the lock of a container's folder is held.
pub(crate) fn is_supervised(folder: &Path) -> Result<bool> {
    let file = match fs::File::open(folder.join("lock")) {
        Ok(file) => file.into_parts().0,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error.into()),
    }
}

fn lock_file(file: fs::File) -> Result<Claim> {
    let file = file.into_parts().0;
    file.lock()?;
    Ok(Claim(file))
}

pub(crate) fn read<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    use std::io::Read as _;
    // Without asking for its size first: there may be thousands to be read, and most fit in here. The end of a file is where
    // there is less than was asked for.
    let mut first = [0; 8192];
    let mut file = fs::File::open(path)?;
    let count = file.read(&mut first)?;
    if count < first.len()
        && let Ok(read) = serde_json::from_slice(&first[..count])
    {
        return Ok(read);
    }
    let mut bytes = first[..count].to_vec();
    file.take(u64::MAX).read_to_end(&mut bytes)?;
    serde_json::from_slice(&bytes)
        .map_err(|error| Error::Damaged { path: path.into(), reason: error.to_string() })
}

/// Replaces a file in whole. `durable` waits until it is on the disk.
pub(crate) fn write<T: Serialize>(path: &Path, value: &T, durable: bool) -> Result<()> {
    use std::io::Write as _;
    let text = serde_json::to_vec(value)
        .map_err(|error| Error::Damaged { path: path.into(), reason: error.to_string() })?;
    let temporary = path.with_extension("new");
    let put = || {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(&text)?;
        if durable {
            file.sync_data()?;
        }
        fs::rename(&temporary, path)
    };
    // Half of it is of no use, and takes room where there may be none.
    put().inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    Ok(())
}

mod kind {
    //! [`Kind`] as a word.
    use super::Kind;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    pub(super) fn serialize<S: Serializer>(kind: &Kind, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(match kind {
            Kind::Wasm => "wasm",
            Kind::Native => "native",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Kind, D::Error> {
        match String::deserialize(from)?.as_str() {
            "wasm" => Ok(Kind::Wasm),
            "native" => Ok(Kind::Native),
            other => Err(de::Error::unknown_variant(other, &["wasm", "native"])),
        }
    }
}
