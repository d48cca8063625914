//! What the suite's tests share: private Dhow installations, the command's calls, terminals, a hostile registry,
//! and everything that is [`made`] for them.
//!
//! Nothing here is asserted about Dhow itself, except that a [`Host`] is left consistent by every test.

mod bundle;
mod cli;
mod guest_kernel;
mod host;
mod hostile;
#[path = "made/made.rs"]
#[allow(dead_code, unused_imports, reason = "shared with bench/, which uses other parts of it")]
mod made;
#[allow(dead_code, reason = "shared with the unit tests of dhow-images, which use the rest")]
mod sink;
mod terminal;

pub(crate) use bundle::{Bundle, Called, Runtime};
pub(crate) use cli::{Outcome, Run, Running};
pub(crate) use guest_kernel::{inside_guest_kernel, inside_systemd};
pub(crate) use host::Host;
pub(crate) use hostile::{Answer, Hostile};
#[allow(unused_imports, reason = "what there is for tests, also for those to come")]
pub(crate) use made::{
    Certificates, Containerd, Docker, Image, Layout, Options, Podman, Registry, Squeeze, Tree, busybox,
    debian, differences, digest_of, guest, is_root, listing, native, odd, repository, skopeo, source, tool,
    umoci, until,
};
pub(crate) use sink::{Fault, Manner, Sink};
pub(crate) use terminal::Terminal;

/// Bytes that do not compress.
pub(crate) fn noise(count: u32) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_le_bytes()[5]
    };
    (0..count).map(|_| next()).collect()
}

/// Text without line breaks in which every position is likely to be told from its neighbours.
pub(crate) fn letters(count: usize) -> Vec<u8> {
    b"abcdefghijklmnopqrstuvw".iter().copied().cycle().take(count).collect()
}
