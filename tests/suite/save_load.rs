//! `save` and `load`: what Dhow writes is read by every other tool with the same digests, and the reverse.

use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{
    Containerd, Docker, Host, Image, Layout, Podman, Squeeze, Terminal, Tree, busybox, digest_of, is_root,
    skopeo, tool, umoci,
};

fn hi(squeeze: Squeeze) -> Image {
    busybox().cmd(&["cat", "/hi"]).layer(Tree::new().file("hi", 0o644, "hi\n")).squeeze(squeeze)
}

/// A file of a tar.
fn member(archive: &str, name: &str) -> Vec<u8> {
    let output = Command::new("tar").args(["-xOf", archive, name]).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn json_member(archive: &str, name: &str) -> Value {
    serde_json::from_slice(&member(archive, name)).unwrap()
}

#[test]
fn several_images_and_names_in_one_archive() {
    let native = || Image::native().layer(Tree::new().file("n", 0o644, "native")).cmd(&["/n"]);
    let both = Image::index([native(), Image::wasm().layer(Tree::new().file("w.wasm", 0o644, "wasm"))]);
    let host = Host::with(&[
        ("app:1", both),
        ("one:1", hi(Squeeze::Gzip)),
        ("localhost:5000/one:2", hi(Squeeze::Plain)),
    ]);
    host.dhow(["tag", "app:1", "app:2"]).ok();
    // A name without a tag is all tags, as Docker has it.
    assert_eq!(host.dhow(["save", "-o", "all.tar", "app", "one:1", "localhost:5000/one"]).ok(), "");
    let mode = fs_err::metadata(host.path("all.tar")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "an image may hold secrets");
    let archive = host.text("all.tar");
    let index = json_member(&archive, "index.json");
    let names: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["annotations"]["io.containerd.image.name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "docker.io/library/app:1",
            "docker.io/library/app:2",
            "docker.io/library/one:1",
            "localhost:5000/one:2"
        ]
    );
    // Docker's part has the one variant that Docker can run.
    let docker = json_member(&archive, "manifest.json");
    assert_eq!(docker[0]["RepoTags"], json!(["docker.io/library/app:1", "docker.io/library/app:2"]));
    assert_eq!(docker.as_array().unwrap().len(), 3);
    assert_eq!(docker[0]["Layers"].as_array().unwrap().len(), 1);

    let ids = |host: &Host| {
        host.dhow(["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"]).ok()
    };
    let other = Host::new();
    let loaded = other.dhow(["load", "-i", &archive]).ok();
    assert_eq!(
        loaded,
        "Loaded image: app:1\nLoaded image: app:2\nLoaded image: one:1\nLoaded image: localhost:5000/one:2\n"
    );
    assert_eq!(ids(&other), ids(&host));
    assert_eq!(other.dhow(["run", "--rm", "one:1"]).ok(), "hi\n");
    // Standard output is the same archive, and a second one of the same images too.
    let written = host.path("out.tar");
    let mut command = host.dhow(["save", "app", "one:1", "localhost:5000/one"]).into_command();
    assert!(
        command.stdout(fs_err::File::create(&written).unwrap().into_parts().0).status().unwrap().success()
    );
    assert!(
        fs_err::read(&written).unwrap() == fs_err::read(&archive).unwrap(),
        "the bytes depend on the images alone"
    );
    // From a pipe, too, with everything there already and with nothing.
    for host in [&other, &Host::new()] {
        assert_eq!(host.dhow(["load"]).stdin(fs_err::read(&archive).unwrap()).ok(), loaded);
        assert_eq!(ids(host), ids(&other));
        host.check();
    }
}

#[test]
fn one_variant_and_an_image_by_its_id() {
    let wasm = Image::wasm().layer(Tree::new().file("w.wasm", 0o644, "wasm"));
    let host = Host::with(&[("app:1", Image::index([hi(Squeeze::Gzip), wasm]))]);
    host.dhow(["save", "--platform", "wasi/wasm", "-o", "wasm.tar", "app:1"]).ok();
    let other = Host::new();
    other.dhow(["load", "-i", &host.text("wasm.tar")]).ok();
    assert_eq!(other.dhow(["images", "--format", "{{.Platforms}}"]).ok(), "wasi/wasm\n");
    host.dhow(["save", "--platform", "linux/s390x", "app:1"]).refused(1, "no variant for linux/s390x");

    host.dhow(["save", "-o", "both.tar", "app:1"]).ok();
    let other = Host::new();
    other.dhow(["load", "--platform", "wasi/wasm", "-i", &host.text("both.tar")]).ok();
    assert_eq!(other.dhow(["images", "--format", "{{.Platforms}}"]).ok(), "wasi/wasm\n");
    let id = |host: &Host| host.dhow(["images", "-q", "--no-trunc"]).ok();
    assert_eq!(id(&other), id(&host), "the index is what it was");
    other
        .dhow(["load", "--platform", "linux/s390x", "-i", &host.text("both.tar")])
        .refused(1, "no variant for linux/s390x");

    host.dhow(["save", "-o", "id.tar", id(&host).trim()]).ok();
    let other = Host::new();
    let loaded = other.dhow(["load", "-i", &host.text("id.tar")]).ok();
    assert_eq!(loaded, format!("Loaded image ID: {}", id(&host)));
}

#[test]
fn output_is_whole_or_not_there() {
    let host = Host::with(&[("one:1", hi(Squeeze::Gzip))]);
    host.dhow(["save", "-o", "x/y.tar", "one:1"]).refused(1, "directory \"x\" does not exist");
    host.dhow(["save", "-o", "no.tar", "nosuch"]).refused(1, "no such image: nosuch");
    host.dhow(["save"]).fails(1);
    assert!(!host.path("no.tar").exists());
    // A damaged blob is never saved in silence, and nothing is left of the attempt.
    host.file("old.tar", "old");
    let all: Value = serde_json::from_str(&host.dhow(["inspect", "one:1"]).ok()).unwrap();
    let manifest = all[0]["Manifest"].as_str().unwrap().replace("sha256:", "blobs/sha256/");
    let manifest: Value = serde_json::from_slice(&fs_err::read(host.root().join(manifest)).unwrap()).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    let path = host.root().join(layer.replace("sha256:", "blobs/sha256/"));
    let good = fs_err::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 4;
    fs_err::write(&path, bad).unwrap();
    host.dhow(["save", "-o", "old.tar", "one:1"]).refused(1, layer);
    fs_err::write(&path, good).unwrap();
    assert_eq!(fs_err::read_to_string(host.path("old.tar")).unwrap(), "old");
    let names: Vec<_> =
        fs_err::read_dir(host.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["old.tar"], "nothing half-done stays");

    let mut terminal = Terminal::start(&host.dhow(["save", "one:1"]).into_command(), 24, 80);
    terminal.expect("cowardly refusing to save to a terminal");
    assert_eq!(terminal.code(), 1);
    host.dhow(["save", "-o", "/dev/null", "one:1"]).ok();
}

#[test]
fn folders_and_single_formats() {
    let host = Host::with(&[("one:1", hi(Squeeze::Gzip)), ("two:1", hi(Squeeze::Plain))]);
    let id = |name: &str| host.dhow(["inspect", "--format", "{{.Id}}", name]).ok().trim().to_owned();
    host.dhow(["save", "--format", "oci-dir", "-o", "layout", "one:1", "two:1"]).ok();
    host.dhow(["save", "--format", "oci-dir", "-o", "layout", "one:1"]).ok();
    let listed = tool(&mut umoci(["ls", "--layout", &host.text("layout")]));
    assert_eq!(listed, "1\n1\n", "nothing twice");
    host.dhow(["save", "--format", "oci-archive", "-o", "oci.tar", "one:1"]).ok();
    host.dhow(["save", "--format", "docker-dir", "-o", "dir", "one:1"]).ok();
    host.dhow(["save", "--format", "docker-archive", "-o", "docker.tar", "one:1", "two:1"]).ok();
    host.dhow(["save", "--format", "docker-dir", "-o", "dir2", "one:1", "two:1"])
        .refused(1, "docker-dir holds one image");
    host.dhow(["save", "--format", "oci-dir", "one:1"])
        .refused(1, "a folder cannot be written to standard output");
    let digest =
        |source: &str| tool(&mut skopeo(["inspect", "--format", "{{.Digest}}", source])).trim().to_owned();
    assert_eq!(digest(&format!("oci-archive:{}", host.text("oci.tar"))), id("one:1"));
    assert_eq!(digest(&format!("dir:{}", host.text("dir"))), id("one:1"));
    let other = Host::new();
    assert_eq!(
        other.dhow(["load", "-i", &host.text("docker.tar")]).ok(),
        "Loaded image: one:1\nLoaded image: two:1\n"
    );
    assert_eq!(other.dhow(["run", "--rm", "two:1"]).ok(), "hi\n");
    for (format, archive) in [("oci", "oci.tar"), ("docker", "docker.tar")] {
        let listing = tool(Command::new("tar").args(["-tf", &host.text(archive)]));
        assert_eq!(listing.contains("index.json"), format == "oci", "{listing}");
        assert_eq!(listing.contains("manifest.json"), format == "docker", "{listing}");
    }
}

#[test]
fn every_compression_of_a_whole_archive() {
    let host = Host::with(&[("one:1", hi(Squeeze::Gzip))]);
    host.dhow(["save", "-o", "one.tar", "one:1"]).ok();
    for (program, suffix) in [("gzip", "gz"), ("bzip2", "bz2"), ("xz", "xz"), ("zstd", "zst")] {
        tool(Command::new(program).args(["-k", "-q"]).arg(host.path("one.tar")));
        let packed = host.path(&format!("one.tar.{suffix}"));
        let other = Host::new();
        assert_eq!(
            other.dhow(["load", "-i", packed.to_str().unwrap()]).ok(),
            "Loaded image: one:1\n",
            "{suffix}"
        );
        assert_eq!(other.dhow(["run", "--rm", "one:1"]).ok(), "hi\n");
        // A cut one is an error, and leaves nothing.
        let bytes = fs_err::read(&packed).unwrap();
        let other = Host::new();
        let cut = other.dhow(["load"]).stdin(&bytes[..bytes.len() / 2]).fails(1);
        cut.is_refusal("standard input");
        assert_eq!(other.dhow(["images", "-q"]).ok(), "");
    }
}

#[test]
fn other_tools_read_what_is_saved_and_the_reverse() {
    if !is_root() {
        println!("skipped: the other tools need root");
        return;
    }
    let host = Host::with(&[("gzip:1", hi(Squeeze::Gzip)), ("zstd:1", hi(Squeeze::Zstd))]);
    let id = |name: &str| host.dhow(["inspect", "--format", "{{.Id}}", name]).ok().trim().to_owned();
    let config =
        |name: &str| host.dhow(["inspect", "--format", "{{.ConfigDigest}}", name]).ok().trim().to_owned();
    host.dhow(["save", "-o", "both.tar", "gzip:1", "zstd:1"]).ok();
    let archive = host.text("both.tar");

    // skopeo and umoci: the same manifest.
    let seen = tool(&mut skopeo(["inspect", "--raw", &format!("docker-archive:{archive}:gzip:1")]));
    assert!(seen.contains(&config("gzip:1")), "{seen}");
    host.dhow(["save", "--format", "oci-archive", "-o", "gzip.tar", "gzip:1"]).ok();
    let one = host.text("gzip.tar");
    let seen = tool(&mut skopeo(["inspect", "--format", "{{.Digest}}", &format!("oci-archive:{one}")]));
    assert_eq!(seen.trim(), id("gzip:1"));
    let layout = host.path("layout");
    fs_err::create_dir(&layout).unwrap();
    tool(Command::new("tar").args(["-xf", &one, "-C"]).arg(&layout));
    tool(&mut umoci(["unpack", "--image", &format!("{}:1", layout.display()), &host.text("bundle")]));
    assert_eq!(fs_err::read_to_string(host.path("bundle/rootfs/hi")).unwrap(), "hi\n");

    // containerd: the same digests, and it can use them.
    let containerd = Containerd::start();
    tool(&mut containerd.ctr(["images", "import", &archive]));
    let listed = tool(&mut containerd.ctr(["images", "ls"]));
    for name in ["gzip:1", "zstd:1"] {
        let line = listed.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{listed}"));
        assert!(line.contains(&id(name)), "{line}");
    }
    let exported = host.text("exported.tar");
    tool(&mut containerd.ctr(["images", "export", &exported, "docker.io/library/zstd:1"]));
    let other = Host::new();
    assert_eq!(other.dhow(["load", "-i", &exported]).ok(), "Loaded image: zstd:1\n");
    assert_eq!(other.dhow(["images", "-q", "--no-trunc"]).ok().trim(), id("zstd:1"));

    // podman reads both, with names and configurations.
    let podman = Podman::new();
    tool(&mut podman.call(["load", "-q", "-i", &archive]));
    let format = ["images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
    let listed = tool(&mut podman.call(format));
    for name in ["gzip:1", "zstd:1"] {
        let line = format!("docker.io/library/{name} {}", config(name));
        assert!(listed.contains(&line), "{line} is not in {listed}");
    }
    let saved = host.text("podman.tar");
    tool(&mut podman.call(["save", "-q", "-m", "-o", &saved, "gzip:1", "zstd:1"]));
    let other = Host::new();
    let loaded = other.dhow(["load", "-i", &saved]).ok();
    assert!(loaded.contains("gzip:1") && loaded.contains("zstd:1"), "{loaded}");
    assert_eq!(
        other.dhow(["inspect", "--format", "{{.ConfigDigest}}", "zstd:1"]).ok().trim(),
        config("zstd:1")
    );

    // Docker 20.10 knows no zstd layers, and loads them all the same.
    let Some(docker) = Docker::start() else { return };
    let loaded = tool(&mut docker.call(["load", "-i", &archive]));
    assert!(loaded.contains("Loaded image: gzip:1") && loaded.contains("Loaded image: zstd:1"), "{loaded}");
    for name in ["gzip:1", "zstd:1"] {
        assert_eq!(docker.inspect(name, "{{.Id}}"), config(name));
    }
    let saved = host.text("docker.tar");
    tool(&mut docker.call(["save", "-o", &saved, "gzip:1", "zstd:1"]));
    for from_pipe in [false, true] {
        let other = Host::new();
        let loaded = if from_pipe {
            other.dhow(["load"]).stdin(fs_err::read(&saved).unwrap()).ok()
        } else {
            other.dhow(["load", "-i", &saved]).ok()
        };
        assert_eq!(loaded.lines().count(), 2, "{loaded}");
        assert_eq!(other.dhow(["run", "--rm", "zstd:1"]).ok(), "hi\n");
        assert_eq!(
            other.dhow(["inspect", "--format", "{{.ConfigDigest}}", "gzip:1"]).ok().trim(),
            config("gzip:1")
        );
    }
}

/// A docker archive that may contradict itself.
fn docker_archive(host: &Host, files: &[(&str, &[u8])]) -> String {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, *content).unwrap();
    }
    host.file("bad.tar", archive.into_inner().unwrap())
}

#[test]
fn archives_that_contradict_themselves_leave_nothing() {
    let layer = Tree::new().file("x", 0o644, "x").finish();
    let config = |diff_ids: &[&str]| {
        json!({ "os": "linux", "architecture": "amd64", "rootfs": { "diff_ids": diff_ids } }).to_string()
    };
    let good = digest_of(&layer);
    let manifest = |layers: &[&str]| {
        json!([{ "Config": "c.json", "RepoTags": ["bad:1"], "Layers": layers }]).to_string()
    };
    let other = digest_of(b"other");
    let twice = config(&[&good, &good]);
    let hostile = Tree::new().symlink("etc", "/").file("etc/passwd", 0o644, "x").finish();
    let (hostile_id, above) = (digest_of(&hostile), {
        let mut tar = Tree::new().file("aa/escaped", 0o644, "x").finish();
        tar[..2].copy_from_slice(b"..");
        let sum: u32 = tar[..512]
            .iter()
            .enumerate()
            .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
            .sum();
        tar[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar
    });
    let above_id = digest_of(&above);
    let cases: Vec<(&str, String, String, &[u8])> = vec![
        ("digest", manifest(&["l"]), config(&[&other]), &layer),
        ("2 diff ids for 1 layers", manifest(&["l"]), twice, &layer),
        ("is not in it", manifest(&["nowhere"]), config(&[&good]), &layer),
        ("not the path of a member", manifest(&["../l"]), config(&[&good]), &layer),
        ("not a valid image configuration", manifest(&["l"]), "7".to_owned(), &layer),
        ("has .. in it", manifest(&["l"]), config(&[&above_id]), &above),
        ("digest", manifest(&["l"]), config(&[&good]), &layer[..600]),
    ];
    for (message, manifest, config, layer) in cases {
        let host = Host::new();
        let archive = docker_archive(
            &host,
            &[("manifest.json", manifest.as_bytes()), ("c.json", config.as_bytes()), ("l", layer)],
        );
        host.dhow(["load", "-i", &archive]).refused(1, message);
        host.dhow(["load"]).stdin(fs_err::read(&archive).unwrap()).refused(1, message);
        assert_eq!(host.dhow(["images", "-q"]).ok(), "");
    }
    // A link in a layer leads to the layer's own root, and a layer may be listed twice.
    let host = Host::new();
    let config = config(&[&hostile_id, &hostile_id]);
    let files: [(&str, &[u8]); 3] = [
        ("manifest.json", &manifest(&["l", "l"]).into_bytes()),
        ("c.json", config.as_bytes()),
        ("l", &hostile),
    ];
    let archive = docker_archive(&host, &files);
    let before = fs_err::read_to_string("/etc/passwd").unwrap();
    host.dhow(["load", "-i", &archive]).outcome();
    assert_eq!(fs_err::read_to_string("/etc/passwd").unwrap(), before);

    // An OCI layout: an index that leads to nothing, and one whose layer contradicts its diff id.
    let host = Host::new();
    let layout = Layout::new();
    let descriptor = layout.image(&hi(Squeeze::Gzip));
    layout.tag(&descriptor, "it:1");
    let digest = descriptor["digest"].as_str().unwrap();
    let manifest: Value = serde_json::from_slice(&fs_err::read(layout.blob_path(digest)).unwrap()).unwrap();
    let first = manifest["layers"][0]["digest"].as_str().unwrap();
    let content = fs_err::read(layout.blob_path(first)).unwrap();
    fs_err::remove_file(layout.blob_path(first)).unwrap();
    host.dhow(["load", "-i", layout.path().to_str().unwrap()]).refused(1, "is not in it");
    fs_err::write(layout.blob_path(first), &content[1..]).unwrap();
    host.dhow(["load", "-i", layout.path().to_str().unwrap()]).refused(1, first);
    let mut swapped = manifest.clone();
    swapped["layers"].as_array_mut().unwrap().reverse();
    fs_err::write(layout.blob_path(first), &content).unwrap();
    let mut contrary = layout.json("application/vnd.oci.image.manifest.v1+json", &swapped);
    contrary["platform"] = descriptor["platform"].clone();
    let layout_index = json!({ "schemaVersion": 2, "manifests": [contrary] });
    fs_err::write(layout.path().join("index.json"), layout_index.to_string()).unwrap();
    host.dhow(["load", "-i", layout.path().to_str().unwrap()]).refused(1, "uncompressed layer");
    assert_eq!(host.dhow(["images", "-q"]).ok(), "");
}
