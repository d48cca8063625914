//! Docker's long form, `--mount type=…,source=…,target=…`, and `Mounts` of the Engine API.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::MountKind;
use crate::error::{Error, Result};

/// One mount that was asked for, in the shape of the Engine API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct MountRequest {
    /// What it is.
    #[serde(rename = "Type")]
    pub kind: MountKind,
    /// A path of the host's, or a volume's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Path in the container.
    pub target: String,
    /// The container may not write.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub read_only: bool,
    /// A hint to Docker Desktop; it means nothing here.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub consistency: String,
    /// For binds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bind_options: Option<BindOptions>,
    /// For volumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub volume_options: Option<VolumeOptions>,
    /// For file systems in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmpfs_options: Option<TmpfsOptions>,
    /// For images.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_options: Option<ImageOptions>,
}

/// What only images have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct ImageOptions {
    /// A folder of the image.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// What only binds have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct BindOptions {
    /// `rprivate`, `rslave`, …; empty for the default.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub propagation: String,
    /// Mounts below the source are not seen.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub non_recursive: bool,
    /// A source that is missing is made.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub create_mountpoint: bool,
}

/// What only volumes have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct VolumeOptions {
    /// An empty volume stays empty.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub no_copy: bool,
    /// Labels of the volume, if it is made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Who keeps it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver_config: Option<DriverConfig>,
    /// A folder of the volume.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subpath: String,
}

/// Who keeps a volume.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct DriverConfig {
    /// `local`, or empty for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What it is told.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub options: BTreeMap<String, String>,
}

/// What only file systems in memory have.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct TmpfsOptions {
    /// 0 for the kernel's default, half of the memory.
    #[serde(skip_serializing_if = "is_zero")]
    pub size_bytes: u64,
    /// Permission bits of its root; 0 for 1777.
    #[serde(skip_serializing_if = "is_zero")]
    pub mode: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

const PROPAGATIONS: [&str; 6] = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

impl MountRequest {
    /// Parses the long form: one record of comma-separated values.
    ///
    /// # Errors
    /// Docker's messages for what is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        let refused =
            |why: String| Error::Invalid(format!("invalid argument \"{text}\" for \"--mount\" flag: {why}"));
        let mut request = Self { kind: MountKind::Volume, ..Self::default() };
        for field in fields(text).map_err(|why| refused(why.to_owned()))? {
            let (key, value) = match field.split_once('=') {
                Some((key, value)) => (key.to_lowercase(), Some(value)),
                None => (field.to_lowercase(), None),
            };
            request.set(&field, &key, value).map_err(refused)?;
        }
        request.check().map_err(refused)?;
        Ok(request)
    }

    fn set(&mut self, field: &str, key: &str, value: Option<&str>) -> Result<(), String> {
        let flag = |value: Option<&str>| match value.map(str::to_lowercase).as_deref() {
            None | Some("true" | "1" | "t") => Ok(true),
            Some("false" | "0" | "f") => Ok(false),
            Some(_) => Err(format!("invalid value for {key}: {}", value.unwrap_or_default())),
        };
        match key {
            "readonly" | "ro" => {
                self.read_only = flag(value)?;
                return Ok(());
            }
            "volume-nocopy" => {
                self.volume().no_copy = flag(value)?;
                return Ok(());
            }
            "bind-nonrecursive" => {
                self.bind().non_recursive = flag(value)?;
                return Ok(());
            }
            "bind-create-src" => {
                self.bind().create_mountpoint = flag(value)?;
                return Ok(());
            }
            _ => {}
        }
        let value = value.ok_or_else(|| format!("invalid field '{field}' must be a key=value pair"))?;
        match key {
            "type" => {
                self.kind = match value.to_lowercase().as_str() {
                    "bind" => MountKind::Bind,
                    "volume" => MountKind::Volume,
                    "tmpfs" => MountKind::Tmpfs,
                    "image" => MountKind::Image,
                    other => return Err(format!("mount type \"{other}\" unknown")),
                };
            }
            "source" | "src" => value.clone_into(&mut self.source),
            "target" | "dst" | "destination" => value.clone_into(&mut self.target),
            "consistency" => self.consistency = value.to_lowercase(),
            "bind-propagation" if PROPAGATIONS.contains(&value.to_lowercase().as_str()) => {
                self.bind().propagation = value.to_lowercase();
            }
            "bind-propagation" => return Err(format!("invalid propagation mode: {value}")),
            "bind-recursive" => match value {
                "enabled" | "writable" | "readonly" => self.bind().non_recursive = false,
                "disabled" => self.bind().non_recursive = true,
                _ => {
                    return Err(format!(
                        "invalid value for {key}: {value} (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")"
                    ));
                }
            },
            "volume-subpath" => value.clone_into(&mut self.volume().subpath),
            "image-subpath" => {
                value.clone_into(&mut self.image_options.get_or_insert_default().subpath);
            }
            "volume-label" => {
                let (name, label) = value.split_once('=').unwrap_or((value, ""));
                self.volume().labels.insert(name.to_owned(), label.to_owned());
            }
            "volume-driver" => value.clone_into(&mut self.driver().name),
            "volume-opt" => {
                let (name, option) = value.split_once('=').unwrap_or((value, ""));
                self.driver().options.insert(name.to_owned(), option.to_owned());
            }
            "tmpfs-size" => {
                self.tmpfs().size_bytes =
                    size(value).ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            "tmpfs-mode" => {
                self.tmpfs().mode = u64::from_str_radix(value, 8)
                    .ok()
                    .filter(|mode| *mode <= 0o7777)
                    .ok_or_else(|| format!("invalid value for {key}: {value}"))?;
            }
            _ => return Err(format!("unexpected key '{key}' in '{field}'")),
        }
        Ok(())
    }

    fn check(&self) -> Result<(), String> {
        if self.target.is_empty() {
            return Err("target is required".to_owned());
        }
        let kind = self.kind.as_str();
        for (given, owner) in [
            (self.bind_options.is_some(), MountKind::Bind),
            (self.volume_options.is_some(), MountKind::Volume),
            (self.tmpfs_options.is_some(), MountKind::Tmpfs),
            (self.image_options.is_some(), MountKind::Image),
        ] {
            if given && owner != self.kind {
                return Err(format!("cannot mix '{}-*' options with mount type '{kind}'", owner.as_str()));
            }
        }
        Ok(())
    }

    fn bind(&mut self) -> &mut BindOptions {
        self.bind_options.get_or_insert_default()
    }

    fn volume(&mut self) -> &mut VolumeOptions {
        self.volume_options.get_or_insert_default()
    }

    fn driver(&mut self) -> &mut DriverConfig {
        self.volume().driver_config.get_or_insert_default()
    }

    fn tmpfs(&mut self) -> &mut TmpfsOptions {
        self.tmpfs_options.get_or_insert_default()
    }
}

impl TmpfsOptions {
    /// As the kernel takes them.
    pub(super) fn to_text(&self) -> String {
        let mut options = Vec::new();
        if self.size_bytes > 0 {
            options.push(format!("size={}", self.size_bytes));
        }
        if self.mode > 0 {
            options.push(format!("mode={:o}", self.mode));
        }
        options.join(",")
    }
}

/// Bytes, with a binary unit where one is given.
fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit: u64 = match text[digits.len()..].to_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1 << 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// The fields of one line of comma-separated values: a field may be quoted as a whole, and has its quotes doubled then.
fn fields(text: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        if let Some(quoted) = rest.strip_prefix('"') {
            let mut field = String::new();
            let mut parts = quoted;
            loop {
                let Some((part, after)) = parts.split_once('"') else {
                    return Err("parse error: extraneous or missing \" in quoted-field");
                };
                field.push_str(part);
                match after.strip_prefix('"') {
                    Some(more) => {
                        field.push('"');
                        parts = more;
                    }
                    None => {
                        parts = after;
                        break;
                    }
                }
            }
            fields.push(field);
            match parts.strip_prefix(',') {
                Some(more) => rest = more,
                None if parts.is_empty() => return Ok(fields),
                None => return Err("parse error: extraneous or missing \" in quoted-field"),
            }
        } else {
            let (field, more) = match rest.split_once(',') {
                Some((field, more)) => (field, Some(more)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err("parse error: bare \" in non-quoted field");
            }
            fields.push(field.to_owned());
            match more {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_form() {
        let bind =
            MountRequest::parse("type=bind,src=/a,\"dst=/b,c\",readonly,bind-propagation=rslave").unwrap();
        assert_eq!((bind.kind, bind.source.as_str(), bind.target.as_str()), (MountKind::Bind, "/a", "/b,c"));
        assert!(bind.read_only && bind.bind_options.unwrap().propagation == "rslave");
        let volume = MountRequest::parse(
            "source=v,target=/v,volume-nocopy,volume-label=a=b,volume-opt=o=x,readonly=false",
        )
        .unwrap();
        let options = volume.volume_options.unwrap();
        assert!(options.no_copy && !volume.read_only && options.labels["a"] == "b");
        assert_eq!(options.driver_config.unwrap().options["o"], "x");
        let memory = MountRequest::parse("type=tmpfs,destination=/t,tmpfs-size=2m,tmpfs-mode=0700").unwrap();
        assert_eq!(memory.tmpfs_options.unwrap().to_text(), "size=2097152,mode=700");
    }

    #[test]
    fn messages_are_docker_s() {
        for (text, expected) in [
            ("", "must be a key=value pair"),
            ("type=bind", "target is required"),
            ("type=x,target=/a", "mount type \"x\" unknown"),
            ("target=/a,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
            ("target=/a,foo", "invalid field 'foo' must be a key=value pair"),
            ("target=/a,ro=maybe", "invalid value for ro: maybe"),
            ("type=bind,target=/a,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
            ("target=/a,bind-propagation=slave", "cannot mix 'bind-*' options with mount type 'volume'"),
            ("type=tmpfs,target=/a,tmpfs-size=x", "invalid value for tmpfs-size: x"),
            ("type=tmpfs,target=/a,tmpfs-mode=9", "invalid value for tmpfs-mode: 9"),
            ("type=bind,target=/a,bind-propagation=x", "invalid propagation mode: x"),
            ("target=/a,\"x", "extraneous or missing"),
            ("target=a\"b", "bare \" in non-quoted field"),
        ] {
            let error = MountRequest::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
