//! Policy files: what is read, what is refused, and which requirements an image gets.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Result<Policy> {
    Policy::parse(Path::new("/p/policy.json"), text.as_bytes())
}

/// A policy with one requirement.
fn one(requirement: &Value) -> Result<Policy> {
    parse(&json!({ "default": [requirement] }).to_string())
}

#[test]
fn the_most_specific_scope_decides_alone() {
    let text = r#"{"default":[{"type":"reject"}],"transports":{
        "docker":{
            "":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/transport"}],
            "*.example.com":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/wild"}],
            "a.example.com":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/host"}],
            "a.example.com/team":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/team"}],
            "a.example.com/team/app":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/app"}],
            "a.example.com/team/app:1":[{"type":"signedBy","keyType":"GPGKeys","keyPath":"/tag"}],
            "docker.io/library/busybox":[{"type":"insecureAcceptAnything"}]},
        "atomic":{"h/x":[{"type":"reject"}]},
        "docker-archive":{"":[{"type":"insecureAcceptAnything"}]}}}"#;
    let policy = parse(text).unwrap();
    let key = |origin: &Origin| match &policy.requirements(origin)[0] {
        Requirement::SignedBy(signed) => signed.keys[0].path().unwrap().display().to_string(),
        other => format!("{other:?}"),
    };
    for (name, expected) in [
        ("a.example.com/team/app:1", "/tag"),
        ("a.example.com/team/app:2", "/app"),
        ("a.example.com/team/app2:1", "/team"),
        ("a.example.com/team2/app:1", "/host"),
        ("a.example.com:5000/team/app:1", "/transport"),
        ("b.example.com/x", "/wild"),
        ("b.c.example.com/x", "/wild"),
        ("example.com/x", "/transport"),
        ("evil-example.com/x", "/transport"),
        ("busybox", "Accept"),
        ("docker.io/busybox/x", "/transport"),
    ] {
        assert_eq!(key(&Origin::registry(&name.parse().unwrap())), expected, "{name}");
    }
    assert_eq!(key(&Origin::docker_archive(None)), "Accept");
    assert_eq!(key(&Origin::oci(None)), "Reject");
    assert_eq!(key(&Origin::local()), "Reject");
    let name = Origin::registry(&"a.example.com/x".parse().unwrap());
    assert_eq!(policy.inputs(&name), [Path::new("/p/policy.json"), Path::new("/host")]);
    assert!(policy.wants(&name).simple && !policy.wants(&name).sigstore);
    assert!(policy.wants(&Origin::oci(None)).is_nothing());
}

#[test]
fn every_kind_of_requirement() {
    for good in [
        json!({"type":"insecureAcceptAnything"}),
        json!({"type":"reject"}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyPaths":["/a","/b"]}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyData":"AAAA","signedIdentity":{"type":"matchExact"}}),
        json!({"type":"sigstoreSigned","keyPath":"/k"}),
        json!({"type":"sigstoreSigned","keyDatas":["AAAA"],"rekorPublicKeyPaths":["/r"]}),
        json!({"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyData":"AAAA"}),
        json!({"type":"sigstoreSigned","fulcio":{"oidcIssuer":"i","subjectURI":"u"},"trustedRootPath":"/t"}),
        json!({"type":"sigstoreSigned","pki":{"caRootsPath":"/c","subjectHostname":"h"}}),
    ] {
        assert!(one(&good).is_ok(), "{good}: {:?}", one(&good));
    }
    for bad in [
        json!({}),
        json!({"type":"accept"}),
        json!({"type":"signedBaseLayer","baseLayerIdentity":{"type":"matchExact"}}),
        json!({"type":"reject","x":1}),
        json!({"type":"insecureAcceptAnything","keyPath":"/k"}),
        json!({"type":"signedBy","keyPath":"/k"}),
        json!({"type":"signedBy","keyType":"X509","keyPath":"/k"}),
        json!({"type":"signedBy","keyType":"GPGKeys"}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyPath":""}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyPath":7}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyPaths":[]}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyData":"AAAA"}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyPath":"/k","keyPaths":["/k"]}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyData":"not base64"}),
        json!({"type":"signedBy","keyType":"GPGKeys","keyDatas":["AAAA"]}),
        json!({"type":"sigstoreSigned"}),
        json!({"type":"sigstoreSigned","keyPath":"/k","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyPath":"/r"}),
        json!({"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e"}}),
        json!({"type":"sigstoreSigned","fulcio":{"oidcIssuer":"i","subjectEmail":"e"},"rekorPublicKeyPath":"/r"}),
        json!({"type":"sigstoreSigned","fulcio":{"caPath":"/c","subjectEmail":"e"},"rekorPublicKeyPath":"/r"}),
        json!({"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i"},"rekorPublicKeyPath":"/r"}),
        json!({"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":""},"rekorPublicKeyPath":"/r"}),
        json!({"type":"sigstoreSigned","fulcio":{"caPath":"/c","oidcIssuer":"i","subjectEmail":"e","subjectURI":"u"},"rekorPublicKeyPath":"/r"}),
        json!({"type":"sigstoreSigned","keyPath":"/k","rekorPublicKeyPath":"/r","rekorPublicKeyData":"AAAA"}),
        json!({"type":"sigstoreSigned","pki":{"caRootsPath":"/c"}}),
        json!({"type":"sigstoreSigned","pki":{"subjectEmail":"e"}}),
        json!({"type":"sigstoreSigned","keyPath":"/k","signedIdentity":{"type":"any"}}),
        json!(["reject"]),
        json!("reject"),
    ] {
        assert!(matches!(one(&bad), Err(Error::InvalidPolicy { .. })), "{bad}");
    }
}

#[test]
fn a_file_that_is_not_a_policy_is_never_accept() {
    for bad in [
        "",
        "{",
        "null",
        "[]",
        "{}",
        r#"{"default":[]}"#,
        r#"{"default":{}}"#,
        r#"{"default":[{"type":"reject"}],"default":[{"type":"insecureAcceptAnything"}]}"#,
        r#"{"default":[{"type":"reject","type":"insecureAcceptAnything"}]}"#,
        r#"{"default":[{"type":"reject"}],"transport":{}}"#,
        r#"{"default":[{"type":"reject"}],"transports":[]}"#,
        r#"{"default":[{"type":"reject"}],"transports":{"docker":[]}}"#,
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"x":[]}}}"#,
        r#"{"default":[{"type":"reject"}],"transports":{"docker":{"x*":[{"type":"reject"}]}}}"#,
        r#"{"default":[{"type":"reject"}]} x"#,
        r#"{"transports":{}}"#,
    ] {
        let error = parse(bad).expect_err(bad).to_string();
        assert!(error.starts_with("/p/policy.json: "), "{error}");
    }
    let absent = Policy::read(Path::new("/nonexistent/policy.json")).unwrap_err();
    assert!(matches!(absent, Error::InvalidPolicy { .. }));
    let dir = tempfile::tempdir().unwrap();
    assert!(Policy::read(dir.path()).is_err());
    let large = dir.path().join("large");
    fs_err::write(&large, vec![b' '; 5 << 20]).unwrap();
    assert!(Policy::read(&large).unwrap_err().to_string().contains("larger than 4 MiB"));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in r#"[{}\[\]":,a-z0-9 /*.]{0,200}"#) {
        drop(parse(&text));
    }
}
