//! Runs one of `dhow_images::fuzzing`'s targets under libFuzzer: `images/fuzz/run SECONDS NAME`.

use dhow_images::fuzzing::TARGETS;

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| target);
    target.unwrap_or_else(|| panic!("no target {name}"))(data);
}
