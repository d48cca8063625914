//! Volumes: kept by name, filled from images, shared by both kinds of containers, and removed when nobody uses them.

use serde_json::{Value, json};

use crate::support::{Host, Image, Tree, busybox, guest};

/// The probe, in an image with files at `/data` and `/own`, and a volume at `/own`.
fn probe() -> Image {
    let tree = Tree::new()
        .file("probe.wasm", 0o644, guest("probe.wasm"))
        .dir("data", 0o750)
        .file("data/one", 0o640, "of the image\n")
        .dir("own", 0o755)
        .file("own/two", 0o644, "own\n");
    Image::wasm().layer(tree).entrypoint(&["/probe.wasm"]).config("Volumes", json!({ "/own": {} }))
}

fn host() -> Host {
    Host::with(&[("probe:1", probe()), ("busybox:1", busybox())])
}

#[test]
fn both_kinds_see_one_volume_at_once() {
    let host = host();
    let wasm = |args: &[&str]| host.dhow(["run", "--rm", "-v", "shared:/srv", "probe:1"]).args(args);
    let native =
        |script: &str| host.dhow(["run", "--rm", "-v", "shared:/mnt", "busybox:1", "sh", "-c", script]);
    assert_eq!(wasm(&["write", "/srv/a", "from wasm"]).ok(), "");
    assert_eq!(native("cat /mnt/a; echo from linux > /mnt/b").ok(), "from wasm\n");
    assert_eq!(wasm(&["read", "/srv/b", "ls", "/srv"]).ok(), "from linux\na\nb\n");
    let mut running = host
        .dhow(["run", "--rm", "-v", "shared:/mnt", "busybox:1", "sh", "-c"])
        .args(["echo ready; until [ -e /mnt/go ]; do sleep 0.01; done; cat /mnt/go"])
        .spawn();
    running.until("ready\n");
    wasm(&["write", "/srv/.go", "now"]).ok();
    native("mv /mnt/.go /mnt/go").ok();
    running.until("now\n");
    assert_eq!(running.outcome().code, 0);
    let read_only =
        host.dhow(["run", "--rm", "-v", "shared:/srv:ro", "probe:1", "write", "/srv/x", "y"]).fails(1);
    assert!(read_only.stderr.contains("write /srv/x: "), "{read_only:#?}");
    host.dhow(["run", "--rm", "-v", "shared:/mnt:ro", "busybox:1", "touch", "/mnt/x"]).fails(1);
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "shared\n");
    assert_eq!(host.dhow(["volume", "rm", "shared"]).ok(), "shared\n");
}

#[test]
fn an_empty_volume_gets_what_the_image_has() {
    let host = host();
    let ls = |place: &str, args: &[&str]| host.dhow(["run", "--rm", "-v", place, "probe:1"]).args(args).ok();
    assert_eq!(ls("data:/data", &["ls", "/data", "read", "/data/one"]), "one\nof the image\n");
    // It is the container's from now on, and never filled again.
    ls("data:/data", &["write", "/data/one", "changed", "write", "/data/new", ""]);
    assert_eq!(ls("data:/data", &["read", "/data/one", "ls", "/data"]), "changed\nnew\none\n");
    assert_eq!(ls("empty:/data:nocopy", &["ls", "/data"]), "");
    assert_eq!(ls("none:/nowhere", &["ls", "/nowhere"]), "");
    let mount = "type=volume,source=long,target=/data";
    assert_eq!(host.dhow(["run", "--rm", "--mount", mount, "probe:1", "ls", "/data"]).ok(), "one\n");
    // Owners and modes come along for programs that have users.
    let native =
        busybox().layer(Tree::new().dir("data", 0o751).owned("data/secret", 0o604, (1234, 4321), "s"));
    host.load(&[("owned:1", native)]);
    let shown = host.dhow([
        "run",
        "--rm",
        "-v",
        "owned:/data",
        "owned:1",
        "stat",
        "-c",
        "%a %u:%g %n",
        "/data",
        "/data/secret",
    ]);
    assert_eq!(shown.ok(), "751 0:0 /data\n604 1234:4321 /data/secret\n");
}

#[test]
fn containers_have_volumes_of_their_own() {
    let host = host();
    // The image asks for one, the user for another.
    host.dhow(["run", "--name", "one", "-v", "/extra", "probe:1", "write", "/own/two", "changed"]).ok();
    let mounts: Value =
        serde_json::from_str(&host.dhow(["inspect", "-f", "{{json .Mounts}}", "one"]).ok()).unwrap();
    let places: Vec<_> =
        mounts.as_array().unwrap().iter().map(|point| point["Destination"].clone()).collect();
    assert_eq!(places, ["/extra", "/own"]);
    for point in mounts.as_array().unwrap() {
        assert_eq!(
            (&point["Type"], &point["Driver"], &point["RW"]),
            (&json!("volume"), &json!("local"), &json!(true))
        );
        assert_eq!(point["Name"].as_str().unwrap().len(), 64);
    }
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok().lines().count(), 2);
    let taken = host.dhow(["run", "--rm", "--volumes-from", "one", "probe:1", "read", "/own/two"]);
    assert_eq!(taken.ok(), "changed\n");
    let taken = host.dhow(["run", "--rm", "--volumes-from", "one:ro", "probe:1", "write", "/own/two", "x"]);
    assert_eq!(taken.fails(1).stdout, "");
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok().lines().count(), 2, "--rm took along only its own");
    host.dhow(["run", "--rm", "--volumes-from", "none", "probe:1"]).refused(125, "No such container: none");
    host.dhow(["rm", "one"]).ok();
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok().lines().count(), 2);
    host.dhow(["run", "--name", "two", "probe:1", "ls", "/"]).ok();
    host.dhow(["rm", "-v", "two"]).ok();
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok().lines().count(), 2);
    let pruned = host.dhow(["volume", "prune", "-f"]).ok();
    assert!(
        pruned.starts_with("Deleted Volumes:\n") && pruned.contains("\n\nTotal reclaimed space: "),
        "{pruned}"
    );
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn the_command_is_docker_s() {
    let host = host();
    assert_eq!(host.dhow(["volume", "create", "--label", "a=b", "data"]).ok(), "data\n");
    assert_eq!(host.dhow(["volume", "create", "data"]).ok(), "data\n");
    let name = host.dhow(["volume", "create"]).ok();
    assert_eq!(name.trim_end().len(), 64);
    let shown: Value = serde_json::from_str(&host.dhow(["volume", "inspect", "data"]).ok()).unwrap();
    assert_eq!(shown[0]["Labels"], json!({ "a": "b" }));
    assert_eq!(shown[0]["Options"], json!({}));
    assert_eq!(shown[0]["Mountpoint"], json!(host.root().join("volumes/data/_data")));
    assert_eq!((&shown[0]["Driver"], &shown[0]["Scope"]), (&json!("local"), &json!("local")));
    assert_eq!(host.dhow(["inspect", "-f", "{{.Name}}", "data"]).ok(), "data\n");
    let listed = host.dhow(["volume", "ls"]).ok();
    assert!(listed.starts_with("DRIVER    VOLUME NAME\n") && listed.contains("local     data\n"), "{listed}");
    for (filter, expected) in [
        ("label=a", "data\n"),
        ("label=a=c", ""),
        ("name=dat", "data\n"),
        ("dangling=false", ""),
        ("driver=nfs", ""),
    ] {
        assert_eq!(host.dhow(["volume", "ls", "-q", "--filter", filter]).ok(), expected, "{filter}");
    }
    assert_eq!(
        host.dhow(["volume", "ls", "--format", "{{.Name}} {{.Label \"a\"}}", "-f", "label=a"]).ok(),
        "data b\n"
    );
    host.dhow(["volume", "ls", "-f", "x=y"]).refused(1, "invalid filter 'x'");
    host.dhow(["volume", "inspect", "none"]).fails(1);
    host.dhow(["volume", "rm", "none"]).refused(1, "get none: no such volume");
    host.dhow(["volume", "rm", "-f", "none"]).ok();
    host.dhow(["volume", "create", "a/b"]).rejected(1, "includes invalid characters for a local volume name");
    host.dhow(["volume", "create", "x"]).rejected(1, "volume name is too short");
    host.dhow(["volume", "create", "-d", "nfs", "xx"]).rejected(1, "plugin \"nfs\" not found");
    host.dhow(["run", "--name", "user", "-v", "data:/srv", "probe:1", "ls", "/srv"]).ok();
    let refused = host.dhow(["volume", "rm", "data"]).refused(1, "remove data: volume is in use - [");
    assert_eq!(refused.stdout, "");
    let df = host.dhow(["system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}}"]).ok();
    assert!(df.contains("Local Volumes 3 2\n"), "{df}");
    host.dhow(["rm", "-v", "user"]).ok();
    assert_eq!(host.dhow(["volume", "ls", "-q", "-f", "dangling=true"]).ok().lines().count(), 2);
    host.dhow(["volume", "prune", "-f"]).ok();
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "data\n");
    assert!(host.dhow(["volume", "prune", "-a", "-f"]).ok().contains("\ndata\n"));
}

#[test]
fn mounts_that_make_no_sense_are_refused_and_leave_nothing() {
    let host = host();
    for (args, message) in [
        (
            &["--mount", "type=bind,source=/no/such,target=/x"][..],
            "bind source path does not exist: /no/such",
        ),
        (&["--mount", "type=bind,target=/x"], "field Source must not be empty"),
        (&["--mount", "type=tmpfs,source=a,target=/x"], "field Source must not be specified"),
        (&["--mount", "type=volume,target=x"], "mount path must be absolute"),
        (&["--mount", "type=volume"], "target is required"),
        (&["--mount", "type=what,target=/x"], "mount type \"what\" unknown"),
        (&["-v", "aa:/x", "-v", "bb:/x"], "Duplicate mount point: /x"),
        (&["-v", "aa:/x", "--tmpfs", "/x/"], "Duplicate mount point: /x"),
        (&["-v", "aa:/x", "--mount", "target=/x/../x"], "Duplicate mount point: /x"),
        (&["-v", "a/b:/x"], "If you intended to pass a host directory, use absolute path"),
        (&["-v", "aa:/x:wild"], "invalid mode: wild"),
        (&["-v", "/"], "destination can't be '/'"),
    ] {
        host.dhow(["run", "--rm"]).args(args).args(["probe:1", "ls", "/"]).rejected(125, message);
    }
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "");
    // A program that fails takes its own volumes along, too.
    host.dhow(["run", "--rm", "probe:1", "exit", "3"]).fails(3);
    host.dhow(["run", "--rm", "--entrypoint", "/none.wasm", "probe:1"]).fails(127);
    assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "");
}

#[test]
fn memory_is_private_limited_and_gone_at_the_end() {
    let host = host();
    let big = "x".repeat(100_000);
    for mount in [&["--tmpfs", "/t:size=64k"][..], &["--mount", "type=tmpfs,dst=/t,tmpfs-size=64k"]] {
        let run =
            |args: &[&str]| host.dhow(["run", "--name", "memory"]).args(mount).args(["probe:1"]).args(args);
        assert_eq!(run(&["write", "/t/a", "b", "ls", "/t"]).ok(), "a\n");
        host.dhow(["rm", "-v", "memory"]).ok();
        if crate::support::is_root() {
            assert!(run(&["write", "/t/a", &big]).fails(1).stderr.contains("/t/a: No space left on device"));
            host.dhow(["rm", "-v", "memory"]).ok();
        }
    }
    let run =
        host.dhow(["run", "--rm", "--mount", "type=tmpfs,dst=/t,readonly", "probe:1", "write", "/t/a", "b"]);
    run.fails(1);
}

#[test]
fn twenty_at_once_fill_one_volume_once() {
    let host = host();
    let calls: Vec<_> = (0..20)
        .map(|_| host.dhow(["run", "--rm", "-v", "data:/data", "probe:1", "ls", "/data"]).spawn())
        .collect();
    for call in calls {
        let outcome = call.outcome();
        assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "one\n"), "{outcome:#?}");
    }
    let removals: Vec<_> = (0..4).map(|_| host.dhow(["volume", "rm", "data"]).spawn()).collect();
    let codes: Vec<_> = removals.into_iter().map(|call| call.outcome().code).collect();
    assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
}

#[test]
fn options_of_the_local_driver() {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    fs_err::create_dir(host.path("shared")).unwrap();
    let device = format!("device={}", host.text("shared"));
    let bind = ["--opt", "type=none", "--opt", "o=bind", "--opt", &device];
    host.dhow(["volume", "create"]).args(bind).args(["folder"]).ok();
    host.dhow(["run", "--rm", "-v", "folder:/data", "./probe.wasm", "write", "/data/one", "wasm"]).ok();
    assert_eq!(fs_err::read_to_string(host.path("shared/one")).unwrap(), "wasm\n");
    let read = ["run", "--rm", "-v", "folder:/data", "busybox:1", "cat", "/data/one"];
    assert_eq!(host.dhow(read).ok(), "wasm\n");
    // Only to be read, and named on the way.
    let mount =
        format!("type=volume,src=other,dst=/data,volume-opt=type=none,volume-opt=o=bind,volume-opt={device}");
    assert_eq!(host.dhow(["run", "--rm", "--mount", &mount, "busybox:1", "cat", "/data/one"]).ok(), "wasm\n");
    let memory = ["--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,mode=1777"];
    host.dhow(["volume", "create"]).args(memory).args(["memory"]).ok();
    let df = ["run", "--rm", "-v", "memory:/data", "busybox:1", "sh", "-c", "df -k /data | tail -n 1"];
    let df = host.dhow(df).ok();
    assert!(df.starts_with("tmpfs ") && df.split_whitespace().nth(1) == Some("1024"), "{df}");
    host.dhow(["run", "--rm", "-v", "memory:/data", "./probe.wasm", "write", "/data/x", "y"]).ok();
    host.dhow(["run", "--rm", "-v", "memory:/data", "./probe.wasm", "read", "/data/x"]).fails(1);
    // A volume goes, what it stood for stays.
    host.dhow(["volume", "rm", "folder", "other", "memory"]).ok();
    assert!(host.path("shared/one").exists());
    for (options, message) in [
        (&["--opt", "type=tmpfs"][..], "missing required option: \"device\""),
        (&["--opt", "colour=blue"], "invalid option: \"colour\""),
        (&["--opt", "type=nfs", "--opt", "device=:/x"], "a volume of type \"nfs\" is not supported yet"),
    ] {
        host.dhow(["volume", "create"]).args(options).rejected(1, message);
    }
    host.dhow([
        "volume",
        "create",
        "--opt",
        "type=none",
        "--opt",
        "o=bind",
        "--opt",
        "device=/nosuch",
        "gone",
    ])
    .ok();
    host.dhow(["run", "--rm", "-v", "gone:/data", "busybox:1", "true"])
        .rejected(125, "failed to mount local volume: mount /nosuch");
}
