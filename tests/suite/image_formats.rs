//! `dhow load` of every archive that is around: OCI layouts, `docker save` of old and new, skopeo's, umoci's.

use std::process::Command;

use serde_json::json;

use crate::support::{Host, Image, Layout, Squeeze, Tree, busybox, tool};

fn hi(squeeze: Squeeze) -> Image {
    busybox().cmd(&["cat", "/hi"]).layer(Tree::new().file("hi", 0o644, "hi\n")).squeeze(squeeze)
}

#[test]
fn layers_of_every_compression_and_docker_s_media_types() {
    for squeeze in [Squeeze::Plain, Squeeze::Gzip, Squeeze::Zstd] {
        let host = Host::with(&[("hi:1", hi(squeeze))]);
        assert_eq!(host.dhow(["run", "--rm", "hi:1"]).ok(), "hi\n", "{squeeze:?}");
    }
    let host = Host::with(&[("hi:1", hi(Squeeze::Gzip).docker())]);
    assert_eq!(host.dhow(["run", "--rm", "hi:1"]).ok(), "hi\n");
}

#[test]
fn an_archive_comes_from_a_file_from_standard_input_or_as_a_folder() {
    let host = Host::new();
    let layout = Layout::new();
    layout.tag(&layout.image(&hi(Squeeze::Gzip)), "hi:1");
    layout.archive(&host.path("hi.tar"));
    let bytes = fs_err::read(host.path("hi.tar")).unwrap();
    for again in 0..2 {
        assert_eq!(host.dhow(["load", "-i", "hi.tar"]).ok(), "Loaded image: hi:1\n", "{again}");
    }
    assert_eq!(host.dhow(["load"]).stdin(bytes).ok(), "Loaded image: hi:1\n");
    assert_eq!(host.dhow(["load", "-q", "-i", layout.path().to_str().unwrap()]).ok(), "Loaded image: hi:1\n");
    tool(Command::new("gzip").arg(host.path("hi.tar")));
    assert_eq!(host.dhow(["load", "--input", "hi.tar.gz"]).ok(), "Loaded image: hi:1\n");
    assert_eq!(host.dhow(["run", "--rm", "hi:1"]).ok(), "hi\n");
}

#[test]
fn docker_save_s_archive_loads() {
    let host = Host::new();
    let layout = Layout::new();
    layout.tag(&layout.image(&hi(Squeeze::Gzip)), "hi");
    let from = format!("oci:{}:hi", layout.path().display());
    let to = format!("docker-archive:{}:hi:1", host.text("saved.tar"));
    tool(Command::new("skopeo").args(["--insecure-policy", "copy", "-q", &from, &to]));
    assert_eq!(host.dhow(["load", "-i", "saved.tar"]).ok(), "Loaded image: hi:1\n");
    assert_eq!(host.dhow(["run", "--rm", "hi:1"]).ok(), "hi\n");
    let json = host.dhow(["inspect", "hi:1"]).ok();
    assert!(json.contains("\"cat\""), "{json}");
}

#[test]
fn umoci_s_image_loads() {
    let host = Host::new();
    let layout = host.text("umoci");
    let tagged = format!("{layout}:hi");
    let run = |args: &[&str]| tool(Command::new("umoci").args(args));
    run(&["init", "--layout", &layout]);
    run(&["new", "--image", &tagged]);
    let bundle = host.text("bundle");
    run(&["unpack", "--rootless", "--image", &tagged, &bundle]);
    fs_err::copy("/bin/busybox", format!("{bundle}/rootfs/busybox")).unwrap();
    run(&["repack", "--image", &tagged, &bundle]);
    run(&[
        "config",
        "--image",
        &tagged,
        "--config.entrypoint",
        "/busybox",
        "--config.cmd",
        "echo",
        "--config.cmd",
        "umoci",
    ]);
    // A bare tag is no name, so the image is known by its id.
    let loaded = host.dhow(["load", "-i", &layout]).ok();
    let id = loaded.trim().strip_prefix("Loaded image ID: sha256:").unwrap_or_else(|| panic!("{loaded}"));
    assert_eq!(host.dhow(["run", "--rm", id]).ok(), "umoci\n");
}

#[test]
fn an_image_without_a_name_is_known_by_its_id() {
    let host = Host::new();
    let layout = Layout::new();
    let descriptor = layout.image(&hi(Squeeze::Gzip));
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs_err::write(layout.path().join("index.json"), index.to_string()).unwrap();
    let loaded = host.dhow(["load", "-i", layout.path().to_str().unwrap()]).ok();
    let id = loaded.trim().strip_prefix("Loaded image ID: sha256:").unwrap_or_else(|| panic!("{loaded}"));
    assert_eq!(host.dhow(["run", "--rm", &id[..12]]).ok(), "hi\n");
    assert!(host.dhow(["images"]).ok().contains("<none>"));
}
