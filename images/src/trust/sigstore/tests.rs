//! Sigstore signatures: good ones, and every way in which one can be wrong.

use serde_json::Value;
use serde_json::json;

use super::super::collect::Material;
use super::super::json::to_base64;
use super::super::origin::Origin;
use super::super::policy::Policy;
use super::super::testing::EMAIL;
use super::super::testing::ISSUER;
use super::super::testing::Leaf;
use super::super::testing::MANIFEST;
use super::super::testing::Parts;
use super::super::testing::SIGNED_AT;
use super::super::testing::Signer;
use super::super::testing::URI;
use super::super::testing::World;
use super::super::testing::payload;
use super::super::testing::pem;
use super::super::verify::Accepted;
use super::super::verify::Subject;
use super::super::verify::check;
use crate::Digest;

const IMAGE: &str = "registry.example.com/team/app:1";
const REPOSITORY: &str = "registry.example.com/team/app";
/// Long after everything was signed and every certificate has expired.
const NOW: i64 = SIGNED_AT + 50_000_000;

fn policy(requirement: &Value) -> Policy {
    let text = json!({ "default": [requirement] }).to_string();
    Policy::parse("policy.json".as_ref(), text.as_bytes()).unwrap()
}

fn judge(requirement: &Value, material: &[Material]) -> Result<Vec<Accepted>, String> {
    let origin = Origin::registry(&IMAGE.parse().unwrap());
    let digest = Digest::of(MANIFEST);
    let subject = Subject { origin: &origin, digest: &digest, manifest: MANIFEST };
    check(&policy(requirement), &subject, material, NOW).map(|d| d.accepted).map_err(|e| e.to_string())
}

fn data(text: &str) -> String {
    to_base64(text.as_bytes())
}

fn key_requirement(key: &Signer, log: Option<&Signer>) -> Value {
    let mut requirement = json!({
        "type": "sigstoreSigned",
        "keyData": data(&key.pem()),
        "signedIdentity": { "type": "matchRepository" },
    });
    if let Some(log) = log {
        requirement["rekorPublicKeyData"] = data(&log.pem()).into();
    }
    requirement
}

fn fulcio_requirement(world: &World) -> Value {
    json!({
        "type": "sigstoreSigned",
        "fulcio": {
            "caData": data(&pem("CERTIFICATE", &world.root_certificate())),
            "oidcIssuer": ISSUER,
            "subjectEmail": EMAIL,
            "ctLogPublicKeyData": data(&world.certificate_log.pem()),
        },
        "rekorPublicKeyData": data(&world.log.pem()),
        "signedIdentity": { "type": "matchRepository" },
    })
}

fn root_requirement(world: &World) -> Value {
    json!({
        "type": "sigstoreSigned",
        "fulcio": { "oidcIssuer": ISSUER, "subjectEmail": EMAIL },
        "trustedRootData": data(&world.trusted_root().to_string()),
        "signedIdentity": { "type": "matchDigest" },
    })
}

/// Asserts that a signature is refused for this reason.
fn refused(requirement: &Value, material: Material, reason: &str) {
    let error = judge(requirement, &[material]).expect_err(reason);
    assert!(error.contains(reason), "expected \"{reason}\", found \"{error}\"");
}

#[test]
fn a_signature_by_key() {
    let world = World::new();
    let good = world.by_key(REPOSITORY);
    let plain = key_requirement(&world.signer, None);
    let accepted = judge(&plain, &[good.material()]).unwrap();
    assert_eq!(accepted[0].kind, "cosign");
    assert_eq!(accepted[0].identity.as_deref(), Some(REPOSITORY));
    assert!(accepted[0].signer.starts_with("sha256:"));
    let logged = key_requirement(&world.signer, Some(&world.log));
    assert_eq!(judge(&logged, &[good.material()]).unwrap()[0].time, Some(SIGNED_AT));

    let spoil = |act: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        act(&mut parts);
        parts.material()
    };
    let sign = |payload: Vec<u8>| {
        let signature = world.signer.sign(&payload);
        Parts { payload, signature, ..good.clone() }.material()
    };
    let other = Digest::of(b"other");
    refused(&plain, spoil(&|p| p.payload[10] ^= 1), "not by the expected key");
    refused(&plain, spoil(&|p| p.signature[9] ^= 1), "not by the expected key");
    refused(&plain, spoil(&|p| p.signature.clear()), "not by the expected key");
    refused(&key_requirement(&Signer::new(), None), good.material(), "not by the expected key");
    refused(&plain, sign(payload(&other, REPOSITORY)), "for another image");
    refused(
        &plain,
        sign(payload(&Digest::of(MANIFEST), "registry.example.com/team/other")),
        "for \"registry",
    );
    refused(&plain, sign(payload(&Digest::of(MANIFEST), "")), "names no repository");
    let text = String::from_utf8(good.payload.clone()).unwrap();
    let twice = text.replace("{\"critical\":", "{\"critical\":{},\"critical\":");
    refused(&plain, sign(twice.into_bytes()), "occurs twice");
    let inner = text.replace(
        "\"docker-manifest-digest\":",
        &format!("\"docker-manifest-digest\":\"{other}\",\"docker-manifest-digest\":"),
    );
    refused(&plain, sign(inner.into_bytes()), "occurs twice");
    refused(
        &plain,
        sign(text.replace("cosign container image", "atomic container").into_bytes()),
        "is a \"atomic",
    );
    refused(&plain, sign(b"[]".to_vec()), "not an object");
    refused(&plain, sign(Vec::new()), "not valid JSON");
    refused(&plain, sign(vec![b'['; 2000]), "not valid JSON");

    // The log.
    refused(&logged, spoil(&|p| p.entry = None), "in no transparency log");
    refused(&logged, spoil(&|p| p.entry.as_mut().unwrap().promise[9] ^= 1), "timestamp does not hold");
    refused(&logged, spoil(&|p| p.entry.as_mut().unwrap().time += 1), "timestamp does not hold");
    refused(&logged, spoil(&|p| p.entry.as_mut().unwrap().index += 1), "timestamp does not hold");
    refused(&logged, spoil(&|p| p.entry.as_mut().unwrap().body.push(b' ')), "timestamp does not hold");
    refused(&logged, spoil(&|p| p.entry.as_mut().unwrap().id[0] ^= 1), "is not a known one");
    refused(&key_requirement(&world.signer, Some(&Signer::new())), good.material(), "is not a known one");
    let with_entry = |entry| Parts { entry: Some(entry), ..good.clone() }.material();
    let pem = world.signer.pem();
    refused(&logged, with_entry(world.entry(b"other", &good.signature, &pem)), "about other content");
    refused(&logged, with_entry(world.entry(&good.payload, b"other", &pem)), "about another signature");
    refused(
        &logged,
        with_entry(world.entry(&good.payload, &good.signature, &Signer::new().pem())),
        "about another signer",
    );
    let mut odd = world.entry(&good.payload, &good.signature, &pem);
    odd.body = br#"{"apiVersion":"9","kind":"hashedrekord","spec":{}}"#.to_vec();
    odd.promise = world.log.sign(&odd.promised());
    refused(&logged, with_entry(odd), "unknown kind");

    // One good signature among bad ones is enough, and none is not.
    let bad = spoil(&|p| p.signature[9] ^= 1);
    assert!(judge(&plain, &[bad.clone(), good.material(), bad.clone()]).is_ok());
    assert!(judge(&plain, &[]).unwrap_err().contains("there is none"));
    assert!(judge(&plain, &vec![bad; 64]).unwrap_err().len() < 1000);
}

#[test]
fn who_signs_may_be_one_of_several() {
    let world = World::new();
    let good = world.by_key(REPOSITORY).material();
    let mut requirement = key_requirement(&Signer::new(), None);
    requirement.as_object_mut().unwrap().remove("keyData");
    requirement["keyDatas"] = json!([data(&Signer::new().pem()), data(&world.signer.pem())]);
    assert!(judge(&requirement, std::slice::from_ref(&good)).is_ok());
    requirement["keyDatas"] = json!([data(&(Signer::new().pem() + &world.signer.pem()))]);
    assert!(judge(&requirement, std::slice::from_ref(&good)).is_ok());
    for bad in ["", "no key", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        requirement["keyDatas"] = json!([data(bad)]);
        assert!(judge(&requirement, std::slice::from_ref(&good)).is_err(), "{bad}");
    }
    let absent = json!({ "type": "sigstoreSigned", "keyPath": "/nonexistent/key.pub" });
    assert!(judge(&absent, &[good]).unwrap_err().contains("/nonexistent/key.pub"));
}

#[test]
fn a_signature_with_a_certificate() {
    let world = World::new();
    let requirement = fulcio_requirement(&world);
    let good = world.keyless(REPOSITORY, &Leaf::default());
    let accepted = judge(&requirement, &[good.material()]).unwrap();
    assert_eq!(accepted[0].signer, EMAIL);
    assert_eq!(accepted[0].issuer.as_deref(), Some(ISSUER));
    assert_eq!(accepted[0].time, Some(SIGNED_AT));

    let leaf = |act: &dyn Fn(&mut Leaf)| {
        let mut leaf = Leaf::default();
        act(&mut leaf);
        world.keyless(REPOSITORY, &leaf).material()
    };
    let spoil = |act: &dyn Fn(&mut Parts)| {
        let mut parts = good.clone();
        act(&mut parts);
        parts.material()
    };
    let log_again = |parts: &mut Parts, time: i64| {
        let mut entry =
            world.entry(&parts.payload, &parts.signature, parts.certificate.as_deref().unwrap_or_default());
        entry.time = time;
        entry.promise = world.log.sign(&entry.promised());
        parts.entry = Some(entry);
    };
    assert!(judge(&requirement, &[leaf(&|l| l.issuer_v1 = None)]).is_ok());
    assert!(judge(&requirement, &[leaf(&|l| l.issuer_v2 = None)]).is_ok());
    refused(&requirement, leaf(&|l| l.email = Some("evil@example.com".into())), "is signed by \"evil@");
    refused(&requirement, leaf(&|l| l.email = None), "is signed by \"\"");
    // The name of a person in a place for workflows is not that person.
    refused(&requirement, leaf(&|l| (l.email, l.uri) = (None, Some(EMAIL.into()))), "is signed by \"dev@");
    refused(
        &requirement,
        leaf(&|l| (l.issuer_v1, l.issuer_v2) = (Some("https://x".into()), Some("https://x".into()))),
        "identified by \"https://x\"",
    );
    refused(&requirement, leaf(&|l| l.issuer_v1 = Some("https://x".into())), "two different issuers");
    refused(&requirement, leaf(&|l| (l.issuer_v1, l.issuer_v2) = (None, None)), "no OIDC issuer");
    refused(&requirement, leaf(&|l| l.twice = true), "twice");
    refused(&requirement, leaf(&|l| l.for_servers = true), "not one for signing code");
    refused(
        &requirement,
        leaf(&|l| l.valid = (SIGNED_AT - 900, SIGNED_AT - 300)),
        "not from a trusted authority",
    );
    refused(
        &requirement,
        leaf(&|l| l.valid = (SIGNED_AT + 300, SIGNED_AT + 900)),
        "not from a trusted authority",
    );
    refused(&requirement, leaf(&|l| l.logged = false), "no receipt");
    refused(&requirement, spoil(&|p| log_again(p, SIGNED_AT + 86_400)), "not from a trusted authority");
    refused(&requirement, spoil(&|p| log_again(p, -5)), "before 1970");
    refused(&requirement, spoil(&|p| p.entry = None), "in no transparency log");
    refused(&requirement, spoil(&|p| p.certificate = None), "no certificate");
    refused(&requirement, spoil(&|p| p.chain = None), "not from a trusted authority");
    refused(&requirement, spoil(&|p| p.chain = Some("garbage".into())), "no certificate in PEM");
    refused(&requirement, spoil(&|p| p.signature[9] ^= 1), "not by the certificate's key");
    refused(&requirement, world.by_key(REPOSITORY).material(), "no certificate");

    // Another world's certificate for the same person, logged in ours.
    let mut stranger = World::new();
    std::mem::swap(&mut stranger.signer, &mut World::new().signer);
    let mut parts = stranger.keyless(REPOSITORY, &Leaf::default());
    log_again(&mut parts, SIGNED_AT);
    refused(&requirement, parts.material(), "not from a trusted authority");
    // Our authority's certificate with the receipt of a log that nobody knows.
    let mut unlogged = requirement.clone();
    unlogged["fulcio"]["ctLogPublicKeyData"] = data(&Signer::new().pem()).into();
    refused(&unlogged, good.material(), "no receipt of a known");
}

#[test]
fn certificates_of_workflows() {
    let world = World::new();
    let leaf = Leaf { email: None, uri: Some(URI.into()), ..Leaf::default() };
    let material = world.keyless(REPOSITORY, &leaf).material();
    let mut requirement = fulcio_requirement(&world);
    refused(&requirement, material.clone(), "is signed by \"https://ci.example");
    let fulcio = requirement["fulcio"].as_object_mut().unwrap();
    fulcio.remove("subjectEmail");
    fulcio.insert("subjectURI".into(), URI.into());
    assert_eq!(judge(&requirement, &[material]).unwrap()[0].signer, URI);
    refused(&requirement, world.keyless(REPOSITORY, &Leaf::default()).material(), "is signed by \"dev@");
}

#[test]
fn a_bundle_under_a_trusted_root() {
    let world = World::new();
    let requirement = root_requirement(&world);
    let digest = Digest::of(MANIFEST);
    let good = world.bundle(&digest, &Leaf::default());
    let material =
        |bundle: &Value| Material::Bundle { found: "x".into(), json: bundle.to_string().into_bytes() };
    let accepted = judge(&requirement, &[material(&good)]).unwrap();
    assert_eq!((accepted[0].kind.as_str(), accepted[0].signer.as_str()), ("sigstore bundle", EMAIL));

    let spoil = |path: &str, value: Value| {
        let mut bundle = good.clone();
        *bundle.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
        material(&bundle)
    };
    let entry = "/verificationMaterial/tlogEntries/0";
    let proof = format!("{entry}/inclusionProof");
    let zero = to_base64(&[0; 32]);
    let other = world.bundle(&Digest::of(b"other"), &Leaf::default());
    refused(&requirement, material(&other), "for another image");
    refused(&requirement, spoil("/mediaType", "application/json".into()), "unknown media type");
    refused(&requirement, spoil("/dsseEnvelope/payloadType", "text/plain".into()), "unknown \"text/plain\"");
    refused(&requirement, spoil("/dsseEnvelope/payload", other["dsseEnvelope"]["payload"].clone()), "not by");
    refused(&requirement, spoil("/dsseEnvelope/signatures", json!([])), "not exactly one signature");
    refused(&requirement, spoil(&format!("{proof}/hashes/0"), zero.clone().into()), "lead to its tree head");
    refused(&requirement, spoil(&format!("{proof}/rootHash"), zero.clone().into()), "lead to its tree head");
    refused(&requirement, spoil(&format!("{proof}/logIndex"), "1".into()), "lead to its tree head");
    refused(&requirement, spoil(&format!("{proof}/logIndex"), "2".into()), "malformed");
    refused(&requirement, spoil(&format!("{proof}/treeSize"), "-1".into()), "negative");
    refused(&requirement, spoil(&format!("{proof}/hashes"), json!([])), "too short");
    let checkpoint = format!("{proof}/checkpoint/envelope");
    let note = good.pointer(&checkpoint).unwrap().as_str().unwrap();
    refused(
        &requirement,
        spoil(&checkpoint, note.replace("log.example - 1", "log.example - 2").into()),
        "by the log",
    );
    refused(&requirement, spoil(&checkpoint, "".into()), "not signed");
    let foreign = World::new();
    let stolen = foreign.bundle(&digest, &Leaf::default());
    refused(&requirement, spoil(&checkpoint, stolen.pointer(&checkpoint).unwrap().clone()), "by the log");
    refused(&requirement, spoil(&format!("{entry}/integratedTime"), "1".into()), "timestamp does not hold");
    refused(&requirement, spoil(&format!("{entry}/integratedTime"), "x".into()), "a number that is none");
    refused(&requirement, spoil(entry, json!({})), "lacks a field");
    refused(&requirement, spoil("/verificationMaterial/tlogEntries", json!([])), "no transparency log");
    // A proof without a promise says that, but not when.
    refused(&requirement, spoil(&format!("{entry}/inclusionPromise"), Value::Null), "no log promises");
    refused(&requirement, material(&stolen), "is not a known one");
    refused(&requirement, Material::Bundle { found: "x".into(), json: b"{".to_vec() }, "not valid JSON");
    refused(&requirement, material(&json!({})), "unknown media type");

    // An attestation by the right person is no consent to run the image.
    let mut named = requirement.clone();
    named["signedIdentity"] = json!({ "type": "matchRepository" });
    refused(&named, material(&good), "names no repository");
    // The same bundle by its key, whoever the certificate is for.
    let mut by_key = key_requirement(&world.signer, None);
    by_key["signedIdentity"] = json!({ "type": "matchDigest" });
    assert!(judge(&by_key, &[material(&good)]).is_ok());
    // Times of the trusted root.
    for (path, value) in [
        ("/certificateAuthorities/0/validFor/end", "2023-01-01T00:00:00Z"),
        ("/certificateAuthorities/0/validFor/start", "2030-01-01T00:00:00Z"),
        ("/tlogs/0/publicKey/validFor/end", "2023-01-01T00:00:00Z"),
    ] {
        let mut root = world.trusted_root();
        let (parent, key) = path.rsplit_once('/').unwrap();
        root.pointer_mut(parent).unwrap()[key] = value.into();
        let mut late = requirement.clone();
        late["trustedRootData"] = data(&root.to_string()).into();
        refused(&late, material(&good), "in use");
    }
}

#[test]
fn a_signature_of_the_manifest_itself() {
    let world = World::new();
    let digest = Digest::of(MANIFEST);
    let bundle = |digest: &[u8], signature: Vec<u8>| {
        let json = json!({
            "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "verificationMaterial": { "publicKey": { "hint": "x" } },
            "messageSignature": {
                "messageDigest": { "algorithm": "SHA2_256", "digest": to_base64(digest) },
                "signature": to_base64(&signature),
            },
        });
        Material::Bundle { found: "x".into(), json: json.to_string().into_bytes() }
    };
    let mut requirement = key_requirement(&world.signer, None);
    requirement["signedIdentity"] = json!({ "type": "matchDigest" });
    let raw = super::super::key::unhex(digest.hex()).unwrap();
    assert!(judge(&requirement, &[bundle(&raw, world.signer.sign(MANIFEST))]).is_ok());
    refused(&requirement, bundle(&[0; 32], world.signer.sign(MANIFEST)), "for another image");
    refused(&requirement, bundle(&raw, world.signer.sign(b"other")), "not by the expected key");
    refused(&requirement, bundle(&raw[..31], world.signer.sign(MANIFEST)), "wrong length");
}

#[test]
fn a_certificate_of_an_ordinary_authority() {
    let world = World::new();
    let requirement = json!({
        "type": "sigstoreSigned",
        "pki": {
            "caRootsData": data(&pem("CERTIFICATE", &world.root_certificate())),
            "caIntermediatesData": data(&pem("CERTIFICATE", &world.intermediate_certificate())),
            "subjectEmail": EMAIL,
        },
        "signedIdentity": { "type": "matchRepository" },
    });
    let lasting = Leaf { valid: (SIGNED_AT - 60, NOW + 60), logged: false, ..Leaf::default() };
    let mut parts = world.keyless(REPOSITORY, &lasting);
    (parts.chain, parts.entry) = (None, None);
    let accepted = judge(&requirement, &[parts.material()]).unwrap();
    assert_eq!((accepted[0].signer.as_str(), accepted[0].expires), (EMAIL, Some(NOW + 60)));
    refused(
        &requirement,
        world.keyless(REPOSITORY, &Leaf::default()).material(),
        "not from a trusted authority",
    );
    let mut other = requirement.clone();
    other["pki"]["subjectEmail"] = "else@example.com".into();
    refused(&other, parts.material(), "is not for else@");
    other["pki"]["subjectEmail"] = EMAIL.into();
    other["pki"]["subjectHostname"] = "example.com".into();
    refused(&other, parts.material(), "not for host");
}

#[test]
fn spoilt_bytes_are_errors_and_nothing_else() {
    let world = World::new();
    let good = world.keyless(REPOSITORY, &Leaf::default());
    let requirement = fulcio_requirement(&world);
    let der = world.certificate(&Leaf::default());
    // Every byte of the certificate, in two ways; the log is honest about each.
    for at in 0..der.len() {
        for bit in [0x01, 0x80] {
            let mut spoilt = der.clone();
            spoilt[at] ^= bit;
            let mut parts = good.clone();
            let text = pem("CERTIFICATE", &spoilt);
            parts.entry = Some(world.entry(&parts.payload, &parts.signature, &text));
            parts.certificate = Some(text);
            assert!(judge(&requirement, &[parts.material()]).is_err(), "byte {at}");
        }
    }
    for cut in (0..der.len()).step_by(7) {
        let mut parts = good.clone();
        parts.certificate = Some(pem("CERTIFICATE", &der[..cut]));
        assert!(judge(&requirement, &[parts.material()]).is_err());
    }
    let huge = super::super::der::wrap(0x30, &vec![0x30; 100_000]);
    let mut parts = good.clone();
    parts.certificate = Some(pem("CERTIFICATE", &huge));
    assert!(judge(&requirement, &[parts.material()]).unwrap_err().contains("larger than 64 KiB"));
    let many = pem("CERTIFICATE", &der).repeat(65);
    let mut parts = good;
    parts.chain = Some(many);
    assert!(judge(&requirement, &[parts.material()]).unwrap_err().contains("more than 64"));
}
