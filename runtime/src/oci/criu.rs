//! CRIU as a child: its service protocol (`criu swrk`), one request with the notices on the way to its answer.
//!
//! Messages are protocol buffers (`criu/images/rpc.proto`), one per packet of a socket. Only what is asked and looked at
//! here is encoded and decoded; fields by their numbers, as they may never change. Nothing of CRIU is linked, and there is
//! nothing to be cleaned up after it: it ends with its socket, and the mounts that it needs with it.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::create::send_through;
use super::error::{Error, Result};
use crate::native::restore::enter_own_mounts;
use crate::process::{self, Signals};

/// The longest answer.
const LARGEST: usize = 64 << 10;
/// How much of a log is looked through for what went wrong, from its end.
const LOG_END: u64 = 256 << 10;
/// The exit code of a child that could not execute CRIU.
const NOT_EXECUTED: u8 = 127;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dump = 1,
    Restore = 2,
    PreDump = 4,
}

/// Options that are written here: descriptors of the folders.
const IMAGES: u64 = 1;
const WORK: u64 = 17;
/// The kind of a notice, and of what is answered to it.
const NOTIFY: u64 = 6;

impl Kind {
    /// As CRIU's own messages and runc's have it.
    fn name(self) -> &'static str {
        match self {
            Self::Dump => "DUMP",
            Self::Restore => "RESTORE",
            Self::PreDump => "PRE_DUMP",
        }
    }

    /// The log's name in the work folder.
    pub(super) fn log(self) -> &'static str {
        match self {
            Self::Dump => "dump.log",
            Self::Restore => "restore.log",
            Self::PreDump => "pre-dump.log",
        }
    }
}

/// A message that is put together field by field.
#[derive(Debug, Default)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value.to_le_bytes()[0] | 0x80);
            value >>= 7;
        }
        self.0.push(value.to_le_bytes()[0]);
    }

    /// A number, a choice or a truth value.
    pub(super) fn number(&mut self, field: u64, value: u64) -> &mut Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub(super) fn flag(&mut self, field: u64, value: bool) -> &mut Self {
        if value { self.number(field, 1) } else { self }
    }

    /// A descriptor of this process.
    pub(super) fn handle(&mut self, field: u64, value: &OwnedFd) -> &mut Self {
        self.number(field, u64::from(value.as_raw_fd().unsigned_abs()))
    }

    pub(super) fn bytes(&mut self, field: u64, value: &[u8]) -> &mut Self {
        self.varint(field << 3 | 2);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    pub(super) fn text(&mut self, field: u64, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    pub(super) fn path(&mut self, field: u64, value: &Path) -> &mut Self {
        self.bytes(field, value.as_os_str().as_encoded_bytes())
    }

    /// Two texts, as CRIU has maps.
    pub(super) fn pair(&mut self, field: u64, key: &Path, value: &Path) -> &mut Self {
        let mut pair = Self::default();
        pair.path(1, key).path(2, value);
        self.bytes(field, &pair.0)
    }

    /// Where a page server is.
    pub(super) fn server(&mut self, field: u64, address: &str, port: u16) -> &mut Self {
        let mut server = Self::default();
        server.text(1, address).number(2, port.into());
        self.bytes(field, &server.0)
    }

    /// A handle by CRIU's name for it.
    pub(super) fn inherited(&mut self, field: u64, key: &str, value: &OwnedFd) -> &mut Self {
        let mut pair = Self::default();
        pair.text(1, key).handle(2, value);
        self.bytes(field, &pair.0)
    }
}

/// The fields of a message: number, and a number or bytes.
fn fields(mut rest: &[u8]) -> impl Iterator<Item = (u64, u64, &[u8])> {
    fn varint(rest: &mut &[u8]) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, others) = rest.split_first()?;
            *rest = others;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
    std::iter::from_fn(move || {
        let tag = varint(&mut rest)?;
        match tag & 7 {
            0 => Some((tag >> 3, varint(&mut rest)?, [].as_slice())),
            2 => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                let (value, others) = rest.split_at_checked(length)?;
                rest = others;
                Some((tag >> 3, 0, value))
            }
            // CRIU sends no others.
            _ => None,
        }
    })
}

/// What CRIU says on its way.
#[derive(Debug, Default)]
pub(super) struct Notice {
    /// Which it is: `setup-namespaces`, `post-restore`, `orphan-pts-master`, and others.
    pub(super) script: String,
    /// The container's first process, where there is one.
    pub(super) pid: u32,
    /// The master of its terminal.
    pub(super) handle: Option<OwnedFd>,
}

#[derive(Debug, Default)]
struct Answer {
    kind: u64,
    success: bool,
    errno: u64,
    words: String,
    restored: u32,
    notice: Notice,
}

impl Answer {
    fn decode(text: &[u8]) -> Self {
        let mut answer = Self::default();
        let pid = |value: u64| u32::try_from(value).unwrap_or(0);
        for (field, value, inner) in fields(text) {
            match field {
                1 => answer.kind = value,
                2 => answer.success = value != 0,
                4 => answer.restored = fields(inner).find(|one| one.0 == 1).map_or(0, |one| pid(one.1)),
                5 => {
                    for (field, value, inner) in fields(inner) {
                        match field {
                            1 => answer.notice.script = String::from_utf8_lossy(inner).into_owned(),
                            2 => answer.notice.pid = pid(value),
                            _ => {}
                        }
                    }
                }
                7 => answer.errno = value,
                9 => answer.words = String::from_utf8_lossy(inner).into_owned(),
                _ => {}
            }
        }
        answer
    }
}

/// A CRIU to be asked.
#[derive(Debug)]
pub(super) struct Criu<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Where the image is.
    pub(super) images: &'a Path,
    /// Where its log is.
    pub(super) work: &'a Path,
    /// The root that a container is brought back on.
    pub(super) root: Option<&'a Path>,
    /// What it gets of this process, by the same numbers.
    pub(super) handles: &'a [OwnedFd],
}

impl Criu<'_> {
    /// Asks, and answers notices until the answer; gives the restored process. `born` is told CRIU's own process before it
    /// is asked, as it has to be in the groups that the container shall be in; then more may be asked.
    pub(super) fn ask(
        &self,
        kind: Kind,
        mut options: Message,
        born: impl FnOnce(u32, &mut Message) -> Result<()>,
        mut notified: impl FnMut(Notice) -> Result<()>,
    ) -> Result<u32> {
        let (ours, theirs) = pair()?;
        let mut ours = Some(ours);
        let child = process::fork(|| {
            drop(ours.take());
            self.become_criu(&theirs)
        })?;
        drop(theirs);
        let Some(first) = ours.take() else { return Err(Error::of("ask criu")(Errno::BADF)) };
        let mut text = [0; 1024];
        let (length, socket) = receive_packet(&first, &mut text)?;
        let numbers = String::from_utf8_lossy(&text[..length]);
        let numbers: Vec<u64> = numbers.split(' ').filter_map(|number| number.parse().ok()).collect();
        let (Some(socket), [images, work]) = (socket, numbers.as_slice()) else {
            child.wait()?;
            let why = String::from_utf8_lossy(&text[..length]);
            return Err(Error::Invalid(format!("cannot prepare {}: {why}", self.program.display())));
        };
        options.number(IMAGES, *images).number(WORK, *work);
        let pid = i32::try_from(child.pid()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH);
        let held =
            pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty())).map_err(Error::of("hold criu"))?;
        let asked = born(child.pid(), &mut options).and_then(|()| {
            let mut request = Message::default();
            send(&socket, request.number(1, kind as u64).bytes(2, &options.0).flag(3, true))?;
            loop {
                let Some(mut answer) = receive(&socket, &held)? else { return Ok(None) };
                if answer.kind != NOTIFY {
                    return Ok(Some(answer));
                }
                notified(std::mem::take(&mut answer.notice))?;
                let mut reply = Message::default();
                send(&socket, reply.number(1, NOTIFY).flag(3, true))?;
            }
        });
        // It gives up what it was doing when nobody listens any more.
        drop(socket);
        let ended = child.wait()?;
        match asked? {
            Some(answer) if answer.success => Ok(answer.restored),
            Some(answer) => {
                let words =
                    if answer.words.is_empty() { String::new() } else { format!(": {}", answer.words) };
                Err(self.failed(kind, &format!("type {} errno {}{words}", kind.name(), answer.errno)))
            }
            None if ended.code() == NOT_EXECUTED => Err(Error::Invalid(format!(
                "cannot execute {}: checkpoint and restore need CRIU (https://criu.org)",
                self.program.display()
            ))),
            None => {
                let how = format!("type {}, it ended with code {}", kind.name(), ended.code());
                Err(self.failed(kind, &how))
            }
        }
    }

    /// CRIU mounts things in its work folder and looks for descriptors in the process that has made its socket. So the
    /// folders are opened and the socket is made here, where its mounts are, and the other end is handed over.
    fn become_criu(&self, parent: &OwnedFd) -> u8 {
        let mut kept: Vec<_> = self.handles.iter().map(|handle| handle.as_fd()).collect();
        kept.push(parent.as_fd());
        process::keep_only(&kept);
        Signals::obey();
        let prepared = || -> Result<OwnedFd> {
            for handle in self.handles {
                fcntl_setfd(handle, FdFlags::empty()).map_err(Error::of("pass a descriptor on"))?;
            }
            if let Some(root) = self.root {
                enter_own_mounts(root).map_err(Error::of("make mounts of its own"))?;
            }
            let (images, work) = (folder(self.images)?, folder(self.work)?);
            let (ours, theirs) = pair()?;
            for handle in [&images, &work, &theirs] {
                fcntl_setfd(handle, FdFlags::empty()).map_err(Error::of("pass a descriptor on"))?;
            }
            let numbers = format!("{} {}", images.into_raw_fd(), work.into_raw_fd());
            send_through(parent, ours.as_fd(), &numbers).map_err(Error::of("hand over a socket"))?;
            Ok(theirs)
        };
        match prepared() {
            Ok(socket) => {
                let number = socket.as_raw_fd().to_string();
                // Comes back only when there is nothing to execute.
                drop(Command::new(self.program).args(["swrk", &number]).exec());
                NOT_EXECUTED
            }
            Err(error) => {
                // As much of it as the parent listens to.
                rustix::io::write(parent, error.to_string().as_bytes()).ok();
                1
            }
        }
    }

    /// An error with what CRIU has written about it.
    fn failed(&self, kind: Kind, how: &str) -> Error {
        let log = self.work.join(kind.log());
        let mut said = last_errors(&log);
        if !said.is_empty() {
            said.insert_str(0, ": ");
        }
        Error::Invalid(format!("criu failed: {how}{said} (log file: {})", log.display()))
    }
}

/// The last lines of a log that tell of errors.
fn last_errors(log: &Path) -> String {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let read = |path: &Path| -> std::io::Result<Vec<u8>> {
        let mut file = fs_err::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_END)))?;
        let mut text = Vec::new();
        file.take(LOG_END).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let found: Vec<&str> =
        text.lines().filter_map(|line| line.split_once("Error (").map(|(_, rest)| rest)).collect();
    // Behind the place in CRIU's source.
    let words =
        found.iter().rev().take(3).rev().map(|rest| rest.split_once("): ").map_or(*rest, |(_, words)| words));
    words.collect::<Vec<_>>().join("; ")
}

fn send(socket: &OwnedFd, message: &Message) -> Result<()> {
    let mut none = SendAncillaryBuffer::default();
    match sendmsg(socket, &[IoSlice::new(&message.0)], &mut none, SendFlags::NOSIGNAL) {
        // It has ended; that is learned where its answer is awaited.
        Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => Ok(()),
        Err(errno) => Err(Error::of("ask criu")(errno)),
    }
}

/// The next message, `None` when there will be no more: what a CRIU that has ended leaves behind may still hold the socket.
fn receive(socket: &OwnedFd, criu: &OwnedFd) -> Result<Option<Answer>> {
    loop {
        let mut wait = [PollFd::new(socket, PollFlags::IN), PollFd::new(criu, PollFlags::IN)];
        match poll(&mut wait, None) {
            Ok(_) if !wait[0].revents().is_empty() => break,
            Ok(_) => return Ok(None),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::of("hear from criu")(errno)),
        }
    }
    let mut text = vec![0; LARGEST];
    let (length, handle) = receive_packet(socket, &mut text)?;
    if length == 0 {
        return Ok(None);
    }
    let mut answer = Answer::decode(&text[..length]);
    answer.notice.handle = handle;
    Ok(Some(answer))
}

/// A packet with the handle that came with it; empty when there will be no more.
fn receive_packet(socket: &OwnedFd, text: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(text)], &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) => break received.bytes,
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok((0, None)),
            Err(errno) => return Err(Error::of("hear from criu")(errno)),
        }
    };
    let handle = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut handles) => handles.next(),
        _ => None,
    });
    Ok((length, handle))
}

/// Two ends of a socket that keeps messages apart.
fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
    pair.map_err(Error::of("make a socket pair"))
}

/// Holds a folder.
fn folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
        .map_err(Error::of(format!("open the folder {}", path.display())))
}

/// Makes a folder, unless it is there; gives its absolute path.
pub(super) fn make_folder(path: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::DirBuilderExt as _;
    let shown = || format!("make the folder {}", path.display());
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::of(shown()))?;
    std::path::absolute(path).map_err(Error::of(shown()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_protocol_buffers() {
        let mut message = Message::default();
        message.number(2, 300).flag(3, true).flag(4, false).text(10, "dump.log");
        message.pair(23, Path::new("/a"), Path::new("b"));
        let bytes = b"\x10\xac\x02\x18\x01\x52\x08dump.log\xba\x01\x07\x0a\x02/a\x12\x01b";
        assert_eq!(message.0, bytes);
        let read: Vec<_> =
            fields(&message.0).map(|(field, value, inner)| (field, value, inner.len())).collect();
        assert_eq!(read, [(2, 300, 0), (3, 1, 0), (10, 0, 8), (23, 0, 7)]);
    }

    #[test]
    fn answers_are_understood_and_broken_ones_end() {
        let restored = Answer::decode(b"\x08\x02\x10\x01\x22\x03\x08\xb9\x60");
        assert_eq!((restored.kind, restored.success, restored.restored), (2, true, 12345));
        let notice = Answer::decode(b"\x08\x06\x10\x01\x2a\x10\x0a\x0cpost-restore\x10\x07");
        assert_eq!((notice.kind, notice.notice.script.as_str(), notice.notice.pid), (6, "post-restore", 7));
        for broken in
            [b"\x08".as_slice(), b"\x22\x7f\x08", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x0b"]
        {
            let answer = Answer::decode(broken);
            assert!(!answer.success && answer.restored == 0, "{broken:?}");
        }
    }

    #[test]
    fn the_last_errors_of_a_log_are_repeated() {
        let folder = tempfile::tempdir().expect("folder");
        let log = folder.path().join("dump.log");
        assert_eq!(last_errors(&log), "");
        let lines = ["(00.01) fine", "(00.02) Error (criu/a.c:1): one", "(00.03) Error (criu/a.c:2): two"];
        fs_err::write(&log, lines.join("\n")).expect("written");
        assert_eq!(last_errors(&log), "one; two");
    }
}
