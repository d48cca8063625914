//! A command that is killed, or meets a full disk, at any of its system calls: what was promised before is still
//! there, what is left over is nobody's and is swept, and the same command works afterwards.
//!
//! `strace` ends the command at the Nth call of those that change something (or makes that call fail). Every command
//! is tried at about twenty points, spread evenly; with `DHOW_TEST_EXHAUSTIVE=1` at all of them.

mod ends;
mod networks;

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Host, Image, Layout, Registry, Tree, busybox, is_root, noise, tool};

/// Points of each command when not all are tried.
const SAMPLED: usize = 20;

/// Calls that change something on the disk, or are about to.
const CHANGES: &str = "openat,write,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,fsync,fdatasync,\
                       syncfs,ftruncate,fchmod,fchmodat,chmod,fchownat,utimensat,flock,symlinkat,linkat,\
                       mount,fsconfig,fsmount,move_mount,umount2";

/// Calls that may find the disk full.
const FILLS: &str =
    "openat,write,rename,renameat,renameat2,mkdir,mkdirat,fsync,fdatasync,syncfs,symlinkat,linkat";

/// A command, the store it works on, and what must be true afterwards.
struct Case<'a> {
    host: Host,
    /// A copy of the store before the command.
    before: PathBuf,
    args: Vec<String>,
    /// What is done to every copy of the store before the command, as it cannot be copied.
    prepare: fn(&Host),
    /// Whether the command failing when it is repeated is right: it may have done its work.
    may_be_done: fn(&str) -> bool,
    /// What was promised before, and is still so whenever the command was killed.
    holds: &'a dyn Fn(&Host),
    /// What is so once the command has succeeded.
    done: &'a dyn Fn(&Host),
}

/// Commands whose leftovers are swept by `system check --repair` alone.
const LIVES: [&str; 14] = [
    "run", "create", "start", "restart", "stop", "kill", "rm", "rename", "cp", "commit", "volume", "update",
    "system", "network",
];

fn never(_: &str) -> bool {
    false
}

/// Whether this host lets us trace.
fn can_trace() -> bool {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "true"])
        .output()
        .expect("strace (Debian package strace)");
    if !traced.status.success() {
        println!("skipped: this host does not allow strace");
    }
    traced.status.success()
}

impl<'a> Case<'a> {
    fn new(host: Host, args: &[&str], holds: &'a dyn Fn(&Host), done: &'a dyn Fn(&Host)) -> Self {
        let before = host.path("before");
        tool(Command::new("cp").args(["-a"]).arg(host.root()).arg(&before));
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { host, before, args, prepare: |_| {}, may_be_done: never, holds, done }
    }

    /// The command under strace with these options; its exit code and all that it said.
    fn traced(&self, options: &[String]) -> (Option<i32>, String) {
        let call = self.host.dhow(&self.args).into_command();
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-o"]).arg(self.host.path("trace")).args(options);
        strace.arg("--").arg(call.get_program()).args(call.get_args());
        strace.env_clear().envs(call.get_envs().filter_map(|(name, value)| Some((name, value?))));
        strace.current_dir(call.get_current_dir().expect("set"));
        let output = strace.output().expect("strace");
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        (output.status.code(), said.concat())
    }

    fn reset(&self) {
        if self.args[1].ends_with("mount") {
            // What is mounted in it cannot be removed.
            drop(self.host.dhow(["image", "unmount", "--all"]).outcome());
        }
        tool(Command::new("rm").arg("-rf").arg(self.host.root()));
        tool(Command::new("cp").arg("-a").arg(&self.before).arg(self.host.root()));
        (self.prepare)(&self.host);
    }

    /// The most calls of this kind that one thread makes: that many points there are.
    fn count(&self, calls: &str) -> usize {
        self.reset();
        let (code, said) = self.traced(&["-e".to_owned(), format!("trace={calls}")]);
        assert_eq!(code, Some(0), "{said}");
        let trace = fs_err::read_to_string(self.host.path("trace")).unwrap();
        let mut threads = std::collections::HashMap::new();
        for line in trace.lines().filter(|line| line.contains('(') && !line.contains("resumed>")) {
            *threads.entry(line.split(' ').next()).or_insert(0) += 1;
        }
        threads.into_values().max().unwrap_or(0)
    }

    fn points(count: usize) -> Vec<usize> {
        if std::env::var_os("DHOW_TEST_EXHAUSTIVE").is_some_and(|value| value == "1") || count <= SAMPLED {
            return (1..=count).collect();
        }
        (0..SAMPLED).map(|n| 1 + n * (count - 1) / (SAMPLED - 1)).collect()
    }

    /// Everything that `system check` says is left over, nothing is damaged.
    fn only_leftovers(&self, point: &str) {
        let check = self.host.dhow(["system", "check"]).outcome();
        for line in check.lines() {
            let harmless = [
                "left by a process",
                "leftover of",
                "does not exist",
                "monitor was killed",
                "outlived",
                "that is not mounted",
            ];
            assert!(harmless.iter().any(|what| line.contains(what)), "{point}: {line}\n{check:#?}");
        }
    }

    /// The same command again, and then everything is as if nothing had happened.
    fn recovers(&self, point: &str) {
        (self.holds)(&self.host);
        self.only_leftovers(point);
        let again = self.host.dhow(&self.args).outcome();
        let done = again.code == 0 || (self.may_be_done)(&again.stderr);
        assert!(done && !again.stderr.contains("panicked"), "{point}: {again:#?}");
        if again.code != 0 {
            // It was done all but the end, and the next command that changes something sweeps.
            self.host.dhow(["image", "prune", "-f"]).ok();
        }
        (self.holds)(&self.host);
        (self.done)(&self.host);
        // What is left of a container, a volume or a mount is found by the check, everything else is swept by the
        // command.
        if LIVES.contains(&self.args[0].as_str()) || self.args[1].ends_with("mount") {
            let repaired = self.host.dhow(["system", "check", "--repair"]).outcome();
            assert_eq!(repaired.code, 0, "{point}: {repaired:#?}");
        }
        let check = self.host.dhow(["system", "check"]).outcome();
        assert_eq!(check.code, 0, "{point}: {check:#?}");
    }

    fn killed_everywhere(&self) {
        let count = self.count(CHANGES);
        assert!(count > 10, "only {count} calls that change something");
        for n in Self::points(count) {
            self.reset();
            self.traced(&["-e".to_owned(), format!("inject={CHANGES}:signal=KILL:when={n}")]);
            self.recovers(&format!("{:?} killed at call {n} of {count}", self.args));
        }
    }

    fn full_everywhere(&self) {
        let count = self.count(FILLS);
        for n in Self::points(count) {
            self.reset();
            let (code, said) =
                self.traced(&["-e".to_owned(), format!("inject={FILLS}:error=ENOSPC:when={n}")]);
            let point = format!("{:?} without space at call {n} of {count}: {code:?} {said}", self.args);
            assert!(!said.contains("panicked") && code.is_some(), "{point}");
            self.recovers(&point);
        }
    }

    fn everywhere(&self) {
        self.killed_everywhere();
        self.full_everywhere();
    }
}

fn layered() -> Image {
    let tree = (0..20).fold(Tree::new(), |tree, n| tree.file(&format!("f{n}"), 0o644, noise(1000 + n)));
    busybox().layer(tree).layer(Tree::new().file("own", 0o644, "x"))
}

fn archive(host: &Host, image: &Image, name: &str) -> String {
    let layout = Layout::new();
    layout.tag(&layout.image(image), name);
    layout.archive(&host.path("archive.tar"));
    host.text("archive.tar")
}

fn has(host: &Host, name: &str) -> bool {
    host.dhow(["images", "-q", name]).ok().lines().count() == 1
}

/// What every case begins with: an image that nothing happens to.
fn keeps_busybox(host: &Host) {
    assert!(has(host, "busybox:1"), "an image that was there is gone");
}

fn has_layered(host: &Host) {
    assert!(has(host, "layered:1"));
    assert_eq!(host.dhow(["run", "--rm", "layered:1", "cat", "/own"]).ok(), "x");
}

fn has_no_layered(host: &Host) {
    assert!(!has(host, "layered:1"));
    let partial = ["system", "df", "--format", "{{if eq .Type \"Partial Downloads\"}}{{.Size}}{{end}}"];
    assert_eq!(host.dhow(partial).ok().trim(), "0B");
}

#[test]
fn load() {
    if can_trace() {
        let host = Host::with_busybox();
        let file = archive(&host, &layered(), "layered:1");
        Case::new(host, &["load", "-q", "-i", &file], &keeps_busybox, &has_layered).everywhere();
    }
}

#[test]
fn pull() {
    if can_trace() {
        let registry = Registry::start();
        let name = registry.push("layered:1", &layered());
        let done = |host: &Host| {
            assert_eq!(host.dhow(["run", "--rm", &name, "cat", "/own"]).ok(), "x");
        };
        Case::new(Host::with_busybox(), &["pull", "-q", &name], &keeps_busybox, &done).everywhere();
    }
}

#[test]
fn tag() {
    if can_trace() {
        let host = Host::with(&[("busybox:1", busybox()), ("old:1", layered())]);
        let holds = |host: &Host| {
            keeps_busybox(host);
            // A name that moves stands for one image or the other at any time.
            assert!(has(host, "old:1"), "a name is lost while it moves");
        };
        let done = |host: &Host| {
            let id = |name: &str| host.dhow(["images", "-q", name]).ok();
            assert_eq!(id("busybox:1"), id("old:1"));
        };
        Case::new(host, &["tag", "busybox:1", "old:1"], &holds, &done).everywhere();
    }
}

#[test]
fn rmi() {
    if can_trace() {
        let host = Host::with(&[("busybox:1", busybox()), ("layered:1", layered())]);
        host.dhow(["run", "--rm", "layered:1", "true"]).ok();
        let mut case = Case::new(host, &["rmi", "layered:1"], &keeps_busybox, &has_no_layered);
        case.may_be_done = |said| said.contains("no such image");
        case.everywhere();
    }
}

#[test]
fn prune() {
    if can_trace() {
        let host = Host::with(&[("busybox:1", busybox()), ("layered:1", layered())]);
        host.dhow(["run", "--rm", "layered:1", "true"]).ok();
        host.dhow(["run", "--name", "user", "busybox:1", "true"]).ok();
        Case::new(host, &["image", "prune", "-af"], &keeps_busybox, &has_no_layered).everywhere();
    }
}

#[test]
fn run() {
    if can_trace() {
        let host = Host::with_busybox();
        let args = ["run", "--rm", "busybox:1", "sh", "-c", "echo x >/file"];
        Case::new(host, &args, &keeps_busybox, &keeps_busybox).killed_everywhere();
    }
}

#[test]
fn save() {
    let host = Host::with_busybox();
    if host.dhow(["save", "--help"]).outcome().code != 0 {
        println!("skipped: there is no `save` yet");
        return;
    }
    if can_trace() {
        let file = host.text("saved.tar");
        let done = |host: &Host| {
            assert_eq!(
                host.dhow(["load", "-q", "-i", &host.text("saved.tar")]).ok(),
                "Loaded image: busybox:1\n"
            );
        };
        Case::new(host, &["save", "-o", &file, "busybox:1"], &keeps_busybox, &done).everywhere();
    }
}

/// A container of this name, which has run once and has written a file.
fn with_container(name: &str) -> Host {
    let host = Host::with_busybox();
    host.dhow(["run", "--name", name, "busybox:1", "sh", "-c", "echo kept > /kept; echo said"]).ok();
    host
}

/// What is there already stays, whatever happens to others.
fn keeps_container(host: &Host) {
    keeps_busybox(host);
    let names = host.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok();
    assert_eq!(names.lines().filter(|name| ["kept", "other"].contains(name)).count(), 1, "{names}");
    let log = host.dhow(["logs", names.lines().find(|name| ["kept", "other"].contains(name)).unwrap()]).ok();
    assert!(log.starts_with("said\n"), "a log is lost: {log}");
}

fn already_there(said: &str) -> bool {
    said.contains("already in use") || said.contains("same name as its current name")
}

#[test]
fn create() {
    if can_trace() {
        let args = ["create", "--name", "new", "-v", "data:/data", "busybox:1", "true"];
        let done = |host: &Host| {
            assert_eq!(host.dhow(["start", "-a", "new"]).ok(), "");
        };
        let mut case = Case::new(with_container("kept"), &args, &keeps_container, &done);
        case.may_be_done = already_there;
        case.everywhere();
    }
}

#[test]
fn run_in_the_background() {
    if can_trace() {
        let args = ["run", "-d", "--name", "new", "busybox:1", "sh", "-c", "echo x > /file"];
        let done = |host: &Host| {
            host.dhow(["rm", "-f", "new"]).ok();
        };
        let mut case = Case::new(with_container("kept"), &args, &keeps_container, &done);
        case.may_be_done = already_there;
        case.killed_everywhere();
    }
}

#[test]
fn start_and_restart() {
    if can_trace() {
        for verb in [&["start"][..], &["restart", "-t", "0"]] {
            let args = [verb, &["kept"]].concat();
            let done = |host: &Host| {
                assert_eq!(host.dhow(["wait", "kept"]).ok(), "0\n");
            };
            Case::new(with_container("kept"), &args, &keeps_container, &done).killed_everywhere();
        }
    }
}

#[test]
fn update() {
    if can_trace() {
        let done = |host: &Host| {
            let format = "{{.HostConfig.CpuShares}} {{.HostConfig.RestartPolicy.Name}}";
            assert_eq!(host.dhow(["inspect", "--format", format, "kept"]).ok(), "300 on-failure\n");
        };
        let args = ["update", "--cpu-shares", "300", "--restart", "on-failure:1", "kept"];
        Case::new(with_container("kept"), &args, &keeps_container, &done).everywhere();
    }
}

#[test]
fn one_that_restarts_and_is_looked_after() {
    if can_trace() {
        let args = [
            "run",
            "-d",
            "--name",
            "new",
            "--restart",
            "on-failure:1",
            "--health-cmd",
            "true",
            "--health-interval",
            "10ms",
            "busybox:1",
            "sh",
            "-c",
            "sleep 0.05; exit 1",
        ];
        let done = |host: &Host| {
            host.dhow(["rm", "-f", "new"]).ok();
        };
        let mut case = Case::new(with_container("kept"), &args, &keeps_container, &done);
        case.may_be_done = already_there;
        case.killed_everywhere();
    }
}

#[test]
fn system_start() {
    if can_trace() {
        let host = Host::with_busybox();
        let script = "echo kept > /kept; echo said; exit 1";
        host.dhow(["run", "--name", "kept", "busybox:1", "sh", "-c", script]).fails(1);
        // One that has an end: the trace goes on as long as its monitor.
        host.dhow(["update", "--restart", "on-failure:1", "kept"]).ok();
        let done = |host: &Host| {
            // Nobody may start it again in the next one's store.
            host.dhow(["stop", "-t", "0", "kept"]).ok();
            assert!(!host.dhow(["logs", "kept"]).ok().is_empty());
        };
        Case::new(host, &["system", "start"], &keeps_container, &done).killed_everywhere();
    }
}

#[test]
fn rename() {
    if can_trace() {
        let done = |host: &Host| {
            assert_eq!(host.dhow(["ps", "-a", "--format", "{{.Names}}"]).ok(), "other\n");
        };
        let args = ["rename", "kept", "other"];
        let mut case = Case::new(with_container("kept"), &args, &keeps_container, &done);
        case.may_be_done = |said| already_there(said) || said.contains("No such container: kept");
        case.everywhere();
    }
}

#[test]
fn copy_into_a_container() {
    if can_trace() {
        let host = with_container("kept");
        let file = host.file("file", noise(100_000));
        let done = |host: &Host| {
            host.dhow(["cp", "kept:/file", &host.text("back")]).ok();
            assert_eq!(fs_err::read(host.path("back")).unwrap(), noise(100_000));
        };
        Case::new(host, &["cp", &file, "kept:/file"], &keeps_container, &done).killed_everywhere();
    }
}

#[test]
fn commit() {
    if can_trace() {
        let done = |host: &Host| {
            assert_eq!(host.dhow(["run", "--rm", "made:1", "cat", "/kept"]).ok(), "kept\n");
        };
        let args = ["commit", "kept", "made:1"];
        Case::new(with_container("kept"), &args, &keeps_container, &done).everywhere();
    }
}

#[test]
fn volumes() {
    if can_trace() {
        let there = |host: &Host| {
            keeps_container(host);
            assert_eq!(host.dhow(["volume", "ls", "-q", "--filter", "name=old"]).ok(), "old\n");
        };
        let host = with_container("kept");
        host.dhow(["volume", "create", "old"]).ok();
        let made = |host: &Host| {
            assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "new\nold\n");
        };
        Case::new(host, &["volume", "create", "new"], &there, &made).everywhere();
        let host = with_container("kept");
        host.dhow(["volume", "create", "old"]).ok();
        let gone = |host: &Host| {
            assert_eq!(host.dhow(["volume", "ls", "-q"]).ok(), "");
        };
        let mut case = Case::new(host, &["volume", "rm", "old"], &keeps_container, &gone);
        case.may_be_done = |said| said.contains("no such volume");
        case.everywhere();
    }
}

/// Nobody is left who would remove the control group of a container whose command and sandbox were killed.
#[test]
fn a_killed_client_leaves_nothing_for_long() {
    if !crate::support::is_root() {
        println!("skipped: control groups need root");
        return;
    }
    for parent in [None, Some("/dhow-test-parent/inner")] {
        killed_client(parent);
    }
}

fn killed_client(parent: Option<&str>) {
    use rustix::process::{Pid, Signal, kill_process};
    let host = Host::new();
    host.file("loop.wat", fs_err::read(crate::support::source("loop.wat")).unwrap());
    let mut line = vec!["run", "--rm", "-i", "--cpus", "0.5", "--name", "it"];
    line.extend(parent.into_iter().flat_map(|parent| ["--cgroup-parent", parent]));
    let mut running = host.dhow(line).args(["./loop.wat"]).spawn();
    let pid = crate::support::until("it runs", || {
        let pid = host.dhow(["inspect", "--format", "{{.State.Pid}}", "it"]).outcome().stdout;
        pid.trim().parse().ok().filter(|pid| *pid != 0)
    });
    let group = fs_err::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let parent = parent.unwrap_or("/dhow");
    assert!(group.contains(&format!("{parent}/")), "{group}");
    running.signal(Signal::KILL);
    running.close_stdin();
    drop(running);
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).ok();
    // While it is still dying, all is well.
    crate::support::until("all of it is repaired", || {
        host.dhow(["system", "check", "--repair"]).fails(0);
        let sound = host.dhow(["system", "check"]).outcome().code == 0;
        (sound && host.dhow(["ps", "-aq"]).ok().is_empty()).then_some(())
    });
    let name = group.lines().find_map(|line| line.split(&format!("{parent}/")).nth(1)).unwrap();
    let left = Command::new("find").args(["/sys/fs/cgroup", "-name", name]).output().expect("find");
    assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    // The parent is the user's own.
    let named =
        Command::new("find").args(["/sys/fs/cgroup", "-depth", "-path", "*/dhow-test-parent*"]).output();
    for folder in
        String::from_utf8_lossy(&named.expect("find").stdout).lines().filter(|line| !line.contains("/inner/"))
    {
        fs_err::remove_dir(folder).ok();
    }
}

fn mounted(host: &Host) -> String {
    host.dhow(["image", "mount", "--format", "{{.Path}}"]).ok()
}

#[test]
fn mount() {
    if !is_root() {
        println!("skipped: mounting an image needs root");
        return;
    }
    if can_trace() {
        let done = |host: &Host| {
            let path = mounted(host);
            assert_eq!(path.lines().count(), 1, "{path}");
            assert!(std::path::Path::new(path.trim()).join("bin/busybox").is_file());
            host.dhow(["image", "unmount", "busybox:1"]).ok();
        };
        Case::new(Host::with_busybox(), &["image", "mount", "busybox:1"], &keeps_busybox, &done).everywhere();
    }
}

#[test]
fn unmount() {
    if !is_root() {
        println!("skipped: mounting an image needs root");
        return;
    }
    if can_trace() {
        let done = |host: &Host| assert_eq!(mounted(host), "");
        let mut case =
            Case::new(Host::with_busybox(), &["image", "unmount", "busybox:1"], &keeps_busybox, &done);
        case.prepare = |host| drop(host.dhow(["image", "mount", "busybox:1"]).ok());
        case.may_be_done = |said| said.contains("is not mounted");
        case.everywhere();
    }
}
