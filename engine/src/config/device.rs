//! `--device` and the block devices that limits name.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A device of the host in the container: Docker's `DeviceMapping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Device {
    /// The node, or a folder of nodes, of the host.
    pub path_on_host: String,
    /// The same in the container.
    pub path_in_container: String,
    /// Of `r`, `w` and `m`.
    pub cgroup_permissions: String,
}

impl Device {
    /// Reads `HOST[:CONTAINER][:rwm]`.
    ///
    /// # Errors
    /// In Docker's words.
    pub fn parse(text: &str) -> Result<Self> {
        let is_mode = |text: &str| {
            !text.is_empty()
                && ['r', 'w', 'm'].iter().map(|wanted| text.matches(*wanted).count()).sum::<usize>()
                    == text.len()
                && ['r', 'w', 'm'].iter().all(|wanted| text.matches(*wanted).count() <= 1)
        };
        let parts: Vec<&str> = text.split(':').collect();
        let (host, inside, mode) = match parts[..] {
            [host] => (host, host, "rwm"),
            [host, mode] if is_mode(mode) => (host, host, mode),
            [host, inside] => (host, inside, "rwm"),
            [host, inside, mode] if is_mode(mode) => (host, inside, mode),
            [_, _, mode] => return Err(Error::Invalid(format!("bad mode specified: {mode}"))),
            _ => return Err(Error::Invalid(format!("bad format for path: {text}"))),
        };
        for path in [host, inside] {
            if !path.starts_with('/') {
                return Err(Error::Invalid(format!("{path} is not an absolute path")));
            }
        }
        Ok(Self {
            path_on_host: host.to_owned(),
            path_in_container: inside.to_owned(),
            cgroup_permissions: mode.to_owned(),
        })
    }
}

/// A weight of one block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct WeightDevice {
    /// The node.
    pub path: String,
    /// 10 to 1000.
    pub weight: u16,
}

/// The most of something that is read from or written to one block device in a second.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ThrottleDevice {
    /// The node.
    pub path: String,
    /// Bytes, or operations.
    pub rate: u64,
}

/// Checks `TYPE MAJOR:MINOR MODE`, as `c 1:3 rwm`.
///
/// # Errors
/// In Docker's words.
pub fn validate_rule(rule: &str) -> Result<()> {
    let fine = || {
        let mut words = rule.split(' ');
        let kind = words.next()?;
        let (major, minor) = words.next()?.split_once(':')?;
        let mode = words.next()?;
        let number = |text: &str| text == "*" || text.parse::<u32>().is_ok();
        (["a", "b", "c"].contains(&kind)
            && number(major)
            && number(minor)
            && (1..=3).contains(&mode.len())
            && mode.chars().all(|letter| "rwm".contains(letter))
            && words.next().is_none())
        .then_some(())
    };
    fine().ok_or_else(|| Error::Invalid(format!("invalid device cgroup format '{rule}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        for (text, host, inside, mode) in [
            ("/dev/null", "/dev/null", "/dev/null", "rwm"),
            ("/dev/null:r", "/dev/null", "/dev/null", "r"),
            ("/dev/null:/dev/x", "/dev/null", "/dev/x", "rwm"),
            ("/dev/null:/dev/x:rw", "/dev/null", "/dev/x", "rw"),
        ] {
            let device = Device::parse(text).unwrap();
            assert_eq!(
                (device.path_on_host.as_str(), device.path_in_container.as_str()),
                (host, inside),
                "{text}"
            );
            assert_eq!(device.cgroup_permissions, mode);
        }
        for bad in ["foo", "", "/a:/b:q", "/a:/b:rr", "/a:/b:r:w", "/a:b"] {
            assert!(Device::parse(bad).is_err(), "{bad}");
        }
        for rule in ["c 1:3 rwm", "a *:* m", "b 8:* r"] {
            validate_rule(rule).unwrap();
        }
        for rule in ["x", "c 1 r", "c 1:3", "c 1:3 q", "d 1:3 r", "c 1:3 r r", "c 1:3 rwmr"] {
            assert!(validate_rule(rule).is_err(), "{rule}");
        }
    }
}
