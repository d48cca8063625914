//! Signatures and policies through the command: what GnuPG, skopeo and OpenSSL sign, Dhow verifies, and of one policy
//! file about simple signatures skopeo and Dhow make the same decisions. (Debian builds skopeo without sigstore.)

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Host, Image, Layout, Registry, Run, Tree, digest_of, tool};

const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// A registry with an image, somebody's keys, and a place for simple signatures.
struct World {
    host: Host,
    registry: Registry,
    digest: String,
}

impl World {
    fn new() -> Self {
        let (host, registry) = (Host::new(), Registry::start());
        for folder in ["registries.d", "gpg", "lookaside"] {
            fs_err::create_dir(host.path(folder)).expect("folder");
        }
        tool(Command::new("chmod").arg("700").arg(host.path("gpg")));
        let text = format!(
            "default-docker:\n  lookaside: file://{}\n  use-sigstore-attachments: true\n",
            host.text("lookaside")
        );
        host.file("registries.d/default.yaml", text);
        let image = Image::wasm().layer(Tree::new().file("hello", 0o644, b"hello")).entrypoint(&["/hello"]);
        registry.push("team/app:1", &image);
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["inspect", "--tls-verify=false", "--format", "{{.Digest}}"]);
        let digest = tool(skopeo.arg(format!("docker://{}", registry.name("team/app:1"))));
        let digest = digest.trim().to_owned();
        Self { host, registry, digest }
    }

    fn name(&self) -> String {
        self.registry.name("team/app:1")
    }

    fn repository(&self) -> String {
        self.registry.name("team/app")
    }

    /// The command, with the signatures' place configured.
    fn dhow(&self, args: &[&str]) -> Run {
        self.host.dhow(args).env("DHOW_SETTINGS", self.host.path("config.json"))
    }

    fn gpg(&self, args: &[&str]) -> String {
        let mut gpg = Command::new("gpg");
        tool(
            gpg.args(["-q", "--batch", "--passphrase", ""])
                .args(args)
                .env("GNUPGHOME", self.host.path("gpg")),
        )
    }

    /// A key pair of GnuPG and the file with its public half.
    fn gpg_key(&self, algorithm: &str) -> (String, String) {
        let user = format!("{algorithm}@example.com");
        self.gpg(&["--quick-generate-key", &user, algorithm, "sign", "1y"]);
        let listed = self.gpg(&["--with-colons", "--list-keys", &user]);
        let fingerprint = listed.lines().find_map(|line| line.strip_prefix("fpr:")).expect("a fingerprint");
        let ring = self.host.text(&format!("{algorithm}.gpg"));
        self.gpg(&["--output", &ring, "--export", &user]);
        (fingerprint.trim_matches(':').to_owned(), ring)
    }

    /// Signs the image as skopeo does it.
    fn sign(&self, fingerprint: &str) {
        let image = format!("docker://{}", self.name());
        let mut skopeo = Command::new("skopeo");
        skopeo.arg("--registries.d").arg(self.host.path("registries.d")).args(["--insecure-policy", "copy"]);
        skopeo.args([
            "--src-tls-verify=false",
            "--dest-tls-verify=false",
            "--sign-by",
            fingerprint,
            &image,
            &image,
        ]);
        tool(skopeo.env("GNUPGHOME", self.host.path("gpg")));
    }

    /// Puts cosign signatures beside the image: payload and signature of each.
    fn attach(&self, signatures: &[(Vec<u8>, Vec<u8>)]) {
        let layout = Layout::new();
        let config = layout.json("application/vnd.oci.image.config.v1+json", &json!({}));
        let mut layers = Vec::new();
        for (payload, signature) in signatures {
            let mut layer = layout.blob("application/vnd.dev.cosign.simplesigning.v1+json", payload);
            layer["annotations"] = json!({ SIGNATURE: base64(signature) });
            layers.push(layer);
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": config,
            "layers": layers,
        });
        let descriptor = layout.json("application/vnd.oci.image.manifest.v1+json", &manifest);
        layout.tag(&descriptor, "sig");
        let tag = format!("{}.sig", self.digest.replace(':', "-"));
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--dest-tls-verify=false"]);
        skopeo.arg(format!("oci:{}:sig", layout.path().display()));
        tool(skopeo.arg(format!("docker://{}:{tag}", self.repository())));
    }

    /// A policy for the image, not where it would be found without being named.
    fn policy(&self, requirement: &Value) -> String {
        let scopes = json!({ (self.repository()): [requirement] });
        let policy = json!({ "default": [{ "type": "reject" }], "transports": { "docker": scopes } });
        self.host.file("named-policy.json", policy.to_string())
    }

    /// Whether skopeo lets the image in.
    fn skopeo_accepts(&self, policy: &str) -> bool {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--policy", policy, "--registries.d"]).arg(self.host.path("registries.d"));
        skopeo.args(["copy", "--src-tls-verify=false"]).arg(format!("docker://{}", self.name()));
        skopeo.arg(format!("dir:{}", self.host.text("copied"))).env("GNUPGHOME", self.host.path("gpg"));
        skopeo.output().expect("skopeo").status.success()
    }

    /// Whether Dhow does. What it lets in runs, and goes again.
    fn dhow_accepts(&self, policy: &str) -> bool {
        let name = self.name();
        let pulled = self.dhow(&["pull", "-q", "--signature-policy", policy, &name]).outcome();
        if pulled.code == 0 {
            self.dhow(&["rmi", &name]).ok();
        } else {
            assert!(pulled.stderr.contains("not trusted"), "{}", pulled.stderr);
        }
        pulled.code == 0
    }
}

/// A key pair of OpenSSL; the public half is `<name>.pub`.
fn openssl_key(folder: &Path, name: &str, options: &[&str]) {
    let (private, public) = (folder.join(name), folder.join(format!("{name}.pub")));
    tool(Command::new("openssl").arg("genpkey").args(options).arg("-out").arg(&private));
    tool(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&private).arg("-out").arg(public));
}

/// What OpenSSL signs with SHA-256, or with Ed25519 whole.
fn openssl_sign(folder: &Path, name: &str, content: &[u8]) -> Vec<u8> {
    let (input, output) = (folder.join("payload"), folder.join("signature"));
    fs_err::write(&input, content).expect("payload");
    let mut openssl = Command::new("openssl");
    if name.contains("ed25519") {
        openssl
            .args(["pkeyutl", "-sign", "-rawin", "-inkey"])
            .arg(folder.join(name))
            .arg("-out")
            .arg(&output);
        openssl.arg("-in");
    } else {
        openssl.args(["dgst", "-sha256", "-sign"]).arg(folder.join(name)).arg("-out").arg(&output);
    }
    tool(openssl.arg(&input));
    fs_err::read(output).expect("signature")
}

fn base64(bytes: &[u8]) -> String {
    use std::io::Write as _;
    let mut command = Command::new("base64");
    let mut child = command
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("base64");
    child.stdin.take().expect("input").write_all(bytes).expect("written");
    String::from_utf8(child.wait_with_output().expect("base64").stdout).expect("text")
}

fn payload(digest: &str, reference: &str) -> Vec<u8> {
    json!({
        "critical": {
            "identity": { "docker-reference": reference },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": {},
    })
    .to_string()
    .into_bytes()
}

#[test]
fn simple_signatures_as_skopeo_makes_and_judges_them() {
    let world = World::new();
    let (other, other_ring) = world.gpg_key("rsa2048");
    let signed_by = |ring: &str, identity: Option<Value>| {
        let mut requirement = json!({ "type": "signedBy", "keyType": "GPGKeys", "keyPath": ring });
        if let Some(identity) = identity {
            requirement["signedIdentity"] = identity;
        }
        world.policy(&requirement)
    };
    let agree = |policy: &str, expected: bool, what: &str| {
        assert_eq!(world.skopeo_accepts(policy), expected, "skopeo: {what}");
        assert_eq!(world.dhow_accepts(policy), expected, "dhow: {what}");
    };
    agree(&signed_by(&other_ring, None), false, "not signed at all");
    for algorithm in ["ed25519", "nistp256", "nistp384"] {
        let (fingerprint, ring) = world.gpg_key(algorithm);
        world.sign(&fingerprint);
        agree(&signed_by(&ring, None), true, algorithm);
        world.dhow(&["image", "verify", "--keyring", &ring, &world.name()]).ok();
    }
    agree(&signed_by(&other_ring, None), false, "signed by others");
    world.sign(&other);
    agree(&signed_by(&other_ring, None), true, "signed by one more");
    let elsewhere = json!({ "type": "exactRepository", "dockerRepository": "registry.example.com/else" });
    agree(&signed_by(&other_ring, Some(elsewhere)), false, "for another name");
    agree(&signed_by(&other_ring, Some(json!({ "type": "matchExact" }))), true, "for exactly this name");
    agree(&world.policy(&json!({ "type": "insecureAcceptAnything" })), true, "anything");
    agree(&world.policy(&json!({ "type": "reject" })), false, "nothing");
}

#[test]
fn cosign_signatures_of_all_kinds_of_keys() {
    let world = World::new();
    let folder = world.host.path("gpg");
    let kinds: [(&str, &[&str]); 4] = [
        ("p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]),
        ("p384", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]),
        ("ed25519", &["-algorithm", "ED25519"]),
        ("rsa", &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]),
    ];
    let right = payload(&world.digest, &world.repository());
    let mut signatures = Vec::new();
    for (name, options) in kinds {
        openssl_key(&folder, name, options);
        signatures.push((right.clone(), openssl_sign(&folder, name, &right)));
    }
    world.attach(&signatures);
    let demand = |name: &str, identity: &str| {
        world.policy(&json!({
            "type": "sigstoreSigned",
            "keyPath": folder.join(format!("{name}.pub")),
            "signedIdentity": { "type": identity },
        }))
    };
    for (name, _) in kinds {
        let policy = demand(name, "matchRepository");
        assert!(world.dhow_accepts(&policy), "{name}");
        let policy = demand(name, "matchExact");
        assert!(!world.dhow_accepts(&policy), "cosign signs no tag: {name}");
    }
    openssl_key(&folder, "stranger", kinds[0].1);
    let policy = demand("stranger", "matchRepository");
    assert!(!world.dhow_accepts(&policy));

    // What the command shows.
    let key = folder.join("p256.pub").display().to_string();
    let format = "{{.Kind}} {{.Valid}} {{.Identity}}";
    let shown = world.dhow(&["image", "verify", "--key", &key, "--format", format, &world.name()]).outcome();
    assert_eq!(shown.code, 0, "{}", shown.stderr);
    let valid = format!("cosign true {}", world.repository());
    assert_eq!(shown.stdout.lines().filter(|line| *line == valid).count(), 1, "{}", shown.stdout);
    assert_eq!(shown.stdout.lines().count(), 4, "{}", shown.stdout);
    let stranger = folder.join("stranger.pub").display().to_string();
    let refused = world.dhow(&["image", "verify", "--key", &stranger, &world.name()]).outcome();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("not by the expected key"), "{}", refused.stderr);

    // A signature of another image, and of another name, under this image's tag.
    let other = payload(&digest_of(b"other"), &world.repository());
    let renamed = payload(&world.digest, "registry.example.com/else");
    for wrong in [other, renamed] {
        let signature = openssl_sign(&folder, "p256", &wrong);
        world.attach(&[(wrong, signature)]);
        let policy = demand("p256", "matchRepository");
        assert!(!world.dhow_accepts(&policy));
    }
}

#[test]
fn an_image_of_the_store_is_judged_again_when_the_policy_changes() {
    let world = World::new();
    let (folder, name) = (world.host.path("gpg"), world.name());
    openssl_key(&folder, "p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let right = payload(&world.digest, &world.repository());
    let signature = openssl_sign(&folder, "p256", &right);
    let demand = |key: &str| {
        world.policy(&json!({
            "type": "sigstoreSigned", "keyPath": key, "signedIdentity": { "type": "matchRepository" },
        }))
    };
    let key = folder.join("p256.pub").display().to_string();
    let policy = demand(&key);
    let pull = ["pull", "-q", "--signature-policy", &policy, &name];
    let run = ["run", "--rm", "--pull=never", "--signature-policy", &policy, &name];
    // Refused before anything of the image is fetched, and nothing is left of it.
    let before = world.registry.served().iter().filter(|(_, url, _)| url.contains("/blobs/")).count();
    let refused = world.dhow(&pull).outcome();
    assert_eq!(refused.code, 1);
    assert!(
        refused.stderr.contains("a sigstore signature is required, and there is none"),
        "{}",
        refused.stderr
    );
    let after = world.registry.served().iter().filter(|(_, url, _)| url.contains("/blobs/")).count();
    assert_eq!(before, after, "blobs were fetched");
    assert_eq!(world.dhow(&["images", "-q"]).ok(), "");
    // Without a policy it comes in, and is refused when there is one: nobody knows a signature of it.
    world.dhow(&["pull", "-q", &name]).ok();
    let refused = world.dhow(&run).outcome();
    assert_eq!(refused.code, 125);
    assert!(refused.stderr.contains("not trusted"), "{}", refused.stderr);

    world.attach(&[(right, signature)]);
    world.dhow(&pull).ok();
    // The module is not one, but it got as far as being run.
    let started = world.dhow(&run).outcome();
    assert!(!started.stderr.contains("not trusted"), "{}", started.stderr);
    let shown = world.dhow(&["image", "inspect", "--format", "{{json .Signatures}}", &name]).ok();
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown[0]["Kind"], "cosign");
    assert_eq!(shown[0]["Identity"], world.repository());
    world.dhow(&["image", "verify", "--offline", "--key", &key, &name]).ok();
    // The key changes in its place: the kept signature is judged again, without the registry.
    openssl_key(&folder, "p256", &["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    let refused = world.dhow(&run).outcome();
    assert!(refused.stderr.contains("not by the expected key"), "{}", refused.stderr);
    // A policy that cannot be read is never "accept".
    for broken in ["{", "", r#"{"default":[]}"#, r#"{"default":[{"type":"reject"}],"default":[]}"#] {
        fs_err::write(&policy, broken).expect("policy");
        for command in [&pull[..], &run[..]] {
            let refused = world.dhow(command).outcome();
            assert_ne!(refused.code, 0, "{broken}");
            assert!(refused.stderr.contains("named-policy.json"), "{}", refused.stderr);
        }
    }
    fs_err::remove_file(&policy).expect("policy");
    assert!(world.dhow(&run).outcome().stderr.contains("named-policy.json"));
}

#[test]
fn archives_and_the_settings_are_under_the_policy() {
    let world = World::new();
    let archive = world.host.text("image.tar");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["--insecure-policy", "copy", "--src-tls-verify=false"]);
    tool(skopeo.arg(format!("docker://{}", world.name())).arg(format!("oci-archive:{archive}:x:1")));
    let reject = json!({ "default": [{ "type": "reject" }] });
    let allow = json!({
        "default": [{ "type": "reject" }],
        "transports": { "oci-archive": { (archive.clone()): [{ "type": "insecureAcceptAnything" }] } },
    });
    world.host.file("config.json", r#"{ "policy": "policy.json" }"#);
    let load = ["load", "-q", "-i", &archive];
    let refused = world.dhow(&load).outcome();
    assert!(refused.stderr.contains("policy.json"), "named and not there: {}", refused.stderr);
    world.host.file("policy.json", reject.to_string());
    let refused = world.dhow(&load).outcome();
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("the policy rejects every image from there"), "{}", refused.stderr);
    assert_eq!(world.dhow(&["images", "-q"]).ok(), "");
    world.host.file("policy.json", allow.to_string());
    world.dhow(&load).ok();
    let stdin = fs_err::read(&archive).expect("archive");
    let refused = world.dhow(&["load", "-q"]).stdin(stdin).outcome();
    assert!(refused.stderr.contains("not trusted"), "a stream has no path: {}", refused.stderr);
}
