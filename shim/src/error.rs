//! What can go wrong, as ttrpc's status codes: one place for all.
//!
//! containerd takes "not found" as "it is gone already", and tells its clients the text.

use dhow_runtime::oci;

/// gRPC's codes, those that are used here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Unknown = 2,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Unimplemented = 12,
}

impl Code {
    /// The code of this number.
    pub(crate) fn from_number(number: u8) -> Self {
        let known = [
            Self::InvalidArgument,
            Self::NotFound,
            Self::AlreadyExists,
            Self::ResourceExhausted,
            Self::FailedPrecondition,
            Self::Unimplemented,
        ];
        known.into_iter().find(|code| *code as u8 == number).unwrap_or(Self::Unknown)
    }
}

/// Why a request was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub(crate) struct Failure {
    pub(crate) code: Code,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// What the system said to an attempt.
    pub(crate) fn of<E: std::fmt::Display>(action: impl std::fmt::Display) -> impl Fn(E) -> Self {
        move |error| Self::new(Code::Unknown, format!("cannot {action}: {error}"))
    }
}

impl From<oci::Error> for Failure {
    fn from(error: oci::Error) -> Self {
        let code = match &error {
            oci::Error::Exists(_) => Code::AlreadyExists,
            oci::Error::NotExist(_) | oci::Error::NotRunning(_) => Code::NotFound,
            oci::Error::InvalidId(_) | oci::Error::Bundle { .. } => Code::InvalidArgument,
            oci::Error::AlreadyRunning(_)
            | oci::Error::AlreadyStopped(_)
            | oci::Error::StillRunning { .. }
            | oci::Error::Paused(_)
            | oci::Error::NotPaused(_) => Code::FailedPrecondition,
            _ => Code::Unknown,
        };
        Self::new(code, error.to_string())
    }
}

impl From<dhow_runtime::Error> for Failure {
    fn from(error: dhow_runtime::Error) -> Self {
        let code = match &error {
            dhow_runtime::Error::NotRunning { .. } => Code::NotFound,
            dhow_runtime::Error::InvalidSpec { .. } => Code::InvalidArgument,
            dhow_runtime::Error::Unsupported { .. } => Code::Unimplemented,
            _ => Code::Unknown,
        };
        Self::new(code, error.to_string())
    }
}
