//! What is fuzzed: one plain function for each target. Each fails by panicking.
//!
//! There in tests and with the feature `fuzzing` only. The tests run every target over seeds and mutations of them that
//! are the same each time; `runtime/fuzz` runs them with libFuzzer.

/// Reads some bytes in one way.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("union", union),
    ("compose", compose),
    #[cfg(feature = "plugins")]
    ("plugin", plugin),
];

/// Operations on the union and on a model of it: see there.
pub fn union(data: &[u8]) {
    crate::wasm::fuzz_union(data);
}

/// Linking components whose types contradict each other.
pub fn compose(data: &[u8]) {
    crate::wasm::fuzz_compose(data);
}

/// Values that cross the border to a plugin: see there.
#[cfg(feature = "plugins")]
pub fn plugin(data: &[u8]) {
    crate::wasm::plugins::fuzz::fuzz_plugin(data);
}

#[cfg(test)]
mod tests {
    use super::TARGETS;

    /// How many inputs a target gets here. libFuzzer does what only many more find.
    const INPUTS: u64 = 150;

    /// Bytes that are the same each time.
    fn bytes(seed: u64) -> impl Iterator<Item = u8> {
        let mut state = seed;
        std::iter::repeat_with(move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40).to_le_bytes()[0]
        })
    }

    #[test]
    fn the_union_is_what_its_model_is() {
        let (_, target) = TARGETS[0];
        for seed in 1..=INPUTS {
            target(&bytes(seed).take(4000).collect::<Vec<_>>());
        }
        target(b"");
        target(&[0xff; 300]);
    }

    #[cfg(feature = "plugins")]
    #[test]
    fn whatever_a_plugin_answers_is_a_value_or_a_trap() {
        let (_, target) = TARGETS[2];
        for seed in 1..=INPUTS {
            // Small numbers are places and lengths that can be.
            let small = bytes(seed).zip(bytes(!seed)).enumerate();
            let small = small.map(|(at, (byte, other))| match at % 4 {
                0 => byte,
                1 if other > 200 => byte & 0x3f,
                _ if other > 250 => byte,
                _ => 0,
            });
            target(&small.take(2000).collect::<Vec<_>>());
            target(&bytes(seed).take(300).collect::<Vec<_>>());
        }
        for text in
            ["", "null", "[]", r#"["a",{"name":"x","age":3}]"#, r#"{"ok":[1]}"#, r#"[{"text":"x"},"none"]"#]
        {
            target(text.as_bytes());
        }
    }
}
