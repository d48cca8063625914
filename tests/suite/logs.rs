//! Logs that are rotated, packed, or not kept: `--log-driver` and `--log-opt`.

use crate::support::{Host, busybox, guest, until};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

/// The names of a container's log files.
fn files(host: &Host, name: &str) -> Vec<String> {
    let path = host.dhow(["inspect", "--format", "{{.LogPath}}", name]).ok();
    let path = std::path::Path::new(path.trim()).to_owned();
    let base = path.file_name().unwrap().to_str().unwrap().to_owned();
    let mut names: Vec<String> = fs_err::read_dir(path.parent().unwrap())
        .unwrap()
        .filter_map(|entry| {
            entry.unwrap().file_name().into_string().unwrap().strip_prefix(&base).map(str::to_owned)
        })
        .collect();
    names.sort();
    names
}

const LINES: &str = "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done";

#[test]
fn old_files_are_packed_and_read() {
    let host = host();
    for (options, expected) in [
        (&["--log-opt", "max-size=20k", "--log-opt", "max-file=3"][..], ["", ".1", ".2"]),
        (
            &["--log-opt", "max-size=20k", "--log-opt", "max-file=3", "--log-opt", "compress=true"],
            ["", ".1.gz", ".2.gz"],
        ),
        (
            &["--log-driver", "local", "--log-opt", "max-size=20k", "--log-opt", "max-file=3"],
            ["", ".1.gz", ".2.gz"],
        ),
    ] {
        host.dhow(["run", "-d", "--name", "it"]).args(options).args(["busybox:1", "sh", "-c", LINES]).ok();
        assert_eq!(host.dhow(["wait", "it"]).ok(), "0\n");
        assert_eq!(files(&host, "it"), expected, "{options:?}");
        let log = host.dhow(["logs", "it"]).ok();
        let lines: Vec<&str> = log.lines().collect();
        assert_eq!(lines.last(), Some(&"line 2999"));
        let first: usize = lines[0].strip_prefix("line ").unwrap().parse().unwrap();
        assert!(
            lines.iter().enumerate().all(|(at, line)| *line == format!("line {}", first + at)),
            "{options:?}"
        );
        let path = host.dhow(["inspect", "--format", "{{.LogPath}}", "it"]).ok();
        let newest = fs_err::read(path.trim()).unwrap();
        let newest = newest.windows(5).filter(|window| window == b"line ").count();
        assert!(lines.len() > newest, "{} lines are more than the newest file's {newest}", lines.len());
        for tail in [0, 1, 10, lines.len() - 1, lines.len(), 100_000] {
            let some = host.dhow(["logs", "--tail", &tail.to_string(), "it"]).ok();
            assert_eq!(some.lines().collect::<Vec<_>>(), lines[lines.len().saturating_sub(tail)..], "{tail}");
        }
        host.dhow(["rm", "it"]).ok();
    }
}

#[test]
fn who_follows_sees_each_line_once() {
    let host = host();
    let script = format!("{LINES}; sleep 0.3; echo end");
    let options = ["--log-driver", "local", "--log-opt", "max-size=100k", "--log-opt", "max-file=5"];
    host.dhow(["create", "--name", "it"]).args(options).args(["busybox:1", "sh", "-c", &script]).ok();
    host.dhow(["start", "it"]).ok();
    let mut follower = host.dhow(["logs", "-f", "it"]).spawn();
    follower.until("end\n");
    let seen = follower.outcome().stdout;
    let expected: String = (0..3000).map(|number| format!("line {number}\n")).collect();
    assert!(seen == format!("{expected}end\n"), "{} lines", seen.lines().count());
    host.dhow(["rm", "it"]).ok();
}

#[test]
fn options_of_drivers() {
    let host = host();
    host.dhow(["run", "--name", "it", "--log-driver", "none", "./probe.wasm", "err", "x"]).fails(0);
    host.dhow(["logs", "it"]).rejected(1, "configured logging driver does not support reading");
    host.dhow(["rm", "it"]).ok();
    for (options, words) in [
        (&["--log-driver", "syslog"][..], "the log driver 'syslog' is not supported yet"),
        (&["--log-driver", "local", "--log-opt", "foo=1"], "unknown log opt 'foo' for log driver local"),
        (&["--log-opt", "foo=1"], "unknown log opt 'foo' for json-file log driver"),
        (&["--log-opt", "compress=maybe"], "invalid value for compress: 'maybe'"),
        (&["--log-opt", "tag={{.Nope}}"], "invalid value for tag"),
        (&["--log-opt", "env-regex=("], "invalid value for env-regex"),
        (&["--log-opt", "max-file=0"], "invalid value for max-file: '0'"),
    ] {
        host.dhow(["create"]).args(options).args(["busybox:1", "true"]).rejected(1, words);
    }
    until("nothing is left", || host.dhow(["ps", "-aq"]).ok().is_empty().then_some(()));
}
