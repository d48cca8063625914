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

fn load_bytes(store: &Store, mut bytes: &[u8]) -> Result<Vec<Loaded>> {
    load(store, Source::Reader(&mut bytes), &NoProgress)
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
        Box::new(|s| load(s, Source::Path(&layout), &NoProgress)),
        Box::new(|s| load(s, Source::Path(&file), &NoProgress)),
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
        std::thread::spawn(move || done.send(load(&to, Source::Path(&layout), &NoProgress)));
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
    assert!(load(&store, Source::Path(Path::new("/nonexistent")), &NoProgress).is_err());
}
