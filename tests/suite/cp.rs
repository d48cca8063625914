//! `cp`: files into and out of containers of both kinds, running or not, and containers that mean harm.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use crate::support::{Host, Image, Run, Tree, busybox, guest, is_root, tool};

fn files() -> Tree {
    Tree::new()
        .dir("etc", 0o755)
        .file("etc/one", 0o640, "one\n")
        .dir("srv", 0o755)
        .dir("srv/sub", 0o755)
        .file("srv/a", 0o644, "a\n")
        .file("srv/sub/b", 0o600, "b\n")
        .symlink("srv/link", "a")
        .symlink("srv/out", "/etc/one")
        .symlink("srv/up", "../../../../../../etc/hostname")
}

/// Two containers that have ended, `wasm` and `linux`, with the same files.
fn host() -> Host {
    let wasm =
        Image::wasm().layer(files().file("p.wasm", 0o755, guest("probe.wasm"))).entrypoint(&["/p.wasm"]);
    let host = Host::with(&[("probe:1", wasm), ("busybox:2", busybox().layer(files()))]);
    host.dhow(["run", "--name", "wasm", "probe:1", "write", "/srv/new", "n"]).ok();
    host.dhow(["run", "--name", "linux", "busybox:2", "sh", "-c", "echo n > /srv/new"]).ok();
    host
}

fn cp<'a>(host: &Host, args: impl IntoIterator<Item = &'a str>) -> Run {
    host.dhow(["cp"]).args(args)
}

fn read(host: &Host, name: &str) -> String {
    fs_err::read_to_string(host.path(name)).unwrap()
}

#[test]
fn out_of_a_container_by_docker_s_rules() {
    let host = host();
    for name in ["wasm", "linux"] {
        let at = |path: &str| format!("{name}:{path}");
        let to = |path: &str| format!("./{name}/{path}");
        fs_err::create_dir(host.path(name)).unwrap();
        // A file: to a name, into a folder, over a file.
        cp(&host, [at("/srv/a").as_str(), &to("file")]).ok();
        cp(&host, [at("srv/new").as_str(), &to("")]).ok();
        cp(&host, [at("/etc/one").as_str(), &to("file")]).ok();
        assert_eq!(read(&host, &to("file")), "one\n");
        assert_eq!(read(&host, &to("new")), "n\n");
        // A folder: to a new name, into a folder, its contents into a folder.
        cp(&host, [at("/srv").as_str(), &to("tree")]).ok();
        cp(&host, [at("/srv").as_str(), &to("tree")]).ok();
        cp(&host, [at("/srv/sub/.").as_str(), &to("")]).ok();
        assert_eq!(read(&host, &to("tree/sub/b")), "b\n");
        assert_eq!(read(&host, &to("tree/srv/sub/b")), "b\n");
        assert_eq!(read(&host, &to("b")), "b\n");
        // Links are copied as links, and followed in the container's root when that is asked for.
        assert_eq!(fs_err::read_link(host.path(&to("tree/out"))).unwrap().to_str(), Some("/etc/one"));
        cp(&host, [at("/srv/out").as_str(), &to("link")]).ok();
        assert!(fs_err::symlink_metadata(host.path(&to("link"))).unwrap().is_symlink());
        cp(&host, ["-L", at("/srv/out").as_str(), &to("followed")]).ok();
        assert_eq!(read(&host, &to("followed")), "one\n");
        for (args, message) in [
            ([at("/none"), to("x")], format!("no such file or directory: {name}:/none")),
            ([at("/srv"), to("file")], "cannot copy directory".to_owned()),
            ([at("/srv/a"), to("none/")], "no such file or directory".to_owned()),
            ([at("/srv/a"), to("none/x")], "no such file or directory".to_owned()),
            ([at("/srv/a/"), to("x")], "not a directory".to_owned()),
        ] {
            cp(&host, args.iter().map(String::as_str)).rejected(1, &message);
        }
    }
    let mode = fs_err::metadata(host.path("linux/tree/sub/b")).unwrap();
    assert_eq!((mode.permissions().mode() & 0o777, mode.uid()), (0o600, rustix::process::geteuid().as_raw()));
    cp(&host, ["wasm:/a", "linux:/b"]).refused(1, "copying between containers is not supported");
    cp(&host, ["a", "b"]).refused(1, "must specify at least one container source");
    cp(&host, ["none:/a", "b"]).refused(1, "No such container: none");
}

#[test]
fn into_a_container_and_its_volumes() {
    let host = host();
    host.file("in/file", "from the host\n");
    host.file("in/deep/er", "deeper\n");
    symlink("file", host.path("in/link")).unwrap();
    for name in ["wasm", "linux"] {
        let at = |path: &str| format!("{name}:{path}");
        cp(&host, ["in/file", &at("/srv")]).ok();
        cp(&host, ["in/file", &at("/srv/a")]).ok();
        cp(&host, ["in", &at("/new")]).ok();
        cp(&host, ["in/.", &at("/srv/sub")]).ok();
        fs_err::create_dir(host.path(name)).unwrap();
        for folder in ["/srv", "/new"] {
            cp(&host, [at(folder).as_str(), &format!("./{name}")]).ok();
        }
        for path in ["srv/file", "srv/a", "new/file", "srv/sub/file"] {
            assert_eq!(read(&host, &format!("{name}/{path}")), "from the host\n", "{name} {path}");
        }
        assert_eq!(read(&host, &format!("{name}/new/deep/er")), "deeper\n");
        assert!(fs_err::symlink_metadata(host.path(&format!("{name}/new/link"))).unwrap().is_symlink());
        let diff = host.dhow(["diff", name]).ok();
        assert!(diff.contains("C /srv/a\n") && diff.contains("A /new/deep/er\n"), "{diff}");
        cp(&host, ["none", &at("/")]).rejected(1, "no such file or directory: none");
        cp(&host, ["in", &at("/srv/a")]).rejected(1, "cannot copy directory");
        cp(&host, ["in/file", &at("/none/")]).rejected(1, "no such file or directory");
    }
    host.dhow(["run", "--name", "volume", "-v", "data:/data", "probe:1", "ls", "/"]).ok();
    cp(&host, ["in/file", "volume:/data/x"]).ok();
    assert_eq!(
        host.dhow(["run", "--rm", "-v", "data:/mnt", "busybox:2", "cat", "/mnt/x"]).ok(),
        "from the host\n"
    );
}

#[test]
fn containers_that_run() {
    let host = host();
    host.file("go", "go\n");
    let script = "echo ready; until [ -e /tmp/go ]; do sleep 0.01; done; cat /tmp/go; stat -c %u:%g /tmp/go";
    let mut running = host.dhow(["run", "--name", "busy", "busybox:2", "sh", "-c", script]).spawn();
    running.until("ready\n");
    cp(&host, ["busy:/etc/one", "one"]).ok();
    assert_eq!(read(&host, "one"), "one\n");
    cp(&host, ["go", "busy:/tmp/"]).ok();
    running.until("go\n0:0\n");
    assert_eq!(running.outcome().code, 0);
    let mut running =
        host.dhow(["run", "--name", "spins", "-i", "probe:1", "write", "/srv/x", "now", "cat"]).spawn();
    crate::support::until("the file", || {
        cp(&host, ["spins:/srv/x", "x"]).outcome().code.eq(&0).then_some(())
    });
    assert_eq!(read(&host, "x"), "now\n");
    cp(&host, ["go", "spins:/srv/go"]).ok();
    running.close_stdin();
    assert_eq!(running.outcome().code, 0);
    assert_eq!(host.dhow(["diff", "spins"]).ok().lines().filter(|line| line.starts_with('A')).count(), 2);
}

#[test]
fn archives_both_ways() {
    let host = host();
    for name in ["wasm", "linux"] {
        let archive = host.path(&format!("{name}.tar"));
        let mut call = cp(&host, [format!("{name}:/srv").as_str(), "-"]).into_command();
        let output = call.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs_err::write(&archive, &output.stdout).unwrap();
        let listed = tool(std::process::Command::new("tar").arg("-tf").arg(&archive));
        let mut names: Vec<&str> = listed.lines().collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["srv/", "srv/a", "srv/link", "srv/new", "srv/out", "srv/sub/", "srv/sub/b", "srv/up"]
        );
        let output = cp(&host, [format!("{name}:/srv/sub").as_str(), "-"]).into_command().output().unwrap();
        cp(&host, ["-", &format!("{name}:/etc")]).stdin(output.stdout).ok();
        cp(&host, [format!("{name}:/etc/sub/b").as_str(), "b"]).ok();
        assert_eq!(read(&host, "b"), "b\n");
        cp(&host, ["-", &format!("{name}:/etc/one")]).stdin("").rejected(1, "must be a directory");
        cp(&host, ["-", &format!("{name}:/etc")])
            .stdin(vec![7; 2000])
            .rejected(1, "the archive cannot be read");
        let outside = Tree::new().file("../outside", 0o644, "x").finish();
        cp(&host, ["-", &format!("{name}:/etc")]).stdin(outside).rejected(1, "");
        // A link of the archive is no way out of the folder for what follows it.
        let through = Tree::new().symlink("way", "/srv").file("way/planted", 0o644, "x").finish();
        cp(&host, ["-", &format!("{name}:/etc")]).stdin(through).fails(1);
        assert!(!host.dhow(["diff", name]).ok().contains("planted"));
    }
}

/// A container whose program swaps a folder for a link to the host's `/etc`, again and again, while files are copied.
#[test]
fn links_that_come_and_go_lead_nowhere() {
    if !is_root() {
        println!("skipped: needs root");
        return;
    }
    let host = host();
    host.file("mine/secret", "of the host\n");
    host.file("plant", "planted\n");
    let outside = host.text("mine");
    let script = format!(
        "mkdir -p /x/d /x/e; echo inside > /x/e/secret; echo ready; \
         while :; do mv /x/d /x/o; ln -s {outside} /x/d; rm /x/d; mv /x/o /x/d; done"
    );
    let mut running = host.dhow(["run", "--name", "hostile", "busybox:2", "sh", "-c", &script]).spawn();
    running.until("ready\n");
    for _ in 0..40 {
        cp(&host, ["plant", "hostile:/x/d/planted"]).outcome();
        cp(&host, ["hostile:/x/d/secret", "stolen"]).outcome();
        cp(&host, ["hostile:/x", "tree"]).outcome();
    }
    assert!(!host.path("mine/planted").exists(), "written outside");
    let found = tool(std::process::Command::new("grep").args(["-rl", "of the host"]).arg(host.path("")));
    assert_eq!(found.trim_end(), host.text("mine/secret"), "read outside");
    host.dhow(["rm", "-f", "hostile"]).ok();
    drop(running);
}

/// What a link leads to within the container's own root is what is written to, as with Docker.
#[test]
fn a_link_to_a_file_is_followed_to_where_it_leads() {
    let host = host();
    host.file("new", "new\n");
    for name in ["wasm", "linux"] {
        // An absolute link, and one that is not there yet.
        cp(&host, ["new", &format!("{name}:/srv/out")]).ok();
        cp(&host, ["-L", &format!("{name}:/srv/out"), "./back"]).ok();
        assert_eq!(read(&host, "back"), "new\n", "{name}");
        let link = format!("./{name}.link");
        cp(&host, [&format!("{name}:/srv/out"), link.as_str()]).ok();
        assert!(
            fs_err::symlink_metadata(host.path(&link)).unwrap().is_symlink(),
            "{name}: it is a link still"
        );
        // `..` ends at the container's root, not at this host's.
        if name == "wasm" {
            cp(&host, ["new", &format!("{name}:/srv/up")]).ok();
            cp(&host, [&format!("{name}:/etc/hostname"), "./hostname"]).ok();
            assert_eq!(read(&host, "hostname"), "new\n");
        }
        assert_ne!(fs_err::read_to_string("/etc/hostname").unwrap_or_default(), "new\n");
    }
    // On this side, too.
    symlink("target", host.path("leads")).unwrap();
    cp(&host, ["wasm:/srv/a", "./leads"]).ok();
    assert_eq!(read(&host, "target"), "a\n");
    // A circle leads nowhere, and is replaced in the end.
    symlink("circle", host.path("circle")).unwrap();
    let outcome = cp(&host, ["wasm:/srv/a", "./circle"]).outcome();
    assert!(outcome.code == 0 || outcome.stderr.contains("symbolic links"), "{outcome:#?}");
}

#[test]
fn attributes_of_users_come_along() {
    use rustix::fs::{XattrFlags, getxattr, setxattr};
    let host = host();
    host.file("noted", "x");
    if setxattr(host.path("noted"), "user.note", b"here", XattrFlags::empty()).is_err() {
        println!("skipped: this file system has no attributes");
        return;
    }
    for name in ["wasm", "linux"] {
        cp(&host, ["noted", &format!("{name}:/srv/noted")]).ok();
        let back = format!("./{name}.noted");
        cp(&host, [&format!("{name}:/srv/noted"), back.as_str()]).ok();
        let mut value = [0; 16];
        let length = getxattr(host.path(&back), "user.note", &mut value[..]).expect("the attribute");
        assert_eq!(&value[..length], b"here", "{name}");
    }
}
