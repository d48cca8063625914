//! Runs one of `dhow_runtime::fuzzing`'s targets under libFuzzer: `runtime/fuzz/run SECONDS NAME`.

use dhow_runtime::fuzzing::TARGETS;

/// Runs the target of this name.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name).map(|(_, target)| target);
    target.unwrap_or_else(|| panic!("no target {name}"))(data);
}
