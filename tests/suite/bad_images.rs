//! Images and registries that are broken or hostile: refused with one line, nothing of them kept, store sound.

use serde_json::{Value, json};

use crate::support::{
    Answer, Host, Hostile, Image, Layout, Registry, Squeeze, Tree, busybox, digest_of, noise,
};

const OCTETS: &str = "application/octet-stream";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A layout with one image, served by a registry as `it:1`, and the paths of its parts.
struct Served {
    server: Hostile,
    layer: String,
    config: String,
    top: String,
    by_digest: String,
}

fn serve() -> Served {
    let layout = Layout::new();
    let image = layout.image(&busybox().cmd(&["true"]));
    let digest = image["digest"].as_str().unwrap().to_owned();
    let manifest: Value = serde_json::from_slice(&fs_err::read(layout.blob_path(&digest)).unwrap()).unwrap();
    let blob = |descriptor: &Value| format!("/v2/it/blobs/{}", descriptor["digest"].as_str().unwrap());
    Served {
        server: Hostile::serve("it", &layout, &image),
        layer: blob(&manifest["layers"][0]),
        config: blob(&manifest["config"]),
        top: "/v2/it/manifests/1".to_owned(),
        by_digest: format!("/v2/it/manifests/{digest}"),
    }
}

/// Pulls from the server and expects a refusal that names `message`, and nothing in the store.
fn refuse(served: &Served, message: &str) {
    let host = Host::new();
    let name = served.server.name("it:1");
    host.dhow(["pull", &name]).refused_by_pull(message);
    assert_eq!(host.dhow(["images", "-q"]).ok(), "");
    host.check();
    host.dhow(["run", "--rm", &name]).fails(125);
}

#[test]
fn layers_that_do_not_hold_what_was_promised() {
    let change = |with: fn(Vec<u8>) -> Answer| {
        let served = serve();
        let body = served.server.get(&served.layer).into_body();
        served.server.set(&served.layer, with(body));
        served
    };
    refuse(
        &change(|mut body| {
            let middle = body.len() / 2;
            body[middle] ^= 0x10;
            Answer::new(200, OCTETS, body)
        }),
        "digest",
    );
    refuse(&change(|body| Answer::new(200, OCTETS, &body[..body.len() / 2])), "");
    refuse(&change(|body| Answer::new(200, OCTETS, body).cut_after(50_000)), "");
    refuse(&change(|body| Answer::new(200, OCTETS, [body, vec![0; 4096]].concat())), "");
    refuse(&change(|_| Answer::new(200, "text/html", "<html>log in first</html>")), "");
    refuse(&change(|_| Answer::new(404, "application/json", "{}")), "");
    refuse(&change(|_| Answer::new(500, "text/plain", "down")), "500");
    refuse(&change(|_| Answer::new(200, "text/plain", "")), "");
}

#[test]
fn a_layer_that_is_no_archive() {
    for (content, name) in [
        (vec![0xffu8; 10_000], "noise"),
        (Squeeze::Gzip.apply(&noise_tar())[..30_000].to_vec(), "truncated gzip"),
        (Squeeze::Gzip.apply(&noise_tar()[..30_000]), "truncated tar"),
        (Squeeze::Gzip.apply(b"not a tar at all, only some words in a compressed stream"), "text"),
    ] {
        let layout = Layout::new();
        let layer = layout.blob(Squeeze::Gzip.media_type(), &content);
        let config = json!({
            "os": "linux", "architecture": "amd64", "config": { "Cmd": ["/x"] },
            "rootfs": { "type": "layers", "diff_ids": [digest_of(b"anything")] },
        });
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST, "layers": [layer],
            "config": layout.json("application/vnd.oci.image.config.v1+json", &config),
        });
        let descriptor = layout.json(MANIFEST, &manifest);
        layout.tag(&descriptor, "bad:1");
        let host = Host::new();
        // A layer is unpacked at the first use: what is wrong with it is found then at the latest.
        let load = host.dhow(["load", "-i", layout.path().to_str().unwrap()]).outcome();
        if load.code == 0 {
            host.dhow(["run", "--rm", "bad:1"]).refused(125, "layer");
            host.has_no_container();
        } else {
            load.is_refusal("layer");
            assert_eq!(host.dhow(["images", "-q"]).ok(), "", "{name}");
        }
    }
}

fn noise_tar() -> Vec<u8> {
    Tree::new().file("noise", 0o644, noise(200_000)).finish()
}

#[test]
fn manifests_of_the_wrong_kind_or_content() {
    let html = Answer::new(200, "text/html", "<html></html>");
    let schema1 = json!({ "schemaVersion": 1, "name": "it", "tag": "1", "fsLayers": [], "history": [] });
    let chart = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": [],
        "config": { "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": digest_of(b"{}"), "size": 2 },
    });
    let huge = format!("{{\"schemaVersion\":2,\"x\":\"{}\"}}", "x".repeat(20 << 20));
    let cases = [
        ("a web page", html),
        (
            "schema 1",
            Answer::new(
                200,
                "application/vnd.docker.distribution.manifest.v1+prettyjws",
                schema1.to_string(),
            ),
        ),
        ("not JSON", Answer::new(200, MANIFEST, "{")),
        ("JSON of another kind", Answer::new(200, MANIFEST, "[]")),
        ("nothing", Answer::new(200, MANIFEST, "")),
        ("a Helm chart", Answer::new(200, MANIFEST, chart.to_string())),
        ("20 MB of manifest", Answer::new(200, MANIFEST, huge)),
        (
            "an empty index",
            Answer::new(
                200,
                "application/vnd.oci.image.index.v1+json",
                r#"{"schemaVersion":2,"manifests":[]}"#,
            ),
        ),
        (
            "a negative size",
            Answer::new(
                200,
                MANIFEST,
                r#"{"schemaVersion":2,"config":{"mediaType":"x","digest":"sha256:00","size":-1},"layers":[]}"#,
            ),
        ),
    ];
    for (name, answer) in cases {
        let served = serve();
        served.server.set(&served.top, answer.clone());
        served.server.set(&served.by_digest, answer);
        let host = Host::new();
        let outcome = host.dhow(["pull", &served.server.name("it:1")]).fails(1);
        outcome.is_refusal("");
        assert_eq!(host.dhow(["images", "-q"]).ok(), "", "{name}");
    }
}

#[test]
fn a_manifest_under_the_wrong_digest() {
    let served = serve();
    let body = served.server.get(&served.by_digest).into_body();
    let changed = String::from_utf8(body).unwrap().replace("\"schemaVersion\":2", "\"schemaVersion\": 2");
    served.server.set(&served.by_digest, Answer::new(200, MANIFEST, changed));
    let host = Host::new();
    let name = served.server.name("it@") + served.by_digest.rsplit('/').next().unwrap();
    host.dhow(["pull", &name]).refused_by_pull("digest");
    host.check();
}

#[test]
fn a_configuration_that_lies() {
    let served = serve();
    served.server.set(&served.config, Answer::new(200, "application/json", "{}"));
    refuse(&served, "");
}

#[test]
fn a_registry_that_refuses() {
    for (status, code, message) in [
        (401, "UNAUTHORIZED", "denied"),
        (403, "DENIED", "denied"),
        (404, "MANIFEST_UNKNOWN", "unknown"),
        (429, "TOOMANYREQUESTS", "too many requests: no"),
        (503, "UNAVAILABLE", "503"),
    ] {
        let served = serve();
        let body = json!({ "errors": [{ "code": code, "message": "no" }] });
        served.server.set(&served.top, Answer::new(status, "application/json", body.to_string()));
        refuse(&served, message);
    }
}

#[test]
fn redirects_without_end() {
    let served = serve();
    let target = format!("http://{}", served.server.name(&served.layer[1..]));
    served.server.set(&served.layer, Answer::new(307, "text/plain", "").header("Location", &target));
    refuse(&served, "redirect");
}

#[test]
fn a_missing_image_in_a_real_registry() {
    let registry = Registry::start();
    let name = registry.push("it:1", &busybox());
    let host = Host::new();
    host.dhow(["pull", &registry.name("it:2")]).refused_by_pull("it:2");
    host.dhow(["pull", &registry.name("other:1")]).refused_by_pull("other:1");
    host.dhow(["run", "--rm", &registry.name("other:1")]).refused(125, "other:1");
    host.dhow(["pull", "-q", &name]).ok();
}

#[test]
fn a_registry_whose_disk_went_bad() {
    let registry = Registry::start();
    let name = registry.push("it:1", &busybox());
    let mut damaged = 0;
    for path in files_below(&registry.storage()) {
        let length = fs_err::metadata(&path).unwrap().len();
        if length > 100_000 {
            fs_err::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 100).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 1);
    let host = Host::new();
    host.dhow(["pull", &name]).refused_by_pull("");
    assert_eq!(host.dhow(["images", "-q"]).ok(), "");
}

fn files_below(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs_err::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Archives that try to write outside of their layer. Accepted or refused, nothing may appear outside.
#[test]
fn a_layer_cannot_reach_out() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let up = "../../../../../../../../..";
    let absolute = format!("{target}/absolute");
    let parent = format!("{up}{target}/parent");
    let cases = [
        ("parent", Tree::new().file(&parent, 0o644, "x")),
        ("absolute", Tree::new().file(&absolute, 0o644, "x")),
        ("through a link", Tree::new().symlink("link", target).file("link/through", 0o644, "x")),
        (
            "through a relative link",
            Tree::new().symlink("link", &format!("{up}{target}")).file("link/through", 0o644, "x"),
        ),
        ("hard link", Tree::new().hardlink("passwd", "/etc/passwd").file("passwd", 0o644, "x")),
        (
            "hard link to a link",
            Tree::new().symlink("link", target).hardlink("h", "link/x").file("h", 0o644, "x"),
        ),
        ("whiteout of the parent", Tree::new().whiteout("..").whiteout("../..")),
        ("link at the root", Tree::new().symlink(".", target).file("root", 0o644, "x")),
        ("folder over a link", Tree::new().symlink("d", target).dir("d", 0o777).file("d/over", 0o644, "x")),
    ];
    for (name, tree) in cases {
        let layout = Layout::new();
        layout.tag(&layout.image(&busybox().cmd(&["true"]).layer(tree)), "evil:1");
        let host = Host::new();
        let load = host.dhow(["load", "-i", layout.path().to_str().unwrap()]).outcome();
        if load.code == 0 {
            host.dhow(["run", "--rm", "evil:1"]).outcome();
        } else {
            load.is_refusal("");
            assert_eq!(host.dhow(["images", "-q"]).ok(), "", "{name}");
        }
        let appeared: Vec<_> = fs_err::read_dir(outside.path()).unwrap().collect();
        assert!(appeared.is_empty(), "{name}: {appeared:?}");
    }
    assert!(fs_err::read_to_string("/etc/passwd").unwrap().contains("root:"));
}

/// A layer that follows a link of the layer below it, which is harmless inside and not outside.
#[test]
fn links_of_a_lower_layer_lead_nowhere_else() {
    let outside = tempfile::tempdir().unwrap();
    let image = busybox()
        .cmd(&["ls", "/link/"])
        .layer(Tree::new().symlink("link", outside.path().to_str().unwrap()))
        .layer(Tree::new().file("link/through", 0o644, "x"));
    let layout = Layout::new();
    layout.tag(&layout.image(&image), "evil:1");
    let host = Host::new();
    host.dhow(["load", "-i", layout.path().to_str().unwrap()]).outcome();
    host.dhow(["run", "--rm", "evil:1"]).outcome();
    assert_eq!(fs_err::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn a_bomb_is_stopped_by_its_declared_size() {
    // 200 MB of zeros in 200 kB, declared as something else: the digest cannot be right, so it must not fill the disk.
    let zeros = vec![0u8; 200 << 20];
    let bomb = Squeeze::Gzip.apply(&zeros);
    drop(zeros);
    let served = serve();
    served.server.set(&served.layer, Answer::new(200, OCTETS, bomb));
    refuse(&served, "");
}

#[test]
fn an_index_in_an_index_in_an_index() {
    let mut image = Image::wasm();
    for _ in 0..40 {
        image = Image::index([image]);
    }
    let layout = Layout::new();
    layout.tag(&layout.image(&image), "deep:1");
    let host = Host::new();
    let outcome = host.dhow(["load", "-i", layout.path().to_str().unwrap()]).outcome();
    if outcome.code != 0 {
        outcome.is_rejection("");
    }
    let run = host.dhow(["run", "--pull", "never", "deep:1"]).outcome();
    assert_eq!(run.code, 125, "{run:#?}");
}
