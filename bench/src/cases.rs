//! The cases, one file each, or one for several that differ in a word.

mod archives;
mod build;
mod density;
mod first_process;
mod http;
mod life;
mod list;
mod native_true;
mod network;
mod oci;
mod pull;
mod push;
mod python;
mod remove;
mod throughput;
mod wasm_cpu;
mod wasm_files;
mod wasm_hello;
mod wasm_large;

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
    /// Makes what is kept between runs of this program and may need the network.
    pub(crate) first: Option<fn()>,
    /// How it is done.
    pub(crate) work: Work,
}

/// What a case does.
pub(crate) enum Work {
    /// Makes everything ready; then whole processes are compared. The first contender is what ratios refer to.
    Compare(fn(&World) -> Result<Vec<Contender>>),
    /// Measures so many times and prints, all by itself.
    Own(fn(&World, usize) -> Result<()>),
}

pub(crate) const ALL: [Case; 37] = [
    wasm_hello::CASE,
    wasm_large::CASE,
    wasm_cpu::CASE,
    wasm_files::LIST,
    wasm_files::WRITE,
    wasm_files::READ,
    wasm_files::SMALL,
    wasm_files::COPY_UP,
    http::CASE,
    density::CASE,
    density::NATIVE,
    native_true::CASE,
    network::CASE,
    network::WASM,
    throughput::CASE,
    oci::RUN,
    oci::DOCKER,
    oci::LIFE,
    pull::DEBIAN,
    pull::GZIP,
    pull::ZSTD,
    pull::TWENTY,
    first_process::CASE,
    push::CASE,
    archives::SAVE,
    archives::LOAD,
    remove::CASE,
    list::CASE,
    life::LIST,
    life::LOGS,
    life::WRITE_LOG,
    life::EXEC,
    life::REMOVE,
    build::COLD,
    build::CACHED,
    build::CONTEXT,
    build::FILES,
];

pub(crate) fn find(name: &str) -> Option<&'static Case> {
    const CASES: &[Case] = &ALL;
    CASES.iter().find(|case| case.name == name)
}

pub(crate) fn names() -> String {
    ALL.map(|case| case.name).join(" ")
}
