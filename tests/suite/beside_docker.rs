//! The same commands given to Docker and to Dhow, one after the other: exit code, output, and what is said when it
//! cannot be done. What differs on purpose is listed with the reason.

mod once_different;

use std::process::{Command, Output, Stdio};

use crate::support::{Docker, Host, busybox, is_root, tool, until};

/// Both, with the same image.
struct Both {
    docker: Docker,
    host: Host,
}

impl Both {
    fn start() -> Option<Self> {
        if !is_root() {
            println!("skipped: dockerd needs root");
            return None;
        }
        let docker = Docker::start()?;
        let host = Host::with(&[("busybox:1", busybox())]);
        let archive = host.text("busybox.tar");
        host.dhow(["save", "-o", &archive, "busybox:1"]).ok();
        tool(&mut docker.call(["load", "-i", &archive]));
        Some(Self { docker, host })
    }

    fn theirs(&self, args: &[&str]) -> Said {
        Said::of(self.docker.call(args))
    }

    fn ours(&self, args: &[&str]) -> Said {
        Said::of(self.host.dhow(args).into_command())
    }

    /// Runs it with both, where it has no effect that is looked at.
    fn prepare(&self, args: &[&str]) {
        for said in [self.theirs(args), self.ours(args)] {
            assert_eq!(said.code, 0, "{args:?}: {said:?}");
        }
    }

    fn same_output(&self, args: &[&str]) {
        let (theirs, ours) = (self.theirs(args), self.ours(args));
        assert_eq!(
            (ours.code, &ours.stdout),
            (theirs.code, &theirs.stdout),
            "{args:?}\n{ours:?}\n{theirs:?}"
        );
    }

    /// The same code and output, and every line of ours is a part of what Docker says, but for the differences below.
    fn same(&self, args: &[&str]) {
        let (theirs, ours) = (self.theirs(args), self.ours(args));
        let shown = format!("{args:?}\n  docker {theirs:?}\n  dhow   {ours:?}");
        assert_eq!((ours.code, ids(&ours.stdout)), (theirs.code, ids(&theirs.stdout)), "{shown}");
        let said = ids(&theirs.stderr).to_lowercase();
        for line in ids(&ours.stderr).lines().filter(|line| !line.starts_with("hint: ")) {
            let line = line.strip_prefix("error: ").unwrap_or(line).to_lowercase();
            let differs = DIFFERENT.iter().find(|(ours, _)| line.contains(ours));
            let known = differs.is_some_and(|(_, theirs)| said.contains(theirs));
            assert!(known || said.contains(&line), "{line:?} is not Docker's\n{shown}");
        }
        assert_eq!(ours.stderr.is_empty(), theirs.stderr.is_empty(), "{shown}");
    }
}

/// Our words, and those in their place, without capitals.
const DIFFERENT: [(&str, &str); 8] = [
    // As later versions of Docker have it.
    ("container is running", "you cannot remove a running container"),
    ("container is paused and must be unpaused first", "you cannot remove a paused container"),
    // Go's words for what is no number.
    ("invalid filter 'exited=x'", "strconv.atoi: parsing \"x\": invalid syntax"),
    // Of a container that a filter names.
    ("no such container: nosuch", "no such container nosuch"),
    // One word for all numbers that are no signal.
    ("invalid signal: 99", "does not support signal 99"),
    // The length belongs to it.
    ("invalid container name", "invalid container name"),
    ("neither old nor new names may be empty", "invalid container name"),
    // What is wrong with the program comes first, and the runtime's stages are not told.
    ("exec: ", "exec: "),
];

#[derive(Debug)]
struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Said {
    fn of(mut command: Command) -> Self {
        let Output { status, stdout, stderr } =
            command.stdin(Stdio::null()).output().expect("the command can be started");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: status.code().expect("a code"), stdout: text(stdout), stderr: text(stderr) }
    }
}

/// With every long or short id as the same word.
fn ids(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(|c: char| c.is_ascii_hexdigit()) {
        let length = rest[at..].find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len() - at);
        out.push_str(&rest[..at]);
        out.push_str(if matches!(length, 12 | 64) { "ID" } else { &rest[at..at + length] });
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

/// `run` and `create` with what both need.
fn with_name<'a>(verb: &[&'a str], args: &[&'a str]) -> Vec<&'a str> {
    [verb, &["--network", "none", "--name", "it"], args].concat()
}

#[test]
fn a_container_s_life() {
    let Some(both) = Both::start() else { return };
    for verb in [
        "start", "stop", "kill", "restart", "wait", "pause", "unpause", "rm", "logs", "attach", "top", "diff",
    ] {
        both.same(&[verb, "nosuch"]);
    }
    let step = |args: &[&str]| both.same(args);
    step(&["rm", "-f", "nosuch"]);
    step(&["rename", "nosuch", "it"]);
    // Created, and never started.
    both.prepare(&with_name(&["create"], &["busybox:1", "sleep", "600"]));
    step(&with_name(&["create"], &["busybox:1", "sleep", "600"]));
    step(&["ps", "-a", "--format", "{{.Names}} {{.Status}} {{.State}}"]);
    for verb in ["stop", "kill", "pause", "unpause", "wait", "top", "logs"] {
        step(&[verb, "it"]);
    }
    step(&["exec", "it", "true"]);
    step(&["inspect", "--format", "{{.State.Status}} {{.State.ExitCode}} {{.State.Running}}", "it"]);
    // It runs.
    for args in [
        &["start", "it"][..],
        &["start", "it"],
        &["rm", "it"],
        &["unpause", "it"],
        &["rename", "it", "it"],
        &["rename", "it", "other"],
        &["rename", "other", "it"],
        &["kill", "-s", "NOPE", "it"],
        &["kill", "-s", "0", "it"],
        &["kill", "-s", "99", "it"],
        &["restart", "-t", "0", "it"],
        &["stop", "-t", "0", "it"],
        &["stop", "it"],
        &["kill", "it"],
        &["pause", "it"],
        &["wait", "it"],
        &["start", "it"],
        &["kill", "it"],
        &["wait", "it"],
        &["rm", "it"],
        &["rm", "it"],
    ] {
        step(args);
    }
    // Programs that end, with or without somebody who waits.
    let script = "echo out; echo err >&2; exit 7";
    step(&with_name(&["run"], &["busybox:1", "sh", "-c", script]));
    step(&["logs", "it"]);
    step(&["start", "-a", "it"]);
    step(&["rm", "it"]);
    step(&["run", "--rm", "--network", "none", "busybox:1", "sh", "-c", "kill -9 $$"]);
    both.prepare(&with_name(&["run", "-d", "--rm"], &["busybox:1", "sleep", "600"]));
    step(&with_name(&["run"], &["busybox:1", "true"]));
    step(&["stop", "-t", "0", "it"]);
    until("both have removed it", || {
        let left = [both.theirs(&["ps", "-aq"]).stdout, both.ours(&["ps", "-aq"]).stdout];
        left.iter().all(String::is_empty).then_some(())
    });
    step(&["wait", "it"]);
    // Programs that cannot be started.
    for program in ["nosuch", "/etc"] {
        step(&with_name(&["run"], &["busybox:1", program]));
        step(&["ps", "-a", "--format", "{{.Names}} {{.Status}}"]);
        step(&["rm", "it"]);
    }
    for name in [".x", "x", "a/b"] {
        step(&["run", "--network", "none", "--name", name, "busybox:1", "true"]);
    }
    // Several at once: one that fails keeps nobody else from being served.
    for name in ["aa", "bb"] {
        both.prepare(&["create", "--network", "none", "--name", name, "busybox:1", "true"]);
    }
    step(&["rename", "aa", "bb"]);
    step(&["rename", "aa", "/"]);
    step(&["start", "aa", "nosuch", "bb"]);
    step(&["wait", "aa", "bb"]);
    step(&["rm", "aa", "nosuch", "bb"]);
    step(&["rm", "-f", "aa", "nosuch"]);
    step(&["create", "--network", "none", "--stop-signal", "NOPE", "busybox:1", "true"]);
    // What the command line itself says wrongly is 125, what the engine refuses is 1.
    for options in [
        &["--mount", "type=bind,target=/x,tmpfs-size=1m"][..],
        &["--memory-swappiness", "200"],
        &["--link", "a:b:c"],
        &["--ulimit", "files=1"],
        &["--health-retries", "-1"],
        &["-w", "relative"],
        &["--restart", "sometimes"],
    ] {
        let (theirs, ours) = (
            both.theirs(&[&["create"], options, &["busybox:1", "true"]].concat()),
            both.ours(&[&["create"], options, &["busybox:1", "true"]].concat()),
        );
        assert_eq!(ours.code, theirs.code, "{options:?}\n{ours:?}\n{theirs:?}");
    }
}

#[test]
fn logs_with_every_option() {
    let Some(both) = Both::start() else { return };
    for options in [
        &["--log-opt", "labels=a,c", "--log-opt", "env=FOO", "--log-opt", "tag={{.Name}} x/y"][..],
        &["--log-opt", "labels-regex=^(a|d)", "--log-opt", "env-regex=^F.O$"],
        &["--log-opt", "labels=nosuch"],
    ] {
        let line = ["-l", "a=1 2", "-l", "d=<&>", "-e", "FOO=b=c", "-e", "FXO=\u{e9}", "busybox:1"];
        both.prepare(&with_name(&["run"], &[options, &line, &["echo", "said"]].concat()));
        both.same_output(&["logs", "--details", "it"]);
        both.prepare(&["rm", "it"]);
    }
    let script = "for i in 1 2 3 4 5; do echo line $i; sleep 0.1; done; echo -n unfinished";
    both.prepare(&with_name(&["run", "-d"], &["busybox:1", "sh", "-c", script]));
    both.prepare(&["wait", "it"]);
    let time_of = |said: Said, line: usize| {
        let line = said.stdout.lines().nth(line).expect("a line").to_owned();
        line.split(' ').next().expect("a time").to_owned()
    };
    for args in [
        &["logs", "it"][..],
        &["logs", "--tail", "2", "it"],
        &["logs", "-n", "0", "it"],
        &["logs", "--tail", "all", "it"],
        &["logs", "--tail", "-1", "it"],
        &["logs", "--tail", "99", "it"],
        &["logs", "--tail", "x", "it"],
        &["logs", "-f", "it"],
        &["logs", "-f", "--tail", "1", "it"],
        &["logs", "--details", "it"],
        &["logs", "--since", "1h", "it"],
        &["logs", "--until", "1h", "it"],
        &["logs", "--since", "2020-01-01", "--tail", "3", "it"],
        &["logs", "--until", "2020-01-01T10:00:00", "it"],
        &["logs", "--since", "0", "--until", "99999999999", "it"],
    ] {
        both.same_output(args);
    }
    for args in [&["logs", "--since", "yesterday", "it"][..], &["logs", "--until", "1x", "it"]] {
        both.same(args);
    }
    // Each by its own clock.
    let all = &["logs", "-t", "it"][..];
    for (line, option) in [(0, "--since"), (3, "--since"), (3, "--until"), (4, "--until")] {
        let theirs = time_of(both.theirs(all), line);
        let ours = time_of(both.ours(all), line);
        assert_eq!((ours.len(), ours.ends_with('Z')), (theirs.len(), true), "{ours} {theirs}");
        let (theirs, ours) =
            (both.theirs(&["logs", option, &theirs, "it"]), both.ours(&["logs", option, &ours, "it"]));
        assert_eq!(ours.stdout, theirs.stdout, "{option} line {line}");
    }
    let path = both.ours(&["inspect", "--format", "{{.LogPath}}", "it"]).stdout;
    let log = fs_err::read_to_string(path.trim()).expect("the log");
    assert!(log.starts_with("{\"log\":\"line 1\\n\",\"stream\":\"stdout\",\"time\":\""), "{log}");
    both.prepare(&["rm", "it"]);
    // The streams go where they went, and a terminal's is one.
    for options in [&["-d"][..], &["-d", "-t"]] {
        let script = "echo out; sleep 0.2; echo err >&2";
        both.prepare(&with_name(&[&["run"], options].concat(), &["busybox:1", "sh", "-c", script]));
        both.prepare(&["wait", "it"]);
        let (theirs, ours) = (both.theirs(&["logs", "it"]), both.ours(&["logs", "it"]));
        assert_eq!((ours.stdout, ours.stderr), (theirs.stdout, theirs.stderr), "{options:?}");
        both.prepare(&["rm", "it"]);
    }
    // Who follows sees what comes, and is done when the container is.
    both.prepare(&with_name(&["run", "-d"], &["busybox:1", "sh", "-c", "echo one; sleep 2; echo two"]));
    both.same_output(&["logs", "-f", "it"]);
    both.prepare(&["rm", "-f", "it"]);
    both.prepare(&with_name(&["run", "-d"], &["busybox:1", "sh", "-c", "echo one; sleep 600"]));
    let mut follower = both.host.dhow(["logs", "-f", "it"]).spawn();
    follower.until("one\n");
    both.prepare(&["rm", "-f", "it"]);
    assert_eq!(follower.outcome().code, 0);
}

#[test]
fn lists_with_every_filter() {
    let Some(both) = Both::start() else { return };
    let none = ["--network", "none"];
    let made: [(&str, &[&str], &[&str]); 5] = [
        ("first", &["-l", "tier=web", "-l", "mine"], &["true"]),
        ("second", &["-l", "tier=db", "-v", "data:/data"], &["sh", "-c", "exit 3"]),
        ("third", &["-v", "/tmp:/host:ro", "--expose", "80"], &["sleep", "600"]),
        ("fourth-one", &[], &["sleep", "600"]),
        ("first-again", &["-l", "tier=web"], &["echo", "a b", "c"]),
    ];
    for (name, options, command) in made {
        let verb = if name == "first-again" { &["create"][..] } else { &["run", "-d"] };
        both.prepare(&[verb, &none, &["--name", name], options, &["busybox:1"], command].concat());
    }
    for name in ["first", "second"] {
        both.prepare(&["wait", name]);
    }
    for filter in [
        &["name=first"][..],
        &["name=^first$"],
        &["name=^/first$"],
        &["name=first", "name=third"],
        &["name=nosuch"],
        &["label=mine"],
        &["label=tier"],
        &["label=tier=web"],
        &["label=tier=web", "label=mine"],
        &["label=tier=nosuch"],
        &["status=running"],
        &["status=exited"],
        &["status=created"],
        &["status=exited", "status=created"],
        &["status=paused"],
        &["exited=3"],
        &["exited=0"],
        &["exited=0", "exited=3"],
        &["before=third"],
        &["since=second"],
        &["since=first", "before=fourth-one"],
        &["ancestor=busybox:1"],
        &["ancestor=nosuch"],
        &["volume=data"],
        &["volume=/data"],
        &["volume=/host"],
        &["volume=nosuch"],
        &["network=none"],
        &["network=nosuch"],
        &["expose=80/udp"],
        &["publish=80"],
        &["health=none"],
        &["is-task=true"],
        &["is-task=false"],
        &["status=running", "name=t"],
    ] {
        for all in [&["ps"][..], &["ps", "-a"]] {
            let mut args = [all, &["--format", "{{.Names}}"]].concat();
            for filter in filter {
                args.extend(["--filter", *filter]);
            }
            both.same_output(&args);
        }
    }
    for filter in ["nosuch=1", "status=nosuch", "exited=x", "before=nosuch", "since=nosuch"] {
        both.same(&["ps", "-f", filter]);
    }
    assert_eq!(both.ours(&["ps", "-f", "x"]).code, both.theirs(&["ps", "-f", "x"]).code);
    let fields =
        "{{.Names}}|{{.Image}}|{{.Command}}|{{.State}}|{{.Label \"tier\"}}|{{.LocalVolumes}}|{{.Networks}}";
    for args in [
        &["ps", "-a", "--format", fields][..],
        &["ps", "-a", "--no-trunc", "--format", fields],
        &["ps", "-n", "2", "--format", "{{.Names}}"],
        &["ps", "-l", "--format", "table {{.Names}}\t{{.Image}}"],
        &["ps", "-a", "--filter", "name=second", "--format", "{{.Mounts}}"],
        &["ps", "-a", "--filter", "name=third", "--format", "{{.Mounts}}"],
    ] {
        both.same_output(args);
    }
    // The columns, and what of a size is the container's own.
    for args in [&["ps"][..], &["ps", "-s"], &["ps", "-a", "--no-trunc", "-s"]] {
        let titles = |said: Said| {
            said.stdout.lines().next().expect("titles").split("  ").map(str::trim).collect::<String>()
        };
        assert_eq!(titles(both.ours(args)), titles(both.theirs(args)), "{args:?}");
    }
    both.prepare(
        &[&["run"][..], &none, &["--name", "wrote", "busybox:1", "sh", "-c", "echo -n 12345 > /f"]].concat(),
    );
    let own = |said: Said| said.stdout.split(" (virtual ").next().expect("a size").to_owned();
    let args = ["ps", "-as", "--filter", "name=wrote", "--format", "{{.Size}}"];
    assert_eq!(own(both.ours(&args)), own(both.theirs(&args)));
}

/// The names of everything that `inspect` shows of a container, but for what only one of them has.
#[test]
fn inspect_shows_the_same_fields() {
    let Some(both) = Both::start() else { return };
    let options = ["-e", "A=b", "-v", "/data", "--init", "--restart", "on-failure:2", "--health-cmd", "true"];
    both.prepare(&[&["run", "-d"], &with_name(&[], &options)[..], &["busybox:1", "sleep", "600"]].concat());
    let shown = |said: Said| -> serde_json::Value {
        let all: serde_json::Value = serde_json::from_str(&said.stdout).expect("JSON");
        all[0].clone()
    };
    let (theirs, ours) = (shown(both.theirs(&["inspect", "it"])), shown(both.ours(&["inspect", "it"])));
    for part in [
        "",
        "/State",
        "/State/Health",
        "/HostConfig",
        "/HostConfig/RestartPolicy",
        "/Config",
        "/Config/Healthcheck",
        "/GraphDriver",
        "/Mounts/0",
    ] {
        let keys = |all: &serde_json::Value| -> Vec<String> {
            all.pointer(part)
                .and_then(|part| part.as_object())
                .unwrap_or_else(|| panic!("{part}: {all}"))
                .keys()
                .cloned()
                .collect()
        };
        let ours = keys(&ours);
        let missing: Vec<String> = keys(&theirs).into_iter().filter(|key| !ours.contains(key)).collect();
        assert!(missing.is_empty(), "{part}: {missing:?}");
    }
    for field in [
        "/HostConfig/Binds",
        "/HostConfig/ShmSize",
        "/HostConfig/IpcMode",
        "/HostConfig/RestartPolicy",
        "/HostConfig/LogConfig",
        "/HostConfig/OomKillDisable",
        "/HostConfig/PidsLimit",
        "/HostConfig/Init",
        "/HostConfig/NetworkMode",
        "/Config/Env",
        "/Config/Cmd",
        "/Config/Entrypoint",
        "/Config/Volumes",
        "/Config/Healthcheck",
        "/State/Status",
        "/State/Restarting",
        "/RestartCount",
        "/Path",
        "/Args",
        "/Name",
    ] {
        assert_eq!(ours.pointer(field), theirs.pointer(field), "{field}");
    }
    both.prepare(&["rm", "-f", "-v", "it"]);
}

#[test]
fn policies_health_updates_and_what_is_told() {
    let Some(both) = Both::start() else { return };
    for options in [
        &["--restart", "foo"][..],
        &["--restart", "always:3"],
        &["--restart", "on-failure:x"],
        &["--restart", "on-failure:-1"],
        &["--health-cmd", "x", "--no-healthcheck"],
        &["--health-retries", "-1"],
        &["--health-interval", "1us"],
        &["--pid", "foo"],
        &["--uts", "foo"],
        &["--userns", "foo"],
        &["--cgroupns", "foo"],
        &["--oom-score-adj", "2000"],
        &["--memory-swappiness", "200"],
        &["--cpuset-mems", "x"],
        &["--uts", "host", "--hostname", "x"],
    ] {
        both.same(&[&["run", "--network", "none"], options, &["busybox:1", "true"]].concat());
    }
    both.prepare(&with_name(&["create"], &["-m", "100m", "busybox:1", "true"]));
    for options in [
        &["-m", "300m"][..],
        &["--cpus", "1"],
        &["--cpu-quota", "2000"],
        &["--memory", "1k"],
        &["--cpuset-cpus", "x"],
        &["--restart", "on-failure:3"],
    ] {
        both.same(&[&["update"], options, &["it"]].concat());
    }
    both.same(&["update", "--memory", "10m", "nosuch"]);
    both.same(&[
        "inspect",
        "--format",
        "{{.HostConfig.RestartPolicy.Name}} {{.HostConfig.RestartPolicy.MaximumRetryCount}} {{.HostConfig.NanoCpus}} {{.RestartCount}}",
        "it",
    ]);
    both.prepare(&["rm", "it"]);
    // The same life, told in the same words.
    both.prepare(&with_name(&["run", "-d"], &["-l", "tier=db", "busybox:1", "sleep", "600"]));
    both.prepare(&["exec", "it", "true"]);
    both.prepare(&["exec", "it", "sh", "-c", "exit 0"]);
    both.prepare(&["rename", "it", "other"]);
    both.prepare(&["kill", "-s", "USR1", "other"]);
    both.prepare(&["update", "--restart", "no", "other"]);
    both.prepare(&["restart", "-t", "0", "other"]);
    both.prepare(&["stop", "-t", "0", "other"]);
    both.prepare(&["rm", "other"]);
    let told = |said: Said| -> Vec<String> {
        said.stdout.lines().map(|line| ids(line.split_once(' ').map_or(line, |(_, rest)| rest))).collect()
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("later");
    let now = (now.as_secs() + 1).to_string();
    let wanted = [
        "events",
        "--since",
        "1",
        "--until",
        &now,
        "--filter",
        "type=container",
        "--filter",
        "label=tier=db",
    ];
    assert_eq!(told(both.ours(&wanted)), told(both.theirs(&wanted)));
    both.same(&["events", "--since", "yesterday"]);
}
