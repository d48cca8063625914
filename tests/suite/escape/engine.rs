//! What engines do to files of containers and images, and for them: CVE-2018-15664, 2019-14271, 2020-15257, 2021-32760,
//! 2021-41089, 2021-43816, 2022-23471, 2022-23648, 2023-0778, 2024-9341.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use serde_json::json;

use super::harness::{Canary, SECRET, Swapper, rounds};
use crate::support::{Host, Image, Layout, Tree, busybox, until};

/// A volume's folder is exchanged for a link to the host while files are copied out of it and into it.
#[test]
fn copies_race_with_links() {
    let canary = Canary::new();
    let host = Host::with_busybox();
    let volume = host.path("volume");
    fs_err::create_dir_all(volume.join("way")).unwrap();
    fs_err::write(volume.join("way/secret"), "its own").unwrap();
    fs_err::write(host.path("input"), "copied in").unwrap();
    let mount = format!("{}:/volume", volume.display());
    host.dhow(["run", "-d", "--name", "it", "-v", &mount, "busybox:1", "sleep", "600"]).ok();
    let swapper = Swapper::directory(&volume.join("way"), canary.path());
    for round in 0..rounds() {
        let out = host.path(&format!("out{round}"));
        host.dhow(["cp", "it:/volume/way/secret", out.to_str().unwrap()]).outcome();
        let read = fs_err::read_to_string(&out).unwrap_or_default();
        assert!(!read.contains(SECRET), "{read}");
        host.dhow(["cp", "./input", "it:/volume/way/made"]).outcome();
        host.dhow(["cp", "-L", "it:/volume/way", "./tree"]).outcome();
    }
    swapper.stop();
    canary.is_untouched("the rounds");
    host.dhow(["rm", "-f", "it"]).ok();
}

/// The same by the container itself, while its files are exported and committed.
#[test]
fn exports_race_with_links() {
    let canary = Canary::new();
    let host = Host::with_busybox();
    let script = "mkdir /d; cd /d; while :; do echo own > n; mv n f; ln -s $0 l; mv l f; mkdir d; mv d e; rm -rf e; ln -s ${0%/*} e; rm e; done 2>/dev/null";
    let secret = canary.path().join("secret");
    host.dhow(["run", "-d", "--name", "it", "busybox:1", "sh", "-c", script, secret.to_str().unwrap()]).ok();
    for round in 0..rounds() / 6 {
        let name = format!("{round}.tar");
        host.dhow(["export", "-o", &name, "it"]).outcome();
        let archive = fs_err::read(host.path(&name)).unwrap_or_default();
        let found = archive.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "the host's secret is in {name}");
    }
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Libraries and tools that an image puts where a helper in its root would load them are never run.
#[test]
fn nothing_of_an_image_runs_for_a_copy() {
    let host = Host::new();
    let evil = "#!/bin/sh\ntouch /ran\n";
    let mut tree = Tree::new().dir("srv", 0o755).file("srv/a", 0o644, "a");
    for folder in ["lib", "lib/x86_64-linux-gnu", "usr", "usr/lib", "usr/lib/x86_64-linux-gnu"] {
        tree = tree.dir(folder, 0o755);
    }
    for name in [
        "lib/x86_64-linux-gnu/libnss_files.so.2",
        "usr/lib/x86_64-linux-gnu/libnss_files.so.2",
        "lib/ld-linux-x86-64.so.2",
        "bin/tar",
        "bin/docker-tar",
        "bin/cp",
    ] {
        tree = tree.file(name, 0o755, evil);
    }
    host.load(&[("poisoned:1", busybox().layer(tree))]);
    host.dhow(["run", "-d", "--name", "it", "poisoned:1", "sleep", "600"]).ok();
    host.dhow(["cp", "it:/srv", "./srv"]).ok();
    host.dhow(["cp", "./srv", "it:/tmp"]).ok();
    host.dhow(["export", "-o", "x.tar", "it"]).ok();
    host.dhow(["exec", "--user", "7", "it", "true"]).ok();
    assert!(!host.dhow(["diff", "it"]).ok().contains("/ran"));
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Nothing listens where the network alone leads to, and what listens by path is the owner's.
#[test]
fn sockets_are_the_owner_s() {
    let host = Host::with_busybox();
    host.dhow(["run", "-d", "--name", "it", "busybox:1", "sleep", "600"]).ok();
    let table = fs_err::read_to_string("/proc/net/unix").unwrap();
    let abstract_ones: Vec<&str> =
        table.lines().filter(|line| line.contains(" @") && line.to_lowercase().contains("dhow")).collect();
    assert!(abstract_ones.is_empty(), "{abstract_ones:?}");
    fn look(dir: &Path, found: &mut Vec<String>) {
        for entry in fs_err::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(meta) = fs_err::symlink_metadata(entry.path()) else { continue };
            if meta.file_type().is_socket() && meta.mode() & 0o077 != 0 {
                found.push(format!("{} {:o}", entry.path().display(), meta.mode()));
            } else if meta.is_dir() {
                look(&entry.path(), found);
            }
        }
    }
    // A folder that only the owner may enter protects what is in it.
    let root = fs_err::symlink_metadata(host.root()).unwrap();
    let mut open = Vec::new();
    if root.mode() & 0o077 != 0 {
        look(&host.root().join("containers"), &mut open);
    }
    assert!(open.is_empty(), "{open:?}");
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Layers and copies whose names lead through links of the same image or container.
#[test]
fn links_in_the_way_of_layers_and_copies() {
    let canary = Canary::new();
    let host = Host::new();
    let out = canary.text();
    let first = || Tree::new().symlink("way", out).symlink("up", &format!("{}{out}", "../".repeat(16)));
    let second = Tree::new()
        .file("way/secret", 0o777, "layer")
        .file("up/sub/secret", 0o777, "layer")
        .dir("way/target", 0o777);
    let layout = Layout::new();
    layout.tag(&layout.image(&Image::native().layer(first()).layer(second)), "links:1");
    layout.archive(&host.path("links.tar"));
    host.dhow(["load", "-i", &host.text("links.tar")]).outcome();
    canary.is_untouched("layers");
    host.load(&[("fine:1", busybox().layer(first()))]);
    host.dhow(["run", "-d", "--name", "it", "fine:1", "sleep", "600"]).ok();
    fs_err::create_dir_all(host.path("in/target")).unwrap();
    fs_err::write(host.path("in/secret"), "copied").unwrap();
    for to in ["it:/way/secret", "it:/way", "it:/up/sub/secret", "it:/way/target"] {
        host.dhow(["cp", "./in/secret", to]).outcome();
        host.dhow(["cp", "./in/.", to]).outcome();
        canary.is_untouched(to);
    }
    let archive = Tree::new().symlink("x", out).file("x/secret", 0o777, "stream").finish();
    host.dhow(["cp", "-", "it:/tmp"]).stdin(archive).outcome();
    canary.is_untouched("a stream");
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Volumes that an image names are filled from the image and from nowhere else.
#[test]
fn volumes_of_an_image_are_the_image_s() {
    let canary = Canary::new();
    let host = Host::new();
    let tree =
        || Tree::new().symlink("way", canary.text()).dir("srv", 0o755).symlink("srv/in", canary.text());
    let up = format!("/{}{}", "../".repeat(12), &canary.text()[1..]);
    for (name, volume) in
        [("up:1", up.as_str()), ("link:1", "/way"), ("below:1", "/way/sub"), ("deep:1", "/srv/in/sub")]
    {
        let image = busybox().layer(tree()).config("Volumes", json!({ volume: {} }));
        host.load(&[(name, image)]);
        let read = format!(
            "cat {volume}/secret {volume}/sub/secret /way/secret 2>/dev/null; echo x > {volume}/made; true"
        );
        let outcome = host.dhow(["run", "--rm", name, "sh", "-c", &read]).outcome();
        assert!(!outcome.stdout.contains(SECRET), "{name}: {outcome:#?}");
        canary.is_untouched(name);
    }
    // The same for the working directory.
    let image = busybox().layer(tree()).config("WorkingDir", json!(up));
    host.load(&[("cwd:1", image)]);
    let outcome = host.dhow(["run", "--rm", "cwd:1", "cat", "secret"]).outcome();
    assert!(!outcome.stdout.contains(SECRET), "{outcome:#?}");
}

/// Files that every container gets are put where no link of the image leads them.
#[test]
fn files_of_the_engine_stay_in_the_root() {
    let canary = Canary::new();
    let host = Host::new();
    let to = |name: &str| canary.path().join(name).to_str().unwrap().to_owned();
    let single = Tree::new()
        .dir("etc", 0o755)
        .symlink("etc/hosts", &to("secret"))
        .symlink("etc/hostname", &to("new"))
        .symlink("etc/resolv.conf", &format!("../../../../../{}", to("sub/secret")));
    let whole = Tree::new().symlink("etc", canary.text());
    for (name, tree) in [("single:1", single), ("whole:1", whole)] {
        host.load(&[(name, busybox().layer(tree))]);
        let outcome = host
            .dhow(["run", "--rm", "--add-host", "a:1.2.3.4", name, "cat", "/etc/hosts", "/etc/secret"])
            .outcome();
        assert!(!outcome.stdout.contains(SECRET), "{outcome:#?}");
        canary.is_untouched(name);
    }
}

/// A monitor is as it was after many sessions that came to nothing.
#[test]
fn failing_sessions_cost_nothing() {
    let host = Host::with_busybox();
    let id = host.dhow(["run", "-d", "--name", "it", "busybox:1", "sleep", "600"]).ok();
    let pid = host.dhow(["inspect", "--format", "{{.State.Pid}}", id.trim()]).ok();
    let parent = |pid: &str| {
        let stat = fs_err::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().to_owned()
    };
    let monitor = parent(pid.trim());
    let handles = || fs_err::read_dir(format!("/proc/{monitor}/fd")).unwrap().count();
    let children = || fs_err::read_to_string(format!("/proc/{monitor}/task/{monitor}/children")).unwrap();
    let fail = || {
        let outcome = host.dhow(["exec", "it", "/no/such/program"]).outcome();
        assert_eq!(outcome.code, 127, "{outcome:#?}");
    };
    fail();
    let before = until("it is quiet", || (children().split_whitespace().count() <= 1).then(handles));
    for _ in 0..rounds() / 3 {
        fail();
    }
    until("all is let go of", || {
        (handles() == before && children().split_whitespace().count() <= 1).then_some(())
    });
    host.dhow(["rm", "-f", "it"]).ok();
}
