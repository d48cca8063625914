//! What a container's first process and its creator say to each other until the user's program runs.
//!
//! One socket pair with message boundaries. The child's end is closed by exec, so the end of the stream after
//! the start message means success. Not a protocol anybody else speaks.

use std::ffi::OsStr;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recv, recvmsg, sendmsg, socketpair,
};
use rustix::process::Pid;

use crate::error::Error;

/// What the creator tells the child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// What only the creator can do for the new process is done: id maps are written, network devices are moved.
    Mapped = b'M' as isize,
    /// The process is in its control group, or may enter it: see [`Channel::placed`].
    Placed = b'C' as isize,
    /// The network namespace is there: see [`Channel::connected`].
    Connected = b'N' as isize,
    /// The creator's hooks have run.
    Hooked = b'H' as isize,
    /// The creator has written everything down and leaves: wait at the gate.
    Park = b'P' as isize,
    /// Run the user's program.
    Start = b'S' as isize,
}

/// A process's control groups of version 1.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FirstGroups {
    /// For each hierarchy its controllers with commas between them, or its own name after `name=`, and the folder.
    pub(crate) folders: Vec<(String, PathBuf)>,
    /// The process is not in them yet and goes there itself: only who moves itself, and nobody else, need not wait until
    /// all processors have noticed, which takes 5 to 20 ms on a system that has not moved processes a moment ago.
    pub(crate) enters: bool,
}

/// Why the child gave up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// A step of the set-up: what was attempted and the kernel's answer.
    Setup(String, Errno),
    /// The bundle asks for something it must not have.
    Refused(String),
    /// The program does not exist; its name, or the path where its interpreter is missing.
    NotFound(String),
    /// The program cannot be executed.
    NotExecutable(Errno),
    /// A hook of the container's own has failed; which, and how.
    Hook(String),
}

/// The longest message; longer texts are cut.
const LONGEST: usize = Failure::LONGEST;

/// Adds what was attempted to the kernel's bare answer.
pub(super) trait Doing<T> {
    /// `action` completes the sentence "cannot …" and is only built on failure.
    fn doing<S: Into<String>>(self, action: impl FnOnce() -> S) -> Result<T, Failure>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing<S: Into<String>>(self, action: impl FnOnce() -> S) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Setup(action().into(), errno))
    }
}

impl Failure {
    /// The most bytes that one is told in.
    pub(super) const LONGEST: usize = 1024;

    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, errno, text) = match self {
            Self::Setup(action, errno) => (b'E', *errno, action.as_str()),
            Self::Refused(reason) => (b'F', Errno::INVAL, reason.as_str()),
            Self::NotFound(command) => (b'N', Errno::NOENT, command.as_str()),
            Self::NotExecutable(errno) => (b'X', *errno, ""),
            Self::Hook(why) => (b'K', Errno::INVAL, why.as_str()),
        };
        let mut message = vec![kind];
        message.extend(errno.raw_os_error().to_le_bytes());
        message.extend(text.bytes().take(LONGEST - message.len()));
        message
    }

    pub(super) fn decode(message: &[u8]) -> Option<Self> {
        let (kind, rest) = message.split_first()?;
        let (errno, text) = rest.split_first_chunk()?;
        let errno = match i32::from_le_bytes(*errno) {
            number @ 1..=4095 => Errno::from_raw_os_error(number),
            _ => Errno::PROTO,
        };
        let text = String::from_utf8_lossy(text).into_owned();
        match kind {
            b'E' => Some(Self::Setup(text, errno)),
            b'F' => Some(Self::Refused(text)),
            b'N' => Some(Self::NotFound(text)),
            b'X' => Some(Self::NotExecutable(errno)),
            b'K' => Some(Self::Hook(text)),
            _ => None,
        }
    }

    /// As this crate's callers see it. `command` is `process.args[0]`.
    pub(super) fn into_error(self, command: &str) -> Error {
        let command = command.to_owned();
        match self {
            Self::Setup(action, errno) => Error::Setup { action, source: errno.into() },
            Self::Refused(reason) => Error::InvalidSpec { field: "mounts", reason },
            Self::Hook(why) => Error::Hook { why },
            Self::NotFound(_) if command.is_empty() => Error::CommandNotFound { command },
            Self::NotFound(command) => Error::CommandNotFound { command },
            Self::NotExecutable(errno) => Error::CommandNotExecutable { command, reason: reason(errno) },
        }
    }
}

/// The kernel's answer in the words Docker's users know, lower case and without the number.
fn reason(errno: Errno) -> String {
    match errno {
        Errno::NOEXEC => "exec format error".to_owned(),
        Errno::ACCESS | Errno::PERM => "permission denied".to_owned(),
        Errno::ISDIR => "is a directory".to_owned(),
        other => {
            let text = io::Error::from(other).to_string();
            text.split(" (os error").next().unwrap_or(&text).to_lowercase()
        }
    }
}

/// What the child tells its creator.
#[derive(Debug)]
pub(super) enum News {
    /// From the process in between: the container's process is there.
    Born {
        /// Its id as the creator counts.
        pid: Pid,
        /// A stable reference to it.
        pidfd: OwnedFd,
    },
    /// The master of the container's terminal.
    Console(OwnedFd),
    /// The mounts are there and the host's root is not left yet: hooks may run.
    Mounted,
    /// Everything is set up.
    Ready,
    /// It gave up.
    Failed(Failure),
    /// It is gone, or has executed the user's program.
    Closed,
}

/// Sends bytes, with a descriptor; gives how many were taken.
pub(super) fn send_with_fd(
    socket: &OwnedFd,
    message: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.as_slice();
    if !fds.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::io::retry_on_intr(|| sendmsg(socket, &[IoSlice::new(message)], &mut control, SendFlags::NOSIGNAL))
}

/// One end of the conversation.
#[derive(Debug)]
pub(super) struct Channel(OwnedFd);

impl Channel {
    /// Both ends: the creator's, the child's.
    pub(super) fn pair() -> Result<(Self, Self), Errno> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Self(ours), Self(theirs)))
    }

    /// By `write`, which a container's own filter of system calls is more likely to allow than anything for sockets.
    fn say(&self, message: &[u8]) -> Result<(), Errno> {
        rustix::io::retry_on_intr(|| rustix::io::write(&self.0, message)).map(drop)
    }

    fn send(&self, message: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Errno> {
        send_with_fd(&self.0, message, fd).map(drop)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<(usize, Option<OwnedFd>), Errno> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let length = rustix::io::retry_on_intr(|| {
            recvmsg(&self.0, &mut [IoSliceMut::new(buffer)], &mut control, RecvFlags::CMSG_CLOEXEC)
        })?
        .bytes;
        let fd = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((length, fd))
    }

    /// The creator's word to the child. A child that is gone already is noticed at the next [`Channel::news`].
    pub(super) fn order(&self, order: Order) {
        let _gone = self.send(&[order as u8], None);
    }

    /// Whether the creator is gone, where it has no more to say.
    pub(super) fn is_alone(&self) -> bool {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        matches!(recv(&self.0, &mut [0u8; 1], flags), Ok((_, 0)) | Err(Errno::CONNRESET))
    }

    /// Waits for the creator's word; false when it is another one or the creator is gone.
    pub(super) fn wait_for(&self, order: Order) -> bool {
        let mut buffer = [0];
        let heard = rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut buffer));
        heard == Ok(1) && buffer[0] == order as u8
    }

    /// The same for [`Order::Placed`], with where that is.
    pub(super) fn placed(&self, groups: &FirstGroups) {
        let mut message = vec![Order::Placed as u8, u8::from(groups.enters)];
        for (names, path) in &groups.folders {
            message.extend(names.bytes().chain([0]));
            message.extend(path.as_os_str().as_bytes().iter().copied().chain([0]));
        }
        let _gone = self.send(&message, None);
    }

    /// Waits for that word; `None` when it is another one or the creator is gone.
    pub(super) fn wait_until_placed(&self) -> Option<FirstGroups> {
        /// More than a dozen hierarchies need.
        const MOST: usize = 64 << 10;
        // How long it is first: room for the longest one would be asked of the kernel, and given back.
        let look = || recv(&self.0, &mut [0u8; 0], RecvFlags::PEEK | RecvFlags::TRUNC);
        let (_, length) = rustix::io::retry_on_intr(look).ok()?;
        let mut message = Vec::with_capacity(length.min(MOST));
        let read = || rustix::io::read(&self.0, rustix::buffer::spare_capacity(&mut message));
        rustix::io::retry_on_intr(read).ok()?;
        let [order, enters, rest @ ..] = message.as_slice() else { return None };
        if *order != Order::Placed as u8 || message.len() == MOST {
            return None;
        }
        let mut words = rest.split(|byte| *byte == 0);
        let mut folders = Vec::new();
        while let (Some(names), Some(path)) = (words.next(), words.next()) {
            let path = PathBuf::from(OsStr::from_bytes(path));
            folders.push((String::from_utf8_lossy(names).into_owned(), path));
        }
        Some(FirstGroups { folders, enters: *enters != 0 })
    }

    /// Hands the child its network namespace.
    pub(super) fn connected(&self, network: &OwnedFd) {
        let _gone = self.send(&[Order::Connected as u8], Some(network.as_fd()));
    }

    /// Waits for that; `None` when it is another word or the creator is gone.
    pub(super) fn wait_until_connected(&self) -> Option<OwnedFd> {
        let mut order = [0];
        let (_, network) = self.receive(&mut order).ok()?;
        network.filter(|_| order[0] == Order::Connected as u8)
    }

    /// Hands the creator the master of the container's terminal.
    pub(super) fn console(&self, master: &OwnedFd) -> Result<(), Failure> {
        self.send(b"T", Some(master.as_fd())).doing(|| "hand over the terminal")
    }

    /// Tells the creator that the mounts are there.
    pub(super) fn mounted(&self) -> Result<(), Failure> {
        self.say(b"H").doing(|| "report to the monitor")
    }

    /// Tells the creator that all is set up.
    pub(super) fn ready(&self) -> Result<(), Failure> {
        self.say(b"R").doing(|| "report to the monitor")
    }

    /// Hands the container's process over to the creator.
    pub(super) fn born(&self, pid: Pid, pidfd: &OwnedFd) -> Result<(), Failure> {
        let mut message = vec![b'B'];
        message.extend(pid.as_raw_nonzero().get().to_le_bytes());
        self.send(&message, Some(pidfd.as_fd())).doing(|| "report to the monitor")
    }

    /// Tells the creator why it ends here. There is nobody left to tell if that fails.
    pub(super) fn failed(&self, failure: &Failure) {
        let _gone = self.say(&failure.encode());
    }

    /// Waits until the child has said all it had to say. Its words wake nobody meanwhile: that would cost it a tenth of a
    /// millisecond where the other processor sleeps.
    pub(super) fn wait_for_end(&self) -> Result<(), Errno> {
        let mut ended = [PollFd::new(&self.0, PollFlags::empty())];
        rustix::io::retry_on_intr(|| poll(&mut ended, None)).map(drop)
    }

    /// The word of a child that has ended, if it said one.
    pub(super) fn news_if_any(&self) -> Result<Option<News>, Errno> {
        let mut said = [PollFd::new(&self.0, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        if rustix::io::retry_on_intr(|| poll(&mut said, Some(&now)))? == 0 {
            Ok(None)
        } else {
            self.news().map(Some)
        }
    }

    /// Waits for the child's word.
    pub(super) fn news(&self) -> Result<News, Errno> {
        let mut buffer = [0; LONGEST];
        // The kernel tells first that the other end was closed before it had read everything, and then what it said.
        let received = match self.receive(&mut buffer) {
            Err(Errno::CONNRESET) => self.receive(&mut buffer),
            received => received,
        };
        let (length, fd) = match received {
            Err(Errno::CONNRESET) => return Ok(News::Closed),
            received => received?,
        };
        Ok(match &buffer[..length] {
            [] => News::Closed,
            b"R" => News::Ready,
            b"H" => News::Mounted,
            b"T" => fd.map_or(News::Closed, News::Console),
            [b'B', pid @ ..] => {
                let pid =
                    <[u8; 4]>::try_from(pid).ok().and_then(|pid| Pid::from_raw(i32::from_le_bytes(pid)));
                match (pid, fd) {
                    (Some(pid), Some(pidfd)) => News::Born { pid, pidfd },
                    _ => News::Closed,
                }
            }
            message => Failure::decode(message).map_or(News::Closed, News::Failed),
        })
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{Mode, OFlags};

    use super::*;

    #[test]
    fn news_and_orders_arrive() -> Result<(), Errno> {
        let (ours, theirs) = Channel::pair()?;
        for failure in [
            Failure::Setup("mount proc at /proc".to_owned(), Errno::PERM),
            Failure::Refused("no".to_owned()),
            Failure::NotFound("nope".to_owned()),
            Failure::NotExecutable(Errno::NOEXEC),
            Failure::Hook("no".to_owned()),
        ] {
            theirs.failed(&failure);
            assert!(matches!(ours.news()?, News::Failed(got) if got == failure));
        }
        theirs.failed(&Failure::Refused("x".repeat(5000)));
        assert!(matches!(ours.news()?, News::Failed(Failure::Refused(text)) if text.len() == LONGEST - 5));
        assert!(theirs.ready().is_ok());
        assert!(matches!(ours.news()?, News::Ready));
        ours.order(Order::Start);
        assert!(theirs.wait_for(Order::Start));
        ours.order(Order::Mapped);
        assert!(!theirs.wait_for(Order::Start));
        let folders = [("cpu,cpuacct", "/a b/c"), ("name=x", "/\u{e4}")];
        let folders: Vec<_> = folders.map(|(names, path)| (names.to_owned(), path.into())).into();
        let long = vec![("memory".to_owned(), "/a".repeat(1000).into()); 16];
        for (folders, enters) in [(folders, true), (Vec::new(), false), (long, true)] {
            let groups = FirstGroups { folders, enters };
            ours.placed(&groups);
            assert_eq!(theirs.wait_until_placed(), Some(groups));
        }
        ours.order(Order::Start);
        assert_eq!(theirs.wait_until_placed(), None);
        let null = rustix::fs::open("/dev/null", OFlags::CLOEXEC, Mode::empty())?;
        ours.connected(&null);
        assert!(theirs.wait_until_connected().is_some());
        ours.order(Order::Connected);
        assert!(theirs.wait_until_connected().is_none(), "without a namespace");
        ours.order(Order::Start);
        assert!(theirs.wait_until_connected().is_none());
        assert!(!theirs.is_alone());
        let (creator, child) = Channel::pair()?;
        drop(creator);
        assert!(child.is_alone());
        let (creator, child) = Channel::pair()?;
        creator.order(Order::Start);
        child.failed(&Failure::NotFound("it".to_owned()));
        drop(child);
        assert!(matches!(creator.news()?, News::Failed(_)), "its last word is heard");
        assert!(matches!(creator.news()?, News::Closed));
        assert!(theirs.ready().is_ok());
        drop(theirs);
        ours.wait_for_end()?;
        assert!(matches!(ours.news()?, News::Ready));
        assert!(matches!(ours.news()?, News::Closed));
        Ok(())
    }

    #[test]
    fn errors_have_dockers_words() {
        let error = |failure: Failure| failure.into_error("tool").to_string();
        assert_eq!(
            error(Failure::NotFound("tool".into())),
            "exec: \"tool\": executable file not found in $PATH"
        );
        assert_eq!(error(Failure::NotFound("/tool".into())), "exec: \"/tool\": no such file or directory");
        assert_eq!(error(Failure::NotExecutable(Errno::NOEXEC)), "exec: \"tool\": exec format error");
        assert_eq!(error(Failure::NotExecutable(Errno::ACCESS)), "exec: \"tool\": permission denied");
        assert_eq!(error(Failure::NotExecutable(Errno::TOOBIG)), "exec: \"tool\": argument list too long");
    }
}
