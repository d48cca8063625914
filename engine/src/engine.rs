//! The engine: where everything lies, and finding containers by name or id.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_images::{LayerForm, Store};
use fs_err as fs;

use crate::error::{Error, Result};
use crate::events::Events;
use crate::many;
use crate::names;
use crate::record::{Container, is_supervised};

/// The folders an engine works in.
#[derive(Debug, Clone)]
pub struct Folders {
    /// Images, containers, compiled code: survives a reboot.
    pub root: PathBuf,
    /// On a file system in memory, for what need not survive one: `/run/dhow` or the like. Made where it is missing;
    /// without one everything is below `root`.
    pub run: Option<PathBuf>,
    /// How layers of native images are kept. [`LayerForm::Index`] also needs `run`, where images are mounted.
    pub layers: LayerForm,
}

impl Folders {
    /// Where root's engine on Linux keeps what need not survive a reboot.
    pub const RUN: &str = "/run/dhow";

    /// The folders that the command `dhow --root ROOT` uses for whoever runs this process.
    pub fn below(root: PathBuf) -> Self {
        #[cfg(target_os = "linux")]
        let run = rustix::process::geteuid().is_root().then(|| PathBuf::from(Self::RUN));
        #[cfg(not(target_os = "linux"))]
        let run = None;
        Self { root, run, layers: LayerForm::Index }
    }
}

/// Folder of what containers write whose records are in memory.
const SCRATCH: &str = "scratch";

/// Folder of machine code that was made of Wasm modules.
const COMPILED: &str = "aot";

/// Folder of leases below a root's run folder.
const LEASES: &str = "leases";

/// How long nothing may have happened in a run folder before it is believed to be nobody's.
const RUN_FOLDER_RESTS: Duration = Duration::from_secs(600);

/// Folder of mounted images below a root's run folder.
const MOUNTS: &str = "images";

/// File in a root's run folder with the root's path.
const OWNER: &str = "root";

/// Where records, names and leases of containers are kept.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) containers: PathBuf,
    pub(crate) names: PathBuf,
}

impl Place {
    fn below(folder: &Path) -> Self {
        Self { containers: folder.join("containers"), names: folder.join("names") }
    }
}

/// One root folder, shared with any number of other processes.
#[derive(Debug)]
pub struct Engine {
    root: PathBuf,
    store: Store,
    lasting: Place,
    /// In memory; for containers that are removed when they end.
    passing: Option<Place>,
    /// See [`Engine::with_policy`].
    pub(crate) policy: Option<PathBuf>,
    pub(crate) events: Events,
    /// See [`Engine::with_init`].
    pub(crate) init: Option<fn() -> std::io::Result<PathBuf>>,
    /// Handles that the mounts of the container are named by which is started next.
    #[cfg(target_os = "linux")]
    held: std::sync::Mutex<Vec<std::os::fd::OwnedFd>>,
}

impl Engine {
    /// Opens a root folder, making it where it is missing. Cheap enough for every command.
    ///
    /// # Errors
    /// When a folder cannot be made or is not ours to use.
    pub fn open(folders: Folders) -> Result<Self> {
        let root = folders.root;
        let mut store = Store::open(&root)?.with_derived(root.join(COMPILED)).with_layer_form(folders.layers);
        let lasting = Place::below(&root);
        let scratch = root.join(SCRATCH);
        // Made last, so where it is the others are, too: a start should not make all of them in vain.
        if !scratch.is_dir() {
            for folder in [&lasting.containers, &lasting.names, &scratch] {
                make_folder(folder)?;
            }
        }
        let mut passing = None;
        if let Some(all) = folders.run {
            match run_folder(&all, &root) {
                Ok(run) => {
                    store = store.with_volatile_leases(run.join(LEASES)).with_mounts(run.join(MOUNTS));
                    passing = Some(Place::below(&run));
                }
                // A system without such a place, the same for every process in it: all is below `root` then.
                Err(Error::Io(error))
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
                    ) => {}
                Err(error) => return Err(error),
            }
        }
        let events = Events::of(&root);
        Ok(Self {
            root,
            store,
            lasting,
            passing,
            policy: None,
            events,
            init: None,
            #[cfg(target_os = "linux")]
            held: std::sync::Mutex::default(),
        })
    }

    /// Keeps handles open, in place of those that were held.
    #[cfg(target_os = "linux")]
    pub(crate) fn hold(&self, handles: Vec<std::os::fd::OwnedFd>) {
        let mut held = self.held.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if !(held.is_empty() && handles.is_empty()) {
            *held = handles;
        }
    }

    /// The same engine with a program for `--init`: called as `/dev/init -- PROGRAM ARG...`, it runs the program, passes
    /// signals on, and reaps what is left to it.
    #[must_use]
    pub fn with_init(mut self, program: fn() -> std::io::Result<PathBuf>) -> Self {
        self.init = Some(program);
        self
    }

    /// Where a container's memory is that others may share.
    #[cfg(target_os = "linux")]
    pub(crate) fn shm_folder(&self, id: &str) -> Result<PathBuf> {
        Ok(Path::new("/dev/shm").join(format!("dhow-{}", self.group_name(id)?)))
    }

    /// The image store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The root folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Every place with containers, the one in memory first.
    pub(crate) fn places(&self) -> impl Iterator<Item = &Place> {
        self.passing.iter().chain([&self.lasting])
    }

    /// Where a new container goes.
    pub(crate) fn place_for(&self, auto_remove: bool) -> &Place {
        self.passing.as_ref().filter(|_| auto_remove).unwrap_or(&self.lasting)
    }

    /// Where a container writes: beside its record, or on the disk if its record is in memory.
    pub(crate) fn data_folder(&self, container: &Container) -> PathBuf {
        if container.folder().starts_with(&self.lasting.containers) {
            container.folder().to_owned()
        } else {
            self.scratch_folder().join(&container.record.id)
        }
    }

    /// What containers write whose records are in memory.
    pub(crate) fn scratch_folder(&self) -> PathBuf {
        self.root.join(SCRATCH)
    }

    /// The folder of this container's record, if there is one.
    fn record_folder(&self, id: &str) -> Option<PathBuf> {
        let containers = self.places().map(|place| place.containers.join(id));
        containers.chain(self.of_builds(id)).find(|folder| folder.is_dir())
    }

    /// The folder of a build, whose steps are containers that no list shows.
    #[cfg(target_os = "linux")]
    fn of_builds(&self, id: &str) -> Option<PathBuf> {
        Some(self.builds_folder().join(id))
    }

    #[cfg(not(target_os = "linux"))]
    #[expect(clippy::unused_self, reason = "there are no builds here")]
    fn of_builds(&self, _id: &str) -> Option<PathBuf> {
        None
    }

    /// Whether a container of this id exists or is being made.
    pub(crate) fn is_alive(&self, id: &str) -> Result<bool> {
        match self.record_folder(id) {
            Some(folder) => Ok(folder.join("config.json").exists() || is_supervised(&folder)?),
            None => Ok(false),
        }
    }

    /// Who owns a name, wherever it is kept.
    pub(crate) fn owner_of(&self, name: &str) -> Result<Option<String>> {
        for place in self.places() {
            if let Some(owner) = names::owner(&place.names, name)? {
                return Ok(Some(owner));
            }
        }
        Ok(None)
    }

    /// What no other root has, however its path is written.
    #[cfg(target_os = "linux")]
    pub(crate) fn identity(&self) -> Result<String> {
        identity(&self.root)
    }

    /// The name of a container's control group: none of another root has the same beginning.
    #[cfg(target_os = "linux")]
    pub(crate) fn group_name(&self, id: &str) -> Result<String> {
        Ok(format!("{}-{id}", identity(&self.root)?))
    }

    /// Where machine code of Wasm modules is kept.
    pub fn aot_folder(&self) -> PathBuf {
        self.root.join(COMPILED)
    }

    /// Every container, newest first. One that is being made or removed just now may be missing, and one whose record is
    /// damaged is: [`Engine::check`] finds it, and it must not hide the others.
    ///
    /// # Errors
    /// When a folder cannot be read.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let mut containers = Vec::new();
        for loaded in many::map(self.container_folders()?, Container::load) {
            match loaded {
                Ok(container) => containers.push(container),
                Err(Error::Damaged { .. }) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        containers.sort_by_key(|container| std::cmp::Reverse(container.record.created));
        Ok(containers)
    }

    /// The folders of all records, whole or not; their names are the ids.
    pub(crate) fn container_folders(&self) -> Result<Vec<PathBuf>> {
        let mut folders = Vec::new();
        for place in self.places() {
            for entry in fs::read_dir(&place.containers)? {
                let entry = entry?;
                if entry.file_name().to_str().is_some() {
                    folders.push(entry.path());
                }
            }
        }
        Ok(folders)
    }

    /// Finds a container as Docker does: by full id, by name, by an id's beginning that fits no other.
    ///
    /// # Errors
    /// [`Error::NoSuchContainer`], [`Error::AmbiguousId`], or a damaged record.
    pub fn container(&self, wanted: &str) -> Result<Container> {
        let missing = || Error::NoSuchContainer(wanted.to_owned());
        let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
        let is_id = !wanted.is_empty() && wanted.bytes().all(|byte| byte.is_ascii_hexdigit());
        let load = |folder: PathBuf| match Container::load(folder) {
            Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => Err(missing()),
            other => other,
        };
        let by_id = |id: &str| self.record_folder(id).ok_or_else(missing).and_then(load);
        if is_id && wanted.len() == 64 {
            return by_id(wanted);
        }
        if let Some(owner) = self.owner_of(wanted)? {
            return by_id(&owner);
        }
        if !is_id {
            return Err(missing());
        }
        let fits = |folder: &PathBuf| {
            folder.file_name().and_then(|name| name.to_str()).is_some_and(|id| id.starts_with(wanted))
        };
        let mut fitting = self.container_folders()?.into_iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            (Some(folder), None) => load(folder),
            (Some(_), Some(_)) => Err(Error::AmbiguousId(wanted.to_owned())),
            (None, _) => Err(missing()),
        }
    }
}

/// A root's own folder below the run folder; made where it is missing.
fn run_folder(all: &Path, root: &Path) -> Result<PathBuf> {
    let run = all.join(identity(root)?);
    let place = Place::below(&run);
    if place.containers.is_dir() {
        return Ok(run);
    }
    for folder in [all, &run] {
        make_folder(folder)?;
    }
    sweep(all)?;
    if let Some(root) = root.to_str() {
        fs::write(run.join(OWNER), root)?;
    }
    // Last the one that is looked for.
    for folder in [&run.join(LEASES), &place.names, &place.containers] {
        make_folder(folder)?;
    }
    Ok(run)
}

/// Makes a folder for this user only, if it is not there: containers hold set-user-id programs and secrets.
pub(crate) fn make_folder(folder: &Path) -> Result<()> {
    let builder = &mut std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(builder, 0o700);
    match builder.create(folder) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(std::io::Error::new(error.kind(), format!("{}: {error}", folder.display())).into()),
        Ok(()) => Ok(()),
    }
}

/// Removes the run folders of roots that do not exist any more. Done when a new one is made, which is seldom. A root
/// that is not there may only be out of our sight, in a mount namespace of its own: then it is in use or was just now.
fn sweep(all: &Path) -> Result<()> {
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        // One without an owner is being made, or belongs to a root whose path cannot be written down.
        let Ok(root) = fs::read_to_string(entry.path().join(OWNER)) else { continue };
        if identity(Path::new(&root)).is_ok_and(|identity| entry.file_name() == identity.as_str()) {
            continue;
        }
        if is_busy(&entry.path()) {
            continue;
        }
        // Without the right to do it there was none to make any.
        #[cfg(target_os = "linux")]
        if let Some(identity) = entry.file_name().to_str() {
            crate::network::sweep(identity).ok();
        }
        #[cfg(target_os = "linux")]
        dhow_images::unmount_all(&entry.path().join(MOUNTS))?;
        dhow_images::remove_tree(entry.path())?;
    }
    Ok(())
}

/// Whether a run folder has a container that lives, or had a container or lease not long ago.
fn is_busy(run: &Path) -> bool {
    let place = Place::below(run);
    let changed = |folder: &Path| {
        let time = fs::metadata(folder).and_then(|meta| meta.modified());
        time.is_ok_and(|time| time.elapsed().unwrap_or_default() < RUN_FOLDER_RESTS)
    };
    if [&place.containers, &place.names, &run.join(LEASES)].into_iter().any(|folder| changed(folder)) {
        return true;
    }
    let Ok(containers) = fs::read_dir(&place.containers) else { return false };
    containers.flatten().any(|entry| is_supervised(&entry.path()).unwrap_or(true))
}

/// A name for this root that no other one has, however its path is written, now or later: where the store's marker is
/// and when it was made. Not when it was last written, where the file system knows both: a root that was copied with its
/// times can be given the place of one that was removed.
fn identity(root: &Path) -> Result<String> {
    let marker = fs::metadata(root.join("oci-layout"))?;
    let made = marker
        .created()
        .or_else(|_| marker.modified())?
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos();
    #[cfg(unix)]
    let number = {
        use std::os::unix::fs::MetadataExt as _;
        marker.ino()
    };
    #[cfg(not(unix))]
    let number = 0;
    Ok(format!("{number:x}-{made:x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_folders_go_with_their_roots() {
        let base = tempfile::tempdir().unwrap();
        let run = base.path().join("run");
        let open = |name: &str| {
            let folders =
                Folders { root: base.path().join(name), run: Some(run.clone()), layers: LayerForm::Files };
            Engine::open(folders).unwrap()
        };
        let (gone, stays) = (open("gone"), open("stays"));
        assert_eq!(fs::read_dir(&run).unwrap().count(), 2);
        fs::remove_dir_all(gone.root()).unwrap();
        let _new = open("new");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 3, "its root may only be out of sight");
        let rest = || {
            for folder in fs::read_dir(&run).unwrap() {
                for name in ["containers", "names", LEASES] {
                    let folder = fs::File::open(folder.as_ref().unwrap().path().join(name)).unwrap();
                    let long_ago = std::time::SystemTime::now() - 2 * RUN_FOLDER_RESTS;
                    folder.file().set_modified(long_ago).unwrap();
                }
            }
        };
        rest();
        fs::remove_dir_all(base.path().join("new")).unwrap();
        let _newer = open("newer");
        assert_eq!(fs::read_dir(&run).unwrap().count(), 2);
        assert!(stays.places().all(|place| place.containers.is_dir()));
        // A system that has no place in memory.
        let folders = Folders {
            root: stays.root().to_owned(),
            run: Some(PathBuf::from("/proc/dhow")),
            layers: LayerForm::Files,
        };
        assert_eq!(Engine::open(folders).unwrap().places().count(), 1);
        // What a copy would bring along does not name it.
        let marker = fs::File::options().write(true).open(stays.root().join("oci-layout")).unwrap();
        if marker.metadata().unwrap().created().is_ok() {
            let before = identity(stays.root()).unwrap();
            marker.set_modified(std::time::UNIX_EPOCH).unwrap();
            assert_eq!(identity(stays.root()).unwrap(), before);
        }
        // A root made anew at the same path is another one.
        let again = open("gone");
        assert!(again.containers().unwrap().is_empty());
        assert_eq!(fs::read_dir(&run).unwrap().count(), 3);
    }
}
