//! Components in text, run by the host.
