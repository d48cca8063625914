//! What can go wrong with a container or image, in Docker's words where Docker has words for it.

use std::path::PathBuf;

/// This crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an engine operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// From the image store or a registry.
    #[error(transparent)]
    Images(#[from] dhow_images::Error),
    /// From the executors.
    #[error(transparent)]
    Runtime(#[from] dhow_runtime::Error),
    /// No container has this name or id.
    #[error("No such container: {0}")]
    NoSuchContainer(String),
    /// There is no file of this name.
    #[error("no such Wasm file: {}", .0.display())]
    NoSuchModule(PathBuf),
    /// No volume has this name.
    #[error("get {0}: no such volume")]
    NoSuchVolume(String),
    /// The volume is needed by containers.
    #[error("remove {name}: volume is in use - [{}]", users.join(", "))]
    VolumeInUse {
        /// The volume.
        name: String,
        /// Ids of the containers.
        users: Vec<String>,
    },
    /// No network has this name or id.
    #[error("network {0} not found")]
    NoSuchNetwork(String),
    /// Containers are connected to the network.
    #[error("error while removing network: network {name} id {id} has active endpoints")]
    NetworkInUse {
        /// The network.
        name: String,
        /// Its id.
        id: String,
        /// Ids of the containers.
        containers: Vec<String>,
    },
    /// The kernel refused a step of the network's work.
    #[error("cannot {action}: {source}")]
    Network {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// There is nothing at this path; with the container's name if it is one of a container's.
    #[error("no such file or directory: {0}")]
    NoSuchPath(String),
    /// Neither a container nor an image has this name.
    #[error("No such object: {0}")]
    NoSuchObject(String),
    /// A short id fits several containers.
    #[error("Multiple IDs found with provided prefix: {0}")]
    AmbiguousId(String),
    /// The name belongs to another container.
    #[error("Conflict. The container name \"/{name}\" is already in use by container \"{owner}\"")]
    NameInUse {
        /// The wanted name.
        name: String,
        /// The id of the container that has it.
        owner: String,
    },
    /// The container must not run for this.
    #[error("cannot remove container \"/{0}\": container is running")]
    Running(String),
    /// The container must not be paused for this.
    #[error("cannot remove container \"/{0}\": container is paused and must be unpaused first")]
    PausedNotRemoved(String),
    /// The image is needed by a container.
    #[error(
        "conflict: unable to remove repository reference \"{image}\" ({how}) - container {container} is using its referenced image {id}"
    )]
    ImageInUse {
        /// As the user named it.
        image: String,
        /// `must force`, or why force does not help.
        how: &'static str,
        /// The container's short id.
        container: String,
        /// The image's short id.
        id: String,
    },
    /// A value the user gave is not valid; the whole sentence.
    #[error("{0}")]
    Invalid(String),
    /// A build failed, in the Dockerfile or in one of its steps.
    #[error("{}", .0.message)]
    Build(Box<crate::build::Failure>),
    /// The option exists in Docker and not yet here.
    #[error("{what} is not supported yet")]
    NotYet {
        /// For example `network mode "bridge"`.
        what: String,
        /// What works instead.
        hint: String,
    },
    /// A file operation failed; the message names the path.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A record on disk is not what we wrote.
    #[error("{}: damaged record: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        reason: String,
    },
    /// The settings file is not valid.
    #[error("{}: {reason}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The container does not run, and would have to for this.
    #[error("container {id} is not running")]
    NotRunning {
        /// Its id.
        id: String,
    },
    /// As [`Error::NotRunning`], for `kill`.
    #[error("cannot kill container: {name}: container {id} is not running")]
    NotKilled {
        /// Its name.
        name: String,
        /// Its id.
        id: String,
    },
    /// The container is paused, and must not be for this.
    #[error("Container {name} is paused, unpause the container before {what}")]
    Paused {
        /// Its name.
        name: String,
        /// For example `exec`.
        what: &'static str,
    },
    /// The container has ended and is about to be started again.
    #[error("Container {id} is restarting, wait until the container is running")]
    Restarting {
        /// Its id.
        id: String,
    },
    /// The same, for who wants to remove it.
    #[error(
        "cannot remove container \"/{0}\": container is restarting: stop the container before removing or force remove"
    )]
    RestartingNotRemoved(String),
    /// The container was started with `--rm` in the foreground of a command, which has its streams.
    #[error(
        "container {name} {what}: it runs in the foreground of another command, and is removed when it ends"
    )]
    Foreground {
        /// Its name.
        name: String,
        /// For example `has no log`.
        what: &'static str,
    },
    /// The process that kept the container is gone.
    #[error("the monitor of container {id} ended without a word")]
    MonitorLost {
        /// The container.
        id: String,
    },
    /// The monitor could not start the container; already in words.
    #[error("{message}")]
    Start {
        /// The whole sentence.
        message: String,
        /// What the user can do.
        hint: Option<String>,
        /// 125, 126 or 127 as Docker uses them.
        code: u8,
    },
}

impl Error {
    /// What needs processes beside each other, which are not there on systems other than Linux yet.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn elsewhere(what: &str) -> Self {
        Self::NotYet {
            what: format!("{what} on this system"),
            hint: "end it where it was started, with Ctrl-C".to_owned(),
        }
    }

    /// What the user can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Images(error) => error.hint(),
            Self::Runtime(error) => runtime_hint(error),
            Self::Build(failure) => failure.hint.clone(),
            Self::NoSuchContainer(_) => Some("`dhow ps -a` lists all containers".to_owned()),
            Self::NoSuchVolume(_) => Some("`dhow volume ls` lists all volumes".to_owned()),
            Self::VolumeInUse { .. } => Some("remove the containers first".to_owned()),
            Self::NoSuchNetwork(_) => Some("`dhow network ls` lists all networks".to_owned()),
            Self::NetworkInUse { containers, .. } => {
                let ids: Vec<_> = containers.iter().map(|id| short(id)).collect();
                Some(format!("stop the containers first: {}", ids.join(", ")))
            }
            Self::Network { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => Some(
                "`--network host` and `--network none` need nothing of the kernel".to_owned(),
            ),
            Self::Network { .. } => Some(
                "the kernel needs bridges, veth and nftables (modules bridge, veth, nf_tables, nft_nat, nft_fib, nft_masq)"
                    .to_owned(),
            ),
            Self::NoSuchModule(_) => {
                Some("a name with a path in it is a file; leave the path out for an image".to_owned())
            }
            Self::NameInUse { owner, .. } => {
                Some(format!("remove it with `dhow rm {}`, or use another name", short(owner)))
            }
            Self::PausedNotRemoved(name) => Some(format!(
                "`dhow unpause {name}` lets it go on, `dhow rm -f {name}` removes it all the same"
            )),
            Self::NotRunning { id } | Self::NotKilled { id, .. } => {
                Some(format!("start it with `dhow start {}`", short(id)))
            }
            Self::Paused { name, .. } => Some(format!("`dhow unpause {name}` lets it go on")),
            Self::Foreground { .. } => {
                Some("start it with `-d`, or without `--rm`, to look at it from elsewhere".to_owned())
            }
            Self::Restarting { id } => Some(format!("`dhow logs {}` says why it ends", short(id))),
            Self::RestartingNotRemoved(name) => Some(format!(
                "`dhow stop {name}` ends that, `dhow rm -f {name}` removes it all the same"
            )),
            Self::Running(name) => Some(format!("stop it first, or force it with `dhow rm -f {name}`")),
            Self::ImageInUse { .. } => {
                Some("remove the container first, or force it with `dhow rmi -f`".to_owned())
            }
            Self::NotYet { hint, .. } => Some(hint.clone()),
            Self::Start { hint, .. } => hint.clone(),
            Self::Io(error) if error.kind() == std::io::ErrorKind::StorageFull => Some(DISK_FULL.to_owned()),
            Self::Io(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("use a folder of your own: `--root DIR` or DHOW_ROOT".to_owned())
            }
            Self::Damaged { .. } => Some("`dhow system check --repair` removes damaged records".to_owned()),
            Self::Settings { .. } => Some("docs/settings.md lists every key of this file".to_owned()),
            _ => None,
        }
    }

    /// Docker's exit code of `run` for this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Runtime(dhow_runtime::Error::CommandNotFound { .. }) | Self::NoSuchModule(_) => 127,
            Self::Runtime(
                dhow_runtime::Error::CommandNotExecutable { .. }
                | dhow_runtime::Error::InvalidModule { .. }
                | dhow_runtime::Error::CannotInvoke { .. },
            ) => 126,
            Self::Start { code, .. } => *code,
            _ => 125,
        }
    }
}

const DISK_FULL: &str = "free some space, or use another folder with `--root DIR`";

fn runtime_hint(error: &dhow_runtime::Error) -> Option<String> {
    use dhow_runtime::Error as Runtime;
    let hint = match error {
        Runtime::CommandNotFound { .. } => {
            "see what the image offers with `dhow inspect`, or name the full path"
        }
        Runtime::CommandNotExecutable { .. } => {
            "the file needs execute permission and must be built for this machine"
        }
        Runtime::CannotInvoke { .. } => {
            "name one of the functions with `--invoke FUNCTION`, and its arguments after the image or file"
        }
        Runtime::InvalidModule { .. } => {
            "a Wasm module or component is expected: built for wasm32-wasip1 or wasm32-wasip2"
        }
        Runtime::Host { hint, .. } => return Some(hint.clone()),
        Runtime::Setup { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "this host may forbid user namespaces: see sysctl kernel.unprivileged_userns_clone and user.max_user_namespaces"
        }
        Runtime::Setup { source, .. } | Runtime::Io { source, .. }
            if source.kind() == std::io::ErrorKind::StorageFull =>
        {
            DISK_FULL
        }
        _ => return None,
    };
    Some(hint.to_owned())
}

/// The first twelve characters of an id, as Docker shows ids.
pub fn short(id: &str) -> &str {
    let id = id.strip_prefix("sha256:").unwrap_or(id);
    id.get(..12).unwrap_or(id)
}
