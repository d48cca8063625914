//! Contexts, images and steps that lead somewhere else; and a builder that is killed in the middle.

use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::process::Signal;

use super::context;
use crate::support::{Host, Image, Tree, busybox, is_root, until};

#[test]
fn links_lead_nowhere_else() {
    let host = Host::with_busybox();
    let canary = host.file("canary", "secret of the host");
    let path = context(&host, "c", &[("inside", "inside")]);
    let link = |target: &str, name: &str| symlink(target, host.path("c").join(name)).unwrap();
    link(&canary, "absolute");
    link("../canary", "up");
    link("../../../../../../../etc", "etc");
    link("inside", "fine");
    link("loop", "loop");
    for (dockerfile, message) in [
        ("COPY absolute /x", "not found"),
        ("COPY up /x", "not found"),
        ("COPY ../canary /x", "not found"),
        ("COPY etc/passwd /x", "COPY failed"),
        ("COPY loop /x", "COPY failed"),
        ("COPY --from=busybox:1 /../../../etc/hostname /x", "not found"),
    ] {
        let outcome = host
            .dhow(["build", "-q", "-f", "-", &path])
            .stdin(format!("FROM scratch\n{dockerfile}\n"))
            .fails(1);
        assert!(outcome.stderr.contains(message), "{dockerfile}: {outcome:#?}");
    }
    // Within a directory they are copied as they are; one that stays inside is followed.
    host.dhow(["build", "-q", "-f", "-", "-o", "out", &path])
        .stdin("FROM scratch\nCOPY . /all\nCOPY fine /f\n")
        .ok();
    assert_eq!(fs_err::read_link(host.path("out/all/absolute")).unwrap().to_str(), Some(canary.as_str()));
    assert_eq!(fs_err::read_to_string(host.path("out/f")).unwrap(), "inside");
}

#[test]
fn targets_of_an_image_stay_in_it() {
    let host = Host::new();
    let canary = host.text("canary");
    let hostile = busybox().layer(
        Tree::new().symlink("out", &canary).symlink("up", "../../../../../..").symlink("cache", "/etc"),
    );
    fs_err::create_dir(host.path("canary")).unwrap();
    host.load(&[("hostile:1", hostile)]);
    let path = context(
        &host,
        "c",
        &[
            ("f", "f"),
            ("Dockerfile", "FROM hostile:1\nCOPY f /out/f\nCOPY f /up/g\nADD f /out/\nWORKDIR /out/w\n"),
        ],
    );
    host.dhow(["build", "-q", "-t", "x:1", &path]).ok();
    assert_eq!(fs_err::read_dir(&canary).unwrap().count(), 0);
    let inside = format!("cat {canary}/f /g && ls -d {canary}/w");
    assert_eq!(host.dhow(["run", "--rm", "x:1", "sh", "-c", &inside]).ok(), format!("ff{canary}/w\n"));
}

#[test]
fn archives_are_unpacked_inside() {
    let host = Host::new();
    let canary = host.text("canary");
    fs_err::create_dir(host.path("canary")).unwrap();
    let tar = Tree::new()
        .symlink("link", &canary)
        .file("link/through", 0o644, "x")
        .symlink("up", "../../..")
        .file("up/top", 0o644, "y")
        .file("plain", 0o600, "z")
        .finish();
    let path = context(&host, "c", &[("Dockerfile", "FROM scratch\nADD a.tar /d/\n")]);
    host.file("c/a.tar", tar);
    host.dhow(["build", "-q", "-o", "out", &path]).ok();
    assert_eq!(fs_err::read_dir(&canary).unwrap().count(), 0);
    assert_eq!(fs_err::read_to_string(host.path("out/d/plain")).unwrap(), "z");
    assert_eq!(fs_err::read_to_string(host.path("out/top")).unwrap(), "y");
    // What would remove files of the layers below is refused.
    host.file("c/a.tar", Tree::new().file("d/.wh.x", 0o644, "").finish());
    host.dhow(["build", "-q", "-o", "out", &path]).fails(1);
    host.file("c/.wh.etc", "");
    host.dhow(["build", "-q", "-f", "-", &path]).stdin("FROM scratch\nCOPY . /\n").fails(1);
}

#[test]
fn mounts_of_steps_stay_inside() {
    if !is_root() {
        return;
    }
    let host = Host::new();
    let canary = host.text("canary");
    fs_err::create_dir(host.path("canary")).unwrap();
    host.load(&[("hostile:1", busybox().layer(Tree::new().symlink("mnt", &canary)))]);
    // The place is a link; and the step puts a link into its place (CVE-2024-23652).
    let dockerfile = "FROM hostile:1\nRUN --mount=type=cache,target=/mnt/c touch /mnt/c/f\n\
        RUN --mount=type=tmpfs,target=/a/b true; rm -rf /x; ln -s / /x\n\
        RUN --mount=type=bind,source=.,target=/in ! touch /in/new\n";
    let path = context(&host, "c", &[("Dockerfile", dockerfile)]);
    symlink(&canary, host.path("c/out")).unwrap();
    host.dhow(["build", "-q", &path]).ok();
    assert_eq!(fs_err::read_dir(&canary).unwrap().count(), 0);
    let outside = "FROM hostile:1\nRUN --mount=type=bind,source=out,target=/in true\n";
    host.dhow(["build", "-q", "-f", "-", &path]).stdin(outside).fails(1);
    let outside = "FROM hostile:1\nRUN --mount=type=cache,source=../../..,target=/in true\n";
    host.dhow(["build", "-q", "-f", "-", &path]).stdin(outside).fails(1);
}

#[test]
fn users_of_an_image_are_bounded() {
    let host = Host::new();
    let passwd = "x".repeat(3 << 20);
    host.load(&[("big:1", Image::native().layer(Tree::new().file("etc/passwd", 0o644, passwd)))]);
    let path = context(&host, "c", &[("f", "f"), ("Dockerfile", "FROM big:1\nCOPY --chown=somebody f /\n")]);
    let outcome = host.dhow(["build", "-q", &path]).fails(1);
    assert!(outcome.stderr.contains("unable to find user somebody"), "{outcome:#?}");
}

#[test]
fn a_killed_build_leaves_nothing() {
    let host = Host::with_busybox();
    let path = context(
        &host,
        "c",
        &[(
            "Dockerfile",
            "FROM busybox:1\nRUN echo before > /f\nRUN --mount=type=cache,target=/c --mount=target=/b \
             --mount=type=tmpfs,target=/t echo now; sleep 600\n",
        )],
    );
    for signal in [Signal::KILL, Signal::INT, Signal::TERM] {
        let mut running = host.dhow(["build", "--progress=plain", "-t", "never:1", &path]).spawn();
        running.until_error("now\n");
        let mut works = fs_err::read_dir(host.root().join("build/work")).unwrap();
        let id = works.next().unwrap().unwrap().file_name().into_string().unwrap();
        running.signal(signal);
        drop(running);
        until("its step has ended", || {
            let work = host.root().join("build/work");
            let lock =
                fs_err::read_dir(work).unwrap().flatten().next().map(|entry| entry.path().join("lock"));
            let Some(lock) = lock else { return Some(()) };
            let file = fs_err::File::open(lock).ok()?;
            file.file().try_lock_shared().is_ok().then_some(())
        });
        host.check();
        assert_eq!(host.dhow(["images", "-aq", "never"]).ok(), "");
        assert_eq!(fs_err::read_dir(host.root().join("build/work")).unwrap().count(), 0);
        host.has_no_container();
        let mounts = fs_err::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&id), "{mounts}");
        let groups = Command::new("find").args(["/sys/fs/cgroup", "-name", &format!("*{id}*")]).output();
        assert_eq!(String::from_utf8_lossy(&groups.unwrap().stdout), "");
    }
    // What was done before is not done again.
    let outcome =
        host.dhow(["build", "-f", "-", &path]).stdin("FROM busybox:1\nRUN echo before > /f\n").fails(0);
    assert!(outcome.stderr.contains("Using cache"), "{outcome:#?}");
}

/// Whatever is wrong, the line is shown, and where in it.
#[test]
fn a_mark_for_every_mistake() {
    let host = Host::with_busybox();
    let path = context(&host, "marks", &[("x", "x")]);
    for (dockerfile, marked, message) in [
        ("FROM scratch\nRUNN x\n", "^^^^", "did you mean RUN?"),
        ("FROM a b\n", "^^^^", "FROM requires"),
        ("FROM scratch\nCOPY --chmod=99999 x /\n", "             ^^^^^", "invalid chmod"),
        ("FROM scratch\nCOPY nothere /\n", "     ^^^^^^^", "file not found"),
        ("FROM scratch\nLABEL a=\"b\n", "^^^^^", "double-quote"),
        ("FROM scratch\nSTOPSIGNAL SIGFOO\n", "           ^^^^^^", "invalid signal"),
        ("FROM busybox:1\nRUN --mount=type=cach,target=/x true\n", "                 ^^^^", "bind, cache"),
        ("FROM scratch AS a\nCOPY --from=a /a /b\n", "^", "circular dependency"),
        (
            "FROM scratch AS one\nCOPY --from=two /a /b\nFROM scratch AS two\nCOPY --from=one /x /y\nFROM two\n",
            "            ^^^",
            "circular dependency detected on stage: two",
        ),
        ("FROM busybox:1\nRUN exit 7\n", "    ^^^^", "returned a non-zero code: 7"),
    ] {
        host.file("marks/Dockerfile", dockerfile);
        let outcome = host.dhow(["build", "-q", "--network", "none", &path]).outcome();
        let mark = outcome.stderr.lines().find_map(|line| line.strip_prefix("     |     "));
        assert!(outcome.code != 0 && outcome.stderr.contains(message), "{dockerfile}: {outcome:#?}");
        assert!(mark.is_some_and(|mark| mark.starts_with(marked)), "{dockerfile}: {outcome:#?}");
    }
    let outcome = host.dhow(["build", "--target", "goood", "-"]).stdin("FROM scratch AS good\n").fails(1);
    assert!(outcome.stderr.contains("did you mean good?"), "{outcome:#?}");
}
