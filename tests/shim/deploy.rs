//! What `shim/deploy` gives to a cluster: documents that are YAML and fit together, configuration that this host's containerd
//! takes, an installer that changes a node once. Nothing here has a cluster.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::made::tool;
use crate::support::SHIM;

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn read(name: &str) -> String {
    fs_err::read_to_string(deploy().join(name)).unwrap()
}

/// All documents of a file.
fn documents(text: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin))))";
    let mut python = Command::new("/usr/bin/python3");
    let mut child =
        python.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3");
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "Debian package python3-yaml, or no YAML:\n{text}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A template with a chart's values, as far as ours use Helm's language.
fn rendered(template: &str, values: &Value) -> String {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (expression, after) = after.split_once("}}").expect("an expression's end");
        text.push_str(before);
        rest = after;
        let mut parts = expression.split('|').map(str::trim);
        let name = parts.next().unwrap();
        let value = |name: &str| match name.strip_prefix(".Values.") {
            Some(name) => values[name].clone(),
            None if name == ".Release.Namespace" => json!("kube-system"),
            None => panic!("unknown: {name}"),
        };
        match (name.strip_prefix("toYaml "), parts.next()) {
            // JSON is YAML, and needs no indentation.
            (Some(name), Some("nindent 8")) => text.push_str(&value(name).to_string()),
            (None, Some("quote")) => text.push_str(&json!(value(name).as_str().unwrap()).to_string()),
            (None, None) => text.push_str(value(name).as_str().unwrap()),
            other => panic!("unknown: {other:?}"),
        }
    }
    text + rest
}

#[test]
fn a_chart_s_documents_fit_together() {
    let [values] = &documents(&read("helm/dhow/values.yaml"))[..] else { panic!("one document") };
    let [chart] = &documents(&read("helm/dhow/Chart.yaml"))[..] else { panic!("one document") };
    assert!(
        chart["name"] == "dhow" && chart["apiVersion"] == "v2" && chart["version"].is_string(),
        "{chart}"
    );
    let all: Vec<Value> = ["installer", "runtimeclass"]
        .iter()
        .flat_map(|name| documents(&rendered(&read(&format!("helm/dhow/templates/{name}.yaml")), values)))
        .collect();
    for document in &all {
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            assert!(document.pointer(field).is_some_and(Value::is_string), "{field}: {document}");
        }
    }
    let of =
        |kind: &str| all.iter().find(|document| document["kind"] == kind).unwrap_or_else(|| panic!("{kind}"));
    let (set, class) = (of("DaemonSet"), of("RuntimeClass"));
    let pod = &set["spec"]["template"];
    assert_eq!(set["spec"]["selector"]["matchLabels"], pod["metadata"]["labels"]);
    assert_eq!(pod["spec"]["serviceAccountName"], of("ServiceAccount")["metadata"]["name"]);
    let binding = of("ClusterRoleBinding");
    assert_eq!(binding["roleRef"]["name"], of("ClusterRole")["metadata"]["name"]);
    assert_eq!(binding["subjects"][0]["name"], of("ServiceAccount")["metadata"]["name"]);
    // The label that nodes get is the one that pods look for.
    let label = pod["spec"]["initContainers"][1]["command"][2].as_str().unwrap();
    let wanted = class["scheduling"]["nodeSelector"].as_object().unwrap();
    let (name, value) = wanted.iter().next().unwrap();
    assert!(label.contains(&format!("{name}={}", value.as_str().unwrap())), "{label}");
    let [plain] = &documents(&read("runtimeclass.yaml"))[..] else { panic!("one document") };
    assert_eq!((&plain["handler"], &plain["scheduling"]), (&class["handler"], &class["scheduling"]));
    let [pod] = &documents(&read("pod.yaml"))[..] else { panic!("one document") };
    assert_eq!(pod["spec"]["runtimeClassName"], plain["metadata"]["name"]);
    let [shim] = &documents(&read("shim.yaml"))[..] else { panic!("one document") };
    assert_eq!(shim["spec"]["runtimeClass"]["handler"], plain["handler"]);
}

#[test]
fn containerd_takes_the_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config.toml");
    fs_err::write(&config, format!("version = 2\n{}", read("containerd/1.x.toml"))).unwrap();
    let shown = tool(Command::new("containerd").arg("--config").arg(&config).args(["config", "dump"]));
    let part = shown.split("runtimes.dhow]").nth(1).expect("the runtime");
    assert!(part.contains("runtime_type = \"io.containerd.dhow.v1\""), "{part}");
    assert!(part.contains("ConfigPath = \"/etc/containerd/dhow.toml\""), "{part}");
}

#[test]
fn an_installer_changes_a_node_once() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs_err::create_dir_all(at("installer/containerd")).unwrap();
    for name in ["1.x.toml", "2.x.toml", "dhow.toml"] {
        fs_err::copy(deploy().join("containerd").join(name), at("installer/containerd").join(name)).unwrap();
    }
    fs_err::copy(deploy().join("installer/install.sh"), at("installer/install.sh")).unwrap();
    fs_err::copy(SHIM, at("installer/containerd-shim-dhow-v1")).unwrap();
    let install = |version: &str| {
        let mut command = Command::new("sh");
        command.arg(at("installer/install.sh")).env("HOST", at("node")).env("BIN", "/usr/local/bin");
        command.env("CONFIGURATION", "/etc/containerd/conf.d").env("VERSION", version);
        tool(&mut command);
        let files = ["usr/local/bin/containerd-shim-dhow-v1", "etc/containerd/conf.d/dhow.toml"];
        files.map(|name| fs_err::metadata(at("node").join(name)).unwrap().modified().unwrap())
    };
    let first = install("2");
    assert_eq!(first, install("2"));
    assert!(!at("node/etc/containerd/dhow.toml").exists());
    let shim = at("node/usr/local/bin/containerd-shim-dhow-v1");
    assert!(tool(Command::new(shim).arg("-v")).contains(env!("CARGO_PKG_VERSION")));
    let other = install("1");
    assert!(first[0] == other[0] && first[1] != other[1]);
    assert_eq!(
        fs_err::read(at("node/etc/containerd/dhow.toml")).unwrap(),
        read("containerd/dhow.toml").as_bytes()
    );
}
