//! The guest's three streams, independent of the WASI version: blocking, unbuffered, at most one system call each.

use std::fs::File;
use std::io::{self, IoSlice, IsTerminal as _, Read as _, Write as _};
use std::sync::Arc;

use crate::stdio::{Stdio, Stream};

/// Standard input, output and error.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pub(super) stdin: Input,
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    /// The guest is told that it has a terminal, whatever the streams are.
    pub(super) terminal: bool,
}

/// Where input comes from.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Null,
    Inherit,
    File(Arc<File>),
}

/// Where output goes.
#[derive(Clone)]
pub(super) enum Output {
    Null,
    Stdout,
    Stderr,
    File(Arc<File>),
    /// A function of the application that has the guest.
    #[cfg(feature = "plugins")]
    Sink(super::plugins::Sink),
}

impl std::fmt::Debug for Output {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Null => "Null",
            Self::Stdout => "Stdout",
            Self::Stderr => "Stderr",
            Self::File(_) => "File",
            #[cfg(feature = "plugins")]
            Self::Sink(_) => "Sink",
        })
    }
}

impl Streams {
    pub(super) fn new(stdio: Stdio) -> Self {
        let (streams, terminal) = match stdio {
            Stdio::Streams { stdin, stdout, stderr } => ((stdin, stdout, stderr), false),
            Stdio::Terminal(_) => ((Stream::Inherit, Stream::Inherit, Stream::Inherit), true),
        };
        let output = |stream, inherited| match stream {
            Stream::Null => Output::Null,
            Stream::Inherit => inherited,
            Stream::File(file) => Output::File(Arc::new(file)),
        };
        let stdin = match streams.0 {
            Stream::Null => Input::Null,
            Stream::Inherit => Input::Inherit,
            Stream::File(file) => Input::File(Arc::new(file)),
        };
        Self {
            stdin,
            stdout: output(streams.1, Output::Stdout),
            stderr: output(streams.2, Output::Stderr),
            terminal,
        }
    }
}

impl Input {
    /// Reads once; 0 bytes mean the end.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.read_now(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                done => return done,
            }
        }
    }

    /// Whether a read would not wait, the end of the input included.
    #[cfg(unix)]
    pub(super) fn is_ready(&self) -> io::Result<bool> {
        match self {
            Self::Null => Ok(true),
            Self::Inherit => ready(rustix::stdio::stdin(), rustix::event::PollFlags::IN),
            Self::File(file) => ready(std::os::fd::AsFd::as_fd(&**file), rustix::event::PollFlags::IN),
        }
    }

    #[cfg(not(unix))]
    pub(super) fn is_ready(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// Waits until there is something to read. Others may have made a stream that we share non-blocking; guests expect
    /// blocking ones.
    #[cfg(unix)]
    fn wait(&self) -> io::Result<()> {
        match self {
            Self::Null => Ok(()),
            Self::Inherit => wait_for(rustix::stdio::stdin(), rustix::event::PollFlags::IN),
            Self::File(file) => wait_for(std::os::fd::AsFd::as_fd(&**file), rustix::event::PollFlags::IN),
        }
    }

    #[cfg(not(unix))]
    fn wait(&self) -> io::Result<()> {
        std::thread::yield_now();
        Ok(())
    }

    fn read_now(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Null => Ok(0),
            #[cfg(unix)]
            Self::Inherit => Ok(rustix::io::read(rustix::stdio::stdin(), buffer)?),
            #[cfg(not(unix))]
            Self::Inherit => io::stdin().read(buffer),
            Self::File(file) => (&**file).read(buffer),
        }
    }

    pub(super) fn is_terminal(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Inherit => io::stdin().is_terminal(),
            Self::File(file) => file.is_terminal(),
        }
    }
}

impl Output {
    /// Writes once, as much as the system takes.
    pub(super) fn write(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.write_now(buffers) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.wait()?,
                done => return done,
            }
        }
    }

    /// Whether a small write would not wait.
    #[cfg(unix)]
    pub(super) fn is_ready(&self) -> io::Result<bool> {
        self.fd().map_or(Ok(true), |fd| ready(fd, rustix::event::PollFlags::OUT))
    }

    #[cfg(not(unix))]
    pub(super) fn is_ready(&self) -> io::Result<bool> {
        Ok(true)
    }

    /// What is behind it.
    #[cfg(unix)]
    pub(super) fn fd(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match self {
            Self::Null => None,
            #[cfg(feature = "plugins")]
            Self::Sink(_) => None,
            Self::Stdout => Some(rustix::stdio::stdout()),
            Self::Stderr => Some(rustix::stdio::stderr()),
            Self::File(file) => Some(std::os::fd::AsFd::as_fd(&**file)),
        }
    }

    /// As [`Input::wait`], for room to write into.
    #[cfg(unix)]
    fn wait(&self) -> io::Result<()> {
        self.fd().map_or(Ok(()), |fd| wait_for(fd, rustix::event::PollFlags::OUT))
    }

    #[cfg(not(unix))]
    fn wait(&self) -> io::Result<()> {
        std::thread::yield_now();
        Ok(())
    }

    fn write_now(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Null => Ok(buffers.iter().map(|buffer| buffer.len()).sum()),
            #[cfg(feature = "plugins")]
            Self::Sink(sink) => {
                buffers.iter().for_each(|buffer| sink(buffer));
                Ok(buffers.iter().map(|buffer| buffer.len()).sum())
            }
            #[cfg(unix)]
            Self::Stdout => Ok(rustix::io::writev(rustix::stdio::stdout(), buffers)?),
            #[cfg(unix)]
            Self::Stderr => Ok(rustix::io::writev(rustix::stdio::stderr(), buffers)?),
            #[cfg(not(unix))]
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                let written = stdout.write_vectored(buffers)?;
                stdout.flush().map(|()| written)
            }
            #[cfg(not(unix))]
            Self::Stderr => io::stderr().write_vectored(buffers),
            Self::File(file) => (&**file).write_vectored(buffers),
        }
    }

    /// Writes everything.
    pub(super) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write(&[IoSlice::new(bytes)]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    pub(super) fn is_terminal(&self) -> bool {
        match self {
            Self::Null => false,
            #[cfg(feature = "plugins")]
            Self::Sink(_) => false,
            Self::Stdout => io::stdout().is_terminal(),
            Self::Stderr => io::stderr().is_terminal(),
            Self::File(file) => file.is_terminal(),
        }
    }
}

#[cfg(unix)]
fn wait_for(fd: std::os::fd::BorrowedFd<'_>, what: rustix::event::PollFlags) -> io::Result<()> {
    rustix::event::poll(&mut [rustix::event::PollFd::new(&fd, what)], None)?;
    Ok(())
}

#[cfg(unix)]
fn ready(fd: std::os::fd::BorrowedFd<'_>, what: rustix::event::PollFlags) -> io::Result<bool> {
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    Ok(rustix::event::poll(&mut [rustix::event::PollFd::from_borrowed_fd(fd, what)], Some(&now))? > 0)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn streams_that_others_made_non_blocking_still_block() {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).expect("a pipe");
        let output = Output::File(Arc::new(File::from(writer)));
        let input = Input::File(Arc::new(File::from(reader)));
        // More than a pipe holds.
        let data = vec![7u8; 1 << 20];
        std::thread::scope(|scope| {
            scope.spawn(|| output.write_all(&data).expect("write"));
            let (mut total, mut buffer) = (0, [0; 4096]);
            while total < 1 << 20 {
                total += input.read(&mut buffer).expect("read");
            }
        });
    }
}
