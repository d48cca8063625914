//! `images` with 1,000 images in the store.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::json;

use super::python;
use super::{Case, Work};
use crate::made::{Tree, digest_of, tool};
use crate::measure::{Bar, Contender};
use crate::peers;
use crate::world::World;

pub(crate) const CASE: Case = Case {
    name: "images-1000",
    what: "list 1,000 images",
    runs: 20,
    first: None,
    work: Work::Compare(prepare),
};

fn prepare(world: &World) -> Result<Vec<Contender>> {
    let archive = python::store(world, "thousand")?.join("images.tar");
    write(&archive)?;
    let from = archive.to_string_lossy().into_owned();
    let store = python::store(world, "thousand-store")?;
    tool(&mut world.dhow(&store, ["load", "-q", "-i", &from]));
    let most = Duration::from_millis(15);
    let mut contenders = vec![
        Contender::new("dhow images", world.dhow(&store, ["images"])).prints("999").bar(Bar::AtMost(most)),
    ];
    if let Some(docker) = world.docker() {
        tool(&mut docker.call(["load", "-q", "-i", &from]));
        let contender =
            Contender::new(&format!("{} images", peers::docker_version()), docker.call(["images"]));
        contenders.push(contender.daemons(docker.pids()).prints("999"));
    }
    // podman takes many minutes to load that many.
    Ok(contenders)
}

/// A docker archive of 1,000 images that differ in their configuration and share their only layer.
fn write(archive: &Path) -> Result<()> {
    let mut builder = tar::Builder::new(std::io::BufWriter::new(fs_err::File::create(archive)?));
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        builder.append_data(&mut header, name, bytes)
    };
    let layer = Tree::new().file("hello", 0o644, "hello").finish();
    let diff_id = digest_of(&layer);
    add("layer.tar", &layer)?;
    let mut manifest = Vec::new();
    for n in 0..1000 {
        let config = json!({
            "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05Z",
            "config": { "Env": [format!("N={n}")], "Cmd": ["/hello"] },
            "rootfs": { "type": "layers", "diff_ids": [diff_id] },
            "history": [{ "created": "2024-01-02T03:04:05Z", "created_by": "bench" }],
        })
        .to_string();
        let name = format!("{}.json", &digest_of(config.as_bytes())["sha256:".len()..]);
        add(&name, config.as_bytes())?;
        manifest.push(
            json!({ "Config": name, "RepoTags": [format!("bench/image-{n}:1")], "Layers": ["layer.tar"] }),
        );
    }
    add("manifest.json", json!(manifest).to_string().as_bytes())?;
    builder.into_inner()?;
    Ok(())
}
