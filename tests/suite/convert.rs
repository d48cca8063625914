//! `image convert`: other forms of the same image, read by other tools; Wasm files as images.

use serde_json::{Value, json};

use crate::support::{Host, Image, Squeeze, Tree, busybox, guest, skopeo, tool};

fn field(host: &Host, name: &str, field: &str) -> String {
    host.dhow(["inspect", "--format", &format!("{{{{json .{field}}}}}"), name]).ok()
}

#[test]
fn the_same_image_packed_in_another_way() {
    let image = busybox().cmd(&["cat", "/hi"]).layer(Tree::new().file("hi", 0o644, "hi\n"));
    let host = Host::with(&[("gzip:1", image.squeeze(Squeeze::Gzip))]);
    let manifest = |name: &str| -> Value {
        host.dhow(["save", "--format", "docker-dir", "-o", "out", name]).ok();
        serde_json::from_slice(&fs_err::read(host.path("out/manifest.json")).unwrap()).unwrap()
    };
    for (kind, suffix) in [("zstd", "+zstd"), ("none", ""), ("gzip", "+gzip")] {
        let name = format!("{kind}:2");
        let id = host.dhow(["image", "convert", "--compression", kind, "gzip:1", &name]).ok();
        assert_eq!(id, host.dhow(["inspect", "--format", "{{.Id}}", &name]).ok());
        for same in ["RootFS", "ConfigDigest"] {
            assert_eq!(field(&host, &name, same), field(&host, "gzip:1", same));
        }
        let layer = &manifest(&name)["layers"][0]["mediaType"];
        assert_eq!(layer, &json!(format!("application/vnd.oci.image.layer.v1.tar{suffix}")));
        assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "hi\n");
        let again = host.dhow(["image", "convert", "--compression", kind, "gzip:1", "again:1"]).ok();
        assert_eq!(again, id, "the same bytes each time");
        // Another tool checks every digest on its way.
        let (from, to) = (format!("dir:{}", host.text("out")), format!("dir:{}", host.text("copy")));
        tool(&mut skopeo(["copy", &from, &to]));
    }
    host.dhow(["image", "convert", "--format", "docker", "gzip:1", "docker:1"]).ok();
    assert_eq!(manifest("docker:1")["mediaType"], "application/vnd.docker.distribution.manifest.v2+json");
    assert_eq!(host.dhow(["run", "--rm", "docker:1"]).ok(), "hi\n");
    host.dhow(["image", "convert", "--format", "docker", "zstd:2", "x:1"]).refused(1, "is zstd");
    host.dhow(["image", "convert", "--compression", "gzip", "--level", "10", "gzip:1", "x:1"])
        .refused(1, "invalid level 10");
    host.dhow(["image", "convert", "nosuch", "x:1"]).refused(1, "no such image: nosuch");
}

#[test]
fn a_wasm_file_as_an_image_and_as_an_artifact() {
    let host = Host::new();
    host.file("hello.wasm", guest("hello.wasm"));
    host.file("text.wasm", "(module)");
    host.dhow(["image", "convert", "hello.wasm", "hello:1"]).ok();
    host.dhow(["image", "convert", "--wasm-artifact", "./hello.wasm", "hello:artifact"]).ok();
    for name in ["hello:1", "hello:artifact"] {
        assert_eq!(host.dhow(["run", "--rm", name]).ok(), "hello from Wasm\n", "{name}");
    }
    let platforms = host.dhow(["images", "--format", "{{.Tag}} {{.Platforms}}"]).ok();
    assert!(platforms.contains("1 wasi/wasm") && platforms.contains("artifact wasip1/wasm"), "{platforms}");
    host.dhow(["image", "convert", "text.wasm", "x:1"]).refused(1, "is no Wasm module or component");
    host.dhow(["image", "convert", "missing.wasm", "x:1"]).rejected(1, "missing.wasm");
}

#[test]
fn every_variant_or_one() {
    let wasm = Image::wasm().layer(Tree::new().file("w", 0o644, "wasm"));
    let host = Host::with(&[("app:1", Image::index([busybox(), wasm]))]);
    host.dhow(["image", "convert", "--compression", "zstd", "app:1", "app:zstd"]).ok();
    host.dhow(["image", "convert", "--platform", "wasi/wasm", "app:1", "app:wasm"]).ok();
    let platforms = |name: &str| host.dhow(["images", "--format", "{{.Platforms}}", name]).ok();
    assert_eq!(platforms("app:zstd"), platforms("app:1"));
    assert_eq!(platforms("app:wasm"), "wasi/wasm\n");
}
