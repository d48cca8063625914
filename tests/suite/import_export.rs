//! `import` and `export`: images of archives, archives of containers.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Host, Image, Tree, busybox, digest_of, guest, tool};

/// The names in a tar, sorted, with what `tar -tv` says about kind, mode and owner.
fn listing(host: &Host, archive: &str) -> Vec<String> {
    let text = tool(Command::new("tar").args(["--numeric-owner", "-tvf", &host.text(archive)]));
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {} {}", words[0], words[1], words[5..].join(" "))
        })
        .collect();
    lines.sort();
    lines
}

#[test]
fn an_archive_becomes_an_image_that_runs() {
    let host = Host::new();
    let tar = Tree::new()
        .file("bin/busybox", 0o755, fs_err::read("/bin/busybox").unwrap())
        .file("hi", 0o644, "hi\n")
        .finish();
    host.file("root.tar", &tar);
    for (program, suffix) in
        [("gzip", ".gz"), ("bzip2", ".bz2"), ("xz", ".xz"), ("zstd", ".zst"), ("true", "")]
    {
        if !suffix.is_empty() {
            tool(Command::new(program).args(["-k", "-q"]).arg(host.path("root.tar")));
        }
        let file = format!("root.tar{suffix}");
        let cmd = "CMD [\"/bin/busybox\", \"cat\", \"/hi\"]";
        let id = host.dhow(["import", "-c", cmd, "-m", "by hand", &file, "it:1"]).ok();
        assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
        assert_eq!(host.dhow(["run", "--rm", "it:1"]).ok(), "hi\n", "{file}");
        let all: Value = serde_json::from_str(&host.dhow(["inspect", "it:1"]).ok()).unwrap();
        assert_eq!(all[0]["RootFS"]["Layers"], json!([digest_of(&tar)]), "{file}");
        assert_eq!(all[0]["Comment"], "by hand");
    }
    // From standard input, without a name.
    let id = host.dhow(["import", "-"]).stdin(tar.clone()).ok();
    let history = host.dhow(["history", "--format", "{{.Comment}}", id.trim()]).ok();
    assert_eq!(history, "Imported from -\n");

    for (input, message) in [
        (tar[..tar.len() / 2].to_vec(), "archive"),
        (tar[..tar.len() - 1024].to_vec(), "has no end"),
        (b"no archive at all".repeat(100), "not a tar archive"),
        (Vec::new(), "has no end"),
        (Tree::new().file("a/.wh.", 0o644, "").finish(), "whiteout of nothing"),
    ] {
        host.dhow(["import", "-", "bad:1"]).stdin(input).refused(1, message);
    }
    host.dhow(["import", "-c", "RUN make", "root.tar"]).rejected(1, "run is not a valid change command");
    host.dhow(["import", "missing.tar"]).rejected(1, "missing.tar");
    assert!(!host.dhow(["images"]).ok().contains("bad"));
}

#[test]
fn changes_are_those_of_a_dockerfile() {
    let host = Host::new();
    host.file("root.tar", Tree::new().file("x", 0o644, "x").finish());
    let changes = [
        "ENV A=1 B=\"two words\"",
        "LABEL k=v",
        "EXPOSE 80 53/udp",
        "USER app",
        "WORKDIR /srv",
        "VOLUME /data",
        "STOPSIGNAL SIGINT",
        "ENTRYPOINT [\"/x\"]",
        "CMD a b",
        "ONBUILD RUN make",
        "HEALTHCHECK --retries=2 CMD /check",
    ];
    let mut args = vec!["import"];
    changes.iter().for_each(|change| args.extend(["--change", change]));
    args.extend(["--platform", "linux/arm64", "root.tar", "it:1"]);
    host.dhow(args).ok();
    let all: Value =
        serde_json::from_str(&host.dhow(["inspect", "--platform", "linux/arm64", "it:1"]).ok()).unwrap();
    let config = &all[0]["Config"];
    assert_eq!(config["Env"], json!(["A=1", "B=two words"]));
    assert_eq!(config["ExposedPorts"], json!({ "53/udp": {}, "80/tcp": {} }));
    assert_eq!(
        (&config["User"], &config["WorkingDir"], &config["StopSignal"]),
        (&json!("app"), &json!("/srv"), &json!("SIGINT"))
    );
    assert_eq!(config["Cmd"], json!(["/bin/sh", "-c", "a b"]));
    assert_eq!(config["OnBuild"], json!(["RUN make"]));
    assert_eq!(config["Healthcheck"], json!({ "Retries": 2, "Test": ["CMD-SHELL", "/check"] }));
    assert_eq!(all[0]["Architecture"], "arm64");
}

#[test]
fn a_container_s_root_is_exported_as_it_sees_it() {
    let lower = Tree::new()
        .dir("d", 0o755)
        .owned("d/owned", 0o640, (12, 34), "mine")
        .file("d/gone", 0o644, "gone")
        .file("same", 0o644, "same")
        .hardlink("link", "same")
        .symlink("sym", "d/owned");
    let upper = Tree::new().whiteout("d/gone").file("new", 0o600, "new");
    let host = Host::with(&[("it:1", busybox().layer(lower).layer(upper))]);
    let script = "echo changed > /same; rm /d/owned; mkdir /made; echo x > /made/f; ln /made/f /made/g";
    host.dhow(["run", "--name", "box", "it:1", "sh", "-c", script]).ok();
    host.dhow(["export", "-o", "box.tar", "box"]).ok();
    let all = listing(&host, "box.tar");
    let has = |text: &str| assert!(all.iter().any(|line| line.contains(text)), "{text} is not in {all:#?}");
    let lacks = |text: &str| assert!(!all.iter().any(|line| line.contains(text)), "{text} is in {all:#?}");
    has("-rw------- 0/0 new");
    has("-rw-r--r-- 0/0 made/f");
    has("made/g link to made/f");
    has("sym -> d/owned");
    has("drwxr-xr-x 0/0 made/");
    lacks("gone");
    lacks("owned\"");
    lacks(".wh.");
    lacks(" d/owned ");
    let read = |name: &str| tool(Command::new("tar").args(["-xOf", &host.text("box.tar"), name]));
    assert_eq!((read("same"), read("new")), ("changed\n".to_owned(), "new".to_owned()));
    assert_eq!(read("link"), "same", "what was linked to a changed file keeps its content");
    // The same again, to standard output; and it comes back as an image.
    let written = host.path("again.tar");
    let mut command = host.dhow(["export", "box"]).into_command();
    assert!(
        command.stdout(fs_err::File::create(&written).unwrap().into_parts().0).status().unwrap().success()
    );
    assert!(fs_err::read(&written).unwrap() == fs_err::read(host.path("box.tar")).unwrap());
    host.dhow(["import", "box.tar", "back:1"]).ok();
    assert_eq!(host.dhow(["run", "--rm", "back:1", "/bin/busybox", "cat", "/same"]).ok(), "changed\n");
    host.dhow(["export", "nosuch"]).rejected(1, "No such container: nosuch");
    host.dhow(["container", "export", "-o", "no/where.tar", "box"]).refused(1, "does not exist");
}

#[test]
fn a_wasm_container_is_exported_too() {
    let image = Image::wasm()
        .layer(Tree::new().file("h.wasm", 0o755, guest("hello.wasm")).file("note", 0o644, "note"))
        .entrypoint(&["/h.wasm"]);
    let host = Host::with(&[("w:1", image)]);
    host.dhow(["run", "--name", "ww", "w:1"]).ok();
    host.dhow(["export", "-o", "w.tar", "ww"]).ok();
    assert_eq!(listing(&host, "w.tar"), ["-rw-r--r-- 0/0 note", "-rwxr-xr-x 0/0 h.wasm"]);
}
