//! Volumes: directories that are kept by name, outlive the containers that use them, and look the same to Wasm and native
//! programs.
//!
//! ```text
//! volumes/.lock               shared by who is about to use volumes, exclusive for who removes some
//! volumes/<name>/volume.json  when and how it was made; written once
//! volumes/<name>/_data/       the files
//! volumes/.new.<random>       one in the making: appears under its name by rename, in whole or not at all
//! volumes/.gone.<random>      one that is being removed, nobody's any more
//! ```
//! A volume is in use while a container's record names it.

mod fill;
#[cfg(target_os = "linux")]
mod memory;
mod remove;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use fs_err as fs;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, make_folder};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::record;

#[cfg(target_os = "linux")]
pub(crate) use memory::{is_mounted, shares_memory, unmount_memory};
pub use remove::{PrunedVolumes, VolumeUsage};

/// Whether containers share the files of volumes in memory.
#[cfg(not(target_os = "linux"))]
pub(crate) fn shares_memory() -> bool {
    false
}

/// The one driver there is.
pub const LOCAL: &str = "local";

/// Docker's label of volumes that nobody gave a name.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";

const FOLDER: &str = "volumes";
const DATA: &str = "_data";
const RECORD: &str = "volume.json";
const NEW: &str = ".new.";
const GONE: &str = ".gone.";
const LOCK: &str = ".lock";

/// One volume, in the words of Docker's API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Volume {
    /// Unique on this root.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Free-form notes.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What the driver was told.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

impl Volume {
    /// Whether nobody gave it a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }
}

/// Where the files of a volume are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its own folder.
    Own,
    /// In a folder of this host.
    Folder {
        /// Absolute.
        path: String,
        /// Unless it was said to be for reading only.
        writable: bool,
    },
    /// In memory, with these options of `tmpfs`, as long as a container runs with it. Without root each has its own.
    Memory(String),
}

impl Volume {
    /// Where its files are, as the options say it in the words of mount(8).
    pub(crate) fn place(&self) -> Result<Place> {
        place(&self.options)
    }
}

/// How a volume is to be made.
#[derive(Debug, Clone, Default)]
pub struct CreateVolume {
    /// Its name; a random one when `None`.
    pub name: Option<String>,
    /// `local`, or empty for it.
    pub driver: String,
    /// What the driver is told.
    pub options: BTreeMap<String, String>,
    /// Free-form notes.
    pub labels: BTreeMap<String, String>,
}

/// While this is held, no volume is removed.
#[derive(Debug)]
pub(crate) struct InUse(#[expect(dead_code, reason = "the open file is the lock")] fs::File);

/// Checks a name by Docker's rules.
///
/// # Errors
/// Docker's messages.
pub fn validate(name: &str) -> Result<()> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if name.len() == 1 {
        return Err(Error::Invalid(
            "volume name is too short, names should be at least two alphanumeric characters".to_owned(),
        ));
    }
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    // 255 is what a file may be named.
    if starts && name.bytes().all(allowed) && name.len() <= 255 {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed"
    )))
}

/// Refuses drivers and options that do not exist here.
pub(crate) fn check_driver(driver: &str, options: &BTreeMap<String, String>) -> Result<()> {
    if !driver.is_empty() && driver != LOCAL {
        return Err(Error::Invalid(format!(
            "error looking up volume plugin {driver}: plugin \"{driver}\" not found"
        )));
    }
    place(options).map(drop)
}

/// What `type`, `o` and `device` of Docker's local driver come to.
fn place(options: &BTreeMap<String, String>) -> Result<Place> {
    if options.is_empty() {
        return Ok(Place::Own);
    }
    for name in options.keys() {
        if !["type", "o", "device"].contains(&name.as_str()) {
            return Err(Error::Invalid(format!("invalid option: \"{name}\"")));
        }
    }
    let of = |name: &str| options.get(name).map_or("", String::as_str);
    for name in ["device", "type"] {
        if of(name).is_empty() {
            return Err(Error::Invalid(format!("missing required option: \"{name}\"")));
        }
    }
    let words = || of("o").split(',').filter(|word| !word.is_empty());
    match of("type") {
        "none" | "bind" if words().any(|word| word == "bind" || word == "rbind") => {
            let path = of("device");
            if !Path::new(path).is_absolute() {
                return Err(Error::Invalid(format!("device \"{path}\" must be an absolute path")));
            }
            Ok(Place::Folder { path: path.to_owned(), writable: words().all(|word| word != "ro") })
        }
        "tmpfs" => Ok(Place::Memory(words().collect::<Vec<_>>().join(","))),
        other => Err(Error::NotYet {
            what: format!("a volume of type \"{other}\""),
            hint: "mount the file system on the host, and name its folder: `-o type=none -o o=bind -o device=/path`"
                .to_owned(),
        }),
    }
}

impl Engine {
    fn volumes_folder(&self) -> PathBuf {
        self.root().join(FOLDER)
    }

    fn volume_folder(&self, name: &str) -> PathBuf {
        self.volumes_folder().join(name)
    }

    /// Where a volume's files lie, as text.
    ///
    /// # Errors
    /// When the root folder's path is not UTF-8.
    pub fn volume_data(&self, name: &str) -> Result<String> {
        let path = self.volume_folder(name).join(DATA);
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Error::Invalid(format!("{}: a path with volumes must be valid UTF-8", path.display()))
        })
    }

    /// Makes a volume, or finds it if there is one of this name.
    ///
    /// # Errors
    /// A name or driver that does not do, and those of the disk.
    pub fn create_volume(&self, wanted: CreateVolume) -> Result<Volume> {
        check_driver(&wanted.driver, &wanted.options)?;
        let mut labels = wanted.labels;
        let name = match wanted.name {
            Some(name) => {
                validate(&name)?;
                match self.volume(&name) {
                    Err(Error::NoSuchVolume(_)) => {}
                    found => return found,
                }
                name
            }
            None => {
                labels.insert(ANONYMOUS.to_owned(), String::new());
                crate::container::create::random_id()?.0
            }
        };
        let volume = Volume { name, created_at: Timestamp::now(), labels, options: wanted.options };
        let all = self.volumes_folder();
        make_folder(&all)?;
        let draft = all.join(format!("{NEW}{}", crate::container::create::random_id()?.0));
        let made = self.publish(&draft, &volume);
        if draft.exists() {
            // It failed, or another process was faster.
            fs::remove_dir_all(&draft).ok();
        }
        if !made? {
            return self.volume(&volume.name);
        }
        self.tell_later(&Event::new("volume", "create", &volume.name, &[("driver", "local")]));
        Ok(volume)
    }

    /// Whether it has become visible; if not, there is one of this name.
    fn publish(&self, draft: &Path, volume: &Volume) -> Result<bool> {
        make_folder(draft)?;
        let data = draft.join(DATA);
        fs::create_dir(&data)?;
        #[cfg(unix)]
        fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        record::write(&draft.join(RECORD), volume, true)?;
        #[cfg(unix)]
        fs::File::open(draft)?.sync_all()?;
        let place = self.volume_folder(&volume.name);
        match fs::rename(draft, &place) {
            Ok(()) => {
                #[cfg(unix)]
                fs::File::open(self.volumes_folder())?.sync_all()?;
                Ok(true)
            }
            Err(_) if place.join(RECORD).exists() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds a volume.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`], or a damaged record.
    pub fn volume(&self, name: &str) -> Result<Volume> {
        let missing = || Error::NoSuchVolume(name.to_owned());
        validate(name).map_err(|_| missing())?;
        let path = self.volume_folder(name).join(RECORD);
        let volume: Volume = match record::read(&path) {
            Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => return Err(missing()),
            other => other?,
        };
        if volume.name == name {
            Ok(volume)
        } else {
            Err(Error::Damaged { path, reason: "names another volume".to_owned() })
        }
    }

    /// Every volume, by name. One with a damaged record is missing: [`Engine::check`] finds it.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let mut volumes = Vec::new();
        for name in self.volume_names()? {
            match self.volume(&name) {
                Ok(volume) => volumes.push(volume),
                Err(Error::NoSuchVolume(_) | Error::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(volumes)
    }

    /// The names in the folder that may be volumes, in order.
    fn volume_names(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for name in self.volume_entries()? {
            if !name.starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn volume_entries(&self) -> Result<Vec<String>> {
        let entries = match fs::read_dir(self.volumes_folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// Keeps all volumes from being removed until the guard is dropped.
    pub(crate) fn volumes_in_use(&self) -> Result<InUse> {
        let file = self.volumes_lock()?;
        file.file().lock_shared()?;
        Ok(InUse(file))
    }

    fn volumes_lock(&self) -> Result<fs::File> {
        make_folder(&self.volumes_folder())?;
        let path = self.volumes_folder().join(LOCK);
        Ok(fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn driver_options() {
        let of = |options: &[(&str, &str)]| {
            place(&options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        let bind = |o| of(&[("type", "none"), ("o", o), ("device", "/srv")]);
        assert_eq!(of(&[]).unwrap(), Place::Own);
        assert_eq!(bind("bind").unwrap(), Place::Folder { path: "/srv".to_owned(), writable: true });
        assert_eq!(bind("ro,bind").unwrap(), Place::Folder { path: "/srv".to_owned(), writable: false });
        let memory = of(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,mode=700")]);
        assert_eq!(memory.unwrap(), Place::Memory("size=1m,mode=700".to_owned()));
        for bad in [
            &[("type", "tmpfs")][..],
            &[("device", "/srv")],
            &[("type", "none"), ("device", "/srv"), ("colour", "blue")],
            &[("type", "none"), ("o", "bind"), ("device", "srv")],
            &[("type", "nfs"), ("o", "addr=10.0.0.1"), ("device", ":/srv")],
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn names() {
        for good in ["ab", "a.b_c-d", "0x", &"a".repeat(255)] {
            assert!(validate(good).is_ok(), "{good}");
        }
        for bad in ["", "a", ".a", "-a", "a/b", "..", "a b", "é1", "a\0", &"a".repeat(256)] {
            assert!(validate(bad).is_err(), "{bad}");
        }
    }
}
