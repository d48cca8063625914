//! The words of the CRI API that are used here, with its field numbers.

use std::collections::HashMap;

use crate::wire::message;

message! {
    PodName {
        1 name: String,
        2 uid: String,
        3 namespace: String,
        4 attempt: u32,
    }
}
message! {
    LinuxPod {
        1 cgroup_parent: String,
    }
}
message! {
    PodConfig {
        1 metadata: Option<PodName>,
        2 hostname: String,
        3 log_directory: String,
        8 linux: Option<LinuxPod>,
    }
}
message! {
    RunPod {
        1 config: Option<PodConfig>,
        2 runtime_handler: String,
    }
}
message! {
    /// Every request and answer that is a name and no more.
    Name {
        1 id: String,
    }
}
message! {
    ContainerName {
        1 name: String,
        2 attempt: u32,
    }
}
message! {
    ImageName {
        1 image: String,
    }
}
message! {
    Volume {
        1 container_path: String,
        2 host_path: String,
    }
}
message! {
    ContainerConfig {
        1 metadata: Option<ContainerName>,
        2 image: Option<ImageName>,
        3 command: Vec<String>,
        7 mounts: Vec<Volume>,
        11 log_path: String,
        12 stdin: bool,
    }
}
message! {
    CreateContainer {
        1 pod: String,
        2 config: Option<ContainerConfig>,
        3 pod_config: Option<PodConfig>,
    }
}
message! {
    Ask {
        1 id: String,
        2 verbose: bool,
    }
}
message! {
    Stop {
        1 id: String,
        2 timeout: i64,
    }
}
message! {
    ContainerStatus {
        3 state: i32,
        7 exit_code: i32,
    }
}
message! {
    ContainerAnswer {
        1 status: Option<ContainerStatus>,
        2 info: HashMap<String, String>,
    }
}
message! {
    PodNetwork {
        1 ip: String,
    }
}
message! {
    PodStatus {
        3 state: i32,
        5 network: Option<PodNetwork>,
    }
}
message! {
    PodAnswer {
        1 status: Option<PodStatus>,
    }
}
message! {
    ExecSync {
        1 id: String,
        2 command: Vec<String>,
        3 timeout: i64,
    }
}
message! {
    Executed {
        1 stdout: Vec<u8>,
        2 stderr: Vec<u8>,
        3 exit_code: i32,
    }
}
message! {
    Exec {
        1 id: String,
        2 command: Vec<String>,
        3 tty: bool,
        4 stdin: bool,
        5 stdout: bool,
        6 stderr: bool,
    }
}
message! {
    Attach {
        1 id: String,
        2 stdin: bool,
        3 tty: bool,
        4 stdout: bool,
        5 stderr: bool,
    }
}
message! {
    Forward {
        1 id: String,
        2 ports: Vec<u64>,
    }
}
message! {
    Url {
        1 url: String,
    }
}
message! {
    Amount {
        1 value: u64,
    }
}
message! {
    Use {
        1 timestamp: i64,
        2 value: Option<Amount>,
    }
}
message! {
    ContainerStats {
        2 cpu: Option<Use>,
        3 memory: Option<Use>,
    }
}
message! {
    StatsAnswer {
        1 stats: Option<ContainerStats>,
    }
}
message! {
    Nothing {
    }
}

message! {
    ImageRequest {
        1 image: Option<ImageName>,
    }
}
