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

/// A node as its installer sees it: files, a containerd's version, and what a restart does.
struct Node {
    dir: tempfile::TempDir,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for name in ["installer/containerd", "programs", "node"] {
            fs_err::create_dir_all(at(name)).unwrap();
        }
        for name in ["version-2.toml", "version-3.toml"] {
            fs_err::copy(deploy().join("containerd").join(name), at("installer/containerd").join(name))
                .unwrap();
        }
        fs_err::copy(deploy().join("installer/install.sh"), at("installer/install.sh")).unwrap();
        fs_err::copy(SHIM, at("installer/containerd-shim-dhow-v1")).unwrap();
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.at("node").join(name);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs_err::read_to_string(self.at("node").join(name)).unwrap_or_default()
    }

    /// Installs; a restart does this. What it printed when it failed, and how many restarts there have been.
    fn install(&self, configuration: &str, version: &str, restart: &str) -> (Option<String>, usize) {
        let programs = self.at("programs");
        let script = format!("#!/bin/sh\necho \"$@\" >> {}\n{restart}\n", self.at("asked").display());
        fs_err::write(programs.join("nsenter"), script).unwrap();
        tool(Command::new("chmod").arg("755").arg(programs.join("nsenter")));
        let output = Command::new("sh")
            .arg(self.at("installer/install.sh"))
            .env("PATH", format!("{}:/usr/bin:/bin", programs.display()))
            .env("HOST", self.at("node"))
            .env("BIN", "/usr/local/bin")
            .env("CONFIGURATION", configuration)
            .env("VERSION", version)
            .env("RESTART", "restart it")
            .output()
            .unwrap();
        let failed = (!output.status.success()).then(|| String::from_utf8(output.stderr).unwrap());
        let asked = fs_err::read_to_string(self.at("asked")).unwrap_or_default();
        (failed, asked.matches("sh -c restart it").count())
    }
}

const CONFIG: &str = "etc/containerd/config.toml";

/// What a node's containerd had stays, in the words of this one: an imported file would have taken its place.
#[test]
fn containerd_takes_the_configuration() {
    let node = Node::new();
    let own = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"example.org/pause:7\"\n\
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n  \
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options]\n    SystemdCgroup = true";
    for text in [own.to_owned(), format!("{own}\n")] {
        node.write(CONFIG, &text);
        assert_eq!(node.install(&format!("/{CONFIG}"), "1", "").0, None);
        let config = node.at("node").join(CONFIG);
        let shown = tool(Command::new("containerd").arg("--config").arg(config).args(["config", "dump"]));
        for part in ["example.org/pause:7", "runtimes.runc]", "SystemdCgroup = true", "runtimes.dhow]"] {
            assert!(shown.contains(part), "{part}:\n{shown}");
        }
        let part = shown.split("runtimes.dhow]").nth(1).expect("the runtime");
        assert!(part.contains("runtime_type = \"io.containerd.dhow.v1\""), "{part}");
    }
}

#[test]
fn an_installer_changes_a_node_once() {
    let node = Node::new();
    let files = ["usr/local/bin/containerd-shim-dhow-v1", CONFIG];
    let times =
        || files.map(|name| fs_err::metadata(node.at("node").join(name)).unwrap().modified().unwrap());
    // A restart that does not work is tried again by the next one, and once only.
    let restarts = [("exit 1", true, 1), ("exit 1", true, 2), ("", false, 3), ("", false, 3)];
    for (script, fails, restarts) in restarts {
        let (failed, asked) = node.install(&format!("/{CONFIG}"), "2", script);
        assert_eq!((failed.is_some(), asked), (fails, restarts), "{failed:?}");
    }
    let first = times();
    let text = node.read(CONFIG);
    assert!(text.starts_with("version = 3\n") && text.contains(&read("containerd/version-3.toml")), "{text}");
    assert!(tool(Command::new(node.at("node").join(files[0])).arg("-v")).contains(env!("CARGO_PKG_VERSION")));
    // What others add stays, and what the installer added before goes.
    node.write(
        CONFIG,
        &text.replace("io.containerd.dhow.v1", "old").replace("version = 3\n", "version = 3\n[a]\n"),
    );
    tool(Command::new("chmod").arg("600").arg(node.at("node").join(CONFIG)));
    assert_eq!(node.install(&format!("/{CONFIG}"), "2", ""), (None, 4));
    assert_eq!(node.read(CONFIG), text.replace("version = 3\n", "version = 3\n[a]\n"));
    let second = times();
    assert!(first[0] == second[0] && first[1] != second[1]);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &fs_err::metadata(node.at("node").join(CONFIG)).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    assert!(!node.at("node/usr/local/bin/.containerd-shim-dhow-v1.untold").exists());
}

#[test]
fn an_installer_knows_where_the_words_go() {
    let two = read("containerd/version-2.toml");
    let three = read("containerd/version-3.toml");
    let k3s = "var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl";
    let k3s_3 = "var/lib/rancher/k3s/agent/etc/containerd/config-v3.toml.tmpl";
    let cases: [(&str, &str, &str, &str, &str); 8] = [
        // file, its text, containerd's version, the beginning, what is added
        (CONFIG, "", "1", "version = 2\n", &two),
        (CONFIG, "", "2", "version = 3\n", &three),
        (CONFIG, "version=2\n", "2", "version=2\n", &two),
        (CONFIG, "# a\n version = 4\n", "1", "# a\n version = 4\n", &three),
        (k3s, "", "2", "{{ template \"base\" . }}\n", &two),
        (k3s_3, "", "2", "{{ template \"base\" . }}\n", &three),
        (k3s_3, "{{ template \"base\" . }}\n[a]\n", "1", "{{ template \"base\" . }}\n[a]\n", &three),
        (k3s, "version = 2\n{{ if x }}{{ end }}\n", "2", "version = 2\n{{ if x }}{{ end }}\n", &two),
    ];
    for (file, text, version, begins, adds) in cases {
        let node = Node::new();
        if !text.is_empty() {
            node.write(file, text);
        }
        assert_eq!(node.install(&format!("/{file}"), version, "").0, None, "{file} {text:?}");
        let now = node.read(file);
        assert!(now.starts_with(begins) && now.contains(adds), "{now}");
        assert_eq!(now.matches("runtimes.dhow]").count(), 1, "{now}");
    }
    // Somebody's own words for it.
    for own in [&two, &three.replace("dhow]", "\"dhow\"]"), "[plugins.cri.containerd.runtimes.'dhow']\n"] {
        let node = Node::new();
        node.write(CONFIG, own);
        assert_eq!(node.install(&format!("/{CONFIG}"), "2", ""), (None, 1));
        assert_eq!(node.read(CONFIG), *own);
    }
    // A folder, where that is one of a single configuration.
    for (folder, version, adds) in
        [("/etc/k0s/containerd.d", "1", &two), ("/etc/containerd/conf.d", "2", &three)]
    {
        let node = Node::new();
        node.write(&format!("{folder}/other.toml")[1..], "");
        assert_eq!(node.install(folder, version, "").0, None);
        assert!(node.read(&format!("{folder}/dhow.toml")[1..]).ends_with(adds.as_str()));
    }
    for (file, text, configuration) in [
        (CONFIG, "[plugins.cri]\n", "/etc/containerd/config.toml"),
        (CONFIG, "version = 1\n", "/etc/containerd/config.toml"),
        ("etc/containerd/conf.d/other.toml", "", "/etc/containerd/conf.d"),
    ] {
        let node = Node::new();
        node.write(file, text);
        let (failed, restarts) = node.install(configuration, "1", "");
        assert!(failed.is_some_and(|why| why.contains("hint: ")) && restarts == 0, "{file} {text}");
        assert_eq!(node.read(file), text);
        assert_eq!(node.read("usr/local/bin/containerd-shim-dhow-v1"), "");
    }
}
