//! `system check`: proves that everything below the root belongs to exactly one live object, and repairs it.

mod boot;
mod compiled;
#[cfg(target_os = "linux")]
mod groups;

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use dhow_images::{CheckOptions, Digest};
use fs_err as fs;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::names;
use crate::record::{Container, is_supervised};

pub use boot::Outcome;

/// Something that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it is: a path below the root, a digest, or a name.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
    /// Whether it has been put right.
    pub repaired: bool,
    /// The names of images that are not complete because of it: to be pulled or loaded again.
    pub images: Vec<String>,
}

/// Longer than anything is between two states.
pub(crate) const A_MOMENT: Duration = Duration::from_millis(100);

impl Problem {
    pub(crate) fn new(place: String, what: String, repaired: bool) -> Self {
        Self { place, what, repaired, images: Vec::new() }
    }
}

impl Engine {
    /// Looks at every record, name, blob and layer. With `repair` leftovers are removed; content that others need and
    /// that is damaged is removed too, so that the next pull fetches it again.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn check(&self, repair: bool) -> Result<Vec<Problem>> {
        self.check_with(repair, None)
    }

    /// As [`Engine::check`]; `progress` is told, from several threads, how many bytes of content have been read and how
    /// many there are.
    ///
    /// # Errors
    /// When the root cannot be read.
    pub fn check_with(
        &self,
        repair: bool,
        progress: Option<&(dyn Fn(u64, u64) + Sync)>,
    ) -> Result<Vec<Problem>> {
        let mut problems = Vec::new();
        #[cfg(target_os = "linux")]
        self.check_builds()?;
        let lease = |id: &str| self.should_keep(id);
        let options = CheckOptions { repair, progress, lease: Some(&lease) };
        for problem in self.store().check_with(&options)? {
            problems.push(Problem {
                place: problem.path.display().to_string(),
                what: problem.what,
                repaired: problem.repaired,
                images: problem.images.iter().map(dhow_images::Reference::familiar).collect(),
            });
        }
        #[cfg(target_os = "linux")]
        self.check_plugins(repair, &mut problems)?;
        self.check_containers(repair, &mut problems)?;
        self.check_names(repair, &mut problems)?;
        self.check_scratch(repair, &mut problems)?;
        self.check_leases(repair, &mut problems)?;
        self.check_mounts(repair, &mut problems)?;
        self.check_volumes(repair, &mut problems)?;
        #[cfg(target_os = "linux")]
        let here = crate::network::reaches_networks();
        #[cfg(not(target_os = "linux"))]
        let here = true;
        if here {
            self.check_networks(repair, &mut problems)?;
        }
        self.check_compiled(repair, &mut problems)?;
        #[cfg(target_os = "linux")]
        self.check_groups(repair, &mut problems)?;
        #[cfg(target_os = "linux")]
        self.check_shared_memory(repair, &mut problems)?;
        Ok(problems)
    }

    /// What calls of native plugins have left that were killed. Before containers are looked at: theirs go with them.
    #[cfg(target_os = "linux")]
    fn check_plugins(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        for name in self.sweep_plugins(repair)? {
            let what = "left by a native plugin whose caller was killed".to_owned();
            problems.push(Problem::new(format!("plugins/{name}"), what, repair));
        }
        Ok(())
    }

    /// Memory that was shared by containers that are gone.
    #[cfg(target_os = "linux")]
    fn check_shared_memory(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let prefix = format!("dhow-{}", self.group_name("")?);
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let Some(id) = name.strip_prefix(&prefix) else { continue };
            if id.len() != 64 || self.is_alive(id)? {
                continue;
            }
            if repair {
                crate::volume::unmount_memory(&entry.path());
                crate::container::remove_folder(&entry.path())?;
            }
            let what = "shared memory of a container that does not exist".to_owned();
            problems.push(Problem::new(format!("/dev/shm/{name}"), what, repair));
        }
        Ok(())
    }

    /// What the lease of a container should keep.
    fn should_keep(&self, id: &str) -> Option<Vec<Digest>> {
        if let Some(kept) = self.mount_keeps(id) {
            return Some(kept);
        }
        #[cfg(target_os = "linux")]
        if let Some(kept) = self.build_keeps(id) {
            return Some(kept);
        }
        let container = self.container(id).ok().filter(|container| container.record.id == id)?;
        let mounted = container.record.mounts.iter().filter_map(|point| point.image.as_ref());
        let ids = container.record.image.iter().chain(mounted);
        let kept: Option<Vec<Digest>> = ids.map(|image| image.id.parse().ok()).collect();
        kept.filter(|kept| !kept.is_empty())
    }

    fn check_containers(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        for folder in self.container_folders()? {
            let id = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let what = match Container::load(folder.clone()) {
                Ok(container) => match self.wrong_with(&container) {
                    Ok(None) => continue,
                    Ok(Some(what)) => {
                        if repair && let Some(claim) = container.claim()? {
                            container.end_survivor()?;
                            if container.record.host_config.auto_remove {
                                self.erase(&container, claim)?;
                            }
                        }
                        problems.push(Problem::new(format!("containers/{id}"), what, repair));
                        continue;
                    }
                    Err(Error::Damaged { reason, .. }) => format!("damaged state: {reason}"),
                    Err(error) => return Err(error),
                },
                Err(Error::Damaged { reason, .. }) => format!("damaged record: {reason}"),
                Err(Error::Io(error)) if error.kind() == ErrorKind::NotFound => {
                    if !is_left_over(&folder)? {
                        continue;
                    }
                    "leftover of a container that was being made or removed".to_owned()
                }
                Err(error) => return Err(error),
            };
            if repair {
                self.discard(&folder, &id)?;
                self.store().release(&id)?;
            }
            problems.push(Problem::new(format!("containers/{id}"), what, repair));
        }
        Ok(())
    }

    /// What a container with a whole record suffers from.
    fn wrong_with(&self, container: &Container) -> Result<Option<String>> {
        if let Some(pid) = container.survivor()? {
            return Ok(Some(format!("process {pid} has outlived its monitor")));
        }
        let abandoned = container.record.host_config.auto_remove
            && !container.is_supervised()?
            && container.folder().join("config.json").exists()
            && !container.waits_for_start();
        Ok(abandoned.then(|| "was to be removed when it ended, and its monitor was killed".to_owned()))
    }

    fn check_names(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        for place in self.places() {
            for entry in fs::read_dir(&place.names)? {
                let entry = entry?;
                let Ok(name) = entry.file_name().into_string() else { continue };
                let owner = match name.strip_prefix('.') {
                    // A claim in the making.
                    Some(id) => Some(id.to_owned()),
                    None => names::owner(&place.names, &name)?,
                };
                let Some(owner) = owner else { continue };
                let what = if !self.is_alive(&owner)? {
                    format!("name of container {owner}, which does not exist")
                } else if self.is_left_by_rename(&entry.path(), &owner)? {
                    format!("leftover of a rename: container {owner} has another name")
                } else {
                    continue;
                };
                if repair {
                    fs::remove_file(entry.path())?;
                }
                problems.push(Problem::new(format!("names/{name}"), what, repair));
            }
        }
        Ok(())
    }

    /// Whether a name, or a claim in the making, is one that a rename has left: a container has one name. Nobody renames
    /// while this looks.
    fn is_left_by_rename(&self, name: &Path, owner: &str) -> Result<bool> {
        let Ok(container) = self.container(owner) else { return Ok(false) };
        #[cfg(target_os = "linux")]
        let Some(_edit) = container.edit()? else { return Ok(false) };
        // One that is being made has a name before it has a record, and one that is being removed after.
        let Ok(now) = Container::load(container.folder().to_owned()) else { return Ok(false) };
        let is_its_own = name.file_name().is_some_and(|file| file == now.record.name.as_str());
        Ok(!is_its_own && fs::symlink_metadata(name).is_ok())
    }

    /// What containers wrote whose records were in memory and are gone, with a reboot for example.
    fn check_scratch(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let entries = match fs::read_dir(self.scratch_folder()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        for entry in entries {
            let entry = entry?;
            let Ok(id) = entry.file_name().into_string() else { continue };
            if self.is_alive(&id)? {
                continue;
            }
            if repair {
                self.discard(&entry.path(), &id)?;
            }
            let what = "files of a container that does not exist".to_owned();
            problems.push(Problem::new(format!("scratch/{id}"), what, repair));
        }
        Ok(())
    }

    /// Leases named like containers belong to them.
    fn check_leases(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        for lease in self.store().lease_ids()? {
            let is_ours = lease.len() == 64 && lease.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_ours || self.is_alive(&lease)? {
                continue;
            }
            if repair {
                self.store().release(&lease)?;
            }
            let what = "lease of a container that does not exist".to_owned();
            problems.push(Problem::new(format!("leases/{lease}"), what, repair));
        }
        Ok(())
    }
}

/// Whether a folder without a record is nobody's. One that is being made or removed has none for a moment, and no lock
/// either: so it is looked at twice.
fn is_left_over(folder: &Path) -> Result<bool> {
    let is_nobodys =
        || Ok::<_, Error>(folder.is_dir() && !folder.join("config.json").exists() && !is_supervised(folder)?);
    if !is_nobodys()? {
        return Ok(false);
    }
    std::thread::sleep(A_MOMENT);
    is_nobodys()
}

#[cfg(test)]
mod tests {
    use dhow_images::Matcher;

    use super::*;
    use crate::container::{CreateOptions, Source};
    use crate::{Config, Folders, HostConfig};

    fn engine(root: &Path) -> Engine {
        Engine::open(Folders { root: root.to_owned(), run: None, layers: dhow_images::LayerForm::Files })
            .unwrap()
    }

    fn of_module(root: &Path, name: &str) -> CreateOptions {
        fs::write(root.join("hello.wat"), "(module)").unwrap();
        CreateOptions {
            source: Source::Module(root.join("hello.wat")),
            name: Some(name.to_owned()),
            platforms: Matcher::host(),
            config: Config::default(),
            host_config: HostConfig::default(),
            default_network: None,
            networks: Vec::new(),
        }
    }

    #[test]
    fn every_step_of_a_life_is_clean() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let (container, claim) = engine.create(of_module(root.path(), "one")).unwrap();
        assert!(container.is_supervised().unwrap());
        assert!(matches!(engine.remove(&container, false, false), Err(Error::Running(_))));
        drop(claim);
        assert!(!container.is_supervised().unwrap());
        assert!(matches!(engine.create(of_module(root.path(), "one")), Err(Error::NameInUse { .. })));
        assert_eq!(engine.check(false).unwrap(), []);
        for wanted in ["one", "/one", &container.record.id, &container.record.id[..6]] {
            assert_eq!(engine.container(wanted).unwrap().record.id, container.record.id);
        }
        for wanted in ["", "two", "../one", "zz", "/"] {
            assert!(matches!(engine.container(wanted), Err(Error::NoSuchContainer(_))), "{wanted}");
        }
        engine.remove(&container, false, false).unwrap();
        assert_eq!(engine.check(false).unwrap(), []);
        assert!(engine.container_folders().unwrap().is_empty());
    }

    #[test]
    fn leftovers_of_a_crash_are_found_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let (container, claim) = engine.create(of_module(root.path(), "one")).unwrap();
        drop(claim);
        let id = container.record.id.clone();
        engine.store().lease(&id, &[], false).unwrap();
        // As if it had been killed in the middle of `rm`.
        fs::remove_file(container.folder().join("config.json")).unwrap();
        let places: Vec<String> =
            engine.check(false).unwrap().into_iter().map(|problem| problem.place).collect();
        assert_eq!(places, [format!("containers/{id}"), "names/one".to_owned(), format!("leases/{id}")]);
        assert!(engine.containers().unwrap().is_empty());
        assert!(engine.check(true).unwrap().iter().all(|problem| problem.repaired));
        assert_eq!(engine.check(false).unwrap(), []);
    }

    #[test]
    fn damage_is_named() {
        let root = tempfile::tempdir().unwrap();
        let engine = engine(root.path());
        let (container, claim) = engine.create(of_module(root.path(), "one")).unwrap();
        drop(claim);
        fs::write(container.folder().join("config.json"), "{").unwrap();
        assert!(matches!(engine.container("one"), Err(Error::Damaged { .. })));
        let places: Vec<String> =
            engine.check(true).unwrap().into_iter().map(|problem| problem.place).collect();
        assert_eq!(places, [format!("containers/{}", container.record.id), "names/one".to_owned()]);
        assert_eq!(engine.check(false).unwrap(), []);
    }
}
