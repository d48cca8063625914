//! One wasmtime configuration, and the two engines made of it.
//!
//! The *run* engine has no compiler: making it costs tens of microseconds, starts no thread and loads code that the
//! *compile* engine made. Only that one has a compiler (and, while it works, one thread per CPU); it exists only when
//! something is not in the cache. Both must agree in everything that [`compatibility`] hashes.
//!
//! Limits of fuel and time need code that counts, a [`Flavor`] of its own in the cache; the plain one has no trace of it
//! and runs at wasmtime's full speed.

use std::hash::Hasher;

use wasmtime::{Config, Engine, WasmBacktraceDetails};

use crate::error::{Error, Result};

/// Counts up whenever something that is not wasmtime's changes what cached code means.
const FORMAT: u32 = 1;

/// What code does besides the guest's work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Flavor {
    /// It counts instructions.
    pub(super) fuel: bool,
    /// It can be interrupted.
    pub(super) epoch: bool,
}

impl Flavor {
    /// How many there are.
    pub(super) const COUNT: usize = 4;

    /// Each one's number, from 0.
    pub(super) fn index(self) -> usize {
        usize::from(self.fuel) + 2 * usize::from(self.epoch)
    }
}

fn config(flavor: Flavor) -> Config {
    let mut config = Config::new();
    config.consume_fuel(flavor.fuel).epoch_interruption(flavor.epoch);
    // Function names only. The default asks the environment, which is not a library's business.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // Nothing but our own backtraces unwinds guests; leaving it out saves its registration with the system at every
    // start. Windows cannot do without.
    if !cfg!(windows) {
        config.native_unwind_info(false);
    }
    // Guest threads would need memory that two threads may change while the host reads it.
    config.wasm_threads(false);
    config.shared_memory(false);
    config
}

/// The engine that runs.
pub(super) fn run(flavor: Flavor) -> Result<Engine> {
    build(config(flavor).enable_compiler(false))
}

/// The engine that compiles.
pub(super) fn compile(flavor: Flavor) -> Result<Engine> {
    build(config(flavor).parallel_compilation(true))
}

/// One that compiles in this thread and runs what it has compiled.
pub(super) fn alone() -> Result<Engine> {
    build(config(Flavor::default()).parallel_compilation(false))
}

/// The engine of a service: it runs the code that is compiled for it, with everything for its instances set aside.
pub(super) fn pooled(flavor: Flavor, settings: wasmtime::PoolingAllocationConfig) -> Result<Engine> {
    let mut config = config(flavor);
    config.enable_compiler(false).allocation_strategy(settings);
    build(&config)
}

fn build(config: &Config) -> Result<Engine> {
    Engine::new(config).map_err(|error| Error::Host {
        what: format!("cannot set up the WebAssembly engine: {error:#}"),
        hint: "this processor or operating system lacks something that wasmtime needs".to_owned(),
    })
}

/// Names everything about `engine` that compiled code depends on, except the processor's features: those are checked
/// when code is loaded.
pub(super) fn compatibility(engine: &Engine) -> String {
    let mut hasher = Stable::default();
    std::hash::Hash::hash(&engine.precompile_compatibility_hash(), &mut hasher);
    hasher.write(&FORMAT.to_le_bytes());
    hasher.write(std::env::consts::ARCH.as_bytes());
    hasher.write(std::env::consts::OS.as_bytes());
    hex(&hasher.0.to_be_bytes())
}

/// FNV-1a of 128 bits, since the standard hasher may change between releases. Nothing hostile goes into it, and asking
/// the processor for what SHA-256 needs costs a virtual machine more than the rest of this file.
struct Stable(u128);

impl Default for Stable {
    fn default() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }
}

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        const PRIME: u128 = 0x0100_0000_0000_0000_0000_013b;
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(PRIME);
        }
    }

    fn finish(&self) -> u64 {
        0
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}
