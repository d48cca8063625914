//! WASI 0.2's error codes, and what each of ours becomes: the only place where that is decided.

use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::types::ErrorCode;

use super::super::union::Errno;

impl From<Errno> for FsError {
    fn from(errno: Errno) -> Self {
        code(errno).into()
    }
}

pub(super) fn code(errno: Errno) -> ErrorCode {
    match errno {
        Errno::Access => ErrorCode::Access,
        Errno::Again => ErrorCode::WouldBlock,
        Errno::BadFd => ErrorCode::BadDescriptor,
        Errno::Busy => ErrorCode::Busy,
        Errno::CrossDevice => ErrorCode::CrossDevice,
        Errno::Exists => ErrorCode::Exist,
        Errno::FileTooBig => ErrorCode::FileTooLarge,
        Errno::IllegalSequence => ErrorCode::IllegalByteSequence,
        Errno::Interrupted => ErrorCode::Interrupted,
        Errno::Invalid => ErrorCode::Invalid,
        Errno::Io => ErrorCode::Io,
        // The nearest that there is to a full table of descriptors.
        Errno::TooManyFiles => ErrorCode::Quota,
        Errno::IsDir => ErrorCode::IsDirectory,
        Errno::Loop => ErrorCode::Loop,
        Errno::NameTooLong => ErrorCode::NameTooLong,
        Errno::NoMemory => ErrorCode::InsufficientMemory,
        Errno::NoSpace => ErrorCode::InsufficientSpace,
        Errno::NotDir => ErrorCode::NotDirectory,
        Errno::NotEmpty => ErrorCode::NotEmpty,
        Errno::NotFound => ErrorCode::NoEntry,
        Errno::NotPermitted => ErrorCode::NotPermitted,
        Errno::NotSeekable => ErrorCode::InvalidSeek,
        Errno::NotSupported => ErrorCode::Unsupported,
        Errno::Overflow => ErrorCode::Overflow,
        Errno::Pipe => ErrorCode::Pipe,
        Errno::ReadOnly => ErrorCode::ReadOnly,
        Errno::TooManyLinks => ErrorCode::TooManyLinks,
    }
}
