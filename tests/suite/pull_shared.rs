//! Many pulls of one image at once, and pulls that are killed.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Host, Image, Registry, Tree, busybox, noise, until};

fn image() -> Image {
    busybox()
        .cmd(&["sh", "-c", "wc -c < /noise"])
        .layer(Tree::new().file("noise", 0o644, noise(24_000_000)))
        .layer(Tree::new().file("more", 0o644, noise(3_000_000)))
}

/// Blobs of more than a megabyte: path and bytes of every answer.
fn layers(registry: &Registry) -> Vec<(String, u64)> {
    let served = registry.served().into_iter();
    let blobs = served.filter(|(method, path, _)| method == "GET" && path.contains("/blobs/"));
    blobs.filter(|(_, _, bytes)| *bytes > 100_000).map(|(_, path, bytes)| (path, bytes)).collect()
}

#[test]
fn twenty_pulls_are_one_download_and_one_unpacking() {
    let registry = Registry::start();
    let name = registry.push("it:1", &image());
    let before = layers(&registry).len();
    let host = Host::new();
    let running: Vec<_> = (0..20).map(|_| host.dhow(["pull", "--progress", "json", &name]).spawn()).collect();
    let mut fetched = 0;
    for one in running {
        let outcome = one.outcome();
        assert_eq!(outcome.code, 0, "{outcome:#?}");
        let messages = outcome.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        fetched += messages.filter(|m| m["status"] == "Download complete").count();
    }
    // busybox has a layer of its own.
    assert_eq!(fetched, 3, "each layer by one of them");
    let mut served = layers(&registry).split_off(before);
    served.sort();
    served.dedup_by(|a, b| a.0 == b.0);
    assert_eq!(layers(&registry).len() - before, served.len(), "no layer twice");
    assert_eq!(host.dhow(["run", "--rm", &name]).ok().trim(), "24000000");
}

#[test]
fn a_killed_pull_is_continued() {
    let registry = Registry::start();
    let name = registry.push("it:1", &image());
    let pushed = layers(&registry).len();
    Host::new().dhow(["pull", "-q", &name]).ok();
    let whole: u64 = layers(&registry)[pushed..].iter().map(|(_, bytes)| bytes).sum();
    for threshold in [1, 4_000_000, 12_000_000, 20_000_000] {
        let host = Host::new();
        let downloads = host.root().join("downloads");
        let largest = || {
            let sizes = fs_err::read_dir(&downloads).into_iter().flatten().flatten();
            sizes.filter_map(|entry| Some(entry.metadata().ok()?.len())).max().unwrap_or(0)
        };
        let pull = host.dhow(["pull", "-q", &name]).spawn();
        until("the download", || (largest() >= threshold).then_some(()));
        pull.signal(Signal::KILL);
        pull.outcome();
        let kept = largest();
        assert!(kept >= threshold, "{kept}");
        // Its last answer may not be in the log yet.
        let before = until("the registry's log", || {
            let now = layers(&registry);
            std::thread::sleep(std::time::Duration::from_millis(100));
            (now.len() == layers(&registry).len()).then_some(now.len())
        });
        assert_eq!(host.dhow(["images", "-q"]).ok(), "");
        host.dhow(["pull", "-q", &name]).ok();
        let again: u64 = layers(&registry)[before..].iter().map(|(_, bytes)| bytes).sum();
        assert!(again + kept <= whole, "{again} bytes again, although {kept} were kept");
        assert_eq!(host.dhow(["run", "--rm", &name]).ok().trim(), "24000000");
        assert_eq!(fs_err::read_dir(&downloads).unwrap().count(), 0);
    }
}

#[test]
fn pulls_and_removals_at_once() {
    let registry = Registry::start();
    let name = registry.push("it:1", &busybox().layer(Tree::new().file("noise", 0o644, noise(300_000))));
    let host = Host::new();
    for _ in 0..5 {
        let pulls: Vec<_> = (0..4).map(|_| host.dhow(["pull", "-q", &name]).spawn()).collect();
        let removals: Vec<_> = (0..4).map(|_| host.dhow(["rmi", &name]).spawn()).collect();
        for pull in pulls {
            let outcome = pull.outcome();
            assert_eq!(outcome.code, 0, "{outcome:#?}");
        }
        for removal in removals {
            removal.outcome();
        }
        host.check();
    }
}
