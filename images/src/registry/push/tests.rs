//! Pushing to a registry that misbehaves: the suite's registry for pushes, with a fault for each case.

use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::*;
use crate::IndexBuilder;
use crate::NoProgress;
use crate::compose;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::registry::PullOptions;
use crate::registry::pull;
use crate::registry::referrers;
use crate::store::tests::store;

#[allow(dead_code, reason = "the suite uses the rest")]
#[path = "../../../../tests/support/sink.rs"]
mod sink;

use sink::Asked;
use sink::Fault;
use sink::Manner;
use sink::Sink;

/// An image with a large native layer and a Wasm variant, and the large layer.
struct Content {
    _dir: tempfile::TempDir,
    store: Store,
    top: Descriptor,
    large: Descriptor,
}

fn content() -> Content {
    let (dir, store) = store();
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[5]
    };
    let mut layer = LayerBuilder::new();
    layer.file("noise", 0o644, (0..2_500_000).map(|_| next()).collect::<Vec<u8>>());
    let mut native = ImageBuilder::new(&"linux/amd64".parse().unwrap());
    native.layer(layer);
    let native = native.build(&store).unwrap();
    let wasm = compose::wasm_artifact(&store, "wasip1", b"\0asm\x01\0\0\0").unwrap();
    let top = compose::index(&store, &[native.clone(), wasm]).unwrap();
    store.tag(&"kept".parse().unwrap(), &top).unwrap();
    let large = Manifest::parse("x", &store.read_blob(&native).unwrap()).unwrap().layers.remove(0);
    assert!(large.size > 2_400_000);
    Content { _dir: dir, store, top, large }
}

fn options(attempts: u32) -> PushOptions {
    let access = Access {
        attempts,
        backoff: Duration::from_millis(1),
        timeout: Duration::from_secs(5),
        ..Access::default()
    };
    PushOptions { access, ..PushOptions::default() }
}

impl Content {
    fn push(&self, sink: &Sink, name: &str, options: &PushOptions) -> Result<Pushed> {
        push(&self.store, &self.top, &sink.name(name).parse().unwrap(), options, &NoProgress)
    }

    /// Everything arrived as it is.
    fn arrived(&self, sink: &Sink, repository: &str) {
        let (kind, bytes) = sink.manifest(&format!("{repository}:1")).expect("the tag");
        assert_eq!((kind.as_str(), Digest::of(&bytes)), (media::INDEX, self.top.digest.clone()));
        let large = sink.blob(repository, &self.large.digest.to_string()).expect("the layer");
        assert_eq!(Digest::of(&large), self.large.digest);
    }
}

/// Bytes of the large blob that were sent.
fn sent(asked: &[Asked]) -> usize {
    asked.iter().filter(|a| a.target.contains("/blobs/uploads/")).map(|a| a.body).sum()
}

#[test]
fn an_honest_registry_gets_everything_once() {
    for manner in [Manner::default(), Manner { relative: true, least: Some(1 << 20), ..Manner::default() }] {
        let (content, sink) = (content(), Sink::start(manner));
        let pushed = content.push(&sink, "team/app:1", &options(1)).unwrap();
        assert_eq!(pushed.descriptor, content.top);
        assert!(pushed.sent > content.large.size && !pushed.fallback_tag, "{pushed:?}");
        content.arrived(&sink, "team/app");
        let asked = sink.asked();
        assert_eq!(asked.last().unwrap().target, "/v2/team/app/manifests/1", "the tag comes last");
        assert_eq!(sent(&asked) as u64, pushed.sent);

        // The same again, under another tag: nothing is sent.
        let again = content.push(&sink, "team/app:2", &options(1)).unwrap();
        assert_eq!(again.sent, 0);
        assert!(sink.asked().iter().all(|a| !a.target.contains("uploads")));
        // Another repository: everything is mounted.
        let other = content.push(&sink, "other:1", &options(1)).unwrap();
        assert_eq!(other.sent, 0);
        content.arrived(&sink, "other");

        let (_dir, store) = store();
        let name: Reference = sink.name("other:1").parse().unwrap();
        let all = PullOptions {
            platforms: crate::registry::Platforms::All,
            unpack: false,
            ..PullOptions::default()
        };
        assert_eq!(pull(&store, &name, &all, &NoProgress).unwrap().descriptor, content.top);
    }
}

type Hook = Box<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// The first so many requests that fit.
fn first(count: usize, fits: fn(&Asked) -> bool, fault: Fault) -> Hook {
    let left = AtomicUsize::new(count);
    Box::new(move |asked| {
        let fits = fits(asked)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        fits.then(|| fault.clone())
    })
}

fn patch(asked: &Asked) -> bool {
    asked.method == "PATCH"
}

fn answer(status: u16) -> Fault {
    Fault::Answer(status, Vec::new(), "")
}

#[test]
fn troubles_are_overcome() {
    let closing =
        |asked: &Asked| asked.method == "PUT" && asked.target.contains("uploads") && asked.length == 0;
    let wait = Fault::Answer(429, vec![("Retry-After", "0".into())], "");
    // What happens, and how many bytes are sent more than once at most.
    let cases: Vec<(&str, Hook, u64)> = vec![
        ("a cut", first(1, patch, Fault::Cut(1_000_000)), 0),
        ("three cuts", first(3, patch, Fault::Cut(500_000)), 0),
        ("a cut at once", first(1, patch, Fault::Cut(0)), 0),
        ("nobody there", first(1, patch, Fault::HangUp), 0),
        ("no answer to the greeting of an upload", first(1, |a| a.method == "POST", Fault::HangUp), 0),
        ("range", first(1, patch, answer(416)), 3_000_000),
        ("lost", first(1, patch, answer(404)), 3_000_000),
        ("later", first(1, patch, answer(503)), 3_000_000),
        ("too many", first(1, patch, wait), 3_000_000),
        ("the closing request is lost", first(1, closing, Fault::HangUp), 0),
        ("the closing request fails", first(1, closing, answer(500)), 0),
        ("the upload is lost before it is closed", first(1, closing, answer(404)), 3_000_000),
        ("no PATCH", first(usize::MAX, patch, answer(405)), 6_000_000),
        ("too large for a PATCH", first(usize::MAX, patch, answer(413)), 6_000_000),
        (
            "manifests later",
            first(2, |a| a.method == "PUT" && a.target.contains("manifests"), answer(503)),
            0,
        ),
    ];
    let content = content();
    for (what, hook, more) in cases {
        let sink = Sink::start(Manner::default());
        sink.fault(hook);
        let pushed = content.push(&sink, "app:1", &options(4)).unwrap_or_else(|e| panic!("{what}: {e}"));
        content.arrived(&sink, "app");
        let sent = sent(&sink.asked()) as u64;
        let least = pushed.descriptor.size.min(content.large.size);
        assert!(sent >= least && sent <= content.large.size + 2000 + more, "{what}: {sent}");
    }
}

#[test]
fn an_upload_that_was_cut_is_asked_for_and_may_be_gone() {
    let content = content();
    let sink = Sink::start(Manner::default());
    let cuts = AtomicUsize::new(0);
    sink.fault(move |a| match a.method.as_str() {
        "PATCH" if cuts.fetch_add(1, Ordering::SeqCst) == 0 => Some(Fault::Cut(1_000_000)),
        "GET" if a.target.contains("uploads") => Some(answer(404)),
        _ => None,
    });
    content.push(&sink, "app:1", &options(3)).unwrap();
    content.arrived(&sink, "app");
    let twice = sent(&sink.asked()) as u64 - content.large.size;
    assert!((1_000_000..1_002_000).contains(&twice), "{twice}");
}

#[test]
fn the_next_process_goes_on_where_one_stopped() {
    for least in [None, Some(1 << 20)] {
        let content = content();
        let sink = Sink::start(Manner { least, relative: true, ..Manner::default() });
        sink.fault(|a| (a.method == "PATCH").then_some(Fault::Cut(1_600_000)));
        let error = content.push(&sink, "app:1", &options(1)).unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error}");
        assert!(sink.manifest("app:1").is_none());
        sink.heal();
        sink.asked();
        let pushed = content.push(&sink, "app:1", &options(1)).unwrap();
        content.arrived(&sink, "app");
        let rest = content.large.size - 1_600_000;
        assert!(pushed.sent >= rest && pushed.sent < rest + 2000, "{least:?}: {pushed:?}");
        assert_eq!(fs_err::read_dir(content.store.root().join("uploads")).unwrap().count(), 0);

        // The registry has forgotten it meanwhile.
        sink.fault(|a| (a.method == "PATCH").then_some(Fault::Cut(1_600_000)));
        content.store.remove_unreferenced().unwrap();
        let other = Sink::start(Manner::default());
        other.fault(|a| (a.method == "PATCH").then_some(Fault::Cut(1_600_000)));
        content.push(&other, "app:1", &options(1)).unwrap_err();
        other.fault(|a| (a.method == "GET" && a.target.contains("uploads")).then(|| answer(404)));
        content.push(&other, "app:1", &options(1)).unwrap();
        content.arrived(&other, "app");
    }
}

#[test]
fn chunks_are_as_large_as_asked_for() {
    let content = content();
    for (least, chunk, expected) in [(None, 1_000_000, 1_000_000), (Some(1_500_000), 100_000, 1_500_000)] {
        let sink = Sink::start(Manner { least, ..Manner::default() });
        let options = PushOptions { chunk: Some(chunk), ..options(1) };
        content.push(&sink, "app:1", &options).unwrap();
        content.arrived(&sink, "app");
        let sizes: Vec<_> = sink
            .asked()
            .iter()
            .filter(|a| patch(a) && a.length > 1000)
            .map(|a| (a.length, a.range.clone()))
            .collect();
        assert_eq!(sizes[0], (expected, Some(format!("0-{}", expected - 1))), "{sizes:?}");
        assert_eq!(sizes[1].1.as_ref().unwrap().split('-').next().unwrap(), expected.to_string());
    }
}

#[test]
fn what_cannot_be_overcome_is_said() {
    let location = |to: &str| Fault::Answer(202, vec![("Location", to.to_owned())], "");
    let post = |a: &Asked| a.method == "POST";
    let top = |a: &Asked| a.target.ends_with("/manifests/1");
    let wrong = Fault::Answer(201, vec![("Docker-Content-Digest", "sha256:0".into())], "");
    let broken = r#"{"errors":[{"code":"MANIFEST_INVALID","message":"not\u001b[2J today"}]}"#;
    let cases: Vec<(&str, Hook)> = vec![
        (
            "digest_invalid",
            first(
                9,
                |a| a.method == "PUT",
                Fault::Answer(400, vec![], r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#),
            ),
        ),
        ("does not say where", first(99, post, Fault::Answer(202, vec![], ""))),
        ("refused", first(99, post, location("file:///etc/passwd"))),
        ("refused", first(99, post, location("http://169.254.169.254/latest"))),
        ("refused", first(99, post, location("uploads/1"))),
        ("500", first(99, post, answer(500))),
        ("push access denied", first(99, post, answer(403))),
        ("push access denied", first(99, patch, answer(403))),
        ("stored sha256", first(99, top, wrong.clone())),
        ("stored sha256", first(99, |a| a.method == "PUT", wrong)),
        ("not[2J today", first(99, top, Fault::Answer(400, vec![], broken))),
        ("503", first(99, top, answer(503))),
        ("bytes of", first(99, patch, Fault::Answer(202, vec![("Range", "0-99999999".into())], ""))),
        ("416", first(99, patch, answer(416))),
        ("404", first(99, patch, answer(404))),
        (
            "too many redirects",
            first(99, |a| a.method == "HEAD", Fault::Answer(307, vec![("Location", "/v2/x".into())], "")),
        ),
    ];
    let content = content();
    for (expected, hook) in cases {
        let sink = Sink::start(Manner::default());
        sink.fault(hook);
        let error = content.push(&sink, "app:1", &options(3)).unwrap_err().to_string();
        assert!(
            error.contains(expected) || error.replace(' ', "_").contains(expected),
            "{expected}: {error}"
        );
        let lasts = ["stored sha256", "not[2J today", "503"];
        assert!(sink.manifest("app:1").is_none() || lasts.contains(&expected), "{expected}");
        assert_eq!(content.store.check(false).unwrap(), []);
        assert_eq!(fs_err::read_dir(content.store.root().join("ingest")).unwrap().count(), 0);
    }
}

#[test]
fn a_damaged_blob_is_not_the_registrys_fault() {
    let content = content();
    let path = content.store.blob_path(&content.large.digest);
    let mut bytes = fs_err::read(&path).unwrap();
    bytes[1_000_000] ^= 1;
    fs_err::write(&path, bytes).unwrap();
    let sink = Sink::start(Manner::default());
    let error = content.push(&sink, "app:1", &options(3)).unwrap_err();
    assert!(
        matches!(error, Error::DigestMismatch { ref what, .. } if what.contains("of the store")),
        "{error}"
    );
}

#[test]
fn credentials_stay_with_the_registry() {
    let content = content();
    let token = Some("secret".to_owned());
    let elsewhere = Sink::start(Manner::default());
    let sink = Sink::start(Manner { token: token.clone(), ..Manner::default() });
    // An upload at another host.
    let to = format!("http://{}", elsewhere.name("v2/x/blobs/uploads/u0"));
    sink.fault(move |a| {
        let fits = a.method == "POST" && a.authorization.is_some();
        fits.then(|| Fault::Answer(202, vec![("Location", to.clone())], ""))
    });
    content.push(&sink, "app:1", &options(1)).unwrap_err();
    let asked = elsewhere.asked();
    assert!(
        asked.iter().any(|a| a.method != "GET") && asked.iter().all(|a| a.authorization.is_none()),
        "{asked:?}"
    );
    sink.heal();
    content.push(&sink, "app:1", &options(1)).unwrap();
    content.arrived(&sink, "app");
}

#[test]
fn a_token_that_ends_in_the_middle_is_renewed() {
    let content = content();
    let sink = Sink::start(Manner { token: Some("t".into()), ..Manner::default() });
    let host = sink.name("token");
    let challenge = format!(r#"Bearer realm="http://{host}",service="test""#);
    let refuse = Fault::Answer(401, vec![("WWW-Authenticate", challenge)], "");
    sink.fault(first(1, |a| patch(a) && a.authorization.is_some(), refuse));
    content.push(&sink, "app:1", &options(2)).unwrap();
    content.arrived(&sink, "app");
    assert_eq!(sink.asked().iter().filter(|a| a.target.starts_with("/token")).count(), 2);
}

#[test]
fn variants_that_were_never_fetched() {
    let content = content();
    let sink = Sink::start(Manner::default());
    content.push(&sink, "full:1", &options(1)).unwrap();
    let (_dir, store) = store();
    let name: Reference = sink.name("full:1").parse().unwrap();
    let wasm = PullOptions {
        platforms: crate::registry::Platforms::One(Platform::wasm()),
        ..PullOptions::default()
    };
    let top = pull(&store, &name, &wasm, &NoProgress).unwrap().descriptor;
    let to =
        |name: &str, options: &PushOptions| push(&store, &top, &name.parse().unwrap(), options, &NoProgress);

    // The registry has them: nothing to do, also in another repository.
    sink.asked();
    assert_eq!(to(&sink.name("full:2"), &options(1)).unwrap().sent, 0);
    assert_eq!(to(&sink.name("other:1"), &options(1)).unwrap().descriptor, content.top);
    content.arrived(&sink, "other");
    assert_eq!(sent(&sink.asked()), 0);

    // Another registry: nobody has them.
    let alone = Sink::start(Manner::default());
    let error = to(&alone.name("app:1"), &options(1)).unwrap_err();
    assert!(matches!(error, Error::PartsAbsent { ref parts, .. } if parts == &["linux/amd64"]), "{error}");
    assert!(alone.manifest("app:1").is_none());
    let one = PushOptions { platform: Some(Platform::wasm()), ..options(1) };
    let pushed = to(&alone.name("app:1"), &one).unwrap();
    assert_eq!(pushed.descriptor.media_type, media::MANIFEST);
    assert!(alone.manifest("app:1").is_some());
    // A source that has lost it.
    for name in ["full", "other"] {
        sink.forget(&format!("{name}@{}", content.large.digest));
    }
    let error = to(&sink.name("third:1"), &options(1)).unwrap_err();
    assert!(matches!(error, Error::PartsAbsent { .. }), "{error}");
}

#[test]
fn artifacts_and_their_subjects() {
    for (api, page) in [(true, None), (true, Some(2)), (false, None)] {
        let sink = Sink::start(Manner { referrers: api, page, ..Manner::default() });
        let content = content();
        content.push(&sink, "app:1", &options(1)).unwrap();
        let name: Reference = sink.name("app:1").parse().unwrap();
        let access = options(1).access;
        assert_eq!(referrers(&name, None, &access).unwrap(), []);
        let mut made = Vec::new();
        for n in 0..5 {
            let kind = if n == 0 { "example/sbom" } else { "example/signature" };
            let blob = compose::wasm_artifact(&content.store, "wasip1", format!("{n}").as_bytes()).unwrap();
            let blob = Descriptor { platform: None, ..blob };
            let mut index = IndexBuilder::new();
            index.add(blob).artifact_type(kind).subject(content.top.clone()).annotation("n", &n.to_string());
            let artifact = index.build(&content.store).unwrap();
            let to = name.at_digest(artifact.digest.clone());
            let pushed = push(&content.store, &artifact, &to, &options(1), &NoProgress).unwrap();
            assert_eq!(pushed.fallback_tag, !api);
            push(&content.store, &artifact, &to, &options(1), &NoProgress).unwrap();
            made.push(artifact.digest);
        }
        made.sort();
        let mut found = referrers(&name, None, &access).unwrap();
        found.sort_by(|a, b| a.digest.cmp(&b.digest));
        assert_eq!(found.iter().map(|d| &d.digest).collect::<Vec<_>>(), made.iter().collect::<Vec<_>>());
        let sboms =
            referrers(&name.at_digest(content.top.digest.clone()), Some("example/sbom"), &access).unwrap();
        assert_eq!(sboms.len(), 1);
        assert_eq!(sboms[0].annotations["n"], "0");
    }
}

#[test]
fn lists_page_by_page() {
    let content = content();
    let sink = Sink::start(Manner { page: Some(2), ..Manner::default() });
    for name in ["a:1", "b/c:1", "d:1", "e:1", "a:2", "a:3"] {
        content.push(&sink, name, &options(1)).unwrap();
    }
    let (access, registry) = (options(1).access, sink.name(""));
    let registry = registry.trim_end_matches('/');
    assert_eq!(crate::registry::catalog(registry, &access).unwrap(), ["a", "b/c", "d", "e"]);
    let name: Reference = sink.name("a").parse().unwrap();
    assert_eq!(crate::registry::Remote::new(&name, &access).tags().unwrap(), ["1", "2", "3"]);
    let found = crate::registry::search(registry, "c", 25, &access).unwrap();
    assert_eq!(found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(), ["b/c"]);
    // A list without an end, and one that goes on elsewhere.
    sink.fault(|a| {
        let again = format!("<{}>; rel=\"next\"", a.target);
        let fault = Fault::Answer(200, vec![("Link", again)], r#"{"repositories":["x"]}"#);
        a.target.starts_with("/v2/_catalog").then_some(fault)
    });
    assert_eq!(crate::registry::catalog(registry, &access).unwrap(), ["x"]);
    sink.fault(|a| {
        let away = Fault::Answer(200, vec![("Link", "<http://127.0.0.1:1/v2/>; rel=next".into())], "{}");
        a.target.starts_with("/v2/_catalog").then_some(away)
    });
    let error = crate::registry::catalog(registry, &access).unwrap_err().to_string();
    assert!(error.contains("another host"), "{error}");
}

#[test]
fn a_list_of_manifests_of_other_repositories() {
    use crate::manifest_list::ListEntry;
    use crate::manifest_list::ListPlatform;
    use crate::manifest_list::ManifestList;

    let content = content();
    let sink = Sink::start(Manner::default());
    let native = PushOptions { platform: Some("linux/amd64".parse().unwrap()), ..options(1) };
    content.push(&sink, "one:1", &native).unwrap();
    let wasm = PushOptions { platform: Some(Platform::wasm()), ..options(1) };
    content.push(&sink, "two:1", &wasm).unwrap();
    let access = options(1).access;
    let mut list = ManifestList::new(sink.name("list:1").parse().unwrap());
    for name in ["two:1", "one:1"] {
        let reference: Reference = sink.name(name).parse().unwrap();
        let (found, _) = crate::registry::manifest_with_platform(&reference, &access).unwrap();
        let platform = found.descriptor.platform.clone().unwrap();
        let platform =
            ListPlatform { os: platform.os, architecture: platform.architecture, ..ListPlatform::default() };
        list.add(ListEntry { reference, descriptor: found.descriptor, platform, bytes: found.bytes })
            .unwrap();
    }
    sink.asked();
    // Not even this store is needed.
    let (_dir, other) = store();
    let mut told = Vec::new();
    let top = crate::registry::push_list(&other, &list, &access, |name| told.push(name.clone())).unwrap();
    assert_eq!(told.len(), 2);
    assert_eq!(sink.manifest("list:1").unwrap(), (media::DOCKER_LIST.to_owned(), list.to_bytes()));
    assert_eq!(sent(&sink.asked()), 0);
    let all =
        PullOptions { platforms: crate::registry::Platforms::All, unpack: false, ..PullOptions::default() };
    assert_eq!(pull(&other, &list.name, &all, &NoProgress).unwrap().descriptor, top);

    let elsewhere = Sink::start(Manner::default());
    let (_dir, empty) = store();
    list.name = elsewhere.name("list:1").parse().unwrap();
    let error = crate::registry::push_list(&empty, &list, &access, |_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot use source images from a different registry"), "{error}");
    crate::registry::push_list(&content.store, &list, &access, |_| ()).unwrap();
}

#[test]
fn layers_packed_in_another_way() {
    let content = content();
    let sink = Sink::start(Manner::default());
    let zstd = PushOptions { compression: Some(Compression::Zstd), ..options(1) };
    let pushed = content.push(&sink, "app:1", &zstd).unwrap();
    assert_ne!(pushed.descriptor.digest, content.top.digest);
    assert_eq!(content.push(&sink, "app:1", &zstd).unwrap(), Pushed { sent: 0, ..pushed.clone() });
    let (_dir, other) = store();
    let name: Reference = sink.name("app:1").parse().unwrap();
    let all =
        PullOptions { platforms: crate::registry::Platforms::All, unpack: false, ..PullOptions::default() };
    let top = pull(&other, &name, &all, &NoProgress).unwrap().descriptor;
    assert_eq!(top, pushed.descriptor);
    let linux = Matcher::only(&"linux/amd64".parse().unwrap());
    let (old, new) = (content.store.image(&content.top, &linux).unwrap(), other.image(&top, &linux).unwrap());
    assert_eq!((&old.config_descriptor, &old.diff_ids), (&new.config_descriptor, &new.diff_ids));
    assert_eq!(new.layers[0].media_type, media::LAYER_ZSTD);
    other.unpack(&new, &NoProgress).unwrap();
    // The way they are packed already: nothing changes.
    let gzip = PushOptions { compression: Some(Compression::Gzip), ..options(1) };
    assert_eq!(content.push(&sink, "same:1", &gzip).unwrap().descriptor, content.top);
}
