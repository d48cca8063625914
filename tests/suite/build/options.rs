//! Options of `docker build` that are not about files: what steps may use, which stages are made anew, names and pushes.

use super::{context, inspect};
use crate::support::{Host, Registry, is_root};

#[test]
fn what_steps_may_use() {
    if !is_root() {
        return;
    }
    let host = Host::with_busybox();
    let build = |options: &[&str], flags: &str, step: &str| {
        let line = ["build", "-q", "--no-cache", "-o", "out"];
        let dockerfile = format!(
            "FROM busybox:1 AS a\nRUN {flags} ( {step} ) > /said\nFROM scratch\nCOPY --from=a /said /\n"
        );
        let outcome = host.dhow(line).args(options).args(["-"]).stdin(dockerfile).outcome();
        let said = fs_err::read_to_string(host.path("out/said")).unwrap_or_default();
        (outcome, said)
    };
    let seccomp = "grep Seccomp: /proc/self/status | tr -dc 0-9";
    for (options, step, expected) in [
        (&["--ulimit", "nofile=77:88"][..], "ulimit -Sn; ulimit -Hn", "77\n88\n"),
        (&["--shm-size", "2m"], "df -k /dev/shm | tail -1 | awk '{print $2}'", "2048\n"),
        (&[], seccomp, "2"),
        (&["--security-opt", "seccomp=unconfined"], seccomp, "0"),
        (
            &["-m", "64m", "--cpu-shares", "512", "--isolation", "default", "--compress"],
            "echo fine",
            "fine\n",
        ),
    ] {
        let (outcome, said) = build(options, "", step);
        assert_eq!((outcome.code, said.as_str()), (0, expected), "{options:?}: {outcome:#?}");
    }
    // A limit of memory is one: this takes more.
    let (outcome, _) = build(&["-m", "8m"], "", "dd if=/dev/zero of=/dev/null bs=64M count=1");
    assert_ne!(outcome.code, 0, "{outcome:#?}");
    // All rights are had by who asks, and by nobody whom nobody allows them.
    let caps =
        "[ $(( 0x$(grep CapEff: /proc/self/status | cut -f2) >> 21 & 1 )) = 1 ] && echo admin || echo none";
    let allow = ["--allow", "security.insecure"];
    for (flags, expected) in [("--security=insecure", "admin\n"), ("", "none\n")] {
        let (outcome, said) = build(&allow, flags, caps);
        assert_eq!((outcome.code, said.as_str()), (0, expected), "{flags}: {outcome:#?}");
    }
    for (options, flags, message) in [
        (&[][..], "--security=insecure", "--allow security.insecure"),
        (&["--allow", "device"], "", "invalid entitlement device"),
        (&["--isolation", "hyperv"], "", "containers of Windows"),
        (&["--network", "container:nobody"], "", "nobody"),
        (&["-m", "1m"], "", "Minimum memory limit"),
    ] {
        let (outcome, _) = build(options, flags, caps);
        assert!(outcome.code != 0 && outcome.stderr.contains(message), "{options:?}: {outcome:#?}");
    }
}

#[test]
fn stages_that_are_made_anew() {
    let host = Host::with_busybox();
    let random = "head -c 8 /dev/urandom | od -x";
    let dockerfile = format!(
        "FROM busybox:1 AS a\nRUN {random} > /a\nFROM busybox:1 AS b\nRUN {random} > /b\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    );
    let path = context(&host, "c", &[("Dockerfile", &dockerfile)]);
    let build = |options: &[&str]| {
        host.dhow(["build", "-q", "-o", "out"]).args(options).args([&path]).ok();
        ["a", "b"].map(|name| fs_err::read_to_string(host.path("out").join(name)).unwrap())
    };
    let first = build(&[]);
    assert_eq!(build(&[]), first);
    let second = build(&["--no-cache-filter", "A"]);
    assert!(second[0] != first[0] && second[1] == first[1], "{first:?} {second:?}");
    // A proxy is no reason, unless the Dockerfile asks for it.
    assert_eq!(build(&["--build-arg", "http_proxy=http://127.0.0.1:1"]), second);
    // Names that nothing has are nearly those that something has.
    for (dockerfile, message) in [
        ("FROM busybox:1 AS tools\nFROM scratch\nCOPY --from=tool /x /\n", "did you mean the stage tools?"),
        ("FROM scratch AS tools\nFROM toolz\n", "did you mean the stage tools?"),
    ] {
        let outcome = host.dhow(["build", "-q", "-"]).stdin(dockerfile).fails(1);
        assert!(outcome.stderr.contains(message), "{outcome:#?}");
    }
}

#[test]
fn names_and_pushes() {
    let host = Host::with_busybox();
    let registry = Registry::start();
    let path = context(&host, "c", &[("Dockerfile", "FROM busybox:1\nLABEL a=b\n")]);
    let [one, two] = ["one:1", "two:1"].map(|name| registry.name(name));
    host.dhow(["build", "-q", "-t", &one, "--push", "--load", &path]).ok();
    host.dhow(["build", "-q", "-o", &format!("type=registry,name={two}"), &path]).ok();
    host.dhow(["build", "-q", "-o", "type=image,name=local:1,push=false", &path]).ok();
    assert_eq!(inspect(&host, "local:1", "{{.Config.Labels}}"), inspect(&host, &one, "{{.Config.Labels}}"));
    let other = Host::new();
    for name in [&one, &two] {
        other.dhow(["pull", "-q", name]).ok();
    }
    for (options, message) in [
        (&["--push"][..], "tag is needed when pushing to registry"),
        (&["-o", "type=image,compression=zstd"], "compression=zstd is not supported"),
        (&["-o", "type=oci,dest=x.tar,tar=false"], "tar=false is not supported"),
        (&["-o", "type=cacheonly"], "invalid output type"),
        (&["--disable-content-trust=false"], "is not supported"),
    ] {
        let outcome = host.dhow(["build", "-q"]).args(options).args([&path]).fails(1);
        assert!(outcome.stderr.contains(message), "{options:?}: {outcome:#?}");
    }
    // A file of a result is there in whole or not at all.
    let outcome = host.dhow(["build", "-q", "-o", "type=tar,dest=/dev/full", &path]).outcome();
    assert_ne!(outcome.code, 0, "{outcome:#?}");
    host.file("kept.tar", "what was here before");
    host.dhow(["build", "-q", "-o", "type=local,dest=kept.tar", &path]).fails(1);
    assert_eq!(fs_err::read_to_string(host.path("kept.tar")).unwrap(), "what was here before");
}
