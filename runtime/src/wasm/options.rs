//! What a Wasm program is given beyond the OCI specification, which has no words for it. Everything is denied or
//! unlimited by default: nothing here opens anything unless a caller fills it in.

use super::limits::Limits;
use super::network::Network;
use super::wall::Wall;
use crate::bundle::Module;

/// Dhow's own settings of a Wasm task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// What it may use of the network.
    pub network: Network,
    /// How much it may use.
    pub limits: Limits,
    /// What this process keeps of its rights while the guest runs, and after: for a process that exists for one guest.
    /// `None` keeps them all.
    pub wall: Option<Wall>,
    /// What puts its layers together.
    pub files: Backing,
    /// The export to call instead of the program's main function.
    pub invoke: Option<String>,
    /// Components that the program is linked with before it runs: what it imports and one of them exports comes from
    /// there. Those first in the list are looked at first.
    pub parts: Vec<Part>,
}

/// A component that a program may be linked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// A file outside the root file system.
    File(Module),
    /// A file of the root file system, by its path.
    InRoot(String),
}

/// What puts the layers of a root file system and its writable directory together.
///
/// The two write down what they change in different forms: a container stays with the one it began with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backing {
    /// The union in this process: the same everywhere, without privilege, and nothing to mount or unmount. Its writable
    /// directory is in OCI's portable form.
    #[default]
    Union,
    /// The kernel's overlay: Linux, and the right to mount. Its writable directory has the kernel's marks.
    Kernel,
}
