//! `dhow push`, `manifest` and `search`: against a real registry, against one that counts bytes, and between Dhow and
//! the tools that others use.

use std::path::Path;
use std::process::Command;

use dhow_engine::images::{Descriptor, IndexBuilder, Reference, Store, compose};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{
    Containerd, Docker, Fault, Host, Image, Layout, Manner, Podman, Registry, Sink, Squeeze, Terminal, Tree,
    busybox, digest_of, guest, is_root, native, noise, skopeo, tool, umoci, until,
};

/// A native and a Wasm variant.
fn both() -> Image {
    Image::index([
        Image::native().layer(Tree::new().file("hello", 0o755, native("hello"))).entrypoint(&["/hello"]),
        Image::wasm()
            .layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))
            .entrypoint(&["/hello.wasm"]),
    ])
}

/// The digest of what a registry has under a name.
fn digest_at(name: &str) -> String {
    digest_of(&raw(name))
}

fn raw(name: &str) -> Vec<u8> {
    let output = skopeo(["inspect", "--raw", &format!("docker://{name}")]).output().expect("skopeo");
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn push_says_what_docker_says() {
    let (registry, other) = (Registry::start(), Registry::start());
    let name = registry.push("hello:1", &both());
    let host = Host::new();
    host.dhow(["pull", "-q", "--all-platforms", &name]).ok();
    let digest = digest_at(&name);
    let (copy, away) = (registry.name("team/copy:1"), other.name("hello:1"));
    for target in [&copy, &away] {
        host.dhow(["tag", &name, target]).ok();
    }
    let push = |name: &str| {
        let out = host.dhow(["push", name]).outcome();
        assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{out:#?}");
        let repository = name.rsplit_once(':').unwrap().0;
        let lines: Vec<String> = out.lines().into_iter().map(str::to_owned).collect();
        assert_eq!(lines[0], format!("The push refers to repository [{repository}]"));
        assert!(lines.last().unwrap().starts_with(&format!("1: digest: {digest} size: ")), "{lines:?}");
        lines
    };
    let count = |lines: &[String], what: &str| lines.iter().filter(|line| line.ends_with(what)).count();
    let first = push(&away);
    assert_eq!((count(&first, ": Preparing"), count(&first, ": Pushed")), (2, 2), "{first:?}");
    let again = push(&away);
    assert_eq!(count(&again, ": Layer already exists"), 2, "{again:?}");
    let mounted = push(&copy);
    assert_eq!(count(&mounted, ": Mounted from hello"), 2, "{mounted:?}");
    for name in [&copy, &away] {
        assert_eq!(digest_at(name), digest);
    }

    assert_eq!(host.dhow(["push", "-q", &away]).ok(), format!("{away}\n"));
    host.dhow(["tag", &name, &other.name("hello:2")]).ok();
    let all = host.dhow(["image", "push", "--all-tags", &other.name("hello")]).ok();
    assert!(
        all.contains(&format!("\n1: digest: {digest} ")) && all.contains(&format!("\n2: digest: {digest} "))
    );
    let one = host.dhow(["push", "--platform", "wasi/wasm", "--disable-content-trust=false", &away]).ok();
    assert!(!one.contains(&digest), "the variant and not the index: {one}");
    assert_eq!(host.dhow(["run", "--rm", &away]).ok(), "hello from Wasm\n", "the name here is as it was");

    let zstd = other.name("zstd:1");
    host.dhow(["tag", &name, &zstd]).ok();
    host.dhow(["push", "-q", "--compression", "zstd", &zstd]).ok();
    let clean = Host::new();
    clean.dhow(["pull", "-q", &zstd]).ok();
    assert_eq!(clean.dhow(["run", "--rm", &zstd]).ok(), "hello from Wasm\n");

    let default = host.dhow(["push", &other.name("nothing")]).fails(1);
    assert_eq!(default.stdout, "Using default tag: latest\n");
    default.is_refusal(&format!("An image does not exist locally with the tag: {}", other.name("nothing")));
    host.dhow(["push", "-a", &away]).rejected(1, "tag can't be used with --all-tags/-a");
    host.dhow(["push", &format!("{}@{digest}", other.name("hello"))])
        .refused(1, "cannot push a digest reference");
    host.dhow(["push", "127.0.0.1:1/hello:1"]).refused(1, "An image does not exist locally");
    host.dhow(["tag", &name, "127.0.0.1:1/hello:1"]).ok();
    host.dhow(["push", "-q", "127.0.0.1:1/hello:1"]).refused(1, "cannot reach registry 127.0.0.1:1");
}

#[test]
fn variants_that_are_not_here_are_named() {
    let (registry, other) = (Registry::start(), Registry::start());
    let name = registry.push("hello:1", &both());
    let host = Host::new();
    host.dhow(["pull", "-q", "--platform", "wasi/wasm", &name]).ok();
    let (copy, away) = (registry.name("copy:1"), other.name("hello:1"));
    for target in [&copy, &away] {
        host.dhow(["tag", &name, target]).ok();
    }
    host.dhow(["push", "-q", &copy]).ok();
    assert_eq!(digest_at(&copy), digest_at(&name), "the registry copied what is not here");
    let missing = host.dhow(["push", "-q", &away]).refused(1, "is not in the store");
    assert!(missing.stderr.contains("linux/") && missing.stderr.contains("--all-platforms"), "{missing:#?}");
    host.dhow(["push", "-q", "--platform", "wasi/wasm", &away]).ok();
}

#[test]
fn bars_on_a_terminal() {
    let (registry, other) = (Registry::start(), Registry::start());
    let name = registry.push("noise:1", &busybox().layer(Tree::new().file("noise", 0o644, noise(3_000_000))));
    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    host.dhow(["tag", &name, &other.name("noise:1")]).ok();
    let command = host.dhow(["push", &other.name("noise:1")]).into_command();
    let mut terminal = Terminal::start(&command, 24, 100);
    terminal.expect("The push refers to repository");
    terminal.expect(": Pushed");
    terminal.expect("1: digest: sha256:");
    assert_eq!(terminal.code(), 0);
}

/// Bytes of blobs that a registry was sent since it was asked last.
fn sent(sink: &Sink) -> usize {
    sink.asked().iter().filter(|asked| asked.target.contains("/blobs/uploads/")).map(|asked| asked.body).sum()
}

#[test]
fn a_push_that_was_killed_goes_on_where_it_stopped() {
    let registry = Registry::start();
    let noise = noise(3_000_000);
    let name = registry.push("noise:1", &busybox().layer(Tree::new().file("noise", 0o644, noise)));
    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    for manner in [Manner::default(), Manner { least: Some(1 << 20), relative: true, ..Manner::default() }] {
        let sink = Sink::start(manner);
        let target = sink.name("noise:1");
        host.dhow(["tag", &name, &target]).ok();
        // The layer is the only blob of more than a megabyte.
        sink.fault(|asked| {
            (asked.method == "PATCH" && asked.length > 2_000_000).then_some(Fault::Stall(2_000_000))
        });
        let push = host.dhow(["push", "-q", &target]).spawn();
        until("the stalled upload", || sink.is_stalled().then_some(()));
        push.signal(Signal::KILL);
        assert_eq!(push.outcome().code, -9);
        sink.release();
        sink.heal();
        let before = sent(&sink);
        assert!(before >= 2_000_000, "{before}");
        host.dhow(["push", "-q", &target]).ok();
        let after = sent(&sink);
        let manifest: Value = serde_json::from_slice(&raw(&name)).unwrap();
        let blobs = manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]);
        let whole = usize::try_from(blobs.map(|blob| blob["size"].as_u64().unwrap()).sum::<u64>()).unwrap();
        assert!(before + after >= whole && after <= whole - 2_000_000, "{before} and {after} of {whole}");
        let (_, manifest) = sink.manifest("noise:1").expect("the tag");
        assert_eq!(digest_of(&manifest), digest_at(&name));
        host.dhow(["push", "-q", &target]).ok();
        assert_eq!(sent(&sink), 0);
    }
}

#[test]
fn a_registry_of_docker_forgets_uploads_and_is_sent_them_again() {
    let (registry, other) = (Registry::start(), Registry::start());
    let name =
        registry.push("noise:1", &busybox().layer(Tree::new().file("noise", 0o644, noise(20_000_000))));
    let host = Host::new();
    host.dhow(["pull", "-q", &name]).ok();
    let target = other.name("noise:1");
    host.dhow(["tag", &name, &target]).ok();
    for pause in [20, 40, 60, 80] {
        let push = host.dhow(["push", "-q", &target]).spawn();
        std::thread::sleep(std::time::Duration::from_millis(pause));
        // It may be done already.
        rustix::process::kill_process(push.pid(), Signal::KILL).ok();
        push.outcome();
    }
    host.dhow(["push", "-q", &target]).ok();
    assert_eq!(digest_at(&target), digest_at(&name));
    let clean = Host::new();
    clean.dhow(["pull", "-q", &target]).ok();
}

/// Pushes an image with Docker's media types, which an OCI layout cannot hold.
fn push_docker(registry: &Registry, name: &str, image: &Image) -> String {
    let (oci, docker) = (registry.push(&format!("oci-{name}"), image), registry.name(name));
    let (from, to) = (format!("docker://{oci}"), format!("docker://{docker}"));
    tool(&mut skopeo(["copy", "--format", "v2s2", &from, &to]));
    docker
}

/// Every kind of image that tools make.
fn kinds() -> Vec<(&'static str, Image)> {
    let file = |text: &str| Tree::new().file("mark", 0o640, text);
    vec![
        ("oci", busybox().layer(file("oci"))),
        ("docker", busybox().layer(file("docker"))),
        ("plain", busybox().layer(file("plain")).squeeze(Squeeze::Plain)),
        ("zstd", busybox().layer(file("zstd")).squeeze(Squeeze::Zstd)),
        ("wasm", Image::wasm().layer(Tree::new().file("hello.wasm", 0o644, guest("hello.wasm")))),
        ("index", both()),
    ]
}

#[test]
fn what_is_pushed_is_read_by_other_tools_with_the_same_digest() {
    if !is_root() {
        println!("skipped: the peers need root");
        return;
    }
    let (registry, other) = (Registry::start(), Registry::start());
    let host = Host::new();
    let (docker, podman, containerd) = (Docker::start(), Podman::new(), Containerd::start());
    for (kind, image) in kinds() {
        let (name, copy) = (format!("{kind}:1"), other.name(&format!("{kind}:1")));
        let push = if kind == "docker" { push_docker } else { Registry::push };
        let name = push(&registry, &name, &image);
        host.dhow(["pull", "-q", "--all-platforms", &name]).ok();
        host.dhow(["tag", &name, &copy]).ok();
        host.dhow(["push", "-q", &copy]).ok();
        let digest = digest_at(&name);
        assert_eq!(raw(&copy), raw(&name), "{kind}");

        let repository = copy.strip_suffix(":1").unwrap();
        let runs = !matches!(kind, "wasm");
        // 20.10 knows no zstd.
        if let Some(docker) = docker.as_ref().filter(|_| runs && kind != "zstd") {
            tool(&mut docker.call(["pull", "-q", &copy]));
            let found = docker.inspect(&copy, "{{index .RepoDigests 0}}");
            assert_eq!(found, format!("{repository}@{digest}"), "{kind}");
        }
        if runs {
            tool(&mut podman.call(["pull", "-q", &copy]));
            let found = tool(&mut podman.call(["image", "inspect", "--format", "{{.RepoDigests}}", &copy]));
            assert!(found.contains(&format!("{repository}@{digest}")), "{kind}: {found}");
        }
        let platform = if kind == "wasm" { "wasi/wasm" } else { "linux" };
        let args = ["images", "pull", "--plain-http", "--platform", platform, &copy];
        let args = if kind == "wasm" {
            &["content", "fetch", "--plain-http", "--all-platforms", &copy][..]
        } else {
            &args
        };
        tool(&mut containerd.ctr(args));
        let found = tool(&mut containerd.ctr(["images", "ls"]));
        assert!(found.contains(&digest), "{kind}: {found}");

        let dir = tempfile::tempdir().unwrap();
        let layout = dir.path().join("layout");
        let target = format!("oci:{}:it", layout.display());
        if kind == "docker" {
            // An OCI layout holds no Docker manifests: skopeo would convert it.
            continue;
        }
        tool(skopeo(["copy", "--all"]).arg(format!("docker://{copy}")).arg(&target));
        assert!(fs_err::read_to_string(layout.join("index.json")).unwrap().contains(&digest), "{kind}");
        if matches!(kind, "oci" | "plain") {
            let bundle = dir.path().join("bundle");
            tool(umoci(["unpack", "--image", &format!("{}:it", layout.display())]).arg(&bundle));
            assert_eq!(fs_err::read_to_string(bundle.join("rootfs/mark")).unwrap(), kind);
        }
    }
}

#[test]
fn what_other_tools_made_is_pushed_as_it_is() {
    if !is_root() {
        println!("skipped: the peers need root");
        return;
    }
    let (registry, other) = (Registry::start(), Registry::start());
    let base = registry.push("base:1", &busybox().layer(Tree::new().file("mark", 0o640, "base")));
    let mut made = Vec::new();
    if let Some(docker) = Docker::start() {
        let name = registry.name("by-docker:1");
        tool(&mut docker.call(["pull", "-q", &base]));
        let id = tool(&mut docker.call(["create", &base, "true"]));
        tool(&mut docker.call(["commit", id.trim(), &name]));
        tool(&mut docker.call(["push", "-q", &name]));
        made.push(name);
    }
    let podman = Podman::new();
    let name = registry.name("by-podman:1");
    tool(&mut podman.call(["pull", "-q", &base]));
    let id = tool(&mut podman.buildah(["from", "--pull-never", &base]));
    tool(&mut podman.buildah(["config", "--env", "A=B", id.trim()]));
    tool(&mut podman.buildah(["commit", "-q", id.trim(), &name]));
    tool(&mut podman.call(["push", "-q", &name]));
    made.push(name);
    let containerd = Containerd::start();
    let name = registry.name("by-ctr:1");
    tool(&mut containerd.ctr(["images", "pull", "--plain-http", &base]));
    tool(&mut containerd.ctr(["images", "tag", &base, &name]));
    tool(&mut containerd.ctr(["images", "push", "--plain-http", &name]));
    made.push(name);
    let layout = Layout::new();
    layout.tag(&layout.image(&busybox()), "it");
    let image = format!("{}:it", layout.path().display());
    let dir = tempfile::tempdir().unwrap();
    let bundle = dir.path().join("bundle");
    tool(umoci(["unpack", "--image", &image]).arg(&bundle));
    fs_err::write(bundle.join("rootfs/more"), "umoci").unwrap();
    tool(umoci(["repack", "--image", &image]).arg(&bundle));
    let name = registry.name("by-umoci:1");
    tool(&mut skopeo(["copy", &format!("oci:{image}"), &format!("docker://{name}")]));
    made.push(name);

    let host = Host::new();
    for name in made {
        let copy = other.name(name.split_once('/').unwrap().1);
        host.dhow(["pull", "-q", &name]).ok();
        host.dhow(["tag", &name, &copy]).ok();
        host.dhow(["push", "-q", &copy]).ok();
        assert_eq!(raw(&copy), raw(&name), "{name}");
        tool(&mut skopeo([
            "copy",
            &format!("docker://{copy}"),
            &format!("dir:{}", dir.path().join("x").display()),
        ]));
    }
}

/// Docker's command without a daemon, on a folder of its own.
fn docker_manifest(folder: &Path, args: &[&str]) -> (i32, String) {
    let mut docker = Command::new("docker");
    docker.env("DOCKER_CONFIG", folder).env("DOCKER_CLI_EXPERIMENTAL", "enabled").arg("manifest").args(args);
    let output = docker.output().expect("docker (Debian package docker.io)");
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn manifest_lists_are_dockers() {
    let registry = Registry::start();
    let oci = |platform| registry.push(&format!("{platform}:1"), &Image::new(platform).layer(Tree::new()));
    let docker = push_docker(&registry, "docker:1", &busybox());
    let (arm, wasm) = (oci("linux/arm64"), oci("wasi/wasm"));
    let index = registry.push("index:1", &both());
    let (host, dir) = (Host::new(), tempfile::tempdir().unwrap());

    // The command of Debian's 20.10 takes no OCI manifests.
    let version = Command::new("docker").arg("--version").output().expect("docker runs").stdout;
    let oracle = !String::from_utf8_lossy(&version).contains("version 20.");
    if !oracle {
        println!("not compared: this docker knows no OCI manifests in lists");
    }
    // Pages for people change between versions of Docker; digests of what is pushed do not.
    let name = |who: &str| registry.name(&format!("{who}/list:1"));
    let steps: &[(i32, &[&str])] = &[
        (0, &["create", "--insecure", "LIST", &docker]),
        (1, &["create", "--insecure", "LIST", &arm]),
        (0, &["create", "--insecure", "--amend", "LIST", &arm]),
        (1, &["create", "--insecure", "OTHER", &index]),
        (1, &["create", "--insecure", "OTHER", "NONE"]),
        (0, &["annotate", "--variant", "v9", "--os-features", "a,b", "LIST", &arm]),
        (0, &["annotate", "--os-version", "1.2", "LIST", &docker]),
        (1, &["annotate", "--os", "nothing", "LIST", &docker]),
        (1, &["annotate", "--arch", "amd64", "LIST", "NONE"]),
        (0, &["inspect", "LIST"]),
        (0, &["inspect", "LIST", &arm]),
        (0, &["push", "--insecure", "LIST"]),
        (0, &["push", "--insecure", "--purge", "LIST"]),
        (1, &["push", "--insecure", "LIST"]),
        (1, &["rm", "LIST"]),
    ];
    for (code, step) in steps {
        let run = |who: &str| -> Vec<String> {
            let fill = |arg: &&str| match *arg {
                "LIST" => name(who),
                "OTHER" => registry.name("other:1"),
                "NONE" => registry.name("none:1"),
                other => other.to_owned(),
            };
            step.iter().map(fill).collect()
        };
        let ours = run("dhow");
        let ours = host.dhow(["manifest"].into_iter().chain(ours.iter().map(String::as_str))).outcome();
        assert_eq!(ours.code, *code, "{step:?}: {ours:#?}");
        if !oracle {
            continue;
        }
        let theirs = run("docker");
        let args: Vec<&str> = theirs.iter().map(String::as_str).collect();
        let (theirs, text) = docker_manifest(dir.path(), &args);
        assert_eq!(theirs, *code, "{step:?}");
        assert_eq!(ours.stdout, text.replace("/docker/list", "/dhow/list"), "{step:?}");
    }
    if oracle {
        assert_eq!(raw(&name("dhow")), raw(&name("docker")));
    }
    for shown in [&docker, &arm, &index, &name("dhow")].into_iter().filter(|_| oracle) {
        for more in [&[][..], &["-v"][..]] {
            let args: Vec<&str> = ["inspect", "--insecure"]
                .into_iter()
                .chain(more.iter().copied())
                .chain([shown.as_str()])
                .collect();
            let ours = host.dhow(["manifest"].into_iter().chain(args.iter().copied())).ok();
            let (_, theirs) = docker_manifest(dir.path(), &args);
            // The order of fields of a descriptor is another one in 20.10.
            assert_eq!(sorted(&ours), sorted(&theirs), "{args:?}");
            if more.is_empty() {
                assert_eq!(ours, theirs, "{args:?}");
            }
        }
    }

    // Wasm, which Docker does not know.
    let list = registry.name("mixed:1");
    host.dhow(["manifest", "create", &list, &docker, &wasm]).ok();
    host.dhow(["manifest", "annotate", "--os", "wasip1", &list, &wasm]).ok();
    let pushed = host.dhow(["manifest", "push", "--purge", &list]).ok();
    assert_eq!(pushed.lines().last().unwrap(), digest_at(&list));
    assert!(String::from_utf8(raw(&list)).unwrap().contains("wasip1"));
    host.dhow(["pull", "-q", "--all-platforms", &list]).ok();
    host.dhow(["manifest", "inspect", &registry.name("none:1")]).refused(1, "no such manifest");
    host.dhow(["manifest", "rm", &list]).refused(1, "No such manifest");
}

fn sorted(text: &str) -> Value {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    // Maps compare without order.
    value
}

/// Puts an index about `subject` into a host's store, with nothing in it but itself.
fn artifact(host: &Host, subject: &Descriptor, kind: &str) -> (Reference, Descriptor) {
    let store = Store::open(host.root()).expect("store");
    let blob = compose::wasm_artifact(&store, "wasip1", kind.as_bytes()).expect("artifact");
    let mut index = IndexBuilder::new();
    index.add(Descriptor { platform: None, ..blob }).artifact_type(kind).subject(subject.clone());
    let made = index.build(&store).expect("index");
    let name = Reference::parse(&format!("made:{}", made.digest.short())).expect("name");
    store.tag(&name, &made).expect("tag");
    (name, made)
}

#[test]
fn artifacts_about_an_image() {
    // docker-registry knows no referrers; the other one does.
    let registry = Registry::start();
    let sink = Sink::start(Manner { referrers: true, page: Some(1), ..Manner::default() });
    for repository in [registry.name("app"), sink.name("app")] {
        let host = Host::new();
        host.load(&[("app:1", both())]);
        let name = format!("{repository}:1");
        host.dhow(["tag", "app:1", &name]).ok();
        host.dhow(["push", "-q", &name]).ok();
        let found = |args: &[&str]| -> Value {
            let args = ["manifest", "inspect"].iter().chain(args).copied();
            serde_json::from_str(&host.dhow(args).ok()).unwrap()
        };
        assert_eq!(found(&["--referrers", &name])["manifests"], Value::Array(Vec::new()));
        let subject = Store::open(host.root()).unwrap().resolve(&name.parse().unwrap()).unwrap().unwrap();
        let mut digests = Vec::new();
        for kind in ["example/sbom", "example/signature", "example/signature.v2"] {
            let (made, descriptor) = artifact(&host, &subject, kind);
            let target = format!("{repository}:{}", descriptor.digest.short());
            host.dhow(["tag", &made.familiar(), &target]).ok();
            host.dhow(["push", "-q", &target]).ok();
            host.dhow(["push", "-q", &target]).ok();
            digests.push(descriptor.digest.to_string());
        }
        let all = found(&["--referrers", &name]);
        let mut seen: Vec<&str> =
            all["manifests"].as_array().unwrap().iter().map(|m| m["digest"].as_str().unwrap()).collect();
        seen.sort_unstable();
        let mut expected: Vec<&str> = digests.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        let one = found(&["--referrers=example/sbom", &name]);
        assert_eq!(one["manifests"].as_array().unwrap().len(), 1);
        assert_eq!(one["manifests"][0]["artifactType"], "example/sbom");
        host.dhow(["pull", "-q", &format!("{repository}@{}", digests[0])]).ok();
        assert_eq!(digest_at(&name), subject.digest.to_string());
    }
}

#[test]
fn search_of_a_hub_and_of_a_plain_registry() {
    let hub = Sink::start(Manner {
        search: Some(
            r#"{"num_results":3,"query":"deb","results":[
            {"name":"debian","description":"Debian is a Linux distribution that's composed\nentirely of free software","star_count":5000,"is_official":true,"is_automated":false},
            {"name":"me/deb","description":null,"star_count":3,"is_official":false,"is_automated":true},
            {"name":"evil","description":"\u001b[2J","star_count":0}]}"#
                .into(),
        ),
        ..Manner::default()
    });
    let host = Host::new();
    let (term, registry) = (hub.name("deb"), hub.name(""));
    let table = host.dhow(["search", &term]).ok();
    let lines: Vec<&str> = table.lines().collect();
    let titles: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(titles, ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]);
    assert!(
        lines[1].contains("Debian is a Linux distribution that's compos…")
            && lines[1].ends_with("5000      [OK]"),
        "{table}"
    );
    assert_eq!(lines.len(), 4);
    assert!(!table.contains('\u{1b}'), "{table:?}");
    let names = |args: &[&str]| {
        host.dhow(["search", "--format", "{{.Name}} {{.StarCount}}"].iter().chain(args).copied()).ok()
    };
    assert_eq!(
        names(&[&term, "--filter", "stars=3"]),
        format!("{registry}debian 5000\n{registry}me/deb 3\n")
    );
    assert_eq!(names(&[&term, "-f", "is-official=false", "-f", "stars=1"]), format!("{registry}me/deb 3\n"));
    assert_eq!(names(&[&term, "--limit", "1"]), format!("{registry}debian 5000\n"));
    assert!(host.dhow(["search", "--no-trunc", &term]).ok().contains("entirely of free software"));
    assert!(hub.asked().iter().any(|asked| asked.target == "/v1/search?q=deb&n=25"));
    host.dhow(["search", "--limit", "101", &term]).rejected(1, "outside the range of [1, 100]");
    host.dhow(["search", "--filter", "colour=red", &term]).rejected(1, "invalid filter 'colour'");
    host.dhow(["search", "--filter", "stars=x", &term]).rejected(1, "invalid filter 'stars=x'");

    let plain = Registry::start();
    for name in ["tools/debug:1", "tools/strace:1", "deb:1"] {
        plain.push(name, &busybox());
    }
    let found = names(&[&plain.name("deb")]);
    assert_eq!(found, format!("{} 0\n{} 0\n", plain.name("deb"), plain.name("tools/debug")));
    assert_eq!(names(&[&plain.name("")]).lines().count(), 3);
    assert_eq!(names(&[&plain.name("nothing")]), "");
}
