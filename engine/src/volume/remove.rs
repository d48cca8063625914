//! Taking volumes away: by name, with their container, or because nobody uses them; and what they take meanwhile.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use dhow_images::{Sizes, disk_usage};
use fs_err as fs;

use super::{DATA, GONE, NEW, RECORD, Volume};
use crate::container::remove_folder;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::events::Event;
use crate::mounts::{MountKind, MountPoint};
use crate::prune::{Filters, readable};
use crate::system::Problem;

/// What `volume prune` did.
#[derive(Debug, Default)]
pub struct PrunedVolumes {
    /// Names.
    pub deleted: Vec<String>,
    /// Bytes that the disk got back.
    pub reclaimed: u64,
}

/// What one volume takes.
#[derive(Debug)]
pub struct VolumeUsage {
    /// The volume.
    pub volume: Volume,
    /// How many containers use it.
    pub links: u64,
    /// Bytes of its files.
    pub size: u64,
}

impl Engine {
    /// The ids of the containers that use each volume.
    ///
    /// # Errors
    /// When a record cannot be read.
    pub fn volume_users(&self) -> Result<BTreeMap<String, Vec<String>>> {
        let mut users: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for container in self.containers()? {
            for point in container.record.mounts.iter().filter(|point| point.kind == MountKind::Volume) {
                users.entry(point.name.clone()).or_default().push(container.record.id.clone());
            }
        }
        Ok(users)
    }

    /// Removes a volume that no container uses. With `force` one that does not exist is no error.
    ///
    /// # Errors
    /// [`Error::NoSuchVolume`], [`Error::VolumeInUse`], and those of the disk.
    pub fn remove_volume(&self, name: &str, force: bool) -> Result<()> {
        let lock = self.volumes_lock()?;
        lock.file().lock()?;
        match self.volume(name) {
            Err(Error::NoSuchVolume(_)) if force => return Ok(()),
            // What is damaged can be removed all the same.
            Err(Error::Damaged { .. }) => {}
            other => drop(other?),
        }
        if let Some(users) = self.volume_users()?.remove(name) {
            return Err(Error::VolumeInUse { name: name.to_owned(), users });
        }
        self.take_away(name)?;
        self.tell(&Event::new("volume", "destroy", name, &[("driver", "local")]));
        Ok(())
    }

    /// Removes the volumes that came with a container, as far as no other one uses them.
    pub(crate) fn remove_own_volumes(&self, mounts: &[MountPoint]) -> Result<()> {
        for point in mounts.iter().filter(|point| point.anonymous) {
            match self.remove_volume(&point.name, true) {
                Err(Error::VolumeInUse { .. }) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes volumes that no container uses: with `all` any, else only those that nobody gave a name.
    ///
    /// # Errors
    /// When a record cannot be read, or something cannot be removed.
    pub fn prune_volumes(&self, all: bool, filters: &Filters) -> Result<PrunedVolumes> {
        let lock = self.volumes_lock()?;
        lock.file().lock()?;
        let users = self.volume_users()?;
        let mut pruned = PrunedVolumes::default();
        for volume in self.volumes()? {
            let labels: Vec<_> = volume.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            let wanted = (all || volume.is_anonymous()) && filters.pass(Some(volume.created_at), &labels);
            if !wanted || users.contains_key(&volume.name) {
                continue;
            }
            let sizes = self.volume_sizes(&volume.name)?;
            self.take_away(&volume.name)?;
            self.tell_later(&Event::new("volume", "destroy", &volume.name, &[("driver", "local")]));
            pruned.reclaimed += sizes.content;
            pruned.deleted.push(volume.name);
        }
        self.tell_of_prune("volume", pruned.reclaimed);
        Ok(pruned)
    }

    /// Every volume and what it takes.
    ///
    /// # Errors
    /// When a folder or record cannot be read.
    pub fn volume_usage(&self) -> Result<Vec<VolumeUsage>> {
        let users = self.volume_users()?;
        let mut usage = Vec::new();
        for volume in self.volumes()? {
            let links =
                users.get(&volume.name).map_or(0, |users| u64::try_from(users.len()).unwrap_or(u64::MAX));
            let size = self.volume_sizes(&volume.name)?.content;
            usage.push(VolumeUsage { volume, links, size });
        }
        Ok(usage)
    }

    fn volume_sizes(&self, name: &str) -> Result<Sizes> {
        readable(disk_usage(self.volume_folder(name).join(DATA)))
    }

    /// First its name goes, then its files: a crash leaves something that is nobody's.
    fn take_away(&self, name: &str) -> Result<()> {
        #[cfg(target_os = "linux")]
        super::unmount_memory(&self.volume_folder(name).join(DATA));
        let gone = self.volumes_folder().join(format!("{GONE}{}", crate::container::create::random_id()?.0));
        fs::rename(self.volume_folder(name), &gone)?;
        remove_folder(&gone)
    }

    /// Leftovers of making and removing, and records that cannot be read.
    pub(crate) fn check_volumes(&self, repair: bool, problems: &mut Vec<Problem>) -> Result<()> {
        let leftover = |name: &String| name.starts_with(NEW) || name.starts_with(GONE);
        let mut left: Vec<String> = self.volume_entries()?.into_iter().filter(leftover).collect();
        if !left.is_empty() {
            // Who makes or removes one needs a moment.
            std::thread::sleep(crate::system::A_MOMENT);
            let there = self.volume_entries()?;
            left.retain(|name| there.contains(name));
        }
        for name in left {
            if repair {
                remove_folder(&self.volumes_folder().join(&name))?;
            }
            let what = "leftover of a volume that was being made or removed".to_owned();
            problems.push(Problem::new(format!("volumes/{name}"), what, repair));
        }
        #[cfg(target_os = "linux")]
        self.check_memory(repair, problems)?;
        for name in self.volume_names()? {
            let what = match self.volume(&name) {
                Ok(_) => continue,
                Err(Error::Damaged { reason, .. }) => format!("damaged record: {reason}"),
                Err(Error::NoSuchVolume(_)) => {
                    match fs::symlink_metadata(self.volume_folder(&name).join(RECORD)) {
                        Err(error)
                            if error.kind() == ErrorKind::NotFound && self.volume_folder(&name).exists() =>
                        {
                            "is no volume".to_owned()
                        }
                        _ => continue,
                    }
                }
                Err(error) => return Err(error),
            };
            // The files are the user's: they stay until somebody removes the volume.
            problems.push(Problem::new(format!("volumes/{name}"), what, false));
        }
        Ok(())
    }
}
