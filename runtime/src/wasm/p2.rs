//! Components that are commands (`wasi:cli/run`), of WASI 0.2, of 0.3 ([`super::p3`]), and of both: wasmtime's own host
//! for most interfaces, ours for files, streams and timers.
//!
//! ```text
//! link.rs     the interfaces a component imports      driver.rs   running it: with an async runtime or without
//! files.rs    descriptors over the union              clock.rs    timers
//! fs.rs       ... as wasi:filesystem@0.2              stdio.rs    the three streams
//! streams.rs, listing.rs, errno.rs: parts of fs.rs    invoke.rs, wave.rs: calling one function instead
//! ```
//!
//! A component that only reads and writes files and its streams runs without an async runtime, without another thread
//! and without a poll loop. File access blocks: a program has nothing else to do meanwhile.
//!
//! What sockets may be used for is decided by [`super::network`].

use std::sync::Arc;
use std::time::Instant;

use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Engine, Store};
use wasmtime_wasi::{I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView, p2, p3};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use super::create::Guest;
use super::http::outgoing::Hooks;
use super::imports::{Name, Track};
use super::invoke::Entry;
use super::limits::{self, Bounds, Limited, Limiter};
use super::module::invalid;
use super::network::{self, Policy};
use super::stdio::Streams;
use super::task::End;
use crate::error::{Error, Result};

mod clock;
pub(super) mod driver;
mod errno;
pub(super) mod files;
mod fs;
pub(super) mod invoke;
pub(super) mod link;
mod listing;
mod stdio;
mod streams;
#[cfg(test)]
mod tests;
pub(super) mod wave;

pub(super) use clock::{Clock, Timer, View as ClockView, view as clock_view};
pub(super) use driver::new_runtime;
#[cfg(test)]
pub(super) use tests::{on_this_thread, state as test_state};

/// What a component is given, whoever runs it.
pub(super) struct Given {
    pub(super) args: Vec<String>,
    /// `NAME=value`.
    pub(super) env: Vec<String>,
    /// Path of the working directory.
    pub(super) cwd: String,
    pub(super) streams: Streams,
    /// What it may use of the network.
    pub(super) policy: Arc<Policy>,
    /// The file system, if it sees any.
    pub(super) tree: Option<files::Tree>,
    /// How many descriptors it may have open.
    pub(super) descriptors: usize,
}

impl Given {
    /// What a container's program is given.
    pub(super) fn of(guest: &Guest) -> Self {
        Self {
            args: guest.args.clone(),
            env: guest.env.clone(),
            cwd: guest.cwd_path.clone(),
            streams: guest.streams.clone(),
            policy: Arc::clone(&guest.policy),
            tree: Some(files::Tree { union: Arc::clone(&guest.union), preopens: guest.preopens().into() }),
            descriptors: guest.descriptors,
        }
    }
}

/// Everything behind a guest's calls.
pub struct State {
    given: Arc<Given>,
    /// Made at the first call that needs it: many instances never make one.
    wasi: Option<Box<Wasi>>,
    /// The monotonic clock's zero.
    started: Instant,
    limiter: Limiter,
    #[cfg(feature = "plugins")]
    inside: super::plugins::Inside,
}

/// The host's side of WASI.
struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
    files: files::Files,
    http: WasiHttpCtx,
    sender: Hooks,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

impl Limited for State {
    fn limiter(&mut self) -> &mut Limiter {
        &mut self.limiter
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = self.wasi();
        WasiCtxView { ctx: &mut wasi.ctx, table: &mut wasi.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        let wasi = self.wasi();
        WasiHttpCtxView { hooks: &mut wasi.sender, table: &mut wasi.table, ctx: &mut wasi.http }
    }
}

impl State {
    pub(super) fn new(given: Arc<Given>, limiter: Limiter) -> Self {
        Self {
            given,
            wasi: None,
            started: Instant::now(),
            limiter,
            #[cfg(feature = "plugins")]
            inside: Default::default(),
        }
    }

    /// What a plugin has besides.
    #[cfg(feature = "plugins")]
    pub(super) fn inside(&mut self) -> &mut super::plugins::Inside {
        &mut self.inside
    }

    /// What it may use of the network.
    pub(super) fn policy(&self) -> &Arc<Policy> {
        &self.given.policy
    }

    fn wasi(&mut self) -> &mut Wasi {
        self.wasi.get_or_insert_with(|| Box::new(Wasi::new(&self.given)))
    }
}

impl Wasi {
    fn new(given: &Given) -> Self {
        let mut builder = WasiCtxBuilder::new();
        builder.args(&given.args).initial_cwd(&given.cwd);
        for variable in &given.env {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            builder.env(name, value);
        }
        stdio::connect_all(&mut builder, &given.streams);
        network::hosts::govern(&mut builder, &given.policy);
        Self {
            ctx: builder.build(),
            table: ResourceTable::new(),
            files: files::Files::new(given),
            http: WasiHttpCtx::new(),
            sender: Hooks(Arc::clone(&given.policy)),
        }
    }
}

/// A linked component.
pub(super) struct Program {
    command: Command,
    store: Store<State>,
    needs: link::Needs,
    bounds: Bounds,
}

/// A command of either version.
enum Command {
    V2(p2::bindings::CommandPre<State>),
    V3(p3::bindings::CommandPre<State>),
    /// One function instead.
    Call(Box<invoke::Call>),
}

/// Links `component` with this host.
pub(super) fn prepare(engine: &Engine, component: &Component, shown: &str, guest: &Guest) -> Result<Program> {
    let failed = |error: wasmtime::Error| invalid(shown, format!("{error:#}"));
    let mut linker = Linker::<State>::new(engine);
    let needs = link::link(engine, component, shown, &mut linker)?;
    let command = match (&guest.entry, command_track(engine, component)) {
        (Entry::Function(name), _) => {
            let args = guest.args.get(1..).unwrap_or_default();
            let function = invoke::find(engine, component, shown, name, args)?;
            let pre = linker.instantiate_pre(component).map_err(failed)?;
            Command::Call(Box::new(invoke::Call { pre, function, stdout: guest.streams.stdout.clone() }))
        }
        (Entry::Main, Some(track)) => {
            let pre = linker.instantiate_pre(component).map_err(failed)?;
            match track {
                Track::V2 => Command::V2(p2::bindings::CommandPre::new(pre).map_err(failed)?),
                Track::V3 => Command::V3(p3::bindings::CommandPre::new(pre).map_err(failed)?),
            }
        }
        (Entry::Main, None) => return Err(no_command(engine, component, shown)),
    };
    let mut state = State::new(Arc::new(Given::of(guest)), guest.bounds.budget().limiter());
    // While the host may still be asked whether a stream is a terminal.
    state.wasi();
    Ok(Program { command, store: Store::new(engine, state), needs, bounds: guest.bounds.clone() })
}

impl Program {
    /// Runs it to its end.
    pub(super) fn run(self) -> End {
        let Self { command, mut store, needs, bounds } = self;
        let clock = match bounds.arm(&mut store) {
            Ok(clock) => clock,
            Err(error) => return End::Trap(error.into()),
        };
        let waits = clock.as_ref().is_some_and(limits::Clock::has_end);
        let run = async move {
            match command {
                Command::V2(pre) => {
                    let command = pre.instantiate_async(&mut store).await?;
                    command.wasi_cli_run().call_run(&mut store).await
                }
                Command::V3(pre) => {
                    let command = pre.instantiate_async(&mut store).await?;
                    store.run_concurrent(async |store| command.wasi_cli_run().call_run(store).await).await?
                }
                Command::Call(call) => call.run(&mut store).await.map(Ok),
            }
        };
        match driver::block_on(limits::Clock::within(clock.as_ref(), run), needs.runtime || waits) {
            Err(error) => End::Trap(error.into()),
            Ok(Ok(Ok(()))) => End::Exit(0),
            Ok(Ok(Err(()))) => End::Exit(1),
            Ok(Err(error)) => match error.downcast_ref::<I32Exit>() {
                Some(I32Exit(code)) => End::Exit(u32::from_le_bytes(code.to_le_bytes())),
                None => End::Trap(error),
            },
        }
    }
}

/// The version of the `wasi:cli/run` that a component exports; the later one of two.
fn command_track(engine: &Engine, component: &Component) -> Option<Track> {
    let kind = component.component_type();
    let exports = kind.exports(engine).map(|(name, _)| Name::parse(name));
    exports.filter(|name| name.interface == "wasi:cli/run").filter_map(|name| name.track).max()
}

/// The error for imports that nothing provides.
fn unmet(shown: &str, missing: &[String]) -> Error {
    let what = if missing.len() == 1 { "an import" } else { "imports" };
    let mut reason = format!("{what} that nothing here provides: {}", list(missing));
    if let Some(draft) = missing.iter().find(|name| Name::parse(name).is_draft()) {
        let version = draft.rsplit('@').next().unwrap_or_default();
        reason.push_str(&format!(
            "; {version} is a draft of WASI, and only what was released (0.2, 0.3.0) is here"
        ));
    }
    invalid(shown, reason)
}

fn no_command(engine: &Engine, component: &Component, shown: &str) -> Error {
    let kind = component.component_type();
    let names: Vec<_> = kind.exports(engine).map(|(name, _)| name.to_owned()).collect();
    let has = if names.is_empty() { "nothing".to_owned() } else { list(&names) };
    invalid(shown, format!("no command: it exports no wasi:cli/run, but {has}; --invoke calls one function"))
}

/// The first names of a list that a guest made.
fn list(names: &[String]) -> String {
    let mut text = names
        .iter()
        .take(8)
        .map(|name| name.as_str().chars().take(200).collect::<String>())
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 8 {
        text.push_str(", ...");
    }
    text
}
