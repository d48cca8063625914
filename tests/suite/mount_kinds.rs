//! `--mount`: images, folders of volumes and of images, and volumes in memory, for both kinds of containers.

use crate::support::*;

fn host() -> Host {
    let parts = Tree::new().file("data/text", 0o644, "of the image\n").file("data/deep/one", 0o644, "deep\n");
    let parts = parts.symlink("data/out", "/etc").symlink("data/in", "deep");
    let tools = Image::native().layer(parts).layer(Tree::new().file("data/two", 0o644, "layer two\n"));
    let host = Host::with(&[("busybox:1", busybox()), ("parts:1", tools)]);
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

#[test]
fn an_image_is_mounted_in_both_kinds() {
    let host = host();
    for layers in ["index", "files"] {
        let run = |mount: &str, args: &[&str]| {
            let line = [&["run", "--rm", "--mount", mount][..], args].concat();
            host.dhow(line).env("DHOW_LAYERS", layers).outcome()
        };
        let whole = "type=image,source=parts:1,target=/parts";
        let native = run(whole, &["busybox:1", "cat", "/parts/data/text", "/parts/data/two"]);
        assert_eq!(native.stdout, "of the image\nlayer two\n", "{layers}: {native:#?}");
        let wasm = run(whole, &["./probe.wasm", "read", "/parts/data/text", "read", "/parts/data/two"]);
        assert_eq!(wasm.stdout, "of the image\nlayer two\n", "{layers}: {wasm:#?}");
        // Nobody writes into it.
        let native = run(whole, &["busybox:1", "sh", "-c", "echo x > /parts/data/text"]);
        assert!(native.code != 0 && native.stderr.contains("Read-only"), "{layers}: {native:#?}");
        assert_ne!(run(whole, &["./probe.wasm", "write", "/parts/data/text", "x"]).code, 0, "{layers}");
        let part = "type=image,source=parts:1,target=/parts,image-subpath=data/deep";
        assert_eq!(run(part, &["busybox:1", "cat", "/parts/one"]).stdout, "deep\n", "{layers}");
        assert_eq!(run(part, &["./probe.wasm", "read", "/parts/one"]).stdout, "deep\n", "{layers}");
    }
    host.check();
}

#[test]
fn an_image_in_use_as_a_mount_stays() {
    let host = host();
    let mount = "type=image,src=parts:1,dst=/parts";
    host.dhow(["create", "--name", "it", "--mount", mount, "busybox:1", "cat", "/parts/data/text"]).ok();
    let shown = host.dhow(["inspect", "it", "--format", "{{json .Mounts}}"]).ok();
    for word in ["\"Type\":\"image\"", "\"Destination\":\"/parts\"", "\"RW\":false", "\"Name\":\"parts:1\""] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    host.dhow(["rmi", "-f", "parts:1"]).outcome();
    host.dhow(["image", "prune", "-af"]).ok();
    host.check();
    assert_eq!(host.dhow(["start", "-a", "it"]).ok(), "of the image\n");
    host.dhow(["rm", "it"]).ok();
    host.dhow(["image", "prune", "-af"]).ok();
    assert!(!host.dhow(["images", "--format", "{{.Repository}}"]).ok().contains("parts"));
    host.check();
}

#[test]
fn what_an_image_mount_cannot_be() {
    let host = host();
    for (mount, message) in [
        ("type=image,source=nosuch:1,target=/x", "No such image: nosuch:1"),
        ("type=image,target=/x", "field Source must not be empty"),
        ("type=image,source=parts:1,target=/x,image-subpath=../x", "subpath must be a relative path"),
        ("type=image,source=parts:1,target=/x,image-subpath=/data", "subpath must be a relative path"),
        ("type=image,source=parts:1,target=/x,volume-nocopy", "cannot mix 'volume-*' options"),
        ("type=bind,source=/,target=/x,image-subpath=a", "cannot mix 'image-*' options"),
        ("type=image,source=parts:1,target=/", "destination can't be '/'"),
    ] {
        host.dhow(["run", "--rm", "--mount", mount, "busybox:1", "true"]).rejected(125, message);
    }
    let missing = "type=image,source=parts:1,target=/x,image-subpath=data/nope";
    for layers in ["index", "files"] {
        let line = ["run", "--rm", "--mount", missing, "busybox:1", "true"];
        let refused = host.dhow(line).env("DHOW_LAYERS", layers).outcome();
        assert_eq!(refused.code, 125, "{layers}: {refused:#?}");
        // A link that leads out of the image shows nothing of this host.
        let out = "type=image,source=parts:1,target=/x,image-subpath=data/out";
        let line = ["run", "--rm", "--mount", out, "busybox:1", "ls", "/x"];
        let refused = host.dhow(line).env("DHOW_LAYERS", layers).outcome();
        assert_eq!((refused.code, refused.stdout.as_str()), (125, ""), "{layers}: {refused:#?}");
    }
    host.check();
}

#[test]
fn a_folder_of_a_volume() {
    let host = host();
    let script =
        "mkdir -p /v/a/b; echo deep > /v/a/b/f; ln -s /etc /v/out; ln -s ../../.. /v/a/up; ln -s a /v/in";
    host.dhow(["run", "--rm", "-v", "data:/v", "busybox:1", "sh", "-c", script]).ok();
    let of = |path: &str| format!("type=volume,source=data,target=/s,volume-subpath={path}");
    for path in ["a/b", "in/b", "./a//b/"] {
        let run = ["run", "--rm", "--mount", &of(path)];
        assert_eq!(host.dhow([&run[..], &["busybox:1", "cat", "/s/f"]].concat()).ok(), "deep\n", "{path}");
        assert_eq!(
            host.dhow([&run[..], &["./probe.wasm", "read", "/s/f"]].concat()).ok(),
            "deep\n",
            "{path}"
        );
    }
    // What is written there is in the volume.
    let run = ["run", "--rm", "--mount", &of("a/b")];
    host.dhow([&run[..], &["./probe.wasm", "write", "/s/wasm", "w"]].concat()).ok();
    host.dhow([&run[..], &["busybox:1", "sh", "-c", "echo n > /s/native"]].concat()).ok();
    let read = ["run", "--rm", "-v", "data:/v", "busybox:1", "cat", "/v/a/b/wasm", "/v/a/b/native"];
    assert_eq!(host.dhow(read).ok(), "w\nn\n");
    for (path, why) in [
        ("out", "it leads out of it"),
        ("a/up", "it leads out of it"),
        ("nope", "No such file or directory"),
        ("../x", "subpath must be a relative path"),
        ("/a", "subpath must be a relative path"),
    ] {
        for program in [&["busybox:1", "ls", "/s"][..], &["./probe.wasm", "ls", "/s"]] {
            host.dhow([&["run", "--rm", "--mount", &of(path)][..], program].concat()).rejected(125, why);
        }
    }
    host.dhow(["run", "--rm", "--mount", "target=/s,volume-subpath=a", "busybox:1", "true"])
        .rejected(125, "must not set Subpath when using anonymous volumes");
    host.check();
}

#[test]
fn volumes_in_memory_are_shared_while_somebody_runs() {
    if !is_root() {
        println!("skipped: without root each container has its own");
        return;
    }
    let host = host();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m"];
    host.dhow(["volume", "create"]).args(options).args(["fast"]).ok();
    let read = |path: &str| host.dhow(["run", "--rm", "-v", "fast:/m", "busybox:1", "cat", path]).outcome();
    let hold = "echo shared > /m/f; echo ready; sleep 1000";
    host.dhow(["run", "-d", "--name", "one", "-v", "fast:/m", "busybox:1", "sh", "-c", hold]).ok();
    until("it is written", || host.dhow(["logs", "one"]).ok().contains("ready").then_some(()));
    assert_eq!(read("/m/f").stdout, "shared\n");
    let wasm =
        host.dhow(["run", "--rm", "-v", "fast:/m", "./probe.wasm", "read", "/m/f", "write", "/m/w", "w"]);
    assert_eq!(wasm.ok(), "shared\n");
    assert_eq!(read("/m/w").stdout, "w\n");
    let full = ["exec", "one", "sh", "-c", "dd if=/dev/zero of=/m/big bs=1k count=2000"];
    assert!(host.dhow(full).outcome().stderr.contains("No space left"));
    // Another one takes it over, and the files with it; with the last they go.
    host.dhow(["run", "-d", "--name", "two", "-v", "fast:/m", "busybox:1", "sleep", "1000"]).ok();
    host.dhow(["rm", "-f", "one"]).ok();
    assert_eq!(host.dhow(["exec", "two", "cat", "/m/f"]).ok(), "shared\n");
    host.dhow(["stop", "-t", "0", "two"]).ok();
    assert_ne!(read("/m/f").code, 0);
    host.check();
    host.dhow(["rm", "two"]).ok();
    host.dhow(["volume", "rm", "fast"]).ok();
    host.check();
}

#[test]
fn memory_of_a_killed_monitor_is_found() {
    if !is_root() {
        println!("skipped: without root each container has its own");
        return;
    }
    let host = host();
    let options = ["-o", "type=tmpfs", "-o", "device=tmpfs"];
    host.dhow(["volume", "create"]).args(options).args(["fast"]).ok();
    let line = ["run", "-d", "--name", "one", "-v", "fast:/m", "--ipc", "shareable", "--network", "none"];
    host.dhow(line).args(["busybox:1", "sleep", "1000"]).ok();
    let pid = host.dhow(["inspect", "one", "--format", "{{.State.Pid}}"]).ok();
    let status = fs_err::read_to_string(format!("/proc/{}/status", pid.trim())).expect("a status");
    let parent =
        status.lines().find_map(|line| line.strip_prefix("PPid:")).expect("a parent").trim().to_owned();
    tool(std::process::Command::new("kill").args(["-9", &parent]));
    until("it is gone", || {
        let state = host.dhow(["inspect", "one", "--format", "{{.State.Status}}"]).ok();
        (state != "running\n").then_some(())
    });
    let found = host.dhow(["system", "check"]).fails(1).stdout;
    assert!(found.contains("memory of a volume that no running container has"), "{found}");
    until("all of it is repaired", || {
        host.dhow(["system", "check", "--repair"]).outcome();
        (host.dhow(["system", "check"]).outcome().code == 0).then_some(())
    });
    host.dhow(["rm", "-f", "one"]).ok();
    host.dhow(["volume", "rm", "fast"]).ok();
    host.check();
}

#[test]
fn shared_memory_has_a_size() {
    if !is_root() {
        println!("skipped: without root it is a folder of the host's memory");
        return;
    }
    let host = host();
    let line = ["run", "-d", "--name", "one", "--ipc", "shareable", "--shm-size", "2m", "--network", "none"];
    host.dhow(line).args(["busybox:1", "sleep", "1000"]).ok();
    host.dhow(["exec", "one", "sh", "-c", "echo there > /dev/shm/f"]).ok();
    let join = ["run", "--rm", "--ipc", "container:one", "--network", "none", "busybox:1", "sh", "-c"];
    let script =
        "cat /dev/shm/f; dd if=/dev/zero of=/dev/shm/big bs=1k count=3000 2>&1 | grep -o 'No space left'";
    assert_eq!(host.dhow([&join[..], &[script]].concat()).ok(), "there\nNo space left\n");
    host.dhow(["stop", "-t", "0", "one"]).ok();
    host.check();
    let mounts = fs_err::read_to_string("/proc/self/mountinfo").expect("mounts");
    let id = host.dhow(["inspect", "one", "--format", "{{.Id}}"]).ok();
    assert!(!mounts.contains(id.trim()), "{mounts}");
    host.dhow(["start", "one"]).ok();
    host.dhow(["rm", "-f", "one"]).ok();
    host.check();
}
