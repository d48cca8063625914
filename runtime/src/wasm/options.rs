//! What a Wasm program is given beyond the OCI specification, which has no words for it. Everything is denied or
//! unlimited by default: nothing here opens anything unless a caller fills it in.

use super::limits::Limits;
use super::network::Network;

/// Dhow's own settings of a Wasm task.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Options {
    /// What it may use of the network.
    pub network: Network,
    /// How much it may use.
    pub limits: Limits,
    /// The export to call instead of the program's main function.
    pub invoke: Option<String>,
}
