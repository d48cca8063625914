//! `containerd-shim-dhow-v1`: containerd's runtime v2 shim, for Wasm and for Linux programs (Linux).
//!
//! ```text
//! containerd ── start ──> this program: makes a socket, leaves a server behind (`start`)
//!            ── ttrpc ──> the server: one process with one thread for all containers of a pod (`server`, `service`)
//!            ── delete ─> this program: removes what a server that died has left (`start`)
//! ```
//! The server holds no container together: those are `dhow_runtime::oci`'s, with their state in a folder of their own. It
//! waits for requests, ends, words of the kernel and bytes of terminals in one `poll`. What may take long or touches much
//! (making a container, starting, joining, removing it) is done by children of it that end right after (`job`), so that it
//! stays small and answers meanwhile; the containers' processes become its own then.
//!
//! It knows no networks, and of images only those that containerd does not unpack (`artifact`): the rest is containerd's.

#[cfg(target_os = "linux")]
mod artifact;
// containerd executes this program twice for each container.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
#[path = "../../cli/src/begin.rs"]
mod begin;
#[cfg(target_os = "linux")]
mod bootstrap;
#[cfg(target_os = "linux")]
mod clock;
#[cfg(target_os = "linux")]
mod error;
#[cfg(target_os = "linux")]
mod flags;
// Its tests call containerd with it, too.
#[cfg(target_os = "linux")]
mod grpc;
#[cfg(target_os = "linux")]
mod hold;
#[cfg(target_os = "linux")]
mod job;
#[cfg(target_os = "linux")]
mod log;
#[cfg(target_os = "linux")]
mod logger;
// Its tests read and write them, too.
#[cfg(target_os = "linux")]
#[path = "messages/messages.rs"]
mod messages;
#[cfg(target_os = "linux")]
mod metrics;
#[cfg(target_os = "linux")]
mod options;
#[cfg(target_os = "linux")]
mod pod;
#[cfg(target_os = "linux")]
mod publisher;
#[cfg(target_os = "linux")]
mod pump;
#[cfg(target_os = "linux")]
mod rootfs;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod server;
#[cfg(target_os = "linux")]
mod service;
#[cfg(target_os = "linux")]
mod start;
#[cfg(target_os = "linux")]
mod streams;
#[cfg(target_os = "linux")]
mod ttrpc;
#[cfg(target_os = "linux")]
mod wire;

use std::process::ExitCode;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    use std::io::Write as _;

    let given = match flags::Flags::parse(std::env::args().skip(1)) {
        Ok(given) => given,
        Err(error) => return fail(&error),
    };
    let said = if given.version {
        Ok(bootstrap::version().into_bytes())
    } else if given.info {
        Ok(bootstrap::info())
    } else {
        match given.verb.as_str() {
            "start" => start::start(&given),
            "delete" => start::delete(&given),
            other => Err(format!("unknown verb {other:?}: this program is started by containerd")),
        }
    };
    match said {
        Ok(said) => {
            // Who cannot be answered has noticed.
            std::io::stdout().write_all(&said).ok();
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error),
    }
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    fail("containerd's shims run on Linux")
}

/// containerd shows what is said on standard error when a shim does not start.
fn fail(why: &str) -> ExitCode {
    use std::io::Write as _;

    writeln!(std::io::stderr(), "containerd-shim-dhow-v1: {why}").ok();
    ExitCode::FAILURE
}
