//! Images between Dhow and the tools that others use: docker, podman, buildah, containerd, skopeo, umoci.
//!
//! Whoever writes an image into a registry, an archive or a layout, and whoever reads it: it is the same image, by
//! its configuration's digest everywhere and by its manifest's wherever the form has one. The tools have private
//! stores and daemons (`tests/support/made/peers.rs`), so this needs root.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::support::{
    Containerd, Docker, Host, Image, Layout, Options, Podman, Registry, Tree, busybox, digest_of, guest,
    is_root, odd, skopeo, tool, umoci,
};

/// Who writes or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Dhow,
    Docker,
    Podman,
    Buildah,
    Containerd,
    Skopeo,
    Umoci,
}

use Who::{Buildah, Containerd as Ctr, Dhow, Docker as Dockerd, Podman as Pod, Skopeo, Umoci};

/// How an image goes from one to the other. The text is its name in a registry, or its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Registry,
    DockerArchive,
    OciArchive,
    OciDir,
    /// What `dhow save` writes: both archives in one file.
    Combined,
}

/// Digests of what a form holds: of the manifest, where there is one, and of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Ids {
    manifest: Option<String>,
    config: String,
}

/// Everybody with the image in their store, under one name.
struct Everybody {
    host: Host,
    docker: Option<Docker>,
    podman: Podman,
    containerd: Containerd,
    registry: Registry,
    layout: Layout,
    name: String,
    ids: Ids,
    folder: tempfile::TempDir,
}

/// Without root there are no daemons of our own.
fn root() -> bool {
    if !is_root() {
        println!("skipped: the peers need root");
    }
    is_root()
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

impl Everybody {
    fn new(image: &Image) -> Self {
        let (registry, layout) = (Registry::start(), Layout::new());
        let manifest = text(&layout.image(image)["digest"]);
        let descriptor = layout.image(image);
        layout.tag(&descriptor, "it");
        let config = text(&json(&fs_err::read(layout.blob_path(&manifest)).unwrap())["config"]["digest"]);
        let name = registry.push("it:1", image);
        // podman takes only names in lower case.
        let prefix = format!("dhow-interop-{}", std::process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).rand_bytes(0).tempdir().unwrap();
        let ids = Ids { manifest: Some(manifest), config };
        let (docker, podman, containerd) = (Docker::start(), Podman::new(), Containerd::start());
        let host = Host::new();
        Self { host, docker, podman, containerd, registry, layout, name, ids, folder }
    }

    /// Whether this tool is here at all.
    fn has(&self, who: Who) -> bool {
        who != Dockerd || self.docker.is_some()
    }

    fn docker(&self, args: &[&str]) -> Command {
        self.docker.as_ref().expect("asked before").call(args)
    }

    /// Lets a tool fetch the original image.
    fn prepare(&self, who: Who) {
        match who {
            Dhow => drop(self.host.dhow(["pull", "-q", &self.name]).ok()),
            Dockerd => drop(tool(&mut self.docker(&["pull", "-q", &self.name]))),
            Pod | Buildah => drop(tool(&mut self.podman.call(["pull", "-q", &self.name]))),
            Ctr => drop(tool(&mut self.containerd.ctr(["images", "pull", "--plain-http", &self.name]))),
            Skopeo | Umoci => {}
        }
    }

    /// Lets a tool write the image and says where: a name or a path.
    fn give(&self, who: Who, form: Form) -> String {
        self.prepare(who);
        let (name, to) = (self.name.as_str(), format!("{who:?}-{form:?}").to_lowercase());
        let path = self.folder.path().join(&to).display().to_string();
        let pushed = self.registry.name(&format!("{to}:1"));
        let layout = format!("oci:{}:it", self.layout.path().display());
        let done = |mut command: Command| drop(tool(&mut command));
        match (who, form) {
            (Dhow, Form::Registry) => {
                self.host.dhow(["tag", name, &pushed]).ok();
                self.host.dhow(["push", "-q", &pushed]).ok();
            }
            (Dhow, Form::Combined) => drop(self.host.dhow(["save", "-o", &path, name]).ok()),
            (Dhow, _) => {
                let format = match form {
                    Form::DockerArchive => "docker-archive",
                    Form::OciArchive => "oci-archive",
                    _ => "oci-dir",
                };
                self.host.dhow(["save", "--format", format, "-o", &path, name]).ok();
            }
            (Dockerd, Form::Registry) => {
                done(self.docker(&["tag", name, &pushed]));
                done(self.docker(&["push", "-q", &pushed]));
            }
            (Dockerd, _) => done(self.docker(&["save", "-o", &path, name])),
            (Pod, Form::Registry) => done(self.podman.call(["push", "-q", name, &pushed])),
            (Pod, _) => {
                let format = match form {
                    Form::DockerArchive => "docker-archive",
                    Form::OciArchive => "oci-archive",
                    _ => "oci-dir",
                };
                done(self.podman.call(["save", "-q", "--format", format, "-o", &path, name]));
            }
            (Buildah, _) => done(self.podman.buildah(["push", "-q", name, &address(form, &path, &pushed)])),
            (Ctr, Form::Registry) => {
                done(self.containerd.ctr(["images", "push", "--plain-http", &pushed, name]));
            }
            (Ctr, _) => done(self.containerd.ctr(["images", "export", &path, name])),
            (Skopeo, _) => done(skopeo(["copy", &layout, &address(form, &path, &pushed)])),
            (Umoci, _) => {
                // It only changes layouts, so its image is another one.
                done(skopeo(["copy", &layout, &format!("oci:{path}:it")]));
                done(umoci(["config", "--image", &format!("{path}:it"), "--author", "umoci"]));
            }
        }
        if form == Form::Registry { pushed } else { path }
    }

    /// Lets a tool read the image into an empty store and says what it has then.
    fn take(&self, who: Who, form: Form, from: &str) -> Ids {
        self.forget(who);
        let source = address(form, from, from);
        match who {
            Dhow => {
                let host = Host::new();
                let call = if form == Form::Registry { ["pull", "-q", from] } else { ["load", "-i", from] };
                let outcome = host.dhow(call).outcome();
                assert_eq!(outcome.code, 0, "{outcome:#?}");
                let id = host.dhow(["images", "-q", "--no-trunc"]).ok().trim().to_owned();
                let blob = host.root().join("blobs").join(id.replace(':', "/"));
                Ids {
                    config: text(&json(&fs_err::read(blob).unwrap())["config"]["digest"]),
                    manifest: Some(id),
                }
            }
            Dockerd => {
                let call = if form == Form::Registry {
                    ["pull", "-q", from].to_vec()
                } else {
                    vec!["load", "-q", "-i", from]
                };
                tool(&mut self.docker(&call));
                let ids = tool(&mut self.docker(&["images", "-q", "--no-trunc"]));
                Ids { manifest: None, config: ids.trim().to_owned() }
            }
            Pod | Buildah => {
                let ids = if who == Pod {
                    tool(&mut self.podman.call(["pull", "-q", &source]));
                    tool(&mut self.podman.call(["images", "-q", "--no-trunc"]))
                } else {
                    tool(&mut self.podman.buildah(["pull", "-q", &source]));
                    tool(&mut self.podman.buildah(["images", "-q", "--no-trunc"]))
                };
                Ids { manifest: None, config: ids.trim().to_owned() }
            }
            Ctr => {
                if form == Form::Registry {
                    tool(&mut self.containerd.ctr(["images", "pull", "--plain-http", from]));
                } else {
                    tool(&mut self.containerd.ctr(["images", "import", from]));
                }
                let list = tool(&mut self.containerd.ctr(["images", "ls"]));
                let digest =
                    list.split_whitespace().find(|word| word.starts_with("sha256:")).unwrap().to_owned();
                let manifest = json(tool(&mut self.containerd.ctr(["content", "get", &digest])).as_bytes());
                Ids { config: text(&manifest["config"]["digest"]), manifest: Some(digest) }
            }
            Skopeo => {
                let to = tempfile::tempdir().unwrap();
                tool(&mut skopeo(["copy", &source, &format!("dir:{}", to.path().display())]));
                let manifest = fs_err::read(to.path().join("manifest.json")).unwrap();
                let config = text(&json(&manifest)["config"]["digest"]);
                // Of a docker archive it makes a manifest.
                Ids { manifest: Some(digest_of(&manifest)), config }
            }
            Umoci => {
                let to = tempfile::tempdir().unwrap();
                let (_, tag) = source.rsplit_once(':').unwrap();
                tool(umoci(["unpack", "--image", &format!("{from}:{tag}")]).arg(to.path().join("bundle")));
                held(form, from)
            }
        }
    }

    fn forget(&self, who: Who) {
        match who {
            Dockerd => {
                let ids = tool(&mut self.docker(&["images", "-q"]));
                self.docker(&["rmi", "-f"]).args(ids.split_whitespace()).output().unwrap();
            }
            Pod | Buildah => drop(tool(&mut self.podman.call(["rmi", "--all", "--force"]))),
            Ctr => {
                let names = tool(&mut self.containerd.ctr(["images", "ls", "-q"]));
                self.containerd
                    .ctr(["images", "rm", "--sync"])
                    .args(names.split_whitespace())
                    .output()
                    .unwrap();
            }
            Dhow | Skopeo | Umoci => {}
        }
    }

    /// Every giver to every taker, with Dhow on one side at least.
    fn exchange(&self, form: Form, givers: &[Who], takers: &[Who]) {
        for giver in givers.iter().copied().filter(|who| self.has(*who)) {
            let from = self.give(giver, form);
            let held = held(form, &from);
            if giver != Umoci {
                assert_eq!(held.config, self.ids.config, "{giver:?} writes another image, {form:?}");
            }
            let keeps = matches!(giver, Dhow | Ctr | Skopeo) && form != Form::DockerArchive;
            assert!(
                !keeps || held.manifest == self.ids.manifest,
                "{giver:?} writes another manifest, {form:?}"
            );
            for taker in takers.iter().copied().filter(|who| self.has(*who)) {
                if giver != Dhow && taker != Dhow {
                    continue;
                }
                let taken = self.take(taker, form, &from);
                assert_eq!(taken.config, held.config, "{giver:?} to {taker:?}, {form:?}");
                let both = held.manifest.is_some() && taken.manifest.is_some();
                assert!(
                    !both || taken.manifest == held.manifest,
                    "{giver:?} to {taker:?}, {form:?}: {taken:?} {held:?}"
                );
            }
        }
    }
}

/// What podman, buildah and skopeo call it.
fn address(form: Form, path: &str, name: &str) -> String {
    match form {
        Form::Registry => format!("docker://{name}"),
        Form::DockerArchive | Form::Combined => format!("docker-archive:{path}"),
        Form::OciArchive => format!("oci-archive:{path}"),
        Form::OciDir => {
            let index = Path::new(path).join("index.json");
            let tag = fs_err::read(index).map_or_else(
                |_| "it".to_owned(),
                |bytes| {
                    text(&json(&bytes)["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"])
                },
            );
            format!("oci:{path}:{tag}")
        }
    }
}

/// Reads the digests of a form without any of the tools, except that skopeo asks registries.
fn held(form: Form, from: &str) -> Ids {
    if form == Form::Registry {
        let manifest = tool(&mut skopeo(["inspect", "--raw", &format!("docker://{from}")]));
        return Ids {
            manifest: Some(digest_of(manifest.as_bytes())),
            config: text(&json(manifest.as_bytes())["config"]["digest"]),
        };
    }
    let unpacked = tempfile::tempdir().unwrap();
    let folder = if form == Form::OciDir {
        Path::new(from)
    } else {
        tool(Command::new("tar").args(["-xf", from, "-C"]).arg(unpacked.path()));
        unpacked.path()
    };
    if form == Form::DockerArchive {
        let list = json(&fs_err::read(folder.join("manifest.json")).unwrap());
        let config = fs_err::read(folder.join(text(&list[0]["Config"]))).unwrap();
        return Ids { manifest: None, config: digest_of(&config) };
    }
    let index = json(&fs_err::read(folder.join("index.json")).unwrap());
    let digest = text(&index["manifests"][0]["digest"]);
    let manifest = fs_err::read(folder.join("blobs").join(digest.replace(':', "/"))).unwrap();
    assert_eq!(digest_of(&manifest), digest);
    Ids { manifest: Some(digest), config: text(&json(&manifest)["config"]["digest"]) }
}

#[test]
fn through_a_registry() {
    if root() {
        let all = [Dhow, Dockerd, Pod, Buildah, Ctr, Skopeo];
        Everybody::new(&odd()).exchange(Form::Registry, &all, &all);
    }
}

#[test]
fn through_docker_archives() {
    if root() {
        let everybody = Everybody::new(&odd());
        let all = [Dhow, Dockerd, Pod, Buildah, Skopeo];
        everybody.exchange(Form::DockerArchive, &all, &all);
        // Two readers of the one file that see different halves of it.
        everybody.exchange(Form::Combined, &[Dhow], &[Dhow, Dockerd, Ctr]);
    }
}

#[test]
fn through_layouts() {
    if root() {
        let everybody = Everybody::new(&odd());
        let archives = [Dhow, Pod, Buildah, Ctr, Skopeo];
        everybody.exchange(Form::OciArchive, &archives, &archives);
        let folders = [Dhow, Pod, Buildah, Skopeo, Umoci];
        everybody.exchange(Form::OciDir, &folders, &folders);
    }
}

#[test]
fn an_index_with_wasm_stays_whole() {
    if !root() {
        return;
    }
    let image = Image::index([
        busybox(),
        Image::wasm()
            .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
            .entrypoint(&["/hello.wasm"]),
    ]);
    let registry = Registry::start();
    let name = registry.push("both:1", &image);
    let digest = |name: &str| {
        digest_of(tool(&mut skopeo(["inspect", "--raw", &format!("docker://{name}")])).as_bytes())
    };
    let original = digest(&name);

    let host = Host::new();
    host.dhow(["pull", "-q", "--all-platforms", &name]).ok();
    let pushed = registry.name("pushed:1");
    host.dhow(["tag", &name, &pushed]).ok();
    host.dhow(["push", "-q", &pushed]).ok();
    assert_eq!(digest(&pushed), original);

    let containerd = Containerd::start();
    tool(&mut containerd.ctr(["content", "fetch", "--plain-http", "--all-platforms", &pushed]));
    assert!(tool(&mut containerd.ctr(["images", "ls"])).contains(&original));
    let archive = host.text("both.tar");
    host.dhow(["save", "-o", &archive, &pushed]).ok();
    tool(&mut containerd.ctr(["images", "rm", "--sync", &pushed]));
    tool(&mut containerd.ctr(["images", "import", "--all-platforms", "--no-unpack", &archive]));
    assert!(tool(&mut containerd.ctr(["images", "ls"])).contains(&original));
    let exported = host.text("exported.tar");
    tool(&mut containerd.ctr(["images", "export", "--all-platforms", &exported, &pushed]));
    let other = Host::new();
    other.dhow(["load", "-q", "-i", &exported]).ok();
    assert_eq!(other.dhow(["images", "-q", "--no-trunc"]).ok().trim(), original);
    assert_eq!(other.dhow(["run", "--rm", &pushed]).ok(), "hello from Wasm\n");
}

#[test]
fn the_peers_of_these_tests_work() {
    if !root() {
        return;
    }
    let (user, password) = ("someone", "secret");
    let plain = Registry::start();
    let locked = Registry::with(Options { tls: true, login: Some((user, password)), ..Options::default() });
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox().layer(Tree::new().file("mark", 0o640, "it"))), "it");
    let source = format!("oci:{}:it", layout.path().display());
    let name = plain.name("peer:1");
    tool(&mut skopeo(["copy", &source, &format!("docker://{name}")]));
    let secret = locked.name("peer:1");
    let target = format!("docker://{secret}");
    tool(skopeo(["copy", &source]).args(["--dest-creds", &format!("{user}:{password}"), &target]));
    assert!(
        !skopeo(["inspect", &target]).output().unwrap().status.success(),
        "no answer without the password"
    );

    let bundle = layout.path().join("bundle");
    tool(umoci(["unpack", "--image", &format!("{}:it", layout.path().display())]).arg(&bundle));
    assert_eq!(fs_err::read_to_string(bundle.join("rootfs/mark")).unwrap(), "it");

    if let Some(docker) = Docker::start() {
        tool(&mut docker.call(["pull", "-q", &name]));
        assert_eq!(docker.layers(&name).len(), 2);
        let address = locked.address().to_string();
        tool(&mut docker.call(["login", "-u", user, "-p", password, &address]));
        tool(&mut docker.call(["pull", "-q", &secret]));
        assert_eq!(tool(&mut docker.call(["run", "--rm", "--network=none", &name, "cat", "/mark"])), "it");
    }
    let podman = Podman::new();
    tool(&mut podman.call(["pull", "-q", &name]));
    tool(&mut podman.call(["pull", "-q", "--creds", &format!("{user}:{password}"), &secret]));
    assert_eq!(tool(&mut podman.call(["run", "--rm", "--network=none", &name, "cat", "/mark"])), "it");
    assert!(tool(&mut podman.buildah(["images"])).contains("peer"));

    let containerd = Containerd::start();
    tool(&mut containerd.ctr(["images", "pull", "--plain-http", &name]));
    assert!(
        plain.served().iter().any(|(method, path, _)| method == "GET" && path.contains("/v2/peer/blobs/"))
    );
}
