//! What containerd is told about containers, and how that is put on its way.

use crate::wire::message;

use super::{Any, Mount, Timestamp};

message! {
    /// `containerd.services.events.ttrpc.v1.ForwardRequest`.
    Forward {
        1 envelope: Option<Envelope>,
    }
}

message! {
    /// `containerd.types.Envelope`.
    Envelope {
        1 timestamp: Option<Timestamp>,
        2 namespace: String,
        3 topic: String,
        4 event: Option<Any>,
    }
}

message! {
    TaskCreate {
        1 container_id: String,
        2 bundle: String,
        3 rootfs: Vec<Mount>,
        4 io: Option<TaskIo>,
        6 pid: u32,
    }
}

message! {
    TaskIo {
        1 stdin: String,
        2 stdout: String,
        3 stderr: String,
        4 terminal: bool,
    }
}

message! {
    TaskStart {
        1 container_id: String,
        2 pid: u32,
    }
}

message! {
    TaskExit {
        1 container_id: String,
        2 id: String,
        3 pid: u32,
        4 exit_status: u32,
        5 exited_at: Option<Timestamp>,
    }
}

message! {
    TaskDelete {
        1 container_id: String,
        2 pid: u32,
        3 exit_status: u32,
        4 exited_at: Option<Timestamp>,
        5 id: String,
    }
}

message! {
    /// `TaskOOM`, `TaskPaused`, `TaskResumed`.
    TaskWord {
        1 container_id: String,
    }
}

message! {
    /// `TaskExecAdded` and, with a number, `TaskExecStarted`.
    TaskExec {
        1 container_id: String,
        2 exec_id: String,
        3 pid: u32,
    }
}

message! {
    /// `TaskCheckpointed`.
    TaskCheckpointed {
        1 container_id: String,
        2 checkpoint: String,
    }
}
