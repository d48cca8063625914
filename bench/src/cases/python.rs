//! The Python image in a registry, and what every tool must do to have it or not to have it.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::{Context as _, Result};

use crate::made::{self, Containerd, Docker, Podman, Registry, skopeo, tool};
use crate::world::World;

/// A registry that has the image as `py:gz` or `py:zstd`; shared by a case's contenders.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) registry: Registry,
    /// The full name.
    pub(crate) name: String,
}

/// Makes the layout, which needs a network.
pub(crate) fn make() {
    made::python();
}

/// Starts a registry with one variant. The peers forget all images: a layer that they have from a case before would
/// not be pulled again, and would not be removed.
pub(crate) fn serve(world: &World, tag: &str) -> Result<Rc<Served>> {
    if let Some(docker) = world.docker() {
        let ids = tool(&mut docker.call(["images", "-q"]));
        docker.call(["rmi", "-f"]).args(ids.split_whitespace()).output()?;
    }
    if let Some(podman) = world.podman() {
        tool(&mut podman.call(["rmi", "--all", "--force"]));
    }
    if let Some(containerd) = world.containerd() {
        let names = tool(&mut containerd.ctr(["images", "ls", "-q"]));
        containerd.ctr(["images", "rm", "--sync"]).args(names.split_whitespace()).output()?;
    }
    let layout = made::python().context("the image cannot be made without root")?;
    let registry = Registry::start();
    let name = registry.name(&format!("py:{tag}"));
    tool(&mut skopeo(["copy", &format!("oci:{}:{tag}", layout.display()), &format!("docker://{name}")]));
    Ok(Rc::new(Served { registry, name }))
}

/// A store of Dhow that has the image; `store` is emptied first.
pub(crate) fn stored(world: &World, store: &Path, name: &str) -> Result<()> {
    emptied(store)?;
    tool(&mut world.dhow(store, ["pull", "-q", name]));
    Ok(())
}

/// Empties a store of Dhow.
pub(crate) fn emptied(store: &Path) -> Result<()> {
    if store.exists() {
        fs_err::remove_dir_all(store)?;
    }
    fs_err::create_dir_all(store)?;
    Ok(())
}

/// Removes an image, where it is there.
pub(crate) fn without_docker(docker: &Docker, name: &str) -> Result<()> {
    docker.call(["rmi", "-f", name]).output()?;
    Ok(())
}

pub(crate) fn without_podman(podman: &Podman, name: &str) -> Result<()> {
    podman.call(["rmi", "-f", name]).output()?;
    Ok(())
}

pub(crate) fn without_containerd(containerd: &Containerd, name: &str) -> Result<()> {
    containerd.ctr(["images", "rm", "--sync", name]).output()?;
    Ok(())
}

/// A folder for stores of this case.
pub(crate) fn store(world: &World, name: &str) -> Result<PathBuf> {
    let store = world.folder(name)?;
    emptied(&store)?;
    Ok(store)
}
