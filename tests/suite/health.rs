//! Health checks: of images and of options, for both kinds of containers.

use serde_json::{Value, json};

use crate::support::{Host, Image, Tree, busybox, guest, until};

fn host() -> Host {
    let host = Host::with(&[("busybox:1", busybox())]);
    host.file("probe.wasm", guest("probe.wasm"));
    host
}

fn health(host: &Host) -> Value {
    serde_json::from_str(&host.dhow(["inspect", "--format", "{{json .State.Health}}", "it"]).ok()).unwrap()
}

fn becomes(host: &Host, wanted: &str) {
    until(wanted, || (health(host)["Status"] == wanted).then_some(()));
}

#[test]
fn from_starting_to_healthy_and_back() {
    let host = host();
    for (check, make, unmake, args) in [
        (
            "probe.wasm read /ok",
            &["probe.wasm", "append", "/ok", "x"][..],
            &["probe.wasm", "rm", "/ok"][..],
            &["./probe.wasm", "sleep", "600"][..],
        ),
        ("echo looked; test -e /ok", &["touch", "/ok"], &["rm", "/ok"], &["busybox:1", "sleep", "600"]),
    ] {
        let options = ["--health-cmd", check, "--health-interval", "50ms", "--health-retries", "2"];
        host.dhow(["run", "-d", "--name", "it"]).args(options).args(args).ok();
        becomes(&host, "unhealthy");
        let status = host.dhow(["ps", "--format", "{{.Status}}"]).ok();
        assert!(status.ends_with("(unhealthy)\n"), "{status}");
        assert!(health(&host)["FailingStreak"].as_u64().unwrap() >= 2);
        host.dhow(["exec", "it"]).args(make).ok();
        becomes(&host, "healthy");
        assert_eq!(host.dhow(["ps", "-q", "--filter", "health=healthy"]).ok().lines().count(), 1);
        assert_eq!(host.dhow(["ps", "-q", "--filter", "health=unhealthy"]).ok(), "");
        until("the log is full", || {
            let log = health(&host)["Log"].as_array().unwrap().clone();
            (log.len() == 5 && log.iter().all(|probe| probe["ExitCode"] == 0)).then_some(())
        });
        let last = health(&host)["Log"][4].clone();
        assert!(last["Start"].as_str().unwrap() <= last["End"].as_str().unwrap(), "{last}");
        host.dhow(["exec", "it"]).args(unmake).ok();
        becomes(&host, "unhealthy");
        host.dhow(["stop", "-t", "0", "it"]).ok();
        assert_eq!(health(&host)["Status"], "unhealthy");
        host.dhow(["start", "it"]).ok();
        host.dhow(["rm", "-f", "it"]).ok();
    }
}

#[test]
fn what_an_image_says_and_what_is_said_over_it() {
    let check = json!({ "Test": ["CMD", "test", "-e", "/ok"], "Interval": 50_000_000, "Retries": 1 });
    let native = busybox().config("Healthcheck", check);
    let wasm = Image::wasm()
        .layer(Tree::new().file("probe.wasm", 0o644, guest("probe.wasm")).file(
            "calls.wasm",
            0o644,
            wat::parse_str(CALLS).unwrap(),
        ))
        .entrypoint(&["/calls.wasm"])
        .config(
            "Healthcheck",
            json!({ "Test": ["CMD-SHELL", "#well"], "Interval": 50_000_000, "Retries": 1 }),
        );
    let host = Host::with(&[("native:1", native), ("wasm:1", wasm)]);
    host.dhow(["run", "-d", "--name", "it", "native:1", "sleep", "600"]).ok();
    becomes(&host, "unhealthy");
    host.dhow(["exec", "it", "touch", "/ok"]).ok();
    becomes(&host, "healthy");
    host.dhow(["rm", "-f", "it"]).ok();
    // A function of the program itself, which fails by a trap.
    host.dhow(["run", "-d", "--name", "it", "wasm:1"]).ok();
    becomes(&host, "healthy");
    host.dhow(["rm", "-f", "it"]).ok();
    host.dhow(["run", "-d", "--name", "it", "--health-cmd", "#ill", "wasm:1"]).ok();
    becomes(&host, "unhealthy");
    host.dhow(["rm", "-f", "it"]).ok();
    host.dhow(["run", "-d", "--name", "it", "--no-healthcheck", "native:1", "sleep", "600"]).ok();
    let state = host.dhow(["inspect", "--format", "{{json .State}}", "it"]).ok();
    assert!(!state.contains("Health"), "{state}");
    let config = host.dhow(["inspect", "--format", "{{json .Config.Healthcheck.Test}}", "it"]).ok();
    assert_eq!(config, "[\"NONE\"]\n");
    assert_eq!(host.dhow(["ps", "-q", "--filter", "health=none"]).ok().lines().count(), 1);
    host.dhow(["rm", "-f", "it"]).ok();
}

/// Waits for ever; and two functions that tell how it is.
const CALLS: &str = r#"(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again)))
  (func (export "well"))
  (func (export "ill") unreachable))"#;

#[test]
fn probes_that_do_not_end_or_do_not_begin() {
    let host = host();
    for (options, code, output) in [
        (
            &["--health-cmd", "sleep 60", "--health-timeout", "100ms"][..],
            -1,
            "Health check exceeded timeout (100ms)",
        ),
        (&["--health-cmd", "echo said; exit 3"], 3, "said\n"),
        (&["--health-cmd", "yes | head -c 10000; exit 1"], 1, "y\ny\n"),
    ] {
        let more = ["--health-interval", "50ms", "--health-retries", "1"];
        host.dhow(["run", "-d", "--name", "it"])
            .args(options)
            .args(more)
            .args(["busybox:1", "sleep", "600"])
            .ok();
        becomes(&host, "unhealthy");
        let probe = health(&host)["Log"][0].clone();
        assert_eq!(probe["ExitCode"], code, "{probe}");
        let said = probe["Output"].as_str().unwrap();
        assert!(said.starts_with(output) && said.len() <= 4096, "{probe}");
        host.dhow(["rm", "-f", "it"]).ok();
    }
    // In its start period a failure is none; who is removed at its end is looked after, too.
    let options =
        ["--health-cmd", "exit 1", "--health-start-period", "10m", "--health-start-interval", "20ms"];
    let mut running = host
        .dhow(["run", "--rm", "-i", "--name", "it"])
        .args(options)
        .args(["--health-retries", "1", "busybox:1", "cat"])
        .spawn();
    until("it was looked at", || {
        let shown = host.dhow(["inspect", "--format", "{{json .State.Health}}", "it"]).outcome().stdout;
        let shown: Value = serde_json::from_str(&shown).ok()?;
        (shown["Log"].as_array()?.len() >= 3).then_some(())
    });
    assert_eq!(
        (health(&host)["Status"].clone(), health(&host)["FailingStreak"].clone()),
        (json!("starting"), json!(0))
    );
    let status = host.dhow(["ps", "--format", "{{.Status}}"]).ok();
    assert!(status.ends_with("(health: starting)\n"), "{status}");
    running.close_stdin();
    assert_eq!(running.outcome().code, 0);
    host.has_no_container();
}

#[test]
fn values_that_make_no_sense() {
    let host = host();
    // As Docker: what the command itself refuses ends with 125, what the engine refuses with 1.
    for (options, code, words) in [
        (
            &["--health-cmd", "x", "--no-healthcheck"][..],
            125,
            "--no-healthcheck conflicts with --health-* options",
        ),
        (&["--health-retries", "-1"], 125, "--health-retries cannot be negative"),
        (&["--health-interval", "1us"], 1, "Interval in Healthcheck cannot be less than 1ms"),
        (&["--health-interval", "-1s"], 125, "--health-interval cannot be negative"),
        (&["--health-timeout", "x"], 125, "time: invalid duration \"x\""),
    ] {
        host.dhow(["create"]).args(options).args(["busybox:1", "true"]).rejected(code, words);
    }
}
