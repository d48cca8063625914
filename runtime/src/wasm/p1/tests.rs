//! Programs in text, run by the host.
