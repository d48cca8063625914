//! Every target over its seeds and mutations of them, the same ones in each run.

use super::*;
use crate::layer::inflate::tests::content;
use crate::layer::inflate::tests::packed;
use crate::layer::tar::tests::end;
use crate::layer::tar::tests::pax;
use crate::layer::tar::tests::raw;

/// How many mutations of its seeds a target gets here. libFuzzer does what only many millions find.
const MUTATIONS: usize = 4000;

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let text = |all: &[&str]| all.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "reference" => text(&[
            "busybox",
            "library/busybox:1.36",
            "127.0.0.1:5000/team/app:v1.2_3-4",
            "[::1]:5000/a/b__c-d.e",
            "docker.io/library/x@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "localhost/x:y@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        ]),
        "documents" => text(&[
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":2},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":7,"annotations":{"a":"b"}}],"subject":null}"#,
            r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef","size":7,"platform":{"os":"linux","architecture":"arm","variant":"v7","os.features":["x"]}}]}"#,
            r#"{"architecture":"amd64","os":"linux","created":"2024-01-02T03:04:05Z","config":{"User":"0:0","Env":["A=b"],"Cmd":["x"],"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"Labels":{"a":"b"},"StopSignal":"TERM","Healthcheck":{"Test":["NONE"]}},"rootfs":{"type":"layers","diff_ids":["sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]},"history":[{"created_by":"x","empty_layer":true}]}"#,
        ]),
        "challenge" => text(&[
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
            r#"Basic realm="x", Bearer realm="https://a/t\"q",error="invalid_token""#,
            "Negotiate TlRMTVNTUAAB==, Basic realm=plain\nBasic",
        ]),
        "docker_config" => text(&[
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"dTpw"},"registry.example:5000":{"username":"u","password":"p"}},"credsStore":"desktop","credHelpers":{"x":"y"}}"#,
            r#"{"auths":{"docker.io":{"identitytoken":"t"},"registry.example:5000":{"auth":"OjA="}}}"#,
        ]),
        "policy" => text(&[
            r#"{"default":[{"type":"reject"}],"transports":{"docker":{"":[{"type":"insecureAcceptAnything"}],"registry.example:5000/team":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/k.gpg","signedIdentity":{"type":"matchRepository"}}],"*.example":[{"type":"sigstoreSigned","keyPath":"/k.pub","rekorPublicKeyPath":"/r.pub","signedIdentity":{"type":"remapIdentity","prefix":"a.example","signedPrefix":"b.example"}}]},"oci":{"/srv":[{"type":"reject"}]}}}"#,
            r#"{"default":[{"type":"sigstoreSigned","fulcio":{"caPath":"/ca","oidcIssuer":"https://i","subjectEmail":"a@b"},"rekorPublicKeyData":"QUJD","signedIdentity":{"type":"exactReference","dockerReference":"x/y:1"}}]}"#,
        ]),
        "inflate" => [0, 1, 6, 9]
            .into_iter()
            .flat_map(|level| [40, 3000].map(|length| packed(&content(length, 2000), level)))
            .collect(),
        "signature" => crate::trust::testing_seeds(),
        "whiteouts" => {
            vec![vec![0, 1, 2, 1, 3, 0, 4, 0, 6, 0], vec![0, 0, 5, 0, 8, 2, 1, 15, 7, 0], (0..64).collect()]
        }
        _ => archives(),
    }
}

fn archives() -> Vec<Vec<u8>> {
    let plain = |flag, name: &str, link: &str, content: &str| {
        raw(flag, name.as_bytes(), link.as_bytes(), content.as_bytes(), |_| ())
    };
    let long = "n".repeat(130);
    vec![
        [
            plain(b'5', "d/", "", ""),
            plain(b'0', "d/f", "", "hello"),
            plain(b'1', "l", "d/f", ""),
            plain(b'2', "s", "../x", ""),
            end(),
        ]
        .concat(),
        [
            plain(b'0', ".wh.x", "", ""),
            plain(b'0', "d/.wh..wh..opq", "", ""),
            plain(b'6', "fifo", "", ""),
            end(),
        ]
        .concat(),
        [
            pax(&[
                ("path", long.as_bytes()),
                ("mtime", b"1.5"),
                ("uid", b"70000"),
                ("SCHILY.xattr.user.a", b"b"),
            ]),
            plain(b'0', "x", "", "content"),
            end(),
        ]
        .concat(),
        [
            plain(b'L', "././@LongLink", "", &format!("{long}\0")),
            plain(b'0', "x", "", ""),
            plain(b'K', "././@LongLink", "", &format!("{long}\0")),
            plain(b'2', "s", "", ""),
            end(),
        ]
        .concat(),
        [
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"sp"),
                ("GNU.sparse.realsize", b"4096"),
            ]),
            plain(b'0', "GNUSparseFile.0/sp", "", &format!("{:\0<512}data", "1\n1024\n4\n")),
            end(),
        ]
        .concat(),
        [
            plain(b'2', "d", "/tmp", ""),
            plain(b'0', "d/f", "", "through a link"),
            plain(b'1', "h", "d/f", ""),
            end(),
        ]
        .concat(),
    ]
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap_or_default() % bound.max(1)
    }

    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut data = seeds[self.below(seeds.len())].clone();
        for _ in 0..=self.below(4) {
            let at = self.below(data.len());
            let length = self.below(16).min(data.len() - at);
            match self.below(7) {
                0 if !data.is_empty() => data[at] ^= 1 << self.below(8),
                1 if !data.is_empty() => {
                    data[at] = [0, 0xff, b'/', b'.', b'"', b'0', b'9', b' '][self.below(8)];
                }
                2 => drop(data.drain(at..at + length)),
                3 => {
                    let piece = data[at..at + length].to_vec();
                    let to = self.below(data.len());
                    data.splice(to..to, piece);
                }
                4 => data.truncate(at),
                5 => {
                    let other = &seeds[self.below(seeds.len())];
                    let from = self.below(other.len());
                    data.truncate(at);
                    data.extend_from_slice(&other[from..]);
                }
                _ => data.splice(at..at, *b"99999999999").for_each(drop),
            }
        }
        data
    }
}

/// Makes the checksum of every header right, without which nothing behind it would be reached.
fn with_checksums(mut data: Vec<u8>) -> Vec<u8> {
    for block in data.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    }
    data
}

fn run(name: &str) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let seeds = seeds(name);
    seeds.iter().for_each(|seed| target(seed));
    let mut dice = Dice(1);
    for _ in 0..MUTATIONS {
        let data = dice.mutate(&seeds);
        target(&if matches!(name, "tar" | "extract" | "erofs") { with_checksums(data) } else { data });
    }
}

#[test]
fn names() {
    run("reference");
}

#[test]
fn documents_of_images() {
    run("documents");
}

#[test]
fn headers_of_registries() {
    run("challenge");
    run("docker_config");
}

#[test]
fn archives_are_read() {
    run("tar");
}

#[test]
fn archives_are_extracted() {
    run("extract");
}

#[test]
fn removed_names() {
    run("whiteouts");
}

#[cfg(target_os = "linux")]
#[test]
fn archives_are_indexed() {
    run("erofs");
}

#[test]
fn policies_and_signatures() {
    run("policy");
    run("signature");
}

#[test]
fn every_target_has_a_fuzzer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets");
    for (name, _) in TARGETS {
        let text = fs_err::read_to_string(folder.join(format!("{name}.rs"))).unwrap();
        assert!(text.contains(&format!("\"{name}\"")), "{name}");
    }
}
