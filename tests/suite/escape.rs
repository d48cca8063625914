//! Ways out of containers that were once found in other runtimes, engines and builders, each tried here: the table of
//! `docs/security.md`, row by row.
//!
//! What must not happen is seen at a [`harness::Canary`], a folder of the host's; what wins races is a
//! [`harness::Swapper`]. Race loops are short here and as long as `DHOW_ESCAPE_ROUNDS` says elsewhere. `DHOW_TEST_RUNTIME=runc`
//! runs the bundles with the runc that is installed.

mod engine;
mod handles;
mod harness;
mod paths;
mod proc_and_dev;
mod swaps;
mod users;

/// These need root, as what they try to break into belongs to it.
fn skipped() -> bool {
    let root = crate::support::is_root();
    if !root {
        println!("skipped: needs root");
    }
    !root
}
