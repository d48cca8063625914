//! A bundle's `config.json`: read, and made into what the executors take.

use std::ffi::OsString;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;
use rustix::fs::{Mode, OFlags, open, readlink};
use rustix::io::Errno;

use super::error::{Error, Result};
use crate::small_file;

/// Its name.
pub const CONFIG: &str = "config.json";
/// The largest one that is read; the rest of a larger one is missing.
const LARGEST: usize = 16 << 20;
/// Docker's have half of this.
const USUAL: usize = 64 << 10;

/// A specification as it was read.
#[derive(Debug)]
pub struct Loaded {
    /// The bundle's folder, absolute.
    pub bundle: PathBuf,
    /// The file as it is.
    pub text: Vec<u8>,
    /// What it says.
    pub spec: Spec,
    /// The root file system's folder, absolute and without links.
    pub rootfs: PathBuf,
}

/// Reads a bundle.
///
/// # Errors
/// When there is none, or it is no specification of a version that is known.
pub fn bundle(folder: &Path) -> Result<Loaded> {
    let bundle = std::path::absolute(folder).map_err(Error::of(format!("find {}", folder.display())))?;
    let path = bundle.join(CONFIG);
    let read = fs_err::File::open(&path).and_then(|file| small_file::content(file.file(), USUAL, LARGEST));
    let text = read.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            Error::Bundle { path: path.clone(), reason: "no such file or directory".to_owned() }
        }
        _ => Error::Bundle { path: path.clone(), reason: error.to_string() },
    })?;
    let spec = spec(&path, &text)?;
    let wanted = spec.root().as_ref().map_or(Path::new(""), |root| root.path());
    if wanted.as_os_str().is_empty() {
        return Err(Error::Bundle { path, reason: "root.path is missing".to_owned() });
    }
    let rootfs = bundle.join(wanted);
    let rootfs = real(&rootfs).map_err(|errno| Error::Bundle {
        path,
        reason: match errno {
            Errno::NOTDIR => format!("root.path: {} is no directory", rootfs.display()),
            errno => format!("root.path: cannot open {}: {}", rootfs.display(), std::io::Error::from(errno)),
        },
    })?;
    Ok(Loaded { bundle, text, spec, rootfs })
}

/// A directory's path without links: as the kernel has found it, and not one link after the other.
fn real(path: &Path) -> rustix::io::Result<PathBuf> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(path, flags, Mode::empty())?;
    let found = readlink(format!("/proc/self/fd/{}", folder.as_raw_fd()), Vec::new())?;
    Ok(OsString::from_vec(found.into_bytes()).into())
}

/// Reads a specification.
///
/// # Errors
/// When it is none, or of another major version.
pub fn spec(path: &Path, text: &[u8]) -> Result<Spec> {
    let wrong = |reason: String| Error::Bundle { path: path.to_owned(), reason };
    let spec: Spec = serde_json::from_slice(text).map_err(|error| {
        let field = field_at(text, error.line(), error.column());
        wrong(if field.is_empty() { error.to_string() } else { format!("{field}: {error}") })
    })?;
    let version = spec.version();
    let numbers: Vec<&str> = version.split('.').collect();
    if numbers.len() < 3 || numbers[0] != "1" || numbers[1].parse::<u32>().is_err() {
        return Err(wrong(format!("unsupported ociVersion {version:?}")));
    }
    Ok(spec)
}

/// The name of what a parser was reading when it stopped at a line and a column, `a.b[0].c`. Of what is no JSON it is as
/// good as it can be.
fn field_at(text: &[u8], line: usize, column: usize) -> String {
    let before: usize =
        text.split_inclusive(|byte| *byte == b'\n').take(line.saturating_sub(1)).map(<[u8]>::len).sum();
    let mut rest = text.iter().take(before.saturating_add(column)).copied();
    // For each structure that is open: the name or the number of what is in it.
    let mut open: Vec<Place> = Vec::new();
    let mut last = Vec::new();
    while let Some(byte) = rest.next() {
        match byte {
            b'"' => {
                last.clear();
                while let Some(byte) = rest.next().filter(|byte| *byte != b'"') {
                    last.push(byte);
                    if byte == b'\\' {
                        last.extend(rest.next());
                    }
                }
            }
            b':' => {
                if let Some(Place::Name(name)) = open.last_mut() {
                    *name = String::from_utf8_lossy(&last).into_owned();
                }
            }
            b',' => {
                if let Some(Place::Number(number)) = open.last_mut() {
                    *number += 1;
                }
            }
            b'{' => open.push(Place::Name(String::new())),
            b'[' => open.push(Place::Number(0)),
            b'}' | b']' => drop(open.pop()),
            _ => {}
        }
        if open.len() > DEEPEST {
            return String::new();
        }
    }
    let mut field = String::new();
    for place in open {
        match place {
            Place::Name(name) if name.is_empty() => {}
            Place::Name(name) if field.is_empty() => field = name,
            Place::Name(name) => field = format!("{field}.{name}"),
            Place::Number(number) => field = format!("{field}[{number}]"),
        }
    }
    field
}

/// Structures in each other; the parser allows no more.
const DEEPEST: usize = 128;

/// Where in a structure the parser is.
enum Place {
    Name(String),
    Number(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field() {
        for (text, field) in [
            (r#"{"ociVersion":7}"#, "ociVersion"),
            (r#"{"ociVersion":"1.0.0","process":{"cwd":"/","user":{"uid":0,"gid":-1}}}"#, "process.user.gid"),
            (
                "{\"ociVersion\":\"1.0.0\",\n \"mounts\":[{\"destination\":\"/a\"},\n {\"destination\":[]}]}",
                "mounts[1].destination",
            ),
            (
                r#"{"ociVersion":"1.0.0","linux":{"namespaces":[{"type":"pid"},{"type":"a\"b"}]}}"#,
                "linux.namespaces[1].type",
            ),
        ] {
            let error = spec(Path::new("config.json"), text.as_bytes()).expect_err("wrong").to_string();
            assert!(error.contains(&format!("{field}: ")), "{field}: {error}");
        }
        for text in ["", "[", "\"", "{\"a", "{\"a\\", ":", "}}}", &"[".repeat(1000)] {
            assert!(spec(Path::new("config.json"), text.as_bytes()).is_err(), "{text}");
        }
    }
}
