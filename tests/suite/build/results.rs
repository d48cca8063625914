//! What becomes of a build: one layer, an artifact, compiled code, attestations, archives, notes for other programs.

use serde_json::Value;

use super::{context, inspect};
use crate::support::{Host, guest, tool};

#[test]
fn all_layers_as_one() {
    let host = Host::with_busybox();
    let dockerfile = "FROM base:1\nRUN mkdir -p /d/e && echo 1 > /d/a && ln /d/a /d/b && echo big > /gone\nRUN rm /gone /bin/ls; rm -r /d/e\n\
        RUN rm -r /p; mkdir /p && echo new > /p/only\nLABEL a=1\nRUN echo 2 >> /d/a; ln -s a /d/l\n";
    let path = context(&host, "c", &[("Dockerfile", dockerfile)]);
    let base = "FROM busybox:1\nRUN mkdir -p /p/q && echo old > /p/old && touch /p/q/r\n";
    host.dhow(["build", "-q", "-t", "base:1", "-"]).stdin(base).ok();
    host.dhow(["build", "-q", "-t", "many:1", &path]).ok();
    let one = host.dhow(["build", "-q", "-t", "one:1", "--squash", &path]).ok();
    assert_eq!(host.dhow(["build", "-q", "--squash", &path]).ok(), one);
    let base = inspect(&host, "base:1", "{{len .RootFS.Layers}}").parse::<usize>().unwrap();
    assert_eq!(inspect(&host, "one:1", "{{len .RootFS.Layers}}"), (base + 1).to_string());
    let outcome = host.dhow(["image", "diff", "many:1", "one:1"]).outcome();
    let files: Vec<&str> = outcome.stdout.lines().filter(|line| !line.contains(" setting ")).collect();
    assert!(outcome.code < 2 && files.is_empty(), "{outcome:#?}");
    assert_eq!(host.dhow(["run", "--rm", "one:1", "cat", "/d/b", "/d/l", "/p/only"]).ok(), "1\n1\n2\nnew\n");
    let history = host
        .dhow(["history", "--format", "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", "--no-trunc", "one:1"])
        .ok();
    assert!(history.lines().next().unwrap().contains("merge sha256:"), "{history}");
    assert!(history.contains("LABEL a=1|0B"), "{history}");
    // Nobody finds what was removed.
    let blob = host.dhow(["save", "-o", "one.tar", "one:1"]).ok();
    assert_eq!(blob, "");
}

/// As with Docker: a row for each name, and one without any for what lost its name to the next build.
#[test]
fn who_has_a_name_is_listed_by_it_alone() {
    let host = Host::with_busybox();
    let rows = |flags: &[&str]| {
        let listed = ["images", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"];
        host.dhow(listed).args(flags).ok().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let build = |args: &[&str], value: &str| {
        let built = host
            .dhow(["build", "-q"])
            .args(args)
            .args(["-"])
            .stdin(format!("FROM busybox:1\nLABEL a={value}\n"))
            .ok();
        built.trim().trim_start_matches("sha256:")[..12].to_owned()
    };
    let one = build(&["-t", "app:1", "-t", "app:2"], "one");
    assert_eq!(rows(&["app"]), [format!("app:1 {one}"), format!("app:2 {one}")]);
    assert_eq!(rows(&["-f", "dangling=true"]), [""; 0]);
    let two = build(&["-t", "app:1"], "two");
    assert_eq!(rows(&["app"]), [format!("app:1 {two}"), format!("app:2 {one}")]);
    assert_eq!(rows(&["-f", "dangling=true"]), [""; 0]);
    build(&["-t", "app:2"], "two");
    assert_eq!(rows(&["app"]), [format!("app:1 {two}"), format!("app:2 {two}")]);
    assert_eq!(rows(&["-f", "dangling=true"]), [format!("<none>:<none> {one}")]);
    // A name for it, and it has one.
    host.dhow(["tag", &one, "first:1"]).ok();
    assert_eq!(rows(&["-f", "dangling=true"]), [""; 0]);
    host.dhow(["rmi", "first:1"]).ok();
    let three = build(&[], "three");
    assert_eq!(rows(&["-f", "dangling=true"]), [format!("<none>:<none> {three}")]);
    assert!(host.dhow(["image", "prune", "-f"]).ok().contains("eleted"));
    assert_eq!(rows(&[]).len(), 3);
}

#[test]
fn an_artifact_of_wasm() {
    let host = Host::with_busybox();
    let path = context(
        &host,
        "c",
        &[("Dockerfile", "FROM scratch\nCOPY app.wasm /bin/\nENTRYPOINT [\"/bin/app.wasm\"]\n")],
    );
    host.file("c/app.wasm", guest("probe.wasm"));
    let build = ["build", "-q", "--platform", "wasi/wasm", "--wasm-artifact"];
    host.dhow(build).args(["-t", "art:1", &path]).ok();
    assert_eq!(host.dhow(["run", "--rm", "-e", "X=1", "art:1", "env", "X"]).ok(), "X=1\n");
    host.dhow(["save", "--format", "oci-archive", "-o", "art.tar", "art:1"]).ok();
    let listed = tool(
        std::process::Command::new("tar")
            .args(["xOf", &host.text("art.tar"), "--wildcards", "blobs/sha256/*"])
            .stdout(std::process::Stdio::piped()),
    );
    assert!(listed.contains("application/vnd.wasm.config.v0+json"), "no artifact");
    host.dhow(["build", "-q", "--wasm-artifact", "-"])
        .stdin("FROM busybox:1\n")
        .rejected(1, "no variant is for Wasm");
    let outcome = host.dhow(build).args(["-f", "-", &path]).stdin("FROM scratch\nCOPY app.wasm /\n").fails(1);
    assert!(outcome.stderr.contains("no ENTRYPOINT says"), "{outcome:#?}");
}

#[test]
fn compiled_when_built() {
    let host = Host::new();
    let path =
        context(&host, "c", &[("Dockerfile", "FROM scratch\nCOPY app.wasm /\nENTRYPOINT [\"app.wasm\"]\n")]);
    host.file("c/app.wasm", guest("probe.wasm"));
    let code = || {
        let groups = fs_err::read_dir(host.root().join("aot")).into_iter().flatten().flatten();
        groups.flat_map(|group| fs_err::read_dir(group.path()).into_iter().flatten().flatten()).count()
    };
    host.dhow(["build", "-q", "--platform", "wasi/wasm", "-t", "app:1", &path]).ok();
    assert_eq!(code(), 0);
    host.dhow(["build", "-q", "--platform", "wasi/wasm", "--precompile", "-t", "app:1", &path]).ok();
    let made = code();
    assert!(made > 0);
    assert_eq!(host.dhow(["run", "--rm", "-e", "X=1", "app:1", "env", "X"]).ok(), "X=1\n");
    assert_eq!(code(), made, "the first run has nothing to compile");
}

/// The documents of an OCI archive, by digest.
fn documents(host: &Host, archive: &str) -> Vec<Value> {
    let mut tar = tar::Archive::new(fs_err::File::open(host.path(archive)).unwrap());
    let mut found = Vec::new();
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        found.extend(serde_json::from_slice::<Value>(&bytes).ok());
    }
    found
}

#[test]
fn attestations() {
    let host = Host::with_busybox();
    let status = "Package: libx\nStatus: install ok installed\nVersion: 1.2-3\nArchitecture: amd64\n";
    let dockerfile = "FROM busybox:1\nARG A\nRUN --mount=type=secret,id=s true\nCOPY status /var/lib/dpkg/status\nCOPY app.wasm /app.wasm\n";
    let path = context(&host, "c", &[("Dockerfile", dockerfile), ("status", status)]);
    host.file("c/app.wasm", guest("probe.wasm"));
    let secret = host.file("secret", "hush-hush");
    let secret = format!("id=s,src={secret}");
    let options = ["--secret", &secret, "--build-arg", "A=value-of-a", "--sbom=true", "-t", "x:1"];
    let read = |mode: &str| {
        host.dhow(["build", "-q", mode]).args(options).args(["-o", "type=oci,dest=x.tar", &path]).ok();
        documents(&host, "x.tar")
    };
    let all = read("--provenance=mode=max");
    let index = all.iter().find(|one| one["manifests"][1]["annotations"].is_object()).expect("an index");
    let [image, attested] = [&index["manifests"][0], &index["manifests"][1]];
    assert_eq!(attested["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    assert_eq!(attested["annotations"]["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(attested["platform"]["os"], "unknown");
    let of = |all: &[Value], kind: &str| {
        all.iter().find(|one| one["predicateType"] == kind).cloned().expect("a statement")
    };
    let provenance = of(&all, "https://slsa.dev/provenance/v1");
    assert_eq!(provenance["_type"], "https://in-toto.io/Statement/v1");
    let digest = image["digest"].as_str().unwrap().trim_start_matches("sha256:");
    assert_eq!(provenance["subject"][0]["digest"]["sha256"], digest);
    let definition = &provenance["predicate"]["buildDefinition"];
    assert_eq!(definition["externalParameters"]["request"]["args"]["A"], "value-of-a");
    assert_eq!(definition["externalParameters"]["dockerfile"], dockerfile);
    assert_eq!(definition["externalParameters"]["request"]["secrets"][0], "s");
    let uri = definition["resolvedDependencies"][0]["uri"].as_str().unwrap();
    assert!(uri.starts_with("pkg:docker/busybox:1"), "{uri}");
    let bill = of(&all, "https://spdx.dev/Document")["predicate"].clone();
    assert_eq!(bill["spdxVersion"], "SPDX-2.3");
    let packages = bill["packages"].as_array().unwrap();
    assert!(packages.iter().any(|one| one["name"] == "libx" && one["versionInfo"] == "1.2-3"), "{bill:#}");
    assert!(packages.iter().any(|one| one["packageFileName"] == "/app.wasm"), "{bill:#}");
    let text = format!("{all:?}");
    assert!(!text.contains("hush-hush"));
    let all = read("--provenance=mode=min");
    assert!(!format!("{:?}", of(&all, "https://slsa.dev/provenance/v1")).contains("value-of-a"));
    // Others, and this, run it as if it were not there.
    assert_eq!(host.dhow(["run", "--rm", "x:1", "echo", "fine"]).ok(), "fine\n");
    let times = host
        .dhow(["build", "-q", "--provenance=true", "-"])
        .stdin("FROM busybox:1\n")
        .env("SOURCE_DATE_EPOCH", "1")
        .ok();
    std::thread::sleep(std::time::Duration::from_millis(20));
    let again = host
        .dhow(["build", "-q", "--provenance=true", "-"])
        .stdin("FROM busybox:1\n")
        .env("SOURCE_DATE_EPOCH", "1")
        .ok();
    assert_eq!(times, again);
}

#[test]
fn archives_names_and_notes() {
    let host = Host::with_busybox();
    let path = context(
        &host,
        "c",
        &[("Dockerfile", "FROM busybox:1\nCOPY f /f\nCMD [\"cat\", \"/f\"]\n"), ("f", "content\n")],
    );
    for kind in ["oci", "docker"] {
        let output = format!("type={kind},dest={kind}.tar");
        let notes = ["--iidfile", "iid", "--metadata-file", "meta"];
        let id = host
            .dhow(["build", "-q", "-t", "a:1", "-t", "b/c:2", "-o", &output])
            .args(notes)
            .args([&path])
            .ok();
        assert_eq!(fs_err::read_to_string(host.path("iid")).unwrap(), id.trim());
        let meta: Value = serde_json::from_str(&fs_err::read_to_string(host.path("meta")).unwrap()).unwrap();
        assert_eq!(meta["containerimage.digest"], id.trim());
        assert_eq!(meta["image.name"], "docker.io/library/a:1,docker.io/b/c:2");
        let other = Host::new();
        other.dhow(["load", "-q", "-i", &host.text(&format!("{kind}.tar"))]).ok();
        for name in ["a:1", "b/c:2"] {
            assert_eq!(other.dhow(["run", "--rm", name]).ok(), "content\n", "{kind} {name}");
        }
    }
    let output = tool(std::process::Command::new("tar").args(["tf", &host.text("oci.tar")]));
    assert!(output.contains("index.json") && output.contains("oci-layout"), "{output}");
    let bytes = host.dhow(["build", "-q", "-o", "-", &path]).outcome().stdout;
    assert!(bytes.contains("bin/busybox") && bytes.contains("content\n"));
}

#[test]
fn what_the_cache_takes() {
    let host = Host::with_busybox();
    let path = context(
        &host,
        "c",
        &[(
            "Dockerfile",
            "FROM busybox:1\nRUN echo x > /x\nRUN --mount=type=cache,target=/c head -c 70000 /dev/zero > /c/z\n",
        )],
    );
    let row = || {
        let out = host.dhow(["system", "df", "--format", "{{.Type}}|{{.TotalCount}}|{{.Size}}"]).ok();
        out.lines().find_map(|line| line.strip_prefix("Build Cache|")).unwrap().to_owned()
    };
    assert_eq!(row(), "0|0B");
    host.dhow(["build", "-q", &path]).ok();
    let before = row();
    assert!(before.ends_with("kB") && !before.starts_with('0'), "{before}");
    let listed = host.dhow(["system", "df", "-v", "--format", "{{json .BuildCache}}"]).ok();
    assert!(listed.contains("RUN echo x"), "{listed}");
    host.dhow(["builder", "prune", "-f"]).ok();
    assert!(row().starts_with("0|"), "{}", row());
    host.dhow(["builder", "prune", "-a", "-f"]).ok();
    assert_eq!(row(), "0|0B");
}

#[test]
fn steps_stay_where_they_fail() {
    let host = Host::with_busybox();
    for (dockerfile, code) in [
        ("FROM busybox:1\nRUN sh -c 'kill -9 $$'; exit $?\n", 137),
        ("FROM busybox:1\nRUN sh -c 'kill -TERM $$'; exit $?\n", 143),
        ("FROM busybox:1\nRUN [\"/bin/sh\", \"-c\", \"exit 125\"]\n", 125),
        ("FROM busybox:1\nRUN exit 255\n", 255),
    ] {
        let outcome = host.dhow(["build", "-t", "never:1", "-"]).stdin(dockerfile).outcome();
        assert_eq!(outcome.code, code, "{dockerfile}: {outcome:#?}");
        assert!(outcome.stderr.contains("   2 | >>> RUN"), "{outcome:#?}");
    }
    assert_eq!(host.dhow(["images", "-q", "never"]).ok(), "");
    // More than anybody writes by hand.
    let many = format!("FROM busybox:1\n{}", "ENV A=1\n".repeat(20_001));
    let outcome = host.dhow(["build", "-"]).stdin(many).fails(1);
    assert!(outcome.stderr.contains("more than 20000 instructions"), "{outcome:#?}");
    for word in ["ENV", "ARG"] {
        let pairs: Vec<String> = (0..20_000).map(|number| format!("A{number}=1")).collect();
        let wide = format!("FROM busybox:1\n{word} {}\n", pairs.join(" "));
        let outcome = host.dhow(["build", "-"]).stdin(wide).fails(1);
        assert!(outcome.stderr.contains("more than 10000 variables"), "{word}");
    }
    let long = format!("FROM busybox:1\n# {}\n", "x".repeat(5 << 20));
    let outcome = host.dhow(["build", "-"]).stdin(long).fails(1);
    assert!(outcome.stderr.contains("bytes"), "{outcome:#?}");
}

/// A program that counts at its initialisation what its function gives later.
#[test]
fn a_program_that_is_initialised_before() {
    let host = Host::new();
    let module = "(module (global $n (mut i32) (i32.const 1)) (memory (export \"memory\") 1)
        (func (export \"wizer-initialize\") (global.set $n (i32.const 42)) (i32.store (i32.const 8) (i32.const 7)))
        (func (export \"set\") (global.set $n (i32.const 43)))
        (func (export \"trap\") unreachable)
        (func (export \"get\") (result i32) (i32.add (global.get $n) (i32.load (i32.const 8)))))";
    let component = "(component (core module $m (global $n (mut i32) (i32.const 1))
            (func (export \"init\") (global.set $n (i32.const 42)))
            (func (export \"get\") (result i32) (global.get $n)))
        (core instance $i (instantiate $m))
        (func (export \"init\") (canon lift (core func $i \"init\")))
        (func (export \"get\") (result s32) (canon lift (core func $i \"get\"))))";
    host.file("c/m.wasm", wat::parse_str(module).unwrap());
    host.file("c/c.wasm", wat::parse_str(component).unwrap());
    host.file("c/Dockerfile", "ARG P\nFROM scratch\nARG P\nCOPY --chmod=640 --chown=5:6 $P /app.wasm\nENTRYPOINT [\"/app.wasm#get\"]\n");
    let path = host.text("c");
    let build = |program: &str, more: &[&str]| {
        let line = ["build", "--platform", "wasi/wasm", "-t", "made:1", "--build-arg"];
        host.dhow(line).args([&format!("P={program}")]).args(more).args([&path]).outcome()
    };
    for (program, more, printed) in [
        ("m.wasm", &[][..], "1\n"),
        ("m.wasm", &["--preinit"], "49\n"),
        ("m.wasm", &["--preinit=set"], "43\n"),
        ("m.wasm", &["--preinit", "--precompile", "--squash"], "49\n"),
        ("c.wasm", &["--preinit=init"], "42\n"),
    ] {
        let outcome = build(program, more);
        assert_eq!(outcome.code, 0, "{outcome:#?}");
        assert_eq!(host.dhow(["run", "--rm", "made:1"]).ok(), printed, "{program} {more:?}");
    }
    // It is a step as others: in the history, from the cache, with its file's owner and mode.
    assert!(host.dhow(["history", "--no-trunc", "made:1"]).ok().contains("PREINIT init /app.wasm"));
    let again = build("c.wasm", &["--preinit=init"]);
    assert!(again.stderr.matches("Using cache").count() == 2, "{again:#?}");
    host.dhow(["build", "-q", "--platform", "wasi/wasm", "--build-arg", "P=m.wasm", "--preinit"])
        .args(["-o", "type=tar,dest=out.tar", &path])
        .ok();
    let listed = std::process::Command::new("tar").args(["-tvf", &host.text("out.tar")]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("-rw-r-----") && listed.contains("5/6"), "{listed}");
    for (program, more, message) in [
        ("m.wasm", "--preinit=nothing", "it exports no such function, but wizer-initialize, set, trap, get"),
        ("m.wasm", "--preinit=get", "it takes or gives something"),
        ("m.wasm", "--preinit=trap", "its initialisation failed"),
        ("c.wasm", "--preinit", "it exports no such function, but init, get"),
        ("Dockerfile", "--preinit", "/app.wasm"),
    ] {
        let outcome = build(program, &[more]);
        assert!(outcome.code == 1 && outcome.stderr.contains(message), "{more}: {outcome:#?}");
    }
    let outcome = host
        .dhow(["build", "--platform", "linux/amd64", "--preinit", "--build-arg", "P=m.wasm"])
        .args([&path]);
    assert!(outcome.fails(1).stderr.contains("no variant is for Wasm"));
}
