//! What is written down about a container, and what others are shown of it.
//!
//! `state.json` has a shape of its own; the specification's state, which hooks and the command line show, is made of it.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What `create` writes down.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Saved {
    /// `ociVersion` of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Its first process as the host counts; 0 until there is one.
    pub pid: u32,
    /// When that was started, in clock ticks since boot.
    pub started: u64,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The root file system's.
    pub rootfs: PathBuf,
    /// When it was created, as of RFC 3339.
    pub created: String,
    /// The specification's annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<HashMap<String, String>>,
    /// Control groups: the controller (empty for version 2) and the folder.
    pub cgroup_paths: BTreeMap<String, PathBuf>,
    /// `linux.cgroupsPath`, and whether systemd keeps the groups: written down before there are any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wanted_group: Option<PathBuf>,
    /// See above.
    pub systemd: bool,
    /// `process.args[0]`, for messages.
    pub command: String,
    /// Its program is Wasm.
    pub wasm: bool,
    /// Its program is no file of the root file system: it was given beside it when the container was made.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub bare: bool,
    /// Its process namespace ends with its first process.
    pub own_processes: bool,
    /// Has hooks for after the start.
    pub poststart: bool,
    /// Has hooks for after the end.
    pub poststop: bool,
}

/// The specification's states, and runc's `paused`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It is being set up.
    Creating,
    /// It waits to be started.
    Created,
    /// The program runs.
    Running,
    /// The program stands still.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl Status {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// The state as runc's `state` and `list` show it: the specification's with three more fields.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// Version of the specification.
    pub oci_version: String,
    /// The container's id.
    pub id: String,
    /// Its first process; 0 when it has ended.
    pub pid: u32,
    /// See [`Status::name`].
    pub status: &'static str,
    /// The bundle's folder.
    pub bundle: PathBuf,
    /// The root file system's.
    pub rootfs: PathBuf,
    /// When it was created.
    pub created: String,
    /// The specification's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<BTreeMap<String, String>>,
    /// Who owns the container's folder, in lists.
    pub owner: String,
}

impl Saved {
    /// As others are shown it.
    pub fn shown(&self, status: Status, owner: String) -> Shown {
        let annotations = self.annotations.as_ref().filter(|all| !all.is_empty());
        Shown {
            oci_version: self.oci_version.clone(),
            id: self.id.clone(),
            pid: if status == Status::Stopped { 0 } else { self.pid },
            status: status.name(),
            bundle: self.bundle.clone(),
            rootfs: self.rootfs.clone(),
            created: self.created.clone(),
            annotations: annotations.map(|all| all.clone().into_iter().collect()),
            owner,
        }
    }
}
