//! Both kinds of container without any privilege: as the user `dhow-test`, who has no rights but a range of ids.

use std::process::Command;

use crate::support::{Host, Image, Registry, Run, Terminal, Tree, busybox, debian, guest, is_root, tool};

fn host() -> Option<Host> {
    let host = Host::unprivileged()?;
    host.load(&[("busybox:1", busybox())]);
    Some(host)
}

#[test]
fn a_wasm_program_runs() {
    let Some(host) = Host::unprivileged() else { return };
    host.file("probe.wasm", guest("probe.wasm"));
    let out = host.dhow(["run", "--rm", "./probe.wasm", "write", "/x", "1", "read", "/x"]).ok();
    assert_eq!(out, "1\n");
    let image =
        Image::wasm().layer(Tree::new().file("p.wasm", 0o644, guest("probe.wasm"))).entrypoint(&["/p.wasm"]);
    host.load(&[("probe:1", image)]);
    assert_eq!(host.dhow(["run", "--rm", "probe:1", "args", "a"]).ok(), "a\n");
}

#[test]
fn a_linux_program_runs_as_root_of_its_own_world() {
    let Some(host) = host() else { return };
    let script = "id -u; touch /x && rm /etc/group && echo $$; hostname > /tmp/h; cat /etc/passwd | wc -l";
    let out = host.dhow(["run", "--rm", "--network", "none", "busybox:1", "sh", "-c", script]).ok();
    assert_eq!(out.lines().map(str::trim).collect::<Vec<_>>(), ["0", "1", "2"]);
    host.dhow(["run", "--rm", "busybox:1", "sh", "-c", "exit 7"]).fails(7);
    host.has_no_container();
}

#[test]
fn users_of_the_image_are_real() {
    let Some(host) = host() else { return };
    let script =
        "id -u; id -g; touch /tmp/mine; stat -c %u:%g /tmp/mine; touch /root/x 2>/dev/null || echo refused";
    let out = host.dhow(["run", "--rm", "-u", "app", "busybox:1", "sh", "-c", script]).ok();
    assert_eq!(out, "1000\n1000\n1000:1000\nrefused\n");
    let out = host
        .dhow(["run", "--rm", "busybox:1", "sh", "-c", "touch /f; chown 1000:50 /f; stat -c %u:%g /f"])
        .ok();
    assert_eq!(out, "1000:50\n");
}

#[test]
fn files_of_several_owners_unpack_and_can_be_removed() {
    let Some(host) = Host::unprivileged() else { return };
    let image = busybox().layer(Tree::new().dir("own", 0o700).owned("own/a", 0o600, (1000, 50), "a").owned(
        "own/b",
        0o600,
        (0, 0),
        "b",
    ));
    host.load(&[("own:1", image)]);
    let out = host.dhow(["run", "own:1", "sh", "-c", "stat -c %u:%g /own/a /own/b; chown 33 /own/b"]).ok();
    assert_eq!(out, "1000:50\n0:0\n");
    let id = host.dhow(["ps", "-aq"]).ok();
    host.dhow(["rm", id.trim()]).ok();
    host.dhow(["rmi", "own:1"]).ok();
    host.check();
}

#[test]
fn owners_of_a_pulled_image_are_kept_as_far_as_they_exist() {
    let Some(host) = Host::unprivileged() else { return };
    let registry = Registry::start();
    let tree = Tree::new().dir("own", 0o755).owned("own/last", 0o4640, (65536, 65536), "a").owned(
        "own/beyond",
        0o600,
        (3_000_000_000, 7),
        "b",
    );
    let name = registry.push("own:1", &busybox().layer(tree));
    let pulled = host.dhow(["pull", "-q", &name]).outcome();
    assert_eq!(pulled.code, 0, "{pulled:#?}");
    assert!(
        pulled.stderr.contains("warning: 1 file of ") && pulled.stderr.contains("/etc/subuid"),
        "{pulled:#?}"
    );
    let script = "stat -c '%u:%g %a' /own/last /own/beyond";
    // An owner that the user has no id for is the container's root.
    assert_eq!(host.dhow(["run", "--rm", &name, "sh", "-c", script]).ok(), "65536:65536 4640\n0:0 600\n");
    let uid = |path: &str| {
        let layers = fs_err::read_dir(host.root().join("layers")).unwrap();
        let found =
            layers.map(|entry| entry.unwrap().path().join("fs").join(path)).find(|path| path.exists());
        std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(found.unwrap()).unwrap())
    };
    // Outside it belongs to the last of the user's range.
    assert_eq!(uid("own/last"), subordinate_start() + 65535);
    host.check();
    host.dhow(["rmi", &name]).ok();
    assert_eq!(fs_err::read_dir(host.root().join("layers")).unwrap().count(), 0);
}

/// As a user whom neither `/etc/passwd` nor `/etc/subuid` knows.
#[test]
fn a_user_without_other_ids_is_told_so() {
    if !is_root() {
        println!("skipped: becoming another user needs root");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs_err::copy(env!("CARGO_BIN_EXE_dhow"), dir.path().join("dhow")).unwrap();
    tool(Command::new("chmod").arg("755").arg(dir.path()));
    tool(Command::new("chown").args(["-R", "47110:47110"]).arg(dir.path()));
    let dhow = |args: &[&str]| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "47110", "--regid", "47110", "--clear-groups", "--"]);
        command.arg(dir.path().join("dhow")).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
        command.env("HOME", dir.path()).env("DHOW_ROOT", dir.path().join("root")).current_dir(dir.path());
        Run::new(command).args(args)
    };
    let notice = "all files of images will belong to you and seem root's in containers: /etc/subuid and";
    let registry = Registry::start();
    let tree = Tree::new().dir("own", 0o755).owned("own/file", 0o640, (1000, 50), "a");
    let name = registry.push("own:1", &busybox().layer(tree));
    let look = ["sh", "-c", "stat -c '%u:%g %a' /own/file"];
    let run = [&["run", "--rm", &name], &look[..]].concat();
    for first in [&["pull", "-q", &name][..], &run] {
        let outcome = dhow(first).outcome();
        assert_eq!(outcome.code, 0, "{outcome:#?}");
        assert_eq!(outcome.stderr.matches(notice).count(), 1, "{outcome:#?}");
        // Once said is enough.
        let again = dhow(&run).outcome();
        assert_eq!(
            (again.code, again.stdout.as_str(), again.stderr.as_str()),
            (0, "0:0 640\n", ""),
            "{again:#?}"
        );
        dhow(&["rmi", &name]).ok();
    }
    // Who wants to be somebody else in there cannot be.
    assert_eq!(dhow(&["pull", "-q", &name]).outcome().code, 0);
    let refused = dhow(&["run", "--rm", "-u", "1000", &name, "true"]).outcome();
    assert!(refused.code != 0 && refused.stderr.contains("/etc/subuid"), "{refused:#?}");
    assert_eq!(dhow(&["system", "check"]).outcome().code, 0);
}

/// The first of the test user's ids in `/etc/subuid`.
fn subordinate_start() -> u32 {
    let ranges = fs_err::read_to_string("/etc/subuid").unwrap();
    let line = ranges.lines().find_map(|line| line.strip_prefix("dhow-test:")).unwrap();
    line.split(':').next().unwrap().parse().unwrap()
}

#[test]
fn volumes_belong_to_the_caller() {
    let Some(host) = host() else { return };
    host.file("data/text", "from the host\n");
    let volume = format!("{}:/data", host.text("data"));
    let out = host.dhow([
        "run",
        "--rm",
        "-v",
        &volume,
        "busybox:1",
        "sh",
        "-c",
        "cat /data/text; touch /data/made; stat -c %u /data/made",
    ]);
    assert_eq!(out.ok(), "from the host\n0\n");
    let owner = |name| std::os::unix::fs::MetadataExt::uid(&fs_err::metadata(host.path(name)).unwrap());
    assert_eq!(owner("data/made"), owner("data/text"));
}

#[test]
fn a_terminal_works() {
    let Some(host) = host() else { return };
    let call = host.dhow(["run", "--rm", "-it", "busybox:1", "sh"]).into_command();
    let mut shell = Terminal::start(&call, 24, 80);
    shell.expect("# ");
    shell.send("tty; id -u; exit 4\r");
    shell.expect("/dev/pts/0\r\n0\r\n");
    assert_eq!(shell.code(), 4);
}

#[test]
fn pull_and_a_whole_debian() {
    let Some(host) = Host::unprivileged() else { return };
    let Some(image) = debian() else { return };
    let registry = Registry::start();
    let name = registry.push("debian:local", &image);
    host.dhow(["pull", "-q", &name]).ok();
    let out = host.dhow([
        "run",
        "--rm",
        &name,
        "bash",
        "-c",
        "id -un; su -s /bin/sh nobody -c 'id -un'; stat -c %U /var/mail /etc/shadow",
    ]);
    assert_eq!(out.ok(), "root\nnobody\nroot\nroot\n");
}

#[test]
fn the_host_is_no_more_reachable_than_before() {
    let Some(host) = host() else { return };
    let script = "cat /proc/sys/kernel/osrelease >/dev/null; (echo 1 > /proc/sys/kernel/panic) 2>/dev/null && echo bad; mount -t tmpfs x /tmp 2>/dev/null && echo bad; grep Seccomp: /proc/self/status | tr -s '\\t' ' '";
    assert_eq!(host.dhow(["run", "--rm", "busybox:1", "sh", "-c", script]).ok(), "Seccomp: 2\n");
}

/// A network without root needs a device that may be root's alone here: the command sees one that is everybody's.
pub(super) fn with_tunnels(run: Run, device: &str) -> Run {
    let given = run.into_command();
    let script = "mount --make-rprivate / && mount --bind $0 /dev/net/tun && exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, device]).arg(given.get_program()).args(given.get_args());
    for (name, value) in given.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(folder) = given.get_current_dir() {
        command.current_dir(folder);
    }
    Run::new(command)
}

#[test]
fn a_network_without_root() {
    if !is_root() || !std::path::Path::new("/dev/net/tun").exists() {
        println!("skipped: opening /dev/net/tun to everybody needs root, and the device");
        return;
    }
    let Some(host) = host() else { return };
    let device = host.text("tun");
    tool(Command::new("mknod").args(["-m", "666", &device, "c", "10", "200"]));
    let dhow = |args: &[&str]| with_tunnels(host.dhow(args), &device);
    for network in ["pasta", "slirp4netns"] {
        let server = "while true; do echo word | nc -l -p 80; done";
        let run = [
            "run",
            "-d",
            "--name",
            "web",
            "--network",
            network,
            "-p",
            "127.0.0.1::80",
            "busybox:1",
            "sh",
            "-c",
        ];
        dhow(&[&run[..], &[server]].concat()).ok();
        let port = dhow(&["port", "web", "80"]).ok();
        assert_eq!(super::network::answer(port.trim()), "word\n", "{network}");
        let pid = dhow(&["inspect", "web", "--format", "{{.State.Pid}}"]).ok();
        dhow(&["rm", "-f", "web"]).ok();
        // Nobody copies any more: the port is free.
        std::net::TcpListener::bind(port.trim()).expect("a free port");
        let left = Command::new("pgrep")
            .args(["-f", &format!("(pasta|slirp4netns).* {}( |$)", pid.trim())])
            .output();
        assert_eq!(String::from_utf8_lossy(&left.expect("pgrep").stdout), "");
    }
    // Where it cannot be, it is said.
    host.dhow(["run", "--rm", "--network", "slirp4netns", "busybox:1", "true"])
        .rejected(125, "made no network");
    host.check();
}
