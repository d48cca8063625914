//! The settings file and certificates: TLS, client certificates, insecure registries, mirrors.

use serde_json::json;

use crate::support::{Host, Options, Registry, busybox, skopeo, tool};

const TLS: Options<'static> = Options { tls: true, client_certificate: false, login: None, storage: None };

/// Stores `it:1` in a registry that speaks TLS.
fn fill(registry: &Registry) -> String {
    let plain = Registry::start();
    let from = plain.push("it:1", &busybox().cmd(&["echo", "over TLS"]));
    let name = registry.name("it:1");
    let certificates = registry.certificates();
    let folder = tempfile::tempdir().unwrap();
    for (name, file) in [
        ("ca.crt", &certificates.authority),
        ("client.cert", &certificates.client.certificate),
        ("client.key", &certificates.client.key),
    ] {
        fs_err::copy(file, folder.path().join(name)).unwrap();
    }
    tool(
        skopeo(["copy", "--quiet", "--src-tls-verify=false", "--dest-cert-dir"])
            .arg(folder.path())
            .args([format!("docker://{from}"), format!("docker://{name}")]),
    );
    name
}

fn settings(host: &Host, registries: &serde_json::Value) -> String {
    host.file("settings/config.json", json!({ "registries": registries }).to_string())
}

#[test]
fn an_unknown_authority_is_refused_and_a_known_one_is_not() {
    let registry = Registry::with(TLS);
    let name = fill(&registry);
    let server = registry.address().to_string();
    let host = Host::new();
    let refused = host.dhow(["pull", &name]);
    refused.refused_by_pull("unknown authority");
    // The folder that the hint names, beside the settings file.
    let file = settings(&host, &json!({}));
    let pull = |name: &str| host.dhow(["pull", "-q", name]).env("DHOW_SETTINGS", &file);
    host.file(
        &format!("settings/certs.d/{server}/ca.crt"),
        fs_err::read(&registry.certificates().authority).unwrap(),
    );
    pull(&name).ok();
    assert_eq!(host.dhow(["run", "--rm", &name]).ok(), "over TLS\n");
    // The certificate is for this host name too; it is another registry, though.
    pull(&name.replace("127.0.0.1", "localhost")).refused_by_pull("unknown authority");

    let own = registry.certificates().authority.to_str().unwrap();
    for setting in [json!({ "ca": own }), json!({ "insecure": true })] {
        let host = Host::new();
        let file = settings(&host, &json!({ &server: setting }));
        host.dhow(["pull", "-q", &name]).env("DHOW_SETTINGS", &file).ok();
    }
    host.file(&format!("settings/certs.d/{server}/bad.crt"), "no certificate");
    pull(&name).refused_by_pull("holds no PEM certificate");
}

#[test]
fn a_client_certificate_is_shown() {
    let registry = Registry::with(Options { client_certificate: true, ..TLS });
    let name = fill(&registry);
    let server = registry.address().to_string();
    let certificates = registry.certificates();
    let host = Host::new();
    let file = settings(&host, &json!({ &server: { "ca": certificates.authority } }));
    host.dhow(["pull", &name]).env("DHOW_SETTINGS", &file).refused_by_pull("cannot reach");
    let pair = &certificates.client;
    let entry = json!({ "ca": certificates.authority, "cert": pair.certificate, "key": pair.key });
    let file = settings(&host, &json!({ &server: entry }));
    host.dhow(["pull", "-q", &name]).env("DHOW_SETTINGS", &file).ok();
    let entry = json!({ "cert": pair.certificate, "key": certificates.server.key });
    let file = settings(&host, &json!({ &server: entry }));
    host.dhow(["pull", &name]).env("DHOW_SETTINGS", &file).refused_by_pull("does not fit");
}

#[test]
fn mirrors_stand_in_for_registries() {
    let mirror = Registry::start();
    let image = busybox().cmd(&["echo", "mirrored"]);
    mirror.push("it:1", &image);
    mirror.push("hub/library/it:1", &image);
    let host = Host::new();
    let dead = "http://127.0.0.1:1";
    let live = format!("http://{}", mirror.address());
    let file = settings(
        &host,
        &json!({ "registry.invalid": { "mirrors": [dead, live] }, "docker.io": { "mirrors": [format!("{live}/hub")] } }),
    );
    for name in ["registry.invalid/it:1", "it:1"] {
        let out = host.dhow(["pull", name]).env("DHOW_SETTINGS", &file).outcome();
        assert_eq!(out.code, 0, "{out:#?}");
        assert_eq!(
            out.stdout.contains(&format!("Mirror {dead} passed over")),
            name.contains('/'),
            "{out:#?}"
        );
        assert_eq!(host.dhow(["run", "--rm", name]).ok(), "mirrored\n");
    }
    // What the mirror does not have is looked for at the registry itself.
    host.dhow(["pull", "registry.invalid/other:1"])
        .env("DHOW_SETTINGS", &file)
        .refused_by_pull("cannot reach registry registry.invalid");
}

#[test]
fn settings_that_are_not_known_are_refused() {
    let host = Host::new();
    for (text, message) in [
        (r#"{"registrys":{}}"#, "unknown field `registrys`"),
        (r#"{"registries":{"a":{"mirror":[]}}}"#, "unknown field `mirror`"),
        ("no json", "expected"),
    ] {
        let file = host.file("settings/config.json", text);
        host.dhow(["pull", "127.0.0.1:1/x"]).env("DHOW_SETTINGS", &file).refused_by_pull(message);
    }
}

#[test]
fn every_tag_at_once() {
    let registry = Registry::start();
    for tag in ["1", "2", "3"] {
        registry.push(&format!("it:{tag}"), &busybox().cmd(&["echo", tag]));
    }
    let host = Host::new();
    let name = registry.name("it");
    let out = host.dhow(["pull", "-a", &name]).outcome();
    assert_eq!(out.code, 0, "{out:#?}");
    assert!(out.stdout.contains(&format!("Status: Downloaded newer image for {name}\n{name}\n")), "{out:#?}");
    assert_eq!(host.dhow(["run", "--rm", &format!("{name}:3")]).ok(), "3\n");
    assert_eq!(host.dhow(["pull", "-aq", &name]).ok(), format!("{name}\n"));
    host.dhow(["pull", "-a", &format!("{name}:1")]).refused(1, "tag can't be used with --all-tags/-a");
    host.dhow(["pull", "-a", &registry.name("none")]).refused_by_pull("none");
}

#[test]
fn progress_as_dockers_api_streams_it() {
    let registry = Registry::start();
    let name = registry.push("it:1", &busybox());
    let host = Host::new();
    let messages = |text: &str| -> Vec<serde_json::Value> {
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let out = messages(&host.dhow(["pull", "--progress", "json", &name]).ok());
    assert_eq!(out[0], json!({"status": "Pulling from it", "id": "1"}));
    for status in ["Pulling fs layer", "Download complete", "Pull complete"] {
        assert!(
            out.iter().any(|m| m["status"] == status && m["id"].as_str().unwrap().len() == 12),
            "{out:#?}"
        );
    }
    assert_eq!(out.last().unwrap()["status"], format!("Status: Downloaded newer image for {name}"));
    let failed = host.dhow(["pull", "--progress=json", &registry.name("none")]).outcome();
    assert_eq!(failed.code, 1);
    let last = messages(&failed.stdout).pop().unwrap();
    assert!(last["error"].as_str().unwrap().contains("manifest unknown"), "{last}");
}
