//! What a Wasm program is given beyond the OCI specification, which has no words for it. Everything is denied or
//! unlimited by default: nothing here opens anything unless a caller fills it in.

use super::limits::Limits;
use super::network::Network;
use super::wall::Wall;

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
    /// The export to call instead of the program's main function.
    pub invoke: Option<String>,
}
