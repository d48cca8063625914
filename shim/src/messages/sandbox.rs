//! `containerd.runtime.sandbox.v1`, for pods without a pause container (containerd 2, `sandboxer = "shim"`).

use std::collections::HashMap;

use crate::wire::message;

use super::{Any, Timestamp};

message! {
    CreateSandbox {
        1 sandbox_id: String,
        2 bundle_path: String,
        5 netns_path: String,
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
