//! What is fuzzed: one plain function for each target. Each fails by panicking.
//!
//! There in tests and with the feature `fuzzing` only. The tests run every target over seeds and mutations of them that
//! are the same each time; `runtime/fuzz` runs them with libFuzzer.

/// Reads some bytes in one way.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 2] = [("union", union), ("compose", compose)];

/// Operations on the union and on a model of it: see there.
pub fn union(data: &[u8]) {
    crate::wasm::fuzz_union(data);
}

/// Linking components whose types contradict each other.
pub fn compose(data: &[u8]) {
    crate::wasm::fuzz_compose(data);
}

#[cfg(test)]
mod tests {
    use super::TARGETS;

    /// How many inputs a target gets here. libFuzzer does what only many more find.
    const INPUTS: u64 = 150;

    #[test]
    fn the_union_is_what_its_model_is() {
        let (_, target) = TARGETS[0];
        for seed in 1..=INPUTS {
            let mut state = seed;
            let bytes = std::iter::repeat_with(|| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40).to_le_bytes()[0]
            });
            target(&bytes.take(4000).collect::<Vec<_>>());
        }
        target(b"");
        target(&[0xff; 300]);
    }
}
