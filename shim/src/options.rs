//! A runtime's options, in the two shapes that callers have: runc's own, and the general one whose text is a table of
//! containerd's configuration.

use crate::wire::Message as _;

use crate::error::{Code, Failure};
use crate::messages::{Any, CheckpointOptions, RuncOptions, RuntimeOptions};

/// What there is to choose.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) systemd_cgroup: bool,
    pub(crate) no_pivot_root: bool,
    pub(crate) no_new_keyring: bool,
}

/// The largest file of options that is read.
const LARGEST: u64 = 1 << 20;

/// Reads what a request carries.
///
/// # Errors
/// For a type that is not known, or a text that cannot be read.
pub(crate) fn read(given: Option<&Any>) -> Result<Options, Failure> {
    let Some(any) = given.filter(|any| !any.type_url.is_empty()) else { return Ok(Options::default()) };
    let wrong = |what: String| Failure::new(Code::InvalidArgument, format!("runtime options: {what}"));
    match any.kind() {
        "containerd.runc.v1.Options" => {
            let options = RuncOptions::decode(&any.value).map_err(|error| wrong(error.to_string()))?;
            Ok(Options {
                systemd_cgroup: options.systemd_cgroup,
                no_pivot_root: options.no_pivot_root,
                no_new_keyring: options.no_new_keyring,
            })
        }
        "runtimeoptions.v1.Options" => {
            let options = RuntimeOptions::decode(&any.value).map_err(|error| wrong(error.to_string()))?;
            let body = if options.config_body.is_empty() && !options.config_path.is_empty() {
                from_file(&options.config_path).map_err(|error| wrong(error.to_string()))?
            } else {
                options.config_body
            };
            let text = String::from_utf8(body).map_err(|_| wrong("not UTF-8".to_owned()))?;
            table(&text).map_err(wrong)
        }
        other => Err(wrong(format!("unknown type {other:?}"))),
    }
}

/// What a checkpoint is asked with: runc's options, or none.
///
/// # Errors
/// For another type, or a message that cannot be read.
pub(crate) fn of_checkpoint(given: Option<&Any>) -> Result<CheckpointOptions, Failure> {
    let Some(any) = given.filter(|any| !any.type_url.is_empty()) else {
        return Ok(CheckpointOptions::default());
    };
    let wrong = |what: String| Failure::new(Code::InvalidArgument, format!("checkpoint options: {what}"));
    match any.kind() {
        "containerd.runc.v1.CheckpointOptions" => {
            CheckpointOptions::decode(&any.value).map_err(|error| wrong(error.to_string()))
        }
        other => Err(wrong(format!("unknown type {other:?}"))),
    }
}

fn from_file(path: &str) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    fs_err::File::open(path)?.take(LARGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The keys that are meant here, from a table of `key = value` lines. Others are somebody else's.
fn table(text: &str) -> Result<Options, String> {
    let mut options = Options::default();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((key, value)) = line.split_once('=') else { continue };
        let place = match key.trim().trim_matches('"') {
            "SystemdCgroup" => &mut options.systemd_cgroup,
            "NoPivotRoot" => &mut options.no_pivot_root,
            "NoNewKeyring" => &mut options.no_new_keyring,
            _ => continue,
        };
        *place = match value.trim() {
            "true" => true,
            "false" => false,
            other => return Err(format!("{} is neither true nor false: {other}", key.trim())),
        };
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read() {
        assert_eq!(read(None).unwrap(), Options::default());
        let runc = RuncOptions { systemd_cgroup: true, no_new_keyring: true, ..RuncOptions::default() };
        let runc = read(Some(&Any::of("containerd.runc.v1.Options", &runc))).unwrap();
        assert!(runc.systemd_cgroup && runc.no_new_keyring && !runc.no_pivot_root);
        let body = "# of containerd\nBinaryName = \"\"\nSystemdCgroup = true # on\n\n[other]\n";
        let general = RuntimeOptions { config_body: body.into(), ..RuntimeOptions::default() };
        let general = Any::of("types.containerd.io/runtimeoptions.v1.Options", &general);
        assert!(read(Some(&general)).unwrap().systemd_cgroup);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let unknown = Any { type_url: "a.b/c.Options".into(), value: Vec::new() };
        let broken = Any { type_url: "containerd.runc.v1.Options".into(), value: b"\xff".to_vec() };
        let body = RuntimeOptions { config_body: b"SystemdCgroup = 3".to_vec(), ..RuntimeOptions::default() };
        let file = RuntimeOptions { config_path: "/none/at/all".into(), ..RuntimeOptions::default() };
        let general = |options| Any::of("runtimeoptions.v1.Options", &options);
        for given in [unknown, broken, general(body), general(file)] {
            let failure = read(Some(&given)).unwrap_err();
            assert_eq!(failure.code, Code::InvalidArgument, "{failure}");
        }
    }
}
