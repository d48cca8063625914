//! One download for all, and going on where a dead one stopped.

use super::*;
use crate::store::partial::Partial;

fn linux() -> PullOptions {
    PullOptions { platforms: Platforms::All, ..options() }
}

/// The first bytes of a layer, as a killed process leaves them.
fn leave(store: &Store, blob: &Descriptor, bytes: &[u8]) {
    let mut partial: Partial = store.try_partial(&blob.digest).unwrap().unwrap();
    partial.append(bytes).unwrap();
}

#[test]
fn only_the_rest_is_fetched() {
    let content = content();
    let path = content.layer_path();
    let whole = content.paths[&path].body.clone();
    for kept in [1, 70_000, whole.len() - 1, whole.len()] {
        let server = Server::start({
            let content = content.clone();
            move |r| content.get(r).ranged(r)
        });
        let (_dir, store) = store();
        leave(&store, &content.layer, &whole[..kept]);
        pull(&store, &server.name(), &linux(), &NoProgress).unwrap();
        let asked: Vec<_> = server.requests().iter().filter(|r| r.path == path).map(Request::from).collect();
        let expected = if kept == whole.len() { vec![] } else { vec![Some(kept)] };
        assert_eq!(asked, expected);
        assert_eq!(store.check(false).unwrap(), []);
        assert_eq!(store.partials().unwrap(), []);
    }
}

#[test]
fn a_damaged_or_longer_rest_is_thrown_away() {
    let content = content();
    let path = content.layer_path();
    let whole = content.paths[&path].body.clone();
    let zeros = vec![0; 70_000];
    let torn = [&whole[..60_000], &[0; 5000]].concat();
    let longer = [&whole[..], b"more"].concat();
    let wrong = vec![7; whole.len()];
    for ranges in [true, false] {
        for kept in [&zeros, &torn, &longer, &wrong] {
            let server = Server::start({
                let content = content.clone();
                move |r| if ranges { content.get(r).ranged(r) } else { content.get(r) }
            });
            let (_dir, store) = store();
            leave(&store, &content.layer, kept);
            pull(&store, &server.name(), &linux(), &NoProgress).unwrap();
            assert!(server.requests().iter().any(|r| r.path == path && r.from().is_none()), "from the start");
            assert_eq!(store.check(false).unwrap(), []);
            assert_eq!(store.partials().unwrap(), []);
        }
    }
}

#[test]
fn a_failed_download_is_kept_and_a_wrong_one_is_not() {
    let content = content();
    let path = content.layer_path();
    for (cut, kept) in [(Some(70_000), true), (None, false)] {
        let server = Server::start({
            let (content, path) = (content.clone(), path.clone());
            move |r| {
                let mut reply = content.get(r);
                if r.path == path {
                    reply.body[100_000] ^= 1;
                    reply.cut = cut;
                }
                reply
            }
        });
        let (_dir, store) = store();
        pull(&store, &server.name(), &linux(), &NoProgress).unwrap_err();
        assert_clean(&store);
        assert_eq!(!store.partials().unwrap().is_empty(), kept);
    }
}

#[test]
fn many_pulls_are_one_download() {
    let content = content();
    let path = content.layer_path();
    let server = Server::start({
        let (content, path) = (content.clone(), path.clone());
        move |r| {
            let stall = (r.path == path).then_some(Duration::from_millis(200));
            Reply { stall, ..content.get(r) }
        }
    });
    let (_dir, store) = store();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| pull(&store, &server.name(), &linux(), &NoProgress).unwrap());
        }
    });
    assert_eq!(server.count(&path), 1);
    assert_eq!(store.check(false).unwrap(), []);
}

#[test]
fn whoever_waits_takes_over() {
    let content = content();
    let path = content.layer_path();
    let whole = content.paths[&path].body.clone();
    let server = Server::start({
        let content = content.clone();
        move |r| content.get(r).ranged(r)
    });
    let (_dir, store) = store();
    let mut owner = store.try_partial(&content.layer.digest).unwrap().unwrap();
    owner.append(&whole[..30_000]).unwrap();
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| pull(&store, &server.name(), &linux(), &NoProgress).unwrap());
        // The waiting pull has fetched all it may when the manifests are there.
        while server.requests().iter().filter(|r| r.path.contains("/blobs/")).count() < 2 {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(server.count(&path), 0);
        owner.append(&whole[30_000..50_000]).unwrap();
        drop(owner);
        waiting.join().unwrap();
    });
    let asked: Vec<_> = server.requests().iter().filter(|r| r.path == path).map(Request::from).collect();
    assert_eq!(asked, [Some(50_000)]);
}

#[test]
fn artifacts_are_kept_as_they_are() {
    let (_dir, from) = store();
    let session = crate::store::session::Session::new(&from).unwrap();
    let config = session.put("application/vnd.example.config+json", b"{\"any\": 1}").unwrap();
    let layer = session.put("application/vnd.example.thing", b"a thing").unwrap();
    let document = serde_json::json!({
        "schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": "application/vnd.example",
        "config": config, "layers": [layer], "annotations": {"a": "b"}, "unknown": [1],
    });
    let top = session.put(media::MANIFEST, document.to_string().as_bytes()).unwrap();
    let mut paths = served(&from);
    paths.insert("/v2/app/manifests/1".into(), paths[&format!("/v2/app/manifests/{}", top.digest)].clone());
    let server = Server::start(move |r| paths.get(&r.path).cloned().unwrap_or_else(|| Reply::new(404)));
    let (_dir, store) = store();
    let pulled = pull(&store, &server.name(), &options(), &NoProgress).unwrap();
    assert_eq!(pulled.descriptor.digest, top.digest);
    for blob in [&config, &layer, &top] {
        assert_eq!(store.read_blob(blob).unwrap(), from.read_blob(blob).unwrap());
    }
    assert_eq!(store.variants(&pulled.descriptor).unwrap(), []);
    assert!(store.image(&pulled.descriptor, &Matcher::host()).is_err(), "it does not run");
    assert_eq!(store.check(false).unwrap(), []);
    assert!(store.remove_unreferenced().unwrap().blobs.is_empty());
}

#[test]
fn a_check_comes_before_everything_else() {
    let content = content();
    let server = Server::start(move |r| content.get(r));
    let refuse = Check(Arc::new(|name, top, bytes, remote| {
        assert_eq!(Digest::of(bytes), top.digest);
        assert!(remote.document("referrers/none")?.is_none());
        Err(Error::manifest(name, "is not signed"))
    }));
    let (_dir, store) = store();
    let options = PullOptions { check: Some(refuse), ..options() };
    let error = pull(&store, &server.name(), &options, &NoProgress).unwrap_err().to_string();
    assert!(error.contains("is not signed"), "{error}");
    assert!(!server.requests().iter().any(|r| r.path.contains("/blobs/")));
    assert_clean(&store);
}
