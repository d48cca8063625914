//! What a pull brings from an honest registry.

use super::*;

#[test]
fn an_honest_registry() {
    let content = content();
    let server = Server::start({
        let content = content.clone();
        move |r| content.get(r)
    });
    let (_dir, store) = store();
    let pulled = pull(&store, &server.name(), &options(), &NoProgress).unwrap();
    assert_eq!(pulled, Pulled { descriptor: content.top.clone(), already_present: false });
    assert_eq!(store.resolve(&server.name()).unwrap(), Some(content.top.clone()));
    assert!(store.variants(&content.top).unwrap().iter().all(|v| v.present || !cfg!(target_os = "linux")));
    let image = store.image(&content.top, &Matcher::host()).unwrap();
    assert!(image.platform.is_wasm());
    assert_eq!(store.check(false).unwrap(), []);

    let before = server.requests().len();
    assert!(pull(&store, &server.name(), &options(), &NoProgress).unwrap().already_present);
    assert_eq!(server.requests().len(), before + 2, "the greeting and the index");
    let pinned = server.name().at_digest(content.top.digest.clone());
    assert!(!pull(&store, &pinned, &options(), &NoProgress).unwrap().already_present);
}

#[test]
fn only_the_platform_that_was_asked_for() {
    let content = content();
    let server = Server::start(move |r| content.get(r));
    let (_dir, store) = store();
    let with = |platforms| PullOptions { platforms, ..options() };
    let wasm = with(Platforms::One(Platform::wasm()));
    let pulled = pull(&store, &server.name(), &wasm, &NoProgress).unwrap();
    let present: Vec<bool> = store.variants(&pulled.descriptor).unwrap().iter().map(|v| v.present).collect();
    assert_eq!(present, [false, true]);
    let native = Platform { os: "linux".into(), ..Platform::host() };
    let error = store.image(&pulled.descriptor, &Matcher::only(&native)).unwrap_err();
    assert!(matches!(error, Error::VariantAbsent { .. }), "{error}");
    let s390x = with(Platforms::One("linux/s390x".parse().unwrap()));
    let error = pull(&store, &server.name(), &s390x, &NoProgress).unwrap_err();
    assert!(matches!(error, Error::NoVariant { ref available, .. } if available.len() == 2), "{error}");
    assert!(!pull(&store, &server.name(), &with(Platforms::All), &NoProgress).unwrap().already_present);
    assert!(store.variants(&pulled.descriptor).unwrap().iter().all(|v| v.present));
}

/// Variants that share a layer, and an image that has the same layer twice.
#[test]
fn shared_and_repeated_layers() {
    let (_dir, from) = store();
    let host = Platform { os: "linux".into(), ..Platform::host() };
    let build = |platform: &Platform| {
        let layer = |name: &str| {
            let mut layer = LayerBuilder::new();
            layer.file(name, 0o644, name);
            layer
        };
        let mut image = ImageBuilder::new(platform);
        image.layer(layer("a")).layer(layer("b")).layer(layer("a"));
        image.build(&from).unwrap()
    };
    let (foreign, native) = (build(&"linux/s390x".parse().unwrap()), build(&host));
    let top = compose::index(&from, &[foreign, native]).unwrap();
    let mut paths = HashMap::from([("/v2/".to_owned(), Reply::new(200))]);
    for entry in fs_err::read_dir(from.root().join("blobs/sha256")).unwrap() {
        let entry = entry.unwrap();
        let bytes = fs_err::read(entry.path()).unwrap();
        let digest = format!("sha256:{}", entry.file_name().to_string_lossy());
        let kind = if digest == top.digest.to_string() { media::INDEX } else { media::MANIFEST };
        let reply = Reply::new(200).header("Content-Type", kind).body(bytes);
        paths.insert(format!("/v2/app/blobs/{digest}"), reply.clone());
        paths.insert(format!("/v2/app/manifests/{digest}"), reply);
    }
    paths.insert("/v2/app/manifests/1".into(), paths[&format!("/v2/app/manifests/{}", top.digest)].clone());
    let server = Server::start(move |r| paths.get(&r.path).cloned().unwrap_or_else(|| Reply::new(404)));
    let (_dir, store) = store();
    let all = PullOptions { platforms: Platforms::All, unpack: true, ..options() };
    pull(&store, &server.name(), &all, &NoProgress).unwrap();
    let image = store.image(&top, &Matcher::only(&host)).unwrap();
    if cfg!(target_os = "linux") {
        assert!(
            image.diff_ids.iter().all(|d| store.layer_path(d).is_dir()),
            "the host's variant is unpacked"
        );
    }
    let expect = |layers: &[crate::UnpackedLayer]| {
        let ids: Vec<_> = layers.iter().map(|l| l.diff_id.clone()).collect();
        assert_eq!(ids, image.diff_ids);
        assert_eq!(layers.len(), 3);
        assert_eq!(layers[0], layers[2]);
        for (layer, name) in layers.iter().zip(["a", "b", "a"]) {
            assert_eq!(fs_err::read_to_string(layer.path.join(name)).unwrap(), name);
        }
    };
    expect(&store.unpack(&image, &NoProgress).unwrap());
    // Some are there, one that is needed twice is not.
    crate::remove_tree(store.layer_path(&image.diff_ids[0]).parent().unwrap()).unwrap();
    expect(&store.unpack(&image, &NoProgress).unwrap());
    assert_eq!(store.check(false).unwrap(), []);
}

#[test]
fn pulls_and_sweeps_may_run_at_once() {
    let content = content();
    let server = Server::start(move |r| content.get(r));
    let (_dir, store) = store();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                store.untag(&server.name()).unwrap();
                store.remove_unreferenced().unwrap();
            }
        });
        let pullers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..5 {
                        pull(&store, &server.name(), &options(), &NoProgress).unwrap();
                    }
                })
            })
            .collect();
        let pulled: Vec<_> = pullers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::SeqCst);
        sweeper.join().unwrap();
        pulled.into_iter().for_each(Result::unwrap);
    });
    pull(&store, &server.name(), &options(), &NoProgress).unwrap();
    assert_eq!(store.check(false).unwrap(), []);
    store.untag(&server.name()).unwrap();
    store.remove_unreferenced().unwrap();
    assert_eq!(store.total_usage().unwrap(), crate::Usage::default());
}
