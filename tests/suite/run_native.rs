//! `dhow run` of Linux images: what the program sees, and how it ends.

use crate::support::{Host, Image, Tree, busybox, debian, is_root, letters};

/// `dhow run --rm --network none busybox:1 ARGS`.
fn busybox_says(host: &Host, args: &[&str]) -> String {
    host.dhow(["run", "--rm", "--network", "none", "busybox:1"]).args(args).ok()
}

#[test]
fn it_runs_the_image_s_command_and_leaves_nothing() {
    let host = Host::with(&[("hi:1", busybox().cmd(&["echo", "hi from the image"]))]);
    assert_eq!(host.dhow(["run", "--rm", "hi:1"]).ok(), "hi from the image\n");
    assert_eq!(host.dhow(["run", "--rm", "hi:1", "echo", "hi from the user"]).ok(), "hi from the user\n");
    host.has_no_container();
}

#[test]
fn exit_codes_and_deaths_by_signal() {
    let host = Host::with_busybox();
    for code in [0, 1, 7, 125, 126, 127, 255] {
        let run = host.dhow(["run", "--rm", "busybox:1", "sh", "-c", &format!("exit {code}")]);
        let outcome = run.fails(code);
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("", ""), "{outcome:#?}");
    }
    host.dhow(["run", "--rm", "busybox:1", "sh", "-c", r#"sh -c 'kill -9 $$'; exit $?"#]).fails(137);
}

#[test]
fn streams_are_separate_and_complete() {
    let host = Host::with_busybox();
    let outcome = host.dhow(["run", "--rm", "busybox:1", "sh", "-c", "echo out; echo err >&2"]).outcome();
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("out\n", "err\n"), "{outcome:#?}");
    let out = busybox_says(&host, &["sh", "-c", "dd if=/dev/zero bs=1000000 count=5 2>/dev/null"]);
    assert_eq!(out.len(), 5_000_000);
}

#[test]
fn standard_input_is_piped_with_i_and_empty_without() {
    let host = Host::with_busybox();
    let big = letters(1_000_000);
    let echoed = host.dhow(["run", "--rm", "-i", "busybox:1", "cat"]).stdin(big.clone()).ok();
    assert!(echoed.as_bytes() == big, "{} of {} bytes", echoed.len(), big.len());
    assert_eq!(host.dhow(["run", "--rm", "busybox:1", "cat"]).stdin("not for the guest").ok(), "");
    // Input that nobody reads is no reason to hang or to fail.
    assert_eq!(host.dhow(["run", "--rm", "-i", "busybox:1", "true"]).stdin(big).ok(), "");
}

#[test]
fn it_is_process_one_of_its_own_world() {
    let host = Host::with_busybox();
    assert_eq!(busybox_says(&host, &["sh", "-c", "echo $$"]), "1\n");
    let processes = busybox_says(&host, &["sh", "-c", "ls /proc | grep -c '^[0-9]'; true"]);
    assert!(processes.trim().parse::<u32>().unwrap() <= 4, "other processes are visible: {processes}");
}

#[test]
fn environment_is_docker_s() {
    let host = Host::with_busybox();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let out = busybox_says(&host, &["sh", "-c", "env; hostname"]);
    let lines: Vec<&str> = out.lines().collect();
    let id = *lines.last().unwrap();
    assert!(id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{out}");
    for wanted in [path, &format!("HOSTNAME={id}"), "HOME=/root"] {
        assert!(lines.contains(&wanted), "{wanted} is missing: {out}");
    }

    let run = host
        .dhow([
            "run",
            "--rm",
            "-e",
            "K=V",
            "-e",
            "HOME=/x",
            "--hostname",
            "foo",
            "-e",
            "INHERITED",
            "busybox:1",
            "env",
        ])
        .env("INHERITED", "i")
        .env("SECRET", "s");
    assert_eq!(run.ok(), format!("{path}\nHOSTNAME=foo\nK=V\nHOME=/x\nINHERITED=i\n"));
    // Who names a variable without having it takes it away.
    assert_eq!(
        host.dhow(["run", "--rm", "-e", "HOSTNAME", "busybox:1", "env"]).ok(),
        format!("{path}\nHOME=/root\n")
    );
}

#[test]
fn writes_are_the_container_s_own() {
    let host = Host::with_busybox();
    let script = "echo changed > /etc/passwd; rm /etc/group; mkdir /made; cat /etc/passwd; ls -d /made /etc/group 2>&1";
    let outcome = host.dhow(["run", "--rm", "busybox:1", "sh", "-c", script]).outcome();
    assert_eq!(outcome.stdout, "changed\nls: /etc/group: No such file or directory\n/made\n", "{outcome:#?}");
    let out = busybox_says(&host, &["sh", "-c", "head -n 1 /etc/passwd; ls -d /etc/group"]);
    assert_eq!(out, "root:x:0:0:root:/root:/bin/sh\n/etc/group\n");
}

#[test]
fn layers_stack_with_whiteouts_and_opaque_folders() {
    let image = busybox()
        .layer(
            Tree::new()
                .dir("d", 0o755)
                .file("d/a", 0o644, "1")
                .file("d/b", 0o644, "1")
                .dir("e", 0o755)
                .file("e/old", 0o644, ""),
        )
        .layer(
            Tree::new()
                .dir("d", 0o755)
                .whiteout("d/a")
                .file("d/b", 0o600, "2")
                .opaque("e")
                .file("e/new", 0o644, ""),
        )
        .layer(
            Tree::new()
                .dir("d", 0o755)
                .file("d/c", 0o644, "3")
                .file("d/u", 0o4755, "")
                .hardlink("d/h", "d/c")
                .symlink("d/s", "c"),
        );
    let host = Host::with(&[("busybox:1", image)]);
    let out = busybox_says(&host, &["sh", "-c", "cd /d; ls; cat b c s; echo; stat -c '%a %h' b c u; ls /e"]);
    assert_eq!(out, "b\nc\nh\ns\nu\n233\n600 1\n644 2\n4755 1\nnew\n");
}

#[test]
fn an_image_without_layers_or_without_a_command() {
    let nothing = Image::native().entrypoint(&["/nothing"]);
    let host = Host::with(&[("nothing:1", nothing), ("mute:1", busybox().cmd(&[]))]);
    host.dhow(["run", "--rm", "nothing:1"]).refused(127, "/nothing");
    host.dhow(["run", "--rm", "mute:1"]).rejected(125, "o command specified");
    host.dhow(["run", "--rm", "--entrypoint", "", "mute:1"]).rejected(125, "o command specified");
    host.has_no_container();
}

#[test]
fn a_debian_from_debootstrap_works() {
    let Some(image) = debian() else { return };
    let host = Host::with(&[("debian:local", image)]);
    let script = "cat /etc/debian_version; dpkg -l | grep -c ^ii; bash --version | head -n 1; apt-get --version | head -n 1";
    let out = host.dhow(["run", "--rm", "--network", "none", "debian:local", "bash", "-c", script]).ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(
        lines[0].starts_with("12.") && lines[2].starts_with("GNU bash") && lines[3].starts_with("apt "),
        "{out}"
    );
    assert!(lines[1].parse::<u32>().unwrap() > 60, "{out}");

    // The line of the README, with all its options.
    host.file("file", "seen\n");
    let volume = format!("{}:/src:ro", host.text(""));
    let options =
        ["run", "--rm", "-e", "K=V", "-w", "/tmp", "-v", &volume, "-u", "1000:1000", "--entrypoint"];
    let id = host.dhow(options).args(["/bin/id", "debian:local"]).ok();
    assert_eq!(id, "uid=1000 gid=1000 groups=1000\n");
    let shell = host.dhow(options).args([
        "bash",
        "debian:local",
        "-c",
        "echo $K; pwd; cat /src/file; touch /src/x || echo ro",
    ]);
    let outcome = shell.outcome();
    assert_eq!(outcome.stdout, "V\n/tmp\nseen\nro\n", "{outcome:#?}");
    if is_root() {
        let out =
            host.dhow(["run", "--rm", "debian:local", "su", "-s", "/bin/sh", "nobody", "-c", "id -un"]).ok();
        assert_eq!(out, "nobody\n", "set-user-id programs and users of the image work");
    }
}
