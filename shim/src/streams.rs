//! Where a process's streams lead: named pipes that containerd has made, files, or a program that keeps the log.
//!
//! A pipe goes to the process as it is, so nothing is copied. This process keeps both its ends open meanwhile: a reader that
//! goes away and comes back (containerd, restarted) does not end the writer, and the end is told when the process has
//! ended. What is no pipe is not handed over, but copied to (`pump`).

use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, fcntl_getfl, fcntl_setfl, fstat, open};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Code, Failure};
use crate::logger::Logger;
use crate::pump::Pump;

/// What a request names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Named {
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) terminal: bool,
}

/// What was opened.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// The other ends of what the process has.
    pub(crate) kept: Vec<OwnedFd>,
    /// The writing end of its input, until somebody closes it.
    pub(crate) input: Option<OwnedFd>,
    /// Copied as long as there is something.
    pub(crate) pumps: Vec<Pump>,
    /// To be started before the process.
    pub(crate) logger: Option<Logger>,
    /// Of one with a terminal: what is typed there, and where it is shown.
    pub(crate) terminal: Option<(Option<OwnedFd>, Option<OwnedFd>)>,
}

fn failed<E: std::fmt::Display>(path: &str) -> impl Fn(E) -> Failure {
    Failure::of(format!("open the stream {path}"))
}

fn null() -> Result<OwnedFd, Failure> {
    open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(failed("/dev/null"))
}

/// Opens all; the first are the process's own.
pub(crate) fn make(named: &Named) -> Result<([OwnedFd; 3], Streams), Failure> {
    let mut streams = Streams::default();
    let stdin = match path_of(&named.stdin)? {
        Target::None => None,
        Target::Path(path) => Some(streams.input(path)?),
        _ => return Err(Failure::new(Code::InvalidArgument, format!("no input: {}", named.stdin))),
    };
    if named.terminal {
        let stdout = match path_of(&named.stdout)? {
            Target::None => None,
            Target::Path(path) => Some(both_ends(path)?),
            Target::File(path) => Some(file(path)?),
            Target::Binary(uri) => Some(streams.logged(uri, 1)?),
        };
        let stdin = stdin.map(|stdin| nonblocking(stdin, true).map_err(failed(&named.stdin))).transpose()?;
        let stdout =
            stdout.map(|stdout| nonblocking(stdout, true).map_err(failed(&named.stdout))).transpose()?;
        streams.terminal = Some((stdin, stdout));
        return Ok(([null()?, null()?, null()?], streams));
    }
    let stdin = stdin.map_or_else(null, Ok)?;
    let stdout = streams.output(&named.stdout, 1)?;
    let stderr = streams.output(&named.stderr, 2)?;
    Ok(([stdin, stdout, stderr], streams))
}

impl Streams {
    fn input(&mut self, path: &str) -> Result<OwnedFd, Failure> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let reader = open(path, flags, Mode::empty()).map_err(failed(path))?;
        if is_pipe(&reader) {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            self.input = Some(open(path, flags, Mode::empty()).map_err(failed(path))?);
        }
        nonblocking(reader, false).map_err(failed(path))
    }

    fn output(&mut self, named: &str, number: u8) -> Result<OwnedFd, Failure> {
        match path_of(named)? {
            Target::None => null(),
            Target::Binary(uri) => self.logged(uri, number),
            Target::File(path) => self.copied(path),
            Target::Path(path) => {
                let held = both_ends(path)?;
                if FileType::from_raw_mode(fstat(&held).map_err(failed(path))?.st_mode)
                    == FileType::RegularFile
                {
                    return self.copied(path);
                }
                self.kept.push(held);
                open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).map_err(failed(path))
            }
        }
    }

    /// A pipe whose content goes to a file.
    fn copied(&mut self, path: &str) -> Result<OwnedFd, Failure> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(path))?;
        let reader = nonblocking(reader, true).map_err(failed(path))?;
        self.pumps.push(Pump::file(reader, file(path)?));
        Ok(writer)
    }

    /// A pipe that a program of the user's reads.
    fn logged(&mut self, uri: &str, number: u8) -> Result<OwnedFd, Failure> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(failed(uri))?;
        let logger = self.logger.get_or_insert_with(|| Logger::of(uri));
        if number == 1 {
            logger.stdout = Some(reader);
        } else {
            logger.stderr = Some(reader);
        }
        Ok(writer)
    }
}

/// Where a name leads.
enum Target<'a> {
    None,
    Path(&'a str),
    File(&'a str),
    Binary(&'a str),
}

fn path_of(named: &str) -> Result<Target<'_>, Failure> {
    let without_query = |rest: &'static str| named[rest.len()..].split('?').next().unwrap_or_default();
    Ok(match named.split_once("://") {
        None if named.is_empty() => Target::None,
        None => Target::Path(named),
        Some(("fifo", path)) => Target::Path(path),
        Some(("file", _)) => Target::File(without_query("file://")),
        Some(("binary", _)) => Target::Binary(named),
        Some((scheme, _)) => {
            let text = format!("unknown scheme {scheme:?} of the stream {named}");
            return Err(Failure::new(Code::InvalidArgument, text));
        }
    })
}

fn is_pipe(fd: &OwnedFd) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

/// Opens a pipe so that nobody has to be waited for.
fn both_ends(path: &str) -> Result<OwnedFd, Failure> {
    open(path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()).map_err(failed(path))
}

fn file(path: &str) -> Result<OwnedFd, Failure> {
    if let Some(folder) = Path::new(path).parent() {
        fs_err::create_dir_all(folder).map_err(failed(path))?;
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::APPEND | OFlags::CLOEXEC;
    open(path, flags, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::ROTH).map_err(failed(path))
}

fn nonblocking(fd: OwnedFd, on: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = fcntl_getfl(fd.as_fd())?;
    flags.set(OFlags::NONBLOCK, on);
    fcntl_setfl(&fd, flags)?;
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_lead_nowhere_are_refused() {
        let named = |stdout: &str| Named { stdout: stdout.to_owned(), ..Named::default() };
        for (name, code) in [
            ("/none/at/all", Code::Unknown),
            ("tcp://host", Code::InvalidArgument),
            ("binary-v2:///x", Code::InvalidArgument),
        ] {
            assert_eq!(make(&named(name)).unwrap_err().code, code, "{name}");
        }
        let input = Named { stdin: "file:///x".into(), ..Named::default() };
        assert_eq!(make(&input).unwrap_err().code, Code::InvalidArgument);
        assert!(make(&named("")).is_ok());
    }

    #[test]
    fn files_are_made_and_copied_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/log");
        let name = format!("file://{}?mode=x", path.display());
        let (given, mut streams) = make(&Named { stdout: name, ..Named::default() }).unwrap();
        rustix::io::write(&given[1], b"line\n").unwrap();
        assert!(streams.pumps[0].run());
        drop(given);
        assert!(!streams.pumps[0].run(), "the pipe has ended");
        assert_eq!(fs_err::read(path).unwrap(), b"line\n");
    }
}
