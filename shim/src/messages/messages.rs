//! The messages, with the field numbers of containerd's `.proto` files: what is read and written here and no more.
//! Fields that are not named are passed over when they come.
//!
//! `containerd.task.v2` and `v3` have the same ones.

pub(crate) mod artifact;
pub(crate) mod events;
pub(crate) mod metrics;
pub(crate) mod sandbox;

use std::collections::HashMap;

use crate::wire::{Message, message};

message! {
    /// `google.protobuf.Any`.
    Any {
        1 type_url: String,
        2 value: Vec<u8>,
    }
}

impl Any {
    /// The type without what stands before it.
    pub(crate) fn kind(&self) -> &str {
        self.type_url.rsplit_once('/').map_or(&self.type_url, |(_, kind)| kind)
    }

    pub(crate) fn of(kind: &str, message: &impl Message) -> Self {
        Self { type_url: kind.to_owned(), value: message.encode_to_vec() }
    }
}

message! {
    /// `google.protobuf.Timestamp`.
    #[derive(Copy)]
    Timestamp {
        1 seconds: i64,
        2 nanos: i32,
    }
}

message! {
    /// `google.protobuf.Empty`.
    #[derive(Copy)]
    Empty {
    }
}

message! {
    /// `ttrpc.Request`.
    Request {
        1 service: String,
        2 method: String,
        3 payload: Vec<u8>,
        4 timeout_nano: i64,
    }
}

message! {
    /// `ttrpc.Response`.
    Response {
        1 status: Option<Status>,
        2 payload: Vec<u8>,
    }
}

message! {
    /// `google.rpc.Status`.
    Status {
        1 code: i32,
        2 message: String,
    }
}

message! {
    /// `containerd.types.Mount`.
    Mount {
        1 kind: String,
        2 source: String,
        3 target: String,
        4 options: Vec<String>,
    }
}

message! {
    CreateTask {
        1 id: String,
        2 bundle: String,
        3 rootfs: Vec<Mount>,
        4 terminal: bool,
        5 stdin: String,
        6 stdout: String,
        7 stderr: String,
        8 checkpoint: String,
        10 options: Option<Any>,
    }
}

message! {
    /// `containerd.task.v2.CheckpointTaskRequest`.
    CheckpointTask {
        1 id: String,
        2 path: String,
        3 options: Option<Any>,
    }
}

message! {
    /// `containerd.runc.v1.CheckpointOptions`.
    CheckpointOptions {
        1 exit: bool,
        2 open_tcp: bool,
        3 external_unix_sockets: bool,
        4 terminal: bool,
        5 file_locks: bool,
        6 empty_namespaces: Vec<String>,
        8 image_path: String,
        9 work_path: String,
    }
}

message! {
    /// What `Create` and `Start` answer.
    #[derive(Copy)]
    Pid {
        1 pid: u32,
    }
}

message! {
    /// What names a process; `Start`, `State`, `Wait`, `Delete`, `CloseIO`, and all requests that name only a container.
    Target {
        1 id: String,
        2 exec_id: String,
    }
}

message! {
    /// What names only a container: the second field of some of these is another one's.
    Id {
        1 id: String,
    }
}

message! {
    /// What `Delete` answers, and the verb of that name.
    #[derive(Copy)]
    Deleted {
        1 pid: u32,
        2 exit_status: u32,
        3 exited_at: Option<Timestamp>,
    }
}

message! {
    ExecProcess {
        1 id: String,
        2 exec_id: String,
        3 terminal: bool,
        4 stdin: String,
        5 stdout: String,
        6 stderr: String,
        7 spec: Option<Any>,
    }
}

message! {
    ResizePty {
        1 id: String,
        2 exec_id: String,
        3 width: u32,
        4 height: u32,
    }
}

message! {
    /// What `State` answers.
    State {
        1 id: String,
        2 bundle: String,
        3 pid: u32,
        /// 1 created, 2 running, 3 stopped, 4 paused.
        4 status: i32,
        5 stdin: String,
        6 stdout: String,
        7 stderr: String,
        8 terminal: bool,
        9 exit_status: u32,
        10 exited_at: Option<Timestamp>,
        11 exec_id: String,
    }
}

message! {
    Kill {
        1 id: String,
        2 exec_id: String,
        3 signal: u32,
        4 all: bool,
    }
}

message! {
    CloseIo {
        1 id: String,
        2 exec_id: String,
        3 stdin: bool,
    }
}

message! {
    /// What `Pids` answers.
    Pids {
        1 processes: Vec<ProcessInfo>,
    }
}

message! {
    ProcessInfo {
        1 pid: u32,
        2 info: Option<Any>,
    }
}

message! {
    /// `containerd.runc.v1.ProcessDetails`.
    ProcessDetails {
        1 exec_id: String,
    }
}

message! {
    UpdateTask {
        1 id: String,
        2 resources: Option<Any>,
    }
}

message! {
    /// What `Wait` answers.
    #[derive(Copy)]
    Waited {
        1 exit_status: u32,
        2 exited_at: Option<Timestamp>,
    }
}

message! {
    /// What `Stats` answers.
    Stats {
        1 stats: Option<Any>,
    }
}

message! {
    /// What `Connect` answers.
    Connected {
        1 shim_pid: u32,
        2 task_pid: u32,
        3 version: String,
    }
}

message! {
    /// `containerd.runc.v1.Options`, as Docker, nerdctl and `ctr --runc-...` send them.
    RuncOptions {
        1 no_pivot_root: bool,
        2 no_new_keyring: bool,
        3 shim_cgroup: String,
        9 systemd_cgroup: bool,
    }
}

message! {
    /// `runtimeoptions.v1.Options`, as the CRI plugin sends them.
    RuntimeOptions {
        1 type_url: String,
        2 config_path: String,
        3 config_body: Vec<u8>,
    }
}

message! {
    /// `containerd.runtime.bootstrap.v1.BootstrapParams`.
    BootstrapParams {
        1 instance_id: String,
        2 namespace: String,
        5 containerd_ttrpc_address: String,
        9 socket_dir: Option<String>,
    }
}

message! {
    /// `containerd.runtime.bootstrap.v1.BootstrapResult`.
    BootstrapResult {
        1 version: i32,
        2 address: String,
        3 protocol: String,
    }
}

message! {
    /// `containerd.types.RuntimeInfo`, for `-info`.
    RuntimeInfo {
        1 name: String,
        2 version: Option<RuntimeVersion>,
        4 features: Option<Any>,
        5 annotations: HashMap<String, String>,
    }
}

message! {
    RuntimeVersion {
        1 version: String,
        2 revision: String,
    }
}
