//! Which crate may know which: the arrows of docs/architecture.md, over `cargo metadata`.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use crate::support::{repository, tool};

/// Every member of the workspace and the members it may depend on. Development dependencies may add the two
/// named last: the suite looks into the formats, the bench and the examples use what the command uses.
const ALLOWED: [(&str, &[&str], &[&str]); 7] = [
    ("dhow-images", &[], &[]),
    ("dhow-runtime", &[], &[]),
    ("dhow-engine", &["dhow-images", "dhow-runtime"], &[]),
    ("libdhow", &["dhow-engine"], &[]),
    ("dhow", &["dhow-engine"], &["dhow-images", "dhow-runtime"]),
    ("dhow-shim", &["dhow-runtime"], &[]),
    ("dhow-bench", &[], &[]),
];

#[test]
fn crates_depend_only_along_the_arrows() {
    let metadata = tool(
        Command::new(env!("CARGO"))
            .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
            .arg("--manifest-path")
            .arg(repository().join("Cargo.toml")),
    );
    let metadata: Value = serde_json::from_str(&metadata).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let members: BTreeSet<&str> = packages.iter().filter_map(|package| package["name"].as_str()).collect();
    let allowed: BTreeMap<&str, _> =
        ALLOWED.iter().map(|(name, normal, dev)| (*name, (*normal, *dev))).collect();
    assert_eq!(
        members,
        allowed.keys().copied().collect(),
        "a new crate needs its arrows here and in the document"
    );

    for package in packages {
        let name = package["name"].as_str().expect("name");
        let (normal, dev) = allowed[name];
        for dependency in package["dependencies"].as_array().expect("dependencies") {
            let on = dependency["name"].as_str().expect("name");
            let is_dev = dependency["kind"] == "dev";
            let fine = normal.contains(&on) || (is_dev && dev.contains(&on));
            assert!(!members.contains(on) || fine, "{name} must not depend on {on}");
        }
    }
}
