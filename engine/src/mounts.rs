//! `-v source:target[:options]` and `--tmpfs`, by Docker's rules, turned into the specification's mounts.

use std::path::Path;

use dhow_runtime::spec::{Mount, MountBuilder};

use crate::error::{Error, Result};

/// One bind mount as the user wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bind {
    /// Absolute path on the host.
    pub source: String,
    /// Absolute path in the container.
    pub target: String,
    /// Whether the container may write.
    pub writable: bool,
    /// Mount propagation, `rprivate` when not given.
    pub propagation: &'static str,
}

impl Bind {
    /// Parses Docker's short form.
    ///
    /// # Errors
    /// Docker's messages for what is wrong; named volumes are refused for now.
    pub fn parse(text: &str) -> Result<Self> {
        let invalid = |why: &str| Error::Invalid(format!("invalid volume specification: '{text}': {why}"));
        // A Windows drive's colon belongs to the source.
        let drive = text.as_bytes().get(1) == Some(&b':') && text.as_bytes()[0].is_ascii_alphabetic();
        let split_from = if drive { 2 } else { 0 };
        let Some(colon) = text[split_from..].find(':').map(|at| at + split_from) else {
            return Err(anonymous(text));
        };
        let (source, rest) = (&text[..colon], &text[colon + 1..]);
        let (target, options) = rest.split_once(':').unwrap_or((rest, ""));
        if source.is_empty() || target.is_empty() {
            return Err(invalid("source and target must not be empty"));
        }
        if !target.starts_with('/') {
            return Err(Error::Invalid(format!(
                "invalid volume specification: '{text}': invalid mount config for type \"bind\": invalid mount path: \
                 '{target}' mount path must be absolute"
            )));
        }
        if target.trim_end_matches('/').is_empty() {
            return Err(invalid("destination can't be '/'"));
        }
        if !Path::new(source).is_absolute() {
            return Err(Error::NotYet {
                what: format!("the named volume \"{source}\""),
                hint: "give an absolute path on this machine, for example `-v \"$PWD\":/src`".to_owned(),
            });
        }
        let mut bind = Self {
            source: source.to_owned(),
            target: target.to_owned(),
            writable: true,
            propagation: "rprivate",
        };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => bind.writable = false,
                "rw" => bind.writable = true,
                // SELinux relabelling and copy-up concern hosts and volumes we do not have; Docker accepts them too.
                "z" | "Z" | "nocopy" | "consistent" | "cached" | "delegated" => {}
                "rprivate" => bind.propagation = "rprivate",
                "private" => bind.propagation = "private",
                "rslave" => bind.propagation = "rslave",
                "slave" => bind.propagation = "slave",
                "rshared" => bind.propagation = "rshared",
                "shared" => bind.propagation = "shared",
                _ => return Err(Error::Invalid(format!("invalid mode: {option}"))),
            }
        }
        Ok(bind)
    }

    /// Makes the source where it is missing, as Docker's `-v` does.
    pub(crate) fn prepare(&self) -> Result<()> {
        if let Err(error) = fs_err::symlink_metadata(&self.source) {
            if error.kind() != std::io::ErrorKind::NotFound {
                return Err(error.into());
            }
            fs_err::create_dir_all(&self.source)?;
        }
        Ok(())
    }

    pub(crate) fn to_mount(&self) -> Result<Mount> {
        let access = if self.writable { "rw" } else { "ro" };
        let mut options = vec!["rbind", access, self.propagation];
        if !is_device(&self.source) {
            // A container may make device nodes; none may work. One that the user names is another matter.
            options.push("rnodev");
        }
        mount(&self.target, "bind", &self.source, &options)
    }
}

#[cfg(unix)]
fn is_device(source: &str) -> bool {
    use std::os::unix::fs::FileTypeExt as _;
    fs_err::metadata(source)
        .is_ok_and(|found| found.file_type().is_char_device() || found.file_type().is_block_device())
}

#[cfg(not(unix))]
fn is_device(_source: &str) -> bool {
    false
}

fn anonymous(text: &str) -> Error {
    Error::NotYet {
        what: format!("the anonymous volume \"{text}\""),
        hint: "give a source: `-v /path/on/host:/path/in/container`".to_owned(),
    }
}

/// A `--tmpfs target[:options]`.
pub(crate) fn tmpfs(target: &str, options: &str) -> Result<Mount> {
    if !target.starts_with('/') || target.trim_end_matches('/').is_empty() {
        return Err(Error::Invalid(format!(
            "invalid tmpfs mount '{target}': mount path must be absolute and not '/'"
        )));
    }
    let mut all = vec!["nosuid", "nodev", "noexec"];
    for option in options.split(',').filter(|option| !option.is_empty()) {
        if option == "dev" {
            return Err(Error::Invalid(format!(
                "invalid tmpfs option 'dev' for '{target}': device nodes are not allowed"
            )));
        }
        all.retain(|default| default.strip_prefix("no") != Some(option));
        all.push(option);
    }
    mount(target, "tmpfs", "tmpfs", &all)
}

pub(crate) fn mount(target: &str, kind: &str, source: &str, options: &[&str]) -> Result<Mount> {
    MountBuilder::default()
        .destination(target)
        .typ(kind)
        .source(source)
        .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
        .build()
        .map_err(|error| Error::Invalid(format!("invalid mount at {target}: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_form() {
        let bind = Bind::parse("/src:/dst:ro,rslave").unwrap();
        assert_eq!((bind.source.as_str(), bind.target.as_str()), ("/src", "/dst"));
        assert_eq!((bind.writable, bind.propagation), (false, "rslave"));
        assert!(Bind::parse("/a b:/c d").unwrap().writable);
        for bad in [
            "",
            "/only",
            ":",
            "/a:",
            ":/b",
            "/a:b",
            "/a:/",
            "/a:/b:what",
            "name:/data",
            "/a:/b:ro:rw",
            "/a://",
        ] {
            assert!(Bind::parse(bad).is_err(), "{bad}");
        }
    }
}
