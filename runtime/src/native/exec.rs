//! The very last step: the user's program is found, checked, and executed.
//!
//! The kernel would follow `/proc/self/exe` to the host's own executable, as a command, as a link in an image, or
//! as the interpreter of a script. The container would then run that, and could hold it open and change it later
//! (CVE-2019-5736). So magic links are refused, and so is our own file by any other name. The interpreter an ELF
//! file asks for needs no check: `/proc/self/exe` is the container's file by the time it runs.
//!
//! It is a check by name, not a lock: who can change the container's files meanwhile (through a volume) can win a
//! race against it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, accessat, fstat, openat2, stat,
};
use rustix::io::Errno;

use crate::native::plan::Command;
use crate::native::report::Failure;
use crate::native::sys;

/// As much of a script as the kernel looks at (`BINPRM_BUF_SIZE`).
const HEAD: usize = 256;
/// The kernel follows interpreters of interpreters this often, and gives up with `ELOOP`.
const DEEPEST: usize = 5;

/// Waits for nobody at a pipe.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

/// Which file it is, by whatever name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The program that is running now, as long as `/proc` is the host's. `None` where there is no procfs.
    pub(super) fn of_own_executable() -> Option<Self> {
        stat("/proc/self/exe").ok().map(|stat| Self::of(&stat))
    }

    fn of(stat: &Stat) -> Self {
        Self { device: stat.st_dev, inode: stat.st_ino }
    }
}

/// Looks for the command as Docker does and runs it. `last` is done right before the first attempt.
pub(super) fn execute(
    command: &Command,
    own: Option<FileId>,
    last: impl FnOnce() -> Result<(), Failure>,
) -> Failure {
    let mut denied = None;
    let mut last = Some(last);
    for path in &command.candidates {
        let checked = match open(path, READ) {
            // The file is there: whatever is missing is an interpreter.
            Ok(file) => match check_all(file, own) {
                Err(Errno::NOENT) => return Failure::NotFound(path.to_string_lossy().into_owned()),
                Err(errno @ (Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG)) => {
                    return Failure::NotExecutable(errno);
                }
                checked => checked.map(|()| None),
            },
            // A program may be executable and not readable. It is executed by its handle, which scripts cannot be.
            Err(Errno::ACCESS) => {
                open(path, OFlags::PATH).and_then(|file| check(&file, own).map(|()| Some(file)))
            }
            Err(errno) => Err(errno),
        };
        if checked.is_ok()
            && let Some(last) = last.take()
            && let Err(failure) = last()
        {
            return failure;
        }
        let errno = match checked {
            Ok(None) => sys::execve(path, &command.arguments, &command.environment),
            Ok(Some(file)) => match sys::execveat(file.as_fd(), &command.arguments, &command.environment) {
                Errno::NOENT => Errno::ACCESS,
                errno => errno,
            },
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => continue,
            Err(errno) => errno,
        };
        match errno {
            Errno::ACCESS | Errno::PERM => {
                denied.get_or_insert(errno);
            }
            // The file is there, its interpreter is not.
            Errno::NOENT => return Failure::NotFound(path.to_string_lossy().into_owned()),
            errno => return Failure::NotExecutable(errno),
        }
    }
    match denied {
        Some(errno) => Failure::NotExecutable(errno),
        None => Failure::NotFound(command.name.clone()),
    }
}

/// Looks for the command without running it, so that who creates a container learns that there is none. What cannot be
/// told now is left to [`execute`].
pub(super) fn look_for(command: &Command, own: Option<FileId>) -> Result<(), Failure> {
    let mut denied = false;
    for path in &command.candidates {
        match open(path, OFlags::PATH).and_then(|file| check(&file, own)) {
            Ok(()) => match accessat(CWD, path, Access::EXEC_OK, AtFlags::empty()) {
                Err(Errno::ACCESS) => denied = true,
                _ => return Ok(()),
            },
            Err(Errno::ACCESS) => denied = true,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::NAMETOOLONG) => {}
            Err(_) => return Ok(()),
        }
    }
    if denied {
        Err(Failure::NotExecutable(Errno::ACCESS))
    } else {
        Err(Failure::NotFound(command.name.clone()))
    }
}

/// Opens a file by any name but a magic link, which is `EACCES`.
fn open(path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC;
    match openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS) {
        Err(Errno::LOOP) if accessat(CWD, path, Access::EXISTS, AtFlags::empty()) != Err(Errno::LOOP) => {
            Err(Errno::ACCESS)
        }
        // The container's own filter may be older than this call. That the file is not ours is still checked.
        Err(Errno::PERM | Errno::NOSYS) => rustix::fs::open(path, flags, Mode::empty()),
        opened => opened,
    }
}

/// The file itself, then the interpreters it leads to. Whether they may be executed is left to the kernel.
fn check_all(mut file: OwnedFd, own: Option<FileId>) -> Result<(), Errno> {
    for _ in 0..=DEEPEST {
        check(&file, own)?;
        let mut head = [0; HEAD];
        let length = rustix::io::pread(&file, &mut head, 0)?;
        let Some(interpreter) = interpreter(&head[..length]) else { return Ok(()) };
        file = open(&interpreter, READ)?;
    }
    Err(Errno::LOOP)
}

fn check(file: impl AsFd, own: Option<FileId>) -> Result<(), Errno> {
    let stat = fstat(file)?;
    let regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if regular && own != Some(FileId::of(&stat)) { Ok(()) } else { Err(Errno::ACCESS) }
}

/// The interpreter the first line of a script names, read as the kernel reads it.
fn interpreter(head: &[u8]) -> Option<CString> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let mut words = line.split(|byte| matches!(byte, b' ' | b'\t'));
    let name = words.find(|word| !word.is_empty())?.split(|byte| *byte == 0).next()?;
    CString::new(name).ok().filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_the_kernel_does() {
        for (head, name) in [
            ("#!/bin/sh", Some("/bin/sh")),
            ("#!/bin/sh\n/x", Some("/bin/sh")),
            ("#! \t /bin/sh -e x\n", Some("/bin/sh")),
            ("#!sh\t-e", Some("sh")),
            ("#!/bin/sh\0x\n", Some("/bin/sh")),
            ("#!/bin/sh\r\n", Some("/bin/sh\r")),
            ("#!", None),
            ("#! \t\n/bin/sh", None),
            ("#!\0/bin/sh", None),
            (" #!/bin/sh", None),
            ("\x7fELF", None),
            ("", None),
        ] {
            assert_eq!(
                interpreter(head.as_bytes()).as_deref().map(CStr::to_bytes),
                name.map(str::as_bytes),
                "{head:?}"
            );
        }
    }
}
