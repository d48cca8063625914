//! `containerd.runtime.sandbox.v1`, for pods without a pause container (containerd 2, `sandboxer = "shim"`).

use std::collections::HashMap;

use crate::wire::message;

use super::{Any, Timestamp};

message! {
    CreateSandbox {
        1 sandbox_id: String,
        2 bundle_path: String,
        4 options: Option<Any>,
        5 netns_path: String,
    }
}

message! {
    /// Kubernetes' `runtime.v1.PodSandboxConfig`, as the CRI plugin passes it on: what it says of a pod as a whole.
    PodConfig {
        2 hostname: String,
        4 dns: Option<Dns>,
        8 linux: Option<LinuxPod>,
    }
}

message! {
    Dns {
        1 servers: Vec<String>,
        2 searches: Vec<String>,
        3 options: Vec<String>,
    }
}

message! {
    LinuxPod {
        1 cgroup_parent: String,
        2 security: Option<PodSecurity>,
        3 sysctls: HashMap<String, String>,
    }
}

message! {
    PodSecurity {
        1 namespaces: Option<PodNamespaces>,
    }
}

message! {
    /// Of each kind: the pod's (0), each container's own (1), or the node's (2).
    PodNamespaces {
        1 network: i32,
        2 pid: i32,
        3 ipc: i32,
        5 users: Option<PodUsers>,
    }
}

message! {
    /// A user namespace: the pod's own (0), or the node's (2).
    PodUsers {
        1 mode: i32,
    }
}

message! {
    /// What `StartSandbox` answers.
    SandboxStarted {
        1 pid: u32,
        2 created_at: Option<Timestamp>,
    }
}

message! {
    /// What `Platform` answers.
    PlatformAnswer {
        1 platform: Option<Platform>,
    }
}

message! {
    /// `containerd.types.Platform`.
    Platform {
        1 os: String,
        2 architecture: String,
    }
}

message! {
    /// What `SandboxStatus` answers.
    SandboxStatus {
        1 sandbox_id: String,
        2 pid: u32,
        /// `SANDBOX_READY` or `SANDBOX_NOTREADY`.
        3 state: String,
        4 info: HashMap<String, String>,
        5 created_at: Option<Timestamp>,
        6 exited_at: Option<Timestamp>,
    }
}

message! {
    /// What `SandboxMetrics` answers.
    SandboxMetrics {
        1 metrics: Option<Metric>,
    }
}

message! {
    /// `containerd.types.Metric`.
    Metric {
        1 timestamp: Option<Timestamp>,
        2 id: String,
        3 data: Option<Any>,
    }
}
