//! The cases, one file each.

mod native_true;
mod pull;
mod wasm_hello;

use anyhow::Result;

use crate::measure::Contender;
use crate::world::World;

/// Work that can be done in several ways.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// One line for the reader of the figures.
    pub(crate) what: &'static str,
    /// How often each contender runs, unless the user says otherwise.
    pub(crate) runs: usize,
    /// Makes everything ready. The first contender is what ratios refer to.
    pub(crate) prepare: fn(&World) -> Result<Vec<Contender>>,
}

pub(crate) const ALL: [Case; 3] = [wasm_hello::CASE, native_true::CASE, pull::CASE];

pub(crate) fn find(name: &str) -> Option<&'static Case> {
    const CASES: &[Case] = &ALL;
    CASES.iter().find(|case| case.name == name)
}

pub(crate) fn names() -> String {
    ALL.map(|case| case.name).join(" ")
}
