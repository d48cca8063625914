//! `cp`: files between this host and a container, running or not, or an archive of them.
//!
//! A Wasm container's files are reached through its union. A native container that runs is reached through its first
//! process's root, where it has volumes and mounts as it sees them; one that does not is set up as for a start, up to the
//! gate before its program, and taken down again.
//!
//! The container is not trusted: see [`place`] for how names are looked up.

mod attributes;
mod place;
mod stream;

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;
use std::time::Duration;

use dhow_runtime::{Kind as Executor, Signal, Stdio, Stream};
use rustix::fs::{CWD, Mode, OFlags};

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::record::{Attempt, Container};
use crate::spec;
use place::{Info, Kind, Place, Root, names_directory};

/// Directories within directories that are copied; deeper ones are somebody's joke.
const MAX_DEPTH: usize = 512;

/// How files are copied.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyOptions {
    /// Owners come along. Without it files belong to whoever copies them, and to root in a container.
    pub archive: bool,
    /// A link that is named is followed.
    pub follow: bool,
}

impl Engine {
    /// Copies a file or directory of a container to a path of this host. Gives the bytes of all files.
    ///
    /// # Errors
    /// [`Error::NoSuchPath`], [`Error::Invalid`] for what cannot be put there, and those of the disk.
    pub fn copy_from(
        &self,
        container: &Container,
        from: &str,
        to: &Path,
        options: CopyOptions,
    ) -> Result<u64> {
        self.with_root(container, |root| {
            let shown = format!("{}:{from}", container.record.name);
            copy((root, &rooted(from), &shown), (&Root::Host, to.as_os_str()), options, None)
        })
        .inspect(|_| self.tell_of(&container.record, "archive-path", &[]))
    }

    /// Copies a file or directory of this host into a container. Gives the bytes of all files.
    ///
    /// # Errors
    /// As [`Engine::copy_from`].
    pub fn copy_to(&self, container: &Container, from: &Path, to: &str, options: CopyOptions) -> Result<u64> {
        self.with_root(container, |root| {
            let shown = from.display().to_string();
            copy((&Root::Host, from.as_os_str(), &shown), (root, &rooted(to)), options, Some((0, 0)))
        })
        .inspect(|_| self.tell_of(&container.record, "extract-to-dir", &[]))
    }

    /// Writes a file or directory of a container as a tar archive.
    ///
    /// # Errors
    /// [`Error::NoSuchPath`], and those of `out`.
    pub fn archive_from(
        &self,
        container: &Container,
        from: &str,
        out: &mut dyn io::Write,
        options: CopyOptions,
    ) -> Result<()> {
        self.with_root(container, |root| {
            let shown = format!("{}:{from}", container.record.name);
            stream::write(&Source::find(root, &rooted(from), &shown, options.follow)?, out)
        })
        .inspect(|()| self.tell_of(&container.record, "archive-path", &[]))
    }

    /// Unpacks a tar archive in a directory of a container.
    ///
    /// # Errors
    /// [`Error::NoSuchPath`], [`Error::Invalid`] for an archive that makes no sense, and those of the disk.
    pub fn archive_to(
        &self,
        container: &Container,
        input: &mut dyn io::Read,
        to: &str,
        options: CopyOptions,
    ) -> Result<()> {
        self.with_root(container, |root| {
            let shown = format!("{}:{to}", container.record.name);
            let place = root.directory(&rooted(to)).map_err(|error| match error.kind() {
                io::ErrorKind::NotADirectory => {
                    Error::Invalid(format!("destination \"{shown}\" must be a directory"))
                }
                io::ErrorKind::NotFound => Error::NoSuchPath(shown.clone()),
                _ => at(&shown, error),
            })?;
            stream::read(input, &place, options.archive)
        })
        .inspect(|()| self.tell_of(&container.record, "extract-to-dir", &[]))
    }

    /// Does something with a container's root, as its program sees it.
    fn with_root<T>(&self, container: &Container, work: impl FnOnce(&Root) -> Result<T>) -> Result<T> {
        if container.record.kind == Executor::Wasm {
            let files = dhow_runtime::wasm::Files::open(&self.bundle(container)?)?;
            return work(&Root::Union(files));
        }
        loop {
            match container.try_claim()? {
                Attempt::Taken(claim) => {
                    let bundle = self.bundle(container)?;
                    let stdio =
                        Stdio::Streams { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
                    let task = spec::executor(&container.record)?.create(&bundle, stdio)?;
                    let done =
                        root_of(task.pid()).map_err(Error::from).and_then(|root| work(&Root::Native(root)));
                    task.kill(Signal::KILL).ok();
                    task.delete()?;
                    self.let_memory_go(&container.record);
                    drop(claim);
                    return done;
                }
                Attempt::Gone => return Err(Error::NoSuchContainer(container.record.name.clone())),
                Attempt::Busy => {
                    let state = container.state()?;
                    if state.status.is_running() && state.pid != 0 {
                        let root = root_of(state.pid);
                        // Only now is it sure that the number is not another process's.
                        if crate::survivor::start_time(state.pid) == state.pid_started {
                            return work(&Root::Native(root?));
                        }
                    }
                }
            }
            // It is starting, or ending.
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

fn root_of(pid: u32) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(CWD, format!("/proc/{pid}/root"), flags, Mode::empty())?)
}

/// A path in a container begins at its root.
fn rooted(path: &str) -> OsString {
    if path.starts_with('/') { path.into() } else { format!("/{path}").into() }
}

#[expect(clippy::needless_pass_by_value, reason = "for `map_err`")]
fn at(shown: impl std::fmt::Display, error: io::Error) -> Error {
    io::Error::new(error.kind(), format!("{shown}: {error}")).into()
}

/// What is copied: a name in a directory, or what is in a directory.
struct Source<'a> {
    place: Place<'a>,
    /// `None` for the contents of `place`.
    name: Option<OsString>,
    info: Info,
    /// The file itself where a link led to it.
    file: Option<std::fs::File>,
    shown: String,
}

impl<'a> Source<'a> {
    fn find(root: &'a Root, path: &OsStr, shown: &str, follow: bool) -> Result<Self> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::NotFound => Error::NoSuchPath(shown.to_owned()),
            io::ErrorKind::NotADirectory => Error::Invalid(format!("{shown}: not a directory")),
            _ => at(shown, error),
        };
        let follow = follow || names_directory(path);
        let info = root.stat(path, follow).map_err(failed)?;
        let (parent, name) = split(path);
        if names_directory(path) && info.kind != Kind::Directory {
            return Err(Error::Invalid(format!("{shown}: not a directory")));
        }
        let contents = path.as_bytes().ends_with(b"/.") || path == "." || name.is_empty() || name == "..";
        let shown = shown.to_owned();
        if contents {
            let place = root.directory(path).map_err(failed)?;
            return Ok(Self { place, name: None, info, file: None, shown });
        }
        let own = root.stat(path, false).map_err(failed)?;
        let is_link = own.kind == Kind::Symlink && follow;
        let file =
            if is_link && info.kind == Kind::File { Some(root.read(path).map_err(failed)?) } else { None };
        let place = if is_link && info.kind == Kind::Directory {
            root.directory(path).map_err(failed)?
        } else {
            root.directory(&parent).map_err(failed)?
        };
        Ok(Self { place, name: Some(name), info, file, shown })
    }

    /// Whether `place` is the directory that is copied, under the name of a link to it.
    fn is_linked_directory(&self) -> bool {
        self.info.kind == Kind::Directory
            && self
                .name
                .as_ref()
                .is_some_and(|name| self.place.stat(name).map_or(true, |info| info.kind != Kind::Directory))
    }

    fn directory(&self) -> io::Result<Option<Place<'a>>> {
        match &self.name {
            Some(name) if self.info.kind == Kind::Directory && !self.is_linked_directory() => {
                self.place.enter(name).map(Some)
            }
            _ => Ok(None),
        }
    }
}

/// The directory of a path and its last name.
fn split(path: &OsStr) -> (OsString, OsString) {
    let bytes = path.as_bytes();
    let end = bytes.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    let bytes = &bytes[..end];
    let (parent, name) = match bytes.iter().rposition(|byte| *byte == b'/') {
        Some(0) => (&b"/"[..], &bytes[1..]),
        Some(slash) => (&bytes[..slash], &bytes[slash + 1..]),
        None if bytes.is_empty() => (&b"/"[..], bytes),
        None => (&b"."[..], bytes),
    };
    (OsString::from_vec(parent.to_vec()), OsString::from_vec(name.to_vec()))
}

/// Copies by Docker's rules for what is there already and what is not.
fn copy(
    (from_root, from, shown): (&Root, &OsStr, &str),
    (to_root, to): (&Root, &OsStr),
    options: CopyOptions,
    owner: Option<(u32, u32)>,
) -> Result<u64> {
    let source = Source::find(from_root, from, shown, options.follow)?;
    let to = &end_of_links(to_root, to);
    let to_shown = to.display().to_string();
    let failed = |error| at(&to_shown, error);
    let mut copying = Copying { archive: options.archive, owner, bytes: 0 };
    let target = match to_root.stat(to, true) {
        Ok(info) => Some(info.kind),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    let is_directory = source.info.kind == Kind::Directory;
    match target {
        Some(Kind::Directory) => {
            let place = to_root.directory(to).map_err(failed)?;
            copying.source(&source, &place, source.name.as_deref())?;
        }
        Some(_) if is_directory => {
            return Err(Error::Invalid(format!(
                "cannot copy directory {shown} to {to_shown}, which is a file"
            )));
        }
        Some(_) if names_directory(to) => return Err(Error::Invalid(format!("{to_shown}: not a directory"))),
        None if names_directory(to) && !is_directory => {
            return Err(Error::NoSuchPath(to_shown));
        }
        // A name of its own. A link that has come there meanwhile is not written through, but replaced.
        _ => {
            let (parent, name) = split(to);
            let place = to_root.directory(&parent).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => Error::NoSuchPath(parent.display().to_string()),
                _ => failed(error),
            })?;
            if is_directory {
                let made = place.mkdir(&name).map_err(failed)?;
                copying.source(&source, &made, None)?;
                place.describe(&name, &source.info, copying.owner_of(&source.info)).map_err(failed)?;
            } else {
                copying.source(&source, &place, Some(&name))?;
            }
        }
    }
    Ok(copying.bytes)
}

/// The path that a link to a file leads to, as Docker follows one to what is copied to; it need not be there. What is no
/// such link, or one of too many, is as it was.
fn end_of_links(root: &Root, path: &OsStr) -> OsString {
    const MOST: usize = 10;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let is_link = || root.stat(&path, false).is_ok_and(|info| info.kind == Kind::Symlink);
        if names_directory(&path) || !is_link() {
            break;
        }
        let (parent, name) = split(&path);
        let Ok(target) = root.directory(&parent).and_then(|place| place.readlink(&name)) else { break };
        // Within a container's root an absolute one begins there.
        path = cleaned(&Path::new(&parent).join(target));
    }
    path
}

/// Without `.` and `..`, by the names alone, as Docker does it; above a root there is nothing.
fn cleaned(path: &Path) -> OsString {
    use std::path::{Component, PathBuf};
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir if clean.file_name().is_some() => {
                clean.pop();
            }
            Component::ParentDir if clean.has_root() => {}
            part => clean.push(part),
        }
    }
    if clean.as_os_str().is_empty() { ".".into() } else { clean.into_os_string() }
}

struct Copying {
    archive: bool,
    /// Whom copies belong to where owners do not come along; `None` for whoever this is.
    owner: Option<(u32, u32)>,
    bytes: u64,
}

impl Copying {
    fn owner_of(&self, info: &Info) -> Option<(u32, u32)> {
        if self.archive { Some(info.owner) } else { self.owner }
    }

    /// Copies to `name` in `to`, or, without a name, the contents of a directory into `to`.
    fn source(&mut self, source: &Source<'_>, to: &Place<'_>, name: Option<&OsStr>) -> Result<()> {
        let directory = source.directory().map_err(|error| at(&source.shown, error))?;
        match (&source.name, name) {
            (Some(_), Some(name)) if source.info.kind == Kind::Directory => {
                let made = to.mkdir(name).map_err(|error| at(name.display(), error))?;
                self.contents(directory.as_ref().unwrap_or(&source.place), &made, &source.shown, 0)?;
                let owner = self.owner_of(&source.info);
                to.describe(name, &source.info, owner).map_err(|error| at(name.display(), error))
            }
            (Some(_), Some(name)) if source.file.is_some() => {
                if let Some(file) = source.file.as_ref() {
                    self.file(file, &source.info, to, name).map_err(|error| at(&source.shown, error))?;
                }
                Ok(())
            }
            (Some(from), Some(name)) => self.entry(&source.place, from, to, name, &source.shown, 0),
            _ => self.contents(directory.as_ref().unwrap_or(&source.place), to, &source.shown, 0),
        }
    }

    fn contents(&mut self, from: &Place<'_>, to: &Place<'_>, shown: &str, depth: usize) -> Result<()> {
        for name in from.names().map_err(|error| at(shown, error))? {
            let shown = format!("{}/{}", shown.trim_end_matches("/.").trim_end_matches('/'), name.display());
            self.entry(from, &name, to, &name, &shown, depth + 1)?;
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: &Place<'_>,
        from_name: &OsStr,
        to: &Place<'_>,
        name: &OsStr,
        shown: &str,
        depth: usize,
    ) -> Result<()> {
        let failed = |error| at(shown, error);
        if depth > MAX_DEPTH {
            return Err(Error::Invalid(format!(
                "{shown}: more than {MAX_DEPTH} directories within each other"
            )));
        }
        let info = from.stat(from_name).map_err(failed)?;
        match info.kind {
            Kind::Directory => {
                let inner = from.enter(from_name).map_err(failed)?;
                let made = to.mkdir(name).map_err(failed)?;
                self.contents(&inner, &made, shown, depth)?;
            }
            Kind::File => {
                let file = from.read(from_name).map_err(failed)?;
                return self.file(&file, &info, to, name).map_err(failed);
            }
            Kind::Symlink => {
                to.symlink(&from.readlink(from_name).map_err(failed)?, name).map_err(failed)?;
            }
            // Pipes and sockets mean nothing without who has them open, and devices are not for copying.
            Kind::Other => return Ok(()),
        }
        to.describe(name, &info, self.owner_of(&info)).map_err(failed)
    }

    fn file(
        &mut self,
        mut from: &std::fs::File,
        info: &Info,
        to: &Place<'_>,
        name: &OsStr,
    ) -> io::Result<()> {
        let mut file = to.create(name)?;
        match io::copy(&mut from, &mut file) {
            Ok(bytes) => self.bytes += bytes,
            Err(error) => {
                // A full disk: half a file helps nobody.
                to.clear(name).ok();
                return Err(error);
            }
        }
        to.describe(name, info, self.owner_of(info))?;
        // Last: a change of owners takes capabilities away.
        attributes::copy(from, &file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned() {
        for (path, clean) in [
            ("/srv/../../../etc/x", "/etc/x"),
            ("/a/./b/..", "/a"),
            ("a/..", "."),
            ("../a/../b", "../b"),
            ("/..", "/"),
        ] {
            assert_eq!(cleaned(Path::new(path)), clean, "{path}");
        }
    }

    #[test]
    fn paths_are_split() {
        for (path, parent, name) in [
            ("/a/b", "/a", "b"),
            ("/a/b//", "/a", "b"),
            ("/a", "/", "a"),
            ("a", ".", "a"),
            ("/", "/", ""),
            ("a/b", "a", "b"),
        ] {
            assert_eq!(split(OsStr::new(path)), (parent.into(), name.into()), "{path}");
        }
    }
}
