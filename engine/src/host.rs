//! What this host offers.

use dhow_images::Platform;

use crate::engine::Engine;

/// This host as `info` shows it.
#[derive(Debug)]
pub struct Host {
    /// Release of the kernel; empty where there is no such thing to ask.
    pub kernel: String,
    /// Native containers run in a user namespace of this user's.
    pub rootless: bool,
    /// What can run here.
    pub executors: Vec<&'static str>,
    /// Platforms in the order in which they are preferred.
    pub platforms: Vec<String>,
}

impl Engine {
    /// Looks at this host.
    pub fn host(&self) -> Host {
        #[cfg(target_os = "linux")]
        {
            Host {
                kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
                rootless: crate::spec::needs_user_namespace(),
                executors: vec!["wasm", "native"],
                platforms: vec![Platform::wasm().to_string(), Platform::host().to_string()],
            }
        }
        #[cfg(not(target_os = "linux"))]
        Host {
            kernel: String::new(),
            rootless: true,
            executors: vec!["wasm"],
            platforms: vec![Platform::wasm().to_string()],
        }
    }
}
