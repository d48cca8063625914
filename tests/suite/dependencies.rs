//! What the crates of others may be: their licences and where they come from, after `deny.toml`.
//!
//! `cargo deny` itself (`tests/deny`) also knows advisories; this is the part that needs no network and no tool.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::{repository, tool};

#[test]
fn licences_and_sources_are_the_allowed_ones() {
    let deny = fs_err::read_to_string(repository().join("deny.toml")).unwrap();
    let list = deny.split("\nallow = [").nth(1).unwrap().split(']').next().unwrap();
    let allowed: BTreeSet<&str> = list.split('"').skip(1).step_by(2).collect();
    assert!(allowed.len() > 3, "{allowed:?}");

    let manifest = repository().join("Cargo.toml");
    let metadata = tool(
        Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version=1",
                "--locked",
                "--offline",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .arg("--manifest-path")
            .arg(manifest),
    );
    let metadata: Value = serde_json::from_str(&metadata).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 100);
    for package in packages {
        let name = format!("{} {}", package["name"], package["version"]);
        let source = package["source"].as_str();
        let known =
            source.is_none_or(|source| source == "registry+https://github.com/rust-lang/crates.io-index");
        assert!(known, "{name} comes from {source:?}");
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(fits(licence, &allowed), "{name} is under {licence}");
    }
}

/// Whether an SPDX expression can be satisfied. A slash is the old way to write OR.
fn fits(expression: &str, allowed: &BTreeSet<&str>) -> bool {
    let spaced =
        expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ").replace(" WITH ", "\0");
    let words: Vec<String> =
        spaced.split(' ').filter(|word| !word.is_empty()).map(|word| word.replace('\0', " WITH ")).collect();
    let mut rest = words.as_slice();
    let result = any(&mut rest, allowed);
    result && rest.is_empty()
}

fn any(words: &mut &[String], allowed: &BTreeSet<&str>) -> bool {
    let mut fits = all(words, allowed);
    while words.first().is_some_and(|word| word == "OR") {
        *words = &words[1..];
        fits |= all(words, allowed);
    }
    fits
}

fn all(words: &mut &[String], allowed: &BTreeSet<&str>) -> bool {
    let mut fits = one(words, allowed);
    while words.first().is_some_and(|word| word == "AND") {
        *words = &words[1..];
        fits &= one(words, allowed);
    }
    fits
}

fn one(words: &mut &[String], allowed: &BTreeSet<&str>) -> bool {
    let Some((word, rest)) = words.split_first() else { return false };
    *words = rest;
    if word != "(" {
        return allowed.contains(word.as_str());
    }
    let fits = any(words, allowed);
    match words.split_first() {
        Some((word, rest)) if word == ")" => *words = rest,
        _ => return false,
    }
    fits
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("MIT OR GPL-3.0", true),
        ("GPL-3.0/MIT", true),
        ("MIT AND GPL-3.0", false),
        ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
        ("MIT OR GPL-3.0 AND GPL-2.0", true),
        ("Apache-2.0 WITH LLVM-exception OR GPL-3.0", true),
        ("Apache-2.0", false),
        ("(MIT", false),
        ("", false),
    ] {
        assert_eq!(fits(expression, &allowed), expected, "{expression}");
    }
}
