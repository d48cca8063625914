//! `build`: each instruction, the cache, mistakes, hostile contexts, and a builder that is killed.

mod corpus;
mod features;
mod hostile;
mod options;
mod results;
mod wasm_only;

use serde_json::Value;

use crate::support::{Host, guest, is_root, tool};

/// Writes a context, files given as `path` and content, and gives its folder.
fn context(host: &Host, name: &str, files: &[(&str, &str)]) -> String {
    fs_err::create_dir_all(host.path(name)).expect("folder");
    for (path, content) in files {
        host.file(&format!("{name}/{path}"), content);
    }
    host.text(name)
}

fn inspect(host: &Host, image: &str, format: &str) -> String {
    host.dhow(["image", "inspect", "-f", format, image]).ok().trim().to_owned()
}

#[test]
fn every_instruction() {
    let host = Host::with_busybox();
    let dockerfile = "ARG BASE=busybox\nFROM ${BASE}:1 AS first\nARG WHO=nobody\nENV A=1 B=\"two words\" C=${A:+set}\n\
        LABEL a=b \"c d\"=e\nWORKDIR /w/$A\nRUN echo $WHO $B > out && mkdir -m 700 own\nCOPY --chown=7:8 --chmod=640 a.txt dir/ ./\n\
        COPY <<EOF /here\nA is $A\nEOF\nUSER 5:6\nEXPOSE 80 90/udp\nVOLUME /data\nSTOPSIGNAL SIGINT\n\
        HEALTHCHECK --interval=5s CMD true\nSHELL [\"/bin/busybox\", \"sh\", \"-c\"]\nCMD echo hi\nONBUILD RUN true\nMAINTAINER me\n";
    let path = context(&host, "all", &[("Dockerfile", dockerfile), ("a.txt", "a"), ("dir/b.txt", "b")]);
    let out =
        host.dhow(["build", "-q", "-t", "made:1", "--build-arg", "WHO=me", "--label", "x=y", &path]).ok();
    assert!(out.starts_with("sha256:"), "{out}");
    let config: Value = serde_json::from_str(&inspect(&host, "made:1", "{{json .Config}}")).unwrap();
    for (field, expected) in [
        ("User", "\"5:6\""),
        ("WorkingDir", "\"/w/1\""),
        ("StopSignal", "\"SIGINT\""),
        ("Labels", "{\"a\":\"b\",\"c d\":\"e\",\"x\":\"y\"}"),
        ("ExposedPorts", "{\"80/tcp\":{},\"90/udp\":{}}"),
        ("Volumes", "{\"/data\":{}}"),
        ("Cmd", "[\"/bin/busybox\",\"sh\",\"-c\",\"echo hi\"]"),
        ("OnBuild", "[\"RUN true\"]"),
    ] {
        assert_eq!(config[field].to_string(), expected, "{field}: {config:#}");
    }
    let env = config["Env"].to_string();
    assert!(env.contains("\"A=1\",\"B=two words\",\"C=\""), "{env}");
    assert!(!env.contains("WHO"), "{env}");
    let shown = host
        .dhow([
            "run",
            "--rm",
            "-u",
            "0",
            "--entrypoint",
            "/bin/busybox",
            "made:1",
            "sh",
            "-c",
            "cat out /here; stat -c '%a %u:%g %n' a.txt b.txt own",
        ])
        .ok();
    assert_eq!(shown, "me two words\nA is 1\n640 7:8 a.txt\n640 7:8 b.txt\n700 0:0 own\n");
    let history = host.dhow(["history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1"]).ok();
    assert!(history.contains("RUN |1 WHO=me /bin/sh -c echo $WHO $B > out"), "{history}");
    assert!(history.contains("CMD [\"/bin/busybox\" \"sh\" \"-c\" \"echo hi\"]"), "{history}");
    host.has_no_container();
}

#[test]
fn stages_that_nobody_needs_are_not_built() {
    let host = Host::with_busybox();
    let dockerfile = "FROM busybox:1 AS no\nRUN exit 9\nFROM busybox:1 AS tools\nRUN echo tool > /tool\n\
        FROM scratch AS last\nCOPY --from=tools /tool /t\nCOPY --from=busybox:1 /bin/busybox /b\nFROM last\nCOPY --from=0 /etc /etc\n";
    let path = context(&host, "c", &[("Dockerfile", dockerfile)]);
    host.dhow(["build", "-q", "--target", "last", "-t", "x:1", "-o", "out", &path]).ok();
    assert_eq!(fs_err::read_to_string(host.path("out/t")).unwrap(), "tool\n");
    assert!(host.path("out/b").is_file());
    host.dhow(["build", "-q", &path]).fails(9);
    host.dhow(["build", "-q", "--target", "nothing", &path])
        .rejected(1, "failed to reach build target nothing");
}

#[test]
fn what_was_made_before_is_taken_again() {
    let host = Host::with_busybox();
    let dockerfile = "FROM busybox:1\nCOPY a /a\nRUN head -c 8 /dev/urandom | od -x > /random\nCOPY b /b\n";
    let one = context(&host, "one", &[("Dockerfile", dockerfile), ("a", "a"), ("b", "b")]);
    let build = |path: &str, more: &[&str]| {
        let outcome = host.dhow(["build", "--progress=plain"]).args(more).args([path]).fails(0);
        let made = outcome.stderr.lines().filter(|line| line.contains("Using cache")).count();
        let id = outcome
            .stderr
            .lines()
            .find_map(|line| line.strip_prefix("Successfully built "))
            .map(str::to_owned);
        (made, id.unwrap_or_else(|| panic!("{outcome:#?}")))
    };
    let layers = |id: &str| inspect(&host, id, "{{json .RootFS.Layers}}");
    let (cached, first) = build(&one, &[]);
    assert_eq!(cached, 0);
    // A clone of the same files, elsewhere and at another time.
    std::thread::sleep(std::time::Duration::from_millis(20));
    let two = context(&host, "two", &[("Dockerfile", dockerfile), ("a", "a"), ("b", "b")]);
    let (cached, second) = build(&two, &[]);
    assert_eq!((cached, layers(&second)), (3, layers(&first)));
    host.file("two/b", "changed");
    assert_eq!(build(&two, &[]).0, 2);
    host.file("two/a", "changed");
    assert_eq!(build(&two, &[]).0, 0);
    assert_eq!(build(&one, &["--no-cache"]).0, 0);
    assert_eq!(build(&one, &[]).0, 3);
    // Removing images leaves it, pruning does not.
    let pruned = host.dhow(["builder", "prune", "-f"]).ok();
    assert!(pruned.contains("Deleted build cache objects:"), "{pruned}");
    assert_eq!(build(&one, &[]).0, 0);
}

#[test]
fn a_wasm_file_and_an_index_of_both_kinds() {
    let host = Host::with_busybox();
    let path =
        context(&host, "w", &[("Dockerfile", "FROM scratch\nCOPY app.wasm /\nENTRYPOINT [\"/app.wasm\"]\n")]);
    host.file("w/app.wasm", guest("probe.wasm"));
    let platform = "{{.Os}}/{{.Architecture}}";
    host.dhow(["build", "-q", "-t", "app:1", &path]).ok();
    assert_eq!(inspect(&host, "app:1", platform), "wasi/wasm", "nothing in it is of any other");
    // What it asks for is known before it has run.
    let imports = inspect(&host, "app:1", "{{range .Wasm.Imports}}{{.Name}} {{.Grant}}\n{{end}}");
    assert!(imports.contains("wasi_snapshot_preview1.fd_write granted\n"), "{imports}");
    host.dhow(["build", "-q", "-t", "linux:1", "--platform", "linux/amd64", &path]).ok();
    assert_eq!(inspect(&host, "linux:1", platform), "linux/amd64");
    assert_eq!(inspect(&host, "linux:1", "{{.Wasm.Form}}"), "module");
    host.dhow(["build", "-q", "-t", "app:1", "--platform", "wasi/wasm", &path]).ok();
    assert_eq!(inspect(&host, "app:1", platform), "wasi/wasm");
    assert_eq!(host.dhow(["run", "--rm", "-e", "X=1", "app:1", "env", "X"]).ok(), "X=1\n");
    let both = "FROM scratch AS base-wasm\nCOPY app.wasm /app.wasm\nENTRYPOINT [\"/app.wasm\"]\n\
        FROM busybox:1 AS base-amd64\nENTRYPOINT [\"/bin/echo\", \"native\"]\nFROM base-$TARGETARCH\nLABEL both=yes\n";
    host.file("w/both", both);
    host.dhow([
        "build",
        "-q",
        "-t",
        "both:1",
        "-f",
        &host.text("w/both"),
        "--platform",
        "wasi/wasm,linux/amd64",
        &path,
    ])
    .ok();
    assert_eq!(host.dhow(["run", "--rm", "--platform", "linux/amd64", "both:1"]).ok(), "native\n");
    assert_eq!(host.dhow(["run", "--rm", "-e", "X=2", "both:1", "env", "X"]).ok(), "X=2\n");
    // A step of a Wasm stage runs by the Wasm executor.
    host.file(
        "w/step",
        "FROM scratch\nCOPY app.wasm /tool.wasm\nRUN [\"/tool.wasm\", \"write\", \"/made\", \"by wasm\"]\n",
    );
    host.dhow(["build", "-q", "-f", &host.text("w/step"), "--platform", "wasi/wasm", "-o", "made", &path])
        .ok();
    assert_eq!(fs_err::read_to_string(host.path("made/made")).unwrap(), "by wasm\n");
}

#[test]
fn mounts_of_a_step_leave_no_trace() {
    if !is_root() {
        return;
    }
    let host = Host::with_busybox();
    let dockerfile = "FROM busybox:1 AS src\nRUN mkdir /d && echo stage > /d/f\nFROM busybox:1\n\
        RUN --mount=type=cache,target=/c echo x >> /c/n && wc -l < /c/n > /count\n\
        RUN --mount=type=secret,id=s cat /run/secrets/s | wc -c > /length\n\
        RUN --mount=type=tmpfs,target=/m touch /m/f && ls /m > /listed\n\
        RUN --mount=target=/ctx,source=sub cat /ctx/file > /copied && ! touch /ctx/new\n\
        RUN --mount=from=src,source=/d,target=/st cat /st/f >> /copied\n";
    let path = context(&host, "m", &[("Dockerfile", dockerfile), ("sub/file", "context\n")]);
    let secret = host.file("secret", "hush-hush");
    let option = format!("id=s,src={secret}");
    for count in ["1\n", "2\n"] {
        host.dhow(["build", "-q", "--no-cache", "--secret", &option, "-t", "m:1", "-o", "out", &path]).ok();
        let read = |name: &str| fs_err::read_to_string(host.path("out").join(name)).unwrap();
        assert_eq!((read("count").as_str(), read("length").as_str()), (count, "9\n"));
        assert_eq!((read("listed").as_str(), read("copied").as_str()), ("f\n", "context\nstage\n"));
        for stub in ["c", "m", "ctx", "st", "run/secrets"] {
            assert!(!host.path("out").join(stub).exists(), "{stub}");
        }
        fs_err::remove_dir_all(host.path("out")).unwrap();
    }
    // Neither in the store nor in the cache.
    let found =
        std::process::Command::new("grep").args(["-r", "-l", "hush-hush"]).arg(host.root()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    let host = Host::with_busybox();
    for (dockerfile, code, message, line) in [
        ("FROM busybox:1\nRUNN x\n", 1, "unknown instruction: RUNN", "   2 | >>> RUNN x"),
        ("FROM busybox:1\n\nRUN exit 7\n", 7, "returned a non-zero code: 7", "   3 | >>> RUN exit 7"),
        ("FROM busybox:1\nCOPY none /x\n", 1, "file not found in build context", "   2 | >>> COPY none /x"),
        ("FROM busybox:1\nRUN [\"/none\"]\n", 1, "/none", "   2 | >>> RUN"),
        ("FROM busybox:1\nCOPY --from=later /a /b\n", 1, "later", "   2 | >>> COPY"),
        ("FROM busybox:1\nENV A=\"${B:?is needed}\"\n", 1, "B: is needed", "   2 | >>> ENV"),
        (
            "FROM busybox:1\nCOPY Dockerfile Dockerfile /x\n",
            1,
            "must be a directory and end with a /",
            "   2 | >>> COPY",
        ),
        ("FROM busybox:1\nCOPY Dockerfile /bin/sh/\n", 1, "cannot copy to", "   2 | >>> COPY"),
        (
            "FROM busybox:1\nRUN --mount=type=ssh,required true\n",
            1,
            "no agent was handed in",
            "   2 | >>> RUN",
        ),
        ("FROM busybox:1 AS a\nCOPY --from=a /x /y\n", 1, "circular dependency", "   2 | >>> COPY"),
        (
            "FROM busybox:1\nCOPY ../../etc/passwd /x\n",
            1,
            "file not found in build context",
            "   2 | >>> COPY",
        ),
        ("FROM busybox:1\nADD git@h:a.git#--exec /x\n", 1, "invalid git reference", "   2 | >>> ADD"),
        ("FROM busybox:1\nRUN --security=insecure true\n", 1, "not allowed", "   2 | >>> RUN"),
        ("FROM busybox:1\nSTOPSIGNAL SIGNONE\n", 1, "invalid signal", "   2 | >>> STOPSIGNAL"),
    ] {
        let path = context(&host, "bad", &[("Dockerfile", dockerfile)]);
        let outcome = host.dhow(["build", "--network=none", &path]).fails(code);
        assert!(outcome.stderr.contains(message), "{dockerfile}: {outcome:#?}");
        assert!(outcome.stderr.contains(line), "{dockerfile}: {outcome:#?}");
        assert_eq!(
            outcome.stderr.lines().filter(|line| line.starts_with("error: ")).count(),
            1,
            "{outcome:#?}"
        );
    }
    host.dhow(["build", "nowhere"]).refused(1, "path \"nowhere\" not found");
    fs_err::create_dir(host.path("empty")).unwrap();
    host.dhow(["build", "empty"]).refused(1, "failed to read dockerfile");
    for (option, message) in [
        ("--cache-from=type=gha", "a cache of type gha is not supported"),
        ("--cache-to=type=local", "dest is missing"),
        ("--cache-to=type=local,dest=x,mode=some", "invalid mode some"),
        ("--provenance=mode=some", "invalid mode some"),
        ("--sbom=maybe", "invalid value maybe"),
        ("--attest=type=other", "unknown type"),
        ("--ssh=default=/etc/passwd", "/etc/passwd cannot be used"),
        ("--secret=src=x", "secret without id"),
        ("--output=type=other", "invalid output type"),
    ] {
        let outcome = host.dhow(["build", option, "-"]).stdin("FROM scratch\n").outcome();
        assert!(outcome.code == 1 && outcome.stderr.contains(message), "{option}: {outcome:#?}");
    }
    host.file("lint/Dockerfile", "FROM busybox:1 as x\nCMD y\n");
    let found = host.dhow(["build", "--check", "lint"]).fails(1);
    assert!(
        found.stdout.contains("FromAsCasing") && found.stdout.contains("JSONArgsRecommended"),
        "{found:#?}"
    );
}

#[test]
fn dockerfiles_and_contexts_from_elsewhere() {
    let host = Host::with_busybox();
    host.dhow(["build", "-q", "-t", "in:1", "-"]).stdin("FROM busybox:1\nRUN echo 1 > /one\n").ok();
    assert_eq!(host.dhow(["run", "--rm", "in:1", "cat", "/one"]).ok(), "1\n");
    let path = context(&host, "tarred", &[("sub/Other", "FROM scratch\nCOPY f /\n"), ("f", "in tar")]);
    for pack in ["cf", "czf"] {
        let tar = tool(std::process::Command::new("tar").args([pack, &host.text("c.tar"), "-C", &path, "."]));
        assert_eq!(tar, "");
        let bytes = fs_err::read(host.path("c.tar")).unwrap();
        host.dhow(["build", "-q", "-f", "sub/Other", "-o", "out", "-"]).stdin(bytes).ok();
        assert_eq!(fs_err::read_to_string(host.path("out/f")).unwrap(), "in tar");
    }
    host.dhow(["build", "-q", "-f", "-", "-o", "out2", &path]).stdin("FROM scratch\nCOPY sub /s\n").ok();
    assert!(host.path("out2/s/Other").is_file());
    context(&host, "named", &[("g", "other context")]);
    let more = ["--build-context", "other=named", "--build-context", "base=docker-image://busybox:1"];
    host.dhow(["build", "-q", "-t", "n:1"])
        .args(more)
        .args(["-f", "-", &path])
        .stdin("FROM base\nCOPY --from=other g /\n")
        .ok();
    assert_eq!(host.dhow(["run", "--rm", "n:1", "cat", "/g"]).ok(), "other context");
    let ids = ["--iidfile", "iid", "--metadata-file", "meta"];
    let id = host.dhow(["build", "-q"]).args(ids).args(["-"]).stdin("FROM busybox:1\n").ok();
    assert_eq!(fs_err::read_to_string(host.path("iid")).unwrap(), id.trim());
    let meta: Value = serde_json::from_str(&fs_err::read_to_string(host.path("meta")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], id.trim());
}

#[test]
fn the_same_sources_give_the_same_image() {
    let dockerfile = "FROM busybox:1\nCOPY f /d/f\nRUN echo x > /x\nWORKDIR /made\n";
    let build = || {
        let host = Host::with_busybox();
        let path = context(&host, "r", &[("Dockerfile", dockerfile), ("f", "f")]);
        let id = host
            .dhow(["build", "-q", "--rewrite-timestamp", &path])
            .env("SOURCE_DATE_EPOCH", "1700000000")
            .ok();
        let created = inspect(&host, id.trim(), "{{.Created}}");
        (id, created)
    };
    let one = build();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(one, build());
    assert_eq!(one.1, "2023-11-14T22:13:20Z");
}
