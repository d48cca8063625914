//! How much a Wasm program may use. What the OCI specification has words for (`linux.resources`, `process.rlimits`) is
//! taken from there; this is the rest.

/// Limits of a Wasm task beyond the specification's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {}
