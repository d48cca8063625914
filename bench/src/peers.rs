//! The peers: whether they are installed, and what some need before they can run.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::made::{Docker, Image, tool};
use crate::world::World;

/// Finds a program, or says that it is left out.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        println!("({program} is not installed: left out)");
    }
    found
}

/// The first line of `PROGRAM --version`, shortened to name and number.
pub(crate) fn version(program: &Path) -> String {
    let output =
        Command::new(program).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&output);
    let number = text.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()));
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    format!("{name} {}", number.unwrap_or("?").trim_end_matches([',', '\n']))
}

/// How docker is shown in the table.
pub(crate) fn docker_version() -> String {
    ["docker", "dockerd"].map(|name| version(Path::new(name))).join(", ")
}

/// The process of containerd's that looks after this container.
pub(crate) fn shim_of(id: &str) -> Option<u32> {
    let pids = fs_err::read_dir("/proc").ok()?.flatten();
    let mut pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.find(|pid| {
        let words = fs_err::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        words.contains("containerd-shim") && words.split('\0').any(|word| word == id)
    })
}

/// Puts an image of one layer into docker.
pub(crate) fn import(docker: &Docker, name: &str, image: &Image) -> Result<()> {
    let Image::Single(single) = image else { anyhow::bail!("an index cannot be imported") };
    let archive = tempfile::NamedTempFile::new()?;
    fs_err::write(archive.path(), &single.layers[0])?;
    tool(docker.call(["import", "-c", "ENV PATH=/bin"]).arg(archive.path()).arg(name));
    Ok(())
}

/// A folder for a bundle, with the root file system in it.
fn unpacked(world: &World, image: &Image, name: &str, args: &[&str]) -> Result<PathBuf> {
    let Image::Single(single) = image else { anyhow::bail!("an index is no bundle") };
    let bundle = world.folder(&format!("bundle-{name}-{}", args.join("-")))?;
    let rootfs = bundle.join("rootfs");
    fs_err::create_dir_all(&rootfs)?;
    for layer in &single.layers {
        tar::Archive::new(layer.as_slice()).unpack(&rootfs)?;
    }
    Ok(bundle)
}

/// An OCI bundle that runs `args`: what dockerd gives its runtime, seccomp profile and all, but for the hook by which
/// dockerd hears of it and the name of the control group.
pub(crate) fn docker_bundle(world: &World, docker: &Docker, image: &Image, args: &[&str]) -> Result<PathBuf> {
    import(docker, "busybox:1", image)?;
    let run = ["run", "-d", "--network", "none", "busybox:1", "sleep", "600"];
    let id = tool(&mut docker.call(run));
    let id = id.trim();
    let shim = world.folder("docker/containerd/state/io.containerd.runtime.v2.task/moby")?;
    let mut spec: Value = serde_json::from_slice(&fs_err::read(shim.join(id).join("config.json"))?)?;
    // What it mounts stays until it is removed.
    tool(&mut docker.call(["kill", id]));
    // crun 1.8 knows no development versions.
    spec["ociVersion"] = "1.0.2".into();
    spec["hooks"] = Value::Object(serde_json::Map::new());
    spec["root"]["path"] = "rootfs".into();
    spec["process"]["args"] = args.into();
    spec["linux"].as_object_mut().context("no linux")?.remove("cgroupsPath");
    let bundle = unpacked(world, image, "docker", args)?;
    fs_err::write(bundle.join("config.json"), spec.to_string())?;
    Ok(bundle)
}

/// An OCI bundle that runs `args`: the runtime's own default specification without a terminal.
pub(crate) fn bundle(world: &World, runtime: &Path, image: &Image, args: &[&str]) -> Result<PathBuf> {
    let name = runtime.file_name().unwrap_or_default().to_string_lossy();
    let bundle = unpacked(world, image, &name, args)?;
    let file = bundle.join("config.json");
    // Another case may have made it already, which runc does not like.
    fs_err::remove_file(&file).ok();
    tool(Command::new(runtime).arg("spec").current_dir(&bundle));
    let mut spec: Value = serde_json::from_slice(&fs_err::read(&file)?)?;
    spec["ociVersion"] = "1.0.2".into();
    spec["process"]["terminal"] = false.into();
    spec["process"]["args"] = args.into();
    // Root here may lack the right to raise limits.
    spec["process"]["rlimits"] = Value::Array(Vec::new());
    fs_err::write(&file, spec.to_string())?;
    Ok(bundle)
}
