//! WASI 0.1's error numbers, and what each of ours becomes: the only place where that is decided.

use super::super::union::Errno;

/// An `errno` of WASI 0.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) u16);

/// What a host function answers.
pub(super) type Answer = Result<(), Code>;

impl Code {
    pub(super) const AGAIN: Self = Self(6);
    pub(super) const BADF: Self = Self(8);
    pub(super) const FAULT: Self = Self(21);
    pub(super) const ILSEQ: Self = Self(25);
    pub(super) const INVAL: Self = Self(28);
    pub(super) const IO: Self = Self(29);
    pub(super) const ISDIR: Self = Self(31);
    pub(super) const MFILE: Self = Self(33);
    pub(super) const NAMETOOLONG: Self = Self(37);
    pub(super) const NOTCONN: Self = Self(53);
    pub(super) const NOTDIR: Self = Self(54);
    pub(super) const NOTSOCK: Self = Self(57);
    pub(super) const NOTSUP: Self = Self(58);
    pub(super) const OVERFLOW: Self = Self(61);
    pub(super) const PERM: Self = Self(63);
    pub(super) const SPIPE: Self = Self(70);
}

impl From<Errno> for Code {
    fn from(errno: Errno) -> Self {
        Self(match errno {
            Errno::Access => 2,
            Errno::Again => 6,
            Errno::BadFd => 8,
            Errno::Busy => 10,
            Errno::CrossDevice => 75,
            Errno::Exists => 20,
            Errno::FileTooBig => 22,
            Errno::IllegalSequence => 25,
            Errno::Interrupted => 27,
            Errno::Invalid => 28,
            Errno::Io => 29,
            Errno::IsDir => 31,
            Errno::Loop => 32,
            Errno::NameTooLong => 37,
            Errno::NoMemory => 48,
            Errno::NoSpace => 51,
            Errno::NotDir => 54,
            Errno::NotEmpty => 55,
            Errno::NotFound => 44,
            Errno::NotPermitted => 63,
            Errno::NotSeekable => 70,
            Errno::NotSupported => 58,
            Errno::Overflow => 61,
            Errno::Pipe => 64,
            Errno::ReadOnly => 69,
            Errno::TooManyFiles => 33,
            Errno::TooManyLinks => 34,
        })
    }
}

impl From<std::io::Error> for Code {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind;
        match error.kind() {
            // What only sockets say.
            ErrorKind::ConnectionAborted => Self(13),
            ErrorKind::ConnectionReset => Self(15),
            ErrorKind::NotConnected => Self::NOTCONN,
            ErrorKind::TimedOut => Self(73),
            _ => Errno::from(error).into(),
        }
    }
}
