//! A corpus of Dockerfiles, built by this, by dockerd's own builder and by buildah from the same context: files, modes,
//! owners, contents, settings and history of the results are compared. What neither of them can build has an expectation
//! from the Dockerfile reference. `corpus.txt` has the Dockerfiles; docs/compat.md says which differences are meant.

use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Docker, Host, Podman, Tree, busybox, is_root, repository, tool};

/// A file beside this one.
fn text(name: &str) -> String {
    fs_err::read_to_string(repository().join("tests/suite/build").join(name)).unwrap()
}

/// The names that generated Dockerfiles begin with.
const TOOLS: [&str; 10] = [
    "rust:1.78.0-alpine",
    "alpine:3.18",
    "node:20.11.1-alpine",
    "node:20-alpine",
    "python:3.11-slim",
    "golang:1.22",
    "maven:3",
    "eclipse-temurin:17-jre",
    "debian:bookworm-slim",
    "nginx:alpine",
];

const IGNORE: &str = "ignored/*\n!ignored/back\n**/*.tmp\n# note\nDockerfile.*\n";

#[derive(Debug)]
struct Case {
    name: String,
    peers: Vec<String>,
    options: Vec<String>,
    dockerfile: String,
    /// A command, and what it must write.
    expected: Option<(String, String)>,
}

fn cases() -> Vec<Case> {
    let corpus = text("corpus.txt");
    let (_, first) = corpus.split_once("\n\n").unwrap();
    let parts = first.split("\n--- ").map(|part| part.strip_prefix("--- ").unwrap_or(part));
    let cases: Vec<Case> = parts
        .map(|part| {
            let (head, body) = part.split_once('\n').unwrap_or((part, ""));
            let mut head = head.split('|').map(str::trim);
            let name = head.next().unwrap().to_owned();
            let peers = head.next().unwrap().split_whitespace().map(str::to_owned).collect();
            let options = head.next().unwrap_or("").split_whitespace().map(str::to_owned).collect();
            let (dockerfile, expected) = body.split_once("??? ").map_or((body, None), |(a, b)| (a, Some(b)));
            let expected = expected.map(|text| {
                let (command, output) = text.split_once('\n').unwrap();
                (command.to_owned(), output.trim_end().to_owned())
            });
            Case {
                name,
                peers,
                options,
                dockerfile: format!("{}\n", dockerfile.trim_end_matches('\n')),
                expected,
            }
        })
        .collect();
    for case in &cases {
        let is_reference = case.peers == ["reference"];
        assert!(is_reference == case.expected.is_some() && !case.peers.is_empty(), "{case:?}");
    }
    cases
}

/// busybox with programs by the names of others.
fn tools() -> crate::support::Image {
    let script =
        |name: &str, text: &str| (format!("usr/local/bin/{name}"), format!("#!/bin/sh\nset -e\n{text}\n"));
    let mut tree = Tree::new();
    for (path, text) in [
        script("apk", "echo \"$@\" >> /etc/apk-world"),
        script("cargo", "mkdir -p target/release && cat src/c.c > target/release/${APP_NAME:-server}"),
        script(
            "npm",
            "case $1 in ci) mkdir node_modules; echo ok > node_modules/x;; run) mkdir dist; cp -r src dist/;; esac",
        ),
        script("pip", "mkdir -p /usr/lib/python && echo \"$@\" > /usr/lib/python/site"),
        script("go", "case $1 in build) echo bin > /docker-gs-ping;; esac"),
        script("mvn", "mkdir target && echo jar > target/app.jar"),
        script(
            "apt-get",
            "mkdir -p /var/lib/apt/lists /var/log && touch /var/lib/apt/lists/x && echo \"$@\" >> /var/log/apt",
        ),
    ] {
        tree = tree.file(&path, 0o755, text);
    }
    let passwd = "root:x:0:0:root:/root:/bin/sh\nnode:x:1000:1000::/home/node:/bin/sh\n";
    let tree = tree.file("etc/passwd", 0o644, passwd).file("etc/group", 0o644, "root:x:0:\nnode:x:1000:\n");
    busybox().layer(tree)
}

fn fill(host: &Host) -> String {
    for (path, content) in [
        ("a", "content of a\n"),
        ("b.txt", "b"),
        ("c.txt", "c"),
        ("with space", "s"),
        ("ünï", "u"),
        ("empty-file", ""),
        (".hidden", "h"),
        ("hidden-dir/.x", "x"),
        ("hidden-dir/y", "y"),
        ("fake.tar.gz", "no archive"),
        ("dir/c.c", "new"),
        ("dir/inner/deep", "deep"),
        ("dir/x.tmp", "left out"),
        ("d2/f", "f"),
        ("modes/run", "#!"),
        ("modes/secret", "s"),
        ("links/file", "f"),
        ("ignored/no", "n"),
        ("ignored/back", "y"),
        (".dockerignore", IGNORE),
    ] {
        host.file(&format!("c/{path}"), content);
    }
    host.file(&format!("c/long/{}/{}", "d".repeat(120), "f".repeat(200)), "long");
    host.file("secret", "hush-hush");
    let path = host.text("c");
    let script = "chmod 4755 modes/run; chmod 600 modes/secret; chmod 700 modes; ln -s file links/to-file; \
        ln -s /etc/passwd links/absolute; ln links/file links/hard; mkdir empty; umask 022; mkdir t; echo t > t/f; ln -s f t/l; chmod 640 t/f; \
        tar --owner=5 --group=6 -cf t.tar -C t f l; tar -czf t.tar.gz t; tar -cJf t.tar.xz t; tar -cjf t.tar.bz2 t; rm -r t";
    tool(Command::new("sh").args(["-c", script]).current_dir(&path));
    let gz = fs_err::File::open(host.path("c/t.tar.gz")).unwrap();
    let zst = zstd::encode_all(flate2::read::GzDecoder::new(gz), 3).unwrap();
    host.file("c/t.tar.zst", zst);
    path
}

/// The images that peers have built, as an archive; and what they could not.
type Built = (Option<String>, Vec<String>);

/// Does something with each, several at once: daemons and disks are waited for more than processors.
fn each<'c, T: Sync, R: Send>(all: &'c [T], work: impl Fn(&'c T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
            done.push(work(one));
        }
        done
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// What worked, and what did not.
fn parted(all: Vec<Result<String, String>>) -> (Vec<String>, Vec<String>) {
    let (made, wrong): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
    (made.into_iter().flatten().collect(), wrong.into_iter().filter_map(Result::err).collect())
}

fn dockers(host: &Host, cases: &[&Case], path: &str) -> Built {
    let Some(docker) = Docker::start_in(&host.path("docker")) else { return (None, Vec::new()) };
    tool(&mut docker.call(["load", "-i", &host.text("base.tar")]));
    for name in TOOLS {
        tool(&mut docker.call(["tag", "tools:1", name]));
    }
    let (made, wrong) = parted(each(cases, |case| {
        let image = format!("docker:{}", case.name);
        let file = host.text(&format!("c/Dockerfile.{}", case.name));
        let mut call = docker.call(["build", "-q", "--network", "none", "-t", &image, "-f", &file]);
        let call = call.args(&case.options).arg(path).env("DOCKER_BUILDKIT", "0").current_dir(path);
        let built = call.output().expect("docker");
        let why = || format!("{}: docker: {}", case.name, String::from_utf8_lossy(&built.stderr));
        built.status.success().then_some(image).ok_or_else(why)
    }));
    let archive = host.text("docker.tar");
    tool(docker.call(["save", "-o", &archive]).args(&made));
    (Some(archive), wrong)
}

fn buildahs(host: &Host, cases: &[&Case], path: &str) -> Built {
    let podman = Podman::new_in(&host.path("podman"));
    tool(&mut podman.call(["load", "-q", "-i", &host.text("base.tar")]));
    for name in TOOLS {
        tool(&mut podman.call(["tag", "docker.io/library/tools:1", &format!("docker.io/library/{name}")]));
    }
    let (made, wrong) = parted(each(cases, |case| {
        let image = format!("docker.io/library/buildah:{}", case.name);
        // It only knows names with a registry.
        let mut text = case.dockerfile.replace("FROM busybox:", "FROM docker.io/library/busybox:");
        text = text.replace("--from=busybox:1", "--from=docker.io/library/busybox:1");
        for name in TOOLS.iter().map(|name| name.split(':').next().unwrap()) {
            text = text.replace(&format!("FROM {name}:"), &format!("FROM docker.io/library/{name}:"));
        }
        text = text.replace("from busybox:", "from docker.io/library/busybox:");
        text = text.replace("FROM   busybox:", "FROM docker.io/library/busybox:");
        let file = host.file(&format!("buildah/{}", case.name), text);
        let ignore = format!("{path}/.dockerignore");
        let mut call = podman.buildah(["build", "-q", "--layers", "--pull-never", "--format", "docker"]);
        call.args(["--ignorefile", &ignore, "-t", &image, "-f", &file]);
        let built = call.args(&case.options).arg(path).current_dir(path).output().expect("buildah");
        let why = || format!("{}: buildah: {}", case.name, String::from_utf8_lossy(&built.stderr));
        built.status.success().then_some(image).ok_or_else(why)
    }));
    let archive = host.text("buildah.tar");
    tool(podman.call(["save", "-q", "--multi-image-archive", "-o", &archive]).args(&made));
    (Some(archive), wrong)
}

#[test]
fn as_others_build_them() {
    if !is_root() {
        return;
    }
    let cases = cases();
    let host = Host::in_memory();
    host.load(&[("busybox:1", busybox()), ("tools:1", tools())]);
    let path = fill(&host);
    for case in &cases {
        host.file(&format!("c/Dockerfile.{}", case.name), &case.dockerfile);
    }
    for name in TOOLS {
        host.dhow(["tag", "tools:1", name]).ok();
    }
    host.dhow(["save", "-o", "base.tar", "busybox:1", "tools:1"]).ok();
    let of = |peer: &str| -> Vec<&Case> {
        cases.iter().filter(|case| case.peers.iter().any(|one| one == peer)).collect()
    };
    let (docker, buildah, mut wrong) = std::thread::scope(|scope| {
        let docker = scope.spawn(|| dockers(&host, &of("docker"), &path));
        let buildah = scope.spawn(|| buildahs(&host, &of("buildah"), &path));
        let mut wrong = Vec::new();
        for case in &cases {
            let (image, file) = (format!("ours:{}", case.name), format!("c/Dockerfile.{}", case.name));
            let made = host.dhow(["build", "-q", "--network", "none", "-t", &image, "-f", &host.text(&file)]);
            let options = case.options.iter().map(|option| option.replace("../", ""));
            let made = made.args(options).args([&path]).outcome();
            if made.code != 0 {
                wrong.push(format!("{}: {}", case.name, made.stderr));
            } else if let Some((command, output)) = &case.expected {
                let shown = host.dhow(["run", "--rm", &image, "sh", "-c", command]).outcome();
                if shown.stdout.trim_end() != output {
                    wrong.push(format!("{}: wrote {shown:#?}", case.name));
                }
            }
        }
        (docker.join().unwrap(), buildah.join().unwrap(), wrong)
    });
    let mut pairs = Vec::new();
    for (peer, (archive, failed)) in [("docker", docker), ("buildah", buildah)] {
        wrong.extend(failed);
        if let Some(archive) = archive {
            host.dhow(["load", "-q", "-i", &archive]).ok();
            pairs.extend(of(peer).into_iter().map(|case| (peer, case)));
        }
    }
    let meant = differences();
    let compare = |(peer, case): &(&str, &Case)| -> Option<String> {
        let images = [format!("{peer}:{}", case.name), format!("ours:{}", case.name)];
        let outcome = host.dhow(["image", "diff"]).args(&images).outcome();
        let is_meant = |line: &str| {
            meant
                .iter()
                .any(|[who, which, what]| fits(who, peer) && fits(which, &case.name) && fits(what, line))
        };
        let lines: Vec<&str> = outcome.stdout.lines().filter(|line| !is_meant(line)).collect();
        if outcome.code == 2 || !lines.is_empty() {
            return Some(format!("{}: {peer}: {}\n{}", case.name, outcome.stderr, lines.join("\n")));
        }
        // dockerd makes a step of `--label`, and another of an environment that nobody has asked for.
        let told = !case.dockerfile.contains("scratch") && !case.options.contains(&"--label".to_owned());
        if !told {
            return None;
        }
        let [theirs, own] = images.each_ref().map(|image| history(&host, image));
        let mut lines: Vec<String> = Vec::new();
        if theirs.len() != own.len() {
            lines.push(format!("H {} steps became {}", theirs.len(), own.len()));
        }
        for (theirs, own) in theirs.iter().zip(&own) {
            let (one, two) = (theirs.told(), own.told());
            if one != two {
                lines.push(format!("H {one} -> {two}"));
            }
        }
        lines.retain(|line| !is_meant(line));
        (!lines.is_empty()).then(|| format!("{}: {peer}:\n{}", case.name, lines.join("\n")))
    };
    wrong.extend(each(&pairs, compare).into_iter().flatten());
    assert!(cases.len() >= 150, "{}", cases.len());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// A step as an image's history has it.
struct Past {
    created_by: String,
    empty: bool,
}

impl Past {
    /// Without what says only who wrote it down: dockerd writes `/bin/sh -c #(nop) COPY file:... in /x`, BuildKit and Dhow
    /// `COPY a /x`; and `RUN` is a word of the latter.
    fn told(&self) -> String {
        let text = self.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        let text = match text.split_once("#(nop) ") {
            Some((_, instruction)) => instruction.to_owned(),
            None => text,
        };
        let mut words = text.split(' ');
        let first = words.next().unwrap_or("");
        let known = first.len() > 2 && first.bytes().all(|byte| byte.is_ascii_uppercase());
        let text = match first {
            // Which files they were is in the layer.
            "COPY" | "ADD" => {
                let to = words.next_back().unwrap_or("").trim_end_matches('/');
                format!("{first} {}", to.rsplit('/').next().unwrap_or(""))
            }
            _ if known => text,
            _ => format!("RUN {text}"),
        };
        format!("{text}{}", if self.empty { " (empty)" } else { "" })
    }
}

/// An image's history, the first step first.
fn history(host: &Host, image: &str) -> Vec<Past> {
    let id = host.dhow(["image", "inspect", "-f", "{{.Id}}", image]).ok();
    let read = |digest: &str| -> serde_json::Value {
        let hex = digest.trim().trim_start_matches("sha256:");
        serde_json::from_slice(&fs_err::read(host.root().join("blobs/sha256").join(hex)).unwrap()).unwrap()
    };
    let mut document = read(&id);
    if let Some(config) = document["config"]["digest"].as_str().map(str::to_owned) {
        document = read(&config);
    }
    let entries = document["history"].as_array().cloned().unwrap_or_default();
    let past = |entry: &serde_json::Value| Past {
        created_by: entry["created_by"].as_str().unwrap_or("").to_owned(),
        empty: entry["empty_layer"].as_bool().unwrap_or(false),
    };
    entries.iter().map(past).collect()
}

/// A user without rights builds the same as root does: a part of the corpus, with every kind of step.
#[test]
fn as_root_builds_them() {
    const CHOSEN: [&str; 6] = ["run", "copy-chown", "workdir", "mount", "user", "add-tar"];
    let Some(user) = Host::unprivileged() else { return };
    if !is_root() {
        return;
    }
    let wanted = std::env::var("DHOW_TEST_CORPUS").unwrap_or_default();
    let is_chosen = |case: &Case| match wanted.as_str() {
        "all" => true,
        _ => CHOSEN.iter().any(|start| case.name.starts_with(start)),
    };
    let cases: Vec<Case> = cases().into_iter().filter(is_chosen).collect();
    let hosts = [&user, &Host::new()];
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let builders: Vec<_> = hosts
            .iter()
            .map(|host| {
                let cases = &cases;
                scope.spawn(move || {
                    host.load(&[("busybox:1", busybox()), ("tools:1", tools())]);
                    for name in TOOLS {
                        host.dhow(["tag", "tools:1", name]).ok();
                    }
                    let path = fill(host);
                    for case in cases {
                        host.file(&format!("c/Dockerfile.{}", case.name), &case.dockerfile);
                    }
                    host.file("secret", "hush-hush");
                    host.give(&path);
                    let mut wrong = Vec::new();
                    for case in cases {
                        let (image, file) =
                            (format!("made:{}", case.name), format!("c/Dockerfile.{}", case.name));
                        let made = host.dhow([
                            "build",
                            "-q",
                            "--network",
                            "none",
                            "-t",
                            &image,
                            "-f",
                            &host.text(&file),
                        ]);
                        let options = case.options.iter().map(|option| option.replace("../", ""));
                        let made = made.args(options).args([&path]).outcome();
                        if made.code != 0 {
                            wrong.push(format!("{}: {}", case.name, made.stderr));
                        }
                    }
                    wrong
                })
            })
            .collect();
        wrong = builders.into_iter().flat_map(|builder| builder.join().unwrap()).collect();
    });
    assert!(
        wrong.is_empty() && cases.len() > 30,
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    let [user, root] = hosts;
    for case in &cases {
        root.dhow(["tag", &format!("made:{}", case.name), &format!("root:{}", case.name)]).ok();
    }
    let names: Vec<String> = cases.iter().map(|case| format!("made:{}", case.name)).collect();
    user.dhow(["save", "-o", "made.tar"]).args(&names).ok();
    root.dhow(["load", "-q", "-i", &user.text("made.tar")]).ok();
    for case in &cases {
        let images = [format!("root:{}", case.name), format!("made:{}", case.name)];
        let outcome = root.dhow(["image", "diff"]).args(&images).outcome();
        let lines: Vec<&str> =
            outcome.stdout.lines().filter(|line| !line.starts_with("C setting created (")).collect();
        if outcome.code == 2 || !lines.is_empty() {
            wrong.push(format!("{}: {}\n{}", case.name, outcome.stderr, lines.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    user.check();
}

/// Differences that are meant: who, which case, which line.
fn differences() -> Vec<[String; 3]> {
    let text = text("differences.txt");
    let (_, rows) = text.split_once("\n\n").unwrap();
    let rows = rows.lines().filter(|line| !line.is_empty());
    rows.map(|row| {
        let parts: Vec<String> = row.splitn(3, " | ").map(str::to_owned).collect();
        parts.try_into().expect("three columns")
    })
    .collect()
}

fn fits(pattern: &str, text: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(end), None) => text.ends_with(end),
        (Some(_), Some(start)) => text.contains(start.trim_start_matches('*')),
        (None, Some(start)) => text.starts_with(start),
        (None, None) => text == pattern,
    }
}
