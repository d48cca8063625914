//! What can go wrong with a container of the OCI runtime, in the words that callers of runtimes look for.
//!
//! containerd and CRI-O read `does not exist`, `container not running` and `no such process` as "it is gone already";
//! Podman and Docker read `executable file not found`, `no such file or directory` and `permission denied`.

use std::path::PathBuf;

/// This module's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another container has this id.
    #[error("container with given ID already exists: {0}")]
    Exists(String),
    /// No name for a folder.
    #[error("invalid container ID format: {0:?}")]
    InvalidId(String),
    /// There is none.
    #[error("container {0} does not exist")]
    NotExist(String),
    /// Its first process has ended.
    #[error("container not running: {0}")]
    NotRunning(String),
    /// It is paused.
    #[error("container paused: {0}")]
    Paused(String),
    /// It is not.
    #[error("container not paused: {0}")]
    NotPaused(String),
    /// It still runs.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    StillRunning {
        /// The container.
        id: String,
        /// Its state.
        status: &'static str,
    },
    /// It was started before.
    #[error("cannot start an already running container: {0}")]
    AlreadyRunning(String),
    /// It has ended without having run, or after.
    #[error("cannot start a container that has stopped: {0}")]
    AlreadyStopped(String),
    /// The bundle has no readable specification.
    #[error("{}: {reason}", path.display())]
    Bundle {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What was asked for contradicts itself.
    #[error("{0}")]
    Invalid(String),
    /// Setting it up failed.
    #[error("unable to start container process: {0}")]
    Start(#[source] crate::Error),
    /// Anything else of the executors.
    #[error(transparent)]
    Runtime(#[from] crate::Error),
    /// A file of the state folder.
    #[error("{action}: {source}")]
    System {
        /// What was attempted.
        action: String,
        /// The answer.
        source: std::io::Error,
    },
}

impl Error {
    /// Adds what was attempted to the system's answer.
    pub(crate) fn of<E: Into<std::io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        let action = action.into();
        move |source| Self::System { action, source: source.into() }
    }
}
