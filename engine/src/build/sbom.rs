//! What is in an image, as an SPDX 2.3 document: packages that Debian's and Alpine's managers know of, and Wasm programs.
//!
//! Nothing of the image is run. What it says about itself is taken as it is, within bounds, and is not checked.

use std::collections::BTreeMap;

use dhow_images::assemble::EntryKind;
use dhow_images::{Algorithm, Hasher};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::layer::walk;
use super::root::Root;
use crate::error::Result;

/// The most of a package manager's list that is read.
const MAX_LIST: u64 = 64 << 20;
/// The most packages that are listed.
const MAX_PACKAGES: usize = 100_000;
/// The most directories and files that are looked at for Wasm programs.
const MAX_NAMES: usize = 1_000_000;

/// A package.
#[derive(Debug, Default, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
    architecture: String,
    supplier: String,
    licence: String,
}

/// Makes the document. `made` is when.
pub(super) fn bill(root: &Root, name: &str, made: Timestamp) -> Result<Value> {
    let mut packages = Vec::new();
    for (path, kind) in [("var/lib/dpkg/status", "deb"), ("lib/apk/db/installed", "apk")] {
        let text = root.small(path, MAX_LIST)?;
        let found = if kind == "deb" { debian(&text) } else { alpine(&text) };
        packages.extend(found.into_iter().map(|package| (kind, package)));
    }
    // Images without the manager itself have a file for each package.
    if let Ok(names) = root.list(b"var/lib/dpkg/status.d") {
        for file in names.into_iter().filter(|name| !name.ends_with(b".md5sums")) {
            let path = format!("var/lib/dpkg/status.d/{}", String::from_utf8_lossy(&file));
            let text = root.small(&path, MAX_LIST)?;
            packages.extend(
                debian(&format!("{text}\nStatus: install ok installed\n")).into_iter().map(|p| ("deb", p)),
            );
        }
    }
    packages.truncate(MAX_PACKAGES);
    let distribution = distribution(&root.small("etc/os-release", 64 << 10)?);
    let mut listed: Vec<Value> = packages
        .iter()
        .enumerate()
        .map(|(number, (kind, package))| {
            let locator = format!(
                "pkg:{kind}/{distribution}/{}@{}?arch={}",
                package.name, package.version, package.architecture
            );
            json!({
                "SPDXID": format!("SPDXRef-Package-{number}"),
                "name": package.name,
                "versionInfo": package.version,
                "supplier": if package.supplier.is_empty() { "NOASSERTION".to_owned() } else { format!("Person: {}", package.supplier) },
                "downloadLocation": "NOASSERTION",
                "licenseConcluded": "NOASSERTION",
                "licenseDeclared": if package.licence.is_empty() { "NOASSERTION" } else { &package.licence },
                "filesAnalyzed": false,
                "externalRefs": [{
                    "referenceCategory": "PACKAGE-MANAGER",
                    "referenceType": "purl",
                    "referenceLocator": locator,
                }],
            })
        })
        .collect();
    for (number, (path, digest)) in programs(root)?.into_iter().enumerate() {
        listed.push(json!({
            "SPDXID": format!("SPDXRef-Wasm-{number}"),
            "name": path.rsplit('/').next().unwrap_or_default(),
            "packageFileName": path,
            "primaryPackagePurpose": "APPLICATION",
            "downloadLocation": "NOASSERTION",
            "licenseConcluded": "NOASSERTION",
            "licenseDeclared": "NOASSERTION",
            "filesAnalyzed": false,
            "checksums": [{ "algorithm": "SHA256", "checksumValue": digest }],
        }));
    }
    let relations: Vec<Value> = listed
        .iter()
        .map(|package| {
            json!({
                "spdxElementId": "SPDXRef-DOCUMENT",
                "relationshipType": "DESCRIBES",
                "relatedSpdxElement": package["SPDXID"],
            })
        })
        .collect();
    let mut print = Hasher::new(Algorithm::Sha256);
    print.update(name.as_bytes());
    print.update(Value::from(listed.clone()).to_string().as_bytes());
    Ok(json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name,
        "documentNamespace": format!("urn:dhow:sbom:{}", print.finish().hex()),
        "creationInfo": {
            "created": made.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "creators": [concat!("Tool: dhow-", env!("CARGO_PKG_VERSION"))],
        },
        "packages": listed,
        "relationships": relations,
    }))
}

/// Paragraphs of `NAME: VALUE` lines.
fn debian(text: &str) -> Vec<Package> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let get = |name: &str| {
                let found = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                found.unwrap_or_default().trim().to_owned()
            };
            let package = Package {
                name: get("Package"),
                version: get("Version"),
                architecture: get("Architecture"),
                supplier: get("Maintainer"),
                licence: String::new(),
            };
            (get("Status").ends_with(" installed") && !package.name.is_empty()).then_some(package)
        })
        .collect()
}

/// Paragraphs of `L:VALUE` lines.
fn alpine(text: &str) -> Vec<Package> {
    text.split("\n\n")
        .filter_map(|paragraph| {
            let get = |name: &str| {
                let found = paragraph.lines().find_map(|line| line.strip_prefix(name));
                found.unwrap_or_default().trim().to_owned()
            };
            let package = Package {
                name: get("P:"),
                version: get("V:"),
                architecture: get("A:"),
                supplier: get("m:"),
                licence: get("L:"),
            };
            (!package.name.is_empty()).then_some(package)
        })
        .collect()
}

fn distribution(release: &str) -> String {
    let id = release.lines().find_map(|line| line.strip_prefix("ID="));
    let id: String = id.unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).collect();
    if id.is_empty() { "linux".to_owned() } else { id }
}

/// Wasm modules and components, with their digests.
fn programs(root: &Root) -> Result<BTreeMap<String, String>> {
    use std::io::Read as _;
    let mut found = BTreeMap::new();
    let mut left = MAX_NAMES;
    walk(root, b"", &mut |path, entry| {
        left = left.saturating_sub(1);
        if left == 0 {
            return Ok(false);
        }
        if entry.kind == EntryKind::File && path.ends_with(b".wasm") {
            let mut file = root.read(path)?;
            let mut hasher = Hasher::new(Algorithm::Sha256);
            let mut buffer = vec![0; 128 << 10];
            let mut first = [0; 4];
            let mut size = 0;
            loop {
                let count = file.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                if size == 0 {
                    let most = count.min(first.len());
                    first[..most].copy_from_slice(&buffer[..most]);
                }
                size += count;
                hasher.update(&buffer[..count]);
            }
            if &first == b"\0asm" {
                found.insert(format!("/{}", String::from_utf8_lossy(path)), hasher.finish().hex().to_owned());
            }
        }
        Ok(true)
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_package_managers() {
        let text = "Package: a\nStatus: install ok installed\nMaintainer: M <m@x>\nArchitecture: amd64\nVersion: 1.0-1\nDescription: b\n Package: no\n\n\
            Package: gone\nStatus: deinstall ok config-files\nVersion: 2\n";
        let found = debian(text);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].version.as_str()), ("a", "1.0-1"));
        let text = "C:Q1x=\nP:musl\nV:1.2.4-r1\nA:x86_64\nL:MIT\n\nP:zlib\nV:1\n\n\n";
        let found = alpine(text);
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].licence.as_str(), found[1].name.as_str()), ("MIT", "zlib"));
        assert_eq!(distribution("NAME=x\nID=debian\n"), "debian");
        assert_eq!(distribution("ID=../x"), "x");
        assert!(debian("").is_empty() && alpine("\n\n").is_empty());
    }
}
