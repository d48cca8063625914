//! Why a file operation failed, in the words POSIX and WASI share. Each host maps these to its own numbers in one
//! place (`p1/errno.rs`, `p2/errno.rs`); nothing here knows WASI.

use std::io;

/// A file operation's result.
pub(crate) type Result<T> = std::result::Result<T, Errno>;

/// POSIX error names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Errno {
    Access,
    Again,
    BadFd,
    Busy,
    CrossDevice,
    Exists,
    FileTooBig,
    IllegalSequence,
    Interrupted,
    Invalid,
    Io,
    IsDir,
    Loop,
    NameTooLong,
    NoMemory,
    NoSpace,
    NotDir,
    NotEmpty,
    NotFound,
    NotPermitted,
    NotSeekable,
    NotSupported,
    Overflow,
    Pipe,
    ReadOnly,
    TooManyFiles,
    TooManyLinks,
}

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        #[cfg(unix)]
        if let Some(errno) = error.raw_os_error().and_then(from_raw) {
            return errno;
        }
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::NotFound => Self::NotFound,
            Kind::PermissionDenied => Self::Access,
            Kind::AlreadyExists => Self::Exists,
            Kind::WouldBlock => Self::Again,
            Kind::NotADirectory => Self::NotDir,
            Kind::IsADirectory => Self::IsDir,
            Kind::DirectoryNotEmpty => Self::NotEmpty,
            Kind::ReadOnlyFilesystem => Self::ReadOnly,
            Kind::InvalidInput => Self::Invalid,
            Kind::InvalidFilename => Self::NameTooLong,
            Kind::StorageFull | Kind::QuotaExceeded => Self::NoSpace,
            Kind::FileTooLarge => Self::FileTooBig,
            Kind::ResourceBusy => Self::Busy,
            Kind::CrossesDevices => Self::CrossDevice,
            Kind::TooManyLinks => Self::TooManyLinks,
            Kind::NotSeekable => Self::NotSeekable,
            Kind::BrokenPipe => Self::Pipe,
            Kind::Interrupted => Self::Interrupted,
            Kind::Unsupported => Self::NotSupported,
            Kind::OutOfMemory => Self::NoMemory,
            _ => Self::Io,
        }
    }
}

#[cfg(unix)]
impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        from_raw(error.raw_os_error()).unwrap_or(Self::Io)
    }
}

/// The operating system's number, where it has a name here.
#[cfg(unix)]
fn from_raw(raw: i32) -> Option<Errno> {
    use rustix::io::Errno as Os;
    Some(match Os::from_raw_os_error(raw) {
        Os::ACCESS => Errno::Access,
        Os::AGAIN => Errno::Again,
        Os::BADF => Errno::BadFd,
        Os::BUSY => Errno::Busy,
        Os::XDEV => Errno::CrossDevice,
        Os::EXIST => Errno::Exists,
        Os::FBIG => Errno::FileTooBig,
        Os::ILSEQ => Errno::IllegalSequence,
        Os::INTR => Errno::Interrupted,
        Os::INVAL => Errno::Invalid,
        Os::ISDIR => Errno::IsDir,
        Os::LOOP => Errno::Loop,
        Os::NAMETOOLONG => Errno::NameTooLong,
        Os::NOMEM => Errno::NoMemory,
        Os::NOSPC | Os::DQUOT => Errno::NoSpace,
        Os::NOTDIR => Errno::NotDir,
        Os::NOTEMPTY => Errno::NotEmpty,
        Os::NOENT => Errno::NotFound,
        Os::PERM => Errno::NotPermitted,
        Os::SPIPE => Errno::NotSeekable,
        Os::NOTSUP | Os::NOSYS => Errno::NotSupported,
        Os::OVERFLOW => Errno::Overflow,
        Os::PIPE => Errno::Pipe,
        Os::ROFS => Errno::ReadOnly,
        Os::MFILE | Os::NFILE => Errno::TooManyFiles,
        Os::MLINK => Errno::TooManyLinks,
        _ => return None,
    })
}
