//! Paths inside a container's root, resolved by the kernel so that no symbolic link leads out.
//!
//! Everything starts from a handle on the root. A path that exists costs one `openat2`; only for one that does
//! not are its components walked one by one and the missing ones made. Nothing is ever done by a path's text.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat, openat2, readlinkat};
use rustix::io::{Errno, Result};

/// Whether symbolic links on the way are followed (inside the root) or refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// Absolute ones and `..` stay inside the root.
    Inside,
    /// Any link is `ELOOP`.
    Refused,
}

impl Links {
    fn resolve(self) -> ResolveFlags {
        match self {
            Self::Inside => ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS,
            Self::Refused => ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS,
        }
    }
}

/// What to make of a path that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Directory,
    File,
}

/// How often a resolution is tried again that the kernel gave up because something was renamed meanwhile.
const RACES: usize = 64;
/// The kernel's own limit for links in one path.
const MOST_LINKS: usize = 40;

/// Opens what `path` means inside `root`.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, links: Links) -> Result<OwnedFd> {
    let mut result = Err(Errno::AGAIN);
    for _ in 0..RACES {
        result = openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), links.resolve());
        if !matches!(result, Err(Errno::AGAIN | Errno::INTR)) {
            break;
        }
    }
    result
}

/// A handle on `path` inside `root`, which is made when it is missing, with its parents.
pub(super) fn open_or_create(
    root: BorrowedFd<'_>,
    path: &Path,
    links: Links,
    kind: impl FnOnce() -> Result<Kind>,
) -> Result<OwnedFd> {
    match open(root, path, OFlags::PATH, links) {
        Err(Errno::NOENT) => create(root, path, links, kind()?),
        found => found,
    }
}

/// Done with a handle of the container's process on what is the container's own. It is closed at exec, with all others,
/// which saves a call for each; only of very many each is closed here.
pub(super) fn leave(fd: OwnedFd) {
    /// Far below every limit.
    const FEW: i32 = 128;
    if fd.as_raw_fd() < FEW {
        let _number = fd.into_raw_fd();
    }
}

/// The name under which the kernel finds a descriptor again. Only good where `/proc` is the host's.
pub(super) fn by_fd(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn create(root: BorrowedFd<'_>, path: &Path, links: Links, kind: Kind) -> Result<OwnedFd> {
    // Mostly only the last component is missing. If it is there nevertheless, it is a link to what is not.
    if let (Some(parent), Some(name)) = (path.parent(), path.file_name())
        && let Ok(parent) = open(root, parent, OFlags::PATH | OFlags::DIRECTORY, links)
        && let Ok(made) = make(parent.as_fd(), name, kind)
    {
        leave(parent);
        return Ok(made);
    }
    let mut todo: Vec<OsString> = Vec::new();
    push_components(&mut todo, path.as_os_str());
    // Handles on the directories between the root and here; `..` goes back one and never above the root.
    let mut trail: Vec<OwnedFd> = Vec::new();
    let mut followed = 0;
    while let Some(name) = todo.pop() {
        if name == ".." {
            trail.pop();
            continue;
        }
        let here = trail.last().map_or(root, AsFd::as_fd);
        match step(here, &name, OFlags::empty()) {
            Ok(fd) if FileType::from_raw_mode(fstat(&fd)?.st_mode) == FileType::Symlink => {
                followed += 1;
                if links == Links::Refused || followed > MOST_LINKS {
                    return Err(Errno::LOOP);
                }
                let target = OsString::from_vec(readlinkat(&fd, "", Vec::new())?.into_bytes());
                if target.as_bytes().starts_with(b"/") {
                    trail.clear();
                }
                push_components(&mut todo, &target);
            }
            Ok(fd) => trail.push(fd),
            Err(Errno::NOENT) if kind == Kind::File && todo.is_empty() => {
                trail.push(make(here, &name, kind)?);
            }
            Err(Errno::NOENT) => {
                match mkdirat(here, &name, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno),
                }
                let fd = step(here, &name, OFlags::DIRECTORY)?;
                trail.push(fd);
            }
            Err(errno) => return Err(errno),
        }
    }
    match trail.pop() {
        Some(fd) => Ok(fd),
        None => open(root, Path::new("/"), OFlags::PATH, links),
    }
}

/// Makes what is missing, and opens it; `EXIST` when it is not.
pub(super) fn make(here: BorrowedFd<'_>, name: &OsStr, kind: Kind) -> Result<OwnedFd> {
    match kind {
        Kind::Directory => {
            mkdirat(here, name, Mode::from_raw_mode(0o755))?;
            step(here, name, OFlags::DIRECTORY)
        }
        Kind::File => {
            // Not for writing: what is open for that cannot become read-only.
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            openat(here, name, flags, Mode::from_raw_mode(0o644))
        }
    }
}

/// One component down, without following it.
fn step(here: BorrowedFd<'_>, name: &OsStr, flags: OFlags) -> Result<OwnedFd> {
    let flags = flags | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(here, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
}

fn push_components(todo: &mut Vec<OsString>, path: &OsStr) {
    let names = path.as_bytes().split(|byte| *byte == b'/').rev();
    todo.extend(
        names.filter(|name| !matches!(name, [] | [b'.'])).map(|name| OsStr::from_bytes(name).to_owned()),
    );
}

/// An absolute path without `.`, `..` and doubled slashes, by its text alone; `None` when it is relative.
pub(super) fn normal(path: &Path) -> Option<PathBuf> {
    if !path.is_absolute() {
        return None;
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let outer = tempfile::tempdir().expect("a temporary directory");
        fs_err::create_dir_all(outer.path().join("root/real")).expect("root");
        fs_err::create_dir(outer.path().join("secret")).expect("secret");
        let links = [
            ("out", "../../../../../../../tmp"),
            ("abs", "/real"),
            ("dangling", "/run/deep/file"),
            ("up", "../secret"),
            ("loop", "loop"),
        ];
        for (name, target) in links {
            symlink(target, outer.path().join("root").join(name)).expect("link");
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = rustix::fs::open(outer.path().join("root"), flags, Mode::empty()).expect("open");
        (outer, fd)
    }

    #[test]
    fn missing_targets_are_made_inside() {
        let (outer, fd) = root();
        let cases = [
            ("/a/b/c", Kind::Directory, "a/b/c"),
            ("/abs/new", Kind::File, "real/new"),
            ("/dangling", Kind::File, "run/deep/file"),
            ("/up/x", Kind::Directory, "secret/x"),
            ("/out/y", Kind::Directory, "tmp/y"),
            ("/q/../../../z", Kind::Directory, "z"),
        ];
        for (path, kind, expected) in cases {
            open_or_create(fd.as_fd(), Path::new(path), Links::Inside, || Ok(kind)).expect(path);
            let made = outer.path().join("root").join(expected);
            assert_eq!(made.is_dir(), kind == Kind::Directory, "{path}");
            assert!(made.exists(), "{path}");
        }
        assert_eq!(
            fs_err::read_dir(outer.path().join("secret")).expect("list").count(),
            0,
            "nothing outside"
        );
    }

    #[test]
    fn links_are_refused_where_they_must_not_be() {
        let (_outer, fd) = root();
        for path in ["/abs", "/abs/new", "/dangling", "/out/y"] {
            let result = open_or_create(fd.as_fd(), Path::new(path), Links::Refused, || Ok(Kind::Directory));
            assert_eq!(result.err(), Some(Errno::LOOP), "{path}");
        }
        let result = open_or_create(fd.as_fd(), Path::new("/loop/x"), Links::Inside, || Ok(Kind::File));
        assert_eq!(result.err(), Some(Errno::LOOP));
    }

    #[test]
    fn text_is_cleaned() {
        for (path, clean) in
            [("/", "/"), ("//proc/./x/", "/proc/x"), ("/a/../../proc", "/proc"), ("/..", "/")]
        {
            assert_eq!(normal(Path::new(path)).as_deref(), Some(Path::new(clean)), "{path}");
        }
        assert_eq!(normal(Path::new("proc")), None);
    }
}
