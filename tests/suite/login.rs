//! `login` and `logout`: what the registry says, what is kept, and who else can read it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Docker, Host, Options, Registry, Terminal, busybox, is_root, skopeo, tool};

const PRIVATE: Options<'static> =
    Options { tls: false, client_certificate: false, login: Some(("u", "sesame")), storage: None };

fn config(host: &Host) -> Value {
    serde_json::from_slice(&fs_err::read(host.path(".docker/config.json")).unwrap()).unwrap()
}

/// Stores an image with the login that the registry wants.
fn fill(registry: &Registry, host: &Host) -> String {
    let (plain, name) = (Registry::start(), registry.name("it:1"));
    let from = plain.push("it:1", &busybox().cmd(&["echo", "private"]));
    tool(
        skopeo(["copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", "--dest-authfile"])
            .arg(host.path(".docker/config.json"))
            .args([format!("docker://{from}"), format!("docker://{name}")]),
    );
    name
}

#[test]
fn what_is_kept_opens_the_registry_for_others_too() {
    let registry = Registry::with(PRIVATE);
    let server = registry.address().to_string();
    let host = Host::new();
    host.file(".docker/config.json", r#"{"psFormat":"x"}"#);
    let login = ["login", "-u", "u", "--password-stdin", &server];
    let out = host.dhow(login).stdin("sesame\n").outcome();
    assert_eq!((out.code, out.stdout.as_str()), (0, "Login Succeeded\n"), "{out:#?}");
    let file = host.path(".docker/config.json");
    assert!(
        out.stderr.contains("stored unencrypted") && out.stderr.contains(file.to_str().unwrap()),
        "{out:#?}"
    );
    assert_eq!(config(&host), json!({"psFormat": "x", "auths": {&server: {"auth": "dTpzZXNhbWU="}}}));
    assert_eq!(fs_err::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // skopeo reads the file, and so does a pull.
    let name = fill(&registry, &host);
    host.dhow(["pull", "-q", &name]).ok();
    assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "private\n");
    let again = host.dhow(["login", &server]).outcome();
    assert_eq!((again.code, again.stdout.as_str()), (0, "Login Succeeded\n"), "{again:#?}");
    assert!(again.stderr.contains("existing credentials"), "{again:#?}");

    let out = host.dhow(["logout", &server]).ok();
    assert_eq!(out, format!("Removing login credentials for {server}\n"));
    assert_eq!(config(&host), json!({"psFormat": "x", "auths": {}}));
    host.dhow(["pull", &name]).refused_by_pull("authentication required");
    host.dhow(["logout", &server]).ok();
}

#[test]
fn what_is_refused_is_not_kept() {
    let registry = Registry::with(PRIVATE);
    let server = registry.address().to_string();
    let host = Host::new();
    let stdin = |args: &[&str], input: &str| host.dhow(["login"].iter().chain(args)).stdin(input).outcome();
    stdin(&["-u", "u", "--password-stdin", &server], "wrong").is_refusal("not accepted");
    stdin(&["-u", "u", "--password-stdin", &server], "\n").is_refusal("no password");
    stdin(&["--password-stdin", &server], "sesame").is_refusal("Must provide --username");
    stdin(&["-u", "u", &server], "sesame").is_refusal("non TTY device");
    stdin(&["-u", "u", "--password-stdin", "nobody.invalid"], "x")
        .is_refusal("cannot reach registry nobody.invalid");
    assert!(!host.path(".docker").exists());
    host.file(".docker/config.json", "[");
    stdin(&["-u", "u", "--password-stdin", &server], "sesame").is_refusal("not a valid Docker configuration");
}

#[test]
fn a_password_is_not_seen_on_the_terminal() {
    let registry = Registry::with(PRIVATE);
    let host = Host::new();
    let login = host.dhow(["login", &registry.address().to_string()]).into_command();
    let mut terminal = Terminal::start(&login, 24, 80);
    terminal.expect("Username: ");
    terminal.send("u\r");
    terminal.expect("Password: ");
    terminal.send("sesam\u{7f}me\r");
    terminal.expect("Login Succeeded");
    assert_eq!(terminal.code(), 0);
    assert!(!terminal.shown().contains("sesa"), "{:?}", terminal.shown());

    let mut terminal = Terminal::start(
        &host.dhow(["login", "-u", "x", &registry.address().to_string()]).into_command(),
        24,
        80,
    );
    terminal.expect("Password: ");
    terminal.send("sec\u{3}");
    assert_eq!(terminal.code(), 1);
    assert!(terminal.is_cooked());
}

#[test]
fn helpers_keep_secrets_out_of_the_file() {
    let registry = Registry::with(PRIVATE);
    let server = registry.address().to_string();
    let host = Host::new();
    let kept = host.text("kept");
    let script = format!(
        "#!/bin/sh\ncase $1 in\nstore) cat > {kept} ;;\nget) if [ -e {kept} ]; then cat {kept}; else echo credentials not found in \
         native keychain; exit 1; fi ;;\nerase) rm -f {kept} ;;\nesac\n"
    );
    let helper = host.file("bin/docker-credential-test", script);
    fs_err::set_permissions(&helper, PermissionsExt::from_mode(0o755)).unwrap();
    host.file(
        ".docker/config.json",
        format!(r#"{{"credHelpers":{{"{server}":"test","127.0.0.1:1":"missing"}}}}"#),
    );
    let path = format!("{}:/usr/bin:/bin", host.text("bin"));
    let dhow = |args: &[&str]| host.dhow(args).env("PATH", &path);
    let out = dhow(&["login", "-u", "u", "--password-stdin", &server]).stdin("sesame").outcome();
    assert_eq!((out.code, out.stderr.as_str()), (0, ""), "{out:#?}");
    assert_eq!(config(&host)["auths"], json!({&server: {}}));
    let secret: Value = serde_json::from_slice(&fs_err::read(&kept).unwrap()).unwrap();
    assert_eq!(secret, json!({"ServerURL": server, "Username": "u", "Secret": "sesame"}));
    dhow(&["login", &server]).outcome();
    dhow(&["pull", &registry.name("none:1")]).refused_by_pull("manifest unknown");
    dhow(&["logout", &server]).ok();
    assert!(!host.path("kept").exists());
    dhow(&["pull", "127.0.0.1:1/x"]).refused_by_pull("docker-credential-missing: there is no such program");
}

/// Docker's own client writes the file that `login` is to write, and its `logout` understands ours.
#[test]
fn docker_writes_the_same() {
    if !is_root() {
        return;
    }
    let Some(docker) = Docker::start() else { return };
    let registry = Registry::with(PRIVATE);
    let server = registry.address().to_string();
    let host = Host::new();
    host.dhow(["login", "-u", "u", "--password-stdin", &server]).stdin("sesame").outcome();
    let folder = host.path("docker");
    let client = |args: &[&str]| -> Command {
        let mut command = docker.call(args);
        command.env("DOCKER_CONFIG", &folder);
        command
    };
    tool(&mut client(&["login", "-u", "u", "-p", "sesame", &server]));
    let theirs: Value = serde_json::from_slice(&fs_err::read(folder.join("config.json")).unwrap()).unwrap();
    assert_eq!(config(&host)["auths"], theirs["auths"]);
    assert_eq!(
        fs_err::read_to_string(host.path(".docker/config.json")).unwrap(),
        fs_err::read_to_string(folder.join("config.json")).unwrap()
    );
    let name = fill(&registry, &host);
    host.dhow(["pull", "-q", &name]).env("DOCKER_CONFIG", &folder).ok();
    let ours = host.path(".docker");
    tool(docker.call(["logout", &server]).env("DOCKER_CONFIG", &ours));
    assert_eq!(config(&host)["auths"], json!({}));
}
