//! Where an image came from, as a policy distinguishes it: a transport, and scopes from the narrowest to the widest.

use std::path::Path;

use serde::Deserialize;
use serde::Serialize;

use super::Checked;
use crate::Reference;

/// Where an image came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    transport: Transport,
    /// The name it was asked for, in full. Archives have none: what is written in one is its maker's word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The archive, absolute; not known for a stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

/// The ways in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Transport {
    /// A registry.
    Docker,
    /// A tar file with an OCI layout.
    OciArchive,
    /// The directory of an OCI layout.
    Oci,
    /// A tar file of `docker save`.
    DockerArchive,
    /// The store itself: made here, or nobody knows.
    ContainersStorage,
}

impl Origin {
    /// An image of a registry.
    #[must_use]
    pub fn registry(name: &Reference) -> Self {
        Self { transport: Transport::Docker, name: Some(name.canonical()), path: None }
    }

    /// An image of an OCI layout: a directory, or a tar file, or a stream without a path.
    #[must_use]
    pub fn oci(path: Option<&Path>) -> Self {
        let transport = if path.is_some_and(Path::is_dir) { Transport::Oci } else { Transport::OciArchive };
        Self { transport, name: None, path: absolute(path) }
    }

    /// An image of an archive of `docker save`.
    #[must_use]
    pub fn docker_archive(path: Option<&Path>) -> Self {
        Self { transport: Transport::DockerArchive, name: None, path: absolute(path) }
    }

    /// An image of the store without name or known past.
    #[must_use]
    pub fn local() -> Self {
        Self { transport: Transport::ContainersStorage, name: None, path: None }
    }

    /// The transport's name in a policy.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match self.transport {
            Transport::Docker => "docker",
            Transport::OciArchive => "oci-archive",
            Transport::Oci => "oci",
            Transport::DockerArchive => "docker-archive",
            Transport::ContainersStorage => "containers-storage",
        }
    }

    /// The name that signatures can be compared with. Only a registry's name is one: that of an archive is whatever
    /// its maker wrote into it.
    #[must_use]
    pub fn reference(&self) -> Option<Reference> {
        match self.transport {
            Transport::Docker => Reference::parse(self.name.as_deref()?).ok(),
            _ => None,
        }
    }

    /// The scopes it is in, the most specific first, without the transport's own, which is empty.
    pub(super) fn scopes(&self) -> Vec<String> {
        match self.transport {
            Transport::Docker => self.reference().map(|name| registry_scopes(&name)).unwrap_or_default(),
            Transport::OciArchive | Transport::Oci => {
                let Some(path) = &self.path else { return Vec::new() };
                let ancestors = Path::new(path).ancestors().filter(|path| path.parent().is_some());
                ancestors.map(|path| path.display().to_string()).collect()
            }
            Transport::DockerArchive | Transport::ContainersStorage => Vec::new(),
        }
    }
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (&self.transport, &self.name, &self.path) {
            (Transport::Docker, Some(name), _) => f.write_str(name),
            (_, _, Some(path)) => write!(f, "{}:{path}", self.transport()),
            _ => f.write_str(self.transport()),
        }
    }
}

fn absolute(path: Option<&Path>) -> Option<String> {
    Some(fs_err::canonicalize(path?).ok()?.display().to_string())
}

fn registry_scopes(name: &Reference) -> Vec<String> {
    let mut scopes = vec![name.canonical()];
    let full = format!("{}/{}", name.registry(), name.repository());
    let mut rest = full.as_str();
    loop {
        scopes.push(rest.to_owned());
        match rest.rfind('/') {
            Some(at) => rest = &rest[..at],
            None => break,
        }
    }
    // Wildcards stand for one or more labels of the host, the longest first.
    let mut host = name.registry();
    while let Some((_, parent)) = host.split_once('.') {
        scopes.push(format!("*.{parent}"));
        host = parent;
    }
    scopes
}

/// Refuses scopes that can never fit.
pub(super) fn check_scope(transport: &str, scope: &str) -> Checked<()> {
    let shown = scope.escape_default();
    match transport {
        _ if scope.is_empty() => Ok(()),
        "docker" | "atomic" => {
            let rest = scope.strip_prefix("*.").unwrap_or(scope);
            if rest.contains('*') || rest.is_empty() {
                return Err(format!("scope \"{shown}\": a wildcard can only be the first part of a host"));
            }
            if scope.starts_with("*.") && scope.contains('/') {
                return Err(format!("scope \"{shown}\": a wildcard is for a host alone"));
            }
            Ok(())
        }
        "oci" | "oci-archive" | "dir" => match scope {
            "/" => Err("scope \"/\" is not allowed; use \"\"".into()),
            _ if !scope.starts_with('/') => Err(format!("scope \"{shown}\" is not an absolute path")),
            _ => Ok(()),
        },
        "docker-archive" => Err(format!("scope \"{shown}\": docker-archive has only the scope \"\"")),
        // Transports that only other programs have.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_go_from_the_image_to_the_widest_wildcard() {
        let name: Reference = "a.b.example.com:5000/team/app:1".parse().unwrap();
        assert_eq!(
            Origin::registry(&name).scopes(),
            [
                "a.b.example.com:5000/team/app:1",
                "a.b.example.com:5000/team/app",
                "a.b.example.com:5000/team",
                "a.b.example.com:5000",
                "*.b.example.com:5000",
                "*.example.com:5000",
                "*.com:5000",
            ]
        );
        let hub: Reference = "busybox".parse().unwrap();
        assert_eq!(
            Origin::registry(&hub).scopes(),
            [
                "docker.io/library/busybox:latest",
                "docker.io/library/busybox",
                "docker.io/library",
                "docker.io",
                "*.io"
            ]
        );
        assert_eq!(Origin::docker_archive(None).scopes(), Vec::<String>::new());
        assert_eq!(Origin::docker_archive(None).reference(), None);
    }

    #[cfg(unix)]
    #[test]
    fn an_archive_is_scoped_by_its_real_path() {
        let dir = tempfile::tempdir().unwrap();
        let real = fs_err::canonicalize(dir.path()).unwrap();
        fs_err::write(real.join("a.tar"), "").unwrap();
        std::os::unix::fs::symlink(real.join("a.tar"), real.join("link")).unwrap();
        let origin = Origin::oci(Some(&dir.path().join("link")));
        assert_eq!(origin.transport(), "oci-archive");
        let scopes = origin.scopes();
        assert_eq!(scopes[0], real.join("a.tar").display().to_string());
        assert_eq!(scopes[1], real.display().to_string());
        assert!(!scopes.contains(&"/".to_owned()));
        assert_eq!(Origin::oci(Some(&real)).transport(), "oci");
    }

    #[test]
    fn scopes_that_never_fit_are_refused() {
        for (transport, scope, good) in [
            ("docker", "", true),
            ("docker", "example.com/x", true),
            ("docker", "*.example.com", true),
            ("docker", "example*.com", false),
            ("docker", "*.*.com", false),
            ("docker", "*.", false),
            ("docker", "*.example.com/x", false),
            ("oci", "/var/x", true),
            ("oci", "/", false),
            ("oci", "var", false),
            ("docker-archive", "x", false),
            ("containers-storage", "[overlay@/x]", true),
        ] {
            assert_eq!(check_scope(transport, scope).is_ok(), good, "{transport} {scope}");
        }
    }
}
