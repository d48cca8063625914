//! Containers that change their files while these are looked at, copied and packed; records from another time: of a clock
//! that was set back, of a system that lost its power.

use std::process::Command;

use crate::support::*;

/// What a container does all the time: files come, go, grow, shrink, become folders and links out.
const CHANGES: &str = "mkdir -p /data/deep; echo kept > /data/kept; while true; do
    echo x > /data/file; head -c 50000 /dev/zero >> /data/grows; ln -sfn /etc /data/swap; mv /data/deep /data/moved
    rm /data/file; mkdir /data/file; : > /data/grows; rm /data/swap; mkdir /data/swap; mv /data/moved /data/deep
    rmdir /data/file /data/swap; mkfifo /data/file; rm /data/file; done";

/// A native container and a Wasm one that shares its folder, which never rest.
fn restless() -> Host {
    let host = Host::with_busybox();
    host.dhow(["run", "-d", "--name", "it", "--network", "none", "busybox:1", "sh", "-c", CHANGES]).ok();
    until("it is at work", || {
        (host.dhow(["exec", "it", "cat", "/data/kept"]).outcome().code == 0).then_some(())
    });
    host
}

/// It worked, or said in one line what was in the way.
fn is_fair(outcome: &Outcome) -> bool {
    let said = outcome.stderr.lines().filter(|line| line.starts_with("error: ")).count();
    !outcome.stderr.contains("panicked") && (outcome.code == 0 || (outcome.code == 1 && said == 1))
}

#[test]
fn files_that_change_while_they_are_copied() {
    let host = restless();
    let secret = fs_err::read_to_string("/etc/passwd").expect("a host has users");
    let mut worked = 0;
    for round in 0..12 {
        let to = host.path(format!("out{round}").as_str());
        fs_err::create_dir(&to).unwrap();
        let out = host.dhow(["cp", "it:/data", &to.display().to_string()]).outcome();
        assert!(is_fair(&out), "{out:#?}");
        worked += usize::from(out.code == 0);
        // What was not touched is whole, and nothing of this host came along by a link.
        let kept = to.join("data/kept");
        if out.code == 0 {
            assert_eq!(fs_err::read_to_string(kept).unwrap(), "kept\n");
        }
        let found =
            Command::new("grep").args(["-rlF", "--", secret.lines().next().unwrap()]).arg(&to).output();
        assert_eq!(String::from_utf8_lossy(&found.expect("grep").stdout), "");
        // Into it, through what may be a link at that moment.
        let file = host.file("in", "of the host\n");
        let into = host.dhow(["cp", &file, "it:/data/swap/in"]).outcome();
        assert!(is_fair(&into), "{into:#?}");
    }
    assert!(worked > 0, "never worked");
    assert!(!std::path::Path::new("/etc/in").exists());
    host.dhow(["exec", "it", "true"]).ok();
    host.dhow(["rm", "-f", "it"]).ok();
    host.check();
}

#[test]
fn files_that_change_while_they_are_packed() {
    let host = restless();
    for round in 0..6 {
        let diff = host.dhow(["diff", "it"]).outcome();
        assert!(is_fair(&diff) && diff.stdout.contains("A /data/kept"), "{diff:#?}");
        let name = format!("made:{round}");
        // It stands still meanwhile; without that it is as lucky as any copy.
        host.dhow(["commit", "it", &name]).ok();
        assert_eq!(
            host.dhow(["run", "--rm", "--network", "none", &name, "cat", "/data/kept"]).ok(),
            "kept\n"
        );
        let running = host.dhow(["commit", "--pause=false", "it", &name]).outcome();
        assert!(is_fair(&running), "{running:#?}");
        let archive = host.text("all.tar");
        let export = host.dhow(["export", "-o", &archive, "it"]).outcome();
        assert!(is_fair(&export), "{export:#?}");
        if export.code == 0 {
            let listed = tool(Command::new("tar").args(["-tf", &archive]));
            assert!(listed.lines().any(|line| line == "data/kept"), "{listed}");
        }
    }
    host.dhow(["rm", "-f", "it"]).ok();
    host.dhow(["image", "prune", "-af"]).ok();
    host.check();
}

/// The folder of a container.
fn folder(host: &Host, name: &str) -> std::path::PathBuf {
    let id = host.dhow(["inspect", name, "--format", "{{.Id}}"]).ok();
    host.root().join("containers").join(id.trim())
}

/// Replaces what a key of a record says.
fn set(path: &std::path::Path, key: &str, value: serde_json::Value) {
    let mut record: serde_json::Value = serde_json::from_slice(&fs_err::read(path).unwrap()).unwrap();
    assert!(record.get(key).is_some(), "{record}");
    record[key] = value;
    fs_err::write(path, record.to_string()).unwrap();
}

#[test]
fn a_clock_that_was_set_back() {
    let host = Host::with_busybox();
    let line = ["run", "--name", "it", "--network", "none", "busybox:1", "sh", "-c", "echo one; echo two"];
    host.dhow(line).ok();
    let later = "2999-01-02T03:04:05.000000006Z";
    let folder = folder(&host, "it");
    set(&folder.join("config.json"), "Created", later.into());
    set(&folder.join("state.json"), "StartedAt", later.into());
    set(&folder.join("state.json"), "FinishedAt", later.into());
    let log = host.dhow(["inspect", "it", "--format", "{{.LogPath}}"]).ok();
    let lines = fs_err::read_to_string(log.trim()).unwrap();
    let year = lines.split("\"time\":\"").nth(1).unwrap()[..4].to_owned();
    fs_err::write(log.trim(), lines.replace(&format!("\"time\":\"{year}"), "\"time\":\"2999")).unwrap();
    let shown = host.dhow(["ps", "-a"]).ok();
    assert!(shown.contains("Less than a second ago"), "{shown}");
    assert_eq!(host.dhow(["logs", "it"]).ok(), "one\ntwo\n");
    assert_eq!(host.dhow(["logs", "--tail", "1", "it"]).ok(), "two\n");
    assert_eq!(host.dhow(["logs", "--since", "1h", "it"]).ok(), "one\ntwo\n");
    assert_eq!(host.dhow(["logs", "--until", "1h", "it"]).ok(), "");
    // It goes on, by the clock as it is now; what is new is newest.
    host.dhow(["start", "-a", "it"]).ok();
    assert_eq!(host.dhow(["logs", "it"]).ok(), "one\ntwo\none\ntwo\n");
    assert_eq!(host.dhow(["logs", "--tail", "1", "it"]).ok(), "two\n");
    host.dhow(["run", "--name", "other", "--network", "none", "busybox:1", "true"]).ok();
    assert_eq!(host.dhow(["ps", "-aq", "--filter", "before=it"]).ok().lines().count(), 1);
    let told = host.dhow(["events", "--since", "1h", "--until", "0s", "--filter", "event=die"]).ok();
    assert_eq!(told.lines().count(), 3, "{told}");
    assert_eq!(
        host.dhow(["container", "prune", "-f", "--filter", "until=1h"]).ok().matches("Total").count(),
        1
    );
    assert_eq!(host.dhow(["ps", "-aq"]).ok().lines().count(), 2);
    host.check();
}

#[test]
fn what_an_earlier_boot_has_left() {
    let host = Host::with_busybox();
    host.dhow(["run", "-d", "--name", "it", "--network", "none", "busybox:1", "sleep", "1000"]).ok();
    let pid = host.dhow(["inspect", "it", "--format", "{{.State.Pid}}"]).ok().trim().to_owned();
    let status = fs_err::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let monitor = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim().to_owned();
    // The power fails: nobody writes anything down.
    tool(Command::new("kill").args(["-STOP", &monitor]));
    tool(Command::new("kill").args(["-KILL", &pid, &monitor]));
    until("both are gone", || (!std::path::Path::new(&format!("/proc/{monitor}")).exists()).then_some(()));
    // In the next boot its number is another process's, which is nobody's business.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let folder = folder(&host, "it");
    set(&folder.join("state.json"), "Pid", other.id().into());
    // Files that were in the making.
    for name in ["state.new", "config.new", "health.new"] {
        fs_err::write(folder.join(name), "{").unwrap();
    }
    assert_eq!(host.dhow(["inspect", "it", "--format", "{{.State.Status}} {{.State.Pid}}"]).ok(), "dead 0\n");
    host.dhow(["exec", "it", "true"]).rejected(1, "is not running");
    host.dhow(["kill", "it"]).rejected(1, "is not running");
    host.dhow(["stop", "it"]).ok();
    host.check();
    host.dhow(["start", "it"]).ok();
    assert_eq!(host.dhow(["inspect", "it", "--format", "{{.State.Status}}"]).ok(), "running\n");
    host.dhow(["rm", "-f", "it"]).ok();
    assert!(other.try_wait().unwrap().is_none(), "a stranger was killed");
    other.kill().unwrap();
    other.wait().unwrap();
    assert!(!folder.exists());
    host.check();
}

/// Names and labels that would draw on a terminal, break a line, a path, or a template.
#[test]
fn hostile_names_and_labels() {
    let host = Host::with_busybox();
    for name in ["../x", "a/b", "", "a b", "-x", "a\nb", "\u{1b}[2J", "é", &"a".repeat(300), ".", "{{.}}"] {
        let line = ["create", "--network", "none", &format!("--name={name}"), "busybox:1", "true"];
        let refused = host.dhow(line).outcome();
        if name.is_empty() {
            continue;
        }
        assert_eq!(refused.code, 1, "{name:?}: {refused:#?}");
        assert!(!refused.stderr.contains('\u{1b}') && !refused.stderr.contains("panicked"), "{refused:#?}");
    }
    let evil = "a\u{1b}[2J\nb\t{{.ID}},x=y\"'\\";
    let line = ["create", "--network", "none", "--name", "it", "-l", &format!("evil={evil}")];
    for label in ["=x", "="] {
        let refused = host.dhow(line).args(["-l", label, "busybox:1", "true"]).fails(125);
        assert!(refused.stderr.contains(&format!("invalid label '{label}': empty name")), "{refused:#?}");
    }
    host.dhow(line).args(["busybox:1", "true"]).ok();
    assert_eq!(
        host.dhow(["inspect", "it", "--format", "{{index .Config.Labels \"evil\"}}"]).ok(),
        format!("{evil}\n")
    );
    let table = host.dhow(["ps", "-a", "--format", "table {{.Names}}\t{{.Labels}}"]).ok();
    assert!(!table.contains('\u{1b}') && table.lines().count() == 2, "{table:?}");
    let ps = host.dhow(["ps", "-aq", "--filter", &format!("label=evil={evil}")]).ok();
    assert_eq!(ps.lines().count(), 1);
    let told = host.dhow(["events", "--since", "1h", "--until", "0s", "--filter", "container=it"]).ok();
    assert!(!told.contains('\u{1b}'), "{told:?}");
    host.dhow(["rm", "it"]).ok();
    host.check();
}
