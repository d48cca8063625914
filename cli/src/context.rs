//! Where this user's engine lies: the only place that reads the environment for folders.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Result;
use dhow_engine::images::{Descriptor, Matcher, Reference, Store};
use dhow_engine::{Engine, Folders, owner};

use crate::args::Global;
use crate::error::hinted;
use crate::ui::Ui;

/// Opens the engine of `--root`, or of this user.
pub(crate) fn engine(global: &Global) -> Result<Engine> {
    let opened = Engine::open(Folders { root: root(global)?, run: run(), layers: global.layers.into() });
    let opened = opened.map(|engine| engine.with_init(std::env::current_exe));
    opened.map_err(|error| match error.hint() {
        Some(_) => error.into(),
        None => hinted(error.to_string(), "name another folder with `--root DIR` or DHOW_ROOT"),
    })
}

/// For a command that leaves processes behind, before it opens anything: closes what it got from its caller besides the
/// standard streams (the lock of a script, say), for they would keep it. A path like `/dev/fd/63` is still to be read.
pub(crate) fn close_inherited() {
    #[cfg(target_os = "linux")]
    if !std::env::args_os().any(|arg| arg.to_string_lossy().contains("/fd/")) {
        // With nothing to be kept there is nothing that could be missing.
        dhow_engine::runtime::process::keep_descriptors(0).ok();
    }
}

/// `--root`, else `/var/lib/dhow` for root, else the user's data folder.
pub(crate) fn root(global: &Global) -> Result<PathBuf> {
    if let Some(root) = &global.root {
        return Ok(std::path::absolute(root)?);
    }
    if is_root() {
        return Ok(PathBuf::from("/var/lib/dhow"));
    }
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = if cfg!(windows) {
        from("LOCALAPPDATA")
    } else {
        // The XDG specification ignores relative paths.
        from("XDG_DATA_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(from("HOME")?.join(".local/share")))
    };
    data.map(|data| data.join("dhow"))
        .ok_or_else(|| hinted("this user has no data folder", "name one with `--root DIR` or DHOW_ROOT"))
}

/// A folder in memory, for what need not survive a reboot: root's on Linux. A user's own (`$XDG_RUNTIME_DIR`) is not there
/// in every session and vanishes with the last one, while containers go on.
fn run() -> Option<PathBuf> {
    (cfg!(target_os = "linux") && is_root()).then(|| PathBuf::from(Folders::RUN))
}

/// Whether this command was started by root. A child that works as the owner of an image's files is root of its own
/// namespace and works on the user's folders all the same, so this is found out once.
fn is_root() -> bool {
    static IS_ROOT: OnceLock<bool> = OnceLock::new();
    *IS_ROOT.get_or_init(|| {
        #[cfg(unix)]
        return rustix::process::geteuid().is_root();
        #[cfg(not(unix))]
        false
    })
}

/// Whether this process may mount at all: root, also of a user namespace of its own.
pub(crate) fn may_mount() -> bool {
    is_root()
}

/// Runs a command that writes or removes files of images: as their owner, see [`owner`].
pub(crate) fn as_owner(ui: &Ui, command: impl FnOnce() -> Result<u8>) -> Result<u8> {
    as_another(ui, command, |work| owner::as_owner(work))
}

/// Runs a command that mounts, too: see [`owner::as_root`].
#[cfg(target_os = "linux")]
pub(crate) fn as_root(ui: &Ui, command: impl FnOnce() -> Result<u8>) -> Result<u8> {
    as_another(ui, command, |work| owner::as_root(work))
}

/// The same in the user namespace of this user's networks.
#[cfg(target_os = "linux")]
pub(crate) fn as_root_of_networks(
    ui: &Ui,
    engine: &Engine,
    command: impl FnOnce() -> Result<u8>,
) -> Result<u8> {
    as_another(ui, command, |work| engine.as_root_of_networks(work))
}

fn as_another(
    ui: &Ui,
    command: impl FnOnce() -> Result<u8>,
    run: impl FnOnce(Box<dyn FnOnce() -> u8 + '_>) -> dhow_engine::Result<u8>,
) -> Result<u8> {
    is_root();
    let mut failed = None;
    let in_child = &mut failed;
    let here = std::process::id();
    let code = run(Box::new(|| match command() {
        Ok(code) => code,
        Err(error) if std::process::id() == here => {
            *in_child = Some(error);
            1
        }
        Err(error) => crate::error::report(ui, &error),
    }))?;
    match failed {
        Some(error) => Err(error),
        None => Ok(code),
    }
}

/// Tells a user without ids of other owners what becomes of them.
pub(crate) fn explain_owners(ui: &Ui) {
    if let owner::Standing::Alone(why) = owner::standing() {
        ui.warn(&format!("all files of images will belong to you and seem root's in containers: {why}"));
    }
}

/// Says how many files of an image are not their owners', if this user has ranges of ids and they are too small.
pub(crate) fn explain_lost_owners(ui: &Ui, store: &Store, name: &Reference, image: &Descriptor) {
    if matches!(owner::standing(), owner::Standing::Alone(_)) {
        return;
    }
    // An image that cannot run here was not unpacked.
    let Ok(image) = store.image(image, &Matcher::host()) else { return };
    let lost = store.lost_owners(&image.diff_ids);
    if lost > 0 {
        let (files, belong) = if lost == 1 { ("file", "belongs") } else { ("files", "belong") };
        ui.warn(&format!(
            "{lost} {files} of {} {belong} to users that are not in your ranges of ids, and will seem root's: \
             /etc/subuid and /etc/subgid",
            name.familiar()
        ));
    }
}

/// The user's Docker configuration with registry credentials, if there is a home.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = from("DOCKER_CONFIG")
        .or_else(|| Some(from(if cfg!(windows) { "USERPROFILE" } else { "HOME" })?.join(".docker")))?;
    Some(folder.join("config.json"))
}

/// The settings file: `DHOW_SETTINGS`, else the user's own if there is one, else the system's.
pub(crate) fn settings_file() -> PathBuf {
    let from = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(file) = from("DHOW_SETTINGS") {
        return file;
    }
    let system = PathBuf::from("/etc/dhow/config.json");
    if is_root() {
        return system;
    }
    let config = if cfg!(windows) {
        from("APPDATA")
    } else {
        from("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| Some(from("HOME")?.join(".config")))
    };
    config.map(|config| config.join("dhow/config.json")).filter(|file| file.exists()).unwrap_or(system)
}
