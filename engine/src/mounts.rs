//! What a container sees of the world outside its image: binds, volumes, file systems in memory and other images.
//!
//! What the user wrote is parsed by Docker's rules ([`short`], `-v`; [`long`], `--mount`; [`tmpfs`]), then `resolve` makes
//! [`MountPoint`]s of it, one for each place, with volumes made and named. Those are written into the record, so every
//! later start does the same. A start turns them into the specification's mounts.

#[cfg(target_os = "linux")]
mod at_start;
mod images;
pub mod long;
mod resolve;
pub mod short;

use std::path::Path;

use dhow_runtime::spec::{Mount, MountBuilder};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::record::ImageOrigin;

pub(crate) use resolve::Requests;

/// What kind of thing is mounted, by Docker's names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// A file or directory of the host.
    #[default]
    Bind,
    /// A directory that is kept by name.
    Volume,
    /// A file system in memory.
    Tmpfs,
    /// The files of an image, to be read only.
    Image,
}

impl MountKind {
    /// As Docker writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Volume => "volume",
            Self::Tmpfs => "tmpfs",
            Self::Image => "image",
        }
    }
}

/// One thing that is mounted, with nothing left to be decided: Docker's `MountPoint` of `inspect`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MountPoint {
    /// What it is.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// A volume's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host. Empty for one in memory.
    #[serde(default)]
    pub source: String,
    /// Path in the container, clean.
    pub destination: String,
    /// `local` for a volume.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// The options of `-v`, as they were given; of one in memory, the options of its file system.
    #[serde(default)]
    pub mode: String,
    /// Whether the container may write.
    #[serde(rename = "RW")]
    pub writable: bool,
    /// How mounts made later are seen on the other side: `rprivate`, `rslave`, ….
    #[serde(default)]
    pub propagation: String,
    /// Mounts below the source are seen too.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub recursive: bool,
    /// A new container's own volume, to be removed with it where that is asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Of a volume in memory: the options of the file system that is mounted at the source while containers run with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
    /// The folder of the source that is mounted, found anew at each start without leaving the source; empty for all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub subpath: String,
    /// The content of an image. Its files are in the tree of its layers, or where there is a source, copied there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageOrigin>,
}

/// The source of a mount that is found at each start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// A path.
    pub(crate) source: String,
    /// A folder that the path begins with, and that no link in the rest of it may leave.
    pub(crate) beneath: Option<String>,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_true(value: &bool) -> bool {
    *value
}

impl MountPoint {
    /// The specification's mount; `found` is what is mounted where the source says less than that.
    pub(crate) fn to_mount(&self, found: Option<&Found>) -> Result<Mount> {
        let mut made = self.plain_mount(found.map_or(&self.source, |found| &found.source))?;
        if let Some(base) = found.and_then(|found| found.beneath.as_ref()) {
            let mut options = made.options().clone().unwrap_or_default();
            options.push(format!("dhow.beneath={base}"));
            made.set_options(Some(options));
        }
        Ok(made)
    }

    fn plain_mount(&self, source: &str) -> Result<Mount> {
        let access = if self.writable { "rw" } else { "ro" };
        match self.kind {
            // A volume without a folder on the host is one in memory, too.
            MountKind::Tmpfs | MountKind::Volume
                if self.kind == MountKind::Tmpfs || self.source.is_empty() =>
            {
                let mut mount = tmpfs(&self.destination, &self.mode)?;
                if !self.writable {
                    let mut options = mount.options().clone().unwrap_or_default();
                    options.push("ro".to_owned());
                    mount.set_options(Some(options));
                }
                Ok(mount)
            }
            MountKind::Tmpfs | MountKind::Volume => {
                mount(&self.destination, "bind", source, &["rbind", access, "rprivate", "rnodev"])
            }
            MountKind::Image => {
                let options = ["rbind", "ro", "rprivate", "rnodev", "nosuid"];
                mount(&self.destination, "bind", source, &options)
            }
            MountKind::Bind => {
                let bind = if self.recursive { "rbind" } else { "bind" };
                let mut options = vec![bind, access, self.propagation.as_str()];
                if !is_device(&self.source) {
                    // A container may make device nodes; none may work. One that the user names is another matter.
                    options.push("rnodev");
                }
                mount(&self.destination, "bind", &self.source, &options)
            }
        }
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

/// A path in a container without `.`, `..`, doubled and trailing slashes.
pub(crate) fn clean(target: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Checks a path in a container that something is to be mounted on; gives it cleaned.
fn target(kind: MountKind, target: &str) -> Result<String> {
    let invalid =
        |why: String| Error::Invalid(format!("invalid mount config for type \"{}\": {why}", kind.as_str()));
    if !target.starts_with('/') {
        return Err(invalid(format!("invalid mount path: '{target}' mount path must be absolute")));
    }
    match clean(target) {
        root if root == "/" => Err(invalid("invalid specification: destination can't be '/'".to_owned())),
        clean => Ok(clean),
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

/// Makes the source of a `-v` where it is missing, as Docker does.
pub(crate) fn make_source(source: &str) -> Result<()> {
    if let Err(error) = fs_err::metadata(source) {
        if error.kind() != std::io::ErrorKind::NotFound || fs_err::symlink_metadata(source).is_ok() {
            return Err(error.into());
        }
        fs_err::create_dir_all(Path::new(source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_cleaned() {
        for (text, expected) in [
            ("/a", "/a"),
            ("/a/", "/a"),
            ("//a//b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../a", "/a"),
            ("/..", "/"),
        ] {
            assert_eq!(clean(text), expected, "{text}");
        }
        assert!(target(MountKind::Bind, "a").is_err() && target(MountKind::Volume, "/a/..").is_err());
    }

    #[test]
    fn options_of_memory() {
        let options = |text| tmpfs("/t", text).unwrap().options().clone().unwrap();
        assert_eq!(options(""), ["nosuid", "nodev", "noexec"]);
        assert_eq!(options("exec,size=1m"), ["nosuid", "nodev", "exec", "size=1m"]);
        assert!(tmpfs("/t", "dev").is_err() && tmpfs("/", "").is_err() && tmpfs("t", "").is_err());
    }
}
