//! What can go wrong with a task. Messages are lower case, without a full stop, and name what failed.
//!
//! Callers map these once each: the command to exit codes, the engine to HTTP status, the shim to ttrpc codes.

use std::path::PathBuf;

/// This crate's result.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a verb on a task failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bundle contradicts itself or the specification.
    #[error("invalid {field}: {reason}")]
    InvalidSpec {
        /// The specification's field, for example `process.cwd`.
        field: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// The program is not in the container's file system.
    #[error("exec: \"{command}\": {}", if command.contains('/') { "no such file or directory" } else { "executable file not found in $PATH" })]
    CommandNotFound {
        /// As given in `process.args[0]`.
        command: String,
    },
    /// The program is there and cannot be executed.
    #[error("exec: \"{command}\": {reason}")]
    CommandNotExecutable {
        /// As given in `process.args[0]`.
        command: String,
        /// For example `permission denied`, `exec format error`.
        reason: String,
    },
    /// The file is no Wasm module or component that this build can run.
    #[error("{path}: {reason}")]
    InvalidModule {
        /// The file, as the user knows it.
        path: String,
        /// What the compiler or linker found.
        reason: String,
    },
    /// The function that was asked for is not there, or cannot be called like that.
    #[error("{path}: cannot call {function}: {reason}")]
    CannotInvoke {
        /// The program, as the user knows it.
        path: String,
        /// The function's name.
        function: String,
        /// Which functions there are, or what is wrong with the arguments.
        reason: String,
    },
    /// A hook of the specification has failed.
    #[error("{why}")]
    Hook {
        /// Which one, and what it has said.
        why: String,
    },
    /// A system call failed while the sandbox was set up.
    #[error("cannot {action}: {source}")]
    Setup {
        /// What was attempted and on what, for example `mount overlay at /var/lib/...`.
        action: String,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// A file operation failed; the message names the path.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The operating system's answer.
        source: std::io::Error,
    },
    /// This host does not allow or offer what is needed.
    #[error("{what}")]
    Host {
        /// What is missing.
        what: String,
        /// What the user can do.
        hint: String,
    },
    /// The executor does not have this verb.
    #[error("the {executor} executor cannot {verb}")]
    Unsupported {
        /// The verb, for example `pause`.
        verb: &'static str,
        /// `wasm` or `native`.
        executor: &'static str,
    },
    /// The task has ended already.
    #[error("task {id} is not running")]
    NotRunning {
        /// The container's id.
        id: String,
    },
}
