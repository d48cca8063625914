//! `prune` and `system df`: Docker's words, and figures that are what the disk says.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{Host, Image, Tree, busybox, guest, is_root, noise, tool};

/// Lengths of all regular files below some folders, each file once.
fn walk(folders: &[std::path::PathBuf]) -> u64 {
    let mut find = Command::new("find");
    find.args(folders).args(["-type", "f", "-printf", "%i %s\n"]);
    let mut lines: Vec<String> = tool(&mut find).lines().map(str::to_owned).collect();
    lines.sort();
    lines.dedup();
    lines.iter().map(|line| line.split(' ').nth(1).unwrap().parse::<u64>().unwrap()).sum()
}

/// A size as `df` shows it, with four digits.
fn shown(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.95 {
            let before = format!("{}", value.trunc()).len();
            let text = format!("{value:.*}", 4_usize.saturating_sub(before));
            let text =
                if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
            return format!("{text}{unit}");
        }
        value /= 1000.0;
    }
    unreachable!()
}

fn df(host: &Host) -> Vec<Value> {
    let out = host.dhow(["system", "df", "--format", "json"]).ok();
    out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn row(host: &Host, kind: &str) -> Value {
    df(host).into_iter().find(|row| row["Type"] == kind).expect("a row of this kind")
}

#[test]
fn nothing_is_removed_without_a_yes() {
    let host = Host::with_busybox();
    host.dhow(["run", "--name", "done", "busybox:1", "true"]).ok();
    let question = "Are you sure you want to continue? [y/N] ";
    for (command, warning) in [
        (&["container", "prune"][..], "WARNING! This will remove all stopped containers.\n"),
        (&["image", "prune"], "WARNING! This will remove all dangling images.\n"),
        (
            &["image", "prune", "-a"],
            "WARNING! This will remove all images without at least one container associated to them.\n",
        ),
        (&["system", "prune"], "WARNING! This will remove:\n  - all stopped containers\n"),
    ] {
        for answer in ["", "n\n", "yes\n", "\n"] {
            let out = host.dhow(command).stdin(answer).ok();
            assert!(out.starts_with(warning) && out.ends_with(question), "{out}");
        }
    }
    assert_eq!(host.dhow(["ps", "-aq"]).ok().lines().count(), 1);
    let out = host.dhow(["system", "prune", "-a"]).stdin("y\n").ok();
    for part in [
        "Deleted Containers:\n",
        "Deleted Images:\nuntagged: busybox:1\ndeleted: sha256:",
        "Total reclaimed space: ",
    ] {
        assert!(out.contains(part), "{out}");
    }
    assert_eq!(host.dhow(["images", "-q"]).ok() + &host.dhow(["ps", "-aq"]).ok(), "");
    assert_eq!(host.dhow(["system", "prune", "-f"]).ok(), "Total reclaimed space: 0B\n");
}

#[test]
fn filters_choose() {
    let labelled = |n: &str| {
        let label = serde_json::json!({ "use": n });
        Image::native().layer(Tree::new().file(n, 0o644, n)).config("Labels", label)
    };
    let host =
        Host::with(&[("one:1", labelled("one")), ("two:1", labelled("two")), ("busybox:1", busybox())]);
    let names = || {
        let out = host.dhow(["images", "--format", "{{.Repository}}"]).ok();
        let mut names: Vec<_> = out.lines().map(str::to_owned).collect();
        names.sort();
        names.join(" ")
    };
    let prune = |filter: &str| host.dhow(["image", "prune", "-af", "--filter", filter]).ok();
    // The images say that they were made in 2024.
    prune("until=2024-01-01");
    prune("label=use=three");
    assert_eq!(names(), "busybox one two");
    let out = prune("label=use=one");
    assert!(out.starts_with("Deleted Images:\nuntagged: one:1\ndeleted: sha256:"), "{out}");
    prune("label!=use");
    assert_eq!(names(), "two");
    prune("until=24h");
    assert_eq!(names(), "");
    for (filter, message) in [
        ("foo=bar", "Invalid filter 'foo'"),
        ("until=abc", "failed to parse value as time or duration: \"abc\""),
    ] {
        host.dhow(["image", "prune", "-f", "--filter", filter]).refused(1, message);
    }
    host.dhow(["image", "prune", "-f", "--filter", "until"]).fails(125);
    host.dhow(["system", "prune", "-f", "--volumes", "--filter", "until=1h"])
        .rejected(1, "The \"until\" filter is not supported with \"--volumes\"");
}

#[test]
fn containers_are_filtered_too() {
    let host = Host::with_busybox();
    for (name, label) in [("one", "a=1"), ("two", "a=2")] {
        host.dhow(["run", "--name", name, "--label", label, "busybox:1", "true"]).ok();
    }
    let prune = |filter: &str| host.dhow(["container", "prune", "-f", "--filter", filter]).ok();
    assert_eq!(prune("until=1h"), "Total reclaimed space: 0B\n");
    assert!(prune("label=a=1").starts_with("Deleted Containers:\n"));
    assert_eq!(host.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok(), "two\n");
    // What a container uses is no dangling image and not unused.
    assert_eq!(host.dhow(["image", "prune", "-af"]).ok(), "Total reclaimed space: 0B\n");
    prune("label!=b");
    host.has_no_container();
}

#[test]
fn df_is_right_to_the_byte() {
    let shared = || Tree::new().file("shared", 0o644, noise(50_001));
    let host = Host::with(&[
        ("busybox:1", busybox()),
        ("one:1", Image::native().layer(shared())),
        ("two:1", Image::native().layer(shared()).layer(Tree::new().file("own", 0o644, noise(7_003)))),
    ]);
    host.file("probe.wasm", guest("probe.wasm"));
    host.dhow(["run", "busybox:1", "sh", "-c", "head -c 12345 /dev/zero >/file"]).ok();
    host.dhow(["run", "--rm", "./probe.wasm", "cwd"]).ok();
    let root = host.root();
    let content = walk(&["blobs", "layers", "trees"].map(|folder| root.join(folder)));
    let images = row(&host, "Images");
    assert_eq!((&images["TotalCount"], &images["Active"]), (&"3".into(), &"1".into()));
    assert_eq!(images["Size"], shown(content).as_str());
    let containers = row(&host, "Containers");
    assert_eq!((&containers["Size"], &containers["Active"]), (&"12.35kB".into(), &"0".into()));
    assert_eq!(containers["Reclaimable"], "12.35kB (100%)");
    assert_eq!(row(&host, "Compiled Code")["Size"], shown(walk(&[root.join("aot")])).as_str());
    let text = host.dhow(["system", "df"]).ok();
    assert!(text.starts_with("TYPE                TOTAL     ACTIVE    SIZE"), "{text}");

    let out = host.dhow(["system", "df", "-v", "--format", "json"]).ok();
    let all: Value = serde_json::from_str(&out).unwrap();
    let find = |name: &str| {
        all["Images"].as_array().unwrap().iter().find(|image| image["Repository"] == name).unwrap().clone()
    };
    let (one, two, other) = (find("one"), find("two"), find("busybox"));
    assert_eq!((&one["SharedSize"], &other["SharedSize"]), (&two["SharedSize"], &"0B".into()));
    assert_eq!(other["Containers"], "1");
    let text = host.dhow(["system", "df", "-v"]).ok();
    for part in
        ["Images space usage:\n\nREPOSITORY", "\nContainers space usage:\n\nCONTAINER ID", "SHARED SIZE"]
    {
        assert!(text.contains(part), "{text}");
    }
    // What is said to be reclaimable is what goes.
    let reclaimable = images["Reclaimable"].as_str().unwrap().split(' ').next().unwrap().to_owned();
    host.dhow(["image", "prune", "-af"]).ok();
    let left = walk(&["blobs", "layers", "trees"].map(|folder| root.join(folder)));
    assert_eq!(shown(content - left), reclaimable);
    assert_eq!(walk(&[root.join("aot")]), 0, "code of a file that is in no image goes with -a");
}

#[test]
fn compiled_code_goes_with_its_image() {
    let image = Image::wasm()
        .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
        .entrypoint(&["/hello.wasm"]);
    let host = Host::with(&[("hello:1", image)]);
    host.dhow(["run", "--rm", "hello:1"]).ok();
    assert!(walk(&[host.root().join("aot")]) > 0);
    host.dhow(["rmi", "hello:1"]).ok();
    let left = fs_err::read_dir(host.root().join("aot")).unwrap().count();
    assert_eq!(left, 0, "compiled code outlived its image");
}

/// Blocks that a file system has given out.
fn used(path: &Path) -> u64 {
    let out = tool(Command::new("stat").args(["-f", "-c", "%b %f %S"]).arg(path));
    let numbers: Vec<u64> = out.split_whitespace().map(|n| n.parse().unwrap()).collect();
    (numbers[0] - numbers[1]) * numbers[2]
}

#[test]
fn the_disk_gives_back_what_prune_says() {
    if !is_root() {
        println!("skipped: mounting needs root");
        return;
    }
    let host = Host::new();
    let disk = host.path("disk");
    fs_err::create_dir(&disk).unwrap();
    tool(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&disk));
    let dhow = |args: &[&str]| host.dhow(args).env("DHOW_ROOT", disk.join("root"));
    let archive = host.path("images.tar");
    {
        let layout = crate::support::Layout::new();
        let tree = (0..200).fold(Tree::new(), |tree, n| tree.file(&format!("f{n}"), 0o644, noise(n * 37)));
        layout.tag(&layout.image(&busybox()), "busybox:1");
        layout.tag(&layout.image(&busybox().layer(tree)), "many:1");
        layout.archive(&archive);
    }
    dhow(&["load", "-qi", archive.to_str().unwrap()]).ok();
    for image in ["busybox:1", "many:1"] {
        dhow(&["run", image, "sh", "-c", "head -c 300000 /dev/zero >/file"]).ok();
    }
    // What happens is written down meanwhile.
    let events = disk.join("root/events/log");
    let used = |disk: &Path| {
        let log =
            fs_err::metadata(&events).map_or(0, |log| std::os::unix::fs::MetadataExt::blocks(&log) * 512);
        used(disk) - log
    };
    for command in [&["container", "prune", "-f"][..], &["image", "prune", "-af"]] {
        let before = used(&disk);
        let out = dhow(command).ok();
        // The kernel takes mounts of ended containers apart in the background, and their files with them.
        let freed = || before - used(&disk);
        let said = |freed| freed > 300_000 && out.ends_with(&format!("space: {}\n", shown(freed)));
        let patience = std::time::Instant::now();
        while !said(freed()) && patience.elapsed().as_secs() < 10 {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        assert!(said(freed()), "{} {out}", freed());
    }
    dhow(&["system", "check"]).fails(0);
    tool(Command::new("umount").arg(&disk));
}
