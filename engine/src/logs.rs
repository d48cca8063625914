//! What containers have written to standard output and error, in Docker's json-file format.
//!
//! ```text
//! <container>/<id>-json.log      one JSON object per line: log, stream, attrs where some are asked for, time
//! <container>/<id>-json.log.1    what was written before; .2 is older; packed as .1.gz where that is asked for
//! ```
//! The monitor writes, nobody else; readers open the files and need no monitor. Files are rotated from the start (3 of
//! 10 MB), so no container fills the disk; a reader that is slow loses nothing of what it has open, and holds up nobody.

mod attributes;
mod entry;
#[cfg(target_os = "linux")]
mod follow;
mod packed;
mod read;
#[cfg(target_os = "linux")]
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::Container;

pub use entry::{Entry, Source};
pub use read::Wanted;
#[cfg(target_os = "linux")]
pub(crate) use write::Log;

/// Docker's `LogConfig`: the driver and its options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct LogConfig {
    /// `json-file`, or `none`.
    #[serde(rename = "Type")]
    pub driver: String,
    /// `max-size`, `max-file`, and what is written beside each line.
    pub config: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { driver: "json-file".to_owned(), config: BTreeMap::new() }
    }
}

/// How far a log may grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Bytes of one file.
    pub(crate) size: u64,
    /// How many files.
    pub(crate) files: u32,
    /// All but the newest are packed.
    pub(crate) compress: bool,
}

impl LogConfig {
    /// Whether anything is kept.
    pub(crate) fn keeps(&self) -> bool {
        self.driver != "none"
    }

    /// Checks driver and options, in Docker's words.
    pub(crate) fn bounds(&self) -> Result<Bounds> {
        let mut bounds = Bounds { size: 10 << 20, files: 3, compress: false };
        match self.driver.as_str() {
            "json-file" | "" => {}
            // Docker's other driver has a form of its own, which nothing reads but itself; here only the limits differ.
            "local" => bounds = Bounds { size: 20 << 20, files: 5, compress: true },
            "none" if self.config.is_empty() => return Ok(bounds),
            "none" => return Err(Error::Invalid("the log driver 'none' takes no options".to_owned())),
            other => {
                return Err(Error::NotYet {
                    what: format!("the log driver '{other}'"),
                    hint: "drivers are `json-file` (the default), `local` and `none`".to_owned(),
                });
            }
        }
        for (name, value) in &self.config {
            let wrong = || Error::Invalid(format!("invalid value for {name}: '{value}'"));
            match name.as_str() {
                // Docker's own -1 is no limit.
                "max-size" if value == "-1" => bounds.size = u64::MAX,
                "max-size" => bounds.size = size(value).filter(|size| *size > 0).ok_or_else(wrong)?,
                "max-file" => {
                    bounds.files =
                        value.parse().ok().filter(|files| (1..=1000).contains(files)).ok_or_else(wrong)?;
                }
                "compress" => bounds.compress = value.parse().map_err(|_| wrong())?,
                // What Docker's driver knows and does not concern how much is kept.
                "mode" | "max-buffer-size" => {}
                own if attributes::OPTIONS.contains(&own) && self.driver != "local" => {}
                _ => {
                    let driver =
                        if self.driver == "local" { "log driver local" } else { "json-file log driver" };
                    return Err(Error::Invalid(format!("unknown log opt '{name}' for {driver}")));
                }
            }
        }
        attributes::validate(self)?;
        Ok(bounds)
    }
}

/// `10m`, `512k`, `1g`, bytes; powers of 1024.
fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let shift = match unit.to_ascii_lowercase().trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// The file that was the log some rotations ago.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

impl Engine {
    /// The newest file of a container's log, whether it is there yet or not; `None` when none is kept.
    pub fn log_path(&self, container: &Container) -> Option<PathBuf> {
        let record = &container.record;
        let name = format!("{}-json.log", record.id);
        record.host_config.log_config.keeps().then(|| self.data_folder(container).join(name))
    }

    /// Gives the entries of a container's log to `each`, oldest first, until there is no more (with `follow`: until the
    /// container has ended) or `each` does not want more.
    ///
    /// # Errors
    /// When there is no log, or it cannot be read.
    pub fn logs(
        &self,
        container: &Container,
        wanted: &Wanted,
        each: &mut dyn FnMut(&Entry) -> bool,
    ) -> Result<()> {
        let Some(path) = self.log_path(container) else {
            return Err(Error::Invalid("configured logging driver does not support reading".to_owned()));
        };
        if !path.exists() && container.state()?.status.is_alive() {
            return Err(Error::Foreground { name: container.record.name.clone(), what: "has no log" });
        }
        read::read(&path, container, wanted, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let config = |driver: &str, options: &[(&str, &str)]| LogConfig {
            driver: driver.to_owned(),
            config: options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        assert_eq!(
            LogConfig::default().bounds().unwrap(),
            Bounds { size: 10 << 20, files: 3, compress: false }
        );
        let bounds = config("json-file", &[("max-size", "1k"), ("max-file", "1")]).bounds().unwrap();
        assert_eq!(bounds, Bounds { size: 1024, files: 1, compress: false });
        assert_eq!(config("", &[("max-size", "-1")]).bounds().unwrap().size, u64::MAX);
        assert!(
            config("local", &[]).bounds().unwrap().compress
                && config("local", &[("compress", "false")]).bounds().is_ok()
        );
        assert!(config("local", &[("labels", "x")]).bounds().is_err());
        assert!(config("json-file", &[("compress", "maybe")]).bounds().is_err());
        assert!(!config("none", &[]).keeps());
        for bad in [
            config("syslog", &[]),
            config("none", &[("max-size", "1k")]),
            config("json-file", &[("max-size", "0")]),
            config("json-file", &[("max-size", "1x")]),
            config("json-file", &[("max-size", "99999999999g")]),
            config("json-file", &[("max-file", "0")]),
            config("json-file", &[("colour", "blue")]),
            config("json-file", &[("labels-regex", "(")]),
            config("json-file", &[("tag", "{{.Nope}}")]),
        ] {
            assert!(bad.bounds().is_err(), "{bad:?}");
        }
    }
}
