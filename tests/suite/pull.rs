//! `dhow pull` from a real registry, and from one that wants a token.

use std::process::Command;

use serde_json::Value;

use crate::support::{
    Answer, Host, Hostile, Image, Layout, Registry, Squeeze, Terminal, Tree, busybox, guest, native, noise,
    tool,
};

fn both() -> Image {
    Image::index([
        Image::native().layer(Tree::new().file("hello", 0o755, native("hello"))).entrypoint(&["/hello"]),
        Image::wasm()
            .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
            .entrypoint(&["/hello.wasm"]),
    ])
}

#[test]
fn pull_says_what_docker_says() {
    let registry = Registry::start();
    let name = registry.push("hello:1", &both());
    let host = Host::new();
    let out = host.dhow(["pull", &name]).outcome();
    assert_eq!(out.code, 0, "{out:#?}");
    let lines = out.lines();
    let digest =
        lines.iter().find_map(|line| line.strip_prefix("Digest: ")).unwrap_or_else(|| panic!("{out:#?}"));
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{out:#?}");
    assert!(lines.contains(&format!("Status: Downloaded newer image for {name}").as_str()), "{out:#?}");
    assert_eq!(lines.last(), Some(&name.as_str()), "{out:#?}");
    assert!(
        !out.stdout.contains('\x1b') && !out.stderr.contains('\x1b'),
        "no terminal, no colours: {out:#?}"
    );

    let again = host.dhow(["pull", &name]).outcome();
    assert!(again.stdout.contains(&format!("Status: Image is up to date for {name}")), "{again:#?}");
    assert_eq!(host.dhow(["pull", "-q", &name]).ok(), format!("{name}\n"));
    assert_eq!(host.dhow(["run", "--rm", &name, "pulled"]).ok(), "hello from Wasm: pulled\n");

    let inspected: Value = serde_json::from_str(&host.dhow(["inspect", &name]).ok()).unwrap();
    let repository = name.strip_suffix(":1").unwrap();
    assert_eq!(inspected[0]["RepoDigests"][0], format!("{repository}@{digest}"));
    let by_digest = format!("{repository}@{digest}");
    assert_eq!(host.dhow(["pull", "-q", &by_digest]).ok(), format!("{by_digest}\n"));
}

#[test]
fn the_other_variant_comes_when_it_is_asked_for() {
    let registry = Registry::start();
    let name = registry.push("hello:1", &both());
    let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    let run = host.dhow(["run", "--rm", "--platform", platform, &name]).outcome();
    assert_eq!((run.code, run.stdout.as_str()), (0, "hello from Linux\n"), "{run:#?}");
    assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "hello from Wasm\n", "the first is still there");
    let other = Host::new();
    other.dhow(["pull", "-q", "--platform", platform, &name]).ok();
    let run = other.dhow(["run", "--rm", "--platform", platform, &name]);
    assert_eq!(run.ok(), "hello from Linux\n");
}

#[test]
fn a_short_name_finds_the_only_image_it_can_mean() {
    let (registry, other) = (Registry::start(), Registry::start());
    let (name, twin) = (registry.push("hello:1", &both()), other.push("hello:1", &both()));
    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    assert_eq!(host.dhow(["run", "--rm", "hello:1", "a", "b"]).ok(), "hello from Wasm: a b\n");
    assert_eq!(host.dhow(["run", "--rm", "--pull=never", "hello:2"]).outcome().code, 125, "another tag");
    host.dhow(["pull", "-q", &twin]).ok();
    let run = host.dhow(["run", "--rm", "--pull=never", "hello:1"]).outcome();
    assert_eq!(run.code, 125, "which of the two is not for us to say: {run:#?}");
    assert_eq!(host.dhow(["rmi", "hello:1"]).outcome().code, 1, "only the full name removes");
}

#[test]
fn run_pulls_what_is_missing() {
    let registry = Registry::start();
    let name = registry.push("team/hello:1", &both());
    let host = Host::new();
    let run = host.dhow(["run", "--rm", &name, "x"]).outcome();
    assert_eq!((run.code, run.stdout.as_str()), (0, "hello from Wasm: x\n"), "{run:#?}");
    assert!(run.stderr.starts_with(&format!("Unable to find image '{name}' locally\n")), "{run:#?}");
    assert_eq!(host.dhow(["run", "--rm", "--pull", "never", &name]).ok(), "hello from Wasm\n");
    let never = Host::new();
    never.dhow(["run", "--rm", "--pull", "never", &name]).refused(125, "o such image");
}

#[test]
fn a_new_image_under_the_same_name_replaces_the_old_one() {
    let registry = Registry::start();
    let image = |text: &str| busybox().cmd(&["echo", text]);
    let name = registry.push("moving:1", &image("old"));
    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    registry.push("moving:1", &image("new"));
    assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "old\n", "a run does not look for a newer one");
    host.dhow(["pull", "-q", &name]).ok();
    assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "new\n");
}

#[test]
fn what_other_tools_push_can_be_pulled() {
    let registry = Registry::start();
    let host = Host::new();
    for (name, squeeze) in [("gzip:1", Squeeze::Gzip), ("zstd:1", Squeeze::Zstd)] {
        let full = registry.push(name, &busybox().cmd(&["echo", name]).squeeze(squeeze));
        host.dhow(["pull", "-q", &full]).ok();
        assert_eq!(host.dhow(["run", "--rm", &full]).ok(), format!("{name}\n"));
    }
    // skopeo as a converter to Docker's schema 2.
    let (from, to) = (registry.name("gzip:1"), registry.name("converted:1"));
    tool(
        Command::new("skopeo")
            .args([
                "--insecure-policy",
                "copy",
                "-q",
                "--format",
                "v2s2",
                "--src-tls-verify=false",
                "--dest-tls-verify=false",
            ])
            .args([format!("docker://{from}"), format!("docker://{to}")]),
    );
    host.dhow(["pull", "-q", &to]).ok();
    assert_eq!(host.dhow(["run", "--rm", &to]).ok(), "gzip:1\n");
}

#[test]
fn many_layers_and_many_pulls_at_once() {
    let registry = Registry::start();
    let mut image = busybox().cmd(&["sh", "-c", "cat /n/* | wc -l"]);
    for n in 0..24 {
        image = image.layer(Tree::new().dir("n", 0o755).file(
            &format!("n/{n}"),
            0o644,
            format!("{n}\n").repeat(1000),
        ));
    }
    let name = registry.push("many:1", &image);
    let host = Host::new();
    let running: Vec<_> = (0..5).map(|_| host.dhow(["pull", "-q", &name]).spawn()).collect();
    for one in running {
        let outcome = one.outcome();
        assert_eq!((outcome.code, outcome.stdout.trim()), (0, name.as_str()), "{outcome:#?}");
    }
    assert_eq!(host.dhow(["run", "--rm", &name]).ok().trim(), "24000");
}

#[test]
fn progress_bars_on_a_terminal_and_none_without() {
    let registry = Registry::start();
    let noise = noise(2_000_000);
    let name = registry.push("big:1", &Image::native().layer(Tree::new().file("noise", 0o644, noise)));
    let host = Host::new();
    let mut terminal = Terminal::start(&host.dhow(["pull", &name]).into_command(), 24, 80);
    assert_eq!(terminal.code(), 0);
    let shown = terminal.shown().to_owned();
    assert!(shown.contains('\x1b') && shown.contains("Pull complete"), "{shown:?}");
    assert!(shown.contains("Status: Downloaded newer image"), "{shown:?}");
    let plain = Terminal::start(&host.dhow(["pull", &name]).env("NO_COLOR", "1").into_command(), 24, 80)
        .shown()
        .to_owned();
    assert!(!plain.contains("\x1b[3"), "{plain:?}");
}

#[test]
fn a_token_is_fetched_when_the_registry_wants_one() {
    let layout = Layout::new();
    let image = layout.image(&both());
    let server = Hostile::serve("hello", &layout, &image);
    server.require_token("secret-token");
    let host = Host::new();
    let name = server.name("hello:1");
    host.dhow(["pull", "-q", &name]).ok();
    assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "hello from Wasm\n");
    let asked = server.asked();
    let token =
        asked.iter().find(|line| line.starts_with("GET /token?")).unwrap_or_else(|| panic!("{asked:?}"));
    assert!(
        token.contains("service=test") && token.contains("repository") && token.contains("pull"),
        "{token}"
    );
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let layout = Layout::new();
    let noise = noise(3_000_000);
    let image = layout.image(
        &busybox().cmd(&["sh", "-c", "wc -c < /noise"]).layer(Tree::new().file("noise", 0o644, noise)),
    );
    let server = Hostile::serve("big", &layout, &image);
    let manifest: Value =
        serde_json::from_slice(&fs_err::read(layout.blob_path(image["digest"].as_str().unwrap())).unwrap())
            .unwrap();
    let path = format!("/v2/big/blobs/{}", manifest["layers"][1]["digest"].as_str().unwrap());
    let whole = server.get(&path);
    server.set(&path, whole.clone().cut_after(1_000_000));
    let host = Host::new();
    let name = server.name("big:1");
    host.dhow(["pull", "-q", &name]).fails(1);
    host.check();
    server.set(&path, whole);
    host.dhow(["pull", "-q", &name]).ok();
    assert_eq!(host.dhow(["run", "--rm", &name]).ok().trim(), "3000000");
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let layout = Layout::new();
    let image = layout.image(&busybox().cmd(&["true"]));
    let elsewhere = Hostile::serve("hello", &layout, &image);
    let server = Hostile::serve("hello", &layout, &image);
    server.require_token("secret-token");
    let manifest: Value =
        serde_json::from_slice(&fs_err::read(layout.blob_path(image["digest"].as_str().unwrap())).unwrap())
            .unwrap();
    let path = format!("/v2/hello/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap());
    let target = format!("http://{}", elsewhere.name(&path[1..]));
    server.set(&path, Answer::new(307, "text/plain", "").header("Location", &target));
    let host = Host::new();
    host.dhow(["pull", "-q", &server.name("hello:1")]).ok();
    assert!(elsewhere.asked().iter().any(|line| line.ends_with(&path)), "{:?}", elsewhere.asked());
    assert!(elsewhere.authorizations().iter().all(String::is_empty), "the token was sent to another host");
}
