//! What may take long or touches much, done by a child that ends right after.
//!
//! The child has the standard streams it is given and one socket, on which it says how it went: `D` and a number, or `F`, a
//! code and words. A terminal's master comes the same way. What it starts becomes this process's own when it ends.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use dhow_runtime::process::{self, Signals};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendFlags,
    SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};

use crate::error::{Code, Failure};

/// The longest words.
const LONGEST: usize = 8 << 10;

/// A child at work.
#[derive(Debug)]
pub(crate) struct Job {
    channel: OwnedFd,
    /// The master of a terminal that was made.
    pub(crate) console: Option<OwnedFd>,
}

/// The child's end.
pub(crate) type Channel = Arc<OwnedFd>;

impl Job {
    /// Starts one. `work` gives a number, that of a process where there is one; `kept` stays open for it.
    ///
    /// # Errors
    /// When there is no room for another process.
    pub(crate) fn start(
        streams: &[OwnedFd; 3],
        kept: &[BorrowedFd<'_>],
        work: impl FnOnce(&Channel) -> Result<u32, Failure>,
    ) -> Result<Self, Failure> {
        let failed = || Failure::of("make a process");
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed())?;
        rustix::io::ioctl_fionbio(&ours, true).map_err(failed())?;
        let mut theirs = Some(theirs);
        let child = process::fork(|| {
            let Some(theirs) = theirs.take() else { return 1 };
            Signals::obey();
            let [stdin, stdout, stderr] = streams;
            let connected =
                dup2_stdin(stdin).and_then(|()| dup2_stdout(stdout)).and_then(|()| dup2_stderr(stderr));
            // What the server has open is nobody else's: a pipe that lives on here would never end.
            process::keep_only(&[&[theirs.as_fd()], kept].concat());
            let channel = Arc::new(theirs);
            let said = match connected
                .map_err(Failure::of("connect the streams"))
                .and_then(|()| work(&channel))
            {
                Ok(number) => [b"D".as_slice(), &number.to_le_bytes()].concat(),
                Err(failure) => [b"F".as_slice(), &[failure.code as u8], failure.text.as_bytes()].concat(),
            };
            let said = &said[..said.len().min(LONGEST)];
            let mut nothing = SendAncillaryBuffer::default();
            u8::from(sendmsg(&*channel, &[IoSlice::new(said)], &mut nothing, SendFlags::NOSIGNAL).is_err())
        });
        child.map_err(Failure::of("make a process"))?;
        Ok(Self { channel: ours, console: None })
    }

    /// What it has said; nothing yet, or how it went.
    pub(crate) fn hear(&mut self) -> Option<Result<u32, Failure>> {
        let lost = || Failure::new(Code::Unknown, "the process that was to do it has ended without a word");
        loop {
            let mut words = vec![0; LONGEST];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let slices = &mut [IoSliceMut::new(&mut words)];
            let length = match recvmsg(&self.channel, slices, &mut control, RecvFlags::CMSG_CLOEXEC) {
                Ok(received) => received.bytes,
                Err(Errno::AGAIN) => return None,
                Err(Errno::INTR) => continue,
                Err(_) => 0,
            };
            for message in control.drain() {
                if let RecvAncillaryMessage::ScmRights(mut handles) = message {
                    self.console = handles.next();
                }
            }
            return match &words[..length] {
                [b'D', number @ ..] => {
                    let number = number.try_into().map(u32::from_le_bytes);
                    Some(number.map_err(|_| lost()))
                }
                [b'F', code, text @ ..] => {
                    Some(Err(Failure::new(Code::from_number(*code), String::from_utf8_lossy(text))))
                }
                [] => Some(Err(lost())),
                // A terminal's master, under its name.
                _ => continue,
            };
        }
    }
}

impl AsFd for Job {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
