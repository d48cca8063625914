//! Registries that misbehave, by table: what one pull or push says about each fault, and that the store is sound after.
//!
//! `bad_images` is about what an image holds; here it is the registry, the transfer, or a document that a registry
//! can make up. The tables of `dhow-images`' own tests have finer rows of transfers, with short limits of time.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    Answer, Fault, Host, Hostile, Image, Layout, Manner, Sink, Squeeze, Tree, busybox, digest_of, until,
};

const OCTETS: &str = "application/octet-stream";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// `it:1` as a good registry has it, and the paths of its parts.
struct Parts {
    server: Hostile,
    layer: String,
    config: String,
    top: String,
}

fn honest() -> Parts {
    let layout = Layout::new();
    let image = Image::native().cmd(&["/x"]).layer(Tree::new().file("x", 0o755, vec![b'x'; 20_000]));
    let image = layout.image(&image);
    let digest = image["digest"].as_str().unwrap();
    let manifest: Value = serde_json::from_slice(&fs_err::read(layout.blob_path(digest)).unwrap()).unwrap();
    let blob = |descriptor: &Value| format!("/v2/it/blobs/{}", descriptor["digest"].as_str().unwrap());
    Parts {
        server: Hostile::serve("it", &layout, &image),
        layer: blob(&manifest["layers"][0]),
        config: blob(&manifest["config"]),
        top: "/v2/it/manifests/1".to_owned(),
    }
}

/// A pull and a run are both refused with these words, and leave nothing.
fn refuse(what: &str, name: &str, words: &str) {
    let host = Host::new();
    println!("{what}");
    host.dhow(["pull", name]).refused_by_pull(words);
    host.check();
    host.dhow(["run", "--rm", name]).refused(125, words);
    host.has_no_container();
    assert_eq!(host.dhow(["images", "-aq"]).ok(), "", "{what}");
    host.check();
}

/// What is wrong, the words for it, and the damage.
type Case = (&'static str, &'static str, fn(&Parts));

fn each(cases: &[Case]) {
    // Most of the time goes by between two tries.
    std::thread::scope(|scope| {
        for (what, words, damage) in cases {
            scope.spawn(move || {
                let parts = honest();
                damage(&parts);
                refuse(what, &parts.server.name("it:1"), words);
            });
        }
    });
}

/// Changes the answer for a path.
fn change(parts: &Parts, path: &str, with: impl FnOnce(Vec<u8>) -> Answer) {
    parts.server.set(path, with(parts.server.get(path).into_body()));
}

fn errors(status: u16, code: &str) -> Answer {
    let body = json!({ "errors": [{ "code": code, "message": "said the registry" }] });
    Answer::new(status, "application/json", body.to_string())
}

fn redirect(parts: &Parts, path: &str, to: &str) {
    parts.server.set(path, Answer::new(307, "text/plain", "").header("Location", to));
}

#[test]
fn transfers() {
    each(&[
        ("cut, again and again", "bytes, not", |p| {
            change(p, &p.layer, |body| Answer::new(200, OCTETS, body).cut_after(10));
        }),
        ("nothing but a head", "bytes, not", |p| {
            change(p, &p.layer, |body| Answer::new(200, OCTETS, body).cut_after(0));
        }),
        ("another digest", "digest", |p| {
            change(p, &p.layer, |mut body| {
                body[20] ^= 1;
                Answer::new(200, OCTETS, body)
            });
        }),
        ("shorter than declared", "bytes, not", |p| {
            change(p, &p.layer, |body| Answer::new(200, OCTETS, &body[..20]));
        }),
        ("longer than declared", "bytes, not", |p| {
            change(p, &p.layer, |body| Answer::new(200, OCTETS, [body, vec![0; 10]].concat()));
        }),
        ("a length without end", "", |p| {
            change(p, &p.layer, |body| {
                Answer::new(200, OCTETS, body).header("Content-Length", "99999999999999999999999")
            });
        }),
        ("a configuration that is cut", "", |p| {
            change(p, &p.config, |body| Answer::new(200, OCTETS, body).cut_after(10));
        }),
        ("a manifest that is cut", "cut off", |p| {
            change(p, &p.top, |body| Answer::new(200, MANIFEST, body).cut_after(10));
        }),
        ("a missing layer", "404", |p| p.server.set(&p.layer, errors(404, "BLOB_UNKNOWN"))),
    ]);
}

#[test]
fn refusals() {
    each(&[
        ("403", "denied", |p| p.server.set(&p.top, errors(403, "DENIED"))),
        ("403 for a layer", "denied", |p| p.server.set(&p.layer, errors(403, "DENIED"))),
        ("429, come back in an hour", "too many requests", |p| {
            p.server.set(&p.top, errors(429, "TOOMANYREQUESTS").header("Retry-After", "3600"));
        }),
        ("429 for a layer", "too many requests", |p| {
            p.server.set(&p.layer, errors(429, "TOOMANYREQUESTS").header("Retry-After", "3600"));
        }),
        ("500", "500", |p| p.server.set(&p.top, errors(500, "UNKNOWN"))),
        ("502 in HTML", "502", |p| p.server.set(&p.layer, Answer::new(502, "text/html", "<html>"))),
        ("503, soon", "503", |p| p.server.set(&p.top, errors(503, "X").header("Retry-After", "0"))),
        ("a status that does not exist", "", |p| p.server.set(&p.top, Answer::new(799, OCTETS, ""))),
        ("204", "", |p| p.server.set(&p.top, Answer::new(204, OCTETS, ""))),
        ("206 that nobody asked for", "", |p| {
            change(p, &p.layer, |body| Answer::new(206, OCTETS, body));
        }),
        ("401 without a challenge", "denied", |p| p.server.set(&p.top, errors(401, "UNAUTHORIZED"))),
        ("401 whatever the token", "denied", |p| {
            let realm = format!("Bearer realm=\"http://{}\",service=\"s\"", p.server.name("token"));
            p.server.set("/token", Answer::new(200, "application/json", r#"{"token":"t"}"#));
            p.server.set(&p.top, errors(401, "UNAUTHORIZED").header("WWW-Authenticate", &realm));
        }),
        ("a realm that is a file", "", |p| {
            let realm = "Bearer realm=\"file:///etc/passwd\",service=\"s\"";
            p.server.set(&p.top, errors(401, "UNAUTHORIZED").header("WWW-Authenticate", realm));
        }),
        ("a realm at the machine's metadata", "", |p| {
            let realm = "Bearer realm=\"http://169.254.169.254/token\",service=\"s\"";
            p.server.set(&p.top, errors(401, "UNAUTHORIZED").header("WWW-Authenticate", realm));
        }),
    ]);
}

#[test]
fn redirects() {
    each(&[
        ("to a file", "refused", |p| redirect(p, &p.layer, "file:///etc/passwd")),
        ("to the machine's metadata", "refused", |p| redirect(p, &p.layer, "http://169.254.169.254/x")),
        ("to the same as one number", "refused", |p| redirect(p, &p.layer, "http://2852039166/x")),
        ("to the same in IPv6", "refused", |p| redirect(p, &p.layer, "http://[::ffff:169.254.169.254]/x")),
        ("of a manifest, to a file", "refused", |p| redirect(p, &p.top, "file:///etc/passwd")),
        ("of a manifest, to metadata", "refused", |p| redirect(p, &p.top, "http://169.254.169.254/x")),
        ("nowhere", "refused", |p| p.server.set(&p.layer, Answer::new(307, OCTETS, ""))),
        ("in a circle", "too many redirects", |p| redirect(p, &p.layer, &p.layer)),
    ]);
}

#[test]
fn documents() {
    each(&[
        ("not JSON", "", |p| p.server.set(&p.top, Answer::new(200, MANIFEST, "<html>"))),
        ("a web page", "text/html", |p| p.server.set(&p.top, Answer::new(200, "text/html", "<html>"))),
        ("nesting without end", "", |p| {
            p.server.set(&p.top, Answer::new(200, MANIFEST, "[".repeat(1 << 20)));
        }),
        ("5 MiB", "larger than 4 MiB", |p| {
            change(p, &p.top, |mut body| {
                body.resize(5 << 20, b' ');
                Answer::new(200, MANIFEST, body)
            });
        }),
        ("16 EiB, as it says", "larger than 4 MiB", |p| {
            change(p, &p.top, |body| {
                Answer::new(200, MANIFEST, body).header("Content-Length", "18446744073709551615")
            });
        }),
        ("schema 1", "schema 1", |p| {
            let kind = "application/vnd.docker.distribution.manifest.v1+prettyjws";
            p.server.set(&p.top, Answer::new(200, kind, r#"{"schemaVersion":1}"#));
        }),
        ("an unknown kind of document", "application/x-odd", |p| {
            change(p, &p.top, |body| Answer::new(200, "application/x-odd", body));
        }),
        ("an index that lists itself", "", |p| {
            let digest = digest_of(b"itself");
            let index = json!({
                "schemaVersion": 2, "mediaType": INDEX,
                "manifests": [{ "mediaType": INDEX, "digest": digest, "size": 200 }],
            });
            let answer = Answer::new(200, INDEX, index.to_string());
            p.server.set(&p.top, answer.clone());
            p.server.set(&format!("/v2/it/manifests/{digest}"), answer);
        }),
    ]);
}

/// A layout of one image: its layers as they are, and what its configuration says of them.
fn made(layers: &[(&str, Vec<u8>)], diff_ids: &[String]) -> Hostile {
    let layout = Layout::new();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = json!({
        "os": "linux", "architecture": architecture, "config": { "Cmd": ["/x"] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let layers: Vec<Value> = layers.iter().map(|(kind, bytes)| layout.blob(kind, bytes)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "layers": layers, "config": layout.json(CONFIG, &config),
    });
    Hostile::serve("it", &layout, &layout.json(MANIFEST, &manifest))
}

/// Everything has the digest that it should have, and is wrong.
#[test]
fn images_of_the_right_digest() {
    let tar = Tree::new().file("x", 0o755, vec![b'x'; 20_000]).finish();
    let id = digest_of(&tar);
    let (gzip, zstd) = (Squeeze::Gzip.apply(&tar), Squeeze::Zstd.apply(&tar));
    let cut = |bytes: &[u8]| bytes[..bytes.len() - 12].to_vec();
    let gz = Squeeze::Gzip.media_type();
    let other = vec![digest_of(b"another")];
    let one = vec![id.clone()];
    for (what, words, layers, diff_ids) in [
        ("a gzip that is cut", "layer", vec![(gz, cut(&gzip))], &one),
        ("a zstd that is cut", "layer", vec![(Squeeze::Zstd.media_type(), cut(&zstd))], &one),
        ("a tar that is cut", "layer", vec![(gz, Squeeze::Gzip.apply(&tar[..9000]))], &one),
        ("no gzip", "layer", vec![(gz, vec![7; 5000])], &one),
        ("an empty layer", "layer", vec![(gz, Vec::new())], &one),
        ("another diff id", "digest", vec![(gz, gzip.clone())], &other),
        ("more layers than diff ids", "", vec![(gz, gzip.clone()), (gz, gzip.clone())], &one),
        ("fewer layers than diff ids", "", vec![], &one),
    ] {
        refuse(what, &made(&layers, diff_ids).name("it:1"), words);
    }
}

/// What has layers of a kind that nobody knows is no image here: it is stored as it is, and cannot be run.
#[test]
fn layers_of_an_unknown_kind() {
    let tar = Tree::new().file("x", 0o755, "x").finish();
    for kind in ["application/x-layer", "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"] {
        let server = made(&[(kind, tar.clone())], &[digest_of(&tar)]);
        let (host, name) = (Host::new(), server.name("it:1"));
        host.dhow(["pull", "-q", &name]).ok();
        host.dhow(["run", "--rm", &name]).refused(125, kind);
        host.has_no_container();
        host.dhow(["rmi", &name]).ok();
        host.check();
    }
}

#[test]
fn an_index_forty_deep() {
    let layout = Layout::new();
    let deep = (0..40).fold(Image::native().cmd(&["/x"]), |image, _| Image::index([image]));
    let image = layout.image(&deep);
    refuse("forty deep", &Hostile::serve("it", &layout, &image).name("it:1"), "");
}

/// Two gigabytes of zeros in some kilobytes, of the right digest: it ends long before the disk is full.
#[test]
fn bombs() {
    let head = Tree::new().file("x", 0o644, "").finish()[..512].to_vec();
    let mut head = head;
    head[124..136].copy_from_slice(b"17777777777\0");
    head[148..156].fill(b' ');
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    let zeros = vec![0; 16 << 20];
    let mut best = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    best.write_all(&zeros).unwrap();
    for (squeeze, packed) in
        [(Squeeze::Gzip, best.finish().unwrap()), (Squeeze::Zstd, Squeeze::Zstd.apply(&zeros))]
    {
        let bomb = [squeeze.apply(&head), packed.repeat(128)].concat();
        let server = made(&[(squeeze.media_type(), bomb)], &[digest_of(b"whatever")]);
        let host = Host::new();
        host.dhow(["pull", &server.name("it:1")]).refused_by_pull("unpacks to more than 1073741824 bytes");
        assert_eq!(host.dhow(["images", "-aq"]).ok(), "");
        host.check();
    }
}

/// No layers are as good as any number; ten thousand are refused or work, and are no work without end.
#[test]
fn numbers_of_layers() {
    let host = Host::new();
    let none = made(&[], &[]);
    host.dhow(["pull", "-q", &none.name("it:1")]).ok();
    host.dhow(["run", "--rm", &none.name("it:1")]).refused(127, "/x");
    host.dhow(["rmi", &none.name("it:1")]).ok();
    let tar = Tree::new().file("x", 0o755, "x").finish();
    let layers = vec![(Squeeze::Gzip.media_type(), Squeeze::Gzip.apply(&tar)); 10_000];
    let many = made(&layers, &vec![digest_of(&tar); 10_000]);
    host.dhow(["pull", &many.name("it:1")]).refused_by_pull("layers");
    assert_eq!(host.dhow(["images", "-aq"]).ok(), "");
}

#[test]
fn nobody_or_somebody_else() {
    let free: SocketAddr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refuse("connection refused", &format!("{free}/it:1"), "connection refused");
    // One that speaks, but not HTTP, and one that hangs up.
    for greeting in ["SSH-2.0-OpenSSH_9.2\r\n", ""] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                drop(stream.write_all(greeting.as_bytes()));
            }
        });
        refuse("no registry", &format!("{address}/it:1"), "cannot reach registry");
    }
    // Where TLS is asked for, a plain port is not good enough.
    let parts = honest();
    let host = Host::new();
    let mirror = format!("https://{}", parts.server.name("").trim_end_matches('/'));
    let settings = json!({ "registries": { "registry.invalid": { "mirrors": [mirror] } } });
    let file = host.file("settings/config.json", settings.to_string());
    let name = parts.server.name("it:1");
    host.dhow(["pull", "registry.invalid/it:1"])
        .env("DHOW_SETTINGS", file)
        .refused_by_pull("cannot reach registry registry.invalid");
    assert!(!parts.server.asked().iter().any(|line| line.contains("it")), "{:?}", parts.server.asked());
    host.dhow(["pull", "-q", &name]).ok();
}

/// The limit of time is a minute; until then a user may give up, and nothing but what can be gone on with is left.
#[test]
fn a_stalled_transfer_is_given_up() {
    let parts = honest();
    change(&parts, &parts.layer, |body| Answer::new(200, OCTETS, body).stall_after(20));
    let host = Host::new();
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let before = parts.server.asked().len();
        let pull = host.dhow(["pull", &parts.server.name("it:1")]).spawn();
        until("the layer is asked for", || {
            parts.server.asked()[before..].iter().any(|line| line.contains(&parts.layer)).then_some(())
        });
        std::thread::sleep(Duration::from_millis(50));
        pull.signal(signal);
        let outcome = pull.outcome();
        assert_ne!(outcome.code, 0, "{outcome:#?}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome:#?}");
        assert_eq!(host.dhow(["images", "-aq"]).ok(), "");
    }
    // An honest registry of the same image is enough, and nothing is left over.
    let good = honest();
    host.dhow(["pull", "-q", &good.server.name("it:1")]).ok();
    host.dhow(["image", "prune", "-f"]).ok();
    host.check();
}

/// What happens at a request of this method whose path holds this.
fn at(method: &'static str, part: &'static str, fault: Fault) -> (&'static str, &'static str, Fault) {
    (method, part, fault)
}

#[test]
fn pushes() {
    let answer = |status, headers, body| Fault::Answer(status, headers, body);
    let plain = |status| Fault::Answer(status, Vec::new(), "");
    let location = |to: &str| Fault::Answer(202, vec![("Location", to.to_owned())], "");
    let later = || vec![("Retry-After", "3600".to_owned())];
    let host = Host::with(&[("it:1", busybox())]);
    for (what, words, (method, part, fault)) in [
        ("403", "denied", at("POST", "/uploads/", plain(403))),
        ("401 without end", "denied", at("", "/", plain(401))),
        ("429, in an hour", "too many requests", at("POST", "/uploads/", answer(429, later(), ""))),
        ("500", "500", at("POST", "/uploads/", plain(500))),
        ("503 with a page", "503", at("P", "/uploads/", answer(503, Vec::new(), "<html>"))),
        ("no place", "", at("POST", "/uploads/", plain(202))),
        ("a place that is a file", "refused", at("POST", "/uploads/", location("file:///tmp/x"))),
        ("a place at metadata", "refused", at("POST", "/uploads/", location("http://169.254.169.254/x"))),
        ("a place elsewhere here", "refused", at("POST", "/uploads/", location("http://localhost:1/x"))),
        (
            "a layer that is refused",
            "digest",
            at(
                "PUT",
                "/uploads/",
                answer(
                    400,
                    Vec::new(),
                    r#"{"errors":[{"code":"DIGEST_INVALID","message":"digest is wrong"}]}"#,
                ),
            ),
        ),
        (
            "a manifest that is refused",
            "blob unknown",
            at(
                "PUT",
                "/manifests/",
                answer(
                    400,
                    Vec::new(),
                    r#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown"}]}"#,
                ),
            ),
        ),
        ("hung up, always", "", at("P", "/uploads/", Fault::HangUp)),
        ("hung up, at the manifest", "", at("PUT", "/manifests/", Fault::HangUp)),
        (
            "redirected to a file",
            "",
            at("POST", "/uploads/", answer(307, vec![("Location", "file:///etc/passwd".to_owned())], "")),
        ),
    ] {
        println!("{what}");
        let sink = Sink::start(Manner::default());
        sink.fault(move |asked| {
            (asked.method.starts_with(method) && asked.target.contains(part)).then(|| fault.clone())
        });
        let name = sink.name("it:1");
        host.dhow(["tag", "it:1", &name]).ok();
        let outcome = host.dhow(["push", "-q", &name]).fails(1);
        outcome.is_refusal(words);
        assert!(sink.manifest("it:1").is_none(), "{what}");
        host.check();
        // Whole again, the registry is given the image.
        sink.heal();
        host.dhow(["push", "-q", &name]).ok();
        assert!(sink.manifest("it:1").is_some(), "{what}");
        host.dhow(["rmi", &name]).ok();
    }
}
