//! Automatic collection and the quota, as the settings file sets them.

use crate::support::{Host, Image, Layout, Registry, Run, Tree, busybox, noise};

fn of(n: u32) -> Image {
    Image::native().layer(Tree::new().file("noise", 0o644, noise(100_000 + n)))
}

/// A call with these settings.
fn with(host: &Host, gc: &str, args: &[&str]) -> Run {
    let file = host.file("settings.json", format!("{{\"gc\": {gc}}}"));
    host.dhow(args).env("DHOW_SETTINGS", file)
}

fn load(host: &Host, gc: &str, name: &str, image: &Image) -> Run {
    let layout = Layout::new();
    layout.tag(&layout.image(image), name);
    layout.archive(&host.path("image.tar"));
    with(host, gc, &["load", "-q", "-i", &host.text("image.tar")])
}

fn names(host: &Host) -> String {
    let mut names: Vec<_> =
        host.dhow(["images", "--format", "{{.Repository}}"]).ok().lines().map(str::to_owned).collect();
    names.sort();
    names.join(" ")
}

#[test]
fn nothing_goes_unless_configured() {
    let host = Host::with(&[("one:1", of(1))]);
    host.dhow(["system", "gc"]).env("DHOW_SETTINGS", host.path("absent")).refused(1, "no limits are set");
    with(&host, "{\"keep\": [\"x\"]}", &["system", "gc"]).refused(1, "no limits are set");
    with(&host, "{\"max\": 1}", &["system", "gc"]).rejected(1, "unknown field `max`");
    assert_eq!(names(&host), "one");
}

#[test]
fn the_least_recently_used_image_goes_when_the_next_one_comes() {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.dhow(["run", "--name", "user", "busybox:1", "true"]).ok();
    host.load(&[("one:1", of(1))]);
    host.load(&[("two:1", of(2))]);
    host.load(&[("kept:1", of(3))]);
    // Whoever is used again is not the least recently used any more.
    let used = host.dhow(["run", "--rm", "--entrypoint", "/none", "one:1"]).outcome();
    assert_ne!(used.code, 0);
    let size = host.dhow(["system", "df", "--format", "{{.Size}}"]).ok();
    let unlimited = "{\"max_size\": \"1GB\"}";
    assert!(with(&host, unlimited, &["system", "gc"]).ok().starts_with("Size: "), "{size}");
    let tight = "{\"max_size\": 1, \"keep\": [\"kept:*\"]}";
    let out = with(&host, tight, &["system", "gc", "--dry-run"]).outcome();
    let order: Vec<&str> =
        out.stdout.lines().filter_map(|line| line.strip_prefix("would remove: ")).collect();
    assert!(order[0].starts_with("two:1 (last used ") && order[1].starts_with("one:1 "), "{out:#?}");
    assert_eq!((order.len(), out.stderr.contains("the limits are not reached")), (2, true), "{out:#?}");
    assert_eq!(names(&host), "busybox kept one two");
    let out = load(&host, tight, "new:1", &of(4)).outcome();
    assert_eq!(out.code, 0, "{out:#?}");
    assert!(out.stderr.contains("removed to keep to the limits of the settings: two:1"), "{out:#?}");
    assert_eq!(names(&host), "busybox kept new");
    host.dhow(["rm", "user"]).ok();
}

#[test]
fn age_alone_is_a_reason() {
    let host = Host::with(&[("one:1", of(1))]);
    let by_age = |age: &str| with(&host, &format!("{{\"unused_for\": \"{age}\"}}"), &["system", "gc"]).ok();
    by_age("1h");
    assert_eq!(names(&host), "one");
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert!(by_age("0s").starts_with("removed: one:1 (last used "));
    assert_eq!(names(&host), "");
}

#[test]
fn a_hard_limit_is_never_exceeded() {
    let registry = Registry::start();
    let (one, two) = (registry.push("one:1", &of(1)), registry.push("two:1", &of(2)));
    let big =
        registry.push("big:1", &Image::native().layer(Tree::new().file("noise", 0o644, noise(600_000))));
    let host = Host::new();
    let hard = "{\"max_size\": \"300kB\", \"hard\": true}";
    with(&host, hard, &["pull", "-q", &one]).ok();
    // It does not fit at all: nothing is fetched, and nothing goes for it.
    with(&host, hard, &["pull", &big]).refused_by_pull("the store may hold 300000 bytes");
    assert_eq!(host.dhow(["images", "-q"]).ok().lines().count(), 1);
    // It fits when the other one goes.
    let out = with(&host, hard, &["pull", "-q", &two]).outcome();
    assert_eq!(out.code, 0, "{out:#?}");
    assert!(out.stderr.contains("removed to keep to the limits"), "{out:#?}");
    assert_eq!(host.dhow(["images", "-q"]).ok().lines().count(), 1);
    host.check();
    // A load that does not fit is refused as well.
    load(&host, hard, "three:1", &of(250_000)).refused(1, "the store may hold 300000 bytes");
    host.check();
}
