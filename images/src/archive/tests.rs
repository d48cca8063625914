//! Archives of every form, whole and broken.

use fs_err as fs;

use super::*;
use crate::Digest;
use crate::Matcher;
use crate::NoProgress;
use crate::Platform;
use crate::compose;
use crate::compose::ImageBuilder;
use crate::compose::LayerBuilder;
use crate::media;
use crate::store::tests::store;

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn build(store: &Store) -> Descriptor {
    let mut layer = LayerBuilder::new();
    layer.file("etc/motd", 0o644, "hello\n");
    let mut native = ImageBuilder::new(&"linux/amd64".parse::<Platform>().unwrap());
    native.layer(layer);
    let native = native.build(store).unwrap();
    let wasm = compose::wasm_artifact(store, "wasip1", b"\0asm\x01\0\0\0").unwrap();
    let image = compose::index(store, &[native, wasm]).unwrap();
    store.tag(&name("app:1"), &image).unwrap();
    image
}

fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = ::tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn tar_of_dir(dir: &Path) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    builder.append_dir_all(".", dir).unwrap();
    builder.into_inner().unwrap()
}

fn load_from(store: &Store, source: Source<'_>) -> Result<Vec<Loaded>> {
    load(store, source, &LoadOptions::default(), &NoProgress)
}

fn load_bytes(store: &Store, mut bytes: &[u8]) -> Result<Vec<Loaded>> {
    load_from(store, Source::Reader(&mut bytes))
}

#[test]
fn a_layout_comes_back_as_it_was() {
    let (dir, from) = store();
    let image = build(&from);
    let layout = dir.path().join("layout");
    save_layout(&from, &image, Some(&name("app:1")), &layout).unwrap();
    save_layout(&from, &image, Some(&name("app:1")), &layout).unwrap();
    save_layout(&from, &image, Some(&name("other/app")), &layout).unwrap();
    let plain = tar_of_dir(&layout);
    let file = dir.path().join("image.tar");
    fs::write(&file, &plain).unwrap();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    type Load<'a> = Box<dyn Fn(&Store) -> Result<Vec<Loaded>> + 'a>;
    let loads: Vec<Load<'_>> = vec![
        Box::new(|s| load_from(s, Source::Path(&layout))),
        Box::new(|s| load_from(s, Source::Path(&file))),
        Box::new(|s| load_bytes(s, &plain)),
        Box::new(|s| load_bytes(s, &gzip)),
        Box::new(|s| load_bytes(s, &zstd)),
    ];
    for load in loads {
        let (_dir, to) = store();
        let loaded = load(&to).unwrap();
        let names: Vec<_> = loaded.iter().map(|l| l.reference.as_ref().unwrap().familiar()).collect();
        assert_eq!(names, ["app:1", "other/app:latest"]);
        assert_eq!(to.find("app:1").unwrap().digest, image.digest);
        assert!(to.variants(&image).unwrap().iter().all(|v| v.present));
        assert_eq!(to.check(false).unwrap(), []);
    }
}

#[test]
fn docker_archives_get_a_manifest() {
    let mut layer = LayerBuilder::new();
    layer.file("etc/motd", 0o644, "hello\n");
    let plain = layer.to_tar().unwrap();
    let packed = zstd::encode_all(&plain[..], 1).unwrap();
    let diff_id = Digest::of(&plain);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Cmd":["/x"],"Volumes":null,"Env":null}},
        "rootfs":{{"type":"layers","diff_ids":["{diff_id}","{diff_id}"]}}}}"#
    );
    let manifest = |tags: &str| {
        format!(r#"[{{"Config":"c.json","RepoTags":{tags},"Layers":["a/layer.tar","b/layer.tar"]}}]"#)
    };
    let archive = |tags: &str, second: &[u8]| {
        tar_of(&[
            ("manifest.json", manifest(tags).as_bytes()),
            ("c.json", config.as_bytes()),
            ("a/layer.tar", &plain),
            ("b/layer.tar", second),
        ])
    };
    for second in [&plain, &packed] {
        let (_dir, store) = store();
        let loaded = load_bytes(&store, &archive(r#"["hello:1","localhost/x:2"]"#, second)).unwrap();
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded[0].descriptor.media_type, media::MANIFEST);
        let image = store.find("localhost/x:2").unwrap();
        let image = store.image(&image, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap();
        assert_eq!(image.config.config.cmd, ["/x"]);
        let layers = store.unpack(&image, &NoProgress).unwrap();
        assert_eq!(fs::read_to_string(layers[1].path.join("etc/motd")).unwrap(), "hello\n");
        assert_eq!(store.check(false).unwrap(), []);
    }
    let (_dir, store) = store();
    let loaded = load_bytes(&store, &archive("null", &plain)).unwrap();
    assert_eq!(loaded[0].reference, None);
    assert_eq!(store.untagged().unwrap(), [loaded[0].descriptor.clone()]);
    assert!(store.find(loaded[0].descriptor.digest.short()).is_ok());
    let error = load_bytes(&store, &archive("null", b"other content")).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    assert!(load_bytes(&store, &archive(r#"["Bad:Tag"]"#, &plain)).is_err());
}

#[cfg(target_os = "linux")]
#[test]
fn a_pipe_in_place_of_a_blob_is_refused() {
    let (dir, from) = store();
    let image = build(&from);
    let layout = dir.path().join("layout");
    save_layout(&from, &image, None, &layout).unwrap();
    let blob = layout.join("blobs/sha256").join(image.digest.hex());
    for replace in [
        (|path| rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap()) as fn(&Path),
        |path| fs::create_dir(path).unwrap(),
        |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()),
    ] {
        drop(fs::remove_file(&blob));
        replace(&blob);
        let (_dir, to) = store();
        // In a thread of its own, so that waiting for a writer is a failure and not a test without end.
        let (done, outcome) = std::sync::mpsc::channel();
        let layout = layout.clone();
        std::thread::spawn(move || done.send(load_from(&to, Source::Path(&layout))));
        let outcome = outcome.recv_timeout(std::time::Duration::from_secs(30)).expect("it hangs");
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("is not a regular file"), "{error}");
        drop(fs::remove_dir(&blob));
    }
}

#[test]
fn what_is_no_archive_says_so() {
    let index = |media_type: &str, digest: &Digest, size: usize| {
        format!(
            r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{media_type}","digest":"{digest}","size":{size}}}]}}"#
        )
    };
    let blob = b"{}";
    let absent = index(media::MANIFEST, &Digest::of(b"absent"), 6);
    let wrong = index(media::MANIFEST, &Digest::of(blob), 3);
    let path = format!("blobs/sha256/{}", Digest::of(blob).hex());
    let cyclic = index(media::INDEX, &Digest::of(b"absent"), 6);
    let other = index("text/plain", &Digest::of(blob), 2);
    let escape = br#"[{"Config":"../../etc/passwd","Layers":[]}]"#;
    let missing = br#"[{"Config":"c.json","Layers":["a"]}]"#;
    let absolute = br#"[{"Config":"c.json","Layers":["/etc/passwd"]}]"#;
    let one =
        (r#"{"rootfs":{"diff_ids":["#.to_owned() + &format!("\"{}\"", Digest::of(b"x")) + "]}}").into_bytes();
    let many = format!("[{}]", vec![r#"{"Config":"c"}"#; 1001].join(","));
    let twice = index(media::MANIFEST, &Digest::of(blob), 2);
    let looped = |archive: &mut ::tar::Builder<Vec<u8>>, from: &str, to: &str| {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(::tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, from, to).unwrap();
    };
    let mut links = ::tar::Builder::new(Vec::new());
    looped(&mut links, "manifest.json", "b");
    looped(&mut links, "b", "manifest.json");
    let mut outside = ::tar::Builder::new(Vec::new());
    looped(&mut outside, "manifest.json", "../../etc/passwd");
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("neither index.json", Vec::new()),
        ("neither index.json", tar_of(&[("x", b"y")])),
        ("not a tar archive", vec![b'x'; 2000]),
        ("truncated", tar_of(&[("index.json", b"{}")])[..300].to_vec()),
        ("ends within", tar_of(&[("index.json", &[b' '; 2000])])[..1024].to_vec()),
        ("not a valid index", tar_of(&[("index.json", b"[]")])),
        ("holds no image", tar_of(&[("index.json", br#"{"schemaVersion":2,"manifests":null}"#)])),
        ("holds no image", tar_of(&[("index.json", other.as_bytes())])),
        ("no variant", tar_of(&[("index.json", absent.as_bytes())])),
        ("is not in it", tar_of(&[("index.json", cyclic.as_bytes())])),
        ("bytes, not 3", tar_of(&[("index.json", wrong.as_bytes()), (&path, blob)])),
        ("not the path of a member", tar_of(&[("manifest.json", escape)])),
        ("is not in it", tar_of(&[("manifest.json", missing)])),
        ("not valid", tar_of(&[("manifest.json", b"{}")])),
        ("not the path of a member", tar_of(&[("manifest.json", absolute)])),
        ("1 diff ids for 0 layers", tar_of(&[("manifest.json", br#"[{"Config":"c"}]"#), ("c", &one)])),
        ("is not in it", tar_of(&[("manifest.json", br#"[{"Config":"c","Layers":["l"]}]"#), ("c", &one)])),
        (
            "digest",
            tar_of(&[("manifest.json", br#"[{"Config":"c","Layers":["l"]}]"#), ("c", &one), ("l", b"y")]),
        ),
        (
            "archive is truncated",
            tar_of(&[("manifest.json", br#"[{"Config":"c","Layers":["l"]}]"#), ("c", &one), ("l", b"x")]),
        ),
        ("more than 1000 images", tar_of(&[("manifest.json", many.as_bytes())])),
        ("larger than 4 MiB", tar_of(&[("manifest.json", &vec![b' '; 5 << 20])])),
        ("larger than 4 MiB", tar_of(&[("index.json", &vec![b' '; 5 << 20])])),
        ("manifest.json is in it twice", tar_of(&[("manifest.json", b"[]"), ("manifest.json", b"[]")])),
        (
            "index.json is in it twice",
            tar_of(&[("index.json", twice.as_bytes()), ("./index.json", twice.as_bytes())]),
        ),
        ("neither index.json", links.into_inner().unwrap()),
        ("neither index.json", outside.into_inner().unwrap()),
        ("name has .. in it", {
            let mut archive = tar_of(&[("xx/manifest.json", b"[]")]);
            archive[..2].copy_from_slice(b"..");
            let sum: u32 = archive[..512]
                .iter()
                .enumerate()
                .map(|(i, b)| if (148..156).contains(&i) { 32 } else { u32::from(*b) })
                .sum();
            archive[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
            archive
        }),
        ("older than 1.10", tar_of(&[("repositories", b"{}"), ("a/json", b"{}")])),
        ("unexpected end", vec![0x1f, 0x8b, 8, 0, 1, 2, 3]),
    ];
    for (expected, archive) in cases {
        let (_dir, store) = store();
        let error = load_bytes(&store, &archive).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
        assert_eq!(store.check(false).unwrap(), []);
        assert_eq!(store.references().unwrap(), []);
    }
    let (_dir, store) = store();
    assert!(load_from(&store, Source::Path(Path::new("/nonexistent"))).is_err());
}

#[test]
fn what_is_saved_is_loaded_with_the_same_digests() {
    let (dir, from) = store();
    let image = build(&from);
    let single = from.image(&image, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap().manifest;
    from.tag(&name("single"), &single).unwrap();
    let images = [
        Saved { image: image.clone(), names: vec![name("app:1"), name("localhost:5000/app:2")] },
        Saved { image: single.clone(), names: Vec::new() },
    ];
    let write = |file: &str, options: &SaveOptions| {
        let path = dir.path().join(file);
        save(&from, &images, options, &mut fs::File::create(&path).unwrap().into_parts().0).unwrap();
        path
    };
    let both = write("both.tar", &SaveOptions::default());
    assert_eq!(fs::read(&both).unwrap(), fs::read(write("again.tar", &SaveOptions::default())).unwrap());
    let oci = write("oci.tar", &SaveOptions { format: SaveFormat::Oci, platform: None });
    for path in [&both, &oci] {
        let (_dir, to) = store();
        load_from(&to, Source::Path(path)).unwrap();
        assert_eq!(to.find("app:1").unwrap().digest, image.digest);
        assert_eq!(to.find("localhost:5000/app:2").unwrap().digest, image.digest);
        assert_eq!(to.untagged().unwrap()[0].digest, single.digest);
        assert!(to.variants(&image).unwrap().iter().all(|v| v.present));
        assert_eq!(to.check(false).unwrap(), []);
    }
    // From a stream nothing is written twice: what the store has is passed over.
    let bytes = fs::read(&both).unwrap();
    let (_dir, to) = store();
    for _ in 0..2 {
        assert_eq!(load_bytes(&to, &bytes).unwrap().len(), 3);
    }
    assert_eq!(to.check(false).unwrap(), []);

    let docker = write("docker.tar", &SaveOptions { format: SaveFormat::Docker, platform: None });
    let (_dir, to) = store();
    let loaded = load_from(&to, Source::Path(&docker)).unwrap();
    assert_eq!(loaded[0].reference, Some(name("app:1")));
    let config = |store: &Store, image: &Descriptor| {
        store.image(image, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap().config_descriptor.digest
    };
    assert_eq!(config(&to, &loaded[0].descriptor), config(&from, &single));

    let wasm = SaveOptions { platform: Some("wasip1/wasm".parse().unwrap()), ..SaveOptions::default() };
    let error = save(&from, &images, &wasm, &mut tempfile::tempfile().unwrap()).unwrap_err();
    assert!(matches!(error, Error::NoVariant { .. }), "{error}");
    let path = dir.path().join("wasm.tar");
    save(&from, &images[..1], &wasm, &mut fs::File::create(&path).unwrap().into_parts().0).unwrap();
    let (_dir, to) = store();
    let loaded = load_from(&to, Source::Path(&path)).unwrap();
    assert_eq!(to.variants(&loaded[0].descriptor).unwrap()[0].platform.to_string(), "wasip1/wasm");
}

#[test]
fn one_variant_of_an_archive_can_be_loaded() {
    let (dir, from) = store();
    let image = build(&from);
    let path = dir.path().join("a.tar");
    let saved = [Saved { image: image.clone(), names: vec![name("app:1")] }];
    save(&from, &saved, &SaveOptions::default(), &mut fs::File::create(&path).unwrap().into_parts().0)
        .unwrap();
    let only =
        |platform: &str| LoadOptions { platform: Some(platform.parse().unwrap()), ..LoadOptions::default() };
    let (_dir, to) = store();
    load(&to, Source::Path(&path), &only("wasip1/wasm"), &NoProgress).unwrap();
    let present: Vec<bool> = to.variants(&image).unwrap().iter().map(|v| v.present).collect();
    assert_eq!(present, [false, true]);
    assert_eq!(to.check(false).unwrap(), []);
    let error = load(&to, Source::Path(&path), &only("linux/s390x"), &NoProgress).unwrap_err().to_string();
    assert_eq!(error, "no variant for linux/s390x (there are linux/amd64 and wasip1/wasm)");
    // What is saved of such an image is what is there, under the same digest.
    let half = dir.path().join("half.tar");
    save(&to, &saved, &SaveOptions::default(), &mut fs::File::create(&half).unwrap().into_parts().0).unwrap();
    let (_dir, again) = store();
    assert_eq!(load_from(&again, Source::Path(&half)).unwrap()[0].descriptor.digest, image.digest);
}

#[test]
fn a_damaged_blob_is_not_saved() {
    let (_dir, store) = store();
    let image = build(&store);
    let native = store.image(&image, &Matcher::only(&"linux/amd64".parse().unwrap())).unwrap();
    let path = store.blob_path(&native.layers[0].digest);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let saved = [Saved { image: image.clone(), names: Vec::new() }];
    for format in [SaveFormat::Combined, SaveFormat::Oci, SaveFormat::Docker] {
        let options = SaveOptions { format, platform: None };
        let error = save(&store, &saved, &options, &mut tempfile::tempfile().unwrap()).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
    }
    fs::remove_file(&path).unwrap();
    let error =
        save(&store, &saved, &SaveOptions::default(), &mut tempfile::tempfile().unwrap()).unwrap_err();
    assert!(matches!(error, Error::MissingBlob { .. }), "{error}");
}

#[test]
fn an_import_is_one_layer_and_must_be_whole() {
    let mut layer = LayerBuilder::new();
    layer.file("etc/motd", 0o644, "hello\n").symlink("motd", "etc/motd");
    let plain = layer.to_tar().unwrap();
    let options = ImportOptions {
        platform: Platform::host(),
        config: crate::RunConfig { cmd: vec!["/x".into()], ..crate::RunConfig::default() },
        created: Some("2024-01-02T03:04:05Z".into()),
        comment: "Imported from -".into(),
    };
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let bzip2 = {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        std::io::Write::write_all(&mut encoder, &plain).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&plain[..], 1).unwrap();
    let import_bytes = |store: &Store, mut bytes: &[u8]| import(store, Source::Reader(&mut bytes), &options);
    for (bytes, media_type) in [
        (&plain, media::LAYER),
        (&gzip, media::LAYER_GZIP),
        (&zstd, media::LAYER_ZSTD),
        (&bzip2, media::LAYER),
    ] {
        let (_dir, store) = store();
        let image = import_bytes(&store, bytes).unwrap();
        store.tag(&name("it"), &image).unwrap();
        let image = store.image(&image, &Matcher::host()).unwrap();
        assert_eq!(image.diff_ids, [Digest::of(&plain)]);
        assert_eq!(image.layers[0].media_type, media_type);
        // Gzip and zstd stay as they are.
        let kept = if *bytes == bzip2 { &plain } else { bytes };
        assert_eq!(image.layers[0].digest, Digest::of(kept));
        assert_eq!(image.config.config.cmd, ["/x"]);
        assert_eq!(image.config.history[0].comment.as_deref(), Some("Imported from -"));
        assert_eq!(store.check(false).unwrap(), []);
        // Cut anywhere: docker takes it, this does not.
        let end = bytes.len() - if *bytes == plain { 1024 } else { 1 };
        for cut in (0..=end).step_by(37) {
            assert!(
                import_bytes(&store, &bytes[..cut]).is_err(),
                "{media_type} cut at {cut} of {}",
                bytes.len()
            );
        }
    }
    let (_dir, store) = store();
    for (bytes, expected) in [
        (b"garbage".to_vec(), "truncated"),
        (vec![b'x'; 600], "not a tar archive"),
        (plain[..plain.len() - 1024].to_vec(), "has no end"),
        (Vec::new(), "has no end"),
        ([&plain[..], b"trailing"].concat(), "trailing garbage"),
        (tar_of(&[("a/.wh.", b"")]), "whiteout of nothing"),
    ] {
        let error = import_bytes(&store, &bytes).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
    assert_eq!(store.remove_unreferenced().map(|swept| swept.blobs.len()).ok(), Some(0));
    // A limit holds for what comes in a stream too.
    let store = store.with_quota(plain.len() as u64 - 1);
    let error = import_bytes(&store, &plain).unwrap_err();
    assert!(matches!(error, Error::QuotaExceeded { .. }), "{error}");
    assert_eq!(store.total_usage().unwrap().blobs, 0);
}
