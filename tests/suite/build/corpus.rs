//! A corpus of Dockerfiles, built by this and by dockerd's own builder from the same contexts: files, modes, owners,
//! contents and settings of the results are compared.

use crate::support::{Docker, Host, is_root, tool};

/// A case: name, what follows `FROM busybox:1`, and options of both builders.
const CASES: &[(&str, &str, &[&str])] = &[
    ("nothing", "", &[]),
    ("env", "ENV A=1 B=$A C='x y' D=\"$HOME\"\nENV E old form $A\nENV A=2", &[]),
    ("expand", "ENV A=a E=\nENV B=${A:-x} C=${U:-x} D=${A:+y} F=${E:-z} G=\\$A H='$A' I=\"\\$A\"", &[]),
    ("label", "LABEL a=b c=\"d e\" \\\n  f='g'\nLABEL old form", &[]),
    ("arg", "ARG A=1\nARG B\nENV X=$A Y=$B Z=${C:-c}\nRUN echo $A $B > /out", &["--build-arg", "B=two"]),
    ("arg-hidden", "ARG A=1\nENV A=2\nRUN echo $A > /out", &["--build-arg", "A=3"]),
    ("workdir", "WORKDIR /a\nWORKDIR b\nWORKDIR ../c/./d/\nRUN pwd > out", &[]),
    ("workdir-var", "ENV D=/x/y\nWORKDIR $D/z", &[]),
    ("workdir-link", "RUN mkdir -p /real && ln -s real /l\nWORKDIR /l/in", &[]),
    ("user", "USER 5\nRUN id -u > /tmp/out || id -u\nUSER 5:6", &[]),
    ("cmd-shell", "CMD echo  hi   there", &[]),
    ("cmd-exec", "CMD [\"a\", \"b c\"]", &[]),
    ("entrypoint", "CMD x\nENTRYPOINT [\"e\"]", &[]),
    ("entrypoint-after", "ENTRYPOINT e f\nCMD [\"c\"]", &[]),
    ("shell", "SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo $0 > /out\nCMD x", &[]),
    ("expose", "ENV P=90\nEXPOSE 80 $P/udp 100-102", &[]),
    ("volume", "VOLUME /a /b\nVOLUME [\"/d\"]", &[]),
    ("stopsignal", "STOPSIGNAL SIGTERM", &[]),
    ("healthcheck", "HEALTHCHECK --interval=5m --timeout=3s --retries=4 CMD test -f /x", &[]),
    ("healthcheck-none", "HEALTHCHECK NONE", &[]),
    ("onbuild", "ONBUILD COPY a /a\nONBUILD RUN x", &[]),
    ("maintainer", "MAINTAINER Somebody <a@b>", &[]),
    ("copy-file", "COPY a /x", &[]),
    ("copy-file-dir", "COPY a /x/", &[]),
    ("copy-into", "RUN mkdir /x\nCOPY a /x", &[]),
    ("copy-relative", "WORKDIR /w\nCOPY a b\nCOPY a sub/\nCOPY a ./again", &[]),
    ("copy-dir", "COPY dir /x\nCOPY dir /y/", &[]),
    ("copy-dot", "COPY . /x/", &[]),
    ("copy-many", "COPY a b.txt /x/", &[]),
    ("copy-glob", "COPY *.txt /x/\nCOPY dir/?.c /y/", &[]),
    ("copy-glob-dirs", "COPY d* /x/", &[]),
    ("copy-json", "COPY [\"with space\", \"/x y/\"]", &[]),
    ("copy-chown", "COPY --chown=7:8 a dir /x/", &[]),
    ("copy-chown-one", "COPY --chown=9 a /x", &[]),
    ("copy-modes", "COPY modes /m/", &[]),
    ("copy-links", "COPY links /l/", &[]),
    ("copy-link", "COPY links/to-file /f", &[]),
    ("copy-over", "COPY a /x\nCOPY b.txt /x\nRUN rm /x\nCOPY a /x", &[]),
    ("copy-over-dir", "RUN mkdir -p /x/inner && echo old > /x/c.c && echo kept > /x/kept\nCOPY dir /x", &[]),
    ("copy-through", "RUN mkdir /real && ln -s real /l\nCOPY a /l/\nCOPY a /l/b", &[]),
    ("copy-var", "ENV D=/v\nARG F=a\nCOPY $F ${D}/", &[]),
    (
        "copy-stage",
        "RUN mkdir -p /o && echo x > /o/f && chown 3:4 /o/f && chmod 6711 /o/f\nFROM busybox:1\nCOPY --from=0 /o /p",
        &[],
    ),
    ("copy-root", "COPY dir /", &[]),
    ("add-file", "ADD a /x/", &[]),
    ("add-tar", "ADD t.tar /x/", &[]),
    ("add-tgz", "ADD t.tar.gz /x", &[]),
    ("copy-tar", "COPY t.tar /x/", &[]),
    ("ignored", "COPY ignored /x/\nCOPY . /all/", &[]),
    ("run-exec", "RUN [\"/bin/busybox\", \"touch\", \"/x\"]", &[]),
    ("run-lines", "RUN echo a > /x && \\\n  # note\n  echo b >> /x", &[]),
    (
        "run-remove",
        "RUN mkdir /gone && touch /gone/f\nRUN rm -r /gone && mkdir /gone && echo new > /gone/g",
        &[],
    ),
    ("run-links", "RUN echo a > /a1 && ln /a1 /a2 && ln -s a1 /a3 && mkfifo /p", &[]),
    ("run-modes", "RUN mkdir -m 1777 /t && touch /t/s && chmod 4755 /t/s && chown 1:2 /t/s", &[]),
    ("run-args", "ARG A=x\nRUN echo \"$A\" 'single' \"$PATH\" > /out", &[]),
    ("scratch", "FROM scratch\nCOPY a /\nCMD [\"/a\"]", &[]),
    (
        "target",
        "AS one\nRUN echo 1 > /1\nFROM one AS two\nRUN echo 2 > /2\nFROM busybox:1\nRUN false",
        &["--target", "two"],
    ),
    ("labels", "LABEL a=1", &["--label", "b=2", "--label", "a=3"]),
    ("add-host", "RUN grep -c marker /etc/hosts > /out", &["--add-host", "marker:10.9.8.7"]),
    ("escape-in-word", "ENV A=a\\ b\nLABEL c=\"d\\\"e\"", &[]),
];

const IGNORE: &str = "ignored/*\n!ignored/back\n**/*.tmp\n# note\nDockerfile.*\n";

fn fill(host: &Host) -> String {
    for (path, content) in [
        ("a", "content of a\n"),
        ("b.txt", "b"),
        ("c.txt", "c"),
        ("with space", "s"),
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
    let path = host.text("c");
    let script = "chmod 4755 modes/run; chmod 600 modes/secret; chmod 700 modes; ln -s file links/to-file; \
        ln -s /etc/passwd links/absolute; ln links/file links/hard; mkdir empty; umask 022; mkdir t; echo t > t/f; ln -s f t/l; chmod 640 t/f; \
        tar --owner=5 --group=6 -cf t.tar -C t f l; tar -czf t.tar.gz t; rm -r t";
    tool(std::process::Command::new("sh").args(["-c", script]).current_dir(&path));
    path
}

#[test]
fn as_docker_builds_them() {
    if !is_root() {
        return;
    }
    let Some(docker) = Docker::start() else { return };
    let host = Host::with_busybox();
    let path = fill(&host);
    host.dhow(["save", "-o", "base.tar", "busybox:1"]).ok();
    tool(&mut docker.call(["load", "-i", &host.text("base.tar")]));
    let (mut theirs, mut wrong) = (Vec::new(), Vec::new());
    for (name, dockerfile, options) in CASES {
        let text = if dockerfile.starts_with("AS ") {
            format!("FROM busybox:1 {dockerfile}\n")
        } else {
            format!("FROM busybox:1\n{dockerfile}\n")
        };
        let file = host.file(&format!("c/Dockerfile.{name}"), text);
        let image = format!("theirs:{name}");
        let mut call = docker.call(["build", "-q", "--network", "none", "-t", &image, "-f", &file]);
        let built = call.args(*options).arg(&path).env("DOCKER_BUILDKIT", "0").output().expect("docker");
        let ours = format!("ours:{name}");
        let made = host.dhow(["build", "-q", "--network", "none", "-t", &ours, "-f", &file]);
        let made = made.args(*options).args([&path]).outcome();
        if built.status.success() && made.code == 0 {
            theirs.push(image);
        } else {
            wrong.push(format!("{name}: {made:#?} {}", String::from_utf8_lossy(&built.stderr)));
        }
    }
    let archive = host.text("theirs.tar");
    tool(docker.call(["save", "-o", &archive]).args(&theirs));
    host.dhow(["load", "-q", "-i", &archive]).outcome();
    for name in theirs.iter().filter_map(|image| image.strip_prefix("theirs:")) {
        let images = [format!("theirs:{name}"), format!("ours:{name}")];
        let outcome = host.dhow(["image", "diff"]).args(&images).outcome();
        let lines: Vec<&str> = outcome.stdout.lines().filter(|line| !is_expected(line)).collect();
        if outcome.code == 2 || !lines.is_empty() {
            wrong.push(format!("{name}: {} {}\n{}", outcome.code, outcome.stderr, lines.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), CASES.len(), wrong.join("\n"));
}

/// Differences that are meant; docs/build.md says why.
fn is_expected(line: &str) -> bool {
    line.starts_with("C setting created (")
        || line.starts_with("D setting docker_version (")
        || line.ends_with("modes/run (mode 755 -> 4755)")
        || line == "C /m/run (mode 755 -> 4755)"
        // Of an image from scratch.
        || line.starts_with("D setting config.Env ([\"PATH=/usr/local/sbin:")
}
