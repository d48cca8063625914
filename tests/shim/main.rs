//! `containerd-shim-dhow-v1` behind a private containerd, driven by `ctr`. The shim is a package of its own, so this is a test
//! binary of its own beside the suite.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test ends where something is not as it should be")]
#![expect(clippy::print_stdout, reason = "notes for whoever reads the test's output")]

#[path = "../support/made/made.rs"]
#[allow(dead_code, unused_imports, reason = "shared with the suite, which uses other parts of it")]
mod made;

#[path = "../../shim/src/grpc.rs"]
#[allow(dead_code, reason = "the shim's own, of which tests use less")]
mod grpc;
#[path = "../../shim/src/messages/messages.rs"]
#[allow(dead_code, reason = "the shim's own, of which tests use less")]
mod messages;
#[path = "../../shim/src/wire.rs"]
#[allow(dead_code, reason = "see above")]
mod wire;

mod artifact;
mod cri;
mod deploy;
mod docker;
mod life;
mod phases;
mod protocol;
mod sandbox;
mod support;
mod wasm;
mod websocket;
