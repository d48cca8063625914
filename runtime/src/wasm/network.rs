//! What a Wasm program may use of the network: nothing, unless it is listed here.

/// The network of a Wasm task.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {}
