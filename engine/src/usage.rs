//! `system df`: what everything takes on the disk, and what of it could go.

use std::collections::HashMap;

use dhow_images::{DiskUsage, disk_usage};

use crate::engine::Engine;
use crate::error::Result;
use crate::prune::readable;
use crate::record::{Container, State};
use crate::volume::VolumeUsage;

/// What everything takes.
#[derive(Debug)]
pub struct SystemUsage {
    /// Images, compiled code, partial downloads.
    pub store: DiskUsage,
    /// Every container, newest first.
    pub containers: Vec<ContainerUsage>,
    /// Every volume, by name.
    pub volumes: Vec<VolumeUsage>,
    /// What steps of builds made, the least recently used first. Layers that images have as well are in both.
    #[cfg(target_os = "linux")]
    pub build_cache: Vec<crate::build::CacheEntry>,
    /// Bytes of the cache mounts of builds.
    pub cache_mounts: u64,
}

/// What one container takes.
#[derive(Debug)]
pub struct ContainerUsage {
    /// The container.
    pub container: Container,
    /// What it does now.
    pub state: State,
    /// Bytes of the files it wrote, Docker's `SizeRw`.
    pub size: u64,
}

impl Engine {
    /// Measures everything below the root folder.
    ///
    /// # Errors
    /// When a folder, name, lease or record cannot be read.
    pub fn usage(&self) -> Result<SystemUsage> {
        let mut containers = Vec::new();
        for container in self.containers()? {
            let state = container.state()?;
            let size = readable(disk_usage(self.data_folder(&container).join("upper")))?.content;
            containers.push(ContainerUsage { container, state, size });
        }
        let mounts = readable(disk_usage(self.root().join("build").join("mounts")))?;
        Ok(SystemUsage {
            store: self.store().disk_usage()?,
            containers,
            volumes: self.volume_usage()?,
            #[cfg(target_os = "linux")]
            build_cache: self.build_cache()?,
            cache_mounts: mounts.content,
        })
    }
}

impl SystemUsage {
    /// How many containers were made of each image, by image id.
    pub fn users(&self) -> HashMap<&str, u64> {
        let mut users = HashMap::new();
        for image in self.containers.iter().filter_map(|usage| usage.container.record.image.as_ref()) {
            *users.entry(image.id.as_str()).or_default() += 1;
        }
        users
    }
}
