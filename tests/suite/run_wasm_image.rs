//! Wasm programs out of images: the file system is the image's, writes are the container's.

use serde_json::json;

use crate::support::{Host, Image, Layout, Tree, guest, native};

/// The probe at `/app/probe.wasm`, in either form, with some files around it.
fn image(name: &str) -> Image {
    Image::wasm()
        .layer(Tree::new().dir("app", 0o755).file("app/probe.wasm", 0o644, guest(name)))
        .layer(Tree::new().dir("etc", 0o755).file("etc/one", 0o644, "one\n").file("etc/two", 0o644, "two\n"))
        .layer(Tree::new().dir("etc", 0o755).whiteout("etc/two").file("etc/three", 0o644, "three\n"))
        .entrypoint(&["/app/probe.wasm"])
        .cmd(&["ls", "/etc"])
        .config("Env", json!(["FROM_IMAGE=yes", "K=image"]))
        .config("WorkingDir", json!("/app"))
}

fn hosts() -> impl Iterator<Item = (&'static str, Host)> {
    ["probe.wasm", "probe.component.wasm"]
        .into_iter()
        .map(|name| (name, Host::with(&[("probe:1", image(name))])))
}

#[test]
fn the_image_s_command_files_and_environment_hold() {
    for (name, host) in hosts() {
        assert_eq!(host.dhow(["run", "--rm", "probe:1"]).ok(), "one\nthree\n", "{name}");
        let args = ["read", "/etc/one", "exists", "/etc/two", "env", "FROM_IMAGE", "env", "K"];
        let run = host.dhow(["run", "--rm", "-e", "K=user", "probe:1"]).args(args);
        assert_eq!(run.ok(), "one\n/etc/two does not exist\nFROM_IMAGE=yes\nK=user\n", "{name}");
    }
}

#[test]
fn writes_are_the_container_s_own() {
    for (name, host) in hosts() {
        let args = [
            "append",
            "/etc/one",
            "more",
            "rm",
            "/etc/three",
            "write",
            "/new",
            "n",
            "read",
            "/etc/one",
            "ls",
            "/etc",
        ];
        assert_eq!(host.dhow(["run", "--rm", "probe:1"]).args(args).ok(), "one\nmore\none\n", "{name}");
        let after = ["read", "/etc/one", "ls", "/etc", "exists", "/new"];
        let run = host.dhow(["run", "--rm", "probe:1"]).args(after);
        assert_eq!(run.ok(), "one\none\nthree\n/new does not exist\n", "{name}");
    }
}

#[test]
fn one_index_holds_both_kinds() {
    let wasm = Image::wasm()
        .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
        .entrypoint(&["/hello.wasm"]);
    let linux =
        Image::native().layer(Tree::new().file("hello", 0o755, native("hello"))).entrypoint(&["/hello"]);
    for images in [[wasm.clone(), linux.clone()], [linux, wasm]] {
        let host = Host::with(&[("hello:1", Image::index(images))]);
        let platform = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
        assert_eq!(host.dhow(["run", "--rm", "hello:1", "a", "b", "c"]).ok(), "hello from Wasm: a b c\n");
        let run =
            host.dhow(["run", "--rm", "--platform", platform, "--network", "none", "hello:1", "a", "b", "c"]);
        assert_eq!(run.ok(), "hello from Linux: a b c\n");
        assert_eq!(
            host.dhow(["run", "--rm", "--platform", "wasi/wasm", "hello:1"]).ok(),
            "hello from Wasm\n"
        );
    }
}

#[test]
fn every_wasm_platform_name_is_understood() {
    for platform in ["wasi/wasm", "wasip1/wasm", "wasip2/wasm", "wasi/wasm32"] {
        let image = Image::new(platform)
            .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
            .entrypoint(&["/hello.wasm"]);
        let host = Host::with(&[("hello:1", image)]);
        assert_eq!(host.dhow(["run", "--rm", "hello:1"]).ok(), "hello from Wasm\n", "{platform}");
    }
}

#[test]
fn a_cncf_wasm_artifact_runs() {
    // The CNCF's "Wasm OCI artifact layout": the configuration names the world, the only layer is the program.
    for (os, name) in [("wasip1", "hello.wasm"), ("wasip2", "hello.component.wasm")] {
        let layout = Layout::new();
        let program = layout.blob("application/wasm", &guest(name));
        let config = json!({
            "created": "2024-01-02T03:04:05Z", "architecture": "wasm", "os": os,
            "layerDigests": [program["digest"]],
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": layout.json("application/vnd.wasm.config.v0+json", &config),
            "layers": [program],
        });
        layout.tag(&layout.json("application/vnd.oci.image.manifest.v1+json", &manifest), "artifact:1");
        let host = Host::new();
        layout.archive(&host.path("a.tar"));
        assert_eq!(host.dhow(["load", "-i", "a.tar"]).ok(), "Loaded image: artifact:1\n");
        assert_eq!(host.dhow(["run", "--rm", "artifact:1", "x"]).ok(), "hello from Wasm: x\n", "{os}");
    }
}

#[test]
fn entrypoint_and_user_options_apply() {
    let host = Host::with(&[("probe:1", image("probe.wasm"))]);
    let run = host.dhow(["run", "--rm", "--entrypoint", "/app/probe.wasm", "probe:1", "args", "x"]);
    assert_eq!(run.ok(), "x\n");
    assert_eq!(
        host.dhow(["run", "--rm", "--entrypoint", "/app/probe.wasm", "probe:1"]).ok(),
        "",
        "Cmd is dropped too"
    );
    host.dhow(["run", "--rm", "--entrypoint", "/app/nothing.wasm", "probe:1"])
        .refused(127, "/app/nothing.wasm");
}
